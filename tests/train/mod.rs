//! `crag train` as a user runs it, on a tiny encoder from scratch: seconds, no network, no Python.

mod backbone;
mod data;
mod folder;
mod results;
mod resuming;

use std::fs;
use std::path::PathBuf;

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::crag;

const RECIPE: &str = "
seed = 7
[backbone]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
vocab_size = 160
max_position_embeddings = 48
[head]
width = 8
pooling_heads = 2
max_length = 48
[contrastive]
epochs = 1
learning_rate = 1e-3
batch_size = 8
accumulation = 2
[finetune]
epochs = 2
learning_rate = 1e-3
batch_size = 8
accumulation = 2
";

/// A folder with `pairs.jsonl` (related pairs of 48 documents) and `recipe.toml`.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let drugs = ["aspirin", "metformin", "warfarin", "cisplatin", "lithium", "naproxen"];
        let reactions = ["bleeding", "acidosis", "bruising", "deafness", "tremor", "ulcer"];
        let mut lines = String::new();
        for i in 0..96 {
            let (drug, adr) = (drugs[i % 6], reactions[i % 6]);
            let text = match i % 4 {
                0 => format!("A patient {} years old developed {adr} after {drug}.", 20 + i / 2),
                1 => format!("We report {adr} that was induced by {drug} in case {}.", i / 2),
                2 => format!("{drug} caused severe {adr} in patient {}.", i / 2),
                _ => format!("Case {}: {adr} resolved when {drug} was stopped.", i / 2),
            };
            let record = json!({"text": text, "drug": drug, "adr": adr, "doc_id": i / 2});
            lines += &format!("{record}\n");
        }
        fs::write(folder.path().join("pairs.jsonl"), lines).unwrap();
        fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn train(&self, out: &str, more: &[&str]) -> Command {
        self.train_on("pairs.jsonl", out, more)
    }

    fn train_on(&self, pairs: &str, out: &str, more: &[&str]) -> Command {
        let mut command = crag();
        command.current_dir(self.folder.path());
        command.args(["train", "--recipe", "recipe.toml", "--device", "cpu"]);
        command.args(["--train", pairs, "--out", out]).args(more);
        command
    }

    fn weights(&self, out: &str) -> Vec<u8> {
        fs::read(self.path(out).join("model.safetensors")).unwrap()
    }

    fn json(&self, out: &str, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(out).join(name)).unwrap()).unwrap()
    }
}

fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}
