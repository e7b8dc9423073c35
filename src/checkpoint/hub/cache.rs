//! The folder that holds one repository's downloads, laid out as the hub's Python client does:
//!
//! ```text
//! models--owner--name/refs/main                    a commit
//! models--owner--name/snapshots/<commit>/<file>    a link to ../../blobs/<etag>
//! models--owner--name/blobs/<etag>                 the bytes; <etag>.incomplete while they arrive
//! models--owner--name/.no_exist/<commit>/<file>    empty: the commit is known to lack this file
//! .locks/models--owner--name/<etag>.lock           held while one process downloads the blob
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;
use crate::checkpoint::folder::{self, BESIDE, WEIGHTS};

pub(super) struct RepoCache {
    caches: PathBuf,
    folder: String,
}

impl RepoCache {
    pub(super) fn new(caches: PathBuf, id: &str) -> Self {
        let folder = format!("models--{}", id.replace('/', "--"));
        Self { caches, folder }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.caches.join(&self.folder)
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root().join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, name: &str) -> PathBuf {
        self.root().join("blobs").join(name)
    }

    /// The weights in the snapshot, if all of their files are there.
    pub(super) fn weights(&self, commit: &str) -> Option<&'static str> {
        let folder = self.snapshot(commit);
        // Weights of another kind are no substitute for those that a link leads to no longer.
        let is_broken = |name: &&str| {
            let path = folder.join(name);
            path.symlink_metadata().is_ok() && !path.exists()
        };
        WEIGHTS.into_iter().take_while(|name| !is_broken(name)).find(|name| {
            let path = folder.join(name);
            let shards = || folder::shard_names(&path).unwrap_or_default();
            path.exists()
                && (!folder::is_index(name) || {
                    let shards = shards();
                    !shards.is_empty() && shards.iter().all(|shard| folder.join(shard).exists())
                })
        })
    }

    /// Whether nothing of the commit is missing: weights, and each other file present or known to be absent.
    pub(super) fn is_complete(&self, commit: &str) -> bool {
        let (present, absent) = (self.snapshot(commit), self.absent(commit));
        self.weights(commit).is_some()
            && BESIDE
                .iter()
                .all(|n| present.join(n).exists() || absent.join(n).exists())
    }

    fn absent(&self, commit: &str) -> PathBuf {
        self.root().join(".no_exist").join(commit)
    }

    /// The small files of the commit that are neither there nor known to be absent.
    pub(super) fn unknown(&self, commit: &str) -> Vec<&'static str> {
        let (present, absent) = (self.snapshot(commit), self.absent(commit));
        let is_there = |name: &str| present.join(name).symlink_metadata().is_ok();
        let is_unknown = |name: &&str| !is_there(name) && !absent.join(name).exists();
        // Where there is a tokenizer.json, vocab.txt is not read.
        let is_read = |name: &&str| *name != "vocab.txt" || !is_there("tokenizer.json");
        BESIDE.into_iter().filter(is_read).filter(is_unknown).collect()
    }

    /// Remembers which files the commit lacks, as far as the cache can be written to: one that others share may be for reading
    /// alone, and all that is lost is a request next time.
    pub(super) fn note_absent(&self, commit: &str, names: &[&str]) {
        let folder = self.absent(commit);
        let new = names.iter().map(|name| folder.join(name)).filter(|path| !path.exists());
        for path in new {
            let _ = fs::create_dir_all(&folder).and_then(|()| File::create(path));
        }
    }

    /// The file that says which commit a branch or tag was last seen at.
    pub(super) fn ref_path(&self, revision: &str) -> PathBuf {
        self.root().join("refs").join(revision)
    }

    /// The commit that a branch or tag was last seen at.
    pub(super) fn read_ref(&self, revision: &str) -> Option<String> {
        let commit = fs::read_to_string(self.ref_path(revision)).ok()?;
        let commit = commit.trim();
        is_plain_commit(commit).then(|| commit.to_string())
    }

    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), CheckpointError> {
        if self.read_ref(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.ref_path(revision);
        create_folder(path.parent().unwrap_or(&self.caches))?;
        replace(&path, |beside| fs::write(beside, commit))
    }

    /// Makes `name` in the snapshot of `commit` show the blob.
    pub(super) fn link(&self, blob: &str, commit: &str, name: &str) -> Result<(), CheckpointError> {
        let folder = self.snapshot(commit);
        create_folder(&folder)?;
        let target = self.blob(blob);
        replace(&folder.join(name), |beside| {
            // Relative, so that the cache can be moved. Where links cannot be made, a copy serves.
            let relative = Path::new("../../blobs").join(blob);
            symlink(relative, beside)
                .or_else(|_| fs::hard_link(&target, beside))
                .or_else(|_| {
                    fs::copy(&target, beside)?;
                    Ok(())
                })
        })
    }

    /// Makes the folder that blobs lie and grow in.
    pub(super) fn create_blobs(&self) -> Result<(), CheckpointError> {
        create_folder(&self.root().join("blobs"))
    }

    /// Keeps other processes, Python's client included, from downloading the same blob; waits while one does.
    pub(super) fn lock(&self, blob: &str, on_wait: impl FnOnce()) -> Result<Lock, CheckpointError> {
        let folder = self.caches.join(".locks").join(&self.folder);
        create_folder(&folder)?;
        let path = folder.join(format!("{blob}.lock"));
        let failed = |error| CheckpointError::io(&path, "locking in the cache failed", error);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let exclusive = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                on_wait();
                file.lock().is_ok()
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(_)) => false,
        };
        Ok(Lock { _file: file, exclusive })
    }
}

/// Held until dropped.
pub(super) struct Lock {
    _file: File,
    /// Whether the file system really locks.
    pub exclusive: bool,
}

/// A commit that is safe as a folder's name; mirrors may use other forms than git's 40 digits.
pub(super) fn is_plain_commit(commit: &str) -> bool {
    (1..=64).contains(&commit.len()) && commit.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn create_folder(path: &Path) -> Result<(), CheckpointError> {
    fs::create_dir_all(path).map_err(|error| CheckpointError::io(path, "creating the cache folder failed", error))
}

/// Makes a file beside `path` and renames it over `path`, so that nobody sees it half made.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), CheckpointError> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!(
        "{}-{}.partial",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let beside = path.with_added_extension(unique);
    let done = make(&beside).and_then(|()| fs::rename(&beside, path));
    done.map_err(|error| {
        let _ = fs::remove_file(&beside);
        CheckpointError::io(path, "writing to the cache failed", error)
    })
}
