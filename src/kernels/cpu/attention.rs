//! Self-attention of packed sequences, head by head, as products of small packed matrices.
//!
//! The scores of a tile of queries are the product of its rows with panels of the transposed keys,
//! the output that of the softmax with panels of the values; both run through [`super::gemm`].

use super::buffer::{AttentionScratch, Scratch, as_uninit, with_scratch};
use super::detect::Kernel;
use super::format::{F32, Format, WithFormat, with_format};
use super::forward::{FinishPanel, Rows, Segment, Source, block_words};
use super::gemm::{PackedRows, Product, groups, multiply_panel, packed_rows, panel_width, words};
use super::linear::{PackedLinear, PanelWidth};
use super::packing::interleave;
use super::simd::{Simd, Task};
use super::vector_math::exp_or_zero;
use crate::kernels::Activation;

/// See [`super::attention()`].
pub(super) fn attention(kernel: Kernel, qkv: &[f32], offsets: &[u32], hidden: usize, heads: usize) -> Vec<f32> {
    let mut out = vec![0.0; qkv.len() / 3];
    with_scratch(|scratch| {
        kernel.run(Attention {
            qkv,
            offsets,
            hidden,
            heads,
            out: &mut out,
            scratch: &mut scratch.attention,
        })
    });
    out
}

/// [`attention`] of what the layer `projection` makes of `x`, `[T, K]`: of `[T, 3 hidden]`. The same bits. Returns
/// `[T, hidden]`.
///
/// Where tiles are multiplied it goes head by head, so that queries, keys and values are used while they are in cache.
pub(super) fn self_attention(x: &[f32], projection: &PackedLinear, offsets: &[u32], heads: usize) -> Vec<f32> {
    let (kernel, k, hidden) = (projection.kernel, projection.in_features, projection.out_features / 3);
    let tokens = x.len() / k;
    if !kernel.has_tiles() || !(hidden / heads).is_multiple_of(kernel.run(PanelWidth)) {
        let qkv = projection.forward(x, tokens, Activation::Identity);
        return attention(kernel, &qkv, offsets, hidden, heads);
    }
    let mut out = vec![0.0; tokens * hidden];
    with_scratch(|scratch| {
        let attend = SelfAttention {
            x,
            projection,
            offsets,
            heads,
            out: &mut out,
            scratch,
        };
        with_format(kernel, projection.precision, attend);
    });
    out
}

struct SelfAttention<'a> {
    x: &'a [f32],
    projection: &'a PackedLinear,
    offsets: &'a [u32],
    heads: usize,
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithFormat for SelfAttention<'_> {
    type Output = ();

    fn run<F: Format>(self, format: F) {
        F::run(self.projection.kernel, (format, self));
    }
}

impl<F: Format> Task for (F, SelfAttention<'_>) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !S::TILES {
            unreachable!("only where tiles are multiplied")
        }
        let (format, task) = self;
        let (k, hidden) = (task.projection.in_features, task.projection.out_features / 3);
        let (panel, width) = (panel_width::<S>(), hidden / task.heads);
        // Panels of a head's queries, or keys, or values; of all three; and which one is the `i`th to be multiplied.
        let part = width / panel;
        let of_head = 3 * part;
        let panel_at = |i: usize| {
            let (head, rest) = (i / of_head % task.heads, i % of_head);
            rest / part * (hidden / panel) + head * part + rest % part
        };
        let block_rows = (block_words::<S>() / words::<F>(k)).min(BLOCK_ROWS);
        let mut sequences = task.offsets;
        while sequences.len() > 1 {
            // Whole sequences, as many as fit into a block, or one.
            let begin = sequences[0] as usize;
            let fit = sequences.partition_point(|&end| end as usize - begin <= block_rows);
            let (block, rest) = (&sequences[..fit.max(2)], &sequences[fit.max(2) - 1..]);
            sequences = rest;
            let rows = block[block.len() - 1] as usize - begin;
            let mut packed = PackedRows {
                words: task.scratch.product.left.scratch(packed_rows::<S, F>(rows, k)),
                terms: task.scratch.product.terms.scratch(rows * groups::<F>(k) * F::ROW_TERMS),
                rows,
                k,
            };
            Rows { x: task.x, k }.pack(simd, format, begin..begin + rows, 0..k, &mut packed);
            let segment = Segment {
                layer: task.projection,
                rows: &packed,
                words: 0..words::<F>(k),
            };
            let sums = task.scratch.product.sums.scratch(rows * panel);
            let qkv = task.scratch.between.scratch(rows * 3 * width);
            for head in 0..task.heads {
                for j in 0..of_head {
                    let i = head * of_head + j;
                    let finish = FinishPanel {
                        residual: None,
                        out: as_uninit(qkv),
                        n: 3 * width,
                        range: j * panel..(j + 1) * panel,
                    };
                    let next = segment.panel::<S, F>(panel_at(i + 1));
                    segment.finish(simd, format, panel_at(i), next, sums, Activation::Identity, finish);
                }
                for sequence in block.windows(2) {
                    let (first, end) = (sequence[0] as usize, sequence[1] as usize);
                    let of_sequence = Head {
                        query: 0,
                        key: width,
                        value: 2 * width,
                        out: head * width,
                        width,
                        stride: 3 * width,
                        tokens: end - first,
                    };
                    let qkv = &qkv[(first - begin) * 3 * width..(end - begin) * 3 * width];
                    let out = &mut task.out[first * hidden..end * hidden];
                    of_sequence.attend(simd.vectors(), qkv, out, hidden, &mut task.scratch.attention);
                }
            }
        }
    }
}

/// The most rows whose queries, keys and values of one head stay in cache beside the packed rows.
const BLOCK_ROWS: usize = 512;

struct Attention<'a> {
    qkv: &'a [f32],
    offsets: &'a [u32],
    hidden: usize,
    heads: usize,
    out: &'a mut [f32],
    scratch: &'a mut AttentionScratch,
}

impl Task for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (hidden, width) = (self.hidden, self.hidden / self.heads);
        for sequence in self.offsets.windows(2) {
            let (begin, end) = (sequence[0] as usize, sequence[1] as usize);
            let qkv = &self.qkv[begin * 3 * hidden..end * 3 * hidden];
            let out = &mut self.out[begin * hidden..end * hidden];
            for head in 0..self.heads {
                let head = Head {
                    query: head * width,
                    key: hidden + head * width,
                    value: 2 * hidden + head * width,
                    out: head * width,
                    width,
                    stride: 3 * hidden,
                    tokens: end - begin,
                };
                head.attend(simd, qkv, out, hidden, self.scratch);
            }
        }
    }
}

/// Where one head of one sequence lies in the rows of `qkv`.
struct Head {
    /// First column of this head's queries, keys and values.
    query: usize,
    key: usize,
    value: usize,
    /// First column of its result.
    out: usize,
    /// Columns of each.
    width: usize,
    /// From row to row.
    stride: usize,
    tokens: usize,
}

impl Head {
    /// `out`: `[tokens, hidden]`, of which this head's columns are written.
    #[inline(always)]
    fn attend<S: Simd>(&self, simd: S, qkv: &[f32], out: &mut [f32], hidden: usize, scratch: &mut AttentionScratch) {
        let Self { tokens, width, .. } = *self;
        let panel = panel_width::<S>();
        // A row of scores is padded to whole panels, its use as left operand to whole blocks.
        let score_width = tokens.next_multiple_of(panel);
        let keys = scratch.keys.scratch(score_width * words::<F32>(width));
        let values = scratch
            .values
            .scratch(width.next_multiple_of(panel) * words::<F32>(tokens));
        self.pack_keys(panel, qkv, keys);
        self.pack_values(panel, qkv, values);

        let scores = scratch.scores.scratch(S::TILE_ROWS * score_width);
        let sums = scratch.product.sums.scratch(S::TILE_ROWS * panel);
        let left = scratch
            .product
            .left
            .scratch(packed_rows::<S, F32>(S::TILE_ROWS, width.max(tokens)));
        let scale = 1.0 / (width as f32).sqrt();
        for first in (0..tokens).step_by(S::TILE_ROWS) {
            let rows = S::TILE_ROWS.min(tokens - first);
            let queries = &qkv[first * self.stride + self.query..];
            packed(left, rows, width).pack(simd, F32, queries, self.stride, 0..width);
            for (p, keys) in keys.chunks_exact(panel * words::<F32>(width)).enumerate() {
                multiply_panel(simd, F32, Product::plain(left, rows, keys, sums));
                for (scores, sums) in scores
                    .chunks_exact_mut(score_width)
                    .zip(sums.chunks_exact(panel))
                    .take(rows)
                {
                    scores[p * panel..][..panel].copy_from_slice(sums);
                }
            }
            for scores in scores.chunks_exact_mut(score_width).take(rows) {
                let scores = &mut scores[..tokens.next_multiple_of(S::LANES)];
                scores[tokens..].fill(f32::NEG_INFINITY);
                softmax(simd, scores, scale);
            }
            packed(left, rows, tokens).pack(simd, F32, scores, score_width, 0..tokens);
            for (p, values) in values.chunks_exact(panel * words::<F32>(tokens)).enumerate() {
                multiply_panel(simd, F32, Product::plain(left, rows, values, sums));
                let columns = p * panel..width.min((p + 1) * panel);
                for (r, sums) in sums.chunks_exact(panel).take(rows).enumerate() {
                    let row = &mut out[(first + r) * hidden + self.out..][..width];
                    row[columns.clone()].copy_from_slice(&sums[..columns.len()]);
                }
            }
        }
    }

    /// Panels `[words::<F32>(width), panel]` of the transposed keys, zeros around them.
    #[inline(always)]
    fn pack_keys(&self, panel: usize, qkv: &[f32], to: &mut [f32]) {
        for (p, to) in to.chunks_exact_mut(panel * words::<F32>(self.width)).enumerate() {
            let first = p * panel;
            let count = panel.min(self.tokens - first);
            if count < panel || self.width < words::<F32>(self.width) {
                to.fill(0.0);
            }
            let key = |n| &qkv[(first + n) * self.stride + self.key..][..self.width];
            interleave(count, key, panel, to, |value: f32| value);
        }
    }

    /// Panels `[words::<F32>(tokens), panel]` of the values, zeros around them.
    #[inline(always)]
    fn pack_values(&self, panel: usize, qkv: &[f32], to: &mut [f32]) {
        for (p, to) in to.chunks_exact_mut(panel * words::<F32>(self.tokens)).enumerate() {
            let columns = panel.min(self.width - p * panel);
            let (whole, rest) = to.split_at_mut(panel * self.tokens);
            for (to, row) in whole.chunks_exact_mut(panel).zip(qkv.chunks_exact(self.stride)) {
                to[..columns].copy_from_slice(&row[self.value + p * panel..][..columns]);
                to[columns..].fill(0.0);
            }
            rest.fill(0.0);
        }
    }
}

fn packed(words: &mut [f32], rows: usize, k: usize) -> PackedRows<'_> {
    let terms = &mut [];
    PackedRows { words, terms, rows, k }
}

/// `softmax(scale * scores)` in place, over whole vectors; padding of minus infinity becomes 0.
#[inline(always)]
pub(super) fn softmax<S: Simd>(simd: S, scores: &mut [f32], scale: f32) {
    let mut largest = simd.splat(f32::NEG_INFINITY);
    for piece in scores.chunks_exact(S::LANES) {
        largest = simd.max(simd.load(piece), largest);
    }
    let largest = simd.splat(simd.largest(largest));
    let mut sum = simd.splat(0.0);
    for piece in scores.chunks_exact_mut(S::LANES) {
        let distance = simd.sub(simd.load(piece), largest);
        let e = exp_or_zero(simd, simd.mul(distance, simd.splat(scale)));
        sum = simd.add(sum, e);
        simd.store(e, piece);
    }
    let factor = simd.splat(1.0 / simd.sum(sum));
    for piece in scores.chunks_exact_mut(S::LANES) {
        simd.store(simd.mul(simd.load(piece), factor), piece);
    }
}
