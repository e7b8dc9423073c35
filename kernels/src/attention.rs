//! Multi-head self-attention over packed sequences (Vaswani et al., arXiv:1706.03762).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::{Activation, Linear, Sequences, cpu, f32_slice};

/// `softmax(Q K^T / sqrt(D)) V` within each sequence, for all heads.
///
/// `qkv`: `[T, 3 H]`, the query, key and value projections side by side, each `heads * D` wide.
/// Returns `[T, H]`, heads side by side.
///
/// # Errors
/// Another shape, or heads that do not divide it.
pub fn attention(qkv: &Tensor, sequences: &Sequences, heads: usize) -> Result<Tensor> {
    let (tokens, width) = qkv.dims2()?;
    check(tokens, width, sequences, heads)?;
    qkv.contiguous()?.apply_op1_no_bwd(&Forward { sequences, heads })
}

/// [`attention`] of the queries, keys and values that `projection` makes of `x`.
///
/// `x`: `[T, K]`; `projection`: `K` to `3 H`. Returns `[T, H]`.
///
/// # Errors
/// As [`attention`], and where `projection` does not take `x`.
pub fn self_attention(x: &Tensor, projection: &Linear, sequences: &Sequences, heads: usize) -> Result<Tensor> {
    let Some(packed) = projection.packed() else {
        return attention(&projection.forward(x, Activation::Identity)?, sequences, heads);
    };
    let (tokens, width) = (projection.check(x)?, projection.out_features());
    check(tokens, width, sequences, heads)?;
    let op = CpuSelfAttention {
        projection: packed,
        sequences,
        heads,
    };
    x.contiguous()?.apply_op1_no_bwd(&op)
}

fn check(tokens: usize, width: usize, sequences: &Sequences, heads: usize) -> Result<()> {
    if tokens != sequences.total_tokens() || heads == 0 || !width.is_multiple_of(3 * heads) {
        bail!(
            "attention: expected [{}, 3 * {heads} * D], found [{tokens}, {width}]",
            sequences.total_tokens()
        )
    }
    Ok(())
}

struct CpuSelfAttention<'a> {
    projection: &'a cpu::PackedLinear,
    sequences: &'a Sequences,
    heads: usize,
}

impl CustomOp1 for CpuSelfAttention<'_> {
    fn name(&self) -> &'static str {
        "self-attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = f32_slice(self.name(), x, layout)?;
        let out = cpu::self_attention(x, self.projection, self.sequences.offsets(), self.heads);
        let hidden = self.projection.out_features() / 3;
        let tokens = out.len() / hidden;
        Ok((CpuStorage::F32(out), Shape::from((tokens, hidden))))
    }
}

struct Forward<'a> {
    sequences: &'a Sequences,
    heads: usize,
}

impl CustomOp1 for Forward<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (tokens, width) = layout.shape().dims2()?;
        let qkv = f32_slice(self.name(), qkv, layout)?;
        let out = cpu::attention(qkv, self.sequences.offsets(), width / 3, self.heads);
        Ok((CpuStorage::F32(out), Shape::from((tokens, width / 3))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, qkv: &candle_core::CudaStorage, layout: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::attention(qkv, layout, self.sequences, self.heads)
    }
}
