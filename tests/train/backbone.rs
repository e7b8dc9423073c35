//! Training that begins from a BERT checkpoint.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;

use super::{Case, RECIPE, stderr};
use crate::common::{crag, fixture};

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

/// `crag train` that begins from the folder.
fn train_from(case: &Case, folder: &Path, out: &str) -> Command {
    let mut command = crag();
    command.current_dir(case.folder.path());
    command.args(["train", "--train", "pairs.jsonl", "--device", "cpu", "--out", out]);
    command.arg("--backbone").arg(folder);
    command
}

#[test]
fn both_encoders_begin_from_the_backbone_and_markers_from_its_mean() {
    let case = Case::new();
    for prefix in ["", "bert."] {
        let (folder, encoder) = backbone(case.folder.path(), prefix);
        let out = format!("out-{}", prefix.len());
        let mut command = train_from(&case, &folder, &out);
        // A step too small to move any f32: the weights written are those begun with.
        command.args(["--learning-rate", "1e-30", "--contrastive-epochs", "0", "--epochs", "1"]);
        command.args(["--width", "8", "--pooling", "cls"]);
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
fn what_is_wrong_with_a_file_of_the_backbone_names_its_folder() {
    let case = Case::new();
    let (folder, _) = backbone(case.folder.path(), "");
    for (name, text, expected) in [
        (
            "config.json",
            r#"{"num_attention_heads": 2, "model_type": "roberta"}"#,
            "config.json: field \"model_type\": expected",
        ),
        (
            "tokenizer_config.json",
            r#"{"do_lower_case": 1}"#,
            "tokenizer_config.json: \"do_lower_case\"",
        ),
    ] {
        let whole = fs::read(folder.join(name)).unwrap();
        fs::write(folder.join(name), text).unwrap();
        let said = stderr(&train_from(&case, &folder, "out").assert().failure());
        let expected = format!("{}: {expected}", folder.display());
        assert!(said.contains(&expected), "{said}");
        fs::write(folder.join(name), whole).unwrap();
    }
}

/// Steps too small to move any f32, of a small head.
fn untouched(case: &Case, folder: &Path, out: &str) {
    let mut command = train_from(case, folder, out);
    command.args(["--learning-rate", "1e-30", "--contrastive-epochs", "0", "--epochs", "1"]);
    command.args(["--width", "8", "--pooling", "cls"]);
    command.assert().success();
}

/// What `crag inspect` says of the tokenizer.
fn tokenizer_of(model: &Path) -> String {
    let output = crag().args(["inspect", "--model"]).arg(model).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let row = table.lines().find(|line| line.starts_with("tokenizer "));
    row.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)))
        .to_owned()
}

#[test]
fn markers_that_a_backbone_has_in_older_files_keep_their_rows() {
    let case = Case::new();
    let order = ["[DRUG]", "[ADR]", "[/DRUG]", "[/ADR]"];
    let ids: String = (600..)
        .zip(order)
        .map(|(id, marker)| format!(",\"{marker}\":{id}"))
        .collect();
    for (prefix, name, text) in [
        ("bert.", "added_tokens.json", format!("{{{}}}", &ids[1..])),
        (
            "",
            "special_tokens_map.json",
            format!("{{\"additional_special_tokens\":{order:?}}}"),
        ),
    ] {
        let (folder, _) = backbone(case.folder.path(), prefix);
        fs::write(folder.join(name), text).unwrap();
        untouched(&case, &folder, name);
        let row = tokenizer_of(&case.path(name));
        assert!(row.contains("604 ids, markers 600, 602, 601, 603"), "{name}: {row}");
    }
}

#[test]
fn config_json_states_as_many_word_embeddings_as_there_are() {
    let case = Case::new();
    let (folder, _) = backbone(case.folder.path(), "");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let stated = config.replace("\"vocab_size\": 604", "\"vocab_size\": 600");
    assert_ne!(stated, config);
    fs::write(folder.join("config.json"), stated).unwrap();
    untouched(&case, &folder, "out");
    assert_eq!(case.json("out", "config.json")["vocab_size"], 604);
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
        let mut command = train_from(&case, &folder, out);
        command.args(["--recipe", "backbone.toml", "--epochs", "1"]);
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
    let said = stderr(&train_from(&case, &folder, "out").assert().code(1));
    assert!(
        said.contains("tokenizer.json")
            && said.contains("the tokenizers library cannot read it (")
            && !said.contains("panicked"),
        "{said}"
    );
}

/// The least that trains a model.
const SHORT: [&str; 8] = [
    "--contrastive-epochs",
    "0",
    "--epochs",
    "1",
    "--width",
    "8",
    "--pooling",
    "cls",
];

#[test]
fn another_config_or_tokenizer_of_the_backbone_is_not_gone_on_with() {
    let case = Case::new();
    let (folder, _) = backbone(case.folder.path(), "");
    let train = |out: &str, more: &[&str]| {
        let mut command = train_from(&case, &folder, out);
        command.args(SHORT);
        command.args(more).assert()
    };
    train("finished", &[]).success();
    // A loss that is no number ends a run after its state was written.
    let diverging = ["--learning-rate", "1e30", "--save-every", "0", "--batch-size", "8"];
    train("begun", &diverging).code(1);
    assert!(case.path("begun.partial/state.json").exists());
    for (name, from, to) in [
        (
            "config.json",
            "\"num_attention_heads\": 2",
            "\"num_attention_heads\": 4",
        ),
        ("config.json", "gelu_new", "relu"),
        // A piece that no text has.
        ("vocab.txt", "##otherapy", "##otherapies"),
    ] {
        let path = folder.join(name);
        let before = fs::read_to_string(&path).unwrap();
        let after = before.replace(from, to);
        assert_ne!(after, before, "{name}");
        fs::write(&path, after).unwrap();
        let said = stderr(&train("finished", &["--resume"]).code(2));
        assert!(
            said.contains("the output exists") && said.contains("backbone"),
            "{name}: {said}"
        );
        let begun = [&diverging[..], &["--resume"]].concat();
        let said = stderr(&train("begun", &begun).code(2));
        assert!(
            said.contains("since it was begun, ") && said.contains(&format!("{name} changed")),
            "{name}: {said}"
        );
        fs::write(&path, before).unwrap();
    }
    assert!(stderr(&train("finished", &["--resume"]).success()).contains("nothing to do"));
}

#[test]
fn a_backbone_of_another_family_is_refused_or_doubted() {
    let case = Case::new();
    let (folder, _) = backbone(case.folder.path(), "");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    for (family, code, expected) in [
        ("roberta", 2, "field \"model_type\": expected \"bert\""),
        ("ernie", 0, "\"model_type\": \"ernie\", and what is computed is BERT"),
    ] {
        let other = config.replace("\"bert\"", &format!("\"{family}\""));
        fs::write(folder.join("config.json"), other).unwrap();
        let mut command = train_from(&case, &folder, family);
        command.args(SHORT);
        let said = stderr(&command.assert().code(code));
        assert!(said.contains(expected), "{said}");
        assert_eq!(case.path(family).exists(), code == 0);
    }
}

#[test]
fn a_folder_that_holds_no_bert_is_refused_as_a_backbone() {
    let case = Case::new();
    let assert = train_from(&case, &fixture("model/mean"), "out").assert().code(1);
    assert!(stderr(&assert).contains("not a BERT backbone"), "{}", stderr(&assert));
}
