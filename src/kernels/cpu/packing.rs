//! Weights as the checkpoint has them, `[N, K]`, to panels for [`super::gemm`].

use candle_core::{CpuStorage, DType, Result, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::buffer::AlignedBuffer;
use super::gemm::{BLOCK, padded, panel_width};
use super::simd::{Simd, Task};

/// Packs `weight`, `[N, K]` of any float type, into panels `[padded(K), panel_width]` of its rows.
/// Columns beyond N and k beyond K are zero.
pub(super) struct PackPanels<'a> {
    pub weight: &'a Tensor,
}

impl Task for PackPanels<'_> {
    type Output = Result<AlignedBuffer>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Result<AlignedBuffer> {
        pack(simd, self.weight)
    }
}

fn pack<S: Simd>(_: S, weight: &Tensor) -> Result<AlignedBuffer> {
    let (n, k) = weight.dims2()?;
    let width = panel_width::<S>();
    let mut packed = AlignedBuffer::zeroed(n.div_ceil(width) * width * padded(k));
    let panels = packed.as_mut_slice();
    let weight = match weight.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => weight.contiguous()?,
        _ => weight.to_dtype(DType::F32)?.contiguous()?,
    };
    let (storage, layout) = weight.storage_and_layout();
    let elements = layout.start_offset()..layout.start_offset() + n * k;
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => pack_values(&values[elements], k, width, panels, |x: f32| x),
        Storage::Cpu(CpuStorage::F16(values)) => pack_values(&values[elements], k, width, panels, f16::to_f32),
        Storage::Cpu(CpuStorage::BF16(values)) => pack_values(&values[elements], k, width, panels, bf16::to_f32),
        _ => candle_core::bail!("packing: expected a float tensor on the CPU, found {weight:?}"),
    }
    Ok(packed)
}

/// Spread over rayon's threads: this happens once, when a model is loaded, and waits for memory.
fn pack_values<T: Copy + Sync>(
    weight: &[T],
    k: usize,
    width: usize,
    panels: &mut [f32],
    to_f32: impl Fn(T) -> f32 + Sync,
) {
    let columns = weight.par_chunks(width * k);
    columns
        .zip(panels.par_chunks_mut(width * padded(k)))
        .for_each(|(columns, panel)| {
            // A block of k at a time: one cache line of each column in, BLOCK rows of the panel out.
            for (b, block) in panel.chunks_exact_mut(width * BLOCK).enumerate() {
                let begin = b * BLOCK;
                for (n, column) in columns.chunks_exact(k).enumerate() {
                    for (i, &value) in column[begin..k.min(begin + BLOCK)].iter().enumerate() {
                        block[i * width + n] = to_f32(value);
                    }
                }
            }
        });
}
