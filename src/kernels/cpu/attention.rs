//! Self-attention of packed sequences, head by head, as products of small packed matrices.
//!
//! The scores of a tile of queries are the product of its rows with panels of the transposed keys,
//! the output that of the softmax with panels of the values; both run through [`super::gemm`].

use super::buffer::{AttentionScratch, ProductScratch, with_scratch};
use super::detect::Kernel;
use super::format::F32;
use super::gemm::multiply_panel;
use super::operands::{PackedRows, Product, panel_width, words};
use super::packing::interleave;
use super::simd::{Simd, Task};
use super::vector_math::exp_or_zero;

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
pub(super) struct Head {
    /// First column of this head's queries, keys and values.
    pub query: usize,
    pub key: usize,
    pub value: usize,
    /// First column of its result.
    pub out: usize,
    /// Columns of each.
    pub width: usize,
    /// From row to row.
    pub stride: usize,
    pub tokens: usize,
}

impl Head {
    /// `out`: `[tokens, hidden]`, of which this head's columns are written.
    #[inline(always)]
    pub fn attend<S: Simd>(
        &self,
        simd: S,
        qkv: &[f32],
        out: &mut [f32],
        hidden: usize,
        scratch: &mut AttentionScratch,
    ) {
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
        let ProductScratch { left, terms, sums } = &mut scratch.product;
        let sums = sums.scratch(S::TILE_ROWS * panel);
        let scale = 1.0 / (width as f32).sqrt();
        for first in (0..tokens).step_by(S::TILE_ROWS) {
            let rows = S::TILE_ROWS.min(tokens - first);
            let queries = &qkv[first * self.stride + self.query..];
            let mut packed = PackedRows::new::<S, F32>(left, terms, rows, width);
            packed.pack(simd, F32, queries, self.stride, 0..width);
            for (p, keys) in keys.chunks_exact(panel * words::<F32>(width)).enumerate() {
                multiply_panel(simd, F32, Product::plain(&packed, keys, sums));
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
            let mut packed = PackedRows::new::<S, F32>(left, terms, rows, tokens);
            packed.pack(simd, F32, scores, score_width, 0..tokens);
            for (p, values) in values.chunks_exact(panel * words::<F32>(tokens)).enumerate() {
                multiply_panel(simd, F32, Product::plain(&packed, values, sums));
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
