//! One way to read tensors out of bytes, whatever the format: each reader lists where its tensors lie, and
//! this file checks those places, maps the file and copies elements out.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use memmap2::Mmap;

use super::listing::{Listing, MOST_DIMENSIONS, StoredTensor};
use super::mapped::MappedFile;
use super::packed_mark::{PACKED_PREFIX, PackedMark};
use super::{CheckpointError, WeightFile, names, safetensors_file, torch};

/// A tensor whose place has been checked against the file.
pub(super) struct PlacedTensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: DType,
    start: usize,
    elements: usize,
    strides: Option<Vec<usize>>,
}

/// One opened weight file.
pub(super) struct Contents {
    pub file: String,
    bytes: Bytes,
    pub tensors: Vec<PlacedTensor>,
    raw_names: Vec<String>,
    mark: Option<PackedMark>,
    mark_fits: OnceLock<bool>,
    pub storage: String,
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
    /// The file, if it is mapped.
    pub fn mapped(&self) -> Option<Arc<MappedFile>> {
        match &self.bytes {
            Bytes::Mapped(file) => Some(Arc::clone(file)),
            Bytes::Static(_) => None,
        }
    }

    /// Where an f32 tensor without strides lies in the mapped file, in bytes.
    pub fn mapped_f32(&self, index: usize) -> Option<(Arc<Mmap>, Range<usize>)> {
        let tensor = &self.tensors[index];
        let is_plain = tensor.strides.is_none() && tensor.dtype == DType::F32;
        let file = self.mapped().filter(|_| is_plain)?;
        let end = tensor.start + tensor.elements * size_of::<f32>();
        Some((Arc::clone(file.map()), tensor.start..end))
    }

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

    pub fn has_packed(&self) -> bool {
        let mut names = self.tensors.iter().map(|tensor| tensor.name.as_str());
        names.any(|name| name.starts_with(PACKED_PREFIX))
    }

    /// Packed tensors are computed with where they lie.
    pub fn packed_are_aligned(&self) -> bool {
        let mut packed = self
            .tensors
            .iter()
            .filter(|tensor| tensor.name.starts_with(PACKED_PREFIX));
        packed.all(|tensor| tensor.start % align_of::<f32>() == 0)
    }

    /// Whether the tensors that are not packed are those that packed ones were made of.
    pub fn mark_fits(&self) -> bool {
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

    pub fn tensor(&self, index: usize) -> Result<Tensor, CheckpointError> {
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
    if let Some(reason) = stand_in(bytes) {
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
pub(super) fn stand_in(bytes: &[u8]) -> Option<&'static str> {
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
