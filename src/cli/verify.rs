//! `crag verify`: does this checkpoint, as understood, reproduce the one published number?

use std::fmt::Write as _;

use crate::{
    Side,
    model::{
        View,
        config::{Source, view_names, view_sets},
        probability,
    },
    text::{Truncation, locate_every, mark_every},
};

use super::{Outcome, device::DeviceArgs, model::OpenModel, model_args::ModelArgs, values::quoted_list};

/// The model card's example and what it prints for it, to three decimals.
const DRUG_TEXT: &str = "Patient was started on metformin 500mg twice daily.";
const ADR_TEXT: &str = "She developed lactic acidosis requiring ICU admission.";
const DRUG: &str = "metformin";
const ADR: &str = "lactic acidosis";
const PUBLISHED: f32 = 0.923;
/// Half a unit of the last published digit, and the arithmetic's own 1e-5.
const TOLERANCE: f32 = 0.000_51;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Scores the example of the card of CRAG-dual-encoder-ade (metformin, lactic acidosis: 0.923). If the model gives another \
number, all other views of the classifier's width are tried. Where one set alone gives it and no crag.json states others, \
state that set as \"views\" in crag.json or a file for --model-config. Models other than that card's are expected to fail.

Exit codes: 0 the model reproduces the published number; 1 could not run; 2 usage; 3 it does not reproduce it.")]
pub struct VerifyArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: VerifyArgs) -> anyhow::Result<Outcome> {
    let mut model = args.model.open(&args.device)?;
    let [drug, adr] = [
        encode(&model, Side::Drug, DRUG_TEXT, DRUG)?,
        encode(&model, Side::Adr, ADR_TEXT, ADR)?,
    ];
    let mut score = |views: &[View]| -> anyhow::Result<f32> {
        model.network.set_views(views.to_vec());
        Ok(probability(model.network.logits(&drug, &adr)?.to_vec1::<f32>()?[0]))
    };
    let agrees = |p: f32| (p - PUBLISHED).abs() <= TOLERANCE;

    let stated = model.description.config.views.value.clone();
    let found = score(&stated)?;
    let mut out = String::new();
    writeln!(out, "published    {PUBLISHED:.3}")?;
    writeln!(out, "this model   {found:.6}  views {}", view_names(&stated))?;
    if agrees(found) {
        writeln!(out, "the model reproduces the published example")?;
        if model.description.config.views.source == Source::Default {
            writeln!(
                out,
                "with these views stated in crag.json no run doubts them: {}",
                statement(&stated)
            )?;
        }
        return super::print(&out);
    }
    writeln!(
        out,
        "\nthe published example is not reproduced; with other views of the classifier's width:"
    )?;
    let mut tried = 0;
    let mut reproducing = Vec::new();
    for views in view_sets(&model.description.roles) {
        if views == stated {
            continue;
        }
        tried += 1;
        let p = score(&views)?;
        writeln!(
            out,
            "  {p:.6}  {}{}",
            view_names(&views),
            if agrees(p) { "  <- reproduces it" } else { "" }
        )?;
        if agrees(p) {
            reproducing.push(views);
        }
    }
    match reproducing.as_slice() {
        [] => writeln!(
            out,
            "none reproduces it: these are other weights than the card's, or something else than the views differs \
             (activation, markers, tokenizer)"
        )?,
        [views] => {
            // With a chance of 0.1% for each of up to 119.
            write!(out, "one of {tried} sets gives it, as chance may; ")?;
            if model.description.config.views.source == Source::CragJson {
                writeln!(
                    out,
                    "{} states others, and if those are the original's, this is another model than the card's",
                    model.description.source_of(&model.description.config.views)
                )?;
            } else {
                writeln!(
                    out,
                    "unless the original's code says otherwise, state it in crag.json: {}",
                    statement(views)
                )?;
            }
        }
        several => writeln!(
            out,
            "{} sets reproduce it; one example cannot tell them apart",
            several.len()
        )?,
    }
    Ok(super::print(&out)?.and(Outcome::Incomplete))
}

/// As `crag.json` states them.
fn statement(views: &[View]) -> String {
    let names: Vec<&str> = views.iter().map(|view| view.name()).collect();
    format!("{{\"views\": [{}]}}", quoted_list(&names))
}

fn encode(model: &OpenModel, side: Side, text: &str, entity: &str) -> anyhow::Result<candle_core::Tensor> {
    let description = &model.description;
    let marked = if *description.config.markers {
        mark_every(text, entity, side)
    } else {
        locate_every(text, entity)
    };
    let tokens = description
        .tokenizer
        .tokenize(&marked, *description.config.max_length, Truncation::Start)?;
    Ok(model.network.encode(side, &[&tokens.token_ids])?)
}
