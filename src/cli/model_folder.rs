//! The folder that a model is written to, by `crag convert` and by `crag train`: what may lie in it, and be replaced.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::UsageError;
use crate::checkpoint::{is_of_a_model, is_weights};
use crate::files::{Claim, OutputFolder, REPLACED, replaced_by};
use crate::training::state::WorkFolder;

/// What `crag train` puts beside a model, and a vocabulary that is not read.
const NAMES: [&str; 4] = ["curve.svg", "log.jsonl", "manifest.json", "vocab.json"];

/// Where in `OUT.partial` `crag convert` puts its folder together.
pub const CONVERTED: &str = "converted";

/// Where in `OUT.partial` `crag train` puts its folder together.
pub const TRAINED: &str = "done";

/// Locks the output at `out`. `reads`: what the run reads, with the flag that names it.
///
/// # Errors
/// As [`OutputFolder::claim`]; something that is read lies in the folder or in `OUT.partial`, or something that is no
/// part of a model or of an unfinished run and would be gone when the folder is replaced.
pub fn claim(out: &Path, claim: Claim, reads: &[(&str, &Path)]) -> anyhow::Result<OutputFolder> {
    let output = OutputFolder::claim(out, claim)?;
    // What was left there is gone when the new output is in its place, if not before.
    refuse_inputs(output.partial(), reads)?;
    refuse_foreign_work(&output)?;
    // A finished output that is only looked at again is not replaced.
    let is_kept = claim.resume && !claim.force && !output.is_begun();
    if output.exists() && !is_kept {
        refuse_inputs(output.target(), reads)?;
        refuse_foreign_folder(output.target())?;
    }
    Ok(output)
}

/// Errors if something that is read lies in the folder.
fn refuse_inputs(folder: &Path, reads: &[(&str, &Path)]) -> Result<(), UsageError> {
    let Ok(real) = folder.canonicalize() else {
        return Ok(());
    };
    let is_below = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&real));
    match reads.iter().find(|(_, path)| is_below(path)) {
        None => Ok(()),
        Some((flag, path)) => Err(UsageError(format!(
            "{}: holds what {flag} reads ({}), and replacing it would delete that; name another folder",
            folder.display(),
            path.display()
        ))),
    }
}

/// Errors if there is anything in `OUT.partial` that neither command leaves there.
fn refuse_foreign_work(output: &OutputFolder) -> anyhow::Result<()> {
    for path in output.left()? {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let foreign = match is_folder {
            true if [CONVERTED, TRAINED, REPLACED].contains(&name) => foreign_in(&path, |name| is_own(finished(name)))?,
            false if WorkFolder::is_own(finished(name)) => None,
            _ => Some(path),
        };
        if let Some(foreign) = foreign {
            let message = format!(
                "{}: holds {}, which no run leaves there and which would be deleted; name another folder, or move it away",
                output.partial().display(),
                foreign.strip_prefix(output.partial()).unwrap_or(&foreign).display()
            );
            return Err(UsageError(message).into());
        }
    }
    Ok(())
}

/// Errors unless the folder is a model's and holds nothing else.
fn refuse_foreign_folder(folder: &Path) -> anyhow::Result<()> {
    if let Some(foreign) = foreign_in(folder, is_own)? {
        let message = format!(
            "{}: holds {}, which is no part of a model and would be deleted; name another folder, or move it away",
            folder.display(),
            foreign.file_name().unwrap_or_default().display()
        );
        return Err(UsageError(message).into());
    }
    let names = folder.read_dir().with_context(|| folder.display().to_string())?;
    // Names such as log.jsonl and vocab.json are others' too.
    let holds_weights = names
        .flatten()
        .any(|entry| entry.file_name().to_str().is_some_and(is_weights));
    if !holds_weights {
        let message = format!(
            "{}: holds no weights (model.safetensors, pytorch_model.bin), so it is no model's folder, and it would be deleted; \
             name another folder, or move it away",
            folder.display()
        );
        return Err(UsageError(message).into());
    }
    Ok(())
}

/// Something in the folder that is no file of a name that `is_own`.
fn foreign_in(folder: &Path, is_own: impl Fn(&str) -> bool) -> anyhow::Result<Option<PathBuf>> {
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let entry = entry.with_context(|| folder.display().to_string())?;
        if !entry.file_name().to_str().is_some_and(&is_own) || entry.path().is_dir() {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// What a file of this name would have become: one that a kill left half-written has a name of its own.
fn finished(name: &str) -> &str {
    replaced_by(name).or_else(|| name.strip_suffix(".tmp")).unwrap_or(name)
}

/// Whether a folder that holds a file of this name can be a model's.
fn is_own(name: &str) -> bool {
    // The last is what a calibration that was killed left.
    is_of_a_model(name) || NAMES.contains(&name) || replaced_by(name) == Some("crag.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_part_of_a_model_is_not_replaced() {
        for name in [
            "model.safetensors",
            "crag.json",
            "crag.json.4711-0.tmp",
            "model-00001-of-00002.safetensors",
        ] {
            assert!(is_own(name), "{name}");
        }
        for name in [
            "pairs.jsonl",
            ".git",
            "README.md",
            "model-old.safetensors",
            "crag.json.tmp",
            "",
        ] {
            assert!(!is_own(name), "{name}");
        }
    }

    #[test]
    fn a_file_that_a_kill_left_half_written_is_told_by_what_it_would_have_become() {
        for (name, expected) in [
            ("state-99.safetensors.1-0.tmp", "state-99.safetensors"),
            ("state.json.tmp", "state.json"),
            ("log.jsonl", "log.jsonl"),
            (".thesis.partial", ".thesis.partial"),
            ("state-1.safetensors.a-0.tmp", "state-1.safetensors.a-0"),
        ] {
            assert_eq!(finished(name), expected);
        }
    }
}
