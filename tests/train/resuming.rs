//! Runs that end early, by a kill or a signal, and go on.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Case, stderr};
use crate::common::signals::{heed_signals, send};
use crate::common::{json_lines, process};

/// Starts a run and kills it (as kill -9 does) once its state has been replaced `saves` times.
fn killed(case: &Case, out: &str, resume: bool, saves: usize) {
    let state = case.path(&format!("{out}.partial/state.json"));
    let stamp = |path: &Path| fs::read(path).ok();
    let before = stamp(&state);
    let mut command = process(&case.train(out, &["--save-every", "0", "--quiet"]));
    if resume {
        command.arg("--resume");
    }
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let (mut seen, mut last) = (0, before);
    while seen < saves && began.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none() {
        let now = stamp(&state);
        if now.is_some() && now != last {
            seen += 1;
            last = now;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // A run that was faster than its killer is finished, and that is told by the caller's assertions.
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_run_killed_again_and_again_resumes_to_the_same_bytes() {
    let case = Case::new();
    case.train("whole", &[]).assert().success();
    killed(&case, "cut", false, 3);
    assert!(
        case.path("cut.partial").exists() && !case.path("cut").exists(),
        "killed in the middle"
    );
    let again = case.train("cut", &[]).assert().code(2);
    assert!(stderr(&again).contains("--resume"), "{}", stderr(&again));
    killed(&case, "cut", true, 7);
    assert!(
        case.path("cut.partial").exists() && !case.path("cut").exists(),
        "killed in the middle"
    );
    // What a kill between a step and its state leaves behind, and one in the middle of a write.
    let log = case.path("cut.partial/log.jsonl");
    let mut logged = fs::read(&log).unwrap();
    logged.extend(b"{\"event\":\"step\",\"step\":99}\n");
    fs::write(&log, logged).unwrap();
    fs::write(case.path("cut.partial/state-99.safetensors.1-0.tmp"), "torn").unwrap();
    let other = case.train("cut", &["--resume", "--epochs", "3"]).assert().code(2);
    let said = stderr(&other);
    assert!(
        said.contains("since it was begun, ") && said.contains("finetune.epochs was 2 and is 3"),
        "{said}"
    );
    case.train("cut", &["--resume", "--threads", "2"]).assert().success();
    assert!(case.weights("cut") == case.weights("whole"));
    assert_eq!(case.json("cut", "crag.json"), case.json("whole", "crag.json"));
    assert!(!case.path("cut.partial").exists());
    let events = |out: &str| {
        let mut log = json_lines(&fs::read(case.path(out).join("log.jsonl")).unwrap());
        log.iter_mut().for_each(|line| line["seconds"] = Value::Null);
        log
    };
    assert_eq!(events("cut"), events("whole"), "each step is logged once");
}

#[test]
fn resuming_begins_where_there_is_nothing_and_sees_that_nothing_is_left_to_do() {
    let case = Case::new();
    let resume = |out: &str, more: &[&str]| case.train(out, &[&["--resume"], more].concat()).assert();
    resume("out", &[]).success();
    let finished = fs::read(case.path("out/manifest.json")).unwrap();
    // What has been laid beside it since is nobody's business where nothing is replaced.
    fs::write(case.path("out/README.md"), "mine").unwrap();
    let assert = resume("out", &[]).success();
    assert!(stderr(&assert).contains("nothing to do"), "{}", stderr(&assert));
    for other in [["--seed", "8"], ["--save-dtype", "f16"]] {
        let assert = resume("out", &other).code(2);
        assert!(stderr(&assert).contains("the output exists"), "{}", stderr(&assert));
    }
    assert_eq!(fs::read(case.path("out/manifest.json")).unwrap(), finished);
    let assert = case.train("out", &[]).assert().code(2);
    assert!(stderr(&assert).contains("--force"), "{}", stderr(&assert));
    assert!(!case.path("out.partial").exists());
}

#[test]
fn a_finished_model_that_is_whole_no_more_is_not_called_complete() {
    let case = Case::new();
    case.train("out", &["--epochs", "1"]).assert().success();
    let again = || case.train("out", &["--epochs", "1", "--resume"]).assert();
    for (name, reason) in [
        ("model.safetensors", "its weights have been changed"),
        ("vocab.txt", "vocab.txt has been changed"),
        ("crag.json", "crag.json has been changed"),
    ] {
        let path = case.path("out").join(name);
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, changed).unwrap();
        let said = stderr(&again().code(2));
        assert!(said.contains(reason) && said.contains("--force"), "{name}: {said}");
        fs::remove_file(&path).unwrap();
        let said = stderr(&again().code(2));
        assert!(
            said.contains("the output exists") && said.contains("--force"),
            "{name}: {said}"
        );
        fs::write(&path, whole).unwrap();
    }
    fs::write(case.path("out/tokenizer.json"), "{}").unwrap();
    assert!(stderr(&again().code(2)).contains("tokenizer.json has been added"));
    fs::remove_file(case.path("out/tokenizer.json")).unwrap();
    // What has been fitted to it since is part of it.
    let mut sidecar = case.json("out", "crag.json");
    sidecar["calibration"] = json!({"method": "temperature", "temperature": 2.0});
    fs::write(case.path("out/crag.json"), sidecar.to_string()).unwrap();
    assert!(stderr(&again().success()).contains("nothing to do"));
}

#[test]
fn a_signal_ends_a_run_in_order_and_a_forced_one_resumes_to_the_same_bytes() {
    let case = Case::new();
    // Long enough to be caught.
    let long = ["--epochs", "10"];
    case.train("whole", &long).assert().success();
    case.train("cut", &["--seed", "8"]).assert().success();
    let mut command = process(&case.train("cut", &["--force"]));
    command.args(long);
    let mut child = heed_signals(&mut command).stderr(Stdio::piped()).spawn().unwrap();
    let log = case.path("cut.partial/log.jsonl");
    let began = Instant::now();
    let steps = || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.lines().filter(|line| line.contains("\"step\"")).count()
    };
    while steps() < 4 && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(1));
    }
    send(&child, "TERM");
    let status = child.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(status.code(), Some(143), "{said}");
    assert!(said.contains("--resume goes on"), "{said}");
    assert!(case.path("cut.partial/state.json").exists());
    assert!(
        case.weights("cut") != case.weights("whole"),
        "the old one is still there"
    );
    case.train("cut", &["--resume"]).args(long).assert().success();
    assert!(case.weights("cut") == case.weights("whole"));
    assert!(!case.path("cut.partial").exists());
}

#[test]
fn a_damaged_state_is_one_clear_error_that_names_the_file() {
    let case = Case::new();
    let train = || case.train("out", &["--epochs", "10", "--save-every", "0", "--quiet"]);
    let mut child = process(&train()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let state = || -> Value {
        let state = fs::read(case.path("out.partial/state.json")).unwrap_or_default();
        serde_json::from_slice(&state).unwrap_or_default()
    };
    while state()["best"].is_null() && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap();
    let resume = || train().arg("--resume").assert();
    let state = state();
    for kind in ["best_tensors", "tensors"] {
        let name = state[kind]["name"].as_str().unwrap();
        let path = case.path("out.partial").join(name);
        let whole = fs::read(&path).unwrap();
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        for damaged in [Some(&other[..]), Some(&whole[..100]), None] {
            match damaged {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let assert = resume().code(1);
            let said = stderr(&assert);
            assert!(
                said.contains(&format!("out.partial/{name}: expected what was written")),
                "{said}"
            );
            assert!(
                said.contains("begin again with --force") && !said.contains("goes on"),
                "{said}"
            );
        }
        fs::write(&path, whole).unwrap();
    }
    let path = case.path("out.partial/state.json");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replacen("\"tokens\":", "\"tokens\":1", 1)).unwrap();
    let said = stderr(&resume().code(2));
    assert!(said.contains("state.json: it is not what its checksum says"), "{said}");
    fs::write(&path, whole).unwrap();
    resume().success();
}
