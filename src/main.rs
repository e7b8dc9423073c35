//! The `crag` binary: runs the command line, prints what went wrong, sets the exit code.

use std::process::ExitCode;

/// musl's own maps each larger buffer anew (`benches/NOTES.md`).
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // SAFETY: nothing has been started yet, this is the only thread.
    match unsafe { crag::cli::run() } {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => {
            crag::cli::report(&error);
            ExitCode::from(crag::cli::exit_code(&error))
        }
    }
}
