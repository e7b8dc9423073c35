//! The report's pictures, as inline SVG that takes its colours from the page's style.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{Run, threshold as shown};
use crate::evaluation::curves::{Curves, Step};

// A picture's size and the margins around its plot, in units of its view box.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;

/// The place of a share from 0 to 1 on the horizontal axis.
fn x(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

/// The place of a share from 0 to 1 on the vertical axis.
fn y(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

/// True-positive against false-positive rate.
pub fn roc(runs: &[&Curves]) -> Markup {
    let mut paths = Vec::new();
    for curves in runs {
        let mut path = Path::default();
        if curves.positives > 0 && curves.negatives > 0 {
            path.point(0.0, 0.0);
            for step in &curves.steps {
                path.point(
                    step.false_positives as f64 / curves.negatives as f64,
                    step.true_positives as f64 / curves.positives as f64,
                );
            }
        }
        paths.push(path.finish());
    }
    square(
        "ROC curve",
        ("false-positive rate", "true-positive rate"),
        html! { path.guide d=(line(&[(0.0, 0.0), (1.0, 1.0)])) {} },
        drawn(paths, "there are no two classes"),
    )
}

/// Precision against recall, as steps: average precision is the area under them.
pub fn precision_recall(runs: &[&Curves]) -> Markup {
    let mut paths = Vec::new();
    for curves in runs {
        let mut path = Path::default();
        if curves.positives > 0 {
            let mut recall = 0.0;
            for step in &curves.steps {
                let precision = step.true_positives as f64 / (step.true_positives + step.false_positives) as f64;
                path.point(recall, precision);
                recall = step.true_positives as f64 / curves.positives as f64;
                path.point(recall, precision);
            }
        }
        paths.push(path.finish());
    }
    let share = runs.first().map_or(0.0, |c| {
        c.positives as f64 / ((c.positives + c.negatives).max(1)) as f64
    });
    square(
        "Precision against recall",
        ("recall", "precision"),
        html! { path.guide d=(line(&[(0.0, share), (1.0, share)])) {} },
        drawn(paths, "there are no positives"),
    )
}

/// Share of positives against mean probability, a dot a bin.
pub fn reliability(runs: &[&Curves]) -> Markup {
    let dots = html! {
        @for (i, curves) in runs.iter().enumerate() {
            @let most = curves.bins.iter().map(|bin| bin.records).max().unwrap_or(1).max(1) as f64;
            @let points: Vec<_> = curves.bins.iter().filter_map(|bin| Some((bin.mean_probability?, bin.positive_share()?, bin))).collect();
            @let path: Vec<(f64, f64)> = points.iter().map(|(p, share, _)| (*p, *share)).collect();
            path class={ "curve c" (i) } d=(line(&path)) {}
            @for (p, share, bin) in points {
                circle class={ "dot f" (i) } cx=(at(x(p))) cy=(at(y(share))) r=(at(3.0 + 6.0 * (bin.records as f64 / most).sqrt())) {
                    title { (format!("{} records, mean probability {p:.4}, {share:.4} positive", bin.records)) }
                }
            }
        }
    };
    square(
        "Reliability diagram",
        ("mean probability", "share of positives"),
        html! { path.guide d=(line(&[(0.0, 0.0), (1.0, 1.0)])) {} },
        dots,
    )
}

/// Records by probability: positive ones upwards, negative ones downwards.
pub fn histogram(curves: &Curves) -> Markup {
    let most = curves
        .histogram
        .iter()
        .map(|&(n, p)| n.max(p))
        .max()
        .unwrap_or(1)
        .max(1);
    let middle = (y(0.0) + y(1.0)) / 2.0;
    let height = (y(0.0) - y(1.0)) / 2.0 - 6.0;
    let bars = curves.histogram.len() as f64;
    let tall = |count: u64| count as f64 / most as f64 * height;
    let half = most.div_ceil(2);
    let plot = html! {
        @for count in [most, half] {
            @for sign in [-1.0, 1.0] {
                path.grid d=(format!("M{} {}H{}", at(x(0.0)), at(middle + sign * tall(count)), at(x(1.0)))) {}
                text x=(at(LEFT - 6.0)) y=(at(middle + sign * tall(count) + 4.0)) text-anchor="end" { (short(count)) }
            }
        }
        @for (i, &(negatives, positives)) in curves.histogram.iter().enumerate() {
            @let (from, to) = (i as f64 / bars, (i + 1) as f64 / bars);
            @for (count, class, name) in [(positives, "f0", "positive"), (negatives, "f1", "negative")] {
                @if count > 0 {
                    @let top = if name == "positive" { middle - tall(count) } else { middle };
                    rect class=(class) x=(at(x(from) + 0.5)) width=(at(x(to) - x(from) - 1.0)) y=(at(top)) height=(at(tall(count).max(0.75))) {
                        title { (count) " " (name) ", probability " (format!("{from:.2} to {to:.2}")) }
                    }
                }
            }
        }
        path.axis d=(format!("M{} {}H{}", at(x(0.0)), at(middle), at(x(1.0)))) {}
        text.label.f0 x=(at(x(0.5))) y=(at(TOP + 6.0)) text-anchor="middle" { "positive" }
        text.label.f1 x=(at(x(0.5))) y=(at(y(0.0) - 2.0)) text-anchor="middle" { "negative" }
        (ticks_below("probability"))
    };
    canvas("Histogram of probabilities by label", plot)
}

/// Precision, recall and F1 against the threshold.
pub fn sweep(run: &Run) -> Markup {
    let curves = &run.curves;
    let positives = curves.positives as f64;
    let shares: [fn(&Step, f64) -> f64; 3] = [
        |step, _| step.true_positives as f64 / (step.true_positives + step.false_positives) as f64,
        |step, positives| step.true_positives as f64 / positives,
        |step, positives| {
            2.0 * step.true_positives as f64 / ((step.true_positives + step.false_positives) as f64 + positives)
        },
    ];
    let mut paths = Vec::new();
    for (i, share) in shares.into_iter().enumerate() {
        let mut path = Path::default();
        if positives > 0.0 {
            // Above the highest probability nothing is predicted: no precision, and nothing is found.
            if i > 0
                && let Some(first) = curves.steps.first()
            {
                path.point(1.0, 0.0);
                path.point(first.threshold, 0.0);
            }
            for (k, step) in curves.steps.iter().enumerate() {
                let value = share(step, positives);
                path.point(step.threshold, value);
                path.point(curves.steps.get(k + 1).map_or(0.0, |next| next.threshold), value);
            }
        }
        paths.push(path.finish());
    }
    let guides = html! {
        @for point in &run.evaluation.points {
            @if let Some(threshold) = point.threshold.value {
                path.guide d=(line(&[(threshold, 0.0), (threshold, 1.0)])) { title { (shown(Some(threshold))) } }
            }
        }
    };
    let plot = html! {
        (drawn(paths, "there are no positives"))
        @for (i, name) in ["precision", "recall", "F1"].into_iter().enumerate() {
            @let left = LEFT + 10.0 + 80.0 * i as f64;
            path class={ "curve c" (i) } d=(format!("M{} {}h14", at(left), at(HEIGHT - BOTTOM - 12.0))) {}
            text class={ "label f" (i) } x=(at(left + 18.0)) y=(at(HEIGHT - BOTTOM - 8.0)) { (name) }
        }
    };
    square("Precision, recall and F1 by threshold", ("threshold", ""), guides, plot)
}

/// The plot of two shares: grid, axes with their names, what lies behind and in front.
fn square(name: &str, (below, beside): (&str, &str), behind: Markup, front: Markup) -> Markup {
    let middle = (y(0.0) + y(1.0)) / 2.0;
    canvas(
        name,
        html! {
            @for tick in 0..=5 {
                @let share = f64::from(tick) / 5.0;
                path.grid d=(line(&[(0.0, share), (1.0, share)])) {}
                path.grid d=(line(&[(share, 0.0), (share, 1.0)])) {}
                text x=(at(LEFT - 6.0)) y=(at(y(share) + 4.0)) text-anchor="end" { (share) }
            }
            (ticks_below(below))
            text x="12" y=(at(middle)) text-anchor="middle" transform=(format!("rotate(-90 12 {})", at(middle))) { (beside) }
            (behind)
            path.axis d=(line(&[(0.0, 1.0), (0.0, 0.0), (1.0, 0.0)])) {}
            (front)
        },
    )
}

fn ticks_below(name: &str) -> Markup {
    html! {
        @for tick in 0..=5 {
            @let share = f64::from(tick) / 5.0;
            text x=(at(x(share))) y=(at(y(0.0) + 15.0)) text-anchor="middle" { (share) }
        }
        text x=(at(x(0.5))) y=(at(HEIGHT - 6.0)) text-anchor="middle" { (name) }
    }
}

fn canvas(name: &str, plot: Markup) -> Markup {
    html! { svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(name) { (plot) } }
}

/// Paths in their runs' colours, or why there is none.
fn drawn(paths: Vec<String>, otherwise: &str) -> Markup {
    html! {
        @if paths.iter().all(String::is_empty) {
            text x=(at(x(0.5))) y=(at(y(0.5))) text-anchor="middle" { "not defined: " (otherwise) }
        }
        @for (i, path) in paths.iter().enumerate() {
            @if !path.is_empty() { path class={ "curve c" (i) } d=(path) {} }
        }
    }
}

fn line(points: &[(f64, f64)]) -> String {
    let mut text = String::new();
    for (i, &(a, b)) in points.iter().enumerate() {
        let verb = if i == 0 { 'M' } else { 'L' };
        // Writing to a string cannot fail.
        let _ = write!(text, "{verb}{} {}", at(x(a)), at(y(b)));
    }
    text
}

/// A curve of any number of points, thinned to what can be seen.
#[derive(Default)]
struct Path {
    text: String,
    last: Option<(f64, f64)>,
    skipped: Option<(f64, f64)>,
}

/// Points nearer than this to the last one, in the picture's units, are not drawn.
const VISIBLE: f64 = 0.5;

impl Path {
    fn point(&mut self, a: f64, b: f64) {
        let point = (x(a), y(b));
        let near = |(p, q): (f64, f64)| (point.0 - p).abs() < VISIBLE && (point.1 - q).abs() < VISIBLE;
        if self.last.is_some_and(near) {
            self.skipped = Some(point);
            return;
        }
        // Where a long stroke follows skipped points it begins at the last of them, not somewhere beside.
        if let Some(skipped) = self.skipped.take() {
            self.draw(skipped);
        }
        self.draw(point);
    }

    fn draw(&mut self, (p, q): (f64, f64)) {
        let verb = if self.last.is_none() { 'M' } else { 'L' };
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{verb}{} {}", at(p), at(q));
        self.last = Some((p, q));
    }

    fn finish(mut self) -> String {
        if let Some(skipped) = self.skipped.take() {
            self.draw(skipped);
        }
        self.text
    }
}

/// A coordinate, to a hundredth.
fn at(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A count in few characters.
fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..10_000_000 => format!("{}k", count / 1000),
        _ => format!("{}M", count / 1_000_000),
    }
}
