//! The network's operations with gradients: forward and backward, one function each.
//!
//! candle's fused operations have no backward and cut gradients silently, and its composed ones make many
//! passes over memory. So on the CPU each function here is one [`candle_core::CustomOp1`] (2, 3) with its
//! backward beside it; elsewhere it is composed of candle's differentiable operations ([`composed`]), which the
//! tests also hold against the CPU's. Sequences are packed: the tokens of a batch lie one after another, so
//! padding is never multiplied.
//!
//! Results never depend on the number of threads: work is cut by shapes alone, and sums run in a fixed order.

mod attention;
pub(super) mod composed;
mod dropout;
mod elementwise;
mod embedding;
mod linear;
mod matrix;
mod norm;
mod pooling;

#[cfg(test)]
mod tests;

use std::ops::Deref;

use candle_core::{CpuStorage, Result, Storage, Tensor, bail};

use crate::kernels::f32_slice as slice;

pub(super) use attention::attention;
pub(super) use dropout::{Dropout, dropout, dropout_add};
pub(super) use elementwise::gelu;
pub(super) use embedding::embed;
pub(super) use linear::linear;
pub(super) use norm::layer_norm;
pub(super) use pooling::weighted_means;

/// Rows that one task of a row-wise operation takes: fixed, so that sums over rows have a fixed order.
const ROWS_AT_ONCE: usize = 64;
/// Elements that one task of an elementwise operation takes.
const ELEMENTS_AT_ONCE: usize = 1 << 14;

/// Where each sequence of a packed batch begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    /// `B + 1` row numbers, ascending from 0.
    offsets: Vec<usize>,
}

impl Lengths {
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        for length in lengths {
            end += length;
            offsets.push(end);
        }
        Self { offsets }
    }

    /// Sequences in the batch.
    pub fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Tokens in the batch.
    pub fn tokens(&self) -> usize {
        self.offsets[self.count()]
    }

    pub fn longest(&self) -> usize {
        self.ranges().map(|range| range.len()).max().unwrap_or(0)
    }

    pub fn ranges(&self) -> impl ExactSizeIterator<Item = std::ops::Range<usize>> + '_ {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// `rows` (of `width` numbers each) as one mutable slice a sequence.
    fn split_mut<'a>(&self, mut rows: &'a mut [f32], width: usize) -> Vec<&'a mut [f32]> {
        let mut parts = Vec::with_capacity(self.count());
        for range in self.ranges() {
            let (part, rest) = rows.split_at_mut(range.len() * width);
            parts.push(part);
            rows = rest;
        }
        parts
    }
}

/// The elements of a contiguous f32 CPU tensor, for as long as its storage is held.
struct Values<G> {
    storage: G,
    range: (usize, usize),
}

/// See [`Values`].
fn elements(tensor: &Tensor) -> Result<Values<impl Deref<Target = Storage> + '_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some(range) = layout.contiguous_offsets() else {
        bail!("expected a contiguous tensor, found {layout:?}")
    };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(Values { storage, range }),
        _ => bail!("expected f32 on the CPU"),
    }
}

impl<G: Deref<Target = Storage>> Deref for Values<G> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.0..self.range.1],
            // `elements` let nothing else through.
            _ => &[],
        }
    }
}

/// A gradient as wide as `like`, on the CPU.
fn gradient(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), like.device())
}

/// Compiles a loop for AVX-512 and AVX2 as well and takes the widest that the processor has.
///
/// The loops have no fused multiply-adds and no reassociation, so that all three give the same bits.
macro_rules! widest {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        fn $name($($argument: $type),*) {
            #[inline(always)]
            fn body($($argument: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512($($argument: $type),*) {
                    body($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) {
                    body($($argument),*)
                }
                if is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                {
                    // SAFETY: the processor has what the function is compiled for, as just asked (avx512bw implies avx512f).
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { avx2($($argument),*) };
                }
            }
            body($($argument),*)
        }
    };
}
use widest;
