//! Matrix products of packed operands: rows times panels, which lie in memory as [`super::operands`] says.
//!
//! **Summation order.** An element of the product is a sum over groups of [`Format::GROUP`] words, in
//! order, of sums over the words in a group, in order, each begun at zero, or at what products of integers, which
//! are exact in any order, fall short by. That depends on K alone: never on the number of rows, on a row's position,
//! or on the tile that it falls into. Separate sums lose less to rounding. Chunks are whole groups and exist for
//! the caches: a chunk of a panel, or of two that are multiplied at once, is read from L1 for all tiles.
//!
//! Where the machine multiplies whole tiles ([`Simd::TILES`]), a group's sums are its own to order; they depend
//! on a row and the group alone too.

use super::format::Format;
use super::operands::{AtOnce, Product, Sink, TILE_VECTORS, chunk, in_pairs, panel_width};
use super::simd::{LINE, MAX_LANES, Simd};
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

/// One chunk of a tile of rows and of a panel, or of two. With `depth` words in the chunk, a multiple of [`LINE`]:
struct Tile<'a> {
    /// `[depth / 16, rows, 16]`.
    left: &'a [f32],
    /// `[depth, panel_width]` each.
    panels: AtOnce<'a>,
    /// `[rows, groups, ROW_TERMS]`, of all chunks.
    row_terms: &'a [f32],
    /// `[groups of this chunk, COLUMN_TERMS, panel_width]` of each panel.
    columns: AtOnce<'a>,
    /// `[groups of this chunk, panel_width]`: what the only panel's sums begin with; has no meaning unless
    /// [`Format::has_beginning`].
    beginnings: &'a [f32],
    /// `[rows, panel_width]` of each panel; overwritten if `is_first`, else added to.
    sums: [&'a mut [f32]; 2],
    is_first: bool,
    /// The chunk's first group, and how many groups there are in all chunks.
    group: usize,
    groups: usize,
}

/// Calls [`tile`] compiled for that number of rows: for all panels if the tile is whole, else for one after the other,
/// since for each number of rows there is much to compile.
///
/// # Safety
/// As for [`tile`]; `rows` is at most [`Simd::TILE_ROWS`].
#[inline(always)]
unsafe fn multiply_tile<S: Simd, F: Format, const PANELS: usize>(simd: S, format: F, rows: usize, operands: Tile) {
    if const { PANELS == 2 } && rows == MAX_ROWS {
        // SAFETY: passed on to the caller.
        return unsafe { tile::<S, F, MAX_ROWS, 2>(simd, format, operands) };
    }
    macro_rules! of_rows {
        ($operands:expr, $($n:literal)*) => {
            match rows {
                // A tile larger than this instruction set's is not compiled.
                $($n if $n <= S::TILE_ROWS => {
                    // SAFETY: passed on to the caller.
                    unsafe { tile::<S, F, $n, 1>(simd, format, $operands) }
                })*
                _ => unreachable!("a tile has 1 to {} rows, found {rows}", S::TILE_ROWS),
            }
        };
    }
    let Tile {
        panels, columns, sums, ..
    } = operands;
    for (i, sums) in sums.into_iter().enumerate().take(PANELS) {
        let of_one = Tile {
            panels: [panels[i], &[]],
            columns: [columns[i], &[]],
            sums: [sums, &mut []],
            ..operands
        };
        of_rows!(of_one, 1 2 3 4 5 6);
    }
}

/// The rows of the largest tile of any instruction set.
const MAX_ROWS: usize = 6;

/// A row's group that has come to its end.
#[derive(Clone, Copy)]
struct Group {
    /// Its row terms.
    row: *const f32,
    width: usize,
    is_first: bool,
}

impl Group {
    /// `before` plus what `sum` stands for, in a vector of columns whose terms begin at `columns`.
    ///
    /// # Safety
    /// The row has ROW_TERMS terms, and there is a vector of column terms at each of COLUMN_TERMS multiples of `width`.
    #[inline(always)]
    unsafe fn settle<S: Simd, F: Format>(self, simd: S, _: F, sum: S::V, before: S::V, columns: *const f32) -> S::V {
        // SAFETY: passed on to the caller.
        unsafe { F::settle(simd, sum, before, self.row, F::column_terms(simd, columns, self.width)) }
    }

    /// [`Self::settle`] in memory: `sums` is overwritten if the group is the first, else added to.
    ///
    /// # Safety
    /// As for [`Self::settle`]; `sums` is valid for reading and writing a vector.
    #[inline(always)]
    unsafe fn add<S: Simd, F: Format>(self, simd: S, format: F, sum: S::V, columns: *const f32, sums: *mut f32) {
        // SAFETY: passed on to the caller.
        unsafe {
            let before = if self.is_first {
                simd.splat(0.0)
            } else {
                simd.load_ptr(sums)
            };
            simd.store_ptr(self.settle(simd, format, sum, before, columns), sums);
        }
    }
}

/// Words that a pair of panels is multiplied with before the loop goes round: 1 or 2% faster than one by one.
const WORDS_OF_PAIRS: usize = 4;

/// Adds the product of one tile's chunk to its sums.
///
/// # Safety
/// The slices of `operands` have the lengths that [`Tile`] states, with ROWS rows and PANELS panels, 1 or 2.
#[inline(always)]
unsafe fn tile<S: Simd, F: Format, const ROWS: usize, const PANELS: usize>(simd: S, format: F, operands: Tile) {
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
    let in_registers = S::TOTALS_IN_REGISTERS && PANELS == 1;
    let mut blocks = operands.panels[0].len() / (width * LINE);
    let [sums, sums_beside] = operands.sums.map(<[f32]>::as_mut_ptr);
    let (mut left, [mut panel, mut beside]) = (operands.left.as_ptr(), operands.panels.map(<[f32]>::as_ptr));
    let [mut columns, mut columns_beside] = operands.columns.map(<[f32]>::as_ptr);
    let mut total = [simd.splat(0.0); MAX_ROWS];
    let mut other_total = [simd.splat(0.0); MAX_ROWS];
    if in_registers && !operands.is_first {
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
        let mut third = [simd.splat(0.0); MAX_ROWS];
        let mut fourth = [simd.splat(0.0); MAX_ROWS];
        let in_group = blocks.min(F::GROUP / LINE);
        for _ in 0..in_group {
            macro_rules! multiply_word {
                ($word:expr) => {
                    // SAFETY: the caller states that each panel has a row of TILE_VECTORS vectors for each of LINE
                    // words of all blocks, and `left` a word for each of ROWS rows; each is read once, in order.
                    unsafe {
                        let right = (simd.load_ptr(panel), simd.load_ptr(panel.add(S::LANES)));
                        let other = if PANELS == 2 {
                            (simd.load_ptr(beside), simd.load_ptr(beside.add(S::LANES)))
                        } else {
                            right
                        };
                        for_each_row!(|R| {
                            let x = simd.splat(*left.add(R * LINE + $word));
                            first[R] = F::multiply_add(simd, x, right.0, first[R]);
                            second[R] = F::multiply_add(simd, x, right.1, second[R]);
                            if PANELS == 2 {
                                third[R] = F::multiply_add(simd, x, other.0, third[R]);
                                fourth[R] = F::multiply_add(simd, x, other.1, fourth[R]);
                            }
                        });
                        panel = panel.add(width);
                        if PANELS == 2 {
                            beside = beside.add(width);
                        }
                    }
                };
            }
            if PANELS == 2 {
                const { assert!(LINE.is_multiple_of(WORDS_OF_PAIRS)) };
                for word in (0..LINE).step_by(WORDS_OF_PAIRS) {
                    multiply_word!(word);
                    multiply_word!(word + 1);
                    multiply_word!(word + 2);
                    multiply_word!(word + 3);
                }
            } else {
                for word in 0..LINE {
                    multiply_word!(word);
                }
            }
            // SAFETY: as above; after the last block it points to the end of `left`.
            left = unsafe { left.add(ROWS * LINE) };
        }
        blocks -= in_group;
        // SAFETY: the caller states that `columns` holds TILE_VECTORS vectors for each term of the chunk's
        // groups, `beginnings` as many for each group, `row_terms` the terms of `groups` groups for each of ROWS
        // rows, and `sums` ROWS rows; what is beside them as much where there are two panels.
        unsafe {
            for_each_row!(|R| {
                let row = row_terms.wrapping_add(R * operands.groups * F::ROW_TERMS);
                let group = Group { row, width, is_first };
                if in_registers {
                    total[R] = group.settle(simd, format, first[R], total[R], columns);
                    other_total[R] =
                        group.settle(simd, format, second[R], other_total[R], columns.wrapping_add(S::LANES));
                } else {
                    let at = sums.add(R * width);
                    group.add(simd, format, first[R], columns, at);
                    group.add(
                        simd,
                        format,
                        second[R],
                        columns.wrapping_add(S::LANES),
                        at.add(S::LANES),
                    );
                }
                if PANELS == 2 {
                    let at = sums_beside.add(R * width);
                    group.add(simd, format, third[R], columns_beside, at);
                    group.add(
                        simd,
                        format,
                        fourth[R],
                        columns_beside.wrapping_add(S::LANES),
                        at.add(S::LANES),
                    );
                }
            });
            is_first = false;
            columns = columns.add(F::COLUMN_TERMS * width);
            if PANELS == 2 {
                columns_beside = columns_beside.add(F::COLUMN_TERMS * width);
            }
            beginnings = beginnings.add(width);
            row_terms = row_terms.add(F::ROW_TERMS);
        }
    }
    if in_registers {
        // SAFETY: as for reading `sums`.
        unsafe {
            for_each_row!(|R| {
                simd.store_ptr(total[R], sums.add(R * width));
                simd.store_ptr(other_total[R], sums.add(R * width + S::LANES));
            });
        }
    }
}
