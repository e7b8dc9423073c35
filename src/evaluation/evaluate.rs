//! Figures with their intervals: of one model, or of two and their differences.

use std::fmt;

use super::bootstrap::{Made, Plan, resample};
use super::estimate::Estimate;
use super::figures::{Choice, Figures, Metric, Wanted, figures};
use super::sample::Sample;

/// A threshold that is not chosen on the records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub value: f64,
    pub origin: Origin,
}

/// Where a threshold comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Given,
    Model,
    Default,
}

impl Origin {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Given => "as given",
            Origin::Model => "the model's",
            Origin::Default => "the default",
        }
    }
}

/// What to judge at.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub threshold: Threshold,
    /// Find a threshold of at least this recall.
    pub recall: Option<f64>,
    /// Find a threshold of at least this precision.
    pub precision: Option<f64>,
    /// Bins of the expected calibration error and of the reliability diagram; at least 1.
    pub bins: usize,
}

/// Why a threshold is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PointKind {
    /// It is [`Request::threshold`].
    Given(Origin),
    BestF1,
    Recall(f64),
    Precision(f64),
}

/// For tables.
impl fmt::Display for PointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PointKind::Given(origin) => f.write_str(origin.name()),
            PointKind::BestF1 => f.write_str("best F1"),
            PointKind::Recall(recall) => write!(f, "recall >= {recall}"),
            PointKind::Precision(precision) => write!(f, "precision >= {precision}"),
        }
    }
}

/// Predictions at one threshold.
#[derive(Clone, Debug)]
pub struct OperatingPoint {
    pub kind: PointKind,
    /// The interval is that of the threshold chosen anew in each resample; a given one has none.
    pub threshold: Estimate,
    /// At this threshold in every resample, as if it had been given.
    pub precision: Estimate,
    pub recall: Estimate,
    pub f1: Estimate,
    /// True positives, false positives, false negatives, true negatives.
    pub cells: [Estimate; 4],
}

/// One model's figures.
#[derive(Clone, Debug)]
pub struct Evaluation {
    pub records: usize,
    pub positives: usize,
    pub documents: usize,
    /// In the order of [`Metric::ALL`].
    pub metrics: [Estimate; Metric::ALL.len()],
    /// The given threshold first.
    pub points: Vec<OperatingPoint>,
    /// Wanted points that no threshold gives.
    pub unreached: Vec<PointKind>,
}

impl Evaluation {
    /// Why wanted points are unreached, a sentence each.
    pub fn why_unreached(&self) -> Vec<String> {
        let why = |kind: &PointKind| match kind {
            PointKind::Precision(precision) if *precision > 0.0 => {
                format!("no threshold gives a precision of at least {precision}")
            }
            _ => "no threshold to choose: there are no positive records".to_owned(),
        };
        let mut sentences: Vec<String> = self.unreached.iter().map(why).collect();
        sentences.dedup();
        sentences
    }
}

/// Two models on the same records.
pub struct Comparison {
    pub first: Evaluation,
    pub second: Evaluation,
    pub differences: Differences,
}

/// The second model's figures less the first's.
#[derive(Clone, Copy, Debug)]
pub struct Differences {
    /// In the order of [`Metric::ALL`].
    pub metrics: [Estimate; Metric::ALL.len()],
    /// Precision, recall and F1, each at the model's own given threshold.
    pub at_threshold: [Estimate; 3],
}

/// Judges one sample.
pub fn evaluate(sample: &Sample, request: &Request, plan: &Plan, made: &Made<'_>) -> Evaluation {
    let judge = Judge::new(sample, request);
    let resamples = resample(sample.documents(), plan, made, |drawn| judge.flat(drawn));
    judge.evaluation(&resamples, plan)
}

/// Judges two samples of the same records, whose documents are numbered alike: both see the same draws, so that what
/// is common to both cancels in the differences.
pub fn compare(first: (&Sample, &Request), second: (&Sample, &Request), plan: &Plan, made: &Made<'_>) -> Comparison {
    let judges = [Judge::new(first.0, first.1), Judge::new(second.0, second.1)];
    let resamples = resample(first.0.documents(), plan, made, |drawn| {
        judges.each_ref().map(|judge| judge.flat(drawn))
    });
    let (of_first, of_second): (Vec<Flat>, Vec<Flat>) = resamples.into_iter().map(|[a, b]| (a, b)).unzip();
    let difference = |i: usize| {
        let value = judges[1].base[i] - judges[0].base[i];
        let values = of_first.iter().zip(&of_second).map(|(a, b)| b[i] - a[i]);
        Estimate::new(value, values.collect(), plan)
    };
    Comparison {
        differences: Differences {
            metrics: std::array::from_fn(|i| Estimate::of_metric(Metric::ALL[i], difference(i))),
            at_threshold: std::array::from_fn(|k| difference(POINTS + k)),
        },
        first: judges[0].evaluation(&of_first, plan),
        second: judges[1].evaluation(&of_second, plan),
    }
}

/// Figures of one resample side by side, NaN where one is not defined: metrics, the three chosen thresholds, then
/// precision, recall, F1 and the four cells at each operating point.
type Flat = Vec<f64>;

const CHOSEN: usize = Metric::ALL.len();
const POINTS: usize = CHOSEN + 3;
const AT_POINT: usize = 7;

struct Judge<'s> {
    sample: &'s Sample,
    /// Of a resample.
    wanted: Wanted,
    kinds: Vec<PointKind>,
    unreached: Vec<PointKind>,
    base: Flat,
}

impl<'s> Judge<'s> {
    fn new(sample: &'s Sample, request: &Request) -> Self {
        let mut wanted = Wanted {
            thresholds: vec![request.threshold.value],
            recall: request.recall,
            precision: request.precision,
            bins: None,
        };
        let found = figures(sample, &wanted, |_| 1);
        let (mut kinds, mut unreached) = (vec![PointKind::Given(request.threshold.origin)], Vec::new());
        let candidates = [
            (Some(PointKind::BestF1), found.best_f1),
            (request.recall.map(PointKind::Recall), found.for_recall),
            (request.precision.map(PointKind::Precision), found.for_precision),
        ];
        for (kind, choice) in candidates {
            match (kind, choice) {
                (Some(kind), Some(Choice { threshold, .. })) => {
                    wanted.thresholds.push(threshold);
                    kinds.push(kind);
                }
                (Some(kind), None) => unreached.push(kind),
                (None, _) => {}
            }
        }
        let with_calibration_error = Wanted {
            bins: Some(request.bins),
            ..wanted.clone()
        };
        Self {
            base: flatten(&figures(sample, &with_calibration_error, |_| 1)),
            sample,
            wanted,
            kinds,
            unreached,
        }
    }

    fn flat(&self, drawn: &[u32]) -> Flat {
        flatten(&figures(self.sample, &self.wanted, |document| {
            u64::from(drawn[document as usize])
        }))
    }

    fn evaluation(&self, resamples: &[Flat], plan: &Plan) -> Evaluation {
        let of = |i: usize| {
            let values = resamples.iter().map(|flat| flat[i]).collect();
            Estimate::new(self.base[i], values, plan)
        };
        let points = self.kinds.iter().enumerate().map(|(k, &kind)| {
            let first = POINTS + k * AT_POINT;
            let threshold = match kind {
                PointKind::Given(_) => Estimate {
                    value: Some(self.wanted.thresholds[0]),
                    interval: None,
                    undefined: 0,
                },
                PointKind::BestF1 => of(CHOSEN),
                PointKind::Recall(_) => of(CHOSEN + 1),
                PointKind::Precision(_) => of(CHOSEN + 2),
            };
            OperatingPoint {
                kind,
                threshold,
                precision: of(first),
                recall: of(first + 1),
                f1: of(first + 2),
                cells: std::array::from_fn(|cell| of(first + 3 + cell)),
            }
        });
        Evaluation {
            records: self.sample.records().len(),
            positives: self.sample.positives(),
            documents: self.sample.documents(),
            metrics: std::array::from_fn(|i| Estimate::of_metric(Metric::ALL[i], of(i))),
            points: points.collect(),
            unreached: self.unreached.clone(),
        }
    }
}

fn flatten(figures: &Figures) -> Flat {
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    let chosen = [figures.best_f1, figures.for_recall, figures.for_precision];
    let mut flat: Flat = figures.metrics.iter().map(|&value| number(value)).collect();
    flat.extend(chosen.map(|choice| number(choice.map(|choice| choice.threshold))));
    for confusion in &figures.at {
        flat.extend([confusion.precision(), confusion.recall(), confusion.f1()].map(number));
        let cells = [
            confusion.true_positives,
            confusion.false_positives,
            confusion.false_negatives,
            confusion.true_negatives,
        ];
        flat.extend(cells.map(|count| count as f64));
    }
    flat
}
