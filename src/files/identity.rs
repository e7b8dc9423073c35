//! Whether two names mean one file.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::names::folder_of;

/// A file itself, whatever its names: device and inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of the file that `path` leads to, through links; none where there is no file.
    pub fn of_path(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::of_metadata(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Of an open file.
    pub fn of_file(file: &File) -> io::Result<Self> {
        Ok(Self::of_metadata(&file.metadata()?))
    }

    fn of_metadata(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Of the file that stdin was redirected from; none where it is a pipe, a terminal or closed.
    pub fn of_stdin() -> Option<Self> {
        Self::of_stream(&io::stdin())
    }

    /// Of the file that stdout was redirected into; none where it is a pipe, a terminal or closed.
    pub fn of_stdout() -> Option<Self> {
        Self::of_stream(&io::stdout())
    }

    fn of_stream(stream: &impl AsFd) -> Option<Self> {
        let file = File::from(stream.as_fd().try_clone_to_owned().ok()?);
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        Some(Self::of_metadata(&metadata))
    }
}

/// Whether `file` is the one that `path` names.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    Ok(Identity::of_path(path)? == Some(Identity::of_file(file)?))
}

/// Whether two names lead to one place, where a file need not be yet. Hard links are two places.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    one == other || real_name(one) == real_name(other)
}

/// The name of the file that `path` leads to, or would, through links.
pub(super) fn real_name(path: &Path) -> PathBuf {
    let in_folder = || {
        let target = link_target(path);
        Some(folder_of(&target).canonicalize().ok()?.join(target.file_name()?))
    };
    let real = path.canonicalize().ok().or_else(in_folder);
    real.unwrap_or_else(|| path.to_owned())
}

/// Where a link that leads to no file points; the path itself if it is no link.
pub(super) fn link_target(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    // As many as the kernel follows; a circle has been an error before.
    for _ in 0..40 {
        match std::fs::read_link(&target) {
            Ok(next) => target = folder_of(&target).join(next),
            Err(_) => break,
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_itself_under_all_its_names_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        std::fs::write(path("a"), "x").unwrap();
        std::fs::write(path("b"), "x").unwrap();
        std::fs::hard_link(path("a"), path("hard")).unwrap();
        std::os::unix::fs::symlink("a", path("soft")).unwrap();
        let of = |name| Identity::of_path(&path(name)).unwrap();
        assert_eq!(of("a"), of("hard"));
        assert_eq!(of("a"), of("soft"));
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("c"), None);
        let file = File::open(path("soft")).unwrap();
        assert_eq!(of("a"), Some(Identity::of_file(&file).unwrap()));
    }

    #[test]
    fn a_name_leads_to_the_same_file_before_it_is_there_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        std::fs::create_dir(path("folder")).unwrap();
        std::os::unix::fs::symlink("folder", path("way")).unwrap();
        std::os::unix::fs::symlink("folder/file", path("link")).unwrap();
        for is_there in [false, true] {
            if is_there {
                std::fs::write(path("folder/file"), "x").unwrap();
            }
            for name in ["folder/file", "folder/../way/file", "link"] {
                assert!(is_same_file(&path(name), &path("way/file")), "{name}, {is_there}");
            }
            for name in ["folder/other", "folder", "file", "missing/file"] {
                assert!(!is_same_file(&path(name), &path("way/file")), "{name}, {is_there}");
            }
        }
    }
}
