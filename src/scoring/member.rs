//! Who answers: one model, or several whose mean is the answer.

use std::sync::Arc;

use super::cache::Cache;
use super::prepare::Prepare;
use crate::{Calibration, Side};

/// The network, as far as scoring knows it.
pub trait PairModel: Sync {
    /// One representation for each packed sequence of token ids, in order. A representation must not
    /// depend on the other sequences of the call.
    fn encode(&self, side: Side, token_ids: &[&[u32]]) -> anyhow::Result<Vec<Box<[f32]>>>;

    /// Probabilities of pairs of (drug, adr) representations, in order.
    fn probabilities(&self, pairs: &[(&[f32], &[f32])]) -> anyhow::Result<Vec<f32>>;

    /// How many `encode` calls may run at once. On the host there are never more than threads.
    fn concurrency(&self) -> usize;

    /// Whether the work is done by the host's cores, and so belongs into the run's thread pool.
    fn on_host(&self) -> bool {
        true
    }

    /// How many tokens a batch holds unless [`Options::batch_tokens`](super::Options::batch_tokens) says so.
    fn batch_tokens(&self) -> usize {
        1024
    }

    /// With fewer tokens than this a batch takes markedly longer for each.
    fn full_rate_tokens(&self) -> usize {
        usize::MAX
    }

    /// More tokens than this do not fit into a batch, as far as is known by now.
    fn fitting_tokens(&self) -> usize {
        usize::MAX
    }
}

/// A model with the text side that belongs to it. Several of them make an ensemble.
pub struct Member<'m> {
    /// The key of its probability in an ensemble's answers; no two are equal.
    pub name: String,
    pub model: &'m dyn PairModel,
    pub prepare: &'m dyn Prepare,
    /// Where its representations are kept between runs.
    pub cache: Option<Arc<Cache>>,
    /// From its probabilities to calibrated ones. Answers have those where every member has a calibration.
    pub calibration: Option<&'m Calibration>,
}

impl<'m> Member<'m> {
    /// The only member, which needs no name.
    pub fn only(model: &'m dyn PairModel, prepare: &'m dyn Prepare) -> Self {
        Self {
            name: String::new(),
            model,
            prepare,
            cache: None,
            calibration: None,
        }
    }
}

/// What messages call a member; nothing where it is the only one.
fn label(members: &[Member<'_>], member: usize) -> Option<String> {
    (members.len() > 1).then(|| format!("model \"{}\"", members[member].name))
}

/// Names a member in `message`, where there are several to tell apart.
pub(super) fn with_name(members: &[Member<'_>], member: usize, message: String) -> String {
    match label(members, member) {
        None => message,
        Some(label) => format!("{label}: {message}"),
    }
}

/// The error of one member's network, which says whose it is.
pub(super) fn error_of(members: &[Member<'_>], member: usize, error: anyhow::Error) -> anyhow::Error {
    match label(members, member) {
        None => error,
        Some(label) => error.context(label),
    }
}

/// The ensemble's probability: the f32 probabilities added up in f64 in the members' order, divided in f64,
/// rounded to f32 once. That of a single member is its own to the bit.
pub(super) fn mean(probabilities: &[f32]) -> f32 {
    let sum: f64 = probabilities.iter().copied().map(f64::from).sum();
    (sum / probabilities.len() as f64) as f32
}

/// The ensemble's calibrated probability: the [`mean`] of what each member's calibration makes of its probability;
/// none where a member has no calibration.
pub(super) fn calibrated_mean(members: &[Member<'_>], probabilities: &[f32]) -> Option<f32> {
    let of_members = members.iter().zip(probabilities);
    let calibrated = of_members.map(|(member, &probability)| Some(member.calibration?.apply_scored(probability)));
    calibrated
        .collect::<Option<Vec<f32>>>()
        .map(|calibrated| mean(&calibrated))
}

#[cfg(test)]
mod tests {
    use super::mean;

    #[test]
    fn a_mean_is_rounded_once() {
        assert_eq!(mean(&[0.1]).to_bits(), 0.1f32.to_bits());
        assert_eq!(mean(&[0.25, 0.75]), 0.5);
        let (a, b, c) = (0.9230769f32, 1e-7f32, 0.3333333f32);
        let exact = (f64::from(a) + f64::from(b) + f64::from(c)) / 3.0;
        assert_eq!(mean(&[a, b, c]).to_bits(), (exact as f32).to_bits());
        // In f32 the small one would have been lost twice.
        let tiny = 2f32.powi(-25);
        assert!(mean(&[1.0, tiny, tiny, tiny]) > 0.25);
        assert!(mean(&[0.5, f32::NAN]).is_nan());
    }
}
