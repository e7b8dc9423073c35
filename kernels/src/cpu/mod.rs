//! The operations on the CPU.
//!
//! What goes from one to the next is f32; the products of linear layers and of the bilinear may be in bf16 (and, by whole
//! tiles, those of attention beside them), those of linear layers in int8 too.
//!
//! Each runs on the calling thread alone: work is spread over batches by the caller. Slices are
//! row-major; shapes are those of the operation of the same name in [`super`], which has checked
//! them, so a slice of the wrong length is a bug and panics.
//!
//! Everything is written once over `simd::Simd` and compiled for each instruction set; `detect`
//! picks one. Sums run in an order that depends on the sizes of a row alone, so within one kernel
//! a row's bits do not depend on what else is in the batch.

mod attention;
mod bilinear;
mod buffer;
mod caches;
mod detect;
mod embedding;
mod feed_forward;
mod format;
mod forward;
mod gemm;
mod linear;
mod norm;
mod operands;
mod packing;
mod pooling;
mod self_attention;
mod simd;
#[cfg(test)]
mod tests;
mod tile;
mod vector_math;
mod whole_tiles;

pub use detect::{KERNEL_VARIABLE, Kernel, KernelError, check_selection, selected};
pub use feed_forward::feed_forward;
pub use linear::{PackedLayout, PackedLinear};
pub use norm::Norm;
pub use self_attention::self_attention;

use super::{Activation, Precision};
use embedding::Tables;

/// `activation(LayerNorm(x))` over rows as wide as `norm`.
pub fn layer_norm(x: &[f32], norm: Norm, activation: Activation) -> Vec<f32> {
    norm::layer_norm(selected(), x, norm, activation)
}

/// Word plus position embedding of each packed token, then LayerNorm. Returns `[T, hidden]`.
///
/// `word`: `[V, hidden]`; `position`: `[P, hidden]`, `norm` as wide; ids and positions must lie within them.
pub fn embed(ids: &[u32], offsets: &[u32], word: &[f32], position: &[f32], norm: Norm) -> Vec<f32> {
    embedding::embed(selected(), ids, offsets, Tables { word, position, norm })
}

/// Self-attention within each sequence, in f32; `qkv`: `[T, 3 * hidden]`. Returns `[T, hidden]`.
pub fn attention(qkv: &[f32], offsets: &[u32], hidden: usize, heads: usize) -> Vec<f32> {
    attention::attention(selected(), Precision::F32, qkv, offsets, hidden, heads)
}

/// Softmax-weighted mean of hidden states per head. Returns `[heads, B, width]`.
pub fn attention_pool(hidden: &[f32], keys: &[f32], offsets: &[u32], heads: usize, width: usize) -> Vec<f32> {
    pooling::attention_pool(selected(), hidden, keys, offsets, heads, width)
}

/// Mean over each sequence's tokens. Returns `[B, width]`.
pub fn mean_pool(hidden: &[f32], offsets: &[u32], width: usize) -> Vec<f32> {
    pooling::mean_pool(selected(), hidden, offsets, width)
}

/// Each sequence's first token. Returns `[B, width]`.
pub fn first_token_pool(hidden: &[f32], offsets: &[u32], width: usize) -> Vec<f32> {
    pooling::first_token_pool(hidden, offsets, width)
}
