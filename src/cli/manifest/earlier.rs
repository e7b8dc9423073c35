//! The summary of an earlier run, under the name of this one's: whoever looks at it would take it for this one's.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

use super::{End, RUNNING, to_text};
use crate::cli::console;
use crate::cli::report_file::replace_earlier;

/// What may lie where `--summary-json` of a run goes that has not written its own.
#[derive(Clone)]
pub struct EarlierSummary {
    pub path: PathBuf,
    /// What the run reads, or would have written under, which may be why it could not begin; that stays.
    pub others: Vec<PathBuf>,
    /// Whether contents are a summary.
    pub is_own: fn(&[u8]) -> bool,
    /// The summary of a run that has no more to say than how it ended.
    pub make: fn(&End) -> anyhow::Result<Value>,
}

impl EarlierSummary {
    /// Replaces it, if there is one, by that of a run that has begun: what a kill leaves is no earlier run's end.
    pub fn begin(&self) -> anyhow::Result<()> {
        match self.path.exists() {
            true => self.replace(&End::not_yet()),
            false => Ok(()),
        }
    }

    /// Replaces it by that of a run that wrote none itself; it is made where there is none.
    pub fn replace(&self, end: &End) -> anyhow::Result<()> {
        let text = to_text(&(self.make)(end)?)?;
        let replaced = replace_earlier(&self.path, &self.others, self.is_own, &text);
        replaced.with_context(|| format!("--summary-json {}", self.path.display()))
    }

    /// Whether it is of a run that is on, as far as it says: the one that holds the output's lock will write its own end.
    pub fn is_of_a_run_under_way(&self) -> bool {
        let summary = std::fs::read(&self.path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        summary.is_some_and(|summary| summary["outcome"]["status"] == RUNNING)
    }

    /// [`Self::replace`] at the end of a run that may have failed of `error`; says why it cannot, unless that is what the run failed of.
    pub fn tell(&self, end: &End, error: Option<&anyhow::Error>) {
        if let Err(own) = self.replace(end) {
            let own = format!("{own:#}");
            if error.is_none_or(|error| format!("{error:#}") != own) {
                console::warn(&own);
            }
        }
    }
}
