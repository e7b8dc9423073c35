//! How good a model is on the validation pairs, as far as choosing an epoch and a threshold needs it. The figures
//! are [`crate::evaluation`]'s, the choice of a threshold between two probabilities is made here.

use serde::{Deserialize, Serialize};

use crate::evaluation::{Judged, Metric, Origin, Plan, PointKind, Request, Sample, Threshold, evaluate};

/// Figures of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// At the threshold.
    pub f1: f64,
    pub precision: f64,
    pub recall: f64,
    pub roc_auc: f64,
    /// The one with the best F1, midway between two probabilities that occur.
    pub threshold: f32,
    /// No probability lies beneath it: F1 is what one gets without looking.
    #[serde(default)]
    pub calls_all_related: bool,
}

impl Judgement {
    /// By F1, and where that is equal by ROC-AUC.
    pub fn is_better_than(&self, other: &Self) -> bool {
        (self.f1, self.roc_auc) > (other.f1, other.roc_auc)
    }
}

/// Probabilities that are no further apart are one.
const ROUNDING: f32 = 1e-5;

/// Of probabilities and labels; none where a class is missing or a probability is no number.
pub fn judge(scored: &[(f32, bool)]) -> Option<Judgement> {
    if scored.iter().any(|(p, _)| p.is_nan()) {
        return None;
    }
    let probabilities = || scored.iter().map(|(p, _)| *p);
    let (lowest, highest) = (
        probabilities().fold(f32::INFINITY, f32::min),
        probabilities().fold(f32::NEG_INFINITY, f32::max),
    );
    // What tells so little apart is rounding, which differs by where a pair stands in its batch.
    let is_one = highest - lowest < ROUNDING;
    let records = scored.iter().map(|&(probability, label)| Judged {
        probability: f64::from(if is_one { lowest } else { probability }),
        label,
        document: 0,
    });
    let sample = Sample::new(records.collect(), 1);
    let request = Request {
        threshold: Threshold {
            value: 0.5,
            origin: Origin::Default,
        },
        recall: None,
        precision: None,
        bins: 1,
    };
    let without_intervals = Plan {
        resamples: 0,
        confidence: 0.95,
        seed: 0,
    };
    let found = evaluate(&sample, &request, &without_intervals, &|| ());
    let roc_auc = found.metrics[Metric::RocAuc as usize].value?;
    let best = found.points.iter().find(|point| point.kind == PointKind::BestF1)?;
    let lowest_called = best.threshold.value?;
    // Beneath the last one nothing is left to be midway to.
    let probabilities = sample.records().iter().map(|record| record.probability);
    let below = probabilities.into_iter().find(|p| *p < lowest_called);
    let midway = ((lowest_called + below.unwrap_or(0.0)) / 2.0) as f32;
    Some(Judgement {
        f1: best.f1.value?,
        precision: best.precision.value?,
        recall: best.recall.value?,
        roc_auc,
        // Between neighbours among f32s there is nothing, and the lower one calls more.
        threshold: match below {
            Some(below) if f64::from(midway) <= below => lowest_called as f32,
            _ => midway,
        },
        calls_all_related: below.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_between_neighbours_calls_none_more() {
        let mut low = 0.468_300_67f32;
        for _ in 0..64 {
            let high = low.next_up();
            let scored = [(low, false), (high, true), (0.1, false), (0.9, true)];
            let judgement = judge(&scored).unwrap();
            assert!(
                judgement.threshold > low && judgement.threshold <= high,
                "{low} {}",
                judgement.threshold
            );
            low = high;
        }
    }

    #[test]
    fn figures_are_scikit_learns() {
        // sklearn 1.9.1: roc_auc_score 0.8125 (there is a tie between the classes), best f1_score 0.8 at 0.4.
        let scored = [
            (0.9, true),
            (0.8, true),
            (0.6, false),
            (0.4, true),
            (0.4, true),
            (0.4, false),
            (0.1, false),
            (0.2, false),
        ];
        let found = judge(&scored).unwrap();
        assert!((found.roc_auc - 0.8125).abs() < 1e-12, "{found:?}");
        assert!((found.f1 - 0.8).abs() < 1e-12, "{found:?}");
        assert!((found.threshold - 0.3).abs() < 1e-6, "{found:?}");
        assert!((found.precision - 4.0 / 6.0).abs() < 1e-12 && found.recall == 1.0);
    }

    #[test]
    fn of_epochs_with_one_f1_the_better_ranking_is_the_better() {
        // Both do best by calling everything related.
        let of = |third| judge(&[(0.9, true), (0.2, true), (third, false), (0.5, true), (0.6, true)]).unwrap();
        let (worse, better) = (of(0.8), of(0.3));
        assert!(
            worse.f1 == better.f1 && worse.roc_auc < better.roc_auc,
            "{worse:?} {better:?}"
        );
        assert!(better.is_better_than(&worse) && !worse.is_better_than(&better));
        assert!(!better.is_better_than(&better));
        assert!(worse.calls_all_related && better.calls_all_related);
        assert!(!of(0.1).calls_all_related);
        assert!(of(0.1).is_better_than(&better));
    }

    #[test]
    fn what_rounding_alone_tells_apart_is_not_told_apart() {
        let scored: Vec<(f32, bool)> = (0..40).map(|i| (0.6 + 1e-7 * (i % 7) as f32, i % 3 == 0)).collect();
        let found = judge(&scored).unwrap();
        assert_eq!((found.roc_auc, found.recall), (0.5, 1.0), "{found:?}");
    }

    #[test]
    fn one_class_and_no_number_are_no_figures() {
        assert!(judge(&[(0.5, true)]).is_none());
        assert!(judge(&[(0.5, true), (f32::NAN, false)]).is_none());
    }
}
