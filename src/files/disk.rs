//! What is done to a disk when an output is written, one operation each, so that each can be made to fail.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::names::{folder_of, with_suffix};
use super::succession::take_over_permissions;

/// The operations that an output has to survive the failure of. As they stand they do what they say;
/// tests put failures in between.
pub trait Disk: Send + Sync {
    /// Opens for reading and for writing at the end; makes an empty file where there is none, readable for nobody who may
    /// not read a file with the permissions `like`.
    fn open(&self, path: &Path, like: Option<&Permissions>) -> io::Result<File> {
        with_permissions(like).read(true).append(true).create(true).open(path)
    }

    /// Makes an empty file, also where there was another; one that was not there as [`Self::open`] does.
    fn create(&self, path: &Path, like: Option<&Permissions>) -> io::Result<File> {
        with_permissions(like)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
    }

    /// Writes some of `bytes` and says how many.
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    /// Returns when the file's contents would survive a loss of power.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// As [`Self::rename`], but what is at `to` stays, and is an error of the kind `AlreadyExists`.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        if rename_with(from, to, RenameFlags::NOREPLACE)? {
            return Ok(());
        }
        // The system cannot do it at once; this leaves a moment in between.
        match to.symlink_metadata() {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        }
    }

    /// Lets two files or folders change places at once. False, and nothing done, where the system cannot.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<bool> {
        rename_with(one, other, RenameFlags::EXCHANGE)
    }

    /// Returns when the names in the folder would survive a loss of power, as far as this process may ask for that and the file
    /// system knows of it.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        match File::open(folder) {
            // A folder that may be written to and not read, as one for others' letters.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(error),
            Ok(folder) => match folder.sync_all() {
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EINVAL | libc::EBADF | libc::EOPNOTSUPP)
                    ) =>
                {
                    Ok(())
                }
                synced => synced,
            },
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// Options to open a file with, made with the permissions `like` as far as the umask allows. Its owner can always go on
/// with it, also where the file it is like is for reading alone.
fn with_permissions(like: Option<&Permissions>) -> OpenOptions {
    let mut options = OpenOptions::new();
    if let Some(like) = like {
        // Its group may be another.
        options.mode(like.mode() & 0o707 | 0o600);
    }
    options
}

/// Renames in a way that has no name in the standard library. False, and nothing done, where the system cannot.
fn rename_with(one: &Path, other: &Path, flags: RenameFlags) -> io::Result<bool> {
    match renameat_with(CWD, one, CWD, other, flags) {
        Ok(()) => Ok(true),
        // An old kernel, or a file system that has no such thing.
        // (Two of these are one on Linux and two on macOS.)
        Err(error) if [Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP, Errno::NOTSUP].contains(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The disk as it is.
pub struct RealDisk;

impl Disk for RealDisk {}

/// Interrupted operations are tried again this often; a signal comes once, not a thousand times.
const RETRIES: usize = 1000;

/// Does `operation` again if a signal interrupted it.
pub(super) fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..RETRIES {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
    operation()
}

/// Writes all of `bytes`, in as many portions as it takes.
pub(super) fn write_all(disk: &dyn Disk, file: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match uninterrupted(|| disk.write(file, bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => bytes = bytes.get(count..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// Writes the file `beside` another that [`put_in_place`] will make that one; its contents are on the disk then.
///
/// Its name is always the same, so that what a killed run leaves is the next one's to write over. For files whose owner
/// holds the output's lock, and refuses inputs of that name; for others there is [`Replacement`](super::Replacement).
pub(super) fn write_beside(
    disk: &dyn Disk,
    beside: &Path,
    contents: &[u8],
    like: Option<&Permissions>,
) -> io::Result<()> {
    let file = uninterrupted(|| disk.create(beside, like))?;
    let written = write_all(disk, &file, contents).and_then(|()| uninterrupted(|| disk.sync(&file)));
    if written.is_err() {
        // A full disk should at least not stay fuller than it was.
        let _ = disk.remove(beside);
    }
    written
}

/// Makes what [`write_beside`] wrote the file at `path`, at once and whole.
pub(super) fn put_in_place(disk: &dyn Disk, beside: &Path, path: &Path) -> io::Result<()> {
    uninterrupted(|| disk.rename(beside, path))
}

/// Replaces the file at `path`: whoever looks, also after a loss of power, finds the old contents or the new. Who may
/// read it stays as it was.
pub fn replace(disk: &dyn Disk, path: &Path, contents: &[u8]) -> io::Result<()> {
    replace_like(disk, path, contents, None)
}

/// As [`replace`]; where there is no file yet it is made readable for nobody who may not read one with the permissions
/// `like`.
pub(super) fn replace_like(
    disk: &dyn Disk,
    path: &Path,
    contents: &[u8],
    like: Option<&Permissions>,
) -> io::Result<()> {
    let beside = with_suffix(path, ".tmp");
    write_beside(disk, &beside, contents, like)?;
    take_place(disk, &beside, path)
}

/// Puts a file in the place, and under the permissions, of the one at `path`, where there is one.
pub(super) fn take_place(disk: &dyn Disk, beside: &Path, path: &Path) -> io::Result<()> {
    take_over_permissions(path, beside);
    put_in_place(disk, beside, path)?;
    uninterrupted(|| disk.sync_folder(folder_of(path)))
}
