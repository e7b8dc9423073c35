//! Stdout, which fails if it was closed, or not open for writing, when the process began, and waits where it is set not to block.

use std::io::{self, StdoutLock, Write};

use crate::files::{Waiting, stdout_was_missing};

pub fn lock() -> Stdout {
    Stdout(Waiting(io::stdout().lock()))
}

pub struct Stdout(Waiting<StdoutLock<'static>>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if stdout_was_missing() {
            return Err(io::Error::other("it is closed, or not open for writing"));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
