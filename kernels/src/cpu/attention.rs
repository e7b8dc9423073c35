//! Self-attention of packed sequences, head by head, as products of small packed matrices.
//!
//! The scores of a tile of queries are the product of its rows with panels of the transposed keys,
//! the output that of the softmax with panels of the values; both run through [`super::gemm`]: in f32, or in bf16 where the
//! machine multiplies whole tiles and the products of the layers around are no finer.

use super::buffer::{AttentionScratch, ProductScratch, with_scratch};
use super::detect::Kernel;
use super::format::{Bf16, F32, Format, WithFormat, with_format};
use super::gemm::multiply_panels_into;
use super::operands::{PackedRows, Product, Sink, panel_width, words};
use super::packing::RightOperand;
use super::simd::{Simd, Task};
use super::vector_math::exp_or_zero;
use crate::Precision;

/// See [`super::attention()`]; `precision`: that of the products around.
pub(super) fn attention(
    kernel: Kernel,
    precision: Precision,
    qkv: &[f32],
    offsets: &[u32],
    hidden: usize,
    heads: usize,
) -> Vec<f32> {
    let mut out = vec![0.0; qkv.len() / 3];
    with_scratch(|scratch| {
        let attention = Attention {
            kernel,
            qkv,
            offsets,
            hidden,
            heads,
            out: &mut out,
            scratch: &mut scratch.attention,
        };
        with_format(kernel, precision, attention);
    });
    out
}

struct Attention<'a> {
    kernel: Kernel,
    qkv: &'a [f32],
    offsets: &'a [u32],
    hidden: usize,
    heads: usize,
    out: &'a mut [f32],
    scratch: &'a mut AttentionScratch,
}

impl WithFormat for Attention<'_> {
    type Output = ();

    fn run<F: Format>(self, _: F) {
        match F::IS_COARSE && self.kernel.has_tiles() {
            true => self.kernel.run_with_tiles((Bf16, self)),
            false => self.kernel.run((F32, self)),
        }
    }
}

impl<F: RightOperand> Task for (F, Attention<'_>) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (format, task) = self;
        let (hidden, width) = (task.hidden, task.hidden / task.heads);
        for sequence in task.offsets.windows(2) {
            let (begin, end) = (sequence[0] as usize, sequence[1] as usize);
            let qkv = &task.qkv[begin * 3 * hidden..end * 3 * hidden];
            let out = &mut task.out[begin * hidden..end * hidden];
            for head in 0..task.heads {
                let head = Head {
                    query: head * width,
                    key: hidden + head * width,
                    value: 2 * hidden + head * width,
                    out: head * width,
                    width,
                    stride: 3 * hidden,
                    tokens: end - begin,
                };
                head.attend(simd, format, qkv, out, hidden, task.scratch);
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
    pub fn attend<S: Simd, F: RightOperand>(
        &self,
        simd: S,
        format: F,
        qkv: &[f32],
        out: &mut [f32],
        hidden: usize,
        scratch: &mut AttentionScratch,
    ) {
        let Self { tokens, width, .. } = *self;
        let panel = panel_width::<S>();
        // A row of scores is padded to whole panels, its use as left operand to whole blocks.
        let score_width = tokens.next_multiple_of(panel);
        let (key_words, value_words) = (panel * words::<F>(width), panel * words::<F>(tokens));
        let keys = scratch.keys.scratch(score_width / panel * key_words);
        let values = scratch.values.scratch(width.div_ceil(panel) * value_words);
        let ProductScratch { left, terms, sums } = &mut scratch.product;
        let room = left.scratch(key_words);
        for (p, to) in keys.chunks_exact_mut(key_words).enumerate() {
            let first = p * panel;
            let count = panel.min(tokens - first);
            let key = |n| &qkv[(first + n) * self.stride + self.key..][..width];
            F::pack_transposed(simd, count, key, room, to);
        }
        for (p, to) in values.chunks_exact_mut(value_words).enumerate() {
            let first = p * panel;
            let columns = panel.min(width - first);
            let value = |n| &qkv[n * self.stride + self.value + first..][..columns];
            F::pack_straight(simd, tokens, value, to);
        }

        let scores = scratch.scores.scratch(S::TILE_ROWS * score_width);
        let sums = sums.scratch(S::TILE_ROWS * panel);
        let scale = 1.0 / (width as f32).sqrt();
        for first in (0..tokens).step_by(S::TILE_ROWS) {
            let rows = S::TILE_ROWS.min(tokens - first);
            let queries = &qkv[first * self.stride + self.query..];
            let mut packed = PackedRows::new::<S, F>(left, terms, rows, width);
            packed.pack(simd, format, queries, self.stride, 0..width);
            for (p, keys) in keys.chunks_exact(key_words).enumerate() {
                let mut to = Columns {
                    to: &mut scores[p * panel..],
                    stride: score_width,
                    count: panel,
                };
                multiply_panels_into(simd, format, Product::plain(&packed, keys, sums), &mut to);
            }
            for scores in scores.chunks_exact_mut(score_width).take(rows) {
                let scores = &mut scores[..tokens.next_multiple_of(S::LANES)];
                scores[tokens..].fill(f32::NEG_INFINITY);
                softmax(simd, scores, scale);
            }
            let mut packed = PackedRows::new::<S, F>(left, terms, rows, tokens);
            packed.pack(simd, format, scores, score_width, 0..tokens);
            for (p, values) in values.chunks_exact(value_words).enumerate() {
                let mut to = Columns {
                    to: &mut out[first * hidden + self.out + p * panel..],
                    stride: hidden,
                    count: panel.min(width - p * panel),
                };
                multiply_panels_into(simd, format, Product::plain(&packed, values, sums), &mut to);
            }
        }
    }
}

/// The first columns of a panel's sums, to rows that lie `stride` apart.
struct Columns<'a> {
    to: &'a mut [f32],
    stride: usize,
    count: usize,
}

impl Sink for Columns<'_> {
    #[inline(always)]
    fn put<S: Simd>(&mut self, _: S, _: usize, first: usize, sums: &[f32]) {
        let width = panel_width::<S>();
        for (r, sums) in sums.chunks_exact(width).enumerate() {
            let to = &mut self.to[(first + r) * self.stride..];
            // Nearly always, and then the length is known when this is compiled.
            if self.count == width {
                to[..width].copy_from_slice(sums);
            } else {
                to[..self.count].copy_from_slice(&sums[..self.count]);
            }
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
