//! `crag check`: the same verdicts as `crag score`, without a model.

use serde_json::{Value, json};

use crate::common::{crag, json_lines};

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str], stdin: &[u8]) -> Run {
    let output = crag().args(arguments).write_stdin(stdin.to_vec()).output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A line for each thing that can be wrong before a tokenizer sees it, and some that are right.
fn lines() -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = [
        r#"{"text":"aspirin bleeding","drug":"aspirin","adr":"bleeding"}"#,
        "",
        "[]",
        "{\"text\":",
        r#"{"text":"aspirin","drug":"aspirin"}"#,
        r#"{"text":"aspirin","drug":"aspirin","adr":"bleeding"}"#,
        r#"{"text":"aspirin bleeding","drug":"aspirin","adr":"bleeding","drug_span":[1,4]}"#,
        r#"{"text":"aspirin bleeding","drug":"aspirin","adr":"bleeding","probability":1}"#,
        r#"{"text":" ","drug":"aspirin","adr":"bleeding"}"#,
        r#"{"text":"aspirin","drug":"","adr":"bleeding"}"#,
        r#"{"text":7,"drug":"a","adr":"b"}"#,
        r#"{"text":"a b","drug":"a","drug":"a","adr":"b"}"#,
        r#"{"text":"a b","drug":"a","drug_entity":"b","adr":"b"}"#,
        r#"{"text":"a b","drug":"\ud800","adr":"b"}"#,
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec();
    lines.push(b"{\"text\":\"\xff\"}".to_vec());
    lines.push(format!(r#"{{"text":"{}"}}"#, "x".repeat(2000)).into_bytes());
    lines.join(&b'\n')
}

#[test]
fn check_and_score_say_the_same_of_every_line() {
    let limit = ["--max-line-bytes", "1000"];
    let scored = run(&[&["score", "--model", "demo"], &limit[..]].concat(), &lines());
    let checked = run(&[&["check", "--json"], &limit[..]].concat(), &lines());
    assert_eq!((scored.code, checked.code), (3, 3), "{}", checked.stderr);
    // Half a surrogate pair passes through, and is beyond serde_json's values.
    let answers = json_lines(scored.stdout.replace("\\ud800", "").as_bytes());
    let expected: Vec<&Value> = answers
        .iter()
        .map(|answer| &answer["error"])
        .filter(|e| e.is_object())
        .collect();
    let problems = json_lines(checked.stdout.as_bytes());
    let found: Vec<Value> = problems
        .iter()
        .map(|problem| json!({"code": problem["code"], "message": problem["message"]}))
        .collect();
    assert_eq!(expected, found.iter().collect::<Vec<_>>());
    assert_eq!(found.len(), 14);
    assert!(problems.iter().all(|problem| problem["file"] == "<stdin>"));
    // A blank line has a number, too.
    let numbers: Vec<u64> = problems
        .iter()
        .map(|problem| problem["line"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (3..=16).collect::<Vec<_>>());
    assert!(checked.stderr.contains("checked 15 lines in "), "{}", checked.stderr);
    assert!(checked.stderr.contains("problems with 14: ") && checked.stderr.contains("; blank lines: 1"));
}

#[test]
fn problems_name_their_file_and_line_and_good_files_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.jsonl"), folder.path().join("bad.jsonl"));
    let pair = r#"{"text":"a b","drug":"a","adr":"b"}"#;
    std::fs::write(&good, format!("{pair}\n{pair}\n")).unwrap();
    std::fs::write(&bad, format!("{pair}\n{{}}\n")).unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let run_good = run(&["check", good], b"");
    assert_eq!((run_good.code, run_good.stdout.as_str()), (0, ""));
    assert!(run_good.stderr.contains("checked 2 lines") && run_good.stderr.contains("nothing found"));
    let both = run(&["check", "-q", good, bad], b"");
    assert_eq!((both.code, both.stderr.as_str()), (3, ""));
    assert!(
        both.stdout.starts_with(&format!("{bad}:2: missing_field: field ")) && both.stdout.lines().count() == 1,
        "{}",
        both.stdout
    );
    let none = run(&["check", "nowhere.jsonl"], b"");
    assert_eq!(none.code, 1);
    assert!(none.stderr.contains("nowhere.jsonl: "), "{}", none.stderr);
}

#[test]
fn a_missing_entity_can_be_allowed_as_in_scoring() {
    let line = br#"{"text":"a b","drug":"a","adr":"c"}"#;
    assert_eq!(run(&["check"], line).code, 3);
    let allowed = run(&["check", "--missing-entity", "unmarked"], line);
    assert_eq!((allowed.code, allowed.stdout.as_str()), (0, ""));
    assert!(allowed.stderr.contains("; with warnings: 1"), "{}", allowed.stderr);
}

#[test]
fn a_name_that_is_not_there_and_a_span_that_does_not_hold_it_are_told_with_their_field() {
    let pointers = ["--field", "drug=/e/0/n", "--field", "drug_span=/e/0/s"];
    let columns = ["--format", "csv", "--field", "drug=D", "--field", "drug_span=S"];
    for (arguments, input, expected) in [
        (
            &[][..],
            r#"{"text":"a rash","drug":"Aspirin","adr":"rash"}"#,
            r#"entity_not_found: field "drug": expected a name that occurs in the drug side's text, found "Aspirin""#,
        ),
        (
            &[],
            r#"{"text":"a rash","drug_entity":"Aspirin","adr":"rash"}"#,
            r#"entity_not_found: field "drug_entity": expected"#,
        ),
        (
            &[],
            r#"{"text":"aspirin","drug":"aspirin","adr_entity":"rash","adr":"rash"}"#,
            r#"entity_not_found: field "adr": expected"#,
        ),
        (
            &pointers,
            r#"{"text":"a rash","e":[{"n":"Aspirin"}],"adr":"rash"}"#,
            r#"entity_not_found: field "drug" (/e/0/n): expected"#,
        ),
        (
            &pointers,
            r#"{"text":"An aspirin rash","e":[{"n":"aspirin","s":[1,8]}],"adr":"rash"}"#,
            r#"span_mismatch: field "drug_span" (/e/0/s): expected "aspirin" at [1, 8), found "n aspir"; it stands at [3, 10)"#,
        ),
        (
            &columns,
            "text,D,adr,S\na rash,Aspirin,rash,\n",
            r#"entity_not_found: field "drug" (column "D"): expected"#,
        ),
        (
            &columns,
            "text,D,adr,S\nAn aspirin rash,aspirin,rash,3:99\n",
            "span_mismatch: field \"drug_span\" (column \"S\"): expected a span within the text, which has only 15 Unicode \
             code points, found [3, 99); it stands at [3, 10)",
        ),
        (
            &columns,
            "text,drug_entity,D,adr,S\na rash,Aspirin,,rash,\n",
            r#"entity_not_found: field "drug_entity": expected"#,
        ),
        (
            &["--format", "csv"],
            "text,drug,drug_entity,adr\n\"a rash\",,\" \",rash\n",
            r#"empty_entity: field "drug_entity": expected a name, found whitespace alone"#,
        ),
    ] {
        let run = run(&[&["check"], arguments].concat(), input.as_bytes());
        assert!(run.stdout.contains(expected), "{input}: {}{}", run.stdout, run.stderr);
    }
}

#[test]
fn a_byte_order_mark_inside_and_a_quote_that_takes_several_rows_are_named() {
    let pair = r#"{"text":"a b","drug":"a","adr":"b"}"#;
    let marked = run(&["check"], format!("\u{feff}{pair}\n\u{feff}{pair}\n").as_bytes());
    assert!(
        marked
            .stdout
            .starts_with("<stdin>:2: invalid_json: expected an object, found a byte order mark"),
        "{}",
        marked.stdout
    );
    assert_eq!(marked.stdout.lines().count(), 1);
    let header = "text,drug,adr\n";
    for (rows, expected) in [
        (
            "a b,a,b\n\"a b,a,b\na b,a,b\na b,a,b\n",
            "<stdin>:3: invalid_row: field 1: expected a closing quote, found the end of the input; the row takes 3 lines: is \
             a quote missing or too many?",
        ),
        (
            "\"a b,a,b\n\"a b\",a,b\n",
            "<stdin>:2: invalid_row: field 1: expected a delimiter after the closing quote, found something else; put the \
             whole field in quotes and double the quotes in it; the row takes 2 lines: is a quote missing or too many?",
        ),
        ("a b,a\n", "<stdin>:2: invalid_row: expected 3 fields, found 2\n"),
    ] {
        let run = run(&["check", "--format", "csv"], format!("{header}{rows}").as_bytes());
        assert!(run.stdout.starts_with(expected), "{}", run.stdout);
    }
}

#[test]
fn no_cell_and_no_name_of_a_file_gets_at_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a\u{1b}[31m\nb.csv");
    std::fs::write(
        &path,
        "drug,adr,text,drug_span\naspirin,rash,aspirin rash,\"a\nb\u{1b}[31m\"\n",
    )
    .unwrap();
    let run = run(&["check", path.to_str().unwrap()], b"");
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    assert!(!run.stdout.contains('\u{1b}'), "{:?}", run.stdout);
    assert!(run.stdout.contains(r#"found "a\nb\u{1b}[31m""#), "{}", run.stdout);
}
