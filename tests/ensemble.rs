//! `crag score` with several models: each on its own terms, the mean of them as the answer.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::run::Run;
use crate::common::{crag, fixture, json_lines};

fn score(arguments: &[&str], stdin: &[u8]) -> Run {
    let output = crag()
        .arg("score")
        .args(arguments)
        .write_stdin(stdin.to_vec())
        .output()
        .unwrap();
    Run::of(output)
}

/// Fixture models that differ in tokenizer, pooling, head and storage.
fn models() -> [String; 3] {
    ["safetensors", "mean", "cls"].map(|name| text(&fixture("model").join(name)).to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn cases() -> Vec<u8> {
    std::fs::read(fixture("model/cases.jsonl")).unwrap()
}

/// The raw text of a number, as the record has it.
fn number(line: &str, key: &str) -> String {
    let start = line.find(&format!("{key}:")).unwrap_or_else(|| panic!("{key}: {line}")) + key.len() + 1;
    line[start..].split([',', '}']).next().unwrap().to_owned()
}

#[test]
fn each_model_answers_as_it_does_alone_and_their_mean_is_the_answer() {
    let models = models();
    let alone: Vec<Run> = models.iter().map(|model| score(&["-m", model], &cases())).collect();
    for count in [2, 3] {
        let arguments: Vec<&str> = models[..count].iter().flat_map(|m| ["--model", m]).collect();
        let run = score(&arguments, &cases());
        assert_eq!(run.code, alone[0].code, "{}", run.stderr);
        let output = String::from_utf8(run.stdout.clone()).unwrap();
        let mut scored = 0;
        for (i, line) in output.lines().enumerate() {
            let singles: Vec<&str> = alone
                .iter()
                .take(count)
                .map(|run| std::str::from_utf8(&run.stdout).unwrap().lines().nth(i).unwrap())
                .collect();
            if line.contains("\"error\":") {
                assert!(singles.contains(&line), "{line}");
                continue;
            }
            scored += 1;
            let mut sum = 0f64;
            for (model, single) in models.iter().zip(&singles) {
                let own = number(line, &json!(model).to_string());
                assert_eq!(own, number(single, "\"probability\""));
                sum += f64::from(own.parse::<f32>().unwrap());
            }
            let mean = (sum / count as f64) as f32;
            let found: f32 = number(line, "\"probability\"").parse().unwrap();
            assert_eq!(found.to_bits(), mean.to_bits(), "{line}");
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["causal"], json!(found >= 0.55));
            // The names in the order in which the models were given.
            let places: Vec<usize> = models[..count]
                .iter()
                .map(|m| line.find(&json!(m).to_string()).unwrap())
                .collect();
            assert!(places.is_sorted(), "{line}");
        }
        assert!(scored >= 60, "{scored}");
    }
}

#[test]
fn no_cut_precision_or_cache_changes_a_bit_and_one_cache_serves_all_models() {
    let [a, b, _] = models();
    let folder = tempfile::tempdir().unwrap();
    let both = ["-m", &a, "-m", &b];
    // A GPU does not compute in int8.
    for (dtype, device) in [("f32", "auto"), ("bf16", "auto"), ("int8", "cpu")] {
        let cache = folder.path().join(dtype);
        let kernel = ["--dtype", dtype, "--device", device];
        let plain = score(&[&both[..], &kernel].concat(), &cases());
        for arguments in [
            ["--threads", "1", "--no-reuse", "--batch-tokens", "1"].as_slice(),
            &["--threads", "3", "--batch-tokens", "70"],
            &["--cache", text(&cache)],
            &["--cache", text(&cache), "--threads", "1"],
        ] {
            let run = score(&[&both[..], &kernel, arguments].concat(), &cases());
            assert!(run.stdout == plain.stdout, "{dtype} {arguments:?} {}", run.stderr);
            if arguments == ["--cache", text(&cache), "--threads", "1"] {
                assert!(run.stderr.contains("; encodings: 0, reused: "), "{}", run.stderr);
            }
        }
        // What the ensemble left serves each model alone.
        let single = score(&[&["-m", &b, "--cache", text(&cache)], &kernel[..]].concat(), &cases());
        assert!(single.stderr.contains("; encodings: 0, reused: "), "{}", single.stderr);
        let uncached = score(&[&["-m", &b], &kernel[..]].concat(), &cases());
        assert!(single.stdout == uncached.stdout);
    }
}

#[test]
fn the_default_threshold_is_the_mean_of_the_models() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("low.json");
    // All that the fixture's own crag.json says, and a threshold.
    let own = std::fs::read(fixture("model/mean/crag.json")).unwrap();
    let mut settings: Value = serde_json::from_slice(&own).unwrap();
    settings["threshold"] = json!(0.25);
    std::fs::write(&config, settings.to_string()).unwrap();
    let [a, b, _] = models();
    let arguments = [
        "-m",
        &a,
        "-m",
        &b,
        "--model-config",
        "-",
        "--model-config",
        text(&config),
    ];
    let pair = ["--text", "aspirin bleeding", "--drug", "aspirin", "--adr", "bleeding"];
    let manifest_free = score(&[&arguments[..], &pair].concat(), b"");
    assert_eq!(manifest_free.code, 0, "{}", manifest_free.stderr);
    for line in json_lines(&score(&arguments, &cases()).stdout) {
        if let Some(probability) = line["probability"].as_f64() {
            assert_eq!(line["causal"], json!(probability as f32 >= 0.4), "{line}");
        }
    }
    let stated = score(&[&arguments[..], &["--threshold", "0"]].concat(), &cases());
    assert!(
        json_lines(&stated.stdout)
            .iter()
            .all(|line| line["causal"] != json!(false))
    );
}

#[test]
fn a_model_with_two_settings_goes_by_two_names_and_any_models_warning_is_the_lines() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("short.json");
    let own = std::fs::read(fixture("model/mean/crag.json")).unwrap();
    let mut settings: Value = serde_json::from_slice(&own).unwrap();
    settings["max_length"] = json!(8);
    std::fs::write(&config, settings.to_string()).unwrap();
    let [_, model, _] = models();
    let words = "patient ".repeat(20);
    let record = json!({"drug_text": "aspirin was given", "adr_text": words + "bleeding", "drug": "aspirin",
        "adr": "bleeding"});
    let arguments = [
        "-m",
        &model,
        "-m",
        &model,
        "--model-config",
        "-",
        "--model-config",
        text(&config),
    ];
    let run = score(&arguments, record.to_string().as_bytes());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let answer = &json_lines(&run.stdout)[0];
    let names: Vec<&String> = answer["probabilities"].as_object().unwrap().keys().collect();
    assert_eq!(names, [&model, &format!("{model}#2")]);
    assert_eq!(answer["warnings"], json!(["adr_truncated"]));
}

#[test]
fn models_that_do_not_make_an_ensemble_are_refused_before_anything_is_read() {
    let [a, b, _] = models();
    let spelled_otherwise = format!("{a}/.");
    for (arguments, message) in [
        (
            vec!["-m", &a, "-m", &a],
            "given twice; an ensemble is of different models",
        ),
        (
            vec!["-m", &a, "-m", &spelled_otherwise],
            "given twice; an ensemble is of different models",
        ),
        (
            vec!["-m", &a, "-m", &b, "--model-config", "x"],
            "--model-config: expected one for each of the 2 models",
        ),
        (
            vec!["-m", &a, "--revision", "v1", "--revision", "v2"],
            "--revision: expected one for each of the 1 models",
        ),
    ] {
        let run = score(&arguments, b"");
        assert_eq!((run.code, run.stdout.len()), (2, 0), "{}", run.stderr);
        assert!(run.stderr.contains(message), "{}", run.stderr);
    }
    // A revision belongs to the hub's models alone, and says whose it is.
    let run = score(&["-m", &a, "-m", "demo", "--revision", "-", "--revision", "v2"], b"");
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("model \"demo\": a revision (\"v2\")"),
        "{}",
        run.stderr
    );
}

#[test]
fn an_empty_list_of_models_is_refused() {
    for stdin in [cases(), Vec::new()] {
        let mut command = crag();
        command.args(["score"]).env("CRAG_MODEL", "[]").write_stdin(stdin);
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("--model: expected at least one model"), "{stderr}");
    }
}

#[test]
fn the_column_of_the_probabilities_is_missed_before_a_model_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("pairs.csv");
    std::fs::write(
        &table,
        "text,drug,adr,probabilities\naspirin bleeding,aspirin,bleeding,1\n",
    )
    .unwrap();
    let (out, [a, b, _]) = (folder.path().join("out.csv"), models());
    let run = score(&["-m", &a, "-m", &b, "-o", text(&out), text(&table)], b"");
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("pairs.csv:1: "), "{}", run.stderr);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing was begun");
}

#[test]
fn a_run_with_the_models_in_another_order_is_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("cases.jsonl");
    std::fs::write(&input, cases()).unwrap();
    let (out, [a, b, _]) = (folder.path().join("out.jsonl"), models());
    let run = |first: &str, second: &str| {
        let models = ["-m", first, "-m", second, "--missing-entity", "unmarked"];
        score(
            &[&models[..], &["-o", text(&out), "--resume", text(&input)]].concat(),
            b"",
        )
    };
    assert!([0, 3].contains(&run(&a, &b).code));
    let swapped = run(&b, &a);
    assert_eq!(swapped.code, 2, "{}", swapped.stderr);
    assert!(
        swapped.stderr.contains("the order of the models was "),
        "{}",
        swapped.stderr
    );
}

#[test]
fn the_key_of_the_probabilities_is_taken_only_where_there_are_several() {
    let record = json!({"text": "aspirin bleeding", "drug": "aspirin", "adr": "bleeding", "probabilities": 1});
    let [a, b, _] = models();
    let alone = score(&["-m", &a], record.to_string().as_bytes());
    assert_eq!(alone.code, 0, "{}", alone.stderr);
    let both = score(&["-m", &a, "-m", &b], record.to_string().as_bytes());
    assert_eq!(both.code, 3);
    assert_eq!(json_lines(&both.stdout)[0]["error"]["code"], json!("key_conflict"));
    let nested = score(
        &["-m", &a, "-m", &b, "--output-key", "crag"],
        record.to_string().as_bytes(),
    );
    assert_eq!(nested.code, 0);
    assert_eq!(
        json_lines(&nested.stdout)[0]["crag"]["probabilities"]
            .as_object()
            .unwrap()
            .len(),
        2
    );
}
