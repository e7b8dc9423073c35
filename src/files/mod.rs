//! Bytes in and out of the process: where inputs come from and where outputs go.
//!
//! This room knows names, files, compression and streams of bytes; what the bytes mean (lines, records, documents)
//! is for those above. It has no sibling.

mod compression;
mod decompress;
mod input;

pub use compression::Compression;
pub use input::{Digest, Input, OpenInput};
