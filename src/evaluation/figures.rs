//! Every figure of a sample, with a weight for each document, so that a resample costs no sorting.

use serde::Serialize;

use super::sample::Sample;
use super::sum::Sum;

/// A figure that needs no threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    RocAuc,
    AveragePrecision,
    Brier,
    LogLoss,
    CalibrationError,
}

impl Metric {
    pub const ALL: [Metric; 5] = [
        Metric::RocAuc,
        Metric::AveragePrecision,
        Metric::Brier,
        Metric::LogLoss,
        Metric::CalibrationError,
    ];

    /// The key in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Metric::RocAuc => "roc_auc",
            Metric::AveragePrecision => "average_precision",
            Metric::Brier => "brier_score",
            Metric::LogLoss => "log_loss",
            Metric::CalibrationError => "expected_calibration_error",
        }
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Metric::RocAuc => "ROC-AUC",
            Metric::AveragePrecision => "average precision",
            Metric::Brier => "Brier score",
            Metric::LogLoss => "log loss",
            Metric::CalibrationError => "expected calibration error",
        }
    }

    /// Whether percentiles of resamples are an interval of it. Of the calibration error they are not: resampling adds
    /// noise to every bin, which makes the sum of the bins' distances larger and never smaller.
    pub fn has_interval(self) -> bool {
        self != Metric::CalibrationError
    }
}

/// How predictions at one threshold meet labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confusion {
    pub true_positives: u64,
    pub false_positives: u64,
    pub false_negatives: u64,
    pub true_negatives: u64,
}

impl Confusion {
    /// Share of predicted positives that are positive; none where nothing is predicted positive.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Share of positives that are predicted; none where there are none.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Harmonic mean of the two, `2TP / (2TP + FP + FN)`; none where there is nothing to find and nothing predicted.
    pub fn f1(&self) -> Option<f64> {
        let twice = 2 * self.true_positives;
        ratio(twice, twice + self.false_positives + self.false_negatives)
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A threshold picked from the sample's own probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub threshold: f64,
    pub confusion: Confusion,
}

/// What to compute.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Thresholds to count at, in any order.
    pub thresholds: Vec<f64>,
    pub recall: Option<f64>,
    pub precision: Option<f64>,
    /// Bins of the expected calibration error, at least 1; None for none.
    pub bins: Option<usize>,
}

/// All figures of one sample or resample.
#[derive(Clone, Debug)]
pub struct Figures {
    pub metrics: [Option<f64>; Metric::ALL.len()],
    /// One for each of [`Wanted::thresholds`].
    pub at: Vec<Confusion>,
    /// The threshold of the highest F1; of several the highest.
    pub best_f1: Option<Choice>,
    /// Of the thresholds with at least the wanted recall, the one of the highest precision (then recall).
    pub for_recall: Option<Choice>,
    /// Of the thresholds with at least the wanted precision, the one of the highest recall (then precision).
    pub for_precision: Option<Choice>,
}

/// The bin of a probability, of `bins` equally wide ones. Bins are closed on the right, `(i/n, (i+1)/n]`, the first
/// also on the left, as in Guo et al. 2017 and scikit-learn's `calibration_curve`.
pub fn bin_of(probability: f64, bins: usize) -> usize {
    let mut bin = ((probability * bins as f64) as usize).min(bins - 1);
    while probability <= lower_edge_of(bin, bins) {
        bin -= 1;
    }
    while bin + 1 < bins && probability > lower_edge_of(bin + 1, bins) {
        bin += 1;
    }
    bin
}

/// The probability that is the last one below a bin; the first bin has none.
fn lower_edge_of(bin: usize, bins: usize) -> f64 {
    match bin {
        0 => f64::NEG_INFINITY,
        // numpy's `linspace` computes the edges like this, so that a probability on one goes the same way.
        _ => bin as f64 * (1.0 / bins as f64),
    }
}

/// Computes everything, counting each record as often as `weight` says of its document.
pub fn figures(sample: &Sample, wanted: &Wanted, weight: impl Fn(u32) -> u64) -> Figures {
    let totals = sample.totals(&weight);
    let (positives, negatives) = (totals.positives, totals.negatives);
    let confusion = |tp: u64, fp: u64| Confusion {
        true_positives: tp,
        false_positives: fp,
        false_negatives: positives - tp,
        true_negatives: negatives - fp,
    };

    let mut at = vec![confusion(0, 0); wanted.thresholds.len()];
    let (mut tp, mut fp) = (0u64, 0u64);
    // Twice the number of (positive, negative) pairs in the right order, ties counting half.
    let mut ordered_twice = 0u128;
    let mut precisions = Sum::default();
    let mut search = Search::new(wanted, positives);
    let (mut group_positives, mut group_negatives) = (0u64, 0u64);

    let records = sample.records();
    for (i, record) in records.iter().enumerate() {
        let weight = weight(record.document);
        // What is drawn and what it is labelled is chance to a processor that predicts branches: it is multiplied instead.
        let positive = weight * u64::from(record.label);
        group_positives += positive;
        group_negatives += weight - positive;
        let ends_tie = records
            .get(i + 1)
            .is_none_or(|next| next.probability != record.probability);
        if !ends_tie || group_positives + group_negatives == 0 {
            continue;
        }
        ordered_twice += u128::from(group_negatives) * u128::from(2 * tp + group_positives);
        tp += group_positives;
        fp += group_negatives;
        precisions.add(group_positives as f64 * (tp as f64 / (tp + fp) as f64));
        for (threshold, counted) in wanted.thresholds.iter().zip(&mut at) {
            if record.probability >= *threshold {
                *counted = confusion(tp, fp);
            }
        }
        search.offer(record.probability, confusion(tp, fp));
        (group_positives, group_negatives) = (0, 0);
    }

    let pairs = u128::from(positives) * u128::from(negatives);
    let calibration_error = |bins| calibration_error(sample, bins, weight);
    Figures {
        metrics: [
            (pairs > 0).then(|| ordered_twice as f64 / (2 * pairs) as f64),
            (positives > 0).then(|| precisions.value() / positives as f64),
            totals.brier(),
            totals.log_loss(),
            wanted.bins.and_then(calibration_error),
        ],
        at,
        best_f1: search.best_f1,
        for_recall: search.for_recall,
        for_precision: search.for_precision,
    }
}

/// The expected calibration error: how far the mean probability of each of `bins` (at least 1) is from its share of
/// positives, weighted by its records. None without records.
pub fn calibration_error(sample: &Sample, bins: usize, weight: impl Fn(u32) -> u64) -> Option<f64> {
    let mut records = 0u64;
    let (mut gap, mut gaps) = (Sum::default(), Sum::default());
    // Below this probability the next bin begins.
    let mut lower_edge = f64::INFINITY;
    for record in sample.records() {
        // Records are sorted, so each bin's lie together.
        if record.probability <= lower_edge {
            gaps.add(std::mem::take(&mut gap).value().abs());
            lower_edge = lower_edge_of(bin_of(record.probability, bins), bins);
        }
        let weight = weight(record.document);
        records += weight;
        gap.add(weight as f64 * (record.probability - f64::from(u8::from(record.label))));
    }
    gaps.add(gap.value().abs());
    (records > 0).then(|| gaps.value() / records as f64)
}

/// Looks for the best thresholds while they pass from high to low.
struct Search<'w> {
    wanted: &'w Wanted,
    positives: u64,
    best_f1: Option<Choice>,
    for_recall: Option<Choice>,
    for_precision: Option<Choice>,
}

impl<'w> Search<'w> {
    fn new(wanted: &'w Wanted, positives: u64) -> Self {
        Self {
            wanted,
            positives,
            best_f1: None,
            for_recall: None,
            for_precision: None,
        }
    }

    fn offer(&mut self, threshold: f64, confusion: Confusion) {
        if self.positives == 0 {
            return;
        }
        let choice = Choice { threshold, confusion };
        let predicted = |c: &Confusion| c.true_positives + c.false_positives;
        // Fractions are compared exactly: TP/a > TP'/b as TP*b > TP'*a.
        let ahead = |c: &Confusion, of: &Confusion, size: &dyn Fn(&Confusion) -> u64| {
            (u128::from(c.true_positives) * u128::from(size(of)))
                .cmp(&(u128::from(of.true_positives) * u128::from(size(c))))
        };
        let better_f1 = self.best_f1.is_none_or(|best| {
            let size = |c: &Confusion| predicted(c) + self.positives;
            ahead(&confusion, &best.confusion, &size).is_gt()
        });
        if better_f1 {
            self.best_f1 = Some(choice);
        }
        if let Some(recall) = self.wanted.recall
            && confusion.recall().is_some_and(|found| found >= recall)
            && self.for_recall.is_none_or(|best| {
                let order = ahead(&confusion, &best.confusion, &predicted);
                order.is_gt() || (order.is_eq() && confusion.true_positives > best.confusion.true_positives)
            })
        {
            self.for_recall = Some(choice);
        }
        if let Some(precision) = self.wanted.precision
            && confusion.precision().is_some_and(|found| found >= precision)
            && confusion.true_positives > self.for_precision.map_or(0, |best| best.confusion.true_positives)
        {
            self.for_precision = Some(choice);
        }
    }
}
