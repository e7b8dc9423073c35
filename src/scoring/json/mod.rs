//! Reads the fields of one record out of a line of JSON, and leaves the rest of the line alone.
//!
//! Values are looked at as raw text: only the nine fields are decoded. serde_json walks over everything else
//! without recursion and without decoding, so numbers of any size, lone surrogates and nesting of any depth pass.
//! Where a field is mapped to a place further inside, what is on the way there is walked once more for each step.

mod answer;

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{ErrorCode, LineError};
use super::fields::{FIELDS, FieldMap};
use super::output_key::OutputKey;
use super::record::{Record, Rejection, Value, Values};
use super::record_format::{Answer, RecordFormat};
use super::rows::RowEnds;
use crate::raw_json;
use crate::words::{quoted, utf8};

/// How many of an object's own keys a message shows.
const SHOWN_KEYS: usize = 6;

/// Reads records of one shape.
#[derive(Clone, Debug)]
pub struct JsonReader {
    map: FieldMap,
    tree: Vec<Step>,
    output: OutputKey,
}

/// A step on the way to fields.
#[derive(Clone, Debug)]
struct Step {
    key: String,
    /// The fields that are here.
    fields: Vec<usize>,
    /// The steps from here.
    next: Vec<Step>,
    /// What a message says if the step is there twice.
    duplicate: String,
}

impl JsonReader {
    /// `output` says which keys are taken for the answer.
    pub fn new(map: FieldMap, output: OutputKey) -> Self {
        let mut tree = Vec::new();
        for (field, steps) in map.steps().enumerate() {
            let mut level = &mut tree;
            for (depth, key) in steps.iter().enumerate() {
                let last = depth + 1 == steps.len();
                let i = level
                    .iter()
                    .position(|step: &Step| step.key == *key)
                    .unwrap_or_else(|| {
                        let what = if last {
                            "twice".to_owned()
                        } else {
                            format!("{key:?} on the way there twice")
                        };
                        level.push(Step {
                            key: key.clone(),
                            fields: Vec::new(),
                            next: Vec::new(),
                            duplicate: format!("field {}: expected once, found {what}", map.label(field)),
                        });
                        level.len() - 1
                    });
                if last {
                    level[i].fields.push(field);
                }
                level = &mut level[i].next;
            }
        }
        Self { map, tree, output }
    }

    /// Reads one line.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, Rejection> {
        let unspliceable = |code, message| Rejection {
            error: LineError::new(code, message),
            spliceable: false,
        };
        let line = utf8(line).map_err(|message| unspliceable(ErrorCode::InvalidUtf8, message))?;
        let object = self
            .read_object(line)
            .map_err(|(code, message)| unspliceable(code, message))?;
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
        let record = match object.duplicate {
            Some(message) => Err(LineError::new(ErrorCode::DuplicateKey, message)),
            None => {
                let inventory = || self.inventory(object.first_steps, &object.keys, object.more_keys);
                Values {
                    values: object.values,
                    map: &self.map,
                    inventory: &inventory,
                }
                .record()
            }
        };
        record.map_err(|error| Rejection {
            error,
            spliceable: true,
        })
    }

    fn inventory(&self, first_steps: u16, keys: &[&str], more_keys: bool) -> String {
        let steps = self.tree.iter().enumerate();
        let known = steps
            .filter(|(i, _)| first_steps & 1 << i != 0)
            .map(|(_, step)| quoted(&step.key));
        let keys: Vec<String> = known.chain(keys.iter().map(|key| raw_json::shown(key))).collect();
        match keys.is_empty() {
            true => "the object is empty".to_owned(),
            false => format!(
                "the object has {}{}{}",
                keys.join(", "),
                if more_keys { ", …" } else { "" },
                if self.map.is_open() {
                    "; --field says where else a field is, such as drug=/Drug"
                } else {
                    ""
                }
            ),
        }
    }

    fn read_object<'a, 't>(&'t self, line: &'a str) -> Result<Object<'a, 't>, (ErrorCode, String)> {
        let first = line.trim_start_matches([' ', '\t', '\r', '\n']).as_bytes().first();
        let mut deserializer = serde_json::Deserializer::from_str(line);
        let mut object = Object::default();
        let read = if first == Some(&b'{') {
            deserializer.deserialize_map(Level {
                steps: &self.tree,
                output: Some(&self.output),
                object: &mut object,
            })
        } else {
            IgnoredAny::deserialize(&mut deserializer).map(|_| ())
        };
        read.and_then(|()| deserializer.end()).map_err(|error| {
            (
                ErrorCode::InvalidJson,
                invalid(line, first.copied(), &error, self.map.is_open()),
            )
        })?;
        match first {
            Some(b'{') => Ok(object),
            Some(&other) => Err((
                ErrorCode::NotAnObject,
                format!(
                    "expected an object, found {}{}",
                    raw_json::kind(other),
                    match other {
                        b'[' => format!("; {FROM_ARRAY}"),
                        _ => String::new(),
                    }
                ),
            )),
            None => Err((ErrorCode::InvalidJson, "expected an object, found nothing".to_owned())),
        }
    }
}

impl RecordFormat for JsonReader {
    fn ends(&self) -> RowEnds {
        RowEnds::lines()
    }

    fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, Rejection> {
        JsonReader::parse(self, line)
    }

    fn write(&self, out: &mut Vec<u8>, line: &[u8], answer: &Answer<'_>) {
        let key = &self.output;
        match answer {
            Answer::Scored(scored) => answer::write_scored(out, line, key, scored),
            Answer::Error {
                error,
                spliceable: true,
                ..
            } => answer::write_error(out, line, key, error),
            Answer::Error { error, place, .. } => {
                // Of all lines that cannot take their error, only one whose key is taken is an object.
                let record = (error.code == ErrorCode::KeyConflict).then_some(line);
                answer::write_line_error(out, *place, key, error, record);
            }
        }
    }
}

/// The mark is no character that anybody sees, and "expected value at byte 1" of no help.
const MARK_INSIDE: &str = "expected an object, found a byte order mark before it, which only a file may begin with; \
                           were files put together? remove the mark";

const FROM_ARRAY: &str = "jq -c '.[]' makes lines of an array's objects";

/// Why the line is no JSON, with what is likely in hand instead.
fn invalid(line: &str, first: Option<u8>, error: &serde_json::Error, can_say_format: bool) -> String {
    if line.starts_with('\u{feff}') {
        return MARK_INSIDE.to_owned();
    }
    let reason = raw_json::describe(error);
    if let Some(format) = corpus_format(line) {
        return format!(
            "{reason}; expected an object, found what looks like a corpus: crag extract --from {format} makes records of it"
        );
    }
    match first {
        Some(b'[') if error.is_eof() => {
            format!("{reason}; expected one object a line: {FROM_ARRAY}")
        }
        Some(b'{') if error.is_eof() => {
            format!("{reason}; expected a whole object on the line: jq -c . makes lines of longer ones")
        }
        // No value of JSON begins so, but for three words.
        Some(b'A'..=b'Z' | b'a'..=b'z' | b',' | b';') => {
            let beginning: String = line.chars().take(SHOWN_BEGINNING).collect();
            format!(
                "{reason}; expected an object, found {}; is it a table? {}",
                quoted(&beginning),
                match can_say_format {
                    true => "--format csv or tsv reads one",
                    false => "one is told by the ending of its name, .csv or .tsv",
                }
            )
        }
        _ => reason,
    }
}

/// Which of `crag extract`'s formats a line that is no JSON looks like.
fn corpus_format(line: &str) -> Option<&'static str> {
    if line.starts_with("<?xml") || line.starts_with("<collection") || line.starts_with("<!DOCTYPE collection") {
        return Some("bioc");
    }
    let (document, rest) = line.split_once('|')?;
    if document.is_empty() || !document.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fields: Vec<&str> = rest.split('|').collect();
    let is_number = |field: &&str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    match fields.as_slice() {
        ["t" | "a", ..] => Some("pubtator"),
        // The text, and of both mentions the words and two offsets.
        [_, .., drug_start, drug_end] if fields.len() >= 7 && is_number(drug_start) && is_number(drug_end) => {
            Some("ade-rel")
        }
        _ => None,
    }
}

/// How many characters of a line that is no JSON a message shows.
const SHOWN_BEGINNING: usize = 20;

/// What is kept of an object: the raw values of the fields. `'t` is the reader's.
#[derive(Default)]
struct Object<'a, 't> {
    values: [Option<Value<'a>>; FIELDS.len()],
    /// Why the first step that is there twice must not be.
    duplicate: Option<&'t str>,
    /// The first key that the answer would have been written under.
    conflict: Option<String>,
    /// Whether the key that an error would be written under is there.
    error_taken: bool,
    /// Which steps of the outermost level are there, and the first of the other keys.
    first_steps: u16,
    keys: Vec<&'a str>,
    more_keys: bool,
}

/// An object or an array whose members are matched with `steps`.
struct Level<'a, 't, 'o> {
    steps: &'t [Step],
    /// At the outermost level.
    output: Option<&'t OutputKey>,
    object: &'o mut Object<'a, 't>,
}

impl<'a, 't> Level<'a, 't, '_> {
    /// Notes the value of `steps[i]`. `seen` has a bit for each step; there are never more than there are fields.
    fn take(&mut self, i: usize, value: &'a str, seen: &mut u16) {
        let step = &self.steps[i];
        if std::mem::replace(seen, *seen | 1 << i) & 1 << i != 0 {
            self.object.duplicate.get_or_insert(&step.duplicate);
        }
        for &field in &step.fields {
            self.object.values[field] = Some(Value::Json(value));
        }
        if step.next.is_empty() {
            return;
        }
        let level = Level {
            steps: &step.next,
            output: None,
            object: &mut *self.object,
        };
        let mut deserializer = serde_json::Deserializer::from_str(value);
        let walked = match value.as_bytes().first() {
            Some(b'{') => deserializer.deserialize_map(level),
            Some(b'[') => deserializer.deserialize_seq(level),
            // Nothing is inside of it: the fields are not there.
            _ => Ok(()),
        };
        debug_assert!(walked.is_ok(), "a raw value is valid JSON");
    }
}

impl<'de> Visitor<'de> for Level<'de, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0;
        // Keys stay raw too: one with a lone surrogate is no name of ours, and passes.
        while let Some(raw_key) = map.next_key::<&RawValue>()? {
            let value = map.next_value::<&RawValue>()?.get();
            let Some(key) = raw_json::decode(raw_key.get()) else {
                continue;
            };
            let step = self.steps.iter().position(|step| step.key == key);
            if let Some(i) = step {
                self.take(i, value, &mut seen);
            }
            let Some(output) = self.output else { continue };
            let object = &mut *self.object;
            if output.takes(&key) {
                object.error_taken |= output.error_goes_under(&key);
                object.conflict.get_or_insert_with(|| key.to_string());
            } else if step.is_some() {
                // Listed with `first_steps`.
            } else if object.keys.len() < SHOWN_KEYS {
                object.keys.push(raw_key.get());
            } else {
                object.more_keys = true;
            }
        }
        if self.output.is_some() {
            self.object.first_steps = seen;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0u64;
        let mut seen = 0;
        while let Some(value) = seq.next_element::<&RawValue>()? {
            // A leading zero is no index (RFC 6901, section 4), and none is written here.
            let name = index.to_string();
            if let Some(i) = self.steps.iter().position(|step| step.key == name) {
                self.take(i, value.get(), &mut seen);
            }
            index += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
