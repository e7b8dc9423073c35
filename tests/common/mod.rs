//! What several integration tests share.

pub mod extracted;
pub mod hub;
pub mod memory;
pub mod pack;
pub mod place;
pub mod random;
pub mod run;
pub mod signals;
#[cfg(target_os = "linux")]
pub mod terminal;

use std::path::PathBuf;

use assert_cmd::Command;

/// The binary under test, with nothing of the caller's environment that could change its answers.
///
/// `CRAG_TEST_BINARY` names another than the one just built, for tests that run longer than it stays.
pub fn crag() -> Command {
    let built = || assert_cmd::cargo::cargo_bin!("crag").to_owned();
    let mut command = Command::new(std::env::var_os("CRAG_TEST_BINARY").map_or_else(built, PathBuf::from));
    let own = std::env::vars_os().map(|(name, _)| name);
    for variable in own.filter(|name| name.to_string_lossy().starts_with("CRAG_")) {
        command.env_remove(variable);
    }
    for variable in [
        "COLUMNS",
        "CURL_CA_BUNDLE",
        "HF_ENDPOINT",
        "HF_HUB_CACHE",
        "HF_TOKEN",
        "HUGGINGFACE_HUB_CACHE",
        "HUGGING_FACE_HUB_TOKEN",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
    ] {
        command.env_remove(variable);
    }
    // Not where somebody's token and models may be.
    command.env("HF_HOME", std::env::temp_dir().join("no-hub-of-crag"));
    command.env("HF_HUB_OFFLINE", "1");
    command
}

/// What `prepared` would run, to be spawned and watched.
pub fn process(prepared: &Command) -> std::process::Command {
    let mut command = std::process::Command::new(prepared.get_program());
    command.args(prepared.get_args());
    for (key, value) in prepared.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    if let Some(folder) = prepared.get_current_dir() {
        command.current_dir(folder);
    }
    command
}

/// The project's folder: where this was compiled, or where a binary that was carried to another machine is told.
fn root() -> PathBuf {
    let compiled = || env!("CARGO_MANIFEST_DIR").into();
    std::env::var_os("CRAG_TEST_ROOT").map_or_else(compiled, PathBuf::from)
}

/// A file or folder under `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// What was said, but for the doubt about views where no settings state them.
pub fn but_for_views(stderr: &[u8]) -> String {
    let stderr = std::str::from_utf8(stderr).expect("messages are UTF-8");
    let lines = stderr.split_inclusive('\n');
    lines
        .filter(|line| !line.contains(": nothing states which views "))
        .collect()
}

/// The lines of a JSONL file or of captured output as objects.
pub fn json_lines(text: &[u8]) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(text).expect("output is UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// The threshold of the built-in model.
pub fn demo_threshold() -> f32 {
    let path = root().join("src/checkpoint/demo/crag.json");
    let settings: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    settings["threshold"].as_f64().unwrap() as f32
}
