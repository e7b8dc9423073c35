//! Counts of a run, for a person and for a machine.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::document::Unit;
use super::labels::{Unlabelled, Verdict};
use super::report::Reason;
use crate::words::counted;

/// Distinct type names that are kept; a corpus that makes one up for every mention must not fill memory.
const MAX_NAMES: usize = 1000;
/// What is kept of each; longer ones that begin alike count as one.
const MAX_CHARACTERS: usize = 100;

/// What a run read, wrote and left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub files: u64,
    pub documents: u64,
    /// Documents whose identifier came before; the `id`s of their pairs end in `~2`, `~3`, …
    pub repeated_documents: u64,
    pub mentions: u64,
    pub resolved: u64,
    /// Relations of one mention, or of relations and events.
    pub other_relations: u64,
    /// Annotations that say where an event is, and are no mentions.
    pub triggers_left_out: u64,
    /// Parts of composite mentions, left out for the whole (or the other way round).
    pub composites_left_out: u64,
    pub relations: u64,
    pub relations_unresolved: u64,
    pub pairs: u64,
    /// Pairs whose reaction begins with a digit, as doses do.
    pub pairs_of_numbers: u64,
    /// Pairs with label 1, with label 0, and without.
    pub labels: [u64; 3],
    /// Of those with label 1, pairs that the corpus does not name, of the same two names as one in their text that it does.
    pub labelled_by_name: u64,
    /// Pairs without a label in documents with relations.
    pub labels_left_out: BTreeMap<Unlabelled, u64>,
    /// Pairs beyond the limit for one document.
    pub pairs_dropped: u64,
    /// Pairs left out since their mentions overlap.
    pub overlaps_dropped: u64,
    /// Mentions not resolved, by reason.
    pub unresolved: BTreeMap<Reason, u64>,
    /// All that was reported, by reason.
    pub problems: BTreeMap<Reason, u64>,
    pub mention_types: Names,
    pub relation_types: Names,
    /// Documents by the unit of their offsets, where a character outside of ASCII tells.
    pub units: BTreeMap<Unit, u64>,
    /// Documents whose offsets count from their passage instead of the document.
    pub passage_relative: u64,
    /// Documents whose offsets count a line end of two characters as one.
    pub short_line_ends: u64,
    /// Relations of chosen types.
    pub chosen_relations: u64,
    /// Of these, those between a drug and a reaction that no pair is of, since they are too far apart or pairs are left out.
    pub relations_without_pair: u64,
    /// Of these, the negated or speculated ones.
    pub qualified_relations: u64,
}

/// Names with how often each came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    counts: BTreeMap<String, u64>,
    more: u64,
}

impl Names {
    pub fn add(&mut self, name: &str) {
        let name = match name.char_indices().nth(MAX_CHARACTERS) {
            Some((end, _)) => &name[..end],
            None => name,
        };
        if let Some(count) = self.counts.get_mut(name) {
            *count += 1;
        } else if self.counts.len() < MAX_NAMES {
            self.counts.insert(name.to_owned(), 1);
        } else {
            self.more += 1;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(name, &count)| (name.as_str(), count))
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 12;
        let mut names: Vec<_> = self.iter().collect();
        names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let shown = names
            .iter()
            .take(SHOWN)
            .map(|(name, count)| format!("{name:?} ({count})"));
        f.write_str(&shown.collect::<Vec<_>>().join(", "))?;
        if names.len() > SHOWN || self.more > 0 {
            f.write_str(", …")?;
        }
        Ok(())
    }
}

impl Summary {
    /// Counts a pair by what is said of it, if that is asked for.
    pub(super) fn count_label(&mut self, verdict: Option<Verdict>) {
        self.labels[match verdict.and_then(Verdict::label) {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        }] += 1;
        match verdict {
            Some(Verdict::RelatedByName) => self.labelled_by_name += 1,
            Some(Verdict::Unknown(why)) => *self.labels_left_out.entry(why).or_default() += 1,
            _ => {}
        }
    }

    /// Whether anything was reported.
    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Whether all that was reported is what another format looks like.
    pub fn is_of_another_format(&self) -> bool {
        let of_format = [Reason::WrongFormat, Reason::MalformedDocument, Reason::MalformedLine];
        self.has_problems() && self.problems.keys().all(|reason| of_format.contains(reason))
    }

    /// For `--summary-json`.
    pub fn to_json(&self) -> Value {
        let reasons = |counts: &BTreeMap<Reason, u64>| -> Value {
            counts
                .iter()
                .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let names = |names: &Names| -> Value {
            names
                .iter()
                .map(|(name, count)| (name.to_owned(), json!(count)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let units = self
            .units
            .iter()
            .map(|(unit, count)| (unit.name().to_owned(), json!(count)));
        let left_out = self.labels_left_out.iter();
        let left_out = left_out.map(|(why, count)| (why.name().to_owned(), json!(count)));
        json!({
            "files": self.files,
            "documents": self.documents,
            "repeated_documents": self.repeated_documents,
            "mentions": self.mentions,
            "mentions_resolved": self.resolved,
            "mentions_unresolved": reasons(&self.unresolved),
            "triggers_left_out": self.triggers_left_out,
            "composites_left_out": self.composites_left_out,
            "mention_types": names(&self.mention_types),
            "relations": self.relations,
            "relations_unresolved": self.relations_unresolved,
            "relations_not_of_two_mentions": self.other_relations,
            "relations_without_pair": self.relations_without_pair,
            "relations_negated_or_speculated": self.qualified_relations,
            "relation_types": names(&self.relation_types),
            "offset_units": units.collect::<serde_json::Map<_, _>>(),
            "passage_relative_documents": self.passage_relative,
            "short_line_end_documents": self.short_line_ends,
            "pairs": self.pairs,
            "pairs_labelled_1": self.labels[0],
            "pairs_labelled_0": self.labels[1],
            "pairs_unlabelled": self.labels[2],
            "pairs_labelled_1_by_name": self.labelled_by_name,
            "labels_left_out": left_out.collect::<serde_json::Map<_, _>>(),
            "pairs_dropped": self.pairs_dropped,
            "overlaps_dropped": self.overlaps_dropped,
            "problems": reasons(&self.problems),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} ({} resolved), {}, {}",
            counted(self.documents, "document", "documents"),
            counted(self.mentions, "mention", "mentions"),
            self.resolved,
            counted(self.relations, "relation", "relations"),
            counted(self.pairs, "pair", "pairs")
        )?;
        let [positive, negative, _] = self.labels;
        if positive + negative > 0 {
            write!(f, " ({positive} labelled 1, {negative} labelled 0)")?;
        }
        let left_out = |why| self.labels_left_out.get(&why).copied().unwrap_or_default();
        for (count, noun, rest) in [
            (
                self.labelled_by_name,
                "label",
                "1 by name (their text relates the same two names)",
            ),
            (
                left_out(Unlabelled::RelatedElsewhere),
                "pair",
                "without label: the same two names are related elsewhere in the document",
            ),
            (
                left_out(Unlabelled::QualifiedRelation),
                "pair",
                "without label: their relation is negated or speculated",
            ),
            (
                left_out(Unlabelled::UnresolvedRelation),
                "pair",
                "without label: a relation of their document is not resolved",
            ),
            (self.relations_without_pair, "relation", "without a pair"),
            (self.other_relations, "relation", "of other than mentions passed over"),
            (self.triggers_left_out, "trigger", "of events left out"),
            (self.composites_left_out, "annotation", "of composite mentions left out"),
            (self.repeated_documents, "document", "whose identifier came before"),
            (self.overlaps_dropped, "overlapping pair", "left out"),
            (self.pairs_dropped, "pair", "beyond the limit dropped"),
        ] {
            if count > 0 {
                write!(f, ", {} {rest}", counted(count, noun, &format!("{noun}s")))?;
            }
        }
        for (reason, count) in &self.problems {
            write!(f, ", {count} {}", reason.name())?;
        }
        Ok(())
    }
}
