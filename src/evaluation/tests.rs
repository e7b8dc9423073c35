//! Figures against scikit-learn, and what must hold for any records.

use proptest::prelude::*;
use serde_json::Value;

use super::bootstrap::Plan;
use super::estimate::Estimate;
use super::evaluate::{Origin, Request, Threshold, compare, evaluate};
use super::figures::{Figures, Metric, Wanted, figures};
use super::fit::{CrossFitError, FitError, Method, cross_fitted, fit};
use super::sample::{Judged, Sample};
use crate::Calibration;

const TOLERANCE: f64 = 1e-12;

const GIVEN: Threshold = Threshold {
    value: 0.5,
    origin: Origin::Given,
};

fn cases() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/evaluation/cases.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() >= 30);
    cases
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Each record is a document of its own, in the order of the case.
fn sample(case: &Value) -> Sample {
    let labels = case["labels"].as_array().unwrap().iter().map(|v| v.as_bool().unwrap());
    records(numbers(&case["probabilities"]).into_iter().zip(labels))
}

fn records(pairs: impl IntoIterator<Item = (f64, bool)>) -> Sample {
    let judged: Vec<Judged> = pairs
        .into_iter()
        .enumerate()
        .map(|(i, (probability, label))| Judged {
            probability,
            label,
            document: i as u32,
        })
        .collect();
    let documents = judged.len();
    Sample::new(judged, documents)
}

fn wanted(case: &Value) -> Wanted {
    Wanted {
        thresholds: vec![case["threshold"].as_f64().unwrap()],
        recall: case["wanted_recall"].as_f64(),
        precision: case["wanted_precision"].as_f64(),
        bins: Some(10),
    }
}

#[track_caller]
fn agree(name: &str, figure: &str, found: Option<f64>, expected: &Value) {
    let agrees = match (found, expected.as_f64()) {
        (Some(found), Some(expected)) => (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0),
        (None, None) => expected.is_null(),
        _ => false,
    };
    assert!(agrees, "{name}: {figure}: expected {expected}, found {found:?}");
}

#[track_caller]
fn agree_on_figures(name: &str, found: &Figures, expected: &Value) {
    for metric in [Metric::RocAuc, Metric::AveragePrecision, Metric::Brier, Metric::LogLoss] {
        agree(
            name,
            metric.key(),
            found.metrics[metric as usize],
            &expected[metric.key()],
        );
    }
    let at = found.at[0];
    let counts = [
        at.true_positives,
        at.false_positives,
        at.false_negatives,
        at.true_negatives,
    ];
    assert_eq!(serde_json::json!(counts), expected["confusion"], "{name}");
    agree(name, "precision", at.precision(), &expected["precision"]);
    agree(name, "recall", at.recall(), &expected["recall"]);
    agree(name, "f1", at.f1(), &expected["f1"]);
}

#[test]
fn figures_are_scikit_learns() {
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let found = figures(&sample(&case), &wanted(&case), |_| 1);
        let expected = &case["expected"];
        agree_on_figures(name, &found, expected);
        let error = found.metrics[Metric::CalibrationError as usize];
        agree(name, "calibration error", error, &expected["calibration_error"]);
        for (key, choice) in [
            ("best_f1", found.best_f1),
            ("for_recall", found.for_recall),
            ("for_precision", found.for_precision),
        ] {
            agree(name, key, choice.map(|choice| choice.threshold), &expected[key]);
        }
    }
}

#[test]
fn figures_of_a_resample_are_scikit_learns_with_weights() {
    for case in cases() {
        let weights = numbers(&case["weights"]);
        let found = figures(&sample(&case), &wanted(&case), |i| weights[i as usize] as u64);
        agree_on_figures(case["name"].as_str().unwrap(), &found, &case["weighted"]);
    }
}

#[test]
fn of_thresholds_with_one_f1_the_highest_is_the_best() {
    // 2 of 3 at 0.9 and 4 of 6 at 0.6.
    let tied = records([(0.9, true), (0.8, false), (0.7, false), (0.6, true), (0.1, false)]);
    let wanted = Wanted {
        thresholds: vec![],
        recall: None,
        precision: None,
        bins: Some(10),
    };
    let best = figures(&tied, &wanted, |_| 1).best_f1.unwrap();
    assert_eq!((best.threshold, best.confusion.f1()), (0.9, Some(2.0 / 3.0)));
}

#[test]
fn fits_are_scikit_learns_and_scipys() {
    let (mut fitted, mut flat) = (0, 0);
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let sample = sample(&case);
        match (fit(&sample, Method::Isotonic), &case["isotonic"]) {
            (Ok(map), Value::Array(expected)) => {
                map.check().unwrap();
                for (p, expected) in numbers(&case["grid"]).into_iter().zip(expected) {
                    agree(name, "isotonic", Some(map.apply(p)), expected);
                }
            }
            (Err(FitError::OneClass { .. }), Value::Null) | (Ok(_), Value::Bool(false)) => {}
            // A flat curve is no answer, though it is the best there is.
            (Err(FitError::Uninformative), Value::Array(expected)) => {
                flat += 1;
                agree(name, "isotonic", expected[0].as_f64(), expected.last().unwrap());
            }
            (found, expected) => panic!("{name}: expected {expected}, found {found:?}"),
        }
        match (fit(&sample, Method::Temperature), case["temperature"].as_f64()) {
            (Ok(Calibration::Temperature { temperature, .. }), Some(expected)) => {
                // The root of a rounded sum: both solvers stop within its noise.
                assert!(
                    (temperature / expected - 1.0).abs() < 1e-10,
                    "{name}: {temperature} {expected}"
                );
                fitted += 1;
            }
            (Err(_), None) => {}
            (found, expected) => panic!("{name}: expected {expected:?}, found {found:?}"),
        }
    }
    assert!(fitted >= 10 && flat >= 2, "{fitted} {flat}");
}

#[test]
fn why_nothing_can_be_fitted_is_told_apart() {
    let fitted = |pairs: &[(f64, bool)]| fit(&records(pairs.iter().copied()), Method::Temperature).unwrap_err();
    assert_eq!(fitted(&[(0.9, true), (0.1, false)]), FitError::Separated);
    let reversed = [(0.9, false), (0.1, true)];
    assert_eq!(fitted(&reversed), FitError::Uninformative);
    let shifted = [(0.95, true), (0.9, false), (0.8, false), (0.7, false)];
    assert_eq!(fitted(&shifted), FitError::WrongSide);
    assert!(fit(&records(shifted), Method::Isotonic).is_ok());
    let isotonic = fit(&records(reversed), Method::Isotonic);
    assert_eq!(isotonic.unwrap_err(), FitError::Uninformative);
    assert!(matches!(
        fitted(&[(0.9, true)]),
        FitError::OneClass {
            positives: 1,
            negatives: 0
        }
    ));
    let two = records([(0.9, true), (0.1, false)]);
    assert_eq!(
        cross_fitted(&two, Method::Isotonic, 5, 1).unwrap_err(),
        CrossFitError::TooFewDocuments { documents: 2, folds: 5 }
    );
}

/// An overconfident model: its log-odds are three times what they should be.
fn overconfident(n: usize) -> Sample {
    use rand::Rng as _;
    use rand_chacha::rand_core::SeedableRng as _;
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    records((0..n).map(|_| {
        let logit = random.random_range(-3.0..3.0);
        let label = random.random_bool(crate::calibration::sigmoid(logit));
        (crate::calibration::sigmoid(3.0 * logit), label)
    }))
}

#[test]
fn the_temperature_of_an_overconfident_model_is_found_and_helps_unseen_documents() {
    let sample = overconfident(4000);
    let Calibration::Temperature { temperature, fitted_on } = fit(&sample, Method::Temperature).unwrap() else {
        panic!("another method");
    };
    assert!((temperature - 3.0).abs() < 0.2, "{temperature}");
    assert_eq!(fitted_on.unwrap().documents, Some(4000));
    let request = Request {
        threshold: GIVEN,
        recall: None,
        precision: None,
        bins: 10,
    };
    let plan = Plan {
        resamples: 100,
        confidence: 0.95,
        seed: 1,
    };
    for method in [Method::Temperature, Method::Isotonic] {
        let judged = cross_fitted(&sample, method, 5, 1).unwrap();
        let comparison = compare((&sample, &request), (&judged, &request), &plan, &|| ());
        for metric in [Metric::Brier, Metric::LogLoss, Metric::CalibrationError] {
            let difference = comparison.differences.metrics[metric as usize];
            let high = difference.interval.map(|interval| interval.high);
            assert_eq!(high.is_some(), metric.has_interval(), "{metric:?}");
            assert!(
                high.or(difference.value).unwrap() < 0.0,
                "{method:?} {metric:?}: {difference:?}"
            );
        }
    }
}

#[test]
fn a_cross_fitted_document_never_meets_its_own_map() {
    // Document 0 alone says that 0.2 is positive; whoever has seen it gives 0.2 more than 0.
    let mut judged: Vec<Judged> = (1..40)
        .map(|document| Judged {
            probability: if document % 2 == 0 { 0.2 } else { 0.8 },
            label: document % 2 == 1,
            document,
        })
        .collect();
    judged.extend(
        [Judged {
            probability: 0.2,
            label: true,
            document: 0,
        }; 40],
    );
    let sample = Sample::new(judged, 40);
    let found = cross_fitted(&sample, Method::Isotonic, 5, 3).unwrap();
    for record in found.records().iter().filter(|record| record.document == 0) {
        assert_eq!(record.probability, 0.0);
    }
    // One of the other folds has seen it.
    assert!(
        found
            .records()
            .iter()
            .any(|record| record.document != 0 && record.probability > 0.0 && !record.label)
    );
}

#[test]
fn differences_of_a_model_with_itself_are_exactly_zero() {
    let sample = overconfident(300);
    let request = Request {
        threshold: GIVEN,
        recall: Some(0.9),
        precision: None,
        bins: 10,
    };
    let plan = Plan {
        resamples: 200,
        confidence: 0.9,
        seed: 0,
    };
    let differences = compare((&sample, &request), (&sample, &request), &plan, &|| ()).differences;
    for difference in differences.metrics.iter().chain(&differences.at_threshold) {
        assert_eq!(difference.value, Some(0.0));
    }
    let with_interval = Metric::ALL
        .iter()
        .zip(differences.metrics)
        .filter(|(metric, _)| metric.has_interval());
    for (_, difference) in with_interval.chain(Metric::ALL.iter().zip(differences.at_threshold)) {
        let interval = difference.interval.unwrap();
        assert_eq!((interval.low, interval.high), (0.0, 0.0));
    }
}

#[test]
fn a_document_of_many_equal_records_widens_the_interval() {
    // 20 documents of 50 records that all say the same carry no more than 20 records do.
    let pairs = |copies: u32| -> Sample {
        let judged = (0..1000u32).map(|i| Judged {
            probability: f64::from(i / 50 % 10) / 10.0,
            label: (i / 50) % 3 == 0,
            document: i / copies,
        });
        Sample::new(judged.collect(), 1000 / copies as usize)
    };
    let request = Request {
        threshold: GIVEN,
        recall: None,
        precision: None,
        bins: 10,
    };
    let plan = Plan {
        resamples: 300,
        confidence: 0.95,
        seed: 0,
    };
    let width = |copies| {
        let interval = evaluate(&pairs(copies), &request, &plan, &|| ()).metrics[Metric::Brier as usize]
            .interval
            .unwrap();
        interval.high - interval.low
    };
    assert!(width(50) > 4.0 * width(1), "{} {}", width(50), width(1));
}

fn any_records() -> impl Strategy<Value = Vec<(f64, bool)>> {
    let probability = prop_oneof![0.0f64..=1.0, (0u32..=10).prop_map(|tenth| f64::from(tenth) / 10.0)];
    prop::collection::vec((probability, any::<bool>()), 1..120)
}

fn bits(figures: &Figures) -> Vec<Option<u64>> {
    figures.metrics.iter().map(|value| value.map(f64::to_bits)).collect()
}

fn estimates(evaluation: &super::Evaluation) -> Vec<Estimate> {
    let at = evaluation
        .points
        .iter()
        .flat_map(|point| [point.precision, point.recall, point.f1]);
    evaluation.metrics.into_iter().chain(at).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_records_changes_no_bit(pairs in any_records(), seed in any::<u64>()) {
        use rand::seq::SliceRandom as _;
        use rand_chacha::rand_core::SeedableRng as _;
        let sample = records(pairs);
        let mut shuffled = sample.records().to_vec();
        shuffled.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
        let shuffled = Sample::new(shuffled, sample.documents());
        let wanted = Wanted { thresholds: vec![0.5], recall: Some(0.8), precision: Some(0.8), bins: Some(7) };
        let (a, b) = (figures(&sample, &wanted, |_| 1), figures(&shuffled, &wanted, |_| 1));
        prop_assert_eq!(bits(&a), bits(&b));
        prop_assert_eq!((a.at, a.best_f1, a.for_recall, a.for_precision), (b.at, b.best_f1, b.for_recall, b.for_precision));
    }

    #[test]
    fn ranking_figures_survive_any_rising_map(pairs in any_records(), bend in 0.2f64..5.0) {
        let wanted = Wanted { thresholds: vec![], recall: None, precision: None, bins: Some(10) };
        // Rounded to keep distinct values distinct under the map, and away from 0 where it would underflow.
        let pairs: Vec<(f64, bool)> = pairs.into_iter().map(|(p, y)| ((p * 1000.0).round() / 1000.0, y)).collect();
        let mapped = pairs.iter().map(|&(p, y)| (p.powf(bend), y));
        let a = figures(&records(pairs.clone()), &wanted, |_| 1);
        let b = figures(&records(mapped), &wanted, |_| 1);
        for metric in [Metric::RocAuc, Metric::AveragePrecision] {
            prop_assert_eq!(a.metrics[metric as usize], b.metrics[metric as usize]);
        }
        prop_assert_eq!(a.best_f1.map(|c| c.confusion), b.best_f1.map(|c| c.confusion));
    }

    #[test]
    fn counting_a_record_twice_is_the_same_as_having_it_twice(
        pairs in any_records(), counts in prop::collection::vec(0u64..4, 120)
    ) {
        let wanted = Wanted { thresholds: vec![0.4], recall: Some(0.7), precision: Some(0.6), bins: Some(10) };
        let weighted = figures(&records(pairs.clone()), &wanted, |i| counts[i as usize]);
        let repeated = pairs.iter().enumerate()
            .flat_map(|(i, &pair)| std::iter::repeat_n(pair, counts[i] as usize));
        let repeated = figures(&records(repeated), &wanted, |_| 1);
        prop_assert_eq!(&weighted.at, &repeated.at);
        prop_assert_eq!(weighted.best_f1, repeated.best_f1);
        prop_assert_eq!(weighted.for_recall, repeated.for_recall);
        prop_assert_eq!(weighted.for_precision, repeated.for_precision);
        for (a, b) in weighted.metrics.iter().zip(&repeated.metrics) {
            prop_assert!(match (a, b) { (Some(a), Some(b)) => (a - b).abs() < 1e-12, (a, b) => a == b }, "{:?} {:?}", a, b);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn intervals_of_sane_data_hold_their_figure(seed in any::<u64>()) {
        let request = Request { threshold: GIVEN, recall: None, precision: None, bins: 10 };
        let evaluation = evaluate(&overconfident(600), &request, &Plan { resamples: 200, confidence: 0.95, seed }, &|| ());
        for (i, estimate) in estimates(&evaluation).into_iter().enumerate() {
            // The calibration error is biased upwards in every resample, whose interval need not hold it.
            if i == Metric::CalibrationError as usize {
                prop_assert!(estimate.value.is_some() && estimate.interval.is_none());
                continue;
            }
            let (value, interval) = (estimate.value.unwrap(), estimate.interval.unwrap());
            prop_assert!(interval.low <= value && value <= interval.high, "{}: {:?}", i, estimate);
            prop_assert_eq!(estimate.undefined, 0);
        }
    }

    #[test]
    fn nothing_panics_on_any_records(pairs in any_records(), threshold in 0.0f64..=1.0, bins in 1usize..40) {
        let sample = records(pairs);
        let request = Request { threshold: Threshold { value: threshold, ..GIVEN }, recall: Some(0.95), precision: Some(0.9), bins };
        let evaluation = evaluate(&sample, &request, &Plan { resamples: 20, confidence: 0.95, seed: 1 }, &|| ());
        for estimate in estimates(&evaluation) {
            prop_assert!(estimate.value.is_none_or(f64::is_finite));
        }
        let curves = super::Curves::of(&sample, bins);
        prop_assert_eq!(curves.bins.iter().map(|bin| bin.records).sum::<u64>(), sample.records().len() as u64);
        for method in [Method::Temperature, Method::Isotonic] {
            if let Ok(map) = fit(&sample, method) {
                prop_assert!(map.check().is_ok(), "{:?}", map);
            }
            let _ = cross_fitted(&sample, method, 3, 1);
        }
    }
}
