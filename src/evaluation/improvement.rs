//! What a calibration changes, with intervals. Neither order nor thresholds are looked at, which makes a resample of a
//! million records a sum over their documents.

use super::bootstrap::{Made, Plan, resample};
use super::estimate::Estimate;
use super::figures::{Metric, calibration_error};
use super::sample::Sample;

/// The figures that a calibration is meant to change.
pub const CALIBRATED: [Metric; 3] = [Metric::Brier, Metric::CalibrationError, Metric::LogLoss];

/// Figures before and after, in the order of [`CALIBRATED`].
#[derive(Clone, Copy, Debug)]
pub struct Improvement {
    pub before: [Estimate; CALIBRATED.len()],
    pub after: [Estimate; CALIBRATED.len()],
    /// After less before.
    pub change: [Estimate; CALIBRATED.len()],
}

/// Judges one set of records by their probabilities before and after. Both samples number documents alike and see the
/// same draws, so that what is common to both cancels in the change. `bins`: of the calibration error; at least 1.
pub fn improvement(before: &Sample, after: &Sample, bins: usize, plan: &Plan, made: &Made<'_>) -> Improvement {
    let both = [before, after];
    let resamples = resample(before.documents(), plan, made, |drawn| {
        both.map(|sample| losses(sample, None, |document| u64::from(drawn[document as usize])))
    });
    let values = both.map(|sample| losses(sample, Some(bins), |_| 1));
    let estimated = |of: &dyn Fn(&[Losses; 2]) -> Losses| {
        std::array::from_fn(|i| {
            let in_resamples = resamples.iter().map(|resample| of(resample)[i]).collect();
            Estimate::of_metric(CALIBRATED[i], Estimate::new(of(&values)[i], in_resamples, plan))
        })
    };
    Improvement {
        before: estimated(&|[before, _]| *before),
        after: estimated(&|[_, after]| *after),
        change: estimated(&|[before, after]| std::array::from_fn(|i| after[i] - before[i])),
    }
}

/// In the order of [`CALIBRATED`], NaN where one is not defined or not wanted.
type Losses = [f64; CALIBRATED.len()];

fn losses(sample: &Sample, bins: Option<usize>, weight: impl Fn(u32) -> u64) -> Losses {
    let totals = sample.totals(&weight);
    let figures = CALIBRATED.map(|metric| match metric {
        Metric::Brier => totals.brier(),
        Metric::LogLoss => totals.log_loss(),
        Metric::CalibrationError => bins.and_then(|bins| calibration_error(sample, bins, &weight)),
        Metric::RocAuc | Metric::AveragePrecision => None,
    });
    figures.map(|figure| figure.unwrap_or(f64::NAN))
}
