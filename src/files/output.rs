//! An output file that is at every moment absent, the old one, or complete.
//!
//! What is written goes to `OUT.partial` beside it, which becomes `OUT` by a rename when all of it is on the
//! disk. A kernel lock on `OUT.partial` keeps a second run out; it ends with the process, however that ends.
//! `OUT.progress` holds whatever its owner wants to know after a crash; what that is, this file does not know.
//!
//! What may happen between any two operations, and what is there then:
//!
//! | after | `OUT` | `OUT.partial` | `OUT.progress` |
//! |---|---|---|---|
//! | [`OutputFile::claim`] | old or none | empty, or an earlier run's | none, or an earlier run's |
//! | [`OutputFile::save_state`], [`OutputFile::append`] | old or none | at least what the state says | a state |
//! | the rename in [`OutputFile::publish`] | complete | none | the last state |
//! | the end of it | complete | none | none |

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Input;
use super::companion::{Companion, Placed};
use super::destination::refuse_inputs;
use super::disk::{Disk, put_in_place, replace_like, uninterrupted, write_all, write_beside};
use super::error::{OutputError, io_error};
use super::identity::is_at;
use super::lock::lock;
use super::names::{folder_of, partial_of, state_of};
use super::succession::{obstacle, take_over_permissions};

/// What to do about what is there already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim {
    /// An existing output and an unfinished one are replaced.
    pub force: bool,
    /// An unfinished output is gone on with, and an existing one looked at, by whoever claims.
    pub resume: bool,
    /// How long to wait for another run's lock.
    pub wait: Duration,
}

/// An output under way, locked. Dropping it leaves what was written for a later run, and nothing if nothing was.
pub struct OutputFile {
    disk: Arc<dyn Disk>,
    target: PathBuf,
    partial: PathBuf,
    state: PathBuf,
    file: File,
    /// Of what has been written, and its hash.
    length: u64,
    hasher: Box<blake3::Hasher>,
    /// The file may hold more than `length`: a torn tail, or what an earlier run left.
    torn: bool,
    /// Something is there for a later run.
    keep: bool,
    /// An output that is there is replaced.
    force: bool,
    /// Those of the output that is there: what stands in for the new one is for no other readers.
    permissions: Option<Permissions>,
}

impl OutputFile {
    /// Locks the output at `target`, which [`Destination::of`](super::Destination::of) says is a file.
    ///
    /// # Errors
    /// Another run has it; it is one of `inputs`; without `force` and `resume`: it exists, or an earlier run left it
    /// unfinished. Nothing has been changed then.
    pub fn claim(disk: Arc<dyn Disk>, target: &Path, inputs: &[Input], claim: Claim) -> Result<Self, OutputError> {
        let (partial, state) = (partial_of(target), state_of(target));
        for path in [target, &partial, &state] {
            refuse_inputs(path, inputs)?;
        }
        let was_there = partial.symlink_metadata().is_ok();
        let folder = folder_of(target);
        if folder
            .symlink_metadata()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            return Err(OutputError::NoParent {
                path: target.display().to_string(),
                folder: folder.display().to_string(),
            });
        }
        let permissions = target.metadata().ok().map(|old| old.permissions());
        let file = lock(&*disk, target, &partial, claim.wait, permissions.as_ref())?;
        // Better known now than when all is done.
        if claim.force
            && let Some(reason) = obstacle(target, &file)
        {
            remove_if_empty(&file, &partial);
            return Err(OutputError::Stays {
                path: target.display().to_string(),
                reason,
            });
        }
        let length = file
            .metadata()
            .map_err(|source| io_error(&partial, "cannot be looked at", source))?
            .len();
        let output = Self {
            disk,
            // A run may have stopped before its first answer; its state belongs to the empty file.
            keep: length > 0 || (was_there && state.symlink_metadata().is_ok()),
            target: target.to_owned(),
            partial,
            state,
            file,
            length: 0,
            hasher: Box::default(),
            torn: length > 0,
            force: claim.force,
            permissions,
        };
        if !claim.resume && !claim.force {
            if output.exists() {
                return Err(OutputError::Exists {
                    path: target.display().to_string(),
                });
            }
            // A state alone holds nothing that could be lost.
            if length > 0 {
                return Err(OutputError::Unfinished {
                    path: target.display().to_string(),
                    partial: output.partial.display().to_string(),
                });
            }
        }
        Ok(output)
    }

    /// Where the output will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where it is until then.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Where [`Self::save_state`] puts states.
    pub fn state_path(&self) -> &Path {
        &self.state
    }

    /// Whether there is an output already.
    pub fn exists(&self) -> bool {
        self.target.symlink_metadata().is_ok()
    }

    /// Whether there is one that [`Self::publish`] would not replace: there was none when this was claimed.
    pub fn has_appeared(&self) -> bool {
        !self.force && self.exists()
    }

    /// Whether an earlier run left something in `OUT.partial`.
    pub fn has_partial(&self) -> bool {
        self.torn
    }

    /// What the last [`Self::save_state`] of this or an earlier run saved.
    pub fn state(&self) -> Result<Option<Vec<u8>>, OutputError> {
        match std::fs::read(&self.state) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&self.state, "cannot be read", error)),
        }
    }

    /// How many bytes have been written.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The BLAKE3 hash of what has been written.
    pub fn digest(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    /// Goes on after the first `length` bytes that an earlier run wrote, if they have this hash; false (and
    /// nothing has changed) if not. What follows them goes when something is written.
    pub fn restore(&mut self, length: u64, digest: &blake3::Hash) -> Result<bool, OutputError> {
        let read = |source| io_error(&self.partial, "cannot be read", source);
        (&self.file).rewind().map_err(read)?;
        let Some(hasher) = hash_beginning(&self.file, length).map_err(read)? else {
            return Ok(false);
        };
        if hasher.finalize() != *digest {
            return Ok(false);
        }
        (self.length, self.hasher, self.torn) = (length, Box::new(hasher), true);
        Ok(true)
    }

    /// Writes `bytes` after what has been written.
    ///
    /// After an error some of them may be there: nothing but dropping this makes sense then.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.mend()?;
        let error = |source| io_error(&self.partial, "cannot be written", source);
        write_all(&*self.disk, &self.file, bytes).map_err(error)?;
        self.length += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Saves `state` for a later run, after making sure that all that has been written is on the disk.
    ///
    /// # Errors
    /// Something cannot be written, or what has been written is no longer there: [`OutputError::Lost`].
    pub fn save_state(&mut self, state: &[u8]) -> Result<(), OutputError> {
        let error = |source| io_error(&self.partial, "cannot be brought to the disk", source);
        uninterrupted(|| self.disk.sync(&self.file)).map_err(error)?;
        self.check_own()?;
        self.keep = true;
        replace_like(&*self.disk, &self.state, state, self.permissions.as_ref())
            .map_err(|source| io_error(&self.state, "cannot be written", source))
    }

    /// Puts the output in its place, with its companions, and removes what was only there until then.
    ///
    /// Call [`Self::save_state`] with a state that says so before: whoever finds that state and `OUT.partial` can do
    /// this once more, and who finds it without `OUT.partial` can check whether `OUT` is this run's. Companions
    /// are on the disk before anything is put in place, and are put in place directly before the output.
    ///
    /// # Errors
    /// Something cannot be written; what has been written is no longer there; or, without `force`, an output has appeared
    /// since there was none, or in a companion's place what it does not replace. Then nothing has been put in place.
    pub fn publish(&mut self, companions: &[Companion]) -> Result<(), OutputError> {
        self.mend()?;
        self.check_own()?;
        if self.has_appeared() {
            return Err(self.appeared());
        }
        if let Some(blocked) = companions.iter().find(|companion| companion.is_blocked()) {
            return Err(OutputError::CompanionAppeared {
                path: blocked.path.display().to_string(),
                output: self.target.display().to_string(),
                partial: self.partial.display().to_string(),
            });
        }
        let written = |path: &Path| {
            let path = path.to_owned();
            move |source| io_error(&path, "cannot be written", source)
        };
        for Companion { path, contents, .. } in companions {
            let beside = Companion::beside(path, &self.target);
            write_beside(&*self.disk, &beside, contents, None).map_err(written(path))?;
        }
        take_over_permissions(&self.target, &self.partial);
        let mut placed = Vec::with_capacity(companions.len());
        for Companion { path, .. } in companions {
            let beside = Companion::beside(path, &self.target);
            placed.push(Placed::put(&*self.disk, beside, path).map_err(written(path))?);
        }
        let renamed = match self.force {
            true => put_in_place(&*self.disk, &self.partial, &self.target),
            false => uninterrupted(|| self.disk.rename_new(&self.partial, &self.target)),
        };
        if let Err(error) = renamed {
            // They would tell of an output that is not there, beside the one that is.
            placed
                .into_iter()
                .rev()
                .for_each(|placed| placed.take_back(&*self.disk));
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists if !self.force => self.appeared(),
                _ => io_error(&self.target, "cannot be put in place of OUT.partial", error),
            });
        }
        placed.into_iter().for_each(|placed| placed.settle(&*self.disk));
        self.settle(companions)
    }

    fn appeared(&self) -> OutputError {
        OutputError::Appeared {
            path: self.target.display().to_string(),
            partial: self.partial.display().to_string(),
        }
    }

    /// What is left to do when the output is in its place.
    pub fn settle(&mut self, companions: &[Companion]) -> Result<(), OutputError> {
        let mut folders = vec![folder_of(&self.target)];
        folders.extend(companions.iter().map(|companion| folder_of(&companion.path)));
        folders.dedup();
        for folder in folders {
            uninterrupted(|| self.disk.sync_folder(folder))
                .map_err(|source| io_error(folder, "the folder's names cannot be brought to the disk", source))?;
        }
        // The state outlives its use by a failure here or a crash, and harms nobody: see `publish`.
        let _ = self.remove_state();
        self.keep = false;
        Ok(())
    }

    /// Takes away what was written, and the state of what it was to go on from.
    pub fn discard(mut self) {
        // What has become the output is no more this one's.
        if !is_at(&self.file, &self.partial).unwrap_or(false) {
            return;
        }
        (self.length, self.torn, self.keep) = (0, true, false);
        // What cannot be taken away is the next run's to replace.
        if self.mend().is_ok() {
            let _ = self.disk.remove(&self.state);
        }
    }

    fn remove_state(&self) -> io::Result<()> {
        if is_at(&self.file, &self.partial)? {
            // The output was there before: what is locked is still its placeholder.
            return self.disk.remove(&self.state);
        }
        // `OUT.partial` has been free since the rename. Under its lock again, so that the next run's state stays.
        let placeholder = self.disk.open(&self.partial, None)?;
        let is_ours =
            placeholder.try_lock().is_ok() && is_at(&placeholder, &self.partial)? && placeholder.metadata()?.len() == 0;
        if is_ours {
            let removed = self.disk.remove(&self.state);
            self.disk.remove(&self.partial)?;
            removed?;
        }
        Ok(())
    }

    /// Errors if `OUT.partial` is not the file that is locked here, or not as long as what has been written: its name is what
    /// becomes the output, and another run may have it by now.
    fn check_own(&self) -> Result<(), OutputError> {
        let looked = |source| io_error(&self.partial, "cannot be looked at", source);
        let length = self.file.metadata().map_err(looked)?.len();
        let is_whole = length == self.length || self.torn && length > self.length;
        match is_whole && is_at(&self.file, &self.partial).map_err(looked)? {
            true => Ok(()),
            false => Err(OutputError::Lost {
                path: self.target.display().to_string(),
                partial: self.partial.display().to_string(),
            }),
        }
    }

    /// Cuts off what lies beyond what counts.
    fn mend(&mut self) -> Result<(), OutputError> {
        if self.torn {
            // What has become shorter would be filled up with zeros.
            self.check_own()?;
            self.torn = false;
            let error = |source| io_error(&self.partial, "cannot be truncated", source);
            uninterrupted(|| self.disk.truncate(&self.file, self.length)).map_err(error)?;
        }
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if !self.keep {
            remove_if_empty(&self.file, &self.partial);
        }
    }
}

/// Removes the locked `file` at `partial` if nothing is in it. Whoever has opened it meanwhile looks at its name again.
fn remove_if_empty(file: &File, partial: &Path) {
    let is_empty = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
    if is_empty && is_at(file, partial).unwrap_or(false) {
        let _ = std::fs::remove_file(partial);
    }
}

/// A hasher that has seen the first `length` bytes; none if there are not as many.
pub fn hash_beginning(file: &File, length: u64) -> io::Result<Option<blake3::Hasher>> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(length))?;
    Ok((hasher.count() == length).then_some(hasher))
}
