//! The `crag` binary: runs the command line, prints what went wrong, sets the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match crag::cli::run() {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => {
            // `{:#}` joins the causes with colons. A closed stderr must not turn an error into a panic.
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "crag: {error:#}");
            ExitCode::from(crag::cli::exit_code(&error))
        }
    }
}
