//! Multi-head self-attention over packed sequences (Vaswani et al., arXiv:1706.03762).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::{Sequences, cpu, f32_slice};

/// `softmax(Q K^T / sqrt(D)) V` within each sequence, for all heads.
///
/// `qkv`: `[T, 3 H]`, the query, key and value projections side by side, each `heads * D` wide.
/// Returns `[T, H]`, heads side by side.
pub fn attention(qkv: &Tensor, sequences: &Sequences, heads: usize) -> Result<Tensor> {
    let (tokens, width) = qkv.dims2()?;
    if tokens != sequences.total_tokens() || heads == 0 || width % (3 * heads) != 0 {
        bail!(
            "attention: expected [{}, 3 * {heads} * D], found [{tokens}, {width}]",
            sequences.total_tokens()
        )
    }
    qkv.contiguous()?.apply_op1_no_bwd(&Forward { sequences, heads })
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
