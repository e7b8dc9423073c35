//! Finds a model's files and reads named tensors from them.
//!
//! [`ModelSource`] is what a user names: a hub id, a folder, one weight file or the built-in demo;
//! [`locate`] turns it into [`ModelFiles`], from disk or through the hub's cache; [`Checkpoint`] opens the
//! weights (`model.safetensors`, `pytorch_model.bin`, either also in shards) and hands out CPU tensors in the
//! type they are stored in; [`write_safetensors`] writes them.
//!
//! Everything read here is untrusted: lengths are checked before they are used, nothing is executed, and what
//! is wrong with a file is one [`CheckpointError`] that names it.
//!
//! Left to others: what a tensor is for (`model`), what a tokenizer file means (`text`), and which settings
//! apply (`cli`). This room knows no role, no BERT and no token.

mod contents;
mod error;
mod folder;
mod hash;
mod hub;
mod listing;
mod mapped;
mod names;
mod packed_mark;
mod safetensors_file;
mod source;
mod torch;
mod weights;
mod write;

#[cfg(test)]
mod tests;

pub use error::CheckpointError;
pub use folder::{is_of_a_model, is_weights};
pub use hash::FileHash;
pub use hub::HubOptions;
pub use mapped::MappedFile;
pub use packed_mark::PACKED_PREFIX;
pub use source::{ModelFiles, ModelSource, NamedBytes, WeightFile, locate};
pub use weights::{Checkpoint, TensorInfo};
pub use write::{Unwritten, write_each, write_safetensors};
