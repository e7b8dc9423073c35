//! The reading stage: inputs, one after another, into numbered lines.

use super::error::ScoreError;
use super::lines::{Content, LineReader};
use super::queue::Queue;
use super::sink::Position;
use crate::files::Input;

/// What the reader hands to the preparing stage.
pub(super) enum Incoming {
    Line {
        position: Position,
        /// Bytes of the input that the line took, line end included.
        length: u64,
        content: Content,
    },
    End(ScoreError),
}

/// Pushes every line of every input, until the queue is closed.
pub(super) fn read(inputs: Vec<Input>, max_line_bytes: usize, queue: &Queue<Incoming>) -> Result<(), ScoreError> {
    for (source, input) in inputs.into_iter().enumerate() {
        let name = input.name();
        let reader = input.open().map_err(|source| ScoreError::Read {
            name: name.clone(),
            source,
        })?;
        let mut lines = LineReader::new(reader, name, max_line_bytes);
        let (mut line, mut read) = (0, 0);
        while let Some(content) = lines.next_line()? {
            line += 1;
            let weight = if let Content::Bytes(bytes) = &content {
                bytes.len()
            } else {
                0
            };
            let position = Position { source, line };
            let length = lines.bytes_read() - read;
            read += length;
            let incoming = Incoming::Line {
                position,
                length,
                content,
            };
            if !queue.push(incoming, weight) {
                return Ok(());
            }
        }
    }
    Ok(())
}
