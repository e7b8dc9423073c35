//! The operations on the CPU, in f32.

use candle_core::{DType, Result, Tensor};

use super::{Activation, reference};
pub use reference::{attention, attention_pool, embed, first_token_pool, layer_norm, mean_pool};

/// A linear layer's weights, laid out for the CPU's kernel.
#[derive(Debug)]
pub struct PackedLinear {
    in_features: usize,
    out_features: usize,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl PackedLinear {
    /// `weight`: `[N, K]`; `bias`: `[N]`; any float dtype.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let (out_features, in_features) = weight.dims2()?;
        let values = |t: &Tensor| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        Ok(Self {
            in_features,
            out_features,
            weight: values(weight)?,
            bias: bias.map(values).transpose()?,
        })
    }

    pub fn in_features(&self) -> usize {
        self.in_features
    }

    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// `x`: `[rows, K]`. Returns `[rows, N]`.
    pub fn forward(&self, x: &[f32], _rows: usize, activation: Activation) -> Vec<f32> {
        reference::linear(x, &self.weight, self.bias.as_deref(), self.in_features, activation)
    }

    /// `LayerNorm(residual + x W^T + b)`; `residual`: `[rows, N]`. Returns `[rows, N]`.
    pub fn forward_add_norm(
        &self,
        x: &[f32],
        rows: usize,
        residual: &[f32],
        weight: &[f32],
        bias: &[f32],
        eps: f32,
    ) -> Vec<f32> {
        let mut sum = self.forward(x, rows, Activation::Identity);
        sum.iter_mut().zip(residual).for_each(|(s, r)| *s += r);
        layer_norm(&sum, weight, bias, eps, Activation::Identity)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct KernelError;
pub struct Kernel;
impl Kernel {
    pub fn name(&self) -> &'static str {
        "portable-f32"
    }
}
pub fn selected() -> Kernel {
    Kernel
}
pub fn check_selection() -> std::result::Result<(), KernelError> {
    Ok(())
}
