//! A folder in which `crag score` runs on the demo model, and what it is given there.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::run::Run;
use super::{crag, process};

/// A folder to run in.
pub struct Place(tempfile::TempDir);

impl Place {
    /// With `pairs.jsonl` in it.
    pub fn with_pairs(count: usize) -> Self {
        // Where there is no disk whose syncing could take longer than what is waited for.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let place = Self(folder.unwrap());
        place.write("pairs.jsonl", pairs(0..count));
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Makes a named pipe.
    pub fn fifo(&self, name: &str) {
        let made = Command::new("mkfifo").arg(self.path(name)).status().unwrap();
        assert!(made.success());
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// The names in the folder, but for manifests and inputs.
    pub fn outputs(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names
            .filter(|name| name.starts_with("out") && !name.contains("manifest"))
            .collect();
        names.sort();
        names
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_with("demo", arguments)
    }

    pub fn command_with(&self, model: &str, arguments: &[&str]) -> Command {
        let mut command = process(&crag());
        command.args(["score", "--offline", "--model", model]).args(arguments);
        command.current_dir(self.0.path());
        command
    }

    pub fn score(&self, arguments: &[&str]) -> Run {
        self.score_stdin(arguments, "")
    }

    pub fn score_stdin(&self, arguments: &[&str], stdin: &str) -> Run {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Who ends before reading it all closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        Run::of(child.wait_with_output().unwrap())
    }

    /// What a run says after the demo's warning, which has to be one line.
    pub fn refusal(&self, arguments: &[&str], code: i32) -> String {
        let run = self.score(arguments);
        assert_eq!(run.code, code, "{arguments:?}: {}", run.stderr);
        assert!(run.stdout.is_empty());
        let lines: Vec<&str> = run
            .stderr
            .lines()
            .filter(|line| !line.contains("not for decisions"))
            .collect();
        assert_eq!(lines.len(), 1, "{}", run.stderr);
        lines[0].to_owned()
    }
}

/// PubTator documents, each with a drug and a reaction in one sentence.
pub fn documents(range: std::ops::Range<usize>) -> String {
    let document = |i: usize| {
        format!(
            "{i}|t|Aspirin caused a rash.\n{i}|a|\n{i}\t0\t7\tAspirin\tChemical\tD1\n{i}\t17\t21\trash\tDisease\tD2\n\n"
        )
    };
    range.map(document).collect()
}

pub fn pair(i: usize) -> String {
    format!(r#"{{"id": {i}, "text":"Patient {i} took aspirin and had bleeding.","drug":"aspirin","adr":"bleeding"}}"#)
}

pub fn pairs(range: std::ops::Range<usize>) -> String {
    range.map(|i| pair(i) + "\n").collect()
}

/// Polls for up to a minute.
pub fn wait_for(mut condition: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed().as_secs() < 60, "waited in vain");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Whether `found` is what is expected of an output at any time: nothing, or all of it.
pub fn is_absent_or(path: &Path, expected: &[u8]) -> bool {
    match fs::read(path) {
        Ok(found) => found == expected,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Lines of all kinds: scored, with errors of both kinds, blank, too long.
pub fn mixed_lines(range: std::ops::Range<usize>) -> String {
    let line = |i: usize| match i % 50 {
        7 => "{\"text\": 1}\n".to_owned(),
        17 => "\n".to_owned(),
        27 => format!("no object {i}\n"),
        37 => format!("{{\"long\": \"{}\"}}\n", "y".repeat(3000)),
        _ => pair(i) + "\n",
    };
    range.map(line).collect()
}
