//! Where answers go: stdout, a device or pipe, or a file that a later run can go on with.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::cli::config::SettingRow;
use crate::cli::manifest::{self, numbers};
use crate::cli::stream::open_stream;
use crate::cli::values::parse_seconds;
use crate::cli::whole_output::without_output;
use crate::cli::{Outcome, UsageError, console, note};
use crate::files::{Claim, Companion, Destination, Input, OutputError, OutputFile, RealDisk, refuse_stdout};
use crate::scoring::{self, Counts, FileSink, Finished, Opened, Options, Plan, ScoreError, Setting, Sink};

#[derive(Debug, clap::Args)]
pub struct OutputArgs {
    /// Write to this file: OUT.partial, until it is complete, then OUT; compressed if it ends in .gz, .zst or .bz2
    #[arg(help_heading = "Output", long, short, value_name = "OUT")]
    output: Option<PathBuf>,

    /// Replace OUT if it exists (once the new one is complete), and an unfinished OUT.partial; with --resume an
    /// unfinished run is gone on with, and an OUT that another command made is replaced
    #[arg(help_heading = "Output", long)]
    force: bool,

    /// Go on where an earlier run of the same command ended; from the beginning if there was none
    #[arg(help_heading = "Output", long)]
    resume: bool,

    /// Keep what --resume needs at most this often
    #[arg(help_heading = "Output", long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    save_every: Duration,

    /// Wait this long for another run that is writing OUT
    #[arg(help_heading = "Output", long, value_name = "SECONDS", default_value = "0", value_parser = parse_seconds)]
    lock_timeout: Duration,
}

/// A place for answers, looked at and locked before a model is opened.
pub enum Output {
    Stdout,
    Stream(std::fs::File),
    File(OutputFile),
}

impl OutputArgs {
    /// Whether answers go elsewhere than to stdout.
    pub fn is_given(&self) -> bool {
        self.output.is_some()
    }

    /// The file that answers go to, links followed, if they go to one.
    pub fn target(&self) -> Option<PathBuf> {
        match Destination::of(self.output.as_ref()?) {
            Ok(Destination::File(target)) => Some(target),
            _ => None,
        }
    }

    /// Errors where a flag on the command line says how to write a file, and no file is named there or beneath it.
    pub fn check(&self, settings: &[SettingRow]) -> Result<(), UsageError> {
        let of_file = ["resume", "save-every", "lock-timeout"];
        let is_of_file = |row: &&SettingRow| row.is_on_command_line() && of_file.contains(&row.setting.as_str());
        // `--force` is for the command line alone, and no setting.
        let force = self.force.then_some("force");
        match force.or_else(|| settings.iter().find(is_of_file).map(|row| row.setting.as_str())) {
            Some(flag) if self.output.is_none() => Err(without_output(flag)),
            _ => Ok(()),
        }
    }

    /// How messages name the output.
    fn name(&self) -> String {
        self.output
            .as_deref()
            .map_or("stdout".to_owned(), |path| path.display().to_string())
    }

    /// Opens or locks the output. Nothing is written.
    pub fn claim(&self, inputs: &[Input]) -> anyhow::Result<Output> {
        let Some(path) = &self.output else {
            refuse_stdout(inputs)?;
            return Ok(Output::Stdout);
        };
        let target = match Destination::of(path)? {
            Destination::File(target) => target,
            stream => {
                if self.resume {
                    let name = path.display();
                    let message = format!("--resume: {name} is no file, nothing of it can be gone on with");
                    return Err(UsageError(message).into());
                }
                return Ok(match stream {
                    Destination::Stream(path) => Output::Stream(open_stream(&path, inputs)?),
                    _ => {
                        refuse_stdout(inputs)?;
                        Output::Stdout
                    }
                });
            }
        };
        let claim = Claim {
            force: self.force,
            resume: self.resume,
            wait: self.lock_timeout,
        };
        Ok(Output::File(OutputFile::claim(
            Arc::new(RealDisk),
            &target,
            inputs,
            claim,
        )?))
    }

    /// What is to be written: the answers to `inputs`, which depend on `settings`. `manifest_path`: where that of the
    /// output goes; one that is there may say that there is nothing left to do.
    pub fn plan(&self, inputs: &[Input], settings: Vec<Setting>, manifest_path: &Path) -> Plan {
        Plan {
            settings,
            names: inputs.iter().map(Input::name).collect(),
            resume: self.resume,
            force: self.force,
            save_every: self.save_every,
            evidence: manifest::evidence(manifest_path).ok().flatten(),
        }
    }

    /// Scores into a locked file. `score` runs into a sink, with `options` and a start.
    ///
    /// `companions` makes the files that appear together with the output, such as its manifest, when all answers are
    /// on the disk: they are written beside their places and synced, then put in place directly before the output.
    /// A crash in between is mended by `--resume`, which calls it again. A manifest that has
    /// [`Finished::evidence`] as its member `resume` lets a later `--resume` see that there is nothing left to do.
    ///
    /// `again`: the inputs once more, where they can be read twice. A finished output turns out to be of other inputs only
    /// when those have been read, and with `--force` it is made anew then.
    ///
    /// Returns the counts of all of the output, those of earlier runs included.
    #[expect(clippy::too_many_arguments, reason = "a run in parts, each made by who knows of it")]
    pub fn score_to_file(
        &self,
        file: OutputFile,
        plan: Plan,
        inputs: Vec<Input>,
        again: Option<Vec<Input>>,
        options: Options,
        score: impl FnOnce(Vec<Input>, &mut dyn Sink, &Options) -> Result<Counts, ScoreError>,
        companions: impl FnOnce(&Finished) -> anyhow::Result<Vec<Companion>>,
    ) -> anyhow::Result<Scored> {
        let starting = |start| Options {
            start: Arc::new(start),
            ..options.clone()
        };
        let anew = Plan {
            resume: false,
            ..plan.clone()
        };
        let (mut sink, start) = match FileSink::open(file, plan)? {
            Opened::Run(sink, start) => (*sink, start),
            Opened::Finished(mut file, start) => {
                let counts = start.counts.clone();
                match (scoring::check_inputs(inputs, &starting(start)), again) {
                    (Err(ScoreError::Resume(_)), Some(inputs)) if self.force => {
                        return self.score_to_file(file, anew, inputs, None, options, score, companions);
                    }
                    (checked, _) => checked.with_context(|| self.name())?,
                };
                file.settle(&[])?;
                return Ok(Scored::Already(counts));
            }
        };
        let before = start.counts.records();
        let counts = match score(inputs, &mut sink, &starting(start)) {
            Ok(counts) => counts,
            Err(ScoreError::Interrupted) => return Ok(Scored::Interrupted),
            Err(error @ ScoreError::Resume(_)) => return Err(error).with_context(|| self.name()),
            Err(error @ ScoreError::Rejected { .. }) => {
                let way_on =
                    "what was finished is kept, and --resume goes on with the line mended, or with --on-error record";
                return Err(anyhow::anyhow!("{error}; {way_on}"));
            }
            Err(
                error @ (ScoreError::Read { .. }
                | ScoreError::Encoding { .. }
                | ScoreError::Header { .. }
                | ScoreError::NoHeader { .. }),
            ) => {
                let way_on =
                    "what was finished is kept, and the same command with --resume goes on once the input is mended";
                return Err(anyhow::anyhow!("{:#}; {way_on}", anyhow::Error::new(error)));
            }
            Err(error) => return Err(with_way_on(error.into())),
        };
        let finished = sink.complete(&counts).map_err(|error| with_way_on(error.into()))?;
        let companions = companions(&finished).map_err(with_way_on)?;
        sink.publish(&companions).map_err(|error| with_way_on(error.into()))?;
        Ok(Scored::Complete { counts, before })
    }
}

/// How scoring into a file ended.
pub enum Scored {
    /// `before`: records that earlier runs had answered.
    Complete {
        counts: Counts,
        before: u64,
    },
    /// It was there already.
    Already(Counts),
    Interrupted,
}

impl Scored {
    /// Says it on stderr; `interrupted` is how an interrupted run ends.
    ///
    /// Returns the counts too, of a run that came to its end.
    pub fn report(self, interrupted: impl FnOnce() -> Outcome) -> (Outcome, Option<Counts>) {
        let (text, counts) = match self {
            Scored::Complete { counts, before: 0 } => (counts.to_string(), counts),
            Scored::Complete { counts, before } => (format!("{counts}; {before} of them by earlier runs"), counts),
            Scored::Already(counts) => (format!("nothing to do, the output is complete: {counts}"), counts),
            Scored::Interrupted => {
                note("interrupted; the same command with --resume goes on");
                return (interrupted(), None);
            }
        };
        report_summary(&text, &counts);
        (Outcome::of(&counts), Some(counts))
    }
}

/// Says how a run ended that came to its end; with `--quiet`, too, where nothing could be scored.
pub fn report_summary(text: &str, counts: &Counts) {
    console::report("summary", text, numbers(counts));
    if let Some(doubt) = counts.nothing_scored() {
        console::warn(&doubt);
    }
}

/// One line says what went wrong and what to do, where the error does not say that itself.
fn with_way_on(error: anyhow::Error) -> anyhow::Error {
    let says_how = |cause: &(dyn std::error::Error + 'static)| {
        // What a sink passes on as an error of a stream is within that, not behind it.
        let within = || cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref();
        matches!(
            cause.downcast_ref().or_else(within),
            Some(OutputError::Appeared { .. } | OutputError::CompanionAppeared { .. } | OutputError::Lost { .. })
        )
    };
    match error.chain().any(says_how) {
        true => error,
        false => anyhow::anyhow!("{error:#}; what was finished is kept, and the same command with --resume goes on"),
    }
}
