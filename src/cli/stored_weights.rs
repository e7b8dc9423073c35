//! Weights in the type that they are stored in.

use std::collections::HashSet;

use anyhow::Context as _;
use candle_core::{DType, Tensor};

use crate::Side;
use crate::model::Roles;

/// Names of the weights of the encoder layers' linear layers: the matrices that a run in bf16 rounds.
pub fn matrices_of_encoders(roles: &Roles) -> HashSet<&str> {
    let layers = Side::BOTH.into_iter().flat_map(|side| &roles.encoder(side).layers);
    let linears = layers.flat_map(|layer| {
        [
            &layer.query,
            &layer.key,
            &layer.value,
            &layer.attention_output,
            &layer.intermediate,
            &layer.output,
        ]
    });
    linears.map(|linear| linear.weight.as_str()).collect()
}

/// The type that a tensor of the type `own` is stored in where weights are stored as `dtype`: in bf16 those alone that are
/// `in_products`, since rounding embeddings, norms and head too would triple the error.
pub fn stored_dtype((name, own): (&str, DType), dtype: DType, in_products: &HashSet<&str>) -> DType {
    match dtype == DType::BF16 && !in_products.contains(name) {
        true => own,
        false => dtype,
    }
}

/// A tensor as it is stored where weights are stored as `dtype`, see [`stored_dtype`]. `flag`: what chose the type, for
/// messages.
///
/// # Errors
/// A value that f16 cannot hold.
pub fn converted(
    (name, tensor): (&str, &Tensor),
    dtype: DType,
    in_products: &HashSet<&str>,
    flag: &str,
) -> anyhow::Result<Tensor> {
    let dtype = stored_dtype((name, tensor.dtype()), dtype, in_products);
    let converted = tensor.to_dtype(dtype).with_context(|| format!("tensor \"{name}\""))?;
    if dtype == DType::F16 {
        let finite = |t: &Tensor| -> candle_core::Result<bool> {
            Ok(t.to_dtype(DType::F32)?
                .flatten_all()?
                .to_vec1::<f32>()?
                .iter()
                .all(|v| v.is_finite()))
        };
        anyhow::ensure!(
            finite(&converted)? || !finite(tensor)?,
            "tensor \"{name}\": a value is too large for f16; use {flag} bf16 or f32"
        );
    }
    Ok(converted)
}
