//! The encoder against an independent implementation: candle-transformers' `BertModel`, padded and
//! masked, on random weights.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use crag::{
    Side,
    checkpoint::{Checkpoint, HubOptions, ModelSource, locate, write_safetensors},
    model::{DualEncoder, ModelConfig, Placement, Roles},
};

use crate::common::random::Random;

const HIDDEN: usize = 96;
const LAYERS: usize = 3;
const INTERMEDIATE: usize = 160;
const VOCABULARY: usize = 70;
const POSITIONS: usize = 48;
const HEADS: usize = 4;

fn tensor(random: &mut Random, shape: &[usize], centre: f32, spread: f32) -> Tensor {
    let count = shape.iter().product();
    let values = (0..count).map(|_| centre + spread * ((random.next() >> 33) as f32 / 2f32.powi(30) - 1.0));
    Tensor::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu).unwrap()
}

/// The tensors of one BERT, without a prefix.
fn bert(random: &mut Random) -> Vec<(String, Tensor)> {
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize], random: &mut Random| {
        let norm = name.contains("LayerNorm.weight");
        all.push((name, tensor(random, shape, if norm { 1.0 } else { 0.0 }, 0.25)));
    };
    for (name, rows) in [("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, HIDDEN], random);
    }
    let linear = |name: String, out: usize, input: usize| {
        [
            (format!("{name}.weight"), vec![out, input]),
            (format!("{name}.bias"), vec![out]),
        ]
    };
    let norm = |name: String| {
        [
            (format!("{name}.weight"), vec![HIDDEN]),
            (format!("{name}.bias"), vec![HIDDEN]),
        ]
    };
    let mut shapes = Vec::new();
    shapes.extend(norm("embeddings.LayerNorm".into()));
    for i in 0..LAYERS {
        let layer = format!("encoder.layer.{i}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            shapes.extend(linear(format!("{layer}.attention.{part}"), HIDDEN, HIDDEN));
        }
        shapes.extend(norm(format!("{layer}.attention.output.LayerNorm")));
        shapes.extend(linear(format!("{layer}.intermediate.dense"), INTERMEDIATE, HIDDEN));
        shapes.extend(linear(format!("{layer}.output.dense"), HIDDEN, INTERMEDIATE));
        shapes.extend(norm(format!("{layer}.output.LayerNorm")));
    }
    for (name, shape) in shapes {
        add(name, &shape, random);
    }
    all
}

fn load(folder: &std::path::Path, pooling: &str) -> DualEncoder {
    std::fs::write(
        folder.join("config.json"),
        format!("{{\"num_attention_heads\": {HEADS}}}"),
    )
    .unwrap();
    let sidecar = format!("{{\"pooling\": \"{pooling}\", \"views\": [\"product\"], \"max_length\": {POSITIONS}}}");
    std::fs::write(folder.join("crag.json"), sidecar).unwrap();
    let hub = HubOptions {
        offline: true,
        ..HubOptions::default()
    };
    let files = locate(&ModelSource::Folder(folder.to_owned()), &hub).unwrap();
    let checkpoint = Checkpoint::open(&files).unwrap();
    let roles = Roles::read(checkpoint.tensors()).unwrap();
    let bytes = |f: &Option<crag::checkpoint::NamedBytes>| f.as_ref().map(|f| (f.name.clone(), f.bytes.to_vec()));
    let (config, sidecar) = (bytes(&files.config).unwrap(), bytes(&files.sidecar).unwrap());
    let config = ModelConfig::read(&roles, Some((&config.0, &config.1)), Some((&sidecar.0, &sidecar.1))).unwrap();
    DualEncoder::load(&checkpoint, &roles, &config, Placement::cpu()).unwrap()
}

#[test]
fn packed_encoders_equal_candles_padded_bert_model() {
    let mut random = Random(7);
    let sides = [bert(&mut random), bert(&mut random)];
    let folder = tempfile::tempdir().unwrap();
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for (side, part) in Side::BOTH.into_iter().zip(&sides) {
        tensors.extend(
            part.iter()
                .map(|(name, t)| (format!("{}_encoder.{name}", side.name()), t.clone())),
        );
    }
    tensors.push(("classifier.weight".into(), tensor(&mut random, &[1, HIDDEN], 0.0, 0.3)));
    tensors.push(("classifier.bias".into(), tensor(&mut random, &[1], 0.0, 0.3)));
    write_safetensors(&folder.path().join("model.safetensors"), &tensors).unwrap();

    let lengths = [1usize, 48, 7, 2, 31, 16, 17];
    let longest = 48;
    let texts: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&n| (0..n).map(|_| (random.next() % VOCABULARY as u64) as u32).collect())
        .collect();
    let mut ids = vec![0u32; lengths.len() * longest];
    let mut mask = vec![0u32; lengths.len() * longest];
    for (row, text) in texts.iter().enumerate() {
        ids[row * longest..][..text.len()].copy_from_slice(text);
        mask[row * longest..][..text.len()].fill(1);
    }
    let shape = (lengths.len(), longest);
    let ids = Tensor::from_vec(ids, shape, &Device::Cpu).unwrap();
    let mask = Tensor::from_vec(mask, shape, &Device::Cpu).unwrap();
    let config = Config {
        vocab_size: VOCABULARY,
        hidden_size: HIDDEN,
        num_hidden_layers: LAYERS,
        num_attention_heads: HEADS,
        intermediate_size: INTERMEDIATE,
        max_position_embeddings: POSITIONS,
        ..Config::default()
    };
    let packed: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let networks = [load(folder.path(), "cls"), load(folder.path(), "mean")];
    for (side, part) in Side::BOTH.into_iter().zip(sides) {
        let weights: HashMap<String, Tensor> = part.into_iter().collect();
        let reference = BertModel::load(VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu), &config).unwrap();
        let hidden = reference
            .forward(&ids, &ids.zeros_like().unwrap(), Some(&mask))
            .unwrap();
        let hidden = hidden.to_vec3::<f32>().unwrap();
        let cls = networks[0].encode(side, &packed).unwrap().to_vec2::<f32>().unwrap();
        let mean = networks[1].encode(side, &packed).unwrap().to_vec2::<f32>().unwrap();
        for (row, &length) in lengths.iter().enumerate() {
            for h in 0..HIDDEN {
                let first = hidden[row][0][h];
                let average = hidden[row][..length].iter().map(|t| t[h]).sum::<f32>() / length as f32;
                assert!(
                    (cls[row][h] - first).abs() < 2e-5,
                    "{side:?} text {row}: {} is not {first}",
                    cls[row][h]
                );
                assert!(
                    (mean[row][h] - average).abs() < 2e-5,
                    "{side:?} text {row}: {} is not {average}",
                    mean[row][h]
                );
            }
        }
    }
}

#[test]
fn a_text_encodes_to_the_same_bits_alone_and_in_any_batch() {
    let mut random = Random(11);
    let folder = tempfile::tempdir().unwrap();
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for side in Side::BOTH {
        tensors.extend(
            bert(&mut random)
                .into_iter()
                .map(|(n, t)| (format!("{}_encoder.{n}", side.name()), t)),
        );
    }
    tensors.push(("classifier.weight".into(), tensor(&mut random, &[1, HIDDEN], 0.0, 0.3)));
    tensors.push(("classifier.bias".into(), tensor(&mut random, &[1], 0.0, 0.3)));
    write_safetensors(&folder.path().join("model.safetensors"), &tensors).unwrap();
    let network = load(folder.path(), "mean");
    let texts: Vec<Vec<u32>> = (0..40)
        .map(|_| {
            (0..1 + random.next() % 47)
                .map(|_| (random.next() % VOCABULARY as u64) as u32)
                .collect()
        })
        .collect();
    let encode = |texts: &[&[u32]]| network.encode(Side::Drug, texts).unwrap().to_vec2::<f32>().unwrap();
    let alone: Vec<Vec<f32>> = texts.iter().flat_map(|t| encode(&[t])).collect();
    for size in [2, 3, 7, 40] {
        let batched: Vec<Vec<f32>> = texts
            .chunks(size)
            .flat_map(|c| encode(&c.iter().map(Vec::as_slice).collect::<Vec<_>>()))
            .collect();
        let bits = |rows: &[Vec<f32>]| rows.iter().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(
            bits(&batched) == bits(&alone),
            "batches of {size} differ from single texts"
        );
    }
}
