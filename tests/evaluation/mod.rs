//! `crag eval` and `crag calibrate` as a user runs them.

mod calibrate;
mod comparison;
mod figures;
mod records;
mod report;
mod settings;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::{crag, fixture};

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", self.stdout, self.stderr))
    }
}

fn run(arguments: &[&str], stdin: impl Into<Vec<u8>>) -> Run {
    let output = crag().args(arguments).write_stdin(stdin).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr,
    }
}

/// Scored records, three a document, whose probabilities have something to do with their labels.
fn scored(count: usize, shift: f64) -> String {
    let mut lines = String::new();
    for i in 0..count {
        let noise = (i * 7919 % 1009) as f64 / 1009.0;
        let label = i % 5 < 2;
        let probability = (0.55 * noise + if label { 0.4 } else { 0.05 } + shift).clamp(0.0, 1.0);
        let record = json!({
            "id": i, "pmid": format!("{}", i / 3), "label": u8::from(label), "probability": probability as f32,
            "drug": "aspirin", "adr": "bleeding", "text": format!("Case {i}: aspirin, then bleeding."),
        });
        writeln!(lines, "{record}").unwrap();
    }
    lines
}

fn value(estimate: &Value) -> f64 {
    estimate["value"].as_f64().unwrap_or_else(|| panic!("{estimate}"))
}

/// A copy of a small model in a folder of its own.
fn model_copy(folder: &Folder) -> PathBuf {
    let copy = folder.path("model");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(fixture("model/safetensors")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, contents: &str) -> String {
        std::fs::write(self.path(name), contents).unwrap();
        self.name(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}
