//! A file about a run besides its answers: a manifest, a summary, a page. It is absent, the old one, or whole.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use super::{UsageError, stdout};
use crate::files::{Destination, Identity, Input, refuse_inputs, replace_among_others, with_suffix};

/// What the name ends in until the file is complete.
const PARTIAL: &str = ".partial";

/// A report that will be written when the run ends.
#[derive(Debug)]
pub struct ReportFile {
    path: PathBuf,
    /// The file written to, and its name if it is to be renamed; none: stdout.
    file: Option<File>,
    partial: Option<PathBuf>,
}

impl ReportFile {
    /// Opens it now, so that a run of hours does not end in a folder that cannot be written to.
    pub fn create(flag: &str, path: &Path) -> anyhow::Result<Self> {
        let context = || format!("{flag} {}", path.display());
        let destination = Destination::of(path).with_context(|| flag.to_owned())?;
        let (file, partial) = match &destination {
            Destination::Stdout => (None, None),
            // Neither a pipe nor a device can be replaced.
            Destination::Stream(stream) => (Some(File::options().append(true).open(stream)), None),
            Destination::File(target) => {
                let own = Identity::of_path(target).with_context(context)?;
                if own.is_some() && own == Identity::of_stdout() {
                    let message = format!("{flag} {}: stdout goes there; name another file", path.display());
                    return Err(UsageError(message).into());
                }
                let partial = with_suffix(target, PARTIAL);
                (Some(File::create(&partial)), Some(partial))
            }
        };
        Ok(Self {
            path: match destination {
                Destination::File(target) => target,
                _ => path.to_owned(),
            },
            file: file.transpose().with_context(context)?,
            partial,
        })
    }

    /// Opens it unless this would write over one of `inputs`.
    pub fn beside_inputs(flag: &str, path: &Path, inputs: &[Input]) -> anyhow::Result<Self> {
        if let Destination::File(target) = Destination::of(path).with_context(|| flag.to_owned())? {
            for name in [&target, &with_suffix(&target, PARTIAL)] {
                refuse_inputs(name, inputs).with_context(|| flag.to_owned())?;
            }
        }
        Self::create(flag, path)
    }

    /// Writes `contents` and gives the file its name.
    pub fn finish(mut self, contents: &[u8]) -> anyhow::Result<()> {
        let mut write = || -> io::Result<()> {
            let Some(file) = &mut self.file else {
                let mut stdout = stdout::lock();
                return stdout.write_all(contents).and_then(|()| stdout.flush());
            };
            file.write_all(contents)?;
            if let Some(partial) = &self.partial {
                file.sync_all()?;
                std::fs::rename(partial, &self.path)?;
            }
            Ok(())
        };
        let written = write();
        if written.is_ok() {
            self.partial = None;
        }
        written.with_context(|| self.path.display().to_string())
    }
}

impl Drop for ReportFile {
    /// A run that came to nothing leaves nothing.
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            let _ = std::fs::remove_file(partial);
        }
    }
}

/// Writes `contents` to `path` where there is nothing, or JSON that an earlier run wrote there. Anything else stays: it
/// may be anything, an input too.
pub fn replace_earlier(path: &Path, is_own: impl Fn(&Value) -> bool, contents: &[u8]) -> io::Result<()> {
    let Ok(Destination::File(target)) = Destination::of(path) else {
        return Ok(());
    };
    match std::fs::read(&target) {
        Ok(bytes) if !serde_json::from_slice(&bytes).is_ok_and(|value| is_own(&value)) => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    // This run's names may be in use, which may be why it failed.
    replace_among_others(&target, contents)
}
