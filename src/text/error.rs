//! What a tokenizer cannot do.

/// Why there is no tokenizer, or no token ids of a text.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("no tokenizer: expected tokenizer.json or vocab.txt beside the weights")]
    NoFiles,
    #[error("{file}: {reason}")]
    Malformed { file: String, reason: String },
    #[error("the tokenizer failed on a text of {bytes} bytes: {reason}")]
    Failed { bytes: usize, reason: String },
}

impl TokenizerError {
    pub(super) fn malformed(file: &str, reason: &str) -> Self {
        Self::Malformed {
            file: file.to_owned(),
            reason: reason.to_owned(),
        }
    }
}
