//! Weights as the checkpoint has them, `[N, K]`, to panels for [`super::gemm`].

use candle_core::{CpuStorage, DType, Result, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::buffer::AlignedBuffer;
use super::gemm::{padded, panel_width};
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
            interleave(columns.len() / k, |n| &columns[n * k..][..k], width, panel, &to_f32);
        });
}

/// Columns read at once: with more, columns whose distance is a power of two push each other out of the L1 cache.
const GROUP: usize = 8;

/// Lays `count` columns side by side: `to[i * width + n] = column(n)[i]`. All have the same length.
#[inline(always)]
pub(super) fn interleave<'a, T: Copy + 'a>(
    count: usize,
    column: impl Fn(usize) -> &'a [T],
    width: usize,
    to: &mut [f32],
    to_f32: impl Fn(T) -> f32,
) {
    let mut first = 0;
    while first + GROUP <= count {
        let columns: [&[T]; GROUP] = std::array::from_fn(|j| column(first + j));
        let k = columns.iter().map(|c| c.len()).min().unwrap_or(0);
        for (i, row) in to.chunks_exact_mut(width).take(k).enumerate() {
            for (to, column) in row[first..first + GROUP].iter_mut().zip(&columns) {
                *to = to_f32(column[i]);
            }
        }
        first += GROUP;
    }
    for n in first..count {
        for (row, &value) in to.chunks_exact_mut(width).zip(column(n)) {
            row[n] = to_f32(value);
        }
    }
}
