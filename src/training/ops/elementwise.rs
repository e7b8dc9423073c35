//! GELU in its erf form, and the functions beneath it, as loops that vectorize.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{ELEMENTS_AT_ONCE, elements, gradient, slice, widest};

/// `x * 0.5 * (1 + erf(x / sqrt 2))`, of any shape.
pub(in crate::training) fn gelu(x: &Tensor) -> Result<Tensor> {
    match x.device().is_cpu() {
        true => x.contiguous()?.apply_op1(Gelu),
        false => x.gelu_erf(),
    }
}

/// erf within 5e-7: a rational minimax approximation on |x| <= 3.925, beyond which erf is 1 in f32.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = x.clamp(-3.925, 3.925);
    let z = x * x;
    let mut p = -2.726_142_3e-10f32;
    for c in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        p = p * z + c;
    }
    let mut q = -1.456_607_2e-5f32;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2] {
        q = q * z + c;
    }
    x * p / q
}

/// e^x for x <= 0 within 2e-7 of its value, 0 below -87.
#[inline(always)]
pub(super) fn exp_of_negative(x: f32) -> f32 {
    // Beside this number the spacing of f32 is 1: adding it rounds to the nearest integer.
    const ROUNDING: f32 = 12_582_912.0;
    let bounded = x.max(-87.0);
    let shifted = bounded * std::f32::consts::LOG2_E + ROUNDING;
    let n = shifted - ROUNDING;
    // ln 2 in two parts, the first with so few bits that its product with n is exact.
    let r = bounded - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.381_446_7e-3f32;
    for c in [8.368_781e-3, 4.166_839_3e-2, 0.166_665_2, 0.499_999_94] {
        p = p * r + c;
    }
    let power = f32::from_bits(((n as i32 + 127) as u32) << 23);
    let value = (1.0 + (r + r * r * p)) * power;
    if x < -87.0 { 0.0 } else { value }
}

widest! {
    fn forward(x: &[f32], y: &mut [f32]) {
        for (x, y) in x.iter().zip(y) {
            *y = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

widest! {
    fn backward(x: &[f32], grad: &[f32], dx: &mut [f32]) {
        /// 1 / sqrt(2 pi)
        const DENSITY: f32 = 0.398_942_3;
        for ((x, grad), dx) in x.iter().zip(grad).zip(dx) {
            let below = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
            *dx = grad * (below + x * DENSITY * exp_of_negative(-0.5 * x * x));
        }
    }
}

struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(self.name(), x, layout)?;
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(ELEMENTS_AT_ONCE)
            .zip(x.par_chunks(ELEMENTS_AT_ONCE))
            .for_each(|(y, x)| forward(x, y));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (xs, grads) = (elements(x)?, elements(&grad)?);
        let mut dx = vec![0.0; xs.len()];
        dx.par_chunks_mut(ELEMENTS_AT_ONCE)
            .zip(xs.par_chunks(ELEMENTS_AT_ONCE).zip(grads.par_chunks(ELEMENTS_AT_ONCE)))
            .for_each(|(dx, (x, grad))| backward(x, grad, dx));
        Ok(Some(gradient(dx, x)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its series of positive terms in f64 (Abramowitz and Stegun 7.1.6).
    fn exact(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..300 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn erf_and_exp_are_within_their_stated_errors() {
        for i in -60_000..=60_000 {
            let x = i as f32 * 1e-4;
            assert!((f64::from(erf(x)) - exact(f64::from(x))).abs() < 5e-7, "{x}");
            let y = -(x.abs() * 16.0);
            let e = f64::from(y).exp();
            let allowed = if y < -87.0 { 2e-38 } else { e * 4e-7 };
            assert!((f64::from(exp_of_negative(y)) - e).abs() <= allowed, "{y}");
        }
    }
}
