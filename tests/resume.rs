//! `crag score -o OUT --resume`: a run that is killed anywhere is gone on with to the same bytes, and never with
//! something else than it began with. On the built-in demo model, or the one that `CRAG_RESUME_MODEL` names.
//!
//! `CRAG_KILLS` sets how often a run is killed.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::place::{Place, is_absent_or, mixed_lines, pair, pairs, wait_for};
use crate::common::random::Random;
use crate::common::{demo_threshold, fixture};

/// A run that is stopped in the middle by `--on-error fail`, with a state after its first four lines.
fn stopped(arguments: &[&str]) -> Place {
    let place = Place::with_pairs(0);
    place.write("a.jsonl", pairs(0..3));
    place.write("b.jsonl", pairs(3..4) + "\n{}\n" + &pairs(4..8));
    let base = ["-o", "out.jsonl", "--on-error", "fail", "a.jsonl", "b.jsonl"];
    let run = place.score(&[&base, arguments].concat());
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert_eq!(place.outputs(), ["out.jsonl.partial", "out.jsonl.progress"]);
    place
}

const RESUME: [&str; 5] = ["-o", "out.jsonl", "--resume", "a.jsonl", "b.jsonl"];

fn refused(place: &Place, arguments: &[&str]) -> String {
    let before: Vec<_> = place.outputs().iter().map(|name| place.read(name)).collect();
    let message = place.refusal(arguments, 2);
    let after: Vec<_> = place.outputs().iter().map(|name| place.read(name)).collect();
    assert!(before == after, "something was written: {message}");
    assert!(message.contains("--force"), "no way out: {message}");
    message
}

#[test]
fn a_run_goes_on_where_it_stopped() {
    let place = stopped(&[]);
    let run = place.score(&RESUME);
    assert_eq!(run.code, 3, "{}", run.stderr);
    let expected = place.score(&["a.jsonl", "b.jsonl"]);
    assert!(place.read("out.jsonl") == expected.stdout);
    // Counts are those of the whole.
    let summary = |stderr: &str| {
        let line = stderr
            .lines()
            .find(|line| line.contains("crag: scored"))
            .unwrap()
            .to_owned();
        let (counts, rest) = line.split_once(" in ").unwrap();
        let errors = rest.split_once("; ").unwrap().1;
        format!(
            "{counts}; {}",
            errors
                .split("; encodings")
                .next()
                .unwrap()
                .trim_end_matches("; 4 of them by earlier runs")
        )
    };
    assert_eq!(summary(&run.stderr), summary(&expected.stderr));
}

#[test]
fn with_nothing_to_go_on_with_a_run_begins() {
    let place = Place::with_pairs(5);
    let run = place.score(&["-o", "out.jsonl", "--resume", "pairs.jsonl"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(place.read("out.jsonl") == place.score(&["pairs.jsonl"]).stdout);
}

#[test]
fn an_input_that_has_changed_is_named() {
    let place = stopped(&[]);
    let a = pairs(0..3);
    place.write("a.jsonl", a.replacen("Patient 1", "Patient 9", 1));
    let message = refused(&place, &RESUME);
    assert!(
        message.contains("input 1 (a.jsonl) differs in its first 3 lines"),
        "{message}"
    );
    place.write("a.jsonl", pairs(0..2));
    let message = refused(&place, &RESUME);
    assert!(
        message.contains("input 1 (a.jsonl) ended after 2 lines, of which the earlier run scored 3"),
        "{message}"
    );
    place.write("a.jsonl", pairs(0..4));
    let message = refused(&place, &RESUME);
    assert!(
        message.contains("input 1 (a.jsonl) has more lines than the 3"),
        "{message}"
    );
    place.write("a.jsonl", &a);
    let message = refused(&place, &RESUME[..4]);
    assert!(message.contains("expected the 2 inputs"), "{message}");
    // White space counts: it passes through. A line end does not.
    let b = String::from_utf8(place.read("b.jsonl")).unwrap();
    place.write("b.jsonl", b.replacen("\"drug\":", "\"drug\": ", 1));
    let message = refused(&place, &RESUME);
    assert!(
        message.contains("input 2 (b.jsonl) differs in its first 2 lines"),
        "{message}"
    );
    place.write("b.jsonl", b.trim_end());
    place.write("a.jsonl", a.trim_end());
    // The names do not matter, and what comes after where it stopped may change.
    fs::rename(place.path("a.jsonl"), place.path("c.jsonl")).unwrap();
    place.write("b.jsonl", b.replacen("{}", &pair(77), 1) + &pairs(8..9));
    let run = place.score(&["-o", "out.jsonl", "--resume", "c.jsonl", "b.jsonl"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(place.read("out.jsonl") == place.score(&["c.jsonl", "b.jsonl"]).stdout);
}

#[test]
fn another_name_is_refused_where_error_records_hold_the_old_one() {
    let place = Place::with_pairs(0);
    place.write("a.jsonl", "no object\n");
    place.write("b.jsonl", "\u{fffd}".repeat(20) + "\n" + &pairs(0..3));
    let mut killed = place.command(&["-q", "-o", "out.jsonl", "--save-every", "0", "a.jsonl", "-"]);
    let mut killed = killed.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    killed
        .stdin
        .as_mut()
        .unwrap()
        .write_all(&place.read("b.jsonl")[..61])
        .unwrap();
    wait_for(|| {
        fs::read(place.path("out.jsonl.partial")).is_ok_and(|bytes| bytes.iter().filter(|&&b| b == b'\n').count() == 2)
    });
    wait_for(|| {
        fs::read_to_string(place.path("out.jsonl.progress")).is_ok_and(|state| state.contains("invalid_json\":2"))
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    let message = refused(&place, &RESUME);
    assert!(message.contains("input 2 was <stdin> and is b.jsonl"), "{message}");
}

#[test]
fn settings_that_have_changed_are_named() {
    let place = stopped(&["--output-key", "crag"]);
    let resume = [&RESUME[..], &["--output-key", "crag"]].concat();
    let own = demo_threshold();
    let was_own = format!("--threshold was {own} and is ");
    for (arguments, expected) in [
        (&["--threshold", "0.6"][..], &*was_own),
        (
            &["--missing-entity", "unmarked"],
            "--missing-entity was error and is unmarked",
        ),
        (&["--window", "mention"], "--window was start and is mention"),
        (
            &["--max-line-bytes", "1MiB"],
            "--max-line-bytes was 16777216 and is 1048576",
        ),
        (&["--dtype", "bf16"], " (--dtype f32 takes the earlier one)"),
        (&["--threshold", "0.1", "--dtype", "bf16"], &format!("; {was_own}0.1")),
    ] {
        let message = refused(&place, &[&resume[..], arguments].concat());
        assert!(message.contains(expected), "{message}");
    }
    let message = refused(&place, &RESUME);
    assert!(message.contains("--output-key was crag and is not set"), "{message}");
    let message = refused(&place, &[&RESUME[..], &["--output-key", "other"]].concat());
    assert!(message.contains("--output-key was crag and is other"), "{message}");
    // Where a record's fields are.
    let message = refused(&place, &[&resume[..], &["--field", "text=/text"]].concat());
    assert!(message.contains("--field text was not set and is /text"), "{message}");
    place.write(
        "config.json",
        format!(r#"{{"threshold": {own}, "views": ["bilinear", "product"]}}"#),
    );
    let message = refused(&place, &[&resume[..], &["--model-config", "config.json"]].concat());
    assert!(
        message.contains("model was ") && message.contains("… and is "),
        "{message}"
    );
    // Threads and batches change no byte.
    let run = place.score(&[&resume[..], &["--threads", "1", "--batch-tokens", "7", "--no-reuse"]].concat());
    assert_eq!(run.code, 3, "{}", run.stderr);
}

#[test]
fn a_finished_output_is_not_taken_for_that_of_other_settings() {
    let place = Place::with_pairs(3);
    let made = ["-o", "out.jsonl", "--resume", "pairs.jsonl"];
    assert_eq!(place.score(&made).code, 0);
    let message = refused(&place, &[&made[..], &["--field", "text=/text"]].concat());
    assert!(message.contains("--field text was not set"), "{message}");
    assert_eq!(place.outputs(), ["out.jsonl"]);
}

#[test]
fn a_run_that_answered_errors_is_not_gone_on_with_as_one_that_ends_at_them() {
    let place = Place::with_pairs(0);
    let arguments = ["-q", "-o", "out.jsonl", "--save-every", "0"];
    let mut child = place
        .command(&arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = "{}\n".to_owned() + &pairs(0..2);
    child.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    wait_for(|| fs::read_to_string(place.path("out.jsonl.progress")).is_ok_and(|state| state.contains("\"lines\":3")));
    child.kill().unwrap();
    child.wait().unwrap();
    let resume = [&arguments[..], &["--resume"]].concat();
    let run = place.score_stdin(&[&resume[..], &["--on-error", "fail"]].concat(), &lines);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(
        run.stderr.contains("--on-error was record and is fail"),
        "{}",
        run.stderr
    );
    let run = place.score_stdin(&resume, &lines);
    assert_eq!(run.code, 3, "{}", run.stderr);
    // What a manifest says of the whole run, earlier part included.
    let manifest: serde_json::Value = serde_json::from_slice(&place.read("out.jsonl.manifest.json")).unwrap();
    assert_eq!(manifest["counts"]["bytes"], lines.len(), "{manifest}");
    assert_eq!(manifest["counts"]["records"], 3);
}

#[test]
fn a_tokenizer_with_other_settings_is_another_model() {
    let place = Place::with_pairs(0);
    fs::create_dir(place.path("model")).unwrap();
    for entry in fs::read_dir(fixture("model/mean")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), place.path("model").join(entry.file_name())).unwrap();
    }
    let settings = |lower_case: bool| {
        let text = serde_json::json!({"tokenizer_class": "BertTokenizer", "do_lower_case": lower_case});
        place.write("model/tokenizer_config.json", text.to_string());
    };
    let run = |arguments: &[&str]| {
        let all = [&["-q", "-o", "out.jsonl", "pairs.jsonl"], arguments].concat();
        let output = place.command_with("model", &all).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    settings(true);
    place.write("pairs.jsonl", pairs(0..3));
    assert_eq!(run(&[]).0, Some(0));
    assert_eq!(run(&["--resume"]).0, Some(0));
    settings(false);
    let (code, message) = run(&["--resume"]);
    assert_eq!(code, Some(2), "{message}");
    assert!(
        message.contains("model was ") && message.contains(" and is "),
        "{message}"
    );
}

#[test]
fn another_kernel_is_told_with_the_way_back() {
    let place = stopped(&[]);
    let run = place.command(&RESUME).env("CRAG_KERNEL", "portable").output().unwrap();
    let message = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{message}");
    assert!(
        message.contains(" and is portable") && message.contains("-f32 (CRAG_KERNEL="),
        "expected the way back, found {message}"
    );
}

#[test]
fn calibrated_answers_are_gone_on_with_as_such_alone() {
    let settings = |temperature: f64| {
        let calibration = serde_json::json!({"method": "temperature", "temperature": temperature});
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            serde_json::json!({"calibration": calibration, "views": ["bilinear", "product"]}).to_string(),
        )
        .unwrap();
        file
    };
    let (fitted, refitted) = (settings(2.0), settings(3.0));
    let config = |file: &tempfile::NamedTempFile| file.path().display().to_string();
    let own = ["--model-config", &config(&fitted), "--calibrated"];
    let place = stopped(&own);
    let message = refused(&place, &[&RESUME[..], &own[..2]].concat());
    assert!(
        message.contains("--calibrated was ") && message.contains(" and is not set"),
        "{message}"
    );
    let other = ["--model-config", &config(&refitted), "--calibrated"];
    let message = refused(&place, &[&RESUME[..], &other].concat());
    assert!(
        message.contains("--calibrated was ") && !message.contains("model was "),
        "{message}"
    );
    let run = place.score(&[&RESUME[..], &own].concat());
    assert_eq!(run.code, 3, "{}", run.stderr);
    let expected = place.score(&[&["a.jsonl", "b.jsonl"], &own[..]].concat());
    assert!(place.read("out.jsonl") == expected.stdout);
    assert!(String::from_utf8_lossy(&expected.stdout).contains("\"calibrated_probability\":"));
}

#[test]
fn a_state_or_partial_that_was_tampered_with_is_refused() {
    let place = stopped(&[]);
    let (partial, state) = (place.read("out.jsonl.partial"), place.read("out.jsonl.progress"));
    let text = String::from_utf8(state.clone()).unwrap();
    // As a run wrote it whose state had these members.
    let sealed = |text: &str| {
        let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
        value.as_object_mut().unwrap().remove("blake3");
        crag::files::seal(&serde_json::to_vec(&value).unwrap())
    };
    for (name, contents, expected) in [
        ("out.jsonl.partial", partial[1..].to_vec(), "bytes are not what"),
        (
            "out.jsonl.partial",
            [b"x", &partial[1..]].concat(),
            "bytes are not what",
        ),
        (
            "out.jsonl.progress",
            state[..state.len() / 2].to_vec(),
            "found something else",
        ),
        ("out.jsonl.progress", vec![], "found something else"),
        ("out.jsonl.progress", b"{}".to_vec(), "it names no format"),
        (
            "out.jsonl.progress",
            text.replace("\"format\":2", "\"format\":1").into_bytes(),
            "format 1, this is format 2",
        ),
        (
            "out.jsonl.progress",
            sealed(&text.replace(env!("CARGO_PKG_VERSION"), "0.0.9")),
            "the version of crag was 0.0.9 and is ",
        ),
        (
            "out.jsonl.progress",
            text.replace("\"bytes\":", "\"bytes\":1").into_bytes(),
            "it is not what its checksum says",
        ),
    ] {
        place.write("out.jsonl.partial", &partial);
        place.write("out.jsonl.progress", &state);
        place.write(name, contents);
        let message = refused(&place, &RESUME);
        assert!(message.contains(expected), "{message}");
    }
    place.write("out.jsonl.partial", &partial);
    fs::remove_file(place.path("out.jsonl.progress")).unwrap();
    let message = refused(&place, &RESUME);
    assert!(message.contains("there is no"), "{message}");
    // A torn tail is what a kill leaves.
    place.write("out.jsonl.progress", &state);
    place.write("out.jsonl.partial", [&partial[..], b"{\"torn"].concat());
    assert_eq!(place.score(&RESUME).code, 3);
    assert!(place.read("out.jsonl") == place.score(&["a.jsonl", "b.jsonl"]).stdout);
}

#[test]
fn stdin_is_gone_on_with_when_it_is_fed_again() {
    let place = Place::with_pairs(0);
    let lines = mixed_lines(0..400);
    let arguments = ["-o", "out.jsonl.gz", "--max-line-bytes", "2KiB", "--save-every", "0"];
    let mut killed = place.command(&[&["-q"], &arguments[..]].concat());
    let mut killed = killed.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    killed.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    wait_for(|| {
        fs::read_to_string(place.path("out.jsonl.gz.progress")).is_ok_and(|state| state.contains("\"lines\":400"))
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    let resume = [&arguments[..], &["--resume"]].concat();
    // An over-long line counts by what was in it, though it was not kept.
    let run = place.score_stdin(&resume, &lines.replacen("yyy", "zyy", 1));
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(
        run.stderr.contains("input 1 (<stdin>) differs in its first 400 lines"),
        "{}",
        run.stderr
    );
    let whole = lines + &pairs(400..410);
    let run = place.score_stdin(&resume, &whole);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("392 of them by earlier runs"), "{}", run.stderr);
    let other = place.score_stdin(&["-o", "out.other.gz", "--max-line-bytes", "2KiB"], &whole);
    assert_eq!(other.code, 3);
    assert!(place.read("out.jsonl.gz") == place.read("out.other.gz"));
}

#[test]
fn a_crash_after_the_rename_is_a_finished_run() {
    let place = Place::with_pairs(30);
    place.write("out.jsonl", "older\n");
    let run = ["-o", "out.jsonl", "--force", "--resume", "pairs.jsonl"];
    assert_eq!(place.score(&run).code, 0);
    let finished = place.read("out.jsonl");
    assert_eq!(place.outputs(), ["out.jsonl"]);
    // Made again by another run, stopped before the rename by a folder in the output's place. After it there is the
    // output, and the state that says that it is complete.
    fs::remove_file(place.path("out.jsonl")).unwrap();
    let mut slow = place.command(&["-q", "-o", "out.jsonl", "--save-every", "0"]);
    let mut slow = slow.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| place.exists("out.jsonl.progress"));
    fs::create_dir(place.path("out.jsonl")).unwrap();
    slow.stdin
        .take()
        .unwrap()
        .write_all(&place.read("pairs.jsonl"))
        .unwrap();
    assert_eq!(slow.wait().unwrap().code(), Some(1));
    fs::remove_dir(place.path("out.jsonl")).unwrap();
    let state = place.read("out.jsonl.progress");
    assert!(String::from_utf8(state.clone()).unwrap().contains("\"complete\":true"));
    assert!(place.read("out.jsonl.partial") == finished);
    fs::rename(place.path("out.jsonl.partial"), place.path("out.jsonl")).unwrap();

    // Other lines, settings or bytes are refused.
    place.write("other.jsonl", pairs(1..31));
    let message = refused(&place, &["-o", "out.jsonl", "--resume", "other.jsonl"]);
    assert!(message.contains("differs in its first 30 lines"), "{message}");
    let message = refused(
        &place,
        &["-o", "out.jsonl", "--resume", "--threshold", "0.9", "pairs.jsonl"],
    );
    assert!(
        message.contains("another run made it: --threshold was ") && message.contains(" and is 0.9"),
        "{message}"
    );
    place.write("out.jsonl", [&finished[..], b"\n"].concat());
    let message = refused(&place, &["-o", "out.jsonl", "--resume", "pairs.jsonl"]);
    assert!(message.contains("it has been changed"), "{message}");
    // The same is done already.
    place.write("out.jsonl", &finished);
    let run = place.score(&["-o", "out.jsonl", "--resume", "pairs.jsonl"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stderr
            .contains("nothing to do, the output is complete: scored 30 of 30 lines"),
        "{}",
        run.stderr
    );
    assert_eq!(place.outputs(), ["out.jsonl"]);
    // Without the output the state is worth nothing, and in nobody's way.
    fs::remove_file(place.path("out.jsonl")).unwrap();
    place.write("out.jsonl.progress", &state);
    assert_eq!(place.score(&["-o", "out.jsonl", "--resume", "other.jsonl"]).code, 0);
    assert_eq!(place.outputs(), ["out.jsonl"]);
}

#[test]
fn what_a_manifest_keeps_lets_a_finished_run_be_recognised() {
    let place = stopped(&[]);
    place.write("b.jsonl", pairs(3..4) + "\n" + &pairs(4..8));
    let state = place.read("out.jsonl.progress");
    assert_eq!(place.score(&RESUME).code, 0);
    // As the state of the finished run has it.
    let mut slow = place.command(&["-q", "-o", "out2.jsonl", "a.jsonl", "-"]);
    let mut slow = slow.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| place.exists("out2.jsonl.progress"));
    fs::create_dir(place.path("out2.jsonl")).unwrap();
    slow.stdin.take().unwrap().write_all(&place.read("b.jsonl")).unwrap();
    slow.wait().unwrap();
    fs::remove_dir(place.path("out2.jsonl")).unwrap();
    let complete: serde_json::Value = serde_json::from_slice(&place.read("out2.jsonl.progress")).unwrap();
    fs::remove_file(place.path("out2.jsonl.progress")).unwrap();
    fs::remove_file(place.path("out2.jsonl.partial")).unwrap();
    let manifest = |state: &serde_json::Value| serde_json::json!({"run_id": 1, "tool": 1, "resume": state}).to_string();
    place.write("out.jsonl.manifest.json", manifest(&complete));
    let run = place.score(&RESUME);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("nothing to do"), "{}", run.stderr);
    // A state of a run that was under way proves nothing.
    place.write(
        "out.jsonl.manifest.json",
        manifest(&serde_json::from_slice(&state).unwrap()),
    );
    refused(&place, &RESUME);
}

#[test]
fn tables_and_shards_are_gone_on_with() {
    let place = Place::with_pairs(0);
    let row = |i: usize| format!("{i},\"Patient {i} took aspirin\nand had bleeding.\",aspirin,bleeding\n");
    let rows = |range: std::ops::Range<usize>| range.map(row).collect::<String>();
    let header = "id,text,drug,adr\n";
    place.write("a.csv", format!("{header}{}", rows(0..150)));
    place.write(
        "b.csv",
        format!("{header}{}\n9,no text\n{}", rows(150..400), rows(400..600)),
    );
    // The row without answer is in the first of three shards.
    for (name, arguments) in [("out.csv", &[][..]), ("out2.csv.gz", &["--shard", "1/3"])] {
        let base = [&["-o", name, "--save-every", "0", "a.csv", "b.csv"], arguments].concat();
        let stopped = place.score(&[&base[..], &["--on-error", "fail"]].concat());
        assert_eq!(stopped.code, 1, "{}", stopped.stderr);
        let other = ["-o", name, "a.csv", "b.csv", "--shard", "2/3", "--resume"];
        let message = refused(&place, &other);
        assert!(message.contains("--shard was "), "{message}");
        let right = String::from_utf8(place.read("b.csv")).unwrap();
        place.write("b.csv", right.replacen("Patient 200 ", "Patient 2 ", 1));
        let message = refused(&place, &[&base[..], &["--resume"]].concat());
        assert!(message.contains("input 2 (b.csv) differs in its first"), "{message}");
        place.write("b.csv", right);
        let run = place.score(&[&base[..], &["--resume"]].concat());
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert!(run.stderr.contains("by earlier runs"), "{}", run.stderr);
        let whole = format!("expected.{name}");
        assert_eq!(
            place
                .score(&[&["-o", &whole, "a.csv", "b.csv"], arguments].concat())
                .code,
            3
        );
        assert!(place.read(name) == place.read(&whole), "{name}");
        fs::remove_file(place.path(name)).unwrap();
    }
}

#[test]
fn a_table_whose_rows_begin_at_other_lines_now_is_refused() {
    let row = |day: usize| format!("\"Day {day}\nAspirin caused rash.\",Aspirin,rash\n");
    let rows = |range: std::ops::Range<usize>| range.map(row).collect::<String>();
    let table = |rows: &str| format!("text,drug,adr\n{rows}");
    let right = table(&rows(1..5));
    // Rows one and two are answered, which begin at lines 2 and 4.
    let run = ["-o", "out.csv", "--save-every", "0", "--format", "csv"];
    let resume = [&run[..], &["--resume"]].concat();
    for inputs in [
        &["in.csv"][..],
        &["-"],
        &["one.csv", "in.csv"],
        &["--shard", "1/2", "in.csv"],
    ] {
        let killed = inputs == ["-"];
        let place = Place::with_pairs(0);
        place.write("one.csv", table(&row(9)));
        let resume = [&resume[..], inputs].concat();
        let begun = [&run[..], inputs].concat();
        if killed {
            let mut run = place.command(&begun);
            let mut run = run.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let first = table(&rows(1..3));
            run.stdin.as_mut().unwrap().write_all(first.as_bytes()).unwrap();
            wait_for(|| {
                fs::read_to_string(place.path("out.csv.progress")).is_ok_and(|state| state.contains("\"lines\":4"))
            });
            run.kill().unwrap();
            run.wait().unwrap();
        } else {
            place.write("in.csv", table(&(rows(1..3) + "\"bad\nrow\",Aspirin,rash\n" + &row(4))));
            let stopped = place.score(&[&begun[..], &["--on-error", "fail"]].concat());
            assert_eq!(stopped.code, 1, "{}", stopped.stderr);
        }
        let left = place.read("out.csv.partial");
        for changed in [
            // The second row begins a line later, or three; no row begins where it did.
            right.replacen("Day 1\n", "Day 1\n\n", 1),
            right.replacen("Day 1\n", "Day 1\n\n\n\n", 1),
            // One row is all there is, and it goes on beyond that line.
            table(&row(1).replacen("Day 1\n", "Day 1\n\n\n\n", 1)),
        ] {
            place.write("in.csv", &changed);
            let run = place.score_stdin(&resume, &changed);
            assert_eq!(run.code, 2, "{inputs:?}: {}", run.stderr);
            let name = if killed { "<stdin>" } else { "in.csv" };
            let message = format!("({name}) differs in its first 4 lines from what the earlier run scored; to start");
            assert!(run.stderr.contains(&message), "{}", run.stderr);
            assert!(place.read("out.csv.partial") == left, "something was written");
        }
        place.write("in.csv", &right);
        let run = place.score_stdin(&resume, &right);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let whole = [&["-o", "whole.csv", "--format", "csv"], inputs].concat();
        assert_eq!(place.score_stdin(&whole, &right).code, 0);
        assert!(place.read("out.csv") == place.read("whole.csv"));
    }
}

#[test]
fn a_run_killed_at_any_moment_is_gone_on_with_to_the_same_bytes() {
    let kills = std::env::var("CRAG_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let model = std::env::var("CRAG_RESUME_MODEL").unwrap_or_else(|_| "demo".to_owned());
    let count = std::env::var("CRAG_RESUME_LINES").map_or(1500, |count| count.parse().unwrap());
    let mut random = Random(0x5eed_0004);
    let place = Place::with_pairs(0);
    place.write("a.jsonl", mixed_lines(0..count / 3));
    place.write("b.jsonl", mixed_lines(count / 3..count));
    let command = |name: &str, resume: bool| {
        let mut arguments = vec![
            "-q",
            "--max-line-bytes",
            "2KiB",
            "--save-every",
            "0.02",
            "--no-reuse",
            "-o",
            name,
        ];
        arguments.extend(resume.then_some("--resume"));
        arguments.extend(["a.jsonl", "b.jsonl"]);
        let mut command = place.command_with(&model, &arguments);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    };
    let endings = ["jsonl", "jsonl.gz", "jsonl", "jsonl.zst", "jsonl", "jsonl.bz2"];
    let (mut expected, mut whole) = (std::collections::HashMap::new(), Duration::MAX);
    for ending in endings {
        if !expected.contains_key(ending) {
            let name = format!("expected.{ending}");
            let started = Instant::now();
            assert_eq!(command(&name, false).status().unwrap().code(), Some(3));
            whole = whole.min(started.elapsed());
            expected.insert(ending, place.read(&name));
        }
    }
    let (mut killed, mut resumed, mut torn, mut further, mut round) = (0, 0, 0, 0, 0);
    while killed < kills {
        let ending = endings[round % endings.len()];
        let name = format!("out{round}.{ending}");
        let (partial, progress) = (format!("{name}.partial"), format!("{name}.progress"));
        round += 1;
        let saved = || -> u64 {
            let state: serde_json::Value = match fs::read(place.path(&progress)) {
                Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{progress}: {error}")),
                Err(_) => return 0,
            };
            let inputs = state["inputs"].as_array().unwrap();
            inputs.iter().map(|input| input["lines"].as_u64().unwrap()).sum()
        };
        // A few kills to each output: those that follow hit a run that goes on.
        for attempt in 0..1 + random.below(4) {
            let before = saved();
            let mut child = command(&name, attempt > 0).spawn().unwrap();
            if round % 5 == 1 && attempt == 0 {
                // At least these hit a run in its middle, however long it takes today.
                wait_for(|| saved() > 0 || place.exists(&name));
            } else {
                std::thread::sleep(whole.mul_f64(random.below(1000) as f64 / 900.0));
            }
            child.kill().unwrap();
            let status = child.wait().unwrap();
            assert!(
                is_absent_or(&place.path(&name), &expected[ending]),
                "{name}: neither absent nor complete"
            );
            killed += usize::from(status.code().is_none());
            if place.exists(&name) {
                // Finished, or killed when there was nothing left to do but tidy up.
                assert!(matches!(status.code(), None | Some(3)), "{name}: {status}");
                break;
            }
            resumed += usize::from(attempt > 0);
            assert!(saved() >= before, "{name}: progress was lost");
            further += usize::from(saved() > before);
            let length = fs::metadata(place.path(&partial)).map_or(0, |metadata| metadata.len());
            let state = fs::read(place.path(&progress)).ok();
            let state = state.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
            torn += usize::from(state.is_some_and(|state| state["output"]["bytes"].as_u64().unwrap() < length));
        }
        if !place.exists(&name) {
            let output = command(&name, true).stderr(Stdio::piped()).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(3), "{name}: {stderr}");
            let left: Vec<_> = place
                .outputs()
                .into_iter()
                .filter(|other| other.starts_with(&name))
                .collect();
            assert_eq!(left, [&*name]);
        }
        assert!(place.read(&name) == expected[ending], "{name}: other bytes");
        for left in place.outputs() {
            fs::remove_file(place.path(&left)).unwrap();
        }
    }
    println!(
        "{killed} kills of {round} outputs, {resumed} of them of runs that went on: all outputs byte-identical; \
         {further} kills left more progress than there was, {torn} a torn tail"
    );
    assert!(kills < 10 || further > 0, "no kill hit a run in its middle");
}
