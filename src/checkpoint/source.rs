//! From what a user calls a model to the files that make it up.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::{CheckpointError, HubOptions, folder, hub};

/// Where a model comes from, as `--model` and `--revision` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A repository on the hub, `owner/name`, at a branch, a tag or a commit.
    Hub { id: String, revision: String },
    /// A folder that holds weights, and perhaps settings and a tokenizer.
    Folder(PathBuf),
    /// One weight file; what belongs to it is looked for beside it.
    File(PathBuf),
    /// The small model built into the program.
    Demo,
}

impl ModelSource {
    /// Reads `spec` as `demo`, an existing folder, an existing file, or a hub id, in this order.
    ///
    /// # Errors
    /// Where it is none of these, or where `revision` is given for what is not on the hub.
    pub fn parse(spec: &str, revision: Option<&str>) -> Result<Self, CheckpointError> {
        let refuse = |reason: String| {
            Err(CheckpointError::Source {
                spec: super::error::shorten(spec),
                reason,
            })
        };
        let path = Path::new(spec);
        let local = if spec == "demo" {
            Some(Self::Demo)
        } else if path.is_dir() {
            Some(Self::Folder(path.to_path_buf()))
        } else if path.exists() {
            Some(Self::File(path.to_path_buf()))
        } else {
            None
        };
        if let Some(local) = local {
            return match revision {
                Some(revision) => refuse(format!(
                    "a revision (\"{}\") applies to a model on the hub, and this one is local; drop --revision",
                    super::error::shorten(revision)
                )),
                None => Ok(local),
            };
        }
        if spec.is_empty() {
            return refuse("empty; give a hub id (owner/name), a folder, a weight file or \"demo\"".into());
        }
        if !looks_like_hub_id(spec) {
            return refuse(
                "no such folder or file, and not a hub id either, which is owner/name alone, without an address before it \
                 or a slash after it; check the path"
                    .into(),
            );
        }
        let revision = revision.unwrap_or("main");
        if !is_revision(revision) {
            return refuse(format!(
                "\"{}\" is not a revision: expected a branch, a tag or a commit",
                super::error::shorten(revision)
            ));
        }
        Ok(Self::Hub {
            id: spec.to_string(),
            revision: revision.to_string(),
        })
    }

    /// Where it is on this machine; none of what is built in or on the hub.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) | Self::File(path) => Some(path),
            Self::Hub { .. } | Self::Demo => None,
        }
    }

    /// Where files of it may lie on this machine: its weights, but for parts that an index names, and all beside them.
    pub fn own_files(&self) -> Vec<PathBuf> {
        match self {
            Self::Folder(path) => {
                let names = folder::WEIGHTS.iter().chain(&folder::BESIDE);
                names.map(|name| path.join(name)).collect()
            }
            Self::File(path) => {
                let beside = folder::BESIDE.iter().map(|name| path.with_file_name(name));
                std::iter::once(path.clone()).chain(beside).collect()
            }
            Self::Hub { .. } | Self::Demo => Vec::new(),
        }
    }

    /// The file of settings that goes with it.
    pub fn sidecar(&self) -> Option<PathBuf> {
        match self {
            Self::Folder(path) => Some(path.join("crag.json")),
            Self::File(path) => Some(path.with_file_name("crag.json")),
            Self::Hub { .. } | Self::Demo => None,
        }
    }
}

/// `owner/name` in the hub's alphabet. Names that end like a weight file are more likely a mistyped path.
fn looks_like_hub_id(spec: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && !part.contains("..")
            // The cache folder joins owner and name by "--", so the hub forbids it within them.
            && !part.contains("--")
    };
    let a_file = [".safetensors", ".bin", ".pt", ".pth", ".json"]
        .iter()
        .any(|end| spec.ends_with(end));
    !a_file
        && spec
            .split_once('/')
            .is_some_and(|(owner, name)| part(owner) && part(name))
}

/// A git reference that is safe in an address and as a path below `refs/`.
fn is_revision(revision: &str) -> bool {
    !revision.is_empty()
        && revision.len() <= 200
        && revision
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
        && revision
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains(".."))
}

/// The files of one model, found but (the weights) not yet read.
#[derive(Clone, Debug, Default)]
pub struct ModelFiles {
    /// Where the model came from, for people: a path, or `owner/name at main (commit)`.
    pub source: String,
    /// The commit, when from the hub.
    pub revision: Option<String>,
    /// The weights: one file, or every shard of an index.
    pub weights: Vec<WeightFile>,
    /// `config.json`.
    pub config: Option<NamedBytes>,
    /// `crag.json`.
    pub sidecar: Option<NamedBytes>,
    /// `tokenizer.json`.
    pub tokenizer_json: Option<NamedBytes>,
    /// `vocab.txt`.
    pub vocab_txt: Option<NamedBytes>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<NamedBytes>,
    /// `added_tokens.json`.
    pub added_tokens: Option<NamedBytes>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<NamedBytes>,
    /// What whoever uses them has to be told about how they were found.
    pub warnings: Vec<String>,
}

impl ModelFiles {
    /// The tokenizer's files, each with its name in a folder.
    pub fn tokenizer(&self) -> [(&'static str, &Option<NamedBytes>); 5] {
        [
            ("tokenizer.json", &self.tokenizer_json),
            ("vocab.txt", &self.vocab_txt),
            ("tokenizer_config.json", &self.tokenizer_config),
            ("added_tokens.json", &self.added_tokens),
            ("special_tokens_map.json", &self.special_tokens_map),
        ]
    }
}

/// The bytes of a small file, with the name to use for it in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedBytes {
    /// A path, or `demo/…`.
    pub name: String,
    pub bytes: Cow<'static, [u8]>,
}

/// One file of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightFile {
    Path(PathBuf),
    Embedded { name: &'static str, bytes: &'static [u8] },
}

/// Finds the files of `source`, downloading from the hub what its cache lacks.
///
/// # Errors
/// No weights in a known form, an index that does not agree with its shards, or any of the hub's refusals.
pub fn locate(source: &ModelSource, hub: &HubOptions) -> Result<ModelFiles, CheckpointError> {
    match source {
        ModelSource::Hub { id, revision } => hub::locate(id, revision, hub),
        ModelSource::Folder(path) => folder::locate_folder(path),
        ModelSource::File(path) => folder::locate_file(path),
        ModelSource::Demo => Ok(demo()),
    }
}

fn demo() -> ModelFiles {
    macro_rules! embedded {
        ($name:literal) => {
            Some(NamedBytes {
                name: concat!("demo/", $name).to_string(),
                bytes: Cow::Borrowed(include_bytes!(concat!("demo/", $name))),
            })
        };
    }
    ModelFiles {
        source: "demo (built in)".to_string(),
        revision: None,
        weights: vec![WeightFile::Embedded {
            name: "demo/model.safetensors",
            bytes: include_bytes!("demo/model.safetensors"),
        }],
        config: embedded!("config.json"),
        sidecar: embedded!("crag.json"),
        tokenizer_json: None,
        vocab_txt: embedded!("vocab.txt"),
        tokenizer_config: embedded!("tokenizer_config.json"),
        added_tokens: None,
        special_tokens_map: None,
        warnings: Vec::new(),
    }
}
