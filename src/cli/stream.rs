//! A device, a pipe or a file descriptor that output goes to.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::Context as _;

use super::UsageError;
use crate::files::{Compression, Input, refuse_inputs};

/// Opens what [`Destination::of`](crate::files::Destination::of) calls a stream, unless one of `inputs` is read from there.
pub fn open_stream(path: &Path, inputs: &[Input]) -> anyhow::Result<File> {
    let name = path.display();
    if Compression::of_name(path).is_some() {
        let message = format!("{name}: only a file is written compressed; pipe into gzip");
        return Err(UsageError(message).into());
    }
    // A descriptor or stderr may have been redirected into one.
    refuse_inputs(path, inputs)?;
    let opened = OpenOptions::new().append(true).open(path);
    opened.with_context(|| format!("{name}: cannot be opened for writing"))
}
