//! `crag score`: pairs from files, stdin or flags; probabilities on stdout.
//!
//! Arguments as typed become inputs and [`Options`] here; what happens to lines is [`crate::scoring`]'s.

mod ensemble;
mod pair;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use super::device::{DeviceArgs, print_profile};
use super::inputs::{InputArgs, Inputs};
use super::model::ModelsArgs;
use super::values::{parse_bytes, parse_count, parse_threads, parse_threshold};
use super::{Outcome, UsageError, note};
use crate::files::Input;
use crate::scoring::{self, Counts, Format, MissingEntity, OnError, Options, OutputKey, ScoreError, Stream};
use crate::text::Window;
use anyhow::Context as _;
use ensemble::Ensemble;

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

Exit codes: 0 all scored; 1 could not run or go on; 2 usage; 3 finished, some lines are error records.")]
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
    let output_key = args.output();
    let inputs = args.input.resolve(&output_key)?;
    inputs.check(&output_key, args.max_line_bytes)?;
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
    let options = args.options(ensemble.threshold(), &inputs);
    match record {
        Some(record) => score_pair(&args, &ensemble, &record, options),
        None => score_lines(&args, &ensemble, inputs.open(), &options),
    }
}

fn score_lines(
    args: &ScoreArgs,
    ensemble: &Ensemble,
    inputs: Vec<Input>,
    options: &Options,
) -> anyhow::Result<Outcome> {
    let reads_terminal = inputs.iter().any(|input| matches!(input, Input::Stdin)) && io::stdin().is_terminal();
    if reads_terminal && !args.quiet {
        let what = match options.format {
            Format::Jsonl => "one JSON object a line",
            Format::Csv | Format::Tsv => "a header row first",
        };
        note(&format!("reading pairs from the terminal, {what}; ctrl-d ends"));
    }
    match score(args, ensemble, inputs, &mut io::stdout().lock(), options) {
        Ok(counts) => {
            if !args.quiet {
                note(&counts.to_string());
            }
            Ok(outcome(&counts))
        }
        Err(ScoreError::ClosedPipe) => Ok(Outcome::ClosedPipe),
        Err(error) => Err(error.into()),
    }
}

/// Scores the pair given by flags as if it were a line, so that all that is checked there is checked here.
fn score_pair(args: &ScoreArgs, ensemble: &Ensemble, record: &str, mut options: Options) -> anyhow::Result<Outcome> {
    let readable = !args.pair.json && io::stdout().is_terminal();
    if readable {
        options.output = OutputKey::default();
    }
    // Flags have no length limit of ours.
    options.max_line_bytes = usize::MAX;
    let line = io::Cursor::new(record.as_bytes().to_vec());
    let inputs = vec![Input::Reader("<flags>".to_owned(), Box::new(line))];
    let mut answer = Vec::new();
    let counts = score(args, ensemble, inputs, &mut answer, &options)?;
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

fn score(
    args: &ScoreArgs,
    ensemble: &Ensemble,
    inputs: Vec<Input>,
    output: &mut dyn io::Write,
    options: &Options,
) -> Result<Counts, ScoreError> {
    let window = match args.window {
        WindowArg::Start => Window::Start,
        WindowArg::Mention => Window::Mention,
    };
    let missing_entity = match args.missing_entity {
        MissingEntityArg::Error => MissingEntity::Error,
        MissingEntityArg::Unmarked => MissingEntity::Unmarked,
    };
    let preparers = ensemble.preparers(window, missing_entity);
    let members = ensemble.members(&preparers);
    let counts = scoring::run_into(inputs, &mut Stream::new(output), &members, options);
    print_profile();
    if let Some(problem) = ensemble.flush_cache() {
        note(&problem);
    }
    counts
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
    fn output(&self) -> OutputKey {
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
            output: self.output(),
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
