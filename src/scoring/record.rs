//! Reads the fields of one record out of a line, and leaves the rest of the line alone.
//!
//! Values are looked at as raw text: only the nine fields named here are decoded. serde_json walks
//! over everything else without recursion and without decoding, so numbers of any size, lone
//! surrogates and nesting of any depth pass.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{ErrorCode, LineError, quoted};
use super::output::OutputKey;
use crate::Side;

/// The context of each side of a pair.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub drug: Half<'a>,
    pub adr: Half<'a>,
}

/// One side as the record states it.
#[derive(Debug, PartialEq, Eq)]
pub struct Half<'a> {
    pub text: Cow<'a, str>,
    pub entity: Cow<'a, str>,
    /// `[start, end)` in code points of `text`.
    pub span: Option<[usize; 2]>,
}

/// A line that is no record: why, and whether the error can be spliced into the line.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejection {
    pub error: LineError,
    pub spliceable: bool,
}

const DRUG: usize = 0;
const DRUG_ENTITY: usize = 1;
const ADR: usize = 2;
const ADR_ENTITY: usize = 3;
const TEXT: usize = 4;
const DRUG_TEXT: usize = 5;
const ADR_TEXT: usize = 6;
const DRUG_SPAN: usize = 7;
const ADR_SPAN: usize = 8;

/// The fields that are read, in the order of the constants above.
pub const FIELDS: [&str; 9] = [
    "drug",
    "drug_entity",
    "adr",
    "adr_entity",
    "text",
    "drug_text",
    "adr_text",
    "drug_span",
    "adr_span",
];

/// How many of an object's own keys a message shows.
const SHOWN_KEYS: usize = 6;

/// Reads one line. `output` says which keys are taken for the answer.
pub fn parse<'a>(line: &'a [u8], output: &OutputKey) -> Result<Record<'a>, Rejection> {
    let unspliceable = |code, message| Rejection {
        error: LineError::new(code, message),
        spliceable: false,
    };
    let line = std::str::from_utf8(line).map_err(|error| {
        let at = error.valid_up_to();
        let message = format!("expected UTF-8, found the byte 0x{:02x} at byte {}", line[at], at + 1);
        unspliceable(ErrorCode::InvalidUtf8, message)
    })?;
    let object = read_object(line, output).map_err(|(code, message)| unspliceable(code, message))?;
    if let Some(key) = &object.conflict {
        let error = LineError::new(
            ErrorCode::KeyConflict,
            format!(
                "the key {} is already there; remove it or name another with --output-key",
                quoted(key)
            ),
        );
        return Err(Rejection {
            error,
            spliceable: !object.error_taken,
        });
    }
    object.record().map_err(|error| Rejection {
        error,
        spliceable: true,
    })
}

fn read_object<'a>(line: &'a str, output: &OutputKey) -> Result<Object<'a>, (ErrorCode, String)> {
    let first = line.trim_start_matches([' ', '\t', '\r', '\n']).as_bytes().first();
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let object = if first == Some(&b'{') {
        deserializer.deserialize_map(ObjectVisitor { output })
    } else {
        IgnoredAny::deserialize(&mut deserializer).map(|_| Object::default())
    };
    let object = object
        .and_then(|object| deserializer.end().map(|()| object))
        .map_err(|error| {
            let place = format!(" at line {} column {}", error.line(), error.column());
            let reason = error.to_string().replace(&place, "");
            (ErrorCode::InvalidJson, format!("{reason} at byte {}", error.column()))
        })?;
    match first {
        Some(b'{') => Ok(object),
        Some(&other) => Err((
            ErrorCode::NotAnObject,
            format!("expected an object, found {}", kind(other)),
        )),
        None => Err((ErrorCode::InvalidJson, "expected an object, found nothing".to_owned())),
    }
}

/// What is kept of an object: the raw values of the known fields.
#[derive(Default)]
struct Object<'a> {
    values: [Option<&'a str>; FIELDS.len()],
    duplicate: Option<&'static str>,
    /// The first key that the answer would have been written under.
    conflict: Option<String>,
    /// Whether the key that an error would be written under is there.
    error_taken: bool,
    keys: Vec<String>,
    more_keys: bool,
}

struct ObjectVisitor<'o> {
    output: &'o OutputKey,
}

impl<'de> Visitor<'de> for ObjectVisitor<'_> {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object::default();
        // Keys stay raw too: one with a lone surrogate is no name of ours, and passes.
        while let Some(raw_key) = map.next_key::<&RawValue>()? {
            let value = map.next_value::<&RawValue>()?.get();
            let Some(key) = decode(raw_key.get()) else { continue };
            if let Some(i) = FIELDS.iter().position(|field| *field == key) {
                if object.values[i].replace(value).is_some() {
                    object.duplicate.get_or_insert(FIELDS[i]);
                }
            } else if self.output.takes(&key) {
                object.error_taken |= self.output.error_goes_under(&key);
                object.conflict.get_or_insert_with(|| key.to_string());
            } else if object.keys.len() < SHOWN_KEYS {
                object.keys.push(quoted(&key));
            } else {
                object.more_keys = true;
            }
        }
        Ok(object)
    }
}

impl<'a> Object<'a> {
    fn record(&self) -> Result<Record<'a>, LineError> {
        if let Some(field) = self.duplicate {
            return Err(LineError::new(
                ErrorCode::DuplicateKey,
                format!("field \"{field}\": expected once, found twice"),
            ));
        }
        let drug = self.entity(DRUG, DRUG_ENTITY)?;
        let adr = self.entity(ADR, ADR_ENTITY)?;
        let drug_text = self.text(DRUG_TEXT)?;
        let adr_text = self.text(ADR_TEXT)?;
        Ok(Record {
            drug: Half {
                text: drug_text,
                entity: drug,
                span: self.span(DRUG_SPAN)?,
            },
            adr: Half {
                text: adr_text,
                entity: adr,
                span: self.span(ADR_SPAN)?,
            },
        })
    }

    fn entity(&self, name: usize, other_name: usize) -> Result<Cow<'a, str>, LineError> {
        let entity = self.either(
            name,
            other_name,
            &format!("\"{}\" (or \"{}\")", FIELDS[name], FIELDS[other_name]),
        )?;
        if entity.trim().is_empty() {
            let field = FIELDS[if self.values[name].is_some() { name } else { other_name }];
            let message = format!("field \"{field}\": expected a name, found {}", emptiness(&entity));
            return Err(LineError::new(ErrorCode::EmptyEntity, message));
        }
        Ok(entity)
    }

    fn text(&self, own: usize) -> Result<Cow<'a, str>, LineError> {
        let text = self.either(own, TEXT, &format!("\"text\" (or \"{}\")", FIELDS[own]))?;
        if text.trim().is_empty() {
            let field = FIELDS[if self.values[own].is_some() { own } else { TEXT }];
            let message = format!("field \"{field}\": expected a text, found {}", emptiness(&text));
            return Err(LineError::new(ErrorCode::EmptyText, message));
        }
        Ok(text)
    }

    /// The one of two fields that is there; both have to agree.
    fn either(&self, a: usize, b: usize, names: &str) -> Result<Cow<'a, str>, LineError> {
        match (self.string(a)?, self.string(b)?) {
            (Some(one), Some(other)) if one != other => Err(LineError::new(
                ErrorCode::ConflictingFields,
                format!(
                    "fields \"{}\" and \"{}\": expected one of them or equal values, found {} and {}",
                    FIELDS[a],
                    FIELDS[b],
                    quoted(&one),
                    quoted(&other)
                ),
            )),
            (Some(value), _) | (None, Some(value)) => Ok(value),
            (None, None) => Err(LineError::new(
                ErrorCode::MissingField,
                format!(
                    "field {names}: expected a string, found no such field; {}",
                    self.inventory()
                ),
            )),
        }
    }

    fn inventory(&self) -> String {
        let known = FIELDS
            .iter()
            .zip(&self.values)
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| quoted(name));
        let keys: Vec<String> = known.chain(self.keys.iter().cloned()).collect();
        match keys.is_empty() {
            true => "the object is empty".to_owned(),
            false => format!(
                "the object has {}{}",
                keys.join(", "),
                if self.more_keys { ", …" } else { "" }
            ),
        }
    }

    fn string(&self, i: usize) -> Result<Option<Cow<'a, str>>, LineError> {
        let Some(raw) = self.values[i] else { return Ok(None) };
        let first = raw.as_bytes().first().copied().unwrap_or(b' ');
        if first != b'"' {
            let message = format!("field \"{}\": expected a string, found {}", FIELDS[i], kind(first));
            return Err(LineError::new(ErrorCode::WrongType, message));
        }
        match decode(raw) {
            Some(value) => Ok(Some(value)),
            // The walk over the line has checked all else about the string.
            None => Err(LineError::new(
                ErrorCode::LoneSurrogate,
                format!(
                    "field \"{}\": expected Unicode text, found half of a surrogate pair in an escape",
                    FIELDS[i]
                ),
            )),
        }
    }

    fn span(&self, i: usize) -> Result<Option<[usize; 2]>, LineError> {
        let Some(raw) = self.values[i].filter(|raw| *raw != "null") else {
            return Ok(None);
        };
        let span: Result<[usize; 2], _> = serde_json::from_str(raw);
        span.map(Some).map_err(|_| {
            let found: String = raw.chars().take(40).collect();
            let message = format!(
                "field \"{}\": expected [start, end) as two whole numbers of code points, found {found}{}",
                FIELDS[i],
                if found.len() < raw.len() { "…" } else { "" }
            );
            LineError::new(ErrorCode::WrongType, message)
        })
    }
}

impl Record<'_> {
    pub fn half(&self, side: Side) -> &Half<'_> {
        match side {
            Side::Drug => &self.drug,
            Side::Adr => &self.adr,
        }
    }
}

/// The value of a raw JSON string, none if it holds a lone surrogate.
fn decode(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn emptiness(value: &str) -> &'static str {
    if value.is_empty() {
        "an empty string"
    } else {
        "whitespace alone"
    }
}

/// What a JSON value is, by its first byte.
fn kind(first: u8) -> &'static str {
    match first {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "a string",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests;
