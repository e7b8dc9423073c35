//! What can go wrong between a user's `--model` and a tensor.

use std::io;

use thiserror::Error;

use crate::words::on_one_line;

/// Each message names the file (or the hub's repository), what was found, and where possible the way out.
/// No message ever holds a token.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The words given do not name a model.
    #[error("model \"{spec}\": {reason}")]
    Source { spec: String, reason: String },

    /// Reading or writing `path` failed in the operating system.
    #[error("{path}: {action}: {error}")]
    Io {
        path: String,
        action: &'static str,
        // Part of the message, so no source, which would be told again.
        error: io::Error,
    },

    /// The folder or repository is there, but holds no weights in a known form.
    #[error("{place}: no weights found: looked for {looked_for}")]
    NoWeights { place: String, looked_for: String },

    /// The file is damaged, or not what its name says.
    #[error("{file}: {reason}")]
    Malformed { file: String, reason: String },

    /// The file is whole, but in a form that is not read here.
    #[error("{file}: {reason}")]
    Unsupported { file: String, reason: String },

    /// One tensor of an otherwise readable file cannot be used.
    #[error("{file}: tensor \"{tensor}\": {reason}")]
    Tensor {
        file: String,
        tensor: String,
        reason: String,
    },

    /// Another program has written into the file while it was in use.
    #[error(
        "{file}: another program has written to it since it was opened, or has given it another time of writing, so what is computed \
         with it may be of two models; nothing of that is used: run again, and replace such a file by a whole new one (mv, or crag \
         convert --force)"
    )]
    Changed { file: String },

    /// [`Checkpoint::tensor`](super::Checkpoint::tensor) was asked for a name that the checkpoint lacks.
    #[error("{file}: no tensor \"{tensor}\"")]
    NoSuchTensor { file: String, tensor: String },

    /// The repository or the revision does not exist, or is hidden from this user.
    #[error("{repo}: {reason}")]
    NotOnHub { repo: String, reason: String },

    /// The hub wants a token, or a better one.
    #[error("{repo}: {reason}; set HF_TOKEN to a token that may read it")]
    Access { repo: String, reason: String },

    /// Nothing may be asked of the hub, and the cache does not hold what is needed.
    #[error(
        "{repo}: not in the cache at {cache} and --offline (or HF_HUB_OFFLINE) forbids asking the hub: {missing}; where there is a network, crag inspect --model fetches it, and HF_HOME says where to"
    )]
    Offline {
        repo: String,
        cache: String,
        missing: String,
    },

    /// No answer, or none that could be used.
    #[error("{repo}: could not get {what} from {endpoint}: {reason}; {advice}")]
    Unreachable {
        repo: String,
        what: String,
        endpoint: String,
        reason: String,
        advice: &'static str,
    },
}

impl CheckpointError {
    pub(super) fn malformed(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed {
            file: file.into(),
            reason: reason.into(),
        }
    }

    pub(super) fn unsupported(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported {
            file: file.into(),
            reason: reason.into(),
        }
    }

    pub(super) fn tensor(file: impl Into<String>, tensor: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Tensor {
            file: file.into(),
            tensor: shorten(&tensor.into()),
            reason: reason.into(),
        }
    }

    /// What was asked for in vain, from where, and why; none of other errors.
    pub(super) fn why_unreachable(&self) -> Option<String> {
        match self {
            Self::Unreachable {
                what, endpoint, reason, ..
            } => Some(format!("could not get {what} from {endpoint}: {reason}")),
            _ => None,
        }
    }

    pub(super) fn io(path: impl AsRef<std::path::Path>, action: &'static str, error: io::Error) -> Self {
        Self::Io {
            path: path.as_ref().display().to_string(),
            action,
            error,
        }
    }
}

/// A library's message about an untrusted file, fit for an error.
pub(super) fn quoting(message: &str) -> String {
    on_one_line(message, 600)
}

/// A name out of an untrusted file, made fit for one line of a message.
pub(super) fn shorten(name: &str) -> String {
    const LONGEST: usize = 120;
    let mut out: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}
