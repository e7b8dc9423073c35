//! Why a run cannot go on where an earlier one ended.

use crate::words::counted;

/// Nothing has been written where a run ends with one of these.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    #[error("{state}: the earlier run was another one: {}; {START_AGAIN}", differences.join("; "))]
    OtherRun { state: String, differences: Vec<String> },
    #[error(
        "input {number} ({name}) differs in its first {} from what the earlier run scored; {START_AGAIN}",
        lines(*count)
    )]
    OtherLines { number: usize, name: String, count: u64 },
    #[error(
        "input {number} ({name}) ended after {}, of which the earlier run scored {expected}; {START_AGAIN}",
        lines(*found)
    )]
    TooFewLines {
        number: usize,
        name: String,
        found: u64,
        expected: u64,
    },
    #[error(
        "input {number} ({name}) has more lines than the {expected} that it had when the earlier run came to its end; \
         {START_AGAIN}"
    )]
    TooManyLines { number: usize, name: String, expected: u64 },
    #[error("expected the {expected} inputs that the earlier run has read, found {found}; {START_AGAIN}")]
    OtherInputs { expected: usize, found: usize },
    #[error("{partial}: its first {length} bytes are not what {state} says that they are; {START_AGAIN}")]
    OtherPartial {
        partial: String,
        state: String,
        length: u64,
    },
    #[error("{partial}: there is no {state} that says how far it goes; {START_AGAIN}")]
    Unexplained { partial: String, state: String },
    #[error("{state}: expected how far a run came, found something else: {reason}; {START_AGAIN}")]
    Damaged { state: String, reason: String },
    #[error(
        "{state}: expected how far a run came, found something else: {reason}; name another output, move it away, \
         or throw it away with --force"
    )]
    Foreign { state: String, reason: String },
    #[error("{path}: the output exists, and {reason}; --force makes it anew")]
    Exists { path: String, reason: String },
}

/// The way out of all that cannot be resumed.
const START_AGAIN: &str = "to start again, give --force in place of --resume";

fn lines(count: u64) -> String {
    counted(count, "line", "lines")
}
