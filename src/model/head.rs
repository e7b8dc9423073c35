//! What follows pooling: projections, the views of a pair, bilinear fusion and the classifier.

use candle_core::Tensor;

use crate::kernels::{Activation, Bilinear, LayerNorm, Linear, Precision, RowKind, abs_diff, product};

use super::{
    config::View,
    roles::{BilinearRole, HeadStep},
    weights::{Loader, ModelError},
};

/// Linears and LayerNorms one after another, each with the activation that follows it; always f32.
pub(super) struct Steps(Vec<(Step, Activation)>);

/// `nn.LayerNorm`'s default; `config.json`'s epsilon is the encoders'.
pub const HEAD_NORM_EPS: f64 = 1e-5;

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
                    steps.push((
                        Step::Linear(loader.linear(RowKind::Texts, role, Precision::F32)?),
                        Activation::Identity,
                    ));
                }
                HeadStep::Norm(role) => {
                    steps.push((Step::Norm(loader.norm(role, HEAD_NORM_EPS)?), Activation::Identity))
                }
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

/// `nn.Bilinear` of a checkpoint. Where the encoders compute in less than f32 on the CPU, its product is in bf16: with
/// representations from a cache it is nearly all that is left of the time, and its error is a fraction of theirs.
pub(super) fn load_bilinear(
    loader: &Loader<'_>,
    role: &BilinearRole,
    precision: Precision,
) -> Result<Bilinear, ModelError> {
    let precision = match precision {
        Precision::Bf16 | Precision::Int8 if loader.device.is_cpu() => Precision::Bf16,
        _ => Precision::F32,
    };
    let rows = role.outputs * role.width;
    let weight = loader.packed_or(&role.weight, RowKind::Pairs, [rows, role.width], precision, || {
        Ok((loader.tensor(&role.weight)?.reshape((rows, role.width))?, None))
    })?;
    let bias = loader.optional(role.bias.as_ref())?;
    Ok(Bilinear::new(weight, bias.as_ref(), role.outputs, loader.device)?)
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
        View::Product => product(drug, adr),
        View::AbsDiff => abs_diff(drug, adr),
    });
    Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 1)
}
