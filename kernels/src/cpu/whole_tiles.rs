//! [`super::gemm`]'s products where the machine multiplies whole tiles: a group's sums of 32 rows and one panel at once.

use super::format::Format;
use super::operands::{Product, Sink, TILE_VECTORS, beyond, panel_width};
use super::simd::{LINE, Simd, TileProduct, Tiles};

/// One group of a tile of rows.
#[derive(Clone, Copy)]
struct Step {
    /// The tile's first row.
    first: usize,
    rows: usize,
    group: usize,
}

/// Multiplies packed rows with one panel. The result goes to `sink` if there is one, else to [`Product::sums`].
#[inline(always)]
pub(super) fn multiply_whole_tiles<S: Simd, F: Format>(
    simd: S,
    format: F,
    product: &mut Product<'_>,
    mut sink: Option<&mut impl Sink>,
) {
    let (rows, words) = (product.rows, product.panels[0].len() / panel_width::<S>());
    assert!(S::TILES);
    // A tile without a block in each plane would be read without end.
    assert!(words > 0 && words.is_multiple_of(LINE * F::PLANES));
    let mut sums = TileProduct::zeros();
    for begin in (0..words).step_by(F::CHUNK) {
        let groups = begin / F::GROUP..words.min(begin + F::CHUNK).div_ceil(F::GROUP);
        for first in (0..rows).step_by(S::TILE_ROWS) {
            let rows = S::TILE_ROWS.min(rows - first);
            for group in groups.clone() {
                let step = Step { first, rows, group };
                multiply_group::<S, F>(simd, product, step, &mut sums);
                settle(simd, format, product, step, &mut sums, sink.as_deref_mut());
            }
        }
    }
}

/// The sums of a group of a tile.
#[inline(always)]
fn multiply_group<S: Simd, F: Format>(simd: S, product: &Product, step: Step, to: &mut TileProduct) {
    let width = panel_width::<S>();
    let [whole, _] = product.panels;
    let words = whole.len() / width;
    let begin = step.group * F::GROUP;
    let chunk = begin / F::CHUNK * F::CHUNK;
    let depth = F::CHUNK.min(words - chunk);
    let blocks = F::GROUP.min(words - begin) / LINE;
    let left = &product.left[chunk * product.rows + step.first * depth + (begin - chunk) * step.rows..];
    let panel = &whole[begin * width..];
    let next = if chunk + depth == words {
        product.next[0]
    } else {
        &whole[(chunk + depth) * width..]
    };
    let blocks_before = step.first / S::TILE_ROWS * (depth / LINE) + (begin - chunk) / LINE;
    let ahead = next[..next.len().min(F::CHUNK * width)].get(blocks_before * F::OPERANDS.ahead()..);
    let tiles = Tiles {
        operands: F::OPERANDS,
        rows: step.rows,
        blocks,
        left: left[..blocks * step.rows * LINE + beyond::<S>()].as_ptr(),
        right: panel[..blocks * LINE * width].as_ptr(),
        ahead: ahead.filter(|words| !words.is_empty()).unwrap_or(panel).as_ptr(),
    };
    // SAFETY: the lines above cut both operands to what is read, whole blocks of all planes, as `multiply_whole_tiles` has
    // checked, and that there are tiles; `simd` is proof that the machine has their instructions.
    unsafe { simd.multiply_tiles(tiles, to) }
}

/// Adds what a group's sums stand for to those of the groups before; after the last group the result goes to
/// `sink` and not to [`Product::sums`], from where it would only be read again.
#[inline(always)]
fn settle<S: Simd, F: Format>(
    simd: S,
    _: F,
    product: &mut Product,
    step: Step,
    of_group: &mut TileProduct,
    sink: Option<&mut impl Sink>,
) {
    let width = panel_width::<S>();
    let groups = (product.panels[0].len() / width).div_ceil(F::GROUP);
    let Step { first, rows, group } = step;
    let is_first = product.is_first && group == 0;
    let mut sink = sink.filter(|_| group + 1 == groups);
    let row_terms = &product.row_terms[first * groups * F::ROW_TERMS..][..rows * groups * F::ROW_TERMS];
    let columns = product.columns[0][group * F::COLUMN_TERMS * width..][..F::COLUMN_TERMS * width].as_ptr();
    let sums = product.sums[first * width..][..rows * width].as_mut_ptr();
    let of_group = &mut of_group.0[..rows * width];
    // The only group's sums are the result.
    if is_first
        && F::COLUMN_TERMS == 0
        && let Some(sink) = sink.as_deref_mut()
    {
        return sink.put(simd, 0, first, of_group);
    }
    let found = of_group.as_mut_ptr();
    let settled = if sink.is_some() { found } else { sums };
    // Read once, here: nothing tells the compiler that they are not among the sums that are written.
    let mut column_terms = [[simd.splat(0.0); 2]; TILE_VECTORS];
    for (vector, terms) in column_terms.iter_mut().enumerate() {
        // SAFETY: there are terms of this group for each column of a vector at each multiple of LANES.
        *terms = unsafe { F::column_terms(simd, columns.add(vector * S::LANES), width) };
    }
    for r in 0..rows {
        // SAFETY: `found`, `sums` and so `settled` hold a vector at each multiple of LANES of a row, and there
        // are terms of this group for each row.
        unsafe {
            let row = row_terms.as_ptr().add((r * groups + group) * F::ROW_TERMS);
            for (vector, terms) in column_terms.into_iter().enumerate() {
                let at = r * width + vector * S::LANES;
                let before = if is_first {
                    simd.splat(0.0)
                } else {
                    simd.load_ptr(sums.add(at))
                };
                let sum = F::settle(simd, simd.load_ptr(found.add(at)), before, row, terms);
                simd.store_ptr(sum, settled.add(at));
            }
        }
    }
    if let Some(sink) = sink {
        sink.put(simd, 0, first, of_group);
    }
}
