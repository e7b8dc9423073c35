//! What a format's reader says of a file: which tensors it holds, and where they lie.

use candle_core::DType;

use super::packed_mark::PackedMark;

/// Bounds on what a file may describe, so that memory follows the file's length and not its claims. A full
/// model of this family has some four hundred tensors of at most three dimensions.
pub(super) const MOST_TENSORS: usize = 1 << 16;
pub(super) const MOST_DIMENSIONS: usize = 16;

/// Where one tensor lies in its file's bytes.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    /// As the file calls it.
    pub raw_name: String,
    pub shape: Vec<usize>,
    pub dtype: DType,
    /// Of the first element, in bytes from the start of the file.
    pub start: usize,
    /// The end of the bytes this tensor may reach, from the start of the file.
    pub limit: usize,
    /// In elements, one for each dimension; `None` where the elements simply follow each other.
    pub strides: Option<Vec<usize>>,
}

/// What a reader finds in a file.
pub(super) struct Listing {
    pub tensors: Vec<StoredTensor>,
    /// Every name in the file as stored, the ignored ones too.
    pub raw_names: Vec<String>,
    pub mark: Option<PackedMark>,
    pub storage: String,
}
