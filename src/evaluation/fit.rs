//! Fits a calibration to labelled records, and judges the fitting on documents it has not seen.

use rand::seq::SliceRandom as _;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use rayon::prelude::*;

use super::sample::{Judged, Sample};
use super::sum::Sum;
use crate::Calibration;
use crate::calibration::{FittedOn, bounded_logit, sigmoid};

/// Which kind of map to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One number, the temperature of the least log loss. Keeps ROC-AUC and needs few records.
    Temperature,
    /// Any rising map, by pool-adjacent-violators, of the least Brier score. Needs about a thousand records.
    Isotonic,
}

/// Why nothing can be fitted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    #[error("expected positive and negative records to fit to, found {positives} and {negatives}")]
    OneClass { positives: usize, negatives: usize },
    #[error(
        "no temperature above 1/1000 is the best: no record's probability is clearly on the wrong side of 0.5, so ever \
         lower temperatures fit ever better; give records that the model gets wrong too, or use another method"
    )]
    Separated,
    #[error(
        "no calibration is the best: the probabilities say no more about the labels than one and the same for every \
         record would; is the label's meaning reversed, or the model untrained?"
    )]
    Uninformative,
    #[error(
        "no temperature is the best: too many records have their probability on the other side of 0.5 than their label, \
         and a temperature moves none across; the isotonic method can"
    )]
    WrongSide,
}

/// Why fitting cannot be judged on documents that it has not seen.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum CrossFitError {
    #[error("expected at least as many documents as folds, found {documents} documents for {folds} folds")]
    TooFewDocuments { documents: usize, folds: usize },
    #[error("without the documents of one fold, nothing can be fitted to the rest: {0}")]
    Fold(FitError),
}

/// Fits `method` to all of `sample`.
pub fn fit(sample: &Sample, method: Method) -> Result<Calibration, FitError> {
    let mut documents: Vec<u32> = sample.records().iter().map(|record| record.document).collect();
    documents.sort_unstable();
    documents.dedup();
    fit_records(sample.records(), documents.len(), method)
}

/// The sample as calibrated by maps that have not seen the record's document: documents are dealt into `folds`
/// (at least 2) at random, and each fold gets the map that was fitted to all others.
pub fn cross_fitted(sample: &Sample, method: Method, folds: usize, seed: u64) -> Result<Sample, CrossFitError> {
    if sample.documents() < folds {
        return Err(CrossFitError::TooFewDocuments {
            documents: sample.documents(),
            folds,
        });
    }
    let mut dealt: Vec<usize> = (0..sample.documents()).map(|i| i % folds).collect();
    dealt.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let maps = (0..folds).into_par_iter().map(|fold| {
        let others = sample
            .records()
            .iter()
            .filter(|record| dealt[record.document as usize] != fold);
        fit_records(&others.copied().collect::<Vec<_>>(), 0, method)
    });
    // All, so that of several errors it is always the first fold's.
    let maps: Vec<Result<Calibration, FitError>> = maps.collect();
    let maps: Result<Vec<_>, _> = maps.into_iter().collect();
    let maps = maps.map_err(CrossFitError::Fold)?;
    Ok(sample.mapped(|record| maps[dealt[record.document as usize]].apply(record.probability)))
}

fn fit_records(records: &[Judged], documents: usize, method: Method) -> Result<Calibration, FitError> {
    let positives = records.iter().filter(|record| record.label).count();
    let negatives = records.len() - positives;
    if positives == 0 || negatives == 0 {
        return Err(FitError::OneClass { positives, negatives });
    }
    let fitted_on = Some(FittedOn {
        records: records.len(),
        positives,
        documents: Some(documents),
    });
    match method {
        Method::Temperature => Ok(Calibration::Temperature {
            temperature: temperature(records)?,
            fitted_on,
        }),
        Method::Isotonic => {
            let (raw, calibrated) = isotonic(records);
            if calibrated.first() == calibrated.last() {
                return Err(FitError::Uninformative);
            }
            Ok(Calibration::Isotonic {
                raw,
                calibrated,
                fitted_on,
            })
        }
    }
}

/// Temperatures are looked for between the inverse of this and this.
const LARGEST_TEMPERATURE: f64 = 1000.0;

/// The temperature of the least log loss. The loss is convex in its inverse, so the root of the slope is the one.
fn temperature(records: &[Judged]) -> Result<f64, FitError> {
    let logits: Vec<(f64, f64)> = records
        .iter()
        .map(|record| {
            let label = f64::from(u8::from(record.label));
            (bounded_logit(record.probability), label)
        })
        .collect();
    // By the logarithm of the inverse, so that both ends are found equally well: the slope and the slope's own.
    let slope = |log_inverse: f64| {
        let inverse = log_inverse.exp();
        let (mut slope, mut rise) = (Sum::default(), Sum::default());
        for (logit, label) in &logits {
            let p = sigmoid(inverse * logit);
            slope.add(logit * (p - label));
            rise.add(inverse * logit * logit * p * (1.0 - p));
        }
        (slope.value(), rise.value())
    };
    let (low, high) = (-LARGEST_TEMPERATURE.ln(), LARGEST_TEMPERATURE.ln());
    if slope(low).0 >= 0.0 {
        return Err(match rises(&logits) {
            true => FitError::WrongSide,
            false => FitError::Uninformative,
        });
    }
    if slope(high).0 <= 0.0 {
        return Err(FitError::Separated);
    }
    Ok((-root(slope, low, high)).exp())
}

/// Where a rising function is zero between `low` and `high`, by Newton's steps where they stay between the two and
/// halve what is left, else by halving. `f` gives the value and its slope.
fn root(f: impl Fn(f64) -> (f64, f64), mut low: f64, mut high: f64) -> f64 {
    let mut x = (low + high) / 2.0;
    let mut step = high - low;
    // Halving alone would need half as many, and each of Newton's steps halves what the one before it left.
    for _ in 0..128 {
        let (value, slope) = f(x);
        if value == 0.0 {
            break;
        }
        match value < 0.0 {
            true => low = x,
            false => high = x,
        }
        let newton = x - value / slope;
        let is_fast = newton > low && newton < high && 2.0 * (newton - x).abs() < step;
        let next = if is_fast { newton } else { (low + high) / 2.0 };
        step = (next - x).abs();
        x = next;
        if step <= f64::EPSILON * x.abs().max(1.0) {
            break;
        }
    }
    x
}

/// Whether the logits of positive records are the higher ones, on the whole.
fn rises(logits: &[(f64, f64)]) -> bool {
    let mean = |of: f64| {
        let (mut sum, mut count) = (Sum::default(), 0);
        for &(logit, label) in logits {
            if label == of {
                sum.add(logit);
                count += 1;
            }
        }
        sum.value() / f64::from(count.max(1))
    };
    mean(1.0) > mean(0.0)
}

/// Pool-adjacent-violators: records of one probability are one point; neighbours are pooled until means rise. Of each
/// pool both ends are kept, since between pools the map is a straight line.
fn isotonic(sorted: &[Judged]) -> (Vec<f64>, Vec<f64>) {
    struct Pool {
        first: f64,
        last: f64,
        positives: u64,
        records: u64,
    }
    let mut pools: Vec<Pool> = Vec::new();
    // Samples are sorted from high to low.
    for tied in sorted.chunk_by(|a, b| a.probability == b.probability).rev() {
        let probability = tied[0].probability;
        pools.push(Pool {
            first: probability,
            last: probability,
            positives: tied.iter().filter(|record| record.label).count() as u64,
            records: tied.len() as u64,
        });
        while let [.., left, right] = &pools[..]
            && u128::from(left.positives) * u128::from(right.records)
                >= u128::from(right.positives) * u128::from(left.records)
        {
            let pooled = Pool {
                first: left.first,
                last: right.last,
                positives: left.positives + right.positives,
                records: left.records + right.records,
            };
            pools.truncate(pools.len() - 2);
            pools.push(pooled);
        }
    }
    let (mut raw, mut calibrated) = (Vec::new(), Vec::new());
    for pool in pools {
        let mean = pool.positives as f64 / pool.records as f64;
        raw.push(pool.first);
        calibrated.push(mean);
        if pool.last > pool.first {
            raw.push(pool.last);
            calibrated.push(mean);
        }
    }
    (raw, calibrated)
}
