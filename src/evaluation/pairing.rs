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
    let mut example = |kind: &str, key: &str| {
        let key = format!("{kind}: {key:?}");
        if mismatches_lacks(&mismatches.examples, kind) {
            mismatches.examples.push(key);
        }
    };
    let (index_first, repeated_first) = index(first);
    let (index_second, repeated_second) = index(second);
    if let Some(key) = repeated_first.iter().min() {
        example("repeated in the first", key);
    }
    if let Some(key) = repeated_second.iter().min() {
        example("repeated in the second", key);
    }
    let (mut only_first, mut only_second, mut pairs_differ, mut labels_differ) = (0, 0, 0, 0);
    let mut matched: Vec<(&str, usize, usize)> = Vec::new();
    let mut ids_differ = 0;
    let id_differs = |i: usize, j: usize| match (first.ids.get(i), second.ids.get(j)) {
        (Some(Some(one)), Some(Some(other))) => one != other,
        _ => false,
    };
    for (i, key) in first.keys.iter().enumerate() {
        let key = key.as_ref();
        if index_first.get(key) != Some(&i) || repeated_second.contains(key) {
            continue;
        }
        match index_second.get(key) {
            None => {
                only_first += 1;
                example("in the first only", key);
            }
            Some(&j) if first.pairs[i].contradicts(&second.pairs[j]) => {
                pairs_differ += 1;
                example("another drug, reaction or text", key);
            }
            Some(&j) if first.records[i].label != second.records[j].label => {
                labels_differ += 1;
                example("labels differ", key);
            }
            Some(&j) => {
                ids_differ += u64::from(id_differs(i, j));
                matched.push((key, i, j));
            }
        }
    }
    for key in &second.keys {
        let key = key.as_ref();
        if index_second.contains_key(key) && !index_first.contains_key(key) && !repeated_first.contains(key) {
            only_second += 1;
            example("in the second only", key);
        }
    }
    let count = |set: &LabelledSet, repeated: &HashSet<&str>| {
        set.keys.iter().filter(|key| repeated.contains(key.as_ref())).count() as u64
    };
    mismatches.repeated_first = count(first, &repeated_first);
    mismatches.repeated_second = count(second, &repeated_second);
    (mismatches.only_first, mismatches.only_second) = (only_first, only_second);
    (mismatches.pairs_differ, mismatches.labels_differ) = (pairs_differ, labels_differ);

    // Documents are numbered by name, records that name none after them by what is judged: in any order of the files alike.
    let document = |i: usize, j: usize| first.document(i).or_else(|| second.document(j));
    // As in `LabelledSet::sample`, so that the first set is judged as it is alone.
    matched.sort_unstable_by(|&(_, i, j), &(_, k, l)| {
        let (one, other) = (&first.records[i], &first.records[k]);
        let order = document(i, j).cmp(&document(k, l));
        let order = order
            .then(other.probability.total_cmp(&one.probability))
            .then(other.label.cmp(&one.label));
        order.then(second.records[l].probability.total_cmp(&second.records[j].probability))
    });
    let mut named: Vec<&str> = matched.iter().filter_map(|&(_, i, j)| document(i, j)).collect();
    let without = (matched.len() - named.len()) as u64;
    named.sort_unstable();
    named.dedup();
    let mut fields: Vec<String> = Vec::new();
    for field in first.document_names.fields.iter().chain(&second.document_names.fields) {
        let named_any = || named.iter().any(|name| is_of_field(name, field));
        if !fields.contains(field) && named_any() {
            fields.push(field.clone());
        }
    }
    let ranks: HashMap<&str, u32> = named.iter().enumerate().map(|(i, &name)| (name, i as u32)).collect();
    let mut next = named.len() as u32;
    let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
    for &(_, i, j) in &matched {
        let (a, b) = (&first.records[i], &second.records[j]);
        let document = match document(i, j) {
            Some(name) => ranks[name],
            None => {
                next += 1;
                next - 1
            }
        };
        for (records, probability) in [(&mut of_first, a.probability), (&mut of_second, b.probability)] {
            records.push(Judged {
                probability,
                label: a.label,
                document,
            });
        }
    }
    Paired {
        first: Sample::new(of_first, next as usize),
        second: Sample::new(of_second, next as usize),
        mismatches,
        keys: matched.iter().map(|&(key, _, _)| key.into()).collect(),
        ids_differ,
        documents: DocumentNames { fields, without },
    }
}

fn mismatches_lacks(examples: &[String], kind: &str) -> bool {
    !examples.iter().any(|example| example.starts_with(kind))
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
