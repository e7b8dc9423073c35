//! Self-attention over packed sequences on the GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, bail};

use super::launch::{ATTENTION, Float, Operand, checked, int, launch, name, start, view};
use super::{WARPS, for_float, profile};
use crate::Sequences;

/// The widest head that the kernel for any width keeps in registers.
const WIDEST_HEAD: usize = 512;

/// [`crate::attention()`] on the GPU: tensor cores for 16-bit types and heads of 64, else a
/// kernel for any float type and heads up to 512 wide.
pub fn attention(
    qkv: &CudaStorage,
    layout: &Layout,
    sequences: &Sequences,
    heads: usize,
) -> Result<(CudaStorage, Shape)> {
    for_float!("attention", qkv.dtype(), attention_of(qkv, layout, sequences, heads))
}

fn attention_of<T: Float>(
    qkv: &CudaStorage,
    layout: &Layout,
    sequences: &Sequences,
    heads: usize,
) -> Result<(CudaStorage, Shape)> {
    const OP: &str = "attention";
    let (tokens, columns) = layout.shape().dims2()?;
    let hidden = columns / 3;
    let width = hidden / heads;
    let device = qkv.device();
    let tensor_cores = qkv.dtype() != DType::F32 && width == 64 && start::<T>(layout).is_multiple_of(16);
    let qkv = view::<T>(OP, qkv, layout)?;
    let offsets = Operand::of(sequences.device_offsets());
    let offsets = offsets.view::<u32>(OP)?;
    // SAFETY: the kernels write all tokens, since the offsets cover them.
    let out = unsafe { device.alloc::<T>(tokens * hidden)? };
    let scale = 1.0 / (width as f32).sqrt();
    let heads_i = int(OP, heads)?;
    let flops: f64 = sequences.ranges().map(|r| (r.len() * r.len()) as f64).sum::<f64>() * 4.0 * hidden as f64;
    let _span = profile::span(OP, device, flops, (4 * tokens * hidden * size_of::<T>()) as f64);
    // SAFETY: the arguments of the kernels in attention.cu. The offsets end at `tokens`, which
    // `attention` above compared with the tensor, and sequences are not empty.
    checked(unsafe {
        if tensor_cores {
            let grid = (sequences.count() * heads, sequences.max_len().div_ceil(64));
            launch!(device, ATTENTION, name::<T>("attention64"), grid: grid, threads: 128,
                (qkv, out.as_view(), offsets, heads_i, scale * std::f32::consts::LOG2_E))
        } else if width <= WIDEST_HEAD {
            let grid = ((tokens * heads).div_ceil(WARPS), 1);
            launch!(device, ATTENTION, name::<T>("attention"), grid: grid, threads: 32 * WARPS,
                (qkv, out.as_view(), offsets, int(OP, sequences.count())?, heads_i, int(OP, width)?, scale))
        } else {
            bail!("attention: heads are {width} wide, the GPU kernel takes at most {WIDEST_HEAD}")
        }
    })?;
    Ok((
        CudaStorage::wrap_cuda_slice(out, device.clone()),
        Shape::from((tokens, hidden)),
    ))
}
