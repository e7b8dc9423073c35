//! `crag calibrate --json`: everything in one object.

use std::path::Path;

use serde_json::{Value, json};

use super::{CalibrateArgs, Findings};
use crate::Calibration;
use crate::evaluation::{CALIBRATED, Estimate, LabelledSet};

impl CalibrateArgs {
    pub(super) fn json(
        &self,
        target: &Path,
        calibration: &Calibration,
        findings: &Findings<'_>,
        set: &LabelledSet,
    ) -> Value {
        let of = |estimates: &[Estimate]| {
            let members = CALIBRATED.iter().zip(estimates).map(|(metric, estimate)| {
                let interval = estimate.interval.map(|i| [i.low, i.high]);
                (
                    metric.key().to_owned(),
                    json!({"value": estimate.value, "interval": interval}),
                )
            });
            Value::Object(members.collect())
        };
        let judged_on = match self.folds {
            1 => "the records it was fitted to".to_owned(),
            _ => format!("unseen {}", findings.unit),
        };
        json!({
            "crag": env!("CARGO_PKG_VERSION"),
            "written": target.display().to_string(),
            "calibration": calibration,
            "folds": self.folds,
            "bins": self.labelled.bins,
            "before": of(&findings.on_unseen.before),
            "after": of(&findings.on_unseen.after),
            "after_judged_on": judged_on,
            "change": of(&findings.on_unseen.change),
            "after_on_the_same_records": of(&findings.on_same),
            "left_out": {"unlabelled": set.unlabelled, "rejected": set.rejected},
        })
    }
}
