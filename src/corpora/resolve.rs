//! Stated offsets against the text: in which unit they count, and which of them hold.
//!
//! The BioC specification counts bytes, PubTator and brat count code points, and tools written in Java, JavaScript
//! or C# count UTF-16 units; files do not say which. For each document the first unit in which every mention's
//! words are at its offsets is taken, else the one in which most are. Some writers count from the passage
//! instead of the document, some count a line end of two characters as the one that they read it as; that is tried last. No
//! mention is ever looked for elsewhere than at its offsets.

mod layout;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use super::document::{
    Composite, Document, Endpoint, Mention, NOWHERE, RawDocument, RawEndpoint, RawMention, Relation, Unit,
    bare_concept, hull, split_concepts,
};
use super::options::CompositeUse;
use super::report::{CorpusError, Problem, Reason, Report};
use super::summary::Summary;
use crate::words::{quoted, shortened};
use layout::{passages, separator};

/// How a document's offsets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub unit: Unit,
    /// They count from the passage's beginning, not from the document's.
    pub passage_relative: bool,
    /// They count `\r\n` as one: of a file that was read in text mode, or has become one of Windows since.
    pub short_line_ends: bool,
}

/// What a file of Windows has, and whoever reads it as text sees as `\n`.
pub(super) const LONG_LINE_END: &str = "\r\n";

/// A checked document and how it was read.
#[derive(Debug)]
pub struct Resolved {
    pub document: Document,
    /// None where no mention tells.
    pub reading: Option<Reading>,
}

/// Checks all mentions of a document. What does not hold is reported and left out; an error ends the run.
pub fn resolve(
    raw: RawDocument,
    composite: CompositeUse,
    summary: &mut Summary,
    report: &mut dyn Report,
) -> Result<Resolved, CorpusError> {
    let mut raw = raw;
    // Of all mentions: what becomes of one is told with it.
    let concepts: HashSet<String> = match raw.relations.is_empty() {
        true => HashSet::new(),
        false => {
            let concepts = raw.mentions.iter().flat_map(|mention| &mention.concepts);
            concepts.map(|concept| bare_concept(concept).to_owned()).collect()
        }
    };
    choose_composites(&mut raw.mentions, composite, summary);
    summary.other_relations += raw.other_relations;
    summary.triggers_left_out += raw.triggers.len() as u64;
    summary.mentions += raw.mentions.len() as u64;
    for mention in &raw.mentions {
        summary.mention_types.add(&mention.kind);
    }
    let (reading, found) = best_reading(&raw);
    let mut keys: HashMap<String, Option<usize>> = HashMap::new();
    let mut mentions = Vec::with_capacity(raw.mentions.len());
    for (mention, found) in std::mem::take(&mut raw.mentions).into_iter().zip(found) {
        let index = match found {
            Ok((passage, fragments)) => {
                mentions.push(Mention {
                    passage,
                    fragments,
                    kind: mention.kind,
                    concepts: mention.concepts,
                });
                Some(mentions.len() - 1)
            }
            Err(miss) => {
                *summary.unresolved.entry(miss.reason()).or_default() += 1;
                let place = raw.place.at(mention.line);
                report.report(Problem::new(place, miss.reason(), miss.message(&mention)))?;
                None
            }
        };
        let own = Some(mention.key).filter(|key| !key.is_empty());
        for key in mention.aliases.into_iter().chain(own) {
            // A key that comes twice names neither.
            keys.entry(key).and_modify(|known| *known = None).or_insert(index);
        }
    }
    summary.resolved += mentions.len() as u64;
    let has_relations = !raw.relations.is_empty() || !raw.lost_relations.is_empty();
    summary.relations += raw.lost_relations.len() as u64;
    summary.relations_unresolved += raw.lost_relations.len() as u64;
    let mut unresolved_relations = std::mem::take(&mut raw.lost_relations).into_iter().collect();
    let relations = resolve_relations(&mut raw, &keys, &concepts, &mut unresolved_relations, summary, report)?;
    let aliases = aliases(&raw.equivalents, &keys);
    let document = Document {
        passages: passages(raw.passages, reading),
        id: raw.id,
        place: raw.place,
        mentions,
        relations,
        aliases,
        unresolved_relations,
        has_relations,
    };
    Ok(Resolved { document, reading })
}

/// Leaves either composite mentions or their parts. What relations say of parts that are left out, they say of the whole.
fn choose_composites(mentions: &mut Vec<RawMention>, composite: CompositeUse, summary: &mut Summary) {
    let wholes = Wholes::of(mentions);
    let mut left_out = vec![false; mentions.len()];
    // By where parts are, so that many at one place are looked up once: the whole that stands for them.
    let mut whole_of: HashMap<Extent, Option<usize>> = HashMap::new();
    // What each whole names, while it is given its parts' names.
    let mut named: HashMap<usize, HashSet<String>> = HashMap::new();
    for part in 0..mentions.len() {
        if mentions[part].composite != Composite::Part {
            continue;
        }
        let at = extent(&mentions[part]);
        let whole = *whole_of.entry(at).or_insert_with(|| {
            let around = wholes.around(at);
            match composite {
                CompositeUse::Whole => around.filter_map(|wholes| wholes.first().copied()).min(),
                CompositeUse::Parts => {
                    for wholes in around {
                        // All of one place or none.
                        if wholes.first().is_some_and(|&first| !left_out[first]) {
                            wholes.iter().for_each(|&whole| left_out[whole] = true);
                        }
                    }
                    None
                }
            }
        });
        let Some(whole) = whole else { continue };
        left_out[part] = true;
        let key = std::mem::take(&mut mentions[part].key);
        let aliases = std::mem::take(&mut mentions[part].aliases);
        let concepts = std::mem::take(&mut mentions[part].concepts);
        let whole_mention = &mut mentions[whole];
        whole_mention.aliases.extend(Some(key).filter(|key| !key.is_empty()));
        whole_mention.aliases.extend(aliases);
        let named = named.entry(whole);
        let named = named.or_insert_with(|| whole_mention.concepts.iter().cloned().collect());
        let new = concepts.into_iter().filter(|concept| named.insert(concept.clone()));
        whole_mention.concepts.extend(new);
    }
    summary.composites_left_out += left_out.iter().filter(|&&left_out| left_out).count() as u64;
    let mut left_out = left_out.into_iter();
    mentions.retain(|_| !left_out.next().unwrap_or(false));
}

/// Where a mention begins and ends; offsets of two passages may both count from the passage, so with its passage.
type Extent = (Option<(usize, usize)>, u64, u64);

fn extent(mention: &RawMention) -> Extent {
    let start = mention.spans.iter().map(|span| span.0).min().unwrap_or(0);
    let end = mention.spans.iter().map(|span| span.1).max().unwrap_or(0);
    (mention.home, start, end)
}

/// Places of composite mentions among which those around a part are looked for: nobody nests more.
const MOST_AROUND: usize = 1000;

/// Composite mentions by where they are, those at one place in order.
struct Wholes {
    at: BTreeMap<Extent, At>,
}

#[derive(Default)]
struct At {
    wholes: Vec<usize>,
    /// How far these or any before them in their passage reach.
    reach: u64,
}

impl Wholes {
    fn of(mentions: &[RawMention]) -> Self {
        let mut at: BTreeMap<Extent, At> = BTreeMap::new();
        for (index, mention) in mentions.iter().enumerate() {
            if mention.composite == Composite::Whole {
                at.entry(extent(mention)).or_default().wholes.push(index);
            }
        }
        let mut before: Option<(Option<(usize, usize)>, u64)> = None;
        for (extent, at) in &mut at {
            let same_passage = before.filter(|before| before.0 == extent.0);
            at.reach = same_passage.map_or(extent.2, |(_, furthest)| furthest.max(extent.2));
            before = Some((extent.0, at.reach));
        }
        Self { at }
    }

    /// Those that hold all of `(home, start, end)`, of the nearest that begin before it.
    fn around(&self, (home, start, end): Extent) -> impl Iterator<Item = &Vec<usize>> {
        let begun = self.at.range((home, 0, 0)..=(home, start, u64::MAX)).rev();
        let near = begun.take(MOST_AROUND).take_while(move |(_, at)| at.reach >= end);
        near.filter(move |(extent, _)| extent.2 >= end)
            .map(|(_, at)| &at.wholes)
    }
}

/// Why a mention's offsets do not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Miss {
    Empty,
    NoText,
    Outside,
    Mismatch(String),
}

impl Miss {
    fn reason(&self) -> Reason {
        match self {
            Miss::Empty => Reason::EmptyMention,
            Miss::NoText => Reason::MissingText,
            Miss::Outside => Reason::OutsideText,
            Miss::Mismatch(_) => Reason::TextMismatch,
        }
    }

    fn message(&self, mention: &RawMention) -> String {
        let text = quoted(mention.text.as_deref().unwrap_or_default());
        let spans: Vec<String> = mention
            .spans
            .iter()
            .take(4)
            .map(|&(start, end)| match start {
                NOWHERE => "no offset of at least 0".to_owned(),
                start => format!("{start}-{end}"),
            })
            .collect();
        let spans = match spans.is_empty() {
            true => "no place".to_owned(),
            false => spans.join(" "),
        };
        let kind = quoted(&mention.kind);
        match self {
            Miss::Empty => format!("{kind} mention at {spans}: expected characters, found none or whitespace alone"),
            Miss::NoText => {
                format!("{kind} mention at {spans}: expected its words to check the offsets with, found none")
            }
            Miss::Outside => format!("{kind} mention {text}: expected offsets within one passage, found {spans}"),
            Miss::Mismatch(found) => format!(
                "{kind} mention at {spans}: expected {text}, found {} in the text",
                quoted(found)
            ),
        }
    }
}

type Found = Result<(usize, Vec<Range<usize>>), Miss>;

/// The reading under which most mentions hold, and where they then are.
fn best_reading(raw: &RawDocument) -> (Option<Reading>, Vec<Found>) {
    let blocks = || raw.passages.iter().flat_map(|passage| &passage.blocks);
    let ascii = blocks().all(|block| block.text.is_ascii());
    let units: &[Unit] = if ascii {
        &[Unit::CodePoint]
    } else {
        &[Unit::CodePoint, Unit::Utf16, Unit::Byte]
    };
    let may_be_relative = blocks().any(|block| block.offset.unwrap_or(0) > 0)
        && raw.mentions.iter().any(|mention| mention.home.is_some());
    let has_long_line_ends = blocks().any(|block| block.text.contains(LONG_LINE_END));
    let mut best: Option<(Reading, Vec<Found>, usize)> = None;
    for (short_line_ends, passage_relative) in [(false, false), (false, true), (true, false), (true, true)] {
        if passage_relative && !may_be_relative || short_line_ends && !has_long_line_ends {
            continue;
        }
        for &unit in units {
            let reading = Reading {
                unit,
                passage_relative,
                short_line_ends,
            };
            let found = locate_all(raw, reading);
            let hits = found.iter().filter(|found| found.is_ok()).count();
            if best.as_ref().is_none_or(|(_, _, most)| hits > *most) {
                best = Some((reading, found, hits));
            }
            if hits == raw.mentions.len() {
                break;
            }
        }
        if best.as_ref().is_some_and(|(_, _, most)| *most == raw.mentions.len()) {
            break;
        }
    }
    match best {
        Some((reading, found, hits)) => ((hits > 0).then_some(reading), found),
        None => (None, Vec::new()),
    }
}

/// A block's text with a way from offsets to bytes.
struct Placed<'a> {
    passage: usize,
    text: &'a str,
    /// Of the block in the passage's text, in bytes.
    shift: usize,
    base: u64,
    /// Byte of each offset, [`usize::MAX`] within a character; none where offsets are bytes.
    table: Option<Vec<usize>>,
    reading: Reading,
}

impl<'a> Placed<'a> {
    fn new(text: &'a str, reading: Reading) -> Self {
        let unit = reading.unit;
        let is_short = |at: usize| reading.short_line_ends && text[at..].starts_with(LONG_LINE_END);
        let table = match unit {
            // Bytes are what counts.
            _ if text.is_ascii() && !reading.short_line_ends => None,
            Unit::Byte if !reading.short_line_ends => None,
            _ => {
                let mut table = Vec::with_capacity(text.len() + 1);
                let mut characters = text.char_indices();
                while let Some((byte, character)) = characters.next() {
                    table.push(byte);
                    let length = match unit {
                        Unit::CodePoint => 1,
                        Unit::Utf16 => character.len_utf16(),
                        Unit::Byte => character.len_utf8(),
                    };
                    table.extend(std::iter::repeat_n(usize::MAX, length - 1));
                    if is_short(byte) {
                        characters.next();
                    }
                }
                table.push(text.len());
                Some(table)
            }
        };
        Self {
            passage: 0,
            text,
            shift: 0,
            base: 0,
            table,
            reading,
        }
    }

    /// In the unit.
    fn length(&self) -> u64 {
        self.table.as_ref().map_or(self.text.len(), |table| table.len() - 1) as u64
    }

    fn byte(&self, offset: u64) -> Option<usize> {
        let offset = usize::try_from(offset.checked_sub(self.base)?).ok()?;
        let byte = match &self.table {
            Some(table) => *table.get(offset)?,
            None => offset,
        };
        self.text.is_char_boundary(byte).then_some(byte)
    }
}

fn locate_all(raw: &RawDocument, reading: Reading) -> Vec<Found> {
    let mut blocks: Vec<Placed<'_>> = Vec::new();
    // Where a passage's blocks begin.
    let mut first = Vec::with_capacity(raw.passages.len());
    let mut next_base = 0u64;
    for (index, passage) in raw.passages.iter().enumerate() {
        first.push(blocks.len());
        let mut shift = 0;
        for (number, block) in passage.blocks.iter().enumerate() {
            let mut placed = Placed::new(&block.text, reading);
            placed.passage = index;
            placed.shift = shift;
            placed.base = match (reading.passage_relative, block.offset) {
                (true, offset) => offset
                    .unwrap_or(0)
                    .saturating_sub(passage.blocks[0].offset.unwrap_or(0)),
                (false, Some(offset)) => offset,
                (false, None) => next_base,
            };
            next_base = placed.base.saturating_add(placed.length()).saturating_add(1);
            shift += block.text.len() + separator(passage, number, reading.unit);
            blocks.push(placed);
        }
    }
    let mut by_base: Vec<usize> = (0..blocks.len()).collect();
    by_base.sort_by_key(|&index| blocks[index].base);
    let locate = |mention: &RawMention| -> Found {
        let (Some(start), Some(end)) = (
            mention.spans.iter().map(|span| span.0).min(),
            mention.spans.iter().map(|span| span.1).max(),
        ) else {
            return Err(Miss::Empty);
        };
        let block = match mention.home {
            Some((passage, block)) => first.get(passage).and_then(|&first| blocks.get(first + block)),
            None => {
                let above = by_base.partition_point(|&index| blocks[index].base <= start);
                // Blocks may overlap in a damaged document; a few are tried, not all for each mention.
                let tried = by_base[above.saturating_sub(8)..above]
                    .iter()
                    .rev()
                    .map(|&index| &blocks[index]);
                tried
                    .into_iter()
                    .find(|block| end <= block.base.saturating_add(block.length()))
            }
        };
        locate_in(block.ok_or(Miss::Outside)?, mention)
    };
    raw.mentions.iter().map(locate).collect()
}

/// How much of what is found at a mention's place is kept for a message: pieces, and characters of each.
const MOST_SLICES: usize = 8;
const SHOWN: usize = 100;
/// Bytes of white space in a discontinuous mention, besides what its words have.
const MOST_SPACE: usize = 1000;

fn locate_in(block: &Placed<'_>, mention: &RawMention) -> Found {
    let expected = match mention.text.as_deref() {
        None | Some("") => return Err(Miss::NoText),
        Some(text) => text,
    };
    let mut fragments = Vec::with_capacity(mention.spans.len());
    for &(start, end) in &mention.spans {
        if end <= start {
            return Err(Miss::Empty);
        }
        let (Some(start), Some(end)) = (block.byte(start), block.byte(end)) else {
            let inside = start >= block.base && end <= block.base.saturating_add(block.length());
            return Err(match inside && block.reading.unit != Unit::CodePoint {
                true => Miss::Mismatch("part of a character".to_owned()),
                false => Miss::Outside,
            });
        };
        fragments.push(start..end);
    }
    // brat gives a discontinuous mention's words in the order in which it states the places, others in that of the text.
    let is_right = |fragments: &[Range<usize>]| {
        let slices: Vec<&str> = fragments.iter().map(|fragment| &block.text[fragment.clone()]).collect();
        same_words(&slices, expected, block.reading.short_line_ends)
    };
    let as_stated = is_right(&fragments);
    fragments.sort_by_key(|fragment| (fragment.start, fragment.end));
    let slices: Vec<&str> = fragments.iter().map(|fragment| &block.text[fragment.clone()]).collect();
    if !as_stated && !is_right(&fragments) {
        // Of many mentions, each over all of a text, that would be many times the text.
        let shown = slices.iter().take(MOST_SLICES).map(|slice| shortened(slice, SHOWN));
        return Err(Miss::Mismatch(shown.collect::<Vec<_>>().join(" … ")));
    }
    if slices.iter().all(|slice| slice.trim().is_empty()) {
        return Err(Miss::Empty);
    }
    merge_adjacent(&mut fragments);
    for fragment in &mut fragments {
        *fragment = fragment.start + block.shift..fragment.end + block.shift;
    }
    Ok((block.passage, fragments))
}

/// Whether the slices are the words. Whitespace is one kind: brat writes a line end as a space, and with `short_line_ends` one
/// of two characters is one. Between the pieces of a discontinuous mention it may be there or not. Looks at no more of a slice
/// than differs: many mentions may each be over all of a text.
fn same_words(slices: &[&str], expected: &str, short_line_ends: bool) -> bool {
    match slices {
        [slice] if *slice == expected => true,
        [slice] => {
            let space = |c: char| if c.is_whitespace() { ' ' } else { c };
            let counts = |&(at, _): &(usize, char)| !(short_line_ends && slice[at..].starts_with(LONG_LINE_END));
            let counted = slice.char_indices().filter(counts).map(|(_, c)| space(c));
            counted.eq(expected.chars().map(space))
        }
        // White space that the words lack is passed over, but not a text of it for each of many mentions.
        _ if slices.iter().map(|slice| slice.len()).sum::<usize>() > 4 * expected.len() + MOST_SPACE => false,
        _ => {
            let words = slices
                .iter()
                .flat_map(|slice| slice.chars())
                .filter(|c| !c.is_whitespace());
            words.eq(expected.chars().filter(|c| !c.is_whitespace()))
        }
    }
}

/// Fragments that touch or overlap become one: a mention broken at a line end is not discontinuous.
fn merge_adjacent(fragments: &mut Vec<Range<usize>>) {
    fragments.dedup_by(|next, previous| {
        let touches = next.start <= previous.end;
        if touches {
            previous.end = previous.end.max(next.end);
        }
        touches
    });
}

fn resolve_relations(
    raw: &mut RawDocument,
    keys: &HashMap<String, Option<usize>>,
    concepts: &HashSet<String>,
    unresolved: &mut BTreeSet<String>,
    summary: &mut Summary,
    report: &mut dyn Report,
) -> Result<Vec<Relation>, CorpusError> {
    let mut relations = Vec::with_capacity(raw.relations.len());
    'relations: for relation in std::mem::take(&mut raw.relations) {
        summary.relations += 1;
        summary.relation_types.add(&relation.kind);
        let mut ends = Vec::with_capacity(2);
        for end in &relation.ends {
            let of_concepts = |field: &str, expected: &str| {
                let named = split_concepts(field);
                match named.iter().any(|concept| concepts.contains(bare_concept(concept))) {
                    true => Ok(Endpoint::Concepts(named)),
                    false => Err(format!("{expected} {}, found none", quoted(field))),
                }
            };
            let end = match end {
                RawEndpoint::Concepts(field) => of_concepts(field, "a mention with the identifier"),
                RawEndpoint::Mention(key) => match keys.get(key) {
                    Some(Some(index)) => Ok(Endpoint::Mention(*index)),
                    Some(None) => Err(format!(
                        "one mention {}, found one that was left out, or several",
                        quoted(key)
                    )),
                    // BioC written from PubTator puts identifiers where references to annotations belong.
                    None => of_concepts(key, "a mention"),
                },
            };
            match end {
                Ok(end) => ends.push(end),
                Err(message) => {
                    let message = format!("{} relation: expected {message}", quoted(&relation.kind));
                    summary.relations_unresolved += 1;
                    report.report(Problem::new(
                        raw.place.at(relation.line),
                        Reason::DanglingRelation,
                        message,
                    ))?;
                    unresolved.insert(relation.kind);
                    continue 'relations;
                }
            }
        }
        if let Ok(ends) = <[Endpoint; 2]>::try_from(ends) {
            relations.push(Relation {
                kind: relation.kind,
                ends,
                qualified: relation.qualified,
            });
        }
    }
    Ok(relations)
}

/// Mentions of sets of equivalents, each with the first of its set; sets that share a mention are one.
fn aliases(sets: &[Vec<String>], keys: &HashMap<String, Option<usize>>) -> BTreeMap<usize, usize> {
    fn first(aliases: &mut BTreeMap<usize, usize>, mention: usize) -> usize {
        let mut first = mention;
        while let Some(&earlier) = aliases.get(&first) {
            first = earlier;
        }
        // So that chains stay short.
        let mut next = mention;
        while next != first {
            next = aliases.insert(next, first).unwrap_or(first);
        }
        first
    }
    let mut aliases = BTreeMap::new();
    for set in sets {
        let members = set.iter().filter_map(|key| keys.get(key).copied().flatten());
        members.reduce(|one, other| {
            let (one, other) = (first(&mut aliases, one), first(&mut aliases, other));
            if one != other {
                aliases.insert(one.max(other), one.min(other));
            }
            one.min(other)
        });
    }
    let mentions: Vec<usize> = aliases.keys().copied().collect();
    for mention in mentions {
        first(&mut aliases, mention);
    }
    aliases
}

/// What a mention's bytes cover in its passage's text.
pub(super) fn slice<'a>(text: &'a str, fragments: &[Range<usize>]) -> &'a str {
    &text[hull(fragments)]
}

#[cfg(test)]
mod tests;
