//! `crag convert`: the folder it writes, and that it scores as the original.

use std::path::Path;

use crate::common::{crag, fixture};

fn scores(model: &Path) -> Vec<u8> {
    let cases = fixture("model/cases.jsonl");
    let args = ["--missing-entity", "unmarked", "-q"];
    let output = crag()
        .args(["score", "--model"])
        .arg(model)
        .args(args)
        .arg(cases)
        .output()
        .unwrap();
    assert!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn convert(model: &Path, dtype: &str, out: &Path) {
    crag()
        .args(["convert", "--model"])
        .arg(model)
        .args(["--dtype", dtype])
        .arg(out)
        .assert()
        .success();
}

#[test]
fn conversion_to_f32_scores_bit_for_bit_as_the_original() {
    for name in ["bin", "wrapped", "sharded", "mean", "names", "noconfig"] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("converted");
        let original = fixture("model").join(name);
        convert(&original, "f32", &out);
        assert!(scores(&out) == scores(&original), "{name} differs after conversion");
    }
}

#[test]
fn conversion_to_the_stored_dtype_keeps_every_bit() {
    for name in ["bf16", "f16"] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("converted");
        let original = fixture("model").join(name);
        convert(&original, name, &out);
        assert!(scores(&out) == scores(&original), "{name} differs after conversion");
    }
}

#[test]
fn conversion_states_every_setting_and_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("converted");
    convert(&fixture("model/safetensors"), "f16", &out);
    let sidecar: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("crag.json")).unwrap()).unwrap();
    for key in [
        "pooling",
        "pooling_heads",
        "views",
        "markers",
        "max_length",
        "threshold",
        "activation",
    ] {
        assert!(!sidecar[key].is_null(), "{key} is not stated in {sidecar}");
    }
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["converted"]);
}

#[test]
fn an_existing_folder_is_refused_without_force() {
    let out = tempfile::tempdir().unwrap();
    let model = fixture("model/safetensors");
    let output = crag()
        .args(["convert", "--model"])
        .arg(&model)
        .arg(out.path())
        .assert()
        .code(2);
    let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(stderr.contains("--force"), "{stderr}");
    crag()
        .args(["convert", "--force", "--model"])
        .arg(&model)
        .arg(out.path())
        .assert()
        .success();
    assert!(scores(out.path()) == scores(&model));
}
