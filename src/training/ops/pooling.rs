//! Weighted means of hidden states: what attention pooling is once its query is folded into the keys.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    Lengths, composed, elements, gradient,
    matrix::{Matrix, product},
    slice,
};

/// `hidden`: `[T, H]`; `scores`: `[T, heads]`, softmaxed over each sequence. Returns `[B, heads, H]`.
pub(in crate::training) fn weighted_means(hidden: &Tensor, scores: &Tensor, lengths: &Lengths) -> Result<Tensor> {
    let (tokens, _) = hidden.dims2()?;
    if tokens != lengths.tokens() || scores.dim(0)? != tokens || lengths.ranges().any(|range| range.is_empty()) {
        bail!(
            "pooling: expected {} tokens in sequences of at least one, found {:?}",
            lengths.tokens(),
            hidden.shape()
        )
    }
    if !hidden.device().is_cpu() {
        return composed::weighted_means(hidden, scores, lengths);
    }
    let op = WeightedMeans {
        lengths: lengths.clone(),
    };
    hidden.contiguous()?.apply_op2(&scores.contiguous()?, op)
}

struct WeightedMeans {
    lengths: Lengths,
}

/// The softmax of each column: `[S, heads]`.
fn column_softmax(scores: &[f32], heads: usize) -> Vec<f32> {
    let mut weights = scores.to_vec();
    for head in 0..heads {
        let column = || scores.iter().skip(head).step_by(heads);
        let largest = column().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = column().map(|x| (x - largest).exp()).sum();
        for weight in weights.iter_mut().skip(head).step_by(heads) {
            *weight = (*weight - largest).exp() / sum;
        }
    }
    weights
}

impl CustomOp2 for WeightedMeans {
    fn name(&self) -> &'static str {
        "weighted-means"
    }

    fn cpu_fwd(&self, h: &CpuStorage, lh: &Layout, s: &CpuStorage, ls: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((_, width), (_, heads)) = (lh.shape().dims2()?, ls.shape().dims2()?);
        let (hidden, scores) = (slice(self.name(), h, lh)?, slice(self.name(), s, ls)?);
        let mut means = vec![0.0; self.lengths.count() * heads * width];
        let ranges: Vec<_> = self.lengths.ranges().collect();
        means
            .par_chunks_mut(heads * width)
            .zip(ranges)
            .try_for_each(|(means, range)| {
                let weights = column_softmax(&scores[range.start * heads..range.end * heads], heads);
                let hidden = Matrix::new(&hidden[range.start * width..], range.len(), width);
                let weights = Matrix::new(&weights, range.len(), heads).transposed();
                product(means, width, false, 1.0, weights, hidden, false)
            })?;
        Ok((
            CpuStorage::F32(means),
            Shape::from((self.lengths.count(), heads, width)),
        ))
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        scores: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (width, heads) = (hidden.dim(1)?, scores.dim(1)?);
        let (values, score_values, grads) = (elements(hidden)?, elements(scores)?, elements(&grad)?);
        let (values, score_values, grads) = (&*values, &*score_values, &*grads);
        let mut dh = vec![0.0; values.len()];
        let mut ds = vec![0.0; score_values.len()];
        let ranges: Vec<_> = self.lengths.ranges().collect();
        let parts = self.lengths.split_mut(&mut dh, width).into_par_iter();
        let parts = parts
            .zip(self.lengths.split_mut(&mut ds, heads))
            .zip(ranges)
            .enumerate();
        parts.try_for_each(|(sequence, ((dh, ds), range))| {
            let weights = column_softmax(&score_values[range.start * heads..range.end * heads], heads);
            let length = range.len();
            let grad = Matrix::new(&grads[sequence * heads * width..], heads, width);
            product(dh, width, false, 1.0, Matrix::new(&weights, length, heads), grad, false)?;
            let hidden = Matrix::new(&values[range.start * width..], length, width);
            product(ds, heads, false, 1.0, hidden, grad.transposed(), false)?;
            for head in 0..heads {
                let at = |i: usize| i * heads + head;
                let along: f32 = (0..length).map(|i| weights[at(i)] * ds[at(i)]).sum();
                for i in 0..length {
                    ds[at(i)] = weights[at(i)] * (ds[at(i)] - along);
                }
            }
            Ok::<_, candle_core::Error>(())
        })?;
        Ok((Some(gradient(dh, hidden)?), Some(gradient(ds, scores)?)))
    }
}
