//! A picture of a run: the loss of each epoch and the validation's figures, as one SVG.

use std::fmt::Write as _;

use super::phase::Phase;
use super::state::EpochSummary;

const PANEL: f64 = 300.0;
const HEIGHT: f64 = 280.0;
/// Room for an axis' numbers.
const MARGIN: f64 = 52.0;
const STYLE: &str = "svg{color:#1f2328;background:#fff}\
    @media (prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}\
    text{fill:currentColor}.a{color:#0969da}.b{color:#9a6700}\
    @media (prefers-color-scheme:dark){.a{color:#58a6ff}.b{color:#e3b341}}\
    circle{fill:currentColor}path{fill:none;stroke:currentColor;stroke-width:2}.axis{stroke-width:1;opacity:.4}";

/// Values by epoch of one phase, on one scale.
struct Panel<'p> {
    title: &'p str,
    /// Ends of the scale.
    bottom: f64,
    top: f64,
    /// What each line is called, and its values.
    lines: Vec<(String, Vec<f64>)>,
}

/// The loss by epoch of each phase that was run, then F1 and ROC-AUC of fine-tuning.
pub fn svg(history: &[EpochSummary]) -> String {
    let losses = |phase: Phase| -> Vec<f64> { history.iter().filter(|e| e.phase == phase).map(|e| e.loss).collect() };
    let loss = |title, values: Vec<f64>| Panel {
        title,
        bottom: 0.0,
        top: values.iter().copied().fold(1e-9, f64::max),
        lines: vec![(format!("last {}", short(values.last().copied().unwrap_or(0.0))), values)],
    };
    let figure = |of: fn(&super::judge::Judgement) -> f64| -> Vec<f64> {
        let judged = history.iter().filter_map(|epoch| epoch.validation.as_ref());
        judged.map(of).collect()
    };
    let (f1, auc) = (figure(|v| v.f1), figure(|v| v.roc_auc));
    let lowest = f1.iter().chain(&auc).copied().fold(1.0, f64::min);
    let best = |name: &str, values: &[f64]| format!("best {name} {:.3}", values.iter().copied().fold(0.0, f64::max));
    let panels = [
        loss("Contrastive loss by epoch", losses(Phase::Contrastive)),
        loss("Focal loss by epoch", losses(Phase::Finetune)),
        Panel {
            title: "Validation by epoch",
            bottom: ((lowest - 0.02) * 20.0).floor().clamp(0.0, 19.0) / 20.0,
            top: 1.0,
            lines: vec![(best("F1", &f1), f1), (best("ROC-AUC", &auc), auc)],
        },
    ];
    let shown: Vec<&Panel<'_>> = panels.iter().filter(|panel| !panel.lines[0].1.is_empty()).collect();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {HEIGHT}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\" role=\"img\"><title>Training curves</title><style>{STYLE}</style>",
        PANEL * shown.len() as f64
    );
    for (n, panel) in shown.into_iter().enumerate() {
        draw(&mut out, PANEL * n as f64, panel);
    }
    out.push_str("</svg>\n");
    out
}

/// Three digits that count.
fn short(value: f64) -> String {
    let digits = (2.0 - value.abs().max(1e-6).log10().floor()).clamp(0.0, 8.0);
    format!("{value:.*}", digits as usize)
}

fn draw(out: &mut String, left: f64, panel: &Panel<'_>) {
    let (x0, x1) = (left + MARGIN, left + PANEL - 20.0);
    let (y0, y1) = (HEIGHT - 36.0, 64.0);
    let (beside, beneath) = (x0 - 6.0, y0 + 18.0);
    let epochs = panel.lines.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<text x=\"{x0}\" y=\"20\" font-weight=\"600\">{}</text><path class=\"axis\" d=\"M{x0} {y1}V{y0}H{x1}\"/>\
         <text x=\"{beside}\" y=\"{y0}\" text-anchor=\"end\">{}</text>\
         <text x=\"{beside}\" y=\"{}\" text-anchor=\"end\">{}</text>\
         <text x=\"{x0}\" y=\"{beneath}\">1</text>",
        panel.title,
        panel.bottom,
        y1 + 4.0,
        short(panel.top),
    );
    if epochs > 1 {
        let _ = write!(
            out,
            "<text x=\"{x1}\" y=\"{beneath}\" text-anchor=\"end\">{epochs}</text>"
        );
    }
    for (i, (name, values)) in panel.lines.iter().enumerate() {
        let x = x0 + (x1 - x0) / 2.0 * i as f64;
        let _ = write!(
            out,
            "<g class=\"{}\"><text x=\"{x}\" y=\"42\">{name}</text>",
            ["a", "b"][i % 2]
        );
        let mut path = String::new();
        for (n, value) in values.iter().enumerate() {
            let x = x0 + (x1 - x0) * n as f64 / (epochs - 1).max(1) as f64;
            let share = ((value - panel.bottom) / (panel.top - panel.bottom)).clamp(0.0, 1.0);
            let y = y0 - (y0 - y1) * share;
            let _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" });
            let _ = write!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        }
        let _ = write!(out, "<path d=\"{path}\"/></g>");
    }
}
