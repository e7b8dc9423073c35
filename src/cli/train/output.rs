//! The finished folder: put together beside its place and renamed, so that it is absent or complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use candle_core::{DType, Tensor};
use serde_json::json;

use super::{UsageError, lock};
use crate::{
    checkpoint::write_safetensors,
    training::{NegativeKind, Settings, Start, Trained, state::write_whole, svg},
};

/// Where the result goes, and where the run lives until then.
pub(super) struct Place {
    out: PathBuf,
    pub partial: PathBuf,
    force: bool,
}

/// What the manifest tells besides the result.
pub(super) struct Facts<'a> {
    pub settings: &'a Settings,
    pub start: &'a Start,
    pub trained: &'a Trained,
    /// Names and BLAKE3 hashes of the data.
    pub files: &'a [(String, String)],
    /// Pairs and related pairs of training and of validation.
    pub sizes: [[usize; 2]; 2],
    pub negatives: NegativeKind,
    pub rejected: usize,
    pub device: &'a str,
    pub parameters: usize,
}

impl Place {
    /// Refuses what would be written over without having been asked to.
    pub fn new(out: &Path, resume: bool, force: bool) -> anyhow::Result<Self> {
        let refuse = |reason: String| Err(UsageError(reason).into());
        let Some(name) = out.file_name() else {
            return refuse(format!("--out {}: not a folder name", out.display()));
        };
        let mut partial = name.to_owned();
        partial.push(".partial");
        let partial = out.with_file_name(partial);
        if out.exists() && !(force && out.is_dir()) {
            let way_out = if out.is_dir() {
                "; give --force to replace it"
            } else {
                ""
            };
            return refuse(format!("{}: exists already{way_out}", out.display()));
        }
        match (partial.exists(), resume, force) {
            (true, false, false) => {
                let reason = "holds a run that is not finished; give --resume to go on, or --force to begin anew";
                return refuse(format!("{}: {reason}", partial.display()));
            }
            (false, true, _) => {
                return refuse(format!("--resume: there is no {} to go on from", partial.display()));
            }
            _ => {}
        }
        Ok(Self {
            out: out.to_owned(),
            partial,
            force,
        })
    }

    /// Makes and locks the run's folder; an abandoned run in it is removed where --force says so.
    pub fn prepare(&self) -> anyhow::Result<File> {
        fs::create_dir_all(&self.partial).with_context(|| self.partial.display().to_string())?;
        let file = lock(&self.partial.join("lock"))?;
        if self.force {
            for entry in fs::read_dir(&self.partial).with_context(|| self.partial.display().to_string())? {
                let path = entry?.path();
                if path.is_dir() {
                    fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
                } else if !path.ends_with("lock") {
                    fs::remove_file(&path).with_context(|| path.display().to_string())?;
                }
            }
        }
        Ok(file)
    }

    /// Writes everything, puts it in its place, and removes the run's folder.
    pub fn finish(&self, facts: &Facts<'_>, dtype: DType, log: &Path) -> anyhow::Result<()> {
        let done = self.partial.join("done");
        if done.exists() {
            fs::remove_dir_all(&done).with_context(|| done.display().to_string())?;
        }
        fs::create_dir_all(&done).with_context(|| done.display().to_string())?;
        for (name, bytes) in &facts.start.files {
            write_whole(&done.join(name), bytes)?;
        }
        let mut sidecar = facts.start.network.config.to_sidecar();
        sidecar.threshold = Some(facts.trained.judgement.threshold);
        write_whole(&done.join("crag.json"), &pretty(&sidecar)?)?;
        let tensors = facts.trained.tensors.iter().map(|(name, tensor)| {
            let stored = tensor.to_dtype(dtype)?;
            if dtype == DType::F16 {
                anyhow::ensure!(
                    is_finite(&stored)?,
                    "tensor \"{name}\": too large for f16; give --save-dtype bf16"
                );
            }
            Ok((name.clone(), stored))
        });
        let weights = done.join("model.safetensors");
        write_safetensors(&weights, &tensors.collect::<anyhow::Result<Vec<_>>>()?)?;
        let log = fs::read(log).with_context(|| log.display().to_string())?;
        write_whole(&done.join("log.jsonl"), &log)?;
        write_whole(&done.join("curve.svg"), svg(&facts.trained.history).as_bytes())?;
        let hash = blake3::hash(&fs::read(&weights).with_context(|| weights.display().to_string())?);
        write_whole(&done.join("manifest.json"), &pretty(&facts.manifest(&hash.to_hex()))?)?;

        let failed = || self.out.display().to_string();
        if self.out.exists() {
            let mut old = self.partial.file_name().unwrap_or_default().to_owned();
            old.push(".old");
            let old = self.partial.with_file_name(old);
            if old.exists() {
                fs::remove_dir_all(&old).with_context(failed)?;
            }
            fs::rename(&self.out, &old).with_context(failed)?;
            fs::rename(&done, &self.out).with_context(failed)?;
            fs::remove_dir_all(&old).with_context(|| old.display().to_string())?;
        } else {
            fs::rename(&done, &self.out).with_context(failed)?;
        }
        fs::remove_dir_all(&self.partial).with_context(|| self.partial.display().to_string())
    }
}

impl Facts<'_> {
    fn manifest(&self, weights_hash: &str) -> serde_json::Value {
        let trained = self.trained;
        let [train, valid] = self
            .sizes
            .map(|[pairs, related]| json!({"pairs": pairs, "related": related}));
        let files: Vec<_> = self
            .files
            .iter()
            .map(|(name, hash)| json!({"file": name, "blake3": hash}))
            .collect();
        json!({
            "crag": env!("CARGO_PKG_VERSION"),
            "command": std::env::args().collect::<Vec<_>>(),
            "settings": self.settings,
            "backbone": self.start.source,
            "data": {
                "files": files,
                "train": train,
                "valid": valid,
                "rejected_lines": self.rejected,
                "mined_negatives": self.negatives,
            },
            "parameters": self.parameters,
            "device": self.device,
            "threads": rayon::current_num_threads(),
            "best": {"epoch": trained.epoch, "validation": trained.judgement},
            "epochs": trained.history,
            "tokens": trained.tokens,
            "training_seconds": trained.seconds,
            "tokens_per_second": trained.tokens as f64 / trained.seconds.max(1e-9),
            "weights_blake3": weights_hash,
        })
    }
}

fn pretty(value: &impl serde::Serialize) -> anyhow::Result<Vec<u8>> {
    Ok((serde_json::to_string_pretty(value)? + "\n").into_bytes())
}

fn is_finite(tensor: &Tensor) -> candle_core::Result<bool> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().all(|value| value.is_finite()))
}
