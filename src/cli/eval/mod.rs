//! `crag eval`: how good probabilities are, of one model or of two.
//!
//! Arguments become samples here; figures are [`crate::evaluation`]'s.

mod json;
mod table;

use std::path::PathBuf;

use super::config::SettingRow;
use super::inputs;
use super::inputs::is_regular;
use super::labelled::{LabelledArgs, input, refuse_unfit, refuse_unused};
use super::model_choice::{ModelChoice, model_args, names_model};
use super::report_file::ReportFile;
use super::values::parse_share;
use super::{Outcome, UsageError, console};
use crate::calibration::stated;
use crate::evaluation::{
    Curves, Differences, Estimate, Evaluation, LabelledSet, MatchBy, Metric, Mismatches, Mistakes, Origin, Report,
    Request, Run, Threshold, compare, evaluate, is_page, pair,
};
use crate::files::{Input, refuse_stdout};
use crate::model::config;
use crate::scoring::Options;
use crate::words::{counted, singular};

/// What to judge, with what, and what to say of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each record is a JSON object, or a row of a CSV or TSV table, with a label: 0, 1, false or true. crag scores the records with --model, or reads \
their probabilities with --scored. Two files of scored records, or two --model, are compared on the same pairs.

Intervals resample documents, since what is said in one document is not independent. The calibration error has none: \
resampling adds noise to its bins and so makes it larger. A figure that the records do \
not define (ROC-AUC of one class, precision where nothing is predicted) has no value and is never made up.

Examples:
  crag eval --scored scored.jsonl
  crag eval pairs.jsonl --model ./my-model --recall 0.95 --report report.html
  crag eval pairs.jsonl --model ./mine --model owner/name
  crag eval old.jsonl new.jsonl --document pmid --json

Exit codes: 0 all judged; 1 could not run or go on; 2 usage; 3 finished, but some labelled records could not be used \
or matched.")]
pub struct EvalArgs {
    /// File of labelled records (JSONL, CSV or TSV), "-" or none for stdin; two files of scored records are compared. gzip,
    /// zstd and bzip2 are unpacked, whatever the name
    #[arg(value_name = "FILE", num_args = 0..=2)]
    files: Vec<PathBuf>,

    /// Model to score with, as in crag score; give it twice to compare two models
    #[arg(long, short, value_name = "MODEL", help_heading = "Model")]
    model: Vec<String>,

    #[command(flatten)]
    choice: ModelChoice,

    /// Probability from which a record is predicted positive [default: the model's own, else 0.55]
    #[arg(long, value_name = "P", value_parser = parse_share)]
    threshold: Option<f64>,

    /// Also find the threshold of the best precision among those with at least this recall
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    recall: Option<f64>,

    /// Also find the threshold of the best recall among those with at least this precision
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    precision: Option<f64>,

    /// Hardest mistakes to show, of each kind
    #[arg(long, value_name = "N", default_value = "10", value_parser = parse_mistakes)]
    mistakes: usize,

    /// Match the records of two files by line instead of by id
    #[arg(long)]
    by_line: bool,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,

    /// Also write a self-contained HTML page; of files that are there only an earlier page is replaced
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    #[command(flatten)]
    labelled: LabelledArgs,
}

/// Records of one model, and the threshold that goes with them.
struct Source {
    name: String,
    set: LabelledSet,
    threshold: Threshold,
}

impl Source {
    /// A warning where the records' own decisions are of another threshold than the one that nobody gave.
    fn decided_otherwise(&self) -> Option<String> {
        let Threshold { value, origin } = self.threshold;
        let decisions = &self.set.decisions;
        (origin == Origin::Default && decisions.otherwise > 0).then(|| {
            let theirs = match decisions.own_threshold() {
                Some((Some(below), Some(from))) => format!("theirs lies above {below} and is at most {from}: --threshold gives it"),
                Some((Some(below), None)) => format!("theirs lies above {below}: --threshold gives it"),
                Some((None, Some(from))) => format!("theirs is at most {from}: --threshold gives it"),
                _ => "they were decided at several".to_owned(),
            };
            format!(
                "{}: not all of its records were decided at {value}, the default: \"causal\" of {} would be otherwise; {theirs}",
                self.name,
                counted(decisions.otherwise, "record", "records")
            )
        })
    }
}

/// What was found.
struct Found {
    runs: Vec<Run>,
    differences: Option<Differences>,
    mismatches: Option<Mismatches>,
    unit: &'static str,
    /// What concerns all runs.
    notes: Vec<String>,
    /// Of each run, what was read.
    sets: Vec<LabelledSet>,
    incomplete: bool,
}

pub fn run(mut args: EvalArgs, settings: &[SettingRow]) -> anyhow::Result<Outcome> {
    if !names_model(settings) {
        args.choice.beneath = std::mem::take(&mut args.model);
    }
    args.check()?;
    if args.reads_probabilities() {
        refuse_unused(settings, &["model-config", "revision"])?;
    }
    refuse_stdout(&args.inputs())?;
    let report = args
        .report
        .as_ref()
        .map(|path| ReportFile::beside_inputs("--report", path, &args.inputs(), is_page));
    let report = report.transpose()?;
    if report.as_ref().is_some_and(ReportFile::is_stdout) {
        return Err(UsageError("--report: stdout has the tables; name a file for the page".to_owned()).into());
    }
    args.labelled.begin()?;
    let mut sources = args.sources()?;
    let found = match (sources.pop(), sources.pop()) {
        (Some(second), Some(first)) => args.compared(first, second)?,
        (Some(only), None) => args.judged(only),
        (None, _) => return Err(UsageError("expected records to judge".to_owned()).into()),
    };
    if let Some(file) = report {
        let report = Report {
            runs: &found.runs,
            differences: found.differences.as_ref(),
            plan: args.labelled.plan(),
            bins: args.labelled.bins,
            unit: found.unit,
            notes: &found.notes,
        };
        file.finish(report.html().as_bytes())?;
    }
    let say = if found.incomplete { console::warn } else { console::note };
    let of_runs = found.runs.iter().flat_map(|run| &run.notes);
    of_runs.chain(&found.notes).for_each(|sentence| say(sentence));
    let text = match args.json {
        true => json::render(&args, &found)?,
        false => table::render(&args, &found),
    };
    Ok(super::print(&text)?.and(Outcome::of_records(found.incomplete)))
}

impl EvalArgs {
    /// What can be wrong before anything has been read.
    fn check(&self) -> Result<(), UsageError> {
        let usage = |message: &str| Err(UsageError(message.to_owned()));
        let stdin = self.files.iter().filter(|path| path.as_os_str() == "-").count();
        match (self.files.len(), self.model.len()) {
            (_, 3..) => return usage("--model: expected one model, or two to compare"),
            (2, 1..) => return usage("two files are two models' scores: give one file to score it with --model"),
            (2, 0) if stdin == 2 => return usage("stdin can be read once: give a file for one of the two"),
            (0, 2) => return usage("two models read the records twice: give a file instead of stdin"),
            (1, 2) if stdin == 1 => return usage("two models read the records twice: give a file instead of stdin"),
            _ => {}
        }
        if self.labelled.scored && !self.model.is_empty() {
            return usage("--scored reads probabilities and --model computes them: give one of the two");
        }
        if self.model.len() == 2 && (self.choice.from.revision.is_some() || self.choice.from.model_config.is_some()) {
            return usage("--revision and --model-config go with one --model; give the second as a folder");
        }
        if self.by_line && self.files.len() < 2 {
            return usage("--by-line goes with two files");
        }
        Ok(())
    }

    /// Whether nothing is scored.
    fn reads_probabilities(&self) -> bool {
        self.labelled.scored || self.files.len() == 2
    }

    /// All that will be read.
    fn inputs(&self) -> Vec<Input> {
        match self.files.is_empty() {
            true => vec![Input::Stdin],
            false => self.files.iter().map(|path| inputs::input(path)).collect(),
        }
    }

    /// The threshold of `--threshold`, or the one beneath.
    fn threshold(&self, beneath: f32, origin: Origin) -> Threshold {
        match self.threshold {
            Some(value) => Threshold {
                value,
                origin: Origin::Given,
            },
            None => Threshold {
                value: stated(beneath),
                origin,
            },
        }
    }

    fn sources(&self) -> anyhow::Result<Vec<Source>> {
        let stdin = PathBuf::from("-");
        let first = self.files.first().unwrap_or(&stdin);
        if self.labelled.scored || self.files.len() == 2 {
            let files = if self.files.is_empty() {
                std::slice::from_ref(&stdin)
            } else {
                &self.files
            };
            let match_by = match (files.len(), self.by_line) {
                (1, _) => MatchBy::Nothing,
                (_, true) => MatchBy::Line,
                (_, false) => MatchBy::Id,
            };
            let threshold = self.threshold(Options::default().threshold, Origin::Default);
            let read = files.iter().map(|path| {
                Ok(Source {
                    name: input(path)?.name(),
                    set: self.labelled.read(path, match_by, self.mistakes(match_by, threshold))?,
                    threshold,
                })
            });
            return read.collect();
        }
        let records = input(first)?.name();
        refuse_unfit(first, &self.labelled, !self.model.is_empty())?;
        let names: Vec<Option<&str>> = match self.model.is_empty() {
            true => vec![None],
            false => self.model.iter().map(|name| Some(name.as_str())).collect(),
        };
        let match_by = if names.len() == 2 {
            MatchBy::Line
        } else {
            MatchBy::Nothing
        };
        if names.len() == 2 && !is_regular(first) {
            return Err(UsageError(format!(
                "two models read the records twice: expected a file, found the pipe {records}"
            ))
            .into());
        }
        let scored = names.iter().map(|name| {
            let arguments = model_args(*name, &self.choice)?;
            let model = arguments.open(&self.labelled.device)?;
            let of_model = &model.description.config.threshold;
            let origin = match of_model.source {
                config::Source::Default => Origin::Default,
                _ => Origin::Model,
            };
            let threshold = self.threshold(of_model.value, origin);
            Ok(Source {
                name: match names.len() {
                    1 => format!("{records} scored by {}", arguments.model),
                    _ => arguments.model.clone(),
                },
                set: self.labelled.score(
                    first,
                    (&model, name.is_some()),
                    match_by,
                    self.mistakes(match_by, threshold),
                )?,
                threshold,
            })
        });
        scored.collect()
    }

    fn mistakes(&self, match_by: MatchBy, threshold: Threshold) -> Mistakes {
        match match_by {
            MatchBy::Nothing => Mistakes::new(self.mistakes, threshold.value),
            _ => Mistakes::until_matched(self.mistakes, threshold.value),
        }
    }

    fn request(&self, threshold: Threshold) -> Request {
        Request {
            threshold,
            recall: self.recall,
            precision: self.precision,
            bins: self.labelled.bins,
        }
    }

    fn judged(&self, source: Source) -> Found {
        let sample = source.set.sample();
        let evaluation = self
            .labelled
            .resampled(|plan, made| evaluate(&sample, &self.request(source.threshold), plan, made));
        let (unit, about_documents) = self.labelled.documents(&source.name, &source.set.document_names);
        let mut notes = self.labelled.left_out(&source.name, &source.set);
        notes.extend(source.decided_otherwise());
        notes.extend(self.labelled.repeated(&source.name, &source.set));
        if self.labelled.has_intervals() {
            notes.extend(about_documents);
            notes.extend(few(sample.documents(), unit));
        }
        notes.extend(undefined(figures(&evaluation)));
        Found {
            incomplete: source.set.rejections() > 0,
            runs: vec![Run {
                name: source.name,
                evaluation,
                curves: Curves::of(&sample, self.labelled.bins),
                mistakes: source.set.mistakes.hardest(|_| true),
                notes,
            }],
            differences: None,
            mismatches: None,
            unit,
            notes: Vec::new(),
            sets: vec![source.set],
        }
    }

    fn compared(&self, first: Source, second: Source) -> anyhow::Result<Found> {
        let paired = pair(&first.set, &second.set);
        let mismatches = paired.mismatches;
        anyhow::ensure!(
            !paired.keys.is_empty(),
            "{} and {}: no records to compare: {}{}",
            first.name,
            second.name,
            uncompared(&mismatches),
            match (mismatches.labels_differ + mismatches.pairs_differ, self.by_line) {
                (0, false) if self.model.is_empty() => format!(
                    "; they were matched by \"{}\": --id names another field, --by-line matches by line",
                    self.labelled.id
                ),
                (0, _) => "; they were matched by line".to_owned(),
                _ => "; are both files' records of the same pairs?".to_owned(),
            }
        );
        let (a, b) = (self.request(first.threshold), self.request(second.threshold));
        let comparison = self
            .labelled
            .resampled(|plan, made| compare((&paired.first, &a), (&paired.second, &b), plan, made));
        let names = format!("{} and {}", first.name, second.name);
        let (unit, about_documents) = self.labelled.documents(&names, &paired.documents);
        let mut notes = Vec::new();
        if self.labelled.has_intervals() {
            notes.extend(about_documents);
            notes.extend(few(paired.first.documents(), unit));
        }
        if mismatches.total() > 0 {
            notes.push(format!("left out of the comparison: {}", uncompared(&mismatches)));
        }
        if paired.ids_differ > 0 {
            notes.push(format!(
                "{} of the records that are compared by line have another id in the second file: are both files' lines of the same \
                 pairs, and is none missing?",
                paired.ids_differ
            ));
        }
        notes.extend(undefined(changes(&comparison.differences)));
        let is_compared = |key: Option<&str>| key.is_some_and(|key| paired.keys.contains(key));
        let mut runs = Vec::new();
        let evaluations = [comparison.first, comparison.second];
        let samples = [&paired.first, &paired.second];
        let incomplete = mismatches.total() + first.set.rejections() + second.set.rejections() > 0;
        let mut sets = Vec::new();
        for ((mut source, evaluation), sample) in [first, second].into_iter().zip(evaluations).zip(samples) {
            // Of the records that are compared, whichever file names it.
            source.set.document_names = paired.documents.clone();
            let mut notes = self.labelled.left_out(&source.name, &source.set);
            notes.extend(source.decided_otherwise());
            notes.extend(undefined(figures(&evaluation)));
            runs.push(Run {
                name: source.name,
                evaluation,
                curves: Curves::of(sample, self.labelled.bins),
                mistakes: source.set.mistakes.hardest(is_compared),
                notes,
            });
            sets.push(source.set);
        }
        Ok(Found {
            runs,
            differences: Some(comparison.differences),
            mismatches: Some(mismatches),
            unit,
            notes,
            sets,
            incomplete,
        })
    }
}

/// A warning where so little is resampled that intervals mean little.
fn few(documents: usize, unit: &str) -> Option<String> {
    match documents {
        1 => Some(format!(
            "no intervals: one {} is all there is to resample",
            singular(unit)
        )),
        2..20 => Some(format!(
            "only {documents} {unit} to resample: intervals are rough, and likely too narrow"
        )),
        _ => None,
    }
}

/// A warning where resamples had to be left out of intervals, by the figure that lacks most.
fn undefined(figures: Vec<(String, Estimate)>) -> Option<String> {
    let lacking = figures
        .into_iter()
        .filter(|(_, of)| of.value.is_some() && of.undefined > 0);
    // Of several the first, which is what the others follow from.
    let (name, most) = lacking.reduce(|a, b| if b.1.undefined > a.1.undefined { b } else { a })?;
    Some(format!(
        "up to {} resamples had records of one class alone, none that is predicted positive, or no threshold that does \
         what is wanted (so many for the {name}): the intervals of what that leaves undefined lack them",
        most.undefined
    ))
}

/// The estimates of an evaluation, by names for people.
fn figures(evaluation: &Evaluation) -> Vec<(String, Estimate)> {
    let mut figures = of_metrics(&evaluation.metrics);
    for point in &evaluation.points {
        let at = point.kind.to_string();
        let named = [
            ("threshold", point.threshold),
            ("precision", point.precision),
            ("recall", point.recall),
            ("F1", point.f1),
        ];
        figures.extend(named.map(|(name, of)| (format!("{name} at \"{at}\""), of)));
    }
    figures
}

fn of_metrics(metrics: &[Estimate; Metric::ALL.len()]) -> Vec<(String, Estimate)> {
    let named = Metric::ALL.iter().zip(metrics);
    named.map(|(metric, of)| (metric.name().to_owned(), *of)).collect()
}

/// The estimates of differences, by names for people.
fn changes(differences: &Differences) -> Vec<(String, Estimate)> {
    let names = ["precision", "recall", "F1"].map(str::to_owned);
    let mut figures = of_metrics(&differences.metrics);
    figures.extend(names.into_iter().zip(differences.at_threshold));
    let of = |(name, of)| (format!("difference in {name}"), of);
    figures.into_iter().map(of).collect()
}

/// How many records are not compared, by why, with examples.
fn uncompared(mismatches: &Mismatches) -> String {
    let reasons = [
        (mismatches.only_first, "only in the first"),
        (mismatches.only_second, "only in the second"),
        (mismatches.labels_differ, "with different labels"),
        (mismatches.pairs_differ, "with another drug, reaction or text"),
        (mismatches.repeated_first, "in the first whose id is not the only one"),
        (mismatches.repeated_second, "in the second whose id is not the only one"),
    ];
    let counts = reasons.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, reason)| format!("{count} {reason}")).collect();
    match mismatches.examples.is_empty() {
        true => counts.join(", "),
        false => format!("{} (for example {})", counts.join(", "), mismatches.examples.join(", ")),
    }
}

fn parse_mistakes(value: &str) -> Result<usize, String> {
    match value.parse::<usize>() {
        Ok(count) if count <= 10_000 => Ok(count),
        _ => Err("expected a whole number from 0 to 10000".to_owned()),
    }
}
