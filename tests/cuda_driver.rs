//! A program built with CUDA on machines that lack some part of it, or all: a driver made for the test stands in for
//! NVIDIA's, so that no GPU is needed to see what is said.
#![cfg(all(feature = "cuda", target_os = "linux"))]

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use tempfile::TempDir;

use crate::common::crag;

/// What a driver says of itself.
const DRIVER: &str = r#"
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuInit(unsigned flags) { return flags != 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 7 : attribute == 76 ? 5 : -1;
  return device < 40;
}
int cuDeviceGetName(char *name, int length, int device) {
  const char *own = device == 41 ? "Old GPU" : "Other GPU";
  if (length < 10) return 1;
  while ((*name++ = *own++)) {}
  return 0;
}
"#;

/// A folder of libraries: a driver of the given version, and the others without a function in them.
fn libraries(version: &str) -> Option<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let compile = |name: &str, source: &str| {
        fs::write(folder.path().join("source.c"), source).unwrap();
        let mut compiler = Command::new("cc");
        compiler.current_dir(folder.path());
        compiler.args(["-shared", "-fPIC", "-o", name, "source.c"]);
        compiler.arg(format!("-DVERSION={version}"));
        compiler.output().is_ok_and(|output| output.status.success())
    };
    let mut whole = compile("libcuda.so.1", DRIVER) && compile("libcurand.so.10", "int crag_none;");
    for major in [12, 13] {
        for library in ["cublas", "cublasLt"] {
            whole &= compile(&format!("lib{library}.so.{major}"), "int crag_none;");
        }
    }
    if !whole {
        eprintln!("skipped: needs a C compiler (cc)");
    }
    whole.then_some(folder)
}

/// `crag score --device DEVICE` on one pair, with these libraries before all others.
fn score(device: &str, libraries: &Path) -> Command {
    let mut command = Command::new(crag().get_program());
    command.args(["score", "--offline", "--model", "demo", "--device", device]);
    command.args([
        "--text",
        "Metformin caused nausea.",
        "--drug",
        "Metformin",
        "--adr",
        "nausea",
    ]);
    command.env_remove("CRAG_DEVICE").env("LD_LIBRARY_PATH", libraries);
    command
}

fn assert_one_line(device: &str, libraries: &Path, wanted: &str) {
    let assert = score(device, libraries).assert().code(1).stdout("");
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    let of_device: Vec<&str> = said.lines().filter(|line| line.contains("--device")).collect();
    assert_eq!(of_device.len(), 1, "{said}");
    assert!(of_device[0].contains(wanted), "expected {wanted:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    // Where the machine may choose, the CPU computes, and why is said.
    let assert = score("auto", libraries).assert().code(0);
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(said.contains("--device auto: the GPU is not used: "), "{said}");
}

// Elsewhere rustc links by GNU ld, which keeps the libraries.
#[cfg(target_arch = "x86_64")]
#[test]
fn no_library_of_nvidia_s_is_needed_to_start() {
    // glibc's loader names what it would load, and does not start the program.
    let output = Command::new(crag().get_program())
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()
        .unwrap();
    let needed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(needed.contains("libc.so"), "{needed}");
    for library in ["libcu", "libnv"] {
        assert!(
            !needed.contains(library),
            "a function of it is missing from the list in kernels/src/cuda/forwarding.rs: {needed}"
        );
    }
}

#[test]
fn a_driver_older_than_the_toolkit_is_told() {
    let Some(folder) = libraries("11040") else { return };
    assert_one_line(
        "cuda",
        folder.path(),
        "supports CUDA 11.4, this program was built with CUDA 1",
    );
}

#[test]
fn a_device_that_is_not_there_is_told() {
    let Some(folder) = libraries("99000") else { return };
    assert_one_line("cuda:2", folder.path(), "there is no CUDA device 2: the driver sees 2");
}

#[test]
fn a_library_that_does_not_load_is_told() {
    let Some(folder) = libraries("99000") else { return };
    for major in [12, 13] {
        fs::write(folder.path().join(format!("libcublas.so.{major}")), "").unwrap();
    }
    assert_one_line("cuda:1", folder.path(), "cannot be loaded:");
}

#[test]
fn a_gpu_older_than_the_kernels_is_told_as_the_driver_names_it() {
    // Asked through the calls that are forwarded.
    let Some(folder) = libraries("99000") else { return };
    assert_one_line(
        "cuda:1",
        folder.path(),
        "Old GPU has compute capability 7.5, this program needs ",
    );
}
