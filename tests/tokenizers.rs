//! What tokenizer files say of single tokens and of classes, against the ids that transformers 5.23.0 gives for the same files.

use crag::text::{Tokenizer, TokenizerFiles, Truncation, unmarked};

const VOCABULARY: &str =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n##a\n##b\n##c\nasp\n##irin\nα\n中\n,\n-\n[\n]\n/\ndrug\ne\n.";

/// A `tokenizer.json` of the vocabulary, with these added tokens and these values in its normalizer.
fn tokenizer_json(added: &str, clean_text: bool, lowercase: bool) -> String {
    let ids: Vec<String> = (VOCABULARY.lines().enumerate())
        .map(|(id, token)| format!("{token:?}:{id}"))
        .collect();
    format!(
        r###"{{"version":"1.0","added_tokens":[{added}],"normalizer":{{"type":"BertNormalizer","clean_text":{clean_text},
        "handle_chinese_chars":true,"strip_accents":null,"lowercase":{lowercase}}},"pre_tokenizer":{{"type":"BertPreTokenizer"}},
        "post_processor":{{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]}},
        "model":{{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{{{}}}}}}}"###,
        ids.join(",")
    )
}

fn named<'a>(name: &'a str, text: &'a str) -> Option<(&'a str, &'a [u8])> {
    Some((name, text.as_bytes()))
}

/// Without markers, which are special tokens of their own.
fn load(files: &TokenizerFiles) -> Tokenizer {
    Tokenizer::load(files, false).unwrap_or_else(|error| panic!("{error}"))
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let tokenized = tokenizer.tokenize(&unmarked(text), usize::MAX, Truncation::Start);
    tokenized.unwrap().token_ids
}

/// An added token with all its options, the last of which `true_option` names.
fn added_token(content: &str, true_options: &[&str]) -> String {
    let options = ["single_word", "lstrip", "rstrip", "normalized", "special"];
    let options = options.map(|option| format!("{option:?}:{}", true_options.contains(&option)));
    format!("\"content\":{content:?},{}", options.join(","))
}

#[test]
fn options_of_added_tokens_are_those_of_the_configuration_even_where_tokenizer_json_has_others() {
    // " c" and "c " are there to be seen or not: a token that strips takes the space away from them.
    let others = [(24, "c "), (25, " c")].map(|(id, content)| (id, added_token(content, &["normalized"])));
    let plain = [(23, added_token("Ba", &[]))].into_iter().chain(others.clone());
    let plain: Vec<String> = plain.map(|(id, token)| format!("{{\"id\":{id},{token}}}")).collect();
    let json = tokenizer_json(&plain.join(","), true, true);
    for (options, expected) in [
        (
            &[][..],
            [&[2, 24, 23, 25, 3][..], &[2, 5, 6, 8, 6, 3], &[2, 5, 23, 6, 3]],
        ),
        (
            &["lstrip"],
            [&[2, 7, 23, 25, 3], &[2, 5, 6, 8, 6, 3], &[2, 5, 23, 6, 3]],
        ),
        (
            &["rstrip"],
            [&[2, 24, 23, 7, 3], &[2, 5, 6, 8, 6, 3], &[2, 5, 23, 6, 3]],
        ),
        (
            &["single_word"],
            [&[2, 24, 23, 25, 3], &[2, 5, 6, 8, 6, 3], &[2, 5, 9, 8, 9, 3]],
        ),
        (
            &["normalized"],
            [&[2, 24, 23, 25, 3], &[2, 5, 23, 6, 3], &[2, 5, 23, 6, 3]],
        ),
        (
            &["special"],
            [&[2, 24, 23, 25, 3], &[2, 5, 6, 8, 6, 3], &[2, 5, 23, 6, 3]],
        ),
    ] {
        let tokens = [(23, added_token("Ba", options))].into_iter().chain(others.clone());
        let tokens: Vec<String> = tokens.map(|(id, token)| format!("\"{id}\":{{{token}}}")).collect();
        let config = format!(
            r#"{{"tokenizer_class":"BertTokenizer","do_lower_case":true,"added_tokens_decoder":{{{}}}}}"#,
            tokens.join(",")
        );
        let of_vocabulary = TokenizerFiles {
            vocab_txt: named("vocab.txt", VOCABULARY),
            tokenizer_config: named("tokenizer_config.json", &config),
            ..TokenizerFiles::default()
        };
        let of_json = TokenizerFiles {
            tokenizer_json: named("tokenizer.json", &json),
            vocab_txt: None,
            ..of_vocabulary
        };
        for files in [of_vocabulary, of_json] {
            let tokenizer = load(&files);
            for (text, expected) in ["c Ba c", "a ba b", "aBab"].into_iter().zip(expected) {
                assert_eq!(
                    ids(&tokenizer, text),
                    expected,
                    "{options:?} of {text:?}, {}",
                    tokenizer.description()
                );
            }
        }
    }
}

#[test]
fn an_added_token_without_options_is_looked_for_in_the_normalized_text_unless_it_is_special() {
    for (config, added) in [
        (r#"{"added_tokens_decoder": {"23": {"content": "Ba"}}}"#, None),
        ("{}", Some(r#"{"Ba": 23}"#)),
    ] {
        let files = TokenizerFiles {
            vocab_txt: named("vocab.txt", VOCABULARY),
            tokenizer_config: named("tokenizer_config.json", config),
            added_tokens: added.and_then(|added| named("added_tokens.json", added)),
            ..TokenizerFiles::default()
        };
        assert_eq!(ids(&load(&files), "a ba Ba c"), [2, 5, 23, 23, 7, 3], "{config}");
    }
    let special = TokenizerFiles {
        vocab_txt: named("vocab.txt", VOCABULARY),
        tokenizer_config: named("tokenizer_config.json", r#"{"additional_special_tokens": ["Ba"]}"#),
        added_tokens: named("added_tokens.json", r#"{"Ba": 23}"#),
        ..TokenizerFiles::default()
    };
    assert_eq!(ids(&load(&special), "a ba Ba c"), [2, 5, 6, 8, 23, 7, 3]);
}

#[test]
fn copies_of_berts_class_take_the_configurations_normalizer_too() {
    for class in ["DistilBertTokenizer", "DistilBertTokenizerFast", "MobileBertTokenizer"] {
        let of = |lowercase: bool, more: &str| {
            let json = tokenizer_json("", true, lowercase);
            let config = format!(r#"{{"tokenizer_class": "{class}"{more}}}"#);
            let files = TokenizerFiles {
                tokenizer_json: named("tokenizer.json", &json),
                tokenizer_config: named("tokenizer_config.json", &config),
                ..TokenizerFiles::default()
            };
            ids(&load(&files), "A a")
        };
        assert_eq!(of(true, r#", "do_lower_case": false"#), [2, 1, 5, 3], "{class}");
        assert_eq!(of(false, ""), [2, 5, 5, 3], "{class}");
    }
}

#[test]
fn a_normalizer_that_keeps_control_characters_keeps_them_and_is_a_doubt_for_berts_class_alone() {
    let json = tokenizer_json("", false, true);
    for (class, doubts) in [("BertTokenizer", 1), ("PreTrainedTokenizerFast", 0)] {
        let config = format!(r#"{{"tokenizer_class": "{class}", "do_lower_case": true}}"#);
        let files = TokenizerFiles {
            tokenizer_json: named("tokenizer.json", &json),
            tokenizer_config: named("tokenizer_config.json", &config),
            ..TokenizerFiles::default()
        };
        let tokenizer = load(&files);
        assert_eq!(ids(&tokenizer, "a\u{1}b"), [2, 1, 3], "{class}");
        assert_eq!(ids(&tokenizer, "ab"), [2, 5, 9, 3], "{class}");
        assert_eq!(tokenizer.doubts().len(), doubts, "{class}: {:?}", tokenizer.doubts());
    }
    let cleaning = tokenizer_json("", true, true);
    let files = TokenizerFiles {
        tokenizer_json: named("tokenizer.json", &cleaning),
        ..TokenizerFiles::default()
    };
    assert_eq!(ids(&load(&files), "a\u{1}b"), [2, 5, 9, 3]);
}

#[test]
fn a_byte_order_mark_before_a_vocabulary_moves_no_id() {
    let marked = format!("\u{feff}{VOCABULARY}");
    for vocabulary in [VOCABULARY, &marked] {
        let files = TokenizerFiles {
            vocab_txt: named("vocab.txt", vocabulary),
            ..TokenizerFiles::default()
        };
        let tokenizer = Tokenizer::load(&files, true).unwrap();
        assert_eq!(tokenizer.marker_ids(), Some([23, 24, 25, 26]));
        assert_eq!(ids(&tokenizer, "[PAD] a[ADR]b"), [2, 0, 5, 25, 6, 3]);
    }
}
