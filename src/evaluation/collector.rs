//! Gathers labelled, scored records line by line, and counts what cannot be used.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use super::fields::{Fields, Pair, Reading};
use super::mistakes::{Mistake, Mistakes, TEXT_CHARACTERS};
use super::sample::{Judged, Sample};
use crate::words::shortened;

/// Records with one reason for not being usable.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Rejected {
    pub count: u64,
    /// Place and message of the first.
    pub first: String,
}

/// What names the documents of usable records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DocumentNames {
    /// The fields that do, in the order in which they came.
    pub fields: Vec<String>,
    /// Records that name no document.
    pub without: u64,
}

/// What usable records say of their own probability, as `crag score` writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decisions {
    /// Those that are not as by the threshold that goes with the set.
    pub otherwise: u64,
    /// The greatest probability that is said to be not causal, and the least that is.
    bounds: (Option<f64>, Option<f64>),
}

impl Decisions {
    fn add(&mut self, probability: f64, causal: bool, predicted: bool) {
        self.otherwise += u64::from(causal != predicted);
        let (below, from) = &mut self.bounds;
        match causal {
            false => *below = Some(below.unwrap_or(0.0).max(probability)),
            true => *from = Some(from.unwrap_or(1.0).min(probability)),
        }
    }

    /// Between which two probabilities the records' own threshold lies, if it is one: above the first, at most the second, as
    /// far as there are such.
    pub fn own_threshold(&self) -> Option<(Option<f64>, Option<f64>)> {
        match self.bounds {
            (Some(below), Some(from)) if below >= from => None,
            bounds => Some(bounds),
        }
    }
}

/// A usable record before documents are numbered for good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub probability: f64,
    pub label: bool,
    /// Which of the set's documents; none where the record names none.
    pub document: Option<u32>,
}

/// All that was read of one source of records.
#[derive(Default)]
pub struct LabelledSet {
    pub(super) records: Vec<Kept>,
    /// What each record is matched by, where that was asked for.
    pub(super) keys: Vec<Box<str>>,
    /// Of which pair each record is, where there are keys.
    pub(super) pairs: Vec<Pair>,
    /// Hashes of their ids, where records are matched by line.
    pub(super) ids: Vec<Option<u64>>,
    /// Names of documents, by [`document_name`], in the order in which they came.
    pub(super) documents: Vec<Box<str>>,
    pub document_names: DocumentNames,
    pub unlabelled: u64,
    /// Reasons why labelled records cannot be used.
    pub rejected: BTreeMap<String, Rejected>,
    /// Usable records without an id, where ids were asked for; they are not among the records.
    pub without_id: u64,
    pub decisions: Decisions,
    /// Usable records whose probability is the mean of several models'.
    pub of_several: u64,
    /// Usable records with the id, and as far as they state them the drug, reaction and texts, of an earlier one; not
    /// counted where records are matched.
    pub repeated: u64,
    /// Place of the first of those.
    pub first_repeated: Option<String>,
    /// Those whose label is not the first one's of the same.
    pub contradicted: u64,
    /// Place of the first of these.
    pub first_contradicted: Option<String>,
    pub mistakes: Mistakes,
}

/// What two sets of records are matched by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchBy {
    Nothing,
    Id,
    Line,
}

/// Takes lines and becomes a [`LabelledSet`].
pub struct Collector {
    fields: Fields,
    match_by: MatchBy,
    set: LabelledSet,
    numbers: HashMap<Box<str>, u32>,
    /// Hashes of what [`LabelledSet::repeated`] goes by, each with the first label.
    identities: HashMap<u64, bool>,
    seen: u64,
}

impl Collector {
    /// `mistakes`: which to keep.
    pub fn new(fields: Fields, match_by: MatchBy, mistakes: Mistakes) -> Self {
        Self {
            fields,
            match_by,
            set: LabelledSet {
                mistakes,
                ..LabelledSet::default()
            },
            numbers: HashMap::new(),
            identities: HashMap::new(),
            seen: 0,
        }
    }

    /// Takes a line that is not blank, without its line end. `name` and `number` say where it is.
    pub fn push(&mut self, name: &str, number: u64, line: &[u8]) {
        self.seen += 1;
        let record = match self.fields.read(line) {
            Reading::Usable(record) => record,
            Reading::Unlabelled => {
                self.set.unlabelled += 1;
                return;
            }
            Reading::Rejected { code, message } => {
                self.set.reject(&code, || format!("{name}:{number}: {message}"));
                return;
            }
        };
        let key: Option<Box<str>> = match (self.match_by, &record.id) {
            (MatchBy::Nothing, _) => None,
            (MatchBy::Line, _) => Some(number.to_string().into()),
            (MatchBy::Id, Some(id)) => Some(id.as_ref().into()),
            (MatchBy::Id, None) => {
                self.set.without_id += 1;
                return;
            }
        };
        if self.match_by == MatchBy::Line {
            self.set.ids.push(record.id.as_ref().map(hash));
        }
        if let (MatchBy::Nothing, Some(id)) = (self.match_by, &record.id) {
            let set = &mut self.set;
            match self.identities.entry(hash((id, record.shown.pair()))) {
                Entry::Vacant(first) => _ = first.insert(record.label),
                Entry::Occupied(first) => {
                    let place = || format!("{name}:{number}");
                    set.repeated += 1;
                    set.first_repeated.get_or_insert_with(place);
                    if *first.get() != record.label {
                        set.contradicted += 1;
                        set.first_contradicted.get_or_insert_with(place);
                    }
                }
            }
        }
        let document = record.document.as_ref().map(|(field, value)| {
            let fields = &mut self.set.document_names.fields;
            if !fields.iter().any(|known| known == field) {
                fields.push((*field).to_owned());
            }
            let name = document_name(field, value);
            match self.numbers.get(name.as_str()) {
                Some(&number) => number,
                None => {
                    // 2^32 names do not fit into any machine's memory.
                    let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
                    self.numbers.insert(name.into_boxed_str(), number);
                    number
                }
            }
        });
        let predicted = self.set.mistakes.predicts(record.probability);
        if let Some(causal) = record.causal {
            self.set.decisions.add(record.probability, causal, predicted);
        }
        self.set.of_several += u64::from(record.is_of_several);
        self.set.document_names.without += u64::from(document.is_none());
        if self.set.mistakes.wants(record.label, record.probability) {
            self.set.mistakes.add(Mistake {
                place: format!("{name}:{number}"),
                id: record.id.as_ref().map(|id| shortened(id, TEXT_CHARACTERS)),
                document: record
                    .document
                    .as_ref()
                    .map(|(_, value)| shortened(value, TEXT_CHARACTERS)),
                label: record.label,
                probability: record.probability,
                drug: shortened(&record.shown.drug(), TEXT_CHARACTERS),
                adr: shortened(&record.shown.adr(), TEXT_CHARACTERS),
                texts: record
                    .shown
                    .texts()
                    .iter()
                    .map(|text| shortened(text, TEXT_CHARACTERS))
                    .collect(),
                key: key.clone(),
                order: self.seen,
            });
        }
        if let Some(key) = key {
            self.set.keys.push(key);
            self.set.pairs.push(record.shown.pair());
        }
        self.set.records.push(Kept {
            probability: record.probability,
            label: record.label,
            document,
        });
    }

    /// Takes a line that could not even be read, such as one that is too long.
    pub fn push_unreadable(&mut self, name: &str, number: u64, code: &str, message: &str) {
        self.seen += 1;
        self.set.reject(code, || format!("{name}:{number}: {message}"));
    }

    /// Lines taken so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    pub fn finish(mut self) -> LabelledSet {
        let mut names: Vec<(u32, Box<str>)> = self.numbers.into_iter().map(|(name, number)| (number, name)).collect();
        names.sort_unstable();
        self.set.documents = names.into_iter().map(|(_, name)| name).collect();
        self.set
    }
}

impl LabelledSet {
    fn reject(&mut self, code: &str, first: impl FnOnce() -> String) {
        match self.rejected.get_mut(code) {
            Some(rejected) => rejected.count += 1,
            None => {
                self.rejected.insert(
                    code.to_owned(),
                    Rejected {
                        count: 1,
                        first: first(),
                    },
                );
            }
        }
    }

    /// The name of a usable record's document.
    pub(super) fn document(&self, record: usize) -> Option<&str> {
        let number = self.records[record].document?;
        Some(&self.documents[number as usize])
    }

    /// Usable records.
    pub fn usable(&self) -> usize {
        self.records.len()
    }

    /// Labelled records that cannot be used.
    pub fn rejections(&self) -> u64 {
        self.rejected.values().map(|rejected| rejected.count).sum::<u64>() + self.without_id
    }

    /// The records with their documents numbered, the same way in whatever order the records came. A record that
    /// names no document is one of its own.
    pub fn sample(&self) -> Sample {
        let mut order: Vec<u32> = (0..self.documents.len() as u32).collect();
        order.sort_by_key(|&number| &self.documents[number as usize]);
        let mut ranks = vec![0u32; order.len()];
        for (rank, number) in order.into_iter().enumerate() {
            ranks[number as usize] = rank as u32;
        }
        number(&self.records, &ranks)
    }
}

/// Equal values of different fields are different documents.
fn document_name(field: &str, value: &str) -> String {
    format!("{field} {value}")
}

/// Whether a document has its name from `field`, one of those that named any: none of these begins another.
pub(super) fn is_of_field(name: &str, field: &str) -> bool {
    name.strip_prefix(field).is_some_and(|value| value.starts_with(' '))
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Gives each record the rank of its document; records without one get the numbers after those, in sorted order.
fn number(records: &[Kept], ranks: &[u32]) -> Sample {
    let mut sorted: Vec<&Kept> = records.iter().collect();
    sorted.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(b.label.cmp(&a.label)));
    let mut next = ranks.len() as u32;
    let judged = sorted.into_iter().map(|record| Judged {
        probability: record.probability,
        label: record.label,
        document: match record.document {
            Some(document) => ranks[document as usize],
            None => {
                next += 1;
                next - 1
            }
        },
    });
    let judged: Vec<Judged> = judged.collect();
    Sample::new(judged, next as usize)
}
