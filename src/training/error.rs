//! Why a training run could not begin or go on.

use std::io;

use super::Phase;
use crate::{
    checkpoint::CheckpointError,
    kernels::memory,
    model::{ConfigError, RolesError},
    scoring::ScoreError,
    text::TokenizerError,
};

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("{place}: {reason}")]
    Settings { place: String, reason: String },
    /// The data cannot be read.
    #[error(transparent)]
    Read(#[from] ScoreError),
    #[error("{place}: {reason}")]
    Data { place: String, reason: String },
    #[error("{place}: not a BERT backbone: {reason}")]
    Backbone { place: String, reason: String },
    #[error(
        "{phase}, epoch {epoch}, step {step}: the loss is {loss}; it would be again: begin anew with --force and {change}"
    )]
    Diverged {
        phase: Phase,
        epoch: usize,
        step: u64,
        loss: f32,
        /// See `Settings::to_change`.
        change: String,
    },
    #[error("{path}: {reason}")]
    Resume { path: String, reason: String },
    /// What an earlier run left to go on from is not what it wrote.
    #[error("{path}: expected {expected}, found {found}; begin again with --force")]
    Damaged {
        path: String,
        expected: String,
        found: String,
    },
    /// By whoever asked the run to stop; its state has been saved.
    #[error("interrupted")]
    Interrupted,
    #[error("{path}: {action}: {error}")]
    Io {
        path: String,
        action: &'static str,
        // Part of the message, so no source, which would be told again.
        error: io::Error,
    },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Roles(#[from] RolesError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(
        "the GPU's memory is too small for a step: end what else uses that GPU, lower batch_size (and raise accumulation \
         by as much), or take another GPU (--device cuda:N) or --device cpu"
    )]
    OutOfMemory,
    #[error("{0}")]
    Tensor(String),
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        if memory::is_out_of_memory(&error) {
            return Self::OutOfMemory;
        }
        // The debug form may hold a backtrace; the first line is the message.
        let message = error.to_string();
        Self::Tensor(message.lines().next().unwrap_or_default().to_owned())
    }
}

impl TrainError {
    pub(super) fn io(path: &std::path::Path, action: &'static str, error: io::Error) -> Self {
        Self::Io {
            path: path.display().to_string(),
            action,
            error,
        }
    }

    pub(super) fn data(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Data {
            place: place.into(),
            reason: reason.into(),
        }
    }
}
