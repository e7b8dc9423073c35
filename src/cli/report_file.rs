//! A file about a run besides its answers: a manifest, a summary, a page. It is absent, the old one, or whole.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use super::{UsageError, stdout};
use crate::files::{
    Destination, Identity, Input, is_same_file, may_replace, refuse_inputs, replace_among_others, try_to_replace,
};

/// A report that will be written when the run ends.
#[derive(Debug)]
pub struct ReportFile {
    path: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Stdout,
    /// Neither a pipe nor a device can be replaced.
    Stream(File),
    /// The file at the report's path, which is replaced at once and whole.
    File,
}

impl ReportFile {
    /// Tries the place now, so that a run of hours does not end in a folder that cannot be written to; unless this
    /// would write over one of `inputs`, or over anything but what `is_own` says that an earlier run wrote.
    pub fn beside_inputs(
        flag: &str,
        path: &Path,
        inputs: &[Input],
        is_own: impl Fn(&[u8]) -> bool,
    ) -> anyhow::Result<Self> {
        let context = || format!("{flag} {}", path.display());
        let (path, place) = match Destination::of(path).with_context(|| flag.to_owned())? {
            Destination::Stdout => (path.to_owned(), Place::Stdout),
            Destination::Stream(stream) => {
                refuse_inputs(&stream, inputs).with_context(|| flag.to_owned())?;
                let file = File::options().append(true).open(&stream).with_context(context)?;
                (stream, Place::Stream(file))
            }
            Destination::File(target) => {
                refuse_inputs(&target, inputs).with_context(|| flag.to_owned())?;
                let own = Identity::of_path(&target).with_context(context)?;
                if own.is_some() && own == Identity::of_stdout() {
                    let message = format!("{flag} {}: stdout goes there; name another file", path.display());
                    return Err(UsageError(message).into());
                }
                if !may_replace(&target, is_own).with_context(context)? {
                    let message = format!(
                        "{flag} {}: holds what no earlier run wrote there; name another file, or remove it",
                        path.display()
                    );
                    return Err(UsageError(message).into());
                }
                if let Some(reason) = try_to_replace(&target).with_context(context)? {
                    let message = format!(
                        "{flag} {}: {reason}, so that no new one can take its place; name another, and copy that there",
                        path.display()
                    );
                    return Err(UsageError(message).into());
                }
                (target, Place::File)
            }
        };
        Ok(Self { path, place })
    }

    pub fn is_stdout(&self) -> bool {
        matches!(self.place, Place::Stdout)
    }

    /// The same, unless it goes to stdout: for runs whose records go there.
    pub fn apart_from_records(self, flag: &str) -> Result<Self, UsageError> {
        match self.place {
            Place::Stdout => Err(UsageError(format!(
                "{flag} -: stdout has the records; name a file, or one for the records (-o)"
            ))),
            _ => Ok(self),
        }
    }

    /// Writes `contents` under the file's name.
    pub fn finish(self, contents: &[u8]) -> anyhow::Result<()> {
        let written = match self.place {
            Place::Stdout => {
                let mut stdout = stdout::lock();
                stdout.write_all(contents).and_then(|()| stdout.flush())
            }
            Place::Stream(mut stream) => stream.write_all(contents),
            Place::File => replace_among_others(&self.path, contents),
        };
        written.with_context(|| self.path.display().to_string())
    }
}

/// Whether a report could not be written since nobody reads what it goes to any more.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes `contents` to `path` where there is nothing, or what an earlier run wrote there. Anything else stays: it
/// may be anything, an input too. Where `others` name the file nothing is written, whether it is there or not: it
/// would be read, or taken for what an earlier run left.
pub fn replace_earlier(
    path: &Path,
    others: &[PathBuf],
    is_own: impl Fn(&[u8]) -> bool,
    contents: &[u8],
) -> io::Result<()> {
    let Ok(Destination::File(target)) = Destination::of(path) else {
        return Ok(());
    };
    if others.iter().any(|other| is_same_file(other, &target)) || !may_replace(&target, is_own).unwrap_or(false) {
        return Ok(());
    }
    replace_among_others(&target, contents)
}

/// Whether `bytes` are a JSON object that has all of `members`.
pub fn is_object_with(bytes: &[u8], members: &[&str]) -> bool {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    members.iter().all(|&member| value.get(member).is_some())
}
