//! A linear layer's product, block by block of rows, with what comes before and after it in the same pass.
//!
//! A block's left operand is packed from a [`Source`]: rows of memory, or whatever another product has just made of
//! them, so that those results need not leave the cache. Bias, activation, residual and LayerNorm follow while sums
//! are at hand.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::buffer::{ProductScratch, with_scratch};
use super::format::{Format, WithFormat, with_format};
use super::gemm::{multiply_panels, multiply_panels_into, put_sums};
use super::linear::PackedLinear;
use super::norm::Norm;
use super::operands::{AtOnce, PackedRows, Product, Sink, at_once, groups, panel_width, words};
use super::simd::{MAX_LANES, Simd, Task};
use super::vector_math::{Elementwise, Identity, WithElementwise, with_activation, with_coarse_activation};
use crate::Activation;

/// Where the rows of the left operand come from.
pub(super) trait Source {
    /// Whether it is the result of another product, which is compiled for some machines alone: [`Simd::FUSES`].
    const FUSED: bool = false;

    /// Words along k that are packed and multiplied with all panels before the next ones are, of `words`.
    #[inline(always)]
    fn segment_words<S: Simd, F: Format>(&self, words: usize) -> usize {
        segment_words::<S, F>(words)
    }

    /// The most rows that stay in the L2 cache with whatever the source keeps there for them.
    #[inline(always)]
    fn block_rows<S: Simd, F: Format>(&self) -> usize {
        usize::MAX
    }

    /// Packs the values `columns` of the rows `rows`. Segments come in order, all of a block of rows before the next.
    ///
    /// Implementations must be `#[inline(always)]`, as everything beneath a task.
    fn pack<S: Simd, F: Format>(
        &mut self,
        simd: S,
        format: F,
        rows: Range<usize>,
        columns: Range<usize>,
        to: &mut PackedRows,
    );
}

/// Rows as they lie in memory: `[rows, K]`.
pub(super) struct Rows<'a> {
    pub x: &'a [f32],
    pub k: usize,
}

impl Source for Rows<'_> {
    #[inline(always)]
    fn pack<S: Simd, F: Format>(
        &mut self,
        simd: S,
        format: F,
        rows: Range<usize>,
        columns: Range<usize>,
        to: &mut PackedRows,
    ) {
        let from = &self.x[rows.start * self.k + columns.start..];
        to.pack(simd, format, from, self.k, 0..columns.len());
    }
}

impl PackedLinear {
    /// `activation(x W^T + b)`. `x`: `[rows, K]`. Returns `[rows, N]`.
    pub fn forward(&self, x: &[f32], rows: usize, activation: Activation) -> Vec<f32> {
        self.run(x, rows, Finish::Activation(activation))
    }

    /// `LayerNorm(residual + x W^T + b)`; `residual`: `[rows, N]`. Returns `[rows, N]`.
    pub fn forward_add_norm(&self, x: &[f32], rows: usize, residual: &[f32], norm: Norm) -> Vec<f32> {
        self.run(x, rows, Finish::AddNorm { residual, norm })
    }

    fn run(&self, x: &[f32], rows: usize, finish: Finish) -> Vec<f32> {
        assert_eq!(x.len(), rows * self.in_features, "x is [rows, K]");
        let source = Rows { x, k: self.in_features };
        with_scratch(|scratch| forward(self, source, rows, finish, &mut scratch.product))
    }
}

/// What follows the product and the bias.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    Activation(Activation),
    /// `residual`: `[rows, N]`.
    AddNorm {
        residual: &'a [f32],
        norm: Norm<'a>,
    },
}

/// `finish(x W^T + b)` for the `rows` rows `x` of `source`. Returns `[rows, N]`.
pub(super) fn forward(
    layer: &PackedLinear,
    source: impl Source,
    rows: usize,
    finish: Finish,
    scratch: &mut ProductScratch,
) -> Vec<f32> {
    let len = rows * layer.out_features;
    if let Finish::AddNorm { residual, norm } = finish {
        assert_eq!(residual.len(), len, "residual is [rows, N]");
        assert_eq!(norm.weight.len(), layer.out_features, "the norm is [N]");
        assert_eq!(norm.bias.len(), layer.out_features, "the norm is [N]");
    }
    let mut out = Vec::with_capacity(len);
    let forward = Forward {
        layer,
        source,
        rows,
        finish,
        out: &mut out.spare_capacity_mut()[..len],
        scratch,
    };
    with_format(layer.kernel, layer.precision, forward);
    // SAFETY: `Forward` writes each column of each row of the `len` elements: its blocks of rows
    // and its panels of columns cover both ranges without a gap.
    unsafe { out.set_len(len) };
    out
}

struct Forward<'a, T> {
    layer: &'a PackedLinear,
    source: T,
    rows: usize,
    finish: Finish<'a>,
    /// `[rows, N]`.
    out: &'a mut [MaybeUninit<f32>],
    scratch: &'a mut ProductScratch,
}

impl<T: Source> WithFormat for Forward<'_, T> {
    type Output = ();

    fn run<F: Format>(self, format: F) {
        F::run(self.layer.kernel, (format, self));
    }
}

/// The packed rows of the left operand that stay in the L2 cache while all panels go by, in words: 512 KiB, and
/// 1.25 MiB of the 2 that machines with AMX have.
pub(super) const fn block_words<S: Simd>() -> usize {
    if S::TILES { 320 * 1024 } else { 128 * 1024 }
}

/// [`Source::segment_words`] where rows lie in memory.
///
/// Products of whole tiles are so fast that weights come too slowly from memory when few rows share them; so long rows
/// are cut, such that a block has 256 of them. Sums wait in memory for the next segment, and the order in which
/// they are added is the same.
pub(super) const fn segment_words<S: Simd, F: Format>(words: usize) -> usize {
    const ROWS: usize = 256;
    if !S::TILES {
        return words;
    }
    let segments = words.div_ceil(block_words::<S>() / ROWS);
    words.div_ceil(segments).next_multiple_of(F::CHUNK)
}

impl<F: Format, T: Source> Task for (F, Forward<'_, T>) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if T::FUSED && !S::FUSES {
            unreachable!("only where products are fused")
        }
        let (format, mut forward) = self;
        let layer = forward.layer;
        let (n, k) = (layer.out_features, layer.in_features);
        let (width, words) = (panel_width::<S>(), words::<F>(k));
        let panels = n.div_ceil(width);
        let (activation, residual) = match forward.finish {
            Finish::Activation(activation) => (activation, None),
            Finish::AddNorm { residual, .. } => (Activation::Identity, Some(residual)),
        };
        let segment_words = forward.source.segment_words::<S, F>(words);
        let segment_values = segment_words / F::PLANES * F::VALUES;
        let block_rows = (block_words::<S>() / segment_words).min(forward.source.block_rows::<S, F>());
        let block_rows = (block_rows / S::TILE_ROWS).max(1) * S::TILE_ROWS;
        // Blocks of about equal size: a small last one would have the weights to itself.
        let blocks = forward.rows.div_ceil(block_rows).max(1);
        let block_rows = forward.rows.div_ceil(blocks).next_multiple_of(S::TILE_ROWS).max(1);
        for first in (0..forward.rows).step_by(block_rows) {
            let rows = block_rows.min(forward.rows - first);
            let out = &mut forward.out[first * n..][..rows * n];
            // Of those multiplied at once, or of all where they wait for further segments.
            let waiting = if segment_words < words { rows * width } else { 0 };
            let ProductScratch { left, terms, sums } = &mut *forward.scratch;
            let sums = sums.scratch((waiting * panels).max(at_once::<S, F>(panels) * rows * width));
            for begin in (0..words).step_by(segment_words) {
                let from = begin / segment_words * segment_values;
                let values = segment_values.min(k - from);
                let mut packed = PackedRows::new::<S, F>(left, terms, rows, values);
                let range = first..first + rows;
                forward
                    .source
                    .pack(simd, format, range, from..from + values, &mut packed);
                let segment = Segment {
                    layer,
                    rows: &packed,
                    words: begin..words.min(begin + segment_words),
                };
                let mut p = 0;
                while p < panels {
                    let end = p + at_once::<S, F>(panels - p);
                    let sums = &mut sums[p * waiting..][..(end - p) * rows * width];
                    let next = segment.after::<S, F>(end);
                    if segment.words.end < words {
                        multiply_panels(simd, format, &mut segment.product::<S, F>(p..end, next, sums));
                    } else {
                        let finish = FinishPanels {
                            residual: residual.map(|values| &values[first * n..]),
                            out: &mut *out,
                            n,
                            range: p * width..n.min(end * width),
                        };
                        segment.finish(simd, format, p..end, next, sums, activation, finish);
                    }
                    p = end;
                }
            }
            if let Finish::AddNorm { norm, .. } = forward.finish {
                for row in out.chunks_exact_mut(n) {
                    // SAFETY: the panels above have written every column of the rows of this block.
                    let row = unsafe { row.assume_init_mut() };
                    norm.apply(simd, row, Identity);
                }
            }
        }
    }
}

/// Packed rows beside a layer's panels, or a segment of both along k.
pub(super) struct Segment<'a> {
    pub layer: &'a PackedLinear,
    pub rows: &'a PackedRows<'a>,
    /// Words of the layer's panels that those of the rows are multiplied with.
    pub words: Range<usize>,
}

impl<'a> Segment<'a> {
    /// Of panel `p` the words that are multiplied.
    #[inline(always)]
    pub fn panel<S: Simd, F: Format>(&self, p: usize) -> &'a [f32] {
        let (width, words) = (panel_width::<S>(), words::<F>(self.layer.in_features));
        let panel = &self.layer.panels.as_slice()[p * width * words..][..width * words];
        &panel[self.words.start * width..self.words.end * width]
    }

    /// Of each panel of `panels`, which are multiplied at once, the words that are multiplied.
    #[inline(always)]
    pub fn at_once<S: Simd, F: Format>(&self, panels: Range<usize>) -> AtOnce<'a> {
        let beside = match panels.len() {
            0 | 1 => &[],
            _ => self.panel::<S, F>(panels.start + 1),
        };
        [self.panel::<S, F>(panels.start), beside]
    }

    /// What follows the panels up to `end` where all go by in order: the next ones, or the next segment of the first.
    #[inline(always)]
    pub fn after<S: Simd, F: Format>(&self, end: usize) -> AtOnce<'a> {
        let (width, words) = (panel_width::<S>(), words::<F>(self.layer.in_features));
        let panels = self.layer.out_features.div_ceil(width);
        if end < panels {
            return self.at_once::<S, F>(end..end + at_once::<S, F>(panels - end));
        }
        let next = Segment {
            words: self.words.end..words,
            ..*self
        };
        next.at_once::<S, F>(0..at_once::<S, F>(panels))
    }

    /// The product with `panels`, as many as are multiplied at once; `next` will be multiplied after it.
    #[inline(always)]
    fn product<'s, S: Simd, F: Format>(
        &'s self,
        panels: Range<usize>,
        next: AtOnce<'s>,
        sums: &'s mut [f32],
    ) -> Product<'s> {
        let width = panel_width::<S>();
        let columns = groups::<F>(self.layer.in_features) * F::COLUMN_TERMS * width;
        let terms_before = self.words.start / F::GROUP * F::COLUMN_TERMS * width;
        let of_panel = |p| &self.layer.columns[p * columns..][..columns][terms_before..];
        Product {
            left: self.rows.words,
            row_terms: self.rows.terms,
            rows: self.rows.rows,
            panels: self.at_once::<S, F>(panels.clone()),
            columns: [
                of_panel(panels.start),
                if panels.len() == 2 {
                    of_panel(panels.start + 1)
                } else {
                    &[]
                },
            ],
            sums,
            is_first: self.words.start == 0,
            next,
        }
    }

    /// The product with `panels`, as many as are multiplied at once, and what follows it; the segment must be the last.
    #[expect(clippy::too_many_arguments, reason = "a product's operands and where it goes")]
    #[inline(always)]
    pub fn finish<S: Simd, F: Format>(
        &self,
        simd: S,
        format: F,
        panels: Range<usize>,
        next: AtOnce,
        sums: &mut [f32],
        activation: Activation,
        finish: FinishPanels,
    ) {
        let width = panel_width::<S>();
        let bias = &self.layer.bias[panels.start * width..panels.end * width];
        let mut product = self.product::<S, F>(panels, next, sums);
        // Here, and so compiled once for all activations.
        if const { !S::TILES } {
            multiply_panels(simd, format, &mut product);
        }
        let last = Last {
            simd,
            format,
            product,
            bias,
            finish,
        };
        if F::IS_COARSE {
            with_coarse_activation(activation, last);
        } else {
            with_activation(activation, last);
        }
    }
}

/// The product of one panel's last segment, or of two, and what becomes of it. Where the machine does not multiply whole
/// tiles, the product's sums are there already.
struct Last<'a, S, F> {
    simd: S,
    format: F,
    product: Product<'a>,
    /// `[panels, panel_width]`.
    bias: &'a [f32],
    finish: FinishPanels<'a>,
}

impl<S: Simd, F: Format> WithElementwise for Last<'_, S, F> {
    type Output = ();

    #[inline(always)]
    fn run<E: Elementwise>(self, f: E) {
        let mut sink = Finished {
            f,
            bias: self.bias,
            to: self.finish,
        };
        if const { S::TILES } {
            multiply_panels_into(self.simd, self.format, self.product, &mut sink);
        } else {
            put_sums(self.simd, &self.product, &mut sink);
        }
    }
}

/// Where the columns of the result go that are one panel's, or of two beside each other.
pub(super) struct FinishPanels<'a> {
    /// `[rows, n]`, as is `out`.
    pub residual: Option<&'a [f32]>,
    pub out: &'a mut [MaybeUninit<f32>],
    pub n: usize,
    /// The panels' columns, as many as are wanted.
    pub range: Range<usize>,
}

/// Adds bias and residual, applies `f` and stores.
struct Finished<'a, E> {
    f: E,
    bias: &'a [f32],
    to: FinishPanels<'a>,
}

impl<E: Elementwise> Sink for Finished<'_, E> {
    #[inline(always)]
    fn put<S: Simd>(&mut self, simd: S, panel: usize, first: usize, sums: &[f32]) {
        let FinishPanels {
            residual,
            out,
            n,
            range,
        } = &mut self.to;
        let (from, width) = (first * *n, panel_width::<S>());
        let range = range.start + panel * width..range.end.min(range.start + (panel + 1) * width);
        let bias = &self.bias[panel * width..][..width];
        let out = out[from..].chunks_exact_mut(*n);
        for (r, (sums, out)) in sums.chunks_exact(width).zip(out).enumerate() {
            let out = &mut out[range.clone()];
            let residual = residual.map(|values| &values[from + r * *n..][range.clone()]);
            for (j, out) in out.chunks_mut(S::LANES).enumerate() {
                let at = j * S::LANES;
                let mut y = simd.add(simd.load(&sums[at..]), simd.load(&bias[at..]));
                if let Some(residual) = residual {
                    y = simd.add(y, simd.load_or(&residual[at..][..out.len()], 0.0));
                }
                store_new(simd, self.f.apply(simd, y), out);
            }
        }
    }
}

/// [`Simd::store_some`] into memory that may be uninitialised; it is all written.
#[inline(always)]
fn store_new<S: Simd>(simd: S, v: S::V, to: &mut [MaybeUninit<f32>]) {
    if to.len() >= S::LANES {
        // SAFETY: the line above; writing to uninitialised memory is sound.
        unsafe { simd.store_ptr(v, to.as_mut_ptr().cast()) }
    } else {
        let mut lanes = [0.0; MAX_LANES];
        simd.store(v, &mut lanes);
        to.write_copy_of_slice(&lanes[..to.len()]);
    }
}
