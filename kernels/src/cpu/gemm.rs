//! Matrix products of packed operands: rows times panels, which lie in memory as [`super::operands`] says.
//!
//! **Summation order.** An element of the product is a sum over groups of [`Format::GROUP`] words, in
//! order, of sums over the words in a group, in order, each begun at zero, or at what products of integers, which
//! are exact in any order, fall short by. That depends on K alone: never on the number of rows, on a row's position,
//! or on the tile that it falls into. Separate sums lose less to rounding. Chunks are whole groups and exist for
//! the caches: a panel's chunk is read from L1 for all tiles.
//!
//! Where the machine multiplies whole tiles ([`Simd::TILES`]), a group's sums are its own to order; they depend
//! on a row and the group alone too.

use super::format::Format;
use super::operands::{Product, Sink, TILE_VECTORS, beyond, panel_width};
use super::simd::{LINE, MAX_LANES, Simd};
use super::whole_tiles::multiply_whole_tiles;

/// Leaves them where they are.
struct Leave;

impl Sink for Leave {
    #[inline(always)]
    fn put<S: Simd>(&mut self, _: S, _: usize, _: &[f32]) {}
}

/// Multiplies packed rows with one panel; the result is in [`Product::sums`].
#[inline(always)]
pub(super) fn multiply_panel<S: Simd, F: Format>(simd: S, format: F, product: Product<'_>) {
    multiply(simd, format, product, None::<&mut Leave>);
}

/// Multiplies packed rows with one panel, the last segment of it; the result goes to `sink`, and
/// [`Product::sums`] has no meaning afterwards.
#[inline(always)]
pub(super) fn multiply_panel_into<S: Simd, F: Format>(simd: S, format: F, product: Product<'_>, sink: &mut impl Sink) {
    multiply(simd, format, product, Some(sink));
}

#[inline(always)]
fn multiply<S: Simd, F: Format>(simd: S, format: F, product: Product<'_>, sink: Option<&mut impl Sink>) {
    let Product { rows, is_first, .. } = product;
    let width = panel_width::<S>();
    const { assert!(F::CHUNK / F::GROUP <= MAX_GROUPS) };
    let k = product.panel.len() / width;
    let groups = k.div_ceil(F::GROUP);
    assert!(k.is_multiple_of(LINE));
    // Cut to what is used: too short a slice ends here.
    let product = Product {
        left: &product.left[..rows * k + beyond::<S>()],
        row_terms: &product.row_terms[..rows * groups * F::ROW_TERMS],
        panel: &product.panel[..k * width],
        columns: &product.columns[..groups * F::COLUMN_TERMS * width],
        sums: &mut product.sums[..rows * width],
        ..product
    };
    if S::TILES {
        return multiply_whole_tiles(simd, format, product, sink);
    }
    let mut beginnings = [0.0; MAX_GROUPS * TILE_VECTORS * MAX_LANES];
    for begin in (0..k).step_by(F::CHUNK) {
        let depth = F::CHUNK.min(k - begin);
        let (panel, after) = product.panel[begin * width..].split_at(depth * width);
        let next = if after.is_empty() { product.next } else { after };
        let mut ahead = Ahead::new::<S>(next, F::CHUNK * width, rows);
        if F::has_beginning::<S>() {
            for (group, to) in panel.chunks(F::GROUP * width).zip(beginnings.chunks_mut(width)) {
                begin_group(simd, format, group, to);
            }
        }
        let (group, in_chunk) = (begin / F::GROUP, depth.div_ceil(F::GROUP));
        let columns = &product.columns[group * F::COLUMN_TERMS * width..];
        for first in (0..rows).step_by(S::TILE_ROWS) {
            let tile_rows = S::TILE_ROWS.min(rows - first);
            ahead.ask(simd);
            let tile = Tile {
                left: &product.left[begin * rows + first * depth..][..tile_rows * depth],
                panel,
                row_terms: &product.row_terms[first * groups * F::ROW_TERMS..][..tile_rows * groups * F::ROW_TERMS],
                columns: &columns[..in_chunk * F::COLUMN_TERMS * width],
                beginnings: &beginnings[..in_chunk * width],
                sums: &mut product.sums[first * width..][..tile_rows * width],
                group,
                groups,
                is_first: is_first && begin == 0,
            };
            // SAFETY: the slices have just been cut to the lengths that `Tile` states, `depth` is a whole
            // number of blocks because the panel's and CHUNK are, and `tile_rows` is the number of rows.
            unsafe { multiply_tile(simd, format, tile_rows, tile) }
        }
    }
    if let Some(sink) = sink {
        sink.put(simd, 0, product.sums);
    }
}

/// The most groups in a chunk of any format.
const MAX_GROUPS: usize = 8;

/// What the sums of each column of a group begin with.
#[inline(always)]
fn begin_group<S: Simd, F: Format>(simd: S, _: F, group: &[f32], to: &mut [f32]) {
    let mut sums = [simd.splat(0.0); TILE_VECTORS];
    for words in group.chunks_exact(panel_width::<S>()) {
        for (sum, w) in sums.iter_mut().zip(words.chunks_exact(S::LANES)) {
            *sum = F::beginning(simd, simd.load(w), *sum);
        }
    }
    for (sum, to) in sums.into_iter().zip(to.chunks_exact_mut(S::LANES)) {
        simd.store(sum, to);
    }
}

/// What is multiplied next, asked for from memory bit by bit while tiles of rows go by: its first tile reads all of it,
/// faster than memory gives it.
struct Ahead<'a> {
    rest: &'a [f32],
    /// Words at each tile.
    share: usize,
}

impl<'a> Ahead<'a> {
    /// The first `most` words of `next` while `rows` rows go by.
    #[inline(always)]
    fn new<S: Simd>(next: &'a [f32], most: usize, rows: usize) -> Self {
        let rest = &next[..next.len().min(most)];
        let tiles = rows.div_ceil(S::TILE_ROWS).max(1);
        let share = rest.len().div_ceil(tiles).next_multiple_of(LINE);
        Self { rest, share }
    }

    #[inline(always)]
    fn ask<S: Simd>(&mut self, simd: S) {
        let (now, later) = self.rest.split_at(self.share.min(self.rest.len()));
        now.chunks(LINE).for_each(|line| simd.prefetch(line.as_ptr()));
        self.rest = later;
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
    /// `[groups of this chunk, panel_width]`: what sums begin with; has no meaning unless [`Format::has_beginning`].
    beginnings: &'a [f32],
    /// `[rows, panel_width]`; overwritten if `is_first`, else added to.
    sums: &'a mut [f32],
    is_first: bool,
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
    let mut blocks = operands.panel.len() / (width * LINE);
    let (mut left, mut panel) = (operands.left.as_ptr(), operands.panel.as_ptr());
    let (sums, mut columns) = (operands.sums.as_mut_ptr(), operands.columns.as_ptr());
    let mut total = [simd.splat(0.0); MAX_ROWS];
    let mut other_total = [simd.splat(0.0); MAX_ROWS];
    if S::TOTALS_IN_REGISTERS && !operands.is_first {
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
    let mut is_first = operands.is_first;
    let mut beginnings = operands.beginnings.as_ptr();
    while blocks > 0 {
        let (beginning, other_beginning) = if F::has_beginning::<S>() {
            // SAFETY: the caller states that `beginnings` holds TILE_VECTORS vectors for each of the chunk's groups.
            unsafe { (simd.load_ptr(beginnings), simd.load_ptr(beginnings.add(S::LANES))) }
        } else {
            (simd.splat(0.0), simd.splat(0.0))
        };
        let mut first = [beginning; MAX_ROWS];
        let mut second = [other_beginning; MAX_ROWS];
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
        // groups, `beginnings` as many for each group, `row_terms` the terms of `groups` groups for each of ROWS
        // rows, and `sums` ROWS rows.
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
                let terms = F::column_terms(simd, columns, width);
                let one = F::settle(simd, first[R], before, row, terms);
                let terms = F::column_terms(simd, columns.wrapping_add(S::LANES), width);
                let other = F::settle(simd, second[R], other_before, row, terms);
                if S::TOTALS_IN_REGISTERS {
                    (total[R], other_total[R]) = (one, other);
                } else {
                    simd.store_ptr(one, begin);
                    simd.store_ptr(other, begin.add(S::LANES));
                }
            });
            is_first = false;
            columns = columns.add(F::COLUMN_TERMS * width);
            beginnings = beginnings.add(width);
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
