//! What is trained on and what is validated on: by document and never by pair.

use std::collections::{BTreeSet, HashSet};

use super::{
    random::{mixed, named},
    records::LabelledPair,
};
use crate::Side;

/// Both halves of the pairs, which share no document.
#[derive(Clone, Debug, Default)]
pub struct Split {
    pub train: Vec<LabelledPair>,
    pub valid: Vec<LabelledPair>,
    /// Pairs left out of training because their document is in the validation file.
    pub shared: usize,
    /// Pairs in training with a text that is validated on too, in another document.
    pub repeated: usize,
}

/// The document of a pair; one without an id is a document of its own text.
pub fn document(pair: &LabelledPair) -> String {
    match &pair.document {
        // Equal values of different fields are different documents.
        Some((field, value)) => format!("{field} {value}"),
        None => format!("text {}", pair.side(Side::Drug).text),
    }
}

impl Split {
    /// Splits off the documents whose hash with the seed lies below the fraction's share of all, exactly so many.
    pub fn by_fraction(pairs: Vec<LabelledPair>, fraction: f64, seed: u64) -> Self {
        let documents: BTreeSet<String> = pairs.iter().map(document).collect();
        let mut order: Vec<(u64, String)> = documents
            .into_iter()
            .map(|document| (mixed(&[seed, named("split"), named(&document)]), document))
            .collect();
        order.sort();
        let count = (order.len() as f64 * fraction).round() as usize;
        let valid: HashSet<&String> = order[..count].iter().map(|(_, document)| document).collect();
        let (valid, train) = pairs.into_iter().partition(|pair| valid.contains(&document(pair)));
        Self::new(train, valid, 0)
    }

    /// Two files; a document in both is validated on.
    pub fn of_files(train: Vec<LabelledPair>, valid: Vec<LabelledPair>) -> Self {
        let held_out: HashSet<String> = valid.iter().map(document).collect();
        let before = train.len();
        let train: Vec<_> = train
            .into_iter()
            .filter(|pair| !held_out.contains(&document(pair)))
            .collect();
        let shared = before - train.len();
        Self::new(train, valid, shared)
    }

    fn new(train: Vec<LabelledPair>, valid: Vec<LabelledPair>, shared: usize) -> Self {
        let texts = |pair: &LabelledPair| Side::BOTH.map(|side| blake3::hash(pair.side(side).text.as_bytes()));
        let validated: HashSet<blake3::Hash> = valid.iter().flat_map(texts).collect();
        let is_repeated = |pair: &&LabelledPair| texts(pair).iter().any(|text| validated.contains(text));
        Self {
            repeated: train.iter().filter(is_repeated).count(),
            train,
            valid,
            shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::job_tests::pairs;

    #[test]
    fn pairs_without_a_document_are_split_by_their_text() {
        let lines = (0..40).map(|i| {
            let text = i / 2;
            format!(
                "{{\"text\":\"a and b gave x in case {text}\",\"drug\":\"{}\",\"adr\":\"x\"}}\n",
                ["a", "b"][i % 2]
            )
        });
        let split = Split::by_fraction(pairs(&lines.collect::<String>()), 0.5, 1);
        let texts = |pairs: &[LabelledPair]| -> HashSet<String> {
            pairs.iter().map(|pair| pair.side(Side::Drug).text.clone()).collect()
        };
        let (train, valid) = (texts(&split.train), texts(&split.valid));
        assert_eq!((train.len(), valid.len(), split.valid.len()), (10, 10, 20));
        assert!(train.is_disjoint(&valid), "{train:?} {valid:?}");
        assert_eq!(split.repeated, 0);
    }

    #[test]
    fn another_seed_holds_out_other_documents_and_the_same_seed_the_same() {
        let lines: String = (0..40)
            .map(|i| format!("{{\"text\":\"a and x\",\"drug\":\"a\",\"adr\":\"x\",\"doc_id\":{i}}}\n"))
            .collect();
        let held_out = |seed| Split::by_fraction(pairs(&lines), 0.25, seed).valid;
        assert_eq!(held_out(1).len(), 10);
        assert_eq!(held_out(1), held_out(1));
        assert_ne!(held_out(1), held_out(2));
    }
}
