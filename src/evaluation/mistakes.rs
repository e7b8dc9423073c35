//! The hardest mistakes: the records whose label got the least probability, kept while millions pass.

use std::cmp::Ordering;

use serde::Serialize;

/// A record on the wrong side, as a person wants to see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mistake {
    /// Input and line, such as `pairs.jsonl:41`.
    pub place: String,
    pub id: Option<String>,
    pub document: Option<String>,
    pub label: bool,
    pub probability: f64,
    pub drug: String,
    pub adr: String,
    /// One text, or that of each side; each cut to a readable length.
    pub texts: Vec<String>,
    /// What the record is matched by when two models are compared.
    #[serde(skip)]
    pub key: Option<Box<str>>,
    /// Position among the records, to order equal probabilities.
    #[serde(skip)]
    pub order: u64,
}

impl Mistake {
    /// How much probability the wrong label got.
    fn error(&self) -> f64 {
        match self.label {
            true => 1.0 - self.probability,
            false => self.probability,
        }
    }

    fn harder_first(&self, other: &Self) -> Ordering {
        other
            .error()
            .total_cmp(&self.error())
            .then(self.order.cmp(&other.order))
    }
}

/// Characters of a text that are kept.
pub const TEXT_CHARACTERS: usize = 1200;

/// Gathers candidates of both kinds; which of them are mistakes depends on a threshold that is known later.
#[derive(Clone, Debug)]
pub struct Mistakes {
    limit: usize,
    /// Labelled negative, and labelled positive.
    candidates: [Vec<Mistake>; 2],
    /// The least error that still counts, once there are enough.
    least: [f64; 2],
}

impl Mistakes {
    /// Keeps the hardest `limit` of each kind.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            candidates: [Vec::new(), Vec::new()],
            least: [0.0; 2],
        }
    }

    /// Whether a record would be kept; most are not, and need not be read further.
    pub(super) fn wants(&self, label: bool, probability: f64) -> bool {
        let error = if label { 1.0 - probability } else { probability };
        self.limit > 0 && error > self.least[usize::from(label)]
    }

    pub(super) fn add(&mut self, mistake: Mistake) {
        let kind = usize::from(mistake.label);
        let candidates = &mut self.candidates[kind];
        candidates.push(mistake);
        if candidates.len() >= 2 * self.limit + 16 {
            candidates.sort_by(Mistake::harder_first);
            candidates.truncate(self.limit);
            if let Some(last) = candidates.last() {
                self.least[kind] = last.error();
            }
        }
    }

    /// False positives and false negatives at `threshold`, the hardest first, at most the limit of each.
    pub fn at(&self, threshold: f64) -> [Vec<Mistake>; 2] {
        self.candidates.clone().map(|mut candidates| {
            candidates.retain(|mistake| mistake.label != (mistake.probability >= threshold));
            candidates.sort_by(Mistake::harder_first);
            candidates.truncate(self.limit);
            candidates
        })
    }
}

/// `text` as far as it is shown.
pub(super) fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARACTERS) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mistake(order: u64, label: bool, probability: f64) -> Mistake {
        Mistake {
            place: String::new(),
            id: None,
            document: None,
            label,
            probability,
            drug: String::new(),
            adr: String::new(),
            texts: vec![],
            key: None,
            order,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn exactly_the_hardest_are_kept(
            records in prop::collection::vec((any::<bool>(), 0u32..50), 0..300),
            limit in 0usize..8,
        ) {
            let threshold = 0.5;
            let all: Vec<Mistake> = records.iter().enumerate()
                .map(|(i, &(label, p))| mistake(i as u64, label, f64::from(p) / 50.0)).collect();
            let mut kept = Mistakes::new(limit);
            for record in &all {
                if kept.wants(record.label, record.probability) {
                    kept.add(record.clone());
                }
            }
            for (kind, found) in kept.at(threshold).into_iter().enumerate() {
                let mut expected: Vec<Mistake> = all.iter()
                    .filter(|m| m.label == (kind == 1) && m.label != (m.probability >= threshold))
                    .cloned().collect();
                expected.sort_by(Mistake::harder_first);
                expected.truncate(limit);
                prop_assert_eq!(found, expected);
            }
        }
    }
}
