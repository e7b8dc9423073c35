//! What is related with what, which no negative may contradict.

use std::collections::HashSet;

use super::dataset::{Dataset, Text};
use crate::Side;

/// Which drugs and reactions are related anywhere in some data, by name or concept.
#[derive(Clone, Debug, Default)]
pub struct Related(HashSet<(u32, u32)>);

impl Related {
    pub fn contains(&self, drug: &Text, adr: &Text) -> bool {
        pairs(drug, adr).any(|pair| self.0.contains(&pair))
    }

    fn add(&mut self, data: &Dataset) {
        for example in data.examples.iter().filter(|example| example.label) {
            let (drug, adr) = (data.text(Side::Drug, example.drug), data.text(Side::Adr, example.adr));
            self.0.extend(pairs(drug, adr));
        }
    }
}

#[cfg(test)]
impl Related {
    /// What a data set's own positives relate.
    pub fn of(data: &Dataset) -> Self {
        let mut related = Self::default();
        related.add(data);
        related
    }
}

fn pairs<'a>(drug: &'a Text, adr: &'a Text) -> impl Iterator<Item = (u32, u32)> + 'a {
    let of_drug = |drug: &'a u32| adr.entities.iter().map(|adr| (*drug, *adr));
    drug.entities.iter().flat_map(of_drug)
}

/// Relations as far as each half of a split may know of them.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    /// Of the pairs that are trained on: what validation knows must not tell in training.
    pub train: Related,
    /// Of both halves, for the negatives that validation lacks.
    pub all: Related,
}

impl Relations {
    pub fn of(train: &Dataset, valid: &Dataset) -> Self {
        let mut relations = Self::default();
        relations.train.add(train);
        relations.all.clone_from(&relations.train);
        relations.all.add(valid);
        relations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::dataset::tests::{prepared, record};

    fn relations(train: &str, valid: &str) -> (Dataset, Relations) {
        let (train, valid) = prepared(train, valid);
        let relations = Relations::of(&train, &valid);
        (train, relations)
    }

    #[test]
    fn what_validation_relates_is_unknown_to_training() {
        let train = record(1, "a", "x", "") + &record(2, "b", "y", "");
        let (data, relations) = relations(&train, &record(3, "A", "y", ""));
        let (drug, adr) = (data.text(Side::Drug, 0), data.text(Side::Adr, 1));
        assert!(!relations.train.contains(drug, adr));
        assert!(relations.all.contains(drug, adr));
        assert!(relations.train.contains(drug, data.text(Side::Adr, 0)));
    }

    #[test]
    fn what_is_related_under_other_names_of_the_same_concepts_is_related() {
        let concepts = |drug: &str, adr: &str| format!(",\"drug_concepts\":[\"{drug}\"],\"adr_concepts\":[\"{adr}\"]");
        let train = record(1, "lidocaine", "seizure", &concepts("D1", "D2"))
            + &record(2, "xylocaine", "rash", &concepts("D1", "D3"))
            + &record(3, "b", "convulsions", &concepts("D4", "D2"))
            // What is no list of identifiers is somebody's own field.
            + &record(4, "c", "z", ",\"drug_concepts\":\"D1\",\"adr_concepts\":7");
        let (data, relations) = relations(&train, &record(9, "v", "w", ""));
        let related = |drug, adr| {
            relations
                .train
                .contains(data.text(Side::Drug, drug), data.text(Side::Adr, adr))
        };
        assert!(related(1, 2), "xylocaine is lidocaine, convulsions are a seizure");
        assert!(!related(2, 1) && !related(3, 0) && !related(0, 3));
    }
}
