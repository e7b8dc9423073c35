//! `crag eval` and `crag calibrate` as a user runs them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::pack::{bzip2, gzip, zstd};
use crate::common::{crag, fixture, json_lines};

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", self.stdout, self.stderr))
    }
}

fn run(arguments: &[&str], stdin: impl Into<Vec<u8>>) -> Run {
    let output = crag().args(arguments).write_stdin(stdin).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr,
    }
}

/// Scored records, three a document, whose probabilities have something to do with their labels.
fn scored(count: usize, shift: f64) -> String {
    let mut lines = String::new();
    for i in 0..count {
        let noise = (i * 7919 % 1009) as f64 / 1009.0;
        let label = i % 5 < 2;
        let probability = (0.55 * noise + if label { 0.4 } else { 0.05 } + shift).clamp(0.0, 1.0);
        let record = json!({
            "id": i, "pmid": format!("{}", i / 3), "label": u8::from(label), "probability": probability as f32,
            "drug": "aspirin", "adr": "bleeding", "text": format!("Case {i}: aspirin, then bleeding."),
        });
        writeln!(lines, "{record}").unwrap();
    }
    lines
}

fn value(estimate: &Value) -> f64 {
    estimate["value"].as_f64().unwrap_or_else(|| panic!("{estimate}"))
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, contents: &str) -> String {
        std::fs::write(self.path(name), contents).unwrap();
        self.name(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

#[test]
fn figures_of_scored_records_are_scikit_learns() {
    let cases = json_lines(&std::fs::read(fixture("evaluation/cases.jsonl")).unwrap());
    for name in ["f32 400", "ties 400", "constant", "saturated f32"] {
        let case = cases.iter().find(|case| case["name"] == name).unwrap();
        let mut lines = String::new();
        for (p, y) in case["probabilities"]
            .as_array()
            .unwrap()
            .iter()
            .zip(case["labels"].as_array().unwrap())
        {
            writeln!(lines, r#"{{"y":{y},"answer":{{"p":{p}}}}}"#).unwrap();
        }
        let threshold = case["threshold"].to_string();
        let arguments = [
            "eval",
            "--scored",
            "--json",
            "-q",
            "--resamples",
            "0",
            "--gold",
            "y",
            "--output-key",
            "answer",
            "--probability",
            "p",
            "--threshold",
            &threshold,
            "--recall",
            "0.9",
            "--precision",
            "0.75",
        ];
        let run = run(&arguments, lines);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let found = &run.json()["runs"][0];
        let expected = &case["expected"];
        let close = |what: &str, found: &Value, expected: &Value| {
            let agrees = match (found["value"].as_f64(), expected.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-12,
                (a, b) => a == b,
            };
            assert!(agrees, "{name}: {what}: {found} {expected}");
        };
        for metric in ["roc_auc", "average_precision", "brier_score", "log_loss"] {
            close(metric, &found["metrics"][metric], &expected[metric]);
        }
        close(
            "ece",
            &found["metrics"]["expected_calibration_error"],
            &expected["calibration_error"],
        );
        let points = found["points"].as_array().unwrap();
        for figure in ["precision", "recall", "f1"] {
            close(figure, &points[0][figure], &expected[figure]);
        }
        for (kind, key) in [
            ("best_f1", "best_f1"),
            ("recall", "for_recall"),
            ("precision", "for_precision"),
        ] {
            match points.iter().find(|point| point["kind"] == kind) {
                Some(point) => close(kind, &point["threshold"], &expected[key]),
                None => assert!(expected[key].is_null(), "{name}: {kind}"),
            }
        }
    }
}

#[test]
fn a_model_scores_the_records_as_crag_score_does() {
    let folder = Folder::new();
    let mut pairs = String::from("\n\n");
    for i in 0..60 {
        writeln!(pairs, r#"{{"doc_id":"d{}","label":{},"text":"Patient {i} took aspirin and bled.","drug":"aspirin","adr":"bled"}}"#, i / 2, i % 3 == 0).unwrap();
    }
    pairs.push_str("{\"label\":true,\"drug\":\"x\",\"adr\":\"y\",\"text\":\"neither is here\"}\n");
    let pairs = folder.write("pairs.jsonl", &pairs);
    let scored = run(&["score", "--model", "demo", &pairs], "");
    let direct = run(&["eval", "--model", "demo", "--threshold", "0.5", "--json", &pairs], "");
    let read = run(
        &["eval", "--scored", "--threshold", "0.5", "--json"],
        scored.stdout.clone(),
    );
    assert_eq!((direct.code, read.code), (3, 3), "{}{}", direct.stderr, read.stderr);
    let (direct_json, read_json) = (direct.json(), read.json());
    for key in ["metrics", "points", "reliability", "records", "documents"] {
        assert_eq!(direct_json["runs"][0][key], read_json["runs"][0][key], "{key}");
    }
    assert_eq!(
        direct_json["runs"][0]["left_out"]["rejected"]["entity_not_found"]["count"],
        1
    );
    // Two blank lines come first.
    assert!(direct.stderr.contains("pairs.jsonl:63: "), "{}", direct.stderr);
    assert_eq!(direct_json["bootstrap"]["unit"], "documents");
}

#[test]
fn the_same_records_give_the_same_output_in_any_order_and_on_any_threads() {
    let lines = scored(300, 0.0);
    let forwards = run(
        &["eval", "--scored", "--json", "--mistakes", "0", "--threads", "1"],
        lines.clone(),
    );
    let mut reversed: Vec<&str> = lines.lines().collect();
    reversed.reverse();
    let backwards = run(
        &["eval", "--scored", "--json", "--mistakes", "0", "--threads", "3"],
        reversed.join("\n"),
    );
    assert_eq!(forwards.stdout, backwards.stdout);
    let other = run(&["eval", "--scored", "--json", "--mistakes", "0", "--seed", "1"], lines);
    assert_ne!(forwards.stdout, other.stdout);
}

#[test]
fn intervals_resample_documents_and_say_when_they_cannot() {
    let with = run(&["eval", "--scored", "--json"], scored(300, 0.0)).json();
    assert_eq!(with["runs"][0]["documents"], 100);
    let without = run(
        &["eval", "--scored", "--json", "--document", "nothing"],
        scored(300, 0.0),
    );
    assert_eq!(
        (without.json()["bootstrap"]["unit"].as_str(), without.code),
        (Some("records"), 0)
    );
    assert!(
        without.stderr.contains("\"nothing\"") && without.stderr.contains("too narrow"),
        "{}",
        without.stderr
    );
    for run in [&with, &without.json()] {
        let auc = &run["runs"][0]["metrics"]["roc_auc"];
        assert!(
            auc["low"].as_f64() < auc["value"].as_f64() && auc["value"].as_f64() < auc["high"].as_f64(),
            "{auc}"
        );
    }
    let one = run(&["eval", "--scored", "--json", "--document", "drug"], scored(30, 0.0));
    assert!(one.json()["runs"][0]["metrics"]["roc_auc"]["low"].is_null());
    assert!(one.stderr.contains("no intervals"), "{}", one.stderr);
    let table = run(&["eval", "--scored"], "{\"label\":1,\"probability\":0.9}\n").stdout;
    assert!(
        table.contains("\n1 record, 1 positive") && !table.contains("resamples"),
        "{table}"
    );
}

#[test]
fn what_cannot_be_used_is_counted_and_said() {
    let lines = concat!(
        "{\"label\":1,\"probability\":0.9}\n",
        "{\"label\":\"1\",\"probability\":0.9}\n",
        "{\"label\":2,\"probability\":0.9}\n",
        "{\"label\":0,\"probability\":NaN}\n",
        "{\"label\":0,\"probability\":1.5}\n",
        "{\"label\":0,\"probability\":null}\n",
        "{\"label\":0}\n",
        "{\"probability\":0.1}\n",
        "\n",
        "{\"label\":0,\"error\":{\"code\":\"empty_text\",\"message\":\"m\"}}\n",
        "[1]\n",
        "{\"label\":0,\"probability\":0.2}",
    );
    let run_of = run(&["eval", "--scored", "--json"], lines);
    assert_eq!(run_of.code, 3);
    let found = run_of.json();
    let left_out = &found["runs"][0]["left_out"];
    assert_eq!(
        (&found["runs"][0]["records"], &left_out["unlabelled"]),
        (&json!(2), &json!(1))
    );
    for (code, count, line) in [
        ("bad_label", 2, 2),
        ("invalid_json", 1, 4),
        ("bad_probability", 2, 5),
        ("missing_probability", 1, 7),
        ("empty_text", 1, 10),
        ("not_an_object", 1, 11),
    ] {
        assert_eq!(left_out["rejected"][code]["count"], count, "{code}");
        let place = format!("<stdin>:{line}: ");
        assert!(
            left_out["rejected"][code]["first"]
                .as_str()
                .unwrap()
                .starts_with(&place),
            "{code}: {left_out}"
        );
        assert!(run_of.stderr.contains(code), "{}", run_of.stderr);
    }
    let place = "<stdin>:4: expected value at byte 26";
    assert!(run_of.stderr.contains(place), "{}", run_of.stderr);
    let quiet = run(&["eval", "--scored", "-q"], lines);
    assert!(
        quiet.stderr.contains("bad_label"),
        "errors are not hushed: {}",
        quiet.stderr
    );
}

#[test]
fn nothing_to_judge_is_one_clear_error() {
    for (stdin, expected) in [
        ("", "expected labelled records, found none"),
        ("\n \n", "expected labelled records, found none"),
        (
            "{\"probability\":0.5}\n",
            "1 record without \"label\" (--gold names the field)",
        ),
        ("{\"label\":1}\n", "missing_probability"),
        (
            "{\"label\":1,\"prob\":0.5}\n",
            "--probability and --output-key say where it is",
        ),
    ] {
        let run = run(&["eval", "--scored"], stdin);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{stdin:?}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{stdin:?}: {}", run.stderr);
    }
    let utf16 = run(&["eval", "--scored"], b"\xff\xfe{\0}\0".to_vec());
    assert!(utf16.code == 1 && utf16.stderr.contains("UTF-16"), "{}", utf16.stderr);
    let absent = run(&["eval", "--scored", "no/such/file.jsonl"], "");
    assert!(
        absent.code == 1 && absent.stderr.contains("no/such/file.jsonl"),
        "{}",
        absent.stderr
    );
}

#[test]
fn resamples_that_define_nothing_are_said() {
    let mut lines = "{\"label\":0,\"probability\":0.2}\n".repeat(40);
    lines += "{\"label\":1,\"probability\":0.7}\n";
    let run = run(&["eval", "--scored", "--json"], lines);
    // Without the one positive record, 37% of resamples have one class.
    let undefined = run.json()["runs"][0]["metrics"]["roc_auc"]["undefined_resamples"]
        .as_u64()
        .unwrap();
    assert!((300..450).contains(&undefined), "{undefined}");
    assert!(
        run.stderr
            .contains(&format!("{undefined} resamples had records of one class")),
        "{}",
        run.stderr
    );
}

#[test]
fn one_class_and_constant_scores_are_said_to_be_undefined() {
    let line = |label: u8| format!("{{\"label\":{label},\"probability\":0.5}}\n").repeat(30);
    let positive = run(&["eval", "--scored"], line(1));
    assert!(
        positive.code == 0 && positive.stdout.contains("not defined"),
        "{}",
        positive.stdout
    );
    let found = run(&["eval", "--scored", "--json"], line(1)).json();
    let metrics = &found["runs"][0]["metrics"];
    assert!(metrics["roc_auc"]["value"].is_null() && metrics["roc_auc"]["low"].is_null());
    assert_eq!(value(&metrics["average_precision"]), 1.0);
    let constant = run(&["eval", "--scored", "--json"], line(1) + &line(0)).json();
    assert_eq!(value(&constant["runs"][0]["metrics"]["roc_auc"]), 0.5);
    // Below the threshold of 0.55 nothing is predicted.
    assert!(constant["runs"][0]["points"][0]["precision"]["value"].is_null());
    assert_eq!(value(&constant["runs"][0]["points"][0]["recall"]), 0.0);
}

#[test]
fn arguments_that_contradict_each_other_are_usage_errors() {
    let folder = Folder::new();
    let file = folder.write("scored.jsonl", &scored(9, 0.0));
    for (arguments, expected) in [
        (vec!["--scored", "--model", "demo", &file], "one of the two"),
        (vec!["--model", "demo", &file, &file], "two models' scores"),
        (
            vec!["--model", "demo", "--model", "demo", "--model", "demo", &file],
            "two to compare",
        ),
        (vec!["--model", "demo", "--model", "demo"], "instead of stdin"),
        (vec!["-", "-"], "stdin can be read once"),
        (vec![&file], "--scored"),
        (vec!["--by-line", "--scored", &file], "--by-line"),
        (vec!["--scored", "--recall", "1.5", &file], "from 0 to 1"),
        (vec!["--scored", "--confidence", "1", &file], "between 0 and 1"),
        (vec!["--scored", &file, &file, &file], "unexpected"),
    ] {
        let run = run(&[&["eval"], &arguments[..]].concat(), "");
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (2, ""),
            "{arguments:?}: {}",
            run.stderr
        );
        assert!(run.stderr.contains(expected), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn a_report_is_never_written_over_its_records_and_goes_where_a_link_leads() {
    let folder = Folder::new();
    let records = scored(60, 0.0);
    let input = folder.write("a.jsonl", &records);
    let partial = folder.write("page.partial", &records);
    for (reads, report) in [(&input, "a.jsonl"), (&partial, "page")] {
        let run_of = run(&["eval", "--scored", reads, "--report", &folder.name(report)], "");
        assert_eq!(run_of.code, 2, "{}", run_of.stderr);
        assert!(run_of.stderr.contains("is also an input"), "{}", run_of.stderr);
        assert_eq!(std::fs::read_to_string(reads).unwrap(), records);
    }
    std::os::unix::fs::symlink("real.html", folder.name("link.html")).unwrap();
    let linked = run(&["eval", "--scored", &input, "--report", &folder.name("link.html")], "");
    assert_eq!(linked.code, 0, "{}", linked.stderr);
    assert!(
        std::fs::symlink_metadata(folder.name("link.html"))
            .unwrap()
            .is_symlink()
    );
    assert!(
        std::fs::read_to_string(folder.name("real.html"))
            .unwrap()
            .ends_with("</html>")
    );
    let appended = std::process::Command::new(env!("CARGO_BIN_EXE_crag"))
        .args(["eval", "--scored", &input])
        .stdout(std::fs::OpenOptions::new().append(true).open(&input).unwrap())
        .output()
        .unwrap();
    assert_eq!(appended.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&input).unwrap(), records);
    let onto_a_folder = run(
        &[
            "eval",
            "--scored",
            &input,
            "--report",
            folder.0.path().to_str().unwrap(),
        ],
        "",
    );
    assert_eq!(onto_a_folder.code, 1, "{}", onto_a_folder.stderr);
    assert!(!PathBuf::from(format!("{}.tmp", folder.0.path().display())).exists());
}

#[test]
fn a_threshold_read_off_a_table_does_what_the_table_says() {
    let mut lines = String::new();
    for i in 0..100 {
        writeln!(lines, "{{\"id\":{i},\"label\":1,\"probability\":0.99999}}").unwrap();
        writeln!(lines, "{{\"id\":-{i},\"label\":0,\"probability\":0.9999}}").unwrap();
    }
    let row = |table: &str, name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().map(str::to_owned).collect()
    };
    let chosen = row(&run(&["eval", "--scored"], lines.as_str()).stdout, "best F1");
    assert_eq!(chosen[0], "0.99999");
    let again = run(&["eval", "--scored", "--threshold", &chosen[0]], lines.as_str());
    assert_eq!(row(&again.stdout, "as given"), chosen);
}

#[test]
fn a_threshold_that_nobody_gave_is_called_so() {
    let folder = Folder::new();
    let decided = |causal: bool| format!("{{\"id\":1,\"label\":1,\"probability\":0.6,\"causal\":{causal}}}\n");
    let other = decided(true) + &decided(false) + "{\"label\":0,\"probability\":0.1}\n";
    let run_of = run(&["eval", "--scored"], other.as_str());
    assert!(run_of.stdout.contains("the default"), "{}", run_of.stdout);
    let warning = "\"causal\" of 1 record was decided at another threshold than 0.55, the default";
    assert!(run_of.stderr.contains(warning), "{}", run_of.stderr);
    let given = run(&["eval", "--scored", "--threshold", "0.7"], other.as_str());
    assert!(given.stdout.contains("as given"), "{}", given.stdout);
    assert!(!given.stderr.contains("decided"), "{}", given.stderr);
    let pairs = folder.write(
        "pairs.jsonl",
        "{\"text\":\"aspirin, then a rash\",\"drug\":\"aspirin\",\"adr\":\"rash\",\"label\":1}\n",
    );
    let of_model = run(
        &["eval", &pairs, "--model", fixture("model/views").to_str().unwrap()],
        "",
    );
    assert!(
        of_model.stdout.contains("the model's"),
        "{}{}",
        of_model.stdout,
        of_model.stderr
    );
}

#[test]
fn what_has_no_label_is_not_a_labelled_record_left_out() {
    let labelled = "{\"id\":1,\"label\":1,\"probability\":0.9}\n";
    let error = "\"error\":{\"code\":\"entity_not_found\",\"message\":\"m\"}";
    let unlabelled = format!("{labelled}{{\"id\":3,{error}}}\n");
    assert_eq!(run(&["eval", "--scored"], unlabelled).code, 0);
    // Whether the line that could not be read had one is not known.
    let unreadable = format!("{labelled}{{\"line\":2,{error}}}\n");
    assert_eq!(run(&["eval", "--scored"], unreadable).code, 3);
}

#[test]
fn a_table_is_refused_by_its_name() {
    let folder = Folder::new();
    let table = folder.write("t.csv", "label,probability\n1,0.5\n");
    let run_of = run(&["eval", "--scored", &table], "");
    assert_eq!(run_of.code, 2, "{}", run_of.stderr);
    assert!(run_of.stderr.contains("expected JSONL"), "{}", run_of.stderr);
}

#[test]
fn mistakes_of_records_that_are_not_compared_hide_none_that_are() {
    let folder = Folder::new();
    let record = |id: String, label: u8, probability: f64| {
        json!({"id": id, "label": label, "probability": probability}).to_string() + "\n"
    };
    let alone: String = (0..60).map(|i| record(format!("x{i}"), 0, 0.99)).collect();
    let common: String = (0..60)
        .map(|i| record(i.to_string(), u8::from(i % 2 == 0), 0.8))
        .collect();
    let first = folder.write("first.jsonl", &(alone + &common));
    let second = folder.write("second.jsonl", &common);
    let found = run(&["eval", &first, &second, "--mistakes", "3", "--json"], "").json();
    let of = |run: usize| {
        let mistakes = found["runs"][run]["mistakes"]["false_positives"].as_array().unwrap();
        mistakes.iter().map(|mistake| mistake["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(0), ["1", "3", "5"]);
    assert_eq!(of(0), of(1));
}

#[test]
fn two_files_are_compared_on_the_records_they_share() {
    let folder = Folder::new();
    let first = folder.write("first.jsonl", &scored(300, 0.0));
    // The second lacks a record, has one of its own, and disagrees about the label of record 7.
    let mut lines: Vec<String> = scored(301, 0.15).lines().map(str::to_owned).collect();
    lines.remove(3);
    let (from, to) = match lines[6].contains("\"label\":1") {
        true => ("\"label\":1", "\"label\":0"),
        false => ("\"label\":0", "\"label\":1"),
    };
    lines[6] = lines[6].replace(from, to);
    lines.reverse();
    let second = folder.write("second.jsonl", &lines.join("\n"));
    let run_of = run(&["eval", &first, &second, "--json"], "");
    let found = run_of.json();
    assert_eq!(run_of.code, 3, "{}", run_of.stderr);
    let mismatches = &found["mismatches"];
    assert_eq!(
        (&mismatches["only_first"], &mismatches["only_second"]),
        (&json!(1), &json!(1)),
        "{mismatches}"
    );
    assert_eq!(mismatches["labels_differ"], 1, "{mismatches}");
    assert_eq!(found["runs"][0]["records"], 298);
    assert_eq!(found["runs"][1]["records"], 298);
    for metric in ["roc_auc", "brier_score"] {
        let values = [0, 1].map(|i| value(&found["runs"][i]["metrics"][metric]));
        let difference = &found["differences"]["metrics"][metric];
        assert!((value(difference) - (values[1] - values[0])).abs() < 1e-15, "{metric}");
        let [low, high] = ["low", "high"].map(|end| difference[end].as_f64().unwrap());
        assert!(low <= value(difference) && value(difference) <= high, "{difference}");
    }
    // The shift makes calibration worse by more than chance, which the paired interval sees.
    assert!(found["differences"]["metrics"]["brier_score"]["low"].as_f64().unwrap() > 0.0);
    assert!(
        run_of
            .stderr
            .contains("1 only in the first, 1 only in the second, 1 with different labels"),
        "{}",
        run_of.stderr
    );
    let table = run(&["eval", &first, &second, "-q"], "");
    assert!(table.stdout.contains("B - A"), "{}", table.stdout);
}

#[test]
fn a_file_compared_with_itself_differs_in_nothing() {
    let folder = Folder::new();
    let file = folder.write("a.jsonl", &scored(90, 0.0));
    let run_of = run(&["eval", &file, &file, "--json"], "");
    assert_eq!(run_of.code, 0, "{}", run_of.stderr);
    for (metric, difference) in run_of.json()["differences"]["metrics"].as_object().unwrap() {
        assert_eq!(
            (
                value(difference),
                difference["low"].as_f64(),
                difference["high"].as_f64()
            ),
            (0.0, Some(0.0), Some(0.0)),
            "{metric}"
        );
    }
}

#[test]
fn records_without_ids_are_matched_by_line_when_asked() {
    let folder = Folder::new();
    let strip = |lines: String| lines.replace("\"id\":", "\"other\":");
    let first = folder.write("first.jsonl", &strip(scored(30, 0.0)));
    let second = folder.write("second.jsonl", &strip(scored(30, 0.1)));
    let by_id = run(&["eval", &first, &second], "");
    assert!(
        by_id.code == 1 && by_id.stderr.contains("--by-line"),
        "{}",
        by_id.stderr
    );
    let by_line = run(&["eval", &first, &second, "--by-line", "--json"], "");
    assert_eq!(by_line.json()["runs"][1]["records"], 30, "{}", by_line.stderr);
    let repeated = folder.write("repeated.jsonl", &(scored(30, 0.0) + &scored(2, 0.0)));
    let twice = run(&["eval", &repeated, &repeated, "--json"], "");
    assert_eq!(twice.json()["mismatches"]["repeated_first"], 4);
    assert_eq!((twice.json()["runs"][0]["records"].as_u64(), twice.code), (Some(28), 3));
}

#[test]
fn two_models_are_compared_on_one_file() {
    let folder = Folder::new();
    let mut pairs = String::new();
    for i in 0..24 {
        writeln!(
            pairs,
            r#"{{"pmid":{},"label":{},"text":"Patient {i} took aspirin and bled.","drug":"aspirin","adr":"bled"}}"#,
            i / 2,
            i % 2
        )
        .unwrap();
    }
    let pairs = folder.write("pairs.jsonl", &pairs);
    let other = fixture("model/mean");
    let run_of = run(
        &[
            "eval",
            &pairs,
            "--model",
            "demo",
            "--model",
            other.to_str().unwrap(),
            "--json",
        ],
        "",
    );
    let found = run_of.json();
    assert_eq!(
        (run_of.code, &found["runs"][0]["name"]),
        (0, &json!("demo")),
        "{}",
        run_of.stderr
    );
    assert_ne!(value(&found["differences"]["metrics"]["brier_score"]), 0.0);
}

#[test]
fn the_hardest_mistakes_come_first_and_cannot_command_a_terminal() {
    let lines = concat!(
        "{\"id\":\"a\",\"label\":0,\"probability\":0.7,\"drug\":\"d\",\"adr\":\"r\",\"text\":\"one\"}\n",
        "{\"id\":\"b\",\"label\":0,\"probability\":0.99,\"drug\":\"d\\u001b[2J\",\"adr\":\"\\u202er\",\"text\":\"two\\nlines\"}\n",
        "{\"id\":\"c\",\"label\":1,\"probability\":0.2,\"drug\":\"d\",\"adr\":\"r\",\"text\":\"three\"}\n",
        "{\"id\":\"d\",\"label\":1,\"probability\":0.9,\"drug\":\"d\",\"adr\":\"r\",\"text\":\"four\"}\n",
    );
    let found = run(&["eval", "--scored", "--json"], lines).json();
    let mistakes = &found["runs"][0]["mistakes"];
    let ids = |kind: &str| {
        mistakes[kind]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("false_positives"), ["b", "a"]);
    assert_eq!(ids("false_negatives"), ["c"]);
    let table = run(&["eval", "--scored"], lines).stdout;
    assert!(!table.contains('\u{1b}') && !table.contains('\u{202e}'), "{table:?}");
    assert!(table.contains("two lines"), "{table}");
}

#[test]
fn the_report_is_one_page_that_needs_nothing_else() {
    let folder = Folder::new();
    let evil = "{\"label\":0,\"probability\":0.95,\"drug\":\"<img src=x onerror=alert(1)>\",\"adr\":\"</title>\",\"text\":\"<script>alert(1)</script>\"}\n";
    let input = folder.write("<b>.jsonl", &(scored(200, 0.0) + evil));
    let report = folder.name("report.html");
    let run_of = run(
        &["eval", "--scored", &input, "--report", &report, "--recall", "0.95"],
        "",
    );
    assert_eq!(run_of.code, 0, "{}", run_of.stderr);
    assert!(run_of.stdout.contains("report.html"), "{}", run_of.stdout);
    let page = std::fs::read_to_string(&report).unwrap();
    for tag in ["<script", "<img", "<b>", "</title>\"", "://"] {
        assert!(!page.contains(tag), "{tag}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("<svg") && page.ends_with("</html>"));
    let before = std::fs::read_dir(folder.0.path()).unwrap().count();
    assert_eq!(before, 2, "nothing else is left in the folder");
    let nowhere = run(
        &["eval", "--scored", &input, "--report", "/no/such/folder/report.html"],
        "",
    );
    assert!(
        nowhere.code == 1 && nowhere.stderr.contains("/no/such/folder/report.html"),
        "{}",
        nowhere.stderr
    );
}

#[test]
fn a_million_records_take_bounded_time() {
    // Ties, long texts and a document every three records.
    let mut lines = String::with_capacity(120 << 20);
    for i in 0..1_000_000u64 {
        let p = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64;
        writeln!(
            lines,
            r#"{{"pmid":{},"label":{},"probability":{p:.4},"text":"some text of a record, which is not kept"}}"#,
            i / 3,
            i % 7 % 2
        )
        .unwrap();
    }
    let started = std::time::Instant::now();
    let run_of = run(&["eval", "--scored", "--json", "-q", "--resamples", "20"], lines);
    assert_eq!(run_of.json()["runs"][0]["records"], 1_000_000, "{}", run_of.stderr);
    let seconds = started.elapsed().as_secs();
    assert!(seconds < 60, "{seconds} s");
}

/// A copy of a small model in a folder of its own.
fn model_copy(folder: &Folder) -> PathBuf {
    let copy = folder.path("model");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(fixture("model/safetensors")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

fn sidecar(model: &Path) -> Value {
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
    // No file is written that only the environment names.
    let model = model_copy(&folder);
    let before = std::fs::read(model.join("crag.json")).ok();
    let (code, _, stderr) = with_variable(&["calibrate", "--scored"], &model.display().to_string(), lines);
    assert!(code == 2 && stderr.contains("--output"), "{stderr}");
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
    let (code, said) = in_folder(&["calibrate", "--scored", &records, "--model", &model, "-o", &out]);
    assert_eq!(code, 0, "{said}");
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
        (reversed, "reversed"),
        (perfect, "wrong side of 0.5"),
        (String::new(), "found none"),
        ("{\"label\":1,\"probability\":0.9}\n{\"label\":0,\"probability\":0.95}\n{\"label\":1,\"probability\":0.99}\n".to_owned(), "--folds 5"),
    ] {
        let run_of = run(&["calibrate", "--scored", "--output", &out], lines);
        assert_eq!((run_of.code, run_of.stdout.as_str()), (1, ""), "{}", run_of.stderr);
        assert!(run_of.stderr.contains(expected), "{expected}: {}", run_of.stderr);
        assert!(!folder.path("crag.json").exists());
    }
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
