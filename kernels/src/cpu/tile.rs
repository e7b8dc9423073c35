//! The innermost loop of [`super::gemm`]: a tile of a few rows times a chunk of a panel, or of two, its sums in registers.

use super::format::Format;
use super::operands::{AtOnce, panel_width};
use super::simd::{LINE, Simd};

/// One chunk of a tile of rows and of a panel, or of two. With `depth` words in the chunk, a multiple of [`LINE`]:
pub(super) struct Tile<'a> {
    /// `[depth / 16, rows, 16]`.
    pub left: &'a [f32],
    /// `[depth, panel_width]` each.
    pub panels: AtOnce<'a>,
    /// `[rows, groups, ROW_TERMS]`, of all chunks.
    pub row_terms: &'a [f32],
    /// `[groups of this chunk, COLUMN_TERMS, panel_width]` of each panel.
    pub columns: AtOnce<'a>,
    /// `[groups of this chunk, panel_width]`: what the only panel's sums begin with; has no meaning unless
    /// [`Format::has_beginning`].
    pub beginnings: &'a [f32],
    /// `[rows, panel_width]` of each panel; overwritten if `is_first`, else added to.
    pub sums: [&'a mut [f32]; 2],
    pub is_first: bool,
    /// The chunk's first group, and how many groups there are in all chunks.
    pub group: usize,
    pub groups: usize,
}

/// Calls [`tile`] compiled for that number of rows: for all panels if the tile is whole, else for one after the other,
/// since for each number of rows there is much to compile.
///
/// # Safety
/// As for [`tile`]; `rows` is at most [`Simd::TILE_ROWS`].
#[inline(always)]
pub(super) unsafe fn multiply_tile<S: Simd, F: Format, const PANELS: usize>(
    simd: S,
    format: F,
    rows: usize,
    operands: Tile,
) {
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
                // Four before the loop goes round: 1 or 2% faster than one by one.
                const { assert!(LINE.is_multiple_of(4)) };
                for word in (0..LINE).step_by(4) {
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
