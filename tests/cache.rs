//! `crag score --cache`, and that no way of cutting up the work changes a bit: on the built-in demo model.
//!
//! `CRAG_KILLS` sets how often the run that writes a cache is killed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::random::Random;
use crate::common::{crag, process};

/// Lines of many lengths, about a third of their texts repeated.
fn pairs(count: usize, random: &mut Random) -> Vec<String> {
    const WORDS: [&str; 8] = ["patient", "developed", "severe", "after", "10", "mg", "daily", "of"];
    let mut texts: Vec<String> = Vec::new();
    let line = |id: usize| {
        let again = !texts.is_empty() && random.below(3) == 0;
        let text = if again {
            texts[random.below(texts.len())].clone()
        } else {
            let mut words: Vec<&str> = (0..random.below(40)).map(|_| WORDS[random.below(8)]).collect();
            words.extend(["aspirin", "bleeding"]);
            random.shuffle(&mut words);
            words.join(" ")
        };
        texts.push(text.clone());
        format!(r#"{{"id": {id}, "text": "{text}", "drug": "aspirin", "adr": "bleeding"}}"#)
    };
    (0..count).map(line).collect()
}

/// The binary's answers to `lines` by their id, which is their place in the first order, and its stderr.
fn score(lines: &[String], arguments: &[String]) -> (HashMap<u64, String>, String) {
    let output = crag()
        .args(["score", "--model", "demo"])
        .args(arguments)
        .write_stdin(lines.join("\n"))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let id = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["id"]
            .as_u64()
            .unwrap()
    };
    let answers = stdout.lines().map(|line| (id(line), line.to_owned())).collect();
    (answers, stderr)
}

fn argument(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn no_cut_order_reuse_or_cache_changes_a_bit() {
    let mut random = Random(0x0dd0_7e57);
    let mut lines = pairs(250, &mut random);
    let (expected, _) = score(&lines, &[]);
    assert_eq!(expected.len(), lines.len());
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared.cache");
    for round in 0..24 {
        random.shuffle(&mut lines);
        let tokens = [1, 37, 200, 1024, 100_000][random.below(5)];
        let mut arguments = vec!["--batch-tokens".to_owned(), tokens.to_string()];
        arguments.extend(["--threads".to_owned(), (1 + random.below(5)).to_string()]);
        if random.below(2) == 0 {
            arguments.push("--no-reuse".to_owned());
        }
        match round % 3 {
            0 => {}
            1 => arguments.extend(["--cache".to_owned(), argument(&shared)]),
            _ => {
                let cold = folder.path().join(format!("{round}.cache"));
                arguments.extend(["--cache".to_owned(), argument(&cold)]);
            }
        }
        // A part of the lines, so that the shared cache holds some of what the next round asks for.
        let part = &lines[..1 + random.below(lines.len())];
        let (answers, _) = score(part, &arguments);
        assert_eq!(answers.len(), part.len(), "{arguments:?}");
        for (id, answer) in answers {
            assert_eq!(answer, expected[&id], "{arguments:?}");
        }
    }
    let (answers, _) = score(&lines, &["--cache".to_owned(), argument(&shared)]);
    assert!(answers == expected, "a warm cache");
}

#[test]
fn a_second_run_encodes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--cache".to_owned(), argument(&folder.path().join("pairs.cache"))];
    // No text twice: what a run has stored itself it may find again.
    let line = |i| {
        format!(r#"{{"id": {i}, "text": "Case {i}: aspirin, then bleeding.", "drug": "aspirin", "adr": "bleeding"}}"#)
    };
    let mut lines: Vec<String> = (0..100).map(line).collect();
    let (first, stderr) = score(&lines, &arguments);
    assert!(!stderr.contains("from the cache"), "{stderr}");
    lines.reverse();
    let (second, stderr) = score(&lines, &arguments);
    assert!(first == second);
    assert!(
        stderr.contains("; encodings: 0, reused: ") && stderr.contains(", from the cache: "),
        "{stderr}"
    );
    // Other settings, other representations.
    let (_, stderr) = score(
        &lines,
        &[&arguments[..], &["--dtype".to_owned(), "bf16".to_owned()]].concat(),
    );
    assert!(!stderr.contains("from the cache"), "{stderr}");
}

#[test]
fn a_cache_in_use_ends_the_second_run_with_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let cache = argument(&folder.path().join("pairs.cache"));
    let mut first = start(&["--quiet", "--cache", &cache], Stdio::piped(), Stdio::piped());
    let mut stdin = first.stdin.take().unwrap();
    writeln!(stdin, "{}", pairs(1, &mut Random(1))[0]).unwrap();
    let mut answer = String::new();
    BufReader::new(first.stdout.take().unwrap())
        .read_line(&mut answer)
        .unwrap();
    assert!(answer.contains("probability"), "{answer}");

    let output = crag()
        .args(["score", "--model", "demo", "--cache", &cache])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    assert_eq!(
        stderr.matches("the cache is in use by another run").count(),
        1,
        "{stderr}"
    );
    drop(stdin);
    assert!(first.wait().unwrap().success());
}

#[test]
fn a_file_that_is_no_cache_ends_the_run_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    std::fs::write(&path, "{}\n").unwrap();
    let output = crag()
        .args(["score", "--model", "demo", "--cache", &argument(&path)])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("pairs.jsonl: expected a cache of crag"), "{stderr}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n");
}

fn start(arguments: &[&str], stdin: Stdio, stdout: Stdio) -> std::process::Child {
    process(&crag())
        .args(["score", "--model", "demo"])
        .args(arguments)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_run_killed_at_any_moment_leaves_a_cache_that_works() {
    let kills = match std::env::var("CRAG_KILLS") {
        Ok(kills) => kills.parse().unwrap(),
        Err(_) => 30,
    };
    let mut random = Random(0x5eed_0001);
    let lines = pairs(1500, &mut random);
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("pairs.jsonl");
    std::fs::write(&input, lines.join("\n")).unwrap();
    let started = Instant::now();
    let (expected, _) = score(&lines, &["--no-reuse".to_owned()]);
    let whole = started.elapsed() + Duration::from_millis(100);

    let mut found = 0;
    for round in 0..kills {
        // Five kills to a file: those that follow come upon what the earlier left.
        let cache = argument(&folder.path().join(format!("{}.cache", round / 5)));
        let input = argument(&input);
        let mut child = start(&["--no-reuse", "--cache", &cache, &input], Stdio::null(), Stdio::null());
        std::thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
        child.kill().unwrap();
        child.wait().unwrap();
        if round % 5 == 4 || round + 1 == kills {
            let (answers, stderr) = score(&lines, &["--cache".to_owned(), cache.clone()]);
            assert!(answers == expected, "after kill {round}");
            assert!(!stderr.contains(".cache"), "{stderr}");
            found += usize::from(stderr.contains("from the cache"));
        }
    }
    assert!(found > 0 || kills < 10, "no killed run left anything behind");
}
