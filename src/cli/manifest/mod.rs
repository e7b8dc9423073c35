//! What ran: the manifest of a run, and its summary, as files that are absent or whole.
//!
//! Who knows a part of it hands it over; here it is put together, freed of secrets and written. The numbers are
//! [`Counts`]'s. `format` is raised with every change that a reader could stumble over; new fields are none.

mod earlier;
mod redact;

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use earlier::EarlierSummary;
pub use redact::Redactor;

use super::Outcome;
use super::about::{ABOUT, About};
use super::config::SettingRow;
use super::console;
use super::report_file::is_object_with;
use crate::checkpoint::{FileHash, HubOptions};
use crate::files::with_suffix;
use crate::kernels::CUDA_LT_VARIABLE;
use crate::kernels::cpu::KERNEL_VARIABLE;
use crate::scoring::{Counts, ErrorCode, Warning};

const FORMAT: u32 = 1;

/// Variables that change what a run does and that no flag stands for, beside [`HubOptions::VARIABLES`].
const VARIABLES: [&str; 6] = [
    KERNEL_VARIABLE,
    CUDA_LT_VARIABLE,
    "CUDA_VISIBLE_DEVICES",
    "RAYON_NUM_THREADS",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_ID",
];

/// A report as it is written.
pub fn to_text(value: &Value) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Whether a file's contents are a [`summary`].
pub fn is_summary(bytes: &[u8]) -> bool {
    is_object_with(bytes, &["run_id", "outcome"])
}

/// Whether a file's contents are a [`Manifest`].
pub fn is_manifest(bytes: &[u8]) -> bool {
    is_object_with(bytes, &["run_id", "tool"])
}

/// Where the manifest of a file goes, unless it is said.
pub fn beside(target: &Path) -> PathBuf {
    with_suffix(target, ".manifest.json")
}

/// Takes the manifest beside `target` away, which tells of an earlier file of that name; one has just been put there whose
/// manifest, if it has one, is elsewhere. Anything else than a manifest stays.
pub fn remove_stale(target: &Path) {
    let path = beside(target);
    if !std::fs::read(&path).is_ok_and(|bytes| is_manifest(&bytes)) {
        return;
    }
    let name = path.display();
    match std::fs::remove_file(&path) {
        Ok(()) => console::note(&format!("{name}: removed, it told of an earlier {}", target.display())),
        Err(error) => console::warn(&format!(
            "{name}: tells of an earlier {}, and cannot be removed: {error}",
            target.display()
        )),
    }
}

/// What the run that wrote the manifest at `path` left in it to know its output by: the member `resume`, null where
/// there is none. None where there is no manifest.
pub fn evidence(path: &Path) -> anyhow::Result<Option<Value>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let mut manifest: Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{}: expected a manifest (JSON)", path.display()))?;
    Ok(Some(manifest.get_mut("resume").map(Value::take).unwrap_or_default()))
}

/// How a run that is on has ended so far.
const RUNNING: &str = "running";

/// A number that stands for this run, wherever it is told of.
pub fn run_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A model of the run.
#[derive(Clone, Debug, Serialize)]
pub struct ModelRecord {
    /// As in the answers' `probabilities`.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// The commit, where it is from the hub.
    pub revision: Option<String>,
    pub weights: Vec<FileHash>,
    /// The small files that were read: settings and tokenizer.
    pub files: Vec<FileHash>,
    pub settings: Vec<SettingRow>,
}

/// The output as it was written.
#[derive(Clone, Debug, Serialize)]
pub struct OutputRecord {
    pub path: String,
    pub bytes: u64,
    /// The hash that is kept as answers are written, as `b3sum` prints it.
    pub blake3: String,
}

/// A setting that decides answers, and where it came from.
#[derive(Clone, Debug, Serialize)]
pub struct Threshold {
    pub value: Value,
    pub from: String,
}

#[derive(Clone, Debug, Serialize)]
struct Host {
    os: &'static str,
    arch: &'static str,
    /// Cores that this process may use.
    cores: usize,
}

/// All there is to say of a run; `R` is what the subcommand knows of it.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest<R = RunRecord> {
    format: u32,
    tool: About,
    run_id: String,
    command: &'static str,
    arguments: Vec<String>,
    working_folder: Option<String>,
    environment: Map<String, Value>,
    host: Host,
    started: String,
    #[serde(flatten)]
    pub run: R,
}

/// What `crag score` knows of a run before it ends.
#[derive(Clone, Debug, Serialize)]
pub struct RunRecord {
    pub models: Vec<ModelRecord>,
    pub threshold: Threshold,
    pub precision: String,
    pub device: String,
    pub kernels: String,
    pub threads: usize,
    pub settings: Vec<SettingRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<FileHash>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputRecord>,
    /// From which a later `--resume` can tell that the output is this run's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<Value>,
}

impl<R: Serialize> Manifest<R> {
    pub fn new(command: &'static str, run_id: &str, started: Timestamp, run: R) -> Self {
        let set = |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok()?.into()));
        Self {
            format: FORMAT,
            tool: ABOUT,
            run_id: run_id.to_owned(),
            command,
            arguments: std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect(),
            working_folder: std::env::current_dir().ok().map(|folder| folder.display().to_string()),
            environment: VARIABLES.iter().chain(&HubOptions::VARIABLES).filter_map(set).collect(),
            host: Host {
                os: std::env::consts::OS,
                arch: std::env::consts::ARCH,
                cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            },
            started: started.to_string(),
            run,
        }
    }

    /// The whole of it, with how the run ended and its numbers, and without secrets.
    pub fn ended(&self, ended: Timestamp, end: &End, numbers: Value) -> anyhow::Result<Value> {
        let mut manifest = serde_json::to_value(self)?;
        if let (Value::Object(manifest), Value::Object(rest)) = (&mut manifest, numbers) {
            manifest.insert("ended".to_owned(), ended.to_string().into());
            manifest.insert("outcome".to_owned(), serde_json::to_value(end)?);
            manifest.extend(rest);
        }
        Ok(Redactor::from_env().redact_all(manifest))
    }
}

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub struct End {
    pub status: &'static str,
    /// None of a run that has not ended.
    pub exit_code: Option<u8>,
    pub error: Option<String>,
}

impl End {
    pub fn new(result: &anyhow::Result<Outcome>) -> Self {
        match result {
            Ok(outcome) => Self {
                status: outcome.name(),
                exit_code: Some(outcome.exit_code()),
                error: None,
            },
            Err(error) => Self::failed(error),
        }
    }

    /// Of a run that has begun: what a kill leaves.
    pub fn not_yet() -> Self {
        Self {
            status: RUNNING,
            exit_code: None,
            error: None,
        }
    }

    pub fn failed(error: &anyhow::Error) -> Self {
        Self {
            status: "failed",
            exit_code: Some(super::exit_code(error)),
            error: Some(format!("{error:#}")),
        }
    }
}

/// The summary: how the run ended and its numbers, where they are known.
pub fn summary(run_id: &str, end: &End, counts: Option<&Counts>) -> anyhow::Result<Value> {
    let mut summary = json!({"format": FORMAT, "run_id": run_id, "outcome": end});
    if let (Value::Object(summary), Some(Value::Object(rest))) = (&mut summary, counts.map(numbers)) {
        summary.extend(rest);
    }
    Ok(Redactor::from_env().redact_all(summary))
}

/// The summary of a run that wrote none itself. One that could not begin has counted nothing; of another nobody knows what.
pub fn bare_summary(end: &End) -> anyhow::Result<Value> {
    let counts = end.error.is_some().then(Counts::default);
    summary(&run_id(), end, counts.as_ref())
}

/// Counts and speeds, every code that a line can have named.
pub fn numbers(counts: &Counts) -> Value {
    let seconds = counts.elapsed.as_secs_f64();
    let errors = ErrorCode::ALL.map(|code| (code.name().to_owned(), counts.errors_of(code).into()));
    let warnings = Warning::ALL.map(|warning| (warning.name().to_owned(), counts.warnings_of(warning).into()));
    json!({
        "counts": {
            "records": counts.records(),
            "scored": counts.scored,
            "failed": counts.errors(),
            "warned": counts.warned,
            "blank": counts.blank,
            "errors": Map::from_iter(errors),
            "warnings": Map::from_iter(warnings),
            "encoded": counts.encoded,
            "reused": counts.reused,
            "cached": counts.cached,
            "tokens": counts.tokens,
            "bytes": counts.bytes,
        },
        "seconds": seconds,
        "pairs_per_second": counts.pairs_per_second(),
        "tokens_per_second": counts.tokens as f64 / seconds.max(1e-9),
    })
}
