//! What the pipeline knows of a format: how a record is read, and how its answer is written.

use std::fmt::Debug;

use super::error::{LineError, ScoreError};
use super::output::{Place, Scored};
use super::record::{Record, Rejection};
use super::rows::RowEnds;

/// What a line gets.
pub(super) enum Answer<'a> {
    Scored(Scored<'a>),
    Error {
        error: &'a LineError,
        /// Whether the line can take the error.
        spliceable: bool,
        place: Place<'a>,
    },
}

pub(super) trait RecordFormat: Debug + Send + Sync {
    /// Where lines end.
    fn ends(&self) -> RowEnds;

    /// Whether an input's first line that is not blank says what is in the others.
    fn has_header(&self) -> bool {
        false
    }

    /// Takes the header of an input: the first one decides what all records hold, all others have to say the same.
    /// Returns what to write for it, with its line end. Called before any of the input's lines is read.
    fn take_header(&self, name: &str, line: u64, header: &[u8]) -> Result<Vec<u8>, ScoreError> {
        let _ = (name, line, header);
        Ok(Vec::new())
    }

    fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, Rejection>;

    /// Appends the answer with its line end. `line` has been parsed; it is empty if it was too long to be kept.
    fn write(&self, out: &mut Vec<u8>, line: &[u8], answer: &Answer<'_>);
}
