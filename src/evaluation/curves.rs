//! Curves for pictures: what happens at every threshold, and how probabilities are spread.

use super::figures::bin_of;
use super::sample::Sample;
use super::sum::Sum;

/// Predictions at one of the sample's own probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub threshold: f64,
    pub true_positives: u64,
    pub false_positives: u64,
}

/// The records whose probability lies in one of equally wide bins.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Bin {
    pub records: u64,
    pub positives: u64,
    /// Mean probability; none without records.
    pub mean_probability: Option<f64>,
}

impl Bin {
    /// Share of positives; none without records.
    pub fn positive_share(&self) -> Option<f64> {
        (self.records > 0).then(|| self.positives as f64 / self.records as f64)
    }
}

/// What the pictures show.
#[derive(Clone, Debug)]
pub struct Curves {
    pub positives: u64,
    pub negatives: u64,
    /// From the highest threshold to the lowest, one for each distinct probability.
    pub steps: Vec<Step>,
    pub bins: Vec<Bin>,
    /// Finer bins, by label: (negatives, positives).
    pub histogram: Vec<(u64, u64)>,
}

/// Bars of the histogram.
const BARS: usize = 25;

impl Curves {
    pub fn of(sample: &Sample, bins: usize) -> Self {
        let records = sample.records();
        let (mut tp, mut fp) = (0u64, 0u64);
        let mut steps: Vec<Step> = Vec::new();
        let mut counts = vec![(0u64, 0u64, Sum::default()); bins];
        let mut histogram = vec![(0u64, 0u64); BARS];
        for (i, record) in records.iter().enumerate() {
            let bin = &mut counts[bin_of(record.probability, bins)];
            let bar = &mut histogram[bin_of(record.probability, BARS)];
            bin.0 += 1;
            bin.2.add(record.probability);
            if record.label {
                tp += 1;
                bin.1 += 1;
                bar.1 += 1;
            } else {
                fp += 1;
                bar.0 += 1;
            }
            if records
                .get(i + 1)
                .is_none_or(|next| next.probability != record.probability)
            {
                steps.push(Step {
                    threshold: record.probability,
                    true_positives: tp,
                    false_positives: fp,
                });
            }
        }
        let bins = counts.into_iter().map(|(records, positives, sum)| Bin {
            records,
            positives,
            mean_probability: (records > 0).then(|| sum.value() / records as f64),
        });
        Self {
            positives: tp,
            negatives: fp,
            steps,
            bins: bins.collect(),
            histogram,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Judged;

    #[test]
    fn the_two_classes_are_counted_apart() {
        let records = [(0.9, true), (0.9, false), (0.9, false), (0.5, true), (0.1, false)];
        let records = records
            .into_iter()
            .zip(0..)
            .map(|((probability, label), document)| Judged {
                probability,
                label,
                document,
            });
        let curves = Curves::of(&Sample::new(records.collect(), 5), 2);
        assert_eq!((curves.positives, curves.negatives), (2, 3));
        let bars: Vec<(usize, (u64, u64))> = curves.histogram.into_iter().enumerate().collect();
        let filled: Vec<_> = bars.into_iter().filter(|(_, bar)| *bar != (0, 0)).collect();
        // Of 25 bars, closed on the right: negatives, then positives.
        assert_eq!(filled, [(2, (1, 0)), (12, (0, 1)), (22, (2, 1))]);
        let steps: Vec<_> = curves
            .steps
            .iter()
            .map(|step| (step.true_positives, step.false_positives))
            .collect();
        assert_eq!(steps, [(1, 2), (2, 2), (2, 3)]);
        // Means of 0.5 and 0.1, and of three times 0.9.
        for (bin, (records, positives, mean)) in curves.bins.iter().zip([(2, 1, 0.3), (3, 1, 0.9)]) {
            assert_eq!((bin.records, bin.positives), (records, positives));
            let found = bin.mean_probability.unwrap();
            assert!((found - mean).abs() < 1e-12, "{found}");
        }
    }
}
