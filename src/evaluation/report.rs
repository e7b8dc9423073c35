//! One self-contained HTML page of an evaluation: inline style and pictures, no script, nothing fetched.
//!
//! Texts of records are anybody's: the templates escape what they insert, a content policy forbids scripts and
//! requests, and each text is isolated so that its direction marks do not turn the page around.

mod picture;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::bootstrap::Plan;
use super::curves::Curves;
use super::estimate::Estimate;
use super::evaluate::{Differences, Evaluation, PointKind};
use super::figures::Metric;
use super::mistakes::Mistake;
use crate::words::{is_obeyed, singular, thousands};

/// What a page shows: one run, or two that are compared.
pub struct Report<'r> {
    pub runs: &'r [Run],
    /// Of the second run less the first.
    pub differences: Option<&'r Differences>,
    pub plan: Plan,
    pub bins: usize,
    /// What resampling draws, such as "documents".
    pub unit: &'r str,
    /// What the reader has to know about all runs.
    pub notes: &'r [String],
}

/// One model on one set of records.
pub struct Run {
    /// The records' and the model's names.
    pub name: String,
    pub evaluation: Evaluation,
    pub curves: Curves,
    /// False positives and false negatives, the hardest first.
    pub mistakes: [Vec<Mistake>; 2],
    /// What was left out, and other things to know.
    pub notes: Vec<String>,
}

/// How every page begins, whichever version wrote it.
const BEGINNING: &str =
    "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"generator\" content=\"crag ";

/// Whether a file's contents are a page of [`Report::html`].
pub fn is_page(contents: &[u8]) -> bool {
    contents.starts_with(BEGINNING.as_bytes())
}

const STYLE: &str = include_str!("report/style.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

impl Report<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let title = match self.runs {
            [one] => format!("Evaluation of {}", one.name),
            runs => {
                let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
                names.join(" against ")
            }
        };
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="generator" content={ "crag " (env!("CARGO_PKG_VERSION")) };
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (visible(&title)) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main {
                        (self.header())
                        (self.figures())
                        (self.pictures())
                        (self.thresholds())
                        (self.mistakes())
                        (self.footer())
                    }
                }
            }
        };
        page.into_string()
    }

    fn header(&self) -> Markup {
        html! {
            header {
                h1 {
                    @for (i, run) in self.runs.iter().enumerate() {
                        @if i > 0 { span.against { " against " } }
                        (self.key(i)) bdi { (visible(&run.name)) }
                    }
                }
                @if let Some(run) = self.runs.first() {
                    @let e = &run.evaluation;
                    p.lead {
                        (many(e.records, "records"))
                        @if self.unit != "records" { " of " (many(e.documents, self.unit)) } ", "
                        (thousands(e.positives)) " positive (" (percent(e.positives, e.records)) ")"
                    }
                }
                @for note in self.notes.iter().chain(self.runs.iter().flat_map(|run| &run.notes)) {
                    p.note { (visible(note)) }
                }
            }
        }
    }

    /// A coloured dot for a run, where there is more than one.
    fn key(&self, run: usize) -> Markup {
        html! { @if self.runs.len() > 1 { span class={ "key run" (run) } {} } }
    }

    /// A heading that names its run, where there is more than one.
    fn named(&self, run: usize, heading: &str) -> Markup {
        html! { (self.key(run)) @if self.runs.len() > 1 { bdi { (visible(&self.runs[run].name)) } ": " } (heading) }
    }

    fn figures(&self) -> Markup {
        let given = |run: &Run| run.evaluation.points.first().cloned();
        html! {
            section {
                h2 { "Figures" }
                @if let [run] = self.runs {
                    div.tiles {
                        @for (metric, estimate) in Metric::ALL.iter().zip(&run.evaluation.metrics) {
                            (tile(metric.name(), estimate))
                        }
                        @if let Some(point) = given(run) {
                            @let threshold = threshold(point.threshold.value);
                            (tile(&format!("precision at {threshold}"), &point.precision))
                            (tile(&format!("recall at {threshold}"), &point.recall))
                            (tile(&format!("F1 at {threshold}"), &point.f1))
                        }
                    }
                } @else {
                    div.scroll { table {
                        thead { tr {
                            th { "figure" }
                            @for (i, run) in self.runs.iter().enumerate() { th.number { (self.key(i)) bdi { (visible(&run.name)) } } }
                            th.number { "difference" }
                        } }
                        tbody {
                            @for (i, metric) in Metric::ALL.iter().enumerate() {
                                tr {
                                    th { (metric.name()) }
                                    @for run in self.runs { td.number { (estimate(&run.evaluation.metrics[i])) } }
                                    td.number { @if let Some(d) = self.differences { (difference(&d.metrics[i])) } }
                                }
                            }
                            @for (i, name) in ["precision", "recall", "F1"].into_iter().enumerate() {
                                tr {
                                    th { (name) " at the threshold" }
                                    @for run in self.runs {
                                        td.number { @if let Some(p) = given(run) { (estimate(&[p.precision, p.recall, p.f1][i])) } }
                                    }
                                    td.number { @if let Some(d) = self.differences { (difference(&d.at_threshold[i])) } }
                                }
                            }
                        }
                    } }
                    p.small { "Differences are the second's figure less the first's; one in bold has an interval without zero. \
                               Brier score, log loss and calibration error are better where they are lower." }
                }
            }
        }
    }

    fn pictures(&self) -> Markup {
        let curves: Vec<&Curves> = self.runs.iter().map(|run| &run.curves).collect();
        html! {
            section {
                h2 { "Curves" }
                div.pictures {
                    (framed("ROC", "true against false positives at every threshold; the dashed line is chance", picture::roc(&curves)))
                    (framed("Precision and recall", "the dashed line is the share of positives", picture::precision_recall(&curves)))
                    (framed("Reliability", "share of positives against mean probability, a dot a bin, larger with more records; the dashed line is perfect calibration", picture::reliability(&curves)))
                }
                div.pictures.wide {
                    @for (i, run) in self.runs.iter().enumerate() {
                        (framed_as(self.named(i, "Probabilities by label"), "records in each of 25 equally wide bins, positive above, negative below", picture::histogram(&run.curves)))
                    }
                    @for (i, run) in self.runs.iter().enumerate() {
                        (framed_as(self.named(i, "Thresholds"), "precision, recall and F1 wherever the threshold is put; the upright lines are those of the table below", picture::sweep(run)))
                    }
                }
            }
        }
    }

    fn thresholds(&self) -> Markup {
        html! {
            section {
                h2 { "Thresholds" }
                @for (i, run) in self.runs.iter().enumerate() {
                    @if self.runs.len() > 1 { h3 { (self.key(i)) bdi { (visible(&run.name)) } } }
                    div.scroll { table {
                        thead { tr {
                            @for name in ["", "threshold", "precision", "recall", "F1", "true positives", "false positives", "false negatives", "true negatives"] {
                                th.number { (name) }
                            }
                        } }
                        tbody {
                            @for point in &run.evaluation.points {
                                tr {
                                    th { (kind(point.kind)) }
                                    td.number { (threshold(point.threshold.value)) (between(&point.threshold)) }
                                    @for e in [&point.precision, &point.recall, &point.f1] {
                                        td.number { (estimate(e)) }
                                    }
                                    @for cell in &point.cells { td.number { (count(cell)) } }
                                }
                            }
                        }
                    } }
                    @for why in run.evaluation.why_unreached() { p.note { (why) } }
                }
                p.small {
                    "A chosen threshold was chosen on these same records, so its figures flatter it; its interval is that of the choice \
                     made anew in each resample. The other intervals hold the threshold where it is."
                }
            }
        }
    }

    fn mistakes(&self) -> Markup {
        html! {
            section {
                h2 { "Hardest mistakes" }
                @for (i, run) in self.runs.iter().enumerate() {
                    @for (mistakes, name) in run.mistakes.iter().zip(["False positives", "False negatives"]) {
                        h3 { (self.named(i, name)) }
                        @if mistakes.is_empty() { p.small { "None." } }
                        ol.mistakes { @for mistake in mistakes { li { (shown(mistake)) } } }
                    }
                }
            }
        }
    }

    fn footer(&self) -> Markup {
        html! {
            footer {
                p.small {
                    @if self.plan.resamples > 0 && self.runs.iter().any(|run| run.evaluation.documents > 1) {
                        "Intervals hold the middle " (self.plan.percent()) "% of " (thousands(self.plan.resamples))
                        " bootstrap resamples of " (self.unit) " (seed " (self.plan.seed) "). "
                    }
                    "Calibration error: " (self.bins) " equally wide bins, closed on the right; no interval, since resampling makes it larger. crag " (env!("CARGO_PKG_VERSION"))
                    ". A probability is the model's, not a clinical judgement."
                }
            }
        }
    }
}

fn framed(name: &str, what: &str, picture: Markup) -> Markup {
    framed_as(html! { (name) }, what, picture)
}

fn framed_as(name: Markup, what: &str, picture: Markup) -> Markup {
    html! { figure { figcaption { strong { (name) } span { (what) } } (picture) } }
}

fn tile(name: &str, of: &Estimate) -> Markup {
    html! {
        div.tile {
            span.name { (name) }
            span.value { (number(of.value)) }
            span.interval { (interval(of, 3)) }
        }
    }
}

fn estimate(of: &Estimate) -> Markup {
    html! { (number(of.value)) (between(of)) }
}

fn between(of: &Estimate) -> Markup {
    html! { @if of.interval.is_some() { span.interval { (interval(of, 3)) } } }
}

fn count(of: &Estimate) -> Markup {
    let value = of.value.map_or("—".to_owned(), |value| thousands(value as usize));
    html! { (value) @if of.interval.is_some() { span.interval { (interval(of, 0)) } } }
}

fn difference(of: &Estimate) -> Markup {
    let clear = of
        .interval
        .is_some_and(|interval| interval.low > 0.0 || interval.high < 0.0);
    let value = of.value.map_or("—".to_owned(), |value| format!("{value:+.4}"));
    html! {
        span.clear[clear] { (value) }
        @if let Some(interval) = of.interval { span.interval { (format!("{:+.3} to {:+.3}", interval.low, interval.high)) } }
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or("not defined".to_owned(), |value| format!("{value:.4}"))
}

/// All its digits: rounded up, it would not predict the record that it was chosen at.
fn threshold(value: Option<f64>) -> String {
    value.map_or_else(|| number(value), |value| value.to_string())
}

fn interval(of: &Estimate, digits: usize) -> String {
    of.interval.map_or(String::new(), |interval| {
        format!("{:.digits$} to {:.digits$}", interval.low, interval.high)
    })
}

fn kind(kind: PointKind) -> String {
    match kind {
        PointKind::Given(origin) => origin.name().to_owned(),
        PointKind::BestF1 => "best F1".to_owned(),
        PointKind::Recall(recall) => format!("recall of at least {recall}"),
        PointKind::Precision(precision) => format!("precision of at least {precision}"),
    }
}

/// A number and what it counts, in the singular where it is one.
fn many(count: usize, of: &str) -> String {
    let of = if count == 1 { singular(of) } else { of };
    format!("{} {of}", thousands(count))
}

fn percent(part: usize, whole: usize) -> String {
    format!("{:.1}%", 100.0 * part as f64 / whole.max(1) as f64)
}

/// The record's own words, with the drug and the reaction marked.
fn shown(mistake: &Mistake) -> Markup {
    html! {
        div.head {
            span.probability { (format!("{:.4}", mistake.probability)) }
            span.pair {
                bdi.drug { (visible(&mistake.drug)) } " → " bdi.adr { (visible(&mistake.adr)) }
            }
            span.place {
                @if let Some(id) = &mistake.id { "id " bdi { (visible(id)) } " · " }
                @if let Some(document) = &mistake.document { "document " bdi { (visible(document)) } " · " }
                bdi { (visible(&mistake.place)) }
            }
        }
        @for text in &mistake.texts {
            p dir="auto" { (marked(text, &mistake.drug, &mistake.adr)) }
        }
    }
}

fn marked(text: &str, drug: &str, adr: &str) -> Markup {
    let mut parts: Vec<(&str, &str)> = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let hit = [(drug, "drug"), (adr, "adr")]
            .into_iter()
            .filter(|(name, _)| !name.is_empty() && rest.starts_with(name))
            .max_by_key(|(name, _)| name.len());
        match hit {
            Some((name, class)) => {
                parts.push(("", &text[start..at]));
                parts.push((class, name));
                at += name.len();
                start = at;
            }
            None => at += first.len_utf8(),
        }
    }
    parts.push(("", &text[start..]));
    html! {
        @for (class, part) in parts {
            @if class.is_empty() { (visible(part)) } @else { mark class=(class) { (visible(part)) } }
        }
    }
}

/// The text with what has no picture made visible: control characters, and those that turn the direction of what
/// follows them.
fn visible(text: &str) -> String {
    let hidden = |c: char| is_obeyed(c) && c != '\n' && c != '\t';
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests;
