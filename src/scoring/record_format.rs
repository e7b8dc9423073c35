//! What the pipeline knows of a format: how a record is read, and how its answer is written.

use std::fmt::Debug;
use std::io::Write as _;

use super::error::{LineError, ScoreError};
use super::record::{Record, Rejection};
use super::rows::RowEnds;
use super::warning::Warning;

/// Where a line is, for an answer that cannot be put into it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The input's name, where there are several.
    pub file: Option<&'a str>,
    pub line: u64,
}

/// What is said of a scored line. All probabilities are finite.
pub struct Scored<'a> {
    pub probability: f32,
    pub causal: bool,
    /// Where calibrated probabilities were asked for.
    pub calibrated: Option<f32>,
    /// Of several models, each name with its probability; empty with one.
    pub probabilities: &'a [(&'a str, f32)],
    pub warnings: &'a [Warning],
}

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

/// Appends an object from names of models to their probabilities.
pub fn write_probabilities(out: &mut Vec<u8>, probabilities: &[(&str, f32)]) {
    for (i, (name, probability)) in probabilities.iter().enumerate() {
        out.push(if i == 0 { b'{' } else { b',' });
        write_string(out, name);
        out.push(b':');
        write_probability(out, *probability);
    }
    out.push(b'}');
}

/// The shortest digits that read back to the same f32.
pub fn write_probability(out: &mut Vec<u8>, probability: f32) {
    write_json(out, &probability);
}

pub(super) fn write_string(out: &mut Vec<u8>, value: &str) {
    write_json(out, value);
}

pub(super) fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Neither numbers nor strings can fail to serialise, and a Vec takes every write.
    let written = serde_json::to_writer(out.by_ref(), value);
    debug_assert!(written.is_ok());
}
