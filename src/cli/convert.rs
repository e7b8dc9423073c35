//! `crag convert`: a checkpoint as a folder with everything stated.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use candle_core::DType;

use crate::checkpoint::{NamedBytes, write_safetensors};

use super::{
    Outcome, UsageError,
    model::{Description, ModelArgs},
};

#[derive(Debug, clap::Args)]
pub struct ConvertArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Storage of the weights; f32 gives the same answers bit for bit
    #[arg(long, value_enum, default_value_t = Storage::F32)]
    dtype: Storage,

    /// Write over an existing folder's files
    #[arg(long)]
    force: bool,

    /// Folder to write; it appears only once everything in it is complete
    #[arg(value_name = "OUT")]
    out: PathBuf,
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

pub fn run(args: ConvertArgs) -> anyhow::Result<Outcome> {
    let out = &args.out;
    if out.exists() && !(args.force && out.is_dir()) {
        let way_out = if out.is_dir() {
            "; give --force to write over its files"
        } else {
            ""
        };
        return Err(UsageError(format!("{}: exists already{way_out}", out.display())).into());
    }
    let model = args.model.describe()?;
    if out.exists() {
        write_folder(&model, args.dtype.dtype(), out)?;
    } else {
        // Beside the target and renamed: OUT is absent or complete, whatever happens on the way.
        let name = out
            .file_name()
            .ok_or_else(|| UsageError(format!("{}: not a folder name", out.display())))?;
        let mut partial = name.to_owned();
        partial.push(".partial");
        let partial = out.with_file_name(partial);
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| partial.display().to_string())?;
        }
        fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
        let written = write_folder(&model, args.dtype.dtype(), &partial)
            .and_then(|()| fs::rename(&partial, out).with_context(|| out.display().to_string()));
        if written.is_err() {
            // The error that led here is the one to report.
            let _ = fs::remove_dir_all(&partial);
        }
        written?;
    }
    eprintln!(
        "crag: wrote {} ({} tensors in {:?})",
        out.display(),
        model.checkpoint.tensors().len(),
        args.dtype
    );
    Ok(Outcome::Complete)
}

fn write_folder(model: &Description, dtype: DType, folder: &Path) -> anyhow::Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())
    };
    let copies: [(&str, &Option<NamedBytes>); 4] = [
        ("config.json", &model.files.config),
        ("tokenizer.json", &model.files.tokenizer_json),
        ("vocab.txt", &model.files.vocab_txt),
        ("tokenizer_config.json", &model.files.tokenizer_config),
    ];
    for (name, file) in copies {
        if let Some(file) = file {
            write(name, &file.bytes)?;
        }
    }
    let sidecar = serde_json::to_string_pretty(&model.config.to_sidecar())? + "\n";
    write("crag.json", sidecar.as_bytes())?;
    let tensors = model
        .checkpoint
        .tensors()
        .iter()
        .map(|info| {
            let tensor = model.checkpoint.tensor(&info.name)?;
            let converted = tensor
                .to_dtype(dtype)
                .with_context(|| format!("tensor \"{}\"", info.name))?;
            Ok((info.name.clone(), converted))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    write_safetensors(&folder.join("model.safetensors"), &tensors)?;
    Ok(())
}
