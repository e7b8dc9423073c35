//! How many files the process may have open at once.

use std::io;

/// Lets the process open as many files as it may let itself: up to the hard limit. Where that cannot be done, the limit
/// stays, and says itself when it is reached.
pub fn allow_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a place for a limit, which the call fills in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    // macOS states no hard limit and takes no more than this (its OPEN_MAX).
    const TAKEN_EVERYWHERE: libc::rlim_t = 10_240;
    let soft = limit.rlim_cur;
    for wanted in [limit.rlim_max, limit.rlim_max.min(TAKEN_EVERYWHERE)] {
        limit.rlim_cur = wanted.max(soft);
        // SAFETY: `limit` is a limit, which the call only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 {
            return;
        }
    }
}

/// Whether a file could not be opened because the process has too many open.
pub fn are_too_many_open(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMFILE)
}
