//! What was not well with an input, where, and what ends a run.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::words::{quoted, shortened, visible};

/// Where something stands: a file, a line of it where lines mean something, a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    /// From 1; 0 where there is none to name.
    pub line: u64,
    /// Empty where it is not known.
    pub document: String,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            file: Arc::from(""),
            line: 0,
            document: String::new(),
        }
    }
}

impl Place {
    pub fn at(&self, line: u64) -> Self {
        let line = if line == 0 { self.line } else { line };
        Self { line, ..self.clone() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.document.is_empty() {
            write!(f, ": document {}", quoted(&self.document))?;
        }
        Ok(())
    }
}

/// Why something was left out. The names are part of the summary's format and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The file is not of the format, or not UTF-8 as a whole (UTF-16, a declared other encoding).
    WrongFormat,
    /// One of brat's two files is not there.
    MissingFile,
    /// A document that cannot be read as one.
    MalformedDocument,
    /// A line that is none of the format's.
    MalformedLine,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// A document, or a line, longer than the limit.
    TooLarge,
    /// An annotation of another document than the one that it stands with.
    StrayLine,
    /// A mention whose offsets do not lie in its text.
    OutsideText,
    /// The text at the offsets is not the mention's.
    TextMismatch,
    /// A mention of nothing, or of whitespace alone.
    EmptyMention,
    /// A mention without its words, which leaves nothing to check its offsets with.
    MissingText,
    /// Several places fit, and nothing says which.
    Ambiguous,
    /// A relation with a mention that is not there or was left out.
    DanglingRelation,
    /// Pairs beyond the limit for one document.
    TooManyPairs,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::WrongFormat => "wrong_format",
            Reason::MissingFile => "missing_file",
            Reason::MalformedDocument => "malformed_document",
            Reason::MalformedLine => "malformed_line",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::TooLarge => "too_large",
            Reason::StrayLine => "stray_line",
            Reason::OutsideText => "outside_text",
            Reason::TextMismatch => "text_mismatch",
            Reason::EmptyMention => "empty_mention",
            Reason::MissingText => "missing_text",
            Reason::Ambiguous => "ambiguous",
            Reason::DanglingRelation => "dangling_relation",
            Reason::TooManyPairs => "too_many_pairs",
        }
    }
}

/// Something that was left out: where, why, what was expected and found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub reason: Reason,
    pub message: String,
}

impl Problem {
    pub fn new(place: Place, reason: Reason, message: impl Into<String>) -> Self {
        // Parsers quote what they met: it must neither break the line nor fill the log.
        const LIMIT: usize = 500;
        Self {
            place,
            reason,
            message: visible(&shortened(&message.into(), LIMIT)),
        }
    }
}

/// Of a `part` (a line, a document, a file) that is larger than [`super::Options::max_document_bytes`].
pub(super) fn too_large(part: &str, max_bytes: usize) -> String {
    format!("expected a {part} of at most {max_bytes} bytes, found a larger one; see --max-doc-bytes")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.place, self.message, self.reason.name())
    }
}

/// What ends a run.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    #[error("{name}")]
    Read { name: String, source: io::Error },
    #[error("writing the records")]
    Write(#[source] io::Error),
    /// Whoever read the output stopped reading.
    #[error("the output was closed")]
    ClosedPipe,
    /// The first problem of a strict run.
    #[error("{0}")]
    Refused(Box<Problem>),
}

impl From<Problem> for CorpusError {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

/// Takes problems as they are found.
pub trait Report {
    /// An error ends the run.
    fn report(&mut self, problem: Problem) -> Result<(), CorpusError>;
}

/// "is not UTF-8": which byte.
pub(super) fn not_utf8(bytes: &[u8], error: std::str::Utf8Error) -> String {
    let at = error.valid_up_to();
    let before = String::from_utf8_lossy(&bytes[at.saturating_sub(30)..at]).into_owned();
    format!(
        "expected UTF-8, found the byte 0x{:02x} after {}",
        bytes[at],
        quoted(&before)
    )
}
