//! What follows pooling: projections, the views of a pair, bilinear fusion and the classifier.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::kernels::{Activation, LayerNorm, Linear, Precision};

use super::{
    config::View,
    roles::{BilinearRole, HeadStep},
    weights::{Loader, ModelError},
};

/// Linears and LayerNorms one after another, each with the activation that follows it; always f32.
pub(super) struct Steps(Vec<(Step, Activation)>);

/// `nn.LayerNorm`'s default; `config.json`'s epsilon is the encoders'.
const NORM_EPS: f64 = 1e-5;

enum Step {
    Linear(Linear),
    Norm(LayerNorm),
}

impl Steps {
    pub fn load(loader: &Loader<'_>, roles: &[HeadStep], activation: Activation) -> Result<Self, ModelError> {
        let mut steps: Vec<(Step, Activation)> = Vec::new();
        for role in roles {
            match role {
                HeadStep::Linear(role) => {
                    steps.push((Step::Linear(loader.linear(role, Precision::F32)?), Activation::Identity));
                }
                HeadStep::Norm(role) => steps.push((Step::Norm(loader.norm(role, NORM_EPS)?), Activation::Identity)),
                HeadStep::Activation => {
                    if let Some((_, follows)) = steps.last_mut() {
                        *follows = activation;
                    }
                }
            }
        }
        Ok(Self(steps))
    }

    /// `x`: `[M, in]`. Returns `[M, out]`.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, (step, activation)| match step {
            Step::Linear(linear) => linear.forward(&x, *activation),
            Step::Norm(norm) => norm.forward(&x, *activation),
        })
    }
}

/// `nn.Bilinear`: `y_o = x1^T W_o x2 + b_o`.
pub(super) struct Bilinear {
    /// `[O F, F]`: row `o F + i` holds `W_o[i, :]`.
    weight: Linear,
    bias: Option<Tensor>,
    outputs: usize,
    width: usize,
}

/// Pairs fused at once: the intermediate result is `O F` numbers a pair, 256 kB at full size.
const PAIRS_AT_ONCE: usize = 48;
/// Most threads that fuse, so that intermediate results stay below 200 MB on any machine.
const THREADS_AT_ONCE: usize = 8;

impl Bilinear {
    pub fn load(loader: &Loader<'_>, role: &BilinearRole) -> Result<Self, ModelError> {
        let rows = role.outputs * role.width;
        let weight = loader.packed_or(&role.weight, [rows, role.width], Precision::F32, || {
            Ok((loader.tensor(&role.weight)?.reshape((rows, role.width))?, None))
        })?;
        let bias = loader.optional(role.bias.as_ref())?;
        let bias = bias
            .map(|bias| bias.to_dtype(DType::F32)?.to_device(loader.device))
            .transpose()?;
        Ok(Self {
            weight,
            bias,
            outputs: role.outputs,
            width: role.width,
        })
    }

    /// `x1`, `x2`: `[N, F]`. Returns `[N, O]`.
    pub fn forward(&self, x1: &Tensor, x2: &Tensor) -> candle_core::Result<Tensor> {
        let pairs = x1.dim(0)?;
        let fuse = |start: &usize| {
            let n = PAIRS_AT_ONCE.min(pairs - start);
            // W_o x2 for all o, then the inner products with x1.
            let transformed = self.weight.forward(&x2.narrow(0, *start, n)?, Activation::Identity)?;
            let transformed = transformed.reshape((n, self.outputs, self.width))?;
            let x1 = x1.narrow(0, *start, n)?.reshape((n, 1, self.width))?;
            transformed.broadcast_mul(&x1)?.sum(2)
        };
        let starts: Vec<usize> = (0..pairs).step_by(PAIRS_AT_ONCE).collect();
        let mut parts = Vec::with_capacity(starts.len());
        for starts in starts.chunks(if x1.device().is_cpu() { THREADS_AT_ONCE } else { 1 }) {
            let fused: candle_core::Result<Vec<Tensor>> = starts.par_iter().map(fuse).collect();
            parts.extend(fused?);
        }
        let fused = Tensor::cat(&parts, 0)?;
        match &self.bias {
            Some(bias) => fused.broadcast_add(bias),
            None => Ok(fused),
        }
    }
}

/// The views of pairs side by side: the classifier's input.
///
/// `drug`, `adr`: `[N, F]`; `bilinear`: `[N, O]`, needed only if it is among `views`.
pub(super) fn concatenate_views(
    views: &[View],
    drug: &Tensor,
    adr: &Tensor,
    bilinear: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let parts = views.iter().map(|view| match view {
        View::Bilinear => match bilinear {
            Some(fused) => Ok(fused.clone()),
            None => candle_core::bail!("view \"bilinear\" without its tensor"),
        },
        View::Drug => Ok(drug.clone()),
        View::Adr => Ok(adr.clone()),
        View::Product => drug.mul(adr),
        View::AbsDiff => drug.sub(adr)?.abs(),
    });
    Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 1)
}
