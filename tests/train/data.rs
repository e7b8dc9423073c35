//! What is trained on: which lines are pairs, what is told of them, and what cannot be trained on.

use std::fs;

use serde_json::{Value, json};

use super::{Case, stderr};
use crate::common::pack::gzip;
use crate::common::{crag, json_lines};

#[test]
fn what_cannot_be_trained_on_is_one_clear_error_and_leaves_nothing() {
    let case = Case::new();
    fs::write(case.path("empty.jsonl"), "\n").unwrap();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    fs::write(case.path("none.jsonl"), lines.replace("\"drug\"", "\"medicine\"")).unwrap();
    let one = "{\"text\":\"a caused b\",\"drug\":\"a\",\"adr\":\"b\",\"doc_id\":1}\n";
    fs::write(case.path("one.jsonl"), one.repeat(4) + &one.replace(":1}", ":2}")).unwrap();
    let unrelated = lines.replace("\"doc_id\"", "\"label\":0,\"doc_id\"");
    fs::write(case.path("unrelated.jsonl"), unrelated).unwrap();
    fs::write(
        case.path("null.jsonl"),
        lines.replace("\"doc_id\"", "\"label\":null,\"doc_id\""),
    )
    .unwrap();
    fs::copy(case.path("pairs.jsonl"), case.path("same.jsonl")).unwrap();
    fs::hard_link(case.path("pairs.jsonl"), case.path("link.jsonl")).unwrap();
    let cases: [(&[&str], i32, &str); 24] = [
        (&["--train", "empty.jsonl"], 1, "empty.jsonl: the file is empty"),
        (&["--train", "none.jsonl"], 1, "no line is a labelled pair"),
        (&["--train", "missing.jsonl"], 1, "missing.jsonl"),
        (&["--train", "unrelated.jsonl"], 1, "no related pairs"),
        (
            &["--train", "pairs.jsonl", "--negatives", "none"],
            1,
            "only related pairs",
        ),
        (
            &["--train", "one.jsonl", "--valid-fraction", "0.5"],
            1,
            "no negative could be mined",
        ),
        (
            &["--train", "pairs.jsonl", "--learning-rate=-1"],
            2,
            "finetune.learning_rate",
        ),
        (&["--train", "pairs.jsonl", "--pooling-heads", "3"], 2, "pooling_heads"),
        (
            &["--train", "pairs.jsonl", "--backbone", "x"],
            2,
            "expected one of them",
        ),
        (&["--train", "-", "--valid", "-"], 2, "stdin"),
        (
            &["--train", "pairs.jsonl", "--document", "nope"],
            2,
            "--document nope: no record has",
        ),
        (
            &["--train", "null.jsonl"],
            1,
            "null.jsonl:1: field \"label\": none or null",
        ),
        (
            &["--train", "pairs.jsonl", "--gold", "labels"],
            2,
            "--gold labels: no record of pairs.jsonl has this field",
        ),
        (
            &["--train", "pairs.jsonl", "--width", "3000000"],
            2,
            "head.width: expected a model that fits",
        ),
        (
            &["--train", "pairs.jsonl", "--width", "3000000", "--views", "drug"],
            2,
            "head.width: expected a model that fits",
        ),
        (
            &["--train", "pairs.jsonl", "--epochs", "100000000"],
            2,
            "finetune.epochs: expected 1 to 16777216",
        ),
        (&["--train", "pairs.jsonl", "--valid-fraction", "0.001"], 2, "--valid"),
        (
            &["--train", "one.jsonl", "--valid-fraction", "0.9"],
            2,
            "valid_fraction: 0.9 of all documents are all of them",
        ),
        (
            &["--train", "pairs.jsonl", "--valid", "same.jsonl", "-q"],
            1,
            "96 more are left out, since their documents are in the validation file",
        ),
        (
            &["--train", "pairs.jsonl", "link.jsonl"],
            2,
            "--train: link.jsonl is given twice",
        ),
        (
            &["--train", "pairs.jsonl", "--valid", "same.jsonl", "same.jsonl"],
            2,
            "--valid: same.jsonl is given twice",
        ),
        (
            &["--train", "pairs.jsonl", "--learning-rate", "-1"],
            2,
            "finetune.learning_rate",
        ),
        (
            &["--train", "pairs.jsonl", "--gold", "drug"],
            1,
            "field \"drug\": expected 0, 1",
        ),
        (
            &["--train", "pairs.jsonl", "--config", "recipe.toml"],
            2,
            "recipe.toml:14: unknown key \"contrastive\"",
        ),
    ];
    for (arguments, code, message) in cases {
        let mut command = crag();
        command.current_dir(case.folder.path());
        command.args(["train", "--recipe", "recipe.toml", "--device", "cpu", "--out", "out"]);
        let assert = command.args(arguments).assert();
        let said = stderr(&assert);
        assert.code(code);
        assert!(said.contains(message), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        let left = ["out", "out.partial"].map(|name| case.path(name).exists());
        assert_eq!(left, [false, false], "{arguments:?}");
    }
}

#[test]
fn packed_files_and_other_names_of_fields_are_read() {
    let case = Case::new();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    let renamed = lines.replace("\"doc_id\"", "\"caused\":true,\"case\"");
    fs::write(case.path("renamed.jsonl.gz"), gzip(renamed.as_bytes())).unwrap();
    let names = ["--gold", "caused", "--document", "case", "--epochs", "1"];
    case.train_on("renamed.jsonl.gz", "renamed", &names).assert().success();
    let manifest = case.json("renamed", "manifest.json");
    // 48 documents of two pairs; a tenth of the documents is held out.
    assert_eq!(manifest["data"]["valid"]["pairs"], 10);
    assert_eq!(manifest["inputs"][0]["name"], "renamed.jsonl.gz");
    assert_eq!(manifest["outcome"]["status"], "complete");
}

#[test]
fn a_table_trains_the_model_that_the_same_pairs_in_jsonl_train() {
    let case = Case::new();
    let records = json_lines(&fs::read(case.path("pairs.jsonl")).unwrap());
    let cell = |record: &Value, column: &str| match &record[column] {
        Value::String(text) => format!("\"{text}\""),
        other => other.to_string(),
    };
    let columns = ["doc_id", "text", "drug", "adr"];
    let rows = records
        .iter()
        .map(|record| columns.map(|column| cell(record, column)).join(",") + "\n");
    let table = columns.join(",") + "\n" + &rows.collect::<String>();
    fs::write(case.path("pairs.csv"), table.clone() + "7,no mention,aspirin\n").unwrap();
    let epochs = ["--epochs", "1"];
    case.train("plain", &epochs).assert().success();
    let of_table = case.train_on("pairs.csv", "of-table", &epochs).assert().code(3);
    let said = "pairs.csv:98: expected 4 fields, found 3";
    assert!(stderr(&of_table).contains(said), "{}", stderr(&of_table));
    assert!(case.weights("plain") == case.weights("of-table"));
    let input = &case.json("of-table", "manifest.json")["inputs"][0];
    assert_eq!(input["bytes"], table.len() + "7,no mention,aspirin\n".len());
}

#[test]
fn lines_that_are_no_pairs_cost_themselves_and_exit_code_3() {
    let case = Case::new();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    let bad = "not json\n{\"text\":\"no mention\",\"drug\":\"aspirin\",\"adr\":\"bleeding\",\"doc_id\":3}\n{\"Text\":\"a\"}\n";
    fs::write(case.path("pairs.jsonl"), format!("{bad}{lines}")).unwrap();
    let assert = case.train("out", &["--epochs", "1"]).assert().code(3);
    let said = stderr(&assert);
    assert!(
        [1, 2, 3]
            .iter()
            .all(|line| said.contains(&format!("pairs.jsonl:{line}: "))),
        "{said}"
    );
    for flag_of_others in ["--missing-entity", "--format", "--field"] {
        assert!(!said.contains(flag_of_others), "{said}");
    }
    assert_eq!(case.json("out", "manifest.json")["data"]["rejected_lines"], 3);
}

#[test]
fn a_line_that_is_too_long_costs_itself_and_exit_code_3() {
    let case = Case::new();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    let long =
        json!({"text": format!("Aspirin caused bleeding. {}", "x".repeat(4096)), "drug": "Aspirin", "adr": "bleeding"});
    fs::write(case.path("pairs.jsonl"), format!("{long}\n{lines}")).unwrap();
    let arguments = ["--epochs", "1", "--max-line-bytes", "2KiB"];
    let said = stderr(&case.train("out", &arguments).assert().code(3));
    assert!(
        said.contains("pairs.jsonl:1: expected at most 2048 bytes") && said.contains("--max-line-bytes"),
        "{said}"
    );
    let data = &case.json("out", "manifest.json")["data"];
    assert_eq!(data["rejected_lines"], 1);
    let pairs = ["train", "valid"].map(|half| data[half]["pairs"].as_u64().unwrap());
    assert_eq!(pairs.iter().sum::<u64>(), 96);
}

#[test]
fn what_is_doubtful_about_pairs_is_said() {
    let case = Case::new();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    let assert = case.train("unlabelled", &["--epochs", "1"]).assert().success();
    assert!(stderr(&assert).contains("taken as related"), "{}", stderr(&assert));

    // The same texts under another document's name, and numbers as data frames write them.
    let held_out: String = lines.lines().take(16).map(|line| line.to_owned() + "\n").collect();
    fs::write(case.path("renamed.jsonl"), held_out.replace("\"doc_id\"", "\"pmid\"")).unwrap();
    let renamed = case
        .train("renamed", &["--valid", "renamed.jsonl", "--epochs", "1"])
        .assert()
        .success();
    assert!(
        stderr(&renamed).contains("16 pairs to train on have a text that is validated on too"),
        "{}",
        stderr(&renamed)
    );
    let by_two_names = "documents are named by \"doc_id\" and \"pmid\"";
    assert!(stderr(&renamed).contains(by_two_names), "{}", stderr(&renamed));
    let half: String = lines
        .lines()
        .zip(0..)
        .map(|(line, i)| line.replace("\"doc_id\"", if i % 2 == 0 { "\"doc_id\"" } else { "\"no\"" }) + "\n")
        .collect();
    fs::write(case.path("half.jsonl"), half).unwrap();
    let nameless = case.train("half", &["--train", "half.jsonl", "--epochs", "1"]);
    let said = stderr(&{ nameless }.assert().success());
    let count = lines.lines().count() / 2;
    assert!(said.contains(&format!("{count} pairs name no document")), "{said}");
    let floats: String = held_out
        .lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            record["doc_id"] = json!(record["doc_id"].as_f64());
            format!("{record}\n")
        })
        .collect();
    assert!(floats.contains("\"doc_id\":0.0"));
    fs::write(case.path("floats.jsonl"), floats).unwrap();
    let same = case
        .train("floats", &["--valid", "floats.jsonl", "--epochs", "1"])
        .assert()
        .success();
    assert!(
        stderr(&same).contains("16 pairs are left out of training"),
        "{}",
        stderr(&same)
    );

    let labelled = |label: u8| lines.replace("\"doc_id\"", &format!("\"label\":{label},\"doc_id\""));
    fs::write(case.path("both.jsonl"), labelled(1) + &labelled(0)).unwrap();
    let both = case.train("both", &["--train", "both.jsonl", "--epochs", "1"]);
    let assert = { both }.assert().success();
    assert!(
        stderr(&assert).contains("pairs come both as related and as unrelated"),
        "{}",
        stderr(&assert)
    );

    // Of what is validated on, as such.
    let held_out = labelled(1) + &labelled(0);
    fs::write(
        case.path("both-valid.jsonl"),
        held_out.replace("\"doc_id\":", "\"doc_id\":9"),
    )
    .unwrap();
    let valid = ["--valid", "both-valid.jsonl", "--max-length", "12", "--epochs", "1"];
    let said = stderr(&case.train("both-valid", &valid).assert().success());
    assert!(
        said.contains("validation: 96 pairs come both as related and as unrelated")
            && said.matches("come both").count() == 1,
        "{said}"
    );
    let cut = "contexts have no whole mention in their first 12 tokens, and are judged without it";
    assert!(
        said.lines()
            .any(|line| line.contains("validation: ") && line.contains(cut)),
        "{said}"
    );

    let cut = case
        .train("cut", &["--max-length", "8", "--epochs", "1"])
        .assert()
        .success();
    assert!(
        stderr(&cut).contains("contexts have no whole mention in their first 8 tokens"),
        "{}",
        stderr(&cut)
    );
}

#[test]
fn few_labelled_negatives_are_mined_beside_and_a_model_that_calls_all_related_is_told() {
    let case = Case::new();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    let labelled: String = lines
        .lines()
        .enumerate()
        .map(|(i, line)| line.replace("\"doc_id\"", &format!("\"label\":{},\"doc_id\"", u8::from(i % 12 != 0))) + "\n")
        .collect();
    fs::write(case.path("few.jsonl"), labelled).unwrap();
    let run = |out: &str, more: &[&str]| {
        let half = [&["--valid-fraction", "0.5", "--epochs", "1"], more].concat();
        stderr(&case.train_on("few.jsonl", out, &half).assert().success())
    };
    let said = run("mined", &[]);
    assert!(said.contains("negatives are mined too (--negatives none"), "{said}");
    let data = &case.json("mined", "manifest.json")["data"];
    assert_eq!(data["mined_negatives"], "hard");
    // As many as there are related pairs, and told wherever figures on them are.
    let valid = &data["valid"];
    assert_eq!((&valid["pairs"], &valid["mined"]), (&json!(48), &valid["related"]));
    let mined = format!(" and {} negatives mined for them", valid["related"]);
    let of = |line: &str| said.lines().any(|said| said.contains(line) && said.contains(&mined));
    assert!(of("validating on 48 pairs") && of("on the validation pairs"), "{said}");

    // A step too small to learn anything.
    let said = run("labelled", &["--negatives", "none", "--learning-rate", "1e-30"]);
    assert!(!said.contains("mined for them"), "{said}");
    assert_eq!(case.json("labelled", "manifest.json")["data"]["valid"]["mined"], 0);
    let best = &case.json("labelled", "manifest.json")["best"]["validation"];
    assert_eq!(best["calls_all_related"], true, "{best}");
    assert!(said.contains("the model calls every validation pair related"), "{said}");
}

#[test]
fn documents_of_the_validation_file_are_left_out_of_training() {
    let case = Case::new();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    let held_out: Vec<&str> = lines.lines().take(16).collect();
    fs::write(case.path("held-out.jsonl"), held_out.join("\n")).unwrap();
    let assert = case
        .train("out", &["--valid", "held-out.jsonl", "--epochs", "1"])
        .assert()
        .success();
    assert!(
        stderr(&assert).contains("16 pairs are left out of training"),
        "{}",
        stderr(&assert)
    );
    let data = &case.json("out", "manifest.json")["data"];
    assert_eq!(
        (&data["train"]["pairs"], &data["valid"]["pairs"]),
        (&json!(80), &json!(16))
    );
}
