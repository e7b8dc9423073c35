//! Training: labelled pairs in, a checkpoint that `crag score` loads out.
//!
//! [`LabelledPairs`] are read from JSONL and split by document ([`Split`]); [`Start`] is a backbone with a fresh head;
//! [`dataset`] turns pairs into token ids, `mining` finds the negatives that data lacks, and a [`Job`] runs the two
//! [`Phase`]s of the model card's recipe ([`Settings`]): InfoNCE, then focal loss. [`Network`] is the dual encoder with
//! gradients, its operations in `ops`; [`optimizer`] and [`schedule`] move the weights; [`state`] is what a killed run
//! goes on from.
//!
//! Everything random is a function of the seed and of its place in the run, and no sum depends on the number
//! of threads: the same seed, data and machine give the same bytes.
//!
//! Records come from [`crate::scoring`], labels and figures from [`crate::evaluation`]. What is printed, and how the
//! finished folder comes to be, is [`crate::cli`]'s.

mod curve;
pub mod dataset;
mod error;
#[cfg(test)]
mod gradient_tests;
#[cfg(test)]
mod job_tests;
mod judge;
mod loss;
mod mining;
mod network;
mod ops;
mod optimizer;
mod origin;
mod parameters;
mod phase;
mod plan;
mod random;
mod records;
mod relations;
mod run;
mod schedule;
mod settings;
mod split;
mod start;
pub mod state;
mod validation;

pub use curve::svg;
pub use error::TrainError;
pub use network::{Network, Weights};
pub use origin::Origin;
pub use parameters::Parameters;
pub use phase::Phase;
pub use records::{LabelledPair, LabelledPairs, Source};
pub use relations::Relations;
pub use run::{Event, Job, Trained};
pub use settings::{BackboneSettings, HeadSettings, NegativeKind, Settings};
pub use split::Split;
pub use start::Start;
