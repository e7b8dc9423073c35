use proptest::prelude::*;

use super::*;
use crate::Side;
use crate::text::{locate_every, mark_every, mark_span, unmarked};

const VOCABULARY: &str =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n##a\n##b\n##c\nasp\n##irin\nα\n中\n,\n-\n[\n]\n/\ndrug\ne\n.";

fn load(vocabulary: &str, config: Option<&str>, markers: bool) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::load(
        &TokenizerFiles {
            vocab_txt: Some(("vocab.txt", vocabulary.as_bytes())),
            tokenizer_config: config.map(|config| ("tokenizer_config.json", config.as_bytes())),
            ..Default::default()
        },
        markers,
    )
}

fn tokenizer() -> Tokenizer {
    load(VOCABULARY, None, true).unwrap()
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer
        .tokenize(&unmarked(text), usize::MAX, Truncation::Start)
        .unwrap()
        .token_ids
}

#[test]
fn markers_take_the_next_free_ids_and_are_never_split() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.marker_ids(), Some([23, 24, 25, 26]));
    assert_eq!(tokenizer.vocab_size(), 27);
    let marked = mark_every("Aspirin-b", "Aspirin", Side::Drug);
    let tokenized = tokenizer.tokenize(&marked, 128, Truncation::Start).unwrap();
    assert_eq!(tokenized.token_ids, [2, 23, 11, 12, 24, 16, 6, 3]);
    assert!(!tokenized.truncated && !tokenized.mention_truncated);
    assert_eq!(
        tokenizer.description(),
        "WordPiece, uncased, 27 ids, markers 23, 24, 25, 26, from vocab.txt"
    );
}

#[test]
fn without_markers_their_text_is_ordinary_text() {
    let tokenizer = load(VOCABULARY, None, false).unwrap();
    assert_eq!(tokenizer.marker_ids(), None);
    assert_eq!(tokenizer.vocab_size(), 23);
    assert_eq!(ids(&tokenizer, "[DRUG]"), [2, 17, 20, 18, 3]);
}

#[test]
fn markers_already_in_the_vocabulary_keep_their_ids() {
    let vocabulary = VOCABULARY.replace("[MASK]", "[MASK]\n[ADR]\n[DRUG]\n[/DRUG]\n[/ADR]");
    let tokenizer = load(&vocabulary, None, true).unwrap();
    assert_eq!(tokenizer.marker_ids(), Some([6, 7, 5, 8]));
    assert_eq!(tokenizer.vocab_size(), 27);
    assert_eq!(ids(&tokenizer, "a[ADR]b"), [2, 9, 5, 10, 3]);
}

#[test]
fn the_configuration_decides_case_accents_and_chinese_characters() {
    let config = r#"{"do_lower_case": false, "strip_accents": true, "tokenize_chinese_chars": false}"#;
    let cased = load(VOCABULARY, Some(config), true).unwrap();
    assert_eq!(ids(&cased, "A á a中"), [2, 1, 5, 1, 3]);
    assert_eq!(ids(&tokenizer(), "A á a中"), [2, 5, 5, 5, 14, 3]);
}

/// A `tokenizer.json` of the vocabulary with this normalizer, beside this configuration.
fn from_json(normalizer: &str, config: Option<&str>) -> Tokenizer {
    from_altered_json(normalizer, config, ("", ""))
}

/// The same with one part of the file replaced.
fn from_altered_json(normalizer: &str, config: Option<&str>, replaced: (&str, &str)) -> Tokenizer {
    try_altered_json(normalizer, config, replaced).unwrap()
}

fn try_altered_json(
    normalizer: &str,
    config: Option<&str>,
    (part, other): (&str, &str),
) -> Result<Tokenizer, TokenizerError> {
    let ids: Vec<String> = (VOCABULARY.lines().enumerate())
        .map(|(id, token)| format!("{token:?}:{id}"))
        .collect();
    let json = format!(
        r###"{{"version":"1.0","added_tokens":[],"normalizer":{normalizer},"pre_tokenizer":{{"type":"BertPreTokenizer"}},
        "post_processor":{{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]}},
        "model":{{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{{{}}}}}}}"###,
        ids.join(",")
    );
    assert!(json.contains(part), "{part}");
    let json = if part.is_empty() {
        json
    } else {
        json.replace(part, other)
    };
    let files = TokenizerFiles {
        tokenizer_json: Some(("tokenizer.json", json.as_bytes())),
        tokenizer_config: config.map(|config| ("tokenizer_config.json", config.as_bytes())),
        ..Default::default()
    };
    Tokenizer::load(&files, true)
}

fn bert(lowercase: bool) -> String {
    format!(
        r#"{{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":{lowercase}}}"#
    )
}

#[test]
fn the_configuration_of_a_bert_tokenizer_overrides_the_normalizer_of_tokenizer_json() {
    // As BertTokenizerFast of transformers 4 and BertTokenizer of 5 have it.
    let cased = from_json(&bert(true), Some(r#"{"do_lower_case": false}"#));
    assert_eq!(ids(&cased, "A á"), [2, 1, 1, 3]);
    assert!(cased.doubts().is_empty(), "{:?}", cased.doubts());
    let config = r#"{"tokenizer_class": "BertTokenizerFast", "strip_accents": false, "tokenize_chinese_chars": false}"#;
    let own = from_json(&bert(true), Some(config));
    assert_eq!(ids(&own, "A á a中"), [2, 5, 1, 1, 3]);
    assert!(own.doubts().is_empty(), "{:?}", own.doubts());
}

#[test]
fn a_class_that_goes_by_tokenizer_json_alone_keeps_its_normalizer() {
    let config = r#"{"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": true}"#;
    let cased = from_json(&bert(false), Some(config));
    assert_eq!(ids(&cased, "A a"), [2, 1, 5, 3]);
    assert!(cased.doubts().is_empty(), "{:?}", cased.doubts());
}

#[test]
fn a_default_that_overrides_tokenizer_json_is_a_doubt() {
    for config in [None, Some(r#"{"tokenizer_class": "BertTokenizer"}"#)] {
        let lowered = from_json(&bert(false), config);
        assert_eq!(ids(&lowered, "A á"), [2, 5, 5, 3]);
        let [doubt] = lowered.doubts() else {
            panic!("{:?}", lowered.doubts())
        };
        assert!(
            doubt.contains("\"do_lower_case\" false, but no tokenizer_config.json states it"),
            "{doubt}"
        );
    }
}

#[test]
fn a_normalizer_that_versions_of_transformers_read_differently_is_a_doubt() {
    let found = from_json(r#"{"type":"Lowercase"}"#, Some(r#"{"do_lower_case": false}"#));
    assert_eq!(ids(&found, "A"), [2, 5, 3]);
    let [doubt] = found.doubts() else {
        panic!("{:?}", found.doubts())
    };
    assert!(doubt.contains("\"normalizer\" other than BertNormalizer"), "{doubt}");
    assert!(doubt.contains("PreTrainedTokenizerFast"), "{doubt}");
}

/// The one doubt about a tokenizer.
fn doubt_of(tokenizer: &Tokenizer) -> &str {
    let [doubt] = tokenizer.doubts() else {
        panic!("{:?}", tokenizer.doubts())
    };
    doubt
}

#[test]
fn what_else_of_tokenizer_json_versions_of_transformers_read_differently_is_a_doubt() {
    let config = r#"{"do_lower_case": true, "cls_token": "[CLS]"}"#;
    for (part, other, said) in [
        (
            r#""max_input_chars_per_word":100"#,
            r#""max_input_chars_per_word":20"#,
            r#"has a "max_input_chars_per_word" of 20, not 100, which is used, as by transformers 4;"#,
        ),
        (
            r###""continuing_subword_prefix":"##""###,
            r#""continuing_subword_prefix":"@@""#,
            r###"has a "continuing_subword_prefix" "@@", not "##", which"###,
        ),
        (
            r#""unk_token":"[UNK]""#,
            r#""unk_token":"[MASK]""#,
            r#"has a "unk_token" "[MASK]", not "[UNK]", which"#,
        ),
        (
            r#""cls":["[CLS]",2]"#,
            r#""cls":["[PAD]",0]"#,
            r#"has a "post_processor" with "[PAD]" for the cls_token, not "[CLS]", which"#,
        ),
    ] {
        let own = from_altered_json(&bert(true), Some(config), (part, other));
        assert!(doubt_of(&own).contains(said), "{}", doubt_of(&own));
        let class = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
        let by_json = from_altered_json(&bert(true), Some(class), (part, other));
        assert!(by_json.doubts().is_empty(), "{:?}", by_json.doubts());
    }
    let other = r#"{"do_lower_case": true, "sep_token": "[MASK]"}"#;
    let found = from_json(&bert(true), Some(other));
    let said = r#"with "[SEP]" for the sep_token, not "[MASK]""#;
    assert!(doubt_of(&found).contains(said), "{}", doubt_of(&found));
    assert_eq!(ids(&found, "a"), [2, 5, 3]);
}

#[test]
fn padding_on_the_left_is_a_doubt_whichever_file_states_it_unless_the_configuration_denies_it() {
    let left = r#""added_tokens":[],"padding":{"strategy":"BatchLongest","direction":"Left","pad_to_multiple_of":null,
        "pad_id":0,"pad_type_id":0,"pad_token":"[PAD]"}"#;
    let with_json = |config: &str| from_altered_json(&bert(true), Some(config), (r#""added_tokens":[]"#, left));
    let by_json = with_json("{}");
    let said = "tokenizer.json: its \"padding\" has the direction \"Left\", and";
    assert!(doubt_of(&by_json).starts_with(said), "{}", doubt_of(&by_json));
    assert!(with_json(r#"{"padding_side": "right"}"#).doubts().is_empty());
    for found in [
        with_json(r#"{"padding_side": "left"}"#),
        load(VOCABULARY, Some(r#"{"padding_side": "left"}"#), true).unwrap(),
    ] {
        let said = "tokenizer_config.json: its \"padding_side\" is \"left\", and";
        assert!(doubt_of(&found).starts_with(said), "{}", doubt_of(&found));
        assert_eq!(ids(&found, "a"), [2, 5, 3]);
    }
}

#[test]
fn a_vocabulary_of_a_class_that_is_not_known_to_split_as_bert_does_is_a_doubt() {
    for class in [
        "BertTokenizer",
        "BertTokenizerFast",
        "DistilBertTokenizer",
        "ElectraTokenizerFast",
        "MobileBertTokenizer",
    ] {
        let config = format!(r#"{{"tokenizer_class": "{class}"}}"#);
        let found = load(VOCABULARY, Some(&config), true).unwrap();
        assert!(found.doubts().is_empty(), "{class}: {:?}", found.doubts());
    }
    for class in [
        "BertJapaneseTokenizer",
        "MPNetTokenizer",
        "RobertaTokenizerFast",
        "RemBertTokenizer",
    ] {
        let config = format!(r#"{{"tokenizer_class": "{class}"}}"#);
        let found = load(VOCABULARY, Some(&config), true).unwrap();
        let said = format!("its \"tokenizer_class\" is \"{class}\", and vocab.txt is read as BERT's WordPiece");
        assert!(doubt_of(&found).contains(&said), "{}", doubt_of(&found));
    }
}

#[test]
fn markers_that_the_original_takes_apart_are_a_doubt() {
    let config = Some(r#"{"split_special_tokens": true}"#);
    let found = load(VOCABULARY, config, true).unwrap();
    assert!(
        doubt_of(&found).contains("takes the markers apart"),
        "{}",
        doubt_of(&found)
    );
    assert!(load(VOCABULARY, config, false).unwrap().doubts().is_empty());
}

#[test]
fn what_a_vocabulary_has_beside_its_tokens_is_a_doubt() {
    let found = load(&format!("\u{feff}{VOCABULARY}"), None, true).unwrap();
    assert!(
        doubt_of(&found).contains("begins with a byte order mark"),
        "{}",
        doubt_of(&found)
    );
    assert_eq!(found.vocab_size(), 27);
    let found = load(&VOCABULARY.replace("asp\n", "asp \n"), None, true).unwrap();
    assert!(
        doubt_of(&found).starts_with("vocab.txt:12: \"asp \" ends in a space"),
        "{}",
        doubt_of(&found)
    );
    // A token that is all space has no end.
    let found = load(&VOCABULARY.replace("\ne\n", "\n\u{3000}\n"), None, true).unwrap();
    assert!(found.doubts().is_empty(), "{:?}", found.doubts());
}

#[test]
fn added_tokens_that_take_letters_of_both_ends_leave_a_run_too_long_for_a_word() {
    let letters = "a".repeat(99);
    let config = format!(r#"{{"additional_special_tokens": ["-{letters}", "{letters}-"]}}"#);
    let tokenizer = load(VOCABULARY, Some(&config), false).unwrap();
    for length in [1, 150, 2000] {
        let text = format!("-{letters}{}{letters}-", "a".repeat(length));
        let expected = tokenizer.inner.encode(text.as_str(), false).unwrap();
        let mut found = Vec::new();
        tokenizer
            .encode_piece(&text, 0..text.len(), |(id, _)| found.push(id))
            .unwrap();
        assert_eq!(found, expected.get_ids(), "{length}");
        assert_eq!(tokenizer.runs.shorten(&text).is_some(), length == 2000);
    }
}

#[test]
fn special_tokens_in_an_object_take_ids_in_the_order_of_the_file() {
    for tokens in [
        r#"{"z": "[DRUG]", "y": {"content": "[/DRUG]"}, "b": "[ADR]", "a": "[/ADR]"}"#,
        // A key that comes twice has its first place and its last value.
        r#"{"z": "[DRUG]", "y": "[X]", "b": "[ADR]", "y": "[/DRUG]", "a": "[/ADR]"}"#,
    ] {
        let config = format!(r#"{{"a": 1, "extra_special_tokens": {tokens}}}"#);
        let ids = load(VOCABULARY, Some(&config), true).unwrap().marker_ids();
        assert_eq!(ids, Some([23, 24, 25, 26]), "{tokens}");
    }
}

#[test]
fn markers_of_a_vocabulary_that_no_file_lists_are_a_doubt() {
    let vocabulary = VOCABULARY.replace("[MASK]", "[MASK]\n[DRUG]\n[/DRUG]\n[ADR]\n[/ADR]");
    let found = load(&vocabulary, None, true).unwrap();
    let said = "vocab.txt: its vocabulary has \"[DRUG]\", which no file lists as a special token";
    assert!(doubt_of(&found).contains(said), "{}", doubt_of(&found));
    assert!(found.files_have_markers());
    let config = r#"{"additional_special_tokens": ["[DRUG]", "[/DRUG]", "[ADR]", "[/ADR]"]}"#;
    let listed = load(&vocabulary, Some(config), true).unwrap();
    assert!(
        listed.doubts().is_empty() && listed.files_have_markers(),
        "{:?}",
        listed.doubts()
    );
    assert_eq!(listed.marker_ids(), found.marker_ids());
    assert!(load(&vocabulary, None, false).unwrap().doubts().is_empty());
    assert!(!tokenizer().files_have_markers());
}

#[test]
fn a_tokenizer_that_panics_or_takes_without_bound_is_an_error() {
    let config = Some(r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#);
    let json = |normalizer: &str, (part, other): (&str, &str)| try_altered_json(normalizer, config, (part, other));
    let pre_tokenizer = (r#"{"type":"BertPreTokenizer"}"#, r#"{"type":"FixedLength","length":0}"#);
    let panics = json(&bert(true), pre_tokenizer).unwrap();
    let message = panics
        .tokenize(&unmarked("a"), 8, Truncation::Start)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("the tokenizer failed on a text of 1 bytes"),
        "{message}"
    );
    let precompiled =
        r#"{"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "/////w=="}]}"#;
    let message = json(precompiled, ("", "")).unwrap_err().to_string();
    assert!(
        message.contains("found Precompiled, which is SentencePiece's"),
        "{message}"
    );
    let doubled = r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}"#;
    let doubled = |times| {
        format!(
            r#"{{"type": "Sequence", "normalizers": [{}]}}"#,
            [doubled].repeat(times).join(", ")
        )
    };
    let message = json(&doubled(30), ("", "")).unwrap_err().to_string();
    assert!(
        message.contains("may make a text 1073741824 times as long"),
        "{message}"
    );
    json(&doubled(3), ("", "")).unwrap();
    let longest = (
        r#""max_input_chars_per_word":100"#,
        r#""max_input_chars_per_word":1000000000"#,
    );
    let message = json(&bert(true), longest).unwrap_err().to_string();
    assert!(message.contains("expected at most 1000, found 1000000000"), "{message}");
}

#[test]
fn markers_of_which_files_list_some_are_a_doubt() {
    let doubts = |listed: &str| {
        let config = format!(r#"{{"additional_special_tokens": [{listed}]}}"#);
        load(VOCABULARY, Some(&config), true).unwrap().doubts().to_vec()
    };
    for (listed, missing) in [
        (r#""[DRUG]", "[ADR]""#, "[/DRUG] and [/ADR]"),
        (r#""[DRUG]", "[/DRUG]", "[ADR]", "[/ADE]""#, "[/ADR]"),
    ] {
        let said = format!("vocab.txt: of the entity markers no file lists {missing}, beside the others");
        assert!(doubts(listed)[0].contains(&said), "{:?}", doubts(listed));
    }
    assert!(doubts(r#""[DRUG]", "[/DRUG]", "[ADR]", "[/ADR]", "[X]""#).is_empty());
}

#[test]
fn two_lists_of_special_tokens_in_one_file_are_a_doubt() {
    let doubts = |older: &str, newer: &str| {
        let config = format!(r#"{{"additional_special_tokens": [{older}], "extra_special_tokens": [{newer}]}}"#);
        load(VOCABULARY, Some(&config), true).unwrap().doubts().to_vec()
    };
    let all = r#""[DRUG]", "[/DRUG]", "[ADR]", "[/ADR]""#;
    let found = doubts(all, r#""[X]""#);
    let said = "tokenizer_config.json: it has both additional_special_tokens and extra_special_tokens";
    assert!(found[0].contains(said), "{found:?}");
    assert!(doubts(all, "").is_empty() && doubts("", all).is_empty());
}

#[test]
fn a_copy_of_berts_class_has_its_normalizer_and_an_unknown_one_is_a_doubt() {
    for class in ["ElectraTokenizer", "LayoutLMTokenizerFast", "LxmertTokenizer"] {
        let config = format!(r#"{{"tokenizer_class": "{class}", "do_lower_case": true}}"#);
        let lowered = from_json(&bert(false), Some(&config));
        assert_eq!(ids(&lowered, "A a"), [2, 5, 5, 3], "{class}");
        assert!(lowered.doubts().is_empty(), "{class}: {:?}", lowered.doubts());
    }
    let found = from_json(&bert(false), Some(r#"{"tokenizer_class": "MPNetTokenizer"}"#));
    let said = "its \"tokenizer_class\" is \"MPNetTokenizer\", and tokenizer.json is followed as it stands";
    assert!(doubt_of(&found).contains(said), "{}", doubt_of(&found));
}

#[test]
fn additional_special_tokens_come_before_the_markers() {
    let config = r#"{"additional_special_tokens": ["[X]", {"content": "[ADR]"}], "unk_token": null}"#;
    let tokenizer = load(VOCABULARY, Some(config), true).unwrap();
    assert_eq!(tokenizer.marker_ids(), Some([25, 26, 24, 27]));
    assert_eq!(ids(&tokenizer, "[X]"), [2, 23, 3]);
}

/// The vocabulary with these as `tokenizer_config.json`, `added_tokens.json` and `special_tokens_map.json`.
fn with_older_files(config: &str, added: Option<&str>, map: Option<&str>) -> Result<Tokenizer, TokenizerError> {
    fn named<'a>(name: &'a str, text: Option<&'a str>) -> Option<(&'a str, &'a [u8])> {
        text.map(|text| (name, text.as_bytes()))
    }
    let files = TokenizerFiles {
        tokenizer_json: None,
        vocab_txt: Some(("vocab.txt", VOCABULARY.as_bytes())),
        tokenizer_config: named("tokenizer_config.json", Some(config)),
        added_tokens: named("added_tokens.json", added),
        special_tokens_map: named("special_tokens_map.json", map),
    };
    Tokenizer::load(&files, true)
}

const PERMUTED: &str = r#"["[DRUG]", "[ADR]", "[/DRUG]", "[/ADR]"]"#;

#[test]
fn added_tokens_json_gives_markers_their_ids() {
    let ids = r#"{"[DRUG]": 23, "[ADR]": 24, "[/DRUG]": 25, "[/ADR]": 26}"#;
    let map = format!(r#"{{"additional_special_tokens": {PERMUTED}}}"#);
    for map in [None, Some(map.as_str())] {
        let tokenizer = with_older_files("{}", Some(ids), map).unwrap();
        assert_eq!(tokenizer.marker_ids(), Some([23, 25, 24, 26]));
    }
    let wrong = with_older_files("{}", Some(&ids.replace("26", "27")), None).unwrap_err();
    let wrong = wrong.to_string();
    assert!(
        wrong.starts_with("added_tokens.json: states id 27 for \"[/ADR]\", the vocabulary gives 26"),
        "{wrong}"
    );
    let wrong = with_older_files("{}", Some(r#"{"[DRUG]": "23"}"#), None).unwrap_err();
    let expected = "added_tokens.json: \"[DRUG]\": expected a token id, found a string";
    assert_eq!(wrong.to_string(), expected);
}

#[test]
fn special_tokens_map_json_gives_markers_their_order_and_tokens_their_names() {
    let map = format!(r#"{{"additional_special_tokens": {PERMUTED}, "cls_token": {{"content": "[PAD]"}}}}"#);
    let tokenizer = with_older_files(r#"{"cls_token": "[SEP]"}"#, None, Some(&map)).unwrap();
    assert_eq!(tokenizer.marker_ids(), Some([23, 25, 24, 26]));
    assert_eq!(ids(&tokenizer, "a"), [0, 5, 3]);
    assert!(tokenizer.doubts().is_empty(), "{:?}", tokenizer.doubts());
}

#[test]
fn a_configuration_with_a_list_of_its_own_leaves_older_files_out() {
    let config = r#"{"added_tokens_decoder": {"23": {"content": "[DRUG]", "special": true}}}"#;
    let map = format!(r#"{{"additional_special_tokens": {PERMUTED}}}"#);
    let tokenizer = with_older_files(config, Some(r#"{"[/ADR]": 23}"#), Some(&map)).unwrap();
    assert_eq!(tokenizer.marker_ids(), Some([23, 24, 25, 26]));
}

#[test]
fn two_lists_of_special_tokens_that_differ_are_a_doubt() {
    let map = format!(r#"{{"additional_special_tokens": {PERMUTED}}}"#);
    let config = r#"{"additional_special_tokens": ["[ADR]"]}"#;
    let tokenizer = with_older_files(config, None, Some(&map)).unwrap();
    assert_eq!(tokenizer.marker_ids(), Some([24, 25, 23, 26]));
    let [doubt] = tokenizer.doubts() else {
        panic!("{:?}", tokenizer.doubts())
    };
    assert!(
        doubt.contains("has \"[DRUG]\", which tokenizer_config.json does not list"),
        "{doubt}"
    );
}

#[test]
fn malformed_files_are_named_in_one_clear_error() {
    let message = |vocabulary: &str, config: Option<&str>| load(vocabulary, config, true).unwrap_err().to_string();
    assert_eq!(message("", None), "vocab.txt: is empty, expected one token a line");
    assert_eq!(
        message("a\nb", None),
        "vocab.txt: the unknown token \"[UNK]\" is not in the vocabulary"
    );
    assert!(message("[UNK]\n[SEP]\na\na\nb\n[PAD]\n[MASK]\n[CLS]\nc", None).contains("is already that of"));
    for (config, expected) in [
        ("[]", "tokenizer_config.json: expected a JSON object"),
        (
            r#"{"do_lower_case": 1}"#,
            "\"do_lower_case\": expected true, false or null, found a number",
        ),
        (r#"{"cls_token": 1}"#, "\"cls_token\": expected a token"),
        (
            r#"{"added_tokens_decoder": {"x": "a"}}"#,
            "expected token ids as keys, found \"x\"",
        ),
        (
            r#"{"added_tokens_decoder": {"9": {"content": "[DRUG]"}}}"#,
            "states id 9 for \"[DRUG]\", the vocabulary gives 23",
        ),
        (r#"{"truncation_side": "left"}"#, "\"left\" is not supported"),
        ("{", "tokenizer_config.json: EOF"),
    ] {
        let found = message(VOCABULARY, Some(config));
        assert!(found.contains(expected), "{found}");
    }
    let not_utf8 = TokenizerFiles {
        vocab_txt: Some(("v.txt", b"a\n\xff")),
        ..Default::default()
    };
    assert_eq!(
        Tokenizer::load(&not_utf8, true).unwrap_err().to_string(),
        "v.txt: not UTF-8 after byte 2"
    );
    assert!(
        Tokenizer::load(&TokenizerFiles::default(), true)
            .unwrap_err()
            .to_string()
            .starts_with("no tokenizer:")
    );
}

#[test]
fn a_hostile_tokenizer_json_is_an_error() {
    let load = |json: &str| {
        let files = TokenizerFiles {
            tokenizer_json: Some(("t.json", json.as_bytes())),
            ..Default::default()
        };
        Tokenizer::load(&files, true).unwrap_err().to_string()
    };
    let with_model = |model: &str| format!(r#"{{"version":"1.0","added_tokens":[],"model":{model}}}"#);
    for (json, expected) in [
        ("".to_owned(), "t.json: EOF"),
        ("{}".to_owned(), "t.json: "),
        ("[".repeat(100_000), "t.json: "),
        (
            with_model(r#"{"type":"WordLevel","vocab":{"[UNK]":0},"unk_token":"[UNK]"}"#),
            "expected WordPiece, as BERT has, found WordLevel",
        ),
        (
            with_model(
                r#"{"type":"WordPiece","vocab":{"a":0},"unk_token":"[UNK]","continuing_subword_prefix":"\u0023#","max_input_chars_per_word":100}"#,
            ),
            "the unknown token \"[UNK]\" is not in the vocabulary",
        ),
        (
            with_model(
                r#"{"type":"WordPiece","vocab":{"[UNK]":4294967295},"unk_token":"[UNK]","continuing_subword_prefix":"\u0023#","max_input_chars_per_word":100}"#,
            ),
            "t.json: ",
        ),
    ] {
        let found = load(&json);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn a_long_text_loses_its_right_end_and_keeps_sep() {
    let tokenizer = tokenizer();
    let marked = mark_every("a b c aspirin b c", "aspirin", Side::Drug);
    let at = |max_length| tokenizer.tokenize(&marked, max_length, Truncation::Start).unwrap();
    assert_eq!(at(11).token_ids, [2, 5, 6, 7, 23, 11, 12, 24, 6, 7, 3]);
    assert!(!at(11).truncated);
    assert_eq!(at(9).token_ids, [2, 5, 6, 7, 23, 11, 12, 24, 3]);
    assert!(at(9).truncated && !at(9).mention_truncated);
    assert_eq!(at(8).token_ids, [2, 5, 6, 7, 23, 11, 12, 3]);
    assert!(at(8).mention_truncated);
    for tiny in 0..3 {
        for truncation in [Truncation::Start, Truncation::Mention] {
            let tokenized = tokenizer.tokenize(&marked, tiny, truncation).unwrap();
            assert_eq!(tokenized.token_ids, [2, 3]);
            assert!(tokenized.truncated && tokenized.mention_truncated);
        }
    }
}

#[test]
fn a_later_mention_that_is_cut_off_is_no_loss_while_an_earlier_one_is_kept() {
    let tokenizer = tokenizer();
    let marked = mark_every("b a a a b", "b", Side::Adr);
    let tokenized = tokenizer.tokenize(&marked, 7, Truncation::Start).unwrap();
    assert!(tokenized.truncated && !tokenized.mention_truncated);
}

#[test]
fn the_window_around_a_mention_wastes_nothing_at_the_ends() {
    let tokenizer = tokenizer();
    let around = |text: &str, span| {
        let marked = mark_span(text, "b", span, Side::Drug).unwrap();
        tokenizer.tokenize(&marked, 9, Truncation::Mention).unwrap()
    };
    let a = [5; 20];
    let with = |before: usize, after: usize| [&[2], &a[..before], &[23, 6, 24], &a[..after], &[3]].concat();
    assert_eq!(around("b a a a a a a a a", [0, 1]).token_ids, with(0, 4));
    assert_eq!(around("a b a a a a a a a", [2, 3]).token_ids, with(1, 3));
    assert_eq!(around("a a a a b a a a a", [8, 9]).token_ids, with(2, 2));
    assert_eq!(around("a a a a a a a b a", [14, 15]).token_ids, with(3, 1));
    assert_eq!(around("a a a a a a a a b", [16, 17]).token_ids, with(4, 0));
    assert!(around("a a a a a a a a b", [16, 17]).truncated);
    assert!(!around("a a a a a a a a b", [16, 17]).mention_truncated);
}

#[test]
fn a_mention_longer_than_the_window_keeps_its_start() {
    let tokenizer = tokenizer();
    let marked = mark_every("c c a a a a a a b", "a a a a a a", Side::Drug);
    let tokenized = tokenizer.tokenize(&marked, 6, Truncation::Mention).unwrap();
    assert_eq!(tokenized.token_ids, [2, 23, 5, 5, 5, 3]);
    assert!(tokenized.truncated && tokenized.mention_truncated);
}

#[test]
fn a_mention_without_markers_is_watched_too() {
    let tokenizer = load(VOCABULARY, None, false).unwrap();
    let located = locate_every("c c c c aspirin a", "spiri");
    assert!(
        tokenizer
            .tokenize(&located, 7, Truncation::Start)
            .unwrap()
            .mention_truncated
    );
    let kept = tokenizer.tokenize(&located, 4, Truncation::Mention).unwrap();
    assert_eq!(kept.token_ids, [2, 11, 12, 3]);
    assert!(!kept.mention_truncated);
}

#[test]
fn sixteen_mebibytes_cost_what_the_window_needs() {
    let tokenizer = tokenizer();
    let half = "a-b, c ".repeat(8 << 17);
    let text = format!("{half}aspirin {half}");
    let marked = mark_span(&text, "aspirin", [half.len(), half.len() + 7], Side::Drug).unwrap();
    let started = std::time::Instant::now();
    let start = tokenizer.tokenize(&marked, 128, Truncation::Start).unwrap();
    assert!(start.truncated && start.mention_truncated && start.token_ids.len() == 128);
    let mention = tokenizer.tokenize(&marked, 128, Truncation::Mention).unwrap();
    assert!(mention.truncated && !mention.mention_truncated && mention.token_ids.len() == 128);
    assert_eq!(mention.token_ids[62..66], [23, 11, 12, 24]);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

#[test]
fn mebibytes_without_a_place_to_cut_are_linear() {
    let tokenizer = tokenizer();
    let text = "α".repeat(2 << 20);
    let tokenized = tokenizer.tokenize(&unmarked(&text), 128, Truncation::Start).unwrap();
    assert!(tokenized.token_ids.len() <= 3);
}

#[test]
fn of_mebibytes_of_letters_or_blanks_hardly_anything_is_tokenized() {
    let tokenizer = tokenizer();
    for (run, id) in [("acgt", Some(1)), ("0", Some(1)), ("\t \r\n", None)] {
        let text = format!("a {} b", run.repeat((16 << 20) / run.len()));
        let expected: Vec<u32> = [2, 5].into_iter().chain(id).chain([6, 3]).collect();
        assert_eq!(ids(&tokenizer, &text), expected, "{run:?}");
        assert!(tokenizer.runs.shorten(&text).unwrap().text.len() < 300, "{run:?}");
    }
}

#[test]
fn a_run_in_which_an_added_token_could_stand_is_tokenized_whole() {
    let run = "a".repeat(1000);
    for (added, is_shortened) in [("cab", false), ("\n", false), ("c-b", true)] {
        let content = serde_json::to_string(added).unwrap();
        let config = format!(
            r#"{{"added_tokens_decoder": {{"23": {{"content": {content}, "special": true, "normalized": false,
                "lstrip": false, "rstrip": false, "single_word": false}}}}}}"#
        );
        let tokenizer = load(VOCABULARY, Some(&config), false).unwrap();
        assert_eq!(tokenizer.runs.shorten(&run).is_some(), is_shortened, "{added:?}");
        let text = format!("{run}{added}{run}{}", " ".repeat(8 << 10));
        assert_eq!(ids(&tokenizer, &text), [2, 1, 23, 1, 3], "{added:?}");
    }
}

#[test]
fn nothing_is_remembered_where_an_added_token_reaches_across_white_space() {
    for (content, strips, is_remembered) in [("[x]", false, true), ("[x y]", false, false), ("[x]", true, false)] {
        let config = format!(
            r#"{{"added_tokens_decoder": {{"23": {{"content": "{content}", "special": true, "normalized": false,
                "lstrip": {strips}, "rstrip": false, "single_word": false}}}}}}"#
        );
        let tokenizer = load(VOCABULARY, Some(&config), false).unwrap();
        assert_eq!(tokenizer.pieces.is_some(), is_remembered, "{config}");
        assert_eq!(ids(&tokenizer, &format!("a {content} b")), [2, 5, 23, 6, 3], "{config}");
    }
}

/// Words, markers and oddities, put together at random.
fn odd_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[abc]{1,4}",
        4 => Just(" ".to_owned()),
        2 => "[-,.\\[\\]/]",
        2 => prop::sample::select(vec!["[DRUG]", "[/DRUG]", "[ADR]", "[SEP]", "aspirin", "中", "α", "é", "e\u{301}", "\u{301}", "\0", "\u{200b}", "\u{3000}", "İ", "豈", "각"]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn cutting_a_text_anywhere_it_may_be_cut_changes_no_token(text in odd_text(), from in 0usize..60) {
        let tokenizer = tokenizer();
        let whole = tokenizer.inner.encode(text.as_str(), false).unwrap();
        for cut in [tokenizer.cuts.at_or_after(&text, from), tokenizer.cuts.at_or_before(&text, from)] {
            let mut tokens = Vec::new();
            tokenizer.encode_piece(&text, 0..cut, |token| tokens.push(token)).unwrap();
            tokenizer.encode_piece(&text, cut..text.len(), |token| tokens.push(token)).unwrap();
            let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
            prop_assert_eq!(&ids, &whole.get_ids());
            let offsets: Vec<_> = tokens.iter().map(|(_, at)| (at.start, at.end)).collect();
            prop_assert_eq!(&offsets, &whole.get_offsets());
        }
    }

    #[test]
    fn leaving_out_the_middle_of_long_runs_changes_no_token_and_no_place(
        parts in prop::collection::vec((odd_text(), prop::sample::select(vec!["a", "7", " ", "\n", "é"]), 0usize..300), 0..5),
    ) {
        let text: String = parts.into_iter().map(|(odd, run, length)| odd + &run.repeat(length)).collect();
        let tokenizer = tokenizer();
        let whole = tokenizer.inner.encode(text.as_str(), false).unwrap();
        let mut tokens = Vec::new();
        tokenizer.encode_piece(&text, 0..text.len(), |token| tokens.push(token)).unwrap();
        let (ids, places): (Vec<u32>, Vec<_>) = tokens.into_iter().map(|(id, at)| (id, (at.start, at.end))).unzip();
        prop_assert_eq!(&ids, &whole.get_ids());
        prop_assert_eq!(&places, &whole.get_offsets());
    }

    #[test]
    fn what_is_remembered_of_texts_changes_no_token_and_no_place(
        texts in prop::collection::vec(odd_text(), 1..4), budget in 0usize..80,
    ) {
        let tokenizer = tokenizer();
        // What the first round leaves is looked up in the second.
        for text in texts.iter().chain(&texts) {
            let whole = tokenizer.inner.encode(text.as_str(), false).unwrap();
            let tokens = tokenizer.first_tokens(text, budget).unwrap();
            prop_assert!(tokens.len() == whole.len() || tokens.len() > budget);
            let (ids, places): (Vec<u32>, Vec<_>) = tokens.into_iter().map(|(id, at)| (id, (at.start, at.end))).unzip();
            prop_assert_eq!(&ids[..], &whole.get_ids()[..ids.len()]);
            prop_assert_eq!(&places[..], &whole.get_offsets()[..places.len()]);
        }
    }

    #[test]
    fn truncating_equals_the_library_s_own_truncation(text in odd_text(), max_length in 2usize..24) {
        let tokenizer = tokenizer();
        let mut reference = tokenizer.inner.clone();
        let params = tokenizers::TruncationParams { max_length: max_length - 2, ..Default::default() };
        reference.with_truncation(Some(params)).unwrap();
        let expected = reference.encode(text.as_str(), false).unwrap();
        let found = tokenizer.tokenize(&unmarked(&text), max_length, Truncation::Start).unwrap();
        prop_assert_eq!(&found.token_ids[1..found.token_ids.len() - 1], expected.get_ids());
        prop_assert_eq!(found.truncated, ids(&tokenizer, &text).len() > max_length);
    }

    #[test]
    fn long_texts_give_the_same_window_as_a_naive_model(
        text in odd_text(), repeats in 1usize..200, max_length in 2usize..40, nth in 0usize..50,
    ) {
        let text = text.repeat(repeats);
        let tokenizer = tokenizer();
        let mut marked = mark_every(&text, "aspirin", Side::Drug);
        marked.mentions.drain(..nth.min(marked.mentions.len().saturating_sub(1)));
        let found = tokenizer.tokenize(&marked, max_length, Truncation::Mention).unwrap();

        let whole = tokenizer.inner.encode(marked.text.as_str(), false).unwrap();
        let budget = max_length - 2;
        let mut start = 0;
        if let Some(mention) = marked.mentions.first().filter(|_| whole.len() > budget) {
            let offsets = whole.get_offsets();
            let opening = offsets.iter().filter(|at| at.1 <= mention.start).count();
            let length = offsets[opening..].iter().filter(|at| at.0 < mention.end).count();
            start = opening.saturating_sub(budget.saturating_sub(length) / 2).min(whole.len() - budget);
        }
        let kept = &whole.get_ids()[start..whole.len().min(start + budget)];
        prop_assert_eq!(&found.token_ids[1..found.token_ids.len() - 1], kept);
    }

    #[test]
    fn arbitrary_strings_never_panic(text in any::<String>(), entity in any::<String>(), max_length in 0usize..20) {
        let tokenizer = tokenizer();
        for truncation in [Truncation::Start, Truncation::Mention] {
            tokenizer.tokenize(&mark_every(&text, &entity, Side::Adr), max_length, truncation).unwrap();
        }
    }
}
