//! The opened weights of one model, whatever files they lie in.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use memmap2::Mmap;

use super::contents::Contents;
use super::error::shorten;
use super::mapped::MappedFile;
use super::packed_mark::PACKED_PREFIX;
use super::{CheckpointError, ModelFiles};

/// What is known of a tensor without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, wrapper prefixes stripped.
    pub name: String,
    pub shape: Vec<usize>,
    /// The stored type: f32, f16 or bf16.
    pub dtype: DType,
    /// The file that holds it, for messages.
    pub file: String,
}

/// The opened weights of one model: every tensor's name, shape and type, and the mapped bytes behind them.
pub struct Checkpoint {
    tensors: Vec<TensorInfo>,
    places: HashMap<String, (usize, usize)>,
    files: Vec<Contents>,
    storage: String,
}

impl Checkpoint {
    /// Maps every weight file and checks all that can be checked without reading tensors.
    ///
    /// # Errors
    /// A file that is damaged, in an unknown form, or holds a type other than f32, f16 and bf16; two tensors
    /// of one name.
    pub fn open(files: &ModelFiles) -> Result<Self, CheckpointError> {
        let files = files
            .weights
            .iter()
            .map(Contents::open)
            .collect::<Result<Vec<_>, _>>()?;
        let mut places: HashMap<String, (usize, usize)> = HashMap::new();
        let mut tensors = Vec::new();
        for (file_index, contents) in files.iter().enumerate() {
            for (index, tensor) in contents.tensors.iter().enumerate() {
                if let Some((other, _)) = places.insert(tensor.name.clone(), (file_index, index)) {
                    return Err(CheckpointError::tensor(
                        &contents.file,
                        &tensor.name,
                        format!(
                            "there are two of this name{}; one may carry a \"module.\" or \"_orig_mod.\" prefix",
                            if other == file_index {
                                String::new()
                            } else {
                                format!(", the other in {}", files[other].file)
                            }
                        ),
                    ));
                }
                if tensor.name.starts_with(PACKED_PREFIX) {
                    continue;
                }
                tensors.push(TensorInfo {
                    name: tensor.name.clone(),
                    shape: tensor.shape.clone(),
                    dtype: tensor.dtype,
                    file: contents.file.clone(),
                });
            }
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let storage = match files.as_slice() {
            [] => "no weights".to_string(),
            [one] => one.storage.clone(),
            [first, ..] => format!("{}, {} shards", first.storage, files.len()),
        };
        Ok(Self {
            tensors,
            places,
            files,
            storage,
        })
    }

    /// Every tensor, sorted by name.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub(super) fn weight_files(&self) -> &[Contents] {
        &self.files
    }

    /// How the weights are stored, for people: `safetensors, memory-mapped`, or
    /// `PyTorch zip pickle (state dict under "model_state_dict")`.
    pub fn storage(&self) -> &str {
        &self.storage
    }

    /// Copies one tensor out, contiguous, on the CPU, in its stored type.
    ///
    /// # Errors
    /// No tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let Some(&(file, index)) = self.places.get(name) else {
            let files: Vec<&str> = self.files.iter().map(|f| f.file.as_str()).collect();
            return Err(CheckpointError::NoSuchTensor {
                file: files.join(", "),
                tensor: shorten(name),
            });
        };
        self.files[file].tensor(index)
    }

    /// The layouts that packed tensors are stored in, sorted: the first part of their names behind [`PACKED_PREFIX`].
    pub fn packed_layouts(&self) -> Vec<String> {
        let names = self.places.keys().filter_map(|name| name.strip_prefix(PACKED_PREFIX));
        let layouts: BTreeSet<&str> = names.filter_map(|name| name.split('.').next()).collect();
        layouts.into_iter().map(str::to_owned).collect()
    }

    /// Whether the packed tensors stand for the tensors beside them: not where another program has written other ones into the
    /// file since. May read the whole file the first time, on rayon's pool, so not for a task that runs there.
    pub fn packed_are_current(&self) -> bool {
        let mut with_packed = self.files.iter().filter(|file| file.has_packed());
        with_packed.all(|file| file.packed_are_aligned() && file.mark_fits())
    }

    /// The files with packed tensors, whose bytes are computed with as long as a model lives that has loaded them.
    pub fn packed_files(&self) -> Vec<Arc<MappedFile>> {
        let with_packed = self.files.iter().filter(|file| file.has_packed());
        with_packed.filter_map(Contents::mapped).collect()
    }

    /// Errors if a weight file has been written to since it was opened: what was read of it may be of two models.
    pub fn check_unchanged(&self) -> Result<(), CheckpointError> {
        self.files.iter().try_for_each(Contents::check_unchanged)
    }

    /// Where a packed f32 tensor lies in its mapped file, in bytes. None if there is none of that name, or
    /// if it is not memory-mapped.
    pub fn packed(&self, name: &str) -> Option<(Arc<Mmap>, Range<usize>)> {
        let &(file, index) = self.places.get(name).filter(|_| name.starts_with(PACKED_PREFIX))?;
        self.files[file].mapped_f32(index)
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("storage", &self.storage)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}
