//! Streams records through the network: a pair in on each line, its probability out, in order.
//!
//! This room knows lines, records and batches; [`crate::text`] turns a context into token ids and a
//! [`PairModel`] turns token ids into probabilities. Nothing here parses arguments (messages name the flag that is the way out), and `network` alone knows tensors.
//!
//! # Records
//!
//! In: one JSON object a line, or a row of a table ([`Format`]) with the fields in columns of the same names.
//!
//! | field | also | holds |
//! |---|---|---|
//! | `drug` | `drug_entity` | the drug as it is written in the drug's text |
//! | `adr` | `adr_entity` | the reaction as it is written in the reaction's text |
//! | `text` | `drug_text` and `adr_text` | one text for both sides, or one for each |
//! | `drug_span`, `adr_span` | | optional `[start, end)` in Unicode code points: mark that occurrence only; null is as good as absent |
//!
//! Where a field and its other name are both there (also `text` beside `drug_text` or `adr_text`), they
//! have to be equal; null, or an empty cell, is as good as absent there. All other fields are the caller's own.
//! A [`FieldMap`] finds fields in other places.
//!
//! Out: the input object byte for byte, with `"probability":P,"causal":B` and, when there are any,
//! `"warnings":[…]` spliced in directly before its closing brace; a line that cannot be scored gets
//! `"error":{"code":…,"message":…}` instead, or becomes `{"line":N,"error":…}` where there is no object
//! to put it in (`{"file":F,"line":N,"error":…}` if there are several inputs). [`ErrorCode`] lists the codes,
//! [`Warning`] the warnings. With an output key, all of it is nested under that one key. A row of a table keeps its
//! bytes and gets columns of its own.
//!
//! With several models ([`Member`]) each has its own text side and its own two encoders; `probability` is
//! the mean, and `"probabilities":{NAME:P,…}` after `causal` names each. Every model has to answer, or the
//! line is an error; warnings are those of any model.
//!
//! Where every model has a calibration, `"calibrated_probability":P` follows the probability: the mean of the models'
//! calibrated probabilities. `probability` stays the models' own, as `causal` stays its comparison with the threshold.
//!
//! What never fails a line outside the fields read here: numbers of any size, lone surrogates, duplicate
//! keys, nesting of any depth. Lines of ASCII whitespace alone are skipped and counted. A byte order mark
//! is dropped at the beginning of each input, a carriage return at the end of each line.
//!
//! A run may score one [`Shard`] of its inputs; [`merge`] puts the answers of all shards back in order.

mod cache;
mod check;
mod collector;
mod counts;
mod error;
mod fields;
mod file_sink;
mod format;
mod formats;
mod json;
mod lines;
mod member;
mod messages;
mod network;
mod options;
mod output_key;
mod pipeline;
mod prepare;
mod queue;
mod read_records;
mod reader;
mod record;
mod record_format;
mod resume;
mod resume_error;
mod rows;
mod shard;
mod shard_evidence;
mod sink;
mod stage;
mod table;
mod warning;
mod window;

pub use cache::{Cache, CacheError};
pub use check::check;
pub use counts::{Counts, InputReport};
pub use error::{ErrorCode, LineError, ScoreError};
pub use fields::{FIELDS, FieldMap};
pub use file_sink::{FileSink, Finished, OpenError, Opened, Plan};
pub use format::Format;
pub use lines::{Content, LineReader, too_long};
pub use member::{Member, PairModel};
pub use network::batches_cut_to;
pub use options::{OnError, Options};
pub use output_key::{CALIBRATED_KEY, OutputKey};
pub use pipeline::{run, run_into};
pub use prepare::{Context, MissingEntity, Prepare, Prepared, Preparer};
pub use read_records::read_records;
pub use reader::{check_headers, check_inputs};
pub use record::{Half, Record};
pub use resume::{ConsumedInput, KERNEL, ON_ERROR, RECORD_FORMAT, SHARD, Setting, Start};
pub use resume_error::ResumeError;
pub use rows::RowEnds;
pub use shard::{MergeError, Shard, check_shards, merge};
pub use shard_evidence::{EvidenceError, ShardEvidence, check_evidence, stated_format};
pub use sink::{Position, Progress, Sink, Stream};
pub use table::RowsAsJson;
pub use warning::Warning;
