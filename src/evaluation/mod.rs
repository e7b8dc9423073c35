//! Judges probabilities against labels: metrics, intervals, comparisons, calibration, a report.
//!
//! This room reads scored, labelled records and knows what their numbers mean; where they come from, what is
//! printed and how a run ends is [`crate::cli`]'s. It never sees a tensor.
//!
//! # Conventions
//!
//! - A record is predicted positive where `probability >= threshold`.
//! - Equal probabilities are one step of every curve, never ordered by accident.
//! - A figure that is not defined (precision where nothing is predicted, ROC-AUC of one class) has no value; it is
//!   never made up as 0 or 1.
//! - Every sum runs over the records sorted by probability and label, or over documents in the order of their names, so the
//!   order of the input changes no bit.
//! - Intervals are percentiles of a bootstrap that draws whole documents, since records of one document are not
//!   independent of each other (Field and Welsh 2007).

mod bootstrap;
mod collector;
mod curves;
mod estimate;
mod evaluate;
mod fields;
mod figures;
mod fit;
mod improvement;
mod mistakes;
mod pairing;
mod report;
mod sample;
mod sum;

pub use bootstrap::{Interval, Made, Plan};
pub use collector::{Collector, DocumentNames, LabelledSet, MatchBy};
pub use curves::Curves;
pub use estimate::Estimate;
pub use evaluate::{Differences, Evaluation, OperatingPoint, Origin, PointKind, Request, Threshold, compare, evaluate};
pub use fields::{DOCUMENT_FIELDS, Fields, Labels};
pub use figures::Metric;
pub use fit::{CrossFitError, FitError, Method, cross_fitted, fit};
pub use improvement::{CALIBRATED, Improvement, improvement};
pub use mistakes::{Mistake, Mistakes};
pub use pairing::{Mismatches, pair};
pub use report::{Report, Run, is_page};
pub use sample::{Judged, Sample};

#[cfg(test)]
mod tests;
