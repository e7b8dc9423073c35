//! A model in a folder: which weights are preferred, what lies beside them, and split weights' index files.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::contents::{Contents, stand_in};
use super::mapped::NO_FILE;
use super::{CheckpointError, ModelFiles, NamedBytes, WeightFile};
use crate::files::{BYTE_ORDER_MARK, folder_of};

/// The weights looked for, best first; an index stands for the shards it names.
pub(super) const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The small files that may lie beside the weights.
pub(super) const BESIDE: [&str; 7] = [
    "config.json",
    "crag.json",
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
];

/// Large tokenizers stay below 20 MB; anything above this is not one of the files in [`BESIDE`].
pub(super) const LARGEST_SMALL_FILE: u64 = 256 << 20;

const LEADS_NOWHERE: &str = "the link leads nowhere; copy or download the file again";

pub(super) fn is_index(name: &str) -> bool {
    name.ends_with(".index.json")
}

/// Whether a model's file of this name is read whole, and so limited.
pub(super) fn is_small(name: &str) -> bool {
    is_index(name) || BESIDE.contains(&name)
}

/// Whether a file of this name in a model's folder holds weights: all of them, or a shard.
pub fn is_weights(name: &str) -> bool {
    let mut weights = WEIGHTS.into_iter().filter(|weights| !is_index(weights));
    weights.any(|weights| {
        let is_shard = || {
            let (stem, ending) = weights.rsplit_once('.')?;
            let shard = name.strip_prefix(stem)?.strip_prefix('-')?;
            shard.strip_suffix(ending)?.strip_suffix('.')?.split_once("-of-")
        };
        name == weights || is_shard().is_some()
    })
}

/// Whether a file of this name in a model's folder is part of the model.
pub fn is_of_a_model(name: &str) -> bool {
    is_weights(name) || WEIGHTS.contains(&name) || BESIDE.contains(&name)
}

pub(super) fn locate_folder(folder: &Path) -> Result<ModelFiles, CheckpointError> {
    // A link that leads nowhere is there, and is said to be broken when it is opened.
    let is_there = |name: &&str| folder.join(name).symlink_metadata().is_ok();
    let Some(name) = WEIGHTS.into_iter().find(is_there) else {
        return Err(CheckpointError::NoWeights {
            place: folder.display().to_string(),
            looked_for: WEIGHTS.join(", "),
        });
    };
    assemble(folder, &folder.join(name), folder.display().to_string())
}

pub(super) fn locate_file(weights: &Path) -> Result<ModelFiles, CheckpointError> {
    assemble(folder_of(weights), weights, weights.display().to_string())
}

/// The model whose weights (or index) are at `weights` and whose small files are in `folder`.
pub(super) fn assemble(folder: &Path, weights: &Path, source: String) -> Result<ModelFiles, CheckpointError> {
    let weights = if is_index(&weights.to_string_lossy()) {
        shards_of(weights)?.into_iter().map(WeightFile::Path).collect()
    } else {
        vec![WeightFile::Path(weights.to_path_buf())]
    };
    let beside = |name: &str| read_regular(&folder.join(name));
    Ok(ModelFiles {
        source,
        revision: None,
        weights,
        config: beside("config.json")?,
        sidecar: beside("crag.json")?,
        tokenizer_json: beside("tokenizer.json")?,
        vocab_txt: beside("vocab.txt")?,
        tokenizer_config: beside("tokenizer_config.json")?,
        added_tokens: beside("added_tokens.json")?,
        special_tokens_map: beside("special_tokens_map.json")?,
        warnings: Vec::new(),
    })
}

impl NamedBytes {
    /// The whole of a small file, or of what a pipe gives.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        read_small(path)?.ok_or_else(|| not_found(path))
    }

    /// As [`Self::read`], of a file that need not be there.
    ///
    /// # Errors
    /// As [`Self::read`], and where what is there is no file.
    pub fn read_if_there(path: &Path) -> Result<Option<Self>, CheckpointError> {
        read_regular(path)
    }
}

fn not_found(path: &Path) -> CheckpointError {
    let error = io::Error::new(ErrorKind::NotFound, "no such file");
    CheckpointError::io(path, "reading it failed", error)
}

/// The whole of a small file of a model; `None` where there is none.
fn read_regular(path: &Path) -> Result<Option<NamedBytes>, CheckpointError> {
    // Opening a pipe waits for whoever writes to it. Folders and what cannot be looked at are told when they are read.
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
            Err(CheckpointError::malformed(path.display().to_string(), NO_FILE))
        }
        _ => read_small(path),
    }
}

/// The whole of a small file; `None` where there is none.
fn read_small(path: &Path) -> Result<Option<NamedBytes>, CheckpointError> {
    let name = path.display().to_string();
    let failed = |source| CheckpointError::io(path, "reading it failed", source);
    let file = match File::open(path) {
        Ok(file) => file,
        // A link is there for a file that is meant to be.
        Err(error) if error.kind() == ErrorKind::NotFound && path.symlink_metadata().is_ok() => {
            return Err(failed(io::Error::new(error.kind(), LEADS_NOWHERE)));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_SMALL_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LARGEST_SMALL_FILE {
        return Err(CheckpointError::malformed(
            name,
            format!("larger than {LARGEST_SMALL_FILE} bytes"),
        ));
    }
    // As some editors write it. In a vocabulary it may have become part of a token, which is for its reader to judge.
    if bytes.starts_with(BYTE_ORDER_MARK) && path.file_name().is_none_or(|name| name != "vocab.txt") {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    if let Some(reason) = stand_in(&bytes) {
        return Err(CheckpointError::malformed(name, reason));
    }
    Ok(Some(NamedBytes {
        name,
        bytes: Cow::Owned(bytes),
    }))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The shard names in an index file, in order, each a plain file name.
pub(super) fn shard_names(index: &Path) -> Result<Vec<String>, CheckpointError> {
    Ok(read_index(index)?
        .weight_map
        .into_values()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect())
}

fn read_index(path: &Path) -> Result<Index, CheckpointError> {
    let name = path.display().to_string();
    let bytes = read_regular(path)?.ok_or_else(|| not_found(path))?;
    let index: Index = serde_json::from_slice(&bytes.bytes).map_err(|error| {
        CheckpointError::malformed(
            &name,
            format!("expected an index with a \"weight_map\" from tensors to shards: {error}"),
        )
    })?;
    if index.weight_map.is_empty() {
        return Err(CheckpointError::malformed(
            &name,
            "\"weight_map\" is empty: it names no shard",
        ));
    }
    for shard in index.weight_map.values() {
        let plain = !shard.is_empty()
            && shard.len() <= 255
            && !shard.starts_with('.')
            && !shard.contains(['/', '\\', ':', '\0'])
            && !is_index(shard);
        if !plain {
            return Err(CheckpointError::malformed(
                &name,
                format!(
                    "shard \"{}\" is not a plain file name beside the index",
                    super::error::shorten(shard)
                ),
            ));
        }
    }
    Ok(index)
}

/// The shards that an index names, after checking that each holds the tensors it is said to hold.
fn shards_of(index_path: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let name = index_path.display().to_string();
    let folder = index_path.parent().unwrap_or(Path::new(""));
    let mut by_shard: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in read_index(index_path)?.weight_map {
        by_shard.entry(shard).or_default().push(tensor);
    }
    let mut paths = Vec::with_capacity(by_shard.len());
    for (shard, tensors) in by_shard {
        let path = folder.join(&shard);
        if !path.exists() {
            return Err(CheckpointError::malformed(
                &name,
                format!(
                    "shard \"{}\" is missing; copy it beside the index",
                    super::error::shorten(&shard)
                ),
            ));
        }
        let contents = Contents::open(&WeightFile::Path(path.clone()))?;
        let held: BTreeSet<&str> = contents.raw_names().iter().map(String::as_str).collect();
        if let Some(missing) = tensors.iter().find(|tensor| !held.contains(tensor.as_str())) {
            return Err(CheckpointError::tensor(
                &name,
                missing,
                format!("expected in shard {shard}, which does not hold it; are all shards of one checkpoint?"),
            ));
        }
        paths.push(path);
    }
    Ok(paths)
}
