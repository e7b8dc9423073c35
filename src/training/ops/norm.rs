//! LayerNorm over the last dimension (Ba et al., arXiv:1607.06450).

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{ROWS_AT_ONCE, composed, elements, gradient, slice, widest};

/// `x`: `[M, H]`; `weight`, `bias`: `[H]`. Returns `[M, H]`.
pub(in crate::training) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    match x.device().is_cpu() {
        true => x.contiguous()?.apply_op3(
            &weight.contiguous()?,
            &bias.contiguous()?,
            LayerNorm { eps: eps as f32 },
        ),
        false => composed::layer_norm(x, weight, bias, eps),
    }
}

struct LayerNorm {
    eps: f32,
}

/// Sums in sixteen lanes, so that they vectorize; the order is the same everywhere.
#[inline(always)]
fn sum(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let mut lanes = [0.0f32; 16];
    for (i, value) in values.enumerate() {
        lanes[i % 16] += value;
    }
    lanes.iter().sum()
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn moments(row: &[f32], eps: f32) -> (f32, f32) {
    let width = row.len() as f32;
    let mean = sum(row.iter().copied()) / width;
    let variance = sum(row.iter().map(|x| (x - mean) * (x - mean))) / width;
    (mean, 1.0 / (variance + eps).sqrt())
}

widest! {
    fn forward_rows(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
        let width = weight.len();
        for (row, out) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let (mean, scale) = moments(row, eps);
            for i in 0..width {
                out[i] = (row[i] - mean) * scale * weight[i] + bias[i];
            }
        }
    }
}

widest! {
    /// `sums`: what the rows add to the gradients of weight and bias, one behind the other.
    fn backward_rows(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, dx: &mut [f32], sums: &mut [f32]) {
        let width = weight.len();
        let (dw, db) = sums.split_at_mut(width);
        for ((row, grad), dx) in x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
            let (mean, scale) = moments(row, eps);
            for i in 0..width {
                dw[i] += grad[i] * (row[i] - mean) * scale;
                db[i] += grad[i];
                dx[i] = grad[i] * weight[i];
            }
            let mean_grad = sum(dx.iter().copied()) / width as f32;
            let along = sum(dx.iter().zip(row).map(|(g, x)| g * (x - mean))) * scale / width as f32;
            for i in 0..width {
                dx[i] = (dx[i] - mean_grad - (row[i] - mean) * scale * along) * scale;
            }
        }
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, width) = lx.shape().dims2()?;
        let (x, w, b) = (
            slice(self.name(), x, lx)?,
            slice(self.name(), w, lw)?,
            slice(self.name(), b, lb)?,
        );
        if w.len() != width || b.len() != width || width == 0 {
            bail!(
                "layer-norm: expected weights of [{width}], found {} and {}",
                w.len(),
                b.len()
            )
        }
        let mut y = vec![0.0; x.len()];
        let rows = ROWS_AT_ONCE * width;
        y.par_chunks_mut(rows)
            .zip(x.par_chunks(rows))
            .for_each(|(y, x)| forward_rows(x, w, b, self.eps, y));
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (xs, weights, grads) = (elements(x)?, elements(w)?, elements(&grad)?);
        let (width, eps) = (weights.len(), self.eps);
        let rows = ROWS_AT_ONCE * width;
        let mut dx = vec![0.0; xs.len()];
        let (xs, weights, grads) = (&*xs, &*weights, &*grads);
        let parts: Vec<Vec<f32>> = dx
            .par_chunks_mut(rows)
            .zip(xs.par_chunks(rows).zip(grads.par_chunks(rows)))
            .map(|(dx, (x, grad))| {
                let mut sums = vec![0.0; 2 * width];
                backward_rows(x, weights, grad, eps, dx, &mut sums);
                sums
            })
            .collect();
        let mut sums = vec![0.0; 2 * width];
        for part in parts {
            sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        let db = sums.split_off(width);
        Ok((Some(gradient(dx, x)?), Some(gradient(sums, w)?), Some(gradient(db, b)?)))
    }
}
