//! A file that takes another's place, where what lies beside may be anybody's.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::disk::{RealDisk, take_place, uninterrupted};
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
            let beside = with_suffix(path, &format!(".{}-{attempt}.tmp", std::process::id()));
            match File::options().read(true).write(true).create_new(true).open(&beside) {
                // Of a killed run: in a container numbers of processes come again.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => attempt += 1,
                made => {
                    return made.map(|file| Self {
                        path: path.to_owned(),
                        beside,
                        file,
                        in_place: false,
                    });
                }
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
