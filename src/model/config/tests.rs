//! Settings from shapes, `config.json` and `crag.json`, and how they contradict each other.

use super::*;
use crate::kernels::Activation;
use crate::model::test_shapes::{SMALL, Shapes, Sizes, body, card_head, infos, read, replace};

#[test]
fn settings_say_where_they_came_from() {
    let roles = read([body(&SMALL), card_head(&SMALL)].concat()).unwrap();
    let config = ModelConfig::read(&roles, None, None).unwrap();
    assert_eq!(
        (*config.num_attention_heads, config.num_attention_heads.source),
        (2, Source::Default)
    );
    assert_eq!(
        (*config.pooling, config.pooling.source),
        (Pooling::Attention, Source::Shapes)
    );
    assert_eq!(
        (config.views.as_slice(), config.views.source),
        (&[View::Bilinear, View::Product][..], Source::Default)
    );
    assert_eq!((*config.max_length, *config.threshold), (40, 0.55));
    let stated = ModelConfig::read(
        &roles,
        Some((
            "config.json",
            br#"{"num_attention_heads": 4, "layer_norm_eps": 1e-5, "vocab_size": 46}"#,
        )),
        Some((
            "crag.json",
            br#"{"views": ["product", "drug"], "threshold": 0.4, "max_length": 32}"#,
        )),
    )
    .unwrap();
    assert_eq!(
        (*stated.num_attention_heads, stated.num_attention_heads.source),
        (4, Source::ConfigJson)
    );
    assert_eq!(
        (stated.views.as_slice(), stated.views.source),
        (&[View::Product, View::Drug][..], Source::CragJson)
    );
    assert_eq!((*stated.max_length, *stated.threshold), (32, 0.4));
}

#[test]
fn views_of_the_wrong_width_give_both_numbers() {
    let roles = read([body(&SMALL), card_head(&SMALL)].concat()).unwrap();
    let views = br#"{"views": ["bilinear", "drug", "adr"]}"#;
    let message = ModelConfig::read(&roles, None, Some(("crag.json", views)))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("48 numbers wide, the classifier takes 32"),
        "{message}"
    );
}

#[test]
fn an_unknown_key_in_the_sidecar_is_an_error() {
    let roles = read([body(&SMALL), card_head(&SMALL)].concat()).unwrap();
    let message = ModelConfig::read(&roles, None, Some(("m/crag.json", br#"{"treshold": 0.5}"#)))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("m/crag.json") && message.contains("treshold"),
        "{message}"
    );
}

#[test]
fn what_is_wrong_in_the_sidecar_is_said_with_its_key_in_words_for_people() {
    for (text, said) in [
        (
            r#"{"markers": true, "pooling_heads": -1}"#,
            "\"pooling_heads\": invalid value: integer `-1`, expected a whole number",
        ),
        (
            r#"{"threshold": "0.5"}"#,
            "\"threshold\": invalid type: string \"0.5\", expected a number",
        ),
        (
            r#"["attention", 8, ["drug", "adr"], true, 128, 0.9, "relu", true, null]"#,
            "expected a map",
        ),
        ("null", "expected a map"),
        (r#"{"threshold": 0.5, "threshold": 0.6}"#, "duplicate field"),
    ] {
        let message = Sidecar::parse(("crag.json", text.as_bytes())).unwrap_err().to_string();
        assert!(message.contains("crag.json") && message.contains(said), "{message}");
    }
}

#[test]
fn an_end_of_the_projections_is_stated_for_those_that_there_are_and_in_no_other_words_than_true_or_false() {
    let shapes = [body(&SMALL), card_head(&SMALL)].concat();
    let read_with = |shapes: &Shapes, stated: &str| {
        let json = format!(r#"{{"projection_activation": {stated}}}"#);
        let named = ("crag.json", json.as_bytes());
        let sidecar = Sidecar::parse(named).map_err(|error| error.to_string())?;
        let roles = Roles::read_stated(&infos(shapes.clone()), sidecar.projection_activation).unwrap();
        ModelConfig::read(&roles, None, Some(named)).map_err(|error| error.to_string())
    };
    for end in [true, false] {
        let config = read_with(&shapes, &end.to_string()).unwrap();
        let expected = Setting {
            value: end,
            source: Source::CragJson,
        };
        assert_eq!(config.projection_activation, Some(expected));
        assert_eq!(config.to_sidecar().projection_activation, Some(end));
    }
    for wrong in ["\"gelu\"", "1"] {
        let message = read_with(&shapes, wrong).unwrap_err();
        assert!(
            message.contains("crag.json") && message.contains("expected a boolean"),
            "{message}"
        );
    }
    let roles = read(shapes.clone()).unwrap();
    let config = ModelConfig::read(&roles, None, None).unwrap();
    assert_eq!(config.projection_activation, Some(stated(None, true)));

    // Without projections representations are as wide as hidden states, and so are bilinear and views.
    let mut shapes = shapes;
    shapes.retain(|(name, _)| !name.contains("projection"));
    let hidden = SMALL.hidden;
    replace(&mut shapes, "bilinear.weight", &[16, hidden, hidden]);
    replace(&mut shapes, "classifier.0.weight", &[16, 16 + hidden]);
    let message = read_with(&shapes, "true").unwrap_err();
    let expected =
        "field \"projection_activation\": expected no such key, the checkpoint has no projections, found true";
    assert!(message.contains(expected), "{message}");
    let config = ModelConfig::read(&read(shapes).unwrap(), None, None).unwrap();
    assert_eq!(config.to_sidecar().projection_activation, None);
}

#[test]
fn no_pooler_and_no_pooling_stated_says_what_to_write() {
    let shapes = [body(&SMALL), card_head(&SMALL)].concat();
    let shapes = shapes.into_iter().filter(|(n, _)| !n.contains("_pooler.")).collect();
    let roles = read(shapes).unwrap();
    let error = ModelConfig::read(&roles, None, None).unwrap_err();
    assert!(matches!(error, ConfigError::NoPooling));
    assert!(error.to_string().contains(r#"{"pooling": "mean"}"#), "{error}");
    let config = ModelConfig::read(&roles, None, Some(("crag.json", br#"{"pooling": "cls"}"#))).unwrap();
    assert_eq!(*config.pooling, Pooling::Cls);
}

#[test]
fn a_pooling_that_the_tensors_contradict_is_quoted_with_the_way_out() {
    let shapes = [body(&SMALL), card_head(&SMALL)].concat();
    let (pooled, bare): (Shapes, Shapes) = (
        shapes.clone(),
        shapes.into_iter().filter(|(n, _)| !n.contains("_pooler.")).collect(),
    );
    for (shapes, stated, expected) in [
        (
            &pooled,
            "mean",
            r#""pooling" is "mean", but the checkpoint has attention pooler tensors, which would go unused; state "attention" or leave it out"#,
        ),
        (
            &pooled,
            "cls",
            r#""pooling" is "cls", but the checkpoint has attention pooler tensors, which"#,
        ),
        (
            &bare,
            "attention",
            r#""pooling" is "attention", but the checkpoint has no attention pooler tensors; state "mean" or "cls""#,
        ),
    ] {
        let sidecar = format!(r#"{{"pooling": "{stated}"}}"#);
        let roles = read(shapes.clone()).unwrap();
        let message = ModelConfig::read(&roles, None, Some(("crag.json", sidecar.as_bytes()))).unwrap_err();
        assert!(message.to_string().contains(expected), "{message}");
    }
}

#[test]
fn a_config_json_of_another_model_is_refused() {
    let roles = read([body(&SMALL), card_head(&SMALL)].concat()).unwrap();
    for (json, field) in [
        (r#"{"hidden_size": 768}"#, "hidden_size"),
        (r#"{"num_attention_heads": 5}"#, "num_attention_heads"),
        (r#"{"hidden_act": "swish"}"#, "hidden_act"),
        (r#"{"vocab_size": 51}"#, "vocab_size"),
        (r#"{"model_type": "roberta"}"#, "\"model_type\": expected \"bert\""),
        (
            r#"{"model_type": "xlm-roberta"}"#,
            "found \"xlm-roberta\", whose first token is at the padding token's id + 1",
        ),
        (r#"{"model_type": "camembert"}"#, "model_type"),
        (r#"{"model_type": "data2vec-text"}"#, "model_type"),
        (
            r#"{"model_type": "bert", "is_decoder": true}"#,
            "\"is_decoder\": expected false",
        ),
    ] {
        let message = ModelConfig::read(&roles, Some(("config.json", json.as_bytes())), None)
            .unwrap_err()
            .to_string();
        assert!(message.contains(field), "{message}");
    }
}

#[test]
fn a_value_of_config_json_that_is_none_names_its_field_and_one_that_json_has_no_word_for_itself() {
    let roles = read([body(&SMALL), card_head(&SMALL)].concat()).unwrap();
    for (json, expected) in [
        (
            r#"{"hidden_size": "128"}"#,
            "m/config.json: field \"hidden_size\": expected a whole number, found \"128\"",
        ),
        (
            r#"{"num_attention_heads": 4.5}"#,
            "field \"num_attention_heads\": expected a whole number, found 4.5",
        ),
        (
            r#"{"is_decoder": 0}"#,
            "field \"is_decoder\": expected true or false, found 0",
        ),
        (
            r#"{"model_type": ["bert"]}"#,
            "field \"model_type\": expected a string, found [\"bert\"]",
        ),
        (
            r#"{"layer_norm_eps": 604}"#,
            "field \"layer_norm_eps\": expected a small positive number, such as BERT's 1e-12, found 604",
        ),
        (
            r#"{"layer_norm_eps": 1e308}"#,
            "field \"layer_norm_eps\": expected a small",
        ),
        // Nothing is left of it in f32.
        (
            r#"{"layer_norm_eps": 1e-50}"#,
            "field \"layer_norm_eps\": expected a small",
        ),
        (
            "{\"a\": 1,\n \"layer_norm_eps\": Infinity}",
            "m/config.json: line 2, column 20: expected a number, found Infinity, which Python's json writes",
        ),
        (
            r#"{"dropout": -Infinity}"#,
            "column 14: expected a number, found Infinity",
        ),
        (r#"{"dropout": NaN}"#, "column 13: expected a number, found NaN"),
        (r#"{"dropout": Nil}"#, "expected value at line 1 column 13"),
        ("[]", "m/config.json: invalid type"),
    ] {
        let error = ModelConfig::read(&roles, Some(("m/config.json", json.as_bytes())), None).unwrap_err();
        assert!(error.to_string().contains(expected), "{json}: {error}");
    }
    let nothing = br#"{"hidden_size": null, "layer_norm_eps": null}"#;
    ModelConfig::read(&roles, Some(("config.json", nothing)), None).unwrap();
}

#[test]
fn a_number_of_heads_that_nothing_states_is_guessed_only_where_heads_of_64_fit() {
    let narrow = Sizes { hidden: 96, ..SMALL };
    let roles = read([body(&narrow), card_head(&narrow)].concat()).unwrap();
    let read =
        |json: Option<&str>| ModelConfig::read(&roles, json.map(|json| ("m/config.json", json.as_bytes())), None);
    let absent = read(None).unwrap_err().to_string();
    assert!(absent.starts_with("config.json: not beside the weights"), "{absent}");
    let silent = read(Some(r#"{"hidden_size": 96}"#)).unwrap_err().to_string();
    assert!(
        silent.starts_with("m/config.json: field \"num_attention_heads\": not stated"),
        "{silent}"
    );
    for message in [absent, silent] {
        assert!(
            message.contains("hidden size 96") && message.contains(r#"write {"num_attention_heads": N}"#),
            "{message}"
        );
    }
    let config = read(Some(r#"{"num_attention_heads": 3}"#)).unwrap();
    assert_eq!(*config.num_attention_heads, 3);
}

#[test]
fn config_json_is_held_against_both_encoders() {
    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    replace(&mut shapes, "adr_encoder.embeddings.word_embeddings.weight", &[46, 128]);
    let roles = read(shapes).unwrap();
    let read = |json: &str| ModelConfig::read(&roles, Some(("config.json", json.as_bytes())), None);
    read(r#"{"vocab_size": 46}"#).unwrap();
    let message = read(r#"{"vocab_size": 50}"#).unwrap_err().to_string();
    assert!(
        message.contains("at most 46, the rows of \"adr_encoder.embeddings.word_embeddings.weight\", found 50"),
        "{message}"
    );
}

#[test]
fn other_settings_are_told_from_the_same_ones_that_are_not_stated() {
    let sidecar = |text: &str| Sidecar::parse(("crag.json", text.as_bytes())).unwrap();
    let usual = r#"{"pooling": "attention", "pooling_heads": 4, "views": ["bilinear", "product"], "markers": true,
        "max_length": 128, "threshold": 0.55, "activation": "gelu", "projection_activation": true}"#;
    let other = r#"{"pooling": "cls", "pooling_heads": 2, "views": ["product"], "markers": false, "max_length": 64,
        "threshold": 0.5, "activation": "relu", "projection_activation": false}"#;
    let keys = [
        "pooling",
        "pooling_heads",
        "views",
        "markers",
        "max_length",
        "threshold",
        "activation",
        "projection_activation",
    ];
    let (none, usual, other) = (Sidecar::default(), sidecar(usual), sidecar(other));
    assert!(none.other_than(&other).is_empty() && usual.other_than(&usual).is_empty());
    assert!(usual.other_than(&none).is_empty());
    assert_eq!(other.other_than(&none), keys);
    assert_eq!(usual.other_than(&other), keys);
    assert_eq!(none.or(&other), other);
    assert_eq!(usual.clone().or(&other), usual);
}

#[test]
fn a_family_that_is_not_known_to_compute_what_bert_does_is_remembered() {
    let roles = read([body(&SMALL), card_head(&SMALL)].concat()).unwrap();
    for (json, unknown) in [
        (r#"{"model_type": "bert", "is_decoder": false}"#, None),
        (r#"{"model_type": "electra"}"#, None),
        ("{}", None),
        (r#"{"model_type": "ernie"}"#, Some("ernie")),
    ] {
        let config = ModelConfig::read(&roles, Some(("config.json", json.as_bytes())), None).unwrap();
        assert_eq!(config.unknown_family.as_deref(), unknown, "{json}");
    }
}

#[test]
fn the_usual_length_is_128_however_many_more_positions_there_are_and_no_more_than_either_encoder_has() {
    let length = |drug: usize, adr: usize, stated: Option<usize>| {
        let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
        for (side, positions) in [("drug", drug), ("adr", adr)] {
            let name = format!("{side}_encoder.embeddings.position_embeddings.weight");
            replace(&mut shapes, &name, &[positions, SMALL.hidden]);
        }
        let roles = read(shapes).unwrap();
        assert_eq!(roles.positions(), drug.min(adr));
        let sidecar = stated.map(|length| format!(r#"{{"max_length": {length}}}"#));
        let sidecar = sidecar.as_ref().map(|text| ("crag.json", text.as_bytes()));
        ModelConfig::read(&roles, None, sidecar).map(|config| config.max_length)
    };
    let default = |value| Setting {
        value,
        source: Source::Default,
    };
    for (drug, adr, expected) in [(512, 512, 128), (128, 129, 128), (512, 40, 40), (40, 512, 40)] {
        assert_eq!(length(drug, adr, None).unwrap(), default(expected), "{drug}, {adr}");
    }
    for (drug, adr) in [(512, 300), (300, 512)] {
        assert_eq!(*length(drug, adr, Some(300)).unwrap(), 300);
        let message = length(drug, adr, Some(301)).unwrap_err().to_string();
        assert!(
            message.contains("expected 3 to 300, the model's positions, found 301"),
            "{message}"
        );
    }
}

#[test]
fn each_name_of_an_activation_is_the_kernel_that_computes_it() {
    for (names, kernel) in [
        (&["gelu"][..], Activation::Gelu),
        (&["gelu_new", "gelu_pytorch_tanh", "gelu_fast"], Activation::GeluTanh),
        (&["relu"], Activation::Relu),
        (&["tanh"], Activation::Tanh),
    ] {
        for name in names {
            let read: ActivationName = serde_json::from_str(&format!("{name:?}")).unwrap();
            assert_eq!((read.kernel(), read.name()), (kernel, names[0]), "{name}");
        }
    }
}
