//! An output that is written in one go: it appears when all of it is there, and nothing is left of one that failed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Input;
use super::compress::{MEMBER_BYTES, compress};
use super::compression::Compression;
use super::disk::RealDisk;
use super::error::OutputError;
use super::names::state_of;
use super::output::{Claim, OutputFile};

/// Bytes written at once where nothing is compressed.
const WRITE_BYTES: usize = 128 * 1024;

/// An [`OutputFile`] without a state to go on from. Dropping it before [`Self::publish`] takes away what was written.
pub struct WholeOutput {
    /// None when it has been published.
    file: Option<OutputFile>,
    compression: Option<Compression>,
    /// Not written yet.
    pending: Vec<u8>,
    /// Something was written, or the try has failed: what an earlier run left is no longer there as it was.
    begun: bool,
    remains: Remains,
}

/// What an output that is under way has put on the disk, for whoever ends the process in its midst.
#[derive(Clone)]
pub struct Remains(Arc<Mutex<Option<PathBuf>>>);

impl Remains {
    /// Takes it away; nothing where it is an earlier run's still, or where it is becoming the output at this moment. The
    /// process has to end then: the output is not put in its place any more.
    pub fn remove(&self) {
        let Ok(mut partial) = self.0.try_lock() else { return };
        if let Some(partial) = partial.take() {
            let _ = std::fs::remove_file(partial);
        }
        // Locked until the end, so that nothing happens to a file that another run makes under that name.
        std::mem::forget(partial);
    }

    fn lock(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WholeOutput {
    /// Locks the output at `target`, which [`Destination::of`](super::Destination::of) says is a file; its ending says
    /// how it is compressed.
    ///
    /// # Errors
    /// As [`OutputFile::claim`]; also without `force` where an earlier run of whatever command left something unfinished.
    pub fn create(target: &Path, inputs: &[Input], force: bool) -> Result<Self, OutputError> {
        let claim = Claim {
            force,
            ..Claim::default()
        };
        let state = state_of(target);
        let has_state = || state.symlink_metadata().is_ok();
        let unfinished_score = || OutputError::UnfinishedScore {
            path: target.display().to_string(),
            state: state.display().to_string(),
        };
        let file = OutputFile::claim(Arc::new(RealDisk), target, inputs, claim).map_err(|error| match error {
            OutputError::Unfinished { .. } if has_state() => unfinished_score(),
            // Nothing says whose it is.
            OutputError::Unfinished { path, partial } => OutputError::LeftOver { path, partial },
            error => error,
        })?;
        if !force && has_state() {
            return Err(unfinished_score());
        }
        // What an earlier run left is this one's to take away once it has begun to write over it.
        let own = (!file.has_partial()).then(|| file.partial().to_owned());
        Ok(Self {
            file: Some(file),
            remains: Remains(Arc::new(Mutex::new(own))),
            compression: Compression::of_name(target),
            pending: Vec::new(),
            begun: false,
        })
    }

    /// Where the output will be; none when it is there.
    pub fn target(&self) -> Option<&Path> {
        self.file.as_ref().map(OutputFile::target)
    }

    /// For who ends the process before the output is there.
    pub fn remains(&self) -> Remains {
        self.remains.clone()
    }

    /// Puts the output in its place.
    pub fn publish(mut self) -> Result<(), OutputError> {
        // An empty file is a file of its format too.
        let is_empty = self.file.as_ref().is_some_and(|file| file.length() == 0);
        if is_empty || !self.pending.is_empty() {
            self.write_pending()?;
        }
        let remains = self.remains.clone();
        let mut partial = remains.lock();
        *partial = None;
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        file.publish(&[]).map_err(|error| {
            file.discard();
            match error {
                // Nothing goes on with what this one has written.
                OutputError::Appeared { path, .. } => OutputError::Exists { path },
                error => error,
            }
        })
    }

    fn write_pending(&mut self) -> Result<(), OutputError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        *self.remains.lock() = Some(file.partial().to_owned());
        self.begun = true;
        match self.compression {
            None => file.append(&self.pending)?,
            Some(compression) => {
                let member = compress(compression, &self.pending).map_err(|source| OutputError::Io {
                    path: file.target().display().to_string(),
                    action: "cannot be compressed",
                    source,
                })?;
                file.append(&member)?;
            }
        }
        self.pending.clear();
        Ok(())
    }
}

impl Write for WholeOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        let limit = self.compression.map_or(WRITE_BYTES, |_| MEMBER_BYTES);
        if self.pending.len() >= limit {
            self.write_pending().map_err(OutputError::into_io)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for WholeOutput {
    fn drop(&mut self) {
        let remains = self.remains.clone();
        let mut partial = remains.lock();
        *partial = None;
        // Before anything was written, what an earlier run left is there as it was.
        if let Some(file) = self.file.take().filter(|_| self.begun) {
            file.discard();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;

    use super::super::test_folder::names;
    use super::*;

    #[test]
    fn an_output_is_there_when_it_is_published_and_otherwise_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        for name in ["out", "out.gz", "out.zst", "out.bz2"] {
            let target = folder.path().join(name);
            let create = |force| WholeOutput::create(&target, &[], force);
            let mut dropped = create(false).unwrap();
            dropped.write_all(&bytes).unwrap();
            assert_eq!(names(folder.path()), [format!("{name}.partial")]);
            assert!(matches!(create(false), Err(OutputError::Locked { .. })));
            drop(dropped);
            assert!(names(folder.path()).is_empty(), "{name}");
            let mut output = create(false).unwrap();
            for part in bytes.chunks(100_000) {
                output.write_all(part).unwrap();
            }
            output.publish().unwrap();
            assert_eq!(names(folder.path()), [name]);
            let mut read = Vec::new();
            let mut input = Input::File(target.clone()).open().unwrap();
            input.read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{name}");
            assert!(matches!(create(false), Err(OutputError::Exists { .. })));
            create(true).unwrap().publish().unwrap();
            let mut input = Input::File(target.clone()).open().unwrap();
            assert_eq!(input.read_to_end(&mut Vec::new()).unwrap(), 0, "{name}: an empty one");
            fs::remove_file(target).unwrap();
        }
    }

    #[test]
    fn an_output_that_has_appeared_meanwhile_stays_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        for force in [false, true] {
            let mut output = WholeOutput::create(&target, &[], force).unwrap();
            output.write_all(b"new").unwrap();
            fs::write(&target, "another's").unwrap();
            match (force, output.publish()) {
                (false, Err(OutputError::Exists { .. })) => assert_eq!(fs::read(&target).unwrap(), b"another's"),
                (true, Ok(())) => assert_eq!(fs::read(&target).unwrap(), b"new"),
                (_, published) => panic!("{published:?}"),
            }
            assert_eq!(names(folder.path()), ["out"]);
        }
    }

    #[test]
    fn what_an_unfinished_run_left_stays_until_something_is_written_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let left = ["out.partial", "out.progress"];
        for name in left {
            fs::write(folder.path().join(name), "answers").unwrap();
        }
        let create = |force| WholeOutput::create(&target, &[], force);
        assert!(matches!(create(false), Err(OutputError::UnfinishedScore { .. })));
        fs::remove_file(folder.path().join(left[0])).unwrap();
        // A state may hold answers by itself.
        assert!(matches!(create(false), Err(OutputError::UnfinishedScore { .. })));
        fs::write(folder.path().join(left[0]), "answers").unwrap();
        drop(create(true).unwrap());
        assert_eq!(names(folder.path()), left);
        let mut output = create(true).unwrap();
        output.write_all(b"new").unwrap();
        output.publish().unwrap();
        assert_eq!(names(folder.path()), ["out"]);
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }
}
