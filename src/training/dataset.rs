//! Pairs as training sees them: contexts of token ids, each once, and pairs of their numbers.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    HeadSettings, TrainError,
    random::{mixed, named},
    records::{LabelledPair, Mention},
};
use crate::{
    Side,
    scoring::{Context, MissingEntity, Prepare as _, Preparer},
    text::{Tokenizer, Truncation},
};

/// One side's text, marked and tokenized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub token_ids: Vec<u32>,
    /// What the entity is, as numbers: its name, equal for names that differ in case alone, and its concepts.
    pub entities: Vec<u32>,
}

/// Two contexts and whether they are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// A number into the drug texts.
    pub drug: u32,
    /// A number into the reaction texts.
    pub adr: u32,
    pub label: bool,
}

/// Pairs to train or to validate on.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    pub texts: [Vec<Text>; 2],
    pub examples: Vec<Example>,
    /// Texts without a whole mention, which were cut off before it.
    pub truncated: usize,
}

impl Dataset {
    pub fn text(&self, side: Side, number: u32) -> &Text {
        &self.texts[side as usize][number as usize]
    }

    /// Pairs that come with both labels.
    pub fn contradicted(&self) -> usize {
        let of = |label| -> HashSet<(u32, u32)> {
            let examples = self.examples.iter().filter(|example| example.label == label);
            examples.map(|example| (example.drug, example.adr)).collect()
        };
        of(true).intersection(&of(false)).count()
    }

    pub fn positives(&self) -> Vec<Example> {
        self.examples.iter().copied().filter(|e| e.label).collect()
    }

    /// Fewer than half as many unrelated pairs as related ones: calling all of them related looks good on these.
    pub fn is_short_of_negatives(&self) -> bool {
        let related = self.examples.iter().filter(|e| e.label).count();
        2 * (self.examples.len() - related) < related
    }
}

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

/// The documents' split, by document and never by pair.
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

/// How a model with this head is to see its texts.
pub fn preparer<'t>(head: &HeadSettings, tokenizer: &'t Tokenizer) -> Preparer<'t> {
    Preparer {
        tokenizer,
        markers: head.markers,
        max_length: head.max_length,
        // A mention beyond the end would teach nothing, and `crag score` warns of it.
        truncation: Truncation::Start,
        missing_entity: MissingEntity::Error,
    }
}

/// Tokenizes both halves of a split by `preparer`. Lines whose entity does not occur, and the like, are added to `rejected`.
pub fn prepare(split: &Split, preparer: &Preparer<'_>, rejected: &mut Vec<String>) -> (Dataset, Dataset, Relations) {
    let mut entities = Entities::default();
    let mut half = |pairs: &[LabelledPair]| {
        let mut builder = Builder::default();
        for pair in pairs {
            if let Err(reason) = builder.add(pair, preparer, &mut entities) {
                rejected.push(format!("{}: {reason}", pair.place));
            }
        }
        builder.data
    };
    let (train, valid) = (half(&split.train), half(&split.valid));
    let mut relations = Relations::default();
    relations.train.add(&train);
    relations.all.clone_from(&relations.train);
    relations.all.add(&valid);
    (train, valid, relations)
}

#[derive(Default)]
struct Entities(HashMap<String, u32>);

/// Of a mention's identifiers so many count: each of a drug's is related with each of a reaction's.
const MOST_CONCEPTS: usize = 64;

impl Entities {
    fn numbers(&mut self, mention: &Mention) -> Vec<u32> {
        let name = format!("name {}", mention.entity.trim().to_lowercase());
        let concepts = mention
            .concepts
            .iter()
            .take(MOST_CONCEPTS)
            .map(|concept| format!("concept {concept}"));
        let mut number = |entity: String| {
            let next = self.0.len() as u32;
            *self.0.entry(entity).or_insert(next)
        };
        [name].into_iter().chain(concepts).map(&mut number).collect()
    }
}

#[derive(Default)]
struct Builder {
    data: Dataset,
    known: [HashMap<Mention, u32>; 2],
}

impl Builder {
    fn add(&mut self, pair: &LabelledPair, preparer: &Preparer<'_>, entities: &mut Entities) -> Result<(), String> {
        let mut numbers = [0; 2];
        for side in Side::BOTH {
            numbers[side as usize] = self.text(side, pair.side(side), preparer, entities)?;
        }
        let example = Example {
            drug: numbers[0],
            adr: numbers[1],
            label: pair.label.unwrap_or(true),
        };
        self.data.examples.push(example);
        Ok(())
    }

    fn text(
        &mut self,
        side: Side,
        mention: &Mention,
        preparer: &Preparer<'_>,
        entities: &mut Entities,
    ) -> Result<u32, String> {
        if let Some(number) = self.known[side as usize].get(mention) {
            return Ok(*number);
        }
        let name = side.name();
        let prepared = preparer.prepare(Context {
            side,
            text: &mention.text,
            entity: &mention.entity,
            span: mention.span,
            entity_field: &format!("\"{name}\" (or \"{name}_entity\")"),
            span_field: &format!("\"{name}_span\""),
        });
        let prepared = prepared.map_err(|error| error.message)?;
        self.data.truncated += usize::from(prepared.mention_truncated);
        let texts = &mut self.data.texts[side as usize];
        let number = texts.len() as u32;
        texts.push(Text {
            token_ids: prepared.token_ids,
            entities: entities.numbers(mention),
        });
        self.known[side as usize].insert(mention.clone(), number);
        Ok(number)
    }
}

/// Both halves must be able to teach or to judge.
pub fn check(split: &Split, train: &Dataset, valid: &Dataset, mined: bool) -> Result<(), TrainError> {
    for (name, pairs, data, shared) in [
        ("training", &split.train, train, split.shared),
        ("validation", &split.valid, valid, 0),
    ] {
        let file = pairs.first().and_then(|pair| pair.place.rsplit_once(':'));
        let place = || file.map_or_else(|| format!("the {name} data"), |(file, _)| file.to_owned());
        let positives = data.examples.iter().filter(|e| e.label).count();
        let negatives = data.examples.len() - positives;
        // What the other half took may be why there are none.
        let left_out = match shared {
            0 => String::new(),
            shared => format!(
                "; {shared} more are left out, since their documents are in the validation file: give it documents of its own"
            ),
        };
        if positives == 0 {
            let reason = format!("no related pairs to use for {name} ({negatives} unrelated ones)");
            return Err(TrainError::data(
                place(),
                format!("{reason}; expected two classes{left_out}"),
            ));
        }
        if negatives == 0 && !mined {
            let reason = format!("only related pairs ({positives}) to use for {name}");
            let way_out =
                "expected two classes: add unrelated ones with \"label\": 0, or mine them with --negatives hard";
            return Err(TrainError::data(place(), format!("{reason}; {way_out}{left_out}")));
        }
    }
    Ok(())
}

/// What a data set's own positives relate.
#[cfg(test)]
pub(super) fn relate(data: &Dataset) -> Related {
    let mut related = Related::default();
    related.add(data);
    related
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{text::TokenizerFiles, training::job_tests::pairs};

    fn prepared(train: &str, valid: &str) -> (Dataset, Dataset, Relations) {
        let files = TokenizerFiles {
            vocab_txt: Some(("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")),
            ..TokenizerFiles::default()
        };
        let head = HeadSettings {
            max_length: 16,
            ..HeadSettings::default()
        };
        let tokenizer = Tokenizer::load(&files, true).unwrap();
        let preparer = preparer(&head, &tokenizer);
        let split = Split::of_files(pairs(train), pairs(valid));
        let mut rejected = Vec::new();
        let found = prepare(&split, &preparer, &mut rejected);
        assert!(rejected.is_empty(), "{rejected:?}");
        found
    }

    fn record(document: u32, drug: &str, adr: &str, more: &str) -> String {
        format!("{{\"text\":\"{drug} and {adr}\",\"drug\":\"{drug}\",\"adr\":\"{adr}\",\"doc_id\":{document}{more}}}\n")
    }

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
        let lines: String = (0..40).map(|i| record(i, "a", "x", "")).collect();
        let held_out = |seed| Split::by_fraction(pairs(&lines), 0.25, seed).valid;
        assert_eq!(held_out(1).len(), 10);
        assert_eq!(held_out(1), held_out(1));
        assert_ne!(held_out(1), held_out(2));
    }

    #[test]
    fn what_validation_relates_is_unknown_to_training() {
        let train = record(1, "a", "x", "") + &record(2, "b", "y", "");
        let (data, _, relations) = prepared(&train, &record(3, "A", "y", ""));
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
        let (data, _, relations) = prepared(&train, &record(9, "v", "w", ""));
        let related = |drug, adr| {
            relations
                .train
                .contains(data.text(Side::Drug, drug), data.text(Side::Adr, adr))
        };
        assert!(related(1, 2), "xylocaine is lidocaine, convulsions are a seizure");
        assert!(!related(2, 1) && !related(3, 0) && !related(0, 3));
    }

    #[test]
    fn fewer_unrelated_pairs_than_half_of_the_related_ones_are_too_few() {
        let train = |unrelated: usize| {
            let related: String = (0..6).map(|i| record(i, "a", "x", ",\"label\":1")).collect();
            let unrelated: String = (0..unrelated)
                .map(|i| record(10 + i as u32, "b", "x", ",\"label\":0"))
                .collect();
            prepared(&(related + &unrelated), &record(99, "v", "w", "")).0
        };
        assert!(train(0).is_short_of_negatives() && train(2).is_short_of_negatives());
        assert!(!train(3).is_short_of_negatives());
    }
}
