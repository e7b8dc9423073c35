//! `crag train`: labelled pairs and a backbone in, a folder that `crag score` loads out.
//!
//! Arguments and a TOML file become [`Settings`] here, the finished folder is put together here; the run is
//! [`crate::training`]'s.

mod output;
mod progress;
mod recipe;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use candle_core::{DType, Device};
use jiff::Timestamp;

use self::output::{BackboneRecord, Facts, Finished};
use self::progress::Progress;
use self::recipe::RecipeArgs;
use super::config::SettingRow;
use super::device::PlaceArgs;
use super::doubts::{check_vocabulary, doubts, warn_of};
use super::inputs::{format_of, given_twice, input, note_typing, refuse_stdin_twice};
use super::labelled::of_several_fields;
use super::model::hub_options;
use super::model_folder;
use super::progress::ProgressArgs;
use super::signals::SignalWatch;
use super::threads::start_pool;
use super::values::{parse_bytes, parse_seconds, parse_threads};
use super::{Outcome, UsageError, console, note};
use crate::checkpoint::{FileHash, ModelSource, locate};
use crate::evaluation::Fields;
use crate::files::Claim;
use crate::scoring::{Format, RowsAsJson};
use crate::training::{
    BackboneSettings, Job, LabelledPairs, NegativeKind, Origin, Parameters, Relations, Settings, Source, Split, Start,
    TrainError, Trained,
    dataset::{self, Dataset},
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

/// What was read, tokenized and split.
struct Data {
    train: Dataset,
    valid: Dataset,
    related: Relations,
    negatives: NegativeKind,
    files: Vec<FileHash>,
    /// `file:line: reason`
    rejected: Vec<String>,
}

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

    /// All pairs, split by document, and the files as they were read.
    fn read(&self, settings: &Settings) -> anyhow::Result<(Split, LabelledPairs, Vec<FileHash>)> {
        let fields = Fields {
            gold: self.gold.clone(),
            document: self.document.clone(),
            ..Fields::default()
        };
        let mut files = Vec::new();
        let mut read = |paths: &[PathBuf]| -> anyhow::Result<LabelledPairs> {
            let mut pairs = LabelledPairs::default();
            for path in paths {
                files.push(self.read_file(path, &fields, &mut pairs)?);
            }
            Ok(pairs)
        };
        let (pairs, mut held_out) = (read(&self.train)?, read(&self.valid)?);
        let mut all = pairs.clone();
        all.rejected.append(&mut held_out.rejected);
        let without_document =
            |pairs: &LabelledPairs| pairs.pairs.iter().filter(|pair| pair.document.is_none()).count();
        let without_documents = without_document(&pairs) + without_document(&held_out);
        if without_documents == pairs.pairs.len() + held_out.pairs.len() {
            if let Some(field) = &self.document {
                let message = format!("--document {field}: no record has a string or a number in this field");
                return Err(UsageError(message).into());
            }
            note(
                "no record names its document, so each text is one of its own; if several are of one document, name the \
                 field with --document",
            );
        } else if without_documents > 0 {
            console::warn(&format!(
                "{} no document, so each text of theirs is one of its own: it may be trained on while another of the same \
                 document is validated on; --document names the field that all have",
                counted(without_documents as u64, "pair names", "pairs name")
            ));
        }
        let documents = pairs
            .pairs
            .iter()
            .chain(&held_out.pairs)
            .filter_map(|pair| pair.document.as_ref());
        let fields: BTreeSet<&str> = documents.map(|(field, _)| field.as_str()).collect();
        if fields.len() > 1 {
            console::warn(&of_several_fields(&fields));
        }
        let split = match self.valid.is_empty() {
            true => Split::by_fraction(pairs.pairs, settings.valid_fraction, settings.seed),
            false => Split::of_files(pairs.pairs, held_out.pairs),
        };
        if split.shared > 0 {
            note(&format!(
                "{} pairs are left out of training: their documents are in the validation file",
                split.shared
            ));
        }
        if split.repeated > 0 {
            console::warn(&format!(
                "{} pairs to train on have a text that is validated on too, in another document or one without a name: \
                 validation will flatter the model",
                split.repeated
            ));
        }
        if split.valid.is_empty() {
            let message = format!(
                "valid_fraction: {} of all documents are none; give a larger share, or the pairs to validate on (--valid)",
                settings.valid_fraction
            );
            return Err(UsageError(message).into());
        }
        if split.train.is_empty() && self.valid.is_empty() {
            let message = format!(
                "valid_fraction: {} of all documents are all of them; give a smaller share, or the pairs to validate on (--valid)",
                settings.valid_fraction
            );
            return Err(UsageError(message).into());
        }
        Ok((split, all, files))
    }

    fn read_file(&self, path: &Path, fields: &Fields, pairs: &mut LabelledPairs) -> anyhow::Result<FileHash> {
        let file = input(path);
        note_typing(
            std::slice::from_ref(&file),
            "records from the terminal, one JSON object a line",
        );
        let name = file.name();
        let mut open = file.open().with_context(|| name.clone())?;
        let source = Source {
            name: &name,
            fields,
            max_line_bytes: self.max_line_bytes,
        };
        let is_labelled = match format_of(None, std::slice::from_ref(&path.to_owned()))? {
            Format::Jsonl => pairs.read(&source, &mut open)?,
            format => {
                let rows = RowsAsJson::new(&mut open, &name, format, self.max_line_bytes, None)?;
                // Rows that are too long have been told; quotes and keys make the others longer.
                let source = Source {
                    max_line_bytes: usize::MAX,
                    ..source
                };
                pairs.read(&source, rows)?
            }
        };
        if !is_labelled {
            if self.gold != Fields::default().gold {
                let message = format!("--gold {}: no record of {name} has this field", self.gold);
                return Err(UsageError(message).into());
            }
            note(&format!(
                "{name}: no record has \"{}\", so all its pairs are taken as related",
                self.gold
            ));
        }
        let digest = open.finish().with_context(|| name.clone())?;
        Ok(FileHash {
            name,
            bytes: digest.bytes,
            sha256: digest.sha256_hex(),
        })
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

/// Token ids of both halves; says what is no pair.
fn prepare(
    settings: &Settings,
    start: &Start,
    split: &Split,
    all: &LabelledPairs,
    files: Vec<FileHash>,
) -> anyhow::Result<Data> {
    let preparer = dataset::preparer(&settings.head, &start.tokenizer);
    let mut rejected = all.rejected.clone();
    let (train, valid) = dataset::prepare(split, &preparer, &mut rejected);
    let relations = Relations::of(&train, &valid);
    let negatives = settings.negatives.kind.unwrap_or(match train.is_short_of_negatives() {
        true => NegativeKind::Hard,
        false => NegativeKind::None,
    });
    let related = train.positives().len();
    let unrelated = train.examples.len() - related;
    if settings.negatives.kind.is_none() && unrelated > 0 && train.is_short_of_negatives() {
        note(&format!(
            "{unrelated} pairs to train on are labelled unrelated, fewer than half as many as the {related} related ones, so \
             that negatives are mined too (--negatives none leaves that out)"
        ));
    }
    report_rejected(&rejected);
    let length = settings.head.max_length;
    report_doubts("", &train, length, "teach nothing of it");
    report_doubts("validation: ", &valid, length, "are judged without it");
    dataset::check(split, &train, &valid, negatives != NegativeKind::None)?;
    Ok(Data {
        train,
        valid,
        related: relations,
        negatives,
        files,
        rejected,
    })
}

/// Says what is odd about pairs that are used all the same. `half`: which of the data's, before each sentence; `cut`: what
/// comes of a mention that is cut off.
fn report_doubts(half: &str, data: &Dataset, max_length: usize, cut: &str) {
    let contexts = data.texts.iter().map(Vec::len).sum::<usize>();
    if data.truncated > 0 {
        console::warn(&format!(
            "{half}{} of {contexts} contexts have no whole mention in their first {max_length} tokens, and {cut}",
            data.truncated
        ));
    }
    let contradicted = data.contradicted();
    if contradicted > 0 {
        console::warn(&format!(
            "{half}{contradicted} pairs come both as related and as unrelated"
        ));
    }
}

fn report_rejected(rejected: &[String]) {
    const SHOWN: usize = 5;
    for reason in rejected.iter().take(SHOWN) {
        console::warn(reason);
    }
    if rejected.len() > SHOWN {
        console::warn(&format!(
            "and {} more lines that are no labelled pairs",
            rejected.len() - SHOWN
        ));
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
