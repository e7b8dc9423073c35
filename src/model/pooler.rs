//! From hidden states to one vector a sequence: attention, mean or `[CLS]`.

use candle_core::{DType, Tensor};

use crate::{
    Side,
    kernels::{Activation, Linear, Precision, RowKind, Sequences, attention_pool, first_token_pool, mean_pool},
};

use super::{
    config::{ModelConfig, Pooling},
    roles::{PoolerRoles, Roles},
    weights::{Loader, ModelError},
};

/// The pooling of one side.
pub(super) enum Pooler {
    Attention(AttentionPooler),
    Mean,
    Cls,
}

impl Pooler {
    pub fn load(loader: &Loader<'_>, roles: &Roles, side: Side, config: &ModelConfig) -> Result<Self, ModelError> {
        Ok(match (*config.pooling, roles.pooler(side)) {
            (Pooling::Attention, Some(pooler)) => {
                Pooler::Attention(AttentionPooler::load(loader, pooler, *config.pooling_heads)?)
            }
            (Pooling::Mean, _) => Pooler::Mean,
            (Pooling::Cls, _) => Pooler::Cls,
            (Pooling::Attention, None) => {
                return Err(candle_core::Error::Msg("attention pooling without its tensors".into()).into());
            }
        })
    }

    /// `hidden`: `[T, H]`. Returns `[B, H]` in f32.
    pub fn forward(&self, hidden: &Tensor, sequences: &Sequences) -> candle_core::Result<Tensor> {
        match self {
            Pooler::Attention(pooler) => pooler.forward(hidden, sequences),
            Pooler::Mean => mean_pool(hidden, sequences),
            Pooler::Cls => first_token_pool(hidden, sequences),
        }
    }
}

/// The card's `AttentionPooling`: `nn.MultiheadAttention` asked by one learned query.
///
/// The query is the same for every text, so its product with the key projection is formed once:
/// `q . (W_k x + b_k) = (W_k^T q) . x + const`, and softmax ignores the constant, if it is finite. The values'
/// projection is linear, so it is applied to each head's weighted mean instead of to every token.
/// Both are the same function with `T` times fewer operations.
pub(super) struct AttentionPooler {
    /// `[heads, H]`, f32, scaled by `1 / sqrt(D)`.
    keys: Tensor,
    /// One `[D, H]` a head.
    values: Vec<Linear>,
    output: Linear,
}

impl AttentionPooler {
    fn load(loader: &Loader<'_>, roles: &PoolerRoles, heads: usize) -> Result<Self, ModelError> {
        let in_proj = loader.tensor(&roles.in_proj_weight)?;
        let hidden = in_proj.dim(1)?;
        let width = hidden / heads;
        let bias = match loader.optional(roles.in_proj_bias.as_ref())? {
            Some(bias) => bias,
            None => Tensor::zeros(3 * hidden, DType::F32, in_proj.device())?,
        };
        let query = loader.tensor(&roles.query)?.flatten_all()?;
        let values = (0..heads).map(|head| {
            let name = format!("{}[value {head} of {heads}]", roles.in_proj_weight);
            loader.packed_or(&name, RowKind::Texts, [width, hidden], Precision::F32, || {
                let rows = |t: &Tensor| t.narrow(0, 2 * hidden + head * width, width)?.contiguous();
                Ok((rows(&in_proj)?, Some(rows(&bias)?)))
            })
        });
        Ok(Self {
            keys: folded_keys(&in_proj, &bias, &query, heads)?.to_device(loader.device)?,
            values: values.collect::<Result<_, _>>()?,
            output: loader.linear(RowKind::Texts, &roles.out_proj, Precision::F32)?,
        })
    }

    fn forward(&self, hidden: &Tensor, sequences: &Sequences) -> candle_core::Result<Tensor> {
        let means = attention_pool(hidden, &self.keys, sequences)?;
        let heads = self.values.iter().enumerate();
        let heads = heads.map(|(head, value)| value.forward(&means.get(head)?, Activation::Identity));
        let values = Tensor::cat(&heads.collect::<candle_core::Result<Vec<_>>>()?, 1)?;
        self.output.forward(&values, Activation::Identity)
    }
}

/// The key projection with the query folded in: `[heads, H]`, f32, scaled by `1 / sqrt(D)`.
///
/// `in_proj`: `[3 H, H]`; `bias`: `[3 H]`; `query`: `[H]`. Formed once per load, so in f64: no rounding
/// to explain later.
fn folded_keys(in_proj: &Tensor, bias: &Tensor, query: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let hidden = in_proj.dim(1)?;
    let width = hidden / heads;
    let wide = |t: &Tensor| t.to_dtype(DType::F64);
    let part = |t: &Tensor, i: usize| wide(&t.narrow(0, i * hidden, hidden)?);
    let query = wide(query)?.reshape((hidden, 1))?;
    let query = part(in_proj, 0)?
        .matmul(&query)?
        .add(&part(bias, 0)?.reshape((hidden, 1))?)?;
    let query = (query.reshape((heads, 1, width))? / (width as f64).sqrt())?;
    let keys = query.matmul(&part(in_proj, 1)?.reshape((heads, width, hidden))?)?;
    let keys = keys.reshape((heads, hidden))?.to_dtype(DType::F32)?;
    // The constant that softmax ignores: a damaged one has to come through, as every weight that is not finite does.
    let constant = query.matmul(&part(bias, 1)?.reshape((heads, width, 1))?)?;
    let is_finite = constant.flatten_all()?.to_vec1::<f64>()?.iter().all(|c| c.is_finite());
    match is_finite {
        true => Ok(keys),
        false => keys.affine(f64::NAN, 0.0),
    }
}
