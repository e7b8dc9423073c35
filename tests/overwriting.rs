//! What lies where a run would write: it stays, unless it is the run's own or `--force` says so.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::common::{crag, fixture, json_lines, process};
use crate::output::{Place, pairs, wait_for};

/// The binary in the place, for other commands than `score`.
fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = process(&crag());
    command.args(arguments).current_dir(place.path(""));
    command
}

fn run(place: &Place, arguments: &[&str]) -> Output {
    command(place, arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_state_that_no_run_of_this_version_wrote_stays_unless_forced() {
    let place = Place::with_pairs(3);
    let numbers: String = (1..1000).map(|number| format!("{number}\n")).collect();
    for (state, expected) in [
        (numbers.as_str(), "found something else"),
        ("[1]", "it names no format"),
        (r#"{"format":99,"answers":["many"]}"#, "format 99, this is format"),
    ] {
        place.write("out.jsonl.progress", state);
        let message = place.refusal(&["-o", "out.jsonl", "pairs.jsonl"], 2);
        assert!(
            message.contains("out.jsonl.progress: ") && message.contains(expected) && message.contains("--force"),
            "{message}"
        );
        assert_eq!(place.read("out.jsonl.progress"), state.as_bytes());
        assert_eq!(place.outputs(), ["out.jsonl.progress"]);
        let run = place.score(&["-o", "out.jsonl", "--force", "pairs.jsonl"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(place.outputs(), ["out.jsonl"]);
        fs::remove_file(place.path("out.jsonl")).unwrap();
    }
}
