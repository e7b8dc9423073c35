//! A picture of a run: the loss of each epoch and the validation's figures, as one SVG.

use std::fmt::Write as _;

use super::state::EpochSummary;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 48.0;

/// Left the loss by epoch of both phases (each on a scale of its own), right F1 and ROC-AUC of phase 2.
pub fn svg(history: &[EpochSummary]) -> String {
    let phase = |name: &str| -> Vec<&EpochSummary> { history.iter().filter(|e| e.phase == name).collect() };
    let (contrastive, finetune) = (phase("contrastive"), phase("finetune"));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\" role=\"img\"><title>Training curves</title><style>\
         svg{{color:#1f2328;background:#fff}}@media (prefers-color-scheme:dark){{svg{{color:#e6edf3;background:#0d1117}}}}\
         path{{fill:none;stroke-width:2}}.axis{{stroke:currentColor;stroke-width:1;opacity:.4}}text{{fill:currentColor}}\
         .a{{stroke:#2f81f7;fill:#2f81f7}}.b{{stroke:#d29922;fill:#d29922}}</style>"
    );
    let losses = |epochs: &[&EpochSummary]| epochs.iter().map(|e| e.loss).collect::<Vec<f64>>();
    let largest = |values: &[f64]| values.iter().copied().fold(1e-9, f64::max);
    let relative = |values: Vec<f64>| {
        let largest = largest(&values);
        values.iter().map(|v| v / largest).collect::<Vec<f64>>()
    };
    let labels = [&contrastive, &finetune].map(|epochs| largest(&losses(epochs)));
    let left = [
        (
            format!("contrastive loss (1 = {:.3})", labels[0]),
            relative(losses(&contrastive)),
        ),
        (
            format!("focal loss (1 = {:.4})", labels[1]),
            relative(losses(&finetune)),
        ),
    ];
    panel(&mut out, 0.0, "Loss by epoch", 0.0, &left);
    let figure = |of: fn(&super::judge::Judgement) -> f64| -> Vec<f64> {
        finetune.iter().filter_map(|e| e.validation.as_ref().map(of)).collect()
    };
    let (f1, auc) = (figure(|v| v.f1), figure(|v| v.roc_auc));
    let lowest = f1.iter().chain(&auc).copied().fold(1.0, f64::min);
    let bottom = ((lowest - 0.02) * 20.0).floor().clamp(0.0, 19.0) / 20.0;
    let name = |name: &str, values: &[f64]| format!("{name} {:.3}", values.iter().copied().fold(0.0, f64::max));
    panel(
        &mut out,
        WIDTH / 2.0,
        "Validation by fine-tuning epoch",
        bottom,
        &[(name("best F1", &f1), f1), (name("best ROC-AUC", &auc), auc)],
    );
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, left: f64, title: &str, bottom: f64, lines: &[(String, Vec<f64>); 2]) {
    let (x0, x1) = (left + MARGIN, left + WIDTH / 2.0 - 16.0);
    let (y0, y1) = (HEIGHT - 40.0, 64.0);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<text x=\"{x0}\" y=\"20\" font-weight=\"600\">{title}</text>\
         <path class=\"axis\" d=\"M{x0} {y1}V{y0}H{x1}\"/>\
         <text x=\"{}\" y=\"{y0}\" text-anchor=\"end\">{bottom}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">1</text>",
        x0 - 6.0,
        x0 - 6.0,
        y1 + 4.0
    );
    for (i, (name, values)) in lines.iter().enumerate() {
        let class = ["a", "b"][i];
        let _ = write!(
            out,
            "<text class=\"{class}\" stroke=\"none\" x=\"{}\" y=\"44\">{name}</text>",
            x0 + 160.0 * i as f64
        );
        let steps = values.len().saturating_sub(1).max(1) as f64;
        let mut path = String::new();
        for (n, value) in values.iter().enumerate() {
            let x = x0 + (x1 - x0) * n as f64 / steps;
            let y = y0 - (y0 - y1) * (value - bottom) / (1.0 - bottom);
            let _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" });
            let _ = write!(out, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        }
        let _ = write!(out, "<path class=\"{class}\" style=\"fill:none\" d=\"{path}\"/>");
    }
    let last = lines.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    let _ = write!(
        out,
        "<text x=\"{x0}\" y=\"{}\">1</text><text x=\"{x1}\" y=\"{}\" text-anchor=\"end\">epoch {last}</text>",
        y0 + 18.0,
        y0 + 18.0
    );
}
