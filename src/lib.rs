//! `crag` scores whether a text says that a drug caused an adverse reaction.
//!
//! Rooms, from the top: [`cli`] turns arguments into settings and runs a subcommand; [`scoring`]
//! streams JSONL records through the network; [`corpora`] makes such records of annotated documents;
//! `training` makes checkpoints from labelled pairs; `evaluation` judges probabilities against labels;
//! [`model`] is the dual encoder over candle tensors;
//! [`kernels`], a package of its own, holds the operations that differ between processors; [`text`] marks entities and tokenizes;
//! [`checkpoint`] finds weights and reads them; [`files`] are bytes in and out. Arrows point down; [`Side`],
//! [`Calibration`], `guard`, `raw_json` and `words` are everybody's:
//!
//! ```text
//! cli -> scoring, corpora, training, evaluation, model, text, checkpoint, files, kernels' devices, memory and names
//! training -> scoring's records and marking, evaluation, text, model, checkpoint, files, kernels' memory and slices
//! scoring -> text, model, files, kernels' copies, memory and names
//! corpora -> files
//! model -> checkpoint, kernels
//! checkpoint -> files' names and replacing
//! evaluation, text, kernels, files -> no sibling
//! ```

mod calibration;
pub mod checkpoint;
pub mod cli;
pub mod corpora;
mod evaluation;
pub mod files;
mod guard;
pub mod model;
mod raw_json;
pub mod scoring;
mod side;
pub mod text;
mod training;
mod words;

pub use calibration::{Calibration, FittedOn};
pub use crag_kernels as kernels;
pub use side::Side;
