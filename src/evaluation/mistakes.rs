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

/// Gathers the hardest of both kinds.
#[derive(Clone, Debug)]
pub struct Mistakes {
    limit: usize,
    threshold: f64,
    /// Whether all are kept until it is known which of them count.
    all: bool,
    /// False positives and false negatives.
    candidates: [Vec<Mistake>; 2],
    /// The least error that still counts, once there are enough.
    least: [f64; 2],
}

/// Keeps none.
impl Default for Mistakes {
    fn default() -> Self {
        Self::new(0, 0.0)
    }
}

impl Mistakes {
    /// Keeps the hardest `limit` of each kind at `threshold`.
    pub fn new(limit: usize, threshold: f64) -> Self {
        Self {
            limit,
            threshold,
            all: false,
            candidates: [Vec::new(), Vec::new()],
            least: [f64::NEG_INFINITY; 2],
        }
    }

    /// Keeps all: which records count is known when they have been matched with another model's. Memory grows with
    /// the number of mistakes.
    pub fn until_matched(limit: usize, threshold: f64) -> Self {
        Self {
            all: true,
            ..Self::new(limit, threshold)
        }
    }

    /// Whether a record would be kept; most are not, and need not be read further.
    pub(super) fn wants(&self, label: bool, probability: f64) -> bool {
        let error = if label { 1.0 - probability } else { probability };
        self.limit > 0 && label != self.predicts(probability) && error > self.least[usize::from(label)]
    }

    /// Whether a record of this probability is predicted positive.
    pub(super) fn predicts(&self, probability: f64) -> bool {
        probability >= self.threshold
    }

    pub(super) fn add(&mut self, mistake: Mistake) {
        let kind = usize::from(mistake.label);
        let candidates = &mut self.candidates[kind];
        candidates.push(mistake);
        if !self.all && candidates.len() >= 2 * self.limit + 16 {
            candidates.sort_by(Mistake::harder_first);
            candidates.truncate(self.limit);
            if let Some(last) = candidates.last() {
                self.least[kind] = last.error();
            }
        }
    }

    /// False positives and false negatives among the records that count, by the keys they are matched by: the hardest
    /// first, at most the limit of each.
    pub fn hardest(&self, counts: impl Fn(Option<&str>) -> bool) -> [Vec<Mistake>; 2] {
        self.candidates.each_ref().map(|candidates| {
            let mut hardest: Vec<&Mistake> = candidates.iter().filter(|m| counts(m.key.as_deref())).collect();
            hardest.sort_by(|a, b| a.harder_first(b));
            hardest.truncate(self.limit);
            hardest.into_iter().cloned().collect()
        })
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
        fn of_matched_records_exactly_the_hardest_are_kept(
            records in prop::collection::vec((any::<bool>(), 0u32..50, any::<bool>()), 0..300),
            limit in 0usize..8,
        ) {
            let all: Vec<(Mistake, bool)> = records.iter().enumerate().map(|(i, &(label, p, matched))| {
                let key = Some(if matched { "matched" } else { "alone" }.into());
                (Mistake { key, ..mistake(i as u64, label, f64::from(p) / 50.0) }, matched)
            }).collect();
            let mut kept = Mistakes::until_matched(limit, 0.3);
            for (record, _) in &all {
                if kept.wants(record.label, record.probability) {
                    kept.add(record.clone());
                }
            }
            let found = kept.hardest(|key| key == Some("matched"));
            for (kind, found) in found.into_iter().enumerate() {
                let mut expected: Vec<Mistake> = all.iter()
                    .filter(|(m, matched)| *matched && m.label == (kind == 1) && m.label != (m.probability >= 0.3))
                    .map(|(m, _)| m.clone()).collect();
                expected.sort_by(Mistake::harder_first);
                expected.truncate(limit);
                prop_assert_eq!(found, expected);
            }
        }

        #[test]
        fn exactly_the_hardest_are_kept(
            records in prop::collection::vec((any::<bool>(), 0u32..50), 0..300),
            limit in 0usize..8,
        ) {
            let threshold = 0.5;
            let all: Vec<Mistake> = records.iter().enumerate()
                .map(|(i, &(label, p))| mistake(i as u64, label, f64::from(p) / 50.0)).collect();
            let mut kept = Mistakes::new(limit, threshold);
            for record in &all {
                if kept.wants(record.label, record.probability) {
                    kept.add(record.clone());
                }
            }
            for (kind, found) in kept.hardest(|_| true).into_iter().enumerate() {
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
