//! Compiles the CUDA kernels, `src/cuda/*.cu`, to PTX; without the feature `cuda` it returns at once.
//!
//! Needs `nvcc` (`$NVCC`, a toolkit named by `$CUDA_HOME` or `$CUDA_PATH`, the `PATH`, or
//! /usr/local/cuda), no GPU and no driver. The driver of the machine that runs the program compiles
//! the PTX for its card; it must be at least as new as the toolkit, whose version is handed on so
//! that the program can say so.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &str = "src/cuda";

/// The oldest architecture with bf16 tensor cores; the driver compiles up from it.
const ARCHITECTURE: &str = "compute_80";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "CUDA_COMPUTE_CAP"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed={SOURCES}/common.cuh");
    let nvcc = find_nvcc();
    // Another toolkit in its place; cargo watches files and not the PATH.
    if nvcc.exists() {
        println!("cargo:rerun-if-changed={}", nvcc.display());
    }
    let (major, minor) = toolkit_version(&nvcc);
    println!("cargo:rustc-env=CRAG_CUDA_TOOLKIT={major}.{minor}");
    // candle's own kernels are built for this architecture or newer, where it is named
    let capability = std::env::var("CUDA_COMPUTE_CAP").unwrap_or_default();
    println!("cargo:rustc-env=CRAG_CUDA_COMPUTE_CAP={capability}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // A new file is found with the module that names it: any change there runs this again.
    println!("cargo:rerun-if-changed={SOURCES}/launch.rs");
    for file in std::fs::read_dir(SOURCES).expect("the sources are beside this script") {
        let source = file.expect("the folder can be read").path();
        let (Some(name), true) = (
            source.file_stem(),
            source.extension().is_some_and(|ending| ending == "cu"),
        ) else {
            continue;
        };
        println!("cargo:rerun-if-changed={}", source.display());
        run(Command::new(&nvcc)
            .arg(format!("-arch={ARCHITECTURE}"))
            .args(["--ptx", "-O3", "-std=c++17", "-o"])
            .arg(out.join(name).with_extension("ptx"))
            .arg(&source));
    }
}

fn find_nvcc() -> PathBuf {
    if let Some(nvcc) = std::env::var_os("NVCC") {
        return nvcc.into();
    }
    ["CUDA_HOME", "CUDA_PATH"]
        .iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from)
        .chain([PathBuf::from("/usr/local/cuda")])
        .map(|toolkit| toolkit.join("bin/nvcc"))
        .find(|nvcc| nvcc.exists())
        .unwrap_or_else(|| "nvcc".into())
}

/// `release 13.0` in `nvcc --version`.
fn toolkit_version(nvcc: &Path) -> (u32, u32) {
    let text = run(Command::new(nvcc).arg("--version"));
    text.split("release ")
        .nth(1)
        .and_then(|rest| rest.split(',').next()?.trim().split_once('.'))
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .unwrap_or_else(|| {
            panic!(
                "no `release X.Y` in the output of `{} --version`: {text}",
                nvcc.display()
            )
        })
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| {
        panic!(
            "cannot run {:?}: {e}: install the CUDA toolkit (12.0 or newer) or set NVCC or CUDA_HOME, \
             or build without the feature `cuda`",
            command.get_program()
        )
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        panic!("{command:?} failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    text
}
