//! The command line: arguments as typed, what they mean, and one file a subcommand.
//!
//! Only this room knows clap, prints to a terminal and decides exit codes:
//! 0 all done; 1 could not run or go on; 2 usage, or not the run that an output belongs to, and nothing was written;
//! 3 finished, but not everything is well (error records in the output, a verification that failed); 11 another run
//! is writing the output; 128 and a signal's number (129, 130, 143) interrupted; 141 whoever read stdout stopped reading.

mod about;
mod before_a_run;
mod calibrate;
mod check;
mod config;
mod console;
mod convert;
mod device;
mod doubts;
mod eval;
mod extract;
mod generate;
mod inputs;
mod inspect;
mod labelled;
mod manifest;
mod merge;
mod model;
mod model_args;
mod model_choice;
mod model_folder;
mod outcome;
mod progress;
mod records;
mod report_file;
mod resampling;
mod score;
mod signals;
mod stdout;
mod stored_weights;
mod stream;
mod threads;
mod time_left;
mod train;
mod values;
mod verify;
mod whole_output;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::before_a_run::{paths_given, told_before_a_run, value_given, wants_json_log};
use self::config::{Layers, UnknownVariable};
use self::console::{ConsoleArgs, note};
pub use self::outcome::{Outcome, UsageError, exit_code};
use crate::kernels::memory;

/// Scores whether a text says that a drug caused an adverse reaction.
#[derive(Debug, Parser)]
#[command(name = "crag", version, about, long_about = None, propagate_version = true, max_term_width = 110)]
#[command(after_help = "\
Flags can be set elsewhere, too: --some-flag of `crag score` by CRAG_SCORE_SOME_FLAG or CRAG_SOME_FLAG in the \
environment, or by `some-flag = VALUE` in the file that --config (or CRAG_CONFIG) names, in its section [score] or \
above all sections. The command line counts most, then the environment, then the file. Several values of a flag \
that can be repeated are a list, [\"a\", \"b\"], in both. Flags of a single call (--force, --json, --text and the like) \
work on the command line only. Nothing is read from the working folder unless it is named.

Other variables: CRAG_KERNEL=amx|avx512|avx2|neon|portable forces a kernel; HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT \
and HF_HUB_OFFLINE are the hub's, HTTPS_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE the network's.")]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// File with settings (TOML; `crag --help` says how)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Reports")]
    config: Option<PathBuf>,

    #[command(flatten)]
    console: ConsoleArgs,

    /// With --version: commit, features, target and compiler too, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Score pairs in JSONL, CSV or TSV (files or stdin), or one pair given by flags
    Score(Box<score::ScoreArgs>),
    /// Say what is wrong with records, without a model
    Check(check::CheckArgs),
    /// Read pairs to score out of annotated documents (PubTator, BioC, ADE corpus, brat)
    Extract(extract::ExtractArgs),
    /// Put the answers of all shards of a run (--shard) back into one output
    Merge(merge::MergeArgs),
    /// Show what a checkpoint holds: roles of its tensors, parameters, settings and their sources
    Inspect(inspect::InspectArgs),
    /// Score the model card's own example and compare with its published probability
    Verify(verify::VerifyArgs),
    /// Write a checkpoint as a folder that states everything and loads fast
    Convert(convert::ConvertArgs),
    /// Train a dual encoder on labelled pairs: the model card's recipe, or one of your own
    Train(Box<train::TrainArgs>),
    /// Judge probabilities against labels: metrics with intervals, thresholds, mistakes, a report
    Eval(eval::EvalArgs),
    /// Fit a calibration to labelled records and write it into a model's crag.json
    Calibrate(calibrate::CalibrateArgs),
    /// Print the completions for a shell
    Completions(generate::CompletionsArgs),
    /// Write the man pages
    Man(generate::ManArgs),
}

/// The command line's definitions.
fn command() -> clap::Command {
    Cli::command()
}

/// Parses the process's arguments, with environment and config file beneath them, and runs the subcommand.
///
/// # Safety
/// The process must have no other thread: settings of the allocator and the environment are changed at the start.
pub unsafe fn run() -> anyhow::Result<Outcome> {
    // SAFETY: the caller states that there is no other thread.
    unsafe {
        memory::keep_freed_buffers();
        memory::share_heap_if_addresses_are_limited();
    }
    signals::outlive_file_size_limit();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let variable = |name: &str| std::env::var_os(name);
    let glance = config::glance(&command(), &arguments);
    if let Some(args) = glance
        .as_ref()
        .and_then(|glance| ConsoleArgs::from_arg_matches(glance).ok())
    {
        // So that what is wrong with the command line is said in the form that it asks for.
        console::configure(&args);
    }
    let name = glance.as_ref().and_then(|glance| glance.subcommand_name());
    let of_command = name.map(|name| format!("CRAG_{}_LOG_FORMAT", name.to_ascii_uppercase()));
    let set = of_command
        .and_then(|name| variable(&name))
        .or_else(|| variable("CRAG_LOG_FORMAT"));
    if wants_json_log(&arguments, set) {
        console::speak_json();
    }
    // What a shell's start asks for is the same whatever a file says, and has to come although it is damaged.
    let layers = match name {
        Some("completions" | "man") => Layers::read(&command(), None, &|_| None),
        _ => Layers::read(&command(), glance.as_ref(), &variable),
    };
    let config = layers.as_ref().ok().and_then(Layers::config);
    let parsed = match &layers {
        Ok(layers) => layers.parse(command(), &arguments, name),
        Err(UsageError(message)) => Err(UsageError(message.clone()).into()),
    };
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let layers = layers.unwrap_or_else(|_| Layers::without_file(&variable));
            let beneath = || layers.value(&command(), name?, "summary-json");
            let summary = value_given(&arguments, "--summary-json").or_else(beneath);
            return told_before_a_run(error, &arguments, glance.as_ref(), summary.map(PathBuf::from));
        }
    };
    let mut cli = Cli::from_arg_matches(&parsed.matches)?;
    cli.console.settle(&parsed.settings);
    console::configure(&cli.console);
    if cli.json {
        return Err(UsageError("--json goes with --version, or after the subcommand".into()).into());
    }
    for UnknownVariable { name, meant, call_only } in config::unknown_variables(&command(), std::env::vars_os()) {
        let text = format!("the environment variable {name} stands for no flag");
        if let Some(flag) = call_only {
            console::warn(&format!("{text}: --{flag} is for the command line alone"));
            continue;
        }
        match meant {
            Some(meant) => console::warn(&format!("{text}; did you mean {meant}?")),
            None => console::detail(&text),
        }
    }
    signals::explain_lost_pages();
    match &cli.command {
        // These have something to finish, and watch for signals themselves.
        Command::Score(_) | Command::Extract(_) | Command::Merge(_) | Command::Convert(_) | Command::Train(_) => {}
        _ => signals::end_as_first_process()?,
    }
    if let Command::Train(_) = &cli.command {
        // candle's own pool spins between operations and takes the time of those that have work; what it would do in
        // training is adding up gradients, which memory bounds anyway.
        // SAFETY: the caller states that there is no other thread, and none has been started yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    match cli.command {
        Command::Score(args) => score::run(*args, parsed.settings, config),
        Command::Check(args) => check::run(args),
        Command::Extract(args) => extract::run(args, config),
        Command::Merge(args) => merge::run(args, config),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Train(args) => train::run(*args, parsed.settings),
        Command::Eval(args) => eval::run(args, &parsed.settings),
        Command::Calibrate(args) => calibrate::run(args, &parsed.settings),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
    }
}

/// Says why the process ends.
pub fn report(error: &anyhow::Error) {
    // `{:#}` joins the causes with colons.
    console::error(&format!("{error:#}"), exit_code(error));
}

/// Writes `text` to stdout; a closed pipe is an outcome, not an error.
fn print(text: &str) -> anyhow::Result<Outcome> {
    use std::io::Write as _;
    let mut stdout = stdout::lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Outcome::Complete),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(Outcome::ClosedPipe),
        Err(e) => Err(anyhow::Error::new(e).context("stdout")),
    }
}
