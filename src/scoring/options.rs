//! How to run.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::fields::FieldMap;
use super::format::Format;
use super::output_key::OutputKey;
use super::resume::Start;
use super::shard::Shard;
use crate::files::Gauge;
use crate::model::config::DEFAULT_THRESHOLD;

/// What a line that cannot be scored does to the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// It becomes an error record, and the run goes on.
    #[default]
    Record,
    /// The run ends with [`ScoreError::Rejected`](super::ScoreError::Rejected), after the answers to all lines before it.
    Fail,
}

/// How to run. The defaults suit any input.
#[derive(Clone, Debug)]
pub struct Options {
    /// `causal` is `probability >= threshold`.
    pub threshold: f32,
    /// Of the inputs, and of the answers.
    pub format: Format,
    /// Where records of that format have their fields.
    pub fields: FieldMap,
    pub output: OutputKey,
    /// Which part of the inputs to score; none for all of them.
    pub shard: Option<Shard>,
    pub on_error: OnError,
    /// Longest line, without its line end.
    pub max_line_bytes: usize,
    /// Threads of the pool; at least 1.
    pub threads: usize,
    /// Tokens in a batch; none leaves it to the model.
    pub batch_tokens: Option<usize>,
    /// Whether equal sequences of a window are encoded once.
    pub reuse: bool,
    /// Most lines in a window.
    pub window_lines: usize,
    /// Most bytes of lines in a window (a longer line is a window of its own).
    pub window_bytes: usize,
    /// Lines that a run before has answered: they are checked and passed over.
    pub start: Arc<Start>,
    /// Watches how compressed inputs grow.
    pub gauge: Arc<Gauge>,
    /// Once it is set, what is being encoded is finished, the lines that are ready are written, and the run ends
    /// with [`ScoreError::Interrupted`](super::ScoreError::Interrupted).
    pub stop: Option<Arc<AtomicBool>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threshold: DEFAULT_THRESHOLD,
            format: Format::default(),
            fields: FieldMap::default(),
            shard: None,
            output: OutputKey::default(),
            on_error: OnError::default(),
            max_line_bytes: 16 << 20,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            batch_tokens: None,
            reuse: true,
            window_lines: 4096,
            window_bytes: 16 << 20,
            start: Arc::default(),
            gauge: Arc::default(),
            stop: None,
        }
    }
}
