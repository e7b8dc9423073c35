//! Each drug with each reaction within the scope, as a record.
//!
//! Two annotations of the same characters on the same side are one mention with the identifiers of both. In sentence
//! scope both mentions lie in one sentence; in passage scope in one passage; in document scope anywhere. The text is
//! that sentence (with [`Options::window`] sentences on each side of it), passage or document; a window given for
//! the wider scopes cuts the text to the sentences from one mention to the other and so many around them. Passages
//! are joined by a line feed. Whitespace around the text is dropped.
//!
//! A label is 1 where the corpus relates the two (`labels`). Relations of concepts hold anywhere in the document, so a 1
//! from a corpus of document-level relations (BC5CDR) does not say that this very sentence states the relation.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::ops::Range;

use serde_json::value::{RawValue, to_raw_value};

use super::candidates::{Candidate, candidates, overlaps};
use super::document::Document;
use super::labels::{Position, Stated, Verdict};
use super::options::{Labels, Options, Overlap, Scope};
use super::record::{self, Fields, Half};
use super::resolve::slice;
use super::sentences::sentences;
use super::summary::Summary;

/// One pair of a document: two candidates and whether the corpus relates them.
struct Pair<'a> {
    drug: &'a Candidate<'a>,
    adr: &'a Candidate<'a>,
    overlap: bool,
    label: Option<bool>,
}

/// Overlapping pairs of a document that are dropped one by one: more than any that is not made to have so many.
pub const MOST_OVERLAPPING: u64 = 1_000_000;

/// Writes each pair of a document, in the order of the drugs and then of the reactions in the text, up to the limits
/// for one document. Returns how many pairs were beyond them.
pub fn write_pairs(
    document: &Document,
    occurrence: u32,
    options: &Options,
    summary: &mut Summary,
    output: &mut dyn Write,
) -> io::Result<u64> {
    let mut drugs = candidates(document, &options.drug_types);
    let mut adrs = candidates(document, &options.adr_types);
    let chosen = document.relations.iter();
    for relation in chosen.filter(|relation| options.chooses(&relation.kind)) {
        summary.chosen_relations += 1;
        summary.qualified_relations += u64::from(relation.qualified);
    }
    if drugs.is_empty() || adrs.is_empty() {
        return Ok(0);
    }
    let split = split_passages(document, &mut drugs, &mut adrs, options);
    let mut stated = Stated::new(document, options, &mut drugs, &mut adrs);
    let labelled = match options.labels {
        Labels::Auto => document.has_relations,
        Labels::All => true,
        Labels::None => false,
    };
    let unit = |candidate: &Candidate<'_>| match options.scope {
        Scope::Sentence => (candidate.passage, candidate.sentence),
        Scope::Passage => (candidate.passage, 0),
        Scope::Document => (0, 0),
    };
    let mut by_unit: BTreeMap<(usize, usize), Range<usize>> = BTreeMap::new();
    for (index, adr) in adrs.iter().enumerate() {
        by_unit.entry(unit(adr)).or_insert(index..index).end = index + 1;
    }
    let mut writer = PairWriter::new(document, occurrence, &split, options);
    let (mut written, mut overlapping, mut dropped) = (0u64, 0u64, 0u64);
    for drug in &drugs {
        let Some(range) = by_unit.get(&unit(drug)) else {
            continue;
        };
        for index in range.clone() {
            if written == options.max_pairs_per_document || overlapping == MOST_OVERLAPPING {
                // Not one by one: a hostile document has as many as its length squared.
                dropped += (range.end - index) as u64;
                break;
            }
            let adr = &adrs[index];
            let overlap = overlaps(drug, adr);
            if overlap && options.overlap == Overlap::Drop {
                overlapping += 1;
                continue;
            }
            written += 1;
            let extent = writer.extent(drug, adr);
            // Asked in any case: it counts which relations have a pair.
            let verdict = stated.of(drug, adr, extent.from, extent.to);
            let verdict = labelled.then_some(verdict);
            summary.count_label(verdict);
            let reaction = slice(&document.passages[adr.passage].text, adr.fragments);
            summary.pairs_of_numbers += u64::from(reaction.starts_with(|c: char| c.is_ascii_digit()));
            let label = verdict.and_then(Verdict::label);
            writer.write(
                &Pair {
                    drug,
                    adr,
                    overlap,
                    label,
                },
                extent,
                output,
            )?;
        }
    }
    summary.relations_without_pair += stated.without_pair(&drugs, &adrs);
    summary.pairs += written;
    summary.pairs_dropped += dropped;
    summary.overlaps_dropped += overlapping;
    Ok(dropped)
}

/// A passage with what is needed to cut texts out of it. Empty where no candidate lies in a passage and no text can
/// end within it.
struct Split {
    sentences: Vec<Range<usize>>,
    /// Code points before each byte that begins one; none for ASCII.
    code_points: Option<Vec<u32>>,
    /// Code points of all passages before it and of what joins them.
    before: u64,
}

fn split_passages<'a>(
    document: &Document,
    drugs: &mut [Candidate<'a>],
    adrs: &mut [Candidate<'a>],
    options: &Options,
) -> Vec<Split> {
    let needs_sentences = options.scope == Scope::Sentence || options.window.is_some();
    let mut splits = Vec::with_capacity(document.passages.len());
    let mut before = 0;
    for (index, passage) in document.passages.iter().enumerate() {
        fn within(of: &[Candidate<'_>], passage: usize) -> Range<usize> {
            let start = of.partition_point(|candidate| candidate.passage < passage);
            start..start + of[start..].partition_point(|candidate| candidate.passage == passage)
        }
        let (drug_range, adr_range) = (within(drugs, index), within(adrs, index));
        let (drugs, adrs) = (&mut drugs[drug_range], &mut adrs[adr_range]);
        // Splitting is the dearest step; most passages of a dump hold no pair.
        let apart = options.scope != Scope::Document && (drugs.is_empty() || adrs.is_empty());
        let sentences = match &passage.sentences {
            Some(sentences) => sentences.clone(),
            None if !needs_sentences || apart => std::iter::once(0..passage.text.len()).collect(),
            None => {
                let hulls: Vec<_> = drugs
                    .iter()
                    .chain(adrs.iter())
                    .map(|candidate| candidate.hull.clone())
                    .collect();
                sentences(&passage.text, &hulls)
            }
        };
        for candidate in drugs.iter_mut().chain(adrs.iter_mut()) {
            candidate.sentence = sentences.partition_point(|sentence| sentence.end <= candidate.hull.start);
        }
        let ascii = passage.text.is_ascii();
        let code_points = (!ascii && !apart).then(|| {
            let mut table = vec![0; passage.text.len() + 1];
            let mut count = 0;
            for (byte, character) in passage.text.char_indices() {
                table[byte] = count;
                count += 1;
                // Also within a character, so that any byte has an answer.
                table[byte + 1..byte + character.len_utf8()].fill(count);
            }
            table[passage.text.len()] = count;
            table
        });
        let length = if ascii {
            passage.text.len()
        } else {
            passage.text.chars().count()
        } as u64;
        splits.push(Split {
            sentences,
            code_points,
            before,
        });
        before += length + 1;
    }
    splits
}

impl Split {
    fn code_point(&self, byte: usize) -> u64 {
        self.code_points
            .as_ref()
            .map_or(byte as u64, |table| u64::from(table[byte]))
    }
}

/// From a byte of one passage to a byte of the same or a later one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Extent {
    from: Position,
    to: Position,
}

struct PairWriter<'a> {
    document: &'a Document,
    occurrence: u32,
    split: &'a [Split],
    options: &'a Options,
    /// The last text as JSON and what it was cut from: many pairs share one.
    text: Option<(Extent, Box<RawValue>)>,
    /// Where texts that begin at a position do without their whitespace, and those that end at one: that may be long.
    starts: HashMap<Position, usize>,
    ends: HashMap<Position, usize>,
    /// The first and the last passage that has more than whitespace.
    whole: (usize, usize),
    line: Vec<u8>,
}

impl<'a> PairWriter<'a> {
    fn new(document: &'a Document, occurrence: u32, split: &'a [Split], options: &'a Options) -> Self {
        let has_text = |passage: &usize| !document.passages[*passage].text.trim().is_empty();
        let mut with_text = (0..document.passages.len()).filter(has_text);
        let first = with_text.next().unwrap_or(0);
        Self {
            whole: (first, with_text.next_back().unwrap_or(first)),
            document,
            occurrence,
            split,
            options,
            text: None,
            starts: HashMap::new(),
            ends: HashMap::new(),
            line: Vec::new(),
        }
    }

    fn write(&mut self, pair: &Pair<'_>, extent: Extent, output: &mut dyn Write) -> io::Result<()> {
        let text = match self.text.take() {
            Some((of, text)) if of == extent => text,
            _ => to_raw_value(&self.cut(extent))?,
        };
        let (first, last) = match pair.drug.passage <= pair.adr.passage {
            true => (pair.drug.passage, pair.adr.passage),
            false => (pair.adr.passage, pair.drug.passage),
        };
        let section = |passage: usize| self.document.passages[passage].section.as_deref();
        let joined;
        let section = match (section(first), section(last)) {
            (Some(one), Some(other)) if one != other => {
                joined = format!("{one}/{other}");
                Some(joined.as_str())
            }
            (one, other) => one.or(other),
        };
        let fields = Fields {
            document: &self.document.id,
            occurrence: self.occurrence,
            section,
            text: &text,
            drug: self.side(pair.drug, extent),
            adr: self.side(pair.adr, extent),
            overlap: pair.overlap,
            label: pair.label,
        };
        let written = record::write(output, &mut self.line, &fields);
        self.text = Some((extent, text));
        written
    }

    fn side<'s>(&self, candidate: &'s Candidate<'_>, extent: Extent) -> Half<'s>
    where
        'a: 's,
    {
        let passage = &self.document.passages[candidate.passage];
        let in_text = |range: &Range<usize>| {
            let at = |byte| self.position(candidate.passage, byte, extent);
            at(range.start)..at(range.end)
        };
        let in_document = |range: &Range<usize>| {
            let at = |byte| passage.in_document(byte, self.split[candidate.passage].code_point(byte));
            at(range.start)..at(range.end)
        };
        let discontinuous = candidate.fragments.len() > 1;
        Half {
            entity: slice(&passage.text, candidate.fragments),
            span: in_text(&candidate.hull),
            fragments: if discontinuous {
                candidate.fragments.iter().map(in_text).collect()
            } else {
                Vec::new()
            },
            document_spans: candidate.fragments.iter().map(in_document).collect(),
            kind: candidate.kind,
            concepts: &candidate.concepts,
        }
    }

    /// What the pair's text is cut from.
    fn extent(&mut self, drug: &Candidate<'_>, adr: &Candidate<'_>) -> Extent {
        let place = |candidate: &Candidate<'_>| (candidate.passage, candidate.sentence);
        let (first, last) = (place(drug).min(place(adr)), place(drug).max(place(adr)));
        let window = match (self.options.scope, self.options.window) {
            (Scope::Sentence, window) => Some(window.unwrap_or(0)),
            (_, window) => window,
        };
        let end_of = |passage: usize| self.document.passages[passage].text.len();
        let (mut from, mut to) = match (window, self.options.scope) {
            (Some(window), _) => {
                let sentences = &self.split[last.0].sentences;
                let last_sentence = last.1.saturating_add(window).min(sentences.len() - 1);
                let first_sentence = &self.split[first.0].sentences[first.1.saturating_sub(window)];
                ((first.0, first_sentence.start), (last.0, sentences[last_sentence].end))
            }
            (None, Scope::Document) => {
                // A mention may be whitespace, in a passage of nothing else.
                let (first, last) = (self.whole.0.min(first.0), self.whole.1.max(last.0));
                ((first, 0), (last, end_of(last)))
            }
            (None, _) => ((first.0, 0), (last.0, end_of(last.0))),
        };
        // Whitespace goes, unless a mention begins or ends with it.
        let limit = |bytes: [Option<usize>; 2]| bytes.into_iter().flatten();
        let at = |candidate: &Candidate<'_>, passage, byte| (candidate.passage == passage).then_some(byte);
        let text = |passage: usize| &self.document.passages[passage].text;
        let trimmed = *self.starts.entry(from).or_insert_with(|| {
            let text = text(from.0);
            text.len() - text[from.1..].trim_start().len()
        });
        let starts = limit([at(drug, from.0, drug.hull.start), at(adr, from.0, adr.hull.start)]);
        from.1 = starts.fold(trimmed, usize::min);
        let trimmed = *self
            .ends
            .entry(to)
            .or_insert_with(|| text(to.0)[..to.1].trim_end().len());
        let ends = limit([at(drug, to.0, drug.hull.end), at(adr, to.0, adr.hull.end)]);
        to.1 = ends.fold(trimmed, usize::max);
        Extent { from, to }
    }

    fn cut(&self, extent: Extent) -> String {
        let (from, to) = (extent.from, extent.to);
        let passages = &self.document.passages;
        if from.0 == to.0 {
            return passages[from.0].text[from.1..to.1.max(from.1)].to_owned();
        }
        let mut text = passages[from.0].text[from.1..].to_owned();
        for passage in &passages[from.0 + 1..to.0] {
            text.push('\n');
            text.push_str(&passage.text);
        }
        text.push('\n');
        text.push_str(&passages[to.0].text[..to.1]);
        text
    }

    /// Code points of the extent's text before a byte of a passage.
    fn position(&self, passage: usize, byte: usize, extent: Extent) -> u64 {
        let (first, start) = extent.from;
        let of_document = |passage: usize, byte| self.split[passage].before + self.split[passage].code_point(byte);
        of_document(passage, byte) - of_document(first, start)
    }
}

#[cfg(test)]
// Fragments are lists of ranges, often of one.
#[allow(clippy::single_range_in_vec_init)]
mod tests;
