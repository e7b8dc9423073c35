//! `crag eval`'s figures, their intervals and thresholds.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Folder, model_copy, run, scored, value};
use crate::common::{fixture, json_lines};

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
fn without_intervals_nothing_is_said_of_them() {
    let found = run(
        &["eval", "--scored", "--document", "nothing", "--resamples", "0"],
        scored(4, 0.0),
    );
    assert_eq!((found.code, found.stderr.as_str()), (0, ""));
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
fn a_confidence_is_printed_as_it_was_given() {
    let folder = Folder::new();
    for (confidence, percent) in [("0.57", "57%"), ("0.999", "99.9%"), ("0.95", "95%"), ("0.975", "97.5%")] {
        let page = folder.name("page.html");
        let arguments = ["eval", "--scored", "--confidence", confidence, "--report", &page];
        let table = run(&arguments, scored(60, 0.0)).stdout;
        assert!(table.contains(&format!("the middle {percent} of")), "{table}");
        assert!(
            std::fs::read_to_string(&page)
                .unwrap()
                .contains(&format!("the middle {percent} of"))
        );
    }
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
    let negative = run(&["eval", "--scored", "--recall", "0.9", "--precision", "0.8"], line(0));
    let why = ["there are no positive records", "a precision of at least 0.8"];
    let said = why.map(|why| negative.stdout.matches(why).count());
    assert_eq!(said, [1, 1], "{}", negative.stdout);
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
fn resamples_that_do_not_define_a_figure_are_told_whichever_it_is() {
    // One record above all others: a third of all resamples lacks it.
    let mut lines = String::new();
    for i in 0..60 {
        let probability = if i == 0 { 0.9 } else { 0.3 + f64::from(i) / 1000.0 };
        writeln!(
            lines,
            "{{\"id\":{i},\"label\":{},\"probability\":{probability}}}",
            1 - i % 2
        )
        .unwrap();
    }
    let folder = Folder::new();
    let file = folder.write("few.jsonl", &lines);
    let wanted = run(
        &["eval", "--scored", "--precision", "0.9", "--threshold", "0.1", &file],
        "",
    );
    let said = "for the precision at \"precision >= 0.9\"";
    assert!(wanted.stderr.contains(said), "{}", wanted.stderr);
    let given = run(&["eval", "--scored", "--json", &file], "");
    let undefined = given.json()["runs"][0]["points"][0]["precision"]["undefined_resamples"].clone();
    let said = format!("up to {undefined} resamples had");
    assert!(
        undefined.as_u64().unwrap() > 200 && given.stderr.contains(&said),
        "{said} {}",
        given.stderr
    );
    assert!(
        given.stderr.contains("for the precision at \"the default\""),
        "{}",
        given.stderr
    );
    // Of two models, of either and of what they differ by.
    let compared = run(&["eval", &file, &file], "").stderr;
    assert_eq!(compared.matches(&said).count(), 3, "{compared}");
    assert!(
        compared.contains("so many for the difference in precision)"),
        "{compared}"
    );
    let page = folder.name("page.html");
    run(&["eval", &file, &file, "--report", &page], "");
    assert!(
        std::fs::read_to_string(&page)
            .unwrap()
            .contains("so many for the difference")
    );
}

#[test]
fn a_threshold_that_nobody_gave_is_called_so() {
    let folder = Folder::new();
    let decided = |causal: bool| format!("{{\"id\":1,\"label\":1,\"probability\":0.6,\"causal\":{causal}}}\n");
    let other = decided(true) + &decided(false) + "{\"label\":0,\"probability\":0.1}\n";
    let run_of = run(&["eval", "--scored"], other.as_str());
    assert!(run_of.stdout.contains("the default"), "{}", run_of.stdout);
    let warning = "not all of its records were decided at 0.55, the default: \"causal\" of 1 record would be otherwise";
    assert!(run_of.stderr.contains(warning), "{}", run_of.stderr);
    assert!(run_of.stderr.contains("decided at several"), "{}", run_of.stderr);
    let at_another = run(
        &["eval", "--scored"],
        decided(false) + &other.replace("0.6,", "0.8,").replace("false", "true"),
    );
    let theirs = "theirs lies above 0.6 and is at most 0.8: --threshold gives it";
    assert!(at_another.stderr.contains(theirs), "{}", at_another.stderr);
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
fn a_model_is_judged_at_its_own_threshold() {
    let folder = Folder::new();
    let model = model_copy(&folder);
    std::fs::write(model.join("crag.json"), "{\"threshold\":0.25}").unwrap();
    let pairs = folder.write(
        "pairs.jsonl",
        "{\"text\":\"aspirin, then a rash\",\"drug\":\"aspirin\",\"adr\":\"rash\",\"label\":1}\n",
    );
    let judge = |more: &[&str]| {
        run(
            &[&["eval", &pairs, "--model", model.to_str().unwrap()], more].concat(),
            "",
        )
    };
    let of_model = judge(&["--json"]).json();
    assert_eq!(value(&of_model["runs"][0]["points"][0]["threshold"]), 0.25);
    let table = judge(&[]).stdout;
    let row = table.lines().find(|line| line.starts_with("the model's")).unwrap();
    assert_eq!(row.split_whitespace().nth(2), Some("0.25"), "{table}");
    let given = judge(&["--json", "--threshold", "0.5"]).json();
    assert_eq!(value(&given["runs"][0]["points"][0]["threshold"]), 0.5);
}

#[test]
fn cells_and_bins_are_those_counted_by_hand() {
    // By bins of a quarter, closed on the right; from 0.5 on, predicted.
    let records = [
        (0.125, 0),
        (0.25, 0),
        (0.3125, 0),
        (0.375, 1),
        (0.5625, 1),
        (0.625, 0),
        (0.75, 1),
        (0.8125, 1),
        (0.875, 0),
        (1.0, 1),
    ];
    let mut lines = String::new();
    for (probability, label) in records {
        writeln!(lines, "{{\"label\":{label},\"probability\":{probability}}}").unwrap();
    }
    let arguments = ["eval", "--scored", "--json", "--threshold", "0.5", "--bins", "4"];
    let found = run(&arguments, lines).json();
    let point = &found["runs"][0]["points"][0];
    let cells = ["true_positives", "false_positives", "false_negatives", "true_negatives"];
    assert_eq!(cells.map(|cell| value(&point[cell])), [4.0, 2.0, 1.0, 3.0]);
    let expected = [
        (0.0, 2, 0, 0.1875),
        (0.25, 2, 1, 0.34375),
        (0.5, 3, 2, 1.9375 / 3.0),
        (0.75, 3, 2, 2.6875 / 3.0),
    ];
    let bins = expected.map(|(from, records, positives, mean)| {
        let to = from + 0.25;
        json!({"from": from, "to": to, "records": records, "positives": positives, "mean_probability": mean})
    });
    assert_eq!(found["runs"][0]["reliability"], json!(bins));
}

#[test]
fn a_calibration_error_has_no_interval_anywhere() {
    let folder = Folder::new();
    let [first, second] = [0.0, 0.1].map(|shift| folder.write(&format!("{shift}.jsonl"), &scored(300, shift)));
    let page = folder.name("page.html");
    let compared = run(&["eval", &first, &second, "--json", "--report", &page], "").json();
    let figures = [&compared["runs"][0], &compared["runs"][1], &compared["differences"]];
    for figure in figures.map(|of| &of["metrics"]["expected_calibration_error"]) {
        assert!(
            value(figure) != 0.0 && figure["low"].is_null() && figure["high"].is_null(),
            "{figure}"
        );
    }
    let row = |text: &str, end: &str| {
        let start = text.find("expected calibration error").unwrap();
        text[start..].split_once(end).unwrap().0.to_owned()
    };
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(!row(&html, "</tr>").contains("class=\"interval\""), "{html}");
    let table = run(&["eval", "--scored", &first], "").stdout;
    // Its name, the number of bins and one number.
    assert_eq!(row(&table, "\n").split_whitespace().count(), 6, "{table}");
    let out = folder.name("crag.json");
    let fitted = run(&["calibrate", "--scored", &second, "--json", "-o", &out], "").json();
    for of in ["before", "after", "change"] {
        assert!(
            fitted[of]["expected_calibration_error"]["interval"].is_null(),
            "{fitted}"
        );
        assert!(fitted[of]["brier_score"]["interval"].is_array(), "{fitted}");
    }
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
