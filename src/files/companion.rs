//! Files that appear together with an output, or not at all.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, put_in_place, uninterrupted};
use super::identity::real_name;
use super::names::with_suffix;
use super::succession::{may_replace, take_over_permissions};

/// A file that appears together with the output, such as one that says how it came about.
pub struct Companion {
    pub path: PathBuf,
    pub contents: Vec<u8>,
    /// Whether what is there already, by its contents, is an earlier one, which goes.
    pub replaces: fn(&[u8]) -> bool,
}

impl Companion {
    /// Where the companion at `path` of the output at `target` lies until both are put in place: no run of another output
    /// writes there, though it may have a companion of the same name.
    pub fn beside(path: &Path, target: &Path) -> PathBuf {
        let target = blake3::hash(real_name(target).as_os_str().as_encoded_bytes()).to_hex();
        with_suffix(path, &format!(".{}.tmp", &target[..12]))
    }

    /// Whether something lies in its place that it does not replace.
    pub(super) fn is_blocked(&self) -> bool {
        !may_replace(&self.path, self.replaces).unwrap_or(false)
    }

    /// Whether there can be a file of that name: it is longer than any other of the output's.
    pub fn try_beside(path: &Path, target: &Path) -> io::Result<()> {
        let beside = Self::beside(path, target);
        match File::create_new(&beside) {
            // Of a killed run.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|_| std::fs::remove_file(beside)),
        }
    }
}

/// A companion in its place, until the output is in its own.
pub(super) struct Placed<'p> {
    path: &'p Path,
    /// Where the one is that was there before; none where there was none, or where it is gone.
    old: Option<PathBuf>,
    /// Nothing was there before.
    is_new: bool,
}

impl<'p> Placed<'p> {
    /// Puts what is at `beside` there.
    pub fn put(disk: &dyn Disk, beside: PathBuf, path: &'p Path) -> io::Result<Self> {
        let is_new = path.symlink_metadata().is_err();
        if !is_new {
            take_over_permissions(path, &beside);
            if uninterrupted(|| disk.exchange(&beside, path))? {
                let old = Some(beside);
                return Ok(Self { path, old, is_new });
            }
        }
        put_in_place(disk, &beside, path)?;
        Ok(Self {
            path,
            old: None,
            is_new,
        })
    }

    /// Puts the one that was there before back, as far as that can be.
    pub fn take_back(self, disk: &dyn Disk) {
        match self.old {
            Some(old) => {
                let _ = put_in_place(disk, &old, self.path);
            }
            None if self.is_new => {
                let _ = disk.remove(self.path);
            }
            None => {}
        }
    }

    pub fn settle(self, disk: &dyn Disk) {
        if let Some(old) = self.old {
            let _ = disk.remove(&old);
        }
    }
}
