//! The bootstrap: documents drawn with replacement, in parallel, with the same draws whatever the threads.

use rand::Rng as _;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use rayon::prelude::*;
use serde::Serialize;

/// How to resample.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// 0 for no intervals.
    pub resamples: usize,
    /// Share of resamples that an interval holds, such as 0.95.
    pub confidence: f64,
    pub seed: u64,
}

impl Plan {
    /// The confidence in percent, for people: 0.57 is 57, though their product with 100 is not.
    pub fn percent(&self) -> f64 {
        (self.confidence * 1e11).round() / 1e9
    }
}

/// Told after each resample, by the thread that has made it.
pub type Made<'m> = dyn Fn() + Sync + 'm;

/// The middle of a bootstrap distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// What `compute` gives for each resample, in order. It gets how often each document was drawn.
///
/// A resample draws as many documents as there are. Resample `i` has the `i`-th stream of a generator of its own,
/// so it does not matter which thread makes it or when. Fewer than two documents give nothing to draw from, and
/// no resamples.
pub fn resample<T: Send>(
    documents: usize,
    plan: &Plan,
    made: &Made<'_>,
    compute: impl Fn(&[u32]) -> T + Sync,
) -> Vec<T> {
    let Ok(count) = u32::try_from(documents) else {
        return Vec::new();
    };
    if count < 2 {
        return Vec::new();
    }
    (0..plan.resamples)
        .into_par_iter()
        .map_init(
            || vec![0u32; documents],
            |drawn, i| {
                drawn.fill(0);
                let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
                random.set_stream(i as u64);
                for _ in 0..count {
                    drawn[random.random_range(0..count) as usize] += 1;
                }
                let computed = compute(drawn);
                made();
                computed
            },
        )
        .collect()
}

/// The middle `confidence` of `values`, by percentiles; those that are not numbers (a figure that was not defined in
/// a resample) are left out. None where nothing is left.
pub fn interval(mut values: Vec<f64>, confidence: f64) -> Option<Interval> {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval {
        low: percentile(&values, tail)?,
        high: percentile(&values, 1.0 - tail)?,
    })
}

/// Linear between the two nearest ranks, as numpy's default.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (rank.floor() as usize, rank.ceil() as usize);
    let (low, high) = (*sorted.get(below)?, *sorted.get(above)?);
    Some(low + (high - low) * (rank - below as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        resamples: 400,
        confidence: 0.95,
        seed: 7,
    };

    #[test]
    fn every_resample_draws_as_many_documents_as_there_are() {
        let sums = resample(11, &PLAN, &|| (), |drawn| drawn.iter().sum::<u32>());
        assert_eq!(sums, vec![11; 400]);
    }

    #[test]
    fn every_resample_is_another_draw() {
        let draws = resample(50, &PLAN, &|| (), <[u32]>::to_vec);
        let different: std::collections::HashSet<&Vec<u32>> = draws.iter().collect();
        assert_eq!(different.len(), 400);
    }

    #[test]
    fn the_same_seed_draws_the_same_on_any_number_of_threads() {
        let draw = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| resample(50, &Plan { seed, ..PLAN }, &|| (), <[u32]>::to_vec))
        };
        assert_eq!(draw(1, 7), draw(3, 7));
        assert_ne!(draw(1, 7), draw(1, 8));
    }

    #[test]
    fn one_document_gives_nothing_to_draw_from() {
        for documents in [0, 1] {
            assert!(resample(documents, &PLAN, &|| (), |_| ()).is_empty());
        }
    }

    #[test]
    fn a_mean_has_the_interval_that_theory_gives_it() {
        // 2,000 fair coins: the standard error of the mean is 0.5 / sqrt(2000) = 0.01118.
        let means = resample(2000, &PLAN, &|| (), |drawn| {
            drawn.iter().step_by(2).sum::<u32>() as f64 / 2000.0
        });
        let found = interval(means, 0.95).unwrap();
        let half = 1.96 * 0.01118;
        assert!((found.low - (0.5 - half)).abs() < 0.004, "{found:?}");
        assert!((found.high - (0.5 + half)).abs() < 0.004, "{found:?}");
    }

    #[test]
    fn percentiles_are_linear_between_ranks_and_leave_undefined_values_out() {
        let values = vec![4.0, f64::NAN, 1.0, 3.0, 2.0];
        assert_eq!(interval(values, 0.5), Some(Interval { low: 1.75, high: 3.25 }));
        assert_eq!(interval(vec![f64::NAN], 0.5), None);
    }
}
