//! `crag calibrate`, and `crag score --calibrated` with what it fitted.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::{Folder, model_copy, run, scored, value};
use crate::common::pack::{bzip2, gzip, zstd};
use crate::common::{crag, fixture, json_lines, process};

pub(super) fn sidecar(model: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(model.join("crag.json")).unwrap()).unwrap()
}

#[test]
fn a_calibration_is_written_into_the_models_crag_json_and_score_applies_it() {
    let folder = Folder::new();
    let model = model_copy(&folder);
    let name = model.display().to_string();
    let before = if model.join("crag.json").exists() {
        sidecar(&model)
    } else {
        json!({})
    };
    let pair = r#"{"text":"Aspirin caused bleeding.","drug":"Aspirin","adr":"bleeding"}"#;
    let raw = json_lines(run(&["score", "--model", &name, "-q"], pair).stdout.as_bytes());

    let missing = run(&["score", "--model", &name, "--calibrated"], pair);
    assert_eq!((missing.code, missing.stdout.as_str()), (1, ""));
    assert!(missing.stderr.contains("crag calibrate"), "{}", missing.stderr);

    let lines = scored(600, 0.1);
    let fitted = run(&["calibrate", "--scored", "--model", &name, "--json"], lines.clone());
    assert_eq!(fitted.code, 0, "{}", fitted.stderr);
    let found = fitted.json();
    assert!(
        value(&found["after"]["log_loss"]) < value(&found["before"]["log_loss"]),
        "{found}"
    );
    assert_eq!(found["after_judged_on"], "unseen documents");
    let mut expected = before;
    expected["calibration"] = found["calibration"].clone();
    assert_eq!(sidecar(&model), expected);
    let temperature = found["calibration"]["temperature"].as_f64().unwrap();

    let calibrated = run(&["score", "--model", &name, "-q", "--calibrated"], pair);
    let calibrated = json_lines(calibrated.stdout.as_bytes());
    assert_eq!(
        (&calibrated[0]["probability"], &calibrated[0]["causal"]),
        (&raw[0]["probability"], &raw[0]["causal"])
    );
    let p = raw[0]["probability"].as_f64().unwrap();
    let by_hand = 1.0 / (1.0 + (-(p / (1.0 - p)).ln() / temperature).exp());
    let found = calibrated[0]["calibrated_probability"].as_f64().unwrap();
    assert!((found - by_hand).abs() < 1e-7, "{found} {by_hand}");
    // Without being asked for it is not there, and a record that has the key already is an error.
    assert!(raw[0].get("calibrated_probability").is_none());
    let taken = r#"{"calibrated_probability":1,"text":"Aspirin caused bleeding.","drug":"Aspirin","adr":"bleeding"}"#;
    let taken = run(&["score", "--model", &name, "-q", "--calibrated"], taken);
    assert_eq!(json_lines(taken.stdout.as_bytes())[0]["error"]["code"], "key_conflict");

    let again = run(&["calibrate", "--scored", "--model", &name], lines.clone());
    assert!(again.code == 2 && again.stderr.contains("--force"), "{}", again.stderr);
    let replaced = run(
        &[
            "calibrate",
            "--scored",
            "--model",
            &name,
            "--force",
            "--method",
            "isotonic",
        ],
        lines,
    );
    assert_eq!(replaced.code, 0, "{}", replaced.stderr);
    assert!(replaced.stderr.contains("600 records are few"), "{}", replaced.stderr);
    assert_eq!(sidecar(&model)["calibration"]["method"], "isotonic");
    let inspected = run(&["inspect", "--model", &name], "");
    assert!(inspected.stdout.contains("isotonic"), "{}", inspected.stdout);
    let isotonic = run(&["score", "--model", &name, "-q", "--calibrated"], pair);
    assert!(json_lines(isotonic.stdout.as_bytes())[0]["calibrated_probability"].is_number());
}

#[test]
fn a_model_named_in_the_environment_is_a_default_and_no_command() {
    let folder = Folder::new();
    let with_variable = |arguments: &[&str], model: &str, stdin: String| {
        let output = crag()
            .env("CRAG_MODEL", model)
            .args(arguments)
            .write_stdin(stdin)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let lines = scored(60, 0.0);
    let plain = run(&["eval", "--scored", "--json"], lines.clone());
    let (code, stdout, stderr) = with_variable(&["eval", "--scored", "--json"], "demo", lines.clone());
    assert_eq!((code, stdout), (0, plain.stdout), "{stderr}");
    // Records that have probabilities are still a question, pairs are scored with that model.
    let named = folder.write("scored.jsonl", &lines);
    let (code, _, stderr) = with_variable(&["eval", &named], "demo", String::new());
    assert!(code == 2 && stderr.contains("--scored"), "{stderr}");
    let pairs = folder.write("pairs.jsonl", &lines.replace("\"probability\"", "\"other\""));
    let (code, stdout, stderr) = with_variable(&["eval", &pairs, "--json", "--resamples", "0"], "demo", String::new());
    let found: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stderr}"));
    assert!(
        code == 0 && found["runs"][0]["name"].as_str().unwrap().ends_with("scored by demo"),
        "{found}"
    );
    let (code, _, stderr) = with_variable(&["eval", &pairs], "[\"demo\", \"other\"]", String::new());
    assert!(code == 2 && stderr.contains("found 2 in the environment"), "{stderr}");
    // No file is written that only the environment names; where one is named, the settings of its model go along.
    let (code, _, stderr) = with_variable(
        &["calibrate", "--scored", "-o", &folder.name("c.json")],
        "demo",
        lines.clone(),
    );
    assert_eq!(code, 0, "{stderr}");
    let written: Value = serde_json::from_slice(&std::fs::read(folder.name("c.json")).unwrap()).unwrap();
    assert!(
        written["threshold"].is_number() && written["calibration"].is_object(),
        "{written}"
    );
    let model = model_copy(&folder);
    let before = std::fs::read(model.join("crag.json")).ok();
    let (code, _, stderr) = with_variable(&["calibrate", "--scored"], &model.display().to_string(), lines);
    assert!(
        code == 2 && stderr.contains("--output") && stderr.contains("is a default"),
        "{stderr}"
    );
    assert_eq!(std::fs::read(model.join("crag.json")).ok(), before);
}

/// Settings of a fixture model with a calibration, as a file for --model-config.
fn calibrated_settings(folder: &Folder, model: &str, calibration: &Value) -> String {
    let mut settings = sidecar(&fixture("model").join(model));
    settings["calibration"] = calibration.clone();
    folder.write(&format!("{model}.json"), &settings.to_string())
}

#[test]
fn several_models_answer_with_the_mean_of_their_calibrated_probabilities() {
    let folder = Folder::new();
    let models = ["mean", "cls"].map(|name| fixture("model").join(name).display().to_string());
    let [a, b] = &models;
    let of_a = calibrated_settings(&folder, "mean", &json!({"method": "temperature", "temperature": 2.5}));
    let curve = json!({"method": "isotonic", "raw": [0.05, 0.95], "calibrated": [0.2, 0.7]});
    let of_b = calibrated_settings(&folder, "cls", &curve);
    let both = [
        "score",
        "-q",
        "-m",
        a,
        "-m",
        b,
        "--model-config",
        &of_a,
        "--model-config",
        &of_b,
    ];
    let pairs: String = ["bleeding", "rash", "fever"]
        .iter()
        .map(|adr| format!("{{\"text\":\"aspirin then {adr}\",\"drug\":\"aspirin\",\"adr\":\"{adr}\"}}\n"))
        .collect();
    let alone = [(a, &of_a), (b, &of_b)].map(|(model, settings)| {
        let arguments = ["score", "-q", "--calibrated", "-m", model, "--model-config", settings];
        let run = run(&arguments, pairs.clone());
        assert_eq!(run.code, 0, "{}", run.stderr);
        json_lines(run.stdout.as_bytes())
    });
    let raw = run(&both, pairs.clone());
    let found = run(&[&both[..], &["--calibrated"]].concat(), pairs.clone());
    assert_eq!((raw.code, found.code), (0, 0), "{}", found.stderr);
    let (raw, found) = (json_lines(raw.stdout.as_bytes()), json_lines(found.stdout.as_bytes()));
    let f32_of = |value: &Value| value.to_string().parse::<f32>().unwrap();
    assert_eq!(found.len(), 3);
    for (i, record) in found.iter().enumerate() {
        let own = [0, 1].map(|model| f64::from(f32_of(&alone[model][i]["calibrated_probability"])));
        let mean = ((own[0] + own[1]) / 2.0) as f32;
        assert_eq!(
            f32_of(&record["calibrated_probability"]).to_bits(),
            mean.to_bits(),
            "{record}"
        );
        assert_ne!(record["calibrated_probability"], record["probability"]);
        let mut rest = record.clone();
        rest.as_object_mut().unwrap().remove("calibrated_probability");
        assert_eq!(rest, raw[i]);
    }

    // The same numbers in a table, in a column after `causal`.
    let mut table = "text,drug,adr\n".to_owned();
    for record in &found {
        let [text, drug, adr] = ["text", "drug", "adr"].map(|field| record[field].as_str().unwrap());
        writeln!(table, "{text},{drug},{adr}").unwrap();
    }
    let rows = run(&[&both[..], &["--calibrated", "--format", "csv"]].concat(), table);
    let mut lines = rows.stdout.lines();
    assert_eq!(
        lines.next(),
        Some("text,drug,adr,probability,causal,calibrated_probability,probabilities,warnings,error_code,error_message")
    );
    for (line, record) in lines.zip(&found) {
        let cells: Vec<&str> = line.split(',').collect();
        let expected = ["probability", "causal", "calibrated_probability"].map(|key| record[key].to_string());
        assert_eq!(cells[3..6], expected, "{line}");
    }
    assert_eq!(rows.stdout.lines().count(), 4);

    // One without a calibration: a mean of the others would pass for the ensemble's.
    let partly = [
        "score",
        "-m",
        a,
        "-m",
        b,
        "--model-config",
        &of_a,
        "--model-config",
        "-",
        "--calibrated",
    ];
    let refused = run(&partly, pairs);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(
        refused.stderr.contains("cls has no calibration in its crag.json"),
        "{}",
        refused.stderr
    );
}

#[test]
fn compressed_records_are_judged_and_fitted_as_plain_ones() {
    let folder = Folder::new();
    let lines = scored(300, 0.1);
    let plain = folder.write("plain.jsonl", &lines);
    let judged = run(&["eval", "--scored", "--json", &plain], "").json();
    let fitted = |arguments: &[&str], stdin: Vec<u8>| {
        let out = folder.name("crag.json");
        let common = ["calibrate", "--scored", "--force", "--json", "--output", &out];
        let run = run(&[&common[..], arguments].concat(), stdin);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.json()["calibration"].clone()
    };
    let calibration = fitted(&[&plain], Vec::new());
    let packed = [
        ("gz", gzip(lines.as_bytes())),
        ("zst", zstd(lines.as_bytes())),
        ("bz2", bzip2(lines.as_bytes())),
    ];
    for (ending, bytes) in packed {
        let name = folder.name(&format!("packed.jsonl.{ending}"));
        std::fs::write(&name, &bytes).unwrap();
        let found = run(&["eval", "--scored", "--json", &name], "");
        assert_eq!(found.code, 0, "{}", found.stderr);
        assert_eq!(
            found.json()["runs"][0]["metrics"],
            judged["runs"][0]["metrics"],
            "{ending}"
        );
        assert_eq!(fitted(&[&name], Vec::new()), calibration, "{ending}");
        assert_eq!(fitted(&[], bytes.clone()), calibration, "{ending} on stdin");
        // What is in it is seen through the compression.
        let unsaid = run(&["eval", &name], "");
        assert!(
            unsaid.code == 2 && unsaid.stderr.contains("--scored"),
            "{}",
            unsaid.stderr
        );
        // Two models read it twice.
        let other = fixture("model/mean").display().to_string();
        let compared = |records: &str| {
            let run = run(
                &[
                    "eval",
                    "-m",
                    "demo",
                    "-m",
                    &other,
                    "--json",
                    "--resamples",
                    "0",
                    records,
                ],
                "",
            );
            assert_eq!(run.code, 0, "{}", run.stderr);
            run.json()["differences"].clone()
        };
        if ending == "gz" {
            assert_eq!(compared(&name), compared(&plain));
        }
        std::fs::write(&name, &bytes[..bytes.len() / 2]).unwrap();
        let torn = run(&["eval", "--scored", &name], "");
        assert_eq!((torn.code, torn.stdout.as_str()), (1, ""));
        assert!(torn.stderr.contains(&name), "{}", torn.stderr);
    }
}

#[test]
fn probabilities_of_exactly_one_are_calibrated_as_they_are_fitted() {
    // 400 saturated records of which a tenth are wrong: the odds that fit are 9, not infinite.
    let mut lines = String::new();
    for i in 0..400 {
        let probability = f64::from(u8::from(i % 2 == 0));
        let label = u8::from((i % 2 == 0) != (i % 10 < 2 && i % 20 < 10));
        writeln!(lines, "{{\"label\":{label},\"probability\":{probability}}}").unwrap();
    }
    let folder = Folder::new();
    let out = folder.name("crag.json");
    let fitted = run(&["calibrate", "--scored", "--json", "--output", &out], lines);
    assert_eq!(fitted.code, 0, "{}", fitted.stderr);
    let entropy = -(0.9f64 * 0.9f64.ln() + 0.1 * 0.1f64.ln());
    let after = value(&fitted.json()["after_on_the_same_records"]["log_loss"]);
    assert!((after - entropy).abs() < 1e-6, "{after} {entropy}");
}

#[test]
fn calibrated_probabilities_can_be_judged_in_turn() {
    let folder = Folder::new();
    let out = folder.name("crag.json");
    let lines = scored(300, 0.1);
    let fitted = run(&["calibrate", "--scored", "--output", &out, "--folds", "1"], lines);
    assert_eq!(fitted.code, 0, "{}", fitted.stderr);
    assert!(fitted.stderr.contains("flatters"), "{}", fitted.stderr);
    let pair = r#"{"id":1,"label":1,"text":"Aspirin caused bleeding.","drug":"Aspirin","adr":"bleeding"}"#;
    let scored = run(
        &["score", "--model", "demo", "--model-config", &out, "--calibrated", "-q"],
        pair,
    );
    let judged = run(
        &["eval", "--scored", "--probability", "calibrated_probability", "--json"],
        scored.stdout.clone(),
    );
    let p = json_lines(scored.stdout.as_bytes())[0]["calibrated_probability"]
        .as_f64()
        .unwrap();
    let brier = value(&judged.json()["runs"][0]["metrics"]["brier_score"]);
    assert!((brier - (1.0 - p) * (1.0 - p)).abs() < 1e-15);
}

#[test]
fn a_calibration_goes_to_the_model_that_was_scored_and_nowhere_else() {
    let folder = Folder::new();
    let records = folder.write("records.jsonl", &scored(60, 0.0));
    let pairs = folder.write("pairs.jsonl", &scored(60, 0.0).replace("\"probability\"", "\"old\""));
    let in_folder = |arguments: &[&str]| {
        let output = crag().current_dir(folder.0.path()).args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    // "demo" is the built-in model, whatever lies here.
    std::fs::rename(model_copy(&folder), folder.path("demo")).unwrap();
    let (code, said) = in_folder(&["calibrate", &pairs, "--model", "demo", "--folds", "1"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("where to write"), "{said}");
    // A folder without a model, and a file that is none.
    std::fs::create_dir(folder.path("empty")).unwrap();
    for other in ["empty", "records.jsonl"] {
        let (code, said) = in_folder(&["calibrate", "--scored", &records, "--model", other]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("expected a folder or a weight file"), "{said}");
    }
    assert!(!folder.path("empty/crag.json").exists() && !folder.path("crag.json").exists());
    // Into another file go the model's own settings too; into a pipe nothing can.
    let model = fixture("model/views").display().to_string();
    let out = folder.name("out.json");
    let calibrate = ["calibrate", "--scored", &records, "--model", &model, "-o", &out];
    let (code, said) = in_folder(&calibrate);
    assert_eq!(code, 0, "{said}");
    let table = run(&[&calibrate[..], &["--force"]].concat(), "").stdout;
    let applied = format!("crag score --model-config {out} --calibrated applies it");
    assert!(table.contains(&applied), "{table}");
    let written: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert!(
        written["threshold"] == 0.4 && written["calibration"].is_object(),
        "{written}"
    );
    for pipe in ["-", "/dev/stdout"] {
        let (code, said) = in_folder(&["calibrate", "--scored", &records, "-o", pipe]);
        assert_eq!(code, 2, "{said}");
    }
    let (code, said) = in_folder(&["calibrate", "--scored", &records, "-o", "nowhere/out.json"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cannot be written"), "{said}");
    // Fitted with other settings, it is of those.
    let settings = folder.write("settings.json", "{\"max_length\": 16}");
    let model = ["--model", "./demo", "--model-config", &settings, "--folds", "1"];
    let (code, said) = in_folder(&[&["calibrate", &pairs], &model[..]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(!folder.path("demo/crag.json").exists());
    let written: Value = serde_json::from_slice(&std::fs::read(&settings).unwrap()).unwrap();
    assert!(
        written["max_length"] == 16 && written["calibration"].is_object(),
        "{written}"
    );
}

#[test]
fn a_calibration_changes_no_answer_but_the_calibrated_and_no_representation() {
    let folder = Folder::new();
    let records = folder.write("records.jsonl", &scored(60, 0.0));
    let model = model_copy(&folder).display().to_string();
    let pairs = folder.write(
        "pairs.jsonl",
        "{\"text\":\"aspirin, then a rash\",\"drug\":\"aspirin\",\"adr\":\"rash\"}\n",
    );
    let [out, calibrated, cache] = ["out.jsonl", "calibrated.jsonl", "cache"].map(|name| folder.name(name));
    let score = |more: &[&str]| {
        let scoring = ["score", "--model", &model, "--cache", &cache, "--resume", &pairs];
        let run_of = run(&[&scoring[..], more].concat(), "");
        (run_of.code, run_of.stderr)
    };
    let (code, said) = score(&["-o", &out]);
    assert_eq!(code, 0, "{said}");
    // As `calibrate` writes it, and spelled by another program, with another threshold.
    for (factor, threshold) in [(0.0, None), (0.1, Some(0.25))] {
        std::fs::write(&records, scored(60, factor)).unwrap();
        let calibrate = ["calibrate", "--scored", &records, "--model", &model, "--force"];
        assert_eq!(run(&calibrate, "").code, 0);
        let settings = folder.path("model/crag.json");
        let mut written: Value = serde_json::from_slice(&std::fs::read(&settings).unwrap()).unwrap();
        if let Some(threshold) = threshold {
            written["threshold"] = json!(threshold);
            std::fs::write(&settings, written.to_string()).unwrap();
        }
        let threshold = threshold.map_or_else(Vec::new, |_| vec!["--threshold", "0.55"]);
        let (code, said) = score(&[&["-o", &out][..], &threshold].concat());
        assert!(code == 0 && said.contains("nothing to do"), "{said}");
        let (code, said) = score(&[&["-o", &calibrated, "--calibrated"][..], &threshold].concat());
        match threshold.is_empty() {
            true => assert!(code == 0 && said.contains("from the cache: 2"), "{said}"),
            false => assert!(code == 2 && said.contains("--calibrated was"), "{said}"),
        }
    }
}

#[test]
fn records_are_not_written_over_whatever_their_name() {
    let folder = Folder::new();
    let lines = scored(60, 0.0);
    // Names that files beside the output might have while it is written.
    for name in ["crag.json.tmp", "crag.json.partial"] {
        let (records, out) = (folder.write(name, &lines), folder.name("crag.json"));
        let fitted = run(&["calibrate", "--scored", &records, "--force", "-o", &out], "");
        assert_eq!(fitted.code, 0, "{}", fitted.stderr);
        assert_eq!(std::fs::read_to_string(&records).unwrap(), lines);
        std::fs::remove_file(&records).unwrap();
        let left: Vec<_> = std::fs::read_dir(folder.0.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
    let records = folder.write("records.jsonl", &lines);
    let refused = run(&["calibrate", "--scored", &records, "--force", "-o", &records], "");
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("the output is also an input"),
        "{}",
        refused.stderr
    );
    let appended = std::fs::OpenOptions::new().append(true).open(&records).unwrap();
    let redirected = process(&crag())
        .args(["calibrate", "--scored", &records, "-o", &folder.name("other.json")])
        .stdout(appended)
        .output()
        .unwrap();
    let said = String::from_utf8(redirected.stderr).unwrap();
    assert_eq!(redirected.status.code(), Some(2), "{said}");
    assert!(said.contains("<stdout>: the output is also an input"), "{said}");
    assert!(!folder.path("other.json").exists());
    assert_eq!(std::fs::read_to_string(&records).unwrap(), lines);
}

#[test]
fn what_cannot_be_calibrated_changes_no_file() {
    let folder = Folder::new();
    let out = folder.name("crag.json");
    let one_class = "{\"label\":1,\"probability\":0.5}\n".repeat(20);
    let reversed = scored(60, 0.0)
        .replace("\"label\":1", "\"label\":9")
        .replace("\"label\":0", "\"label\":1")
        .replace("\"label\":9", "\"label\":0");
    let perfect = "{\"label\":1,\"probability\":0.9}\n{\"label\":0,\"probability\":0.1}\n".repeat(10);
    for (lines, expected) in [
        (one_class, "found 20 and 0"),
        (reversed.clone(), "reversed"),
        (perfect, "wrong side of 0.5"),
        (String::new(), "found none"),
        ("{\"label\":1,\"probability\":0.9}\n{\"label\":0,\"probability\":0.95}\n{\"label\":1,\"probability\":0.99}\n".to_owned(), "--folds 5"),
    ] {
        let run_of = run(&["calibrate", "--scored", "--output", &out], lines);
        assert_eq!((run_of.code, run_of.stdout.as_str()), (1, ""), "{}", run_of.stderr);
        assert!(run_of.stderr.contains(expected), "{expected}: {}", run_of.stderr);
        assert!(!folder.path("crag.json").exists());
    }
    let constant = "{\"label\":1,\"probability\":0.7}\n{\"label\":0,\"probability\":0.7}\n".repeat(500);
    for flat in [reversed.repeat(20), constant] {
        let run_of = run(
            &["calibrate", "--scored", "--method", "isotonic", "--output", &out],
            flat,
        );
        assert_eq!((run_of.code, run_of.stdout.as_str()), (1, ""), "{}", run_of.stderr);
        assert!(run_of.stderr.contains("reversed"), "{}", run_of.stderr);
        assert!(!folder.path("crag.json").exists());
    }
    // Without the only record that is on the wrong side nothing can be fitted; with it something can.
    let one_wrong = "{\"label\":1,\"probability\":0.9}\n{\"label\":0,\"probability\":0.1}\n".repeat(5)
        + "{\"label\":0,\"probability\":0.8}\n";
    let run_of = run(&["calibrate", "--scored", "--output", &out], one_wrong);
    assert_eq!(run_of.code, 1, "{}", run_of.stderr);
    for expected in ["nothing can be fitted to the rest", "--folds 1"] {
        assert!(run_of.stderr.contains(expected), "{expected}: {}", run_of.stderr);
    }
    // As some editors write it.
    let marked = folder.write("marked.json", "\u{feff}{\"threshold\":0.25}");
    let run_of = run(&["calibrate", "--scored", "--output", &marked], scored(60, 0.0));
    assert_eq!(run_of.code, 0, "{}", run_of.stderr);
    let settings: Value = serde_json::from_str(&std::fs::read_to_string(&marked).unwrap()).unwrap();
    assert_eq!(settings["threshold"], 0.25);
    let nowhere = run(&["calibrate", "--scored"], scored(60, 0.0));
    assert!(
        nowhere.code == 2 && nowhere.stderr.contains("--output"),
        "{}",
        nowhere.stderr
    );
    let torn = folder.write("crag.json", "{\"thresh");
    let run_of = run(&["calibrate", "--scored", "--output", &torn], scored(60, 0.0));
    assert_eq!(run_of.code, 1);
    assert_eq!(std::fs::read_to_string(&torn).unwrap(), "{\"thresh");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_stdout_does_not_hide_that_the_calibration_is_written() {
    let folder = Folder::new();
    let (records, out) = (
        folder.write("records.jsonl", &scored(60, 0.0)),
        folder.name("crag.json"),
    );
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = process(&crag())
        .args(["calibrate", "--scored", "--output", &out, &records])
        .stdout(full)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("crag.json is written") && folder.path("crag.json").exists(),
        "{said}"
    );
}

#[test]
fn records_that_name_no_document_are_not_called_documents() {
    let folder = Folder::new();
    let out = folder.name("crag.json");
    let fitted = |document: &str| {
        let arguments = ["calibrate", "--scored", "--json", "--force", "--output", &out];
        let run = run(&[&arguments[..], &["--document", document]].concat(), scored(300, 0.1));
        let found = run.json();
        let written: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        assert_eq!(written["calibration"], found["calibration"], "{}", run.stderr);
        (
            found["after_judged_on"].clone(),
            found["calibration"]["fitted_on"].clone(),
        )
    };
    let (named, on) = fitted("pmid");
    assert_eq!((named, &on["documents"]), (json!("unseen documents"), &json!(100)));
    let (nameless, on) = fitted("nothing");
    assert_eq!((nameless, &on["records"]), (json!("unseen records"), &json!(300)));
    assert!(on.get("documents").is_none(), "{on}");
}

#[test]
fn only_one_models_own_probabilities_are_fitted_to() {
    let folder = Folder::new();
    let out = folder.name("crag.json");
    let calibrate = |more: &[&str], lines: String| {
        let arguments = ["calibrate", "--scored", "--json", "--output", &out];
        run(&[&arguments[..], more].concat(), lines)
    };
    let lines = scored(300, 0.1);
    let plain = calibrate(&[], lines.clone());
    std::fs::remove_file(&out).unwrap();
    // A fit to these is a temperature of 1, which would replace the right one.
    let calibrated = lines.replace("\"probability\":", "\"probability\":0.5,\"calibrated_probability\":");
    let refused = calibrate(&["--probability", "calibrated_probability"], calibrated);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("give --probability probability"),
        "{}",
        refused.stderr
    );
    let several: String = json_lines(lines.as_bytes())
        .into_iter()
        .map(|mut record| {
            record["probabilities"] = json!({"a": record["probability"], "b": 0.5});
            record["probability"] = json!(0.5);
            record.to_string() + "\n"
        })
        .collect();
    let refused = calibrate(&[], several.clone());
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
    let way_out = ["--output-key", "probabilities", "--probability", "a"];
    assert!(
        refused.stderr.contains("--output-key probabilities --probability NAME"),
        "{}",
        refused.stderr
    );
    assert!(!folder.path("crag.json").exists());
    let of_one = calibrate(&way_out, several);
    assert_eq!(of_one.code, 0, "{}", of_one.stderr);
    assert_eq!(of_one.json()["calibration"], plain.json()["calibration"]);
}

#[test]
fn a_calibration_that_makes_no_sense_is_refused_when_the_model_is_loaded() {
    let folder = Folder::new();
    let pair = r#"{"text":"Aspirin caused bleeding.","drug":"Aspirin","adr":"bleeding"}"#;
    for (calibration, expected) in [
        (
            r#"{"method":"temperature","temperature":0}"#,
            "expected a temperature above 0",
        ),
        (r#"{"method":"temperature"}"#, "missing field"),
        (r#"{"method":"magic"}"#, "unknown variant"),
        (r#"{"method":"temperature","temperature":1,"slope":2}"#, "unknown field"),
        (
            r#"{"method":"isotonic","raw":[0.1,0.2],"calibrated":[0.5,0.4]}"#,
            "not to fall",
        ),
        (
            r#"{"method":"isotonic","raw":[0.1],"calibrated":[0.5,0.6]}"#,
            "found 1 and 2",
        ),
    ] {
        let config = folder.write("crag.json", &format!("{{\"calibration\":{calibration}}}"));
        let run = run(&["score", "--model", "demo", "--model-config", &config], pair);
        assert_eq!(run.code, 1, "{calibration}");
        assert!(
            run.stderr.contains(expected) && run.stderr.contains("crag.json"),
            "{calibration}: {}",
            run.stderr
        );
    }
}
