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

use super::cache::Reader;
use super::error::{ErrorCode, LineError, ScoreError};
use super::lines::{Content, too_long};
use super::member::{Member, PairModel, with_name};
use super::messages::{Job, Line, Message, Outcome, Window};
use super::options::{OnError, Options};
use super::prepare::{Context, Prepared};
use super::queue::Queue;
use super::reader::{Dealt, Incoming};
use super::record::Rejection;
use super::record_format::RecordFormat;
use super::rows::lines_taken;
use super::warning::Warning;
use super::window::{Cut, Encoder, Sequence, Sequences};
use crate::Side;

/// What the preparing stage works with.
pub(super) struct Stage<'s> {
    pub members: &'s [Member<'s>],
    pub options: &'s Options,
    pub format: &'s dyn RecordFormat,
    pub pool: &'s ThreadPool,
    pub workers: usize,
    pub jobs: &'s Queue<Job>,
    /// Set when the run ends early: what is being prepared is no longer wanted.
    pub stopped: &'s AtomicBool,
}

impl Stage<'_> {
    pub fn prepare_windows(&self, incoming: &Queue<Incoming>, permits: &Queue<()>, sender: &Sender<Message>) {
        let least = |tokens: fn(&dyn PairModel) -> usize| self.members.iter().map(|m| tokens(m.model)).min();
        let wanted = self
            .options
            .batch_tokens
            .or_else(|| least(|model| model.batch_tokens()));
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
            let last = ended || incoming.has_ended();
            // The window before its jobs, so that the collector knows it before it gets results.
            if sender.send(Message::Window(window)).is_err() {
                return;
            }
            let sequences = Arc::new(sequences);
            let budget_tokens = wanted.min(least(|model| model.fitting_tokens())).unwrap_or(1);
            let cut = Cut {
                budget_tokens,
                workers: self.workers,
                least_tokens: if last { self.full_rate_tokens() } else { usize::MAX },
            };
            for batch in sequences.batches(cut) {
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

    /// With fewer tokens than this some member's batches take markedly longer for each.
    fn full_rate_tokens(&self) -> usize {
        let of_members = self.members.iter().map(|member| member.model.full_rate_tokens());
        of_members.max().unwrap_or(usize::MAX)
    }

    fn prepare_window(&self, taken: Vec<Incoming>) -> (Window, Sequences) {
        let prepared: Vec<_> = taken
            .into_par_iter()
            .map(|incoming| self.prepare_line(incoming))
            .collect();
        let mut lines = Vec::with_capacity(prepared.len());
        let mut all = Vec::with_capacity(2 * self.members.len() * prepared.len());
        let mut end = None;
        for item in prepared {
            match item {
                Ok((line, sequences)) => {
                    // Where one line ends the run, nothing after it needs to be encoded.
                    let stop =
                        matches!(line.outcome, Outcome::Rejected { .. }) && self.options.on_error == OnError::Fail;
                    lines.push(line);
                    all.extend(sequences);
                    if stop {
                        break;
                    }
                }
                Err(error) => end = Some(error),
            }
        }
        let (mut sequences, numbers) = Sequences::collect(all, self.options.reuse);
        let representations = self.look_up(&sequences);
        sequences.set_known(|number| representations[number].is_some());
        let mut numbers = numbers.into_iter();
        for line in &mut lines {
            if let Outcome::Pair { sequences, .. } = &mut line.outcome {
                // Of each member the drug's and the reaction's, as they were prepared.
                let of_members = self
                    .members
                    .iter()
                    .map_while(|_| Some([numbers.next()?, numbers.next()?]));
                *sequences = of_members.collect();
            }
        }
        let window = Window {
            lines,
            representations,
            end,
        };
        (window, sequences)
    }

    /// Of each sequence, the representation that the cache has.
    fn look_up(&self, sequences: &Sequences) -> Vec<Option<Box<[f32]>>> {
        let caches = self.members.iter().map(|member| member.cache.as_ref());
        let readers: Vec<Option<Reader<'_>>> = caches.map(|cache| cache.and_then(|cache| cache.reader())).collect();
        if readers.iter().all(Option::is_none) {
            return vec![None; sequences.len()];
        }
        let find = |number| {
            let encoder = sequences.encoder(number);
            let reader = readers[encoder.member].as_ref()?;
            reader.find(encoder.side, sequences.token_ids(number))
        };
        (0..sequences.len()).into_par_iter().map(find).collect()
    }

    /// A line with its sequences, of each member the drug's and the reaction's; none if it is not a pair.
    fn prepare_line(&self, incoming: Incoming) -> Result<(Line, Vec<Sequence>), ScoreError> {
        let (position, length, dealt) = match incoming {
            Incoming::Line { position, length, line } => (position, length, line),
            Incoming::End(error) => return Err(error),
        };
        let line = |bytes, outcome| Line {
            position,
            length,
            bytes,
            outcome,
        };
        if self.stopped.load(Ordering::Relaxed) {
            return Ok((line(Vec::new(), Outcome::Blank), Vec::new()));
        }
        let content = match dealt {
            Dealt::Ours(content) => content,
            Dealt::Header(bytes) => return Ok((line(bytes, Outcome::Verbatim), Vec::new())),
            Dealt::Elsewhere => return Ok((line(Vec::new(), Outcome::Verbatim), Vec::new())),
        };
        let bytes = match content {
            Content::Bytes(bytes) => bytes,
            Content::Blank => return Ok((line(Vec::new(), Outcome::Blank), Vec::new())),
            Content::TooLong { bytes: found, lines } => {
                let message = too_long(self.options.max_line_bytes, found) + &lines_taken(lines);
                let error = LineError::new(ErrorCode::LineTooLong, message);
                return Ok((
                    line(
                        Vec::new(),
                        Outcome::Rejected {
                            error,
                            spliceable: false,
                        },
                    ),
                    Vec::new(),
                ));
            }
        };
        Ok(match self.prepare_record(&bytes) {
            Ok(prepared) => {
                let any = |is: fn(&Prepared) -> bool, side| prepared.iter().any(|(e, p)| e.side == side && is(p));
                let warnings = [
                    (any(|p| p.mention_truncated, Side::Drug), Warning::DrugTruncated),
                    (any(|p| p.mention_truncated, Side::Adr), Warning::AdrTruncated),
                    (any(|p| p.entity_missing, Side::Drug), Warning::DrugNotFound),
                    (any(|p| p.entity_missing, Side::Adr), Warning::AdrNotFound),
                ];
                let warnings = warnings
                    .into_iter()
                    .filter_map(|(is, warning)| is.then_some(warning))
                    .collect();
                let sequences = prepared.into_iter().map(|(encoder, prepared)| Sequence {
                    encoder,
                    token_ids: prepared.token_ids,
                });
                let outcome = Outcome::Pair {
                    sequences: Vec::new(),
                    warnings,
                };
                (line(bytes, outcome), sequences.collect())
            }
            Err(Rejection { error, spliceable }) => (line(bytes, Outcome::Rejected { error, spliceable }), Vec::new()),
        })
    }

    /// What each encoder gets to see of a record: of each member the drug's side, then the reaction's.
    fn prepare_record(&self, bytes: &[u8]) -> Result<Vec<(Encoder, Prepared)>, Rejection> {
        let record = self.format.parse(bytes)?;
        let mut all = Vec::with_capacity(2 * self.members.len());
        for member in 0..self.members.len() {
            for side in Side::BOTH {
                let half = record.half(side);
                let context = Context {
                    side,
                    text: &half.text,
                    entity: &half.entity,
                    span: half.span,
                    entity_field: self.options.fields.label(half.entity_field),
                    span_field: self.options.fields.label(half.span_field),
                };
                let prepared = self.members[member].prepare.prepare(context);
                let prepared = prepared.map_err(|error| self.rejection(member, error))?;
                all.push((Encoder { member, side }, prepared));
            }
        }
        Ok(all)
    }

    /// Only what depends on a model names it: an entity that is not there is not there for any of them.
    fn rejection(&self, member: usize, mut error: LineError) -> Rejection {
        if error.code == ErrorCode::EntityNotFound {
            error.message += " (--missing-entity unmarked scores it all the same)";
        }
        if error.code == ErrorCode::NotTokenized {
            error.message = with_name(self.members, member, error.message);
        }
        Rejection {
            error,
            spliceable: true,
        }
    }
}
