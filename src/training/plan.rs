//! What an epoch goes through: related pairs, labelled and mined negatives, shuffled.

use std::collections::HashMap;

use candle_core::Tensor;

use super::{
    Job, TrainError,
    dataset::{Dataset, Example},
    mining::{Kind, Miner, Negative, Neighbours, neighbours},
    phase::Phase,
    random::Random,
    relations::Related,
    settings::NegativeKind,
    state::Item,
};
use crate::Side;

/// Texts encoded together where no gradient is wanted.
const TEXTS_AT_ONCE: usize = 64;

impl Job<'_> {
    /// What an epoch goes through, shuffled, and the negatives mined for it.
    pub(super) fn plan(&self, phase: Phase, epoch: usize) -> Result<(Vec<Item>, Vec<Negative>), TrainError> {
        let positives = self.train.positives();
        let near = match self.negatives {
            NegativeKind::Hard => Some(self.neighbours()?),
            _ => None,
        };
        let place = [phase.key(), epoch as u64];
        let mut random = self.random("mining", place);
        let mined = match self.negatives {
            NegativeKind::None => Vec::new(),
            _ => self
                .miner(self.train, &self.related.train, &positives, near.as_ref())
                .mine(&mut random),
        };
        let mut plan: Vec<Item> = match phase {
            Phase::Contrastive => {
                let mut items: Vec<Item> = positives.iter().copied().map(Item::from).collect();
                for negative in self.labelled_negatives(&positives, &mut random).iter().chain(&mined) {
                    items[negative.of].negative = Some((negative.drug, negative.adr));
                }
                items
            }
            Phase::Finetune => {
                let labelled = self.train.examples.iter().copied().map(Item::from);
                labelled.chain(mined.iter().map(unrelated)).collect()
            }
        };
        self.random("order", place).shuffle(&mut plan);
        Ok((plan, mined))
    }

    /// For pairs that share a context with a labelled negative, one such: phase 1's hardest where data has labels.
    fn labelled_negatives(&self, positives: &[Example], random: &mut Random) -> Vec<Negative> {
        let mut by_context: [HashMap<u32, Vec<(u32, u32)>>; 2] = Default::default();
        for example in self.train.examples.iter().filter(|e| !e.label) {
            // A context whose entities are related elsewhere would teach the contrary there.
            let (drug, adr) = (
                self.train.text(Side::Drug, example.drug),
                self.train.text(Side::Adr, example.adr),
            );
            if !self.related.train.contains(drug, adr) {
                let pair = (example.drug, example.adr);
                by_context[0].entry(example.drug).or_default().push(pair);
                by_context[1].entry(example.adr).or_default().push(pair);
            }
        }
        let mut found = Vec::new();
        for (of, positive) in positives.iter().enumerate() {
            let with_drug = by_context[0].get(&positive.drug).into_iter().flatten();
            let with_adr = by_context[1].get(&positive.adr).into_iter().flatten();
            let candidates: Vec<(u32, u32)> = with_drug.chain(with_adr).copied().collect();
            if !candidates.is_empty() {
                let (drug, adr) = candidates[random.below(candidates.len())];
                let kind = Kind::Labelled;
                found.push(Negative { of, drug, adr, kind });
            }
        }
        found
    }

    pub(super) fn miner<'a>(
        &self,
        data: &'a Dataset,
        related: &'a Related,
        positives: &'a [Example],
        neighbours: Option<&'a Neighbours>,
    ) -> Miner<'a> {
        Miner {
            data,
            positives,
            related,
            hard_ratio: match self.negatives {
                NegativeKind::Hard => self.settings.negatives.hard_ratio,
                _ => 0.0,
            },
            neighbours,
        }
    }

    /// That there are two classes, before hours have gone by.
    pub(super) fn check_classes(&self, valid: &[Item]) -> Result<(), TrainError> {
        let positives = self.train.positives();
        let can_be_mined = || {
            let mut random = self.random("check", [0, 0]);
            let miner = self.miner(self.train, &self.related.train, &positives, None);
            self.negatives != NegativeKind::None && miner.finds_any(&mut random)
        };
        let of_training = positives.len() < self.train.examples.len() || can_be_mined();
        let of_validation = valid.iter().any(|item| !item.label);
        for (place, found) in [("training", of_training), ("validation", of_validation)] {
            if !found {
                let reason = "expected related and unrelated pairs; no negative could be mined, since every drug is \
                              related to every reaction";
                return Err(TrainError::data(place, reason));
            }
        }
        Ok(())
    }

    /// Representations of all of a data set's texts of one side, without dropout: `[N, F]`.
    pub(super) fn encode_all(&self, data: &Dataset, side: Side) -> Result<Tensor, TrainError> {
        let weights = self.parameters.detached();
        let texts = &data.texts[side as usize];
        let parts = texts.chunks(TEXTS_AT_ONCE).map(|texts| -> Result<Tensor, TrainError> {
            self.stop_if_asked()?;
            let texts: Vec<&[u32]> = texts.iter().map(|text| text.token_ids.as_slice()).collect();
            Ok(self.network.encode(&weights, side, &texts, None)?)
        });
        Ok(Tensor::cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)?)
    }

    fn neighbours(&self) -> Result<Neighbours, TrainError> {
        let mut width = 0;
        let mut normalized = |side: Side| -> Result<Vec<f32>, TrainError> {
            let all = self.encode_all(self.train, side)?;
            width = all.dim(1)?;
            let mut values = all.flatten_all()?.to_vec1::<f32>()?;
            for row in values.chunks_exact_mut(width) {
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
                row.iter_mut().for_each(|x| *x /= length);
            }
            Ok(values)
        };
        let representations = [normalized(Side::Drug)?, normalized(Side::Adr)?];
        let count = self.settings.negatives.neighbours;
        Ok(neighbours(
            self.train,
            &self.related.train,
            &representations,
            width,
            count,
        ))
    }
}

pub(super) fn unrelated(negative: &Negative) -> Item {
    Item {
        drug: negative.drug,
        adr: negative.adr,
        label: false,
        negative: None,
    }
}
