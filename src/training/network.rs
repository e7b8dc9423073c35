//! The dual encoder with gradients: the same arithmetic as [`crate::model::DualEncoder`], from the same roles.
//!
//! What differs: weights are named tensors that may be variables, texts may be dropped out, and attention
//! pooling's folded keys are part of the graph. The trained checkpoint scored by the model gives these results.

use std::collections::HashMap;

use candle_core::{Result, Tensor, bail};

use crate::{
    Side,
    model::{
        HEAD_NORM_EPS, ModelConfig, Pooling, Roles, View,
        config::ActivationName,
        roles::{BilinearRole, EncoderRoles, HeadStep, LayerRoles, LinearRole, NormRole, PoolerRoles},
    },
};

use super::ops::{Dropout, Lengths, attention, dropout, dropout_add, embed, gelu, layer_norm, linear, weighted_means};

/// Tensors by name: variables where gradients shall flow, plain tensors where not.
#[derive(Clone, Debug, Default)]
pub struct Weights(HashMap<String, Tensor>);

impl Weights {
    pub fn new(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        Self(tensors.into_iter().collect())
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        match self.0.get(name) {
            Some(tensor) => Ok(tensor),
            None => bail!("no tensor \"{name}\""),
        }
    }

    fn linear(&self, x: &Tensor, role: &LinearRole) -> Result<Tensor> {
        let bias = role.bias.as_ref().map(|name| self.get(name)).transpose()?;
        linear(x, self.get(&role.weight)?, bias)
    }

    fn norm(&self, x: &Tensor, role: &NormRole, eps: f64) -> Result<Tensor> {
        layer_norm(x, self.get(&role.weight)?, self.get(&role.bias)?, eps)
    }
}

/// The architecture: roles of tensors and settings, without the tensors.
#[derive(Clone, Debug)]
pub struct Network {
    pub roles: Roles,
    pub config: ModelConfig,
}

impl Network {
    /// Representations `[B, F]` of texts given as token ids, `[CLS]` and `[SEP]` included.
    pub(super) fn encode(
        &self,
        weights: &Weights,
        side: Side,
        texts: &[&[u32]],
        drop: Option<&Dropout>,
    ) -> Result<Tensor> {
        let lengths = Lengths::new(texts.iter().map(|ids| ids.len()));
        let hidden = self.encoder(weights, self.roles.encoder(side), &texts.concat(), &lengths, drop)?;
        let pooled = match (*self.config.pooling, self.roles.pooler(side)) {
            (Pooling::Attention, Some(pooler)) => self.attention_pool(weights, pooler, &hidden, &lengths)?,
            (Pooling::Attention, None) => bail!("attention pooling without its tensors"),
            (Pooling::Mean, _) => mean_pool(&hidden, &lengths)?,
            (Pooling::Cls, _) => {
                let first: Vec<u32> = lengths.ranges().map(|range| range.start as u32).collect();
                hidden.index_select(&Tensor::new(first, hidden.device())?, 0)?
            }
        };
        self.steps(weights, self.roles.projection(side), pooled, drop)
    }

    /// Logits `[N]` of pairs. `drug`, `adr`: `[N, F]` representations.
    pub(super) fn logits(
        &self,
        weights: &Weights,
        drug: &Tensor,
        adr: &Tensor,
        drop: Option<&Dropout>,
    ) -> Result<Tensor> {
        let views = self.config.views.iter().map(|view| match (view, &self.roles.bilinear) {
            (View::Bilinear, Some(role)) => bilinear(weights, role, drug, adr),
            (View::Bilinear, None) => bail!("view \"bilinear\" without its tensor"),
            (View::Drug, _) => Ok(drug.clone()),
            (View::Adr, _) => Ok(adr.clone()),
            (View::Product, _) => drug.mul(adr),
            (View::AbsDiff, _) => drug.sub(adr)?.abs(),
        });
        let views = Tensor::cat(&views.collect::<Result<Vec<_>>>()?, 1)?;
        self.steps(weights, &self.roles.classifier, views, drop)?.squeeze(1)
    }

    fn encoder(
        &self,
        weights: &Weights,
        roles: &EncoderRoles,
        token_ids: &[u32],
        lengths: &Lengths,
        drop: Option<&Dropout>,
    ) -> Result<Tensor> {
        let embedded = embed(
            weights.get(&roles.word_embeddings)?,
            weights.get(&roles.position_embeddings)?,
            weights.get(&roles.token_type_embeddings)?,
            token_ids,
            lengths,
        )?;
        let embedded = weights.norm(&embedded, &roles.embeddings_norm, *self.config.layer_norm_eps)?;
        let embedded = dropout(&embedded, drop)?;
        roles.layers.iter().try_fold(embedded, |hidden, layer| {
            self.layer(weights, layer, &hidden, lengths, drop)
        })
    }

    fn layer(
        &self,
        weights: &Weights,
        roles: &LayerRoles,
        hidden: &Tensor,
        lengths: &Lengths,
        drop: Option<&Dropout>,
    ) -> Result<Tensor> {
        let eps = *self.config.layer_norm_eps;
        let qkv = query_key_value(weights, roles, hidden)?;
        let context = attention(&qkv, lengths, *self.config.num_attention_heads, drop)?;
        let context = weights.linear(&context, &roles.attention_output)?;
        let hidden = weights.norm(&dropout_add(&context, hidden, drop)?, &roles.attention_norm, eps)?;
        let intermediate = weights.linear(&hidden, &roles.intermediate)?;
        let intermediate = activate(&intermediate, *self.config.hidden_act)?;
        let output = weights.linear(&intermediate, &roles.output)?;
        weights.norm(&dropout_add(&output, &hidden, drop)?, &roles.output_norm, eps)
    }

    /// See `AttentionPooler` in [`crate::model`] for why the query is folded into the keys.
    fn attention_pool(
        &self,
        weights: &Weights,
        roles: &PoolerRoles,
        hidden: &Tensor,
        lengths: &Lengths,
    ) -> Result<Tensor> {
        let (heads, size) = (*self.config.pooling_heads, hidden.dim(1)?);
        let width = size / heads;
        let in_proj = weights.get(&roles.in_proj_weight)?;
        let bias = roles.in_proj_bias.as_ref().map(|name| weights.get(name)).transpose()?;
        let rows = |which: usize| in_proj.narrow(0, which * size, size)?.contiguous();
        let bias = |which: usize| bias.map(|b| b.narrow(0, which * size, size)?.contiguous()).transpose();

        let query = weights.get(&roles.query)?.reshape((1, size))?;
        let query = (linear(&query, &rows(0)?, bias(0)?.as_ref())? / (width as f64).sqrt())?;
        // The keys' bias adds the same to every score of a head, which softmax ignores.
        let keys = query
            .reshape((heads, 1, width))?
            .matmul(&rows(1)?.reshape((heads, width, size))?)?
            .reshape((heads, size))?;
        let scores = linear(hidden, &keys, None)?;
        let means = weighted_means(hidden, &scores, lengths)?;

        let values = rows(2)?.reshape((heads, width, size))?.transpose(1, 2)?.contiguous()?;
        let pooled = means.transpose(0, 1)?.contiguous()?.matmul(&values)?;
        let pooled = pooled.transpose(0, 1)?.reshape((lengths.count(), size))?;
        let pooled = match bias(2)? {
            Some(bias) => pooled.broadcast_add(&bias)?,
            None => pooled,
        };
        weights.linear(&pooled, &roles.out_proj)
    }

    fn steps(&self, weights: &Weights, steps: &[HeadStep], x: Tensor, drop: Option<&Dropout>) -> Result<Tensor> {
        steps.iter().try_fold(x, |x, step| match step {
            HeadStep::Linear(role) => weights.linear(&x, role),
            HeadStep::Norm(role) => weights.norm(&x, role, HEAD_NORM_EPS),
            HeadStep::Activation => dropout(&activate(&x, *self.config.activation)?, drop),
        })
    }
}

/// The three projections as one product: `[T, 3 H]`.
fn query_key_value(weights: &Weights, roles: &LayerRoles, hidden: &Tensor) -> Result<Tensor> {
    let parts = [&roles.query, &roles.key, &roles.value];
    let matrices = parts.map(|part| weights.get(&part.weight));
    let matrix = Tensor::cat(&matrices.into_iter().collect::<Result<Vec<_>>>()?, 0)?;
    let biases = parts.map(|part| match &part.bias {
        Some(name) => weights.get(name).cloned(),
        None => Tensor::zeros(part.out_features, hidden.dtype(), hidden.device()),
    });
    let bias = Tensor::cat(&biases.into_iter().collect::<Result<Vec<_>>>()?, 0)?;
    linear(hidden, &matrix, Some(&bias))
}

/// `y_o = x1^T W_o x2 + b_o`, as one product over all `F^2` pairs of numbers.
fn bilinear(weights: &Weights, role: &BilinearRole, x1: &Tensor, x2: &Tensor) -> Result<Tensor> {
    let (pairs, width) = x1.dims2()?;
    let products = x1
        .reshape((pairs, width, 1))?
        .broadcast_mul(&x2.reshape((pairs, 1, width))?)?
        .reshape((pairs, width * width))?;
    let weight = weights.get(&role.weight)?.reshape((role.outputs, width * width))?;
    let bias = role.bias.as_ref().map(|name| weights.get(name)).transpose()?;
    linear(&products, &weight, bias)
}

/// The mean over each sequence's tokens, as a product with a constant matrix.
fn mean_pool(hidden: &Tensor, lengths: &Lengths) -> Result<Tensor> {
    let mut shares = vec![0.0f32; lengths.count() * lengths.tokens()];
    for (sequence, range) in lengths.ranges().enumerate() {
        let share = 1.0 / range.len() as f32;
        let row = sequence * lengths.tokens();
        shares[row + range.start..row + range.end].fill(share);
    }
    Tensor::from_vec(shares, (lengths.count(), lengths.tokens()), hidden.device())?.matmul(hidden)
}

fn activate(x: &Tensor, activation: ActivationName) -> Result<Tensor> {
    match activation {
        ActivationName::Gelu => gelu(x),
        ActivationName::GeluNew => x.gelu(),
        ActivationName::Relu => x.relu(),
        ActivationName::Tanh => x.tanh(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::job_tests::{Case, values};

    #[test]
    fn embeddings_are_dropped_out_too() {
        let mut case = Case::new();
        // Layers that add nothing, so that nothing but the embeddings and the end of the head can be dropped out.
        for (name, tensor) in &mut case.start.tensors {
            if name.contains(".output.dense.") {
                *tensor = tensor.zeros_like().unwrap();
            }
        }
        let weights = case.parameters().detached();
        let texts: Vec<&[u32]> = case.train.texts[0]
            .iter()
            .map(|text| text.token_ids.as_slice())
            .collect();
        let encode = |drop: Option<&Dropout>| {
            let network = &case.start.network;
            values(&network.encode(&weights, Side::Drug, &texts, drop).unwrap())
        };
        let (whole, dropped) = (encode(None), encode(Some(&Dropout::new(0.5, 1))));
        let mut kept = dropped.iter().zip(&whole).filter(|(dropped, _)| **dropped != 0.0);
        assert!(kept.any(|(dropped, whole)| (dropped / 2.0 - whole).abs() > 1e-3));
    }
}
