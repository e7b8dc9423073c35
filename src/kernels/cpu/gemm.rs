//! Matrix products of packed operands: rows times panels.
//!
//! The right operand is packed into *panels* of [`panel_width`] columns: `[words, width]`, so that the
//! inner loop reads it in order; a word is one, two or four neighbours along k, see [`Format`]. Rows of
//! the left operand are packed as `[chunk][tile][block][row][16]`: chunks of [`Format::CHUNK`] words
//! along k, tiles of [`Simd::TILE_ROWS`] rows (the last may have fewer), blocks of [`LINE`] words. That
//! writes whole cache lines, no transposition, and gives a tile a contiguous piece of memory whatever
//! K is. Along k both are padded to whole blocks, the right operand with zeros.
//!
//! **Summation order.** An element of the product is a sum over chunks, in order, of sums over the words
//! in a chunk, in order, each begun at zero. That depends on K alone: never on the number of rows,
//! on a row's position, or on the tile that it falls into. Chunks exist for the caches (a panel's
//! chunk is read from L1 for all tiles), and their separate sums lose less to rounding.

use super::format::Format;
use super::simd::{LINE, Simd};

/// Vectors side by side in a panel.
pub(super) const TILE_VECTORS: usize = 2;

/// Columns in a panel of the right operand.
#[inline(always)]
pub(super) const fn panel_width<S: Simd>() -> usize {
    TILE_VECTORS * S::LANES
}

/// Words that `k` values are packed into: whole blocks.
#[inline(always)]
pub(super) const fn words<F: Format>(k: usize) -> usize {
    k.div_ceil(F::VALUES).next_multiple_of(LINE)
}

/// Packs `rows` rows of `k` values for [`multiply_panel`]; row `r` begins at `r * stride` in `from`.
///
/// `to` holds `rows * words(k)` words, `terms` `rows * ROW_TERMS` numbers.
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
    let words = words::<F>(k);
    let lines = to[..rows * words].as_chunks_mut::<LINE>().0;
    for r in 0..rows {
        let row = &from[r * stride..][..k];
        let terms = &mut terms[r * F::ROW_TERMS..][..F::ROW_TERMS];
        F::row_terms(simd, row, terms);
        let first = r / S::TILE_ROWS * S::TILE_ROWS;
        let tile_rows = S::TILE_ROWS.min(rows - first);
        let mut values = row.chunks(F::VALUES * LINE);
        for begin in (0..words).step_by(F::CHUNK) {
            let depth = F::CHUNK.min(words - begin);
            let tile = (begin * rows + first * depth) / LINE;
            for block in 0..depth / LINE {
                let line = &mut lines[tile + block * tile_rows + (r - first)];
                let piece = values.next().unwrap_or(&[]);
                match F::whole(piece) {
                    Some(whole) => F::pack(simd, whole, terms, line),
                    None => {
                        let mut padded = F::PADDING;
                        padded.as_mut()[..piece.len()].copy_from_slice(piece);
                        F::pack(simd, &padded, terms, line);
                    }
                }
            }
        }
    }
}

/// Multiplies packed rows with one panel.
///
/// `left`: [`pack_rows`] of `rows` rows, `panel`: `[words, panel_width]`, `sums`:
/// `[rows, panel_width]`, which is overwritten.
#[inline(always)]
pub(super) fn multiply_panel<S: Simd, F: Format>(
    simd: S,
    format: F,
    left: &[f32],
    rows: usize,
    panel: &[f32],
    sums: &mut [f32],
) {
    let width = panel_width::<S>();
    let k = panel.len() / width;
    let (left, panel, sums) = (&left[..rows * k], &panel[..k * width], &mut sums[..rows * width]);
    assert!(k.is_multiple_of(LINE));
    let mut begin = 0;
    while begin < k {
        let depth = F::CHUNK.min(k - begin);
        let panel = &panel[begin * width..][..depth * width];
        let mut first = 0;
        while first < rows {
            let tile_rows = S::TILE_ROWS.min(rows - first);
            let left = &left[begin * rows + first * depth..][..tile_rows * depth];
            let sums = &mut sums[first * width..][..tile_rows * width];
            // SAFETY: the three slices have just been cut to the lengths that `tile` asks for, `depth`
            // is a whole number of blocks because the panel's and CHUNK are, and `multiply_tile` is given
            // `tile_rows` as the number of rows.
            unsafe { multiply_tile(simd, format, tile_rows, left, panel, sums, begin == 0) };
            first += tile_rows;
        }
        begin += depth;
    }
}

/// Calls [`tile`] compiled for that number of rows.
///
/// # Safety
/// As for [`tile`]; `rows` is at most [`Simd::TILE_ROWS`].
#[inline(always)]
unsafe fn multiply_tile<S: Simd, F: Format>(
    simd: S,
    format: F,
    rows: usize,
    left: &[f32],
    panel: &[f32],
    sums: &mut [f32],
    fresh: bool,
) {
    macro_rules! of_rows {
        ($($n:literal)*) => {
            match rows {
                // A tile larger than this instruction set's is not compiled.
                $($n if $n <= S::TILE_ROWS => {
                    // SAFETY: passed on to the caller.
                    unsafe { tile::<S, F, $n>(simd, format, left, panel, sums, fresh) }
                })*
                _ => unreachable!("a tile has 1 to {} rows, found {rows}", S::TILE_ROWS),
            }
        };
    }
    of_rows!(1 2 3 4 5 6 7 8 9 10 11 12)
}

/// The rows of the largest tile of any instruction set.
const MAX_ROWS: usize = 12;

/// Adds the product of one tile's chunk to `sums`, or overwrites them where they are `fresh`.
///
/// # Safety
/// `panel` is `[depth, panel_width]` with `depth` a multiple of [`LINE`]; `left` holds
/// `ROWS * depth` values and `sums` `ROWS * panel_width`.
#[inline(always)]
unsafe fn tile<S: Simd, F: Format, const ROWS: usize>(
    simd: S,
    _: F,
    left: &[f32],
    panel: &[f32],
    sums: &mut [f32],
    fresh: bool,
) {
    // Written out with constant indices: where the compiler is left to unroll a loop over the rows,
    // it keeps the sums in memory and reaches a third of the speed.
    macro_rules! for_each_row {
        (|$r:ident| $body:block) => {
            for_each_row!($r $body 0 1 2 3 4 5 6 7 8 9 10 11)
        };
        ($r:ident $body:block $($n:literal)*) => {
            $(if $n < ROWS {
                const $r: usize = $n;
                $body
            })*
        };
    }
    let width = panel_width::<S>();
    let blocks = left.len() / (ROWS * LINE);
    let mut first = [simd.splat(0.0); MAX_ROWS];
    let mut second = [simd.splat(0.0); MAX_ROWS];
    let (mut left, mut panel) = (left.as_ptr(), panel.as_ptr());
    for _ in 0..blocks {
        for word in 0..LINE {
            // SAFETY: the caller states that `panel` has `blocks * LINE` rows of TILE_VECTORS vectors
            // and `left` `blocks * LINE` values for each of ROWS rows; each is read once, in order.
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
    let sums = sums.as_mut_ptr();
    // SAFETY: the caller states that `sums` holds ROWS rows of TILE_VECTORS vectors.
    unsafe {
        for_each_row!(|R| {
            let (to, other) = (sums.add(R * width), sums.add(R * width + S::LANES));
            if !fresh {
                first[R] = F::add(simd, simd.load_ptr(to), first[R]);
                second[R] = F::add(simd, simd.load_ptr(other), second[R]);
            }
            simd.store_ptr(first[R], to);
            simd.store_ptr(second[R], other);
        });
    }
}
