//! What can go wrong with a line (recorded in its place) and with a run (ends it).

use std::fmt;
use std::io;

use super::resume_error::ResumeError;
use crate::files::WideEncoding;

/// Why a line was not scored. The names are part of the record format and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The line is not UTF-8.
    InvalidUtf8,
    /// The line is not one JSON value (also: NaN, a raw control character in a string, trailing bytes).
    InvalidJson,
    /// The line is JSON, but not an object.
    NotAnObject,
    /// The row of a table has too many or too few fields, or a quote where none can be.
    InvalidRow,
    /// The line is longer than the limit; it was read past without being kept.
    LineTooLong,
    /// The object already has a key that the answer would be written under.
    KeyConflict,
    /// A field that is read here occurs twice.
    DuplicateKey,
    /// A field and its other name are both there and differ.
    ConflictingFields,
    /// A field that is needed is not there.
    MissingField,
    /// A field holds another kind of value than it should; null is one.
    WrongType,
    /// A string that is read here holds half of a surrogate pair (`\ud800`), which is no character.
    LoneSurrogate,
    /// A text is empty or whitespace alone.
    EmptyText,
    /// A drug or reaction is empty or whitespace alone.
    EmptyEntity,
    /// The drug or reaction does not occur in its text.
    EntityNotFound,
    /// A span does not lie in its text or does not hold the entity.
    SpanMismatch,
    /// The tokenizer refused a text.
    NotTokenized,
    /// The network gave NaN or an infinity.
    NotFinite,
}

impl ErrorCode {
    pub const ALL: [ErrorCode; 17] = [
        ErrorCode::InvalidUtf8,
        ErrorCode::InvalidJson,
        ErrorCode::NotAnObject,
        ErrorCode::InvalidRow,
        ErrorCode::LineTooLong,
        ErrorCode::KeyConflict,
        ErrorCode::DuplicateKey,
        ErrorCode::ConflictingFields,
        ErrorCode::MissingField,
        ErrorCode::WrongType,
        ErrorCode::LoneSurrogate,
        ErrorCode::EmptyText,
        ErrorCode::EmptyEntity,
        ErrorCode::EntityNotFound,
        ErrorCode::SpanMismatch,
        ErrorCode::NotTokenized,
        ErrorCode::NotFinite,
    ];

    /// The code as records have it.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::InvalidUtf8 => "invalid_utf8",
            ErrorCode::InvalidJson => "invalid_json",
            ErrorCode::NotAnObject => "not_an_object",
            ErrorCode::InvalidRow => "invalid_row",
            ErrorCode::LineTooLong => "line_too_long",
            ErrorCode::KeyConflict => "key_conflict",
            ErrorCode::DuplicateKey => "duplicate_key",
            ErrorCode::ConflictingFields => "conflicting_fields",
            ErrorCode::MissingField => "missing_field",
            ErrorCode::WrongType => "wrong_type",
            ErrorCode::LoneSurrogate => "lone_surrogate",
            ErrorCode::EmptyText => "empty_text",
            ErrorCode::EmptyEntity => "empty_entity",
            ErrorCode::EntityNotFound => "entity_not_found",
            ErrorCode::SpanMismatch => "span_mismatch",
            ErrorCode::NotTokenized => "not_tokenized",
            ErrorCode::NotFinite => "not_finite",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why one line was not scored: a stable code, and a message for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct LineError {
    pub code: ErrorCode,
    pub message: String,
}

impl LineError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Why a run ended early. Every line finished before that point has been written.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    #[error("{name}: cannot be read")]
    Read { name: String, source: io::Error },
    #[error("{name}: {encoding}")]
    Encoding { name: String, encoding: WideEncoding },
    #[error("reading the inputs panicked; this is a fault of this program")]
    ReaderPanicked,
    #[error("{name}:{line}: {message}")]
    Header { name: String, line: u64, message: String },
    #[error("{name}: expected a header row, found {found}")]
    NoHeader { name: String, found: &'static str },
    #[error("{name}:{line}: {error}")]
    Rejected { name: String, line: u64, error: LineError },
    #[error("the network failed at {name}:{line}: {error:#}")]
    Network {
        name: String,
        line: u64,
        error: anyhow::Error,
    },
    #[error("cannot write the records")]
    Write { source: io::Error },
    /// The reader of the output has gone away: not a failure to report, only a reason to stop.
    #[error("the output was closed")]
    ClosedPipe,
    /// [`Options::stop`](super::Options::stop) was set.
    #[error("interrupted")]
    Interrupted,
    /// The run cannot go on where the one before ended. Nothing has been written.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    #[error(
        "cannot start {count} threads: {message}; ask for fewer (--threads, where the command has it), or for more to be \
         allowed (ulimit -u, a container's limit of processes)"
    )]
    Threads { count: usize, message: String },
}

impl ScoreError {
    pub(super) fn from_write(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => ScoreError::ClosedPipe,
            _ => ScoreError::Write { source },
        }
    }
}
