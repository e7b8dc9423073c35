//! Why a training run could not begin or go on.

use std::io;

use crate::{
    checkpoint::CheckpointError,
    model::{ConfigError, RolesError},
    text::TokenizerError,
};

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("{place}: {reason}")]
    Settings { place: String, reason: String },
    #[error("{place}: {reason}")]
    Data { place: String, reason: String },
    #[error("{place}: not a BERT backbone: {reason}")]
    Backbone { place: String, reason: String },
    #[error(
        "{phase}, epoch {epoch}, step {step}: the loss is {loss}; lower the learning rate (the last complete state is \
         kept, and --resume continues from it)"
    )]
    Diverged {
        phase: &'static str,
        epoch: usize,
        step: u64,
        loss: f32,
    },
    #[error("{path}: {reason}")]
    Resume { path: String, reason: String },
    /// By whoever asked the run to stop; its state has been saved.
    #[error("interrupted")]
    Interrupted,
    #[error("{path}: {action}: {source}")]
    Io {
        path: String,
        action: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Roles(#[from] RolesError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("{0}")]
    Tensor(String),
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        // The debug form may hold a backtrace; the first line is the message.
        let message = error.to_string();
        Self::Tensor(message.lines().next().unwrap_or_default().to_owned())
    }
}

impl TrainError {
    pub(super) fn io(path: &std::path::Path, action: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.display().to_string(),
            action,
            source,
        }
    }

    pub(super) fn data(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Data {
            place: place.into(),
            reason: reason.into(),
        }
    }
}
