//! An encoder that has not been trained.

use candle_core::{Device, Tensor};

use super::WORD_EMBEDDINGS;
use crate::training::random::{Random, named};
use crate::training::{BackboneSettings, TrainError};

/// Standard deviation of BERT's own initialisation.
const DEVIATION: f64 = 0.02;

/// The tensors of one encoder, by their names in BERT, with `rows` word embeddings: `[rows, H]`, `[P, H]`, `[2, H]`, and each
/// layer's, drawn as BERT draws them.
pub fn fresh_encoder(settings: &BackboneSettings, rows: usize, seed: u64) -> Result<Vec<(String, Tensor)>, TrainError> {
    let mut encoder = Vec::new();
    let mut random = Random::new(&[seed, named("backbone")]);
    let (hidden, intermediate) = (settings.hidden_size, settings.intermediate_size);
    let mut add = |name: &str, shape: &[usize], random: &mut Random| -> Result<(), TrainError> {
        let count = shape.iter().product();
        let values: Vec<f32> = match shape.len() {
            2 => (0..count).map(|_| (random.normal() * DEVIATION) as f32).collect(),
            _ => vec![if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 }; count],
        };
        encoder.push((name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu)?));
        Ok(())
    };
    add(WORD_EMBEDDINGS, &[rows, hidden], &mut random)?;
    let positions = settings.max_position_embeddings;
    add(
        "embeddings.position_embeddings.weight",
        &[positions, hidden],
        &mut random,
    )?;
    add("embeddings.token_type_embeddings.weight", &[2, hidden], &mut random)?;
    let mut layers = vec![("embeddings.LayerNorm".to_owned(), vec![hidden])];
    for layer in 0..settings.num_hidden_layers {
        let within = |name: &str| format!("encoder.layer.{layer}.{name}");
        for part in ["query", "key", "value"] {
            layers.push((within(&format!("attention.self.{part}")), vec![hidden, hidden]));
        }
        layers.push((within("attention.output.dense"), vec![hidden, hidden]));
        layers.push((within("attention.output.LayerNorm"), vec![hidden]));
        layers.push((within("intermediate.dense"), vec![intermediate, hidden]));
        layers.push((within("output.dense"), vec![hidden, intermediate]));
        layers.push((within("output.LayerNorm"), vec![hidden]));
    }
    for (name, shape) in layers {
        add(&format!("{name}.weight"), &shape, &mut random)?;
        add(&format!("{name}.bias"), &shape[..1], &mut random)?;
    }
    Ok(encoder)
}
