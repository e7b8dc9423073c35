//! Token ids against those of the Hugging Face fast tokenizer, for every fixture text.

use std::path::{Path, PathBuf};

use crag::Side;
use crag::text::{Tokenizer, TokenizerFiles, Truncation, mark_every, unmarked};
use serde::Deserialize;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn json_lines<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The tokenizer of a folder, by one of its two routes or whichever files there are.
fn load(folder: &Path, names: &[&str], markers: bool) -> Tokenizer {
    let read = |name: &str| {
        names
            .contains(&name)
            .then(|| std::fs::read(folder.join(name)).ok())
            .flatten()
    };
    let (json, vocabulary, config) = (read("tokenizer.json"), read("vocab.txt"), read("tokenizer_config.json"));
    let files = TokenizerFiles {
        tokenizer_json: json.as_deref().map(|bytes| ("tokenizer.json", bytes)),
        vocab_txt: vocabulary.as_deref().map(|bytes| ("vocab.txt", bytes)),
        tokenizer_config: config.as_deref().map(|bytes| ("tokenizer_config.json", bytes)),
        ..TokenizerFiles::default()
    };
    Tokenizer::load(&files, markers).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    text: Option<String>,
    drug_text: Option<String>,
    adr_text: Option<String>,
    drug: String,
    adr: String,
}

#[derive(Deserialize)]
struct Expected {
    id: String,
    drug_token_ids: Vec<u32>,
    adr_token_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default = "yes")]
    markers: bool,
    #[serde(default = "card_length")]
    max_length: usize,
}

fn yes() -> bool {
    true
}

fn card_length() -> usize {
    128
}

#[test]
fn every_case_of_every_checkpoint_has_the_original_s_token_ids() {
    let cases: Vec<Case> = json_lines(&fixtures().join("model/cases.jsonl"));
    let mut folders = 0;
    for entry in std::fs::read_dir(fixtures().join("model")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("expected.jsonl").exists() {
            continue;
        }
        folders += 1;
        let settings = std::fs::read(folder.join("crag.json")).unwrap_or(b"{}".to_vec());
        let settings: Settings = serde_json::from_slice(&settings).unwrap();
        let tokenizer = load(
            &folder,
            &["tokenizer.json", "vocab.txt", "tokenizer_config.json"],
            settings.markers,
        );
        let expected: Vec<Expected> = json_lines(&folder.join("expected.jsonl"));
        assert_eq!(expected.len(), cases.len());
        for (case, expected) in cases.iter().zip(expected) {
            assert_eq!(case.id, expected.id);
            let text = |own: &Option<String>| own.clone().or(case.text.clone()).unwrap();
            let token_ids = |text: &str, entity: &str, side| {
                let marked = if settings.markers {
                    mark_every(text, entity, side)
                } else {
                    unmarked(text)
                };
                tokenizer
                    .tokenize(&marked, settings.max_length, Truncation::Start)
                    .unwrap()
                    .token_ids
            };
            let at = format!("{}, {}", folder.display(), case.id);
            assert_eq!(
                token_ids(&text(&case.drug_text), &case.drug, Side::Drug),
                expected.drug_token_ids,
                "{at}"
            );
            assert_eq!(
                token_ids(&text(&case.adr_text), &case.adr, Side::Adr),
                expected.adr_token_ids,
                "{at}"
            );
        }
    }
    assert_eq!(folders, 15);
}

#[derive(Deserialize)]
struct Plain {
    text: String,
    token_ids: Vec<u32>,
}

#[test]
fn odd_strings_have_the_same_token_ids_from_either_tokenizer_file() {
    let folder = fixtures().join("text");
    let plain: Vec<Plain> = json_lines(&folder.join("tokens.jsonl"));
    assert!(plain.len() > 300);
    for route in ["tokenizer.json", "vocab.txt"] {
        for tokenizer in [
            load(&folder, &[route], true),
            load(&folder, &[route, "tokenizer_config.json"], true),
        ] {
            assert_eq!(tokenizer.vocab_size(), 2_004);
            assert_eq!(tokenizer.marker_ids(), Some([2_000, 2_001, 2_002, 2_003]));
            for Plain { text, token_ids } in &plain {
                let tokenized = tokenizer
                    .tokenize(&unmarked(text), usize::MAX, Truncation::Start)
                    .unwrap();
                assert_eq!(&tokenized.token_ids, token_ids, "{route}: {text:?}");
            }
        }
    }
}

#[test]
fn an_entity_beyond_the_cut_is_reported_and_the_mention_window_finds_it() {
    let tokenizer = load(&fixtures().join("text"), &["tokenizer.json"], true);
    let cases: Vec<Case> = json_lines(&fixtures().join("model/cases.jsonl"));
    let case = cases
        .iter()
        .find(|case| case.id == "long-entities-beyond-the-cut")
        .unwrap();
    let marked = mark_every(case.text.as_ref().unwrap(), &case.drug, Side::Drug);
    let start = tokenizer.tokenize(&marked, 128, Truncation::Start).unwrap();
    assert!(start.truncated && start.mention_truncated && start.token_ids.len() == 128);
    let mention = tokenizer.tokenize(&marked, 128, Truncation::Mention).unwrap();
    assert!(mention.truncated && !mention.mention_truncated && mention.token_ids.len() == 128);
    let [opening, closing, ..] = tokenizer.marker_ids().unwrap();
    assert!(mention.token_ids.contains(&opening) && mention.token_ids.contains(&closing));
}
