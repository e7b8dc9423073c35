//! `crag train`: labelled pairs and a backbone in, a folder that `crag score` loads out.
//!
//! Arguments and a TOML file become [`Settings`] here, the finished folder is put together here; the run is
//! [`crate::training`]'s.

mod data;
mod output;
mod progress;
mod recipe;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use candle_core::{DType, Device};
use jiff::Timestamp;

use self::data::{Data, prepare};
use self::output::{BackboneRecord, Facts, Finished};
use self::progress::Progress;
use self::recipe::RecipeArgs;
use super::config::SettingRow;
use super::device::PlaceArgs;
use super::doubts::{check_vocabulary, doubts, warn_of};
use super::inputs::{given_twice, refuse_stdin_twice};
use super::model::hub_options;
use super::model_folder;
use super::progress::ProgressArgs;
use super::signals::SignalWatch;
use super::threads::start_pool;
use super::values::{parse_bytes, parse_seconds, parse_threads};
use super::{Outcome, UsageError, console, note};
use crate::checkpoint::{ModelSource, locate};
use crate::files::Claim;
use crate::training::{
    BackboneSettings, Job, Origin, Parameters, Settings, Split, Start, TrainError, Trained, dataset::Dataset,
    state::WorkFolder,
};
use crate::words::counted;

/// Trains a dual encoder on labelled pairs with the model card's recipe.
#[derive(Debug, clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
Each line of the data is a record as `crag score` reads it, with a label (0, 1, false or true; a file without any holds \
related pairs alone) and its document, by which data is split. Phase 1 is contrastive, phase 2 fine-tunes; the epoch of \
phase 2 with the best F1 on the validation pairs (of equals, the best ROC-AUC) is kept, with its best threshold.

The recipe is the card's unless a file (--recipe, TOML, whose keys the flags below name in brackets) or a flag says \
otherwise; a flag counts more. --config is for flags, as everywhere: in its section [train], recipe = \"FILE\" and so on.

A table [backbone] in the recipe makes an encoder from scratch, with a vocabulary of the training texts: hidden_size = 128, \
num_hidden_layers = 2, num_attention_heads = 2, intermediate_size = 512, vocab_size = 4000 (at most), \
max_position_embeddings = 128, lowercase = true.

Keys of the recipe without a flag: head.activation = \"gelu\" (or gelu_new, relu, tanh), negatives.neighbours = 8 (among how many \
nearest contexts a hard negative is drawn), optimizer.beta1 = 0.9, optimizer.beta2 = 0.999, optimizer.eps = 1e-8.

Examples:
  crag train --backbone DIR --train a.jsonl --valid b.jsonl --out my-model
  crag train --recipe with-backbone.toml --train a.jsonl --out my-model
  crag train ... --out my-model --resume   # after a kill: to the same weights

Exit codes: 0 done; 1 could not run or go on; 2 usage, or --resume with other settings or data; 3 done, but some lines \
were no labelled pairs; 11 another run writes this output; 129, 130, 143 interrupted."
)]
pub struct TrainArgs {
    /// Labelled pairs (JSONL, or CSV and TSV by their names); several files are one data set. gzip, zstd and bzip2 are unpacked
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    train: Vec<PathBuf>,

    /// Labelled pairs to validate on; their documents are left out of training
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "valid_fraction")]
    valid: Vec<PathBuf>,

    /// BERT checkpoint that both encoders begin from: a folder, a weight file, or a hub id
    #[arg(long, value_name = "DIR|ID")]
    backbone: Option<String>,

    /// Branch, tag or commit of the backbone on the hub [default: main]
    #[arg(long, value_name = "REV")]
    revision: Option<String>,

    /// Make no network connection: cached files only (also HF_HUB_OFFLINE=1)
    #[arg(long)]
    offline: bool,

    /// The recipe as TOML
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,

    /// Field with the label: 0, 1, false or true
    #[arg(long, value_name = "FIELD", default_value = "label", help_heading = "Records")]
    gold: String,

    /// Field that names a record's document [default: the first there is of doc_id, pmid, document_id]
    #[arg(long, value_name = "FIELD", help_heading = "Records")]
    document: Option<String>,

    /// Longest line; a longer one is read past and counted as an error (KiB, MiB and GiB are understood)
    #[arg(long, value_name = "BYTES", default_value = "16MiB", value_parser = parse_bytes, help_heading = "Records")]
    max_line_bytes: usize,

    /// Folder to write; it appears only once everything in it is complete (OUT.partial holds the run until then)
    #[arg(long, short, alias = "output", value_name = "OUT", help_heading = "Output")]
    out: PathBuf,

    /// Replace OUT if it exists (once the new one is complete), and an unfinished OUT.partial
    #[arg(long, conflicts_with = "resume", help_heading = "Output")]
    force: bool,

    /// Go on where an earlier run of the same command ended, to the same result; from the beginning if there was none
    #[arg(long, help_heading = "Output")]
    resume: bool,

    /// Keep what --resume needs at most this often, besides every epoch's end
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds, help_heading = "Output")]
    save_every: Duration,

    /// Wait this long for another run that is writing OUT
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = parse_seconds, help_heading = "Output")]
    lock_timeout: Duration,

    /// Storage of the trained weights, as crag convert has it; training itself is in f32, figures and threshold are of
    /// what is stored
    #[arg(long, value_enum, default_value_t = Storage::F32, value_name = "DTYPE", help_heading = "Output")]
    save_dtype: Storage,

    #[command(flatten)]
    place: PlaceArgs,

    /// Threads to compute with; results do not depend on it [default: all available cores]
    #[arg(long, value_name = "N", value_parser = parse_threads, help_heading = "Device")]
    threads: Option<usize>,

    #[command(flatten)]
    progress: ProgressArgs,

    #[command(flatten, next_help_heading = "Recipe")]
    flags: RecipeArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Storage {
    F32,
    F16,
    Bf16,
}

impl Storage {
    fn dtype(self) -> DType {
        match self {
            Storage::F32 => DType::F32,
            Storage::F16 => DType::F16,
            Storage::Bf16 => DType::BF16,
        }
    }
}

/// A ROC-AUC below it is that of a model that tells nothing apart, within what so many pairs show.
const CHANCE: f64 = 0.55;

pub fn run(args: TrainArgs, flags: Vec<SettingRow>) -> anyhow::Result<Outcome> {
    let settings = args.settings()?;
    let signals = SignalWatch::start()?;
    let claim = Claim {
        force: args.force,
        resume: args.resume,
        wait: args.lock_timeout,
    };
    let output = model_folder::claim(&args.out, claim, &args.reads())?;
    start_pool(args.threads)?;
    console::allow_bars(args.progress.wants_bars());
    let started = Timestamp::now();
    let device = args.place.open()?;
    let (split, all, files) = args.read(&settings)?;
    let (start, backbone) = args.start(&settings, &split)?;
    check_vocabulary(&start.source, &start.tokenizer, &start.network.roles)?;
    let doubts = doubts(&start.network.roles, &start.network.config, &start.tokenizer);
    warn_of(&doubts, &start.source);
    let data = prepare(&settings, &start, &split, &all, files)?;
    let parameters =
        Parameters::new(&start.network.roles, &start.tensors, &device.placement.device).map_err(TrainError::from)?;
    let facts = Facts {
        started,
        settings: &settings,
        flags: &flags,
        start: &start,
        backbone,
        data: &data,
        device: &device.description,
        parameters: parameters.elements(),
        save_dtype: args.save_dtype.dtype(),
        origin: Origin::new(&settings, &start, [&data.train, &data.valid])?,
    };
    let outcome = match data.rejected.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Incomplete,
    };
    if args.resume && output.exists() && !output.is_begun() {
        facts.check_finished(output.target())?;
        note(&format!("nothing to do, {} is complete", args.out.display()));
        return Ok(outcome);
    }
    if args.force {
        output.clear()?;
    }
    let stop = signals.run_begins();
    let job = Job {
        settings: &settings,
        network: &start.network,
        parameters: &parameters,
        train: &data.train,
        valid: &data.valid,
        related: &data.related,
        negatives: data.negatives,
        device: &device.placement.device,
        save_every: args.save_every,
        origin: &facts.origin,
        stop: &stop,
    };
    let mined = job.mined_for_validation();
    describe(&start, &parameters, &data, mined, &device.placement.device);
    let mut folder = WorkFolder::open(output.partial())?;
    let mut progress = Progress::new(&args.progress);
    let trained = job.run(&mut folder, |event| progress.tell(event));
    drop(progress);
    let ended_early = |error: TrainError| match error {
        TrainError::Interrupted => {
            note("interrupted; the same command with --resume goes on");
            Ok(signals.outcome())
        }
        error @ (TrainError::Io { .. } | TrainError::Checkpoint(_) | TrainError::Tensor(_)) => {
            let error = anyhow::Error::from(error);
            anyhow::bail!("{error:#}; what was finished is kept, and the same command with --resume goes on");
        }
        error => Err(as_usage(error)),
    };
    let mut trained = match trained {
        Ok(trained) => trained,
        Err(error) => return ended_early(error),
    };
    let stored = facts.stored(&trained)?;
    if facts.save_dtype != DType::F32 {
        // Figures and threshold are to be those of the weights that are written.
        match job.judge(&stored) {
            Ok(judgement) => trained.judgement = judgement,
            Err(error) => return ended_early(error),
        }
    }
    let finished = Finished {
        facts: &facts,
        trained: &trained,
        stored: &stored,
        mined,
        outcome,
        log: &folder.log(),
    };
    let done = finished.write(output.partial())?;
    output.publish(&done)?;
    let text = said_of(&trained, &args.out, mined);
    console::report("summary", &text, finished.numbers());
    Ok(outcome)
}

/// What came of a run whose model is written to `out`; warns where that is not much.
fn said_of(trained: &Trained, out: &Path, mined: usize) -> String {
    let best = trained.judgement;
    if best.roc_auc < CHANCE {
        console::warn(&format!(
            "ROC-AUC is {:.3} on the validation pairs, where 0.5 is chance: the model tells no related pair from an unrelated one",
            best.roc_auc
        ));
    }
    if best.calls_all_related {
        console::warn(
            "at its best threshold the model calls every validation pair related, so that its F1 says no more than how many \
             are",
        );
    }
    format!(
        "wrote {}: epoch {} of fine-tuning, F1 {:.4}, ROC-AUC {:.4} on the validation pairs{}, threshold {:.3}",
        out.display(),
        trained.epoch,
        best.f1,
        best.roc_auc,
        and_mined(mined),
        best.threshold
    )
}

/// Resuming something else, and a recipe that cannot be or does not fit the backbone, are mistakes of the command line.
fn as_usage(error: TrainError) -> anyhow::Error {
    match error {
        TrainError::Resume { .. } | TrainError::Settings { .. } | TrainError::Config(_) => {
            UsageError(error.to_string()).into()
        }
        other => other.into(),
    }
}

impl TrainArgs {
    /// All that the run reads, with the flag that names it.
    fn reads(&self) -> Vec<(&str, &Path)> {
        let mut reads: Vec<(&str, &Path)> = Vec::new();
        reads.extend(self.train.iter().map(|path| ("--train", path.as_path())));
        reads.extend(self.valid.iter().map(|path| ("--valid", path.as_path())));
        reads.extend(self.recipe.iter().map(|path| ("--recipe", path.as_path())));
        reads.extend(self.backbone.iter().map(|path| ("--backbone", Path::new(path))));
        reads
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = match &self.recipe {
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("--recipe {}", path.display()))?;
                Settings::parse(&path.display().to_string(), &text).map_err(as_usage)?
            }
            None => Settings::default(),
        };
        self.flags.apply(&mut settings);
        settings.check().map_err(as_usage)?;
        refuse_stdin_twice(self.train.iter().chain(&self.valid))?;
        for (flag, paths) in [("--train", &self.train), ("--valid", &self.valid)] {
            // Each of its pairs would count as two.
            if let Some(path) = given_twice(paths)? {
                return Err(UsageError(format!("{flag}: {} is given twice", path.display())).into());
            }
        }
        match (&self.backbone, &settings.backbone) {
            (None, None) => {
                let reason = "give --backbone, or a [backbone] table in --recipe to begin from scratch";
                Err(UsageError(reason.to_owned()).into())
            }
            (Some(_), Some(_)) => {
                let reason = "--backbone and a [backbone] table in --recipe: expected one of them";
                Err(UsageError(reason.to_owned()).into())
            }
            _ => Ok(settings),
        }
    }

    /// What training begins from, and what the manifest says of it.
    fn start(&self, settings: &Settings, split: &Split) -> anyhow::Result<(Start, BackboneRecord)> {
        let Some(backbone) = &self.backbone else {
            // `settings` let nothing through that has neither.
            let scratch = BackboneSettings::default();
            let backbone = settings.backbone.as_ref().unwrap_or(&scratch);
            let start = Start::from_scratch(backbone, &settings.head, &split.train, settings.seed).map_err(as_usage)?;
            let record = BackboneRecord::new(&start, None)?;
            return Ok((start, record));
        };
        let source = ModelSource::parse(backbone, self.revision.as_deref())?;
        let files = locate(&source, &hub_options(self.offline))?;
        files.warnings.iter().for_each(|warning| console::warn(warning));
        let start = Start::from_backbone(&files, &settings.head, settings.seed).map_err(as_usage)?;
        let record = BackboneRecord::new(&start, Some(&files))?;
        Ok((start, record))
    }
}

/// Negatives that are validated on besides labelled pairs: figures on both are others than those on labelled pairs alone.
fn and_mined(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(" and {} mined for them", counted(count as u64, "negative", "negatives")),
    }
}

fn describe(start: &Start, parameters: &Parameters, data: &Data, mined: usize, device: &Device) {
    let size = |data: &Dataset, mined: usize| {
        let positives = data.positives().len();
        format!(
            "{} pairs ({positives} related, {} labelled unrelated){}, {} + {} contexts",
            data.examples.len(),
            data.examples.len() - positives,
            and_mined(mined),
            data.texts[0].len(),
            data.texts[1].len()
        )
    };
    let place = if device.is_cpu() { "cpu" } else { "cuda" };
    note(&format!(
        "{} parameters, backbone {}, on {place}",
        parameters.elements(),
        start.source
    ));
    // What is mined for training differs by epoch, and the log has it.
    note(&format!("training on {}", size(&data.train, 0)));
    note(&format!("validating on {}", size(&data.valid, mined)));
}
