//! `crag score`: pairs from files, stdin or flags; probabilities on stdout.
//!
//! Arguments as typed become inputs and [`Options`] here; what happens to lines is [`crate::scoring`]'s.

mod ensemble;
mod pair;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use jiff::Timestamp;

use super::config::SettingRow;
use super::device::{DeviceArgs, print_profile};
use super::inputs::Inputs;
use super::manifest::{self, End, FileRecord, Manifest, ModelRecord, ReportFile, RunRecord};
use super::model::ModelsArgs;
use super::progress::{Meter, ProgressArgs, Watched};
use super::records::RecordArgs;
use super::values::{parse_count, parse_threads, parse_threshold};
use super::{Outcome, UsageError, console};
use crate::files::Input;
use crate::scoring::{self, Counts, InputReport, OnError, Options, OutputKey, ScoreError, Stream};
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
  crag score -m owner/model-a -m owner/model-b --manifest ran.json pairs.jsonl > scored.jsonl
  crag score --text 'Aspirin caused bleeding.' --drug Aspirin --adr bleeding

Exit codes: 0 all scored; 1 could not run or go on; 2 usage; 3 finished, some lines are error records.")]
pub struct ScoreArgs {
    #[command(flatten)]
    records: RecordArgs,

    /// What a line that cannot be scored does: become an error record, or end the run
    #[arg(long, value_name = "WHAT", default_value = "record", help_heading = "Records")]
    on_error: OnErrorArg,

    #[command(flatten)]
    model: ModelsArgs,

    /// Pairs with at least this probability are "causal" [default: the model's own, else 0.55; with several
    /// models the mean of theirs]
    #[arg(long, value_name = "P", value_parser = parse_threshold, help_heading = "Model")]
    threshold: Option<f32>,

    /// Which part of a text that is too long to keep: its start, or the tokens around the mention
    #[arg(long, value_name = "PART", default_value = "start", help_heading = "Model")]
    window: WindowArg,

    #[command(flatten)]
    device: DeviceArgs,

    /// Threads to compute with [default: all available cores]
    #[arg(long, value_name = "N", value_parser = parse_threads, help_heading = "Device")]
    threads: Option<usize>,

    /// Tokens encoded together [default: by device]
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = "Device")]
    batch_tokens: Option<usize>,

    /// Encode equal texts each time they come (results are the same, only slower)
    #[arg(long, help_heading = "Device")]
    no_reuse: bool,

    /// Keep the encoders' results in this file, and take from it what an earlier run left there: the same
    /// texts with the same model and --dtype are then not encoded again (results are the same)
    #[arg(long, value_name = "FILE", help_heading = "Device")]
    cache: Option<PathBuf>,

    #[command(flatten)]
    progress: ProgressArgs,

    #[command(flatten)]
    reports: ReportArgs,

    #[command(flatten)]
    pair: Box<pair::PairArgs>,
}

/// What is written about a run besides its answers.
#[derive(Debug, clap::Args)]
struct ReportArgs {
    /// Write what ran to this file (JSON): program, models with hashes, settings and where each came from, counts,
    /// times; secrets are left out
    #[arg(help_heading = "Reports", long, value_name = "FILE")]
    manifest: Option<PathBuf>,

    /// Write how the run ended and its counts and speeds to this file (JSON)
    #[arg(help_heading = "Reports", long, value_name = "FILE")]
    summary_json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnErrorArg {
    Record,
    Fail,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum WindowArg {
    Start,
    Mention,
}

pub fn run(args: ScoreArgs, settings: Vec<SettingRow>) -> anyhow::Result<Outcome> {
    // What can be wrong before a model has been fetched and read is said before.
    let record = args.pair.record()?;
    if record.is_some() && args.records.input.say_how() {
        let message = "one pair given by flags has no --format, --field or --shard";
        return Err(UsageError(message.to_owned()).into());
    }
    let inputs = args.records.resolve()?;
    let reports = Reports::open(&args.reports, &inputs)?;
    // Loading runs on rayon's global pool. It can only be set once, and nothing has used it yet; 0 is rayon's default.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads.unwrap_or(0))
        .thread_name(|i| format!("crag-load-{i}"))
        .build_global();
    console::allow_bars(args.progress.wants_bars());
    let started = Timestamp::now();
    let ensemble = Ensemble::open(&args.model, &args.device, args.cache.as_deref())?;
    for text in ensemble
        .models
        .iter()
        .filter_map(|model| model.model.unused_packed.as_deref())
    {
        console::note(text);
    }
    let options = args.options(ensemble.threshold(), &inputs);
    tell_details(&args, &ensemble, &options, &settings);
    std::thread::scope(|scope| {
        // Hashing a gigabyte takes seconds: beside the run, not before it.
        let hashing = reports.manifest.is_some().then(|| scope.spawn(|| ensemble.records()));
        let (result, counts) = match record {
            Some(record) => score_pair(&args, &ensemble, &record, options.clone()),
            None => score_lines(&args, &ensemble, &inputs, &options),
        };
        let hashed = hashing.map(|hashing| hashing.join());
        let models = match hashed.transpose() {
            Ok(models) => models.unwrap_or_default(),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let run = run_record(&ensemble, &options, settings, models, &counts);
        let written = reports.write(&run, started, &End::new(&result), &counts);
        // The run's own end is what the exit code tells of.
        match (result, written) {
            (Ok(_), Err(error)) => Err(error),
            (Err(run), Err(error)) => {
                console::warn(&format!("{error:#}"));
                Err(run)
            }
            (result, Ok(())) => result,
        }
    })
}

/// The files that tell of the run, opened.
struct Reports {
    manifest: Option<ReportFile>,
    summary: Option<ReportFile>,
    run_id: String,
}

impl Reports {
    fn open(args: &ReportArgs, inputs: &Inputs) -> anyhow::Result<Self> {
        let ReportArgs { manifest, summary_json } = args;
        if manifest.is_some() && manifest == summary_json {
            return Err(UsageError("--manifest and --summary-json: expected two files, found one".into()).into());
        }
        let open = |flag: &str, path: &Option<PathBuf>| match path {
            Some(path) if inputs.read(path) => Err(anyhow::Error::new(UsageError(format!(
                "{flag} {}: this file is read as an input",
                path.display()
            )))),
            Some(path) => ReportFile::create(flag, path).map(Some),
            None => Ok(None),
        };
        Ok(Self {
            manifest: open("--manifest", manifest)?,
            summary: open("--summary-json", summary_json)?,
            run_id: manifest::run_id(),
        })
    }

    fn write(self, run: &RunRecord, started: Timestamp, end: &End, counts: &Counts) -> anyhow::Result<()> {
        if let Some(file) = self.manifest {
            let manifest = Manifest::new("score", &self.run_id, started, run.clone());
            file.finish(&manifest.ended(Timestamp::now(), end, counts)?)?;
        }
        if let Some(file) = self.summary {
            file.finish(&manifest::summary(&self.run_id, end, counts)?)?;
        }
        Ok(())
    }
}

fn run_record(
    ensemble: &Ensemble,
    options: &Options,
    settings: Vec<SettingRow>,
    models: Vec<ModelRecord>,
    counts: &Counts,
) -> RunRecord {
    let input = |report: &InputReport| FileRecord {
        name: report.name.clone(),
        bytes: report.digest.bytes,
        sha256: report.digest.sha256_hex(),
    };
    let inputs: Vec<FileRecord> = counts.inputs.iter().map(input).collect();
    let given = settings.iter().find(|row| row.setting == "threshold");
    RunRecord {
        models,
        threshold: ensemble.threshold_record(given, options.threshold),
        precision: ensemble.device.placement.precision.name().to_owned(),
        device: ensemble.device.description.clone(),
        kernels: ensemble.device.kernel.clone(),
        threads: options.threads,
        settings,
        // They have hashes once they have been read to their ends.
        inputs: (!inputs.is_empty()).then_some(inputs),
        output: None,
    }
}

/// What `--verbose` asks for, before the first answer.
fn tell_details(args: &ScoreArgs, ensemble: &Ensemble, options: &Options, settings: &[SettingRow]) {
    if !console::is_verbose() {
        return;
    }
    for model in &ensemble.models {
        let description = &model.model.description;
        let config = &description.config;
        console::detail(&format!(
            "model {}: {}, {}, tokenizer {}, at most {} tokens, own threshold {} ({})",
            model.name,
            description.files.source,
            description.checkpoint.storage(),
            description.tokenizer.description(),
            *config.max_length,
            *config.threshold,
            config.threshold.source,
        ));
    }
    console::detail(&format!(
        "device {}, {} threads, threshold {}",
        ensemble.device.description, options.threads, options.threshold
    ));
    if let Some(path) = &args.cache {
        console::detail(&format!("cache {}", path.display()));
    }
    let redactor = manifest::Redactor::from_env();
    for row in settings.iter().filter(|row| row.from != "default") {
        let line = format!("--{} is {} ({})", row.setting, row.value, row.from);
        console::detail(&redactor.redact(&line));
    }
}

/// Scores all inputs onto stdout. Returns how that ended, and what had been answered by then.
fn score_lines(
    args: &ScoreArgs,
    ensemble: &Ensemble,
    inputs: &Inputs,
    options: &Options,
) -> (anyhow::Result<Outcome>, Counts) {
    let meter = args.progress.start(inputs.total_bytes(), true);
    let inputs = inputs.open();
    let scored = score(args, ensemble, inputs, &mut console::Records::lock(), options, &meter);
    let so_far = meter.counts();
    // The bar goes before anything else is said.
    drop(meter);
    match scored {
        Ok(counts) => {
            console::report("summary", &counts.to_string(), manifest::numbers(&counts));
            console::detail(&format!(
                "{} windows of lines, {} tokens encoded, {:.0} tokens/s",
                counts.windows,
                counts.tokens,
                counts.tokens as f64 / counts.elapsed.as_secs_f64().max(1e-9)
            ));
            (Ok(Outcome::of(&counts)), counts)
        }
        Err(ScoreError::ClosedPipe) => (Ok(Outcome::ClosedPipe), so_far),
        Err(error) => (Err(error.into()), so_far),
    }
}

/// Scores the pair given by flags as if it were a line, so that all that is checked there is checked here.
fn score_pair(
    args: &ScoreArgs,
    ensemble: &Ensemble,
    record: &str,
    mut options: Options,
) -> (anyhow::Result<Outcome>, Counts) {
    let readable = !args.pair.json && io::stdout().is_terminal();
    if readable {
        options.output = OutputKey::default();
    }
    // Flags have no length limit of ours.
    options.max_line_bytes = usize::MAX;
    let line = io::Cursor::new(record.as_bytes().to_vec());
    let inputs = vec![Input::Reader("<flags>".to_owned(), Box::new(line))];
    let mut answer = Vec::new();
    let meter = Meter::silent();
    let scored = score(args, ensemble, inputs, &mut answer, &options, &meter);
    let counts = match scored {
        Ok(counts) => counts,
        Err(error) => return (Err(error.into()), meter.counts()),
    };
    let print = || -> anyhow::Result<Outcome> {
        let answer = String::from_utf8(answer).context("the answer")?;
        let text = if readable {
            pair::readable_answer(&serde_json::from_str(&answer)?, options.threshold)
        } else {
            answer
        };
        Ok(match super::print(&text)? {
            Outcome::Complete => Outcome::of(&counts),
            other => other,
        })
    };
    (print(), counts)
}

fn score(
    args: &ScoreArgs,
    ensemble: &Ensemble,
    inputs: Vec<Input>,
    output: &mut dyn io::Write,
    options: &Options,
    meter: &Meter,
) -> Result<Counts, ScoreError> {
    let window = match args.window {
        WindowArg::Start => Window::Start,
        WindowArg::Mention => Window::Mention,
    };
    let preparers = ensemble.preparers(window, args.records.missing_entity());
    let members = ensemble.members(&preparers);
    let mut sink = Watched {
        inner: &mut Stream::new(output),
        meter,
    };
    let counts = scoring::run_into(inputs, &mut sink, &members, options);
    print_profile();
    if let Some(problem) = ensemble.flush_cache() {
        console::warn(&problem);
    }
    counts
}

impl ScoreArgs {
    fn options(&self, model_threshold: f32, inputs: &Inputs) -> Options {
        let of_records = self.records.options(inputs);
        Options {
            threshold: self.threshold.unwrap_or(model_threshold),
            on_error: match self.on_error {
                OnErrorArg::Record => OnError::Record,
                OnErrorArg::Fail => OnError::Fail,
            },
            threads: self.threads.unwrap_or(of_records.threads),
            batch_tokens: self.batch_tokens,
            reuse: !self.no_reuse,
            ..of_records
        }
    }
}
