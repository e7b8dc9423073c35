//! Where settings come from: flag over environment over `--config` file over default, for every flag alike.
//!
//! Nothing is listed here: the command line's own definitions say which flags there are and what their values
//! may be. Values from the environment and the file become the defaults of those definitions before the
//! command line is parsed, so that a flag beats them, and each flag's own checks apply to them. Nothing is
//! read from the working folder unless `--config` or `CRAG_CONFIG` names it.
//!
//! `--some-flag` of `crag score` is `CRAG_SCORE_SOME_FLAG` or `CRAG_SOME_FLAG` in the environment (the first
//! counts more), and `some-flag` in the file, in `[score]` or (for all subcommands that have the flag) above
//! all sections. [`mod@file`] reads the file; [`value`] knows what a value looks like in each.

mod file;
mod value;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Serialize;

use self::file::ConfigFile;
use super::UsageError;
use crate::kernels::cpu::KERNEL_VARIABLE;
use crate::kernels::{CUDA_LT_VARIABLE, CUDA_PROFILE_VARIABLE};

/// What all variables begin with.
const PREFIX: &str = "CRAG_";
/// Names the file where no `--config` does.
const FILE_VARIABLE: &str = "CRAG_CONFIG";
/// Variables that stand for no flag.
const OTHER_VARIABLES: [&str; 3] = [KERNEL_VARIABLE, CUDA_LT_VARIABLE, CUDA_PROFILE_VARIABLE];
/// Flags that say what one call is to do, and so are for the command line alone.
const CALL_ONLY: [&str; 5] = ["help", "version", "config", "json", "force"];
/// The heading of flags that hold data, which are for the command line alone too.
pub const DATA_HEADING: &str = "One pair";

/// What is in force, and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingRow {
    /// The flag, without its dashes.
    pub setting: String,
    pub value: serde_json::Value,
    /// [`FLAG`], `environment CRAG_…`, `config FILE:LINE` or [`DEFAULT`].
    pub from: String,
}

const FLAG: &str = "flag";
const DEFAULT: &str = "default";

impl SettingRow {
    pub fn is_on_command_line(&self) -> bool {
        self.from == FLAG
    }

    pub fn is_default(&self) -> bool {
        self.from == DEFAULT
    }

    /// How far from the command line it was said; the nearest counts.
    pub fn distance(&self) -> u8 {
        match self.from.split_whitespace().next() {
            Some(FLAG) => 0,
            Some("environment") => 1,
            Some("config") => 2,
            _ => 3,
        }
    }
}

/// A command line that has been parsed, with what lay beneath it.
pub struct Parsed {
    pub matches: ArgMatches,
    /// All settings of the subcommand that have a value.
    pub settings: Vec<SettingRow>,
}

/// Why there is nothing to run.
pub enum ParseError {
    /// What clap says: also help and version, which are no errors.
    CommandLine(clap::Error),
    Usage(UsageError),
}

impl From<UsageError> for ParseError {
    fn from(error: UsageError) -> Self {
        ParseError::Usage(error)
    }
}

/// What lies beneath the command line: where its values come from.
pub struct Layers<'e> {
    variable: &'e dyn Fn(&str) -> Option<OsString>,
    file: Option<ConfigFile>,
}

/// A value beneath the command line.
struct Fallback {
    values: Vec<String>,
    from: String,
}

/// A first look at the command line, which is good for as much as could be understood of it.
pub fn glance(command: &Command, arguments: &[OsString]) -> Option<ArgMatches> {
    command.clone().ignore_errors(true).try_get_matches_from(arguments).ok()
}

impl<'e> Layers<'e> {
    /// `glance`: the first look at the command line, for `--config`. Reads and checks the whole file.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML, or has a key that no flag of `command` goes by.
    pub fn read(
        command: &Command,
        glance: Option<&ArgMatches>,
        variable: &'e dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, UsageError> {
        let flag = glance.and_then(config_flag);
        let named = flag.or_else(|| {
            variable(FILE_VARIABLE)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        });
        let file = match named {
            Some(path) => Some(ConfigFile::read(&path, command)?),
            None => None,
        };
        Ok(Self { variable, file })
    }

    /// The environment alone.
    pub fn without_file(variable: &'e dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { variable, file: None }
    }

    /// The value beneath a flag that takes one, whatever is wrong with others.
    pub fn value(&self, command: &Command, subcommand: &str, long: &str) -> Option<OsString> {
        let mut arguments = command.find_subcommand(subcommand)?.get_arguments();
        let arg = arguments.find(|arg| arg.get_long() == Some(long))?;
        let found = self.find(arg, long, subcommand).ok()??;
        found.values.first().map(|value| value.into())
    }

    /// The config file, if one was named.
    pub fn config(&self) -> Option<PathBuf> {
        self.file.as_ref().map(|file| file.path().to_owned())
    }

    /// Parses `arguments` with these layers beneath them.
    pub fn parse(&self, command: Command, arguments: &[OsString], name: Option<&str>) -> Result<Parsed, ParseError> {
        let mut origins = HashMap::new();
        let mut failed = None;
        let mut lay = |arg: Arg, subcommand: &str| match self.beneath(&arg, subcommand) {
            Ok(None) => arg,
            Ok(Some(fallback)) => {
                origins.insert(arg.get_id().to_string(), fallback.from);
                arg.required(false).default_values(fallback.values)
            }
            Err(error) => {
                failed.get_or_insert(error);
                arg
            }
        };
        let mut command = command;
        if let Some(name) = name.filter(|name| command.find_subcommand(name).is_some()) {
            // Flags of all subcommands stand above them; those of one in it.
            command = command.mut_args(|arg| lay(arg, name));
            command = command.mut_subcommand(name, |sub| sub.mut_args(|arg| lay(arg, name)));
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        command.build();
        let definitions = name.and_then(|name| command.find_subcommand(name)).cloned();
        let matches = command
            .try_get_matches_from_mut(arguments)
            .map_err(ParseError::CommandLine)?;
        let settings = match (definitions, matches.subcommand()) {
            (Some(definitions), Some((_, matches))) => settings(&definitions, matches, &origins),
            _ => Vec::new(),
        };
        Ok(Parsed { matches, settings })
    }

    /// The value beneath a flag, if there is one, as the flag would take it.
    fn beneath(&self, arg: &Arg, subcommand: &str) -> Result<Option<Fallback>, UsageError> {
        let Some(long) = long_of(arg) else { return Ok(None) };
        let found = self.find(arg, long, subcommand)?;
        if let Some(fallback) = &found {
            value::check(arg, &fallback.values, &fallback.from)?;
        }
        Ok(found)
    }

    fn find(&self, arg: &Arg, long: &str, subcommand: &str) -> Result<Option<Fallback>, UsageError> {
        for name in [variable_of(&format!("{subcommand}-{long}")), variable_of(long)] {
            // Set to nothing is as good as not set.
            let Some(text) = (self.variable)(&name).filter(|text| !text.is_empty()) else {
                continue;
            };
            let Some(text) = text.to_str() else {
                return Err(UsageError(format!("{name}: expected UTF-8, found {text:?}")));
            };
            let from = format!("environment {name}");
            let values = value::from_variable(arg, text).map_err(|reason| UsageError(format!("{name}: {reason}")))?;
            return Ok(Some(Fallback { values, from }));
        }
        let Some(file) = &self.file else { return Ok(None) };
        let Some(entry) = file.find(subcommand, long) else {
            return Ok(None);
        };
        let place = file.place(entry);
        let values = value::from_file(arg, &entry.value).map_err(|reason| UsageError(format!("{place}: {reason}")))?;
        let from = format!("config {place}");
        Ok(Some(Fallback { values, from }))
    }
}

/// A variable that looks as if it were meant for a flag.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    pub name: String,
    /// The one that was probably meant.
    pub meant: Option<String>,
    /// The flag that it names, which is for the command line alone.
    pub call_only: Option<String>,
}

/// Those of `variables` that look as if they were meant for a flag of `command`, but are not: a slip of the pen in
/// the environment is silent otherwise. One that is set to nothing is as good as not set.
pub fn unknown_variables(
    command: &Command,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<UnknownVariable> {
    let mut known = vec![FILE_VARIABLE.to_owned()];
    known.extend(OTHER_VARIABLES.map(str::to_owned));
    let global: Vec<&str> = command.get_arguments().filter_map(long_of).collect();
    for subcommand in command.get_subcommands() {
        let own = subcommand.get_arguments().filter_map(long_of);
        for long in own.chain(global.iter().copied()) {
            known.push(variable_of(long));
            known.push(variable_of(&format!("{}-{long}", subcommand.get_name())));
        }
    }
    let ours = variables.filter(|(_, value)| !value.is_empty());
    let ours = ours.filter_map(|(name, _)| name.into_string().ok().filter(|name| name.starts_with(PREFIX)));
    let unknown = ours.filter(|name| !known.contains(name));
    let call_only = call_only(command);
    // By its own name, or that of one subcommand.
    let is_of = |long: &str, name: &str| {
        let own = variable_of(long);
        let of = |subcommand: &Command| own.replacen(PREFIX, &(variable_of(subcommand.get_name()) + "_"), 1) == name;
        own == name || command.get_subcommands().any(of)
    };
    unknown
        .map(|name| UnknownVariable {
            meant: meant(&name, &known).map(str::to_owned),
            call_only: call_only.iter().find(|long| is_of(long, &name)).cloned(),
            name,
        })
        .collect()
}

/// The flags that are for the command line alone.
fn call_only(command: &Command) -> Vec<String> {
    let all = command.get_subcommands().flat_map(Command::get_arguments);
    let all = command.get_arguments().chain(all);
    let call_only = all.filter(|arg| long_of(arg).is_none()).filter_map(Arg::get_long);
    call_only.map(str::to_owned).collect()
}

/// The known variable that `name` is a slip of the pen for: at most one letter in four is wrong. Others begin with
/// `CRAG_` too, such as those of a build, and are nobody's slip.
fn meant<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    let distance = |known: &&String| strsim::damerau_levenshtein(&name[PREFIX.len()..], &known[PREFIX.len()..]);
    let nearest = known.iter().min_by_key(distance)?;
    (distance(&nearest) * 4 <= name.len() - PREFIX.len()).then_some(nearest)
}

/// The long name of a flag that may be set beneath the command line.
pub(super) fn long_of(arg: &Arg) -> Option<&str> {
    let is_data = arg.get_help_heading() == Some(DATA_HEADING);
    let is_flag = !arg.is_positional() && !is_data && !arg.is_hide_set();
    arg.get_long()
        .filter(|_| is_flag && !CALL_ONLY.contains(&arg.get_id().as_str()))
}

fn variable_of(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

fn config_flag(matches: &ArgMatches) -> Option<PathBuf> {
    let own = |matches: &ArgMatches| matches.try_get_one::<PathBuf>("config").ok().flatten().cloned();
    let of_subcommand = matches.subcommand().and_then(|(_, matches)| own(matches));
    of_subcommand.or_else(|| own(matches))
}

fn settings(command: &Command, matches: &ArgMatches, origins: &HashMap<String, String>) -> Vec<SettingRow> {
    let mut rows = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let (Some(long), Ok(Some(raw))) = (long_of(arg), matches.try_get_raw(id)) else {
            continue;
        };
        let values: Vec<String> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
        let from = match (matches.value_source(id), origins.get(id)) {
            (Some(ValueSource::CommandLine), _) => FLAG.to_owned(),
            (Some(ValueSource::DefaultValue), Some(origin)) => origin.clone(),
            _ => DEFAULT.to_owned(),
        };
        let value = match (arg.get_action(), values.as_slice()) {
            (ArgAction::SetTrue | ArgAction::SetFalse, _) => matches.get_flag(id).into(),
            (ArgAction::Count, _) => matches.get_count(id).into(),
            (ArgAction::Append, values) => values.into(),
            (_, [one]) => one.as_str().into(),
            (_, several) => several.into(),
        };
        let setting = long.to_owned();
        rows.push(SettingRow { setting, value, from });
    }
    rows
}
