//! The same operations composed of candle's differentiable ones: for devices without code of their own, and the
//! reference that the CPU's are tested against.

use candle_core::{D, Device, Result, Tensor};

use super::{
    Lengths,
    dropout::{Mask, mask_index},
};

pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    centred
        .broadcast_div(&deviation)?
        .broadcast_mul(weight)?
        .broadcast_add(bias)
}

pub(super) fn embed(words: &Tensor, positions: &Tensor, types: &Tensor, rows: &[[usize; 2]]) -> Result<Tensor> {
    let take = |table: &Tensor, which: usize| {
        let rows: Vec<u32> = rows.iter().map(|row| row[which] as u32).collect();
        table.index_select(&Tensor::new(rows, table.device())?, 0)
    };
    (take(words, 0)? + take(positions, 1)?)?.broadcast_add(&types.narrow(0, 0, 1)?)
}

/// From packed rows to padded ones and back, as row numbers.
struct Padding {
    /// `[B S]`: the packed row of each padded place (row 0 where there is none).
    to_padded: Tensor,
    /// `[T]`: the padded place of each packed row.
    to_packed: Tensor,
    /// `[B, S]`: 0 for a token, a large negative number for padding.
    bias: Tensor,
    longest: usize,
}

impl Padding {
    fn new(lengths: &Lengths, device: &Device) -> Result<Self> {
        let longest = lengths.longest();
        let (mut to_padded, mut to_packed, mut bias) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, range) in lengths.ranges().enumerate() {
            for place in 0..longest {
                let is_token = place < range.len();
                to_padded.push(if is_token { (range.start + place) as u32 } else { 0 });
                bias.push(if is_token { 0.0f32 } else { -1e30 });
                if is_token {
                    to_packed.push((sequence * longest + place) as u32);
                }
            }
        }
        Ok(Self {
            to_padded: Tensor::new(to_padded, device)?,
            to_packed: Tensor::new(to_packed, device)?,
            bias: Tensor::from_vec(bias, (lengths.count(), longest), device)?,
            longest,
        })
    }
}

pub(super) fn attention(qkv: &Tensor, lengths: &Lengths, heads: usize, mask: Option<&Mask>) -> Result<Tensor> {
    let padding = Padding::new(lengths, qkv.device())?;
    let (batch, longest, hidden) = (lengths.count(), padding.longest, qkv.dim(1)? / 3);
    let width = hidden / heads;
    let padded = qkv.index_select(&padding.to_padded, 0)?;
    let padded = padded
        .reshape((batch, longest, 3, heads, width))?
        .permute((2, 0, 3, 1, 4))?;
    let part = |which: usize| padded.get(which)?.contiguous();
    let scores = (part(0)?.matmul(&part(1)?.transpose(2, 3)?.contiguous()?)? / (width as f64).sqrt())?;
    let scores = scores.broadcast_add(&padding.bias.reshape((batch, 1, 1, longest))?)?;
    let mut weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
    if let Some(mask) = mask {
        let mut factors = Vec::with_capacity(weights.elem_count());
        for sequence in 0..batch {
            for head in 0..heads {
                for query in 0..longest {
                    let first = mask_index(sequence, heads, head, longest, query);
                    factors.extend((0..longest as u32).map(|key| mask.factor(first.wrapping_add(key))));
                }
            }
        }
        weights = (&weights * Tensor::from_vec(factors, weights.shape(), weights.device())?)?;
    }
    let context = weights.matmul(&part(2)?)?.transpose(1, 2)?;
    context
        .reshape((batch * longest, hidden))?
        .index_select(&padding.to_packed, 0)
}

pub(super) fn weighted_means(hidden: &Tensor, scores: &Tensor, lengths: &Lengths) -> Result<Tensor> {
    let padding = Padding::new(lengths, hidden.device())?;
    let (batch, longest) = (lengths.count(), padding.longest);
    let pad = |t: &Tensor| {
        t.index_select(&padding.to_padded, 0)?
            .reshape((batch, longest, t.dim(1)?))
    };
    let scores = pad(scores)?.broadcast_add(&padding.bias.unsqueeze(2)?)?;
    let weights = candle_nn::ops::softmax(&scores, 1)?;
    weights.transpose(1, 2)?.contiguous()?.matmul(&pad(hidden)?)
}
