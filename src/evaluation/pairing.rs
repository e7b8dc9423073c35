//! Brings two models' records of the same pairs together.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::collector::{DocumentNames, LabelledSet, is_of_field};
use super::sample::{Judged, Sample};

/// What does not match, and so is left out of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Mismatches {
    /// Usable in the first only.
    pub only_first: u64,
    /// Usable in the second only.
    pub only_second: u64,
    /// In both, with another drug, reaction or text.
    pub pairs_differ: u64,
    /// The same pair in both, with different labels.
    pub labels_differ: u64,
    /// Records whose key another record of the same file has too.
    pub repeated_first: u64,
    pub repeated_second: u64,
    /// One key for each kind that occurs, as an example.
    pub examples: Vec<String>,
}

impl Mismatches {
    pub fn total(&self) -> u64 {
        self.only_first
            + self.only_second
            + self.pairs_differ
            + self.labels_differ
            + self.repeated_first
            + self.repeated_second
    }

    /// The first key of its kind is kept.
    fn add_example(&mut self, kind: &str, key: &str) {
        if !self.examples.iter().any(|example| example.starts_with(kind)) {
            self.examples.push(format!("{kind}: {key:?}"));
        }
    }
}

/// The same pairs as two models score them. Both samples number documents alike.
pub struct Paired {
    pub first: Sample,
    pub second: Sample,
    pub mismatches: Mismatches,
    /// Keys of the records that are compared.
    pub keys: HashSet<Box<str>>,
    /// Of records matched by line those that have another id in the second set; they are compared all the same.
    pub ids_differ: u64,
    /// What named the documents of the records that are compared.
    pub documents: DocumentNames,
}

/// Matches records by their keys, as far as they do not say that they are of different pairs. A record's document is the
/// one that the first set names, else the second.
pub fn pair(first: &LabelledSet, second: &LabelledSet) -> Paired {
    let mut mismatches = Mismatches::default();
    let mut matched = matched(first, second, &mut mismatches);
    let id_differs = |&&Match { i, j, .. }: &&Match<'_>| match (first.ids.get(i), second.ids.get(j)) {
        (Some(Some(one)), Some(Some(other))) => one != other,
        _ => false,
    };
    let ids_differ = matched.iter().filter(id_differs).count() as u64;
    let document = |of: &Match<'_>| first.document(of.i).or_else(|| second.document(of.j));
    // As in `LabelledSet::sample`, so that the first set is judged as it is alone where it names documents itself: in any order of the files alike.
    matched.sort_unstable_by(|a, b| {
        let (one, other) = (&first.records[a.i], &first.records[b.i]);
        let order = document(a).cmp(&document(b));
        let order = order
            .then(other.probability.total_cmp(&one.probability))
            .then(other.label.cmp(&one.label));
        order.then(
            second.records[b.j]
                .probability
                .total_cmp(&second.records[a.j].probability),
        )
    });
    // Documents are numbered by name, records that name none after them by what is judged.
    let mut names: Vec<&str> = matched.iter().filter_map(document).collect();
    let without = (matched.len() - names.len()) as u64;
    names.sort_unstable();
    names.dedup();
    let ranks: HashMap<&str, u32> = names.iter().enumerate().map(|(i, &name)| (name, i as u32)).collect();
    let mut next = names.len() as u32;
    let mut numbers = Vec::with_capacity(matched.len());
    for of in &matched {
        numbers.push(document(of).map_or(next, |name| ranks[name]));
        next += u32::from(document(of).is_none());
    }
    // Labels that differ do not match.
    let judged = |probability: &dyn Fn(&Match<'_>) -> f64| {
        let records = matched.iter().zip(&numbers).map(|(of, &document)| Judged {
            probability: probability(of),
            label: first.records[of.i].label,
            document,
        });
        Sample::new(records.collect(), next as usize)
    };
    Paired {
        first: judged(&|of| first.records[of.i].probability),
        second: judged(&|of| second.records[of.j].probability),
        mismatches,
        keys: matched.iter().map(|of| of.key.into()).collect(),
        ids_differ,
        documents: DocumentNames {
            fields: fields_of(&names, first, second),
            without,
        },
    }
}

/// A key with the record of each set that it is of.
struct Match<'s> {
    key: &'s str,
    i: usize,
    j: usize,
}

/// The records that are of the same pair in both sets, and what is not.
fn matched<'s>(first: &'s LabelledSet, second: &'s LabelledSet, mismatches: &mut Mismatches) -> Vec<Match<'s>> {
    let (index_first, repeated_first) = index(first);
    let (index_second, repeated_second) = index(second);
    for (repeated, kind) in [
        (&repeated_first, "repeated in the first"),
        (&repeated_second, "repeated in the second"),
    ] {
        if let Some(key) = repeated.iter().min() {
            mismatches.add_example(kind, key);
        }
    }
    let count = |set: &LabelledSet, repeated: &HashSet<&str>| {
        set.keys.iter().filter(|key| repeated.contains(key.as_ref())).count() as u64
    };
    mismatches.repeated_first = count(first, &repeated_first);
    mismatches.repeated_second = count(second, &repeated_second);
    let mut matched = Vec::new();
    for (i, key) in first.keys.iter().enumerate() {
        let key = key.as_ref();
        if index_first.get(key) != Some(&i) || repeated_second.contains(key) {
            continue;
        }
        match index_second.get(key) {
            None => {
                mismatches.only_first += 1;
                mismatches.add_example("in the first only", key);
            }
            Some(&j) if first.pairs[i].contradicts(&second.pairs[j]) => {
                mismatches.pairs_differ += 1;
                mismatches.add_example("another drug, reaction or text", key);
            }
            Some(&j) if first.records[i].label != second.records[j].label => {
                mismatches.labels_differ += 1;
                mismatches.add_example("labels differ", key);
            }
            Some(&j) => matched.push(Match { key, i, j }),
        }
    }
    for key in &second.keys {
        let key = key.as_ref();
        if index_second.contains_key(key) && !index_first.contains_key(key) && !repeated_first.contains(key) {
            mismatches.only_second += 1;
            mismatches.add_example("in the second only", key);
        }
    }
    matched
}

/// The fields that documents of these `names` are from.
fn fields_of(names: &[&str], first: &LabelledSet, second: &LabelledSet) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for field in first.document_names.fields.iter().chain(&second.document_names.fields) {
        if !fields.contains(field) && names.iter().any(|name| is_of_field(name, field)) {
            fields.push(field.clone());
        }
    }
    fields
}

/// Where each key is that occurs once, and which occur more often.
fn index(set: &LabelledSet) -> (HashMap<&str, usize>, HashSet<&str>) {
    let mut index: HashMap<&str, usize> = HashMap::with_capacity(set.keys.len());
    let mut repeated = HashSet::new();
    for (i, key) in set.keys.iter().enumerate() {
        if index.insert(key, i).is_some() {
            repeated.insert(key.as_ref());
        }
    }
    index.retain(|key, _| !repeated.contains(key));
    (index, repeated)
}
