//! From the hidden states of a packed batch to one vector a sequence.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::{Sequences, cpu, f32_slice};

/// Softmax-weighted means of the hidden states, one a head.
///
/// `hidden`: `[T, H]`; `keys`: `[heads, H]`, f32, what a token's hidden state is multiplied with to
/// get its score in each head (scale included). Returns `[heads, B, H]` in f32: head after head, the mean of
/// each sequence's hidden states under that head's softmax.
///
/// With a single learned query this is all that multi-head attention needs of the tokens: the query
/// folds into the key projection, and the value projection is linear, so it can follow the mean.
///
/// # Errors
/// Shapes that are not these.
pub fn attention_pool(hidden: &Tensor, keys: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    let (tokens, width) = hidden.dims2()?;
    let (_, key_width) = keys.dims2()?;
    if tokens != sequences.total_tokens() || key_width != width || keys.dtype() != DType::F32 {
        bail!(
            "attention pooling: expected hidden states [{}, H] and f32 keys [heads, H], found {:?} and {:?}",
            sequences.total_tokens(),
            hidden.shape(),
            keys.shape()
        )
    }
    hidden
        .contiguous()?
        .apply_op2_no_bwd(&keys.contiguous()?, &AttentionPool { sequences })
}

/// Mean over each sequence's tokens (Sentence-BERT, arXiv:1908.10084, section 3).
///
/// `hidden`: `[T, H]`. Returns `[B, H]` in f32. Errors on another number of tokens.
pub fn mean_pool(hidden: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    pool(hidden, sequences, Pool::Mean)
}

/// Each sequence's first hidden state, `[CLS]` in BERT. `hidden`: `[T, H]`. Returns `[B, H]` in f32. Errors as
/// [`mean_pool`].
pub fn first_token_pool(hidden: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    pool(hidden, sequences, Pool::First)
}

fn pool(hidden: &Tensor, sequences: &Sequences, kind: Pool) -> Result<Tensor> {
    let (tokens, _) = hidden.dims2()?;
    if tokens != sequences.total_tokens() {
        bail!(
            "pooling: expected hidden states [{}, H], found {:?}",
            sequences.total_tokens(),
            hidden.shape()
        )
    }
    hidden.contiguous()?.apply_op1_no_bwd(&SimplePool { sequences, kind })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    Mean,
    First,
}

struct AttentionPool<'a> {
    sequences: &'a Sequences,
}

impl CustomOp2 for AttentionPool<'_> {
    fn name(&self) -> &'static str {
        "attention pooling"
    }

    fn cpu_fwd(&self, hidden: &CpuStorage, hl: &Layout, keys: &CpuStorage, kl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (heads, width) = kl.shape().dims2()?;
        let hidden = f32_slice(self.name(), hidden, hl)?;
        let keys = f32_slice(self.name(), keys, kl)?;
        let out = cpu::attention_pool(hidden, keys, self.sequences.offsets(), heads, width);
        Ok((
            CpuStorage::F32(out),
            Shape::from((heads, self.sequences.count(), width)),
        ))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        hidden: &candle_core::CudaStorage,
        hl: &Layout,
        keys: &candle_core::CudaStorage,
        kl: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::attention_pool(hidden, hl, keys, kl, self.sequences)
    }
}

struct SimplePool<'a> {
    sequences: &'a Sequences,
    kind: Pool,
}

impl CustomOp1 for SimplePool<'_> {
    fn name(&self) -> &'static str {
        "pooling"
    }

    fn cpu_fwd(&self, hidden: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let hidden = f32_slice(self.name(), hidden, layout)?;
        let out = match self.kind {
            Pool::Mean => cpu::mean_pool(hidden, self.sequences.offsets(), width),
            Pool::First => cpu::first_token_pool(hidden, self.sequences.offsets(), width),
        };
        Ok((CpuStorage::F32(out), Shape::from((self.sequences.count(), width))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        hidden: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::simple_pool(hidden, layout, self.sequences, self.kind)
    }
}
