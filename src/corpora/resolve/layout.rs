//! Passages as texts: their blocks put together, and the place of each in the document.

use super::reading::Reading;
use crate::corpora::document::{Passage, RawPassage, Unit};

/// How many spaces there are between a block and the next of its passage when they are put together: as many as their
/// offsets say, so that these hold in the passage's text, unless that is no space between sentences.
pub(super) fn separator(passage: &RawPassage, number: usize, unit: Unit) -> usize {
    const MOST: u64 = 16;
    let gap = gap(passage, number, unit).filter(|gap| *gap <= MOST);
    gap.map_or(1, |gap| gap as usize)
}

/// How far a block and the next of its passage are apart by their offsets.
fn gap(passage: &RawPassage, number: usize, unit: Unit) -> Option<u64> {
    let (block, next) = (passage.blocks.get(number)?, passage.blocks.get(number + 1)?);
    let end = block.offset?.checked_add(unit.length(&block.text))?;
    next.offset?.checked_sub(end)
}

/// Passages with the place of each in the document, in code points: as stated where that makes sense.
pub(super) fn passages(raw: Vec<RawPassage>, reading: Option<Reading>) -> Vec<Passage> {
    let may_state = reading
        .is_none_or(|reading| reading.unit == Unit::CodePoint && !reading.passage_relative && !reading.short_line_ends);
    let mut passages = Vec::with_capacity(raw.len());
    let mut stated = Vec::with_capacity(raw.len());
    let (mut next, mut stated_end, mut ascending) = (0u64, 0u64, true);
    for passage in raw {
        let offset = passage.blocks.first().and_then(|block| block.offset);
        let unit = reading.map_or(Unit::CodePoint, |reading| reading.unit);
        let mut text = String::new();
        let mut ranges = Vec::with_capacity(passage.blocks.len());
        let (mut gaps, mut further) = (Vec::new(), 0u64);
        for (number, block) in passage.blocks.iter().enumerate() {
            ranges.push(text.len()..text.len() + block.text.len());
            text += &block.text;
            if number + 1 < passage.blocks.len() {
                let spaces = separator(&passage, number, unit);
                text.extend(std::iter::repeat_n(' ', spaces));
                if let Some(more) = gap(&passage, number, unit).and_then(|gap| gap.checked_sub(spaces as u64))
                    && more > 0
                {
                    further = further.saturating_add(more);
                    gaps.push((text.len(), further));
                }
            }
        }
        let sentences = passage.blocks_are_sentences.then_some(ranges);
        let length = text.chars().count() as u64;
        let offset = offset.unwrap_or(next);
        ascending &= offset >= stated_end && offset <= i64::MAX as u64;
        stated_end = offset.saturating_add(length).saturating_add(further);
        ascending &= stated_end <= i64::MAX as u64;
        stated.push(offset);
        passages.push(Passage {
            section: passage.section,
            text,
            start: next,
            sentences,
            gaps,
        });
        next += length + 1;
    }
    for (passage, start) in passages.iter_mut().zip(stated) {
        match may_state && ascending {
            true => passage.start = start,
            false => passage.gaps.clear(),
        }
    }
    passages
}
