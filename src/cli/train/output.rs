//! The finished folder: put together in the run's own, with all that is to be said of how it came about.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use candle_core::{DType, Tensor};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::data::Data;
use crate::checkpoint::{
    Checkpoint, CheckpointError, FileHash, HubOptions, ModelFiles, ModelSource, locate, write_safetensors,
};
use crate::cli::config::SettingRow;
use crate::cli::manifest::{self, End, Manifest};
use crate::cli::model::small_files;
use crate::cli::model_folder::TRAINED;
use crate::cli::stored_weights::{converted, matrices_of_encoders};
use crate::cli::{Outcome, UsageError};
use crate::files::{RealDisk, replace};
use crate::model::config::Sidecar;
use crate::training::{Origin, Settings, Start, Trained, dataset::Dataset, svg};

const MANIFEST: &str = "manifest.json";

/// What is known of a run before it has trained anything.
pub(super) struct Facts<'a> {
    pub started: Timestamp,
    pub settings: &'a Settings,
    /// What the command line and what lies beneath it said.
    pub flags: &'a [SettingRow],
    pub start: &'a Start,
    pub backbone: BackboneRecord,
    pub data: &'a Data,
    pub device: &'a str,
    /// How many numbers there are to train.
    pub parameters: usize,
    pub save_dtype: DType,
    pub origin: Origin,
}

/// A run that came to its end.
pub(super) struct Finished<'a> {
    pub facts: &'a Facts<'a>,
    pub trained: &'a Trained,
    /// Its weights, as they are written.
    pub stored: &'a [(String, Tensor)],
    /// Negatives mined for validation.
    pub mined: usize,
    pub outcome: Outcome,
    pub log: &'a Path,
}

/// The checkpoint that both encoders began from.
#[derive(Clone, Serialize)]
pub(super) struct BackboneRecord {
    source: String,
    /// The commit, where it is from the hub.
    revision: Option<String>,
    weights: Vec<FileHash>,
    files: Vec<FileHash>,
}

impl BackboneRecord {
    /// `files`: none from scratch. Reads the whole of the weights, so directly after `start` was read from them.
    pub fn new(start: &Start, files: Option<&ModelFiles>) -> anyhow::Result<Self> {
        let source = start.source.clone();
        Ok(match files {
            None => Self {
                source,
                revision: None,
                weights: Vec::new(),
                files: Vec::new(),
            },
            Some(files) => Self {
                source,
                revision: files.revision.clone(),
                weights: Checkpoint::open(files)?.weight_hashes()?,
                files: small_files(files),
            },
        })
    }
}

/// What the manifest says of the run.
#[derive(Serialize)]
struct TrainRecord<'a> {
    /// As `--resume` compares it.
    fingerprint: String,
    backbone: BackboneRecord,
    /// All of it, whatever part of it was stated.
    recipe: &'a Settings,
    settings: &'a [SettingRow],
    inputs: &'a [FileHash],
    device: &'a str,
    threads: usize,
    save_dtype: &'static str,
    weights: Vec<FileHash>,
}

impl Facts<'_> {
    /// The trained weights in the type that they are to be stored in.
    pub fn stored(&self, trained: &Trained) -> anyhow::Result<Vec<(String, Tensor)>> {
        let in_products = matrices_of_encoders(&self.start.network.roles);
        // In order, so that of several it is always the same that is told.
        let tensors: BTreeMap<&String, &Tensor> = trained.tensors.iter().collect();
        let stored = tensors.into_iter().map(|(name, tensor)| {
            let stored = converted((name, tensor), self.save_dtype, &in_products, "--save-dtype");
            let stored = stored.map_err(|error| {
                anyhow::anyhow!(
                    "{error:#}; what was trained is kept: the same command with that and --resume goes on from there"
                )
            });
            Ok((name.clone(), stored?))
        });
        stored.collect()
    }

    /// What crag.json says of the trained model.
    fn sidecar(&self, threshold: Option<f32>) -> Sidecar {
        Sidecar {
            threshold,
            ..self.start.network.config.to_sidecar()
        }
    }

    /// That the output at `target` is this run's.
    pub fn check_finished(&self, target: &Path) -> Result<(), UsageError> {
        let manifest = fs::read(target.join(MANIFEST)).ok();
        let manifest: Option<Value> = manifest.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let says = |key: &str, expected: &str| {
            let found = manifest.as_ref().and_then(|manifest| manifest[key].as_str());
            found == Some(expected)
        };
        if says("fingerprint", &self.origin.fingerprint()) && says("save_dtype", self.save_dtype.as_str()) {
            return self.check_unchanged(target, &manifest.unwrap_or_default());
        }
        Err(UsageError(format!(
            "{}: the output exists, and its {MANIFEST} does not say that it is of these settings, data and backbone; give \
             the same again, or --force to replace it",
            target.display()
        )))
    }

    /// That the model in `target` is whole and the one that was written there: whoever repeats a command until it succeeds
    /// takes it for that. What `crag calibrate` adds to crag.json is no change, and a notice none.
    fn check_unchanged(&self, target: &Path, manifest: &Value) -> Result<(), UsageError> {
        let changed = |what: &str| {
            UsageError(format!(
                "{}: the output exists, and {what} since its run wrote it; --force trains it again",
                target.display()
            ))
        };
        for (name, bytes) in &self.start.files {
            match fs::read(target.join(name)) {
                Ok(found) if found == *bytes => {}
                Ok(_) => return Err(changed(&format!("{name} has been changed"))),
                Err(_) => return Err(changed(&format!("{name} has become unreadable"))),
            }
        }
        let broken = |error: CheckpointError| changed(&format!("its model has become unreadable ({error})"));
        let files = locate(&ModelSource::Folder(target.to_owned()), &HubOptions::default()).map_err(broken)?;
        let is_own = |name: &str| self.start.files.iter().any(|(own, _)| own == name);
        let added = files
            .tokenizer()
            .into_iter()
            .find(|(name, file)| file.is_some() && !is_own(name));
        if let Some((name, _)) = added {
            return Err(changed(&format!("{name} has been added (and would be read)")));
        }
        let found = files
            .sidecar
            .as_ref()
            .map(|file| Sidecar::parse((&file.name, &file.bytes)));
        let found = found.and_then(Result::ok).map(|found| Sidecar {
            calibration: None,
            notice: None,
            ..found
        });
        let threshold = manifest["best"]["validation"]["threshold"].as_f64();
        if found != Some(self.sidecar(threshold.map(|threshold| threshold as f32))) {
            return Err(changed("crag.json has been changed"));
        }
        let found = Checkpoint::open(&files).and_then(|checkpoint| checkpoint.weight_hashes());
        let found = found.map_err(broken)?;
        let found: Vec<Value> = found.iter().map(|hash| json!(hash.sha256)).collect();
        let stated = manifest["weights"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|hash| hash["sha256"].clone());
        match stated.eq(found) {
            true => Ok(()),
            false => Err(changed("its weights have been changed")),
        }
    }
}

impl Finished<'_> {
    /// Writes everything into a folder of its own in `partial`.
    pub fn write(&self, partial: &Path) -> anyhow::Result<PathBuf> {
        let Self { facts, trained, .. } = self;
        let done = partial.join(TRAINED);
        if done.exists() {
            fs::remove_dir_all(&done).with_context(|| done.display().to_string())?;
        }
        fs::create_dir(&done).with_context(|| done.display().to_string())?;
        let write = |name: &str, bytes: &[u8]| {
            let path = done.join(name);
            replace(&RealDisk, &path, bytes).with_context(|| path.display().to_string())
        };
        for (name, bytes) in &facts.start.files {
            write(name, bytes)?;
        }
        let sidecar = facts.sidecar(Some(trained.judgement.threshold));
        write("crag.json", (serde_json::to_string_pretty(&sidecar)? + "\n").as_bytes())?;
        let weights = done.join("model.safetensors");
        write_safetensors(&weights, self.stored)?;
        let log = fs::read(self.log).with_context(|| self.log.display().to_string())?;
        write("log.jsonl", &log)?;
        write("curve.svg", svg(&trained.history).as_bytes())?;
        write(MANIFEST, &self.manifest(&weights)?)?;
        Ok(done)
    }

    /// What came of the run, for the manifest and for whoever reads the log.
    pub fn numbers(&self) -> Value {
        let Self { facts, trained, .. } = self;
        let size = |data: &Dataset| json!({"pairs": data.examples.len(), "related": data.positives().len()});
        let mut valid = size(&facts.data.valid);
        valid["mined"] = json!(self.mined);
        json!({
            "data": {
                "train": size(&facts.data.train),
                "valid": valid,
                "rejected_lines": facts.data.rejected.len(),
                "mined_negatives": facts.data.negatives,
            },
            "parameters": facts.parameters,
            "best": {"epoch": trained.epoch, "validation": trained.judgement},
            "epochs": trained.history,
            "tokens": trained.tokens,
            "training_seconds": trained.seconds,
            "tokens_per_second": trained.tokens as f64 / trained.seconds.max(1e-9),
        })
    }

    fn manifest(&self, weights: &Path) -> anyhow::Result<Vec<u8>> {
        let facts = self.facts;
        let files = locate(&ModelSource::File(weights.to_owned()), &HubOptions::default())?;
        let mut hashes = Checkpoint::open(&files)?.weight_hashes()?;
        for hash in &mut hashes {
            // Where it will be, not where it is now.
            hash.name = "model.safetensors".to_owned();
        }
        let record = TrainRecord {
            fingerprint: facts.origin.fingerprint(),
            backbone: facts.backbone.clone(),
            recipe: facts.settings,
            settings: facts.flags,
            inputs: &facts.data.files,
            device: facts.device,
            threads: rayon::current_num_threads(),
            save_dtype: facts.save_dtype.as_str(),
            weights: hashes,
        };
        let end = End::new(&Ok(self.outcome));
        let manifest = Manifest::new("train", &manifest::run_id(), facts.started, record);
        let manifest = manifest.ended(Timestamp::now(), &end, self.numbers())?;
        Ok(manifest::to_text(&manifest)?)
    }
}
