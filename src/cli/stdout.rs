//! Stdout, which fails if it was closed, or not open for writing, when the process began, and waits where it is set not to block.
//!
//! The standard library opens the null device in place of a closed stdout before `main` runs, and every answer
//! would vanish there with exit code 0.

use std::io::{self, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::files::Waiting;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

pub fn lock() -> Stdout {
    Stdout(Waiting(io::stdout().lock()))
}

pub struct Stdout(Waiting<StdoutLock<'static>>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if WAS_CLOSED.load(Ordering::Relaxed) {
            return Err(io::Error::other("it is closed, or not open for writing"));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(unix)]
mod start {
    use super::{Ordering, WAS_CLOSED};

    // SAFETY: the loader calls what these sections name once, before `main`. `look` takes no arguments that it would
    // read, and uses nothing that `main`'s runtime has to set up: one system call and one atomic.
    #[used]
    #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
    #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
    static LOOK: extern "C" fn() = look;

    extern "C" fn look() {
        // SAFETY: asks for flags of a descriptor, which is defined for one that is not open.
        let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFL) };
        // Open for reading alone, it takes nothing either, and the standard library passes over that as well.
        let takes_none = flags == -1 || flags & libc::O_ACCMODE == libc::O_RDONLY;
        WAS_CLOSED.store(takes_none, Ordering::Relaxed);
    }
}
