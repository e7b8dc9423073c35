//! Strings to token ids: entity markers and the tokenizer; this room never sees a tensor.
//!
//! [`mark_every`] and [`mark_span`] put the model's markers around an entity and remember where
//! they went; [`Tokenizer`] turns the marked text into the ids that the Hugging Face fast
//! tokenizer gives, cut to the model's length; [`vocabulary()`] makes one of texts. What a record is, and what to do about an entity
//! that does not occur, is the caller's business.

mod configuration;
mod cuts;
mod error;
mod loading;
mod marking;
mod pieces;
mod runs;
mod tokenizer;
mod vocabulary;

pub use configuration::TokenizerFiles;
pub use error::TokenizerError;
pub use loading::with_markers_added;
pub use marking::{MarkError, MarkedText, locate_every, locate_span, mark_every, mark_span, unmarked};
pub use tokenizer::{Tokenized, Tokenizer, Truncation};
pub use vocabulary::vocabulary;

use crate::Side;

/// The four markers in the order in which they take ids: drug opening and closing, then reaction.
pub const MARKERS: [&str; 4] = ["[DRUG]", "[/DRUG]", "[ADR]", "[/ADR]"];

/// The markers before and after an entity of this side.
pub fn markers(side: Side) -> (&'static str, &'static str) {
    match side {
        Side::Drug => (MARKERS[0], MARKERS[1]),
        Side::Adr => (MARKERS[2], MARKERS[3]),
    }
}
