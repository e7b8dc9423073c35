//! How good a model is on the validation pairs, as far as choosing an epoch and a threshold needs it.

use serde::{Deserialize, Serialize};

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
}

/// Of probabilities and labels; none where a class is missing or a probability is no number.
pub fn judge(scored: &[(f32, bool)]) -> Option<Judgement> {
    let positives = scored.iter().filter(|(_, label)| *label).count();
    let negatives = scored.len() - positives;
    if positives == 0 || negatives == 0 || scored.iter().any(|(p, _)| p.is_nan()) {
        return None;
    }
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut best: Option<Judgement> = None;
    let (mut hits, mut alarms, mut above) = (0usize, 0usize, 0.0f64);
    for (i, group) in sorted.chunk_by(|a, b| a.0 == b.0).scan(0, |at, group| {
        *at += group.len();
        Some((*at, group))
    }) {
        let group_hits = group.iter().filter(|(_, label)| *label).count();
        let group_alarms = group.len() - group_hits;
        // Pairs of a positive above a negative count one, equal ones a half.
        above += group_alarms as f64 * (hits as f64 + 0.5 * group_hits as f64);
        hits += group_hits;
        alarms += group_alarms;
        let f1 = 2.0 * hits as f64 / (hits + alarms + positives) as f64;
        if best.is_none_or(|best| f1 > best.f1) {
            // Beneath the last one nothing is left to be midway to.
            let below = sorted.get(i).map_or(0.0, |next| next.0);
            best = Some(Judgement {
                f1,
                precision: hits as f64 / (hits + alarms) as f64,
                recall: hits as f64 / positives as f64,
                roc_auc: 0.0,
                threshold: ((f64::from(group[0].0) + f64::from(below)) / 2.0) as f32,
            });
        }
    }
    best.map(|best| Judgement {
        roc_auc: above / (positives as f64 * negatives as f64),
        ..best
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn one_class_and_no_number_are_no_figures() {
        assert!(judge(&[(0.5, true)]).is_none());
        assert!(judge(&[(0.5, true), (f32::NAN, false)]).is_none());
    }
}
