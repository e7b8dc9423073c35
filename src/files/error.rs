//! Why there is no output.

use std::io;
use std::path::Path;

/// Why there is no output, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error(
        "{path}: another run is writing this output (it holds the lock on {partial}); wait for its end, or name another"
    )]
    Locked { path: String, partial: String },
    #[error("{path}: the output exists; --force replaces it once the new one is complete")]
    Exists { path: String },
    #[error(
        "{path}: it has appeared since this run began, and stays; all that was to be in it is in {partial}: with {path} moved \
         away the same command with --resume puts that in its place, with --force --resume it does so anyway"
    )]
    Appeared { path: String, partial: String },
    #[error(
        "{path}: {partial} is no longer what this run has written: another program has removed it, replaced it or written to it; nothing has \
         been put in the place of {path}: run again, and leave {partial} alone until the run has ended"
    )]
    Lost { path: String, partial: String },
    #[error(
        "{path}: it has appeared since this run began, and stays, since nothing of this program's has written it; all that was to be \
         in {output} is in {partial}: with {path} moved away the same command with --resume puts both in their places"
    )]
    CompanionAppeared {
        path: String,
        output: String,
        partial: String,
    },
    #[error(
        "{path}: an earlier run left {partial} unfinished; --resume goes on with it, --force throws it away and starts again"
    )]
    Unfinished { path: String, partial: String },
    /// Of an output that is written in one go, which nothing goes on with.
    #[error(
        "{path}: an earlier run of crag score left {state} unfinished; crag score --resume goes on with it, --force throws \
         it away; or name another output"
    )]
    UnfinishedScore { path: String, state: String },
    #[error(
        "{path}: {partial} is there, left by a run that was killed or by another program; nothing can go on with it, \
         --force throws it away and starts again; or name another output"
    )]
    LeftOver { path: String, partial: String },
    #[error("{path}: {reason}, so that no new output can take its place; name another, and copy that there")]
    Stays { path: String, reason: &'static str },
    #[error("{path}: the output is also an input ({input}); name another output")]
    IsInput { path: String, input: String },
    #[error("{path}: expected the name of an output file, found a folder")]
    Folder { path: String },
    #[error("{path}: the folder {folder} does not exist; make it first, or name another output")]
    NoParent { path: String, folder: String },
    #[error("{path}: expected the name of an output folder, found {found}")]
    NoFolder { path: String, found: &'static str },
    #[error("{path}: {action}")]
    Io {
        path: String,
        action: &'static str,
        source: io::Error,
    },
}

impl OutputError {
    /// As whoever writes into a stream passes it on: of the same kind, with this as the reason.
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            OutputError::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

pub(super) fn io_error(path: &Path, action: &'static str, source: io::Error) -> OutputError {
    OutputError::Io {
        path: path.display().to_string(),
        action,
        source,
    }
}
