//! The operations of the network that differ between processors, and nothing else.
//!
//! Each file is one operation over candle tensors: it checks shapes once, then hands plain
//! slices to the processor's own code beneath ([`cpu`], `cuda`). Batches are *packed*: the tokens
//! of all sequences lie one after another in `[T, H]`, and [`Sequences`] says where each begins,
//! so padding does not exist here. No kernel sees text, files or settings.
//!
//! [`reference`] holds each operation once more in the plainest form; every kernel is tested
//! against it. A row of a result never depends on which other rows are in the batch: sums over
//! `k` run in one fixed order, so the same text gives the same bits in any batch on the CPU.

mod attention;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod embedding;
mod linear;
pub mod memory;
mod norm;
mod pooling;
pub mod reference;
mod sequences;
mod transfer;

pub use attention::attention;
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::LayerNorm;
pub use pooling::{attention_pool, first_token_pool, mean_pool};
pub use sequences::Sequences;
pub use transfer::{download, upload};

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
pub(crate) fn f32_slice<'a>(
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
