//! Matrix products of packed operands: rows times panels.
//!
//! The right operand is packed into *panels* of [`panel_width`] columns: `[words, width]`, so that the
//! inner loop reads it in order; a word is one, two or four neighbours along k, see [`Format`]. Rows of
//! the left operand are packed as `[chunk][tile][block][row][16]`: chunks of [`CHUNK`] words
//! along k, tiles of [`Simd::TILE_ROWS`] rows (the last may have fewer), blocks of [`LINE`] words. That
//! writes whole cache lines, no transposition, and gives a tile a contiguous piece of memory whatever
//! K is. Along k both are padded to whole blocks, the right operand with zeros.
//!
//! **Summation order.** An element of the product is a sum over groups of [`Format::GROUP`] words, in
//! order, of sums over the words in a group, in order, each begun at zero. That depends on K alone: never
//! on the number of rows, on a row's position, or on the tile that it falls into. Separate sums lose
//! less to rounding. Chunks are whole groups and exist for the caches: a panel's chunk is read from L1
//! for all tiles.

use super::format::Format;
use super::simd::{LINE, Simd};

/// Vectors side by side in a panel.
pub(super) const TILE_VECTORS: usize = 2;

/// Words along k of a panel that stay in the L1 cache while all rows go by.
pub(super) const CHUNK: usize = 256;

/// Columns in a panel of the right operand.
#[inline(always)]
pub(super) const fn panel_width<S: Simd>() -> usize {
    TILE_VECTORS * S::LANES
}

/// Groups that `k` values are cut into.
#[inline(always)]
pub(super) const fn groups<F: Format>(k: usize) -> usize {
    words::<F>(k).div_ceil(F::GROUP)
}

/// Words that `k` values are packed into: whole blocks.
#[inline(always)]
pub(super) const fn words<F: Format>(k: usize) -> usize {
    k.div_ceil(F::VALUES).next_multiple_of(LINE)
}

/// Packs `rows` rows of `k` values for [`multiply_panel`]; row `r` begins at `r * stride` in `from`.
///
/// `to` holds `rows * words(k)` words, `terms` `rows * groups(k) * ROW_TERMS` numbers.
#[expect(
    clippy::too_many_arguments,
    reason = "an inner loop's operands; a struct would only rename them"
)]
#[inline(always)]
pub(super) fn pack_rows<S: Simd, F: Format>(
    simd: S,
    _: F,
    from: &[f32],
    stride: usize,
    rows: usize,
    k: usize,
    to: &mut [f32],
    terms: &mut [f32],
) {
    const { assert!(CHUNK.is_multiple_of(F::GROUP) && F::GROUP.is_multiple_of(LINE)) };
    let (words, groups) = (words::<F>(k), groups::<F>(k));
    let lines = to[..rows * words].as_chunks_mut::<LINE>().0;
    for r in 0..rows {
        let row = &from[r * stride..][..k];
        let first = r / S::TILE_ROWS * S::TILE_ROWS;
        let tile_rows = S::TILE_ROWS.min(rows - first);
        for (group, values) in row.chunks(F::GROUP * F::VALUES).enumerate() {
            let terms = &mut terms[(r * groups + group) * F::ROW_TERMS..][..F::ROW_TERMS];
            F::row_terms(simd, values, terms);
            let begin = group * F::GROUP / CHUNK * CHUNK;
            let depth = CHUNK.min(words - begin);
            let tile = (begin * rows + first * depth) / LINE;
            let block = (group * F::GROUP - begin) / LINE;
            for (i, values) in values.chunks(F::VALUES * LINE).enumerate() {
                let line = &mut lines[tile + (block + i) * tile_rows + (r - first)];
                match F::whole(values) {
                    Some(whole) => F::pack(simd, whole, terms, line),
                    None => {
                        let mut padded = F::PADDING;
                        padded.as_mut()[..values.len()].copy_from_slice(values);
                        F::pack(simd, &padded, terms, line);
                    }
                }
            }
        }
    }
}

/// Multiplies packed rows with one panel.
///
/// `left` and `row_terms`: [`pack_rows`] of `rows` rows; `panel`: `[words, panel_width]`; `columns`:
/// `[groups, COLUMN_TERMS, panel_width]`; `sums`: `[rows, panel_width]`, which is overwritten.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn multiply_panel<S: Simd, F: Format>(
    simd: S,
    format: F,
    (left, row_terms): (&[f32], &[f32]),
    rows: usize,
    (panel, columns): (&[f32], &[f32]),
    sums: &mut [f32],
) {
    let width = panel_width::<S>();
    let k = panel.len() / width;
    let groups = k.div_ceil(F::GROUP);
    let (left, panel, sums) = (&left[..rows * k], &panel[..k * width], &mut sums[..rows * width]);
    let row_terms = &row_terms[..rows * groups * F::ROW_TERMS];
    let columns = &columns[..groups * F::COLUMN_TERMS * width];
    assert!(k.is_multiple_of(LINE));
    for begin in (0..k).step_by(CHUNK) {
        let depth = CHUNK.min(k - begin);
        let group = begin / F::GROUP;
        let panel = &panel[begin * width..][..depth * width];
        let columns = &columns[group * F::COLUMN_TERMS * width..][..depth.div_ceil(F::GROUP) * F::COLUMN_TERMS * width];
        let mut first = 0;
        while first < rows {
            let tile_rows = S::TILE_ROWS.min(rows - first);
            let tile = Tile {
                left: &left[begin * rows + first * depth..][..tile_rows * depth],
                panel,
                row_terms: &row_terms[first * groups * F::ROW_TERMS..][..tile_rows * groups * F::ROW_TERMS],
                columns,
                sums: &mut sums[first * width..][..tile_rows * width],
                group,
                groups,
            };
            // SAFETY: the slices have just been cut to the lengths that `Tile` states, `depth` is a whole
            // number of blocks because the panel's and CHUNK are, and `tile_rows` is the number of rows.
            unsafe { multiply_tile(simd, format, tile_rows, tile) };
            first += tile_rows;
        }
    }
}

/// One chunk of a tile of rows and a panel. With `depth` words in the chunk, a multiple of [`LINE`]:
struct Tile<'a> {
    /// `[depth / 16, rows, 16]`.
    left: &'a [f32],
    /// `[depth, panel_width]`.
    panel: &'a [f32],
    /// `[rows, groups, ROW_TERMS]`, of all chunks.
    row_terms: &'a [f32],
    /// `[groups of this chunk, COLUMN_TERMS, panel_width]`.
    columns: &'a [f32],
    /// `[rows, panel_width]`; overwritten by the first chunk, added to by the others.
    sums: &'a mut [f32],
    /// The chunk's first group, and how many groups there are in all chunks.
    group: usize,
    groups: usize,
}

/// Calls [`tile`] compiled for that number of rows.
///
/// # Safety
/// As for [`tile`]; `rows` is at most [`Simd::TILE_ROWS`].
#[inline(always)]
unsafe fn multiply_tile<S: Simd, F: Format>(simd: S, format: F, rows: usize, operands: Tile) {
    macro_rules! of_rows {
        ($($n:literal)*) => {
            match rows {
                // A tile larger than this instruction set's is not compiled.
                $($n if $n <= S::TILE_ROWS => {
                    // SAFETY: passed on to the caller.
                    unsafe { tile::<S, F, $n>(simd, format, operands) }
                })*
                _ => unreachable!("a tile has 1 to {} rows, found {rows}", S::TILE_ROWS),
            }
        };
    }
    of_rows!(1 2 3 4 5 6)
}

/// The rows of the largest tile of any instruction set.
const MAX_ROWS: usize = 6;

/// Adds the product of one tile's chunk to its sums.
///
/// # Safety
/// The slices of `operands` have the lengths that [`Tile`] states, with ROWS rows.
#[inline(always)]
unsafe fn tile<S: Simd, F: Format, const ROWS: usize>(simd: S, _: F, operands: Tile) {
    // Written out with constant indices: where the compiler is left to unroll a loop over the rows,
    // it keeps the sums in memory and reaches a third of the speed.
    macro_rules! for_each_row {
        (|$r:ident| $body:block) => {
            for_each_row!($r $body 0 1 2 3 4 5)
        };
        ($r:ident $body:block $($n:literal)*) => {
            $(if $n < ROWS {
                const $r: usize = $n;
                $body
            })*
        };
    }
    let width = panel_width::<S>();
    let mut blocks = operands.left.len() / (ROWS * LINE);
    let (mut left, mut panel) = (operands.left.as_ptr(), operands.panel.as_ptr());
    let (sums, mut columns) = (operands.sums.as_mut_ptr(), operands.columns.as_ptr());
    let mut total = [simd.splat(0.0); MAX_ROWS];
    let mut other_total = [simd.splat(0.0); MAX_ROWS];
    if S::TOTALS_IN_REGISTERS && operands.group > 0 {
        // SAFETY: the caller states that `sums` holds ROWS rows of TILE_VECTORS vectors.
        unsafe {
            for_each_row!(|R| {
                total[R] = simd.load_ptr(sums.add(R * width));
                other_total[R] = simd.load_ptr(sums.add(R * width + S::LANES));
            });
        }
    }
    // SAFETY: each of ROWS rows has terms for `groups` groups, of which `group` is one.
    let mut row_terms = unsafe { operands.row_terms.as_ptr().add(operands.group * F::ROW_TERMS) };
    let mut is_first = operands.group == 0;
    while blocks > 0 {
        let mut first = [simd.splat(0.0); MAX_ROWS];
        let mut second = [simd.splat(0.0); MAX_ROWS];
        let in_group = blocks.min(F::GROUP / LINE);
        for _ in 0..in_group {
            for word in 0..LINE {
                // SAFETY: the caller states that `panel` has a row of TILE_VECTORS vectors for each of LINE
                // words of all blocks, and `left` a word for each of ROWS rows; each is read once, in order.
                unsafe {
                    let right = (simd.load_ptr(panel), simd.load_ptr(panel.add(S::LANES)));
                    for_each_row!(|R| {
                        let x = simd.splat(*left.add(R * LINE + word));
                        first[R] = F::multiply_add(simd, x, right.0, first[R]);
                        second[R] = F::multiply_add(simd, x, right.1, second[R]);
                    });
                    panel = panel.add(width);
                }
            }
            // SAFETY: as above; after the last block it points to the end of `left`.
            left = unsafe { left.add(ROWS * LINE) };
        }
        blocks -= in_group;
        // SAFETY: the caller states that `columns` holds TILE_VECTORS vectors for each term of the chunk's
        // groups, `row_terms` the terms of `groups` groups for each of ROWS rows, and `sums` ROWS rows.
        unsafe {
            for_each_row!(|R| {
                let row = row_terms.wrapping_add(R * operands.groups * F::ROW_TERMS);
                let begin = sums.add(R * width);
                let (before, other_before) = if S::TOTALS_IN_REGISTERS {
                    (total[R], other_total[R])
                } else if is_first {
                    (simd.splat(0.0), simd.splat(0.0))
                } else {
                    (simd.load_ptr(begin), simd.load_ptr(begin.add(S::LANES)))
                };
                let one = F::settle(simd, first[R], before, row, columns, width);
                let other = F::settle(
                    simd,
                    second[R],
                    other_before,
                    row,
                    columns.wrapping_add(S::LANES),
                    width,
                );
                if S::TOTALS_IN_REGISTERS {
                    (total[R], other_total[R]) = (one, other);
                } else {
                    simd.store_ptr(one, begin);
                    simd.store_ptr(other, begin.add(S::LANES));
                }
            });
            is_first = false;
            columns = columns.add(F::COLUMN_TERMS * width);
            row_terms = row_terms.add(F::ROW_TERMS);
        }
    }
    if S::TOTALS_IN_REGISTERS {
        // SAFETY: as for reading `sums`.
        unsafe {
            for_each_row!(|R| {
                simd.store_ptr(total[R], sums.add(R * width));
                simd.store_ptr(other_total[R], sums.add(R * width + S::LANES));
            });
        }
    }
}
