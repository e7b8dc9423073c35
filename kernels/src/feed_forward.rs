//! The feed-forward half of a transformer's layer (Vaswani et al., arXiv:1706.03762).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{Activation, LayerNorm, Linear, cpu, f32_slice};

/// `LayerNorm(x + output(activation(intermediate(x))))`.
///
/// `x`: `[M, H]`. Returns `[M, H]`.
pub fn feed_forward(
    x: &Tensor,
    intermediate: &Linear,
    activation: Activation,
    output: &Linear,
    norm: &LayerNorm,
) -> Result<Tensor> {
    intermediate.check(x)?;
    if let (Some(first), Some(second)) = (intermediate.packed(), output.packed())
        && first.out_features() == second.in_features()
        && [second.out_features(), norm.width()] == [first.in_features(); 2]
    {
        return x.contiguous()?.apply_op1_no_bwd(&CpuFeedForward {
            intermediate: first,
            activation,
            output: second,
            norm,
        });
    }
    output.forward_add_norm(&intermediate.forward(x, activation)?, x, norm)
}

struct CpuFeedForward<'a> {
    intermediate: &'a cpu::PackedLinear,
    activation: Activation,
    output: &'a cpu::PackedLinear,
    norm: &'a LayerNorm,
}

impl CustomOp1 for CpuFeedForward<'_> {
    fn name(&self) -> &'static str {
        "feed forward"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = f32_slice(self.name(), x, layout)?;
        let rows = x.len() / self.intermediate.in_features();
        let Self {
            intermediate,
            activation,
            output,
            norm,
        } = *self;
        let out =
            norm.with_cpu_parameters(|norm| cpu::feed_forward(x, rows, intermediate, activation, output, norm))?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}
