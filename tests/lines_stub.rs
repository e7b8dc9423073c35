//! A network and a text side without weights: deterministic, quick, and able to fail on request.
//!
//! The stub's probability depends on every token of both sides, so that a mixed-up pair, side or order shows.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crag::Side;
use crag::files::Input;
use crag::scoring::{Context, Counts, ErrorCode, LineError, Options, PairModel, Prepare, Prepared, ScoreError, run};
use serde_json::Value;

#[derive(Default)]
pub struct StubModel {
    pub concurrency: usize,
    pub off_host: bool,
    /// How long one `encode` takes.
    pub delay: Duration,
    /// `encode` fails (or panics) on a sequence with this token.
    pub fails_on: Option<u32>,
    pub panics_on: Option<u32>,
    /// The probability is NaN for a drug with this token.
    pub nan_on: Option<u32>,
    /// `encode` of the first of these tokens waits until the other is being encoded.
    pub waits: Option<[u32; 2]>,
    pub seen: Gate,
    pub calls: AtomicUsize,
    pub sequences: AtomicUsize,
}

/// Opens once, and lets all who wait through.
#[derive(Default)]
pub struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    /// False if it did not open for long.
    pub fn wait(&self) -> bool {
        let is_open = self.is_open.lock().unwrap();
        *self
            .opened
            .wait_timeout_while(is_open, Duration::from_secs(20), |is_open| !*is_open)
            .unwrap()
            .0
    }
}

fn mix(state: u64, value: u64) -> u64 {
    (state ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

impl PairModel for StubModel {
    fn encode(&self, side: Side, token_ids: &[&[u32]]) -> anyhow::Result<Vec<Box<[f32]>>> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        self.sequences.fetch_add(token_ids.len(), Ordering::Relaxed);
        // Uneven, so that batches overtake each other.
        std::thread::sleep(self.delay * (1 + call as u32 % 3));
        let has = |token: Option<u32>| token.is_some_and(|t| token_ids.iter().any(|ids| ids.contains(&t)));
        if let Some([waiting, other]) = self.waits {
            if has(Some(other)) {
                self.seen.open();
            }
            anyhow::ensure!(!has(Some(waiting)) || self.seen.wait(), "waited in vain");
        }
        anyhow::ensure!(!has(self.fails_on), "out of memory");
        assert!(!has(self.panics_on), "stub panic");
        Ok(token_ids
            .iter()
            .map(|ids| {
                let hash = ids.iter().fold(side as u64 + 1, |state, &id| mix(state, u64::from(id)));
                let nan = self.nan_on.is_some_and(|t| ids.contains(&t));
                // 24 bits each, which an f32 holds exactly.
                let part = |shift: u32| ((hash >> shift) & 0xff_ffff) as f32;
                vec![if nan { f32::NAN } else { part(0) }, part(24)].into_boxed_slice()
            })
            .collect())
    }

    fn probabilities(&self, pairs: &[(&[f32], &[f32])]) -> anyhow::Result<Vec<f32>> {
        Ok(pairs
            .iter()
            .map(|(drug, adr)| {
                if drug[0].is_nan() {
                    return f32::NAN;
                }
                let hash = [drug[0], drug[1], adr[0], adr[1]]
                    .iter()
                    .fold(7, |state, &x| mix(state, x as u64));
                (hash >> 40) as f32 / (1u64 << 24) as f32
            })
            .collect())
    }

    fn concurrency(&self) -> usize {
        self.concurrency.max(1)
    }

    fn on_host(&self) -> bool {
        !self.off_host
    }
}

/// One token for each character, at most 128; the entity has to occur; a span has to hold it.
#[derive(Default)]
pub struct StubText {
    pub unmarked: bool,
}

impl Prepare for StubText {
    fn prepare(
        &self,
        Context {
            side,
            text,
            entity,
            span,
            ..
        }: Context<'_>,
    ) -> Result<Prepared, LineError> {
        if let Some([start, end]) = span {
            let slice: String = text.chars().take(end).skip(start).collect();
            if slice != entity {
                return Err(LineError::new(ErrorCode::SpanMismatch, "span"));
            }
        }
        let found = text.find(entity);
        if found.is_none() && !self.unmarked {
            return Err(LineError::new(
                ErrorCode::EntityNotFound,
                format!("{} not found", side.name()),
            ));
        }
        if text.contains("UNTOKENIZABLE") {
            return Err(LineError::new(ErrorCode::NotTokenized, "no"));
        }
        let characters = entity.chars().chain(text.chars());
        Ok(Prepared {
            token_ids: characters.map(u32::from).take(128).collect(),
            mention_truncated: found.is_some_and(|at| at > 128),
            entity_missing: found.is_none(),
        })
    }
}

/// Options for tests: two threads, small windows.
pub fn options() -> Options {
    Options {
        threads: 2,
        window_lines: 7,
        batch_tokens: Some(300),
        ..Options::default()
    }
}

pub fn input(bytes: impl Into<Vec<u8>>) -> Vec<Input> {
    vec![Input::Reader(
        "test.jsonl".into(),
        Box::new(io::Cursor::new(bytes.into())),
    )]
}

pub struct Scored {
    pub output: Vec<u8>,
    pub result: Result<Counts, ScoreError>,
}

impl Scored {
    pub fn counts(&self) -> &Counts {
        self.result.as_ref().expect("the run ended well")
    }

    /// The output's lines; each of them has a line end.
    pub fn lines(&self) -> Vec<&str> {
        let text = std::str::from_utf8(&self.output).expect("output is UTF-8");
        assert!(text.is_empty() || text.ends_with('\n'));
        text.split_terminator('\n').collect()
    }

    pub fn values(&self) -> Vec<Value> {
        self.lines().into_iter().map(value_of).collect()
    }
}

/// Any valid JSON as a value; null where it is valid but beyond serde_json's values (`1e400`, `"\ud800"`).
pub fn value_of(line: &str) -> Value {
    serde_json::from_str::<serde::de::IgnoredAny>(line).expect(line);
    serde_json::from_str(&line.replace("\\ud", "\\u0")).unwrap_or(Value::Null)
}

pub fn score_with(inputs: Vec<Input>, model: &StubModel, text: &StubText, options: &Options) -> Scored {
    let mut output = Vec::new();
    let result = run(inputs, &mut output, model, text, options);
    Scored { output, result }
}

pub fn score(bytes: impl Into<Vec<u8>>) -> Scored {
    score_with(input(bytes), &StubModel::default(), &StubText::default(), &options())
}

/// Reads in the given portions, over and over.
pub struct Portions<R> {
    pub inner: R,
    pub sizes: Vec<usize>,
    pub next: usize,
}

impl<R: Read> Read for Portions<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self
            .sizes
            .get(self.next % self.sizes.len().max(1))
            .copied()
            .unwrap_or(usize::MAX);
        self.next += 1;
        let size = size.clamp(1, buffer.len());
        self.inner.read(&mut buffer[..size])
    }
}

/// Passes writes on and fails once `left` bytes have been taken.
pub struct Failing {
    pub taken: Vec<u8>,
    pub left: usize,
    pub kind: io::ErrorKind,
}

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(self.kind.into());
        }
        let count = bytes.len().min(self.left);
        self.taken.extend_from_slice(&bytes[..count]);
        self.left -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
