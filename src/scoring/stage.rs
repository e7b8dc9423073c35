//! The preparing stage: lines into windows of records, sequences and batches.
//!
//! Takes whatever lines are there, parses, marks and tokenizes them in parallel on the run's pool, finds
//! equal sequences, looks the others up in the cache and cuts what is left into jobs. What a text becomes is [`super::prepare`]'s, what a
//! batch is [`super::window`]'s; who runs jobs and writes windows is [`super::pipeline`]'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::error::{ErrorCode, LineError, ScoreError};
use super::lines::Content;
use super::output::Warning;
use super::pipeline::{Job, Line, Message, OnError, Options, Outcome, PairModel, Window};
use super::prepare::{Context, Prepare, Prepared};
use super::queue::Queue;
use super::reader::Incoming;
use super::record::Rejection;
use super::records::Records;
use super::window::{Sequence, Sequences};
use crate::Side;

/// What the preparing stage works with.
pub(super) struct Stage<'s> {
    pub prepare: &'s dyn Prepare,
    pub options: &'s Options,
    pub records: &'s dyn Records,
    pub pool: &'s ThreadPool,
    pub workers: usize,
    pub model: &'s dyn PairModel,
    pub jobs: &'s Queue<Job>,
    /// Set when the run ends early: what is being prepared is no longer wanted.
    pub stopped: &'s AtomicBool,
}

impl Stage<'_> {
    pub fn prepare_windows(&self, incoming: &Queue<Incoming>, permits: &Queue<()>, sender: &Sender<Message>) {
        let budget_tokens = self.options.batch_tokens.unwrap_or_else(|| self.model.batch_tokens());
        for number in 0.. {
            // The permit first: while all windows are in flight, lines gather for the next.
            if permits.pop().is_none() {
                return;
            }
            let taken = incoming.pop_many(self.options.window_lines, self.options.window_bytes);
            if taken.is_empty() {
                return;
            }
            let (window, sequences) = self.pool.install(|| self.prepare_window(taken));
            if self.stopped.load(Ordering::Relaxed) {
                // Lines that were not looked at any more are in it as blank ones.
                return;
            }
            let ended = window.end.is_some();
            // The window before its jobs, so that the collector knows it before it gets results.
            if sender.send(Message::Window(window)).is_err() {
                return;
            }
            let sequences = Arc::new(sequences);
            for batch in sequences.batches(budget_tokens, self.workers) {
                self.jobs.push(
                    Job {
                        window: number,
                        sequences: Arc::clone(&sequences),
                        batch,
                    },
                    0,
                );
            }
            if ended {
                return;
            }
        }
    }

    fn prepare_window(&self, taken: Vec<Incoming>) -> (Window, Sequences) {
        let prepared: Vec<_> = taken
            .into_par_iter()
            .map(|incoming| self.prepare_line(incoming))
            .collect();
        let mut lines = Vec::with_capacity(prepared.len());
        let mut all = Vec::with_capacity(2 * prepared.len());
        let mut end = None;
        for item in prepared {
            match item {
                Ok((line, sequences)) => {
                    // Where one line ends the run, nothing after it needs to be encoded.
                    let stop =
                        matches!(line.outcome, Outcome::Rejected { .. }) && self.options.on_error == OnError::Fail;
                    lines.push(line);
                    all.extend(sequences.into_iter().flatten());
                    if stop {
                        break;
                    }
                }
                Err(error) => end = Some(error),
            }
        }
        let total = all.len();
        let (mut sequences, numbers) = Sequences::collect(all, self.options.reuse);
        let representations = self.look_up(&sequences);
        sequences.set_known(|number| representations[number].is_some());
        let mut numbers = numbers.into_iter();
        for line in &mut lines {
            if let Outcome::Pair { drug, adr, .. } = &mut line.outcome
                && let (Some(drug_number), Some(adr_number)) = (numbers.next(), numbers.next())
            {
                (*drug, *adr) = (drug_number, adr_number);
            }
        }
        let window = Window {
            lines,
            representations,
            reused: total - sequences.len(),
            end,
        };
        (window, sequences)
    }

    /// Of each sequence, the representation that the cache has.
    fn look_up(&self, sequences: &Sequences) -> Vec<Option<Box<[f32]>>> {
        match self.options.cache.as_ref().and_then(|cache| cache.reader()) {
            Some(reader) => (0..sequences.len())
                .into_par_iter()
                .map(|number| reader.find(sequences.side(number), sequences.token_ids(number)))
                .collect(),
            None => vec![None; sequences.len()],
        }
    }

    /// A line with its two sequences, if it has them.
    fn prepare_line(&self, incoming: Incoming) -> Result<(Line, Option<[Sequence; 2]>), ScoreError> {
        let (position, content) = match incoming {
            Incoming::Line { position, content } => (position, content),
            Incoming::End(error) => return Err(error),
        };
        let line = |bytes, outcome| Line {
            position,
            bytes,
            outcome,
        };
        if self.stopped.load(Ordering::Relaxed) {
            return Ok((line(Vec::new(), Outcome::Blank), None));
        }
        let bytes = match content {
            Content::Bytes(bytes) => bytes,
            Content::Blank => return Ok((line(Vec::new(), Outcome::Blank), None)),
            Content::Header(bytes) => return Ok((line(bytes, Outcome::Verbatim), None)),
            Content::Elsewhere => return Ok((line(Vec::new(), Outcome::Verbatim), None)),
            Content::TooLong(length) => {
                let limit = self.options.max_line_bytes;
                let error = LineError::new(
                    ErrorCode::LineTooLong,
                    format!("expected at most {limit} bytes, found {length}; --max-line-bytes raises the limit"),
                );
                return Ok((
                    line(
                        Vec::new(),
                        Outcome::Rejected {
                            error,
                            spliceable: false,
                        },
                    ),
                    None,
                ));
            }
        };
        Ok(match self.prepare_record(&bytes) {
            Ok([drug, adr]) => {
                let warnings = [
                    (drug.mention_truncated, Warning::DrugTruncated),
                    (adr.mention_truncated, Warning::AdrTruncated),
                    (drug.entity_missing, Warning::DrugNotFound),
                    (adr.entity_missing, Warning::AdrNotFound),
                ];
                let warnings = warnings
                    .into_iter()
                    .filter_map(|(is, warning)| is.then_some(warning))
                    .collect();
                let sequences = [
                    Sequence {
                        side: Side::Drug,
                        token_ids: drug.token_ids,
                    },
                    Sequence {
                        side: Side::Adr,
                        token_ids: adr.token_ids,
                    },
                ];
                (
                    line(
                        bytes,
                        Outcome::Pair {
                            drug: 0,
                            adr: 0,
                            warnings,
                        },
                    ),
                    Some(sequences),
                )
            }
            Err(Rejection { error, spliceable }) => (line(bytes, Outcome::Rejected { error, spliceable }), None),
        })
    }

    fn prepare_record(&self, bytes: &[u8]) -> Result<[Prepared; 2], Rejection> {
        let record = self.records.parse(bytes)?;
        let prepare = |side| {
            let half = record.half(side);
            let context = Context {
                side,
                text: &half.text,
                entity: &half.entity,
                span: half.span,
            };
            self.prepare.prepare(context).map_err(|error| Rejection {
                error,
                spliceable: true,
            })
        };
        Ok([prepare(Side::Drug)?, prepare(Side::Adr)?])
    }
}
