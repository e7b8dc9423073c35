//! What products are made of: packed rows, panels, how they lie in memory, and where results go.
//!
//! The right operand is packed into *panels* of [`panel_width`] columns: `[words, width]`, so that the
//! inner loop reads it in order; a word is one, two or four neighbours along k, see [`Format`]. Rows of
//! the left operand are packed as `[chunk][tile][block][row][16]`: chunks of [`chunk`] words
//! along k, tiles of [`Simd::TILE_ROWS`] rows (the last may have fewer), blocks of [`LINE`] words. That
//! writes whole cache lines, no transposition, and gives a tile a contiguous piece of memory whatever
//! K is. Along k both are padded to whole blocks, the right operand with zeros.

use std::ops::Range;

use super::buffer::AlignedBuffer;
use super::format::{Format, Paired};
use super::simd::{LINE, Simd, WHOLE_TILE_ROWS};

/// Vectors side by side in a panel.
pub(super) const TILE_VECTORS: usize = 2;

/// Columns in a panel of the right operand.
#[inline(always)]
pub(super) const fn panel_width<S: Simd>() -> usize {
    TILE_VECTORS * S::LANES
}

/// Whether two panels are multiplied at once.
#[inline(always)]
pub(super) const fn in_pairs<S: Simd, F: Format>() -> bool {
    match F::PAIRED {
        Paired::Nowhere => false,
        Paired::WherePairsFit => S::PAIRS,
        Paired::ByByteDots => S::PAIRS && S::BYTE_DOTS,
    }
}

/// Panels that are multiplied at once where `panels` are left to be.
#[inline(always)]
pub(super) const fn at_once<S: Simd, F: Format>(panels: usize) -> usize {
    if in_pairs::<S, F>() && panels > 1 { 2 } else { 1 }
}

/// Words along k of one panel, or of two, that stay in the L1 cache while all rows go by; whole groups.
#[inline(always)]
pub(super) const fn chunk<S: Simd, F: Format>() -> usize {
    /// Of two panels of vectors of 16 they fill 16 KiB. With twice as many, or half, products take 2 or 3% longer.
    const OF_PAIRS: usize = 64;
    const { assert!(F::CHUNK.is_multiple_of(F::GROUP)) };
    if in_pairs::<S, F>() {
        OF_PAIRS.next_multiple_of(F::GROUP)
    } else {
        F::CHUNK
    }
}

/// Groups that `k` values are cut into.
#[inline(always)]
pub(super) const fn groups<F: Format>(k: usize) -> usize {
    words::<F>(k).div_ceil(F::GROUP)
}

/// Words that `k` values are packed into: whole blocks of every plane.
#[inline(always)]
pub(super) const fn words<F: Format>(k: usize) -> usize {
    k.div_ceil(F::VALUES).next_multiple_of(LINE) * F::PLANES
}

/// Values of a group.
#[inline(always)]
pub(super) const fn group_values<F: Format>() -> usize {
    F::GROUP / F::PLANES * F::VALUES
}

/// Words that [`PackedRows`] wants room for. Whole tiles are read to their last row, whether it is there or not.
#[inline(always)]
const fn packed_rows<S: Simd, F: Format>(rows: usize, k: usize) -> usize {
    rows * words::<F>(k) + beyond::<S>()
}

/// Words that may be read beyond the last row of a tile.
#[inline(always)]
pub(super) const fn beyond<S: Simd>() -> usize {
    if S::TILES { WHOLE_TILE_ROWS * LINE } else { 0 }
}

/// Rows of the left operand, packed or to be packed.
pub(super) struct PackedRows<'a> {
    /// [`packed_rows`] words.
    pub words: &'a mut [f32],
    /// `[rows, groups(k), ROW_TERMS]`.
    pub terms: &'a mut [f32],
    pub rows: usize,
    /// Values of a row.
    k: usize,
}

impl<'a> PackedRows<'a> {
    /// Room for `rows` rows of `k` values; what it holds has no meaning, or is what was packed there last.
    #[inline(always)]
    pub fn new<S: Simd, F: Format>(
        left: &'a mut AlignedBuffer,
        terms: &'a mut AlignedBuffer,
        rows: usize,
        k: usize,
    ) -> Self {
        Self {
            words: left.scratch(packed_rows::<S, F>(rows, k)),
            terms: terms.scratch(rows * groups::<F>(k) * F::ROW_TERMS),
            rows,
            k,
        }
    }

    /// Packs the values `columns` of all rows; row `r` has them at `r * stride` in `from`.
    ///
    /// `columns` begins at a whole line of words, and where groups have terms at a whole group; it ends so too,
    /// or at `k`.
    #[inline(always)]
    pub fn pack<S: Simd, F: Format>(&mut self, simd: S, _: F, from: &[f32], stride: usize, columns: Range<usize>) {
        const { assert!(F::GROUP.is_multiple_of(F::PLANES * LINE)) };
        let (rows, words, groups) = (self.rows, words::<F>(self.k), groups::<F>(self.k));
        let chunk = chunk::<S, F>();
        let group_values = group_values::<F>();
        let lines = self.words[..rows * words].as_chunks_mut::<LINE>().0;
        for r in 0..rows {
            let row = &from[r * stride..][..columns.len()];
            let first = r / S::TILE_ROWS * S::TILE_ROWS;
            let tile_rows = S::TILE_ROWS.min(rows - first);
            let mut at = columns.start;
            while at < columns.end {
                let group = at / group_values;
                let end = columns.end.min((group + 1) * group_values);
                let values = &row[at - columns.start..end - columns.start];
                let terms = &mut self.terms[(r * groups + group) * F::ROW_TERMS..][..F::ROW_TERMS];
                F::row_terms(simd, values, terms);
                let begin = group * F::GROUP / chunk * chunk;
                let depth = chunk.min(words - begin);
                let tile = (begin * rows + first * depth) / LINE;
                let in_group = (at - group * group_values) / (F::VALUES * LINE) * F::PLANES;
                let block = (group * F::GROUP - begin) / LINE + in_group;
                for (i, values) in values.chunks(F::VALUES * LINE).enumerate() {
                    let lines = &mut lines[tile + (block + i * F::PLANES) * tile_rows + (r - first)..];
                    F::pack_some(simd, values, terms, lines, tile_rows);
                }
                at = end;
            }
        }
    }
}

/// Packed rows times one panel or two, or a segment of all along k.
pub(super) struct Product<'a> {
    /// [`PackedRows::words`] of `rows` rows.
    pub left: &'a [f32],
    pub row_terms: &'a [f32],
    pub rows: usize,
    /// `[words, panel_width]` each.
    pub panels: AtOnce<'a>,
    /// `[groups, COLUMN_TERMS, panel_width]` of each panel.
    pub columns: AtOnce<'a>,
    /// `[panels, rows, panel_width]`, which is overwritten if `is_first`, else added to.
    pub sums: &'a mut [f32],
    pub is_first: bool,
    /// What will be multiplied after these panels: asked for from memory meanwhile.
    pub next: AtOnce<'a>,
}

/// Of each panel that is multiplied [at once](at_once); empty for the second where there is one.
pub(super) type AtOnce<'a> = [&'a [f32]; 2];

impl<'a> Product<'a> {
    /// Of words without terms, all along k.
    pub fn plain(rows: &'a PackedRows, panel: &'a [f32], sums: &'a mut [f32]) -> Self {
        Self {
            left: rows.words,
            row_terms: &[],
            rows: rows.rows,
            panels: [panel, &[]],
            columns: [&[], &[]],
            sums,
            is_first: true,
            next: [&[], &[]],
        }
    }
}

/// Where sums go once nothing is to be added to them.
///
/// Implementations must be `#[inline(always)]`, as everything beneath a task.
pub(super) trait Sink {
    /// Takes the sums of a product's `panel`th panel and of rows from `first` on: `[rows, panel_width]`.
    fn put<S: Simd>(&mut self, simd: S, panel: usize, first: usize, sums: &[f32]);
}
