//! What the classifier sees of a pair besides its parts: products and differences, element by element.
//!
//! candle has both; on the CPU it spreads them over threads of its own, as many as the machine has cores.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::f32_slice;

/// `a * b`, of equal shapes.
pub fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match a.device().is_cpu() {
        true => on_cpu(a, b, |a, b| a * b),
        false => a.mul(b),
    }
}

/// `|a - b|`, of equal shapes.
pub fn abs_diff(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match a.device().is_cpu() {
        true => on_cpu(a, b, |a, b| (a - b).abs()),
        false => a.sub(b)?.abs(),
    }
}

fn on_cpu(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("expected equal shapes, found {:?} and {:?}", a.dims(), b.dims())
    }
    a.contiguous()?.apply_op2_no_bwd(&b.contiguous()?, &Zip(f))
}

struct Zip<F>(F);

impl<F: Fn(f32, f32) -> f32> CustomOp2 for Zip<F> {
    fn name(&self) -> &'static str {
        "elementwise"
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (f32_slice(self.name(), a, la)?, f32_slice(self.name(), b, lb)?);
        let out = a.iter().zip(b).map(|(&a, &b)| (self.0)(a, b)).collect();
        Ok((CpuStorage::F32(out), la.shape().clone()))
    }
}
