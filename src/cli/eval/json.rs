//! `crag eval --json`: everything in one object.
//!
//! ```text
//! crag         version
//! bootstrap    resamples, confidence, seed, unit ("documents" or "records")
//! bins         of the calibration error: equally wide, closed on the right
//! runs         one or two:
//!   name, records, positives, documents, document_fields (these and without_document of what is compared, for two runs)
//!   metrics    roc_auc, average_precision, brier_score, log_loss, expected_calibration_error: estimates
//!   points     kind ("given", "best_f1", "recall", "precision"), wanted, threshold, precision, recall, f1 and the four
//!              counts: estimates; the given threshold first
//!   unreached  wanted points that no threshold gives: kind, wanted
//!   reliability  from, to, records, positives, mean_probability of each bin
//!   left_out   unlabelled, without_id, without_document: counts; rejected: code -> count, first
//!   mistakes   false_positives and false_negatives, the hardest first
//! differences  of the second run less the first: metrics, precision, recall, f1 (null for one run)
//! mismatches   only_first, only_second, pairs_differ, labels_differ, repeated_first, repeated_second: counts of what is
//!              not compared; examples (null for one run)
//! ```
//!
//! An estimate is `{"value": V, "low": L, "high": H, "undefined_resamples": N}`; null where there is none, as of
//! the interval of the calibration error always.

use serde_json::{Map, Value, json};

use super::{EvalArgs, Found};
use crate::evaluation::{Estimate, LabelledSet, Metric, OperatingPoint, PointKind, Run};

pub fn render(args: &EvalArgs, found: &Found) -> anyhow::Result<String> {
    let plan = args.labelled.plan();
    let differences = found.differences.as_ref().map(|differences| {
        let [precision, recall, f1] = differences.at_threshold.each_ref().map(estimate);
        json!({"metrics": metrics(&differences.metrics), "precision": precision, "recall": recall, "f1": f1})
    });
    let runs: Vec<Value> = found
        .runs
        .iter()
        .zip(&found.sets)
        .map(|(run, set)| one(args, run, set))
        .collect();
    let value = json!({
        "crag": env!("CARGO_PKG_VERSION"),
        "bootstrap": {
            "resamples": plan.resamples, "confidence": plan.confidence, "seed": plan.seed, "unit": found.unit,
        },
        "bins": args.labelled.bins,
        "runs": runs,
        "differences": differences,
        "mismatches": found.mismatches,
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

fn one(args: &EvalArgs, run: &Run, set: &LabelledSet) -> Value {
    let e = &run.evaluation;
    let edge = |bin: usize| bin as f64 / args.labelled.bins as f64;
    let reliability: Vec<Value> = run
        .curves
        .bins
        .iter()
        .enumerate()
        .map(|(i, bin)| {
            json!({
                "from": edge(i), "to": edge(i + 1),
                "records": bin.records, "positives": bin.positives, "mean_probability": bin.mean_probability,
            })
        })
        .collect();
    let unreached: Vec<Value> = e
        .unreached
        .iter()
        .map(|&kind| {
            let (kind, wanted) = named(kind);
            json!({"kind": kind, "wanted": wanted})
        })
        .collect();
    json!({
        "name": run.name,
        "records": e.records,
        "positives": e.positives,
        "documents": e.documents,
        "document_fields": set.document_names.fields,
        "metrics": metrics(&e.metrics),
        "points": e.points.iter().map(point).collect::<Vec<_>>(),
        "unreached": unreached,
        "reliability": reliability,
        "left_out": {
            "unlabelled": set.unlabelled, "without_id": set.without_id, "without_document": set.document_names.without,
            "rejected": set.rejected,
        },
        "mistakes": {"false_positives": run.mistakes[0], "false_negatives": run.mistakes[1]},
    })
}

fn metrics(of: &[Estimate; Metric::ALL.len()]) -> Value {
    let members = Metric::ALL
        .iter()
        .zip(of)
        .map(|(metric, of)| (metric.key().to_owned(), estimate(of)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn point(point: &OperatingPoint) -> Value {
    let (kind, wanted) = named(point.kind);
    let [tp, fp, fn_, tn] = point.cells.each_ref().map(estimate);
    json!({
        "kind": kind, "wanted": wanted, "threshold": estimate(&point.threshold),
        "precision": estimate(&point.precision), "recall": estimate(&point.recall), "f1": estimate(&point.f1),
        "true_positives": tp, "false_positives": fp, "false_negatives": fn_, "true_negatives": tn,
    })
}

fn named(kind: PointKind) -> (&'static str, Option<f64>) {
    match kind {
        PointKind::Given(_) => ("given", None),
        PointKind::BestF1 => ("best_f1", None),
        PointKind::Recall(recall) => ("recall", Some(recall)),
        PointKind::Precision(precision) => ("precision", Some(precision)),
    }
}

fn estimate(of: &Estimate) -> Value {
    json!({
        "value": of.value,
        "low": of.interval.map(|interval| interval.low),
        "high": of.interval.map(|interval| interval.high),
        "undefined_resamples": of.undefined,
    })
}
