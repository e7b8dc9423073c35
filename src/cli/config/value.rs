//! A value in the environment and in the config file, as the command line would have it.

use std::borrow::Cow;

use clap::{Arg, ArgAction, Command};
use toml::de::{DeTable, DeValue};

use crate::cli::UsageError;

/// A value of a config file, independent of the file's text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Numbers as they are written: 0.6 is not to become the f64 next to it.
    Text(String),
    Bool(bool),
    List(Vec<Value>),
    /// `name = value` pairs, for flags that take NAME=VALUE.
    Table(Vec<(String, Value)>),
    /// What no flag takes, by its TOML name.
    Other(&'static str),
}

impl Value {
    pub fn new(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Value::Text(number.as_str().to_owned()),
            DeValue::Float(number) => Value::Text(number.as_str().to_owned()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Array(values) => Value::List(values.iter().map(|value| Value::new(value.get_ref())).collect()),
            DeValue::Table(table) => Value::Table(
                table
                    .iter()
                    .map(|(name, value)| (name.get_ref().to_string(), Value::new(value.get_ref())))
                    .collect(),
            ),
            other => Value::Other(other.type_str()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Value::Text(_) => "a value",
            Value::Bool(_) => "a boolean",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
            Value::Other(name) => name,
        }
    }

    fn text(&self) -> Result<String, String> {
        match self {
            Value::Text(text) => Ok(text.clone()),
            Value::Bool(value) => Ok(value.to_string()),
            other => Err(format!(
                "expected a string, a number or a boolean, found {}",
                other.name()
            )),
        }
    }
}

/// What `arg` would be given for `value`.
pub fn from_file(arg: &Arg, value: &Value) -> Result<Vec<String>, String> {
    match (arg.get_action(), value) {
        (ArgAction::SetTrue | ArgAction::SetFalse, Value::Bool(value)) => Ok(vec![value.to_string()]),
        (ArgAction::SetTrue | ArgAction::SetFalse, other) => {
            Err(format!("expected true or false, found {}", other.name()))
        }
        (ArgAction::Append, Value::List(values)) => values.iter().map(Value::text).collect(),
        (ArgAction::Append, Value::Table(pairs)) => {
            let pair = |(name, value): &(String, Value)| Ok(format!("{name}={}", value.text()?));
            pairs.iter().map(pair).collect()
        }
        (_, other) => Ok(vec![other.text()?]),
    }
}

/// The same for the text of an environment variable: for a flag that may be repeated, a list as TOML has it
/// (`["a", "b"]`) is its several values.
pub fn from_variable(arg: &Arg, text: &str) -> Result<Vec<String>, String> {
    match arg.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(vec!["true".to_owned()]),
            "0" | "false" | "no" | "off" => Ok(vec!["false".to_owned()]),
            _ => Err(format!(
                "expected 1, true, yes or on, or 0, false, no or off, found {text:?}"
            )),
        },
        ArgAction::Append if text.starts_with('[') && text.ends_with(']') => {
            let document = format!("values = {text}");
            let table = DeTable::parse(&document).map_err(|error| {
                let reason = error.message().to_owned();
                format!("expected a list such as [\"a\", \"b\"]: {reason}")
            })?;
            match table.get_ref().iter().next() {
                Some((_, value)) => from_file(arg, &Value::new(value.get_ref())),
                None => Ok(Vec::new()),
            }
        }
        _ => Ok(vec![text.to_owned()]),
    }
}

/// That the flag itself would take these values. `from`: where they are from.
pub fn check(arg: &Arg, values: &[String], from: &str) -> Result<(), UsageError> {
    let Some(long) = arg.get_long().filter(|_| arg.get_action().takes_values()) else {
        return match values {
            [value] if matches!(arg.get_action(), ArgAction::Count) && value.parse::<u8>().is_err() => Err(UsageError(
                format!("{from}: expected a number from 0 to 255, found {value:?}"),
            )),
            _ => Ok(()),
        };
    };
    // Without its relations to other flags, which do not exist here.
    let names = match arg.get_value_names() {
        Some(names) => names.to_vec(),
        None => vec![arg.get_id().to_string().into()],
    };
    let alone = Arg::new("value")
        .long(long.to_owned())
        .action(arg.get_action().clone())
        .value_parser(arg.get_value_parser().clone())
        .value_names(names)
        .allow_hyphen_values(true);
    let alone = match arg.get_value_delimiter() {
        Some(delimiter) => alone.value_delimiter(delimiter),
        None => alone,
    };
    let command = Command::new("crag").no_binary_name(true).arg(alone);
    let arguments = values.iter().map(|value| format!("--{long}={value}"));
    match command.try_get_matches_from(arguments) {
        Ok(_) => Ok(()),
        Err(error) => {
            // Clap's message is a paragraph or two; what follows them is for the command line.
            let text = error.render().to_string();
            let first: Vec<Cow<'_, str>> = text
                .lines()
                .take_while(|line| !line.starts_with("For more information"))
                .map(|line| Cow::from(line.trim().trim_start_matches("error: ")))
                .filter(|line| !line.is_empty())
                .collect();
            let from = from.split_once(' ').map_or(from, |(_, place)| place);
            Err(UsageError(format!("{from}: {}", first.join(" "))))
        }
    }
}
