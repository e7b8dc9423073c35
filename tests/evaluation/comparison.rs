//! `crag eval A B`: two models, or two files, on the same records.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Folder, run, scored, value};
use crate::common::fixture;

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
fn records_that_are_matched_but_of_different_pairs_are_not_compared() {
    let folder = Folder::new();
    let lines: Vec<String> = scored(60, 0.0).lines().map(str::to_owned).collect();
    let first = folder.write("first.jsonl", &lines.join("\n"));
    // The same id, another text, reaction or drug; written otherwise, the same pair.
    let mut other = lines.clone();
    other[4] = other[4].replace("Case 4:", "Case 5:");
    other[7] = other[7].replace("\"bleeding\"", "\"rash\"");
    other[8] = other[8].replace("\"drug\":\"aspirin\"", "\"drug_entity\":\"heparin\"");
    other[9] = other[9].replace("\"drug\":\"aspirin\"", "\"drug_entity\":\"\\u0061spirin\"");
    let second = folder.write("second.jsonl", &other.join("\n"));
    let by_id = run(&["eval", &first, &second, "--json"], "");
    let found = by_id.json();
    assert_eq!(
        (by_id.code, &found["mismatches"]["pairs_differ"]),
        (3, &json!(3)),
        "{}",
        by_id.stderr
    );
    assert_eq!(found["runs"][0]["records"], 57);
    let said = "3 with another drug, reaction or text";
    assert!(
        by_id.stderr.contains(said) && by_id.stderr.contains("text: \"4\""),
        "{}",
        by_id.stderr
    );
    // By line, a line that is missing at the start shifts all others.
    let mut shifted = lines.clone();
    shifted.rotate_left(1);
    let shifted = folder.write("shifted.jsonl", &shifted.join("\n"));
    let by_line = run(&["eval", &first, &shifted, "--by-line"], "");
    assert!(
        by_line.code == 1 && by_line.stderr.contains("60 with another"),
        "{}",
        by_line.stderr
    );
    // What one file does not say does not contradict: texts and names may be left out of it.
    let bare: String = lines
        .iter()
        .map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            json!({"id": record["id"], "label": record["label"], "probability": 0.5, "drug": "", "text": null})
                .to_string()
                + "\n"
        })
        .collect();
    let bare = folder.write("bare.jsonl", &bare);
    let compared = run(&["eval", &first, &bare, "--json"], "");
    assert_eq!(
        (compared.code, &compared.json()["runs"][1]["records"]),
        (0, &json!(60)),
        "{}",
        compared.stderr
    );
}

#[test]
fn an_id_that_is_repeated_in_one_file_is_missing_in_neither() {
    let folder = Folder::new();
    let plain = folder.write("plain.jsonl", &scored(30, 0.0));
    let again: String = scored(30, 0.1)
        .lines()
        .take(2)
        .map(|line| line.to_owned() + "\n")
        .collect();
    let repeated = folder.write("repeated.jsonl", &(scored(30, 0.1) + &again));
    for (files, of_first, of_second) in [([&plain, &repeated], 0, 4), ([&repeated, &plain], 4, 0)] {
        let found = run(&["eval", files[0], files[1], "--json"], "").json();
        let mismatches = &found["mismatches"];
        let counts = ["only_first", "only_second", "repeated_first", "repeated_second"];
        let counts = counts.map(|name| mismatches[name].as_u64().unwrap());
        assert_eq!(counts, [0, 0, of_first, of_second], "{mismatches}");
        assert_eq!(found["runs"][0]["records"], 28);
    }
}

#[test]
fn a_file_compared_with_itself_differs_in_nothing() {
    let folder = Folder::new();
    let file = folder.write("a.jsonl", &scored(90, 0.0));
    let run_of = run(&["eval", &file, &file, "--json"], "");
    assert_eq!(run_of.code, 0, "{}", run_of.stderr);
    for (metric, difference) in run_of.json()["differences"]["metrics"].as_object().unwrap() {
        let end = (metric != "expected_calibration_error").then_some(0.0);
        assert_eq!(
            (
                value(difference),
                difference["low"].as_f64(),
                difference["high"].as_f64()
            ),
            (0.0, end, end),
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
    assert!(!by_line.stderr.contains("another id"), "{}", by_line.stderr);
    let repeated = folder.write("repeated.jsonl", &(scored(30, 0.0) + &scored(2, 0.0)));
    let twice = run(&["eval", &repeated, &repeated, "--json"], "");
    assert_eq!(twice.json()["mismatches"]["repeated_first"], 4);
    assert_eq!((twice.json()["runs"][0]["records"].as_u64(), twice.code), (Some(28), 3));
}

#[test]
fn ids_that_differ_between_records_matched_by_line_are_said() {
    let folder = Folder::new();
    // Nothing but the ids tells that a line is missing.
    let lines: String = (0..20)
        .map(|i| format!("{{\"id\":{i},\"label\":1,\"probability\":0.{i}}}\n"))
        .collect();
    let lines = lines.replacen("\"label\":1", "\"label\":0", 1);
    let first = folder.write("first.jsonl", &lines);
    let second = folder.write(
        "second.jsonl",
        &lines.replace("{\"id\":9,\"label\":1,\"probability\":0.9}\n", ""),
    );
    let found = run(&["eval", &first, &second, "--by-line"], "");
    let said = "10 of the records that are compared by line have another id in the second file";
    assert!(
        found.stdout.contains(said) || found.stderr.contains(said),
        "{}{}",
        found.stdout,
        found.stderr
    );
}

#[test]
fn documents_of_records_that_are_compared_are_those_that_either_file_names() {
    let folder = Folder::new();
    let record = |id: usize, rest: Value| {
        let mut record = json!({"id": id, "label": id % 2, "probability": 0.1 * (id + 1) as f64});
        for (key, value) in rest.as_object().unwrap() {
            record[key] = value.clone();
        }
        record.to_string() + "\n"
    };
    let named = |i: usize| json!({"doc_id": format!("d{}", i / 2)});
    let with: String = (0..6).map(|i| record(i, named(i))).collect();
    // The record that names a document here is not compared.
    let without: String = (0..6).map(|i| record(i, json!({}))).collect::<String>() + &record(7, json!({"pmid": 7}));
    let (with, without) = (
        folder.write("with.jsonl", &with),
        folder.write("without.jsonl", &without),
    );
    for files in [[&with, &without], [&without, &with]] {
        let run_of = run(&["eval", files[0], files[1], "--json"], "");
        let found = run_of.json();
        assert_eq!(found["bootstrap"]["unit"], "documents", "{}", run_of.stderr);
        assert_eq!(found["runs"][0]["documents"], 3);
        assert!(!run_of.stderr.contains("names its document"), "{}", run_of.stderr);
        assert!(!run_of.stderr.contains("documents are named by"), "{}", run_of.stderr);
    }
    let alone = run(&["eval", &without, &without, "--json"], "");
    assert_eq!(alone.json()["bootstrap"]["unit"], "documents", "{}", alone.stderr);
    assert!(
        alone.stderr.contains("6 records name no document (\"pmid\")"),
        "{}",
        alone.stderr
    );
}

#[test]
fn two_models_compared_on_records_without_documents_have_the_same_intervals_in_any_order() {
    let folder = Folder::new();
    let strip = |lines: String| lines.replace("\"pmid\":", "\"other\":");
    let [one, other] = [0.0, 0.2].map(|shift| strip(scored(40, shift)));
    let intervals = |reversed: bool| {
        let [first, second] = [&one, &other].map(|lines| {
            let mut lines: Vec<&str> = lines.lines().collect();
            if reversed {
                lines.reverse();
            }
            lines.join("\n")
        });
        let files = [
            folder.write("first.jsonl", &first),
            folder.write("second.jsonl", &second),
        ];
        let found = run(&["eval", &files[0], &files[1], "--by-line", "--json"], "");
        assert_eq!(found.code, 0, "{}", found.stderr);
        let found = found.json();
        (found["differences"].clone(), found["runs"][0]["metrics"].clone())
    };
    assert_eq!(intervals(false), intervals(true));
}

#[test]
fn why_no_records_can_be_compared_is_said_as_it_is() {
    let folder = Folder::new();
    let first = folder.write("first.jsonl", "{\"id\":1,\"label\":1,\"probability\":0.3}\n");
    let other_label = folder.write("label.jsonl", "{\"id\":1,\"label\":0,\"probability\":0.7}\n");
    let other_id = folder.write("id.jsonl", "{\"id\":2,\"label\":1,\"probability\":0.7}\n");
    let by_line = run(&["eval", &first, &other_label, "--by-line"], "");
    assert!(
        by_line.code == 1 && by_line.stderr.contains("1 with different labels"),
        "{}",
        by_line.stderr
    );
    assert!(!by_line.stderr.contains("matches by line"), "{}", by_line.stderr);
    let by_id = run(&["eval", &first, &other_id], "");
    let said = "1 only in the first, 1 only in the second";
    assert!(by_id.code == 1 && by_id.stderr.contains(said), "{}", by_id.stderr);
    assert!(by_id.stderr.contains("--by-line matches by line"), "{}", by_id.stderr);
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
