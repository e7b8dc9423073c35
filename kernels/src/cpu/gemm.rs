//! Matrix products of packed operands: rows times panels, which lie in memory as [`super::operands`] says.
//!
//! **Summation order.** An element of the product is a sum over groups of [`Format::GROUP`] words, in
//! order, of sums over the words in a group, in order. Each group's sum starts at zero, or, where the integer dot
//! product has a known shortfall, at that correction. That depends on K alone: never on the number of rows, on a row's position,
//! or on the tile that it falls into. Separate sums lose less to rounding. Chunks are whole groups and exist for
//! the caches: a chunk of a panel, or of two that are multiplied at once, is read from L1 for all tiles.
//!
//! Where the machine multiplies whole tiles ([`Simd::TILES`]), a group's sums are its own to order; they depend
//! on a row and the group alone too.

use super::format::Format;
use super::operands::{AtOnce, Product, Sink, TILE_VECTORS, chunk, in_pairs, panel_width};
use super::simd::{LINE, MAX_LANES, Simd};
use super::tile::{Tile, multiply_tile};
use super::whole_tiles::multiply_whole_tiles;

/// Multiplies packed rows with one panel, or with two; the result is in [`Product::sums`].
#[inline(always)]
pub(super) fn multiply_panels<S: Simd, F: Format>(simd: S, format: F, product: &mut Product<'_>) {
    if const { S::TILES } {
        return multiply_whole_tiles(simd, format, product, None::<&mut Leave>);
    }
    // `const`, so that nothing is compiled of what never runs.
    if const { in_pairs::<S, F>() } && !product.panels[1].is_empty() {
        return multiply_tiles::<S, F, 2>(simd, format, product);
    }
    multiply_tiles::<S, F, 1>(simd, format, product);
}

/// Multiplies packed rows with one panel, or with two, the last segment of them; the result goes to `sink`, and
/// [`Product::sums`] has no meaning afterwards.
#[inline(always)]
pub(super) fn multiply_panels_into<S: Simd, F: Format>(
    simd: S,
    format: F,
    mut product: Product<'_>,
    sink: &mut impl Sink,
) {
    if const { S::TILES } {
        return multiply_whole_tiles(simd, format, &mut product, Some(sink));
    }
    multiply_panels(simd, format, &mut product);
    put_sums(simd, &product, sink);
}

/// Gives `sink` what [`multiply_panels`] has left in [`Product::sums`].
#[inline(always)]
pub(super) fn put_sums<S: Simd>(simd: S, product: &Product<'_>, sink: &mut impl Sink) {
    let of_panel = product.rows * panel_width::<S>();
    let panels = if product.panels[1].is_empty() { 1 } else { 2 };
    for panel in 0..panels {
        sink.put(simd, panel, 0, &product.sums[panel * of_panel..][..of_panel]);
    }
}

/// Leaves sums where they are.
struct Leave;

impl Sink for Leave {
    #[inline(always)]
    fn put<S: Simd>(&mut self, _: S, _: usize, _: usize, _: &[f32]) {}
}

/// [`multiply_panels`] for PANELS panels, tile by tile.
#[inline(always)]
fn multiply_tiles<S: Simd, F: Format, const PANELS: usize>(simd: S, format: F, product: &mut Product<'_>) {
    let Product { rows, is_first, .. } = *product;
    const { assert!(chunk::<S, F>() / F::GROUP <= MAX_GROUPS) };
    let (width, chunk) = (panel_width::<S>(), chunk::<S, F>());
    let k = product.panels[0].len() / width;
    let groups = k.div_ceil(F::GROUP);
    assert!(k.is_multiple_of(LINE));
    // Cut to what is used: too short a slice ends here.
    let product = Product {
        left: &product.left[..rows * k],
        row_terms: &product.row_terms[..rows * groups * F::ROW_TERMS],
        panels: of_each::<PANELS>(|i| &product.panels[i][..k * width]),
        columns: of_each::<PANELS>(|i| &product.columns[i][..groups * F::COLUMN_TERMS * width]),
        sums: &mut product.sums[..PANELS * rows * width],
        ..*product
    };
    let mut beginnings = [0.0; MAX_GROUPS * TILE_VECTORS * MAX_LANES];
    for begin in (0..k).step_by(chunk) {
        let depth = chunk.min(k - begin);
        let words = begin * width..(begin + depth) * width;
        let panels = of_each::<PANELS>(|i| &product.panels[i][words.clone()]);
        let after = of_each::<PANELS>(|i| &product.panels[i][words.end..]);
        let next = if after[0].is_empty() { product.next } else { after };
        let mut ahead = Ahead::new::<S>(next, chunk * width, rows);
        if F::has_beginning::<S>() {
            for (group, to) in panels[0].chunks(F::GROUP * width).zip(beginnings.chunks_mut(width)) {
                begin_group(simd, format, group, to);
            }
        }
        let (group, in_chunk) = (begin / F::GROUP, depth.div_ceil(F::GROUP));
        let terms = group * F::COLUMN_TERMS * width..(group + in_chunk) * F::COLUMN_TERMS * width;
        let columns = of_each::<PANELS>(|i| &product.columns[i][terms.clone()]);
        let (sums, sums_beside) = product.sums.split_at_mut(rows * width);
        for first in (0..rows).step_by(S::TILE_ROWS) {
            let tile_rows = S::TILE_ROWS.min(rows - first);
            ahead.ask(simd);
            let mut tile = Tile {
                left: &product.left[begin * rows + first * depth..][..tile_rows * depth],
                panels,
                row_terms: &product.row_terms[first * groups * F::ROW_TERMS..][..tile_rows * groups * F::ROW_TERMS],
                columns,
                beginnings: &beginnings[..in_chunk * width],
                sums: [&mut sums[first * width..][..tile_rows * width], &mut []],
                group,
                groups,
                is_first: is_first && begin == 0,
            };
            if PANELS == 2 {
                tile.sums[1] = &mut sums_beside[first * width..][..tile_rows * width];
            }
            // SAFETY: the slices have just been cut to the lengths that `Tile` states, `depth` is a whole
            // number of blocks because the panels' and `chunk` are, and `tile_rows` is the number of rows.
            unsafe { multiply_tile::<S, F, PANELS>(simd, format, tile_rows, tile) }
        }
    }
}

/// What `of` gives for each of PANELS panels.
#[inline(always)]
fn of_each<'a, const PANELS: usize>(of: impl Fn(usize) -> &'a [f32]) -> AtOnce<'a> {
    [of(0), if PANELS == 2 { of(1) } else { &[] }]
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
    rest: AtOnce<'a>,
    /// Words at each tile.
    share: [usize; 2],
}

impl<'a> Ahead<'a> {
    /// The first `most` words of each of `next` while `rows` rows go by.
    #[inline(always)]
    fn new<S: Simd>(next: AtOnce<'a>, most: usize, rows: usize) -> Self {
        let rest = next.map(|words| &words[..words.len().min(most)]);
        let tiles = rows.div_ceil(S::TILE_ROWS).max(1);
        let share = rest.map(|words| words.len().div_ceil(tiles).next_multiple_of(LINE));
        Self { rest, share }
    }

    #[inline(always)]
    fn ask<S: Simd>(&mut self, simd: S) {
        for (rest, share) in self.rest.iter_mut().zip(self.share) {
            let (now, later) = rest.split_at(share.min(rest.len()));
            now.chunks(LINE).for_each(|line| simd.prefetch(line.as_ptr()));
            *rest = later;
        }
    }
}
