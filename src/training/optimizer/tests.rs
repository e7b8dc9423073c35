//! AdamW against `torch.optim.AdamW`.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};
use serde::Deserialize;

use super::{Gradients, Moments, OptimizerSettings};
use crate::training::parameters::{Parameter, Parameters};

#[derive(Deserialize)]
struct Expected {
    start: [Vec<f32>; 2],
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    gradients: [Vec<f32>; 2],
    norm: f64,
    after: [Vec<f32>; 2],
}

const SHAPES: [&[usize]; 2] = [&[5, 7], &[7]];

fn tensor(values: &[f32], which: usize) -> Tensor {
    Tensor::from_slice(values, SHAPES[which], &Device::Cpu).unwrap()
}

fn parameters(start: &[Vec<f32>; 2]) -> Parameters {
    let parameter = |which: usize| Parameter {
        name: ["matrix", "bias"][which].to_owned(),
        variable: Var::from_tensor(&tensor(&start[which], which)).unwrap(),
        depth: which,
        decays: which == 0,
    };
    Parameters::from_list(vec![parameter(0), parameter(1)])
}

/// The gradients as a backward pass gives them: of the sum of each variable times its gradient.
fn gradients(parameters: &Parameters, values: &[Vec<f32>; 2], parts: usize) -> Gradients {
    let mut gradients = Gradients::default();
    for _ in 0..parts {
        let products = parameters.iter().enumerate().map(|(which, parameter)| {
            let weight = (tensor(&values[which], which) / parts as f64).unwrap();
            (parameter.variable.as_tensor() * weight).unwrap().sum_all().unwrap()
        });
        let loss = products.reduce(|a, b| (a + b).unwrap()).unwrap();
        gradients.add(parameters, loss.backward().unwrap()).unwrap();
    }
    gradients
}

fn expected() -> Expected {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/training/adamw.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn step(parameters: &Parameters, moments: &mut Moments, step: &Step, parts: usize) {
    let gradients = gradients(parameters, &step.gradients, parts);
    let norm = gradients.norm().unwrap();
    assert!(
        (norm - step.norm).abs() <= 1e-5 * step.norm,
        "{norm}, expected {}",
        step.norm
    );
    let scale = (1.0 / (norm + 1e-6)).min(1.0);
    let rate = |parameter: &Parameter| 1e-2 * crate::training::schedule::layer_factor(0.9, parameter.depth);
    moments
        .step(parameters, &gradients, scale, &OptimizerSettings::default(), rate)
        .unwrap();
}

#[test]
fn steps_are_pytorchs_clipped_and_accumulated() {
    let expected = expected();
    for parts in [1, 4] {
        let parameters = parameters(&expected.start);
        let mut moments = Moments::default();
        for expected in &expected.steps {
            step(&parameters, &mut moments, expected, parts);
            for (which, parameter) in parameters.iter().enumerate() {
                let found = parameter.variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for (a, b) in found.iter().zip(&expected.after[which]) {
                    assert!((a - b).abs() <= 2e-6, "{a}, expected {b}");
                }
            }
        }
    }
}

#[test]
fn a_restored_optimizer_continues_to_the_same_bits() {
    let expected = expected();
    let bits = |restore: bool| {
        let parameters = parameters(&expected.start);
        let mut moments = Moments::default();
        for (number, at) in expected.steps.iter().enumerate() {
            if restore && number == 2 {
                let tensors: HashMap<String, Tensor> = moments.tensors(&parameters).unwrap().into_iter().collect();
                moments = Moments::restored(moments.step, &parameters, &tensors).unwrap();
            }
            step(&parameters, &mut moments, at, 1);
        }
        let all = parameters
            .iter()
            .flat_map(|p| p.variable.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        all.map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(bits(false), bits(true));
}
