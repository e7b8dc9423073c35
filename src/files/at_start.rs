//! Which standard streams the process was begun with.
//!
//! The standard library opens the null device in place of a closed one before `main` runs: every answer would vanish there, or
//! there would be no line to read, with exit code 0. It also passes over one that is open for the other direction alone.

use std::sync::atomic::{AtomicBool, Ordering};

static STDIN_IS_MISSING: AtomicBool = AtomicBool::new(false);
static STDOUT_IS_MISSING: AtomicBool = AtomicBool::new(false);

/// Whether stdin was closed, or not open for reading.
pub fn stdin_was_missing() -> bool {
    STDIN_IS_MISSING.load(Ordering::Relaxed)
}

/// Whether stdout was closed, or not open for writing.
pub fn stdout_was_missing() -> bool {
    STDOUT_IS_MISSING.load(Ordering::Relaxed)
}

// SAFETY: the loader calls what these sections name once, before `main`. `look` takes no arguments that it would
// read, and uses nothing that `main`'s runtime has to set up: two system calls and two atomics.
#[used]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    look_at(libc::STDIN_FILENO, libc::O_WRONLY, &STDIN_IS_MISSING);
    look_at(libc::STDOUT_FILENO, libc::O_RDONLY, &STDOUT_IS_MISSING);
}

fn look_at(descriptor: libc::c_int, wrong_way: libc::c_int, is_missing: &AtomicBool) {
    // SAFETY: asks for flags of a descriptor, which is defined for one that is not open.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    is_missing.store(flags == -1 || flags & libc::O_ACCMODE == wrong_way, Ordering::Relaxed);
}
