//! `crag eval` on a terminal: tables for a person.

use std::fmt::Write as _;

use super::{EvalArgs, Found};
use crate::evaluation::{Estimate, Interval, Metric, Mistake, Run};
use crate::words::{counted, shortened, singular, visible};

/// Characters of a text that a line shows.
const SHOWN: usize = 90;

pub fn render(args: &EvalArgs, found: &Found) -> String {
    let mut out = Lines::default();
    for (i, run) in found.runs.iter().enumerate() {
        let letter = if found.runs.len() > 1 {
            format!("{}: ", letter(i))
        } else {
            String::new()
        };
        out.line(&format!("{letter}{}", visible(&run.name)));
    }
    if let Some(run) = found.runs.first() {
        let e = &run.evaluation;
        let of = match found.unit {
            "records" => String::new(),
            unit => format!(" of {}", counted(e.documents as u64, singular(unit), unit)),
        };
        let share = 100.0 * e.positives as f64 / e.records.max(1) as f64;
        let records = counted(e.records as u64, "record", "records");
        out.line(&format!("{records}{of}, {} positive ({share:.1}%)", e.positives));
    }
    let plan = args.labelled.plan();
    let documents = found.runs.first().map_or(0, |run| run.evaluation.documents);
    if plan.resamples > 0 && documents > 1 {
        out.line(&format!(
            "intervals: the middle {}% of {} resamples of {}, seed {}",
            plan.percent(),
            plan.resamples,
            found.unit,
            plan.seed
        ));
    }
    figures(&mut out, args, found);
    for (i, run) in found.runs.iter().enumerate() {
        let of = if found.runs.len() > 1 {
            format!(" of {}", letter(i))
        } else {
            String::new()
        };
        thresholds(&mut out, run, &of);
        for (mistakes, name) in run.mistakes.iter().zip(["false positives", "false negatives"]) {
            if !mistakes.is_empty() {
                out.line("");
                out.line(&format!("hardest {name}{of}"));
                mistakes.iter().for_each(|mistake| out.line(&shown(mistake)));
            }
        }
    }
    if let Some(path) = &args.report {
        out.line("");
        out.line(&format!("report: {}", path.display()));
    }
    out.text
}

fn figures(out: &mut Lines, args: &EvalArgs, found: &Found) {
    let given = |run: &Run| run.evaluation.points.first().map(|p| [p.precision, p.recall, p.f1]);
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut header = vec![String::new()];
    match found.differences {
        Some(_) => header.extend(["A", "", "B", "", "B - A", ""].map(str::to_owned)),
        None => header.extend(["figure", "interval"].map(str::to_owned)),
    }
    rows.push(header);
    for (i, metric) in Metric::ALL.iter().enumerate() {
        let name = match metric {
            Metric::CalibrationError => format!("{} ({} bins)", metric.name(), args.labelled.bins),
            _ => metric.name().to_owned(),
        };
        let mut row = vec![name];
        for run in &found.runs {
            row.extend(cells(&run.evaluation.metrics[i]));
        }
        row.extend(found.differences.iter().flat_map(|d| signed(&d.metrics[i])));
        rows.push(row);
    }
    if found.differences.is_some() {
        for (i, name) in ["precision", "recall", "F1"].into_iter().enumerate() {
            let mut row = vec![format!("{name} at the threshold")];
            for run in &found.runs {
                row.extend(given(run).iter().flat_map(|figures| cells(&figures[i])));
            }
            row.extend(found.differences.iter().flat_map(|d| signed(&d.at_threshold[i])));
            rows.push(row);
        }
    }
    out.line("");
    out.table(&rows);
}

fn thresholds(out: &mut Lines, run: &Run, of: &str) {
    let names = ["threshold", "precision", "recall", "F1", "TP", "FP", "FN", "TN"];
    let mut rows = vec![
        std::iter::once(format!("thresholds{of}"))
            .chain(names.map(str::to_owned))
            .collect::<Vec<_>>(),
    ];
    for point in &run.evaluation.points {
        let shares = [&point.threshold, &point.precision, &point.recall, &point.f1];
        // All digits of the threshold: rounded up, it would not predict the record that it was chosen at.
        let threshold = point.threshold.value.map(|value| value.to_string());
        let mut row = vec![point.kind.to_string(), threshold.unwrap_or_else(|| number(None))];
        row.extend(shares[1..].iter().map(|share| number(share.value)));
        row.extend(
            point
                .cells
                .iter()
                .map(|cell| cell.value.map_or("-".into(), |count| count.to_string())),
        );
        rows.push(row);
        let mut row = vec![String::new()];
        row.extend(shares.map(|share| between(share.interval, 3)));
        row.extend(point.cells.iter().map(|cell| between(cell.interval, 0)));
        if row.iter().any(|cell| !cell.is_empty()) {
            rows.push(row);
        }
    }
    out.line("");
    out.table(&rows);
    let why = run.evaluation.why_unreached();
    why.iter().for_each(|sentence| out.line(sentence));
}

fn cells(of: &Estimate) -> [String; 2] {
    [number(of.value), between(of.interval, 4)]
}

fn signed(of: &Estimate) -> [String; 2] {
    let value = of
        .value
        .map_or("not defined".to_owned(), |value| format!("{value:+.4}"));
    let interval = of.interval.map(|i| format!("{:+.4} to {:+.4}", i.low, i.high));
    [value, interval.unwrap_or_default()]
}

fn number(value: Option<f64>) -> String {
    value.map_or("not defined".to_owned(), |value| format!("{value:.4}"))
}

fn between(interval: Option<Interval>, digits: usize) -> String {
    interval.map_or(String::new(), |i| match digits {
        0 => format!("{:.0}-{:.0}", i.low, i.high),
        _ => format!("{:.digits$}-{:.digits$}", i.low, i.high),
    })
}

fn shown(mistake: &Mistake) -> String {
    let text = mistake.texts.first().map_or("", String::as_str);
    let cut = shortened(text, SHOWN);
    let id = mistake.id.as_ref().map_or(String::new(), |id| format!("  id {id}"));
    visible(&format!(
        "  {:.4}  {}{id}  {} -> {}  {cut}",
        mistake.probability, mistake.place, mistake.drug, mistake.adr
    ))
}

fn letter(run: usize) -> char {
    if run == 0 { 'A' } else { 'B' }
}

#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{}", line.trim_end());
    }

    /// Columns as wide as they need to be: the first from the left, the others from the right.
    fn table(&mut self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in rows {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                });
            let line = cells.collect::<Vec<_>>().join("  ");
            self.line(&line);
        }
    }
}
