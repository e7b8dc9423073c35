//! Names of files, taken apart and put together.

use std::path::{Path, PathBuf};

/// The folder that `path` is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// `path` with `suffix` after its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// What stands in for the output at `target` until it is complete.
pub(super) fn partial_of(target: &Path) -> PathBuf {
    with_suffix(target, ".partial")
}

/// What a run that stopped is gone on with from, beside its `OUT.partial`.
pub(super) fn state_of(target: &Path) -> PathBuf {
    with_suffix(target, ".progress")
}

/// All names that are written under until the output at `target` is complete.
pub fn stand_ins(target: &Path) -> [PathBuf; 3] {
    let state = state_of(target);
    [partial_of(target), with_suffix(&state, ".tmp"), state]
}
