//! Bytes in and out of the process: where inputs come from and where outputs go.
//!
//! This room knows names, files, compression and streams of bytes; what the bytes mean (lines, records, documents)
//! is for those above. It has no sibling.

mod at_start;
mod companion;
mod compress;
mod compression;
mod decompress;
mod destination;
mod disk;
mod encoding;
mod error;
mod folder;
mod identity;
mod input;
mod lock;
mod names;
mod open_files;
mod output;
mod replacement;
mod sealed;
mod steady;
mod succession;
#[cfg(test)]
mod test_folder;
mod waiting;
mod whole_output;

pub use at_start::stdout_was_missing;
pub use companion::Companion;
pub use compress::{MEMBER_BYTES, compress};
pub use compression::Compression;
pub use destination::{Destination, refuse_inputs, refuse_stdout};
pub use disk::{Disk, RealDisk, replace};
pub use encoding::{BYTE_ORDER_MARK, WideEncoding};
pub use error::OutputError;
pub use folder::{OutputFolder, REPLACED};
pub use identity::{Identity, is_same_file};
pub use input::{Digest, Gauge, Input, OpenInput};
pub use names::{folder_of, stand_ins, with_suffix};
pub use open_files::{allow_open_files, are_too_many_open};
pub use output::{Claim, OutputFile, hash_beginning};
pub use replacement::{Replacement, replace_among_others, replaced_by, try_to_replace};
pub use sealed::{check_seal, seal};
pub use succession::may_replace;
pub use waiting::Waiting;
pub use whole_output::{Remains, WholeOutput};
