//! What is written about a run besides its answers: its manifest and its summary.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;

use anyhow::Context as _;
use clap::ArgMatches;
use jiff::Timestamp;
use serde_json::Value;

use super::ensemble::Ensemble;
use super::output::Output;
use crate::checkpoint::{CheckpointError, FileHash};
use crate::cli::config::SettingRow;
use crate::cli::manifest::{self, EarlierSummary, End, Manifest, ModelRecord, OutputRecord, RunRecord};
use crate::cli::report_file::ReportFile;
use crate::cli::{UsageError, paths_given};
use crate::files::{Companion, Destination, Input, is_same_file, stand_ins};
use crate::scoring::{Counts, InputReport, Options};

/// What is written about a run besides its answers.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Write what ran to this file (JSON): program, models with hashes, settings and where each came from, counts,
    /// times; secrets are left out [default: OUT.manifest.json with -o OUT]
    #[arg(help_heading = "Reports", long, value_name = "FILE")]
    manifest: Option<PathBuf>,

    /// Write how the run ended and its counts and speeds to this file (JSON); "-" for stdout, where the records go elsewhere
    #[arg(help_heading = "Reports", long, value_name = "FILE")]
    summary_json: Option<PathBuf>,
}

impl ReportArgs {
    /// Says in the summary, if one is wanted, that the run could not begin.
    pub fn tell_failure(&self, error: &anyhow::Error, output: Option<&Path>, cache: Option<&Path>, read: &[PathBuf]) {
        let is_locked = crate::cli::exit_code(error) == crate::cli::outcome::LOCKED;
        if let Some(summary) = self.earlier_summary(output, cache, read)
            && !(is_locked && summary.is_of_a_run_under_way())
        {
            summary.tell(&End::failed(error), Some(error));
        }
    }

    /// The summary that is wanted, if one is, as an earlier run may have left it. `output`: the file that answers go to;
    /// `read`: the names of all that the run reads.
    pub fn earlier_summary(
        &self,
        output: Option<&Path>,
        cache: Option<&Path>,
        read: &[PathBuf],
    ) -> Option<EarlierSummary> {
        let path = self.summary_json.clone()?;
        let beside = output.and_then(|target| manifest_of(target, self.manifest.as_deref()).ok());
        let manifest = beside.as_deref().or(self.manifest.as_deref());
        let own = own_names(output, manifest, None, cache);
        let others = own.into_iter().map(|own| own.name).chain(read.iter().cloned());
        Some(earlier_summary(path, others.collect()))
    }
}

fn earlier_summary(path: PathBuf, others: Vec<PathBuf>) -> EarlierSummary {
    EarlierSummary {
        path,
        others,
        is_own: manifest::is_summary,
        make: manifest::bare_summary,
    }
}

/// [`ReportArgs::tell_failure`] of a run whose command line, environment or config file cannot be understood. `matches`: as
/// much of the command line as can; `summary`: what `--summary-json` seems to be.
pub fn tell_failure_before_run(summary: PathBuf, matches: &ArgMatches, error: &anyhow::Error) {
    let others = ["files", "output", "manifest", "cache", "config"].into_iter();
    let others: Vec<PathBuf> = others.flat_map(|name| paths_given(matches, name)).collect();
    earlier_summary(summary, others).tell(&End::failed(error), None);
}

/// The files that tell of the run, opened.
pub struct Reports {
    /// Of a run whose answers do not go to a file.
    manifest: Option<ReportFile>,
    /// Of one whose do: where it appears together with them.
    beside: Option<PathBuf>,
    summary: Option<ReportFile>,
    pub run_id: String,
}

impl Reports {
    /// Tries them now, so that a run of hours does not end at a folder that cannot be written to.
    /// `read`: the names of all that the run reads, `inputs` among it.
    pub fn open(
        args: &ReportArgs,
        read: &[PathBuf],
        inputs: &[Input],
        output: &Output,
        cache: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let target = match output {
            Output::File(file) => Some(file.target()),
            _ => None,
        };
        let beside = match target {
            Some(target) => Some(manifest_of(target, args.manifest.as_deref())?),
            None => None,
        };
        let manifest = beside.as_deref().or(args.manifest.as_deref());
        check_names(&own_names(target, manifest, args.summary_json.as_deref(), cache), read)?;
        let open = |flag: &str, path: Option<&Path>, is_own: fn(&[u8]) -> bool| -> anyhow::Result<_> {
            let Some(path) = path else { return Ok(None) };
            let opened = ReportFile::beside_inputs(flag, path, inputs, is_own)?;
            Ok(Some(match output {
                Output::Stdout => opened.apart_from_records(flag)?,
                _ => opened,
            }))
        };
        // What appears together with the output is written by whoever puts that in its place; here it is only tried.
        drop(open("--manifest", beside.as_deref(), manifest::is_manifest)?);
        if let Some((manifest, target)) = beside.as_deref().zip(target) {
            Companion::try_beside(manifest, target).with_context(|| {
                let name = Companion::beside(manifest, target);
                format!(
                    "{}: where the manifest lies until the output is complete, cannot be made",
                    name.display()
                )
            })?;
        }
        Ok(Self {
            manifest: open(
                "--manifest",
                args.manifest.as_deref().filter(|_| beside.is_none()),
                manifest::is_manifest,
            )?,
            summary: open("--summary-json", args.summary_json.as_deref(), manifest::is_summary)?,
            beside,
            run_id: manifest::run_id(),
        })
    }

    pub fn wants_manifest(&self) -> bool {
        self.manifest.is_some() || self.beside.is_some()
    }

    /// Where the manifest of the output at `target` goes.
    pub fn beside_output(&self, target: &Path) -> PathBuf {
        self.beside.clone().unwrap_or_else(|| manifest::beside(target))
    }

    /// Writes what does not appear together with an output.
    pub fn write(self, account: &Account<'_>, models: &Models<'_>, end: &End, counts: &Counts) -> anyhow::Result<()> {
        let manifest = self.manifest.map_or(Ok(()), |file| {
            file.finish(&manifest::to_text(&account.manifest(models, end, counts, None, None)?)?)
        });
        // Whoever watches runs hears of this one even where it has no manifest.
        let summary = self.summary.map_or(Ok(()), |file| {
            file.finish(&manifest::to_text(&manifest::summary(
                &self.run_id,
                end,
                Some(counts),
            )?)?)
        });
        manifest.and(summary)
    }
}

/// Where the manifest of the output at `target` goes, links followed. It is put in place together with the output,
/// which a pipe cannot be.
fn manifest_of(target: &Path, named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = named.map_or_else(|| manifest::beside(target), Path::to_owned);
    match Destination::of(&path).context("--manifest")? {
        Destination::File(path) => Ok(path),
        _ => {
            let name = path.display();
            Err(UsageError(format!(
                "--manifest {name}: with -o expected the name of a file, found a pipe or a device"
            ))
            .into())
        }
    }
}

/// A name that a run writes under.
struct OwnName {
    flag: &'static str,
    /// What the flag names.
    path: PathBuf,
    /// That with links followed, or what stands in for it until it is complete.
    name: PathBuf,
}

/// All names that a run writes under, of those of its files that are files.
fn own_names(
    output: Option<&Path>,
    manifest: Option<&Path>,
    summary: Option<&Path>,
    cache: Option<&Path>,
) -> Vec<OwnName> {
    let file = |path: Option<&Path>| match Destination::of(path?) {
        Ok(Destination::File(target)) => Some(target),
        _ => None,
    };
    let (target, beside) = (file(output), file(manifest));
    let together = target.as_ref().zip(beside);
    let together = together.map(|(target, manifest)| Companion::beside(&manifest, target));
    let files = [
        (
            "-o",
            output,
            target.iter().flat_map(|target| stand_ins(target)).collect(),
        ),
        ("--manifest", manifest, Vec::from_iter(together)),
        ("--summary-json", summary, Vec::new()),
        ("--cache", cache, Vec::new()),
    ];
    let mut names = Vec::new();
    for (flag, path, more) in files {
        let Some((path, target)) = path.zip(file(path)) else {
            continue;
        };
        names.extend(std::iter::once(target).chain(more).map(|name| OwnName {
            flag,
            path: path.to_owned(),
            name,
        }));
    }
    names
}

/// Checks that no name that this run writes under is one that it reads or another file's of its own.
fn check_names(own: &[OwnName], read: &[PathBuf]) -> Result<(), UsageError> {
    for (i, OwnName { flag, path, name }) in own.iter().enumerate() {
        let is_other = |other: &&OwnName| other.flag != *flag && is_same_file(&other.name, name);
        let problem = if read.iter().any(|read| is_same_file(read, name)) {
            "is read by this run; name another file".to_owned()
        } else if let Some(other) = own[..i].iter().find(is_other) {
            format!("is a file of {} already", other.flag)
        } else {
            continue;
        };
        return Err(UsageError(format!(
            "{flag} {}: {} {problem}",
            path.display(),
            name.display()
        )));
    }
    Ok(())
}

/// The models' records, while they are still being made.
#[derive(Default)]
pub struct Models<'s>(pub RefCell<Option<ScopedJoinHandle<'s, ModelRecords>>>);

type ModelRecords = Result<Vec<ModelRecord>, CheckpointError>;

impl Models<'_> {
    /// Waits for them; none the second time.
    fn take(&self) -> ModelRecords {
        match self.0.take().map(ScopedJoinHandle::join) {
            Some(Ok(models)) => models,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(Vec::new()),
        }
    }
}

/// What is known of a run before it ends.
pub struct Account<'r> {
    pub ensemble: &'r Ensemble,
    pub run_id: String,
    pub started: Timestamp,
    pub settings: &'r [SettingRow],
    pub options: &'r Options,
}

impl Account<'_> {
    /// The manifest. `resume`: what lets a later `--resume` recognise the output.
    pub fn manifest(
        &self,
        models: &Models<'_>,
        end: &End,
        counts: &Counts,
        output: Option<OutputRecord>,
        resume: Option<Value>,
    ) -> anyhow::Result<Value> {
        let input = |report: &InputReport| FileHash {
            name: report.name.clone(),
            bytes: report.digest.bytes,
            sha256: report.digest.sha256_hex(),
        };
        let inputs: Vec<FileHash> = counts.inputs.iter().map(input).collect();
        let given = self.settings.iter().find(|row| row.setting == "threshold");
        let device = &self.ensemble.device;
        let run = RunRecord {
            models: models.take()?,
            threshold: self.ensemble.threshold_record(given, self.options.threshold),
            precision: device.placement.precision.name().to_owned(),
            device: device.description.clone(),
            kernels: device.kernel.clone(),
            threads: self.options.threads,
            settings: self.settings.to_vec(),
            // They have hashes once they have been read to their ends.
            inputs: (!inputs.is_empty()).then_some(inputs),
            output,
            resume,
        };
        Manifest::new("score", &self.run_id, self.started, run).ended(Timestamp::now(), end, manifest::numbers(counts))
    }
}
