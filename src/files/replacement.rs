//! A file that takes another's place, where what lies beside may be anybody's.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::disk::{RealDisk, take_place, uninterrupted};
use super::identity::is_at;
use super::names::with_suffix;
use super::succession::obstacle;

/// A file beside the one at a path, under a name that nothing else had, until it is put in that one's place: whoever looks, also
/// after a loss of power, finds the old contents or the new. Dropped before, it is removed.
pub struct Replacement {
    path: PathBuf,
    beside: PathBuf,
    file: File,
    in_place: bool,
}

impl Replacement {
    /// Makes an empty file beside `path`, to write to and to read.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let mut attempt = 0;
        loop {
            let beside = with_suffix(path, &format!(".{}-{attempt}{ENDING}", std::process::id()));
            match File::options().read(true).write(true).create_new(true).open(&beside) {
                Ok(file) => {
                    // Where there are no locks nobody takes it for abandoned either.
                    let _ = file.try_lock();
                    if is_at(&file, &beside)? {
                        return Ok(Self {
                            path: path.to_owned(),
                            beside,
                            file,
                            in_place: false,
                        });
                    }
                }
                // In a container numbers of processes come again.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => {
                    if !remove_if_abandoned(&beside) {
                        attempt += 1;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts it in its place, under the permissions of what was there, when all of it is on the disk.
    pub fn put_in_place(mut self) -> io::Result<()> {
        uninterrupted(|| self.file.sync_all())?;
        take_place(&RealDisk, &self.beside, &self.path)?;
        self.in_place = true;
        Ok(())
    }
}

/// What the names of such files end with, after the number of their process and one more.
const ENDING: &str = ".tmp";

/// The name of the file whose place a file of this name was to take, where a killed run has left that.
pub fn replaced_by(name: &str) -> Option<&str> {
    let (replaced, process) = name.strip_suffix(ENDING)?.rsplit_once('.')?;
    let (process, attempt) = process.split_once('-')?;
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(process) && is_number(attempt)).then_some(replaced)
}

/// Removes what a killed run left at `beside`: nobody holds its lock. False where it stays.
fn remove_if_abandoned(beside: &Path) -> bool {
    let is_file = beside.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    let file = is_file.then(|| File::open(beside).ok()).flatten();
    file.is_some_and(|file| {
        file.try_lock().is_ok() && is_at(&file, beside).unwrap_or(false) && fs::remove_file(beside).is_ok()
    })
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.in_place {
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// Replaces the file at `path` by one that holds `contents`, or makes it.
pub fn replace_among_others(path: &Path, contents: &[u8]) -> io::Result<()> {
    let replacement = Replacement::begin(path)?;
    replacement.file().write_all(contents)?;
    replacement.put_in_place()
}

/// Tries now whether the file at `path` can be replaced when a run ends, or made; why the old one would stay, where
/// something is known to be in the way. Errors where no file can be made beside it.
pub fn try_to_replace(path: &Path) -> io::Result<Option<&'static str>> {
    // Not kept until the end: a run that is killed would leave it.
    Ok(obstacle(path, Replacement::begin(path)?.file()))
}

#[cfg(test)]
mod tests {
    use super::super::test_folder::names;
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_told_by_its_name_and_makes_way_and_what_is_being_written_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let first = Replacement::begin(&path).unwrap();
        let name = first.beside.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(replaced_by(&name), Some("model.safetensors"));
        let second = Replacement::begin(&path).unwrap();
        assert!(first.beside != second.beside);
        second.file().write_all(b"second").unwrap();
        let abandoned = first.beside.clone();
        drop(first);
        // As a kill leaves it.
        fs::write(&abandoned, "torn").unwrap();
        let third = Replacement::begin(&path).unwrap();
        assert_eq!(third.beside, abandoned);
        third.file().write_all(b"third").unwrap();
        third.put_in_place().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        second.put_in_place().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["model.safetensors"]);
        for other in [
            "model.safetensors.tmp",
            "model.safetensors.4711.tmp",
            "x.a-0.tmp",
            ".tmp",
            "1-0.tmp",
        ] {
            assert_eq!(replaced_by(other), None, "{other}");
        }
    }
}
