//! Where an output goes, and that it is none of the inputs.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::Input;
use super::error::{OutputError, io_error};
use super::identity::{Identity, link_target};

/// Where an output goes, by what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `-`, `/dev/stdout` and its other names.
    Stdout,
    /// A device, a fifo or a file descriptor: bytes go there directly.
    Stream(PathBuf),
    /// A file, or nothing yet; links have been followed.
    File(PathBuf),
}

impl Destination {
    /// Errors on a folder, and where the name cannot be looked at.
    pub fn of(path: &Path) -> Result<Self, OutputError> {
        let is_one_of = |names: &[&str]| names.iter().any(|name| path == Path::new(name));
        if is_one_of(&["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]) {
            return Ok(Destination::Stdout);
        }
        if ["/dev/fd", "/proc/self/fd"]
            .iter()
            .any(|folder| path.starts_with(folder))
            || is_one_of(&["/dev/stderr"])
        {
            return Ok(Destination::Stream(path.to_owned()));
        }
        let folder = || OutputError::Folder {
            path: path.display().to_string(),
        };
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Err(folder()),
            // Not there, and no name for a file.
            Err(_) if path.as_os_str().as_encoded_bytes().ends_with(b"/") => Err(folder()),
            Ok(metadata) if !metadata.is_file() => Ok(Destination::Stream(path.to_owned())),
            Ok(_) => path
                .canonicalize()
                .map(Destination::File)
                .map_err(|source| io_error(path, "cannot be looked at", source)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Destination::File(link_target(path))),
            Err(error) => Err(io_error(path, "cannot be looked at", error)),
        }
    }
}

/// Errors if `path` is a file or a fifo that is one of `inputs`, by whatever name, `/dev/fd/3` included.
pub fn refuse_inputs(path: &Path, inputs: &[Input]) -> Result<(), OutputError> {
    let looked_at = |source| io_error(path, "cannot be looked at", source);
    match Identity::of_path(path).map_err(looked_at)? {
        // What is read of a terminal is not what was written to it; that of a fifo is.
        Some(own) if path.is_file() || is_fifo(path) => refuse_input(&own, path, inputs),
        _ => Ok(()),
    }
}

/// Whether `path` leads to a pipe.
fn is_fifo(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Errors if stdout has been redirected into one of `inputs`: the run would read its own answers.
pub fn refuse_stdout(inputs: &[Input]) -> Result<(), OutputError> {
    match Identity::of_stdout() {
        Some(own) => refuse_input(&own, Path::new("<stdout>"), inputs),
        None => Ok(()),
    }
}

fn refuse_input(own: &Identity, path: &Path, inputs: &[Input]) -> Result<(), OutputError> {
    for input in inputs {
        let other = match input {
            Input::Stdin => Identity::of_stdin(),
            // What cannot be looked at is said when it is opened.
            Input::File(path) => Identity::of_path(path).ok().flatten(),
            Input::Reader(..) => None,
        };
        if other.as_ref() == Some(own) {
            return Err(OutputError::IsInput {
                path: path.display().to_string(),
                input: input.name(),
            });
        }
    }
    Ok(())
}
