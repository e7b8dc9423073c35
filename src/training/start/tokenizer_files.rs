//! The tokenizer's files that lie beside the trained weights: the backbone's, with the entity markers.

use serde_json::{Map, Value, json};

use super::pretty;
use crate::checkpoint::{ModelFiles, NamedBytes};
use crate::text::{MARKERS, Tokenizer, TokenizerError, TokenizerFiles, with_markers_added};
use crate::training::TrainError;

pub fn load_tokenizer(files: &[(String, Vec<u8>)], markers: bool) -> Result<Tokenizer, TokenizerError> {
    let named = |name: &str| named_file(files, name);
    let files = TokenizerFiles {
        tokenizer_json: named("tokenizer.json"),
        vocab_txt: named("vocab.txt"),
        tokenizer_config: named("tokenizer_config.json"),
        added_tokens: named("added_tokens.json"),
        special_tokens_map: named("special_tokens_map.json"),
    };
    Tokenizer::load(&files, markers)
}

pub fn named_file<'a>(files: &'a [(String, Vec<u8>)], name: &str) -> Option<(&'a str, &'a [u8])> {
    let file = files.iter().find(|(file, _)| file == name);
    file.map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
}

/// The backbone's tokenizer files, with the markers as special tokens where they are wanted: in the configuration and
/// perhaps in the vocabulary.
pub fn with_markers(
    files: &ModelFiles,
    markers: bool,
    in_vocabulary: bool,
) -> Result<Vec<(String, Vec<u8>)>, TrainError> {
    let malformed = |file: &NamedBytes, reason: String| TrainError::Backbone {
        place: file.name.clone(),
        reason,
    };
    let mut out = Vec::new();
    if let Some(file) = &files.tokenizer_json {
        let mut bytes = file.bytes.clone().into_owned();
        if markers && in_vocabulary {
            bytes = with_markers_added(&bytes)
                .map_err(|reason| malformed(file, reason))?
                .into_bytes();
        }
        out.push(("tokenizer.json".to_owned(), bytes));
    }
    if let Some(file) = &files.vocab_txt {
        let mut bytes = file.bytes.clone().into_owned();
        let known = |marker: &str| {
            bytes
                .split(|b| *b == b'\n')
                .any(|line| line.trim_ascii_end() == marker.as_bytes())
        };
        if markers && in_vocabulary && !MARKERS.iter().all(|marker| known(marker)) {
            if !bytes.ends_with(b"\n") {
                bytes.push(b'\n');
            }
            bytes.extend(MARKERS.iter().flat_map(|marker| format!("{marker}\n").into_bytes()));
        }
        out.push(("vocab.txt".to_owned(), bytes));
    }
    const LIST: &str = "additional_special_tokens";
    let object = |file: &Option<NamedBytes>| -> Result<Map<String, Value>, TrainError> {
        match file {
            Some(file) => serde_json::from_slice(&file.bytes).map_err(|error| malformed(file, error.to_string())),
            None => Ok(Map::new()),
        }
    };
    let config = files.tokenizer_config.as_ref();
    let (mut settings, mut map) = (object(&files.tokenizer_config)?, object(&files.special_tokens_map)?);
    if markers {
        // Behind those that the older file lists, where that is read.
        let older = map.get(LIST).is_some_and(Value::is_array) && !settings.contains_key("added_tokens_decoder");
        let list = if older { &mut map } else { &mut settings };
        let extra = list.entry(LIST).or_insert_with(|| json!([]));
        if let Some(extra) = extra.as_array_mut() {
            for marker in MARKERS {
                let present = extra
                    .iter()
                    .any(|t| t.as_str().or_else(|| t["content"].as_str()) == Some(marker));
                if !present {
                    extra.push(json!(marker));
                }
            }
        }
    }
    if config.is_some() || markers {
        out.push(("tokenizer_config.json".to_owned(), pretty(&Value::Object(settings))));
    }
    if files.special_tokens_map.is_some() {
        out.push(("special_tokens_map.json".to_owned(), pretty(&Value::Object(map))));
    }
    if let Some(file) = &files.added_tokens {
        out.push(("added_tokens.json".to_owned(), file.bytes.clone().into_owned()));
    }
    Ok(out)
}
