//! An output folder that is at every moment absent, the old one, or complete.
//!
//! Whoever makes it works in `OUT.partial` beside it, keeps there what a later run needs to go on, and puts the result
//! together in a folder in there, which becomes `OUT` by a rename. A kernel lock on `OUT.partial/lock` keeps a second
//! run out; it ends with the process, however that ends. Nothing is touched but `OUT` and `OUT.partial`; whether what lies
//! in them may be thrown away, whoever claims them has to look.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk as _, RealDisk, uninterrupted};
use super::error::{OutputError, io_error};
use super::identity::link_target;
use super::lock::lock;
use super::names::{folder_of, partial_of};
use super::output::Claim;
use super::succession::{hand_group_down, is_mount_point, take_over_permissions};

const LOCK: &str = "lock";

/// Where in `OUT.partial` an output is that is being replaced, between two renames.
pub const REPLACED: &str = "replaced";

/// Another run may remove the folder of a finished run between its making and the lock's this often.
const ATTEMPTS: usize = 100;

/// An output folder under way, locked. Dropping it leaves what is in `OUT.partial` for a later run, and nothing if
/// nothing is.
pub struct OutputFolder {
    target: PathBuf,
    partial: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl OutputFolder {
    /// Locks the output at `target`.
    ///
    /// # Errors
    /// Another run has it; it is no folder; without `force` and `resume`: it exists, or an earlier run left it
    /// unfinished. Nothing has been changed then.
    pub fn claim(target: &Path, claim: Claim) -> Result<Self, OutputError> {
        let no_folder = |found| OutputError::NoFolder {
            path: target.display().to_string(),
            found,
        };
        // What a link leads to is replaced, not the link.
        let target = match target.canonicalize() {
            Ok(target) if !target.is_dir() => return Err(no_folder("a file")),
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => link_target(target),
            Err(error) => return Err(io_error(target, "cannot be looked at", error)),
        };
        let name = target.file_name().ok_or_else(|| no_folder("none"))?;
        if is_mount_point(&target) {
            return Err(no_folder(
                "a mount point, which cannot be replaced; name a folder in it",
            ));
        }
        if std::env::current_dir().is_ok_and(|working| working.starts_with(&target)) {
            return Err(no_folder(
                "the working folder, which would be gone; name a folder in it",
            ));
        }
        let partial = target.with_file_name(partial_of(Path::new(name)));
        let lock = lock_in(&target, &partial, claim)?;
        let output = Self {
            target,
            partial,
            _lock: lock,
        };
        // Of a run that ended between its two renames.
        let old = output.replaced();
        if old.is_dir() && output.target.symlink_metadata().is_err() {
            uninterrupted(|| RealDisk.rename(&old, &output.target))
                .map_err(|source| io_error(&old, "the old output cannot be put back", source))?;
        }
        if !claim.resume && !claim.force {
            if output.exists() {
                return Err(OutputError::Exists {
                    path: output.target.display().to_string(),
                });
            }
            if output.is_begun() {
                return Err(OutputError::Unfinished {
                    path: output.target.display().to_string(),
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

    /// Where whoever makes it works until then.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Whether there is an output already; an empty folder is none.
    pub fn exists(&self) -> bool {
        // A folder that cannot be read may hold something.
        self.target.is_dir() && others(&self.target).map_or(true, |names| !names.is_empty())
    }

    /// Whether an earlier run left something to go on with.
    pub fn is_begun(&self) -> bool {
        // A folder that cannot be read may hold something.
        self.left().map_or(true, |paths| !paths.is_empty())
    }

    /// What an earlier run left.
    pub fn left(&self) -> Result<Vec<PathBuf>, OutputError> {
        others(&self.partial).map_err(|source| io_error(&self.partial, "cannot be looked at", source))
    }

    /// Throws away what an earlier run left.
    pub fn clear(&self) -> Result<(), OutputError> {
        let cleared = self.left()?.iter().try_for_each(|path| remove(path));
        cleared.map_err(|source| io_error(&self.partial, "cannot be cleared", source))
    }

    fn replaced(&self) -> PathBuf {
        self.partial.join(REPLACED)
    }

    /// Puts `done`, a folder in [`Self::partial`] whose files are on the disk, in the output's place, and removes all
    /// else there. An output that was there before is replaced.
    pub fn publish(self, done: &Path) -> Result<(), OutputError> {
        let failed = |source: io::Error| {
            let action = match source.kind() {
                io::ErrorKind::CrossesDevices => {
                    "the folder there is of a lower layer of an overlay (a container's image) and cannot be replaced by a \
                     rename; move or remove it, then the same command with --resume puts the new one there"
                }
                _ => "cannot be put in its place",
            };
            io_error(&self.target, action, source)
        };
        let sync = |folder: &Path| uninterrupted(|| RealDisk.sync_folder(folder));
        sync(done).map_err(|source| io_error(done, "the folder's names cannot be brought to the disk", source))?;
        if self.target.is_dir() {
            take_over_permissions(&self.target, done);
            hand_group_down(&self.target, done);
            if uninterrupted(|| RealDisk.exchange(done, &self.target)).map_err(failed)? {
                // The old one is where the new one was made.
                sync(folder_of(&self.target)).map_err(failed)?;
                return self.clear();
            }
            let old = self.replaced();
            // Of a run that ended after its second rename.
            remove(&old).map_err(|source| io_error(&old, "cannot be removed", source))?;
            uninterrupted(|| RealDisk.rename(&self.target, &old)).map_err(failed)?;
        }
        uninterrupted(|| RealDisk.rename(done, &self.target)).map_err(failed)?;
        sync(folder_of(&self.target)).map_err(failed)?;
        self.clear()
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        // The lock is still held, and whoever has opened its file meanwhile looks at its name again.
        let _ = fs::remove_file(self.partial.join(LOCK));
        // Not where something is left.
        let _ = fs::remove_dir(&self.partial);
    }
}

fn lock_in(target: &Path, partial: &Path, claim: Claim) -> Result<File, OutputError> {
    let mut attempt = 0;
    loop {
        match fs::create_dir_all(partial) {
            // Another run's, which it removed before this one could look whether it is a folder.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS => {
                attempt += 1;
                continue;
            }
            made => made.map_err(|source| io_error(partial, "cannot be made", source))?,
        }
        match lock(&RealDisk, target, &partial.join(LOCK), claim.wait, None) {
            Err(OutputError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// All that is in the folder besides the lock.
fn others(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != LOCK {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// Removes a file or a folder with all that is in it; nothing is fine, too.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).or_else(|_| {
            // A folder of one's own may be closed to oneself.
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
            fs::remove_dir_all(path)
        }),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_folder::names;
    use super::*;

    fn done(output: &OutputFolder, text: &str) -> PathBuf {
        let done = output.partial().join("done");
        fs::create_dir(&done).unwrap();
        fs::write(done.join("file"), text).unwrap();
        done
    }

    const RESUME: Claim = Claim {
        force: false,
        resume: true,
        wait: std::time::Duration::ZERO,
    };
    const FORCE: Claim = Claim {
        force: true,
        resume: false,
        wait: std::time::Duration::ZERO,
    };

    #[test]
    fn an_output_appears_whole_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let output = OutputFolder::claim(&target, Claim::default()).unwrap();
        fs::write(output.partial().join("state"), "x").unwrap();
        let result = done(&output, "new");
        assert_eq!(names(folder.path()), ["out.partial"]);
        output.publish(&result).unwrap();
        assert_eq!(names(folder.path()), ["out"]);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "new");
        assert!(matches!(
            OutputFolder::claim(&target, Claim::default()),
            Err(OutputError::Exists { .. })
        ));
        assert_eq!(names(folder.path()), ["out"], "a refused run leaves nothing");

        let output = OutputFolder::claim(&target, FORCE).unwrap();
        // A run that was killed after its second rename left this.
        fs::create_dir(output.partial().join(REPLACED)).unwrap();
        let result = done(&output, "newer");
        output.publish(&result).unwrap();
        assert_eq!(names(folder.path()), ["out"]);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "newer");
    }

    #[test]
    fn an_output_is_put_back_after_a_run_that_ended_between_its_two_renames_and_nobody_elses_folder_is() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        fs::create_dir_all(folder.path().join("out.partial/replaced")).unwrap();
        fs::write(folder.path().join("out.partial/replaced/file"), "old").unwrap();
        fs::create_dir(folder.path().join("out.partial.old")).unwrap();
        drop(OutputFolder::claim(&target, RESUME).unwrap());
        assert_eq!(names(folder.path()), ["out", "out.partial.old"]);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "old");
        let output = OutputFolder::claim(&target, FORCE).unwrap();
        let result = done(&output, "new");
        output.publish(&result).unwrap();
        assert_eq!(names(folder.path()), ["out", "out.partial.old"]);
    }

    #[test]
    fn a_run_that_changes_nothing_leaves_no_lock_beside_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join("out.partial");
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join("state"), "x").unwrap();
        drop(OutputFolder::claim(&folder.path().join("out"), RESUME).unwrap());
        assert_eq!(names(&partial), ["state"]);
    }

    #[test]
    fn what_an_earlier_run_left_is_kept_until_it_is_resumed_or_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        // A slash at its end is no part of a name.
        let target = folder.path().join("out/");
        let output = OutputFolder::claim(&target, Claim::default()).unwrap();
        fs::write(output.partial().join("state"), "x").unwrap();
        drop(output);
        assert!(matches!(
            OutputFolder::claim(&target, Claim::default()),
            Err(OutputError::Unfinished { .. })
        ));
        let output = OutputFolder::claim(&target, RESUME).unwrap();
        assert!(output.is_begun() && !output.exists());
        drop(output);
        let output = OutputFolder::claim(&target, FORCE).unwrap();
        assert!(output.is_begun(), "until it is cleared");
        output.clear().unwrap();
        assert!(!output.is_begun());
        drop(output);
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn one_run_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let output = OutputFolder::claim(&target, Claim::default()).unwrap();
        for claim in [Claim::default(), RESUME, FORCE] {
            let error = OutputFolder::claim(&target, claim).err().unwrap();
            assert!(matches!(error, OutputError::Locked { .. }), "{error}");
        }
        drop(output);
        drop(OutputFolder::claim(&target, Claim::default()).unwrap());
        fs::write(&target, "").unwrap();
        let error = OutputFolder::claim(&target, FORCE).err().unwrap();
        assert!(matches!(error, OutputError::NoFolder { .. }), "{error}");
    }

    #[test]
    fn of_many_that_want_it_one_after_the_other_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let claim = Claim {
            wait: std::time::Duration::from_secs(60),
            ..FORCE
        };
        std::thread::scope(|scope| {
            for i in 0..8 {
                let target = &target;
                scope.spawn(move || {
                    let output = OutputFolder::claim(target, claim).unwrap();
                    output.clear().unwrap();
                    let result = done(&output, &i.to_string());
                    output.publish(&result).unwrap();
                });
            }
        });
        assert_eq!(names(folder.path()), ["out"]);
    }
}
