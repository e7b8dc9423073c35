//! A head that has not been trained.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use crate::Side;
use crate::model::{Pooling, View};
use crate::training::random::{Random, named};
use crate::training::{HeadSettings, TrainError};

/// Pooling, projections, bilinear and classifier, drawn as PyTorch draws such modules.
pub fn add_head(
    tensors: &mut HashMap<String, Tensor>,
    head: &HeadSettings,
    hidden: usize,
    seed: u64,
) -> Result<(), TrainError> {
    let mut random = Random::new(&[seed, named("head")]);
    let mut put = |name: String, shape: &[usize], draw: &mut dyn FnMut() -> f64| -> Result<(), TrainError> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| draw() as f32).collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
        Ok(())
    };
    let between = |bound: f64, random: &mut Random| (random.uniform() * 2.0 - 1.0) * bound;
    if head.pooling == Pooling::Attention {
        for side in Side::BOTH {
            let prefix = format!("{}_pooler", side.name());
            // Xavier for the stacked projections, as nn.MultiheadAttention has it: fan out is 3 H.
            let bound = (6.0 / (4 * hidden) as f64).sqrt();
            put(
                format!("{prefix}.attention.in_proj_weight"),
                &[3 * hidden, hidden],
                &mut || between(bound, &mut random),
            )?;
            put(format!("{prefix}.attention.in_proj_bias"), &[3 * hidden], &mut || 0.0)?;
            let bound = 1.0 / (hidden as f64).sqrt();
            put(
                format!("{prefix}.attention.out_proj.weight"),
                &[hidden, hidden],
                &mut || between(bound, &mut random),
            )?;
            put(format!("{prefix}.attention.out_proj.bias"), &[hidden], &mut || 0.0)?;
            put(format!("{prefix}.query"), &[1, 1, hidden], &mut || random.normal())?;
        }
    }
    let width = head.width;
    let mut linears = Vec::new();
    let mut norms = Vec::new();
    for side in Side::BOTH {
        linears.push((format!("{}_projection.0", side.name()), width, hidden));
        norms.push((format!("{}_projection.1", side.name()), width));
    }
    // Linear, LayerNorm, activation, dropout, linear, activation, dropout, linear: the numbers are the places.
    linears.push(("classifier.0".to_owned(), width, head.views.len() * width));
    norms.push(("classifier.1".to_owned(), width));
    linears.push(("classifier.4".to_owned(), width / 2, width));
    linears.push(("classifier.7".to_owned(), 1, width / 2));
    for (name, out, input) in linears {
        let bound = 1.0 / (input as f64).sqrt();
        put(format!("{name}.weight"), &[out, input], &mut || {
            between(bound, &mut random)
        })?;
        put(format!("{name}.bias"), &[out], &mut || between(bound, &mut random))?;
    }
    for (name, width) in norms {
        put(format!("{name}.weight"), &[width], &mut || 1.0)?;
        put(format!("{name}.bias"), &[width], &mut || 0.0)?;
    }
    if head.views.contains(&View::Bilinear) {
        let bound = 1.0 / (width as f64).sqrt();
        put("bilinear.weight".to_owned(), &[width, width, width], &mut || {
            between(bound, &mut random)
        })?;
        put("bilinear.bias".to_owned(), &[width], &mut || {
            between(bound, &mut random)
        })?;
    }
    Ok(())
}
