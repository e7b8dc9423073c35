//! `--threads N`: no more threads than that compute, by what the kernel says of the running process.
//!
//! The model is made here: as wide where pairs are joined as the published one, so that what would be spread
//! over threads there is spread here, and tiny elsewhere.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use crag::checkpoint::write_safetensors;

use crate::common::{crag, fixture, process};

const HIDDEN: usize = 256;
const FUSION: usize = 256;
const POSITIONS: usize = 512;

/// Threads that wait for input, hand work on or write: their share of all CPU time is small.
const SHARE_OF_OTHERS: f64 = 0.35;

/// Values around 0 of a small spread; no two tensors begin alike.
fn tensor(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / 8_388_608.0 - 1.0) * 0.05
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// A folder that `crag` can score with: the tokenizer of a fixture, weights at random.
fn write_model(folder: &Path) {
    let from = fixture("model/safetensors");
    let vocabulary = fs::read_to_string(fixture("model/vocab.txt")).unwrap();
    fs::write(folder.join("vocab.txt"), &vocabulary).unwrap();
    // The four markers are added behind the vocabulary.
    let rows = vocabulary.lines().count() + 4;
    let config = fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    for (key, value) in [
        ("vocab_size", rows),
        ("hidden_size", HIDDEN),
        ("num_attention_heads", 4),
        ("num_hidden_layers", 1),
        ("intermediate_size", HIDDEN),
        ("max_position_embeddings", POSITIONS),
    ] {
        config[key] = value.into();
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();

    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    for side in ["drug", "adr"] {
        let e = format!("{side}_encoder");
        let mut add = |name: &str, shape: &[usize]| shapes.push((format!("{e}.{name}"), shape.to_vec()));
        add("embeddings.word_embeddings.weight", &[rows, HIDDEN]);
        add("embeddings.position_embeddings.weight", &[POSITIONS, HIDDEN]);
        add("embeddings.token_type_embeddings.weight", &[2, HIDDEN]);
        add("embeddings.LayerNorm.weight", &[HIDDEN]);
        add("embeddings.LayerNorm.bias", &[HIDDEN]);
        for name in [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ] {
            add(&format!("encoder.layer.0.{name}.weight"), &[HIDDEN, HIDDEN]);
            add(&format!("encoder.layer.0.{name}.bias"), &[HIDDEN]);
        }
        for name in ["attention.output", "output"] {
            add(&format!("encoder.layer.0.{name}.LayerNorm.weight"), &[HIDDEN]);
            add(&format!("encoder.layer.0.{name}.LayerNorm.bias"), &[HIDDEN]);
        }
        shapes.push((format!("{side}_projection.0.weight"), vec![FUSION, HIDDEN]));
        shapes.push((format!("{side}_projection.0.bias"), vec![FUSION]));
    }
    shapes.push(("bilinear.weight".into(), vec![FUSION, FUSION, FUSION]));
    shapes.push(("bilinear.bias".into(), vec![FUSION]));
    shapes.push(("classifier.0.weight".into(), vec![32, 3 * FUSION]));
    shapes.push(("classifier.0.bias".into(), vec![32]));
    shapes.push(("classifier.2.weight".into(), vec![1, 32]));
    shapes.push(("classifier.2.bias".into(), vec![1]));
    let tensors: Vec<(String, Tensor)> = shapes
        .into_iter()
        .enumerate()
        .map(|(i, (name, shape))| (name, tensor(&shape, i as u64 + 1)))
        .collect();
    write_safetensors(&folder.join("model.safetensors"), &tensors).unwrap();
    let settings = r#"{"pooling": "mean", "views": ["bilinear", "product", "abs_diff"]}"#;
    fs::write(folder.join("crag.json"), settings).unwrap();
}

/// CPU time of each thread of a process, in clock ticks, by thread id, with the thread's name.
fn sample(pid: u32, threads: &mut BTreeMap<u64, (String, u64)>) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return;
    };
    for task in tasks.flatten() {
        // A thread may end between the listing and the reading.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else {
            continue;
        };
        // "tid (name) state …": user and system time are the 12th and 13th fields behind the name.
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else {
            continue;
        };
        let fields: Vec<u64> = stat[close + 1..]
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let tid = task.file_name().to_string_lossy().parse().unwrap();
        threads.insert(tid, (stat[open + 1..close].to_owned(), fields[11] + fields[12]));
    }
}

/// Scores `lines` and returns the answers and what each thread was called and used.
fn score(model: &Path, lines: &str, threads: usize) -> (Vec<u8>, Vec<(String, u64)>) {
    let mut command = process(&crag());
    // What the libraries would take as a number of threads must not decide.
    command.env("RAYON_NUM_THREADS", "7").env("CANDLE_NUM_THREADS", "7");
    command.args([
        "score",
        "--device",
        "cpu",
        "-q",
        "--missing-entity",
        "unmarked",
        "--model",
    ]);
    command.arg(model).args(["--threads", &threads.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (pid, mut stdin) = (child.id(), child.stdin.take().unwrap());
    let lines = lines.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut answers = Vec::new();
        std::io::Read::read_to_end(&mut stdout, &mut answers).map(|_| answers)
    });
    let mut found = BTreeMap::new();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        sample(pid, &mut found);
        assert!(started.elapsed() < Duration::from_secs(300), "the run does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    writer.join().unwrap().unwrap();
    (reader.join().unwrap().unwrap(), found.into_values().collect())
}

#[test]
fn no_more_threads_compute_than_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let line = |i: usize| {
        let text = format!("Patient {} had severe bleeding after {} mg of aspirin.", i % 40, i % 7);
        format!(r#"{{"id": {i}, "text": "{text}", "drug": "aspirin", "adr": "bleeding"}}"#) + "\n"
    };
    let lines: String = (0..2500).map(line).collect();
    let mut answers = Vec::new();
    for count in [1, 2, 3] {
        let (answer, threads) = score(folder.path(), &lines, count);
        answers.push(answer);
        let named = |prefix: &str| threads.iter().filter(|(name, _)| name.starts_with(prefix)).count();
        let what = format!("--threads {count}: {threads:?}");
        assert_eq!(named("crag-compute"), count, "{what}");
        assert!(named("crag-load") <= count, "{what}");
        let known = ["crag-compute", "crag-load", "crag-reader", "crag-stage", "crag-signals"];
        for (name, _) in &threads {
            let is_known = name == "crag" || known.iter().any(|known| name.starts_with(known));
            assert!(is_known, "{name} in {what}");
        }
        let time = |computes: bool| -> u64 {
            let of = threads
                .iter()
                .filter(|(name, _)| (name.starts_with("crag-compute") || name.starts_with("crag-load")) == computes);
            of.map(|(_, ticks)| ticks).sum()
        };
        // Ticks are 10 ms: a short run is too coarse for a share.
        let (computing, others) = (time(true), time(false));
        assert!(
            (others as f64) < SHARE_OF_OTHERS * (computing + others) as f64 + 5.0,
            "{what}"
        );
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "answers differ");
    assert_eq!(answers[0].iter().filter(|&&byte| byte == b'\n').count(), 2500);
}
