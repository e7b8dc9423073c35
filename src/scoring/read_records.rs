//! Records outside the pipeline: a whole input read at once, for those who train on it.

use std::io::Read;

use super::error::ScoreError;
use super::lines::{Content, LineReader};
use super::output::OutputKey;
use super::record::{Record, parse};

/// As `crag score` has it by default.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Calls `each` with every line's number (from 1) and its record and own bytes, or why it is none. Blank lines are
/// skipped.
///
/// # Errors
/// Where the input itself cannot be read.
pub fn read_records(
    name: &str,
    input: impl Read,
    mut each: impl FnMut(usize, Result<(Record<'_>, &[u8]), String>),
) -> Result<(), ScoreError> {
    // No answer is written here, so keys of answers (of an earlier run, say) are no conflict.
    let output = OutputKey::nested("\u{0}").unwrap_or_default();
    let mut lines = LineReader::new(input, name.to_owned(), MAX_LINE_BYTES);
    let mut number = 0;
    while let Some(content) = lines.next_line()? {
        number += 1;
        match content {
            Content::Blank => {}
            Content::TooLong(bytes) => {
                let reason = format!("expected at most {MAX_LINE_BYTES} bytes, found {bytes}");
                each(number, Err(reason));
            }
            Content::Bytes(line) => match parse(&line, &output) {
                Ok(record) => each(number, Ok((record, &line))),
                Err(rejection) => each(number, Err(rejection.error.message)),
            },
        }
    }
    Ok(())
}
