//! `crag calibrate` on a terminal: a table for a person.

use std::fmt::Write as _;
use std::path::Path;

use super::{CalibrateArgs, Findings};
use crate::Calibration;
use crate::evaluation::{CALIBRATED, Estimate, Improvement};

impl CalibrateArgs {
    pub(super) fn table(&self, target: &Path, calibration: &Calibration, findings: &Findings<'_>) -> String {
        let mut out = String::new();
        let Findings { sample, unit, .. } = findings;
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{} fitted to {} records{}, {} positive",
            described(calibration),
            sample.records().len(),
            if *unit == "records" {
                String::new()
            } else {
                format!(" of {} {unit}", sample.documents())
            },
            sample.positives()
        );
        let after = match self.folds {
            1 => "after".to_owned(),
            folds => format!("after, on unseen {unit} ({folds} folds)"),
        };
        let _ = writeln!(
            out,
            "\n{:<28}{:>10}  {after:>34}  {:>30}  {:>14}",
            "", "before", "change", "on the same"
        );
        let Improvement { before, after, change } = findings.on_unseen;
        for (i, metric) in CALIBRATED.into_iter().enumerate() {
            let change = change[i];
            let interval = change
                .interval
                .map_or(String::new(), |i| format!(" ({:+.4} to {:+.4})", i.low, i.high));
            let _ = writeln!(
                out,
                "{:<28}{:>10}  {:>34}  {:>30}  {:>14}",
                metric.name(),
                number(&before[i]),
                number(&after[i]),
                format!(
                    "{}{interval}",
                    change.value.map_or("-".to_owned(), |value| format!("{value:+.4}"))
                ),
                number(&findings.on_same[i])
            );
        }
        let _ = writeln!(
            out,
            "\nwritten to {}; crag score {}--calibrated applies it",
            target.display(),
            match self.is_beside_weights(target) {
                true => String::new(),
                false => format!("--model-config {} ", target.display()),
            }
        );
        out
    }
}

fn described(calibration: &Calibration) -> String {
    match calibration {
        Calibration::Temperature { temperature, .. } => format!("temperature {temperature:.4}"),
        Calibration::Isotonic { raw, .. } => format!("isotonic curve of {} points", raw.len()),
    }
}

fn number(of: &Estimate) -> String {
    of.value.map_or("not defined".to_owned(), |value| format!("{value:.4}"))
}
