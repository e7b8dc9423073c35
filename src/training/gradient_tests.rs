//! Every parameter's gradient after one step of each phase: against PyTorch's and against finite differences.

use std::{collections::HashMap, path::PathBuf};

use candle_core::{Device, Tensor};
use serde::Deserialize;

use super::{Network, Parameters, loss, ops::Dropout};
use crate::{
    Side,
    checkpoint::{Checkpoint, HubOptions, ModelSource, locate},
    model::{DualEncoder, ModelConfig, Placement, Roles, config::NamedFile},
};

/// Tolerance of the issue: relative to the largest number of the tensor, dropout off.
const RELATIVE: f32 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    drug: Vec<Vec<u32>>,
    adr: Vec<Vec<u32>>,
    pairs: usize,
    temperature: f64,
    gamma: f64,
    alpha: f64,
    excluded: Vec<(usize, usize)>,
    labels: Vec<u8>,
    logits: Vec<f32>,
    contrastive: f64,
    focal: f64,
}

struct Case {
    checkpoint: Checkpoint,
    network: Network,
    parameters: Parameters,
    expected: Expected,
    folder: PathBuf,
}

impl Case {
    fn load(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/training")
            .join(name);
        let files = locate(&ModelSource::Folder(folder.clone()), &HubOptions::default()).unwrap();
        let checkpoint = Checkpoint::open(&files).unwrap();
        let roles = Roles::read(checkpoint.tensors()).unwrap();
        let config: NamedFile<'_> = ("config.json", &files.config.as_ref().unwrap().bytes);
        let sidecar: NamedFile<'_> = ("crag.json", &files.sidecar.as_ref().unwrap().bytes);
        let config = ModelConfig::read(&roles, Some(config), Some(sidecar)).unwrap();
        let tensors: HashMap<String, Tensor> = checkpoint
            .tensors()
            .iter()
            .map(|info| (info.name.clone(), checkpoint.tensor(&info.name).unwrap()))
            .collect();
        let parameters = Parameters::new(&roles, &tensors, &Device::Cpu).unwrap();
        let expected = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
        Self {
            checkpoint,
            network: Network { roles, config },
            parameters,
            expected,
            folder,
        }
    }

    fn representations(&self, tracked: bool) -> [Tensor; 2] {
        let weights = match tracked {
            true => self.parameters.tracked(),
            false => self.parameters.detached(),
        };
        [(Side::Drug, &self.expected.drug), (Side::Adr, &self.expected.adr)].map(|(side, texts)| {
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            // A dropout of rate 0 is none.
            let drop = Dropout::new(0.0, 1);
            self.network.encode(&weights, side, &texts, Some(&drop)).unwrap()
        })
    }

    fn logits(&self) -> Tensor {
        let [drug, adr] = self.representations(true);
        self.network
            .logits(&self.parameters.tracked(), &drug, &adr, None)
            .unwrap()
    }

    fn loss(&self, phase: &str) -> Tensor {
        let expected = &self.expected;
        match phase {
            "contrastive" => {
                let [drug, adr] = self.representations(true);
                let excluded = |i, j| expected.excluded.contains(&(i, j));
                loss::contrastive(&drug, &adr, expected.pairs, expected.temperature, excluded).unwrap()
            }
            _ => {
                let labels: Vec<bool> = expected.labels.iter().map(|label| *label == 1).collect();
                loss::focal(&self.logits(), &labels, expected.gamma, expected.alpha).unwrap()
            }
        }
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

const CASES: [&str; 3] = ["attention", "mean", "cls"];

#[test]
fn every_gradient_is_pytorchs_after_one_step_of_each_phase() {
    for name in CASES {
        let case = Case::load(name);
        for (phase, expected_loss) in [
            ("contrastive", case.expected.contrastive),
            ("focal", case.expected.focal),
        ] {
            let loss = case.loss(phase);
            let found = f64::from(loss.to_scalar::<f32>().unwrap());
            assert!(
                (found - expected_loss).abs() <= 1e-5 * expected_loss,
                "{name} {phase}: {found}"
            );
            let gradients = loss.backward().unwrap();
            let path = case.folder.join(format!("{phase}.safetensors"));
            let expected = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
            let largest_of_all = expected
                .values()
                .flat_map(values)
                .fold(0.0f32, |largest, x| largest.max(x.abs()));
            let mut compared = 0;
            for parameter in case.parameters.iter() {
                let found = gradients.get(parameter.variable.as_tensor());
                let Some(expected) = expected.get(&parameter.name) else {
                    assert!(found.is_none(), "{name} {phase} {}: PyTorch has none", parameter.name);
                    continue;
                };
                let found = found.unwrap_or_else(|| panic!("{name} {phase} {}: no gradient", parameter.name));
                assert_eq!(found.dims(), expected.dims(), "{}", parameter.name);
                let expected = values(expected);
                // Softmax ignores the keys' bias: its gradient is 0, and in f32 what rounding leaves of larger ones.
                let floor = if parameter.name.ends_with("key.bias") {
                    1e-3
                } else {
                    1e-6
                };
                let largest = expected.iter().fold(floor * largest_of_all, |a, x| a.max(x.abs()));
                for (a, b) in values(found).iter().zip(&expected) {
                    let place = &parameter.name;
                    assert!(
                        (a - b).abs() <= RELATIVE * largest,
                        "{name} {phase} {place}: {a}, expected {b}"
                    );
                }
                compared += 1;
            }
            assert_eq!(compared, expected.len(), "{name} {phase}: every gradient was compared");
        }
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    for name in CASES {
        let case = Case::load(name);
        for phase in ["contrastive", "focal"] {
            let gradients = case.loss(phase).backward().unwrap();
            for (number, parameter) in case.parameters.iter().enumerate().step_by(3) {
                let Some(gradient) = gradients.get(parameter.variable.as_tensor()) else {
                    continue;
                };
                // Along the gradient itself the slope is its length, far above rounding.
                let gradient = gradient.contiguous().unwrap();
                let length = values(&gradient).iter().map(|g| g * g).sum::<f32>().sqrt();
                if length < 1e-4 {
                    continue;
                }
                let start = parameter.variable.as_detached_tensor().copy().unwrap();
                let direction = (&gradient / f64::from(length)).unwrap();
                let step = 2e-3;
                let at = |distance: f64| {
                    let moved = (&start + (&direction * distance).unwrap()).unwrap();
                    parameter.variable.set(&moved).unwrap();
                    let loss = f64::from(case.loss(phase).to_scalar::<f32>().unwrap());
                    parameter.variable.set(&start).unwrap();
                    loss
                };
                // Fourth order, since the loss is far from straight.
                let near = (at(step) - at(-step)) / (2.0 * step);
                let far = (at(2.0 * step) - at(-2.0 * step)) / (4.0 * step);
                let slope = (4.0 * near - far) / 3.0;
                let length = f64::from(length);
                let allowed = 0.01 * length + 5e-4;
                assert!(
                    (slope - length).abs() <= allowed,
                    "{name} {phase} {number} {}: slope {slope}, gradient {length}",
                    parameter.name
                );
            }
        }
    }
}

#[test]
fn the_forward_pass_is_the_scorers_and_pytorchs() {
    for name in CASES {
        let case = Case::load(name);
        let found = values(&case.logits());
        let scorer = DualEncoder::load(
            &case.checkpoint,
            &case.network.roles,
            &case.network.config,
            Placement::cpu(),
        )
        .unwrap();
        let [drug, adr] = [(Side::Drug, &case.expected.drug), (Side::Adr, &case.expected.adr)].map(|(side, texts)| {
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            scorer.encode(side, &texts).unwrap()
        });
        let scored = values(&scorer.logits(&drug, &adr).unwrap());
        for ((found, scored), expected) in found.iter().zip(&scored).zip(&case.expected.logits) {
            assert!(
                (found - scored).abs() <= 1e-5 * expected.abs().max(1.0),
                "{name}: {found}, scored {scored}"
            );
            assert!(
                (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                "{name}: {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn a_forward_pass_over_detached_weights_keeps_no_graph() {
    let case = Case::load("attention");
    let [tracked, _] = case.representations(true);
    let [detached, _] = case.representations(false);
    assert!(tracked.track_op() && !detached.track_op());
    assert_eq!(values(&tracked), values(&detached));
}
