//! Every operation once in its plainest form, summed in f64: what the kernels are tested against.
//!
//! Shapes are those of the operation of the same name; slices are row-major.

use super::Activation;

/// `activation(x W^T + b)`: `x` `[M, K]`, `weight` `[N, K]`, `bias` `[N]`. Returns `[M, N]`.
pub fn linear(x: &[f32], weight: &[f32], bias: Option<&[f32]>, in_features: usize, activation: Activation) -> Vec<f32> {
    let out_features = weight.len() / in_features;
    let mut out = Vec::with_capacity(x.len() / in_features * out_features);
    for row in x.chunks_exact(in_features) {
        for n in 0..out_features {
            let products = row
                .iter()
                .zip(&weight[n * in_features..])
                .map(|(&a, &b)| f64::from(a) * f64::from(b));
            let sum: f64 = products.sum::<f64>() + bias.map_or(0.0, |b| f64::from(b[n]));
            out.push(activate(sum, activation) as f32);
        }
    }
    out
}

/// `x1^T W_o x2 + b_o`: `x1` `[M, F1]`, `x2` `[M, F2]`, `weight` `[O, F1, F2]`, `bias` `[O]`. Returns `[M, O]`.
pub fn bilinear(x1: &[f32], x2: &[f32], weight: &[f32], bias: &[f32], widths: [usize; 2]) -> Vec<f32> {
    let mut out = Vec::new();
    for (x1, x2) in x1.chunks_exact(widths[0]).zip(x2.chunks_exact(widths[1])) {
        for (weight, &bias) in weight.chunks_exact(widths[0] * widths[1]).zip(bias) {
            let rows = x1.iter().zip(weight.chunks_exact(widths[1]));
            let sum: f64 = rows.map(|(&a, row)| f64::from(a) * dot(row, x2)).sum();
            out.push((sum + f64::from(bias)) as f32);
        }
    }
    out
}

/// Values rounded to bf16, to nearest even.
pub fn round_to_bf16(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect()
}

/// Values that share a scale in 8 bits: so many neighbours along k.
pub const INT8_GROUP: usize = 256;

/// Rows of `k` values in 8 bits each: `least + scale * q`, `q` from 0 to 255.
pub fn round_rows_to_int8(x: &[f32], k: usize) -> Vec<f32> {
    let round = |group: &[f32]| {
        let least = group.iter().copied().fold(f32::INFINITY, f32::min);
        let scale = (group.iter().copied().fold(f32::NEG_INFINITY, f32::max) - least) / 255.0;
        let factor = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let value = |x: &f32| {
            let q = ((x - least) * factor).round_ties_even();
            (f64::from(least) + f64::from(scale) * f64::from(q)) as f32
        };
        group.iter().map(value).collect::<Vec<_>>()
    };
    let groups = x.chunks_exact(k).flat_map(|row| row.chunks(INT8_GROUP));
    groups.flat_map(round).collect()
}

/// Outputs' weights, `[N, K]`, in 8 bits each: `scale * q`, `q` from -127 to 127.
pub fn round_weights_to_int8(weight: &[f32], k: usize) -> Vec<f32> {
    let round = |group: &[f32]| {
        let most = group.iter().fold(0f32, |most, w| most.max(w.abs()));
        let factor = if most > 0.0 { 127.0 / most } else { 0.0 };
        let value = |w: &f32| most / 127.0 * (w * factor).round_ties_even();
        group.iter().map(value).collect::<Vec<_>>()
    };
    let groups = weight.chunks_exact(k).flat_map(|row| row.chunks(INT8_GROUP));
    groups.flat_map(round).collect()
}

/// The activation in f64.
pub fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Identity => x,
        // 1 + erf(x / sqrt 2) is erfc(-x / sqrt 2), which keeps its digits for negative x.
        Activation::Gelu => 0.5 * x * candle_core::cpu::erf::erfc_f64(-x / std::f64::consts::SQRT_2),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
    }
}

/// LayerNorm over rows of `weight.len()` elements.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, activation: Activation) -> Vec<f32> {
    let width = weight.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
        let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        for ((&v, &w), &b) in row.iter().zip(weight).zip(bias) {
            out.push(activate((f64::from(v) - mean) * scale * f64::from(w) + f64::from(b), activation) as f32);
        }
    }
    out
}

/// Word plus position embedding of each packed token, then LayerNorm.
#[allow(clippy::too_many_arguments)]
pub fn embed(
    ids: &[u32],
    offsets: &[u32],
    word: &[f32],
    position: &[f32],
    hidden: usize,
    weight: &[f32],
    bias: &[f32],
    eps: f32,
) -> Vec<f32> {
    let mut sum = Vec::with_capacity(ids.len() * hidden);
    for w in offsets.windows(2) {
        for (p, &id) in ids[w[0] as usize..w[1] as usize].iter().enumerate() {
            let word = &word[id as usize * hidden..][..hidden];
            sum.extend(word.iter().zip(&position[p * hidden..]).map(|(a, b)| a + b));
        }
    }
    layer_norm(&sum, weight, bias, eps, Activation::Identity)
}

/// Self-attention within each sequence; `qkv` `[T, 3 * hidden]`. Returns `[T, hidden]`.
pub fn attention(qkv: &[f32], offsets: &[u32], hidden: usize, heads: usize) -> Vec<f32> {
    let width = hidden / heads;
    let row = |t: usize, part: usize, head: usize| &qkv[t * 3 * hidden + part * hidden + head * width..][..width];
    let mut out = vec![0f32; qkv.len() / 3];
    for w in offsets.windows(2) {
        let tokens = w[0] as usize..w[1] as usize;
        for head in 0..heads {
            for t in tokens.clone() {
                let scores = tokens
                    .clone()
                    .map(|s| dot(row(t, 0, head), row(s, 1, head)) / (width as f64).sqrt());
                let weights = softmax(scores.collect());
                for d in 0..width {
                    let mean: f64 = tokens
                        .clone()
                        .zip(&weights)
                        .map(|(s, p)| p * f64::from(row(s, 2, head)[d]))
                        .sum();
                    out[t * hidden + head * width + d] = mean as f32;
                }
            }
        }
    }
    out
}

/// Softmax-weighted mean of hidden states per head. Returns `[heads, B, width]`.
pub fn attention_pool(hidden: &[f32], keys: &[f32], offsets: &[u32], heads: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity((offsets.len() - 1) * heads * width);
    for key in keys.chunks_exact(width).take(heads) {
        for w in offsets.windows(2) {
            let tokens = &hidden[w[0] as usize * width..w[1] as usize * width];
            let weights = softmax(tokens.chunks_exact(width).map(|token| dot(token, key)).collect());
            for d in 0..width {
                let mean: f64 = tokens
                    .chunks_exact(width)
                    .zip(&weights)
                    .map(|(t, p)| p * f64::from(t[d]))
                    .sum();
                out.push(mean as f32);
            }
        }
    }
    out
}

/// Mean over each sequence's tokens. Returns `[B, width]`.
pub fn mean_pool(hidden: &[f32], offsets: &[u32], width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity((offsets.len() - 1) * width);
    for w in offsets.windows(2) {
        let tokens = &hidden[w[0] as usize * width..w[1] as usize * width];
        let count = f64::from(w[1] - w[0]);
        for d in 0..width {
            out.push((tokens.chunks_exact(width).map(|t| f64::from(t[d])).sum::<f64>() / count) as f32);
        }
    }
    out
}

/// Each sequence's first token. Returns `[B, width]`.
pub fn first_token_pool(hidden: &[f32], offsets: &[u32], width: usize) -> Vec<f32> {
    offsets[..offsets.len() - 1]
        .iter()
        .flat_map(|&o| &hidden[o as usize * width..][..width])
        .copied()
        .collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn softmax(mut scores: Vec<f64>) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|s| *s = (*s - max).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= sum);
    scores
}
