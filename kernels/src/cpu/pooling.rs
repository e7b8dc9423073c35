//! From the hidden states of each packed sequence to one vector or a few.

use super::attention::softmax;
use super::buffer::{Scratch, with_scratch};
use super::detect::Kernel;
use super::simd::{Simd, Task};

/// See [`super::attention_pool`].
pub(super) fn attention_pool(
    kernel: Kernel,
    hidden: &[f32],
    keys: &[f32],
    offsets: &[u32],
    heads: usize,
    width: usize,
) -> Vec<f32> {
    let mut out = vec![0.0; offsets.len().saturating_sub(1) * heads * width];
    with_scratch(|scratch| {
        kernel.run(AttentionPool {
            hidden,
            keys: &keys[..heads * width],
            offsets,
            width,
            out: &mut out,
            scratch,
        })
    });
    out
}

struct AttentionPool<'a> {
    hidden: &'a [f32],
    keys: &'a [f32],
    offsets: &'a [u32],
    width: usize,
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl Task for AttentionPool<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.width;
        let sequences = self.offsets.windows(2);
        let count_sequences = sequences.len();
        for (number, sequence) in sequences.enumerate() {
            let tokens = &self.hidden[sequence[0] as usize * width..sequence[1] as usize * width];
            let count = tokens.len() / width;
            let weights = self.scratch.attention.scores.scratch(count.next_multiple_of(S::LANES));
            for (head, key) in self.keys.chunks_exact(width).enumerate() {
                let out = &mut self.out[(head * count_sequences + number) * width..][..width];
                for (weight, token) in weights.iter_mut().zip(tokens.chunks_exact(width)) {
                    *weight = dot(simd, token, key);
                }
                weights[count..].fill(f32::NEG_INFINITY);
                softmax(simd, weights, 1.0);
                weighted_sum(simd, tokens, weights, out);
            }
        }
    }
}

/// See [`super::mean_pool`].
pub(super) fn mean_pool(kernel: Kernel, hidden: &[f32], offsets: &[u32], width: usize) -> Vec<f32> {
    let mut out = vec![0.0; offsets.len().saturating_sub(1) * width];
    with_scratch(|scratch| {
        kernel.run(MeanPool {
            hidden,
            offsets,
            width,
            out: &mut out,
            scratch,
        })
    });
    out
}

struct MeanPool<'a> {
    hidden: &'a [f32],
    offsets: &'a [u32],
    width: usize,
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl Task for MeanPool<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.width;
        for (sequence, out) in self.offsets.windows(2).zip(self.out.chunks_exact_mut(width)) {
            let tokens = &self.hidden[sequence[0] as usize * width..sequence[1] as usize * width];
            let count = tokens.len() / width;
            let weights = self.scratch.attention.scores.scratch(count);
            weights.fill(1.0 / count as f32);
            weighted_sum(simd, tokens, weights, out);
        }
    }
}

/// See [`super::first_token_pool`].
pub(super) fn first_token_pool(hidden: &[f32], offsets: &[u32], width: usize) -> Vec<f32> {
    let firsts = &offsets[..offsets.len().saturating_sub(1)];
    let mut out = Vec::with_capacity(firsts.len() * width);
    for &first in firsts {
        out.extend_from_slice(&hidden[first as usize * width..][..width]);
    }
    out
}

/// The scalar product of two rows of equal length, in lanes that depend on the length alone.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [simd.splat(0.0); 4];
    let step = 4 * S::LANES;
    for (a, b) in a.chunks(step).zip(b.chunks(step)) {
        for ((sum, a), b) in sums.iter_mut().zip(a.chunks(S::LANES)).zip(b.chunks(S::LANES)) {
            *sum = simd.mul_add(simd.load_or(a, 0.0), simd.load_or(b, 0.0), *sum);
        }
    }
    simd.sum(simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3])))
}

/// The sum of the rows of `tokens`, `[T, out.len()]`, each times its weight.
#[inline(always)]
fn weighted_sum<S: Simd>(simd: S, tokens: &[f32], weights: &[f32], out: &mut [f32]) {
    let width = out.len();
    for (d, out) in out.chunks_mut(S::LANES).enumerate() {
        let mut sum = simd.splat(0.0);
        for (token, &weight) in tokens.chunks_exact(width).zip(weights) {
            let piece = &token[d * S::LANES..][..out.len()];
            sum = simd.mul_add(simd.splat(weight), simd.load_or(piece, 0.0), sum);
        }
        simd.store_some(sum, out);
    }
}
