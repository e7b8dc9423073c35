//! Roles are read off names and shapes alone, so these tests need no weights.

use std::collections::BTreeMap;

use super::*;
use crate::model::test_shapes::{
    CARD, SMALL, Sizes, body, card_head, encoder, infos, linear, norm, pooler, read, replace,
};

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
    let total: usize = assigned.iter().map(|assigned| by_name[&assigned.tensor]).sum();
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

/// The classifier of these modules, `n` a norm and `l` a linear, at these indices, and what is a guess about it.
fn classifier_at(modules: &[(char, usize)]) -> (String, Vec<String>) {
    let f = SMALL.fusion;
    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    shapes.retain(|(name, _)| !name.starts_with("classifier"));
    let linears: Vec<usize> = modules.iter().filter(|m| m.0 == 'l').map(|m| m.1).collect();
    for (kind, index) in modules {
        let name = format!("classifier.{index}");
        let (first, last) = (linears.first() == Some(index), linears.last() == Some(index));
        shapes.extend(match kind {
            'n' => norm(&name, f),
            _ => linear(&name, if last { 1 } else { f }, if first { 2 * f } else { f }),
        });
    }
    let roles = read(shapes).unwrap();
    (kinds(&roles.classifier), roles.guesses)
}

#[test]
fn an_activation_where_no_index_is_missing_is_a_guess() {
    let (steps, guesses) = classifier_at(&[('l', 0), ('n', 1), ('l', 2), ('l', 4)]);
    assert_eq!(steps, "32>16 norm act 16>16 act 16>1");
    let expected = "classifier: no index is missing between \"classifier.1\" and \"classifier.2\", and an activation is taken to \
                    stand there all the same";
    assert_eq!(guesses, [expected]);
}

#[test]
fn where_indices_leave_two_places_for_an_activation_one_is_a_guess() {
    let (steps, guesses) = classifier_at(&[('l', 0), ('n', 2), ('l', 4), ('l', 7)]);
    assert_eq!(steps, "32>16 act norm 16>16 act 16>1");
    let expected = "classifier: indices are missing before \"classifier.2\" and before \"classifier.4\", and the activation is \
                    taken to be the first of them";
    assert_eq!(guesses, [expected]);

    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    for (name, _) in &mut shapes {
        *name = name.replace("_projection.1", "_projection.2");
    }
    let roles = read(shapes).unwrap();
    let expected = "drug projection: an index is missing before \"drug_projection.2\" and may be missing at the end";
    let guess = roles.end_guess.unwrap();
    assert!(guess.starts_with(expected) && roles.guesses.is_empty(), "{guess}");
}

/// The drug projection of these modules, `n` a norm and `l` a linear, by name behind `_projection`, and what is a guess about it.
fn projection_of(modules: &[(char, &str)], stated: Option<bool>) -> (String, Vec<String>) {
    let f = SMALL.fusion;
    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    shapes.retain(|(name, _)| !name.contains("projection"));
    for side in ["drug", "adr"] {
        let mut width = SMALL.hidden;
        for (kind, name) in modules {
            let name = format!("{side}_projection{name}");
            let (module, out) = match kind {
                'n' => (norm(&name, width), width),
                _ => (linear(&name, f, width), f),
            };
            shapes.extend(module);
            width = out;
        }
    }
    let roles = Roles::read_stated(&infos(shapes), stated).unwrap();
    let steps = kinds(roles.projection(Side::Drug));
    assert_eq!(roles.projections_end_active(), Some(steps.ends_with(" act")));
    (steps, roles.guesses.into_iter().chain(roles.end_guess).collect())
}

#[test]
fn how_a_projection_ends_is_a_guess_unless_it_is_the_cards_or_stated() {
    let guess = |last: &str, taken: &str| {
        format!(
            "drug projection: nothing tells whether an activation stands behind \"drug_projection{last}, and {taken} is taken to"
        )
    };
    for (modules, guessed, guess, [with, without]) in [
        (
            &[('l', "")][..],
            "128>16",
            guess("\"", "none"),
            ["128>16 act", "128>16"],
        ),
        (
            &[('l', ".0")],
            "128>16 act",
            guess(".0\"", "one"),
            ["128>16 act", "128>16"],
        ),
        (
            &[('l', ".0"), ('l', ".2")],
            "128>16 act 16>16 act",
            guess(".2\"", "one"),
            ["128>16 act 16>16 act", "128>16 act 16>16"],
        ),
        (
            &[('l', ".0"), ('l', ".3"), ('n', ".4")],
            "128>16 act 16>16 norm act",
            guess(".4\"", "one"),
            ["128>16 act 16>16 norm act", "128>16 act 16>16 norm"],
        ),
        (
            &[('n', ".0"), ('l', ".1")],
            "norm 128>16 act",
            guess(".1\"", "one"),
            ["norm 128>16 act", "norm 128>16"],
        ),
    ] {
        assert_eq!(projection_of(modules, None), (guessed.to_owned(), vec![guess]));
        assert_eq!(projection_of(modules, Some(true)), (with.to_owned(), Vec::new()));
        assert_eq!(projection_of(modules, Some(false)), (without.to_owned(), Vec::new()));
    }
    let card = [('l', ".0"), ('n', ".1")];
    assert_eq!(projection_of(&card, None), ("128>16 norm act".to_owned(), Vec::new()));
    assert_eq!(
        projection_of(&card, Some(false)),
        ("128>16 norm".to_owned(), Vec::new())
    );
    // A gap before the norm is an activation, or a dropout where one is stated to be at the end.
    let gap = [('l', ".0"), ('n', ".2")];
    assert_eq!(
        projection_of(&gap, Some(true)),
        ("128>16 norm act".to_owned(), Vec::new())
    );
    assert_eq!(
        projection_of(&gap, Some(false)),
        ("128>16 act norm".to_owned(), Vec::new())
    );
}

#[test]
fn the_side_of_a_norm_without_an_index_that_an_activation_stands_on_is_a_guess() {
    let named = [('l', ".dense"), ('n', ".norm")];
    let (steps, guesses) = projection_of(&named, None);
    let expected = "drug projection: nothing tells whether an activation stands behind \"drug_projection.norm\" (or before \
                    \"drug_projection.norm\"), and one is taken to";
    assert_eq!(
        (steps.as_str(), guesses),
        ("128>16 norm act", vec![expected.to_owned()])
    );
    assert_eq!(projection_of(&named, Some(true)).1, [""; 0]);
    let (steps, guesses) = projection_of(&named, Some(false));
    assert_eq!(steps, "128>16 norm");
    assert!(
        guesses[0].contains("stands before \"drug_projection.norm\", and none is taken to"),
        "{guesses:?}"
    );

    let f = SMALL.fusion;
    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    shapes.retain(|(name, _)| !name.starts_with("classifier"));
    shapes.extend(linear("head.fc1", f, 2 * f));
    shapes.extend(norm("head.norm1", f));
    shapes.extend(linear("head.fc2", 8, f));
    shapes.extend(linear("head.out", 1, 8));
    let roles = read(shapes).unwrap();
    assert_eq!(kinds(&roles.classifier), "32>16 norm act 16>8 act 8>1");
    let expected = "classifier: no index tells on which side of \"head.norm1\" the activation before \"head.fc2\" stands, and it \
                    is taken to stand behind it";
    assert_eq!(roles.guesses, [expected]);
}

#[test]
fn linear_layers_that_do_not_stand_together_are_a_guess() {
    let f = SMALL.fusion;
    let classifier_of = |parts: &[(&str, usize, usize)]| {
        let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
        shapes.retain(|(name, _)| !name.starts_with("classifier"));
        for &(name, out, width) in parts {
            shapes.extend(linear(name, out, width));
        }
        let roles = read(shapes).unwrap();
        (kinds(&roles.classifier), roles.guesses)
    };
    let (steps, guesses) = classifier_of(&[("gate", f, 2 * f), ("classifier.0", 8, f), ("classifier.3", 1, 8)]);
    assert_eq!(steps, "32>16 act 16>8 act 8>1");
    let [guess] = &guesses[..] else { panic!("{guesses:?}") };
    let expected = "classifier: \"gate\", \"classifier.0\", \"classifier.3\" are taken to follow each other";
    assert!(guess.starts_with(expected), "{guess}");
    for together in [["fc1", "fc2", "out"], ["head.fc1", "head.fc2", "head.out"]] {
        let [a, b, c] = together;
        let (_, guesses) = classifier_of(&[(a, f, 2 * f), (b, 8, f), (c, 1, 8)]);
        assert!(guesses.is_empty(), "{guesses:?}");
    }
}

#[test]
fn one_gap_between_two_linears_is_no_guess() {
    let card = read([body(&SMALL), card_head(&SMALL)].concat()).unwrap();
    assert!(card.guesses.is_empty() && card.end_guess.is_none());
    for modules in [
        &[('l', 0), ('n', 1), ('l', 4), ('l', 7)][..],
        &[('l', 0), ('n', 2), ('l', 3), ('l', 5)],
        &[('l', 1), ('n', 2), ('n', 3), ('l', 5)],
    ] {
        let (steps, guesses) = classifier_at(modules);
        assert!(guesses.is_empty(), "{steps}: {guesses:?}");
    }
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
fn norms_may_have_the_names_of_old_conversions() {
    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    for (name, _) in &mut shapes {
        *name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        *name = name.replace("LayerNorm.bias", "LayerNorm.beta");
    }
    let roles = read(shapes).unwrap();
    let encoder = roles.encoder(Side::Adr);
    for (norm, module) in [
        (&encoder.embeddings_norm, "embeddings"),
        (&encoder.layers[1].attention_norm, "encoder.layer.1.attention.output"),
        (&encoder.layers[1].output_norm, "encoder.layer.1.output"),
    ] {
        let name = |part: &str| format!("adr_encoder.{module}.LayerNorm.{part}");
        assert_eq!((&norm.weight, &norm.bias), (&name("gamma"), &name("beta")));
    }
}

#[test]
fn each_word_for_a_reaction_names_that_side() {
    for word in ["adr", "adverse_event", "effect", "reaction", "Reaction"] {
        let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
        for (name, _) in &mut shapes {
            *name = name.replace("adr_", &format!("{word}_"));
        }
        let roles = read(shapes).unwrap_or_else(|error| panic!("{word}: {error}"));
        let found = &roles.encoder(Side::Adr).word_embeddings;
        assert_eq!(*found, format!("{word}_encoder.embeddings.word_embeddings.weight"));
    }
}

#[test]
fn a_bilinear_that_is_not_as_wide_as_the_projections_is_refused() {
    let mut shapes = [body(&SMALL), card_head(&SMALL)].concat();
    replace(&mut shapes, "bilinear.weight", &[16, 12, 12]);
    let message = read(shapes).unwrap_err().to_string();
    let expected =
        "tensor \"bilinear.weight\": expected [outputs, 16, 16], as wide as the projections, found [16, 12, 12]";
    assert!(message.contains(expected), "{message}");
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
