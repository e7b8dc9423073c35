//! What a packed operand holds in each word, and how products of such words are summed.
//!
//! All formats share one layout and one loop, see [`super::gemm`]: a *word* has 32 bits and holds one
//! f32, two bf16 or four bytes that are neighbours along k, and a sum has 32 bits too.
//!
//! **int8.** A weight is `t q` with `q` from -127 to 127 and a scale `t` for each column; a value of a
//! row is `m + s q` with `q` from 0 to 255, `m` the row's least value and `s` a scale for each row. So
//! `sum x w = s t sum q_x q_w + m t sum q_w`, where the first sum is exact in i32 up to K = 66,000
//! and the second is known beforehand. Values need no zero of their own, so none of the 256 is lost.

use super::simd::{LINE, Simd};

pub(super) trait Format: Copy {
    /// Neighbours along k in a word.
    const VALUES: usize;
    /// Words along k whose products are summed before the sum is added to those before it; a multiple
    /// of [`LINE`].
    const CHUNK: usize;
    /// Numbers that go with a row of the left operand.
    const ROW_TERMS: usize;
    /// Numbers that go with a column of the right operand, the bias included.
    const COLUMN_TERMS: usize;
    /// [`Self::VALUES`] times [`LINE`].
    type Values: AsMut<[f32]> + Copy;

    /// Zeros, or whatever packs fastest: weights beyond K are zero.
    const PADDING: Self::Values;

    /// What packing a row and finishing its sums need to know of it.
    fn row_terms<S: Simd>(simd: S, row: &[f32], terms: &mut [f32]);

    /// Packs one line of a row of the left operand.
    fn pack<S: Simd>(simd: S, values: &Self::Values, terms: &[f32], line: &mut [f32; LINE]);

    /// The first values of `from`, if there are enough for a line.
    fn whole(from: &[f32]) -> Option<&Self::Values>;

    /// Packs a column of the right operand into words, to zeros beyond its end.
    /// `terms`: those of the column, of which the first is the bias and is left alone.
    fn pack_column(column: &[f32], words: &mut [f32], terms: &mut [f32]);

    /// `sum + x w` in each lane.
    fn multiply_add<S: Simd>(simd: S, x: S::V, w: S::V, sum: S::V) -> S::V;

    /// The sum of two sums.
    fn add<S: Simd>(simd: S, a: S::V, b: S::V) -> S::V;

    /// `x w + b` as f32. `row`: the row's terms; `columns`: `[COLUMN_TERMS, width]`, of which this is
    /// about the lanes from column `at` on.
    fn finish<S: Simd>(simd: S, sum: S::V, row: &[f32], columns: &[f32], width: usize, at: usize) -> S::V;
}

#[derive(Clone, Copy)]
pub(super) struct F32;

impl Format for F32 {
    const VALUES: usize = 1;
    /// Short, since separate sums round less.
    const CHUNK: usize = 32;
    const ROW_TERMS: usize = 0;
    const COLUMN_TERMS: usize = 1;
    type Values = [f32; LINE];
    const PADDING: Self::Values = [0.0; LINE];

    #[inline(always)]
    fn row_terms<S: Simd>(_: S, _: &[f32], _: &mut [f32]) {}

    #[inline(always)]
    fn pack<S: Simd>(_: S, values: &Self::Values, _: &[f32], line: &mut [f32; LINE]) {
        *line = *values;
    }

    #[inline(always)]
    fn whole(from: &[f32]) -> Option<&Self::Values> {
        from.first_chunk()
    }

    fn pack_column(column: &[f32], words: &mut [f32], _: &mut [f32]) {
        words[..column.len()].copy_from_slice(column);
        words[column.len()..].fill(0.0);
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, x: S::V, w: S::V, sum: S::V) -> S::V {
        simd.mul_add(x, w, sum)
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::V, b: S::V) -> S::V {
        simd.add(a, b)
    }

    #[inline(always)]
    fn finish<S: Simd>(simd: S, sum: S::V, _: &[f32], columns: &[f32], _: usize, at: usize) -> S::V {
        simd.add(sum, simd.load(&columns[at..]))
    }
}

#[derive(Clone, Copy)]
pub(super) struct Bf16;

impl Format for Bf16 {
    const VALUES: usize = 2;
    const CHUNK: usize = 256;
    const ROW_TERMS: usize = 0;
    const COLUMN_TERMS: usize = 1;
    type Values = [f32; 2 * LINE];
    const PADDING: Self::Values = [0.0; 2 * LINE];

    #[inline(always)]
    fn row_terms<S: Simd>(_: S, _: &[f32], _: &mut [f32]) {}

    #[inline(always)]
    fn pack<S: Simd>(simd: S, values: &Self::Values, _: &[f32], line: &mut [f32; LINE]) {
        simd.pack_bf16(values, line);
    }

    #[inline(always)]
    fn whole(from: &[f32]) -> Option<&Self::Values> {
        from.first_chunk()
    }

    fn pack_column(column: &[f32], words: &mut [f32], _: &mut [f32]) {
        let bits = |x: Option<&f32>| x.map_or(0, |&x| u32::from(half::bf16::from_f32(x).to_bits()));
        words.fill(0.0);
        for (word, pair) in words.iter_mut().zip(column.chunks(2)) {
            *word = f32::from_bits(bits(pair.first()) | bits(pair.get(1)) << 16);
        }
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, x: S::V, w: S::V, sum: S::V) -> S::V {
        simd.dot_bf16(x, w, sum)
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::V, b: S::V) -> S::V {
        simd.add(a, b)
    }

    #[inline(always)]
    fn finish<S: Simd>(simd: S, sum: S::V, row: &[f32], columns: &[f32], width: usize, at: usize) -> S::V {
        F32::finish(simd, sum, row, columns, width, at)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Int8;

impl Format for Int8 {
    const VALUES: usize = 4;
    const CHUNK: usize = 256;
    /// Scale and least value.
    const ROW_TERMS: usize = 2;
    /// Bias, scale, and scale times the sum of the column's bytes.
    const COLUMN_TERMS: usize = 3;
    type Values = [f32; 4 * LINE];
    const PADDING: Self::Values = [0.0; 4 * LINE];

    #[inline(always)]
    fn row_terms<S: Simd>(simd: S, row: &[f32], terms: &mut [f32]) {
        let first = row.first().copied().unwrap_or(0.0);
        let (mut least, mut most, mut sum) = (simd.splat(first), simd.splat(first), simd.splat(0.0));
        for piece in row.chunks(S::LANES) {
            let x = simd.load_or(piece, first);
            least = simd.min(x, least);
            most = simd.max(x, most);
            sum = simd.add(sum, x);
        }
        let (least, most) = (simd.smallest(least), simd.largest(most));
        let scale = (most - least) / 255.0;
        // What is not finite shows in the sum alone, and has to come through.
        let finite = simd.sum(sum).is_finite() && scale.is_finite();
        terms.copy_from_slice(&[if finite { scale } else { f32::NAN }, least]);
    }

    #[inline(always)]
    fn pack<S: Simd>(simd: S, values: &Self::Values, terms: &[f32], line: &mut [f32; LINE]) {
        let factor = if terms[0] > 0.0 { 1.0 / terms[0] } else { 0.0 };
        simd.pack_u8(values, terms[1], factor, line);
    }

    #[inline(always)]
    fn whole(from: &[f32]) -> Option<&Self::Values> {
        from.first_chunk()
    }

    fn pack_column(column: &[f32], words: &mut [f32], terms: &mut [f32]) {
        let most = column.iter().fold(0.0, |most: f32, w| most.max(w.abs()));
        let finite = column.iter().all(|w| w.is_finite());
        let scale = most / 127.0;
        let factor = if scale > 0.0 { 127.0 / most } else { 0.0 };
        let byte = |w: &f32| (w * factor).round_ties_even() as i8;
        let mut total = 0;
        words.fill(0.0);
        for (word, quad) in words.iter_mut().zip(column.chunks(4)) {
            let mut bytes = [0; 4];
            for (to, w) in bytes.iter_mut().zip(quad) {
                let q = byte(w);
                total += i32::from(q);
                *to = q.cast_unsigned();
            }
            *word = f32::from_bits(u32::from_le_bytes(bytes));
        }
        terms[1] = if finite { scale } else { f32::NAN };
        terms[2] = terms[1] * total as f32;
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, x: S::V, w: S::V, sum: S::V) -> S::V {
        simd.dot_u8_i8(x, w, sum)
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::V, b: S::V) -> S::V {
        simd.add_i32(a, b)
    }

    #[inline(always)]
    fn finish<S: Simd>(simd: S, sum: S::V, row: &[f32], columns: &[f32], width: usize, at: usize) -> S::V {
        let (scale, total) = (simd.load(&columns[width + at..]), simd.load(&columns[2 * width + at..]));
        let product = simd.mul(simd.from_i32(sum), scale);
        let offset = simd.mul_add(simd.splat(row[1]), total, simd.load(&columns[at..]));
        simd.mul_add(simd.splat(row[0]), product, offset)
    }
}
