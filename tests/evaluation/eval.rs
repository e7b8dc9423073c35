//! `crag eval`: figures, comparisons, the page, and what cannot be judged.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Folder, run, scored, value};
use crate::common::{crag, fixture, json_lines};

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
fn records_that_are_there_twice_are_said() {
    let folder = Folder::new();
    let lines = scored(60, 0.0);
    let twice = folder.write("twice.jsonl", &lines.repeat(2));
    let said = "60 records have the \"id\" and the pair of an earlier one, the first at";
    let judged = run(&["eval", "--scored", &twice], "");
    assert!(judged.code == 0 && judged.stderr.contains(said), "{}", judged.stderr);
    assert!(judged.stderr.contains("twice.jsonl:61"), "{}", judged.stderr);
    let out = folder.name("crag.json");
    let fitted = run(&["calibrate", "--scored", &twice, "--output", &out], "");
    assert!(fitted.code == 0 && fitted.stderr.contains(said), "{}", fitted.stderr);
    // An id that several pairs of a document share is no repetition.
    let of_documents = run(&["eval", "--scored", "--id", "pmid"], lines);
    assert!(
        !of_documents.stderr.contains("an earlier one"),
        "{}",
        of_documents.stderr
    );
}

#[test]
fn errors_of_records_cannot_command_a_terminal() {
    let error = "{\"label\":1,\"error\":{\"code\":\"a\\nb\",\"message\":\"\\u001b[31mred\\nline\"}}\n";
    let some = run(&["eval", "--scored"], scored(60, 0.0) + error);
    let none = run(&["eval", "--scored"], error);
    assert_eq!((some.code, none.code), (3, 1));
    for said in [some.stderr, none.stderr] {
        assert!(
            !said.contains('\u{1b}') && said.contains("red line") && said.contains("a b"),
            "{said:?}"
        );
    }
}

#[test]
fn documents_and_ids_that_are_blank_are_missing_ones() {
    let folder = Folder::new();
    let lines = scored(60, 0.0);
    // As a data frame writes a column that most records lack.
    let beside: String = lines
        .lines()
        .map(|line| line.replacen('{', "{\"doc_id\":\"\",", 1) + "\n")
        .collect();
    assert_eq!(
        run(&["eval", "--scored", "--json"], beside.clone()).json()["runs"][0]["documents"],
        20
    );
    let none = run(&["eval", "--scored", "--json", "--document", "doc_id"], beside);
    assert_eq!(none.json()["runs"][0]["documents"], 60);
    assert!(none.stderr.contains("no record names its document"), "{}", none.stderr);
    let without_ids = lines.replace("\"id\":", "\"id\":\"\",\"number\":");
    let [first, second] = [&lines, &without_ids].map(|lines| folder.write(&format!("{}.jsonl", lines.len()), lines));
    let compared = run(&["eval", &first, &second], "");
    assert!(
        compared.code == 1 && compared.stderr.contains("60 records have no \"id\""),
        "{}",
        compared.stderr
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
        "{\"label\":0,\"probability\":null,\"error\":{\"code\":\"empty_text\",\"message\":\"m\"}}\n",
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
        ("empty_text", 2, 10),
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
    let run_of = run(&["eval", "--scored", &input, "--report", &input], "");
    assert_eq!(run_of.code, 2, "{}", run_of.stderr);
    assert!(run_of.stderr.contains("is also an input"), "{}", run_of.stderr);
    assert_eq!(std::fs::read_to_string(&input).unwrap(), records);
    // What lies beside the report is nobody's business.
    let beside = folder.write("page.partial", &records);
    let run_of = run(&["eval", "--scored", &beside, "--report", &folder.name("page")], "");
    assert_eq!(run_of.code, 0, "{}", run_of.stderr);
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), records);
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
fn a_report_replaces_nothing_but_an_earlier_one() {
    let folder = Folder::new();
    let records = scored(60, 0.0);
    let (data, page) = (folder.write("old.jsonl", &records), folder.write("page.html", ""));
    let report = |path: &str| {
        run(
            &["eval", "--scored", "--resamples", "0", "--report", path],
            records.clone(),
        )
    };
    // Of two files to compare, the first taken for the flag's value.
    let refused = report(&data);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("old.jsonl") && refused.stderr.contains("name another"),
        "{}",
        refused.stderr
    );
    assert_eq!(std::fs::read_to_string(&data).unwrap(), records);
    let other = folder.write(
        "other.html",
        "<!DOCTYPE html><html><head><title>mine</title></head></html>",
    );
    assert_eq!(report(&other).code, 2);
    // What is empty, and then the page itself.
    for _ in 0..2 {
        assert_eq!(report(&page).code, 0);
        assert!(std::fs::read_to_string(&page).unwrap().ends_with("</html>"));
    }
}

#[test]
fn a_page_does_not_go_where_the_tables_go() {
    for stdout in ["-", "/dev/stdout"] {
        let refused = run(&["eval", "--scored", "--report", stdout], scored(60, 0.0));
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
        assert!(refused.stderr.contains("name a file"), "{}", refused.stderr);
    }
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
fn scored_records_are_known_as_such_behind_error_records_and_from_a_pipe() {
    let folder = Folder::new();
    let error = "{\"id\":9,\"label\":1,\"error\":{\"code\":\"entity_not_found\",\"message\":\"m\"}}\n";
    let lines = error.repeat(3) + &scored(60, 0.0);
    let file = folder.write("scored.jsonl", &lines);
    // The environment's model is a default, with which nobody said that the records be scored anew.
    let refused = |arguments: &[&str], stdin: &str| {
        let output = crag()
            .env("CRAG_MODEL", "demo")
            .args(arguments)
            .write_stdin(stdin)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(2), 0),
            "{arguments:?}: {said}"
        );
        assert!(
            said.contains("have a \"probability\" already") && said.contains("--scored"),
            "{said}"
        );
    };
    let out = folder.name("crag.json");
    refused(&["eval", &file], "");
    refused(&["eval"], &lines);
    refused(&["calibrate", "--output", &out, &file], "");
    refused(&["calibrate", "--output", &out], &lines);
    // With a model that is named they are scored.
    let anew = run(&["eval", "--model", "demo", "--resamples", "0", "--json"], lines);
    assert_eq!(anew.json()["runs"][0]["records"], 60, "{}", anew.stderr);
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
    let repeated = folder.write("repeated.jsonl", &(scored(30, 0.0) + &scored(2, 0.0)));
    let twice = run(&["eval", &repeated, &repeated, "--json"], "");
    assert_eq!(twice.json()["mismatches"]["repeated_first"], 4);
    assert_eq!((twice.json()["runs"][0]["records"].as_u64(), twice.code), (Some(28), 3));
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
fn of_a_million_records_with_ties_none_is_lost() {
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
    let run_of = run(&["eval", "--scored", "--json", "-q", "--resamples", "20"], lines);
    assert_eq!(run_of.json()["runs"][0]["records"], 1_000_000, "{}", run_of.stderr);
}

#[test]
fn a_file_in_which_nothing_is_labelled_is_refused_before_it_is_scored() {
    let folder = Folder::new();
    let pair = r#"{"text":"aspirin, then bleeding","drug":"aspirin","adr":"bleeding","late":1}"#;
    let unlabelled = pair.replace(",\"late\":1", "");
    // Of many records one is enough, wherever it stands.
    let lines = format!("not json\n{}{pair}\n", format!("{unlabelled}\n").repeat(50));
    let file = folder.write("pairs.jsonl", &lines);
    let settings = folder.name("settings.json");
    for command in [&["eval"][..], &["calibrate", "-o", &settings]] {
        let refused = run(
            &[command, &["--model", "demo", "--gold", "nolabel", &file]].concat(),
            "",
        );
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        let said = "pairs.jsonl: none of its records has \"nolabel\" (--gold names the field that holds the label)";
        assert!(
            refused.stderr.contains(said) && !refused.stderr.contains("scored "),
            "{}",
            refused.stderr
        );
    }
    let judged = run(&["eval", "--model", "demo", "--gold", "late", &file], "");
    assert!(
        judged.stderr.contains("scored 50 of") || judged.stderr.contains("scored 51 of"),
        "{}",
        judged.stderr
    );
}
