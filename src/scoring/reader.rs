//! The reading stage: inputs, one after another, into numbered lines.

use super::error::ScoreError;
use super::lines::{Content, LineReader};
use super::queue::Queue;
use super::resume::Start;
use super::sink::Position;
use crate::files::Input;

/// What the reader hands to the preparing stage.
pub(super) enum Incoming {
    Line { position: Position, content: Content },
    End(ScoreError),
}

/// Pushes every line of every input after those that `start` says are answered, until the queue is closed.
///
/// Errors where an input cannot be read, and where it is not the one that `start` speaks of.
pub(super) fn read(
    inputs: Vec<Input>,
    max_line_bytes: usize,
    start: &Start,
    queue: &Queue<Incoming>,
) -> Result<(), ScoreError> {
    start.check_inputs(inputs.len())?;
    for (source, input) in inputs.into_iter().enumerate() {
        let name = input.name();
        let reader = input.open().map_err(|source| ScoreError::Read {
            name: name.clone(),
            source,
        })?;
        let mut lines = LineReader::new(reader, name.clone(), max_line_bytes);
        let mut line = 0;
        while let Some(content) = lines.next_line()? {
            line += 1;
            let weight = if let Content::Bytes(bytes) = &content {
                bytes.len()
            } else {
                0
            };
            let position = Position {
                source,
                line,
                digest: lines.digest(),
            };
            if start.has_answered(&position, &name)? {
                continue;
            }
            if !queue.push(Incoming::Line { position, content }, weight) {
                return Ok(());
            }
        }
        start.check_end(source, line, &name)?;
    }
    Ok(())
}
