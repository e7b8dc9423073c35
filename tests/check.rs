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
