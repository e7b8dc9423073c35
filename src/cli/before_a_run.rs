//! What is said before a subcommand runs: of a command line that is not understood, and help and version.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;

use super::config::ParseError;
use super::outcome::{Outcome, UsageError};
use super::{about, command, console, extract, print, score};

/// The value that `flag` seems to have on a command line that may not be understood.
pub fn value_given(arguments: &[OsString], flag: &str) -> Option<OsString> {
    // What follows `--` is no flag.
    let end = arguments.iter().position(|argument| argument == "--");
    let flags = &arguments[..end.unwrap_or(arguments.len())];
    let attached = |argument: &OsString| {
        let value = argument.as_bytes().strip_prefix(flag.as_bytes())?.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(value).to_owned())
    };
    flags.iter().find_map(attached).or_else(|| {
        let pair = flags.windows(2).find(|two| two[0] == flag)?;
        // Another flag is no value.
        let is_value = pair[1] == "-" || !pair[1].as_bytes().starts_with(b"-");
        is_value.then(|| pair[1].clone())
    })
}

/// Whether the command line, or else the environment, asks for JSON on stderr, even if they cannot be understood.
pub fn wants_json_log(arguments: &[OsString], variable: Option<OsString>) -> bool {
    let asked = value_given(arguments, "--log-format");
    asked.or(variable).is_some_and(|format| format == "json")
}

/// What ends the process before a subcommand runs: `error`, or help and version, which a bad file or variable does not stand in
/// the way of. `summary`: where the run was to say how it ended, as it seems.
pub fn told_before_a_run(
    error: ParseError,
    arguments: &[OsString],
    glance: Option<&ArgMatches>,
    summary: Option<PathBuf>,
) -> anyhow::Result<Outcome> {
    let failed = |error: &anyhow::Error| {
        let Some((name, matches)) = glance.and_then(ArgMatches::subcommand) else {
            return;
        };
        // What was not understood may be meant otherwise: there, only what an earlier run left is replaced.
        let seems = || summary.clone().filter(|path| path.exists());
        let Some(path) = paths_given(matches, "summary_json").next().or_else(seems) else {
            return;
        };
        match name {
            "score" => score::tell_failure_before_run(path, matches, error),
            "extract" => extract::tell_failure_before_run(path, matches, error),
            _ => {}
        }
    };
    match error {
        ParseError::CommandLine(mut error) => {
            add_tip(&mut error, glance);
            if error.use_stderr() {
                // Usage and hints come after a blank line; what is missing is listed before it.
                let text = error.render().to_string();
                let said = text.split("\n\n").next().unwrap_or_default();
                let words: Vec<&str> = said.trim_start_matches("error: ").split_whitespace().collect();
                failed(&UsageError(words.join(" ")).into());
            }
            told_by_clap(&error, arguments)
        }
        ParseError::Usage(error) => {
            if let Err(asked) = command().try_get_matches_from(arguments)
                && !asked.use_stderr()
            {
                return told_by_clap(&asked, arguments);
            }
            let error = error.into();
            failed(&error);
            Err(error)
        }
    }
}

/// A tip where a model was named without its flag.
fn add_tip(error: &mut clap::Error, glance: Option<&ArgMatches>) {
    let name = glance.and_then(ArgMatches::subcommand_name).unwrap_or_default();
    if !matches!(name, "inspect" | "verify" | "convert") || error.kind() != ErrorKind::UnknownArgument {
        return;
    }
    let of_command = glance.and_then(|glance| glance.subcommand_matches(name));
    if of_command.is_some_and(|matches| matches.value_source("model") == Some(ValueSource::CommandLine)) {
        return;
    }
    let tip = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) if !argument.starts_with('-') => {
            let model = if name == "convert" { "MODEL " } else { "" };
            format!("the model is named by --model: crag {name} --model {model}{argument}")
        }
        _ => return,
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
}

/// Help and version, which go to stdout, and what is wrong with a command line.
fn told_by_clap(error: &clap::Error, arguments: &[OsString]) -> anyhow::Result<Outcome> {
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    if error.kind() == ErrorKind::DisplayVersion && wants_json {
        return print(&(serde_json::to_string_pretty(&about::ABOUT)? + "\n"));
    }
    if error.use_stderr() && console::is_json() {
        let text = error.render().to_string();
        console::error(text.trim().trim_start_matches("error: "), Outcome::Usage.exit_code());
        return Ok(Outcome::Usage);
    }
    match error.print() {
        // A closed stderr is no reason to say anything else.
        _ if error.use_stderr() => Ok(Outcome::Usage),
        Ok(()) => Ok(Outcome::Complete),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(Outcome::ClosedPipe),
        Err(e) => Err(anyhow::Error::new(e).context("stdout")),
    }
}

/// The values of a flag or argument that takes paths, on a command line of which only a part may have been understood.
pub fn paths_given(matches: &ArgMatches, name: &str) -> impl Iterator<Item = PathBuf> {
    let given = matches.try_get_many::<PathBuf>(name).ok().flatten();
    given.into_iter().flatten().cloned()
}
