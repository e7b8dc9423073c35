//! Annotated documents to pair records: what `crag extract` does, without the command line.
//!
//! An adapter (`pubtator`, `bioc`, `ade_rel`, `brat`) reads one document at a time from a stream of any length
//! and gives it as it is stated (`document::RawDocument`). `resolve` checks every stated offset against the text and keeps
//! what holds (`document::Document`). `pairing` makes each combination of a drug and a reaction within the scope a
//! record for `crag score`. What is malformed is reported with its place and counted; the rest goes on.
//!
//! Memory holds one document, at most [`Options::max_document_bytes`] of its source, whatever the size of the input. The ADE
//! corpus is the exception: a PMID's lines may stand anywhere, so an input is held whole, in up to 16 times as much.
//! This room parses no arguments, though its messages name flags, and does not know what becomes of a record.

mod ade_rel;
mod bioc;
mod brat;
mod candidates;
mod document;
mod extract;
mod labels;
mod options;
mod pairing;
mod pubtator;
mod record;
mod report;
mod resolve;
mod sentences;
mod source;
mod summary;
#[cfg(test)]
mod testing;

pub use brat::{BratFiles, FindError, find as find_brat, is_named as is_brat_name};
pub use extract::{Format, Sources, run};
pub use labels::Unlabelled;
pub use options::{CompositeUse, DEFAULT_ADR_TYPES, DEFAULT_DRUG_TYPES, DEFAULT_RELATION_TYPES};
pub use options::{Labels, Options, Overlap, Scope, TypeSet};
pub use report::{CorpusError, Place, Problem, Reason};
pub use summary::{Names, Summary};
