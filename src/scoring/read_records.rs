//! Records outside the pipeline: a whole input read at once, for those who train on it.

use std::io::Read;

use super::error::ScoreError;
use super::fields::FieldMap;
use super::format::Format;
use super::formats::record_format;
use super::lines::{Content, LineReader, too_long};
use super::output_key::OutputKey;
use super::record::Record;

/// Calls `each` with every line's number (from 1) and its record and own bytes, or why it is none. Blank lines are
/// skipped.
///
/// # Errors
/// Where the input itself cannot be read.
pub fn read_records(
    name: &str,
    input: impl Read,
    max_line_bytes: usize,
    mut each: impl FnMut(u64, Result<(Record<'_>, &[u8]), String>),
) -> Result<(), ScoreError> {
    // Keys of answers (of an earlier run, say) are no conflict.
    let output = OutputKey::nowhere();
    let format = record_format(Format::Jsonl, &FieldMap::default(), &output);
    let mut lines = LineReader::new(input, name.to_owned(), max_line_bytes, format.ends());
    while let Some((number, content)) = lines.next_line()? {
        match content {
            Content::Blank => {}
            Content::TooLong { bytes, .. } => each(number, Err(too_long(max_line_bytes, bytes))),
            Content::Bytes(line) => match format.parse(&line) {
                Ok(record) => each(number, Ok((record, &line))),
                Err(rejection) => each(number, Err(stated_error(&line).unwrap_or(rejection.error.message))),
            },
        }
    }
    Ok(())
}

/// What a line says that stands for one that could not be read, as answers do and rows of tables.
fn stated_error(line: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Unread {
        #[serde(rename = "file")]
        _file: Option<String>,
        #[serde(rename = "line")]
        _line: u64,
        error: Stated,
    }
    #[derive(serde::Deserialize)]
    struct Stated {
        message: String,
    }
    Some(serde_json::from_slice::<Unread>(line).ok()?.error.message)
}
