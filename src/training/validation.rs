//! What a run is validated on, and how good its weights are there.

use candle_core::{DType, Tensor};

use super::{
    Job, Phase, TrainError,
    judge::{Judgement, judge},
    plan::unrelated,
    settings::NegativeKind,
    state::{Item, State},
};
use crate::{Side, model::probability};

/// Pairs classified together where no gradient is wanted.
const PAIRS_AT_ONCE: usize = 256;

impl Job<'_> {
    /// How many negatives are mined for validation, besides the pairs that its data labels unrelated.
    pub fn mined_for_validation(&self) -> usize {
        self.validation_pairs().len() - self.valid.examples.len()
    }

    /// The validation pairs with negatives mined for them where they have too few: the same in every epoch, and of no
    /// encoder's choice.
    pub(super) fn validation_pairs(&self) -> Vec<Item> {
        let positives = self.valid.positives();
        let mut pairs: Vec<Item> = self.valid.examples.iter().copied().map(Item::from).collect();
        if self.negatives != NegativeKind::None && self.valid.is_short_of_negatives() {
            let mut random = self.random("validation", [0, 0]);
            let mined = self
                .miner(self.valid, &self.related.all, &positives, None)
                .mine(&mut random);
            pairs.extend(mined.iter().map(unrelated));
        }
        pairs
    }

    /// Figures of other weights on the validation pairs, such as the best epoch's rounded; the parameters are those then.
    pub fn judge(&self, tensors: &[(String, Tensor)]) -> Result<Judgement, TrainError> {
        let tensors = tensors
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), tensor.to_dtype(DType::F32)?)));
        self.parameters.restore(&tensors.collect::<Result<_, TrainError>>()?)?;
        let scored = self.scored(&self.validation_pairs())?;
        judge(&scored).ok_or_else(|| TrainError::data("validation", "the weights, as they are stored, give no figures"))
    }

    pub(super) fn validate(&self, pairs: &[Item], state: &State) -> Result<Judgement, TrainError> {
        let scored = self.scored(pairs)?;
        match judge(&scored) {
            Some(judgement) => Ok(judgement),
            None if scored.iter().any(|(p, _)| p.is_nan()) => {
                Err(self.diverged(Phase::Finetune, state, state.step, f32::NAN))
            }
            None => Err(TrainError::data("validation", "expected related and unrelated pairs")),
        }
    }

    /// Probabilities and labels of validation pairs.
    fn scored(&self, pairs: &[Item]) -> Result<Vec<(f32, bool)>, TrainError> {
        let (drug, adr) = (
            self.encode_all(self.valid, Side::Drug)?,
            self.encode_all(self.valid, Side::Adr)?,
        );
        let weights = self.parameters.detached();
        let mut scored = Vec::with_capacity(pairs.len());
        for pairs in pairs.chunks(PAIRS_AT_ONCE) {
            let rows = |number: fn(&Item) -> u32| {
                let numbers: Vec<u32> = pairs.iter().map(number).collect();
                Tensor::new(numbers, self.device)
            };
            let drug = drug.index_select(&rows(|item| item.drug)?, 0)?;
            let adr = adr.index_select(&rows(|item| item.adr)?, 0)?;
            let logits = self.network.logits(&weights, &drug, &adr, None)?.to_vec1::<f32>()?;
            scored.extend(
                logits
                    .into_iter()
                    .zip(pairs)
                    .map(|(logit, item)| (probability(logit), item.label)),
            );
        }
        Ok(scored)
    }
}
