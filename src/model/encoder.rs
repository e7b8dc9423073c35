//! The BERT encoder (Devlin et al., arXiv:1810.04805) over packed sequences.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::kernels::{
    Activation, Embedding, LayerNorm, Linear, Precision, RowKind, Sequences, feed_forward, self_attention,
};

use super::{
    config::ModelConfig,
    roles::{EncoderRoles, LayerRoles},
    weights::{Loader, ModelError},
};

/// Embeddings and layers of one side.
pub(super) struct Encoder {
    embedding: Embedding,
    layers: Vec<Layer>,
}

/// One layer: self-attention and feed-forward, each with residual and LayerNorm behind it.
struct Layer {
    heads: usize,
    query_key_value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    activation: Activation,
    output: Linear,
    output_norm: LayerNorm,
}

impl Encoder {
    pub fn load(
        loader: &Loader<'_>,
        roles: &EncoderRoles,
        config: &ModelConfig,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let embedding = Embedding::new(
            &loader.tensor(&roles.word_embeddings)?,
            &loader.tensor(&roles.position_embeddings)?,
            &loader.tensor(&roles.token_type_embeddings)?,
            loader.norm(&roles.embeddings_norm, *config.layer_norm_eps)?,
            precision.hidden_dtype(loader.device)?,
            loader.device,
        )?;
        let layers = roles
            .layers
            .par_iter()
            .map(|layer| Layer::load(loader, layer, config, precision));
        Ok(Self {
            embedding,
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    /// `token_ids`: `[T]`. Returns the last hidden states, `[T, H]`.
    pub fn forward(&self, token_ids: &Tensor, sequences: &Sequences) -> candle_core::Result<Tensor> {
        let embedded = self.embedding.forward(token_ids, sequences)?;
        self.layers
            .iter()
            .try_fold(embedded, |hidden, layer| layer.forward(&hidden, sequences))
    }
}

impl Layer {
    fn load(
        loader: &Loader<'_>,
        roles: &LayerRoles,
        config: &ModelConfig,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            heads: *config.num_attention_heads,
            query_key_value: query_key_value(loader, roles, precision)?,
            attention_output: loader.linear(RowKind::Tokens, &roles.attention_output, precision)?,
            attention_norm: loader.norm(&roles.attention_norm, *config.layer_norm_eps)?,
            intermediate: loader.linear(RowKind::Tokens, &roles.intermediate, precision)?,
            activation: config.hidden_act.kernel(),
            output: loader.linear(RowKind::Tokens, &roles.output, precision)?,
            output_norm: loader.norm(&roles.output_norm, *config.layer_norm_eps)?,
        })
    }

    fn forward(&self, hidden: &Tensor, sequences: &Sequences) -> candle_core::Result<Tensor> {
        let context = self_attention(hidden, &self.query_key_value, sequences, self.heads)?;
        let hidden = self
            .attention_output
            .forward_add_norm(&context, hidden, &self.attention_norm)?;
        feed_forward(
            &hidden,
            &self.intermediate,
            self.activation,
            &self.output,
            &self.output_norm,
        )
    }
}

/// The three projections as one product: `[3 H, H]`.
fn query_key_value(loader: &Loader<'_>, roles: &LayerRoles, precision: Precision) -> Result<Linear, ModelError> {
    let parts = [&roles.query, &roles.key, &roles.value];
    let out_features = parts.iter().map(|part| part.out_features).sum();
    let name = format!("{}+key+value", roles.query.weight);
    loader.packed_or(
        &name,
        RowKind::Tokens,
        [out_features, roles.query.in_features],
        precision,
        || {
            let weights = parts.map(|part| loader.tensor(&part.weight));
            let weights = weights.into_iter().collect::<Result<Vec<_>, _>>()?;
            let biases = parts.iter().zip(&weights).map(|(part, weight)| match &part.bias {
                Some(name) => loader.tensor(name),
                None => Ok(Tensor::zeros(part.out_features, weight.dtype(), weight.device())?),
            });
            let biases = biases.collect::<Result<Vec<_>, _>>()?;
            Ok((stacked(weights)?, Some(stacked(biases)?)))
        },
    )
}

/// Tensors below one another, in f32 where they are stored in different types.
fn stacked(tensors: Vec<Tensor>) -> candle_core::Result<Tensor> {
    if tensors.iter().all(|tensor| tensor.dtype() == tensors[0].dtype()) {
        return Tensor::cat(&tensors, 0);
    }
    let alike = tensors.iter().map(|tensor| tensor.to_dtype(DType::F32));
    Tensor::cat(&alike.collect::<Result<Vec<_>, _>>()?, 0)
}
