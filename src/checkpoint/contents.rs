//! One way to read tensors out of bytes, whatever the format: each reader lists where its tensors lie, and
//! this file checks those places, maps the file and copies elements out.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use memmap2::Mmap;

use super::error::shorten;
use super::listing::{Listing, MOST_DIMENSIONS, StoredTensor};
use super::mapped::MappedFile;
use super::packed_mark::PackedMark;
use super::{CheckpointError, ModelFiles, WeightFile, names, safetensors_file, torch};

/// Begins the names of what `crag convert` adds: a model's own weights once more, laid out as a kernel wants them.
/// Such tensors are not part of the model; [`Checkpoint::packed`] finds them.
pub const PACKED_PREFIX: &str = "crag.packed.";

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
        let mapped = |file: &Contents| match &file.bytes {
            Bytes::Mapped(file) => Some(Arc::clone(file)),
            Bytes::Static(_) => None,
        };
        with_packed.filter_map(mapped).collect()
    }

    /// Errors if a weight file has been written to since it was opened: what was read of it may be of two models.
    pub fn check_unchanged(&self) -> Result<(), CheckpointError> {
        self.files.iter().try_for_each(Contents::check_unchanged)
    }

    /// Where a packed f32 tensor lies in its mapped file, in bytes. None if there is none of that name, or
    /// if it is not memory-mapped.
    pub fn packed(&self, name: &str) -> Option<(Arc<Mmap>, Range<usize>)> {
        let &(file, index) = self.places.get(name).filter(|_| name.starts_with(PACKED_PREFIX))?;
        let contents = &self.files[file];
        let tensor = &contents.tensors[index];
        match &contents.bytes {
            Bytes::Mapped(file) if tensor.strides.is_none() && tensor.dtype == DType::F32 => {
                let start = tensor.start;
                Some((
                    Arc::clone(file.map()),
                    start..start + tensor.elements * size_of::<f32>(),
                ))
            }
            _ => None,
        }
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

/// A tensor whose place has been checked against the file.
struct PlacedTensor {
    name: String,
    shape: Vec<usize>,
    dtype: DType,
    start: usize,
    elements: usize,
    strides: Option<Vec<usize>>,
}

/// One opened weight file.
pub(super) struct Contents {
    file: String,
    bytes: Bytes,
    tensors: Vec<PlacedTensor>,
    raw_names: Vec<String>,
    mark: Option<PackedMark>,
    mark_fits: OnceLock<bool>,
    storage: String,
}

enum Bytes {
    Mapped(Arc<MappedFile>),
    Static(&'static [u8]),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(file) => file.map(),
            Bytes::Static(bytes) => bytes,
        }
    }
}

impl Contents {
    pub(super) fn open(file: &WeightFile) -> Result<Self, CheckpointError> {
        match file {
            WeightFile::Path(path) => {
                let mapped = MappedFile::open(path)?;
                Self::read(
                    path.display().to_string(),
                    Bytes::Mapped(Arc::new(mapped)),
                    "memory-mapped",
                )
            }
            WeightFile::Embedded { name, bytes } => Self::read((*name).to_string(), Bytes::Static(bytes), "embedded"),
        }
    }

    fn read(file: String, bytes: Bytes, held: &str) -> Result<Self, CheckpointError> {
        let listing = list(&file, &bytes, held)?;
        let mut tensors = Vec::with_capacity(listing.tensors.len());
        let mut total = 0usize;
        for tensor in listing.tensors {
            let placed =
                place(&tensor, bytes.len()).map_err(|why| CheckpointError::tensor(&file, &tensor.raw_name, why))?;
            // Expanded (stride 0) or shared storage lets a small file describe much memory. Ties between
            // tensors are honest and cost a factor of two; beyond four times the file it is an attack.
            total = total.saturating_add(placed.elements * placed.dtype.size_in_bytes());
            if total / 4 > bytes.len() {
                return Err(CheckpointError::tensor(
                    &file,
                    &tensor.raw_name,
                    format!(
                        "tensors up to this one would take {total} bytes, out of a file of {}",
                        bytes.len()
                    ),
                ));
            }
            tensors.push(placed);
        }
        Ok(Self {
            file,
            bytes,
            tensors,
            raw_names: listing.raw_names,
            mark: listing.mark,
            mark_fits: OnceLock::new(),
            storage: listing.storage,
        })
    }

    fn has_packed(&self) -> bool {
        let mut names = self.tensors.iter().map(|tensor| tensor.name.as_str());
        names.any(|name| name.starts_with(PACKED_PREFIX))
    }

    /// Packed tensors are computed with where they lie.
    fn packed_are_aligned(&self) -> bool {
        let mut packed = self
            .tensors
            .iter()
            .filter(|tensor| tensor.name.starts_with(PACKED_PREFIX));
        packed.all(|tensor| tensor.start % align_of::<f32>() == 0)
    }

    /// Whether the tensors that are not packed are those that packed ones were made of.
    fn mark_fits(&self) -> bool {
        let Some(mark) = &self.mark else {
            return false;
        };
        *self.mark_fits.get_or_init(|| {
            let nanoseconds = match &self.bytes {
                Bytes::Mapped(file) => Some(file.nanoseconds()),
                Bytes::Static(_) => None,
            };
            mark.fits(&self.bytes, nanoseconds, |place| {
                self.release_range(place.start, place.end)
            })
        })
    }

    /// Errors if the file has been written to since it was opened.
    pub(super) fn check_unchanged(&self) -> Result<(), CheckpointError> {
        match &self.bytes {
            Bytes::Mapped(file) => file.check_unchanged(),
            Bytes::Static(_) => Ok(()),
        }
    }

    /// The file's name in messages.
    pub(super) fn name(&self) -> &str {
        &self.file
    }

    /// Hands over the whole file part by part, and keeps none of it in memory for that. Returns its length; errors if the
    /// file has been written to since it was opened.
    pub(super) fn read_through(&self, mut take: impl FnMut(&[u8])) -> Result<u64, CheckpointError> {
        const PART: usize = 16 << 20;
        for (i, part) in self.bytes.chunks(PART).enumerate() {
            take(part);
            self.release_range(i * PART, i * PART + part.len());
        }
        self.check_unchanged()?;
        Ok(self.bytes.len() as u64)
    }

    pub(super) fn raw_names(&self) -> &[String] {
        &self.raw_names
    }

    fn tensor(&self, index: usize) -> Result<Tensor, CheckpointError> {
        let tensor = &self.tensors[index];
        let built = match tensor.dtype {
            DType::F32 => {
                let data = self.elements(tensor, |b: [u8; 4]| f32::from_le_bytes(b));
                Tensor::from_vec(data, tensor.shape.as_slice(), &Device::Cpu)
            }
            DType::F16 => {
                let data = self.elements(tensor, |b: [u8; 2]| f16::from_le_bytes(b));
                Tensor::from_vec(data, tensor.shape.as_slice(), &Device::Cpu)
            }
            _ => {
                let data = self.elements(tensor, |b: [u8; 2]| bf16::from_le_bytes(b));
                Tensor::from_vec(data, tensor.shape.as_slice(), &Device::Cpu)
            }
        };
        self.release(tensor);
        built.map_err(|error| CheckpointError::tensor(&self.file, &tensor.name, error.to_string()))
    }

    /// Takes a tensor's pages out of this process: what has been copied out need not count twice.
    fn release(&self, tensor: &PlacedTensor) {
        if tensor.strides.is_none() {
            let end = tensor.start + tensor.elements * tensor.dtype.size_in_bytes();
            self.release_range(tensor.start, end);
        }
    }

    /// The same for the pages that lie whole within a range of the file's bytes.
    fn release_range(&self, start: usize, end: usize) {
        const PAGE: usize = 4096;
        if let Bytes::Mapped(file) = &self.bytes {
            let (start, end) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
            if end > start {
                // SAFETY: the map is of a file and is never written to, so dropped pages read the same when
                // they are touched again. A refusal leaves them where they are.
                let _ = unsafe {
                    file.map()
                        .unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
                };
            }
        }
    }

    /// The elements in row-major order, whatever the strides. Every index is below what [`place`] checked.
    fn elements<const N: usize, T>(&self, tensor: &PlacedTensor, read: impl Fn([u8; N]) -> T) -> Vec<T> {
        if tensor.elements == 0 {
            return Vec::new();
        }
        let bytes = &self.bytes[tensor.start..];
        let (whole, _) = bytes.as_chunks::<N>();
        let Some(strides) = &tensor.strides else {
            return whole[..tensor.elements].iter().map(|chunk| read(*chunk)).collect();
        };
        let (Some((&inner, outer)), Some((&step, steps))) = (tensor.shape.split_last(), strides.split_last()) else {
            return vec![read(whole[0])];
        };
        let mut out = Vec::with_capacity(tensor.elements);
        let mut index = vec![0usize; outer.len()];
        let mut at = 0usize;
        loop {
            out.extend((0..inner).map(|i| read(whole[at + i * step])));
            // Counts the outer dimensions up like an odometer: the last turns fastest.
            let mut dimension = outer.len();
            loop {
                if dimension == 0 {
                    return out;
                }
                dimension -= 1;
                index[dimension] += 1;
                at += steps[dimension];
                if index[dimension] < outer[dimension] {
                    break;
                }
                at -= steps[dimension] * outer[dimension];
                index[dimension] = 0;
            }
        }
    }
}

/// Checks that every element of `tensor` lies inside its limit and the file.
fn place(tensor: &StoredTensor, file_len: usize) -> Result<PlacedTensor, String> {
    let too_large = || format!("shape {:?} describes more elements than can be addressed", tensor.shape);
    if tensor.shape.len() > MOST_DIMENSIONS {
        return Err(format!(
            "{} dimensions, and at most {MOST_DIMENSIONS} are read",
            tensor.shape.len()
        ));
    }
    let name = names::clean(&tensor.raw_name).unwrap_or_else(|| tensor.raw_name.clone());
    let elements = tensor
        .shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or_else(too_large)?;
    let size = tensor.dtype.size_in_bytes();
    let mut strides = tensor
        .strides
        .clone()
        .filter(|strides| !follows(&tensor.shape, strides));
    for (stride, _) in strides
        .iter_mut()
        .flatten()
        .zip(&tensor.shape)
        .filter(|(_, dim)| **dim == 1)
    {
        // Never stepped, so any number may stand there; as 0 it cannot overflow.
        *stride = 0;
    }
    // The number of elements from the first to the last, both included.
    let span = match &strides {
        _ if elements == 0 => 0,
        None => elements,
        Some(strides) => {
            let steps = tensor.shape.iter().zip(strides);
            let mut last = steps.map(|(&dim, &stride)| (dim - 1).checked_mul(stride));
            last.try_fold(0usize, |sum, step| sum.checked_add(step?))
                .and_then(|last| last.checked_add(1))
                .ok_or_else(too_large)?
        }
    };
    let end = span
        .checked_mul(size)
        .and_then(|bytes| bytes.checked_add(tensor.start))
        .ok_or_else(too_large)?;
    elements.checked_mul(size).ok_or_else(too_large)?;
    let limit = tensor.limit.min(file_len);
    if end > limit {
        return Err(format!(
            "shape {:?} reaches byte {end} of the file, but its data end at {limit}; is the file cut short?",
            tensor.shape
        ));
    }
    Ok(PlacedTensor {
        name,
        shape: tensor.shape.clone(),
        dtype: tensor.dtype,
        start: tensor.start,
        elements,
        strides,
    })
}

/// Whether strides are the ones of plain row-major order; a dimension of one element never steps.
fn follows(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    for (&dim, &stride) in shape.iter().zip(strides).rev() {
        if dim != 1 && stride != expected {
            return false;
        }
        expected = expected.saturating_mul(dim);
    }
    true
}

/// Picks the reader by the first bytes, since file names lie.
fn list(file: &str, bytes: &[u8], held: &str) -> Result<Listing, CheckpointError> {
    if bytes.is_empty() {
        return Err(CheckpointError::malformed(
            file,
            "the file is empty; copy or download it again",
        ));
    }
    if let Some(reason) = looks_like_anything_but_weights(bytes) {
        return Err(CheckpointError::malformed(file, reason));
    }
    if bytes.starts_with(b"PK") {
        torch::list(file, bytes)
    } else if bytes.starts_with(&[0x80]) && bytes.get(1).is_some_and(|v| (1..=5).contains(v)) {
        Err(torch::bare_pickle(file, bytes))
    } else {
        safetensors_file::list(file, bytes, held)
    }
}

/// What stands in for a file when a clone or a download went wrong.
pub(super) fn looks_like_anything_but_weights(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Some("a Git LFS pointer, not the file itself; run `git lfs pull` in the clone, or download the file");
    }
    let start = &bytes[..bytes.len().min(512)];
    let text = start.trim_ascii_start().to_ascii_lowercase();
    if text.starts_with(b"<!doctype html") || text.starts_with(b"<html") {
        return Some("an HTML page, not the file itself; the download went to an error or a log-in page");
    }
    None
}
