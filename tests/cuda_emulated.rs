//! The whole program on a GPU that is emulated (`kernels/src/cuda/emulation`), where there is none: that it computes
//! what the CPU computes, in any batch; what it does when memory runs out or the GPU is lost; and the tests of scoring over again.
//!
//! An emulated GPU shows that calls, arguments, sizes and the order of work are right, not that a real one's libraries and
//! instructions do what they say.
#![cfg(all(feature = "cuda", target_os = "linux"))]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use assert_cmd::assert::OutputAssertExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crag::kernels::cuda::device::COMPUTE_CAP;

use crate::common::{crag, json_lines};

const SOURCES: [&str; 6] = [
    "driver.cpp",
    "memory.cpp",
    "launches.cpp",
    "libraries.cpp",
    "kernels.cpp",
    "candle.cpp",
];

/// A folder with the emulated GPU under the names of all of NVIDIA's libraries, or a message and none.
fn libraries() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<TempDir>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/src/cuda/emulation");
        let folder = tempfile::tempdir().unwrap();
        let driver = folder.path().join("libcuda.so.1");
        let compiled = Command::new("g++")
            .args(["-std=c++17", "-O2", "-w", "-fPIC", "-shared", "-pthread", "-o"])
            .arg(&driver)
            .args(SOURCES.map(|name| sources.join(name)))
            .output();
        match compiled {
            Ok(output) if output.status.success() => {}
            // An old compiler is no fault of the sources.
            Ok(output) if sources.exists() && !String::from_utf8_lossy(&output.stderr).contains("_Float16") => {
                panic!("{}", String::from_utf8_lossy(&output.stderr))
            }
            _ => {
                eprintln!("skipped: needs g++ with _Float16, and the source tree");
                return None;
            }
        }
        let others = ["libcurand.so.10".to_owned()];
        let blas = [12, 13].map(|major| [format!("libcublas.so.{major}"), format!("libcublasLt.so.{major}")]);
        for name in blas.into_iter().flatten().chain(others) {
            symlink(&driver, folder.path().join(name)).unwrap();
        }
        Some(folder)
    });
    folder.as_ref().map(TempDir::path)
}

/// `crag` on the emulated GPU, if that can be had.
fn on_gpu(arguments: &[&str]) -> Option<Command> {
    let mut command = on_cpu(arguments);
    command
        .args(["--device", "cuda"])
        .env("LD_LIBRARY_PATH", libraries()?)
        .env("EMULATED_GPU_CAPABILITY", CAPABILITY);
    Some(command)
}

/// What candle's kernels are compiled for, without the point: from 9.0 on they run nowhere else.
const CAPABILITY: &str = if COMPUTE_CAP.is_empty() { "90" } else { COMPUTE_CAP };

fn on_cpu(arguments: &[&str]) -> Command {
    let mut command = Command::new(crag().get_program());
    command
        .args(arguments)
        .env_remove("CRAG_DEVICE")
        .env("HF_HUB_OFFLINE", "1");
    command
}

const SCORE: [&str; 4] = ["score", "--offline", "--model", "demo"];

/// Forty texts of one to seven sentences, no two alike, on eight drugs with five of eight reactions each.
fn pairs(folder: &Path) -> String {
    let drugs = "metformin ibuprofen lithium warfarin aspirin digoxin heparin insulin";
    let reactions = "nausea rash tremor bleeding dizziness jaundice fever ataxia";
    let name = |names: &'static str, i: usize| names.split(' ').nth(i % 8).unwrap();
    let lines: String = (0..40)
        .map(|i| {
            let (drug, adr) = (name(drugs, i), name(reactions, i + i / 8));
            let more = "The patient was seen again after a week, and was well. ".repeat(i % 7);
            let text = format!("Case {i}: {drug} was followed by {adr} within {} days. {more}", i + 2);
            format!("{}\n", json!({"id": i, "text": text, "drug": drug, "adr": adr}))
        })
        .collect();
    let path = folder.join("pairs.jsonl");
    fs::write(&path, lines).unwrap();
    path.to_str().unwrap().to_owned()
}

fn probabilities(output: &[u8]) -> Vec<f64> {
    let probability = |record: &Value| record["probability"].as_f64().unwrap_or_else(|| panic!("{record}"));
    json_lines(output).iter().map(probability).collect()
}

/// The one line on stderr that is an error.
fn error_of(command: &mut Command) -> String {
    let assert = command.assert().code(1);
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    let errors: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("GPU") || line.contains("Driver"))
        .collect();
    assert_eq!(errors.len(), 1, "{said}");
    errors[0].to_owned()
}

#[test]
fn probabilities_are_the_cpu_s() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(folder.path());
    let cpu = on_cpu(&SCORE).args(["--device", "cpu", &pairs]).output().unwrap();
    let cpu = probabilities(&cpu.stdout);
    assert_eq!(cpu.len(), 40);
    for (dtype, limit) in [("f32", 1e-6), ("f16", 1e-3), ("bf16", 1e-2)] {
        let Some(mut command) = on_gpu(&SCORE) else { return };
        command.args(["--dtype", dtype, &pairs]).env("EMULATED_GPU_LOG", "1");
        let assert = command.assert().code(0);
        let gpu = probabilities(&assert.get_output().stdout);
        // Every layer has an algorithm of its own.
        let launched = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert!(
            launched.contains("cublasLtMatmul") && !launched.contains("cublasGemm"),
            "{launched}"
        );
        // The driver would compile candle's module of unary operations for seconds at a first start.
        assert!(!launched.contains("ucopy"), "{launched}");
        assert_eq!(gpu.len(), 40);
        for (i, (gpu, cpu)) in gpu.iter().zip(&cpu).enumerate() {
            assert!((gpu - cpu).abs() <= limit, "{dtype}, pair {i}: {gpu}, on the CPU {cpu}");
        }
    }
}

/// The libraries of the emulated GPU choose by the number of rows in which order they add up.
#[test]
fn no_cut_into_batches_changes_a_bit() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(folder.path());
    for dtype in ["f32", "f16", "bf16"] {
        let mut outputs = Vec::new();
        for arguments in [
            &["--batch-tokens", "16384"][..],
            &["--batch-tokens", "90"],
            &["--no-reuse"],
        ] {
            let Some(mut command) = on_gpu(&SCORE) else { return };
            let assert = command
                .args(["--dtype", dtype, &pairs])
                .args(arguments)
                .assert()
                .code(0);
            outputs.push(assert.get_output().stdout.clone());
        }
        assert!(outputs.iter().all(|output| *output == outputs[0]), "{dtype}");
        assert_eq!(outputs[0].iter().filter(|&&byte| byte == b'\n').count(), 40);
    }
}

#[test]
fn batches_that_do_not_fit_into_memory_are_cut_and_give_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(folder.path());
    let Some(mut command) = on_gpu(&SCORE) else { return };
    let wanted = command.arg(&pairs).assert().code(0).get_output().stdout.clone();
    // The model takes 8 MB, cuBLAS 34 MB, a batch of all texts 25 MB.
    let mut cut = 0;
    for megabytes in [44, 48, 56] {
        let Some(mut command) = on_gpu(&SCORE) else { return };
        command
            .args(["--batch-tokens", "100000", "-v", &pairs])
            .env("EMULATED_GPU_MEMORY", (megabytes * 1_000_000).to_string())
            .env("EMULATED_GPU_LOG", "1");
        let assert = command.assert().code(0);
        let output = assert.get_output();
        assert_eq!(output.stdout, wanted, "{megabytes} MB");
        let said = String::from_utf8_lossy(&output.stderr);
        let embedded = said.lines().find(|line| line.ends_with("embed_f32")).unwrap();
        let batches: u32 = embedded.split_whitespace().nth(2).unwrap().parse().unwrap();
        // A slow machine may get the lines in several windows, each a batch of either encoder; one more of both warms up.
        let (before, _) = said.split_once(" window").unwrap();
        let windows: u32 = before.split_whitespace().last().unwrap().parse().unwrap();
        let is_cut = batches > 2 * windows + 2;
        assert_eq!(
            said.contains("the GPU's memory ran out; since then batches of "),
            is_cut,
            "{said}"
        );
        cut += u32::from(is_cut);
    }
    assert!(cut >= 2, "{cut} of the runs cut a batch");
}

#[test]
fn too_little_memory_is_one_line_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(folder.path());
    for (bytes, wanted) in [
        (
            "1000000",
            "the GPU's memory is too small for the model, while loading \"",
        ),
        ("38000000", "the GPU's memory is too small for even one text"),
    ] {
        let Some(mut command) = on_gpu(&SCORE) else { return };
        let error = error_of(command.arg(&pairs).env("EMULATED_GPU_MEMORY", bytes));
        assert!(error.contains(wanted), "expected {wanted:?}: {error}");
        assert!(error.contains("--device cpu"), "{error}");
    }
}

#[test]
fn a_gpu_that_is_lost_ends_the_run_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(folder.path());
    let Some(mut command) = on_gpu(&SCORE) else { return };
    let wanted = command.arg(&pairs).assert().code(0).get_output().stdout.clone();
    let out = folder.path().join("out.jsonl");
    let mut unfinished = 0;
    for launches in ["200", "400", "600", "800"] {
        let arguments = ["--batch-tokens", "200", "--resume", "-o", out.to_str().unwrap(), &pairs];
        let Some(mut command) = on_gpu(&SCORE) else { return };
        command.args(arguments).env("EMULATED_GPU_LOST_AFTER", launches);
        if command.output().unwrap().status.success() {
            break;
        }
        unfinished += 1;
        let error = error_of(&mut command);
        assert!(error.contains("LAUNCH_FAILED"), "{error}");
        assert!(!out.exists());
    }
    assert!(unfinished >= 2);
    let Some(mut command) = on_gpu(&SCORE) else { return };
    command
        .args(["--resume", "-o", out.to_str().unwrap(), &pairs])
        .assert()
        .code(0);
    assert_eq!(fs::read(&out).unwrap(), wanted);
}

#[test]
fn inspect_names_the_device() {
    let Some(mut command) = on_gpu(&["inspect", "--model", "demo"]) else {
        return;
    };
    let assert = command.assert().code(0);
    let said = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    let device = said
        .lines()
        .find(|line| line.contains("cuda:0"))
        .unwrap_or_else(|| panic!("{said}"));
    let (major, minor) = CAPABILITY.split_at(CAPABILITY.len() - 1);
    let capability = format!("compute capability {major}.{minor}");
    for part in ["emulated GPU", "of 8.0 GiB free", &capability, "driver for CUDA 99.0"] {
        assert!(device.contains(part), "expected {part:?}: {device}");
    }
}

#[test]
fn kernels_for_one_gpu_of_9_0_or_newer_are_not_tried_on_another() {
    let Some(mut command) = on_gpu(&["inspect", "--model", "demo"]) else {
        return;
    };
    if !CAPABILITY.starts_with('9') || COMPUTE_CAP.is_empty() {
        return eprintln!("skipped: built for older GPUs too");
    }
    let error = error_of(command.env("EMULATED_GPU_CAPABILITY", "120"));
    assert!(
        error.contains("has compute capability 12.0, this program needs 9.0: build with CUDA_COMPUTE_CAP"),
        "{error}"
    );
}

#[test]
fn training_takes_the_steps_that_it_takes_on_the_cpu() {
    const RECIPE: &str = r#"
seed = 7
dropout = 0.0
[backbone]
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 64
vocab_size = 300
max_position_embeddings = 128
[head]
width = 16
[negatives]
kind = "random"
[contrastive]
epochs = 1
learning_rate = 1e-3
accumulation = 1
[finetune]
epochs = 1
learning_rate = 1e-3
accumulation = 1
"#;
    let folder = tempfile::tempdir().unwrap();
    let related: String = fs::read_to_string(pairs(folder.path()))
        .unwrap()
        .lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            record["doc_id"] = record["id"].clone();
            record["label"] = json!(1);
            format!("{record}\n")
        })
        .collect();
    fs::write(folder.path().join("related.jsonl"), related).unwrap();
    fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
    let arguments = ["train", "--recipe", "recipe.toml", "--train", "related.jsonl"];
    let losses = |out: &str| -> Vec<f64> {
        let log = fs::read(folder.path().join(out).join("log.jsonl")).unwrap();
        let steps = json_lines(&log).into_iter().filter(|event| event["event"] == "step");
        steps.map(|event| event["loss"].as_f64().unwrap()).collect()
    };
    let Some(mut command) = on_gpu(&arguments) else { return };
    command.args(["--out", "on-gpu"]).current_dir(&folder).assert().code(0);
    let mut command = on_cpu(&arguments);
    command
        .args(["--out", "on-cpu", "--device", "cpu"])
        .current_dir(&folder)
        .assert()
        .code(0);
    let (gpu, cpu) = (losses("on-gpu"), losses("on-cpu"));
    assert!(
        cpu.len() >= 4 && gpu.len() == cpu.len(),
        "{} and {} steps",
        gpu.len(),
        cpu.len()
    );
    for (i, (gpu, cpu)) in gpu.iter().zip(&cpu).enumerate() {
        assert!((gpu - cpu).abs() <= 1e-4 * cpu, "step {i}: {gpu}, on the CPU {cpu}");
    }
    let resumed = ["--out", "resumed", "--resume"];
    let Some(mut command) = on_gpu(&arguments) else { return };
    command.args(resumed).current_dir(&folder);
    let error = error_of(command.env("EMULATED_GPU_LOST_AFTER", "300"));
    assert!(
        error.contains("LAUNCH_FAILED") && error.contains("with --resume goes on"),
        "{error}"
    );
    let Some(mut command) = on_gpu(&arguments) else { return };
    command.args(resumed).current_dir(&folder).assert().code(0);
    let weights = |out: &str| fs::read(folder.path().join(out).join("model.safetensors")).unwrap();
    assert!(
        weights("resumed") == weights("on-gpu"),
        "other weights after the GPU was lost"
    );
    let Some(mut command) = on_gpu(&arguments) else { return };
    command
        .args(["--out", "none"])
        .current_dir(&folder)
        .env("EMULATED_GPU_MEMORY", "1000000");
    let error = error_of(&mut command);
    assert!(
        error.contains("the GPU's memory is too small") && error.contains("batch_size"),
        "{error}"
    );
}

/// Runs tests of this binary in a process of its own, in which `--device auto` finds the emulated GPU.
fn pass_on_it(tests: &[&str]) {
    let Some(libraries) = libraries() else { return };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(tests)
        .env("LD_LIBRARY_PATH", libraries)
        .env("EMULATED_GPU_CAPABILITY", CAPABILITY)
        .env("CRAG_REQUIRE_GPU", "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !said.contains(" 0 passed"), "{said}");
}

#[test]
fn the_tests_of_the_kernels_pass() {
    pass_on_it(&["cuda::gpu::"]);
}

#[test]
fn the_tests_of_scoring_pass() {
    pass_on_it(&[
        "score::",
        "lines::",
        "inputs::",
        "formats::",
        "output::",
        "shard::",
        "parity::",
    ]);
}
