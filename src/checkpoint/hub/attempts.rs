//! When something is tried again that the hub did not give: soon after what passes by itself, and when the hub says so.

use std::thread;
use std::time::Duration;

use crate::checkpoint::CheckpointError;

/// How often to come back when the hub says, and after how long at most: its limits are of windows of five minutes.
const MOST_WAITS: u32 = 4;
const LONGEST_WAIT: Duration = Duration::from_secs(330);

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may go better next time.
    Passing(String),
    /// It will go better after a while, by the hub's own words.
    Later { reason: String, wait: Duration },
    /// It will not.
    Final(CheckpointError),
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        Self::Final(error)
    }
}

/// How often something is tried again.
pub(super) struct Attempts<'c> {
    /// The model's.
    id: &'c str,
    /// Takes what users are to know while they wait.
    tell: Option<fn(&str)>,
    /// In a row.
    failures: u32,
    most_failures: u32,
    waits_left: u32,
}

impl<'c> Attempts<'c> {
    /// `waits`: whether to come back when the hub says so.
    pub(super) fn new(id: &'c str, tell: Option<fn(&str)>, most_failures: u32, waits: bool) -> Self {
        Self {
            id,
            tell,
            failures: 0,
            most_failures,
            waits_left: if waits { MOST_WAITS } else { 0 },
        }
    }

    /// What was achieved in between lets a failure count as the first.
    pub(super) fn begin_anew(&mut self) {
        self.failures = 0;
    }

    /// Pauses after `failure`. Errors where it is no use to try again.
    pub(super) fn pause(&mut self, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Final(_) => Err(failure),
            Failure::Passing(_) => {
                self.failures += 1;
                if self.failures == self.most_failures {
                    return Err(failure);
                }
                thread::sleep(Duration::from_millis(100 << self.failures.min(5)));
                Ok(())
            }
            Failure::Later { ref reason, wait } => {
                if self.waits_left == 0 || wait > LONGEST_WAIT {
                    return Err(failure);
                }
                self.waits_left -= 1;
                if let Some(tell) = self.tell {
                    tell(&format!("{}: {reason}; waiting", self.id));
                }
                thread::sleep(wait);
                Ok(())
            }
        }
    }
}
