//! The end of the pipeline: representations into probabilities, lines into output, strictly in order.

use std::collections::VecDeque;
use std::time::Duration;

use super::counts::Counts;
use super::error::{ErrorCode, LineError, ScoreError};
use super::member::{Member, calibrated_mean, error_of, mean, with_name};
use super::messages::{Line, Message, Outcome, Window};
use super::options::{OnError, Options};
use super::record_format::{Answer, Place, RecordFormat, Scored};
use super::sink::{Progress, Sink};
use super::warning::Warning;

/// What an answer's buffer keeps: one very long line must not stay allocated for the rest of the run.
const ANSWER_BYTES: usize = 64 * 1024;
/// Most lines classified at once.
const GROUP_PAIRS: usize = 2048;

/// Representations of a drug and a reaction.
pub(super) type Pair<'r> = (&'r [f32], &'r [f32]);
/// Takes a member's number and pairs; gives a probability for each.
type Classify<'c> = &'c dyn Fn(usize, &[Pair<'_>]) -> anyhow::Result<Vec<f32>>;

pub(super) struct Collector<'c> {
    sink: &'c mut dyn Sink,
    options: &'c Options,
    format: &'c dyn RecordFormat,
    names: &'c [String],
    members: &'c [Member<'c>],
    classify: Classify<'c>,
    windows: VecDeque<Open>,
    /// Number of the first of `windows`.
    first_window: u64,
    /// The answer being written.
    answer: Vec<u8>,
    counts: Counts,
}

/// A window whose lines are not all written.
struct Open {
    window: Window,
    representations: Vec<Representation>,
    /// Of each representation, where the next line that takes it has it from.
    origins: Vec<Origin>,
    /// Lines written so far.
    written: usize,
    /// Why some of `representations` are `Failed`.
    failure: Option<anyhow::Error>,
}

enum Representation {
    Awaited,
    Ready(Box<[f32]>),
    Failed,
}

#[derive(Clone, Copy)]
enum Origin {
    Encoder,
    Cache,
    /// A line before.
    Line,
}

impl<'c> Collector<'c> {
    /// `names`: of the inputs, for messages. `classify`: probabilities of (drug, adr) representations.
    pub fn new(
        sink: &'c mut dyn Sink,
        options: &'c Options,
        format: &'c dyn RecordFormat,
        names: &'c [String],
        members: &'c [Member<'c>],
        classify: Classify<'c>,
    ) -> Self {
        let (windows, counts) = (VecDeque::new(), options.start.counts.clone());
        let answer = Vec::with_capacity(ANSWER_BYTES);
        Self {
            sink,
            options,
            format,
            names,
            members,
            classify,
            windows,
            first_window: 0,
            answer,
            counts,
        }
    }

    pub fn into_counts(self, elapsed: Duration) -> Counts {
        Counts {
            elapsed: self.options.start.counts.elapsed + elapsed,
            ..self.counts
        }
    }

    /// Nothing more is ready for now: hands on what has been gathered.
    pub fn flush(&mut self) -> Result<(), ScoreError> {
        self.sink.flush().map_err(ScoreError::from_write)
    }

    /// The run ends early: has what a later run needs kept.
    pub fn suspend(&mut self) -> Result<(), ScoreError> {
        self.sink.suspend().map_err(ScoreError::from_write)
    }

    /// Notes what a stage reports. Windows arrive in order, and before their representations.
    pub fn take(&mut self, message: Message) {
        match message {
            Message::Window(mut window) => {
                let found = |found| match found {
                    Some(representation) => (Representation::Ready(representation), Origin::Cache),
                    None => (Representation::Awaited, Origin::Encoder),
                };
                let (representations, origins) = std::mem::take(&mut window.representations)
                    .into_iter()
                    .map(found)
                    .unzip();
                self.windows.push_back(Open {
                    window,
                    representations,
                    origins,
                    written: 0,
                    failure: None,
                });
            }
            Message::Encoded {
                window: of_window,
                numbers,
                tokens,
                result,
            } => {
                let place = of_window.checked_sub(self.first_window).map(|place| place as usize);
                let Some(open) = place.and_then(|place| self.windows.get_mut(place)) else {
                    return;
                };
                match result {
                    Ok(representations) => {
                        self.counts.encoded += numbers.len() as u64;
                        self.counts.tokens += tokens;
                        for (number, representation) in numbers.into_iter().zip(representations) {
                            open.representations[number] = Representation::Ready(representation);
                        }
                    }
                    Err(error) => {
                        for number in numbers {
                            open.representations[number] = Representation::Failed;
                        }
                        open.failure.get_or_insert(error);
                    }
                }
            }
        }
    }

    /// Writes all lines that are ready. Returns how many windows that completed.
    pub fn advance(&mut self) -> Result<usize, ScoreError> {
        let mut completed = 0;
        while let Some(mut open) = self.windows.pop_front() {
            let done = self.advance_window(&mut open)?;
            if !done {
                self.windows.push_front(open);
                break;
            }
            if let Some(error) = open.window.end {
                return Err(error);
            }
            self.first_window += 1;
            self.counts.windows += 1;
            completed += 1;
        }
        Ok(completed)
    }

    /// True when all of the window's lines are written.
    fn advance_window(&mut self, open: &mut Open) -> Result<bool, ScoreError> {
        loop {
            let (end, pairs) = open.ready(self.members.len());
            let of_members = (pairs.iter().enumerate()).map(|(member, pairs)| self.probabilities(open, member, pairs));
            let of_members = of_members.collect::<Result<Vec<_>, _>>()?;
            // Of each line that is a pair, the members' probabilities in their order.
            let mut probabilities = (0..).map(|i| of_members.iter().filter_map(|of| of.get(i).copied()).collect());
            let range = open.written..end;
            for i in range.clone() {
                // Taken, so that the line's memory is free once it is written.
                let bytes = std::mem::take(&mut open.window.lines[i].bytes);
                self.count_spared(open, i);
                self.write_line(&open.window.lines[i], &bytes, &mut probabilities)?;
                open.written = i + 1;
            }
            if open.written == open.window.lines.len() {
                return Ok(true);
            }
            if range.is_empty() {
                return match open
                    .failure
                    .take_if(|_| open.window.lines[end].is_failed(&open.representations))
                {
                    Some(error) => Err(self.network_error(&open.window.lines[end], error)),
                    None => Ok(false),
                };
            }
        }
    }

    /// Counts what line `i` had no need to have encoded. With the line, and not when its window arrives: the counts of a
    /// run that ends in between are those of the lines that it has written.
    fn count_spared(&mut self, open: &mut Open, i: usize) {
        let Outcome::Pair { sequences, .. } = &open.window.lines[i].outcome else {
            return;
        };
        for &number in sequences.iter().flatten() {
            match std::mem::replace(&mut open.origins[number], Origin::Line) {
                Origin::Encoder => {}
                Origin::Cache => self.counts.cached += 1,
                Origin::Line => self.counts.reused += 1,
            }
        }
    }

    /// A member's probabilities of the next pairs.
    fn probabilities(&self, open: &Open, member: usize, pairs: &[Pair<'_>]) -> Result<Vec<f32>, ScoreError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        (self.classify)(member, pairs)
            .and_then(|probabilities| {
                let (expected, found) = (pairs.len(), probabilities.len());
                anyhow::ensure!(expected == found, "expected {expected} probabilities, found {found}");
                Ok(probabilities)
            })
            .map_err(|error| {
                let error = error_of(self.members, member, error);
                self.network_error(&open.window.lines[open.written], error)
            })
    }

    fn network_error(&self, line: &Line, error: anyhow::Error) -> ScoreError {
        ScoreError::Network {
            name: self.names[line.position.source].clone(),
            line: line.position.line,
            error,
        }
    }

    fn write_line(
        &mut self,
        line: &Line,
        bytes: &[u8],
        probabilities: &mut impl Iterator<Item = Vec<f32>>,
    ) -> Result<(), ScoreError> {
        match &line.outcome {
            Outcome::Blank => self.counts.blank += 1,
            Outcome::Verbatim => self.answer.extend_from_slice(bytes),
            Outcome::Rejected { error, spliceable } => self.write_error(line, bytes, error, *spliceable)?,
            Outcome::Pair { warnings, .. } => {
                let probabilities = probabilities.next().unwrap_or_default();
                match self.not_finite(&probabilities) {
                    None => self.write_scored(bytes, &probabilities, warnings),
                    Some(error) => self.write_error(line, bytes, &error, true)?,
                }
            }
        }
        self.counts.bytes += line.length;
        let progress = Progress {
            position: &line.position,
            counts: &self.counts,
        };
        let taken = self.sink.answer(&self.answer, progress);
        self.answer.clear();
        self.answer.shrink_to(ANSWER_BYTES);
        taken.map_err(ScoreError::from_write)
    }

    /// Why `probabilities`, one of each member, are no answer.
    fn not_finite(&self, probabilities: &[f32]) -> Option<LineError> {
        let found = |member: usize| probabilities.get(member).copied();
        let member = (0..self.members.len()).find(|&member| !found(member).is_some_and(f32::is_finite))?;
        let found = found(member).map_or("nothing".to_owned(), |p| p.to_string());
        let message = format!("expected a probability from the network, found {found}");
        let message = with_name(self.members, member, message);
        Some(LineError::new(ErrorCode::NotFinite, message))
    }

    fn write_scored(&mut self, bytes: &[u8], probabilities: &[f32], warnings: &[Warning]) {
        let probability = mean(probabilities);
        let named: Vec<(&str, f32)> = match self.members {
            [_] => Vec::new(),
            several => {
                let names = several.iter().map(|member| member.name.as_str());
                names.zip(probabilities.iter().copied()).collect()
            }
        };
        let answer = Answer::Scored(Scored {
            probability,
            causal: probability >= self.options.threshold,
            calibrated: calibrated_mean(self.members, probabilities),
            probabilities: &named,
            warnings,
        });
        self.format.write(&mut self.answer, bytes, &answer);
        self.counts.scored += 1;
        self.counts.add_warnings(warnings);
    }

    fn write_error(
        &mut self,
        line: &Line,
        bytes: &[u8],
        error: &LineError,
        spliceable: bool,
    ) -> Result<(), ScoreError> {
        if self.options.on_error == OnError::Fail {
            let name = self.names[line.position.source].clone();
            return Err(ScoreError::Rejected {
                name,
                line: line.position.line,
                error: error.clone(),
            });
        }
        self.counts.add_error(error.code);
        self.sink
            .rejected(&line.position, error)
            .map_err(ScoreError::from_write)?;
        let several = self.names.len() > 1;
        let place = Place {
            // With one input the line number says it all.
            file: several.then(|| self.names[line.position.source].as_str()),
            line: line.position.line,
        };
        let answer = Answer::Error {
            error,
            spliceable,
            place,
        };
        self.format.write(&mut self.answer, bytes, &answer);
        Ok(())
    }
}

impl Open {
    /// The end of the lines that can be written now, at most a group, and their pairs for each member.
    fn ready(&self, members: usize) -> (usize, Vec<Vec<Pair<'_>>>) {
        let mut pairs: Vec<Vec<Pair<'_>>> = vec![Vec::new(); members];
        let mut end = self.written;
        let mut lines = 0;
        for line in &self.window.lines[self.written..] {
            if let Outcome::Pair { sequences, .. } = &line.outcome {
                let is_ready = |&number: &usize| matches!(self.representations[number], Representation::Ready(_));
                if lines == GROUP_PAIRS || !sequences.iter().flatten().all(is_ready) {
                    break;
                }
                for (pairs, &[drug, adr]) in pairs.iter_mut().zip(sequences) {
                    if let (Representation::Ready(drug), Representation::Ready(adr)) =
                        (&self.representations[drug], &self.representations[adr])
                    {
                        pairs.push((&**drug, &**adr));
                    }
                }
                lines += 1;
            }
            end += 1;
        }
        (end, pairs)
    }
}

impl Line {
    fn is_failed(&self, representations: &[Representation]) -> bool {
        match &self.outcome {
            Outcome::Pair { sequences, .. } => sequences
                .iter()
                .flatten()
                .any(|&number| matches!(representations[number], Representation::Failed)),
            _ => false,
        }
    }
}
