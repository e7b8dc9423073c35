//! What a run's result depends on: it goes on with a state of the same alone, and says what is different.

use std::collections::{BTreeMap, BTreeSet};

use blake3::Hasher;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Settings, Start, dataset::Dataset};

/// Everything that has to be the same for a run to go on: each part under a name for messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The program's version, and settings by their place in a recipe: what they are, as JSON.
    stated: BTreeMap<String, String>,
    /// Hashes.
    contents: BTreeMap<String, String>,
}

impl Origin {
    pub fn new(settings: &Settings, start: &Start, [train, valid]: [&Dataset; 2]) -> Result<Self, candle_core::Error> {
        let mut stated = BTreeMap::from([("the version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        let settings = serde_json::to_value(settings).map_err(candle_core::Error::wrap)?;
        flatten("", &settings, &mut stated);
        let mut contents = BTreeMap::new();
        let mut hash =
            |name: &str, hasher: Hasher| contents.insert(name.to_owned(), hasher.finalize().to_hex().to_string());
        for (name, bytes) in &start.files {
            // Heads and activation, and what lies beside the weights in the end.
            hash(name, Hasher::new().update(bytes).clone());
        }
        hash("the training pairs", of_pairs(train));
        hash("the validation pairs", of_pairs(valid));
        let mut weights = Hasher::new();
        let mut names: Vec<&String> = start.tensors.keys().collect();
        names.sort();
        for name in names {
            weights.update(name.as_bytes());
            let values = start.tensors[name].flatten_all()?.to_vec1::<f32>()?;
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            weights.update(&bytes);
        }
        hash("the first weights", weights);
        Ok(Self { stated, contents })
    }

    /// One number for all of it.
    pub fn fingerprint(&self) -> String {
        let mut hasher = Hasher::new();
        for (name, value) in self.stated.iter().chain(&self.contents) {
            for part in [name, value] {
                hasher
                    .update(&(part.len() as u64).to_le_bytes())
                    .update(part.as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What is different in `now`, as words of a sentence; none if nothing is. Other settings may make other contents, which is no
    /// difference of its own.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let stated = different(&self.stated, &now.stated);
        if stated.is_empty() {
            let contents = different(&self.contents, &now.contents);
            return contents.iter().map(|(name, _)| format!("{name} changed")).collect();
        }
        let told = |(name, [was, is]): &(&str, [&str; 2])| format!("{name} was {was} and is {is}");
        stated.iter().map(told).collect()
    }
}

/// The names whose values differ, with both.
fn different<'m>(was: &'m BTreeMap<String, String>, is: &'m BTreeMap<String, String>) -> Vec<(&'m str, [&'m str; 2])> {
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let both = names.into_iter().map(|name| {
        let of = |values: &'m BTreeMap<String, String>| values.get(name).map_or("none", String::as_str);
        (name.as_str(), [of(was), of(is)])
    });
    both.filter(|(_, [was, is])| was != is).collect()
}

/// Adds the leaves of `value`, by their dotted names.
fn flatten(name: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let separator = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{separator}{key}"), value, leaves);
            }
        }
        leaf => drop(leaves.insert(name.to_owned(), leaf.to_string())),
    }
}

fn of_pairs(data: &Dataset) -> Hasher {
    let mut hasher = Hasher::new();
    for text in data.texts.iter().flatten() {
        for ids in [&text.token_ids, &text.entities] {
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        }
    }
    for example in &data.examples {
        hasher
            .update(&example.drug.to_le_bytes())
            .update(&example.adr.to_le_bytes())
            .update(&[u8::from(example.label)]);
    }
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(settings: &Settings, contents: &[(&str, &str)]) -> Origin {
        let mut stated = BTreeMap::new();
        flatten("", &serde_json::to_value(settings).unwrap(), &mut stated);
        let contents = contents
            .iter()
            .map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned()));
        Origin {
            stated,
            contents: contents.collect(),
        }
    }

    #[test]
    fn each_difference_is_named_and_gives_another_fingerprint() {
        let settings = Settings::default();
        let begun = origin(&settings, &[("vocab.txt", "1"), ("the training pairs", "2")]);
        assert!(begun.differences(&begun.clone()).is_empty());
        let mut other = settings.clone();
        other.seed = settings.seed + 1;
        other.finetune.learning_rate *= 2.0;
        let contents = [("tokenizer.json", "1"), ("the training pairs", "3")];
        let now = origin(&other, &contents);
        let rates = [&settings, &other].map(|settings| serde_json::json!(settings.finetune.learning_rate).to_string());
        let rate = format!("finetune.learning_rate was {} and is {}", rates[0], rates[1]);
        let seed = format!("seed was {} and is {}", settings.seed, other.seed);
        assert_eq!(begun.differences(&now), [rate, seed]);
        assert_ne!(begun.fingerprint(), now.fingerprint());
        // Where settings are the same it is contents that differ.
        let now = origin(&settings, &contents);
        let found = begun.differences(&now);
        assert_eq!(
            found,
            [
                "the training pairs changed",
                "tokenizer.json changed",
                "vocab.txt changed"
            ]
        );
        assert_ne!(begun.fingerprint(), now.fingerprint());
        assert_eq!(begun.fingerprint(), begun.clone().fingerprint());
    }
}
