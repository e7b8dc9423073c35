//! Whether a [`Job`] uses its pieces as the recipe has it: each is checked by itself elsewhere. Runs of a tiny network,
//! seen through their plans, their events and the weights they leave.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::{
    BackboneSettings, Event, HeadSettings, Job, LabelledPair, LabelledPairs, NegativeKind, Origin, Parameters, Phase,
    Relations, Settings, Source, Split, Start, TrainError, Trained,
    dataset::{Dataset, Example, prepare, preparer},
    loss,
    mining::{Kind, Negative},
    parameters::Parameter,
    settings::{Contrastive, Finetune, OptimizerSettings},
    state::{Item, WorkFolder},
};
use crate::{Side, evaluation::Fields};

static CPU: Device = Device::Cpu;

const DRUGS: [&str; 4] = ["aspirin", "lithium", "heparin", "cisplatin"];
const REACTIONS: [&str; 4] = ["bleeding", "tremor", "bruising", "deafness"];

/// One record as a line.
fn pair(document: usize, text: &str, drug: &str, adr: &str, label: bool) -> String {
    format!(
        "{}\n",
        json!({"doc_id": document, "text": text, "drug": drug, "adr": adr, "label": label})
    )
}

/// A record with a text of its own.
fn record(document: usize, drug: &str, adr: &str, label: bool) -> String {
    let text = format!("In case {document} {adr} came after {drug}.");
    pair(document, &text, drug, adr, label)
}

/// 12 related pairs, three of each drug with its reaction, and 12 unrelated ones.
fn labelled() -> String {
    let related = (0..12).map(|i| record(i, DRUGS[i % 4], REACTIONS[i % 4], true));
    let unrelated = (12..24).map(|i| record(i, DRUGS[i % 4], REACTIONS[(i + 1) % 4], false));
    related.chain(unrelated).collect()
}

/// 8 documents with a related and an unrelated pair in the same text, so that the two share the drug's context.
fn side_by_side() -> String {
    (0..8)
        .map(|i| {
            let (drug, adr, other) = (DRUGS[i % 4], REACTIONS[i % 4], REACTIONS[(i + 1) % 4]);
            let text = format!("{drug} led to {adr}, not to {other}, in case {i}.");
            pair(i, &text, drug, adr, true) + &pair(i, &text, drug, other, false)
        })
        .collect()
}

fn held_out() -> String {
    let label = |i: usize| i % 2 == i / 2 % 2;
    (0..8)
        .map(|i| record(100 + i, DRUGS[i % 2], REACTIONS[i / 2 % 2], label(i)))
        .collect()
}

pub(super) fn pairs(lines: &str) -> Vec<LabelledPair> {
    let mut pairs = LabelledPairs::default();
    let source = Source {
        name: "x.jsonl",
        fields: &Fields::default(),
        max_line_bytes: 1 << 20,
    };
    pairs.read(&source, lines.as_bytes()).unwrap();
    pairs.pairs
}

/// What a job is made of.
pub(super) struct Case {
    pub settings: Settings,
    pub negatives: NegativeKind,
    pub start: Start,
    pub train: Dataset,
    valid: Dataset,
    related: Relations,
    origin: Origin,
}

/// How a run went.
struct Ran {
    outcome: Result<Trained, TrainError>,
    events: Vec<Event>,
    /// After the last step.
    weights: Vec<(String, Vec<f32>)>,
}

/// One step, of its event.
struct Step {
    loss: f64,
    learning_rate: f64,
    gradient_norm: f64,
}

impl Ran {
    fn steps(&self, of: Phase) -> Vec<Step> {
        let step = |event: &Event| match *event {
            Event::Step {
                phase,
                loss,
                learning_rate,
                gradient_norm,
                ..
            } if phase == of => Some(Step {
                loss,
                learning_rate,
                gradient_norm,
            }),
            _ => None,
        };
        self.events.iter().filter_map(step).collect()
    }
}

impl Case {
    pub fn new() -> Self {
        Self::of(&labelled(), &held_out())
    }

    fn of(train: &str, valid: &str) -> Self {
        let settings = Settings {
            seed: 7,
            backbone: Some(BackboneSettings {
                hidden_size: 8,
                num_hidden_layers: 2,
                intermediate_size: 16,
                vocab_size: 120,
                max_position_embeddings: 48,
                ..BackboneSettings::default()
            }),
            head: HeadSettings {
                width: 8,
                pooling_heads: 2,
                max_length: 48,
                ..HeadSettings::default()
            },
            contrastive: Contrastive {
                epochs: 1,
                learning_rate: 1e-3,
                batch_size: 2,
                accumulation: 2,
                ..Contrastive::default()
            },
            finetune: Finetune {
                epochs: 1,
                learning_rate: 1e-3,
                batch_size: 4,
                accumulation: 2,
                ..Finetune::default()
            },
            ..Settings::default()
        };
        let split = Split::of_files(pairs(train), pairs(valid));
        let backbone = settings.backbone.as_ref().unwrap();
        let start = Start::from_scratch(backbone, &settings.head, &split.train, settings.seed).unwrap();
        let preparer = preparer(&settings.head, &start.tokenizer);
        let mut rejected = Vec::new();
        let (train, valid) = prepare(&split, &preparer, &mut rejected);
        let related = Relations::of(&train, &valid);
        assert!(rejected.is_empty(), "{rejected:?}");
        Self {
            settings,
            negatives: NegativeKind::Hard,
            start,
            train,
            valid,
            related,
            origin: Origin::default(),
        }
    }

    /// Of as little that is random as can be: one step of phase 2 over the labelled pairs, nothing dropped, nothing
    /// decayed.
    fn of_one_step() -> Self {
        let mut case = Self::new();
        case.negatives = NegativeKind::None;
        case.settings.dropout = 0.0;
        case.settings.contrastive.epochs = 0;
        case.settings.finetune.batch_size = 64;
        case.settings.optimizer.weight_decay = 0.0;
        case
    }

    pub fn parameters(&self) -> Parameters {
        Parameters::new(&self.start.network.roles, &self.start.tensors, &CPU).unwrap()
    }

    fn job<'a>(&'a self, parameters: &'a Parameters, stop: &'a AtomicBool) -> Job<'a> {
        Job {
            settings: &self.settings,
            network: &self.start.network,
            parameters,
            train: &self.train,
            valid: &self.valid,
            related: &self.related,
            negatives: self.negatives,
            device: &CPU,
            save_every: Duration::MAX,
            origin: &self.origin,
            stop,
        }
    }

    /// Hands a job before its first step over.
    fn with_job<T>(&self, use_it: impl FnOnce(&Job<'_>) -> T) -> T {
        use_it(&self.job(&self.parameters(), &AtomicBool::new(false)))
    }

    fn plan(&self, phase: Phase, epoch: usize) -> (Vec<Item>, Vec<Negative>) {
        self.with_job(|job| job.plan(phase, epoch).unwrap())
    }

    /// Runs in the folder until the end, or until after an event with which it is asked to stop.
    fn run_in(&self, folder: &Path, stop_after: impl Fn(&Event) -> bool) -> Ran {
        let (parameters, stop) = (self.parameters(), AtomicBool::new(false));
        let job = self.job(&parameters, &stop);
        let mut events = Vec::new();
        let outcome = job.run(&mut WorkFolder::open(folder).unwrap(), |event| {
            stop.fetch_or(stop_after(event), Ordering::Relaxed);
            events.push(event.clone());
        });
        let weights = parameters
            .iter()
            .map(|p| (p.name.clone(), values(p.variable.as_tensor())));
        Ran {
            outcome,
            events,
            weights: weights.collect(),
        }
    }

    #[track_caller]
    fn run(&self) -> Ran {
        let folder = tempfile::tempdir().unwrap();
        let ran = self.run_in(folder.path(), |_| false);
        assert!(ran.outcome.is_ok(), "{:?}", ran.outcome);
        ran
    }

    /// How far each number of each weight is from where it began, by name.
    fn moved(&self, ran: &Ran) -> Vec<(String, Vec<f32>)> {
        let begun = self.parameters();
        let of_weight = |((name, after), before): (&(String, Vec<f32>), &Parameter)| {
            let before = values(before.variable.as_tensor());
            let distances = after.iter().zip(&before).map(|(after, before)| (after - before).abs());
            (name.clone(), distances.collect())
        };
        ran.weights.iter().zip(begun.iter()).map(of_weight).collect()
    }
}

pub(super) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs(),
        "{found}, expected {expected}"
    );
}

#[test]
fn the_rate_warms_up_once_in_each_phase_and_falls_to_the_end_of_its_last_epoch() {
    let mut case = Case::new();
    case.negatives = NegativeKind::None;
    case.settings.contrastive.epochs = 2;
    case.settings.finetune.epochs = 2;
    case.settings.finetune.learning_rate = 3e-3;
    case.settings.optimizer.warmup_ratio = 0.5;
    let ran = case.run();
    // Two epochs of three steps: the first three warm up, then come half a cosine's thirds.
    let factors = [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 0.75, 0.25];
    for (phase, rate) in [(Phase::Contrastive, 1e-3), (Phase::Finetune, 3e-3)] {
        let found: Vec<f64> = ran.steps(phase).iter().map(|step| step.learning_rate).collect();
        assert_eq!(found.len(), factors.len(), "{phase}");
        for (found, factor) in found.iter().zip(factors) {
            assert!((found - rate * factor).abs() < 1e-12, "{phase}: {found} {factor}");
        }
    }
}

#[test]
fn the_loss_of_an_epoch_is_its_pairs_mean_though_the_last_step_has_fewer() {
    let mut case = Case::new();
    case.negatives = NegativeKind::None;
    case.settings.finetune.batch_size = 5;
    let ran = case.run();
    let losses: Vec<f64> = ran.steps(Phase::Finetune).iter().map(|step| step.loss).collect();
    let &[first, second, last] = losses.as_slice() else {
        panic!("expected 24 pairs in three steps: {losses:?}")
    };
    let expected = (10.0 * first + 10.0 * second + 4.0 * last) / 24.0;
    let found = ran.events.iter().find_map(|event| match *event {
        Event::EpochEnd {
            phase: Phase::Finetune,
            loss,
            ..
        } => Some(loss),
        _ => None,
    });
    assert_close(found.unwrap(), expected, 1e-12);
    assert!(first != last, "{losses:?}");
}

#[test]
fn each_weight_moves_at_the_rate_of_its_place_between_head_and_embeddings() {
    let mut case = Case::of_one_step();
    case.settings.optimizer = OptimizerSettings {
        layerwise_decay: 0.5,
        // Adam's first step is as long as the rate, whatever the gradient, where nothing is added to its length.
        eps: 1e-15,
        ..case.settings.optimizer
    };
    let ran = case.run();
    assert_eq!(ran.steps(Phase::Finetune).len(), 1);
    let moved = case.moved(&ran);
    assert!(moved.len() > 70, "{}", moved.len());
    for (name, distances) in moved {
        let depth = match () {
            () if name.contains("_encoder.embeddings.") => 3,
            () if name.contains("_encoder.encoder.layer.0.") => 2,
            () if name.contains("_encoder.encoder.layer.1.") => 1,
            () => 0,
        };
        let (expected, furthest) = (1e-3 * 0.5f32.powi(depth), distances.into_iter().fold(0.0, f32::max));
        assert!(furthest <= 1.01 * expected, "{name}: {furthest}, expected {expected}");
        // Softmax ignores the keys' bias, which may have no gradient at all.
        if !name.ends_with("key.bias") {
            assert!(furthest >= 0.99 * expected, "{name}: {furthest}, expected {expected}");
        }
    }
}

#[test]
fn gradients_longer_than_the_longest_are_cut_to_it() {
    let mut case = Case::of_one_step();
    let optimizer = &mut case.settings.optimizer;
    // So large an eps makes of Adam's first step the gradient, times rate over eps.
    (optimizer.layerwise_decay, optimizer.eps) = (1.0, 1e3);
    case.settings.finetune.learning_rate = 1e5;
    let mut step = |longest: f64| {
        case.settings.optimizer.max_grad_norm = longest;
        let ran = case.run();
        let distances = case.moved(&ran).into_iter().flat_map(|(_, distances)| distances);
        let length = distances.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt() / 100.0;
        (ran.steps(Phase::Finetune)[0].gradient_norm, length)
    };
    let (norm, length) = step(1e9);
    assert_close(length, norm, 0.01);
    let (_, length) = step(norm / 10.0);
    assert_close(length, norm / 10.0, 0.01);
}

#[test]
fn the_loss_of_phase_2_is_the_focal_loss_of_the_settings() {
    let mut case = Case::of_one_step();
    (case.settings.finetune.focal_gamma, case.settings.finetune.focal_alpha) = (1.5, 0.3);
    let found = case.run().steps(Phase::Finetune)[0].loss;
    let expected = case.with_job(|job| {
        let [drug, adr] = Side::BOTH.map(|side| job.encode_all(&case.train, side).unwrap());
        let rows = |all: &Tensor, number: fn(&Example) -> u32| {
            let numbers: Vec<u32> = case.train.examples.iter().map(number).collect();
            all.index_select(&Tensor::new(numbers, &CPU).unwrap(), 0).unwrap()
        };
        let (drug, adr) = (rows(&drug, |e| e.drug), rows(&adr, |e| e.adr));
        let weights = job.parameters.detached();
        let logits = values(&case.start.network.logits(&weights, &drug, &adr, None).unwrap());
        let losses = logits.iter().zip(&case.train.examples).map(|(logit, example)| {
            let related = 1.0 / (1.0 + f64::from(-logit).exp());
            let (p, weight) = match example.label {
                true => (related, 0.3),
                false => (1.0 - related, 0.7),
            };
            -weight * (1.0 - p).powf(1.5) * p.ln()
        });
        losses.sum::<f64>() / case.train.examples.len() as f64
    });
    assert_close(found, expected, 1e-4);
}

#[test]
fn the_loss_of_phase_1_tells_pairs_from_all_that_is_unrelated_and_from_their_negatives() {
    for negatives in [NegativeKind::None, NegativeKind::Hard] {
        let mut case = Case::of(&side_by_side(), &held_out());
        case.negatives = negatives;
        case.settings.dropout = 0.0;
        // Of five pairs of four drugs two are of one drug.
        let contrastive = &mut case.settings.contrastive;
        (
            contrastive.batch_size,
            contrastive.accumulation,
            contrastive.temperature,
        ) = (5, 1, 0.3);
        let found = case.run().steps(Phase::Contrastive)[0].loss;
        let plan = &case.plan(Phase::Contrastive, 0).0[..5];
        let mut rows = [vec![], vec![]];
        for item in plan {
            rows[0].push(item.drug);
            rows[1].push(item.adr);
        }
        for (drug, adr) in plan.iter().map(|item| item.negative.expect("each has one")) {
            for (rows, number) in rows.iter_mut().zip([drug, adr]) {
                if !rows.contains(&number) {
                    rows.push(number);
                }
            }
        }
        assert!(
            rows[0].len() + rows[1].len() > 10,
            "negatives bring contexts of their own"
        );
        let are_related = |i: usize, j: usize| {
            let (drug, adr) = (
                case.train.text(Side::Drug, rows[0][i]),
                case.train.text(Side::Adr, rows[1][j]),
            );
            case.related.train.contains(drug, adr)
        };
        let others = (0..5).flat_map(|i| (0..5).map(move |j| (i, j)));
        assert!(others.filter(|&(i, j)| i != j).any(|(i, j)| are_related(i, j)));
        let expected = case.with_job(|job| {
            let [drug, adr] = Side::BOTH.map(|side| {
                let all = job.encode_all(&case.train, side).unwrap();
                let numbers = Tensor::new(rows[side as usize].as_slice(), &CPU).unwrap();
                all.index_select(&numbers, 0).unwrap()
            });
            loss::contrastive(&drug, &adr, plan.len(), 0.3, are_related).unwrap()
        });
        assert_close(found, f64::from(expected.to_scalar::<f32>().unwrap()), 1e-4);
    }
}

#[test]
fn each_step_of_each_epoch_drops_out_other_elements() {
    // The same two contexts again and again, and steps too small to move any f32.
    let line = |label: bool| pair(1, "bleeding came after aspirin.", "aspirin", "bleeding", label);
    let mut case = Case::of(&(line(true).repeat(3) + &line(false).repeat(3)), &held_out());
    case.negatives = NegativeKind::None;
    case.settings.dropout = 0.5;
    case.settings.contrastive.epochs = 0;
    let finetune = &mut case.settings.finetune;
    (finetune.epochs, finetune.batch_size, finetune.accumulation) = (2, 1, 1);
    finetune.learning_rate = 1e-30;
    let steps = case.run().steps(Phase::Finetune);
    let labels = (0..2).flat_map(|epoch| case.plan(Phase::Finetune, epoch).0);
    let mut losses: HashMap<bool, HashSet<u64>> = HashMap::new();
    for (item, step) in labels.zip(&steps) {
        losses.entry(item.label).or_default().insert(step.loss.to_bits());
    }
    assert_eq!(steps.len(), 12);
    assert_eq!((losses[&true].len(), losses[&false].len()), (6, 6), "all differ");
}

#[test]
fn each_epoch_has_another_order_and_other_negatives() {
    let mut case = Case::new();
    for phase in [Phase::Contrastive, Phase::Finetune] {
        case.negatives = NegativeKind::None;
        let orders = [0, 1].map(|epoch| case.plan(phase, epoch).0);
        assert_ne!(orders[0], orders[1], "{phase}");
        let sorted = orders.map(|mut items| {
            items.sort_by_key(|item| (item.drug, item.adr));
            items
        });
        assert_eq!(sorted[0], sorted[1], "{phase}");
        for kind in [NegativeKind::Random, NegativeKind::Hard] {
            case.negatives = kind;
            let [first, second] = [0, 1].map(|epoch| case.plan(phase, epoch).1);
            assert_eq!((first.len(), second.len()), (12, 12), "{phase} {kind:?}");
            assert_ne!(first, second, "{phase} {kind:?}");
        }
    }
}

#[test]
fn negatives_are_of_the_kinds_that_the_settings_name() {
    let mut case = Case::new();
    for (negatives, hard_ratio, hard, mined) in [
        (NegativeKind::None, 0.5, 0, 0),
        (NegativeKind::Random, 0.5, 0, 12),
        (NegativeKind::Hard, 0.5, 6, 12),
        (NegativeKind::Hard, 0.25, 3, 12),
    ] {
        case.negatives = negatives;
        case.settings.negatives.hard_ratio = hard_ratio;
        for phase in [Phase::Contrastive, Phase::Finetune] {
            let (plan, found) = case.plan(phase, 0);
            let count = found.iter().filter(|negative| negative.kind != Kind::Random).count();
            assert_eq!((count, found.len()), (hard, mined), "{phase} {negatives:?}");
            let expected: HashSet<(u32, u32)> = found.iter().map(|n| (n.drug, n.adr)).collect();
            let planned: HashSet<(u32, u32)> = match phase {
                Phase::Contrastive => plan.iter().filter_map(|item| item.negative).collect(),
                Phase::Finetune => {
                    let unrelated = plan.iter().filter(|item| !item.label);
                    unrelated.map(|item| (item.drug, item.adr)).collect()
                }
            };
            assert!(planned.is_superset(&expected), "{phase} {negatives:?}");
            let items = if phase == Phase::Contrastive { 12 } else { 24 + mined };
            assert_eq!(plan.len(), items, "{phase} {negatives:?}");
        }
    }
}

#[test]
fn a_labelled_negative_whose_entities_are_related_elsewhere_is_none_in_phase_1() {
    let first = "aspirin led to bleeding and tremor.";
    let third = "lithium led to bleeding and bruising.";
    let train = [
        pair(1, first, "aspirin", "bleeding", true),
        pair(1, first, "aspirin", "tremor", false),
        pair(2, "aspirin led to tremor.", "aspirin", "tremor", true),
        pair(3, third, "lithium", "bleeding", true),
        pair(3, third, "lithium", "bruising", false),
    ];
    let mut case = Case::of(&train.concat(), &held_out());
    case.negatives = NegativeKind::None;
    let (plan, _) = case.plan(Phase::Contrastive, 0);
    let examples = &case.train.examples;
    let of = |example: &Example| plan.iter().find(|item| item.adr == example.adr).unwrap().negative;
    let found = [0, 2, 3].map(|place| of(&examples[place]));
    assert_eq!(found, [None, None, Some((examples[4].drug, examples[4].adr))]);
}

#[test]
fn negatives_mined_for_validation_are_related_in_neither_half() {
    let valid: String = (0..12)
        .map(|i| record(100 + i, DRUGS[i % 3], REACTIONS[i % 3], true))
        .collect();
    let train = record(1, DRUGS[0], REACTIONS[1], true) + &record(2, DRUGS[3], REACTIONS[3], true);
    let case = Case::of(&train, &valid);
    let mined: Vec<Item> = case.with_job(|job| {
        assert_eq!(job.mined_for_validation(), 12);
        job.validation_pairs().into_iter().filter(|item| !item.label).collect()
    });
    assert_eq!(mined.len(), 12);
    for Item { drug, adr, .. } in mined {
        let (drug, adr) = (case.valid.text(Side::Drug, drug), case.valid.text(Side::Adr, adr));
        assert!(!case.related.all.contains(drug, adr), "{drug:?} {adr:?}");
    }
}

#[test]
fn a_similar_negative_is_the_nearest_by_cosine_whatever_the_lengths() {
    let mut case = Case::new();
    // Words that count for more than places, so that texts differ, in length too.
    for side in Side::BOTH {
        let name = format!("{}_encoder.embeddings.word_embeddings.weight", side.name());
        let words = (&case.start.tensors[&name] * 50.0).unwrap();
        case.start.tensors.insert(name, words);
    }
    case.settings.negatives.neighbours = 1;
    case.settings.negatives.hard_ratio = 1.0;
    let rows = |all: &Tensor| all.to_vec2::<f32>().unwrap();
    let [drugs, adrs] = Side::BOTH.map(|side| rows(&case.with_job(|job| job.encode_all(&case.train, side).unwrap())));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let cosine = |drug: u32, adr: u32| {
        let (drug, adr) = (&drugs[drug as usize], &adrs[adr as usize]);
        dot(drug, adr) / (dot(drug, drug) * dot(adr, adr)).sqrt()
    };
    let product = |drug: u32, adr: u32| dot(&drugs[drug as usize], &adrs[adr as usize]);
    let positives = case.train.positives();
    let (mut similar, mut told_apart) = (0, 0);
    for epoch in 0..4 {
        let (_, mined) = case.plan(Phase::Finetune, epoch);
        for negative in mined.iter().filter(|negative| negative.kind == Kind::Similar) {
            let of_drug = negative.drug == positives[negative.of].drug;
            let count = if of_drug { adrs.len() } else { drugs.len() } as u32;
            let candidate = |other| match of_drug {
                true => (negative.drug, other),
                false => (other, negative.adr),
            };
            let unrelated: Vec<(u32, u32)> = (0..count)
                .map(candidate)
                .filter(|&(drug, adr)| {
                    let (drug, adr) = (case.train.text(Side::Drug, drug), case.train.text(Side::Adr, adr));
                    !case.related.train.contains(drug, adr)
                })
                .collect();
            let best = |score: &dyn Fn(u32, u32) -> f64| {
                let all = unrelated.iter().copied();
                all.max_by(|a, b| score(a.0, a.1).total_cmp(&score(b.0, b.1))).unwrap()
            };
            let ((drug, adr), longest) = (best(&cosine), best(&product));
            let nearest = cosine(drug, adr);
            assert!(cosine(negative.drug, negative.adr) >= nearest - 1e-6, "{negative:?}");
            told_apart += usize::from(cosine(longest.0, longest.1) < nearest - 1e-3);
            similar += 1;
        }
    }
    assert!(similar >= 8 && told_apart > 0, "{similar} {told_apart}");
}

/// A setting's name, and another value for it.
type Change = (&'static str, fn(&mut Settings));

#[test]
fn every_setting_of_the_recipe_changes_the_weights() {
    let mut case = Case::new();
    let weights = |case: &Case| case.run().weights;
    let base = weights(&case);
    assert!(weights(&case) == base, "the same gives the same");
    let changes: [Change; 21] = [
        ("seed", |s| s.seed = 8),
        ("dropout", |s| s.dropout = 0.2),
        ("negatives.hard_ratio", |s| s.negatives.hard_ratio = 1.0),
        ("negatives.neighbours", |s| s.negatives.neighbours = 1),
        ("contrastive.epochs", |s| s.contrastive.epochs = 2),
        ("contrastive.learning_rate", |s| s.contrastive.learning_rate = 2e-3),
        ("contrastive.batch_size", |s| s.contrastive.batch_size = 3),
        ("contrastive.accumulation", |s| s.contrastive.accumulation = 1),
        ("contrastive.temperature", |s| s.contrastive.temperature = 0.1),
        ("finetune.epochs", |s| s.finetune.epochs = 2),
        ("finetune.learning_rate", |s| s.finetune.learning_rate = 2e-3),
        ("finetune.batch_size", |s| s.finetune.batch_size = 3),
        ("finetune.accumulation", |s| s.finetune.accumulation = 1),
        ("finetune.focal_gamma", |s| s.finetune.focal_gamma = 1.0),
        ("finetune.focal_alpha", |s| s.finetune.focal_alpha = 0.5),
        ("optimizer.warmup_ratio", |s| s.optimizer.warmup_ratio = 0.5),
        ("optimizer.layerwise_decay", |s| s.optimizer.layerwise_decay = 0.5),
        ("optimizer.weight_decay", |s| s.optimizer.weight_decay = 0.5),
        ("optimizer.max_grad_norm", |s| s.optimizer.max_grad_norm = 1e-4),
        ("optimizer.beta1", |s| s.optimizer.beta1 = 0.8),
        ("optimizer.eps", |s| s.optimizer.eps = 1e-5),
    ];
    for (name, change) in changes {
        let before = case.settings.clone();
        change(&mut case.settings);
        assert_ne!(case.settings, before, "{name}");
        assert!(weights(&case) != base, "{name}");
        case.settings = before;
    }
    for kind in [NegativeKind::None, NegativeKind::Random] {
        case.negatives = kind;
        assert!(weights(&case) != base, "{kind:?}");
    }
}

#[test]
fn a_run_that_is_stopped_in_any_epoch_goes_on_to_the_same_weights_and_the_same_log() {
    let mut case = Case::new();
    (case.settings.contrastive.epochs, case.settings.finetune.epochs) = (2, 3);
    let logged = |folder: &Path| -> Vec<Value> {
        let log = fs::read_to_string(folder.join("log.jsonl")).unwrap();
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line["seconds"] = Value::Null;
            line
        };
        log.lines().map(line).collect()
    };
    let whole_folder = tempfile::tempdir().unwrap();
    let whole = case.run_in(whole_folder.path(), |_| false);
    for place in [
        (Phase::Contrastive, 1, 1),
        (Phase::Contrastive, 2, 2),
        (Phase::Finetune, 1, 2),
        (Phase::Finetune, 2, 1),
        (Phase::Finetune, 3, 3),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let stopped = case.run_in(
            folder.path(),
            |event| matches!(*event, Event::Step { phase, epoch, step, .. } if (phase, epoch, step) == place),
        );
        assert!(matches!(stopped.outcome, Err(TrainError::Interrupted)), "{place:?}");
        assert!(stopped.weights != whole.weights, "{place:?}");
        // As a kill leaves it: a step that the state does not know of, and a file that is not whole.
        let mut log = fs::OpenOptions::new()
            .append(true)
            .open(folder.path().join("log.jsonl"))
            .unwrap();
        log.write_all(b"{\"event\":\"step\",\"step\":99}\n").unwrap();
        fs::write(folder.path().join("state-99.safetensors.1-0.tmp"), "torn").unwrap();
        let resumed = case.run_in(folder.path(), |_| false);
        assert!(resumed.weights == whole.weights, "{place:?}");
        let best = |ran: &Ran| {
            let trained = ran.outcome.as_ref().unwrap();
            let tensors = trained
                .tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), values(tensor)));
            let tensors: HashMap<String, Vec<f32>> = tensors.collect();
            (trained.epoch, trained.judgement, trained.history.clone(), tensors)
        };
        assert!(best(&resumed) == best(&whole), "{place:?}");
        assert_eq!(logged(folder.path()), logged(whole_folder.path()), "{place:?}");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            4,
            "state, best, log: {place:?}"
        );
    }
}
