//! `crag convert`: a checkpoint as a folder with everything stated.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use candle_core::DType;
use clap::ValueEnum as _;

use crate::{
    checkpoint::{Checkpoint, HubOptions, ModelSource, Unwritten, locate, write_each},
    files::{Claim, OutputError, REPLACED, RealDisk, replace},
    kernels::Precision,
    model::{DualEncoder, packed_tensors},
};

use super::{
    Outcome, UsageError,
    model::Description,
    model_args::ModelArgs,
    model_folder::{self, CONVERTED},
    signals::SignalWatch,
    stored_weights::{converted, matrices_of_encoders, stored_dtype},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 done; 1 could not run or go on; 2 usage, or OUT exists; 11 another run is writing OUT; 129, 130, 143 interrupted, \
and OUT is as it was.")]
pub struct ConvertArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Storage of the weights; f32 gives the same answers bit for bit, bf16 rounds what a run in bf16 rounds
    /// anyway (the encoder layers' matrices), int8 keeps them as they are stored
    #[arg(long, value_enum, default_value_t = Storage::F32)]
    dtype: Storage,

    /// Leave out the copy of the weights that is laid out for this machine's kernel (f32, bf16, int8)
    #[arg(long)]
    no_packed: bool,

    /// Replace an existing model's folder
    #[arg(long)]
    force: bool,

    /// Folder to write; it appears, or replaces what was there, only once everything in it is complete
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Storage {
    F32,
    F16,
    Bf16,
    Int8,
}

impl Storage {
    /// The type of the weights; none keeps them as they are.
    fn dtype(self) -> Option<DType> {
        match self {
            Storage::F32 => Some(DType::F32),
            Storage::F16 => Some(DType::F16),
            Storage::Bf16 => Some(DType::BF16),
            Storage::Int8 => None,
        }
    }

    /// The precision whose packed weights are stored too; the CPU does not compute in f16.
    fn precision(self) -> Option<Precision> {
        match self {
            Storage::F32 => Some(Precision::F32),
            Storage::F16 => None,
            Storage::Bf16 => Some(Precision::Bf16),
            Storage::Int8 => Some(Precision::Int8),
        }
    }
}

pub fn run(args: ConvertArgs) -> anyhow::Result<Outcome> {
    let signals = SignalWatch::start()?;
    let out = &args.out;
    let claim = Claim {
        force: args.force,
        // What another run left is looked at here.
        resume: true,
        wait: Duration::ZERO,
    };
    let source = ModelSource::parse(&args.model.model, args.model.from.revision.as_deref())?;
    let mut reads: Vec<_> = source.path().map(|path| ("--model", path)).into_iter().collect();
    reads.extend(
        args.model
            .from
            .model_config
            .iter()
            .map(|path| ("--model-config", path.as_path())),
    );
    let output = model_folder::claim(out, claim, &reads)?;
    if output.exists() && !args.force {
        return Err(OutputError::Exists {
            path: out.display().to_string(),
        }
        .into());
    }
    let of_training = |path: &&PathBuf| ![CONVERTED, REPLACED].iter().any(|own| path.ends_with(own));
    if let Some(path) = output.left()?.iter().find(of_training) {
        let message = format!(
            "{}: holds what crag train has not finished ({}); go on with that (--resume), or remove it",
            output.partial().display(),
            path.display()
        );
        return Err(UsageError(message).into());
    }
    // Of a run that was killed.
    output.clear()?;
    let model = args.model.describe()?;
    let work = output.partial().join(CONVERTED);
    fs::create_dir(&work).with_context(|| work.display().to_string())?;
    let stop = signals.run_begins();
    let written = write_folder(&args, &model, &work, &stop);
    if let Err(error) = written {
        // The error that led here is the one to report.
        let _ = output.clear();
        return match error.is::<Stopped>() {
            true => Ok(signals.outcome()),
            false => Err(error),
        };
    }
    if let Err(error) = output.publish(&work) {
        // Twice the model's size would stay behind.
        let _ = fs::remove_dir_all(&work);
        return Err(error.into());
    }
    let dtype = args.dtype.to_possible_value();
    super::note(&format!(
        "wrote {} ({} tensors, --dtype {})",
        out.display(),
        model.checkpoint.tensors().len(),
        dtype.as_ref().map_or("", |value| value.get_name())
    ));
    Ok(Outcome::Complete)
}

/// Writes all of it, a tensor at a time.
///
/// # Errors
/// [`Stopped`] by a signal; what cannot be read, converted or written.
fn write_folder(args: &ConvertArgs, model: &Description, folder: &Path, stop: &AtomicBool) -> anyhow::Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        replace(&RealDisk, &path, bytes).with_context(|| path.display().to_string())
    };
    let config = ("config.json", &model.files.config);
    for (name, file) in [config].into_iter().chain(model.files.tokenizer()) {
        if let Some(file) = file {
            write(name, &file.bytes)?;
        }
    }
    let sidecar = serde_json::to_string_pretty(&model.settings())? + "\n";
    write("crag.json", sidecar.as_bytes())?;
    let in_products = &matrices_of_encoders(&model.roles);
    let weights = folder.join("model.safetensors");
    let own = model.checkpoint.tensors().iter().map(|info| {
        let stored = match args.dtype.dtype() {
            Some(dtype) => stored_dtype((&info.name, info.dtype), dtype, in_products),
            None => info.dtype,
        };
        let make = move || {
            go_on(stop)?;
            let tensor = model.checkpoint.tensor(&info.name)?;
            match args.dtype.dtype() {
                Some(dtype) => converted((&info.name, &tensor), dtype, in_products, "--dtype"),
                None => Ok(tensor),
            }
        };
        Unwritten::new(info.name.clone(), stored, info.shape.clone(), make)
    });
    write_each(&weights, own.collect())?;
    model.checkpoint.check_unchanged()?;
    if let (Some(precision), false) = (args.dtype.precision(), args.no_packed) {
        // Packed from what has just been written, so that both give the same answers.
        let files = locate(&ModelSource::Folder(folder.to_owned()), &HubOptions::default())?;
        let checkpoint = Checkpoint::open(&files)?;
        go_on(stop)?;
        let packed = DualEncoder::packed_weights(&checkpoint, &model.roles, &model.config, precision)?;
        let mut tensors = packed_tensors::<anyhow::Error>(&packed)?;
        tensors.extend(checkpoint.tensors().iter().map(|info| {
            let make = || {
                go_on(stop)?;
                Ok(checkpoint.tensor(&info.name)?)
            };
            Unwritten::new(info.name.clone(), info.dtype, info.shape.clone(), make)
        }));
        write_each(&weights, tensors)?;
    }
    Ok(go_on(stop)?)
}

fn go_on(stop: &AtomicBool) -> Result<(), Stopped> {
    match stop.load(Ordering::SeqCst) {
        true => Err(Stopped),
        false => Ok(()),
    }
}

/// A signal came.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Stopped;
