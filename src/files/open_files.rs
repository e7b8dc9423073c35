//! How many files the process may have open at once.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets the process open as many files as it may let itself: up to the hard limit. Where that cannot be done, the limit
/// stays, and says itself when it is reached.
pub fn allow_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit. macOS states no hard one and takes no more than this (its OPEN_MAX).
    const TAKEN_EVERYWHERE: u64 = 10_240;
    let fewer = maximum.map_or(TAKEN_EVERYWHERE, |maximum| maximum.min(TAKEN_EVERYWHERE));
    for wanted in [maximum, Some(fewer)] {
        let raised = Rlimit {
            current: current.zip(wanted).map(|(current, wanted)| wanted.max(current)),
            maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return;
        }
    }
}

/// Whether a file could not be opened because the process has too many open.
pub fn are_too_many_open(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMFILE)
}
