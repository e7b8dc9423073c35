//! Which documents folders and files of brat's stand for.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::with_suffix;

/// A text with its annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BratFiles {
    /// The document's identifier: the name without its ending, below the folder that was given.
    pub id: String,
    pub text: PathBuf,
    pub annotations: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("{}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: expected a folder, or a file named .ann or .txt", .0.display())]
    Name(PathBuf),
    #[error("{}: expected .ann or .txt files in the folder, found none", .0.display())]
    Empty(PathBuf),
}

/// The documents that names of folders (with all that is below them), .ann and .txt files stand for, each once, in the
/// order given and by name within a folder.
pub fn find(paths: &[PathBuf]) -> Result<Vec<BratFiles>, FindError> {
    let mut found = Vec::new();
    let mut known = HashSet::new();
    for path in paths {
        let read_error = |source| FindError::Read {
            path: path.clone(),
            source,
        };
        let is_folder = fs::metadata(path).map_err(read_error)?.is_dir();
        let (base, mut files) = match is_folder {
            true => (path.as_path(), walk(path)?),
            false if is_named(path) => (path.parent().unwrap_or(Path::new("")), vec![path.clone()]),
            false => return Err(FindError::Name(path.clone())),
        };
        if files.is_empty() {
            return Err(FindError::Empty(path.clone()));
        }
        files.sort();
        for file in files {
            let stem = file.with_extension("");
            if !known.insert(stem.clone()) {
                continue;
            }
            let id = stem.strip_prefix(base).unwrap_or(&stem);
            let parts: Vec<_> = id.components().map(|part| part.as_os_str().to_string_lossy()).collect();
            found.push(BratFiles {
                id: parts.join("/"),
                text: with_suffix(&stem, ".txt"),
                annotations: with_suffix(&stem, ".ann"),
            });
        }
    }
    Ok(found)
}

/// Whether a file of this name is one of a document's two.
pub fn is_named(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending == "ann" || ending == "txt")
}

/// The files in a folder and all below it, but hidden ones, which brat does not show either: another program's copies
/// (`.ipynb_checkpoints`, `._x.txt`) would be documents of their own. Links are followed, each folder is gone through once:
/// by the first of its names, those without links first.
fn walk(folder: &Path) -> Result<Vec<PathBuf>, FindError> {
    let mut files = Vec::new();
    let mut known = HashSet::new();
    let mut folders = VecDeque::from([folder.to_owned()]);
    let mut links = Vec::new();
    while let Some(folder) = folders.pop_front() {
        let error = |source| FindError::Read {
            path: folder.clone(),
            source,
        };
        if known.insert(folder.canonicalize().map_err(error)?) {
            for entry in fs::read_dir(&folder).map_err(error)? {
                let entry = entry.map_err(error)?;
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                let path = entry.path();
                let is_link = entry.file_type().map_err(error)?.is_symlink();
                // A link that leads nowhere may still be named like a document, which will be missing.
                if fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                    match is_link {
                        true => links.push(path),
                        false => folders.push_back(path),
                    }
                } else if is_named(&path) {
                    files.push(path);
                }
            }
        }
        if folders.is_empty() {
            links.sort_unstable_by(|a, b| b.cmp(a));
            folders.extend(links.pop());
        }
    }
    Ok(files)
}
