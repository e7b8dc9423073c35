//! What the classifier sees of a pair besides its parts: products and differences, element by element.
//!
//! candle has both; on the CPU it spreads them over threads of its own, as many as the machine has cores.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::f32_slice;

/// `a * b`, of equal shapes in f32; errors on others.
pub fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    pairwise(a, b, Pairwise::Product)
}

/// `|a - b|`, of equal shapes in f32; errors on others.
pub fn abs_diff(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    pairwise(a, b, Pairwise::AbsDiff)
}

/// What becomes of two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairwise {
    Product,
    AbsDiff,
}

fn pairwise(a: &Tensor, b: &Tensor, operation: Pairwise) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("views: expected equal shapes, found {:?} and {:?}", a.dims(), b.dims())
    }
    a.contiguous()?.apply_op2_no_bwd(&b.contiguous()?, &operation)
}

impl CustomOp2 for Pairwise {
    fn name(&self) -> &'static str {
        "views"
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (f32_slice(self.name(), a, la)?, f32_slice(self.name(), b, lb)?);
        let pairs = a.iter().zip(b);
        let out = match self {
            Pairwise::Product => pairs.map(|(a, b)| a * b).collect(),
            Pairwise::AbsDiff => pairs.map(|(a, b)| (a - b).abs()).collect(),
        };
        Ok((CpuStorage::F32(out), la.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &candle_core::CudaStorage,
        la: &Layout,
        b: &candle_core::CudaStorage,
        lb: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::pairwise(a, la, b, lb, *self)
    }
}
