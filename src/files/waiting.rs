//! Standard streams that may be set not to block, waited for.
//!
//! That setting (`O_NONBLOCK`) belongs to what was opened, not to a process: whoever starts this one, or shares a terminal, a pipe
//! or a socket with it, may have chosen it. A read or write then fails with "would block" where it would have waited, and no
//! byte is lost by waiting and asking again.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// A stream whose reads and writes wait, however it is set.
pub struct Waiting<S>(pub S);

impl<S: AsFd> Waiting<S> {
    fn when_ready<T>(
        &mut self,
        awaited: PollFlags,
        mut operation: impl FnMut(&mut S) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match operation(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for(awaited, &self.0)?,
                done => return done,
            }
        }
    }
}

impl<S: Read + AsFd> Read for Waiting<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.when_ready(PollFlags::IN, |stream| stream.read(buffer))
    }
}

impl<S: Write + AsFd> Write for Waiting<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.when_ready(PollFlags::OUT, |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.when_ready(PollFlags::OUT, S::flush)
    }
}

/// Returns when what is awaited has happened, or cannot happen any more, or a signal came.
fn wait_for(awaited: PollFlags, stream: &impl AsFd) -> io::Result<()> {
    match poll(&mut [PollFd::new(stream, awaited)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
