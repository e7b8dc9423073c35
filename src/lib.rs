//! `crag` scores whether a text says that a drug caused an adverse reaction.
//!
//! Rooms, from the top: [`cli`] turns arguments into settings and runs a subcommand; [`scoring`]
//! streams JSONL records through the network; [`training`] makes checkpoints from labelled pairs; [`model`] is the dual encoder over candle tensors;
//! [`kernels`] holds the operations that differ between processors; [`text`] marks entities and
//! tokenizes; [`checkpoint`] finds weights and reads them; [`files`] are bytes in and out. Arrows point down:
//!
//! ```text
//! cli -> scoring, training, model, text, checkpoint, files
//! scoring -> text, model, files
//! training -> scoring's records and marking, text, model, checkpoint
//! model -> checkpoint, kernels
//! text, checkpoint, kernels, files -> no sibling
//! ```

pub mod checkpoint;
pub mod cli;
pub mod files;
pub mod kernels;
pub mod model;
pub mod scoring;
mod side;
pub mod text;
pub mod training;

pub use side::Side;
