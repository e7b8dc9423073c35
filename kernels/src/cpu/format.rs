//! What a packed operand holds in each word, and how products of such words are summed.
//!
//! All formats share one layout and one loop, see [`super::gemm`]: a *word* has 32 bits and holds one
//! f32, two bf16 or four bytes that are neighbours along k, and a sum has 32 bits too.
//!
//! **Split f32.** Where the machine multiplies whole tiles of bf16 many times as fast as vectors of f32, an f32 is
//! written as the sum of three bf16, `x = h + m + l`, each the rest of those before it rounded: 24 bits of
//! significand in three times 8, so that nothing is left over (Henry, Tang and Heinecke, arXiv:1904.06376). Of the
//! nine products of two such sums six are computed; `m l`, `l m` and `l l` are together at most about
//! 2^-24 of the whole, as much as f32 rounds. Three *planes* of words then follow one another, block by block. Denormal parts count as
//! zero, so below 2^-103 bits are lost, and what rounds to no finite bf16 (from 3.39e38 on) is not finite.
//!
//! **int8.** Both operands are cut along k into groups, and each group of a row or a column has a scale
//! of its own, since the largest of few values is smaller than that of many. A weight is `t q` with `q`
//! from -127 to 127; a value of a row is `m + s q` with `q` from 0 to 255 and `m` the least value of the
//! group. So within a group `sum x w = s t sum q_x q_w + m t sum q_w`, where the first sum is exact in
//! i32 and the second is known beforehand. Zero needs no byte of its own, so none of the 256 is lost.

use super::detect::Kernel;
use super::simd::{LINE, Operands, Simd, Task};
use crate::Precision;

pub(super) trait Format: Copy + Sync {
    /// Neighbours along k in a word.
    const VALUES: usize;
    /// Lines of words that the same [`Self::VALUES`] times [`LINE`] neighbours fill.
    const PLANES: usize = 1;
    /// Whether values lose more than half of their bits in it; so do a layer's results then, which the next one packs.
    const IS_COARSE: bool;
    /// Words along k, of all planes, whose products are summed before the sum is added to those before it; a
    /// multiple of [`LINE`] that divides [`Self::CHUNK`].
    const GROUP: usize;
    /// Words along k of a panel that stay in the L1 cache while all rows go by, unless panels are [`Self::PAIRED`].
    const CHUNK: usize = 256;
    /// Where two panels are multiplied at once: each word of the left operand is then read half as often.
    const PAIRED: Paired = Paired::Nowhere;
    /// What a machine that multiplies whole tiles takes the words for.
    const OPERANDS: Operands;
    /// Numbers that go with each group of a row of the left operand.
    const ROW_TERMS: usize;
    /// Numbers that go with each group of a column of the right operand.
    const COLUMN_TERMS: usize;
    /// [`Self::VALUES`] times [`LINE`].
    type Values: AsMut<[f32]> + Copy;

    /// Runs `task` compiled for the instructions that `kernel` has for this format.
    fn run<T: Task>(kernel: Kernel, task: T) -> T::Output;

    /// Zeros, or whatever packs fastest: weights beyond K are zero.
    const PADDING: Self::Values;

    /// What packing a group of a row and settling its sums need to know of it; nothing unless there are terms.
    #[inline(always)]
    fn row_terms<S: Simd>(_: S, _: &[f32], _: &mut [f32]) {}

    /// Packs the same values of a row of the left operand into a line of each plane: `lines[0]`, and so on at every
    /// `stride`; `terms` are those of their group.
    fn pack<S: Simd>(simd: S, values: &Self::Values, terms: &[f32], lines: &mut [[f32; LINE]], stride: usize);

    /// The first values of `from`, if there are enough for a line.
    fn whole(from: &[f32]) -> Option<&Self::Values>;

    /// [`Self::pack`] of as many values or fewer, padded.
    #[inline(always)]
    fn pack_some<S: Simd>(simd: S, values: &[f32], terms: &[f32], lines: &mut [[f32; LINE]], stride: usize) {
        match Self::whole(values) {
            Some(whole) => Self::pack(simd, whole, terms, lines, stride),
            None => {
                let mut padded = Self::PADDING;
                padded.as_mut()[..values.len()].copy_from_slice(values);
                Self::pack(simd, &padded, terms, lines, stride);
            }
        }
    }

    /// Packs a group of a column of the right operand into words, zeros beyond its end, and sets its terms. Without
    /// terms both operands are packed alike.
    #[inline(always)]
    fn pack_column<S: Simd>(simd: S, group: &[f32], words: &mut [f32], _: &mut [f32]) {
        words.fill(0.0);
        let lines = words.as_chunks_mut::<LINE>().0.chunks_mut(Self::PLANES);
        for (values, lines) in group.chunks(Self::VALUES * LINE).zip(lines) {
            Self::pack_some(simd, values, &[], lines, 1);
        }
    }

    /// Whether a group's sums begin with something else than zero.
    #[inline(always)]
    fn has_beginning<S: Simd>() -> bool {
        false
    }

    /// `sum` plus the part of a column's words `w` in what its group's sums begin with.
    #[inline(always)]
    fn beginning<S: Simd>(_: S, _w: S::V, sum: S::V) -> S::V {
        sum
    }

    /// `sum + x w` in each lane, of formats with one plane.
    fn multiply_add<S: Simd>(simd: S, x: S::V, w: S::V, sum: S::V) -> S::V;

    /// A vector of each of a group's column terms, as [`Self::settle`] takes them: `[COLUMN_TERMS, width]`, read from these
    /// lanes' first column on.
    ///
    /// # Safety
    /// `from` must be valid for reading a vector at each of `COLUMN_TERMS` multiples of `width`.
    #[inline(always)]
    unsafe fn column_terms<S: Simd>(simd: S, _: *const f32, _: usize) -> [S::V; 2] {
        [simd.splat(0.0); 2]
    }

    /// `before` plus what a group's sum stands for, as f32: itself, unless there are terms. `row`: the group's row terms.
    ///
    /// # Safety
    /// `row` must be valid for reading `ROW_TERMS` values.
    #[inline(always)]
    unsafe fn settle<S: Simd>(simd: S, sum: S::V, before: S::V, _: *const f32, _: [S::V; 2]) -> S::V {
        simd.add(before, sum)
    }
}

/// See [`Format::PAIRED`].
#[derive(Clone, Copy)]
pub(super) enum Paired {
    Nowhere,
    /// With [`Simd::PAIRS`].
    WherePairsFit,
    /// And with [`Simd::BYTE_DOTS`].
    ByByteDots,
}

#[derive(Clone, Copy)]
pub(super) struct F32;

impl Format for F32 {
    const VALUES: usize = 1;
    const IS_COARSE: bool = false;
    /// Short, since separate sums round less.
    const GROUP: usize = 32;
    const PAIRED: Paired = Paired::WherePairsFit;
    const OPERANDS: Operands = Operands::None;
    const ROW_TERMS: usize = 0;
    const COLUMN_TERMS: usize = 0;
    type Values = [f32; LINE];
    const PADDING: Self::Values = [0.0; LINE];

    fn run<T: Task>(kernel: Kernel, task: T) -> T::Output {
        kernel.run(task)
    }

    #[inline(always)]
    fn pack<S: Simd>(_: S, values: &Self::Values, _: &[f32], lines: &mut [[f32; LINE]], _: usize) {
        lines[0] = *values;
    }

    #[inline(always)]
    fn whole(from: &[f32]) -> Option<&Self::Values> {
        from.first_chunk()
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, x: S::V, w: S::V, sum: S::V) -> S::V {
        simd.mul_add(x, w, sum)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Bf16;

impl Format for Bf16 {
    const VALUES: usize = 2;
    const IS_COARSE: bool = true;
    const GROUP: usize = 256;
    const OPERANDS: Operands = Operands::Bf16;
    const ROW_TERMS: usize = 0;
    const COLUMN_TERMS: usize = 0;
    type Values = [f32; 2 * LINE];
    const PADDING: Self::Values = [0.0; 2 * LINE];

    /// Tiles for dot products of bytes have too few registers left where those of bf16 are emulated.
    fn run<T: Task>(kernel: Kernel, task: T) -> T::Output {
        kernel.run_with_bf16_dots(task)
    }

    #[inline(always)]
    fn pack<S: Simd>(simd: S, values: &Self::Values, _: &[f32], lines: &mut [[f32; LINE]], _: usize) {
        simd.pack_bf16(values, &mut lines[0]);
    }

    #[inline(always)]
    fn whole(from: &[f32]) -> Option<&Self::Values> {
        from.first_chunk()
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, x: S::V, w: S::V, sum: S::V) -> S::V {
        simd.dot_bf16(x, w, sum)
    }
}

/// f32 as three bf16, for machines that multiply whole tiles; see above.
#[derive(Clone, Copy)]
pub(super) struct SplitF32;

impl Format for SplitF32 {
    const VALUES: usize = 2;
    const IS_COARSE: bool = false;
    const PLANES: usize = 3;
    /// 64 values in three planes: separate sums round less.
    const GROUP: usize = 96;
    const CHUNK: usize = 96;
    const OPERANDS: Operands = Operands::SplitF32;
    const ROW_TERMS: usize = 0;
    const COLUMN_TERMS: usize = 0;
    type Values = [f32; 2 * LINE];
    const PADDING: Self::Values = [0.0; 2 * LINE];

    fn run<T: Task>(kernel: Kernel, task: T) -> T::Output {
        kernel.run_with_tiles(task)
    }

    #[inline(always)]
    fn pack<S: Simd>(simd: S, values: &Self::Values, _: &[f32], lines: &mut [[f32; LINE]], stride: usize) {
        let mut rest = *values;
        for plane in 0..Self::PLANES {
            let line = &mut lines[plane * stride];
            simd.pack_bf16(&rest, line);
            if plane + 1 < Self::PLANES {
                simd.subtract_bf16(line, &mut rest);
            }
        }
    }

    #[inline(always)]
    fn whole(from: &[f32]) -> Option<&Self::Values> {
        from.first_chunk()
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(_: S, _: S::V, _: S::V, _: S::V) -> S::V {
        unreachable!("products of split f32 are those of whole tiles")
    }
}

#[derive(Clone, Copy)]
pub(super) struct Int8;

impl Format for Int8 {
    const VALUES: usize = 4;
    const IS_COARSE: bool = true;
    /// 256 values share a scale.
    const GROUP: usize = 64;
    /// What emulates a dot product takes the registers.
    const PAIRED: Paired = Paired::ByByteDots;
    const OPERANDS: Operands = Operands::Bytes;
    /// Scale and least value.
    const ROW_TERMS: usize = 2;
    /// Scale, and scale times the sum of the group's bytes.
    const COLUMN_TERMS: usize = 2;
    type Values = [f32; 4 * LINE];
    const PADDING: Self::Values = [0.0; 4 * LINE];

    fn run<T: Task>(kernel: Kernel, task: T) -> T::Output {
        kernel.run_with_byte_dots(task)
    }

    #[inline(always)]
    fn row_terms<S: Simd>(simd: S, group: &[f32], terms: &mut [f32]) {
        let first = group.first().copied().unwrap_or(0.0);
        let (mut least, mut most, mut sum) = (simd.splat(first), simd.splat(first), simd.splat(0.0));
        for piece in group.chunks(S::LANES) {
            let x = simd.load_or(piece, first);
            least = simd.min(x, least);
            most = simd.max(x, most);
            sum = simd.add(sum, x);
        }
        let (least, most) = (simd.smallest(least), simd.largest(most));
        let scale = (most - least) / 255.0;
        // What is not finite shows in the sum alone, and has to come through; so, as not finite, does a sum too large for f32.
        let finite = simd.sum(sum).is_finite() && scale.is_finite();
        terms.copy_from_slice(&[if finite { scale } else { f32::NAN }, least]);
    }

    #[inline(always)]
    fn pack<S: Simd>(simd: S, values: &Self::Values, terms: &[f32], lines: &mut [[f32; LINE]], _: usize) {
        // Of a scale that is denormal there is no finite inverse.
        let factor = if terms[0] >= f32::MIN_POSITIVE {
            1.0 / terms[0]
        } else {
            0.0
        };
        simd.pack_u8(values, terms[1], factor, &mut lines[0]);
    }

    #[inline(always)]
    fn whole(from: &[f32]) -> Option<&Self::Values> {
        from.first_chunk()
    }

    #[inline(always)]
    fn pack_column<S: Simd>(_: S, group: &[f32], words: &mut [f32], terms: &mut [f32]) {
        let most = group.iter().fold(0.0, |most: f32, w| most.max(w.abs()));
        let finite = group.iter().all(|w| w.is_finite());
        let scale = most / 127.0;
        // As in `pack`.
        let factor = if scale >= f32::MIN_POSITIVE { 127.0 / most } else { 0.0 };
        let byte = |w: &f32| (w * factor).round_ties_even() as i8;
        let mut total = 0;
        words.fill(0.0);
        for (word, quad) in words.iter_mut().zip(group.chunks(4)) {
            let mut bytes = [0; 4];
            for (to, w) in bytes.iter_mut().zip(quad) {
                let q = byte(w);
                total += i32::from(q);
                *to = q.cast_unsigned();
            }
            *word = f32::from_bits(u32::from_le_bytes(bytes));
        }
        let scale = if finite { scale } else { f32::NAN };
        terms.copy_from_slice(&[scale, scale * total as f32]);
    }

    #[inline(always)]
    fn has_beginning<S: Simd>() -> bool {
        S::DOTS_FALL_SHORT
    }

    #[inline(always)]
    fn beginning<S: Simd>(simd: S, w: S::V, sum: S::V) -> S::V {
        simd.shortfall_u8_i8(w, sum)
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, x: S::V, w: S::V, sum: S::V) -> S::V {
        simd.dot_u8_i8(x, w, sum)
    }

    #[inline(always)]
    unsafe fn column_terms<S: Simd>(simd: S, from: *const f32, width: usize) -> [S::V; 2] {
        // SAFETY: the caller states that both terms of the columns can be read.
        unsafe { [simd.load_ptr(from), simd.load_ptr(from.add(width))] }
    }

    #[inline(always)]
    unsafe fn settle<S: Simd>(
        simd: S,
        sum: S::V,
        before: S::V,
        row: *const f32,
        [column_scale, total]: [S::V; 2],
    ) -> S::V {
        // SAFETY: the caller states that both terms of the row can be read.
        let (scale, least) = unsafe { (simd.splat(*row), simd.splat(*row.add(1))) };
        let offset = simd.mul_add(least, total, before);
        simd.mul_add(simd.mul(simd.i32_to_f32(sum), column_scale), scale, offset)
    }
}

/// Work that is compiled once for each format.
pub(super) trait WithFormat {
    type Output;

    fn run<F: Format>(self, format: F) -> Self::Output;
}

/// Runs `task` with the format in which `kernel` computes products in `precision`, which must not be f16.
pub(super) fn with_format<T: WithFormat>(kernel: Kernel, precision: Precision, task: T) -> T::Output {
    match precision {
        Precision::F32 if kernel.has_tiles() => task.run(SplitF32),
        Precision::F32 => task.run(F32),
        Precision::Bf16 => task.run(Bf16),
        Precision::Int8 => task.run(Int8),
        Precision::F16 => unreachable!("the CPU does not compute in f16"),
    }
}
