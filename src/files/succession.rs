//! One file in another's place: whether it can be put there, and that whoever could read the old one, and nobody else, can
//! read the new.

use std::fs;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use super::names::folder_of;

/// Why the file at `path` would stay whatever is renamed to its name; none where nothing is known to be in the way, or
/// where there is no file. `own`: a file that this process has made.
pub fn obstacle(path: &Path, own: &File) -> Option<&'static str> {
    let metadata = path.symlink_metadata().ok()?;
    if is_mount_point(path) {
        return Some("it is mounted there by itself (as a container's volume of one file is)");
    }
    const STICKY: u32 = 0o1000;
    let user = own.metadata().ok()?.uid();
    let folder = fs::metadata(folder_of(path)).ok()?;
    if folder.mode() & STICKY != 0 && user != 0 && ![metadata.uid(), folder.uid()].contains(&user) {
        return Some("it is another user's, in a folder where only its owner may rename it");
    }
    // Opening changes nothing. A file that may not be written to may be replaced; only of one that is immutable, or can
    // only grow, this is the error.
    let opened = File::options().write(true).open(path);
    if metadata.is_file() && opened.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)) {
        return Some("it is immutable (chattr)");
    }
    None
}

/// More than any report takes.
const LARGEST_REPORT: u64 = 64 << 20;

/// Whether nothing is lost with what lies at `path`: nothing does, or a file that is empty, or is what `is_own` says of its beginning.
pub fn may_replace(path: &Path, is_own: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    // Looked at before it is opened, since opening a pipe waits for whoever writes to it.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    }
    let mut beginning = Vec::new();
    File::open(path)?.take(LARGEST_REPORT).read_to_end(&mut beginning)?;
    Ok(beginning.is_empty() || is_own(&beginning))
}

/// Whether a file system begins at `path`, or a file or folder of one has been mounted there.
pub(super) fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    let Some(own) = device(path) else { return false };
    if device(folder_of(path)) != Some(own) {
        return true;
    }
    // Parts of one file system may be mounted in another place of it. Where nobody tells, the rename will.
    let (Ok(mounts), Ok(path)) = (fs::read("/proc/self/mountinfo"), path.canonicalize()) else {
        return false;
    };
    let mut places = mounts
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    places.any(|place| unescaped(place) == path.as_os_str().as_bytes())
}

/// A name as the kernel lists it, where blanks and backslashes are three octal digits.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\');
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    bytes
}

/// Lets those who may read the file or folder at `old` read the one at `new`, and nobody else: its group, its permissions and
/// its list of access rights. What this process may not hand on, or the file system does not know of, is left out: then nobody
/// but the owner and everybody may, as before.
pub(super) fn take_over_permissions(old: &Path, new: &Path) {
    let Ok(metadata) = fs::metadata(old) else { return };
    const GROUP: u32 = 0o070;
    let group = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.gid());
    let has_group = group(new) == Some(metadata.gid()) || chown(new, None, Some(metadata.gid())).is_ok();
    // With a list, the group's bits are the most that anybody on it may.
    let permissions = match has_group && access_list::hand_on(old, new) {
        true => metadata.permissions(),
        false => fs::Permissions::from_mode(metadata.mode() & !GROUP),
    };
    let _ = fs::set_permissions(new, permissions);
}

/// Gives the files in the folder at `new` the group of the one at `old`, as they would have it had they been made in that one:
/// where a folder hands its group down.
pub(super) fn hand_group_down(old: &Path, new: &Path) {
    const SET_GROUP: u32 = 0o2000;
    let Some(metadata) = fs::metadata(old)
        .ok()
        .filter(|metadata| metadata.mode() & SET_GROUP != 0)
    else {
        return;
    };
    for entry in fs::read_dir(new).into_iter().flatten().flatten() {
        // Not everybody may; then the group is that of whoever runs this.
        let _ = chown(entry.path(), None, Some(metadata.gid()));
    }
}

#[cfg(target_os = "linux")]
mod access_list {
    use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
    use rustix::io::Errno;

    use super::Path;

    const NAME: &str = "system.posix_acl_access";
    /// The kernel's limit of an attribute.
    const MOST_BYTES: usize = 64 * 1024;

    /// False if there is one that could not be given to `new`, or none and that of `new` (of its folder's making) could not be
    /// taken away.
    pub fn hand_on(old: &Path, new: &Path) -> bool {
        let is_none = |error| matches!(error, Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS);
        let mut list = vec![0u8; MOST_BYTES];
        match getxattr(old, NAME, &mut list[..]) {
            Ok(length) => setxattr(new, NAME, &list[..length], XattrFlags::empty()).is_ok(),
            Err(error) if is_none(error) => removexattr(new, NAME).err().is_none_or(is_none),
            Err(_) => false,
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod access_list {
    use super::Path;

    pub fn hand_on(_: &Path, _: &Path) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_mounts_are_read_as_the_kernel_writes_them() {
        for (listed, name) in [
            (r"/a\040b", "/a b"),
            (r"/a\134040b", r"/a\040b"),
            (r"/\011\012x", "/\t\nx"),
            (r"/a\04", r"/a\04"),
            (r"/a\999", r"/a\999"),
        ] {
            assert_eq!(unescaped(listed.as_bytes()), name.as_bytes(), "{listed}");
        }
        assert!(is_mount_point(Path::new("/proc")) || !Path::new("/proc/self").exists());
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_mount_point(folder.path()));
        let file = folder.path().join("file");
        let own = File::create(&file).unwrap();
        assert_eq!(obstacle(&file, &own), None);
        assert_eq!(obstacle(&folder.path().join("none"), &own), None);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(obstacle(&file, &own), None, "it may be replaced, though not written to");
    }
}
