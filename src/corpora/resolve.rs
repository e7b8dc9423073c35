//! Stated offsets against the text: in which unit they count, and which of them hold.
//!
//! The BioC specification counts bytes, PubTator and brat count code points, and tools written in Java, JavaScript
//! or C# count UTF-16 units; files do not say which. For each document the first unit in which every mention's
//! words are at its offsets is taken, else the one in which most are. Some writers count from the passage
//! instead of the document, some count a line end of two characters as the one that they read it as; that is tried last. No
//! mention is ever looked for elsewhere than at its offsets.

mod composites;
mod layout;
mod locate;
mod reading;
mod relations;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::document::{Document, Mention, RawDocument, bare_concept, hull};
use super::options::CompositeUse;
use super::report::{CorpusError, Problem, Report};
use super::summary::Summary;
use composites::choose_composites;
use layout::passages;
use locate::best_reading;
pub(super) use reading::LONG_LINE_END;
pub use reading::Reading;
use relations::{aliases, resolve_relations};

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

/// What a mention's bytes cover in its passage's text.
pub(super) fn slice<'a>(text: &'a str, fragments: &[Range<usize>]) -> &'a str {
    &text[hull(fragments)]
}

#[cfg(test)]
mod tests;
