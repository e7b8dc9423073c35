//! From hidden states to one vector a sequence, on the GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape};

use super::launch::{Float, Operand, POOLING, checked, int, launch, name, start, vector, view};
use super::{WARPS, for_float, profile};
use crate::Sequences;
use crate::pooling::Pool;

/// [`crate::attention_pool`] on the GPU.
pub fn attention_pool(
    hidden: &CudaStorage,
    layout: &Layout,
    keys: &CudaStorage,
    keys_layout: &Layout,
    sequences: &Sequences,
) -> Result<(CudaStorage, Shape)> {
    for_float!(
        "attention pooling",
        hidden.dtype(),
        attention_pool_of(hidden, layout, keys, keys_layout, sequences)
    )
}

fn attention_pool_of<T: Float>(
    hidden: &CudaStorage,
    layout: &Layout,
    keys: &CudaStorage,
    keys_layout: &Layout,
    sequences: &Sequences,
) -> Result<(CudaStorage, Shape)> {
    const OP: &str = "attention pooling";
    let (tokens, width) = layout.shape().dims2()?;
    let (heads, _) = keys_layout.shape().dims2()?;
    let count = sequences.count();
    let device = hidden.device();
    let hidden = view::<T>(OP, hidden, layout)?;
    let keys = view::<f32>(OP, keys, keys_layout)?;
    let offsets = Operand::of(sequences.device_offsets());
    let offsets = offsets.view::<u32>(OP)?;
    let vector = vector(width, &[start::<T>(layout), start::<f32>(keys_layout)]);
    let (heads_i, width_i) = (int(OP, heads)?, int(OP, width)?);
    // SAFETY: the first kernel writes every token's scores, the second every sequence's means.
    let (scores, out) = unsafe {
        (
            device.alloc::<f32>(tokens * heads)?,
            device.alloc::<f32>(count * heads * width)?,
        )
    };
    let _span = profile::span(OP, device, 0.0, ((1 + heads) * tokens * width * size_of::<T>()) as f64);
    // SAFETY: the arguments of the kernels in pooling.cu; `attention_pool` above checked the shapes.
    checked(unsafe {
        launch!(device, POOLING, name::<T>("pool_scores"), grid: (tokens.div_ceil(WARPS), 1), threads: 32 * WARPS,
            (hidden.slice(..), keys, scores.as_view(), tokens as i64, heads_i, width_i, vector))
    })?;
    // SAFETY: as above; the scores are written by the first kernel, earlier on the same stream.
    checked(unsafe {
        launch!(device, POOLING, name::<T>("pool_weighted"), grid: (count * heads, 1), threads: threads(width),
            (hidden, scores.as_view(), out.as_view(), offsets, heads_i, width_i, vector))
    })?;
    Ok((
        CudaStorage::wrap_cuda_slice(out, device.clone()),
        Shape::from((heads, count, width)),
    ))
}

/// [`crate::mean_pool`] and [`crate::first_token_pool`] on the GPU.
pub(crate) fn simple_pool(
    hidden: &CudaStorage,
    layout: &Layout,
    sequences: &Sequences,
    kind: Pool,
) -> Result<(CudaStorage, Shape)> {
    for_float!(
        "pooling",
        hidden.dtype(),
        simple_pool_of(hidden, layout, sequences, kind)
    )
}

fn simple_pool_of<T: Float>(
    hidden: &CudaStorage,
    layout: &Layout,
    sequences: &Sequences,
    kind: Pool,
) -> Result<(CudaStorage, Shape)> {
    const OP: &str = "pooling";
    let (_, width) = layout.shape().dims2()?;
    let count = sequences.count();
    let device = hidden.device();
    let hidden = view::<T>(OP, hidden, layout)?;
    let offsets = Operand::of(sequences.device_offsets());
    let offsets = offsets.view::<u32>(OP)?;
    let vector = vector(width, &[start::<T>(layout)]);
    let limit = match kind {
        Pool::Mean => i32::MAX,
        Pool::First => 1,
    };
    // SAFETY: the kernel writes a mean for every sequence.
    let out = unsafe { device.alloc::<f32>(count * width)? };
    let _span = profile::span(OP, device, 0.0, (hidden.len() * size_of::<T>()) as f64);
    // SAFETY: the arguments of `pool_mean` in pooling.cu; `pool` above checked the shapes.
    checked(unsafe {
        launch!(device, POOLING, name::<T>("pool_mean"), grid: (count, 1), threads: threads(width),
            (hidden, out.as_view(), offsets, int(OP, width)?, vector, limit))
    })?;
    Ok((
        CudaStorage::wrap_cuda_slice(out, device.clone()),
        Shape::from((count, width)),
    ))
}

/// Threads for one row of `width` in pieces of eight; the kernels loop over what is left.
fn threads(width: usize) -> usize {
    width.div_ceil(8).next_multiple_of(32).min(128)
}
