//! Standard streams that may be set not to block, waited for.
//!
//! That setting (`O_NONBLOCK`) belongs to what was opened, not to a process: whoever starts this one, or shares a terminal, a pipe
//! or a socket with it, may have chosen it. A read or write then fails with "would block" where it would have waited, and no
//! byte is lost by waiting and asking again.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

/// A stream whose reads and writes wait, however it is set.
pub struct Waiting<S>(pub S);

impl<S: AsRawFd> Waiting<S> {
    fn when_ready<T>(&mut self, event: Event, mut operation: impl FnMut(&mut S) -> io::Result<T>) -> io::Result<T> {
        loop {
            match operation(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => event.wait_for(&self.0)?,
                done => return done,
            }
        }
    }
}

impl<S: Read + AsRawFd> Read for Waiting<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.when_ready(Event::Readable, |stream| stream.read(buffer))
    }
}

impl<S: Write + AsRawFd> Write for Waiting<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.when_ready(Event::Writable, |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.when_ready(Event::Writable, S::flush)
    }
}

#[derive(Clone, Copy)]
enum Event {
    Readable,
    Writable,
}

impl Event {
    /// Returns when it has happened, or cannot happen any more, or a signal came.
    fn wait_for(self, stream: &impl AsRawFd) -> io::Result<()> {
        let events = match self {
            Event::Readable => libc::POLLIN,
            Event::Writable => libc::POLLOUT,
        };
        let mut asked = libc::pollfd {
            fd: stream.as_raw_fd(),
            events,
            revents: 0,
        };
        // SAFETY: it writes to one entry, which outlives the call.
        if unsafe { libc::poll(&mut asked, 1, -1) } >= 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        }
    }
}
