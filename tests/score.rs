//! `crag score` as a user runs it, on the built-in demo model.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::common::run::Run;
use crate::common::{crag, demo_threshold};

fn score(arguments: &[&str], stdin: impl Into<Vec<u8>>) -> Run {
    let output = crag()
        .args(["score", "--model", "demo"])
        .args(arguments)
        .write_stdin(stdin)
        .output()
        .unwrap();
    Run::of(output)
}

/// The binary with pipes to all three streams.
fn start(arguments: &[&str]) -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let program = crag();
    let mut command = std::process::Command::new(program.get_program());
    command
        .args(["score", "--model", "demo"])
        .args(arguments)
        .env_remove("CRAG_MODEL")
        .env_remove("CRAG_KERNEL");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    (child, stdin, BufReader::new(stdout))
}

fn pair(i: usize) -> String {
    format!(r#"{{"id": {i}, "text":"Patient {i} took aspirin and had bleeding.","drug":"aspirin","adr":"bleeding"}}"#)
}

fn pairs(range: std::ops::Range<usize>) -> String {
    range.map(|i| pair(i) + "\n").collect()
}

fn folder_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let paths = files.iter().map(|(name, content)| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    });
    let paths = paths.collect();
    (folder, paths)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_pair_gets_its_probability_and_the_record_stays_as_it_was() {
    let run = score(&[], pairs(0..40));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let output = String::from_utf8(run.stdout.clone()).unwrap();
    assert_eq!(output.lines().count(), 40);
    for (i, (line, value)) in output.lines().zip(run.values()).enumerate() {
        let source = pair(i);
        assert!(
            line.starts_with(&format!("{},\"probability\":", &source[..source.len() - 1])),
            "{line}"
        );
        let probability = value["probability"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&probability));
        assert_eq!(value["causal"], json!(probability as f32 >= demo_threshold()));
    }
    assert!(run.stderr.contains("not for decisions"), "{}", run.stderr);
    assert!(run.stderr.contains("crag: scored 40 of 40 lines in"), "{}", run.stderr);
}

#[test]
fn how_the_work_is_cut_changes_no_byte() {
    let lines = pairs(0..60) + &pairs(10..30);
    let plain = score(&[], lines.clone());
    for arguments in [
        ["--threads", "1", "--no-reuse"].as_slice(),
        &["--threads", "5"],
        &["--batch-tokens", "1"],
        &["--batch-tokens", "70", "--threads", "3"],
        &["--batch-tokens", "100000", "--no-reuse"],
    ] {
        assert!(score(arguments, lines.clone()).stdout == plain.stdout, "{arguments:?}");
    }
    let alone: Vec<u8> = lines.lines().take(5).flat_map(|line| score(&[], line).stdout).collect();
    assert!(plain.stdout.starts_with(&alone));
}

#[test]
fn files_and_stdin_are_scored_one_after_another() {
    let (_folder, paths) = folder_with(&[
        ("a.jsonl", &pairs(0..2)),
        ("b.jsonl", &("\u{feff}".to_owned() + &pair(4))),
    ]);
    let run = score(&[text(&paths[0]), "-", text(&paths[1])], pairs(2..4));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let ids: Vec<Value> = run.values().iter().map(|value| value["id"].clone()).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4]);
}

#[test]
fn lines_that_cannot_be_scored_give_error_records_and_code_3() {
    let run = score(&[], format!("{}\n[]\n{{\"id\":7}}\n\n{}\n", pair(0), pair(1)));
    assert_eq!(run.code, 3);
    let values = run.values();
    assert_eq!(values.len(), 4);
    assert_eq!(
        (&values[1]["line"], &values[1]["error"]["code"]),
        (&json!(2), &json!("not_an_object"))
    );
    assert_eq!(
        (&values[2]["id"], &values[2]["error"]["code"]),
        (&json!(7), &json!("missing_field"))
    );
    assert!(values[0]["probability"].is_number() && values[3]["probability"].is_number());
    let summary = "scored 2 of 4 lines";
    let errors = "errors: not_an_object 1, missing_field 1; blank lines: 1";
    assert!(
        run.stderr.contains(summary) && run.stderr.contains(errors),
        "{}",
        run.stderr
    );
}

#[test]
fn on_error_fail_stops_at_the_first_with_its_place() {
    let run = score(&["--on-error", "fail"], format!("{}\n[]\n{}\n", pair(0), pair(1)));
    assert_eq!((run.code, run.values().len()), (1, 1));
    assert!(
        run.stderr
            .contains("<stdin>:2: not_an_object: expected an object, found an array"),
        "{}",
        run.stderr
    );
}

#[test]
fn quiet_leaves_the_summary_out() {
    assert!(!score(&["-q"], pairs(0..1)).stderr.contains("scored"));
}

#[test]
fn an_output_key_nests_the_answer() {
    let run = score(&["--output-key", "crag"], pair(0).replace("\"id\"", "\"probability\""));
    let value = &run.values()[0];
    assert_eq!((run.code, &value["probability"]), (0, &json!(0)));
    assert!(value["crag"]["probability"].is_number());
}

#[test]
fn what_reaches_the_threshold_exactly_is_causal() {
    let probability = score(&[], pair(0)).values()[0]["probability"].to_string();
    let at = |threshold: &str| score(&["--threshold", threshold], pair(0)).values()[0]["causal"].clone();
    assert_eq!(at(&probability), json!(true));
    let above = f32::from_bits(probability.parse::<f32>().unwrap().to_bits() + 1);
    assert_eq!(at(&above.to_string()), json!(false));
}

#[test]
fn the_threshold_decides_what_is_causal() {
    for (threshold, causal) in [("0", true), ("1", false)] {
        assert_eq!(
            score(&["--threshold", threshold], pair(0)).values()[0]["causal"],
            json!(causal)
        );
    }
}

#[test]
fn an_entity_that_does_not_occur_is_an_error_or_a_warning() {
    let line = pair(0).replace("\"aspirin\"", "\"Aspirin\"");
    let run = score(&[], line.clone());
    assert_eq!(
        (run.code, &run.values()[0]["error"]["code"]),
        (3, &json!("entity_not_found"))
    );
    let message = run.values()[0]["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("\"Aspirin\"") && message.contains("case counts"),
        "{message}"
    );
    let run = score(&["--missing-entity", "unmarked"], line);
    assert_eq!(
        (run.code, &run.values()[0]["warnings"]),
        (0, &json!(["drug_not_found"]))
    );
}

#[test]
fn a_mention_beyond_the_window_is_a_warning_unless_the_window_moves() {
    let line = format!(
        r#"{{"text":"{} aspirin, bleeding","drug":"aspirin","adr":"bleeding"}}"#,
        "and ".repeat(300)
    );
    let start = score(&[], line.clone());
    assert_eq!(
        (start.code, &start.values()[0]["warnings"]),
        (0, &json!(["drug_truncated", "adr_truncated"]))
    );
    let mention = score(&["--window", "mention"], line);
    assert_eq!(mention.values()[0].get("warnings"), None);
    assert_ne!(start.values()[0]["probability"], mention.values()[0]["probability"]);
}

#[test]
fn a_span_marks_one_occurrence_and_has_to_hold_the_entity() {
    let line = |span: &str| {
        format!(r#"{{"text":"é aspirin, aspirin: bleeding","drug":"aspirin","adr":"bleeding","drug_span":{span}}}"#)
    };
    let run = score(
        &[],
        [
            line("[2,9]"),
            line("[11,18]"),
            line("[3,10]"),
            line("[11,99]"),
            line("null"),
        ]
        .join("\n"),
    );
    let values = run.values();
    let probabilities: Vec<&Value> = [0, 1, 4].iter().map(|&i| &values[i]["probability"]).collect();
    assert!(probabilities.iter().all(|p| p.is_number()), "{values:?}");
    assert!(probabilities[0] != probabilities[1] && probabilities[1] != probabilities[2]);
    assert_eq!(
        (&values[2]["error"]["code"], &values[3]["error"]["code"]),
        (&json!("span_mismatch"), &json!("span_mismatch"))
    );
}

#[test]
fn one_pair_by_flags_gives_the_record_that_its_line_gives() {
    let flags = [
        "--text",
        "Aspirin caused bleeding.",
        "--drug",
        "Aspirin",
        "--adr",
        "bleeding",
    ];
    let run = score(&flags, "");
    assert_eq!(run.code, 0, "{}", run.stderr);
    let line = r#"{"drug":"Aspirin","adr":"bleeding","text":"Aspirin caused bleeding."}"#;
    assert!(run.stdout == score(&[], line).stdout);
    assert!(score(&[flags.as_slice(), &["--json"]].concat(), "").stdout == run.stdout);
    let sides = [
        "--drug-text",
        "- Aspirin",
        "--adr-text",
        "bleeding",
        "--drug",
        "Aspirin",
        "--adr",
        "bleeding",
    ];
    let run = score(&[sides.as_slice(), &["--drug-span", "2:9"]].concat(), "");
    assert_eq!(
        (run.code, &run.values()[0]["drug_span"]),
        (0, &json!([2, 9])),
        "{}",
        run.stderr
    );
}

#[test]
fn one_pair_that_cannot_be_scored_gives_code_3() {
    let run = score(
        &["--text", "Nothing here.", "--drug", "Aspirin", "--adr", "bleeding"],
        "",
    );
    assert_eq!(
        (run.code, &run.values()[0]["error"]["code"]),
        (3, &json!("entity_not_found"))
    );
}

#[test]
fn wrong_usage_gives_code_2_and_no_output() {
    for (arguments, reason) in [
        (["--drug", "a"].as_slice(), "--adr"),
        (&["--drug", "a", "--adr", "b"], "--text"),
        (&["--drug", "a", "--adr", "b", "--drug-text", "a"], "--adr-text"),
        (&["--text", "a"], "--drug"),
        (
            &["--text", "a b", "--drug", "a", "--adr", "b", "x.jsonl"],
            "cannot be used with",
        ),
        (
            &["--text", "a b", "--drug-text", "a", "--drug", "a", "--adr", "b"],
            "cannot be used with",
        ),
        (&["--drug-span", "3"], "START:END"),
        (&["--threshold", "55"], "from 0 to 1"),
        (&["--threshold", "NaN"], "from 0 to 1"),
        (&["--output-key", "text"], "records use themselves"),
        (&["--output-key", ""], "--output-key"),
        (&["--max-line-bytes", "16MB"], "KiB"),
        (&["--threads", "0"], "from 1 to 1024"),
        (&["--on-error", "ignore"], "record, fail"),
        (&["--nonsense"], "--nonsense"),
    ] {
        let run = score(arguments, pairs(0..1));
        assert_eq!((run.code, run.stdout.len()), (2, 0), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(reason), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn a_missing_file_or_a_folder_is_said_before_a_model_is_opened() {
    let (folder, paths) = folder_with(&[("a.jsonl", &pairs(0..1))]);
    for (path, reason) in [
        (folder.path().join("none.jsonl"), "none.jsonl: "),
        (folder.path().to_owned(), "found a folder"),
    ] {
        let run = score(&[text(&paths[0]), text(&path)], "");
        assert_eq!((run.code, run.stdout.len()), (1, 0));
        assert!(
            run.stderr.contains(reason) && !run.stderr.contains("not for decisions"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn no_lines_give_no_records() {
    for stdin in ["", "\n\r\n \n", "\u{feff}"] {
        let run = score(&[], stdin);
        assert_eq!((run.code, run.stdout.len()), (0, 0), "{}", run.stderr);
    }
}

#[test]
fn utf16_is_one_clear_error() {
    let run = score(&[], b"\xff\xfe{\0}\0\n\0".as_slice());
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("<stdin>: expected UTF-8, found UTF-16"),
        "{}",
        run.stderr
    );
}

#[test]
fn odd_lines_have_their_documented_outcome() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let with = |extra: &str| pair(0).replace("\"id\": 0", extra);
    for (line, code) in [
        (with(&format!("\"deep\":{deep}")), ""),
        (with("\"n\":1e400"), ""),
        (with("\"n\":18446744073709551617"), ""),
        (with("\"s\":\"\\ud800\""), ""),
        (with("\"s\":\"\\u0000\""), ""),
        (with("\"k\":1,\"k\":2"), ""),
        (pair(0) + "\r", ""),
        (pair(0).replace("Patient", "Patient\\u0000"), ""),
        (pair(0).replace("Patient", "Patient\0"), "invalid_json"),
        (pair(0).replace("Patient", "\\ud800"), "lone_surrogate"),
        (with("\"drug\":\"x\""), "duplicate_key"),
        (with("\"n\":NaN"), "invalid_json"),
        (with("\"causal\":null"), "key_conflict"),
        (deep.clone(), "not_an_object"),
        ("[".repeat(100_000), "invalid_json"),
    ] {
        let shown: String = line.chars().take(100).collect();
        let run = score(&[], line.clone());
        let output = String::from_utf8(run.stdout).unwrap();
        assert_eq!(output.lines().count(), 1, "{shown}");
        if code.is_empty() {
            assert_eq!(run.code, 0, "{shown}: {}", run.stderr);
            assert!(
                output.starts_with(line.trim_end().strip_suffix('}').unwrap()),
                "{shown}"
            );
        } else {
            assert_eq!(run.code, 3, "{shown}");
            assert!(
                output.contains(&format!("\"error\":{{\"code\":\"{code}\"")),
                "{shown}: {output}"
            );
        }
    }
}

#[test]
fn a_slow_producer_gets_each_answer_before_it_sends_more() {
    let (mut child, mut stdin, mut stdout) = start(&[]);
    for i in 0..5 {
        writeln!(stdin, "{}", pair(i)).unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["id"], json!(i));
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_closed_pipe_ends_the_run_quietly() {
    for _ in 0..5 {
        // Where scoring is slow (an emulated GPU), a minute goes by and progress would be told.
        let (mut child, mut stdin, mut stdout) = start(&["--progress", "none"]);
        // Written from a thread: the binary stops reading at some point, and nobody reads its answers.
        let writer = std::thread::spawn(move || while stdin.write_all(pairs(0..1000).as_bytes()).is_ok() {});
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        drop(stdout);
        assert_eq!(child.wait().unwrap().code(), Some(141));
        writer.join().unwrap();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(
            stderr
                .lines()
                .filter(|line| !line.contains("not for decisions"))
                .count(),
            0,
            "{stderr}"
        );
    }
}

#[test]
fn a_full_disk_is_a_clear_error() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        eprintln!("skipped: no /dev/full here");
        return;
    };
    let program = crag();
    let (_folder, paths) = folder_with(&[("a.jsonl", &pairs(0..100))]);
    let mut command = std::process::Command::new(program.get_program());
    command
        .args(["score", "--model", "demo", text(&paths[0])])
        .stdout(full)
        .stderr(Stdio::piped());
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains("cannot write the records: ") && !stderr.contains("panicked"),
        "{stderr}"
    );
}

#[test]
fn a_closed_stdout_is_a_clear_error_unless_nothing_goes_there() {
    let (folder, paths) = folder_with(&[("a.jsonl", &pairs(0..10))]);
    let run = |arguments: &str| {
        let mut command = std::process::Command::new("sh");
        let script = format!("exec \"$0\" {arguments} >&-");
        command.args(["-c", &script]).arg(crag().get_program());
        command.env("INPUT", &paths[0]).current_dir(&folder);
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for arguments in [
        "score -q --model demo \"$INPUT\"",
        "merge \"$INPUT\"",
        "inspect -q --model demo",
    ] {
        let (code, stderr) = run(arguments);
        assert_eq!(code, Some(1), "{arguments}: {stderr}");
        assert!(stderr.contains("it is closed"), "{arguments}: {stderr}");
    }
    let (code, stderr) = run("score -q --model demo -o scored.jsonl \"$INPUT\"");
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn a_stdin_that_cannot_be_read_is_no_empty_input() {
    let (folder, _) = folder_with(&[]);
    std::fs::write(folder.path().join("earlier.jsonl"), "answers\n").unwrap();
    for (arguments, redirection) in [
        ("score -q --model demo -o earlier.jsonl --force", "<&-"),
        ("score -q --model demo", "0>written"),
        ("check", "<&-"),
        ("extract --from pubtator", "<&-"),
    ] {
        let mut command = std::process::Command::new("sh");
        let script = format!("exec \"$0\" {arguments} {redirection}");
        command
            .args(["-c", &script])
            .arg(crag().get_program())
            .current_dir(&folder);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {stderr}");
        assert!(
            stderr.contains("<stdin>") && stderr.contains("it is closed"),
            "{arguments}: {stderr}"
        );
    }
    assert_eq!(
        std::fs::read(folder.path().join("earlier.jsonl")).unwrap(),
        b"answers\n"
    );
}

/// Peak resident memory of a process in bytes, where the system says.
fn peak_memory(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .split_whitespace()
        .next()?;
    Some(kib.parse::<u64>().ok()? * 1024)
}

#[test]
fn a_line_of_64_mib_needs_no_memory() {
    let (mut child, mut stdin, mut stdout) = start(&["--max-line-bytes", "1MiB"]);
    let mut answer = || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    writeln!(stdin, "{}", pair(0)).unwrap();
    assert_eq!(answer()["id"], json!(0));
    let before = peak_memory(&child);
    let block = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        stdin.write_all(&block).unwrap();
    }
    writeln!(stdin, "\n{}", pair(1)).unwrap();
    let error = answer();
    assert_eq!(
        (&error["line"], &error["error"]["code"]),
        (&json!(2), &json!("line_too_long"))
    );
    assert_eq!(answer()["id"], json!(1));
    match (before, peak_memory(&child)) {
        (Some(before), Some(after)) => assert!(after - before < 8 << 20, "{before} -> {after}"),
        _ => eprintln!("skipped: no /proc/<pid>/status here"),
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_line_of_many_mib_within_the_limit_is_scored() {
    let line = pair(0).replace("\"id\": 0", &format!("\"blob\":\"{}\"", "x".repeat(20 << 20)));
    let run = score(&["--max-line-bytes", "64MiB"], line.clone());
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with(&line.as_bytes()[..line.len() - 1]));
    assert_eq!(score(&[], line).values()[0]["error"]["code"], json!("line_too_long"));
}
