//! What is said on stderr while a run goes on: bars on a pseudo-terminal, lines elsewhere, JSON for machines.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::pack::gzip;
#[cfg(target_os = "linux")]
use crate::common::terminal::{screen, terminal, transcript};
use crate::common::{crag, json_lines, process};

fn pairs(count: usize) -> String {
    let pair = |i: usize| {
        let text = format!("Patient {i} took aspirin for {} days and had bleeding.", i * 7);
        format!(r#"{{"id": {i}, "text":"{text}","drug":"aspirin","adr":"bleeding"}}"#) + "\n"
    };
    (0..count).map(pair).collect()
}

fn program() -> Command {
    let mut command = process(&crag());
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    command
}

/// Runs `command` with stderr on a terminal: its stdout, and all that the terminal got.
#[cfg(target_os = "linux")]
fn on_terminal(mut command: Command) -> (Vec<u8>, Vec<u8>) {
    let (ours, theirs) = terminal();
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.stderr(theirs).spawn().unwrap();
    // The terminal is over when nobody has its other end.
    command.stderr(Stdio::null());
    let transcript = transcript(ours);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    (output.stdout, transcript.join().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_bar_is_drawn_on_a_terminal_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    std::fs::write(&path, pairs(4000)).unwrap();
    let mut command = program();
    command.args(["score", "--model", "demo", "--threads", "1", "--batch-tokens", "64"]);
    command.arg(&path);
    let (stdout, transcript) = on_terminal(command);
    assert_eq!(json_lines(&stdout).len(), 4000);
    let text = String::from_utf8_lossy(&transcript);
    assert!(text.contains("% ") && text.matches(" pairs/s").count() > 2, "{text}");
    let screen = screen(&transcript);
    assert_eq!(screen.len(), 2, "{screen:#?}");
    assert!(screen[0].contains("not for decisions"), "{screen:?}");
    assert!(
        screen[1].starts_with("crag: scored 4000 of 4000 lines in "),
        "{screen:?}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_bar_stays_out_of_the_way_of_records_on_the_same_terminal() {
    let lines = pairs(1500);
    let plain = crag()
        .args(["score", "-m", "demo"])
        .write_stdin(lines.clone())
        .output()
        .unwrap()
        .stdout;
    for (how, drawn) in [("bar", true), ("auto", false)] {
        let (ours, theirs) = terminal();
        let mut child = program()
            .args(["score", "--model", "demo", "--progress", how])
            .stdin(Stdio::piped())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs)
            .spawn()
            .unwrap();
        let transcript = transcript(ours);
        let mut stdin = child.stdin.take().unwrap();
        // In portions, so that records and bars alternate.
        for part in lines.split_inclusive('\n').collect::<Vec<_>>().chunks(300) {
            stdin.write_all(part.concat().as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(250));
        }
        drop(stdin);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let transcript = transcript.join().unwrap();
        let told = String::from_utf8_lossy(&transcript).into_owned();
        let is_count = |at: usize| told.as_bytes()[..at].last().is_some_and(u8::is_ascii_digit);
        let bars = told.match_indices(" pairs, ").filter(|&(at, _)| is_count(at)).count();
        assert_eq!(bars > 0, drawn, "{how}: {bars}");
        let (notes, records): (Vec<String>, Vec<String>) = screen(&transcript)
            .into_iter()
            .partition(|line| line.starts_with("crag: "));
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(
            records.join("\n") + "\n" == String::from_utf8(plain.clone()).unwrap(),
            "{how}"
        );
    }
}

#[test]
fn elsewhere_there_is_a_line_now_and_then() {
    let mut child = program()
        .args(["score", "--model", "demo", "--progress-every", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(pairs(3).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(3500));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines = stderr
        .lines()
        .filter(|line| line.starts_with("crag: 3 pairs, "))
        .count();
    assert!((1..=10).contains(&lines), "{stderr}");
    assert!(!stderr.contains('\u{1b}') && !stderr.contains('\r'), "{stderr}");
    assert!(
        stderr.lines().last().unwrap().starts_with("crag: scored 3 of 3 lines"),
        "{stderr}"
    );
}

#[test]
fn resampling_tells_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scored.jsonl");
    let record = |i: usize| {
        let (label, probability) = (i % 3 / 2, i * 7919 % 10_000);
        format!("{{\"label\":{label},\"probability\":0.{probability:04}}}\n")
    };
    std::fs::write(&path, (0..20_000).map(record).collect::<String>()).unwrap();
    let told = |resamples: &str, progress: &str| {
        let mut command = program();
        command.args(["eval", "--log-format", "json", "--progress-every", "1"]);
        command.args(["--progress", progress, "--resamples", resamples, "--scored"]);
        let output = command.arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let mut events = json_lines(&output.stderr);
        events.retain(|event| event["event"] == "resampling");
        events
    };
    // As many as two seconds take on this machine, and some.
    let attempts = ["2000", "8000", "32000", "100000"].into_iter();
    let mut attempts = attempts.map(|resamples| (resamples, told(resamples, "auto")));
    let enough = attempts.find(|(_, events)| events.len() > 1);
    let (resamples, events) = enough.expect("100,000 resamples take two seconds");
    let made: Vec<u64> = events.iter().map(|event| event["made"].as_u64().unwrap()).collect();
    assert!(made.is_sorted() && made[0] > 0, "{made:?}");
    let message = events[0]["message"].as_str().unwrap();
    let expected = format!(" of {resamples} resamples, ");
    assert!(message.contains(&expected) && message.ends_with(" left"), "{message}");
    assert!(told(resamples, "none").is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn judging_a_model_draws_bars_and_leaves_nothing_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let labelled = pairs(4000)
        .lines()
        .map(|line| line.replacen('{', "{\"label\": 1, ", 1) + "\n")
        .collect::<String>();
    std::fs::write(&path, labelled).unwrap();
    let mut command = program();
    command.args(["eval", "--model", "demo", "--threads", "1", "--resamples", "20000"]);
    command.arg(&path);
    let (_, transcript) = on_terminal(command);
    let text = String::from_utf8_lossy(&transcript);
    assert!(
        text.contains(" pairs/s") && text.contains(" of 20000 resamples, "),
        "{text}"
    );
    let screen = screen(&transcript);
    assert!(screen.iter().all(|line| line.starts_with("crag: ")), "{screen:#?}");
}

#[test]
fn a_time_between_lines_beyond_what_can_be_reckoned_with_is_refused() {
    let run = |seconds: &str| {
        let mut command = program();
        command.args([
            "score",
            "--model",
            "demo",
            "--progress",
            "log",
            "--progress-every",
            seconds,
        ]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for seconds in ["18446744073709551615", "30000001", "0"] {
        let (code, stderr) = run(seconds);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(
            stderr.contains("expected a whole number of seconds from 1 to 30000000"),
            "{stderr}"
        );
    }
    let (code, stderr) = run("30000000");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn how_far_a_compressed_input_is_is_told_from_how_it_has_grown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl.gz");
    // As many as a second takes on this machine, and some.
    for count in [4_000, 16_000, 64_000, 256_000] {
        let plain = pairs(count);
        std::fs::write(&path, gzip(plain.as_bytes())).unwrap();
        let mut command = program();
        command.args([
            "score",
            "--model",
            "demo",
            "--no-reuse",
            "--threads",
            "1",
            "--progress-every",
            "1",
        ]);
        let output = command.args(["--log-format", "json"]).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let events = json_lines(&output.stderr);
        let Some(told) = events.iter().rfind(|event| event["event"] == "progress") else {
            continue;
        };
        let message = told["message"].as_str().unwrap();
        assert!(message.contains("% of about "), "{message}");
        let (total, share) = (told["total_bytes"].as_f64().unwrap(), told["share"].as_f64().unwrap());
        // What has been read so far is a good part of the whole, and much like the rest.
        let expected = plain.len() as f64;
        assert!((total / expected - 1.0).abs() < 0.2, "{total} of {expected}");
        assert!(share > 0.0 && share <= 1.0, "{share}");
        return;
    }
    panic!("256,000 pairs took less than a second");
}

fn stderr_of(arguments: &[&str], stdin: &str) -> (i32, String) {
    let output = crag().args(arguments).write_stdin(stdin).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn quiet_leaves_warnings_alone_and_verbose_says_more() {
    let (_, quiet) = stderr_of(&["score", "-q", "-m", "demo", "--quiet"], &pairs(1));
    assert_eq!(
        quiet,
        "crag: demo (built in): not for decisions; F1 0.98 and ROC-AUC 0.996 on held-out ADE pairs, whose unrelated ones come \
         from different sentences, but ROC-AUC 0.52, which is chance, on pairs within one sentence (BC5CDR)\n"
    );
    let (_, plain) = stderr_of(&["score", "-m", "demo"], &pairs(1));
    assert_eq!(plain.lines().count(), 2, "{plain}");
    let (_, verbose) = stderr_of(&["-v", "score", "-m", "demo", "--device", "cpu"], &pairs(1));
    for part in [
        "crag: model demo: demo (built in)",
        "kernel ",
        "--model is [\"demo\"] (flag)",
        "1 window of lines, ",
    ] {
        assert!(verbose.contains(part), "{part}: {verbose}");
    }
    assert_eq!(stderr_of(&["score", "-q", "-v"], "").0, 2);
}

#[test]
fn the_environment_asks_for_json_before_the_command_line_is_understood() {
    let stderr = |arguments: &[&str]| {
        let mut command = crag();
        let output = command.args(arguments).env("CRAG_LOG_FORMAT", "json").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        output.stderr
    };
    let events = json_lines(&stderr(&["score", "--no-such-flag"]));
    assert_eq!((events.len(), &events[0]["exit_code"]), (1, &2.into()));
    let text = stderr(&["score", "--log-format", "text", "--no-such-flag"]);
    assert!(text.starts_with(b"error: "), "the command line counts more");
}

#[test]
fn with_json_every_line_on_stderr_is_an_object() {
    let of = |arguments: &[&str], stdin: &str| {
        let (code, stderr) = stderr_of(&[arguments, &["--log-format", "json"]].concat(), stdin);
        let events = json_lines(stderr.as_bytes());
        for event in &events {
            let time = event["time"].as_str().unwrap();
            assert!(
                time.parse::<jiff::Timestamp>().is_ok() && event["message"].is_string(),
                "{event}"
            );
            assert!(
                ["debug", "info", "warning", "error"].contains(&event["level"].as_str().unwrap()),
                "{event}"
            );
        }
        (code, events)
    };
    let (code, events) = of(&["score", "-v", "-m", "demo"], &(pairs(2) + "{}\n"));
    assert_eq!(code, 3);
    assert_eq!(
        (&events[0]["level"], &events[0]["event"]),
        (&"warning".into(), &"warning".into())
    );
    let summary = events.iter().find(|event| event["event"] == "summary").unwrap();
    assert_eq!(
        (
            &summary["counts"]["scored"],
            &summary["counts"]["errors"]["missing_field"]
        ),
        (&2.into(), &1.into())
    );
    // Errors of a run, of the command line and of the config.
    for (arguments, expected) in [
        (["score", "-m", "demo", "nowhere.jsonl"].as_slice(), 1),
        (&["score", "--no-such-flag"], 2),
        (&["score", "--config", "nowhere.toml"], 2),
    ] {
        let (code, events) = of(arguments, "");
        let last: &Value = events.last().unwrap();
        assert_eq!(
            (code, &last["level"], &last["exit_code"]),
            (expected, &"error".into(), &expected.into()),
            "{last}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_that_cannot_draw_gets_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    std::fs::write(&path, pairs(12_000)).unwrap();
    let mut command = program();
    command.env("TERM", "dumb");
    command.args(["score", "--model", "demo", "--threads", "1", "--progress-every", "1"]);
    command.arg(&path);
    let (_, transcript) = on_terminal(command);
    let text = String::from_utf8(transcript).unwrap();
    assert!(text.contains("% of ") && !text.contains('\u{1b}'), "{text}");
}
