//! `crag train` as a user runs it, on a tiny encoder from scratch: seconds, no network, no Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::pack::gzip;
#[cfg(unix)]
use crate::common::signals::{heed_signals, send};
use crate::common::{crag, fixture, json_lines, process};

const RECIPE: &str = "
seed = 7
[backbone]
hidden_size = 16
layers = 1
heads = 2
intermediate = 32
vocab_size = 160
max_position_embeddings = 48
[head]
width = 8
pooling_heads = 2
max_length = 48
[contrastive]
epochs = 1
learning_rate = 1e-3
batch_size = 8
accumulation = 2
[finetune]
epochs = 2
learning_rate = 1e-3
batch_size = 8
accumulation = 2
";

/// A folder with `pairs.jsonl` (related pairs of 48 documents) and `recipe.toml`.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let drugs = ["aspirin", "metformin", "warfarin", "cisplatin", "lithium", "naproxen"];
        let reactions = ["bleeding", "acidosis", "bruising", "deafness", "tremor", "ulcer"];
        let mut lines = String::new();
        for i in 0..96 {
            let (drug, adr) = (drugs[i % 6], reactions[i % 6]);
            let text = match i % 4 {
                0 => format!("A patient {} years old developed {adr} after {drug}.", 20 + i / 2),
                1 => format!("We report {adr} that was induced by {drug} in case {}.", i / 2),
                2 => format!("{drug} caused severe {adr} in patient {}.", i / 2),
                _ => format!("Case {}: {adr} resolved when {drug} was stopped.", i / 2),
            };
            let record = json!({"text": text, "drug": drug, "adr": adr, "doc_id": i / 2});
            lines += &format!("{record}\n");
        }
        fs::write(folder.path().join("pairs.jsonl"), lines).unwrap();
        fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn train(&self, out: &str, more: &[&str]) -> Command {
        let mut command = crag();
        command.current_dir(self.folder.path());
        command.args([
            "train",
            "--recipe",
            "recipe.toml",
            "--train",
            "pairs.jsonl",
            "--device",
            "cpu",
            "--out",
            out,
        ]);
        command.args(more);
        command
    }

    fn weights(&self, out: &str) -> Vec<u8> {
        fs::read(self.path(out).join("model.safetensors")).unwrap()
    }

    fn json(&self, out: &str, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(out).join(name)).unwrap()).unwrap()
    }
}

fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

/// F1 at a threshold.
fn f1(scored: &[(f64, bool)], threshold: f64) -> f64 {
    let hits = scored.iter().filter(|(p, label)| *label && *p >= threshold).count();
    let called = scored.iter().filter(|(p, _)| *p >= threshold).count();
    let positives = scored.iter().filter(|(_, label)| *label).count();
    2.0 * hits as f64 / (called + positives) as f64
}

#[test]
fn a_trained_folder_is_whole_and_scores_as_it_was_judged() {
    let case = Case::new();
    // Labelled pairs to validate on, so that the same pairs can be scored afterwards.
    let mut lines = String::new();
    for i in 0..40 {
        let (drug, adr) = (["aspirin", "lithium"][i % 2], ["bleeding", "tremor"][i / 2 % 2]);
        let text = format!("In case {i} {adr} followed {drug} and was severe.");
        let label = i % 2 == i / 2 % 2;
        lines += &format!(
            "{}\n",
            json!({"text": text, "drug": drug, "adr": adr, "doc_id": 1000 + i, "label": label})
        );
    }
    fs::write(case.path("held-out.jsonl"), lines).unwrap();
    let assert = case.train("out", &["--valid", "held-out.jsonl"]).assert().success();
    assert!(
        stderr(&assert).contains("on the validation pairs"),
        "{}",
        stderr(&assert)
    );
    assert!(!case.path("out.partial").exists());
    let mut names: Vec<String> = fs::read_dir(case.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "config.json",
        "crag.json",
        "curve.svg",
        "log.jsonl",
        "manifest.json",
        "model.safetensors",
        "tokenizer_config.json",
        "vocab.txt",
    ];
    assert_eq!(names, expected);

    let manifest = case.json("out", "manifest.json");
    let best = &manifest["best"]["validation"];
    let threshold = case.json("out", "crag.json")["threshold"].as_f64().unwrap();
    assert!((threshold - best["threshold"].as_f64().unwrap()).abs() < 1e-7);
    let output = crag()
        .current_dir(case.folder.path())
        .args(["score", "--model", "out", "--device", "cpu", "held-out.jsonl"])
        .assert()
        .success();
    let scored: Vec<(f64, bool)> = json_lines(&output.get_output().stdout)
        .iter()
        .map(|record| {
            let probability = record["probability"].as_f64().unwrap();
            assert_eq!(record["causal"], json!(probability >= threshold));
            (probability, record["label"].as_bool().unwrap())
        })
        .collect();
    assert!((f1(&scored, threshold) - best["f1"].as_f64().unwrap()).abs() < 1e-12);
    let log = json_lines(&fs::read(case.path("out/log.jsonl")).unwrap());
    let count = |event: &str| log.iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("epoch"), count("epoch_end")), (3, 3));
    assert_eq!(
        count("step"),
        6 + 2 * 12,
        "96 pairs and as many mined negatives in steps of 16"
    );
    let curve = fs::read_to_string(case.path("out/curve.svg")).unwrap();
    assert!(curve.starts_with("<svg") && curve.ends_with("</svg>\n"));
    let points = curve.matches("<circle").count();
    assert_eq!(points, 1 + 2 + 2 * 2, "a point an epoch: both losses, F1 and ROC-AUC");
}

#[test]
fn the_same_seed_gives_the_same_bytes_for_any_number_of_threads() {
    let case = Case::new();
    case.train("one", &["--threads", "1"]).assert().success();
    case.train("three", &["--threads", "3"]).assert().success();
    case.train("other", &["--seed", "8"]).assert().success();
    assert!(case.weights("one") == case.weights("three"));
    assert!(case.weights("one") != case.weights("other"));
    for name in ["vocab.txt", "crag.json", "config.json", "curve.svg"] {
        let read = |out: &str| fs::read(case.path(out).join(name)).unwrap();
        assert!(read("one") == read("three"), "{name}");
    }
}

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
    // What a kill in the middle of a write leaves behind.
    fs::write(case.path("cut.partial/.state-99.safetensors.1-0.partial"), "torn").unwrap();
    let other = case.train("cut", &["--resume", "--epochs", "3"]).assert().code(2);
    assert!(stderr(&other).contains("other settings"), "{}", stderr(&other));
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
fn what_cannot_be_trained_on_is_one_clear_error_and_leaves_nothing() {
    let case = Case::new();
    fs::write(case.path("empty.jsonl"), "\n").unwrap();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    fs::write(case.path("none.jsonl"), lines.replace("\"drug\"", "\"medicine\"")).unwrap();
    let one = "{\"text\":\"a caused b\",\"drug\":\"a\",\"adr\":\"b\",\"doc_id\":1}\n";
    fs::write(case.path("one.jsonl"), one.repeat(4) + &one.replace(":1}", ":2}")).unwrap();
    let unrelated = lines.replace("\"doc_id\"", "\"label\":0,\"doc_id\"");
    fs::write(case.path("unrelated.jsonl"), unrelated).unwrap();
    fs::write(
        case.path("null.jsonl"),
        lines.replace("\"doc_id\"", "\"label\":null,\"doc_id\""),
    )
    .unwrap();
    fs::copy(case.path("pairs.jsonl"), case.path("same.jsonl")).unwrap();
    fs::hard_link(case.path("pairs.jsonl"), case.path("link.jsonl")).unwrap();
    let cases: [(&[&str], i32, &str); 23] = [
        (&["--train", "empty.jsonl"], 1, "empty.jsonl: the file is empty"),
        (&["--train", "none.jsonl"], 1, "no line is a labelled pair"),
        (&["--train", "missing.jsonl"], 1, "missing.jsonl"),
        (&["--train", "unrelated.jsonl"], 1, "no related pairs"),
        (
            &["--train", "pairs.jsonl", "--negatives", "none"],
            1,
            "only related pairs",
        ),
        (
            &["--train", "one.jsonl", "--valid-fraction", "0.5"],
            1,
            "no negative could be mined",
        ),
        (
            &["--train", "pairs.jsonl", "--learning-rate=-1"],
            2,
            "finetune.learning_rate",
        ),
        (&["--train", "pairs.jsonl", "--pooling-heads", "3"], 2, "pooling_heads"),
        (
            &["--train", "pairs.jsonl", "--backbone", "x"],
            2,
            "expected one of them",
        ),
        (&["--train", "-", "--valid", "-"], 2, "stdin"),
        (
            &["--train", "pairs.jsonl", "--document", "nope"],
            2,
            "--document nope: no record has",
        ),
        (
            &["--train", "null.jsonl"],
            1,
            "null.jsonl:1: field \"label\": none or null",
        ),
        (
            &["--train", "pairs.jsonl", "--gold", "labels"],
            2,
            "--gold labels: no record of pairs.jsonl has this field",
        ),
        (
            &["--train", "pairs.jsonl", "--width", "3000000"],
            2,
            "head.width: expected a model that fits",
        ),
        (
            &["--train", "pairs.jsonl", "--width", "3000000", "--views", "drug"],
            2,
            "head.width: expected a model that fits",
        ),
        (
            &["--train", "pairs.jsonl", "--epochs", "100000000"],
            2,
            "finetune.epochs: expected 1 to 16777216",
        ),
        (&["--train", "pairs.jsonl", "--valid-fraction", "0.001"], 2, "--valid"),
        (
            &["--train", "pairs.jsonl", "--valid", "same.jsonl", "-q"],
            1,
            "96 more are left out, since their documents are in the validation file",
        ),
        (
            &["--train", "pairs.jsonl", "link.jsonl"],
            2,
            "--train: link.jsonl is given twice",
        ),
        (
            &["--train", "pairs.jsonl", "--valid", "same.jsonl", "same.jsonl"],
            2,
            "--valid: same.jsonl is given twice",
        ),
        (
            &["--train", "pairs.jsonl", "--learning-rate", "-1"],
            2,
            "finetune.learning_rate",
        ),
        (
            &["--train", "pairs.jsonl", "--gold", "drug"],
            1,
            "field \"drug\": expected 0, 1",
        ),
        (
            &["--train", "pairs.jsonl", "--config", "recipe.toml"],
            2,
            "recipe.toml:14: unknown key \"contrastive\"",
        ),
    ];
    for (arguments, code, message) in cases {
        let mut command = crag();
        command.current_dir(case.folder.path());
        command.args(["train", "--recipe", "recipe.toml", "--device", "cpu", "--out", "out"]);
        let assert = command.args(arguments).assert();
        let said = stderr(&assert);
        assert.code(code);
        assert!(said.contains(message), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        let left = ["out", "out.partial"].map(|name| case.path(name).exists());
        assert_eq!(left, [false, false], "{arguments:?}");
    }
}

#[test]
fn a_diverging_loss_is_an_error_and_the_last_state_is_kept() {
    let case = Case::new();
    let assert = case
        .train("out", &["--learning-rate", "1e30", "--save-every", "0"])
        .assert()
        .code(1);
    let said = stderr(&assert);
    assert!(
        said.contains("the loss is") && said.contains("--force and a lower learning rate"),
        "{said}"
    );
    assert!(!case.path("out").exists() && case.path("out.partial/state.json").exists());
    for (flag, value, name) in [
        ("--focal-gamma", "1e308", "finetune.focal_gamma"),
        ("--temperature", "1e-300", "contrastive.temperature"),
    ] {
        let said = stderr(&case.train("out", &["--force", flag, value]).assert().code(1));
        let expected = format!("--force and another {name} than {value} (usual: ");
        assert!(said.contains(&expected), "{said}");
    }
    case.train("out", &["--force"]).assert().success();
    assert!(case.path("out/model.safetensors").exists());
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
#[cfg(unix)]
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
fn flags_and_the_recipe_may_come_from_environment_and_config() {
    let case = Case::new();
    let config =
        "[train]\nrecipe = \"recipe.toml\"\ntrain = [\"pairs.jsonl\"]\nviews = \"bilinear,product\"\nepochs = 1\n";
    fs::write(case.path("crag.toml"), config).unwrap();
    let mut command = crag();
    command.current_dir(case.folder.path());
    command.args(["train", "--config", "crag.toml", "--device", "cpu", "--out", "out"]);
    command.env("CRAG_TRAIN_SEED", "9").assert().success();
    let manifest = case.json("out", "manifest.json");
    assert_eq!(
        (&manifest["recipe"]["seed"], &manifest["recipe"]["finetune"]["epochs"]),
        (&json!(9), &json!(1))
    );
    assert_eq!(manifest["recipe"]["backbone"]["hidden_size"], 16);
    let from = |setting: &str| {
        let rows = manifest["settings"].as_array().unwrap();
        rows.iter().find(|row| row["setting"] == setting).unwrap()["from"].clone()
    };
    assert_eq!(from("seed"), "environment CRAG_TRAIN_SEED");
    assert_eq!(from("epochs"), "config crag.toml:5");
}

#[test]
fn packed_files_and_other_names_of_fields_are_read() {
    let case = Case::new();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    let renamed = lines.replace("\"doc_id\"", "\"caused\":true,\"case\"");
    fs::write(case.path("renamed.jsonl.gz"), gzip(renamed.as_bytes())).unwrap();
    let mut command = crag();
    command.current_dir(case.folder.path());
    command.args([
        "train",
        "--recipe",
        "recipe.toml",
        "--train",
        "renamed.jsonl.gz",
        "--device",
        "cpu",
    ]);
    command.args([
        "--out",
        "renamed",
        "--gold",
        "caused",
        "--document",
        "case",
        "--epochs",
        "1",
    ]);
    command.assert().success();
    let manifest = case.json("renamed", "manifest.json");
    // 48 documents of two pairs; a tenth of the documents is held out.
    assert_eq!(manifest["data"]["valid"]["pairs"], 10);
    assert_eq!(manifest["inputs"][0]["name"], "renamed.jsonl.gz");
    assert_eq!(manifest["outcome"]["status"], "complete");
}

#[test]
fn lines_that_are_no_pairs_cost_themselves_and_exit_code_3() {
    let case = Case::new();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    let bad = "not json\n{\"text\":\"no mention\",\"drug\":\"aspirin\",\"adr\":\"bleeding\",\"doc_id\":3}\n";
    fs::write(case.path("pairs.jsonl"), format!("{bad}{lines}")).unwrap();
    let assert = case.train("out", &["--epochs", "1"]).assert().code(3);
    let said = stderr(&assert);
    assert!(
        said.contains("pairs.jsonl:1: ") && said.contains("pairs.jsonl:2: "),
        "{said}"
    );
    assert_eq!(case.json("out", "manifest.json")["data"]["rejected_lines"], 2);
}

#[test]
fn what_is_doubtful_about_pairs_is_said() {
    let case = Case::new();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    let assert = case.train("unlabelled", &["--epochs", "1"]).assert().success();
    assert!(stderr(&assert).contains("taken as related"), "{}", stderr(&assert));

    // The same texts under another document's name, and numbers as data frames write them.
    let held_out: String = lines.lines().take(16).map(|line| line.to_owned() + "\n").collect();
    fs::write(case.path("renamed.jsonl"), held_out.replace("\"doc_id\"", "\"pmid\"")).unwrap();
    let renamed = case
        .train("renamed", &["--valid", "renamed.jsonl", "--epochs", "1"])
        .assert()
        .success();
    assert!(
        stderr(&renamed).contains("16 pairs to train on have a text that is validated on too"),
        "{}",
        stderr(&renamed)
    );
    let floats: String = held_out
        .lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            record["doc_id"] = json!(record["doc_id"].as_f64());
            format!("{record}\n")
        })
        .collect();
    assert!(floats.contains("\"doc_id\":0.0"));
    fs::write(case.path("floats.jsonl"), floats).unwrap();
    let same = case
        .train("floats", &["--valid", "floats.jsonl", "--epochs", "1"])
        .assert()
        .success();
    assert!(
        stderr(&same).contains("16 pairs are left out of training"),
        "{}",
        stderr(&same)
    );

    let labelled = |label: u8| lines.replace("\"doc_id\"", &format!("\"label\":{label},\"doc_id\""));
    fs::write(case.path("both.jsonl"), labelled(1) + &labelled(0)).unwrap();
    let both = case.train("both", &["--train", "both.jsonl", "--epochs", "1"]);
    let assert = { both }.assert().success();
    assert!(
        stderr(&assert).contains("pairs come both as related and as unrelated"),
        "{}",
        stderr(&assert)
    );

    let cut = case
        .train("cut", &["--max-length", "8", "--epochs", "1"])
        .assert()
        .success();
    assert!(
        stderr(&cut).contains("contexts have no whole mention in their first 8 tokens"),
        "{}",
        stderr(&cut)
    );
}

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
        ".best-3.safetensors.17-0.partial",
        "state.json.tmp",
    ] {
        fs::write(work(name), "").unwrap();
    }
    fs::create_dir(work("done")).unwrap();
    for name in ["config.json.tmp", ".model.safetensors.17-0.partial", "vocab.txt"] {
        fs::write(work("done").join(name), "").unwrap();
    }
    case.train("out", &["--epochs", "1", "--resume"]).assert().success();
    assert!(case.path("out/model.safetensors").exists() && !case.path("out.partial").exists());
}

#[test]
fn a_damaged_state_is_one_clear_error() {
    let case = Case::new();
    case.train("out", &["--learning-rate", "1e30", "--save-every", "0"])
        .assert()
        .code(1);
    let states = fs::read_dir(case.path("out.partial"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for path in states.filter(|path| path.to_string_lossy().ends_with(".safetensors")) {
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(100)
            .unwrap();
    }
    let assert = case
        .train("out", &["--learning-rate", "1e30", "--resume"])
        .assert()
        .code(1);
    let said = stderr(&assert);
    assert!(
        said.contains("begin again with --force") && !said.contains("goes on"),
        "{said}"
    );
}

#[test]
fn documents_of_the_validation_file_are_left_out_of_training() {
    let case = Case::new();
    let lines = fs::read_to_string(case.path("pairs.jsonl")).unwrap();
    let held_out: Vec<&str> = lines.lines().take(16).collect();
    fs::write(case.path("held-out.jsonl"), held_out.join("\n")).unwrap();
    let assert = case
        .train("out", &["--valid", "held-out.jsonl", "--epochs", "1"])
        .assert()
        .success();
    assert!(
        stderr(&assert).contains("16 pairs are left out of training"),
        "{}",
        stderr(&assert)
    );
    let data = &case.json("out", "manifest.json")["data"];
    assert_eq!(
        (&data["train"]["pairs"], &data["valid"]["pairs"]),
        (&json!(80), &json!(16))
    );
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
#[cfg(unix)]
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

/// The drug encoder of a fixture as a BERT checkpoint, its names behind `prefix`.
fn backbone(folder: &Path, prefix: &str) -> (PathBuf, std::collections::HashMap<String, candle_core::Tensor>) {
    let source = fixture("model/mean");
    let folder = folder.join(format!("backbone-{}", prefix.trim_end_matches('.')));
    fs::create_dir(&folder).unwrap();
    for name in ["config.json", "vocab.txt", "tokenizer_config.json"] {
        fs::copy(source.join(name), folder.join(name)).unwrap();
    }
    let all = candle_core::safetensors::load(source.join("model.safetensors"), &candle_core::Device::Cpu).unwrap();
    let encoder: std::collections::HashMap<String, candle_core::Tensor> = all
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("drug_encoder.")?.to_owned(), tensor)))
        .collect();
    let mut stored: std::collections::HashMap<String, candle_core::Tensor> = encoder
        .iter()
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()))
        .collect();
    if !prefix.is_empty() {
        let bias = candle_core::Tensor::zeros(3, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        stored.insert("cls.predictions.bias".to_owned(), bias);
    }
    candle_core::safetensors::save(&stored, folder.join("model.safetensors")).unwrap();
    (folder, encoder)
}

#[test]
fn both_encoders_begin_from_the_backbone_and_markers_from_its_mean() {
    let case = Case::new();
    for prefix in ["", "bert."] {
        let (folder, encoder) = backbone(case.folder.path(), prefix);
        let out = format!("out-{}", prefix.len());
        let mut command = crag();
        command.current_dir(case.folder.path());
        // A step too small to move any f32: the weights written are those begun with.
        command.args([
            "train",
            "--train",
            "pairs.jsonl",
            "--device",
            "cpu",
            "--out",
            &out,
            "--learning-rate",
            "1e-30",
        ]);
        command.args([
            "--contrastive-epochs",
            "0",
            "--epochs",
            "1",
            "--width",
            "8",
            "--pooling",
            "cls",
        ]);
        command.args(["--backbone", folder.to_str().unwrap()]);
        command.assert().success();
        let weights = case.path(&out).join("model.safetensors");
        let trained = candle_core::safetensors::load(weights, &candle_core::Device::Cpu).unwrap();
        let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut compared = 0;
        for side in ["drug_encoder", "adr_encoder"] {
            for (name, begun) in encoder.iter().filter(|(name, _)| !name.starts_with("pooler.")) {
                let begun = begun.to_dtype(candle_core::DType::F32).unwrap();
                let found = &trained[&format!("{side}.{name}")];
                let rows = begun.dim(0).unwrap();
                assert_eq!(values(&found.narrow(0, 0, rows).unwrap()), values(&begun), "{name}");
                compared += 1;
                if name == "embeddings.word_embeddings.weight" {
                    let mean = values(&begun.mean(0).unwrap());
                    // The fixture has rows for its own four markers; more are added only where the table is short.
                    for row in rows..found.dim(0).unwrap() {
                        assert_eq!(values(&found.get(row).unwrap()), mean);
                    }
                }
            }
        }
        assert!(compared > 20, "{compared}");
        let score = crag()
            .current_dir(case.folder.path())
            .args([
                "score",
                "--model",
                &out,
                "--device",
                "cpu",
                "--text",
                "Aspirin caused bleeding.",
            ])
            .args(["--drug", "Aspirin", "--adr", "bleeding"])
            .assert()
            .success();
        assert!(!score.get_output().stdout.is_empty());
    }
}

#[test]
fn a_backbone_whose_vocabulary_is_another_models_is_told() {
    let case = Case::new();
    let (folder, _) = backbone(case.folder.path(), "bert.");
    let vocabulary = fs::read_to_string(folder.join("vocab.txt")).unwrap();
    fs::write(
        case.path("backbone.toml"),
        RECIPE
            .split("[head]")
            .nth(1)
            .map(|rest| format!("[head]{rest}"))
            .unwrap(),
    )
    .unwrap();
    let train = |out: &str| {
        let mut command = crag();
        command.current_dir(case.folder.path());
        command.args([
            "train",
            "--recipe",
            "backbone.toml",
            "--train",
            "pairs.jsonl",
            "--device",
            "cpu",
        ]);
        command.args(["--epochs", "1", "--out", out, "--backbone"]).arg(&folder);
        command.assert()
    };
    let head: String = vocabulary
        .lines()
        .take(300)
        .map(|line| line.to_owned() + "\n")
        .collect();
    fs::write(folder.join("vocab.txt"), head).unwrap();
    let cut = stderr(&train("cut").success());
    assert!(cut.contains("if its vocabulary was cut short"), "{cut}");
    let more: String = (0..50).map(|i| format!("zz{i}\n")).collect();
    fs::write(folder.join("vocab.txt"), vocabulary + &more).unwrap();
    let long = stderr(&train("long").code(1));
    assert!(long.contains("are they of one model?"), "{long}");
}

#[test]
fn a_backbone_on_whose_tokenizer_the_library_panics_is_one_line_with_the_reason() {
    let case = Case::new();
    let (folder, _) = backbone(case.folder.path(), "");
    let tokenizer = fs::read_to_string(fixture("model/safetensors/tokenizer.json")).unwrap();
    let damaged = tokenizer.replace(r###""prefix":"##""###, r#""prefix":"\ud800""#);
    assert_ne!(damaged, tokenizer);
    fs::write(folder.join("tokenizer.json"), damaged).unwrap();
    let mut command = crag();
    command.current_dir(case.folder.path());
    command.args([
        "train",
        "--train",
        "pairs.jsonl",
        "--device",
        "cpu",
        "--out",
        "out",
        "--backbone",
    ]);
    let said = stderr(&command.arg(&folder).assert().code(1));
    assert!(
        said.contains("tokenizer.json")
            && said.contains("the tokenizers library cannot read it (")
            && !said.contains("panicked"),
        "{said}"
    );
}

#[test]
fn a_folder_that_holds_no_bert_is_refused_as_a_backbone() {
    let case = Case::new();
    let mut command = crag();
    command.current_dir(case.folder.path());
    command.args([
        "train",
        "--train",
        "pairs.jsonl",
        "--device",
        "cpu",
        "--out",
        "out",
        "--backbone",
    ]);
    let assert = command.arg(fixture("model/mean")).assert().code(1);
    assert!(stderr(&assert).contains("not a BERT backbone"), "{}", stderr(&assert));
}
