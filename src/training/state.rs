//! What a run leaves on disk while it runs, so that one that is killed can go on to the same result.
//!
//! Tensors go to a file of their own name, synced; then `state.json`, which names it, is replaced in one rename; then
//! older tensors are removed. So at every moment `state.json` names whole files. The best epoch's weights lie
//! beside them in the same way.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{TrainError, dataset::Example, judge::Judgement};
use crate::checkpoint::{Checkpoint, HubOptions, ModelSource, locate, write_safetensors};
use crate::files::{RealDisk, replace};

/// One micro-batch's source: a related pair and the negative made of it (phase 1), or a labelled pair (phase 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub drug: u32,
    pub adr: u32,
    pub label: bool,
    /// Further contexts to tell apart from the pair's, phase 1 alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative: Option<(u32, u32)>,
}

impl From<Example> for Item {
    fn from(Example { drug, adr, label }: Example) -> Self {
        Self {
            drug,
            adr,
            label,
            negative: None,
        }
    }
}

/// One finished epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochSummary {
    pub phase: String,
    pub epoch: usize,
    pub loss: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Judgement>,
}

/// Where a run stands, between two optimizer steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Of settings, data and first weights: a resumed run must have the same.
    pub fingerprint: String,
    /// 0 contrastive, 1 fine-tuning, 2 done.
    pub phase: usize,
    pub epoch: usize,
    /// Optimizer steps done in this epoch.
    pub step: usize,
    /// Optimizer steps done in this phase.
    pub phase_steps: u64,
    /// What this epoch goes through, in order; empty before an epoch.
    pub plan: Vec<Item>,
    pub loss_sum: f64,
    pub loss_count: u64,
    pub tokens: u64,
    pub seconds: f64,
    /// Length of the log when this was written.
    pub log_bytes: u64,
    pub history: Vec<EpochSummary>,
    pub best: Option<(usize, Judgement)>,
    tensors: String,
    best_tensors: Option<String>,
}

/// The folder of a run that is under way.
pub struct WorkFolder {
    path: PathBuf,
    /// How many states have been written: names of tensor files.
    written: u64,
}

const STATE: &str = "state.json";
const LOG: &str = "log.jsonl";

type Tensors = HashMap<String, Tensor>;

/// What a file of tensors is of.
const KINDS: [&str; 2] = ["state", "best"];

impl WorkFolder {
    /// Whether a run leaves a file of this name in its folder.
    pub fn is_own(name: &str) -> bool {
        let of_tensors = |name: &str| {
            let (kind, number) = name.strip_suffix(".safetensors")?.split_once('-')?;
            Some(KINDS.contains(&kind) && number.parse::<u64>().is_ok())
        };
        [STATE, LOG].contains(&name) || of_tensors(name).unwrap_or(false)
    }

    /// A folder that is there.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let names = fs::read_dir(path).map_err(|error| TrainError::io(path, "reading the folder failed", error))?;
        let number = |name: &str| {
            let name = name.strip_suffix(".safetensors")?;
            name.rsplit_once('-')?.1.parse::<u64>().ok()
        };
        let numbers = names
            .flatten()
            .filter_map(|entry| number(&entry.file_name().to_string_lossy()));
        Ok(Self {
            path: path.to_owned(),
            written: numbers.max().unwrap_or(0),
        })
    }

    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// The last state and its tensors; none where no state was written yet.
    pub fn load(&self) -> Result<Option<(State, Tensors)>, TrainError> {
        let path = self.path.join(STATE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TrainError::io(&path, "reading it failed", error)),
        };
        let state: State = serde_json::from_slice(&bytes).map_err(|error| TrainError::Resume {
            path: path.display().to_string(),
            reason: format!("not a state of this version: {error}; begin again with --force"),
        })?;
        let tensors = self.read(&state.tensors)?;
        Ok(Some((state, tensors)))
    }

    /// The best epoch's weights.
    pub fn best(&self, state: &State) -> Result<Option<Tensors>, TrainError> {
        state.best_tensors.as_deref().map(|name| self.read(name)).transpose()
    }

    fn read(&self, name: &str) -> Result<Tensors, TrainError> {
        let files = locate(&ModelSource::File(self.path.join(name)), &HubOptions::default())?;
        let checkpoint = Checkpoint::open(&files)?;
        let names = checkpoint.tensors().iter().map(|info| info.name.clone());
        let tensors = names.map(|name| Ok((name.clone(), checkpoint.tensor(&name)?.copy()?)));
        tensors.collect()
    }

    /// Writes `state` with `tensors`, and with `best` as the weights of its best epoch where they are new.
    pub fn save(
        &mut self,
        state: &mut State,
        tensors: &[(String, Tensor)],
        best: Option<&[(String, Tensor)]>,
    ) -> Result<(), TrainError> {
        self.written += 1;
        let name = |what: &str| format!("{what}-{}.safetensors", self.written);
        let [tensors_name, best_name] = KINDS.map(name);
        write_safetensors(&self.path.join(&tensors_name), tensors)?;
        state.tensors = tensors_name;
        if let Some(best) = best {
            write_safetensors(&self.path.join(&best_name), best)?;
            state.best_tensors = Some(best_name);
        }
        let json = serde_json::to_vec(state).map_err(|error| TrainError::Resume {
            path: self.path.display().to_string(),
            reason: error.to_string(),
        })?;
        let path = self.path.join(STATE);
        replace(&RealDisk, &path, &json).map_err(|error| TrainError::io(&path, "writing it failed", error))?;
        self.remove_older(state);
        Ok(())
    }

    /// What no state names any more. A file that stays costs room, nothing else.
    fn remove_older(&self, state: &State) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let used = name == state.tensors || state.best_tensors.as_ref() == Some(&name);
            let unfinished = name.ends_with(".partial") || name.ends_with(".tmp");
            if name.ends_with(".safetensors") && !used || unfinished {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
