//! The mentions that become the two sides of pairs.

use std::collections::HashSet;
use std::ops::Range;

use super::document::{Document, Mention, bare_concept};
use super::options::TypeSet;

/// Mentions of one side with the same characters.
pub(super) struct Candidate<'a> {
    pub passage: usize,
    pub fragments: &'a [Range<usize>],
    pub hull: Range<usize>,
    pub kind: &'a str,
    pub concepts: Vec<&'a str>,
    /// Of the document.
    pub mentions: Vec<usize>,
    pub keys: HashSet<Key<'a>>,
    /// Numbers of what it is called, where that matters: `labels` fills them in.
    pub names: Vec<usize>,
    /// Number of those keys that relations name, 0 for none: `labels` fills it in.
    pub named_keys: usize,
    pub sentence: usize,
}

/// What relations name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key<'a> {
    Concept(&'a str),
    /// Of mentions that are aliases, the first.
    Mention(usize),
}

/// Mentions of these types by place, those of the same characters as one.
pub(super) fn candidates<'a>(document: &'a Document, types: &TypeSet) -> Vec<Candidate<'a>> {
    let mut chosen: Vec<(usize, &Mention)> = document
        .mentions
        .iter()
        .enumerate()
        .filter(|(_, mention)| types.contains(&mention.kind))
        .collect();
    let order = |mention: &Mention| {
        let hull = mention.hull();
        (mention.passage, hull.start, hull.end)
    };
    chosen.sort_by(|(i, a), (j, b)| {
        let ends = |mention: &Mention| {
            mention
                .fragments
                .iter()
                .map(|range| (range.start, range.end))
                .collect::<Vec<_>>()
        };
        order(a)
            .cmp(&order(b))
            .then_with(|| ends(a).cmp(&ends(b)))
            .then(i.cmp(j))
    });
    let mut candidates: Vec<Candidate<'a>> = Vec::with_capacity(chosen.len());
    for (index, mention) in chosen {
        let same = candidates
            .last_mut()
            .filter(|last| last.passage == mention.passage && last.fragments == mention.fragments);
        let candidate = match same {
            Some(last) => last,
            None => {
                candidates.push(Candidate {
                    passage: mention.passage,
                    fragments: &mention.fragments,
                    hull: mention.hull(),
                    kind: &mention.kind,
                    concepts: Vec::new(),
                    mentions: Vec::new(),
                    keys: HashSet::new(),
                    names: Vec::new(),
                    named_keys: 0,
                    sentence: 0,
                });
                let last = candidates.len() - 1;
                &mut candidates[last]
            }
        };
        candidate.mentions.push(index);
        candidate.keys.insert(Key::Mention(document.first_alias(index)));
        for concept in &mention.concepts {
            if candidate.keys.insert(Key::Concept(bare_concept(concept))) {
                candidate.concepts.push(concept);
            }
        }
    }
    candidates
}

/// Whether the two have characters in common.
pub(super) fn overlaps(drug: &Candidate<'_>, adr: &Candidate<'_>) -> bool {
    let (mut ones, mut others) = (drug.fragments, adr.fragments);
    // Both ascend: whichever ends first meets nothing that comes after the other.
    while let ([one, next_ones @ ..], [other, next_others @ ..]) = (ones, others) {
        if one.start < other.end && other.start < one.end {
            return drug.passage == adr.passage;
        }
        match one.end <= other.end {
            true => ones = next_ones,
            false => others = next_others,
        }
    }
    false
}
