//! Pairs as training sees them: contexts of token ids, each once, and pairs of their numbers.

use std::collections::{HashMap, HashSet};

use super::{
    HeadSettings, Split, TrainError,
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

impl Example {
    /// The number of its text of one side.
    pub fn of(&self, side: Side) -> u32 {
        match side {
            Side::Drug => self.drug,
            Side::Adr => self.adr,
        }
    }
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
pub fn prepare(split: &Split, preparer: &Preparer<'_>, rejected: &mut Vec<String>) -> (Dataset, Dataset) {
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
    (half(&split.train), half(&split.valid))
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{text::TokenizerFiles, training::job_tests::pairs};

    pub fn prepared(train: &str, valid: &str) -> (Dataset, Dataset) {
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

    pub fn record(document: u32, drug: &str, adr: &str, more: &str) -> String {
        format!("{{\"text\":\"{drug} and {adr}\",\"drug\":\"{drug}\",\"adr\":\"{adr}\",\"doc_id\":{document}{more}}}\n")
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
