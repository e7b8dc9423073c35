//! What a run leaves on disk while it runs, so that one that is killed can go on to the same result.
//!
//! Tensors go to a file of their own name, synced; then `state.json`, which names it, is replaced in one rename; then
//! older tensors are removed. So at every moment `state.json` names whole files. The best epoch's weights lie
//! beside them in the same way. `state.json` knows the hash of each, so that nothing goes on from other bytes.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Origin, TrainError, dataset::Example, judge::Judgement, phase::Phase};
use crate::checkpoint::{Checkpoint, HubOptions, ModelSource, locate, write_safetensors};
use crate::files::{RealDisk, check_seal, replace, seal};

/// What an epoch goes through one by one: a related pair and the negative made of it (phase 1), or a labelled pair (phase 2).
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
    pub phase: Phase,
    pub epoch: usize,
    pub loss: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Judgement>,
}

/// Where a run stands, between two optimizer steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// A resumed run must have the same.
    pub origin: Origin,
    /// None when all is done.
    pub phase: Option<Phase>,
    pub epoch: usize,
    /// Optimizer steps done in this epoch.
    pub step: usize,
    /// Optimizer steps done in this phase.
    pub phase_steps: u64,
    /// What this epoch goes through, in order; empty before an epoch.
    pub plan: Vec<Item>,
    /// Over the items that this epoch has gone through.
    pub loss_sum: f64,
    pub loss_items: u64,
    pub tokens: u64,
    pub seconds: f64,
    /// Length of the log when this was written.
    pub log_bytes: u64,
    pub history: Vec<EpochSummary>,
    pub best: Option<(usize, Judgement)>,
    tensors: TensorFile,
    best_tensors: Option<TensorFile>,
}

impl State {
    /// Of a run that has done nothing yet.
    pub fn begun(origin: &Origin) -> Self {
        Self {
            origin: origin.clone(),
            phase: Some(Phase::FIRST),
            ..Self::default()
        }
    }
}

/// A file of tensors as it was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct TensorFile {
    name: String,
    /// As `b3sum` prints it.
    blake3: String,
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

    /// The log, to be written on after what `state` knows of. What was logged after the state was written will be logged
    /// again; a loss of power may have taken more, and then `state` learns of it.
    pub(super) fn open_log(&self, state: &mut State) -> Result<File, TrainError> {
        let path = self.log();
        let failed = |action, error| TrainError::io(&path, action, error);
        let mut options = OpenOptions::new();
        let log = options.create(true).truncate(false).write(true).open(&path);
        let mut log = log.map_err(|error| failed("opening it failed", error))?;
        let mut cut = || -> io::Result<()> {
            state.log_bytes = state.log_bytes.min(log.metadata()?.len());
            log.set_len(state.log_bytes)?;
            log.seek(SeekFrom::End(0))?;
            Ok(())
        };
        cut().map_err(|error| failed("cutting it failed", error))?;
        Ok(log)
    }

    /// Where the last state is described.
    pub fn state_path(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// The last state and its tensors; none where no state was written yet.
    pub fn load(&self) -> Result<Option<(State, Tensors)>, TrainError> {
        let path = self.state_path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.remove_others(&[]);
                return Ok(None);
            }
            Err(error) => return Err(TrainError::io(&path, "reading it failed", error)),
        };
        let refused = |reason: String| TrainError::Resume {
            path: path.display().to_string(),
            reason: format!("{reason}; begin again with --force"),
        };
        let state: State =
            serde_json::from_slice(&bytes).map_err(|error| refused(format!("not a state of this version: {error}")))?;
        check_seal(&bytes).map_err(refused)?;
        let tensors = self.read(&state.tensors)?;
        // Better heard of now than after the last epoch.
        state.best_tensors.iter().try_for_each(|best| self.check(best))?;
        // What a run left that could not finish a state would take the room of the next.
        self.remove_older(&state);
        Ok(Some((state, tensors)))
    }

    /// The best epoch's weights.
    pub fn best(&self, state: &State) -> Result<Option<Tensors>, TrainError> {
        state.best_tensors.as_ref().map(|best| self.read(best)).transpose()
    }

    /// Errors unless the file is as it was written.
    fn check(&self, TensorFile { name, blake3 }: &TensorFile) -> Result<(), TrainError> {
        let path = self.path.join(name);
        let found = match hash(&path) {
            Ok(found) if found == *blake3 => return Ok(()),
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => "no such file".to_owned(),
            Err(error) => return Err(TrainError::io(&path, "reading it failed", error)),
        };
        Err(TrainError::Damaged {
            path: path.display().to_string(),
            expected: format!("what was written with the state (blake3 {blake3})"),
            found,
        })
    }

    fn read(&self, file: &TensorFile) -> Result<Tensors, TrainError> {
        self.check(file)?;
        let files = locate(&ModelSource::File(self.path.join(&file.name)), &HubOptions::default())?;
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
        let write = |kind: &str, tensors: &[(String, Tensor)]| -> Result<TensorFile, TrainError> {
            let name = format!("{kind}-{}.safetensors", self.written);
            let path = self.path.join(&name);
            write_safetensors(&path, tensors)?;
            let blake3 = hash(&path).map_err(|error| TrainError::io(&path, "reading it failed", error))?;
            Ok(TensorFile { name, blake3 })
        };
        let [of_state, of_best] = KINDS;
        state.tensors = write(of_state, tensors)?;
        if let Some(best) = best {
            state.best_tensors = Some(write(of_best, best)?);
        }
        let json = serde_json::to_vec(state).map_err(|error| TrainError::Resume {
            path: self.path.display().to_string(),
            reason: error.to_string(),
        })?;
        let path = self.state_path();
        replace(&RealDisk, &path, &seal(&json)).map_err(|error| TrainError::io(&path, "writing it failed", error))?;
        self.remove_older(state);
        Ok(())
    }

    /// What the state does not name any more.
    fn remove_older(&self, state: &State) {
        let best = state.best_tensors.as_ref().map(|best| best.name.as_str());
        let named = [Some(state.tensors.name.as_str()), best];
        self.remove_others(&named.into_iter().flatten().collect::<Vec<_>>());
    }

    /// Tensors of states but those that are `named`, and what was being written. A file that stays costs room, nothing else.
    fn remove_others(&self, named: &[&str]) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let unfinished = name.ends_with(".tmp");
            if name.ends_with(".safetensors") && !named.contains(&name.as_str()) || unfinished {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// As `b3sum` prints it.
fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_string())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn tensors() -> Vec<(String, Tensor)> {
        vec![("a".to_owned(), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap())]
    }

    #[test]
    fn no_state_is_written_over_the_tensors_that_the_last_one_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::begun(&Origin::default());
        for number in 1..=3 {
            // Each by a run that goes on with the one before.
            let mut work = WorkFolder::open(folder.path()).unwrap();
            let best = (number == 2).then(tensors);
            work.save(&mut state, &tensors(), best.as_deref()).unwrap();
            let mut expected = vec![format!("state-{number}.safetensors"), STATE.to_owned()];
            if number > 1 {
                expected.insert(0, "best-2.safetensors".to_owned());
            }
            assert_eq!(names(folder.path()), expected);
        }
    }

    #[test]
    fn what_a_kill_left_half_written_is_removed_with_the_next_state() {
        let folder = tempfile::tempdir().unwrap();
        for torn in ["state-7.safetensors.1-0.tmp", "state.json.tmp", "state-6.safetensors"] {
            fs::write(folder.path().join(torn), "torn").unwrap();
        }
        fs::write(folder.path().join(LOG), "{}\n").unwrap();
        let mut work = WorkFolder::open(folder.path()).unwrap();
        work.save(&mut State::begun(&Origin::default()), &tensors(), None)
            .unwrap();
        assert_eq!(names(folder.path()), [LOG, "state-7.safetensors", STATE]);
    }

    #[test]
    fn what_a_run_left_half_written_takes_no_room_of_the_one_that_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let torn = || {
            for torn in ["state-9.safetensors", "best-9.safetensors.1-0.tmp"] {
                fs::write(folder.path().join(torn), "torn").unwrap();
            }
        };
        torn();
        let mut work = WorkFolder::open(folder.path()).unwrap();
        assert!(work.load().unwrap().is_none());
        assert_eq!(names(folder.path()), [""; 0]);
        work.save(&mut State::begun(&Origin::default()), &tensors(), Some(&tensors()))
            .unwrap();
        let saved = names(folder.path());
        torn();
        assert!(WorkFolder::open(folder.path()).unwrap().load().unwrap().is_some());
        assert_eq!(names(folder.path()), saved);
    }
}
