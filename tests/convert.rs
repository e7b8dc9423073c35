//! `crag convert`: the folder it writes, and that it scores as the original.

use std::path::Path;

use crate::common::{but_for_views, crag, fixture};

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

/// Header and data of a safetensors file.
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8..].split_at(length)
}

fn joined(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
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
fn older_tokenizer_files_go_along() {
    let original = scores(&fixture("model/mean"));
    for (name, content) in [
        (
            "added_tokens.json",
            r#"{"[DRUG]": 600, "[ADR]": 601, "[/DRUG]": 602, "[/ADR]": 603}"#,
        ),
        (
            "special_tokens_map.json",
            r#"{"additional_special_tokens": ["[DRUG]", "[ADR]", "[/DRUG]", "[/ADR]"]}"#,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (model, out) = (folder.path().join("model"), folder.path().join("converted"));
        std::fs::create_dir(&model).unwrap();
        for entry in std::fs::read_dir(fixture("model/mean")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
        }
        std::fs::write(model.join(name), content).unwrap();
        assert!(scores(&model) != original, "{name} gives markers other ids");
        convert(&model, "f32", &out);
        assert!(scores(&out) == scores(&model), "{name}");
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
    let views = r#"{"views": ["bilinear", "product"]}"#;
    std::fs::write(out.join("crag.json"), views).unwrap();
    let (out, first) = (folder.path().join("again"), out);
    convert(&first, "f16", &out);
    let sidecar: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("crag.json")).unwrap()).unwrap();
    for key in [
        "pooling",
        "pooling_heads",
        "views",
        "markers",
        "max_length",
        "threshold",
        "activation",
        "projection_activation",
    ] {
        assert!(!sidecar[key].is_null(), "{key} is not stated in {sidecar}");
    }
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn packed_weights_score_as_the_weights_they_were_packed_from() {
    for (dtype, name) in [
        ("f32", "wrapped"),
        ("bf16", "mean"),
        ("int8", "safetensors"),
        ("int8", "names"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (packed, plain) = (folder.path().join("packed"), folder.path().join("plain"));
        let original = fixture("model").join(name);
        convert(&original, dtype, &packed);
        crag()
            .args(["convert", "--no-packed", "--dtype", dtype, "--model"])
            .arg(&original)
            .arg(&plain)
            .assert()
            .success();
        let size = |folder: &Path| std::fs::metadata(folder.join("model.safetensors")).unwrap().len();
        assert!(size(&packed) > size(&plain), "{name}: nothing was packed");
        let score = |model: &Path| {
            let args = [
                "score",
                "-q",
                "--device",
                "cpu",
                "--dtype",
                dtype,
                "--missing-entity",
                "unmarked",
                "--model",
            ];
            crag()
                .args(args)
                .arg(model)
                .arg(fixture("model/cases.jsonl"))
                .output()
                .unwrap()
                .stdout
        };
        assert!(!score(&plain).is_empty());
        assert!(
            score(&packed) == score(&plain),
            "{name} in {dtype} differs from what it was packed from"
        );
        // The packed copy is not part of the model.
        assert!(
            inspect(&packed) == inspect(&plain),
            "{name}: inspect shows packed weights"
        );
    }
}

#[test]
fn conversion_to_bf16_changes_no_answer_of_a_run_in_bf16() {
    let folder = tempfile::tempdir().unwrap();
    let (original, out) = (fixture("model/safetensors"), folder.path().join("converted"));
    convert(&original, "bf16", &out);
    let score = |model: &Path| {
        let mut command = crag();
        command.args([
            "score",
            "-q",
            "--device",
            "cpu",
            "--dtype",
            "bf16",
            "--missing-entity",
            "unmarked",
        ]);
        command.arg(fixture("model/cases.jsonl")).arg("--model").arg(model);
        command.output().unwrap().stdout
    };
    assert!(!score(&original).is_empty());
    assert!(
        score(&out) == score(&original),
        "converting has rounded more than a run does"
    );
}

#[test]
fn packed_weights_of_no_use_are_named_by_inspect_and_score() {
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("packed");
    convert(&fixture("model/mean"), "bf16", &packed);
    let run = |arguments: &[&str], kernel: &str| {
        let output = crag()
            .args(arguments)
            .args(["--device", "cpu", "--model"])
            .arg(&packed)
            .env("CRAG_KERNEL", kernel)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let report = |dtype: &str, kernel: &str| -> serde_json::Value {
        let (stdout, _) = run(&["inspect", "--json", "--dtype", dtype], kernel);
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["packed"].clone()
    };
    // The selected kernel's own, whatever that is here; another precision is another layout.
    let one = ["score", "--text", "a b", "--drug", "a", "--adr", "b", "--dtype"];
    let inspected = |dtype: &str| {
        let mut command = crag();
        command.args(["inspect", "--json", "--device", "cpu", "--dtype", dtype, "--model"]);
        let output = command.arg(&packed).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["packed"].clone()
    };
    let bf16 = inspected("bf16");
    assert_eq!((&bf16["used"], &bf16["layouts"][0]), (&true.into(), &bf16["wanted"]));
    let f32 = inspected("f32");
    assert_eq!(f32["used"], false, "{f32}");
    assert_eq!(f32["layouts"], bf16["layouts"]);
    let said = |dtype: &str, quiet: &[&str]| {
        let mut command = crag();
        command
            .args(one)
            .args([dtype, "--device", "cpu"])
            .args(quiet)
            .arg("--model");
        String::from_utf8(command.arg(&packed).output().unwrap().stderr).unwrap()
    };
    let wanted = f32["wanted"].as_str().unwrap();
    assert!(said("f32", &[]).contains(&format!("of no use here: this kernel and --dtype need {wanted}")));
    assert!(!said("f32", &["-q"]).contains("of no use"));
    assert!(!said("bf16", &[]).contains("of no use"));
    // Portable panels are narrower than those of any other kernel but NEON's.
    if !wanted.contains("panels-of-8-") {
        let other = report("bf16", "portable");
        assert_eq!(
            (&other["used"], &other["wanted"]),
            (&false.into(), &"bf16-panels-of-8-v1".into())
        );
        assert!(
            run(&["inspect", "--dtype", "bf16"], "portable")
                .0
                .contains("of no use here")
        );
    }
    let plain = fixture("model/mean");
    let output = crag()
        .args(["inspect", "--json", "--model"])
        .arg(plain)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["packed"].is_null());
}

fn inspect(model: &Path) -> Vec<serde_json::Value> {
    let output = crag()
        .args(["inspect", "--json", "--model"])
        .arg(model)
        .assert()
        .success();
    let report: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let mut rows = report["tensors"].as_array().unwrap().clone();
    rows.iter_mut()
        .for_each(|row| drop(row.as_object_mut().unwrap().remove("file")));
    rows
}

#[test]
fn packed_weights_are_not_believed_when_another_program_has_written_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("converted");
    convert(&fixture("model/safetensors"), "f32", &out);
    let path = out.join("model.safetensors");
    // As Python's load_file and save_file leave it: the tensors, the changed one too, and metadata of its own.
    let bytes = std::fs::read(&path).unwrap();
    let (header, data) = parts(&bytes);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    header["__metadata__"] = serde_json::json!({"format": "pt"});
    std::fs::write(&path, joined(header.to_string().as_bytes(), data)).unwrap();
    let same = scores(&out);
    assert!(same == scores(&fixture("model/safetensors")));
    set_first_weight(&path, 5.0);
    assert!(scores(&out) != same, "the tensor's new value counts");
    // Where a program keeps the metadata, the values tell.
    let kept = folder.path().join("kept");
    convert(&fixture("model/safetensors"), "f32", &kept);
    assert!(scores(&kept) == same);
    set_first_weight(&kept.join("model.safetensors"), 5.0);
    assert!(scores(&kept) == scores(&out));
    let said = crag().args(["inspect", "--model"]).arg(&out).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains("not used: the model's own tensors are others than those that they were packed from"),
        "{said}"
    );
}

/// Whether `inspect` says that the packed weights of a folder are used.
fn are_used(model: &Path) -> bool {
    let output = crag()
        .args(["inspect", "--json", "--device", "cpu", "--dtype", "f32", "--model"])
        .arg(model)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    report["packed"]["used"].as_bool().unwrap()
}

#[test]
fn any_value_that_another_program_changes_tells_that_packed_weights_are_old() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("converted");
    convert(&fixture("model/safetensors"), "f32", &out);
    let path = out.join("model.safetensors");
    let before = scores(&out);
    // A copy is written at another time, and holds the same.
    let copy = folder.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::rename(&copy, &path).unwrap();
    assert!(are_used(&out) && scores(&out) == before);
    // Of each tensor of the model a value somewhere in its midst, which no sample need hold.
    let written = std::fs::read(&path).unwrap();
    let (header, data) = parts(&written);
    let start_of_data = written.len() - data.len();
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
    let own = header
        .iter()
        .filter(|(name, _)| !name.starts_with("crag.packed") && *name != "__metadata__");
    for (name, entry) in own.step_by(7) {
        let [start, end] = [0, 1].map(|i| entry["data_offsets"][i].as_u64().unwrap() as usize);
        let mut changed = written.clone();
        changed[start_of_data + start + (end - start) / 3] ^= 1;
        std::fs::write(&path, changed).unwrap();
        assert!(!are_used(&out), "{name}");
    }
    std::fs::write(&path, &written).unwrap();
    assert!(are_used(&out));
}

#[test]
fn packed_weights_that_another_program_has_shifted_are_left_aside() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("converted");
    convert(&fixture("model/safetensors"), "f32", &out);
    let before = scores(&out);
    let path = out.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let (header, data) = parts(&bytes);
    std::fs::write(&path, joined(&[header, b" "].concat(), data)).unwrap();
    assert!(!are_used(&out));
    assert!(
        scores(&out) == before,
        "the model's own tensors are packed anew, to the same values"
    );
}

#[test]
fn packed_weights_of_the_wrong_size_are_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("converted");
    convert(&fixture("model/safetensors"), "f32", &out);
    let path = out.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    // Two panels change places in the header, so each has the other's length.
    let (header, data) = parts(&bytes);
    let header = std::str::from_utf8(header).unwrap();
    let names = header
        .split('"')
        .filter(|s| s.starts_with("crag.packed.") && !s.contains('#'));
    let quoted: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    let find = |part: &str| quoted.iter().find(|n| n.contains(part)).unwrap().as_str();
    let (one, other) = (find("drug_encoder.encoder.layer.0.intermediate"), find("bilinear"));
    let swapped = header.replace(one, "\u{1}").replace(other, one).replace('\u{1}', other);
    assert_eq!(swapped.len(), header.len());
    std::fs::write(&path, joined(swapped.as_bytes(), data)).unwrap();
    let output = crag()
        .args(["score", "-q", "--device", "cpu", "--model"])
        .arg(&out)
        .arg(fixture("model/cases.jsonl"))
        .assert()
        .code(1);
    let stderr = but_for_views(&output.get_output().stderr);
    assert!(stderr.contains("packed weights: expected"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_packed_folder_scores_with_another_number_of_pooling_heads_too() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("converted");
    let original = fixture("model/safetensors");
    convert(&original, "f32", &out);
    let settings = folder.path().join("heads.json");
    for heads in ["1", "2", "8"] {
        std::fs::write(&settings, format!("{{\"pooling_heads\": {heads}}}")).unwrap();
        let scores = |model: &Path| {
            let mut command = crag();
            command
                .args(["score", "-q", "--missing-entity", "unmarked", "--model"])
                .arg(model);
            command
                .arg("--model-config")
                .arg(&settings)
                .arg(fixture("model/cases.jsonl"));
            let output = command.output().unwrap();
            (output.stdout, String::from_utf8(output.stderr).unwrap())
        };
        let (found, stderr) = scores(&out);
        assert!(found == scores(&original).0 && !found.is_empty(), "{heads}: {stderr}");
    }
}

#[test]
fn an_existing_folder_is_refused_without_force() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = fixture("model/safetensors");
    // An empty folder is none.
    std::fs::create_dir(&out).unwrap();
    convert(&model, "f32", &out);
    let output = crag()
        .args(["convert", "--model"])
        .arg(&model)
        .arg(&out)
        .assert()
        .code(2);
    let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(stderr.contains("--force"), "{stderr}");
    crag()
        .args(["convert", "--force", "--model"])
        .arg(&model)
        .arg(&out)
        .assert()
        .success();
    assert!(scores(&out) == scores(&model));
}

#[test]
fn a_replaced_folder_keeps_its_permissions_and_one_that_cannot_be_replaced_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o2750)).unwrap();
    let model = fixture("model/mean");
    let mode = || std::fs::metadata(&out).unwrap().permissions().mode() & 0o7777;
    convert(&model, "f32", &out);
    assert_eq!(mode(), 0o2750);
    assert_eq!(force(&model, &out, &[]).0, 0);
    assert_eq!(mode(), 0o2750);
    // The old one is back where a run ended between the two renames, whatever becomes of the next.
    std::fs::create_dir(folder.path().join("out.partial")).unwrap();
    std::fs::rename(&out, folder.path().join("out.partial/replaced")).unwrap();
    let (code, said) = force(Path::new("/nonexistent"), &out, &[]);
    assert_ne!(code, 0, "{said}");
    let (code, said) = force(&fixture("model/cases.jsonl"), &out, &[]);
    assert_ne!(code, 0, "{said}");
    assert!(scores(&out) == scores(&model));
    // The folder that this runs in would be another one afterwards.
    let working = folder.path().join("working");
    std::fs::create_dir(&working).unwrap();
    let here = crag()
        .current_dir(&working)
        .args(["convert", "--model"])
        .arg(&model)
        .arg(".")
        .output()
        .unwrap();
    let said = String::from_utf8(here.stderr).unwrap();
    assert_eq!(here.status.code(), Some(2), "{said}");
    assert!(said.contains("the working folder"), "{said}");
    let mounted = force(&model, Path::new("/proc"), &[]);
    assert_eq!(mounted.0, 2, "{}", mounted.1);
    assert!(mounted.1.contains("mount point"), "{}", mounted.1);
}

/// Sets the first value of one of the model's own f32 tensors.
fn set_first_weight(path: &Path, value: f32) {
    let mut bytes = std::fs::read(path).unwrap();
    let (header, data) = parts(&bytes);
    let start_of_data = bytes.len() - data.len();
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let (_, entry) = header
        .as_object()
        .unwrap()
        .iter()
        .find(|(name, entry)| name.ends_with("query.weight") && entry["dtype"] == "F32" && !name.starts_with("crag."))
        .unwrap();
    let at = start_of_data + entry["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

/// `convert --force` of a fixture into `out`: exit code and what was said.
fn force(model: &Path, out: &Path, more: &[&str]) -> (i32, String) {
    let output = crag()
        .args(["convert", "--force", "--model"])
        .arg(model)
        .args(more)
        .arg(out)
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_folder_that_is_replaced_keeps_nothing_of_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    convert(&fixture("model/mean"), "f32", &out);
    // Of another model: preferred to vocab.txt where it lies beside it.
    let tokenizer = std::fs::read_to_string(fixture("model/safetensors/tokenizer.json")).unwrap();
    std::fs::write(
        out.join("tokenizer.json"),
        tokenizer.replace("\"max_input_chars_per_word\":100", "\"max_input_chars_per_word\":1"),
    )
    .unwrap();
    let (code, said) = force(&fixture("model/mean"), &out, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(scores(&out) == scores(&fixture("model/mean")));
    let names = |path: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(folder.path()), ["out"]);

    // One that fails changes nothing.
    let hot = folder.path().join("hot");
    convert(&fixture("model/mean"), "f32", &hot);
    set_first_weight(&hot.join("model.safetensors"), 1e30);
    let before = scores(&out);
    let (code, said) = force(&hot, &out, &["--dtype", "f16"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("too large for f16"), "{said}");
    assert!(scores(&out) == before);
    assert_eq!(names(folder.path()), ["hot", "out"]);

    for (path, message) in [
        (out.clone(), "holds what --model reads"),
        (folder.path().to_owned(), "holds "),
    ] {
        let (code, said) = force(&out, &path, &[]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(message), "{said}");
    }
    // What a training run keeps there is not convert's to remove.
    std::fs::create_dir(folder.path().join("new.partial")).unwrap();
    std::fs::write(folder.path().join("new.partial/state.json"), "{}").unwrap();
    let (code, said) = force(&out, &folder.path().join("new"), &[]);
    assert!(code == 2 && said.contains("not finished"), "{said}");
    assert!(folder.path().join("new.partial/state.json").exists());
    // Of a convert that was killed nothing is kept, unless it is what this one reads.
    let (late, left) = (folder.path().join("late"), folder.path().join("late.partial/converted"));
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    convert(&out, "f32", &left);
    for more in [
        &["--model", left.to_str().unwrap()][..],
        &[
            "--model",
            out.to_str().unwrap(),
            "--model-config",
            left.join("crag.json").to_str().unwrap(),
        ],
    ] {
        let refused = crag().arg("convert").args(more).arg(&late).assert().code(2);
        let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(said.contains("late.partial: holds what --model"), "{said}");
        assert!(scores(&left) == scores(&out));
    }
    std::fs::write(left.join("thesis.txt"), "x").unwrap();
    let (code, said) = force(&out, &late, &[]);
    assert!(
        code == 2 && said.contains("late.partial: holds converted/thesis.txt"),
        "{said}"
    );
    std::fs::remove_file(left.join("thesis.txt")).unwrap();
    convert(&out, "f32", &late);
    assert!(!folder.path().join("late.partial").exists());
}

#[test]
fn a_models_notice_goes_with_it_wherever_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let [own, settings, pairs] = ["own", "settings.json", "pairs.jsonl"].map(place);
    std::fs::write(&pairs, "{\"text\":\"a b\",\"drug\":\"a\",\"adr\":\"b\"}\n").unwrap();
    std::fs::write(&settings, "{\"max_length\": 16}").unwrap();
    let said = |arguments: &[&str]| {
        let output = crag().args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        stderr.matches("not for decisions").count()
    };
    assert_eq!(said(&["convert", "--model", "demo", &own]), 1);
    assert_eq!(said(&["score", "--model", &own, &pairs]), 1);
    // Whatever settings it is used with, and once.
    assert_eq!(
        said(&["score", "--model", &own, "--model-config", &settings, &pairs]),
        1
    );
    let again = place("again");
    assert_eq!(
        said(&["convert", "--model", &own, "--model-config", &settings, &again]),
        1
    );
    assert_eq!(said(&["score", "--model", &again, &pairs]), 1);
    let own_settings = format!("{own}/crag.json");
    assert_eq!(
        said(&["score", "--model", &own, "--model-config", &own_settings, &pairs]),
        1
    );
}
