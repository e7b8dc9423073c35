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

#[test]
fn with_force_a_finished_output_of_other_inputs_is_made_anew() {
    let place = Place::with_pairs(3);
    let make = ["-q", "-o", "out.jsonl", "--force", "--resume"];
    assert_eq!(place.score(&[&make[..], &["pairs.jsonl"]].concat()).code, 0);
    place.write("others.jsonl", pairs(5..9));
    for inputs in [
        &["others.jsonl"][..],
        &["pairs.jsonl", "others.jsonl"],
        &["pairs.jsonl"],
    ] {
        let message = place.refusal(&[&["-o", "out.jsonl", "--resume"], inputs].concat(), 2);
        assert!(message.contains("to start again"), "{message}");
        let run = place.score(&[&make[..], inputs].concat());
        assert_eq!(run.code, 0, "{inputs:?}: {}", run.stderr);
        assert!(place.read("out.jsonl") == place.score(inputs).stdout);
        assert_eq!(place.outputs(), ["out.jsonl"]);
    }
    // It has grown.
    place.write("pairs.jsonl", pairs(0..7));
    assert_eq!(place.score(&[&make[..], &["pairs.jsonl"]].concat()).code, 0);
    assert_eq!(json_lines(&place.read("out.jsonl")).len(), 7);
    // What has been read of a stream is gone.
    let run = place.score_stdin(&make, &pairs(1..3));
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert_eq!(json_lines(&place.read("out.jsonl")).len(), 7);
}
