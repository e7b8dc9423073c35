//! `crag score`: pairs from files, stdin or flags; probabilities on stdout or in a file.
//!
//! Arguments as typed become inputs and [`Options`] here; what happens to lines is [`crate::scoring`]'s.

mod ensemble;
mod output;
mod pair;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use super::device::{DeviceArgs, print_profile};
use super::inputs::{InputArgs, Inputs};
use super::model::ModelsArgs;
use super::signals::SignalWatch;
use super::values::{parse_bytes, parse_count, parse_threads, parse_threshold};
use super::{Outcome, UsageError, note};
use crate::files::Input;
use crate::scoring::{
    self, Counts, Finished, Format, MissingEntity, OnError, Options, OutputKey, ScoreError, Setting, Sink, Stream,
};
use crate::text::Window;
use anyhow::Context as _;
use ensemble::Ensemble;
use output::{Output, OutputArgs};

/// What to score, with what, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line in is a JSON object with \"drug\" (or \"drug_entity\"), \"adr\" (or \"adr_entity\") and \"text\", or \
\"drug_text\" with \"adr_text\". \"drug_span\" and \"adr_span\", [start, end) in code points, mark one occurrence \
instead of all. Each line out is the same object with \"probability\" and \"causal\" added, or with an \"error\".

CSV and TSV have the same names in their header; spans are 3:9 or [3,9]. Each row keeps its bytes and gets the columns \
probability, causal, warnings, error_code and error_message (with --output-key KEY: KEY_probability and so on). \
--field reads fields from other places: --field text=/abstract/body, in tables --field text=Abstract.

Examples:
  crag score pairs.jsonl > scored.jsonl
  tail -f pairs.jsonl | crag score --model demo
  crag score --field text=/abstract/body dump-1.jsonl.gz dump-2.jsonl.zst > scored.jsonl
  crag score --shard 3/8 pairs.csv > part-3.csv
  crag score --text 'Aspirin caused bleeding.' --drug Aspirin --adr bleeding
  crag score -o scored.jsonl.gz --resume pairs.jsonl    (the same again after whatever happened)

Exit codes: 0 all scored; 1 could not run or go on; 2 usage, or not the run that -o belongs to; 3 finished, some lines \
are error records; 11 another run is writing -o; 130, 143 interrupted.")]
pub struct ScoreArgs {
    #[command(flatten)]
    input: InputArgs,

    #[command(flatten)]
    model: ModelsArgs,

    #[command(flatten)]
    device: DeviceArgs,

    /// Pairs with at least this probability are "causal" [default: the model's own, else 0.55; with several
    /// models the mean of theirs]
    #[arg(long, value_name = "P", value_parser = parse_threshold)]
    threshold: Option<f32>,

    /// Also give "calibrated_probability", by the calibration that crag calibrate wrote into the model's crag.json (of
    /// several models, the mean); "probability" and "causal" stay the model's own
    #[arg(long)]
    calibrated: bool,

    /// Nest the answer under this key instead of adding keys to the record; in tables, the names of the columns that
    /// are added begin with it
    #[arg(long, value_name = "KEY", value_parser = OutputKey::nested)]
    output_key: Option<OutputKey>,

    /// What a line that cannot be scored does: become an error record, or end the run
    #[arg(long, value_name = "WHAT", default_value = "record")]
    on_error: OnErrorArg,

    /// What to do when an entity does not occur in its text: an error, or score it without markers
    #[arg(long, value_name = "WHAT", default_value = "error")]
    missing_entity: MissingEntityArg,

    /// Which part of a text that is too long to keep: its start, or the tokens around the mention
    #[arg(long, value_name = "PART", default_value = "start")]
    window: WindowArg,

    /// Longest line; a longer one is read past and becomes an error record (KiB, MiB and GiB are understood)
    #[arg(long, value_name = "BYTES", default_value = "16MiB", value_parser = parse_bytes)]
    max_line_bytes: usize,

    /// Tokens encoded together [default: by device]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    batch_tokens: Option<usize>,

    /// Threads to compute with [default: all available cores]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,

    /// Encode equal texts each time they come (results are the same, only slower)
    #[arg(long)]
    no_reuse: bool,

    /// Keep the encoders' results in this file, and take from it what an earlier run left there: the same
    /// texts with the same model and --dtype are then not encoded again (results are the same)
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,

    #[command(flatten)]
    output: OutputArgs,

    /// Say nothing on stderr unless something is wrong
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    pair: Box<pair::PairArgs>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnErrorArg {
    Record,
    Fail,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum MissingEntityArg {
    Error,
    Unmarked,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum WindowArg {
    Start,
    Mention,
}

pub fn run(args: ScoreArgs) -> anyhow::Result<Outcome> {
    // What can be wrong before a model has been fetched and read is said before.
    let record = args.pair.record()?;
    if record.is_some() && args.input.say_how() {
        let message = "one pair given by flags has no --format, --field or --shard";
        return Err(UsageError(message.to_owned()).into());
    }
    let signals = SignalWatch::start(args.quiet)?;
    let output_key = args.answer_key();
    let what = args.input.resolve(&output_key)?;
    what.check(&output_key, args.max_line_bytes)?;
    let inputs = match &record {
        Some(record) => vec![flags_as_input(record)],
        None => what.open(),
    };
    let output = args.output.claim(&inputs)?;
    // Loading runs on rayon's global pool. It can only be set once, and nothing has used it yet; 0 is rayon's default.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads.unwrap_or(0))
        .thread_name(|i| format!("crag-load-{i}"))
        .build_global();
    let mut ensemble = Ensemble::open(&args.model, &args.device, args.cache.as_deref())?;
    if args.calibrated {
        ensemble.calibrate()?;
    }
    if !args.quiet {
        let models = ensemble.models.iter();
        models
            .filter_map(|model| model.model.unused_packed.as_deref())
            .for_each(note);
    }
    let mut options = args.options(ensemble.threshold(), &what);
    if record.is_some() {
        // Flags have no length limit of ours.
        options.max_line_bytes = usize::MAX;
    }
    let run = Run {
        args: &args,
        ensemble: &ensemble,
        signals: &signals,
    };
    match record {
        Some(_) if !args.output.is_given() => run.score_pair(inputs, options),
        _ => run.score_lines(inputs, output, options),
    }
}

/// A pair given by flags, as if it were a line, so that all that is checked there is checked here.
fn flags_as_input(record: &str) -> Input {
    Input::Reader(
        "<flags>".to_owned(),
        Box::new(io::Cursor::new(record.as_bytes().to_vec())),
    )
}

/// What all ways to score have in common.
struct Run<'r> {
    args: &'r ScoreArgs,
    ensemble: &'r Ensemble,
    signals: &'r SignalWatch,
}

impl Run<'_> {
    fn score_lines(&self, inputs: Vec<Input>, output: Output, options: Options) -> anyhow::Result<Outcome> {
        let quiet = self.args.quiet;
        let reads_terminal = inputs.iter().any(|input| matches!(input, Input::Stdin)) && io::stdin().is_terminal();
        if reads_terminal && !quiet {
            let what = match options.format {
                Format::Jsonl => "one JSON object a line",
                Format::Csv | Format::Tsv => "a header row first",
            };
            note(&format!("reading pairs from the terminal, {what}; ctrl-d ends"));
        }
        let scored = match output {
            Output::Stdout => self.score(inputs, &mut Stream::new(&mut io::stdout().lock()), &options),
            Output::Stream(mut file) => self.score(inputs, &mut Stream::new(&mut file), &options),
            Output::File(file) => {
                let settings = self.settings(&options);
                let score = |inputs, sink: &mut dyn Sink, options: &Options| self.score(inputs, sink, options);
                let companions = |_: &Finished| Ok(Vec::new());
                let output = &self.args.output;
                let scored = output.score_to_file(file, inputs, settings, options, score, companions)?;
                return Ok(scored.report(quiet, || self.signals.outcome()));
            }
        };
        match scored {
            Ok(counts) => {
                if !quiet {
                    note(&counts.to_string());
                }
                Ok(outcome(&counts))
            }
            Err(ScoreError::ClosedPipe) => Ok(Outcome::ClosedPipe),
            Err(ScoreError::Interrupted) => {
                if !quiet {
                    note("interrupted; what was finished has been written (with -o a run can be resumed)");
                }
                Ok(self.signals.outcome())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn score_pair(&self, inputs: Vec<Input>, mut options: Options) -> anyhow::Result<Outcome> {
        let readable = !self.args.pair.json && io::stdout().is_terminal();
        if readable {
            options.output = OutputKey::default();
        }
        let mut answer = Vec::new();
        let counts = match self.score(inputs, &mut Stream::new(&mut answer), &options) {
            Err(ScoreError::Interrupted) => return Ok(self.signals.outcome()),
            scored => scored?,
        };
        let answer = String::from_utf8(answer).context("the answer")?;
        let text = if readable {
            pair::readable_answer(&serde_json::from_str(&answer)?, options.threshold)
        } else {
            answer
        };
        Ok(match super::print(&text)? {
            Outcome::Complete => outcome(&counts),
            other => other,
        })
    }

    fn score(&self, inputs: Vec<Input>, sink: &mut dyn Sink, options: &Options) -> Result<Counts, ScoreError> {
        let window = match self.args.window {
            WindowArg::Start => Window::Start,
            WindowArg::Mention => Window::Mention,
        };
        let missing_entity = match self.args.missing_entity {
            MissingEntityArg::Error => MissingEntity::Error,
            MissingEntityArg::Unmarked => MissingEntity::Unmarked,
        };
        let preparers = self.ensemble.preparers(window, missing_entity);
        let members = self.ensemble.members(&preparers);
        let options = Options {
            stop: Some(self.signals.run_begins()),
            ..options.clone()
        };
        let counts = scoring::run_into(inputs, sink, &members, &options);
        print_profile();
        if let Some(problem) = self.ensemble.flush_cache() {
            note(&problem);
        }
        counts
    }

    /// Everything that answers depend on, besides the lines and the program: whoever adds a flag that changes an
    /// answer adds it here, or `--resume` mixes two kinds of answers in one file.
    fn settings(&self, options: &Options) -> Vec<Setting> {
        let args = self.args;
        let mut settings = Vec::new();
        for model in &self.ensemble.models {
            // Names are in the answers of several models alone.
            let setting = match self.ensemble.models.len() {
                1 => "model".to_owned(),
                _ => format!("model {}", model.name),
            };
            settings.push(Setting::new(setting, model.model.identity()));
            settings.push(Setting::new("kernel", &model.model.kernel));
        }
        settings.extend([
            Setting::new("--threshold", options.threshold),
            Setting::new("--max-line-bytes", options.max_line_bytes),
            Setting::new("--missing-entity", name_of(args.missing_entity)),
            Setting::new("--window", name_of(args.window)),
            Setting::new("--format", options.format.name()),
        ]);
        let fields = args.input.fields.iter();
        settings.extend(fields.map(|(field, place)| Setting::new(format!("--field {field}"), place)));
        settings.extend(options.shard.map(|shard| Setting::new("--shard", shard)));
        settings.extend(options.output.key().map(|key| Setting::new("--output-key", key)));
        // The calibration itself is part of the model.
        settings.extend(args.calibrated.then(|| Setting::new("--calibrated", true)));
        settings.push(match options.on_error {
            // No line that a run ended at was answered.
            OnError::Record => Setting::new("--on-error", "record").accepting("fail"),
            OnError::Fail => Setting::new("--on-error", "fail"),
        });
        settings
    }
}

/// A flag's value as typed.
fn name_of(value: impl clap::ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

fn outcome(counts: &Counts) -> Outcome {
    if counts.errors() > 0 {
        Outcome::Incomplete
    } else {
        Outcome::Complete
    }
}

impl ScoreArgs {
    /// Where answers go and whether they are calibrated too.
    fn answer_key(&self) -> OutputKey {
        let output = self.output_key.clone().unwrap_or_default();
        output.with_calibrated(self.calibrated)
    }

    fn options(&self, model_threshold: f32, inputs: &Inputs) -> Options {
        let defaults = Options::default();
        Options {
            threshold: self.threshold.unwrap_or(model_threshold),
            format: inputs.format,
            fields: inputs.fields.clone(),
            shard: inputs.shard,
            output: self.answer_key(),
            on_error: match self.on_error {
                OnErrorArg::Record => OnError::Record,
                OnErrorArg::Fail => OnError::Fail,
            },
            max_line_bytes: self.max_line_bytes,
            threads: self.threads.unwrap_or(defaults.threads),
            batch_tokens: self.batch_tokens,
            reuse: !self.no_reuse,
            ..defaults
        }
    }
}
