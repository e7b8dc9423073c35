//! The run: phases, epochs and steps, from a [`Start`](super::start::Start) to the best epoch's weights.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use serde::Serialize;

use super::{
    Network, Origin, Parameters, Phase, Settings, TrainError, Weights,
    dataset::Dataset,
    judge::Judgement,
    loss,
    mining::Kind,
    ops::Dropout,
    optimizer::{Gradients, Moments},
    random::{Random, mixed, named},
    relations::Relations,
    schedule,
    settings::NegativeKind,
    state::{EpochSummary, Item, State, WorkFolder},
};
use crate::Side;

/// Everything that a run needs, none of which it changes but the parameters.
pub struct Job<'a> {
    pub settings: &'a Settings,
    pub network: &'a Network,
    pub parameters: &'a Parameters,
    pub train: &'a Dataset,
    pub valid: &'a Dataset,
    pub related: &'a Relations,
    pub negatives: NegativeKind,
    pub device: &'a Device,
    /// The state is written at most this often between the ends of epochs, where it always is.
    pub save_every: Duration,
    /// A run goes on with a state of the same alone.
    pub origin: &'a Origin,
    /// Set by whoever wants the run to stop and to leave a state to go on with.
    pub stop: &'a AtomicBool,
}

/// What the run tells as it goes: lines of the log, too.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Epoch {
        phase: Phase,
        epoch: usize,
        epochs: usize,
        steps: usize,
        items: usize,
        hard_negatives: usize,
        negatives: usize,
    },
    Step {
        phase: Phase,
        epoch: usize,
        step: usize,
        steps: usize,
        loss: f64,
        learning_rate: f64,
        gradient_norm: f64,
        tokens: u64,
        seconds: f64,
    },
    EpochEnd {
        phase: Phase,
        epoch: usize,
        loss: f64,
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        validation: Option<Judgement>,
        best: bool,
        tokens: u64,
        seconds: f64,
    },
}

/// What came of it.
#[derive(Debug)]
pub struct Trained {
    pub tensors: HashMap<String, Tensor>,
    pub epoch: usize,
    pub judgement: Judgement,
    pub history: Vec<EpochSummary>,
    /// Tokens that went through a forward and a backward pass, and the time of it.
    pub tokens: u64,
    pub seconds: f64,
}

impl Job<'_> {
    /// Runs to the end, from the folder's state where it has one.
    pub fn run(&self, folder: &mut WorkFolder, mut tell: impl FnMut(&Event)) -> Result<Trained, TrainError> {
        let valid = self.validation_pairs();
        self.check_classes(&valid)?;
        let (mut state, mut moments) = self.resume(folder)?;
        let mut log = folder.open_log(&mut state)?;
        let path = folder.log();
        let mut note = |event: &Event, state: &mut State| -> Result<(), TrainError> {
            let mut line = serde_json::to_vec(event).unwrap_or_default();
            line.push(b'\n');
            log.write_all(&line)
                .map_err(|error| TrainError::io(&path, "writing it failed", error))?;
            state.log_bytes += line.len() as u64;
            tell(event);
            Ok(())
        };
        let ended = self.phases(&mut state, &mut moments, folder, &valid, &mut note);
        if matches!(ended, Err(TrainError::Interrupted)) {
            // No step is done by halves, so the state stands between two of them.
            self.save(&mut state, &moments, folder, None)?;
        }
        ended?;
        let (Some((epoch, judgement)), Some(tensors)) = (state.best, folder.best(&state)?) else {
            return Err(TrainError::data(
                "validation",
                "no epoch gave figures: expected related and unrelated pairs",
            ));
        };
        Ok(Trained {
            tensors,
            epoch,
            judgement,
            history: state.history,
            tokens: state.tokens,
            seconds: state.seconds,
        })
    }

    /// From the state to the end of all phases.
    fn phases(
        &self,
        state: &mut State,
        moments: &mut Moments,
        folder: &mut WorkFolder,
        valid: &[Item],
        note: &mut impl FnMut(&Event, &mut State) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        while let Some(phase) = state.phase {
            if state.epoch >= self.settings.pace(phase).epochs {
                state.phase = phase.next();
                (state.epoch, state.phase_steps) = (0, 0);
                *moments = Moments::default();
                continue;
            }
            self.epoch(phase, state, moments, folder, note)?;
            let loss = state.loss_sum / state.loss_items.max(1) as f64;
            let validation = match phase {
                Phase::Contrastive => None,
                Phase::Finetune => Some(self.validate(valid, state)?),
            };
            let is_best = validation.is_some_and(|new| state.best.is_none_or(|(_, best)| new.is_better_than(&best)));
            let event = Event::EpochEnd {
                phase,
                epoch: state.epoch + 1,
                loss,
                validation,
                best: is_best,
                tokens: state.tokens,
                seconds: state.seconds,
            };
            note(&event, state)?;
            state.history.push(EpochSummary {
                phase,
                epoch: state.epoch + 1,
                loss,
                validation,
            });
            if let Some(validation) = validation.filter(|_| is_best) {
                state.best = Some((state.epoch + 1, validation));
            }
            state.epoch += 1;
            state.step = 0;
            state.plan.clear();
            (state.loss_sum, state.loss_items) = (0.0, 0);
            let best = is_best.then(|| self.parameters.tensors()).transpose()?;
            self.save(state, moments, folder, best.as_deref())?;
        }
        Ok(())
    }

    pub(super) fn diverged(&self, phase: Phase, state: &State, step: usize, loss: f32) -> TrainError {
        TrainError::Diverged {
            phase,
            epoch: state.epoch + 1,
            step: step as u64,
            loss,
            change: self.settings.to_change(phase),
        }
    }

    pub(super) fn stop_if_asked(&self) -> Result<(), TrainError> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(TrainError::Interrupted),
            false => Ok(()),
        }
    }

    fn resume(&self, folder: &WorkFolder) -> Result<(State, Moments), TrainError> {
        let Some((state, tensors)) = folder.load()? else {
            return Ok((State::begun(self.origin), Moments::default()));
        };
        let differences = state.origin.differences(self.origin);
        if !differences.is_empty() {
            return Err(TrainError::Resume {
                path: folder.state_path().display().to_string(),
                reason: format!(
                    "since it was begun, {}; give the same again, or --force to begin anew",
                    differences.join(", ")
                ),
            });
        }
        self.parameters.restore(&tensors)?;
        let moments = Moments::restored(state.phase_steps, self.parameters, &tensors)?;
        Ok((state, moments))
    }

    fn save(
        &self,
        state: &mut State,
        moments: &Moments,
        folder: &mut WorkFolder,
        best: Option<&[(String, Tensor)]>,
    ) -> Result<(), TrainError> {
        let mut tensors = self.parameters.tensors()?;
        tensors.extend(moments.tensors(self.parameters)?);
        folder.save(state, &tensors, best)
    }

    /// A stream of random numbers of its own for each purpose and place in the run: phase and epoch, or zeros.
    pub(super) fn random(&self, purpose: &str, [phase, epoch]: [u64; 2]) -> Random {
        Random::new(&[self.settings.seed, named(purpose), phase, epoch])
    }

    fn epoch(
        &self,
        phase: Phase,
        state: &mut State,
        moments: &mut Moments,
        folder: &mut WorkFolder,
        note: &mut impl FnMut(&Event, &mut State) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let epoch = state.epoch;
        let pace = self.settings.pace(phase);
        if state.plan.is_empty() {
            let (plan, mined) = self.plan(phase, epoch)?;
            state.plan = plan;
            let event = Event::Epoch {
                phase,
                epoch: epoch + 1,
                epochs: pace.epochs,
                steps: pace.steps(state.plan.len()),
                items: state.plan.len(),
                hard_negatives: mined.iter().filter(|negative| negative.kind != Kind::Random).count(),
                negatives: mined.len(),
            };
            note(&event, state)?;
        }
        let steps = pace.steps(state.plan.len());
        let mut saved = Instant::now();
        while state.step < steps {
            let event = self.step(phase, state, moments, steps)?;
            note(&event, state)?;
            if state.step < steps && saved.elapsed() >= self.save_every {
                self.save(state, moments, folder, None)?;
                saved = Instant::now();
            }
        }
        Ok(())
    }

    /// One step of the optimizer, of an epoch's `steps`: what came of it. An error before the optimizer moves, also where the run is
    /// asked to stop, leaves weights and state as they were.
    fn step(&self, phase: Phase, state: &mut State, moments: &mut Moments, steps: usize) -> Result<Event, TrainError> {
        let pace = self.settings.pace(phase);
        let optimizer = &self.settings.optimizer;
        let total = (pace.epochs * steps) as u64;
        let began = Instant::now();
        let weights = self.parameters.tracked();
        let group = pace.batch_size * pace.accumulation;
        let items = &state.plan[state.step * group..(state.step * group + group).min(state.plan.len())];
        let mut gradients = Gradients::default();
        let (mut mean_loss, mut tokens) = (0.0, 0);
        let step_items = items.len();
        for (micro, items) in items.chunks(pace.batch_size).enumerate() {
            // What the step has gathered so far is nothing yet.
            self.stop_if_asked()?;
            let key = [
                self.settings.seed,
                named("dropout"),
                phase.key(),
                state.epoch as u64,
                state.step as u64,
                micro as u64,
            ];
            let dropout = Dropout::new(self.settings.dropout, mixed(&key));
            let (loss, count) = self.loss(phase, &weights, items, &dropout)?;
            let value = loss.to_scalar::<f32>()?;
            if !value.is_finite() {
                return Err(self.diverged(phase, state, state.step + 1, value));
            }
            // A loss is its micro-batch's mean; the last one of an epoch may be smaller than the others.
            let share = items.len() as f64 / step_items as f64;
            mean_loss += f64::from(value) * share;
            tokens += count;
            gradients.add(self.parameters, (loss * share)?.backward()?)?;
        }
        let norm = gradients.norm()?;
        if !norm.is_finite() {
            return Err(self.diverged(phase, state, state.step + 1, f32::NAN));
        }
        // As torch.nn.utils.clip_grad_norm_ has it.
        let scale = (optimizer.max_grad_norm / (norm + 1e-6)).min(1.0);
        let rate = pace.learning_rate * schedule::factor(state.phase_steps, total, optimizer.warmup_ratio);
        moments.step(self.parameters, &gradients, scale, optimizer, |parameter| {
            rate * schedule::layer_factor(optimizer.layerwise_decay, parameter.depth)
        })?;
        state.step += 1;
        state.phase_steps += 1;
        state.loss_sum += mean_loss * step_items as f64;
        state.loss_items += step_items as u64;
        state.tokens += tokens;
        state.seconds += began.elapsed().as_secs_f64();
        Ok(Event::Step {
            phase,
            epoch: state.epoch + 1,
            step: state.step,
            steps,
            loss: mean_loss,
            learning_rate: rate,
            gradient_norm: norm,
            tokens: state.tokens,
            seconds: state.seconds,
        })
    }

    /// The loss of one micro-batch and how many tokens it took.
    fn loss(
        &self,
        phase: Phase,
        weights: &Weights,
        items: &[Item],
        dropout: &Dropout,
    ) -> Result<(Tensor, u64), TrainError> {
        // Each context is encoded once, in the order in which it first comes.
        let mut rows: [Vec<u32>; 2] = Default::default();
        let row = |rows: &mut Vec<u32>, text: u32| match rows.iter().position(|known| *known == text) {
            Some(at) => at as u32,
            None => {
                rows.push(text);
                rows.len() as u32 - 1
            }
        };
        let mut pairs: [Vec<u32>; 2] = Default::default();
        if phase == Phase::Contrastive {
            // Rows of anchors are not shared: the loss wants pair i in row i of both sides.
            for item in items {
                rows[0].push(item.drug);
                rows[1].push(item.adr);
            }
            for (drug, adr) in items.iter().filter_map(|item| item.negative) {
                row(&mut rows[0], drug);
                row(&mut rows[1], adr);
            }
        } else {
            for item in items {
                pairs[0].push(row(&mut rows[0], item.drug));
                pairs[1].push(row(&mut rows[1], item.adr));
            }
        }
        let mut tokens = 0;
        let mut encode = |side: Side| -> Result<Tensor, TrainError> {
            let numbers = &rows[side as usize];
            let texts: Vec<&[u32]> = numbers
                .iter()
                .map(|n| self.train.text(side, *n).token_ids.as_slice())
                .collect();
            tokens += texts.iter().map(|text| text.len() as u64).sum::<u64>();
            Ok(self.network.encode(weights, side, &texts, Some(dropout))?)
        };
        let (drug, adr) = (encode(Side::Drug)?, encode(Side::Adr)?);
        let loss = match phase {
            Phase::Contrastive => {
                let related = |i: usize, j: usize| {
                    let (drug, adr) = (
                        self.train.text(Side::Drug, rows[0][i]),
                        self.train.text(Side::Adr, rows[1][j]),
                    );
                    self.related.train.contains(drug, adr)
                };
                loss::contrastive(&drug, &adr, items.len(), self.settings.contrastive.temperature, related)?
            }
            Phase::Finetune => {
                let take = |t: &Tensor, rows: &[u32]| t.index_select(&Tensor::new(rows, self.device)?, 0);
                let (drug, adr) = (take(&drug, &pairs[0])?, take(&adr, &pairs[1])?);
                let logits = self.network.logits(weights, &drug, &adr, Some(dropout))?;
                let labels: Vec<bool> = items.iter().map(|item| item.label).collect();
                let settings = &self.settings.finetune;
                loss::focal(&logits, &labels, settings.focal_gamma, settings.focal_alpha)?
            }
        };
        Ok((loss, tokens))
    }
}
