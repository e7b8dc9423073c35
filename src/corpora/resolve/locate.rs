//! Where mentions are in the text, by the reading under which most of them hold.

use std::ops::Range;

use super::layout::separator;
use super::reading::{LONG_LINE_END, Reading};
use crate::corpora::document::{NOWHERE, RawDocument, RawMention, Unit};
use crate::corpora::report::Reason;
use crate::words::{quoted, shortened};

/// Why a mention's offsets do not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    Empty,
    NoText,
    Outside,
    Mismatch(String),
}

impl Miss {
    pub fn reason(&self) -> Reason {
        match self {
            Miss::Empty => Reason::EmptyMention,
            Miss::NoText => Reason::MissingText,
            Miss::Outside => Reason::OutsideText,
            Miss::Mismatch(_) => Reason::TextMismatch,
        }
    }

    pub fn message(&self, mention: &RawMention) -> String {
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

pub type Found = Result<(usize, Vec<Range<usize>>), Miss>;

/// The reading under which most mentions hold, and where they then are.
pub fn best_reading(raw: &RawDocument) -> (Option<Reading>, Vec<Found>) {
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
