//! `crag calibrate`: fits a calibration to labelled records and writes it into a model's `crag.json`.

mod json;
mod table;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::checkpoint::{Checkpoint, HubOptions, ModelSource, NamedBytes, locate};
use crate::cli::config::SettingRow;
use crate::cli::inputs;
use crate::cli::labelled::{LabelledArgs, input, refuse_unfit, refuse_unused};
use crate::cli::model::settings_file;
use crate::cli::model_choice::{ModelChoice, model_args, names_model};
use crate::cli::values::quoted_list;
use crate::cli::{Outcome, UsageError, console};
use crate::evaluation::{
    CALIBRATED, CrossFitError, Estimate, FitError, Improvement, LabelledSet, MatchBy, Method, Mistakes, Plan, Sample,
    cross_fitted, fit, improvement,
};
use crate::files::{Destination, is_same_file, refuse_inputs, refuse_stdout, replace_among_others, try_to_replace};
use crate::model::config::Sidecar;
use crate::scoring::CALIBRATED_KEY;
use crate::words::{counted, visible};

/// What to fit, to which records, and where to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A calibration maps a model's raw probabilities to ones that agree with observed frequencies: of the records given 0.8, \
8 in 10 should be positive. It is written into crag.json beside the model's weights; crag score --calibrated applies it.

How well it does is judged on documents that it has not seen: they are dealt into --folds parts, each judged by a \
calibration fitted to the others. What is written is fitted to all records. It holds for records like these, in which \
positives are about as frequent.

Examples:
  crag calibrate pairs.jsonl --model ./my-model
  crag calibrate --scored scored.jsonl --model ./my-model --method isotonic
  crag calibrate pairs.jsonl --model owner/name --output calibrated.json

Exit codes: 0 written; 1 could not run or go on; 2 usage, nothing written; 3 written, but some labelled records could \
not be used.")]
pub struct CalibrateArgs {
    /// File of labelled records (JSONL, CSV or TSV); "-" or none for stdin. gzip, zstd and bzip2 are unpacked, whatever the name
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// Model to score with and whose crag.json to write; with --scored its settings go along, and nothing is scored
    #[arg(long, short, value_name = "MODEL", help_heading = "Model")]
    model: Option<String>,

    #[command(flatten)]
    choice: ModelChoice,

    /// temperature: one number, for any amount of records; isotonic: any rising curve, from about 1000 records
    #[arg(long, value_name = "METHOD", default_value = "temperature")]
    method: MethodArg,

    /// Parts that documents are dealt into to judge the calibration; 1 judges it on the records it was fitted to
    #[arg(long, value_name = "N", default_value = "5", value_parser = parse_folds)]
    folds: usize,

    /// The crag.json to write or to add to, with the settings in use [default: the one beside the model's weights]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace a calibration that is there already, and settings that are not those in use
    #[arg(long)]
    force: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    labelled: LabelledArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MethodArg {
    Temperature,
    Isotonic,
}

/// Fewer records than this make an isotonic curve follow chance.
const ISOTONIC_RECORDS: usize = 1000;

pub fn run(mut args: CalibrateArgs, settings: &[SettingRow]) -> anyhow::Result<Outcome> {
    if !names_model(settings) {
        args.choice.beneath = args.model.take().into_iter().collect();
    }
    if args.labelled.scored {
        refuse_unused(settings, &[])?;
    }
    let target = args.target()?;
    let inputs = [inputs::input(args.path())];
    refuse_stdout(&inputs)?;
    refuse_inputs(&target, &inputs)?;
    try_to_write(&target)?;
    let existing = read_sidecar(&target)?;
    if let (Some(sidecar), false) = (&existing, args.force)
        && sidecar.calibration.is_some()
    {
        let message = format!(
            "{}: has a calibration already; give --force to replace it",
            target.display()
        );
        return Err(UsageError(message).into());
    }
    if args.labelled.scored && args.labelled.probability == CALIBRATED_KEY {
        let message = format!(
            "--probability {CALIBRATED_KEY}: has been calibrated; a calibration maps the model's own: give --probability probability"
        );
        return Err(UsageError(message).into());
    }
    args.labelled.begin()?;
    let (name, set, in_use) = args.records(|in_use| args.refuse_other_settings(&target, existing.as_ref(), in_use))?;
    if set.of_several > 0 {
        let message = format!(
            "{name}: {} the mean of several models as \"probability\", and a calibration is one model's: give \
             --output-key probabilities --probability NAME for the one called NAME there, or score with one model",
            counted(set.of_several, "record has", "records have")
        );
        return Err(UsageError(message).into());
    }
    let method = match args.method {
        MethodArg::Temperature => Method::Temperature,
        MethodArg::Isotonic => Method::Isotonic,
    };
    let sample = set.sample();
    let (unit, about_documents) = args.labelled.documents(&name, &set.document_names);
    let mut calibration = fit(&sample, method).map_err(|error| {
        let way_out = match error {
            FitError::WrongSide => " (--method isotonic)",
            _ => "",
        };
        anyhow::anyhow!("{name}: {error}{way_out}")
    })?;
    if unit == "records" {
        calibration.forget_documents();
    }
    calibration.check().map_err(anyhow::Error::msg)?;
    let plan = args.labelled.plan();
    let same = sample.mapped(|record| calibration.apply(record.probability));
    let judged = match args.folds {
        1 => same.clone(),
        folds => cross_fitted(&sample, method, folds, plan.seed).map_err(|error| {
            let way_out = match error {
                CrossFitError::Fold(_) => {
                    "; of all records a calibration can be fitted, and --folds 1 judges it on these"
                }
                CrossFitError::TooFewDocuments { .. } => "",
            };
            anyhow::anyhow!("{name}: --folds {folds}: {error}{way_out}")
        })?,
    };
    let bins = args.labelled.bins;
    let on_unseen = args
        .labelled
        .resampled(|plan, made| improvement(&sample, &judged, bins, plan, made));
    let without_intervals = Plan { resamples: 0, ..plan };
    let on_same = improvement(&sample, &same, bins, &without_intervals, &|| ());
    let findings = Findings {
        sample: &sample,
        on_unseen,
        on_same: on_same.after,
        unit,
    };

    let existing = existing.unwrap_or_default();
    let mut sidecar = match in_use {
        None => existing,
        Some(in_use) => {
            let replaced = existing.other_than(&in_use);
            if replaced.is_empty() {
                existing.or(&in_use)
            } else {
                console::note(&format!(
                    "{}: {} replaced by the settings in use",
                    target.display(),
                    quoted_list(&replaced)
                ));
                Sidecar {
                    notice: in_use.notice.clone().or(existing.notice),
                    ..in_use
                }
            }
        }
    };
    sidecar.calibration = Some(calibration.clone());
    let written = serde_json::to_string_pretty(&sidecar)? + "\n";
    replace_among_others(&target, written.as_bytes()).with_context(|| target.display().to_string())?;

    let left_out = args.labelled.left_out(&name, &set);
    let incomplete = set.rejections() > 0;
    let say = if incomplete { console::warn } else { console::note };
    left_out
        .iter()
        .chain(&args.labelled.repeated(&name, &set))
        .chain(&about_documents)
        .for_each(|sentence| say(sentence));
    if args.folds == 1 {
        console::warn(
            "judged on the records that it was fitted to, which flatters it: --folds 5 judges it on unseen documents",
        );
    }
    if method == Method::Isotonic && sample.records().len() < ISOTONIC_RECORDS {
        console::warn(&format!(
            "{} records are few for an isotonic calibration: it may follow chance; --method temperature needs fewer",
            sample.records().len()
        ));
    }
    let text = match args.json {
        true => {
            let value = args.json(&target, &calibration, &findings, &set);
            serde_json::to_string_pretty(&value)? + "\n"
        }
        false => args.table(&target, &calibration, &findings),
    };
    let printed = crate::cli::print(&text)
        .with_context(|| format!("{} is written, but what there is to say of it is not", target.display()))?;
    Ok(printed.and(Outcome::of_records(incomplete)))
}

/// What is said of a calibration.
struct Findings<'s> {
    sample: &'s Sample,
    /// On documents that its maps have not seen, where there are folds.
    on_unseen: Improvement,
    /// On the records that it was fitted to, in the order of [`CALIBRATED`].
    on_same: [Estimate; CALIBRATED.len()],
    /// What the sample's documents are.
    unit: &'static str,
}

impl CalibrateArgs {
    /// The records.
    fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new("-"))
    }

    /// Whether that is where a model's settings are looked for when it is loaded.
    fn is_beside_weights(&self, target: &Path) -> bool {
        let source = self.model.as_deref().map(|model| ModelSource::parse(model, None));
        let own = source.and_then(|source| source.ok()?.sidecar());
        own.is_some_and(|own| is_same_file(&own, target))
    }

    /// The crag.json to write.
    fn target(&self) -> anyhow::Result<PathBuf> {
        let revision = self.choice.from.revision.as_deref();
        let source = self.model.as_deref().map(|model| ModelSource::parse(model, revision));
        if self.labelled.scored
            && let Some(source) = &source
        {
            // Not scored with, it is still to be a model whose settings are written.
            let of_model = source.as_ref().map_err(ToString::to_string).and_then(|source| {
                let Some(_) = source.path() else { return Ok(()) };
                let files = locate(source, &HubOptions::default());
                let opened = files.and_then(|files| Checkpoint::open(&files));
                opened.map(|_| ()).map_err(|error| error.to_string())
            });
            of_model.map_err(|reason| {
                UsageError(format!(
                    "--scored needs no model but to know which crag.json to write: expected a folder or a weight file: {reason}"
                ))
            })?;
        }
        let output = self.output.as_deref().map(|path| ("--output", path));
        // Else the settings that the fit holds for.
        let in_use = || {
            self.choice
                .from
                .model_config
                .as_deref()
                .map(|path| ("--model-config", path))
        };
        if let Some((flag, path)) = output.or_else(in_use) {
            // Links are followed, so that what they lead to is written.
            return match Destination::of(path).context(flag)? {
                Destination::File(target) => Ok(target),
                _ => {
                    let message = format!("{flag} {}: expected the name of a file", path.display());
                    Err(UsageError(message).into())
                }
            };
        }
        match source.transpose() {
            Ok(source) => source.and_then(|source| source.sidecar()).ok_or_else(|| {
                let beneath = match self.choice.beneath.is_empty() {
                    true => "",
                    false => " (what the environment or a file names is a default, and nothing is written there)",
                };
                UsageError(format!(
                    "where to write: give --model a folder, or --output FILE for use with crag score --model-config FILE{beneath}"
                ))
                .into()
            }),
            // As it is said of a model that is to be opened.
            Err(error) => Err(error.into()),
        }
    }

    /// Errors if the file that is there states settings that a calibration of those in use would not hold for.
    fn refuse_other_settings(
        &self,
        target: &Path,
        existing: Option<&Sidecar>,
        in_use: Option<&Sidecar>,
    ) -> Result<(), UsageError> {
        let other = match (existing, in_use) {
            (Some(existing), Some(in_use)) => existing.other_than(in_use),
            (None, _) | (_, None) => Vec::new(),
        };
        if other.is_empty() || self.force {
            return Ok(());
        }
        Err(UsageError(format!(
            "{}: states {} otherwise than the settings in use, which the calibration is to hold for; name another --output, \
             use that file as --model-config, or give --force to replace its settings by those in use",
            target.display(),
            quoted_list(&other)
        )))
    }

    /// Those of the model that the environment or a file names, as far as it is here: nobody asked for it to be fetched.
    fn settings_beneath(&self) -> Option<Sidecar> {
        let [model] = &self.choice.beneath[..] else { return None };
        let read = || {
            let mut model = model_args(Some(model), &self.choice)?;
            model.from.offline = true;
            parsed(model.settings()?.as_ref())
        };
        let settings = read();
        if let Err(error) = &settings {
            console::note(&format!(
                "the settings of {}, which the environment or a file names, are left out: {error:#}",
                visible(model)
            ));
        }
        settings.ok()
    }

    /// The records' name, the records, and the settings that a model is used with, where one or its settings are named.
    /// `check`: looks at those before anything is scored.
    fn records(
        &self,
        check: impl Fn(Option<&Sidecar>) -> Result<(), UsageError>,
    ) -> anyhow::Result<(String, LabelledSet, Option<Sidecar>)> {
        let path = self.path();
        let name = input(path)?.name();
        if self.labelled.scored {
            let in_use = match (&self.choice.from.model_config, &self.model) {
                (Some(path), _) => Some(parsed(Some(&settings_file(path)?))?),
                (None, Some(model)) => {
                    let settings = model_args(Some(model), &self.choice)?.settings()?;
                    Some(parsed(settings.as_ref())?)
                }
                (None, None) => self.settings_beneath(),
            };
            check(in_use.as_ref())?;
            let set = self.labelled.read(path, MatchBy::Nothing, Mistakes::default())?;
            if in_use.is_none() && self.output.is_some() {
                console::note(
                    "the file gets the calibration alone: with --model-config it stands in place of the model's own \
                     settings; --model takes them over",
                );
            }
            return Ok((name, set, in_use));
        }
        refuse_unfit(path, &self.labelled, self.model.is_some())?;
        let model = model_args(self.model.as_deref(), &self.choice)?.open(&self.labelled.device)?;
        let in_use = parsed(model.description.files.sidecar.as_ref())?;
        check(Some(&in_use))?;
        let named = (&model, self.model.is_some());
        let set = self
            .labelled
            .score(path, named, MatchBy::Nothing, Mistakes::default())?;
        Ok((name, set, Some(in_use)))
    }
}

/// Finds out now whether the file can be written, and not when all has been scored.
fn try_to_write(path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    match try_to_replace(path).with_context(|| format!("{name}: cannot be written"))? {
        None => Ok(()),
        Some(reason) => bail!("{name}: {reason}, so that no new one can take its place"),
    }
}

/// What a file states; without one nothing is stated.
fn parsed(settings: Option<&NamedBytes>) -> anyhow::Result<Sidecar> {
    let sidecar = settings.map(|file| Sidecar::parse((&file.name, &file.bytes)));
    Ok(sidecar.transpose()?.unwrap_or_default())
}

/// What the file that is to be written states already. None where there is none, also behind a link.
fn read_sidecar(path: &Path) -> anyhow::Result<Option<Sidecar>> {
    if fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(None);
    }
    let there = NamedBytes::read_if_there(path)?;
    there.map(|file| parsed(Some(&file))).transpose()
}

fn parse_folds(value: &str) -> Result<usize, String> {
    match value.parse::<usize>() {
        Ok(count) if (1..=100).contains(&count) => Ok(count),
        _ => Err("expected a whole number from 1 to 100".to_owned()),
    }
}
