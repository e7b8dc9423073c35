//! Where answers go: line by line and in order, each with how far the inputs have been answered by then.

use std::io::{self, Write};

use super::counts::Counts;
use super::error::LineError;

/// A place in the inputs: directly after a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Which input, by number, from 0.
    pub source: usize,
    /// The line's number in its own input, from 1, blank lines included.
    pub line: u64,
    /// A hash of that input's lines up to and with this one, as they came.
    pub digest: [u8; 32],
}

/// What a run has done when all lines up to a position have been answered.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'p> {
    pub position: &'p Position,
    pub counts: &'p Counts,
}

/// Takes answers.
pub trait Sink {
    /// Takes the answer to one line, with its line end; empty for a line that has none (a blank one).
    /// Answers come in the order of the lines, and none is left out.
    fn answer(&mut self, answer: &[u8], progress: Progress<'_>) -> io::Result<()>;

    /// What is wrong with the line whose answer comes next.
    fn rejected(&mut self, _line: &Position, _error: &LineError) -> io::Result<()> {
        Ok(())
    }

    /// Nothing more is ready for now: whoever waits for answers should get what there is.
    fn flush(&mut self) -> io::Result<()>;

    /// The run ends early: nothing more comes, and what a later run needs has to be kept.
    /// Whoever wraps a sink has to pass this on.
    fn suspend(&mut self) -> io::Result<()>;
}

/// Answers gathered before they are written even though more are ready.
pub(super) const WRITE_BYTES: usize = 64 * 1024;

/// A plain stream of bytes, such as stdout.
pub struct Stream<'w> {
    output: &'w mut dyn Write,
    buffer: Vec<u8>,
}

impl<'w> Stream<'w> {
    pub fn new(output: &'w mut dyn Write) -> Self {
        let buffer = Vec::with_capacity(2 * WRITE_BYTES);
        Self { output, buffer }
    }
}

impl Sink for Stream<'_> {
    fn answer(&mut self, answer: &[u8], _: Progress<'_>) -> io::Result<()> {
        self.buffer.extend_from_slice(answer);
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.output.write_all(&self.buffer).and_then(|()| self.output.flush());
        self.buffer.clear();
        // One very long line must not stay allocated for the rest of the run.
        self.buffer.shrink_to(2 * WRITE_BYTES);
        written
    }

    fn suspend(&mut self) -> io::Result<()> {
        self.flush()
    }
}
