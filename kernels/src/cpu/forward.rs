//! A linear layer's product, block by block of rows, with what comes before and after it in the same pass.
//!
//! A block's left operand is packed from a [`Source`]: rows of memory, or whatever another product has just made of
//! them, so that those results need not leave the cache. Bias, activation, residual and LayerNorm follow while sums
//! are at hand.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::buffer::{ProductScratch, with_scratch};
use super::format::{Format, WithFormat, with_format};
use super::gemm::{multiply_panel, multiply_panel_into};
use super::linear::PackedLinear;
use super::norm::Norm;
use super::operands::{PackedRows, Product, Sink, groups, panel_width, words};
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
            // Of one panel, or of all where they wait for further segments.
            let waiting = if segment_words < words { rows * width } else { 0 };
            let ProductScratch { left, terms, sums } = &mut *forward.scratch;
            let sums = sums.scratch((waiting * panels).max(rows * width));
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
                for p in 0..panels {
                    let sums = &mut sums[p * waiting..][..rows * width];
                    let next = segment.after::<S, F>(p);
                    if segment.words.end < words {
                        multiply_panel(simd, format, segment.product::<S, F>(p, next, sums));
                        continue;
                    }
                    let finish = FinishPanel {
                        residual: residual.map(|values| &values[first * n..]),
                        out: &mut *out,
                        n,
                        range: p * width..n.min((p + 1) * width),
                    };
                    segment.finish(simd, format, p, next, sums, activation, finish);
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

impl Segment<'_> {
    /// Of panel `p` the words that are multiplied.
    #[inline(always)]
    pub fn panel<S: Simd, F: Format>(&self, p: usize) -> &[f32] {
        let (width, words) = (panel_width::<S>(), words::<F>(self.layer.in_features));
        let panel = &self.layer.panels.as_slice()[p * width * words..][..width * words];
        &panel[self.words.start * width..self.words.end * width]
    }

    /// What follows panel `p` where all go by in order: the next one, or the next segment of the first.
    #[inline(always)]
    pub fn after<S: Simd, F: Format>(&self, p: usize) -> &[f32] {
        let (width, words) = (panel_width::<S>(), words::<F>(self.layer.in_features));
        match (p + 1) * width < self.layer.out_features {
            true => self.panel::<S, F>(p + 1),
            false => &self.layer.panels.as_slice()[self.words.end * width..width * words],
        }
    }

    /// The product with panel `p`; `next` will be multiplied after it.
    #[inline(always)]
    fn product<'s, S: Simd, F: Format>(&'s self, p: usize, next: &'s [f32], sums: &'s mut [f32]) -> Product<'s> {
        let width = panel_width::<S>();
        let columns = groups::<F>(self.layer.in_features) * F::COLUMN_TERMS * width;
        let terms_before = self.words.start / F::GROUP * F::COLUMN_TERMS * width;
        Product {
            left: self.rows.words,
            row_terms: self.rows.terms,
            rows: self.rows.rows,
            panel: self.panel::<S, F>(p),
            columns: &self.layer.columns[p * columns..][..columns][terms_before..],
            sums,
            is_first: self.words.start == 0,
            next,
        }
    }

    /// The product with panel `p`, and what follows it; the segment must be the last.
    #[expect(clippy::too_many_arguments, reason = "a product's operands and where it goes")]
    #[inline(always)]
    pub fn finish<S: Simd, F: Format>(
        &self,
        simd: S,
        format: F,
        p: usize,
        next: &[f32],
        sums: &mut [f32],
        activation: Activation,
        finish: FinishPanel,
    ) {
        let width = panel_width::<S>();
        let last = Last {
            simd,
            format,
            product: self.product::<S, F>(p, next, sums),
            bias: &self.layer.bias[p * width..][..width],
            finish,
        };
        if F::IS_COARSE {
            with_coarse_activation(activation, last);
        } else {
            with_activation(activation, last);
        }
    }
}

/// The product of one panel's last segment, and what becomes of it.
struct Last<'a, S, F> {
    simd: S,
    format: F,
    product: Product<'a>,
    /// `[panel_width]`.
    bias: &'a [f32],
    finish: FinishPanel<'a>,
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
        multiply_panel_into(self.simd, self.format, self.product, &mut sink);
    }
}

/// Where one panel's columns of the result go.
pub(super) struct FinishPanel<'a> {
    /// `[rows, n]`, as is `out`.
    pub residual: Option<&'a [f32]>,
    pub out: &'a mut [MaybeUninit<f32>],
    pub n: usize,
    /// The panel's columns, as many as are wanted.
    pub range: Range<usize>,
}

/// Adds bias and residual, applies `f` and stores.
struct Finished<'a, E> {
    f: E,
    bias: &'a [f32],
    to: FinishPanel<'a>,
}

impl<E: Elementwise> Sink for Finished<'_, E> {
    #[inline(always)]
    fn put<S: Simd>(&mut self, simd: S, first: usize, sums: &[f32]) {
        let FinishPanel {
            residual,
            out,
            n,
            range,
        } = &mut self.to;
        let from = first * *n;
        let out = out[from..].chunks_exact_mut(*n);
        for (r, (sums, out)) in sums.chunks_exact(panel_width::<S>()).zip(out).enumerate() {
            let out = &mut out[range.clone()];
            let residual = residual.map(|values| &values[from + r * *n..][range.clone()]);
            for (j, out) in out.chunks_mut(S::LANES).enumerate() {
                let at = j * S::LANES;
                let mut y = simd.add(simd.load(&sums[at..]), simd.load(&self.bias[at..]));
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
