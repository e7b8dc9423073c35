//! The config file: TOML, a section for each subcommand, every key a flag.

use std::path::{Path, PathBuf};

use clap::Command;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::Value;
use super::{call_only, long_of};
use crate::cli::UsageError;

/// A config file is written by hand; anything larger is something else.
const MOST_BYTES: u64 = 1 << 20;

/// A config file whose keys have all been checked.
pub struct ConfigFile {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// One key of the file.
pub struct Entry {
    /// The subcommand whose section it is in; none above all sections.
    section: Option<String>,
    /// The flag, as the command line spells it.
    key: String,
    pub value: Value,
    line: usize,
}

impl ConfigFile {
    pub fn read(path: &Path, command: &Command) -> Result<Self, UsageError> {
        let name = path.display();
        let failed = |error: std::io::Error| UsageError(format!("{name}: the config file cannot be read: {error}"));
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.is_dir() || metadata.len() > MOST_BYTES {
            let found = if metadata.is_dir() {
                "a folder"
            } else {
                "more than 1 MiB"
            };
            return Err(UsageError(format!(
                "{name}: expected a TOML file of settings, found {found}"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(path, &text, command)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn parse(path: &Path, text: &str, command: &Command) -> Result<Self, UsageError> {
        let line_of = |offset: usize| {
            1 + text.as_bytes()[..offset.min(text.len())]
                .iter()
                .filter(|&&b| b == b'\n')
                .count()
        };
        let name = path.display();
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            UsageError(format!("{name}:{line}: {}", error.message()))
        })?;
        let mut entries = Vec::new();
        let call_only = call_only(command);
        for (key, value) in table.get_ref() {
            let line = line_of(key.span().start);
            let (name_of_key, section) = (key.get_ref().as_ref(), value.get_ref());
            match (command.find_subcommand(name_of_key), section) {
                (Some(subcommand), DeValue::Table(table)) => {
                    let known = flags_of(command, Some(subcommand));
                    for (key, value) in table.iter() {
                        let line = line_of(key.span().start);
                        let section = Some(name_of_key);
                        entries.push(entry(&name, section, key, value, line, (&known, &call_only))?);
                    }
                }
                (Some(_), other) => {
                    return Err(UsageError(format!(
                        "{name}:{line}: expected a section [{name_of_key}], found a value of type {}",
                        other.type_str()
                    )));
                }
                (None, _) => {
                    let mut known: Vec<String> = Vec::new();
                    // A mistyped section is a table too, and of names that are as near, one of a section was meant.
                    if matches!(section, DeValue::Table(_)) {
                        known.extend(command.get_subcommands().map(|sub| sub.get_name().to_owned()));
                    }
                    known.extend(flags_of(command, None));
                    entries.push(entry(&name, None, key, value, line, (&known, &call_only))?);
                }
            }
        }
        for (i, entry) in entries.iter().enumerate() {
            let same = |other: &&Entry| other.section == entry.section && other.key == entry.key;
            if let Some(first) = entries[..i].iter().find(same) {
                let (key, line, other) = (&entry.key, entry.line.max(first.line), entry.line.min(first.line));
                return Err(UsageError(format!(
                    "{name}:{line}: \"{key}\" is set in line {other} already, in its other spelling"
                )));
            }
        }
        let path = path.to_owned();
        Ok(Self { path, entries })
    }

    /// The key for a flag of a subcommand: its section's, else the one for all.
    pub fn find(&self, subcommand: &str, long: &str) -> Option<&Entry> {
        let of = |section: Option<&str>| {
            let mut entries = self.entries.iter();
            entries.find(|entry| entry.section.as_deref() == section && entry.key == long)
        };
        of(Some(subcommand)).or_else(|| of(None))
    }

    /// `FILE:LINE`, for messages.
    pub fn place(&self, entry: &Entry) -> String {
        format!("{}:{}", self.path.display(), entry.line)
    }
}

fn entry(
    name: &std::path::Display<'_>,
    section: Option<&str>,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    line: usize,
    (known, call_only): (&[String], &[String]),
) -> Result<Entry, UsageError> {
    let typed = key.get_ref().as_ref();
    // Either spelling: max-line-bytes as the flag has it, max_line_bytes as TOML users may.
    let key = typed.replace('_', "-");
    if !known.contains(&key) {
        let place = match section {
            Some(section) => format!(" in [{section}]"),
            None => String::new(),
        };
        if call_only.contains(&key) {
            return Err(UsageError(format!(
                "{name}:{line}: \"{typed}\"{place}: --{key} is for the command line alone"
            )));
        }
        let nearest = nearest(&key, known).map_or_else(
            || match section {
                Some(section) => format!("; crag {section} --help lists the flags, whose names are the keys"),
                None => "; --help of a subcommand lists its flags, whose names are the keys".to_owned(),
            },
            |nearest| format!("; did you mean \"{nearest}\"?"),
        );
        return Err(UsageError(format!(
            "{name}:{line}: unknown key \"{typed}\"{place}{nearest}"
        )));
    }
    Ok(Entry {
        section: section.map(str::to_owned),
        key,
        value: Value::new(value.get_ref()),
        line,
    })
}

/// The flags that may be set in the section of a subcommand, or above all sections.
fn flags_of(command: &Command, subcommand: Option<&Command>) -> Vec<String> {
    let own = command.get_arguments();
    let flags: Vec<String> = match subcommand {
        Some(subcommand) => own
            .chain(subcommand.get_arguments())
            .filter_map(long_of)
            .map(str::to_owned)
            .collect(),
        None => {
            let all = command.get_subcommands().flat_map(Command::get_arguments);
            own.chain(all).filter_map(long_of).map(str::to_owned).collect()
        }
    };
    flags
}

/// The known name that `key` was probably meant to be.
fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    let distance = |name: &&String| strsim::damerau_levenshtein(key, name);
    let nearest = known.iter().min_by_key(distance)?;
    // Half of the letters wrong is another word.
    (distance(&nearest) * 2 <= nearest.len().max(key.len())).then_some(nearest)
}
