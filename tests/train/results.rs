//! What a run gives: a folder that scores as it was judged, the same for any number of threads, and where settings come from.

use std::fs;

use candle_core::{DType, Device};
use serde_json::{Value, json};

use super::{Case, stderr};
use crate::common::{crag, json_lines};

/// F1 at a threshold.
fn f1(scored: &[(f64, bool)], threshold: f64) -> f64 {
    let hits = scored.iter().filter(|(p, label)| *label && *p >= threshold).count();
    let called = scored.iter().filter(|(p, _)| *p >= threshold).count();
    let positives = scored.iter().filter(|(_, label)| *label).count();
    2.0 * hits as f64 / (called + positives) as f64
}

/// Labelled pairs to validate on, in held-out.jsonl, so that the same pairs can be scored afterwards.
fn hold_out(case: &Case) {
    let mut lines = String::new();
    for i in 0..40 {
        let (drug, adr) = (["aspirin", "lithium"][i % 2], ["bleeding", "tremor"][i / 2 % 2]);
        let text = format!("In case {i} {adr} followed {drug} and was severe.");
        let label = i % 2 == i / 2 % 2;
        lines += &format!(
            "{}\n",
            json!({"text": text, "drug": drug, "adr": adr, "doc_id": 1000 + i, "label": label})
        );
    }
    fs::write(case.path("held-out.jsonl"), lines).unwrap();
}

/// What `crag score` says of them, by the model in `out`: probabilities and labels.
fn scored(case: &Case, out: &str) -> Vec<(f64, bool)> {
    let threshold = case.json(out, "crag.json")["threshold"].as_f64().unwrap();
    let output = crag()
        .current_dir(case.folder.path())
        .args(["score", "--model", out, "--device", "cpu", "held-out.jsonl"])
        .assert()
        .success();
    let records = json_lines(&output.get_output().stdout);
    let answer = |record: &Value| {
        let probability = record["probability"].as_f64().unwrap();
        assert_eq!(record["causal"], json!(probability >= threshold));
        (probability, record["label"].as_bool().unwrap())
    };
    records.iter().map(answer).collect()
}

#[test]
fn a_trained_folder_is_whole_and_scores_as_it_was_judged() {
    let case = Case::new();
    hold_out(&case);
    let assert = case.train("out", &["--valid", "held-out.jsonl"]).assert().success();
    assert!(
        stderr(&assert).contains("on the validation pairs"),
        "{}",
        stderr(&assert)
    );
    assert!(!case.path("out.partial").exists());
    let mut names: Vec<String> = fs::read_dir(case.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "config.json",
        "crag.json",
        "curve.svg",
        "log.jsonl",
        "manifest.json",
        "model.safetensors",
        "tokenizer_config.json",
        "vocab.txt",
    ];
    assert_eq!(names, expected);

    let manifest = case.json("out", "manifest.json");
    let best = &manifest["best"]["validation"];
    let settings = case.json("out", "crag.json");
    assert_eq!(settings["projection_activation"], true);
    let threshold = settings["threshold"].as_f64().unwrap();
    assert!((threshold - best["threshold"].as_f64().unwrap()).abs() < 1e-7);
    assert!((f1(&scored(&case, "out"), threshold) - best["f1"].as_f64().unwrap()).abs() < 1e-12);
    let log = json_lines(&fs::read(case.path("out/log.jsonl")).unwrap());
    let count = |event: &str| log.iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("epoch"), count("epoch_end")), (3, 3));
    assert_eq!(
        count("step"),
        6 + 2 * 12,
        "96 pairs and as many mined negatives in steps of 16"
    );
    let curve = fs::read_to_string(case.path("out/curve.svg")).unwrap();
    assert!(curve.starts_with("<svg") && curve.ends_with("</svg>\n"));
    let points = curve.matches("<circle").count();
    assert_eq!(points, 1 + 2 + 2 * 2, "a point an epoch: both losses, F1 and ROC-AUC");
}

#[test]
fn weights_stored_in_halves_score_as_they_were_judged() {
    let case = Case::new();
    hold_out(&case);
    for (dtype, of_matrices, of_others) in [("bf16", DType::BF16, DType::F32), ("f16", DType::F16, DType::F16)] {
        case.train(dtype, &["--valid", "held-out.jsonl", "--save-dtype", dtype])
            .assert()
            .success();
        let weights = candle_core::safetensors::load(case.path(dtype).join("model.safetensors"), &Device::Cpu).unwrap();
        // As crag convert has it: of what is no matrix of an encoder's layer, the rounding is not worth its error.
        let dtypes = [
            "drug_encoder.encoder.layer.0.output.dense.weight",
            "drug_encoder.embeddings.word_embeddings.weight",
            "classifier.0.weight",
        ];
        let dtypes = dtypes.map(|name| weights[name].dtype());
        assert_eq!(dtypes, [of_matrices, of_others, of_others], "{dtype}");

        let best = &case.json(dtype, "manifest.json")["best"]["validation"];
        let threshold = case.json(dtype, "crag.json")["threshold"].as_f64().unwrap();
        let scored = scored(&case, dtype);
        assert!((f1(&scored, threshold) - best["f1"].as_f64().unwrap()).abs() < 1e-12);
        // Midway between two probabilities of the stored weights, not of those that they were rounded from.
        let called = scored.iter().map(|(p, _)| *p).filter(|p| *p >= threshold);
        let others = scored.iter().map(|(p, _)| *p).filter(|p| *p < threshold);
        let midway = (called.fold(1.0, f64::min) + others.fold(0.0, f64::max)) / 2.0;
        assert!((threshold - midway).abs() < 3e-7, "{dtype}: {threshold} {midway}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_for_any_number_of_threads() {
    let case = Case::new();
    case.train("one", &["--threads", "1"]).assert().success();
    case.train("three", &["--threads", "3"]).assert().success();
    case.train("other", &["--seed", "8"]).assert().success();
    assert!(case.weights("one") == case.weights("three"));
    assert!(case.weights("one") != case.weights("other"));
    for name in ["vocab.txt", "crag.json", "config.json", "curve.svg"] {
        let read = |out: &str| fs::read(case.path(out).join(name)).unwrap();
        assert!(read("one") == read("three"), "{name}");
    }
}

#[test]
fn a_step_is_the_same_however_it_is_cut_into_batches() {
    let case = Case::new();
    // Of the one step of 172 pairs the second batch of 160 is 12.
    let step = |out: &str, batch: &str| {
        let phases = ["--contrastive-epochs", "0", "--epochs", "1", "--dropout", "0"];
        case.train(
            out,
            &[&phases[..], &["--batch-size", batch, "--accumulation", "2"]].concat(),
        )
        .assert()
        .success();
        let log = fs::read_to_string(case.path(out).join("log.jsonl")).unwrap();
        let events = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let steps: Vec<_> = events.filter(|event| event["event"] == "step").collect();
        assert_eq!(steps.len(), 1, "{log}");
        ["loss", "gradient_norm"].map(|name| steps[0][name].as_f64().unwrap())
    };
    let (whole, cut) = (step("whole", "512"), step("cut", "160"));
    for (whole, cut) in whole.into_iter().zip(cut) {
        assert!((whole - cut).abs() < 1e-6, "{whole} {cut}");
    }
}

#[test]
fn a_diverging_loss_is_an_error_and_the_last_state_is_kept() {
    let case = Case::new();
    let assert = case
        .train("out", &["--learning-rate", "1e30", "--save-every", "0"])
        .assert()
        .code(1);
    let said = stderr(&assert);
    assert!(
        said.contains("the loss is") && said.contains("--force and a lower learning rate"),
        "{said}"
    );
    assert!(!case.path("out").exists() && case.path("out.partial/state.json").exists());
    for (flag, value, name) in [
        ("--focal-gamma", "1e308", "finetune.focal_gamma"),
        ("--temperature", "1e-300", "contrastive.temperature"),
    ] {
        let said = stderr(&case.train("out", &["--force", flag, value]).assert().code(1));
        let expected = format!("--force and another {name} than {value} (usual: ");
        assert!(said.contains(&expected), "{said}");
    }
    case.train("out", &["--force"]).assert().success();
    assert!(case.path("out/model.safetensors").exists());
}

#[test]
fn flags_and_the_recipe_may_come_from_environment_and_config() {
    let case = Case::new();
    let config =
        "[train]\nrecipe = \"recipe.toml\"\ntrain = [\"pairs.jsonl\"]\nviews = \"bilinear,product\"\nepochs = 1\n";
    fs::write(case.path("crag.toml"), config).unwrap();
    let mut command = crag();
    command.current_dir(case.folder.path());
    command.args(["train", "--config", "crag.toml", "--device", "cpu", "--out", "out"]);
    command.env("CRAG_TRAIN_SEED", "9").assert().success();
    let manifest = case.json("out", "manifest.json");
    assert_eq!(
        (&manifest["recipe"]["seed"], &manifest["recipe"]["finetune"]["epochs"]),
        (&json!(9), &json!(1))
    );
    assert_eq!(manifest["recipe"]["backbone"]["hidden_size"], 16);
    let from = |setting: &str| {
        let rows = manifest["settings"].as_array().unwrap();
        rows.iter().find(|row| row["setting"] == setting).unwrap()["from"].clone()
    };
    assert_eq!(from("seed"), "environment CRAG_TRAIN_SEED");
    assert_eq!(from("epochs"), "config crag.toml:5");
}
