//! How a run ended, and the exit code of each way: of what did not fail and of what did.

use crate::files::OutputError;
use crate::scoring::{Counts, OpenError, ScoreError};

/// The exit code where another run is writing the output.
pub const LOCKED: u8 = 11;

/// How a run that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    /// Finished, and the output says what was not well.
    Incomplete,
    /// Whoever read stdout stopped reading (`| head -1`).
    ClosedPipe,
    /// The command line was not understood, and that has been said.
    Usage,
    /// By a signal, in order: what was finished has been written.
    Interrupted(i32),
}

impl Outcome {
    /// Of two parts of a run, the second done where the first came to its end.
    pub fn and(self, next: Outcome) -> Self {
        match self {
            Outcome::Complete => next,
            other => other,
        }
    }

    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Complete => 0,
            Outcome::Incomplete => 3,
            Outcome::ClosedPipe => 141,
            Outcome::Usage => 2,
            // Signals' numbers are below 128.
            Outcome::Interrupted(signal) => 128 + signal as u8,
        }
    }

    /// As manifests and summaries have it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Complete => "complete",
            Outcome::Incomplete => "complete_with_errors",
            Outcome::ClosedPipe => "closed_pipe",
            Outcome::Usage => "usage",
            Outcome::Interrupted(_) => "interrupted",
        }
    }

    /// How a run ended that answered all its records.
    pub fn of(counts: &Counts) -> Self {
        Self::of_records(counts.errors() > 0)
    }

    /// The same, by whether something was wrong with some of them.
    pub fn of_records(incomplete: bool) -> Self {
        match incomplete {
            false => Outcome::Complete,
            true => Outcome::Incomplete,
        }
    }
}

/// Arguments that parsed one by one but do not make sense; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The exit code for a run that failed.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let output = error.downcast_ref().or(match error.downcast_ref() {
        Some(OpenError::Output(output)) => Some(output),
        _ => None,
    });
    match output {
        Some(OutputError::Locked { .. }) => return LOCKED,
        Some(
            OutputError::Exists { .. }
            | OutputError::Unfinished { .. }
            | OutputError::UnfinishedScore { .. }
            | OutputError::LeftOver { .. }
            | OutputError::IsInput { .. }
            | OutputError::Stays { .. }
            | OutputError::NoFolder { .. },
        ) => return 2,
        _ => {}
    }
    let is_mismatch = matches!(error.downcast_ref(), Some(ScoreError::Resume(_)))
        || matches!(error.downcast_ref(), Some(OpenError::Resume(_)));
    if is_mismatch || error.is::<UsageError>() { 2 } else { 1 }
}
