//! `crag inspect`: what it says about checkpoints, good and bad.

use crate::common::{but_for_views, crag, fixture, json_lines};

#[test]
fn inspect_lists_parts_settings_and_their_sources() {
    let model = fixture("model/safetensors");
    let output = crag().args(["inspect", "--model"]).arg(&model).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    for part in [
        "drug encoder",
        "adr encoder",
        "drug pooling",
        "adr projection",
        "bilinear fusion",
        "classifier",
        "total",
    ] {
        assert!(
            text.lines().any(|l| l.starts_with(part)),
            "no line for {part} in\n{text}"
        );
    }
    assert!(
        text.contains("tensor names and shapes") && text.contains("config.json"),
        "{text}"
    );
    assert!(text.contains("layers 0-1 query weight"), "{text}");
}

#[test]
fn inspect_as_json_accounts_for_every_parameter() {
    let model = fixture("model/safetensors");
    let output = crag()
        .args(["inspect", "--json", "--model"])
        .arg(&model)
        .assert()
        .success();
    let report: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let count = |row: &serde_json::Value| {
        row["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .product::<u64>()
    };
    let tensors: u64 = report["tensors"].as_array().unwrap().iter().map(count).sum();
    let parts: u64 = report["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["parameters"].as_u64().unwrap())
        .sum();
    assert_eq!(report["parameters"].as_u64(), Some(tensors));
    assert_eq!(parts, tensors);
}

#[test]
fn inspect_understands_every_form_of_checkpoint() {
    let mut seen = 0;
    for entry in std::fs::read_dir(fixture("model")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("expected.jsonl").exists() {
            continue;
        }
        let output = crag()
            .args(["inspect", "--json", "--model"])
            .arg(&folder)
            .assert()
            .success();
        assert_eq!(json_lines_of(&output.get_output().stdout), 1, "{}", folder.display());
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} fixtures");
}

#[test]
fn a_number_of_heads_that_is_a_guess_is_doubted_in_one_line_and_a_stated_one_is_not() {
    for entry in std::fs::read_dir(fixture("model")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("expected.jsonl").exists() {
            continue;
        }
        let mut command = crag();
        let output = command.args(["inspect", "--model"]).arg(&folder).output().unwrap();
        let (stdout, stderr) = (output.stdout, but_for_views(&output.stderr));
        let stdout = String::from_utf8(stdout).unwrap();
        // The one fixture whose number of heads only its width tells.
        let is_guessed = folder.ends_with("noconfig");
        let doubt = "no config.json states num_attention_heads, so 2 of";
        // And the one whose indices leave two places for an activation.
        let has_guessed_order = folder.ends_with("norm_last");
        // And the one whose head has names for indices.
        let has_names = folder.ends_with("names");
        assert_eq!(
            stderr.lines().count(),
            usize::from(is_guessed) + usize::from(has_guessed_order) + usize::from(has_names),
            "{}: {stderr}",
            folder.display()
        );
        assert_eq!(stderr.contains(doubt), is_guessed, "{}: {stderr}", folder.display());
        assert_eq!(stdout.contains(doubt), is_guessed, "{}: {stdout}", folder.display());
    }
    let demo = crag().args(["inspect", "--model", "demo"]).output().unwrap();
    let said = String::from_utf8(demo.stderr).unwrap();
    assert!(
        said.lines().count() == 1 && said.contains("not for decisions"),
        "{said}"
    );
}

#[test]
fn views_that_no_settings_state_are_doubted() {
    let folder = copy("model/safetensors");
    let said = || {
        let output = crag().args(["inspect", "--model"]).arg(folder.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let doubt = "nothing states which views the classifier reads, and bilinear, product are taken, one of 20 sets of its width: if";
    let (stdout, stderr) = said();
    assert!(stderr.lines().count() == 1 && stderr.contains(doubt), "{stderr}");
    assert!(
        stdout
            .lines()
            .any(|line| line.starts_with("doubtful ") && line.contains(doubt)),
        "{stdout}"
    );
    // What is converted is doubted no less.
    let mut convert = crag();
    convert.args(["convert", "--model"]).arg(folder.path());
    convert.arg(folder.path().join("converted")).assert().success();
    let stated = |folder: &std::path::Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.join("crag.json")).unwrap()).unwrap()
    };
    assert!(stated(&folder.path().join("converted"))["views"].is_null());
    for views in [r#"["bilinear", "product"]"#, r#"["drug", "abs_diff"]"#] {
        std::fs::write(folder.path().join("crag.json"), format!(r#"{{"views": {views}}}"#)).unwrap();
        assert_eq!(said().1, "");
    }
}

#[test]
fn how_projections_end_is_doubted_unless_it_is_the_cards_way_and_crag_json_states_it() {
    let model = copy_with("safetensors", |name, tensor| {
        (!name.contains("_projection.1.")).then(|| (name.replace("_projection.0.", "_projection."), tensor))
    });
    let sidecar = model.path().join("crag.json");
    let inspected = |settings: &str| {
        std::fs::write(&sidecar, settings).unwrap();
        let output = crag().args(["inspect", "--model"]).arg(model.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        (String::from_utf8(output.stdout).unwrap(), but_for_views(&output.stderr))
    };
    let answers = || {
        let mut command = crag();
        command.args(["score", "-q", "--missing-entity", "unmarked", "--model"]);
        let cases = fixture("model/cases.jsonl");
        command.arg(model.path()).arg(cases).output().unwrap().stdout
    };
    let row = |stdout: &str| -> Vec<String> {
        let row = stdout
            .lines()
            .find(|line| line.starts_with("projection_activation "))
            .unwrap();
        row.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    let doubt = "nothing tells whether an activation stands behind \"drug_projection\", and none is taken to: if";
    let (stdout, stderr) = inspected("{}");
    assert!(stderr.lines().count() == 1 && stderr.contains(doubt), "{stderr}");
    assert!(stderr.contains("{\"projection_activation\": true} or"), "{stderr}");
    let is_doubt = |line: &str| line.starts_with("doubtful ") && line.contains(doubt);
    assert!(stdout.lines().any(is_doubt), "{stdout}");
    assert_eq!(row(&stdout), ["false", "default"]);
    let silent = answers();
    // What is converted is doubted no less.
    let (_, stderr) = inspected_after_conversion(model.path());
    assert!(stderr.lines().count() == 1 && stderr.contains(doubt), "{stderr}");

    let (stdout, stderr) = inspected(r#"{"projection_activation": false}"#);
    assert_eq!(
        (stderr.as_str(), row(&stdout)),
        ("", vec!["false".to_owned(), "crag.json".to_owned()])
    );
    assert!(answers() == silent && !silent.is_empty());
    let (stdout, stderr) = inspected(r#"{"projection_activation": true}"#);
    assert_eq!(
        (stderr.as_str(), row(&stdout)),
        ("", vec!["true".to_owned(), "crag.json".to_owned()])
    );
    assert!(answers() != silent, "an activation changes answers");

    let (stdout, stderr) = inspected_fixture("safetensors");
    assert_eq!(
        (stderr.as_str(), row(&stdout)),
        ("", vec!["true".to_owned(), "default".to_owned()])
    );
}

#[test]
fn whether_there_are_markers_is_doubted_where_neither_files_nor_rows_tell() {
    let model = copy_with("cls", |name, tensor| {
        let is_words = name.ends_with("word_embeddings.weight");
        let padded = is_words.then(|| tensor.pad_with_zeros(0, 0, 8).unwrap());
        Some((name.to_owned(), padded.unwrap_or(tensor)))
    });
    let inspected = |settings: &str| {
        std::fs::write(model.path().join("crag.json"), settings).unwrap();
        inspected_folder(model.path()).1
    };
    let doubt = "608 rows do not tell whether the model was trained with them (604 ids, markers included)";
    let stderr = inspected(r#"{"pooling": "cls"}"#);
    assert!(stderr.lines().count() == 1 && stderr.contains(doubt), "{stderr}");
    assert!(inspected_after_conversion(model.path()).1.contains(doubt));
    for stated in ["true", "false"] {
        assert_eq!(inspected(&format!(r#"{{"pooling": "cls", "markers": {stated}}}"#)), "");
    }
    std::fs::write(
        model.path().join("special_tokens_map.json"),
        r#"{"additional_special_tokens": ["[DRUG]", "[/DRUG]", "[ADR]", "[/ADR]"]}"#,
    )
    .unwrap();
    assert_eq!(inspected(r#"{"pooling": "cls"}"#), "");
}

fn inspected_fixture(name: &str) -> (String, String) {
    inspected_folder(&fixture("model").join(name))
}

fn inspected_after_conversion(folder: &std::path::Path) -> (String, String) {
    let converted = folder.join("converted");
    let mut command = crag();
    command.args(["convert", "-q", "--model"]).arg(folder).arg(&converted);
    command.assert().success();
    inspected_folder(&converted)
}

fn inspected_folder(folder: &std::path::Path) -> (String, String) {
    let output = crag().args(["inspect", "--model"]).arg(folder).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), but_for_views(&output.stderr))
}

/// A copy of a fixture whose weights are these of its tensors under these names.
fn copy_with(
    name: &str,
    kept: impl Fn(&str, candle_core::Tensor) -> Option<(String, candle_core::Tensor)>,
) -> tempfile::TempDir {
    let folder = copy(&format!("model/{name}"));
    let weights = folder.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&weights, &candle_core::Device::Cpu).unwrap();
    let mut tensors: Vec<_> = tensors
        .into_iter()
        .filter_map(|(name, tensor)| kept(&name, tensor))
        .collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    std::fs::remove_file(&weights).unwrap();
    crag::checkpoint::write_safetensors(&weights, &tensors).unwrap();
    folder
}

#[test]
fn a_family_of_encoders_that_may_not_be_berts_is_doubted_and_one_that_counts_otherwise_refused() {
    let whole = fixture("model/safetensors");
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&whole).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let config = std::fs::read_to_string(whole.join("config.json")).unwrap();
    let inspected = |family: &str| {
        let other = config.replace("\"bert\"", &format!("\"{family}\""));
        assert_ne!(other, config);
        std::fs::write(folder.path().join("config.json"), other).unwrap();
        let mut command = crag();
        let output = command
            .args(["inspect", "--model"])
            .arg(folder.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, stdout, stderr) = inspected("ernie");
    let doubt = "config.json says \"model_type\": \"ernie\", and what is computed is BERT";
    assert!(code == Some(0) && stderr.contains(doubt), "{stderr}");
    let is_row = |line: &str| line.starts_with("doubtful ") && line.contains(doubt);
    assert!(stdout.lines().any(is_row), "{stdout}");
    let (code, stdout, stderr) = inspected("roberta");
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(
        stderr.contains("config.json: field \"model_type\": expected \"bert\"") && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn a_tokenizer_on_which_the_library_panics_is_one_line_with_the_reason() {
    let whole = fixture("model/safetensors");
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "config.json", "tokenizer_config.json"] {
        std::fs::copy(whole.join(name), folder.path().join(name)).unwrap();
    }
    let tokenizer = std::fs::read_to_string(whole.join("tokenizer.json")).unwrap();
    for (from, to, reason) in [
        (
            r###""prefix":"##""###,
            r#""prefix":"\ud800""#,
            "unexpected end of hex escape",
        ),
        (r#""[SEP]":{"id""#, r#""[SEP]]":{"id""#, "no entry found for key"),
    ] {
        let damaged = tokenizer.replace(from, to);
        assert_ne!(damaged, tokenizer, "{from}");
        std::fs::write(folder.path().join("tokenizer.json"), damaged).unwrap();
        for format in ["text", "json"] {
            let mut command = crag();
            command.args(["inspect", "--log-format", format, "--model"]);
            let output = command.env("RUST_BACKTRACE", "1").arg(folder.path()).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{stderr}");
            assert!(stderr.lines().count() == 1 && !stderr.contains("panicked"), "{stderr}");
            for part in [
                "tokenizer.json: the tokenizers library cannot read it",
                reason,
                "download",
            ] {
                assert!(stderr.contains(part), "{part}: {stderr}");
            }
            if format == "json" {
                json_lines(stderr.as_bytes());
            }
        }
    }
}

fn json_lines_of(stdout: &[u8]) -> usize {
    let value: serde_json::Value = serde_json::from_slice(stdout).unwrap();
    json_lines(value.to_string().as_bytes()).len()
}

/// A copy of a fixture to break.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn stderr_of(folder: &std::path::Path) -> String {
    let output = crag().args(["inspect", "--model"]).arg(folder).assert().code(1);
    let stderr = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(output.get_output().stdout.is_empty());
    assert_eq!(stderr.lines().count(), 1, "one clear line, found\n{stderr}");
    stderr
}

#[test]
fn a_checkpoint_without_pooler_or_statement_says_what_to_write() {
    let folder = copy("model/mean");
    std::fs::write(folder.path().join("crag.json"), "{}").unwrap();
    let stderr = stderr_of(folder.path());
    assert!(stderr.contains(r#"{"pooling": "mean"}"#), "{stderr}");
}

#[test]
fn an_unknown_key_in_crag_json_is_an_error_that_names_the_file() {
    let folder = copy("model/safetensors");
    std::fs::write(folder.path().join("crag.json"), r#"{"max_lenght": 64}"#).unwrap();
    let stderr = stderr_of(folder.path());
    assert!(
        stderr.contains("crag.json") && stderr.contains("max_lenght"),
        "{stderr}"
    );
}

#[test]
fn a_terminal_obeys_nothing_that_a_models_files_say() {
    const OBEYED: [char; 4] = ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'];
    let words = "\u{1b}]0;title\u{7}\u{9b}31m\u{202e}";
    let model = copy("model/safetensors");
    // A warning, and a row of the table.
    let config = model.path().join("config.json");
    let mut settings: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    settings["model_type"] = words.into();
    std::fs::write(&config, settings.to_string()).unwrap();
    let (stdout, stderr) = inspected_folder(model.path());
    for said in [&stdout, &stderr] {
        assert!(said.contains("]0;title") && !said.contains(OBEYED), "{said:?}");
    }
    // An error.
    let sidecar = serde_json::json!({words: 1}).to_string();
    std::fs::write(model.path().join("crag.json"), sidecar).unwrap();
    let said = stderr_of(model.path());
    assert!(said.contains("]0;title") && !said.contains(OBEYED), "{said:?}");
}

#[test]
fn views_that_do_not_fit_the_classifier_give_both_widths() {
    let folder = copy("model/safetensors");
    std::fs::write(
        folder.path().join("crag.json"),
        r#"{"views": ["bilinear", "drug", "adr"]}"#,
    )
    .unwrap();
    let stderr = stderr_of(folder.path());
    assert!(
        stderr.contains("the views bilinear, drug, adr are") && stderr.contains("numbers wide, the classifier takes"),
        "{stderr}"
    );
}

#[test]
fn model_config_replaces_the_sidecar() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"threshold": 0.25}"#).unwrap();
    let model = fixture("model/safetensors");
    let output = crag()
        .args(["inspect", "--json", "--model"])
        .arg(model)
        .arg("--model-config")
        .arg(file.path())
        .assert();
    let report: serde_json::Value = serde_json::from_slice(&output.success().get_output().stdout).unwrap();
    let settings = report["settings"].as_array().unwrap();
    let threshold = settings.iter().find(|s| s["setting"] == "threshold").unwrap();
    assert_eq!(threshold["value"], 0.25);
    assert_eq!(
        threshold["source"],
        format!("{} (--model-config)", file.path().display())
    );
}

#[test]
fn a_tokenizer_larger_than_the_embeddings_is_refused() {
    let folder = copy("model/bin");
    let path = folder.path().join("vocab.txt");
    let mut vocabulary = std::fs::read_to_string(&path).unwrap();
    vocabulary.push_str("zzzzextra\n");
    std::fs::write(&path, vocabulary).unwrap();
    let stderr = stderr_of(folder.path());
    assert!(
        stderr.contains("word_embeddings") && stderr.contains("marker"),
        "{stderr}"
    );
}

#[test]
fn weight_files_that_are_not_weights_are_one_clear_error() {
    for contents in [
        &b""[..],
        b"<!DOCTYPE html><html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        &[0xff; 64],
    ] {
        let folder = copy("model/safetensors");
        std::fs::write(folder.path().join("model.safetensors"), contents).unwrap();
        let stderr = stderr_of(folder.path());
        assert!(stderr.contains("model.safetensors"), "{stderr}");
    }
}

#[test]
fn a_vocabulary_that_was_cut_short_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("model/mean")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let inspect = || {
        let output = crag().args(["inspect", "--model"]).arg(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    let told = "if its vocabulary was cut short";
    assert!(!inspect().contains(told));
    let vocabulary = folder.path().join("vocab.txt");
    let text = std::fs::read_to_string(&vocabulary).unwrap();
    let cut = text.trim_end().rfind('\n').unwrap();
    std::fs::write(&vocabulary, &text[..cut]).unwrap();
    let stderr = inspect();
    assert!(stderr.contains(told), "{stderr}");
    assert_eq!(stderr.matches(told).count(), 1, "{stderr}");
}

#[test]
fn a_model_without_its_flag_is_told_where_to_put_it() {
    let said = |arguments: &[&str]| {
        let output = crag().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let tip = "the model is named by --model: crag inspect --model my-demo";
    assert!(
        said(&["inspect", "my-demo"]).contains(tip),
        "{}",
        said(&["inspect", "my-demo"])
    );
    // Where it is named, something else is too much.
    assert!(!said(&["inspect", "--model", "demo", "more"]).contains("tip"));
    assert!(!said(&["check", "--model-of-mine", "my-demo"]).contains("--model my-demo"));
}
