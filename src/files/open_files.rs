//! How many files the process may have open at once.

use std::io;

/// Lets the process open as many files as it may let itself: up to the hard limit. Where that cannot be done, the limit
/// stays, and says itself when it is reached.
#[cfg(unix)]
pub fn allow_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a place for a limit, which the call fills in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a limit, which the call only reads.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

#[cfg(not(unix))]
pub fn allow_open_files() {}

/// Whether a file could not be opened because the process has too many open.
pub fn are_too_many_open(error: &io::Error) -> bool {
    cfg!(unix) && error.raw_os_error() == Some(libc::EMFILE)
}
