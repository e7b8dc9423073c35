//! `crag score`: pairs from files, stdin or flags; probabilities on stdout or in a file.
//!
//! Arguments as typed become inputs and [`Options`] here; what happens to lines is [`crate::scoring`]'s.

mod ensemble;
mod output;
mod pair;
mod reports;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::config::SettingRow;
use super::device::{DeviceArgs, tell_gpu_work};
use super::inputs::{Inputs, named_otherwise};
use super::manifest::{self, End, OutputRecord};
use super::model_args::ModelsArgs;
use super::progress::{Meter, ProgressArgs, Watched};
use super::records::{RecordArgs, WindowArg};
use super::report_file::is_closed_pipe;
use super::signals::SignalWatch;
use super::threads::start_pool;
use super::values::{parse_count, parse_threads, parse_threshold};
use super::{Outcome, UsageError, console};
use crate::files::{Companion, Input, OutputFile, is_same_file};
use crate::scoring::{
    self, Counts, Finished, KERNEL, ON_ERROR, OnError, Options, OutputKey, RECORD_FORMAT, SHARD, ScoreError, Setting,
    Sink, Stream,
};
use crate::words::counted;
use anyhow::Context as _;
use ensemble::Ensemble;
use output::{Output, OutputArgs, Scored};
pub use reports::tell_failure_before_run;
use reports::{Account, Models, ReportArgs, Reports};

/// What to score, with what, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line in is a JSON object with \"drug\" (or \"drug_entity\"), \"adr\" (or \"adr_entity\") and \"text\", or \
\"drug_text\" with \"adr_text\". \"drug_span\" and \"adr_span\", [start, end) in code points, mark one occurrence \
instead of all. Each line out is the same object with \"probability\" and \"causal\" added, or with an \"error\".

CSV and TSV have the same names in their header; spans are 3:9 or [3,9]. Each row keeps its bytes and gets the columns \
probability, causal, warnings, error_code and error_message, after causal also calibrated_probability with \
--calibrated and probabilities of several models (with --output-key KEY: KEY_probability and so on). \
--field reads fields from other places: --field text=/abstract/body, in tables --field text=Abstract.

Examples:
  crag score pairs.jsonl > scored.jsonl
  tail -f pairs.jsonl | crag score --model demo
  crag score --field text=/abstract/body 1.jsonl.gz 2.jsonl.zst > scored.jsonl
  crag score --shard 3/8 pairs.csv > part-3.csv
  crag score -m owner/a -m owner/b --manifest ran.json pairs.jsonl > both.jsonl
  crag score --text 'Aspirin caused bleeding.' --drug Aspirin --adr bleeding
  crag score -o scored.jsonl.gz --resume pairs.jsonl   # again after any mishap

Exit codes: 0 all scored; 1 could not run or go on; 2 usage, or not the run that -o belongs to; 3 finished, some lines \
are error records; 11 another run is writing -o; 129, 130, 143 interrupted; 141 whoever read stdout stopped reading.")]
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

    /// Also give "calibrated_probability", by the calibration that crag calibrate wrote into the model's crag.json (of
    /// several models, the mean); "probability" and "causal" stay the model's own
    #[arg(long, help_heading = "Model")]
    calibrated: bool,

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
    output: OutputArgs,

    #[command(flatten)]
    progress: ProgressArgs,

    #[command(flatten)]
    reports: ReportArgs,

    #[command(flatten)]
    pair: Box<pair::PairArgs>,

    /// The config file beneath these.
    #[arg(skip)]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnErrorArg {
    Record,
    Fail,
}

/// `config`: the file that some of the settings are from, if one was named.
pub fn run(mut args: ScoreArgs, settings: Vec<SettingRow>, config: Option<PathBuf>) -> anyhow::Result<Outcome> {
    args.config = config;
    match prepare(&mut args, &settings) {
        Ok(prepared) => prepared.score(&args, &settings),
        Err(error) => {
            let output = args.output.target();
            args.reports
                .tell_failure(&error, output.as_deref(), args.cache.as_deref(), &args.files_read());
            Err(error)
        }
    }
}

/// A run that can begin.
struct Prepared {
    /// The pair that flags give.
    record: Option<String>,
    signals: Arc<SignalWatch>,
    what: Inputs,
    inputs: Vec<Input>,
    output: Output,
    reports: Reports,
    started: Timestamp,
    ensemble: Ensemble,
}

fn prepare(args: &mut ScoreArgs, settings: &[SettingRow]) -> anyhow::Result<Prepared> {
    // What can be wrong before a model has been fetched and read is said before.
    let record = args.pair.record()?;
    if record.is_some() && args.records.input.say_how() {
        let message =
            "one pair given by flags has no --format, --field or --shard (nor from the environment or --config)";
        return Err(UsageError(message.to_owned()).into());
    }
    args.output.check(settings)?;
    // Before headers are looked at: what the answers hold says which names are taken.
    let key = args.records.output_key.take().unwrap_or_default();
    let key = key.of_members(args.model.each()?.len());
    args.records.output_key = Some(key.with_calibrated(args.calibrated));
    let signals = SignalWatch::start()?;
    let what = args.records.resolve()?;
    let inputs = match &record {
        Some(record) => vec![flags_as_input(record)],
        None => what.open(),
    };
    let earlier = args.reports.earlier_summary(
        args.output.target().as_deref(),
        args.cache.as_deref(),
        &args.files_read(),
    );
    if let Some(summary) = earlier.clone() {
        // While another run's lock is waited for.
        signals.before_end(move |signal| {
            if !summary.is_of_a_run_under_way() {
                let _ = summary.replace(&End::new(&Ok(Outcome::Interrupted(signal))));
            }
        });
    }
    let output = args.output.claim(&inputs)?;
    if let Some(remark) = (args.output.target()).and_then(|path| named_otherwise(&path, what.format)) {
        console::warn(&remark);
    }
    let reports = Reports::open(
        &args.reports,
        &args.files_read(),
        &inputs,
        &output,
        args.cache.as_deref(),
    )?;
    if let Some(summary) = earlier {
        summary.begin()?;
        signals.before_end(move |signal| {
            let _ = summary.replace(&End::new(&Ok(Outcome::Interrupted(signal))));
        });
    }
    start_pool(args.threads)?;
    console::allow_bars(args.progress.wants_bars());
    let started = Timestamp::now();
    let mut ensemble = Ensemble::open(&args.model, &args.device, args.cache.as_deref())?;
    if args.calibrated {
        ensemble.calibrate()?;
    }
    Ok(Prepared {
        record,
        signals,
        what,
        inputs,
        output,
        reports,
        started,
        ensemble,
    })
}

impl Prepared {
    fn score(self, args: &ScoreArgs, settings: &[SettingRow]) -> anyhow::Result<Outcome> {
        let ensemble = self.ensemble;
        let models = ensemble.models.iter();
        models
            .filter_map(|model| model.model.unused_packed.as_deref())
            .for_each(console::note);
        let mut options = args.options(ensemble.threshold(), &self.what);
        if self.record.is_some() {
            // Flags have no length limit of ours.
            options.max_line_bytes = usize::MAX;
        }
        tell_details(args, &ensemble, &options, settings);
        let run = Run {
            args,
            ensemble: &ensemble,
            signals: &self.signals,
            account: Account {
                ensemble: &ensemble,
                run_id: self.reports.run_id.clone(),
                started: self.started,
                settings,
                options: &options,
            },
        };
        std::thread::scope(|scope| {
            // Hashing a gigabyte takes seconds: beside the run, not before it.
            let hash = || std::thread::Builder::new().spawn_scoped(scope, || ensemble.records());
            let started = self.reports.wants_manifest().then(hash).transpose();
            let started = started
                .context("cannot start a thread that hashes the weights: raise the limit on threads (ulimit -u)");
            let models = Models::default();
            let (result, counts) = match started.map(|hashing| models.0.replace(hashing)) {
                Err(error) => (Err(error), Counts::default()),
                Ok(_) if self.record.is_some() && !args.output.is_given() => {
                    run.score_pair(self.inputs, options.clone())
                }
                Ok(_) => run.score_lines(self.inputs, &self.what, self.output, &self.reports, &models),
            };
            let written = self.reports.write(&run.account, &models, &End::new(&result), &counts);
            // The run's own end is what the exit code tells of.
            match (result, written) {
                (Ok(_), Err(error)) if is_closed_pipe(&error) => Ok(Outcome::ClosedPipe),
                (Ok(_), Err(error)) => Err(error),
                (Err(run), Err(error)) => {
                    console::warn(&format!("{error:#}"));
                    Err(run)
                }
                (result, Ok(())) => result,
            }
        })
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
    account: Account<'r>,
}

impl Run<'_> {
    /// Scores all inputs into `output`. Returns how that ended, and what had been answered by then.
    fn score_lines(
        &self,
        inputs: Vec<Input>,
        what: &Inputs,
        output: Output,
        reports: &Reports,
        models: &Models<'_>,
    ) -> (anyhow::Result<Outcome>, Counts) {
        let options = self.account.options;
        let to_stdout = matches!(output, Output::Stdout);
        let meter = self.args.progress.start(what.sizes(), &options.gauge, to_stdout);
        let scored = match output {
            Output::Stdout => {
                let mut stdout = console::Records::lock();
                self.score(inputs, &mut Stream::new(&mut stdout), options, &meter)
            }
            Output::Stream(mut file) => self.score(inputs, &mut Stream::new(&mut file), options, &meter),
            Output::File(file) => return self.score_file(inputs, what, file, (reports, models), meter),
        };
        let so_far = meter.counts();
        // The bar goes before anything else is said.
        drop(meter);
        match scored {
            Ok(counts) => {
                output::report_summary(&counts.to_string(), &counts);
                (Ok(Outcome::of(&counts)), counts)
            }
            Err(ScoreError::ClosedPipe) => (Ok(Outcome::ClosedPipe), so_far),
            Err(ScoreError::Interrupted) => {
                console::note("interrupted; what was finished has been written (with -o a run can be resumed)");
                (Ok(self.signals.outcome()), so_far)
            }
            Err(error) => (Err(error.into()), so_far),
        }
    }

    /// As [`Self::score_lines`], into a file that appears when it is complete.
    fn score_file(
        &self,
        inputs: Vec<Input>,
        what: &Inputs,
        file: OutputFile,
        (reports, models): (&Reports, &Models<'_>),
        meter: Meter,
    ) -> (anyhow::Result<Outcome>, Counts) {
        let options = self.account.options;
        let target = file.target().to_owned();
        let path = target.display().to_string();
        let manifest = reports.beside_output(file.target());
        let settings = match self.settings(options) {
            Ok(settings) => settings,
            Err(error) => return (Err(error), meter.counts()),
        };
        let plan = self.args.output.plan(&inputs, settings, &manifest);
        let score = |inputs, sink: &mut dyn Sink, options: &Options| {
            meter.goes_on_from(&options.start.counts);
            self.score(inputs, sink, options, &meter)
        };
        let companions = |finished: &Finished| {
            let output = OutputRecord {
                path,
                bytes: finished.bytes,
                blake3: finished.digest.to_hex().to_string(),
            };
            let resume = Some(finished.evidence.clone());
            let end = End::new(&Ok(Outcome::of(&finished.counts)));
            let text = self
                .account
                .manifest(models, &end, &finished.counts, Some(output), resume)?;
            let contents = manifest::to_text(&text)?;
            let path = manifest.clone();
            let replaces = manifest::is_manifest;
            Ok(vec![Companion {
                path,
                contents,
                replaces,
            }])
        };
        let output = &self.args.output;
        let options = options.clone();
        let can_be_reread = inputs.iter().all(Input::can_be_reread);
        let again = can_be_reread.then(|| what.open());
        let scored = output.score_to_file(file, plan, inputs, again, options, score, companions);
        let so_far = meter.counts();
        drop(meter);
        match scored {
            Ok(scored) => {
                let is_new = matches!(scored, Scored::Complete { .. });
                if is_new && !is_same_file(&manifest, &manifest::beside(&target)) {
                    manifest::remove_stale(&target);
                }
                let (outcome, counts) = scored.report(|| self.signals.outcome());
                (Ok(outcome), counts.unwrap_or(so_far))
            }
            Err(error) => (Err(error), so_far),
        }
    }

    fn score_pair(&self, inputs: Vec<Input>, mut options: Options) -> (anyhow::Result<Outcome>, Counts) {
        let readable = !self.args.pair.json && io::stdout().is_terminal();
        if readable {
            options.output = OutputKey::default();
        }
        let mut answer = Vec::new();
        let meter = Meter::silent();
        let counts = match self.score(inputs, &mut Stream::new(&mut answer), &options, &meter) {
            Ok(counts) => counts,
            Err(ScoreError::Interrupted) => return (Ok(self.signals.outcome()), meter.counts()),
            Err(error) => return (Err(error.into()), meter.counts()),
        };
        let print = || -> anyhow::Result<Outcome> {
            let answer = String::from_utf8(answer).context("the answer")?;
            let text = if readable {
                pair::readable_answer(&serde_json::from_str(&answer)?, options.threshold)
            } else {
                answer
            };
            Ok(super::print(&text)?.and(Outcome::of(&counts)))
        };
        (print(), counts)
    }

    fn score(
        &self,
        inputs: Vec<Input>,
        sink: &mut dyn Sink,
        options: &Options,
        meter: &Meter,
    ) -> Result<Counts, ScoreError> {
        let records = &self.args.records;
        let preparers = self
            .ensemble
            .preparers(self.args.window.into(), records.missing_entity());
        let members = self.ensemble.members(&preparers);
        let options = Options {
            stop: Some(self.signals.run_begins()),
            ..options.clone()
        };
        let mut sink = Watched { inner: sink, meter };
        let counts = scoring::run_into(inputs, &mut sink, &members, &options);
        tell_gpu_work();
        if let Some(problem) = self.ensemble.flush_cache() {
            console::warn(&problem);
        }
        if let Ok(counts) = &counts {
            console::detail(&format!(
                "{}, {} tokens encoded, {:.0} tokens/s",
                counted(counts.windows, "window of lines", "windows of lines"),
                counts.tokens,
                counts.tokens as f64 / counts.elapsed.as_secs_f64().max(1e-9)
            ));
        }
        counts
    }

    /// Everything that answers depend on, besides the lines and the program: whoever adds a flag that changes an
    /// answer adds it here, or `--resume` mixes two kinds of answers in one file.
    fn settings(&self, options: &Options) -> anyhow::Result<Vec<Setting>> {
        let args = self.args;
        let mut settings = Vec::new();
        if self.ensemble.models.len() > 1 {
            let names: Vec<&str> = self.ensemble.models.iter().map(|model| model.name.as_str()).collect();
            settings.push(Setting::new("the order of the models", names.join(", ")));
        }
        for model in &self.ensemble.models {
            // Names are in the answers of several models alone.
            let setting = match self.ensemble.models.len() {
                1 => "model".to_owned(),
                _ => format!("model {}", model.name),
            };
            settings.push(Setting::new(setting, model.model.identity()?));
            settings.push(Setting::new(KERNEL, &model.model.kernel));
        }
        settings.extend([
            Setting::new("--threshold", options.threshold),
            Setting::new("--max-line-bytes", options.max_line_bytes),
            Setting::new("--missing-entity", name_of(args.records.missing_entity)),
            Setting::new("--window", name_of(args.window)),
            Setting::new(RECORD_FORMAT, options.format.name()),
        ]);
        let fields = args.records.input.fields.iter();
        settings.extend(fields.map(|(field, place)| Setting::new(format!("--field {field}"), place)));
        settings.extend(options.shard.map(|shard| Setting::new(SHARD, shard)));
        settings.extend(options.output.key().map(|key| Setting::new("--output-key", key)));
        settings.extend(
            self.ensemble
                .calibrations()?
                .map(|hash| Setting::new("--calibrated", hash)),
        );
        settings.push(match options.on_error {
            // No line that a run ended at was answered.
            OnError::Record => Setting::new(ON_ERROR, "record").accepting("fail"),
            OnError::Fail => Setting::new(ON_ERROR, "fail"),
        });
        Ok(settings)
    }
}

/// A flag's value as typed.
fn name_of(value: impl clap::ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
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
            description.source_of(&config.threshold),
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
    for row in settings.iter().filter(|row| !row.is_default()) {
        let line = format!("--{} is {} ({})", row.setting, row.value, row.from);
        console::detail(&redactor.redact(&line));
    }
}

impl ScoreArgs {
    /// The names of all that is read.
    fn files_read(&self) -> Vec<PathBuf> {
        let mut files = self.records.input.files.clone();
        files.extend(self.model.files());
        files.extend(self.config.clone());
        files
    }

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
