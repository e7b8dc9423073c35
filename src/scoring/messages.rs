//! What the stages hand to each other: lines and what is known of them, windows, batches, representations.

use std::sync::Arc;

use super::error::{LineError, ScoreError};
use super::sink::Position;
use super::warning::Warning;
use super::window::{Batch, Sequences};

/// A line as it comes from an input.
pub(super) struct Line {
    /// Where the inputs stand after this line.
    pub position: Position,
    /// Bytes that it took in its input, line end included.
    pub length: u64,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
}

/// What is known of a line before the network has seen it.
pub(super) enum Outcome {
    Blank,
    /// What is written is the line itself: a table's header, or nothing.
    Verbatim,
    /// Numbers of its sequences in the window, of the drug and the reaction, for each member.
    Pair {
        sequences: Vec<[usize; 2]>,
        warnings: Vec<Warning>,
    },
    Rejected {
        error: LineError,
        spliceable: bool,
    },
}

/// Prepared lines on their way to the collector.
pub(super) struct Window {
    pub lines: Vec<Line>,
    /// Of each sequence, where the cache has it; the others are encoded.
    pub representations: Vec<Option<Box<[f32]>>>,
    /// Ends the run after these lines.
    pub end: Option<ScoreError>,
}

pub(super) enum Message {
    Window(Window),
    /// Representations of sequences of a window, windows counted from 0.
    Encoded {
        window: u64,
        numbers: Vec<usize>,
        /// How many tokens those sequences have.
        tokens: u64,
        result: anyhow::Result<Vec<Box<[f32]>>>,
    },
}

/// A batch to encode.
pub(super) struct Job {
    pub window: u64,
    pub sequences: Arc<Sequences>,
    pub batch: Batch,
}
