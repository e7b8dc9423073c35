//! What a run of the binary said.

use std::process::Output;

use serde_json::Value;

use super::json_lines;

pub struct Run {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    /// Of a run that a signal did not end, and that did not panic.
    pub fn of(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).expect("messages are UTF-8");
        assert!(!stderr.contains("panicked"), "{stderr}");
        Self {
            code: output.status.code().expect("no signal"),
            stdout: output.stdout,
            stderr,
        }
    }

    /// The records on stdout.
    pub fn values(&self) -> Vec<Value> {
        json_lines(&self.stdout)
    }
}
