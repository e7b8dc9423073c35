//! LayerNorm of rows: mean and variance in two passes, in lanes that depend on the width alone.

use super::detect::Kernel;
use super::simd::{Simd, Task};
use super::vector_math::{Elementwise, WithElementwise, with_activation};
use crate::Activation;

/// Weight, bias and epsilon of a LayerNorm whose width is theirs.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub eps: f32,
}

impl Norm<'_> {
    /// `f(LayerNorm(row))`, in place.
    #[inline(always)]
    pub(super) fn apply<S: Simd, F: Elementwise>(self, simd: S, row: &mut [f32], f: F) {
        let width = row.len();
        let (weight, bias) = (&self.weight[..width], &self.bias[..width]);
        let scale = 1.0 / width as f32;

        let mut sum = simd.splat(0.0);
        for piece in row.chunks(S::LANES) {
            sum = simd.add(sum, simd.load_or(piece, 0.0));
        }
        let mean = simd.sum(sum) * scale;

        // Lanes beyond the row hold the mean, so that they add nothing to the variance.
        let mut squares = simd.splat(0.0);
        for piece in row.chunks_mut(S::LANES) {
            let centred = simd.sub(simd.load_or(piece, mean), simd.splat(mean));
            squares = simd.mul_add(centred, centred, squares);
            simd.store_some(centred, piece);
        }
        let variance = simd.sum(squares) * scale;

        let factor = simd.splat(1.0 / (variance + self.eps).sqrt());
        let parameters = weight.chunks(S::LANES).zip(bias.chunks(S::LANES));
        for (piece, (weight, bias)) in row.chunks_mut(S::LANES).zip(parameters) {
            let normal = simd.mul(simd.load_or(piece, 0.0), factor);
            let y = simd.mul_add(normal, simd.load_or(weight, 0.0), simd.load_or(bias, 0.0));
            simd.store_some(f.apply(simd, y), piece);
        }
    }
}

/// See [`super::layer_norm`].
pub(super) fn layer_norm(kernel: Kernel, x: &[f32], norm: Norm, activation: Activation) -> Vec<f32> {
    let mut rows = x.to_vec();
    kernel.run(LayerNorm {
        rows: &mut rows,
        norm,
        activation,
    });
    rows
}

struct LayerNorm<'a> {
    rows: &'a mut [f32],
    norm: Norm<'a>,
    activation: Activation,
}

impl Task for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { rows, norm, activation } = self;
        with_activation(activation, NormRows { simd, rows, norm });
    }
}

struct NormRows<'a, S> {
    simd: S,
    rows: &'a mut [f32],
    norm: Norm<'a>,
}

impl<S: Simd> WithElementwise for NormRows<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<F: Elementwise>(self, f: F) {
        for row in self.rows.chunks_exact_mut(self.norm.weight.len().max(1)) {
            self.norm.apply(self.simd, row, f);
        }
    }
}
