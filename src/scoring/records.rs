//! The formats of records behind one pair of functions: how one is read, and how its answer is written.
//!
//! JSONL is [`super::json`] and [`super::output`], tables are [`super::table`]; the pipeline knows neither.

use std::fmt::Debug;

use super::error::{LineError, ScoreError};
use super::fields::{FieldMap, Format};
use super::json::JsonReader;
use super::output::{self, OutputKey, Scored};
use super::record::{Record, Rejection};
use super::rows::RowEnds;
use super::table::Table;

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

/// Where a line is, for an answer that cannot be put into it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The input's name, where there are several.
    pub file: Option<&'a str>,
    pub line: u64,
}

pub(super) trait Records: Debug + Send + Sync {
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

/// Records of `format` with their fields where `map` says.
pub(super) fn records(format: Format, map: &FieldMap, output: &OutputKey) -> Box<dyn Records> {
    match format {
        Format::Jsonl => Box::new(Jsonl {
            reader: JsonReader::new(map.clone(), output.clone()),
            output: output.clone(),
        }),
        Format::Csv | Format::Tsv => Box::new(Table::new(format, map.clone(), output.clone())),
    }
}

#[derive(Debug)]
struct Jsonl {
    reader: JsonReader,
    output: OutputKey,
}

impl Records for Jsonl {
    fn ends(&self) -> RowEnds {
        RowEnds::lines()
    }

    fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, Rejection> {
        self.reader.parse(line)
    }

    fn write(&self, out: &mut Vec<u8>, line: &[u8], answer: &Answer<'_>) {
        match answer {
            Answer::Scored(scored) => output::write_scored(out, line, &self.output, scored),
            Answer::Error {
                error,
                spliceable: true,
                ..
            } => output::write_error(out, line, &self.output, error),
            Answer::Error { error, place, .. } => output::write_line_error(out, *place, &self.output, error),
        }
    }
}
