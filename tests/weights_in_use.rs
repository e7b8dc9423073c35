//! Weights that another program writes to while a run computes with them: no answer is of two models.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::common::crag;
use crate::common::place::{Place, pair};

/// A run that has answered a line, and waits for the next.
struct Run {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Run {
    fn with_one_answer(place: &Place, arguments: &[&str]) -> Self {
        let mut command = place.command_with("model", arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut run = Self { child, stdin, stdout };
        run.give_line(0);
        let mut answer = String::new();
        run.stdout.read_line(&mut answer).unwrap();
        assert!(answer.contains("\"probability\""), "{answer}");
        run
    }

    fn give_line(&mut self, number: usize) {
        // A run that has ended takes none.
        let _ = writeln!(self.stdin, "{}", pair(number));
    }

    /// What is answered to another line; then the exit code and stderr but for the demo's notice.
    fn end(mut self) -> (String, Option<i32>, String) {
        self.give_line(1);
        drop(self.stdin);
        let (mut answers, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut answers).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let said = stderr.lines().filter(|line| !line.contains("not for decisions"));
        let stderr = said.map(|line| format!("{line}\n")).collect();
        (answers, self.child.wait().unwrap().code(), stderr)
    }
}

/// The demo in the folder `model`, with packed weights or without. Returns its weight file.
fn converted(place: &Place, packed: bool) -> PathBuf {
    let mut command = crag();
    command.args(["convert", "--quiet", "--model", "demo", "--dtype", "f32"]);
    if !packed {
        command.arg("--no-packed");
    }
    let output = command.arg(place.path("model")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    place.path("model/model.safetensors")
}

fn opened(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

/// Writes zeros over the last half of a file, in place.
fn overwrite(path: &Path) {
    let length = fs::metadata(path).unwrap().len() as usize;
    let mut file = opened(path);
    file.seek(SeekFrom::Start(length as u64 / 2)).unwrap();
    file.write_all(&vec![0; length / 2]).unwrap();
}

#[test]
fn no_answer_is_given_with_packed_weights_that_were_written_to() {
    let place = Place::with_pairs(0);
    let weights = converted(&place, true);
    let run = Run::with_one_answer(&place, &["--quiet", "--summary-json", "summary.json"]);
    overwrite(&weights);
    let (answers, code, stderr) = run.end();
    assert_eq!((answers.as_str(), code), ("", Some(1)), "{stderr}");
    assert!(
        stderr.contains("model.safetensors: another program has written to it since it was opened"),
        "{stderr}"
    );
    assert!(stderr.lines().count() == 1, "{stderr}");
    let summary: serde_json::Value = serde_json::from_slice(&place.read("summary.json")).unwrap();
    assert_eq!(summary["counts"]["scored"], 1, "{summary}");
}

#[test]
fn weights_that_are_replaced_by_a_new_file_serve_the_run_to_its_end() {
    let place = Place::with_pairs(0);
    let weights = converted(&place, true);
    let run = Run::with_one_answer(&place, &["--quiet"]);
    fs::write(place.path("new"), b"another model").unwrap();
    fs::rename(place.path("new"), &weights).unwrap();
    let (answers, code, stderr) = run.end();
    assert_eq!((answers.lines().count(), code), (1, Some(0)), "{stderr}");
}

#[test]
fn weights_that_were_copied_into_memory_may_be_overwritten() {
    let place = Place::with_pairs(0);
    let weights = converted(&place, false);
    let run = Run::with_one_answer(&place, &["--quiet"]);
    overwrite(&weights);
    let (answers, code, stderr) = run.end();
    assert_eq!((answers.lines().count(), code), (1, Some(0)), "{stderr}");
}

#[test]
fn packed_weights_that_are_cut_short_end_the_run_with_a_line_that_says_so() {
    for json in [false, true] {
        let place = Place::with_pairs(0);
        let weights = converted(&place, true);
        let form = if json { "json" } else { "text" };
        let run = Run::with_one_answer(&place, &["--quiet", "--log-format", form]);
        opened(&weights).set_len(0).unwrap();
        let (answers, code, stderr) = run.end();
        assert_eq!((answers.as_str(), code), ("", Some(1)), "{stderr}");
        let said = match json {
            false => stderr.clone(),
            true => serde_json::from_str::<serde_json::Value>(&stderr).unwrap()["message"].to_string(),
        };
        assert!(said.contains("another program has cut a file short"), "{stderr}");
    }
}
