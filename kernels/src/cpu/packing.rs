//! Right operands to panels for [`super::gemm`]: weights as the checkpoint has them, `[N, K]`, and activations.

use std::marker::PhantomData;

use candle_core::{CpuStorage, DType, Result, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::buffer::{AlignedBuffer, Scratch, with_scratch};
use super::detect::Kernel;
use super::format::{Bf16, F32, Format, WithFormat};
use super::operands::{group_values, groups, panel_width, words};
use super::simd::{LINE, Simd, Task};

/// Packs `weight`, `[N, K]` of any float type, into panels `[words, width]` of its rows, and
/// writes `[groups, COLUMN_TERMS, width]` for each panel. Columns beyond N and k beyond K are zero.
pub(super) struct PackPanels<'a> {
    pub kernel: Kernel,
    pub weight: &'a Tensor,
    pub width: usize,
    pub columns: &'a mut [f32],
}

impl WithFormat for PackPanels<'_> {
    type Output = Result<AlignedBuffer>;

    fn run<F: Format>(self, _: F) -> Result<AlignedBuffer> {
        pack::<F>(self)
    }
}

fn pack<F: Format>(
    PackPanels {
        kernel,
        weight,
        width,
        columns,
    }: PackPanels,
) -> Result<AlignedBuffer> {
    let (n, k) = weight.dims2()?;
    let mut packed = AlignedBuffer::zeroed(n.div_ceil(width) * width * words::<F>(k));
    let panels = Panels {
        kernel,
        k,
        width,
        words: packed.as_mut_slice(),
        columns,
    };
    let weight = match weight.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => weight.contiguous()?,
        _ => weight.to_dtype(DType::F32)?.contiguous()?,
    };
    let (storage, layout) = weight.storage_and_layout();
    let elements = layout.start_offset()..layout.start_offset() + n * k;
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => panels.fill::<F, _>(&values[elements], |x: f32| x),
        Storage::Cpu(CpuStorage::F16(values)) => panels.fill::<F, _>(&values[elements], f16::to_f32),
        Storage::Cpu(CpuStorage::BF16(values)) => panels.fill::<F, _>(&values[elements], bf16::to_f32),
        _ => candle_core::bail!("packing: expected a float tensor on the CPU, found {weight:?}"),
    }
    Ok(packed)
}

struct Panels<'a> {
    kernel: Kernel,
    k: usize,
    width: usize,
    words: &'a mut [f32],
    columns: &'a mut [f32],
}

impl Panels<'_> {
    /// Spread over rayon's threads: this happens once, when a model is loaded, and waits for memory.
    fn fill<F: Format, T: Copy + Sync>(self, weight: &[T], to_f32: impl Fn(T) -> f32 + Sync) {
        let Self { kernel, k, width, .. } = self;
        let (words, groups) = (words::<F>(k), groups::<F>(k));
        // Without terms there is nothing to cut, so they are cut by hand.
        let terms = width * groups * F::COLUMN_TERMS;
        let mut columns: Vec<&mut [f32]> = Vec::new();
        let mut rest = self.columns;
        for _ in 0..(weight.len() / k).div_ceil(width) {
            let (first, after) = rest.split_at_mut(terms);
            columns.push(first);
            rest = after;
        }
        weight
            .par_chunks(width * k)
            .zip(self.words.par_chunks_mut(width * words))
            .zip(columns)
            .for_each(|((weight, panel), columns)| {
                with_scratch(|scratch| {
                    let pack = PackPanel {
                        k,
                        width,
                        weight,
                        to_f32: &to_f32,
                        panel,
                        columns,
                        scratch,
                    };
                    F::run(kernel, (PhantomData::<F>, pack));
                });
            });
    }
}

/// One panel, by the calling thread.
struct PackPanel<'a, T, C> {
    k: usize,
    width: usize,
    /// `[width, k]`, or fewer rows.
    weight: &'a [T],
    to_f32: C,
    panel: &'a mut [f32],
    columns: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl<F: Format, T: Copy, C: Fn(T) -> f32> Task for (PhantomData<F>, PackPanel<'_, T, C>) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PackPanel {
            k,
            width,
            weight,
            to_f32,
            panel,
            columns,
            scratch,
        } = self.1;
        let count = weight.len() / k;
        if F::VALUES == 1 {
            interleave(count, |n| &weight[n * k..][..k], width, panel, to_f32);
            return;
        }
        let words = words::<F>(k);
        let packed = scratch.product.left.scratch(count * words);
        let column = scratch.product.sums.scratch(k);
        let mut terms = vec![0.0; F::COLUMN_TERMS];
        for (n, (weight, packed)) in weight.chunks_exact(k).zip(packed.chunks_exact_mut(words)).enumerate() {
            column.iter_mut().zip(weight).for_each(|(to, &w)| *to = to_f32(w));
            let pieces = column.chunks(group_values::<F>()).zip(packed.chunks_mut(F::GROUP));
            for (group, (values, words)) in pieces.enumerate() {
                F::pack_column(simd, values, words, &mut terms);
                for (i, &term) in terms.iter().enumerate() {
                    columns[(group * F::COLUMN_TERMS + i) * width + n] = term;
                }
            }
        }
        interleave(count, |n| &packed[n * words..][..words], width, panel, |word: f32| word);
    }
}

/// Formats without terms, in which activations are packed as a right operand too: `[words, panel_width]`, zeros beyond the last
/// column and beyond the last value along k.
///
/// Implementations must be `#[inline(always)]`, as everything beneath a task.
pub(super) trait RightOperand: Format {
    /// A panel of `count` columns, each of which lies in a row. `room` has as many words as the panel.
    fn pack_transposed<'a, S: Simd>(
        simd: S,
        count: usize,
        column: impl Fn(usize) -> &'a [f32],
        room: &mut [f32],
        panel: &mut [f32],
    );

    /// A panel of `k` rows.
    fn pack_straight<'a, S: Simd>(simd: S, k: usize, row: impl Fn(usize) -> &'a [f32], panel: &mut [f32]);
}

impl RightOperand for F32 {
    #[inline(always)]
    fn pack_transposed<'a, S: Simd>(
        _: S,
        count: usize,
        column: impl Fn(usize) -> &'a [f32],
        _: &mut [f32],
        panel: &mut [f32],
    ) {
        let width = panel_width::<S>();
        if count < width || column(0).len() * width < panel.len() {
            panel.fill(0.0);
        }
        interleave(count, column, width, panel, |value: f32| value);
    }

    #[inline(always)]
    fn pack_straight<'a, S: Simd>(_: S, k: usize, row: impl Fn(usize) -> &'a [f32], panel: &mut [f32]) {
        let (whole, rest) = panel.split_at_mut(panel_width::<S>() * k);
        for (n, to) in whole.chunks_exact_mut(panel_width::<S>()).enumerate() {
            let row = row(n);
            let (values, beyond) = to.split_at_mut(row.len());
            values.copy_from_slice(row);
            beyond.fill(0.0);
        }
        rest.fill(0.0);
    }
}

impl RightOperand for Bf16 {
    #[inline(always)]
    fn pack_transposed<'a, S: Simd>(
        simd: S,
        count: usize,
        column: impl Fn(usize) -> &'a [f32],
        room: &mut [f32],
        panel: &mut [f32],
    ) {
        let width = panel_width::<S>();
        let words = panel.len() / width;
        let (packed, beyond) = room[..panel.len()].split_at_mut(count * words);
        for (n, to) in packed.chunks_exact_mut(words).enumerate() {
            Self::pack_column(simd, column(n), to, &mut []);
        }
        beyond.fill(0.0);
        for first in (0..width).step_by(LINE) {
            for begin in (0..words).step_by(LINE) {
                let (from, to) = (&room[first * words + begin..], &mut panel[begin * width + first..]);
                simd.transpose(from, words, to, width);
            }
        }
    }

    #[inline(always)]
    fn pack_straight<'a, S: Simd>(simd: S, k: usize, row: impl Fn(usize) -> &'a [f32], panel: &mut [f32]) {
        let width = panel_width::<S>();
        for (word, to) in panel.chunks_exact_mut(width).enumerate() {
            let row = |n| if n < k { row(n) } else { &[] };
            let (even, odd) = (row(2 * word), row(2 * word + 1));
            for (j, to) in to.chunks_exact_mut(S::LANES).enumerate() {
                let vector = |row: &[f32]| simd.load_or(row.get(j * S::LANES..).unwrap_or(&[]), 0.0);
                simd.store(simd.pair_bf16(vector(even), vector(odd)), to);
            }
        }
    }
}

/// Columns read at once: with more, columns whose distance is a power of two push each other out of the L1 cache.
const COLUMNS_AT_ONCE: usize = 8;

/// Lays `count` columns side by side: `to[i * width + n] = column(n)[i]`. All have the same length.
#[inline(always)]
fn interleave<'a, T: Copy + 'a>(
    count: usize,
    column: impl Fn(usize) -> &'a [T],
    width: usize,
    to: &mut [f32],
    to_f32: impl Fn(T) -> f32,
) {
    let mut first = 0;
    while first + COLUMNS_AT_ONCE <= count {
        let columns: [&[T]; COLUMNS_AT_ONCE] = std::array::from_fn(|j| column(first + j));
        let k = columns.iter().map(|c| c.len()).min().unwrap_or(0);
        for (i, row) in to.chunks_exact_mut(width).take(k).enumerate() {
            for (to, column) in row[first..first + COLUMNS_AT_ONCE].iter_mut().zip(&columns) {
                *to = to_f32(column[i]);
            }
        }
        first += COLUMNS_AT_ONCE;
    }
    for n in first..count {
        for (row, &value) in to.chunks_exact_mut(width).zip(column(n)) {
            row[n] = to_f32(value);
        }
    }
}
