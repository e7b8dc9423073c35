//! `-o OUT` of commands that write their output in one go.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::signals::SignalWatch;
use super::stream::open_stream;
use super::{UsageError, manifest, stdout};
use crate::files::{Destination, Input, WholeOutput, is_same_file, refuse_stdout, stand_ins};

#[derive(Debug, clap::Args)]
pub struct WholeOutputArgs {
    /// Write to this file, which is there when it is complete; compressed if it ends in .gz, .zst or .bz2 [default: stdout]
    #[arg(help_heading = "Output", long, short, value_name = "OUT")]
    output: Option<PathBuf>,

    /// Replace OUT if it exists (once the new one is complete), and an unfinished OUT.partial
    #[arg(help_heading = "Output", long)]
    force: bool,
}

/// Said of a flag for files where none is to be written. (What clap requires has to be on the command line, and `-o` may be beneath it.)
pub fn without_output(flag: &str) -> UsageError {
    UsageError(format!(
        "--{flag}: expected -o OUT as well, which names the file that it is for"
    ))
}

/// Where the output goes, opened.
pub enum Output {
    Stdout(BufWriter<stdout::Stdout>),
    /// A device or a pipe.
    Stream(BufWriter<File>),
    File(WholeOutput),
}

/// What is written at once to stdout and streams.
const BUFFER_BYTES: usize = 64 * 1024;

impl WholeOutputArgs {
    /// What was named.
    pub fn path(&self) -> Option<&Path> {
        self.output.as_deref()
    }

    /// Whether the output, or what stands in for it until it is complete, is at `path`.
    pub fn writes_under(&self, path: &Path) -> bool {
        self.output.as_deref().is_some_and(|output| {
            let stand_ins = stand_ins(output);
            is_same_file(output, path) || stand_ins.iter().any(|name| is_same_file(name, path))
        })
    }

    /// Opens or locks the output, none of `inputs`. Nothing is written. What is there of it goes where a signal ends the process.
    pub fn open(&self, inputs: &[Input], signals: &SignalWatch) -> anyhow::Result<Output> {
        if self.force && self.output.is_none() {
            return Err(without_output("force").into());
        }
        let destination = match &self.output {
            Some(path) => Destination::of(path)?,
            None => Destination::Stdout,
        };
        let target = match destination {
            Destination::File(target) => target,
            Destination::Stdout => {
                refuse_stdout(inputs)?;
                return Ok(Output::Stdout(BufWriter::with_capacity(BUFFER_BYTES, stdout::lock())));
            }
            Destination::Stream(path) => {
                let stream = open_stream(&path, inputs)?;
                return Ok(Output::Stream(BufWriter::with_capacity(BUFFER_BYTES, stream)));
            }
        };
        let file = WholeOutput::create(&target, inputs, self.force)?;
        // A later run could not go on with what is there of it, and would have to ask whose that is.
        let remains = file.remains();
        signals.before_end(move |_| remains.remove());
        Ok(Output::File(file))
    }
}

impl Output {
    /// Lets go of it where nobody reads it any more: dropping a buffer would try once more to write what is in it.
    pub fn abandon(self) {
        match self {
            Output::Stdout(stdout) => drop(stdout.into_parts()),
            Output::Stream(stream) => drop(stream.into_parts()),
            Output::File(file) => drop(file),
        }
    }

    /// Writes what is left; a file is there from now on.
    pub fn finish(self) -> anyhow::Result<()> {
        match self {
            Output::Stdout(mut stdout) => stdout.flush().context("<stdout>")?,
            Output::Stream(mut stream) => stream.flush()?,
            Output::File(file) => {
                let target = file.target().map(Path::to_owned);
                file.publish()?;
                if let Some(target) = target {
                    manifest::remove_stale(&target);
                }
            }
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Stdout(stdout) => stdout.write(bytes),
            Output::Stream(stream) => stream.write(bytes),
            Output::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Stdout(stdout) => stdout.flush(),
            Output::Stream(stream) => stream.flush(),
            Output::File(file) => file.flush(),
        }
    }
}
