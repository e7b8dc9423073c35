//! Multi-head self-attention within each sequence of a packed batch (Vaswani et al., arXiv:1706.03762).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    Dropout, Lengths, composed,
    dropout::{Mask, mask_index},
    elements,
    elementwise::exp_of_negative,
    gradient,
    matrix::{Matrix, product},
    slice, widest,
};

/// `qkv`: `[T, 3 H]`, queries, keys and values side by side, each of `heads` heads. Returns `[T, H]`.
///
/// Dropout applies to the attention weights, as in BERT.
pub(in crate::training) fn attention(
    qkv: &Tensor,
    lengths: &Lengths,
    heads: usize,
    dropout: Option<&Dropout>,
) -> Result<Tensor> {
    let (tokens, width) = qkv.dims2()?;
    if tokens != lengths.tokens() || heads == 0 || !width.is_multiple_of(3 * heads) {
        bail!(
            "attention: expected [{}, 3 x {heads} x D], found {:?}",
            lengths.tokens(),
            qkv.shape()
        )
    }
    let mask = dropout.and_then(Dropout::mask);
    if !qkv.device().is_cpu() {
        return composed::attention(qkv, lengths, heads, mask.as_ref());
    }
    qkv.contiguous()?.apply_op1(Attention {
        lengths: lengths.clone(),
        heads,
        mask,
    })
}

struct Attention {
    lengths: Lengths,
    heads: usize,
    mask: Option<Mask>,
}

widest! {
    /// Each row of `scores` (`width` long) becomes its softmax.
    fn softmax_rows(scores: &mut [f32], width: usize) {
        for row in scores.chunks_exact_mut(width) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for x in row.iter_mut() {
                *x = exp_of_negative(*x - largest);
            }
            let mut lanes = [0.0f32; 8];
            for (i, x) in row.iter().enumerate() {
                lanes[i % 8] += x;
            }
            let scale = 1.0 / lanes.iter().sum::<f32>();
            for x in row.iter_mut() {
                *x *= scale;
            }
        }
    }
}

widest! {
    /// The gradient of scores from that of their softmax: `p * (g - sum p g)`, into `grads`.
    fn softmax_backward(weights: &[f32], grads: &mut [f32], width: usize) {
        for (p, g) in weights.chunks_exact(width).zip(grads.chunks_exact_mut(width)) {
            let mut lanes = [0.0f32; 8];
            for (i, (p, g)) in p.iter().zip(g.iter()).enumerate() {
                lanes[i % 8] += p * g;
            }
            let along = lanes.iter().sum::<f32>();
            for (p, g) in p.iter().zip(g) {
                *g = p * (*g - along);
            }
        }
    }
}

/// One sequence's part of `qkv`, and where a head's queries, keys and values begin in it.
struct Heads<'a> {
    qkv: &'a [f32],
    length: usize,
    hidden: usize,
    width: usize,
}

impl<'a> Heads<'a> {
    fn part(&self, which: usize, head: usize) -> Matrix<'a> {
        let begin = which * self.hidden + head * self.width;
        Matrix::with_stride(&self.qkv[begin..], self.length, self.width, 3 * self.hidden)
    }

    /// The attention weights of a head, before dropout: `[S, S]`.
    fn weights(&self, head: usize, into: &mut [f32]) -> Result<()> {
        let scale = 1.0 / (self.width as f32).sqrt();
        let keys = self.part(1, head).transposed();
        product(into, self.length, false, scale, self.part(0, head), keys, false)?;
        softmax_rows(into, self.length);
        Ok(())
    }
}

impl Attention {
    /// Applies the mask to a head's weights (or to their gradient).
    fn drop(&self, weights: &mut [f32], sequence: usize, head: usize, length: usize) {
        let Some(mask) = &self.mask else { return };
        let longest = self.lengths.longest();
        for (query, row) in weights.chunks_exact_mut(length).enumerate() {
            let first = mask_index(sequence, self.heads, head, longest, query);
            for (key, weight) in row.iter_mut().enumerate() {
                *weight *= mask.factor(first.wrapping_add(key as u32));
            }
        }
    }

    fn heads<'a>(&self, qkv: &'a [f32], hidden: usize) -> Heads<'a> {
        Heads {
            qkv,
            length: qkv.len() / (3 * hidden),
            hidden,
            width: hidden / self.heads,
        }
    }

    fn forward(&self, sequence: usize, qkv: &[f32], hidden: usize, context: &mut [f32]) -> Result<()> {
        let heads = self.heads(qkv, hidden);
        let length = heads.length;
        let mut weights = vec![0.0; length * length];
        for head in 0..self.heads {
            heads.weights(head, &mut weights)?;
            self.drop(&mut weights, sequence, head, length);
            let into = &mut context[head * heads.width..];
            let weights = Matrix::new(&weights, length, length);
            product(into, hidden, false, 1.0, weights, heads.part(2, head), false)?;
        }
        Ok(())
    }

    fn backward(&self, sequence: usize, qkv: &[f32], hidden: usize, grad: &[f32], into: &mut [f32]) -> Result<()> {
        let heads = self.heads(qkv, hidden);
        let (length, width, row) = (heads.length, heads.width, 3 * hidden);
        let mut weights = vec![0.0; length * length];
        let mut dropped = vec![0.0; length * length];
        let mut grads = vec![0.0; length * length];
        let scale = 1.0 / (width as f32).sqrt();
        for head in 0..self.heads {
            heads.weights(head, &mut weights)?;
            dropped.copy_from_slice(&weights);
            self.drop(&mut dropped, sequence, head, length);
            let grad = Matrix::with_stride(&grad[head * width..], length, width, hidden);
            let values = heads.part(2, head);
            let value_grads = &mut into[2 * hidden + head * width..];
            let weight_columns = Matrix::new(&dropped, length, length).transposed();
            product(value_grads, row, false, 1.0, weight_columns, grad, false)?;
            product(&mut grads, length, false, 1.0, grad, values.transposed(), false)?;
            self.drop(&mut grads, sequence, head, length);
            softmax_backward(&weights, &mut grads, length);
            let scores = Matrix::new(&grads, length, length);
            let query_grads = &mut into[head * width..];
            product(query_grads, row, false, scale, scores, heads.part(1, head), false)?;
            let key_grads = &mut into[hidden + head * width..];
            product(
                key_grads,
                row,
                false,
                scale,
                scores.transposed(),
                heads.part(0, head),
                false,
            )?;
        }
        Ok(())
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (tokens, width) = layout.shape().dims2()?;
        let (qkv, hidden) = (slice(self.name(), qkv, layout)?, width / 3);
        let mut context = vec![0.0; tokens * hidden];
        let ranges: Vec<_> = self.lengths.ranges().collect();
        self.lengths
            .split_mut(&mut context, hidden)
            .into_par_iter()
            .zip(ranges)
            .enumerate()
            .try_for_each(|(sequence, (context, range))| {
                self.forward(sequence, &qkv[range.start * width..range.end * width], hidden, context)
            })?;
        Ok((CpuStorage::F32(context), Shape::from((tokens, hidden))))
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (width, values, grads) = (qkv.dim(1)?, elements(qkv)?, elements(&grad)?);
        let (hidden, values, grads) = (width / 3, &*values, &*grads);
        let mut into = vec![0.0; values.len()];
        let ranges: Vec<_> = self.lengths.ranges().collect();
        self.lengths
            .split_mut(&mut into, width)
            .into_par_iter()
            .zip(ranges)
            .enumerate()
            .try_for_each(|(sequence, (into, range))| {
                let qkv = &values[range.start * width..range.end * width];
                let grad = &grads[range.start * hidden..range.end * hidden];
                self.backward(sequence, qkv, hidden, grad, into)
            })?;
        Ok(Some(gradient(into, qkv)?))
    }
}
