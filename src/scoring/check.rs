//! A run without a model: all that scoring checks of a line before it tokenizes, by the same code.

use super::Counts;
use super::error::{LineError, ScoreError};
use super::member::{Member, PairModel};
use super::options::Options;
use super::pipeline::run_into;
use super::prepare::{Context, MissingEntity, Prepare, Prepared, mark};
use super::sink::Sink;
use crate::Side;
use crate::files::Input;

/// Reads all lines of all inputs and tells `sink` what is wrong with which ([`Sink::rejected`]).
///
/// `scored` in the counts are the lines that scoring would hand to the tokenizer; what only a model can find
/// ([`Warning::DrugTruncated`](super::Warning), a text that its tokenizer refuses) is not found. The answers that `sink` gets mean
/// nothing.
///
/// # Errors
/// Those of [`run_into`].
pub fn check(
    inputs: Vec<Input>,
    sink: &mut dyn Sink,
    missing_entity: MissingEntity,
    options: &Options,
) -> Result<Counts, ScoreError> {
    let marking = Marking { missing_entity };
    // All sequences are equal, so that with reuse a window has two to encode.
    let options = Options {
        reuse: true,
        ..options.clone()
    };
    run_into(inputs, sink, &[Member::only(&NoModel, &marking)], &options)
}

/// Stops where the tokenizer would begin.
struct Marking {
    missing_entity: MissingEntity,
}

impl Prepare for Marking {
    fn prepare(&self, context: Context<'_>) -> Result<Prepared, LineError> {
        // Whether markers are set does not change what is refused.
        let marked = mark(context, false, self.missing_entity)?;
        Ok(Prepared {
            token_ids: vec![0],
            mention_truncated: false,
            entity_missing: marked.mentions.is_empty(),
        })
    }
}

struct NoModel;

impl PairModel for NoModel {
    fn encode(&self, _: Side, token_ids: &[&[u32]]) -> anyhow::Result<Vec<Box<[f32]>>> {
        Ok(token_ids.iter().map(|_| Box::default()).collect())
    }

    fn probabilities(&self, pairs: &[(&[f32], &[f32])]) -> anyhow::Result<Vec<f32>> {
        Ok(vec![0.0; pairs.len()])
    }

    fn concurrency(&self) -> usize {
        1
    }
}
