//! The reading stage: inputs, one after another, into numbered lines.

use std::sync::{Arc, Mutex, PoisonError};

use super::counts::InputReport;
use super::error::ScoreError;
use super::fields::FieldMap;
use super::format::Format;
use super::formats::record_format;
use super::lines::{Content, LineReader};
use super::options::Options;
use super::output_key::OutputKey;
use super::queue::Queue;
use super::record_format::RecordFormat;
use super::resume::Start;
use super::shard::{Dealer, Shard};
use super::sink::Position;
use crate::files::{Gauge, Input, OpenInput};

/// What the reader hands to the preparing stage.
pub(super) enum Incoming {
    Line {
        position: Position,
        /// Bytes of the input that the line took, line end included.
        length: u64,
        line: Dealt,
    },
    End(ScoreError),
}

/// What a line is to this run.
pub(super) enum Dealt {
    Ours(Content),
    /// The header of a table: what is written for it, nothing for that of a further input.
    Header(Vec<u8>),
    /// Lines up to here are for other shards.
    Elsewhere,
}

pub(super) struct Reader {
    format: Arc<dyn RecordFormat>,
    max_line_bytes: usize,
    shard: Option<Shard>,
    /// What a run before has answered: it is checked and passed over.
    start: Arc<Start>,
    /// Watches how compressed inputs grow.
    gauge: Arc<Gauge>,
    queue: Arc<Queue<Incoming>>,
    /// Where each input is named once it has been read.
    reports: Arc<Mutex<Vec<InputReport>>>,
}

impl Reader {
    /// For records of `format`, as `options` say, into `queue`.
    pub fn new(format: Arc<dyn RecordFormat>, options: &Options, queue: Arc<Queue<Incoming>>) -> Self {
        Self {
            format,
            max_line_bytes: options.max_line_bytes,
            shard: options.shard,
            start: Arc::clone(&options.start),
            gauge: Arc::clone(&options.gauge),
            queue,
            reports: Arc::default(),
        }
    }

    /// Where each input will have been named once it has been read.
    pub fn reports(&self) -> Arc<Mutex<Vec<InputReport>>> {
        Arc::clone(&self.reports)
    }

    /// Pushes every line of every input after those that have been answered, until the queue is closed.
    ///
    /// Errors where an input cannot be read, and where it is not the one that was answered.
    pub fn read(&self, inputs: Vec<Input>) -> Result<(), ScoreError> {
        self.start.check_inputs(inputs.len())?;
        let mut dealer = Dealer::new(self.shard);
        for (source, input) in inputs.into_iter().enumerate() {
            let name = input.name();
            let mut lines = open(input, &self.gauge, &*self.format, self.max_line_bytes)?;
            let mut header_awaited = self.format.has_header();
            // Where the lines of other shards end that have not been handed on yet.
            let mut passed = None;
            let mut handed_on = 0;
            let mut last_line = 0;
            while let Some((line, content)) = lines.next_line()? {
                let digest = lines.digest();
                let position = Position { source, line, digest };
                let is_answered = self.start.has_answered(&position, last_line, &name)?;
                last_line = line;
                let dealt = if header_awaited && content != Content::Blank {
                    header_awaited = false;
                    Dealt::Header(take_header(&*self.format, &name, line, &content)?)
                } else if dealer.is_ours(&content) {
                    Dealt::Ours(content)
                } else {
                    Dealt::Elsewhere
                };
                if is_answered {
                    // Counted by the run that answered it.
                    handed_on = lines.bytes_read();
                    continue;
                }
                if matches!(dealt, Dealt::Elsewhere) {
                    passed = Some(position);
                    continue;
                }
                let length = lines.bytes_read() - handed_on;
                handed_on += length;
                // Those of other shards count with the next of ours.
                if !self.push_passed(passed.take()) || !self.push(position, length, dealt) {
                    return Ok(());
                }
            }
            self.start.check_end(source, last_line, lines.lines(), &name)?;
            if header_awaited {
                return Err(no_header(name, lines.lines()));
            }
            if !self.push_passed(passed) {
                return Ok(());
            }
            self.report(name, lines)?;
        }
        Ok(())
    }

    /// The lines of other shards are one line without an answer, so that progress goes past them.
    fn push_passed(&self, passed: Option<Position>) -> bool {
        passed.is_none_or(|position| self.push(position, 0, Dealt::Elsewhere))
    }

    /// False when nobody takes lines any more.
    fn push(&self, position: Position, length: u64, line: Dealt) -> bool {
        let weight = match &line {
            Dealt::Ours(Content::Bytes(bytes)) => bytes.len(),
            _ => 0,
        };
        let line = Incoming::Line { position, length, line };
        self.queue.push(line, weight)
    }

    fn report(&self, name: String, lines: LineReader<OpenInput>) -> Result<(), ScoreError> {
        let count = lines.lines();
        let digest = lines.into_inner().finish().map_err(|source| ScoreError::Read {
            name: name.clone(),
            source,
        })?;
        let report = InputReport {
            name,
            lines: count,
            digest,
        };
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        Ok(())
    }
}

fn open(
    input: Input,
    gauge: &Arc<Gauge>,
    format: &dyn RecordFormat,
    max_line_bytes: usize,
) -> Result<LineReader<OpenInput>, ScoreError> {
    let name = input.name();
    match input.open_measured(Arc::clone(gauge)) {
        Ok(open) => Ok(LineReader::new(open, name, max_line_bytes, format.ends())),
        Err(source) => Err(ScoreError::Read { name, source }),
    }
}

/// What to write for the header that `content` is.
fn take_header(format: &dyn RecordFormat, name: &str, line: u64, content: &Content) -> Result<Vec<u8>, ScoreError> {
    match content {
        Content::Bytes(bytes) => format.take_header(name, line, bytes),
        _ => Err(ScoreError::NoHeader {
            name: name.to_owned(),
            found: "a first row longer than --max-line-bytes",
        }),
    }
}

/// Reads all inputs and checks that they are what the complete run that `options` begin with has read.
pub fn check_inputs(inputs: Vec<Input>, options: &Options) -> Result<(), ScoreError> {
    let format = record_format(options.format, &options.fields, &options.output).into();
    // Nothing is pushed: every line has been answered, or is an error.
    let queue = Arc::new(Queue::new(1, usize::MAX));
    Reader::new(format, options, queue).read(inputs)
}

/// Reads the beginning of each input, all of which can be opened again: whether all can be opened, begin with text
/// (or an archive that is read here) and, if they are tables, have headers that records can be read by.
pub fn check_headers(
    inputs: Vec<Input>,
    format: Format,
    fields: &FieldMap,
    output: &OutputKey,
    max_line_bytes: usize,
) -> Result<(), ScoreError> {
    let format = record_format(format, fields, output);
    for input in inputs {
        let name = input.name();
        let mut lines = open(input, &Arc::default(), &*format, max_line_bytes)?;
        if !format.has_header() {
            lines.check_beginning()?;
            continue;
        }
        loop {
            match lines.next_line()? {
                Some((_, Content::Blank)) => {}
                Some((line, content)) => {
                    take_header(&*format, &name, line, &content)?;
                    break;
                }
                None => return Err(no_header(name, lines.lines())),
            }
        }
    }
    Ok(())
}

/// Of a table that ended after as many lines, none of them a header.
pub(super) fn no_header(name: String, lines: u64) -> ScoreError {
    let found = match lines {
        0 => "an empty input",
        _ => "blank lines alone",
    };
    ScoreError::NoHeader { name, found }
}
