//! Which records `crag eval` judges, and what it says of the others and of arguments that do not do.

use std::fmt::Write as _;

use serde_json::json;

use super::{Folder, run, scored};
use crate::common::crag;

#[test]
fn labels_of_one_record_that_contradict_each_other_are_said() {
    let folder = Folder::new();
    let lines = scored(60, 0.0);
    // The third, sixth, … with its other label.
    let other = |line: &str| match line.contains("\"label\":1") {
        true => line.replace("\"label\":1", "\"label\":0"),
        false => line.replace("\"label\":0", "\"label\":1"),
    };
    let again = lines
        .lines()
        .enumerate()
        .map(|(i, line)| if i % 3 == 2 { other(line) } else { line.to_owned() } + "\n");
    let both = folder.write("both.jsonl", &(lines.clone() + &again.collect::<String>()));
    let said = [
        "60 records have the \"id\"",
        "labels differ (20 records have another than that one, the first at",
    ];
    for command in [&["eval"][..], &["calibrate", "--output", &folder.name("crag.json")]] {
        let judged = run(&[command, &["--scored", &both]].concat(), "");
        assert!(
            said.iter().all(|said| judged.stderr.contains(said)),
            "{}",
            judged.stderr
        );
        assert!(judged.stderr.contains("both.jsonl:63)"), "{}", judged.stderr);
    }
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
    assert!(!judged.stderr.contains("labels differ"), "{}", judged.stderr);
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
fn equal_names_in_different_fields_are_different_documents() {
    let named = |field: &str, label: u8| format!("{{\"{field}\":1,\"label\":{label},\"probability\":0.5}}\n");
    let lines = named("doc_id", 1) + &named("pmid", 0) + &named("doc_id", 0);
    let found = run(&["eval", "--scored", "--json"], lines).json();
    assert_eq!(found["runs"][0]["documents"], 2);
    assert_eq!(found["runs"][0]["document_fields"], json!(["doc_id", "pmid"]));
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
        // What a record came with is no answer beside an error; somebody's own error is none of crag's.
        "{\"label\":0,\"probability\":0.9,\"error\":{\"code\":\"key_conflict\",\"message\":\"m\"}}\n",
        "{\"label\":0,\"probability\":0.2,\"error\":0.1}\n",
        "{\"label\":1,\"probability\":0.9,\"error\":[\"timeout\",\"m\"]}\n",
        "{\"label\":1,\"probability\":0.9,\"error\":{\"code\":\"E1\",\"message\":\"m\"}}\n",
        "{\"label\":1,\"probability\":0.9,\"error\":{\"code\":\"timeout\"}}",
    );
    let run_of = run(&["eval", "--scored", "--json"], lines);
    assert_eq!(run_of.code, 3);
    let found = run_of.json();
    let left_out = &found["runs"][0]["left_out"];
    assert_eq!(
        (&found["runs"][0]["records"], &left_out["unlabelled"]),
        (&json!(5), &json!(1))
    );
    for (code, count, line) in [
        ("bad_label", 2, 2),
        ("invalid_json", 1, 4),
        ("bad_probability", 2, 5),
        ("missing_probability", 1, 7),
        ("empty_text", 2, 10),
        ("not_an_object", 1, 11),
        ("key_conflict", 1, 13),
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
fn records_that_could_not_be_scored_anew_are_not_judged_by_their_earlier_probability() {
    let old = "{\"label\":1,\"drug\":\"a\",\"adr\":\"b\",\"text\":\"a b\",\"probability\":0.99}\n\
               {\"label\":1,\"drug\":\"a\",\"adr\":\"b\",\"text\":\"a b\"}\n\
               {\"label\":0,\"drug\":\"a\",\"adr\":\"b\",\"text\":\"a b\"}\n";
    let scored = run(&["score", "--model", "demo", "-q"], old);
    assert_eq!(scored.code, 3, "{}", scored.stderr);
    let judged = run(&["eval", "--scored"], scored.stdout);
    let expected = "1 record is not usable: key_conflict";
    assert!(
        judged.code == 3 && judged.stderr.contains(expected),
        "{}",
        judged.stderr
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
fn how_to_score_is_refused_where_nothing_is_scored() {
    let folder = Folder::new();
    let out = folder.name("crag.json");
    let calibrate = ["calibrate", "--scored", "-o", &out];
    for command in [&["eval", "--scored"][..], &calibrate] {
        for flag in [["--dtype", "bf16"], ["--window", "mention"], ["--device", "cpu"]] {
            let refused = run(&[command, &flag].concat(), scored(60, 0.1));
            assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{flag:?}");
            assert!(
                refused.stderr.contains(flag[0]) && refused.stderr.contains("how to score"),
                "{}",
                refused.stderr
            );
        }
    }
    for flag in [["--model-config", "none.json"], ["--revision", "main"]] {
        let refused = run(&[&["eval", "--scored"][..], &flag].concat(), scored(60, 0.1));
        assert!(
            refused.code == 2 && refused.stderr.contains(flag[0]),
            "{}",
            refused.stderr
        );
    }
    // Defaults of a machine are no orders.
    let output = crag()
        .env("CRAG_DTYPE", "bf16")
        .args(["eval", "--scored", "--resamples", "0"])
        .write_stdin(scored(60, 0.1))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn documents_that_two_fields_name_are_told() {
    let lines = scored(60, 0.1).replacen("\"pmid\"", "\"doc_id\"", 20);
    let found = run(&["eval", "--scored"], lines);
    assert!(found.stderr.contains("documents are named by"), "{}", found.stderr);
}

#[test]
fn a_table_is_judged_as_the_same_records_in_jsonl_are() {
    let folder = Folder::new();
    let table = "id,doc_id,text,drug,adr,label\n1,d1,\"Aspirin, or\nit, caused rash.\",Aspirin,rash,1\n2,d1,Aspirin; a fever.,Aspirin,fever,0\n\
                 3,d2,Aspirin; a cough.,Aspirin,cough,\n4,d2,Metformin caused acidosis.,Metformin,acidosis,TRUE\n5,d3,No drug,Aspirin,rash,0\n";
    let lines = concat!(
        "{\"id\":\"1\",\"doc_id\":\"d1\",\"text\":\"Aspirin, or\\nit, caused rash.\",\"drug\":\"Aspirin\",\"adr\":\"rash\",\"label\":1}\n",
        "{\"id\":\"2\",\"doc_id\":\"d1\",\"text\":\"Aspirin; a fever.\",\"drug\":\"Aspirin\",\"adr\":\"fever\",\"label\":0}\n",
        "{\"id\":\"3\",\"doc_id\":\"d2\",\"text\":\"Aspirin; a cough.\",\"drug\":\"Aspirin\",\"adr\":\"cough\"}\n",
        "{\"id\":\"4\",\"doc_id\":\"d2\",\"text\":\"Metformin caused acidosis.\",\"drug\":\"Metformin\",\"adr\":\"acidosis\",\"label\":true}\n",
        "{\"id\":\"5\",\"doc_id\":\"d3\",\"text\":\"No drug\",\"drug\":\"Aspirin\",\"adr\":\"rash\",\"label\":0}\n",
    );
    let (table, lines) = (folder.write("pairs.csv", table), folder.write("pairs.jsonl", lines));
    let judged = |arguments: &[&str]| {
        let run_of = run(&[&["eval", "--json", "--mistakes", "0"], arguments].concat(), "");
        assert_eq!(run_of.code, 3, "{}", run_of.stderr);
        let mut run_of = run_of.json()["runs"][0].clone();
        run_of.as_object_mut().unwrap().remove("name");
        let first = run_of["left_out"]["rejected"]["entity_not_found"]["first"].take();
        // The file's name, and the line on which the row begins.
        (
            run_of,
            first.as_str().unwrap().split_once("pairs.").unwrap().1.to_owned(),
        )
    };
    let broken = folder.write(
        "broken.csv",
        &(std::fs::read_to_string(&table).unwrap() + "6,d3,\"a\"b,a,b,1\n"),
    );
    let run_of = run(&["eval", &broken, "--model", "demo"], "");
    let said = "1 record is not usable: invalid_row, the first at ";
    assert!(
        run_of.stderr.contains(said) && run_of.stderr.contains("broken.csv:8: "),
        "{}",
        run_of.stderr
    );
    let (expected, first) = judged(&[&lines, "--model", "demo"]);
    assert_eq!(expected["records"], 3);
    assert!(first.starts_with("jsonl:5: "), "{first}");
    let (of_table, first) = judged(&[&table, "--model", "demo"]);
    assert_eq!(of_table, expected);
    assert!(first.starts_with("csv:7: "), "{first}");
    for (name, more) in [("scored.csv", &[][..]), ("scored.tsv", &["--output-key", "crag"])] {
        let scored = folder.name(name);
        // In TSV a row is one line.
        let input = match name.ends_with("tsv") {
            false => table.clone(),
            true => {
                let rows = std::fs::read_to_string(&table)
                    .unwrap()
                    .replace("\"Aspirin, or\nit, caused rash.\"", "Aspirin, or it, caused rash.");
                folder.write(
                    "pairs.tsv",
                    &rows
                        .replace("or it, caused", "or it_ caused")
                        .replace("Aspirin, or", "Aspirin_ or")
                        .replace(',', "\t")
                        .replace('_', ","),
                )
            }
        };
        let run_of = run(
            &[&["score", "--model", "demo", "-q", "-o", &scored, &input], more].concat(),
            "",
        );
        assert_eq!(run_of.code, 3, "{}", run_of.stderr);
        // Of records that are scored the default threshold is another than the model's.
        let mut arguments = vec![scored.as_str(), "--scored", "--threshold", "0.7040864"];
        arguments.extend(more.iter().take(2));
        let judged = run(&[&["eval", "--json"], &arguments[..]].concat(), "");
        assert_eq!(judged.code, 3, "{}", judged.stderr);
        let of_scored = &judged.json()["runs"][0];
        assert_eq!(of_scored["left_out"]["rejected"]["entity_not_found"]["count"], 1);
        if name.ends_with("csv") {
            assert_eq!(of_scored["metrics"], expected["metrics"]);
        }
        let from_stdin = ["eval", "--json", "--scored", "--format", &name[name.len() - 3..]];
        let stdin = run(&[&from_stdin[..], more].concat(), std::fs::read(&scored).unwrap());
        assert_eq!(
            stdin.json()["runs"][0]["metrics"],
            of_scored["metrics"],
            "{}",
            stdin.stderr
        );
    }
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
