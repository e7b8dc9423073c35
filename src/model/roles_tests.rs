//! Roles are read off names and shapes alone, so these tests need no weights.

use std::collections::BTreeMap;

use candle_core::DType;

use crate::model::config::{ConfigError, ModelConfig, Pooling, Source, View};

use super::*;
use crate::checkpoint::TensorInfo;

struct Sizes {
    hidden: usize,
    layers: usize,
    intermediate: usize,
    vocabulary: usize,
    positions: usize,
    fusion: usize,
}

const SMALL: Sizes = Sizes {
    hidden: 128,
    layers: 2,
    intermediate: 96,
    vocabulary: 50,
    positions: 40,
    fusion: 16,
};
/// BioLinkBERT-base with four markers.
const CARD: Sizes = Sizes {
    hidden: 768,
    layers: 12,
    intermediate: 3072,
    vocabulary: 28_899,
    positions: 512,
    fusion: 256,
};

type Shapes = Vec<(String, Vec<usize>)>;

fn linear(name: &str, out: usize, input: usize) -> Shapes {
    vec![
        (format!("{name}.weight"), vec![out, input]),
        (format!("{name}.bias"), vec![out]),
    ]
}

fn norm(name: &str, width: usize) -> Shapes {
    vec![
        (format!("{name}.weight"), vec![width]),
        (format!("{name}.bias"), vec![width]),
    ]
}

fn encoder(prefix: &str, s: &Sizes) -> Shapes {
    let mut t = vec![
        (
            format!("{prefix}.embeddings.word_embeddings.weight"),
            vec![s.vocabulary, s.hidden],
        ),
        (
            format!("{prefix}.embeddings.position_embeddings.weight"),
            vec![s.positions, s.hidden],
        ),
        (
            format!("{prefix}.embeddings.token_type_embeddings.weight"),
            vec![2, s.hidden],
        ),
    ];
    t.extend(norm(&format!("{prefix}.embeddings.LayerNorm"), s.hidden));
    for i in 0..s.layers {
        let layer = format!("{prefix}.encoder.layer.{i}");
        for name in ["query", "key", "value"] {
            t.extend(linear(&format!("{layer}.attention.self.{name}"), s.hidden, s.hidden));
        }
        t.extend(linear(&format!("{layer}.attention.output.dense"), s.hidden, s.hidden));
        t.extend(norm(&format!("{layer}.attention.output.LayerNorm"), s.hidden));
        t.extend(linear(&format!("{layer}.intermediate.dense"), s.intermediate, s.hidden));
        t.extend(linear(&format!("{layer}.output.dense"), s.hidden, s.intermediate));
        t.extend(norm(&format!("{layer}.output.LayerNorm"), s.hidden));
    }
    t.extend(linear(&format!("{prefix}.pooler.dense"), s.hidden, s.hidden));
    t
}

fn pooler(prefix: &str, s: &Sizes) -> Shapes {
    let mut t = vec![
        (format!("{prefix}.query"), vec![1, 1, s.hidden]),
        (
            format!("{prefix}.attention.in_proj_weight"),
            vec![3 * s.hidden, s.hidden],
        ),
        (format!("{prefix}.attention.in_proj_bias"), vec![3 * s.hidden]),
    ];
    t.extend(linear(&format!("{prefix}.attention.out_proj"), s.hidden, s.hidden));
    t
}

/// A checkpoint as the card describes it, `head` aside.
fn body(s: &Sizes) -> Shapes {
    [
        encoder("drug_encoder", s),
        encoder("adr_encoder", s),
        pooler("drug_pooler", s),
        pooler("adr_pooler", s),
    ]
    .concat()
}

fn card_head(s: &Sizes) -> Shapes {
    let f = s.fusion;
    let mut t = Vec::new();
    for side in ["drug", "adr"] {
        t.extend(linear(&format!("{side}_projection.0"), f, s.hidden));
        t.extend(norm(&format!("{side}_projection.1"), f));
    }
    t.push(("bilinear.weight".into(), vec![f, f, f]));
    t.push(("bilinear.bias".into(), vec![f]));
    t.extend(linear("classifier.0", f, 2 * f));
    t.extend(norm("classifier.1", f));
    t.extend(linear("classifier.4", f / 2, f));
    t.extend(linear("classifier.7", 1, f / 2));
    t
}

fn infos(shapes: Shapes) -> Vec<TensorInfo> {
    shapes
        .into_iter()
        .map(|(name, shape)| TensorInfo {
            name,
            shape,
            dtype: DType::F32,
            file: "model.safetensors".into(),
        })
        .collect()
}

fn read(shapes: Shapes) -> Result<Roles, RolesError> {
    Roles::read(&infos(shapes))
}

fn replace(shapes: &mut Shapes, name: &str, shape: &[usize]) {
    let entry = shapes
        .iter_mut()
        .find(|(n, _)| n == name)
        .expect("a tensor of that name");
    entry.1 = shape.to_vec();
}

fn kinds(steps: &[HeadStep]) -> String {
    let kind = |s: &HeadStep| match s {
        HeadStep::Linear(l) => format!("{}>{}", l.in_features, l.out_features),
        HeadStep::Norm(_) => "norm".into(),
        HeadStep::Activation => "act".into(),
    };
    steps.iter().map(kind).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_cards_model_has_the_cards_number_of_parameters() {
    let shapes = [body(&CARD), card_head(&CARD)].concat();
    let all = infos(shapes);
    let roles = Roles::read(&all).unwrap();
    let by_name: BTreeMap<_, _> = all
        .iter()
        .map(|t| (t.name.clone(), t.shape.iter().product::<usize>()))
        .collect();
    let assigned = roles.assignments();
    assert_eq!(assigned.len(), all.len(), "every tensor has exactly one role");
    let total: usize = assigned.iter().map(|(_, _, name)| by_name[name]).sum();
    assert_eq!(total, 238_534_913);
    assert_eq!(roles.encoder(Side::Adr).layers.len(), 12);
    assert_eq!(kinds(&roles.classifier), "512>256 norm act 256>128 act 128>1");
    assert_eq!(kinds(roles.projection(Side::Drug)), "768>256 norm act");
}

#[test]
fn head_names_are_free_where_widths_chain() {
    let f = SMALL.fusion;
    let mut shapes = body(&SMALL);
    for side in ["drug", "adr"] {
        shapes.extend(norm(&format!("{side}_proj.norm"), f));
        shapes.extend(linear(&format!("{side}_proj.dense"), f, SMALL.hidden));
    }
    shapes.push(("fusion.cube.weight".into(), vec![f, f, f]));
    shapes.push(("fusion.cube.bias".into(), vec![f]));
    shapes.extend(linear("head.a_last", 1, 8));
    shapes.extend(linear("head.b_first", f, 2 * f));
    shapes.extend(linear("head.c_middle", 8, f));
    shapes.extend(norm("head.ln", f));
    let roles = read(shapes).unwrap();
    assert_eq!(kinds(&roles.classifier), "32>16 norm act 16>8 act 8>1");
    assert_eq!(kinds(roles.projection(Side::Adr)), "128>16 norm act");
    assert_eq!(roles.bilinear.unwrap().weight, "fusion.cube.weight");
}

#[test]
fn a_missing_sequential_index_before_a_norm_is_the_activation() {
    let f = SMALL.fusion;
    let mut shapes = body(&SMALL);
    for side in ["drug", "adr"] {
        shapes.extend(linear(&format!("{side}_projection.0"), f, SMALL.hidden));
        shapes.extend(norm(&format!("{side}_projection.2"), f));
    }
    shapes.push(("bilinear.weight".into(), vec![f, f, f]));
    shapes.extend(linear("classifier.0", f, 2 * f));
    shapes.extend(norm("classifier.2", f));
    shapes.extend(linear("classifier.4", 1, f));
    let roles = read(shapes).unwrap();
    assert_eq!(kinds(&roles.classifier), "32>16 act norm 16>1");
    assert_eq!(kinds(roles.projection(Side::Drug)), "128>16 act norm");
}

#[test]
fn sequential_indices_past_nine_are_ordered_as_numbers() {
    let f = SMALL.fusion;
    let mut shapes = body(&SMALL);
    shapes.extend(
        card_head(&SMALL)
            .into_iter()
            .filter(|(n, _)| !n.starts_with("classifier")),
    );
    shapes.extend(linear("classifier.2", f, 2 * f));
    shapes.extend(linear("classifier.10", 1, f));
    assert_eq!(kinds(&read(shapes).unwrap().classifier), "32>16 act 16>1");
}

#[test]
fn a_left_over_tensor_is_named() {
    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    shapes.push(("logit_scale".into(), vec![]));
    let message = read(shapes).unwrap_err().to_string();
    assert!(message.contains("tensors left over: \"logit_scale\" []"), "{message}");
}

#[test]
fn an_empty_role_is_named() {
    let shapes = [body(&SMALL), card_head(&SMALL)].concat();
    let without = |part: &str| {
        let kept = shapes.iter().filter(|(n, _)| !n.starts_with(part)).cloned().collect();
        read(kept).unwrap_err().to_string()
    };
    assert!(
        without("adr_encoder").contains("roles left empty: adr encoder"),
        "{}",
        without("adr_encoder")
    );
    let no_query = without("drug_pooler.query");
    assert!(no_query.contains("learned query of the drug pooler"), "{no_query}");
    let one_pooler = without("adr_pooler");
    assert!(one_pooler.contains("attention pooler of the adr side"), "{one_pooler}");
    let no_weight = without("drug_encoder.encoder.layer.1.output.dense.weight");
    assert!(
        no_weight.contains("\"drug_encoder.encoder.layer.1.output.dense.weight\""),
        "{no_weight}"
    );
    let none = read(Vec::new()).unwrap_err().to_string();
    assert!(none.contains("drug encoder") && none.contains("classifier"), "{none}");
}

#[test]
fn an_encoder_or_pooler_with_a_gap_names_the_missing_tensor_and_nothing_else() {
    let shapes = [body(&SMALL), card_head(&SMALL)].concat();
    for missing in [
        "adr_encoder.embeddings.word_embeddings.weight",
        "adr_encoder.embeddings.position_embeddings.weight",
        "adr_encoder.embeddings.LayerNorm.bias",
        "drug_encoder.encoder.layer.0.attention.self.query.weight",
        "adr_encoder.encoder.layer.0.intermediate.dense.weight",
        "adr_encoder.encoder.layer.1.attention.self.query.weight",
        "adr_encoder.encoder.layer.1.output.LayerNorm.weight",
        "drug_encoder.encoder.layer.1.attention.self.key.bias",
        "adr_encoder.encoder.layer.0.intermediate.dense.bias",
        "drug_encoder.pooler.dense.weight",
        "drug_encoder.pooler.dense.bias",
        "adr_pooler.attention.in_proj_weight",
        "adr_pooler.attention.in_proj_bias",
        "drug_pooler.attention.out_proj.weight",
        "drug_pooler.attention.out_proj.bias",
    ] {
        let kept = shapes.iter().filter(|(n, _)| n != missing).cloned().collect();
        let message = read(kept).unwrap_err().to_string();
        let expected = format!("; roles left empty: \"{missing}\"; is it");
        assert!(message.contains(&expected), "{missing}: {message}");
    }
    let kept = shapes
        .iter()
        .filter(|(n, _)| !n.starts_with("adr_encoder.encoder.layer.0."));
    let message = read(kept.cloned().collect()).unwrap_err().to_string();
    assert!(
        message.contains("; roles left empty: \"adr_encoder.encoder.layer.0\"; is it"),
        "{message}"
    );
}

#[test]
fn a_plain_bert_is_told_from_a_damaged_dual_encoder() {
    let message = read(encoder("bert", &SMALL)).unwrap_err().to_string();
    assert!(
        message.contains("drug encoder (a BERT") && message.contains("adr encoder (a BERT"),
        "{message}"
    );
    assert!(
        message.contains("left over: \"bert.embeddings.LayerNorm.bias\""),
        "{message}"
    );
    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    for (name, _) in &mut shapes {
        *name = name.replace("adr_encoder", "symptom_encoder");
    }
    let message = read(shapes).unwrap_err().to_string();
    let expected = "left over: \"symptom_encoder.embeddings.word_embeddings.weight\" [50, 128]; is it";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_wrong_shape_names_the_tensor_and_both_shapes() {
    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    replace(
        &mut shapes,
        "adr_encoder.encoder.layer.0.output.dense.weight",
        &[128, 128],
    );
    let message = read(shapes).unwrap_err().to_string();
    assert!(
        message.contains("adr_encoder.encoder.layer.0.output.dense.weight"),
        "{message}"
    );
    assert!(message.contains("expected [128, 96], found [128, 128]"), "{message}");
}

#[test]
fn encoders_of_different_sizes_are_refused_with_both_numbers() {
    let head = card_head(&SMALL);
    for (smaller, reason) in [
        (
            Sizes { layers: 1, ..SMALL },
            "the drug encoder has 2 layers, the adr encoder 1",
        ),
        (
            Sizes {
                intermediate: 64,
                ..SMALL
            },
            "layer 0 is 96 wide within the drug encoder (intermediate size), 64 within the adr encoder",
        ),
    ] {
        for other in ["drug_encoder", "adr_encoder"] {
            let sided = Side::BOTH.map(|side| format!("{}_encoder", side.name()));
            let encoders = sided.map(|name| encoder(&name, if name == other { &smaller } else { &SMALL }));
            let poolers = [pooler("drug_pooler", &SMALL), pooler("adr_pooler", &SMALL)];
            let message = read([encoders.concat(), poolers.concat(), head.clone()].concat());
            let message = message.unwrap_err().to_string();
            assert!(message.contains("copies of one backbone"), "{message}");
            assert_eq!(message.contains(reason), other == "adr_encoder", "{message}");
        }
    }
}

#[test]
fn sides_with_different_poolers_or_projections_are_refused() {
    let shapes = [body(&SMALL), card_head(&SMALL)].concat();
    let without = |parts: &[&str]| {
        let kept = shapes
            .iter()
            .filter(|(n, _)| !parts.iter().any(|part| n.starts_with(part)));
        read(kept.cloned().collect())
    };
    let biases = |side: &str| ["in_proj_bias", "out_proj.bias"].map(|part| format!("{side}_pooler.attention.{part}"));
    let (drug, adr) = (biases("drug"), biases("adr"));
    let message = without(&[&adr[0], &adr[1]]).unwrap_err().to_string();
    assert!(
        message
            .contains("there is \"drug_pooler.attention.in_proj_bias\", but \"adr_pooler.attention.in_proj_weight\""),
        "{message}"
    );
    // nn.MultiheadAttention(bias=False)
    without(&[&drug[0], &drug[1], &adr[0], &adr[1]]).unwrap();

    for (part, reason) in [
        (
            "adr_projection.0.bias",
            "step 0 is a linear layer from 128 to 16 with a bias (\"drug_projection.0.weight\") on the drug side, a linear layer \
             from 128 to 16 without a bias (\"adr_projection.0.weight\") on the adr side",
        ),
        (
            "drug_projection.1",
            "step 1 is an activation on the drug side, a layer norm of 16 (\"adr_projection.1.weight\") on the adr side",
        ),
        (
            "adr_projection",
            "(\"drug_projection.0.weight\") on the drug side, nothing on the adr side",
        ),
    ] {
        let message = without(&[part]).unwrap_err().to_string();
        assert!(message.contains(reason), "{message}");
    }
    without(&["drug_projection.0.bias", "adr_projection.0.bias"]).unwrap();
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
fn a_classifier_that_does_not_end_in_one_logit_is_refused() {
    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    replace(&mut shapes, "classifier.7.weight", &[2, 8]);
    replace(&mut shapes, "classifier.7.bias", &[2]);
    let message = read(shapes).unwrap_err().to_string();
    assert!(
        message.contains("classifier: expected 1 output at the end, found 2"),
        "{message}"
    );
}

#[test]
fn an_order_that_widths_leave_open_asks_for_indices() {
    let f = SMALL.fusion;
    let mut shapes = body(&SMALL);
    shapes.extend(
        card_head(&SMALL)
            .into_iter()
            .filter(|(n, _)| !n.starts_with("classifier")),
    );
    shapes.extend(linear("head.first", 2 * f, 2 * f));
    shapes.extend(linear("head.second", 2 * f, 2 * f));
    shapes.extend(linear("head.out", 1, 2 * f));
    let message = read(shapes).unwrap_err().to_string();
    assert!(message.contains("name them by Sequential index"), "{message}");
}

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
        message.contains("48 numbers wide (3 views), the classifier takes 32"),
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
    ] {
        let message = ModelConfig::read(&roles, Some(("config.json", json.as_bytes())), None)
            .unwrap_err()
            .to_string();
        assert!(message.contains(field), "{message}");
    }
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
