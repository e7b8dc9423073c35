//! The operations of the network that differ between processors, and nothing else.
//!
//! Each file is one operation over candle tensors: it checks shapes once, then hands plain
//! slices to the processor's own code beneath ([`cpu`], `cuda`). Batches are *packed*: the tokens
//! of all sequences lie one after another in `[T, H]`, and [`Sequences`] says where each begins,
//! so padding does not exist here. No kernel sees text, settings or what a file is called.
//!
//! [`mod@reference`] holds each operation once more in the plainest form; every kernel is tested
//! against it. A row of a result never depends on which other rows are in the batch: on the CPU sums over
//! `k` run in one fixed order, on a GPU each layer keeps to one algorithm, so the same text gives the same bits in any batch.

mod attention;
mod bilinear;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod embedding;
mod feed_forward;
mod linear;
pub mod memory;
mod norm;
mod pooling;
pub mod reference;
mod sequences;
mod transfer;
mod views;

use candle_core::{DType, Device, Result, bail};

pub use attention::{attention, self_attention};
pub use bilinear::Bilinear;
pub use embedding::Embedding;
pub use feed_forward::feed_forward;
pub use linear::{Linear, RowKind};
pub use norm::LayerNorm;
pub use pooling::{attention_pool, first_token_pool, mean_pool};
pub use sequences::Sequences;
pub use transfer::{download, upload};
pub use views::{abs_diff, product};

/// For comparisons on a GPU: `n` from 1 selects cublasLt's n-th algorithm, 0 cuBLAS proper; unset takes the first that accepts
/// any number of rows.
pub const CUDA_LT_VARIABLE: &str = "CRAG_CUDA_LT";

/// Set and neither empty nor 0: operations on a GPU are timed.
pub const CUDA_PROFILE_VARIABLE: &str = "CRAG_CUDA_PROFILE";

/// How the products of an encoder's linear layers are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    F32,
    /// Operands rounded to bf16, sums in f32.
    Bf16,
    /// Operands rounded to f16, sums in f32; on a GPU alone.
    F16,
    /// In groups of 256 along `k`: weights in 8 bits with a scale, rows in 8 bits with a scale and an offset, sums in i32;
    /// the groups' in f32. On the CPU alone.
    Int8,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
            Precision::Int8 => "int8",
        }
    }

    /// The type of hidden states on `device`: f32 on the CPU, whatever the products are computed in.
    /// Errors where the device does not compute in this precision.
    pub fn hidden_dtype(self, device: &Device) -> Result<DType> {
        match (self, device) {
            (Precision::F16, Device::Cpu) => bail!("the CPU does not compute in f16; use bf16 or f32"),
            (_, Device::Cpu) | (Precision::F32, _) => Ok(DType::F32),
            (Precision::Bf16, _) => Ok(DType::BF16),
            (Precision::F16, _) => Ok(DType::F16),
            (Precision::Int8, _) => bail!("a GPU does not compute in int8; use bf16, f16 or f32"),
        }
    }
}

/// Elementwise function applied to the output of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Identity,
    /// `x * 0.5 * (1 + erf(x / sqrt 2))`, the form BERT uses (Hendrycks and Gimpel, arXiv:1606.08415).
    Gelu,
    /// The tanh approximation of GELU, `gelu_new` in Hugging Face configurations.
    GeluTanh,
    Relu,
    Tanh,
}

/// The f32 elements of a contiguous CPU tensor.
pub fn f32_slice<'a>(
    op: &'static str,
    storage: &'a candle_core::CpuStorage,
    layout: &candle_core::Layout,
) -> candle_core::Result<&'a [f32]> {
    let candle_core::CpuStorage::F32(values) = storage else {
        candle_core::bail!("{op}: expected f32 on the CPU")
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => candle_core::bail!("{op}: expected a contiguous tensor, found {layout:?}"),
    }
}
