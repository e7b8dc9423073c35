//! `crag train`: labelled pairs and a backbone in, a folder that `crag score` loads out.
//!
//! Arguments and a TOML file become [`Settings`] here, the finished folder is put together here; the run is
//! [`crate::training`]'s.

mod output;
mod progress;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use candle_core::Device;

use super::{Outcome, UsageError, device::DeviceArgs, note, values::parse_count, values::parse_threads};
use crate::{
    checkpoint::{HubOptions, ModelSource, locate},
    kernels::Precision,
    model::{Pooling, View},
    training::{
        BackboneSettings, Job, LabelledPairs, NegativeKind, Parameters, Settings, Split, Start, TrainError,
        dataset::{self, Dataset, Related},
        state::WorkFolder,
    },
};

/// Trains a dual encoder on labelled pairs with the model card's recipe.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line of the data is a record as `crag score` reads it, with \"label\" (0/1 or true/false; a file without any holds \
related pairs alone) and \"doc_id\", by which data is split. Phase 1 is contrastive, phase 2 fine-tunes; the epoch of \
phase 2 with the best F1 on the validation pairs is kept, with its best threshold.

Examples:
  crag train --backbone DIR --train pairs.jsonl --valid held-out.jsonl --out my-model
  crag train --config recipe.toml --train pairs.jsonl --out my-model        # [backbone]: an encoder from scratch
  crag train ... --out my-model --resume                                    # after a kill: to the same bytes

Exit codes: 0 done; 1 could not run or go on; 2 usage, or --resume with other settings or data; 3 done, but some lines
were no labelled pairs; 11 another run writes this output.")]
pub struct TrainArgs {
    /// Labelled pairs, JSONL; several files are one data set
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    train: Vec<PathBuf>,

    /// Labelled pairs to validate on; their documents are left out of training
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "valid_fraction")]
    valid: Vec<PathBuf>,

    /// Folder to write; it appears only once everything in it is complete (OUT.partial holds the run until then)
    #[arg(long, value_name = "OUT")]
    out: PathBuf,

    /// BERT checkpoint that both encoders begin from: a folder, a weight file, or a hub id
    #[arg(long, value_name = "DIR|ID")]
    backbone: Option<String>,

    /// Branch, tag or commit of the backbone on the hub [default: main]
    #[arg(long, value_name = "REV")]
    revision: Option<String>,

    /// Make no network connection: cached files only (also HF_HUB_OFFLINE=1)
    #[arg(long)]
    offline: bool,

    /// The recipe as TOML; flags go before it, the card's values behind
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Go on where OUT.partial ends, to the same result
    #[arg(long)]
    resume: bool,

    /// Write over OUT, and begin anew where OUT.partial holds another run
    #[arg(long, conflicts_with = "resume")]
    force: bool,

    /// Storage of the trained weights; training itself is in f32
    #[arg(long, value_enum, default_value_t = Storage::F32, value_name = "DTYPE")]
    save_dtype: Storage,

    /// Optimizer steps after which the run's state is saved, besides every epoch's end
    #[arg(long, value_name = "N", default_value = "100", value_parser = parse_count)]
    save_every: usize,

    /// Threads to compute with; results do not depend on it [default: all available cores]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,

    /// Say nothing on stderr unless something is wrong
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    device: DeviceArgs,

    #[command(flatten, next_help_heading = "Recipe")]
    recipe: RecipeArgs,
}

/// Each overrides its key in the TOML file.
#[derive(Debug, Default, clap::Args)]
struct RecipeArgs {
    /// [seed = 42] Everything random follows from it
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// [dropout = 0.1]
    #[arg(long, value_name = "SHARE")]
    dropout: Option<f64>,
    /// [valid_fraction = 0.1] Share of documents to validate on
    #[arg(long, value_name = "SHARE")]
    valid_fraction: Option<f64>,
    /// [negatives.kind] Negatives to mine, as many as related pairs [default: hard if the data has none, else none]
    #[arg(long, value_enum, value_name = "KIND")]
    negatives: Option<Negatives>,
    /// [negatives.hard_ratio = 0.5]
    #[arg(long, value_name = "SHARE")]
    hard_ratio: Option<f64>,
    /// [head.pooling = attention]
    #[arg(long, value_enum, value_name = "KIND")]
    pooling: Option<PoolingArg>,
    /// [head.pooling_heads = 4]
    #[arg(long, value_name = "N")]
    pooling_heads: Option<usize>,
    /// [head.views = bilinear,product]
    #[arg(long, value_delimiter = ',', value_parser = parse_view, value_name = "VIEW,…")]
    views: Option<Vec<View>>,
    /// [head.width = 256] Width of representations
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// [head.markers = true] Train without entity markers
    #[arg(long)]
    no_markers: bool,
    /// [head.max_length = 128] Tokens of a text at most
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// [contrastive.epochs = 5]
    #[arg(long, value_name = "N")]
    contrastive_epochs: Option<usize>,
    /// [contrastive.learning_rate = 2e-5]
    #[arg(long, value_name = "RATE")]
    contrastive_learning_rate: Option<f64>,
    /// [contrastive.temperature = 0.05]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// [finetune.epochs = 8]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// [finetune.learning_rate = 2e-5]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// [finetune.focal_gamma = 2]
    #[arg(long, value_name = "GAMMA")]
    focal_gamma: Option<f64>,
    /// [finetune.focal_alpha = 0.75] Weight of related pairs
    #[arg(long, value_name = "ALPHA")]
    focal_alpha: Option<f64>,
    /// [batch_size = 16, both phases]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// [accumulation = 4, both phases] Batches an optimizer step
    #[arg(long, value_name = "N")]
    accumulation: Option<usize>,
    /// [optimizer.warmup_ratio = 0.1]
    #[arg(long, value_name = "SHARE")]
    warmup_ratio: Option<f64>,
    /// [optimizer.layerwise_decay = 0.9] Factor of the learning rate from one layer to the one beneath
    #[arg(long, value_name = "FACTOR")]
    layerwise_decay: Option<f64>,
    /// [optimizer.weight_decay = 0.01]
    #[arg(long, value_name = "DECAY")]
    weight_decay: Option<f64>,
    /// [optimizer.max_grad_norm = 1]
    #[arg(long, value_name = "NORM")]
    max_grad_norm: Option<f64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Storage {
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Negatives {
    Hard,
    Random,
    None,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PoolingArg {
    Attention,
    Mean,
    Cls,
}

fn parse_view(name: &str) -> Result<View, String> {
    let all = View::ALL;
    let found = all.into_iter().find(|view| view.name() == name);
    found.ok_or_else(|| format!("expected one of {}", all.map(View::name).join(", ")))
}

impl RecipeArgs {
    fn apply(&self, settings: &mut Settings) {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        set(&mut settings.seed, &self.seed);
        set(&mut settings.dropout, &self.dropout);
        set(&mut settings.valid_fraction, &self.valid_fraction);
        let kind = self.negatives.map(|kind| match kind {
            Negatives::Hard => NegativeKind::Hard,
            Negatives::Random => NegativeKind::Random,
            Negatives::None => NegativeKind::None,
        });
        settings.negatives.kind = kind.or(settings.negatives.kind);
        set(&mut settings.negatives.hard_ratio, &self.hard_ratio);
        let pooling = self.pooling.map(|kind| match kind {
            PoolingArg::Attention => Pooling::Attention,
            PoolingArg::Mean => Pooling::Mean,
            PoolingArg::Cls => Pooling::Cls,
        });
        let head = &mut settings.head;
        set(&mut head.pooling, &pooling);
        set(&mut head.pooling_heads, &self.pooling_heads);
        set(&mut head.views, &self.views);
        set(&mut head.width, &self.width);
        set(&mut head.max_length, &self.max_length);
        head.markers &= !self.no_markers;
        let (contrastive, finetune) = (&mut settings.contrastive, &mut settings.finetune);
        set(&mut contrastive.epochs, &self.contrastive_epochs);
        set(&mut contrastive.learning_rate, &self.contrastive_learning_rate);
        set(&mut contrastive.temperature, &self.temperature);
        set(&mut contrastive.batch_size, &self.batch_size);
        set(&mut contrastive.accumulation, &self.accumulation);
        set(&mut finetune.epochs, &self.epochs);
        set(&mut finetune.learning_rate, &self.learning_rate);
        set(&mut finetune.focal_gamma, &self.focal_gamma);
        set(&mut finetune.focal_alpha, &self.focal_alpha);
        set(&mut finetune.batch_size, &self.batch_size);
        set(&mut finetune.accumulation, &self.accumulation);
        let optimizer = &mut settings.optimizer;
        set(&mut optimizer.warmup_ratio, &self.warmup_ratio);
        set(&mut optimizer.layerwise_decay, &self.layerwise_decay);
        set(&mut optimizer.weight_decay, &self.weight_decay);
        set(&mut optimizer.max_grad_norm, &self.max_grad_norm);
    }
}

/// Another process writes the same output.
#[derive(Debug, thiserror::Error)]
#[error("{0}: locked by another run; wait for it, or name another --out")]
pub struct Locked(String);

pub fn run(args: TrainArgs) -> anyhow::Result<Outcome> {
    let settings = settings(&args)?;
    let out = output::Place::new(&args.out, args.resume, args.force)?;
    // candle's own pool spins between operations and takes the time of those that have work; what it would do
    // here is adding up gradients, which memory bounds anyway.
    // SAFETY: this process has one thread until the pool below is built.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    if let Some(threads) = args.threads {
        // It can only be set once, and nothing has used it yet.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
    let device = args.device.open()?;
    if device.placement.precision != Precision::F32 {
        return Err(UsageError("--dtype: training computes in f32; for smaller weights, --save-dtype".into()).into());
    }
    let mut files = Vec::new();
    let (mut pairs, mut held_out) = (LabelledPairs::default(), LabelledPairs::default());
    read(&args.train, &mut pairs, &mut files)?;
    read(&args.valid, &mut held_out, &mut files)?;
    let mut rejected: Vec<String> = std::mem::take(&mut pairs.rejected);
    rejected.append(&mut held_out.rejected);
    let all = pairs.clone();
    let split = match args.valid.is_empty() {
        true => Split::by_fraction(pairs.pairs, settings.valid_fraction, settings.seed),
        false => Split::of_files(pairs.pairs, held_out.pairs),
    };
    if split.shared > 0 {
        note(&format!(
            "{} pairs are left out of training: their documents are in the validation file",
            split.shared
        ));
    }
    let start = start(&args, &settings, &split)?;
    let reader = dataset::Reader {
        tokenizer: &start.tokenizer,
        markers: settings.head.markers,
        max_length: settings.head.max_length,
    };
    let (train, valid, related) = dataset::prepare(&split, &reader, &mut rejected);
    let has_negatives = train.examples.iter().any(|example| !example.label);
    let negatives = settings.negatives.kind.unwrap_or(match has_negatives {
        true => NegativeKind::None,
        false => NegativeKind::Hard,
    });
    report_rejected(&rejected);
    dataset::check(&all, &train, &valid, negatives != NegativeKind::None)?;

    let lock = out.prepare()?;
    let mut folder = WorkFolder::open(&out.partial)?;
    let parameters =
        Parameters::new(&start.network.roles, &start.tensors, &device.placement.device).map_err(TrainError::from)?;
    let job = Job {
        settings: &settings,
        network: &start.network,
        parameters: &parameters,
        train: &train,
        valid: &valid,
        related: &related,
        negatives,
        device: &device.placement.device,
        save_every: args.save_every,
        fingerprint: fingerprint(&settings, &start, [&train, &valid], &related)?,
    };
    if !args.quiet {
        describe(&start, &parameters, [&train, &valid], &device.placement.device);
    }
    let mut progress = progress::Progress::new(args.quiet);
    let trained = job.run(&mut folder, |event| progress.tell(event));
    progress.finish();
    let trained = trained.map_err(as_usage)?;
    let facts = output::Facts {
        settings: &settings,
        start: &start,
        trained: &trained,
        files: &files,
        sizes: [&train, &valid].map(|data| [data.examples.len(), data.positives().len()]),
        negatives,
        rejected: rejected.len(),
        device: &device.description,
        parameters: parameters.elements(),
    };
    out.finish(&facts, args.save_dtype.dtype(), &folder.log())?;
    drop(lock);
    if !args.quiet {
        note(&format!(
            "wrote {}: epoch {} of fine-tuning, F1 {:.4}, ROC-AUC {:.4} on the validation pairs, threshold {:.3}",
            args.out.display(),
            trained.epoch,
            trained.judgement.f1,
            trained.judgement.roc_auc,
            trained.judgement.threshold
        ));
    }
    Ok(match rejected.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Incomplete,
    })
}

impl Storage {
    fn dtype(self) -> candle_core::DType {
        match self {
            Storage::F32 => candle_core::DType::F32,
            Storage::F16 => candle_core::DType::F16,
            Storage::Bf16 => candle_core::DType::BF16,
        }
    }
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

fn settings(args: &TrainArgs) -> anyhow::Result<Settings> {
    let mut settings = match &args.config {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
            Settings::parse(&path.display().to_string(), &text).map_err(as_usage)?
        }
        None => Settings::default(),
    };
    args.recipe.apply(&mut settings);
    settings.check().map_err(as_usage)?;
    match (&args.backbone, &settings.backbone) {
        (None, None) => {
            let reason = "give --backbone, or a [backbone] table in --config to begin from scratch";
            Err(UsageError(reason.to_owned()).into())
        }
        (Some(_), Some(_)) => {
            let reason = "--backbone and a [backbone] table in --config: expected one of them";
            Err(UsageError(reason.to_owned()).into())
        }
        _ => Ok(settings),
    }
}

/// Names and hashes of what was read go to `files`.
fn read(paths: &[PathBuf], pairs: &mut LabelledPairs, files: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    for path in paths {
        let name = path.display().to_string();
        let bytes = fs::read(path).with_context(|| name.clone())?;
        files.push((name.clone(), blake3::hash(&bytes).to_hex().to_string()));
        pairs.read(&name, bytes.as_slice())?;
    }
    Ok(())
}

fn start(args: &TrainArgs, settings: &Settings, split: &Split) -> anyhow::Result<Start> {
    let begin_from_scratch = |backbone: &BackboneSettings| {
        Start::from_scratch(backbone, &settings.head, &split.train, settings.seed).map_err(as_usage)
    };
    match (&args.backbone, &settings.backbone) {
        (Some(backbone), _) => {
            let source = ModelSource::parse(backbone, args.revision.as_deref())?;
            let mut hub = HubOptions::from_env();
            hub.offline |= args.offline;
            let files = locate(&source, &hub)?;
            Start::from_backbone(&files, &settings.head, settings.seed).map_err(as_usage)
        }
        (None, Some(backbone)) => begin_from_scratch(backbone),
        // `settings` let nothing else through.
        (None, None) => begin_from_scratch(&BackboneSettings::default()),
    }
}

/// What a resumed run must have the same.
fn fingerprint(settings: &Settings, start: &Start, data: [&Dataset; 2], related: &Related) -> anyhow::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update(&serde_json::to_vec(settings)?);
    for data in data {
        for text in data.texts.iter().flatten() {
            let ids: Vec<u8> = text.token_ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            hasher.update(&(ids.len() as u64).to_le_bytes()).update(&ids);
            hasher.update(&text.entity.to_le_bytes());
        }
        for example in &data.examples {
            hasher
                .update(&example.drug.to_le_bytes())
                .update(&example.adr.to_le_bytes());
            hasher.update(&[u8::from(example.label)]);
        }
    }
    hasher.update(&(related.len() as u64).to_le_bytes());
    let mut names: Vec<&String> = start.tensors.keys().collect();
    names.sort();
    for name in names {
        hasher.update(name.as_bytes());
        let values = start.tensors[name].flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn report_rejected(rejected: &[String]) {
    const SHOWN: usize = 5;
    for reason in rejected.iter().take(SHOWN) {
        note(reason);
    }
    if rejected.len() > SHOWN {
        note(&format!(
            "and {} more lines that are no labelled pairs",
            rejected.len() - SHOWN
        ));
    }
}

fn describe(start: &Start, parameters: &Parameters, data: [&Dataset; 2], device: &Device) {
    let size = |data: &Dataset| {
        let positives = data.positives().len();
        format!(
            "{} pairs ({positives} related, {} labelled unrelated), {} + {} contexts",
            data.examples.len(),
            data.examples.len() - positives,
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
    note(&format!("training on {}", size(data[0])));
    note(&format!("validating on {}", size(data[1])));
}

/// Opens and locks `path`; the lock ends with the file.
fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Locked(path.display().to_string()).into()),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}
