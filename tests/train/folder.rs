//! The folders that a run writes to: what is replaced, and what never is.

use std::fs;
use std::path::Path;

use assert_cmd::Command;

use super::{Case, stderr};

#[test]
fn only_a_models_folder_is_replaced() {
    let case = Case::new();
    fs::create_dir(case.path("data")).unwrap();
    fs::copy(case.path("pairs.jsonl"), case.path("data/model.safetensors")).unwrap();
    let reads = case
        .train("data", &["--train", "data/model.safetensors", "--force"])
        .assert()
        .code(2);
    assert!(
        stderr(&reads).contains("holds what --train reads"),
        "{}",
        stderr(&reads)
    );
    fs::write(case.path("data/thesis.txt"), "x").unwrap();
    let other = case.train("data", &["--force"]).assert().code(2);
    assert!(stderr(&other).contains("holds thesis.txt"), "{}", stderr(&other));
    assert_eq!(fs::read_to_string(case.path("data/thesis.txt")).unwrap(), "x");
    // Names that a model's folder has, and no weights.
    fs::create_dir(case.path("notes")).unwrap();
    for name in ["log.jsonl", "vocab.json"] {
        fs::write(case.path("notes").join(name), "x").unwrap();
    }
    let notes = case.train("notes", &["--force"]).assert().code(2);
    assert!(
        stderr(&notes).contains("notes: holds no weights (model.safetensors, pytorch_model.bin)"),
        "{}",
        stderr(&notes)
    );
    assert_eq!(fs::read_to_string(case.path("notes/log.jsonl")).unwrap(), "x");
    // An empty folder is none, and a link that leads nowhere is made to lead somewhere.
    fs::create_dir(case.path("empty")).unwrap();
    case.train("empty", &["--epochs", "1"]).assert().success();
    std::os::unix::fs::symlink("nowhere", case.path("link")).unwrap();
    case.train("link", &["--epochs", "1"]).assert().success();
    assert!(case.path("nowhere/model.safetensors").exists());
}

#[test]
fn nothing_that_no_run_left_is_removed_from_where_a_run_works() {
    let case = Case::new();
    let work = |name: &str| case.path("out.partial").join(name);
    let fresh = || {
        let _ = fs::remove_dir_all(case.path("out.partial"));
        fs::create_dir(case.path("out.partial")).unwrap();
    };
    let files = |folder: &Path| {
        let names = fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    for again in ["--resume", "--force"] {
        fresh();
        fs::write(work("thesis.txt"), "x").unwrap();
        let foreign = case.train("out", &[again]).assert().code(2);
        assert!(
            stderr(&foreign).contains("out.partial: holds thesis.txt, which no run leaves there"),
            "{}",
            stderr(&foreign)
        );
        assert_eq!(files(&case.path("out.partial")), ["thesis.txt"]);
        // Where a finished folder is put together, and where one is that is being replaced.
        for folder in ["done", "converted", "replaced"] {
            fresh();
            fs::create_dir(work(folder)).unwrap();
            fs::write(work(folder).join("thesis.txt"), "x").unwrap();
            // One that is being replaced is put back first.
            fs::create_dir_all(case.path("out")).unwrap();
            let foreign = case.train("out", &[again]).assert().code(2);
            let expected = format!("out.partial: holds {folder}/thesis.txt");
            assert!(stderr(&foreign).contains(&expected), "{}", stderr(&foreign));
            assert_eq!(fs::read_to_string(work(folder).join("thesis.txt")).unwrap(), "x");
        }
        fresh();
        // Of a run's own names, and read by this one.
        fs::copy(case.path("pairs.jsonl"), work("log.jsonl")).unwrap();
        let read = case
            .train("out", &["--valid", "out.partial/log.jsonl", again])
            .assert()
            .code(2);
        assert!(
            stderr(&read).contains("out.partial: holds what --valid reads"),
            "{}",
            stderr(&read)
        );
        assert_eq!(
            fs::read(work("log.jsonl")).unwrap(),
            fs::read(case.path("pairs.jsonl")).unwrap()
        );
    }
    // What a killed run leaves is all its own.
    fresh();
    for name in [
        "lock",
        "state-3.safetensors",
        "best-3.safetensors.17-0.tmp",
        "state.json.tmp",
    ] {
        fs::write(work(name), "").unwrap();
    }
    fs::create_dir(work("done")).unwrap();
    for name in ["config.json.tmp", "model.safetensors.17-0.tmp", "vocab.txt"] {
        fs::write(work("done").join(name), "").unwrap();
    }
    case.train("out", &["--epochs", "1", "--resume"]).assert().success();
    assert!(case.path("out/model.safetensors").exists() && !case.path("out.partial").exists());
}

#[test]
fn a_second_run_of_the_same_output_is_refused() {
    let case = Case::new();
    fs::create_dir(case.path("out.partial")).unwrap();
    let lock = fs::File::create(case.path("out.partial/lock")).unwrap();
    lock.lock().unwrap();
    let assert = case.train("out", &["--force"]).assert().code(11);
    assert!(
        stderr(&assert).contains("another run is writing"),
        "{}",
        stderr(&assert)
    );
}

#[test]
fn a_write_that_fails_is_an_error_and_nothing_is_half_written() {
    let case = Case::new();
    // A limit on the size of files stands in for a full disk: writing beyond it fails.
    let program = assert_cmd::cargo::cargo_bin!("crag");
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let mut command = Command::new("bash");
    command.current_dir(case.folder.path()).env("HF_HUB_OFFLINE", "1");
    command.args([
        "-c",
        script,
        program.to_str().unwrap(),
        "train",
        "--recipe",
        "recipe.toml",
    ]);
    command.args(["--train", "pairs.jsonl", "--device", "cpu", "--out", "out"]);
    let assert = command.assert().code(1);
    let said = stderr(&assert);
    assert!(said.contains("writing it failed"), "{said}");
    assert!(!case.path("out").exists());
    let left: Vec<_> = fs::read_dir(case.path("out.partial"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| ["partial", "tmp", "safetensors"].iter().any(|part| name.contains(part)))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    case.train("out", &["--resume"]).assert().success();
}
