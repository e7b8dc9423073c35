//! Memory for packed operands: aligned to cache lines, and reused from call to call.

use std::cell::RefCell;

/// f32 values of which the first lies at the start of a cache line.
#[derive(Default)]
pub(super) struct AlignedBuffer {
    values: Vec<f32>,
    start: usize,
}

/// In bytes; also the width of the widest vector.
const CACHE_LINE: usize = 64;

impl AlignedBuffer {
    /// `len` zeros, from pages that the system has not touched yet where `len` is large.
    pub fn zeroed(len: usize) -> Self {
        let spare = CACHE_LINE / size_of::<f32>() - 1;
        let mut values = vec![0.0; len + spare];
        // The vector never grows, so its values stay where they are.
        let start = values.as_ptr().align_offset(CACHE_LINE).min(spare);
        values.truncate(start + len);
        Self { values, start }
    }

    pub fn as_slice(&self) -> &[f32] {
        &self.values[self.start..]
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.values[self.start..]
    }

    /// `len` values left over from the last use.
    pub fn scratch(&mut self, len: usize) -> &mut [f32] {
        if self.as_slice().len() < len {
            *self = Self::zeroed(len);
        }
        &mut self.as_mut_slice()[..len]
    }
}

/// Working memory of the kernels, one per thread. What it holds between calls has no meaning.
#[derive(Default)]
pub(super) struct Scratch {
    /// Rows of the left operand, packed.
    pub left: AlignedBuffer,
    /// Sums of one panel.
    pub sums: AlignedBuffer,
    /// Transposed keys of one head.
    pub keys: AlignedBuffer,
    /// Values of one head.
    pub values: AlignedBuffer,
    /// Attention scores of one tile of queries, then their softmax.
    pub scores: AlignedBuffer,
}

/// Lends the calling thread's scratch memory to `f`, which must not ask for it again.
pub(super) fn with_scratch<R>(f: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(f)
}
