//! Streams JSONL records through the network: a pair in on each line, its probability out, in order.
//!
//! This room knows lines, records and batches; [`crate::text`] turns a context into token ids and a
//! [`PairModel`] turns token ids into probabilities. Nothing here knows arguments or tensors.
//!
//! # Records
//!
//! In: one JSON object a line.
//!
//! | field | also | holds |
//! |---|---|---|
//! | `drug` | `drug_entity` | the drug as it is written in the drug's text |
//! | `adr` | `adr_entity` | the reaction as it is written in the reaction's text |
//! | `text` | `drug_text` and `adr_text` | one text for both sides, or one for each |
//! | `drug_span`, `adr_span` | | optional `[start, end)` in Unicode code points: mark that occurrence only; null is as good as absent |
//!
//! Where a field and its other name are both there (also `text` beside `drug_text` or `adr_text`), they
//! have to be equal. All other fields are the caller's own.
//!
//! Out: the input object byte for byte, with `"probability":P,"causal":B` and, when there are any,
//! `"warnings":[…]` spliced in directly before its closing brace; a line that cannot be scored gets
//! `"error":{"code":…,"message":…}` instead, or becomes `{"line":N,"error":…}` where there is no object
//! to put it in. [`ErrorCode`] lists the codes, [`Warning`] the warnings. With an output key, all of it
//! is nested under that one key.
//!
//! What never fails a line outside the fields read here: numbers of any size, lone surrogates, duplicate
//! keys, nesting of any depth. Lines of ASCII whitespace alone are skipped and counted. A byte order mark
//! is dropped at the beginning of each input, a carriage return at the end of each line.

mod cache;
mod collector;
mod counts;
mod error;
mod lines;
mod network;
mod output;
mod pipeline;
mod prepare;
mod queue;
mod read_records;
mod reader;
mod record;
mod sink;
mod stage;
mod window;

pub use cache::{Cache, CacheError};
pub use counts::Counts;
pub use error::{ErrorCode, LineError, ScoreError};
pub use output::{OutputKey, RESERVED_KEYS, Warning};
pub use pipeline::{OnError, Options, PairModel, run, run_into};
pub use prepare::{Context, MissingEntity, Prepare, Prepared, Preparer};
pub use read_records::read_records;
pub use record::{Half, Record};
pub use sink::{Position, Progress, Sink, Stream};
