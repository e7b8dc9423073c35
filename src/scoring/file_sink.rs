//! Answers into an output file, with a state beside it from which a later run can go on.
//!
//! A state is saved at most every [`Plan::save_every`], and seldom enough to cost little; when the run ends
//! early; and when all answers are there. It never says more than what is on the disk. After an
//! error nothing is saved any more: what the last state says still holds.
//!
//! A compressed output consists of members of about [`MEMBER_BYTES`] of answers, cut where the answers say, so
//! that a run that was interrupted cuts at the same places. Answers of a member that is not full yet are part
//! of the state.

use std::io;
use std::time::{Duration, Instant};

use super::counts::Counts;
use super::resume::{ConsumedInput, SavedOutput, Setting, Start, State};
use super::resume_error::ResumeError;
use super::sink::{Progress, Sink, WRITE_BYTES};
use crate::files::{Companion, Compression, MEMBER_BYTES, OutputError, OutputFile, compress};

/// Of the time, at most one part in this many goes into saving.
const SAVE_SHARE: u32 = 20;

/// How an output comes about.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything that answers depend on.
    pub settings: Vec<Setting>,
    /// Names of the inputs.
    pub names: Vec<String>,
    /// Go on where an earlier run ended, if there was one.
    pub resume: bool,
    /// Replace an output that exists.
    pub force: bool,
    /// A state is saved at most this often; zero: after every answer, whatever that costs.
    pub save_every: Duration,
    /// What [`Finished::evidence`] gave a run that finished the output that exists, from wherever that was kept.
    pub evidence: Option<serde_json::Value>,
}

/// What became of the wish to make an output.
pub enum Opened {
    /// It can be made: run with this start into the sink.
    Run(Box<FileSink>, Start),
    /// There is one, made by a run with the same settings; if [`check_inputs`](super::check_inputs) agrees, from the
    /// same inputs too. Then only [`OutputFile::settle`] is left to do.
    Finished(OutputFile, Start),
}

/// Takes answers into a file.
pub struct FileSink {
    output: OutputFile,
    compression: Option<Compression>,
    plan: Plan,
    /// Answers that are not in the file yet: of a compressed output, those of the open member.
    pending: Vec<u8>,
    /// Up to the last answer taken.
    inputs: Vec<ConsumedInput>,
    counts: Counts,
    began: Instant,
    /// The time that earlier runs took.
    earlier: Duration,
    /// Answers have come since the last save.
    unsaved: bool,
    /// When the last save ended, and how long it took.
    saved: Instant,
    cost: Duration,
    /// Something could not be written.
    broken: bool,
}

/// What a complete output is, before it is in its place.
#[derive(Clone, Debug)]
pub struct Finished {
    pub bytes: u64,
    /// The BLAKE3 hash of the file.
    pub digest: blake3::Hash,
    pub counts: Counts,
    /// From which a later `--resume` can tell that the output is its own result; to be kept where
    /// [`Plan::evidence`] comes from. It holds hashes and settings, no record and no secret.
    pub evidence: serde_json::Value,
}

impl FileSink {
    /// Begins an output, or goes on with it.
    ///
    /// # Errors
    /// What an earlier run left is not this run's (nothing has been written then), or a state cannot be saved.
    pub fn open(mut output: OutputFile, plan: Plan) -> Result<Opened, OpenError> {
        let state_name = output.state_path().display().to_string();
        let earlier = match output.state()? {
            Some(bytes) if plan.resume => {
                let damaged = |reason| ResumeError::Damaged {
                    state: state_name.clone(),
                    reason,
                };
                Some(State::parse(&bytes).map_err(damaged)?)
            }
            // Answers that are not in OUT.partial yet, such as those of a compressed output's first member.
            Some(bytes) if !plan.force && !bytes.is_empty() => match State::parse(&bytes) {
                Ok(state) if state.holds_answers() => {
                    return Err(OutputError::Unfinished {
                        path: output.target().display().to_string(),
                        partial: state_name,
                    }
                    .into());
                }
                Ok(_) => None,
                // Somebody's file, or of a version that may go on with what is in it.
                Err(reason) => {
                    return Err(ResumeError::Foreign {
                        state: state_name,
                        reason,
                    }
                    .into());
                }
            },
            _ => None,
        };
        if plan.resume && output.exists() {
            match finished(&output, &plan, earlier.as_ref())? {
                Ok(start) => return Ok(Opened::Finished(output, start)),
                Err(reason) if !plan.force => {
                    let path = output.target().display().to_string();
                    return Err(ResumeError::Exists { path, reason }.into());
                }
                Err(_) => {}
            }
        }
        // A state alone is what a run that finished has left behind, and its output has been taken away; or nothing had
        // been written yet.
        let is_first = |state: &State| state.output.bytes == 0 && !state.complete;
        let earlier = earlier.filter(|state| output.has_partial() || is_first(state));
        let (start, pending) = match earlier {
            Some(state) => restore(&mut output, &plan, state, state_name)?,
            None if plan.resume && output.has_partial() => {
                let partial = output.partial().display().to_string();
                return Err(ResumeError::Unexplained {
                    partial,
                    state: state_name,
                }
                .into());
            }
            None => (None, Vec::new()),
        };
        let is_new = start.is_none();
        let start = start.unwrap_or_default();
        let mut sink = Self {
            compression: Compression::of_name(output.target()),
            output,
            plan,
            pending,
            inputs: start.inputs.clone(),
            counts: start.counts.clone(),
            began: Instant::now(),
            earlier: start.counts.elapsed,
            unsaved: false,
            saved: Instant::now(),
            cost: Duration::ZERO,
            broken: false,
        };
        // Before the first byte: what this run leaves can always be told from what an earlier one left.
        if is_new {
            sink.save()?;
        }
        Ok(Opened::Run(Box::new(sink), start))
    }

    /// All answers have been taken: brings them to the disk. [`Self::publish`] makes them the output.
    ///
    /// In between is the time to make what appears together with the output, from what this returns.
    pub fn complete(&mut self, counts: &Counts) -> Result<Finished, OutputError> {
        // An empty file is no archive.
        if !self.pending.is_empty() || (self.compression.is_some() && self.output.length() == 0) {
            self.write_pending()?;
        }
        self.counts = counts.clone();
        for name in self.plan.names.iter().skip(self.inputs.len()) {
            self.inputs.push(ConsumedInput::none_of(name));
        }
        let mut state = self.state(Vec::new());
        state.complete = true;
        let evidence = serde_json::to_value(&state).map_err(|error| self.unsayable(error.into()))?;
        self.save_state(&state)?;
        Ok(Finished {
            bytes: self.output.length(),
            digest: self.output.digest(),
            counts: self.counts.clone(),
            evidence,
        })
    }

    /// Puts the output in its place; `companions` appear directly before it. Only after [`Self::complete`].
    pub fn publish(mut self, companions: &[Companion]) -> Result<(), OutputError> {
        self.output.publish(companions)
    }

    /// Writes what may be written before more comes: a member that is open is not for the disk yet.
    fn write_ready(&mut self) -> Result<(), OutputError> {
        let limit = match self.compression {
            None => 1,
            Some(_) => MEMBER_BYTES,
        };
        if self.pending.len() >= limit {
            self.write_pending()?;
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), OutputError> {
        self.broken = true;
        match self.compression {
            None => self.output.append(&self.pending)?,
            Some(compression) => {
                let member = compress(compression, &self.pending).map_err(|error| self.unsayable(error))?;
                self.output.append(&member)?;
            }
        }
        self.broken = false;
        self.pending.clear();
        // One very long line must not stay allocated for the rest of the run.
        self.pending.shrink_to(2 * WRITE_BYTES);
        Ok(())
    }

    fn save_if_due(&mut self) -> Result<(), OutputError> {
        let pause = match self.plan.save_every {
            Duration::ZERO => Duration::ZERO,
            asked => asked.max(self.cost * SAVE_SHARE),
        };
        if self.unsaved && self.saved.elapsed() >= pause {
            self.save()?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), OutputError> {
        self.write_ready()?;
        self.counts.elapsed = self.earlier + self.began.elapsed();
        let pending = std::mem::take(&mut self.pending);
        let state = self.state(pending);
        let saved = self.save_state(&state);
        self.pending = state.output.pending;
        saved
    }

    fn state(&self, pending: Vec<u8>) -> State {
        let output = SavedOutput {
            bytes: self.output.length(),
            digest: self.output.digest().into(),
            pending,
        };
        State::new(
            &self.plan.settings,
            &self.inputs,
            self.plan.names.len(),
            &self.counts,
            output,
        )
    }

    fn save_state(&mut self, state: &State) -> Result<(), OutputError> {
        let started = Instant::now();
        let bytes = state.to_bytes().map_err(|error| self.unsayable(error.into()))?;
        self.broken = true;
        self.output.save_state(&bytes)?;
        self.broken = false;
        (self.unsaved, self.saved, self.cost) = (false, Instant::now(), started.elapsed());
        Ok(())
    }

    fn unsayable(&self, source: io::Error) -> OutputError {
        OutputError::Io {
            path: self.output.target().display().to_string(),
            action: "cannot be put into its format",
            source,
        }
    }
}

impl Sink for FileSink {
    fn answer(&mut self, answer: &[u8], progress: Progress<'_>) -> io::Result<()> {
        self.pending.extend_from_slice(answer);
        let position = progress.position;
        while self.inputs.len() <= position.source {
            let name = self.plan.names.get(self.inputs.len()).map_or("", String::as_str);
            self.inputs.push(ConsumedInput::none_of(name));
        }
        let input = &mut self.inputs[position.source];
        (input.lines, input.digest) = (position.line, position.digest);
        self.counts.clone_from(progress.counts);
        self.unsaved = true;
        let limit = self.compression.map_or(WRITE_BYTES, |_| MEMBER_BYTES);
        if self.pending.len() >= limit {
            self.write_pending().map_err(OutputError::into_io)?;
        }
        self.save_if_due().map_err(OutputError::into_io)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_ready()
            .and_then(|()| self.save_if_due())
            .map_err(OutputError::into_io)
    }

    fn suspend(&mut self) -> io::Result<()> {
        if self.broken || !self.unsaved {
            return Ok(());
        }
        self.save().map_err(OutputError::into_io)
    }
}

/// Why an output could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Resume(#[from] ResumeError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Whether the output that exists is what this run would make, as far as can be told without its inputs; else why not.
fn finished(output: &OutputFile, plan: &Plan, earlier: Option<&State>) -> Result<Result<Start, String>, OpenError> {
    if output.has_partial() {
        return Ok(Err(
            "an unfinished new one beside it, with which --force --resume goes on".to_owned(),
        ));
    }
    let kept = plan
        .evidence
        .as_ref()
        .and_then(|value| State::from_evidence(value).ok());
    let mut reason = "nothing says which run made it".to_owned();
    for state in earlier.into_iter().chain(&kept).filter(|state| state.complete) {
        let differences = state.differences(&plan.settings, &plan.names);
        if !differences.is_empty() {
            reason = format!("another run made it: {}", differences.join("; "));
            continue;
        }
        if state
            .output
            .is_all_of(output.target())
            .map_err(|source| OutputError::Io {
                path: output.target().display().to_string(),
                action: "cannot be read",
                source,
            })?
        {
            return Ok(Ok(Start {
                inputs: state.inputs.clone(),
                complete: true,
                counts: (&state.counts).into(),
            }));
        }
        reason = "it has been changed since this run made it".to_owned();
    }
    Ok(Err(reason))
}

/// Where an earlier run ended, and its answers that are not in the file yet.
fn restore(
    output: &mut OutputFile,
    plan: &Plan,
    state: State,
    name: String,
) -> Result<(Option<Start>, Vec<u8>), OpenError> {
    let differences = state.differences(&plan.settings, &plan.names);
    if !differences.is_empty() {
        let state = name;
        return Err(ResumeError::OtherRun { state, differences }.into());
    }
    let length = state.output.bytes;
    if !output.restore(length, &blake3::Hash::from_bytes(state.output.digest))? {
        let partial = output.partial().display().to_string();
        let state = name;
        return Err(ResumeError::OtherPartial { partial, state, length }.into());
    }
    let start = Start {
        inputs: state.inputs,
        complete: state.complete,
        counts: (&state.counts).into(),
    };
    Ok((Some(start), state.output.pending))
}
