//! `--dtype` on the CPU through the binary: how far answers are from f32, and who says what is emulated.

use serde_json::Value;

use crate::common::{crag, fixture, json_lines};

/// Largest difference of a probability from the portable kernel's f32, over the fixtures of which the encoders are
/// random and small: 24 wide, so that few roundings average out.
const TOLERANCES: [(&str, f64); 2] = [("bf16", 1e-2), ("int8", 4e-2)];

const KERNELS: [&str; 5] = ["portable", "neon", "avx2", "avx512", "amx"];

fn on_cpu(arguments: &[&str]) -> assert_cmd::Command {
    let mut command = crag();
    command
        .args(arguments)
        .args(["--device", "cpu"])
        .env_remove("CRAG_DEVICE");
    command
}

/// What the kernel of that setting is called in that precision; nothing if this machine lacks it.
fn kernel(setting: &str, dtype: &str) -> Option<String> {
    let mut command = on_cpu(&["inspect", "--model", "demo", "--json", "--dtype", dtype]);
    let output = command.env("CRAG_KERNEL", setting).output().unwrap();
    if !output.status.success() {
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(&format!("this machine has no {setting}")), "{error}");
        eprintln!("skipped: {}", error.trim());
        return None;
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    Some(report["device"].as_str().unwrap().to_owned())
}

fn probabilities(model: &str, kernel: &str, arguments: &[&str]) -> Vec<f64> {
    let folder = fixture(model);
    let mut command = on_cpu(&["score", "--missing-entity", "unmarked", "-q"]);
    let cases = fixture("model/cases.jsonl");
    command
        .arg("--model")
        .arg(folder)
        .arg(cases)
        .args(arguments)
        .env("CRAG_KERNEL", kernel);
    // Two of the records are there to be refused.
    let output = command.assert().code(3);
    json_lines(&output.get_output().stdout)
        .iter()
        .filter_map(|record| record["probability"].as_f64())
        .collect()
}

#[test]
fn short_formats_are_near_f32_on_every_kernel() {
    for model in ["model/safetensors", "model/mean", "model/views"] {
        let exact = probabilities(model, "portable", &["--dtype", "f32"]);
        assert!(exact.len() > 30, "{} answers", exact.len());
        for setting in KERNELS {
            for (dtype, tolerance) in TOLERANCES {
                if kernel(setting, dtype).is_none() {
                    continue;
                }
                let found = probabilities(model, setting, &["--dtype", dtype]);
                let differences = exact.iter().zip(&found).map(|(a, b)| (a - b).abs());
                let worst = differences.fold(0.0, f64::max);
                eprintln!("{model} {setting} {dtype}: off by {worst:.1e}");
                assert!(worst <= tolerance, "{model} {setting} {dtype}: off by {worst:e}");
                assert!(worst > 1e-6, "{model} {setting} {dtype}: this is f32");
            }
        }
    }
}

#[test]
fn answers_do_not_depend_on_how_the_work_is_cut_in_any_precision() {
    for setting in KERNELS {
        for dtype in ["f32", "bf16", "int8"] {
            if kernel(setting, dtype).is_none() {
                continue;
            }
            let run = |cut: &[&str]| probabilities("model/safetensors", setting, &[&["--dtype", dtype], cut].concat());
            let whole = run(&["--threads", "1"]);
            assert!(whole.len() > 30, "{} answers", whole.len());
            assert_eq!(
                run(&["--batch-tokens", "1", "--threads", "2"]),
                whole,
                "{setting} {dtype}"
            );
            assert_eq!(
                run(&["--batch-tokens", "100", "--no-reuse"]),
                whole,
                "{setting} {dtype}"
            );
        }
    }
}

#[test]
fn what_a_kernel_emulates_is_said() {
    // Where the compiler fuses, it says so.
    let portable = |dtype| kernel("portable", dtype).unwrap().replace("-fma", "");
    assert_eq!(portable("f32"), "cpu, kernel portable-f32");
    assert_eq!(portable("bf16"), "cpu, kernel portable-bf16-r2 (emulated in f32)");
    if let Some(int8) = kernel("avx2", "int8") {
        let has_dots = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" avx_vnni"));
        let expected = if has_dots {
            "vnni-r2 (bf16 emulated in f32)"
        } else {
            "-r2 (emulated in i16)"
        };
        assert_eq!(int8, format!("cpu, kernel x86_64-int8-avx2{expected}"));
    }
}

#[test]
fn auto_is_bf16_only_where_that_is_faster() {
    let is_intel = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("GenuineIntel"));
    for setting in KERNELS {
        let (Some(auto), Some(bf16)) = (kernel(setting, "auto"), kernel(setting, "bf16")) else {
            continue;
        };
        // Intel's AVX-512 multiplies bf16 at half the rate of f32.
        match bf16.contains("emulated") || setting == "avx512" && is_intel {
            true => assert!(auto.contains("-f32"), "{auto}"),
            false => assert_eq!(auto, bf16),
        }
    }
}

#[test]
fn f16_on_the_cpu_is_a_usage_error_that_names_the_way_out() {
    let assert = on_cpu(&["inspect", "--model", "demo", "--dtype", "f16"])
        .assert()
        .code(2);
    let error = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(
        error.contains("--dtype f16: the CPU does not compute in f16; use bf16"),
        "{error}"
    );
}
