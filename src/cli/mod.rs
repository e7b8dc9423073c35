//! The command line: arguments as typed, what they mean, and one file a subcommand.
//!
//! Only this room knows clap, prints to a terminal and decides exit codes:
//! 0 all done; 1 could not run or go on; 2 usage; 3 finished, but not everything is well (error
//! records in the output, a verification that failed); 11 output locked by another run; 141 whoever read stdout stopped reading.

mod convert;
mod device;
mod inspect;
pub mod model;
mod score;

mod train;
mod values;
mod verify;

use clap::{Parser, Subcommand};

/// Scores whether a text says that a drug caused an adverse reaction.
#[derive(Debug, Parser)]
#[command(name = "crag", version, about, long_about = None, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Score JSONL pairs (files or stdin), or one pair given by flags
    Score(score::ScoreArgs),
    /// Show what a checkpoint holds: roles of its tensors, parameters, settings and their sources
    Inspect(inspect::InspectArgs),
    /// Score the model card's own example and compare with its published probability
    Verify(verify::VerifyArgs),
    /// Write a checkpoint as a folder that states everything and loads fast
    Convert(convert::ConvertArgs),
    /// Train a dual encoder on labelled pairs: the model card's recipe, or one of your own
    Train(Box<train::TrainArgs>),
}

/// How a run that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    /// Finished, and the output says what was not well.
    Incomplete,
    /// Whoever read stdout stopped reading (`| head -1`).
    ClosedPipe,
}

impl Outcome {
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Complete => 0,
            Outcome::Incomplete => 3,
            Outcome::ClosedPipe => 141,
        }
    }
}

/// Arguments that parsed one by one but do not make sense; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The exit code for a run that failed.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() {
        2
    } else if error.is::<train::Locked>() {
        11
    } else {
        1
    }
}

/// Parses the process's arguments and runs the subcommand.
pub fn run() -> anyhow::Result<Outcome> {
    match Cli::parse().command {
        Command::Score(args) => score::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Train(args) => train::run(*args),
    }
}

/// Writes `text` to stdout; a closed pipe is an outcome, not an error.
fn print(text: &str) -> anyhow::Result<Outcome> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Outcome::Complete),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(Outcome::ClosedPipe),
        Err(e) => Err(anyhow::Error::new(e).context("stdout")),
    }
}

/// A remark on stderr. A closed stderr is no reason to stop.
fn note(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "crag: {text}");
}
