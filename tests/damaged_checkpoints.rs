//! A checkpoint that lost a tensor must not load as if it were another model, nor one with infinite weights give answers.

use candle_core::{DType, Device, Tensor};
use crag::checkpoint::{Checkpoint, HubOptions, ModelSource, TensorInfo, locate, write_safetensors};
use crag::model::Roles;

use crate::common::{but_for_views, crag, fixture};

/// Folder name and tensors of each fixture that is a model.
fn fixtures() -> Vec<(String, Vec<TensorInfo>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(fixture("model")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("expected.jsonl").exists() {
            continue;
        }
        let files = locate(&ModelSource::Folder(folder.clone()), &HubOptions::default()).unwrap();
        let tensors = Checkpoint::open(&files).unwrap().tensors().to_vec();
        all.push((folder.file_name().unwrap().to_string_lossy().into_owned(), tensors));
    }
    assert!(all.len() >= 12, "only {} fixtures", all.len());
    all
}

fn without(tensors: &[TensorInfo], is_lost: impl Fn(&TensorInfo) -> bool) -> Vec<TensorInfo> {
    tensors.iter().filter(|t| !is_lost(t)).cloned().collect()
}

#[test]
fn no_tensor_of_any_fixture_can_be_lost_unseen() {
    for (name, tensors) in fixtures() {
        let whole = Roles::read(&tensors).unwrap();
        assert_eq!(whole.without_bias(), [""; 0], "{name}");
        // PyTorch's Linear and Bilinear exist without a bias, and there is one bilinear and one classifier, so nothing to compare
        // with: these are said in a warning. (Those of the projections differ from the other side's.)
        let linears = whole.assignments().into_iter().filter(|assigned| {
            (assigned.part == "classifier" && assigned.role.ends_with("linear bias"))
                || (assigned.part == "bilinear fusion" && assigned.role == "bias")
        });
        let only_doubted: Vec<String> = linears.map(|assigned| assigned.tensor).collect();
        assert!(only_doubted.len() >= 3, "{name}: {only_doubted:?}");
        for lost in &tensors {
            let read = Roles::read(&without(&tensors, |t| t == lost));
            let lost = &lost.name;
            if only_doubted.contains(lost) {
                let weight = lost.replace("bias", "weight");
                assert_eq!(read.unwrap().without_bias(), [weight], "{name} without {lost}");
                continue;
            }
            let Err(error) = read else {
                panic!("{name} without {lost} was read as a model");
            };
            let message = error.to_string();
            // By its own name, but for the head, where names are free: there it is what cannot be without it that is named.
            let part = lost.split('.').next().unwrap_or_default();
            let is_named = match lost.contains("_encoder") || lost.contains("attention") {
                true => message.contains(&format!("\"{lost}\"")),
                false => message.contains(&format!("\"{part}.")) || message.contains("learned query"),
            };
            assert!(is_named && !message.contains('\n'), "{name} without {lost}: {message}");
        }
    }
}

/// A copy of a fixture whose weights lack some tensors.
fn copy_without(name: &str, lost: &[&str]) -> tempfile::TempDir {
    copy(name, |tensors| {
        let whole = tensors.len();
        tensors.retain(|(name, _)| !lost.contains(&name.as_str()));
        assert_eq!(tensors.len() + lost.len(), whole, "{lost:?}");
    })
}

/// A copy of a fixture with other weights.
fn copy(name: &str, change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("model").join(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let weights = folder.path().join("model.safetensors");
    let files = locate(&ModelSource::File(weights.clone()), &HubOptions::default()).unwrap();
    let checkpoint = Checkpoint::open(&files).unwrap();
    let tensor = |t: &TensorInfo| (t.name.clone(), checkpoint.tensor(&t.name).unwrap().copy().unwrap());
    let mut tensors = checkpoint.tensors().iter().map(tensor).collect();
    change(&mut tensors);
    // The map of the old file must not see the new one.
    drop(checkpoint);
    std::fs::remove_file(&weights).unwrap();
    write_safetensors(&weights, &tensors).unwrap();
    folder
}

/// Exit code, stdout and stderr of scoring one pair.
fn score(model: &std::path::Path) -> (Option<i32>, String, String) {
    let mut command = crag();
    command.args([
        "score",
        "-q",
        "--text",
        "Aspirin caused a rash.",
        "--drug",
        "Aspirin",
        "--adr",
        "rash",
    ]);
    let output = command.arg("--model").arg(model).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), stdout, but_for_views(&output.stderr))
}

#[test]
fn an_infinity_in_the_weights_is_never_a_probability() {
    for (damaged, infinity) in [
        ("classifier.7.bias", f32::INFINITY),
        ("classifier.7.bias", f32::NEG_INFINITY),
        // GELU of it is 0 in the limit.
        ("adr_encoder.encoder.layer.0.intermediate.dense.bias", f32::NEG_INFINITY),
        // Of this, the keys' part is a constant that softmax ignores.
        ("drug_pooler.attention.in_proj_bias", f32::INFINITY),
        ("drug_pooler.attention.in_proj_bias", f32::NAN),
    ] {
        let model = copy("safetensors", |tensors| {
            let (_, tensor) = tensors.iter_mut().find(|(name, _)| name == damaged).unwrap();
            *tensor = match damaged.ends_with("in_proj_bias") {
                true => {
                    let mut values = tensor.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
                    let keys = values.len() / 3;
                    values[keys + 1] = infinity;
                    Tensor::new(values, &Device::Cpu).unwrap()
                }
                false => Tensor::full(infinity, tensor.shape(), &Device::Cpu).unwrap(),
            };
        });
        for kernel in ["", "portable"] {
            let mut command = crag();
            command.args([
                "score",
                "-q",
                "--json",
                "--text",
                "Aspirin caused a rash.",
                "--drug",
                "Aspirin",
            ]);
            command
                .args(["--adr", "rash", "--model"])
                .arg(model.path())
                .env("CRAG_KERNEL", kernel);
            let output = command.output().unwrap();
            let answer = String::from_utf8(output.stdout).unwrap();
            assert!(
                output.status.code() == Some(3) && answer.contains("\"not_finite\""),
                "{damaged}: {answer}"
            );
        }
    }
}

#[test]
fn a_head_that_lost_a_bias_scores_with_one_warning_that_inspect_repeats() {
    let model = copy_without("safetensors", &["classifier.4.bias", "bilinear.bias"]);
    let (code, stdout, stderr) = score(model.path());
    assert_eq!((code, stdout.lines().count()), (Some(0), 1), "{stderr}");
    let doubt = "no bias goes with \"classifier.4.weight\", \"bilinear.weight\", but others of the head have one";
    assert!(stderr.lines().count() == 1 && stderr.contains(doubt), "{stderr}");

    let inspect = |json: &[&str]| {
        let mut command = crag();
        let output = command.arg("inspect").args(json).arg("--model").arg(model.path());
        String::from_utf8(output.output().unwrap().stdout).unwrap()
    };
    let table = inspect(&[]);
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("doubtful ") && line.contains(doubt)),
        "{table}"
    );
    let report: serde_json::Value = serde_json::from_str(&inspect(&["--json"])).unwrap();
    let doubts = report["doubts"].as_array().unwrap();
    assert!(
        doubts.iter().any(|told| told.as_str().unwrap().contains(doubt)),
        "{report}"
    );
}

/// A copy of a fixture whose tensors have these names and types.
fn copy_with(
    name: &str,
    change: impl Fn(&str, candle_core::Tensor) -> (String, candle_core::Tensor),
) -> tempfile::TempDir {
    let folder = copy_without(name, &[]);
    let weights = folder.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&weights, &candle_core::Device::Cpu).unwrap();
    let changed: Vec<_> = tensors
        .into_iter()
        .map(|(name, tensor)| change(&name, tensor))
        .collect();
    write_safetensors(&weights, &changed).unwrap();
    folder
}

#[test]
fn an_activation_whose_place_is_a_guess_is_one_warning() {
    let model = copy_with("safetensors", |name, tensor| {
        (name.replace("classifier.1.", "classifier.2."), tensor)
    });
    let (code, stdout, stderr) = score(model.path());
    assert_eq!((code, stdout.lines().count()), (Some(0), 1), "{stderr}");
    let doubt = "classifier: indices are missing before \"classifier.2\" and before \"classifier.4\"";
    assert!(stderr.lines().count() == 1 && stderr.contains(doubt), "{stderr}");
}

#[test]
fn query_key_and_value_may_be_stored_in_different_types() {
    let rounded = |dtype: DType| {
        copy_with("safetensors", move |name, tensor| {
            let is_rounded = name.contains("self.query") || name.ends_with("self.value.bias");
            let half = || tensor.to_dtype(DType::F16).unwrap().to_dtype(dtype).unwrap();
            (name.to_owned(), if is_rounded { half() } else { tensor.clone() })
        })
    };
    let (mixed, plain) = (rounded(DType::F16), rounded(DType::F32));
    let (code, stdout, stderr) = score(mixed.path());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, score(plain.path()).1);
}

#[test]
fn a_model_whose_head_has_no_bias_at_all_is_not_doubted() {
    let lost = [
        "drug_projection.0.bias",
        "adr_projection.0.bias",
        "bilinear.bias",
        "classifier.0.bias",
        "classifier.4.bias",
        "classifier.7.bias",
    ];
    let (code, _, stderr) = score(copy_without("safetensors", &lost).path());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_encoder_without_its_last_layer_or_a_bias_does_not_score() {
    let layer: Vec<String> = fixtures()
        .into_iter()
        .filter(|(name, _)| name == "safetensors")
        .flat_map(|(_, tensors)| tensors.into_iter().map(|t| t.name))
        .filter(|name| name.starts_with("adr_encoder.encoder.layer.1."))
        .collect();
    let layer: Vec<&str> = layer.iter().map(String::as_str).collect();
    assert_eq!(layer.len(), 16);
    for (lost, reason) in [
        (layer.as_slice(), "the drug encoder has 2 layers, the adr encoder 1"),
        (
            &["drug_encoder.encoder.layer.0.output.dense.bias"][..],
            "roles left empty: \"drug_encoder.encoder.layer.0.output.dense.bias\"",
        ),
    ] {
        let (code, stdout, stderr) = score(copy_without("safetensors", lost).path());
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains(reason), "{stderr}");
    }
}
