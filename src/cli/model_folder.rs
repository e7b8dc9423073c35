//! The folder that a model is written to, by `crag convert` and by `crag train`: what may lie in it, and be replaced.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::Context as _;

use super::UsageError;
use crate::files::{Claim, OutputFolder};

/// All that a model's folder holds: what is written here, and the other forms of weights. Split weights have names of
/// their own.
const NAMES: [&str; 15] = [
    "added_tokens.json",
    "config.json",
    "crag.json",
    "curve.svg",
    "log.jsonl",
    "manifest.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
];

/// Locks the output at `out`. `reads`: what the run reads, with the flag that names it.
///
/// # Errors
/// As [`OutputFolder::claim`]; something that is read lies in the folder, or something that is no part of a model and
/// would be gone when the folder is replaced.
pub fn claim(out: &Path, claim: Claim, reads: &[(&str, &Path)]) -> anyhow::Result<OutputFolder> {
    let output = OutputFolder::claim(out, claim)?;
    // A finished output that is only looked at again is not replaced.
    let is_kept = claim.resume && !claim.force && !output.is_begun();
    if !output.exists() || is_kept {
        return Ok(output);
    }
    let target = output.target();
    for (flag, path) in reads {
        if path.canonicalize().is_ok_and(|path| path.starts_with(target)) {
            let message = format!(
                "{}: holds what {flag} reads ({}), and replacing it would delete that; name another folder",
                out.display(),
                path.display()
            );
            return Err(UsageError(message).into());
        }
    }
    for entry in target.read_dir().with_context(|| target.display().to_string())? {
        let entry = entry.with_context(|| target.display().to_string())?;
        if !is_of_a_model(&entry.file_name()) || entry.path().is_dir() {
            let message = format!(
                "{}: holds {}, which is no part of a model and would be deleted; name another folder, or move it away",
                out.display(),
                entry.file_name().display()
            );
            return Err(UsageError(message).into());
        }
    }
    Ok(output)
}

fn is_of_a_model(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_shard = [("model-", ".safetensors"), ("pytorch_model-", ".bin")]
        .iter()
        .any(|(start, end)| name.starts_with(start) && name.ends_with(end) && name.contains("-of-"));
    // Of a calibration that was killed.
    let of_calibration = name
        .strip_prefix("crag.json.")
        .and_then(|rest| rest.strip_suffix(".tmp"))
        .is_some_and(is_of_a_process);
    NAMES.contains(&name) || is_shard || of_calibration
}

/// Whether this is how names are told apart that processes give to files not yet complete: `4711-0`.
fn is_of_a_process(part: &str) -> bool {
    let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    part.split_once('-')
        .is_some_and(|(process, attempt)| number(process) && number(attempt))
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
            assert!(is_of_a_model(OsStr::new(name)), "{name}");
        }
        for name in ["pairs.jsonl", ".git", "README.md", "model-old.safetensors", ""] {
            assert!(!is_of_a_model(OsStr::new(name)), "{name}");
        }
    }
}
