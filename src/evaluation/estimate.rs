//! A figure with its interval.

use super::bootstrap::{Interval, Plan, interval};
use super::figures::Metric;

/// A figure of the sample with the interval that resamples give it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// None where the sample does not define it.
    pub value: Option<f64>,
    /// None without resamples, where no resample defines the figure, or where [`Metric::has_interval`] says so.
    pub interval: Option<Interval>,
    /// Resamples that did not define the figure and are not part of the interval.
    pub undefined: usize,
}

impl Estimate {
    /// `value` and the interval of its `values` in resamples; NaN where it is not defined.
    pub fn new(value: f64, values: Vec<f64>, plan: &Plan) -> Self {
        let undefined = values.iter().filter(|value| value.is_nan()).count();
        Self {
            value: (!value.is_nan()).then_some(value),
            // An interval around nothing would suggest that there was something.
            interval: (!value.is_nan()).then(|| interval(values, plan.confidence)).flatten(),
            undefined,
        }
    }

    /// A figure without an interval is not computed of resamples, which does not make it undefined in them.
    pub fn of_metric(metric: Metric, estimate: Self) -> Self {
        match metric.has_interval() {
            true => estimate,
            false => Self {
                interval: None,
                undefined: 0,
                ..estimate
            },
        }
    }
}
