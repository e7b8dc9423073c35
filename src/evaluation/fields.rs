//! Reads what judging needs out of one line: label, probability, document, id, and how to show the record.
//!
//! Values are looked at as raw text, and only those named here are decoded: whatever else a record holds passes.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroU64;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::raw_json::{self, decode};
use crate::words::{quoted, shortened, utf8};

/// The fields that name a record's document unless one is stated, in order of preference.
pub const DOCUMENT_FIELDS: [&str; 3] = ["doc_id", "pmid", "document_id"];

/// Where things are in a record.
#[derive(Clone, Debug)]
pub struct Fields {
    /// The label: 0, 1, false or true.
    pub gold: String,
    /// The probability, from 0 to 1.
    pub probability: String,
    /// The key that `probability` and `error` are nested under.
    pub output_key: Option<String>,
    pub id: String,
    /// None for the first of [`DOCUMENT_FIELDS`] that a record has.
    pub document: Option<String>,
}

impl Default for Fields {
    /// As `crag score` and `crag extract` name them.
    fn default() -> Self {
        Self {
            gold: "label".to_owned(),
            probability: "probability".to_owned(),
            output_key: None,
            id: "id".to_owned(),
            document: None,
        }
    }
}

/// What a line turned out to be.
#[derive(Debug, PartialEq)]
pub(super) enum Reading<'a> {
    Usable(Usable<'a>),
    /// It has no label (none at all, or null).
    Unlabelled,
    Rejected {
        code: Cow<'a, str>,
        message: String,
    },
}

#[derive(Debug, PartialEq)]
pub(super) struct Usable<'a> {
    pub probability: f64,
    pub label: bool,
    /// What the record says of its probability and the threshold, as `crag score` writes it.
    pub causal: Option<bool>,
    /// Whether the probability is the mean of several models', as `crag score` writes it.
    pub is_of_several: bool,
    /// The field's name and its value.
    pub document: Option<(&'a str, Cow<'a, str>)>,
    pub id: Option<Cow<'a, str>>,
    pub shown: Shown<'a>,
}

/// What a record says of itself besides its pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels<'a> {
    /// None where there is none, or null; an error says what is there instead.
    pub label: Result<Option<bool>, String>,
    /// Whether the record has the field, whatever is in it.
    pub has_field: bool,
    /// The field's name and its value.
    pub document: Option<(&'a str, Cow<'a, str>)>,
}

/// Raw values of what a person wants to see of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shown<'a> {
    raw: [Option<&'a str>; SHOWN_FIELDS.len()],
}

/// What is shown: either of the first two, of the next two; the text, or both sides' texts.
const SHOWN_FIELDS: [&str; 7] = [
    "drug",
    "drug_entity",
    "adr",
    "adr_entity",
    "text",
    "drug_text",
    "adr_text",
];

impl<'a> Shown<'a> {
    pub fn drug(&self) -> String {
        self.first(&[0, 1])
    }

    pub fn adr(&self) -> String {
        self.first(&[2, 3])
    }

    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = [4, 5, 6].into_iter().filter_map(|i| self.get(i)).collect();
        texts.dedup();
        texts
    }

    pub fn pair(&self) -> Pair {
        let hash = |of: &[usize]| {
            let text = of.iter().find_map(|&i| named(self.raw[i]?))?;
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            NonZeroU64::new(hasher.finish())
        };
        // One text is that of both sides.
        Pair([hash(&[0, 1]), hash(&[2, 3]), hash(&[5, 4]), hash(&[6, 4])])
    }

    fn first(&self, of: &[usize]) -> String {
        of.iter().find_map(|&i| self.get(i)).unwrap_or_default()
    }

    fn get(&self, i: usize) -> Option<String> {
        self.raw[i].and_then(named).map(Cow::into_owned)
    }
}

/// What tells a record's pair from another: hashes of the drug, the reaction and either side's text, as far as the
/// record has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair([Option<NonZeroU64>; 4]);

impl Pair {
    /// Whether both have something that the other has otherwise.
    pub fn contradicts(&self, other: &Self) -> bool {
        let mut both = self.0.iter().zip(&other.0);
        both.any(|(own, others)| own.is_some() && others.is_some() && own != others)
    }
}

/// How many of an object's own keys a message shows.
const LISTED_KEYS: usize = 8;

/// What `crag score` writes in place of a line that it could not read: whether that had a label is not known.
const ERROR_KEYS: [&str; 4] = ["file", "line", "error", "record"];

/// What is kept of an object.
#[derive(Default)]
struct Object<'a> {
    gold: Option<&'a str>,
    answer: Answer<'a>,
    /// Beside a nested answer: why the line itself could not be read.
    own_error: Option<&'a str>,
    nested: Option<&'a str>,
    id: Option<&'a str>,
    documents: [Option<&'a str>; DOCUMENT_FIELDS.len()],
    shown: [Option<&'a str>; SHOWN_FIELDS.len()],
    twice: Option<String>,
    keys: Vec<&'a str>,
    /// Whether there is more than what stands for a line that could not be read.
    is_of_a_record: bool,
}

#[derive(Default)]
struct Answer<'a> {
    probability: Option<&'a str>,
    causal: Option<&'a str>,
    /// Of each of several models, an object.
    probabilities: Option<&'a str>,
    error: Option<&'a str>,
}

struct ObjectVisitor<'f> {
    fields: &'f Fields,
    /// Whether the object is the nested answer.
    nested: bool,
}

impl<'de> Visitor<'de> for ObjectVisitor<'_> {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let fields = self.fields;
        let mut object = Object::default();
        // A key with a lone surrogate is no string: keys stay raw until they turn out to be one.
        while let Some(raw_key) = map.next_key::<&RawValue>()? {
            let value = map.next_value::<&RawValue>()?.get();
            let Some(key) = decode(raw_key.get()) else { continue };
            let key = key.as_ref();
            let keep = |slot: &mut Option<&'de str>, twice: &mut Option<String>| {
                if slot.replace(value).is_some() {
                    twice.get_or_insert_with(|| key.to_owned());
                }
            };
            let twice = &mut object.twice;
            if self.nested || fields.output_key.is_none() {
                if key == fields.probability {
                    keep(&mut object.answer.probability, twice);
                }
                if key == "causal" {
                    object.answer.causal = Some(value);
                }
                if key == "probabilities" {
                    object.answer.probabilities = Some(value);
                }
                if key == "error" {
                    keep(&mut object.answer.error, twice);
                }
            }
            if self.nested {
                continue;
            }
            if fields.output_key.is_some() && key == "error" {
                object.own_error = Some(value);
            }
            if fields.output_key.as_deref() == Some(key) {
                keep(&mut object.nested, twice);
            }
            if key == fields.gold {
                keep(&mut object.gold, twice);
            }
            if key == fields.id {
                keep(&mut object.id, twice);
            }
            match &fields.document {
                Some(name) if name == key => keep(&mut object.documents[0], twice),
                Some(_) => {}
                None => {
                    if let Some(i) = DOCUMENT_FIELDS.iter().position(|field| *field == key) {
                        keep(&mut object.documents[i], twice);
                    }
                }
            }
            if let Some(i) = SHOWN_FIELDS.iter().position(|field| *field == key) {
                object.shown[i] = Some(value);
            }
            let is_of_an_answer = ERROR_KEYS.contains(&key) || fields.output_key.as_deref() == Some(key);
            // Data frames give every record the fields that any has.
            object.is_of_a_record |= !is_of_an_answer && value != "null";
            if object.keys.len() < LISTED_KEYS {
                object.keys.push(raw_key.get());
            }
        }
        Ok(object)
    }
}

impl Fields {
    /// Reads one line, which has no line end.
    pub(super) fn read<'a>(&'a self, line: &'a [u8]) -> Reading<'a> {
        match self.try_read(line) {
            Ok(reading) => reading,
            Err((code, message)) => Reading::Rejected { code, message },
        }
    }

    /// Reads the label (none where there is none, or null) and the document of a line, for those to whom probabilities
    /// mean nothing. `line` has no line end.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn labels<'a>(&'a self, line: &'a [u8]) -> Result<Labels<'a>, String> {
        let object = self.object(utf8(line)?, false).map_err(|(_, message)| message)?;
        if let Some(key) = &object.twice {
            return Err(twice(key));
        }
        Ok(Labels {
            label: self.label(&object),
            has_field: object.gold.is_some(),
            document: self.document(&object),
        })
    }

    fn try_read<'a>(&'a self, line: &'a [u8]) -> Result<Reading<'a>, (Cow<'a, str>, String)> {
        let reject = |code: &'static str, message: String| (Cow::Borrowed(code), message);
        let line = utf8(line).map_err(|message| reject("invalid_utf8", message))?;
        let mut object = self.object(line, false).map_err(|(code, m)| reject(code, m))?;
        if let (Some(key), Some(nested)) = (&self.output_key, object.nested) {
            if !nested.starts_with('{') {
                let message = format!("field {}: expected an object, found {}", quoted(key), found(nested));
                return Err(reject("wrong_type", message));
            }
            let inner = self.object(nested, true).map_err(|(code, m)| reject(code, m))?;
            object.answer = inner.answer;
            // A row of a table, say, that is no record was scored as one that lacks its fields.
            if !object.is_of_a_record && object.own_error.is_some() {
                object.answer.error = object.own_error;
            }
            object.twice = object.twice.or(inner.twice);
        }
        if let Some(key) = &object.twice {
            return Err(reject("duplicate_key", twice(key)));
        }
        // Beside an error a data frame writes a probability of null, beside a probability an error of null.
        let stated = |raw: Option<&'a str>| raw.filter(|raw| *raw != "null");
        let error = stated(object.answer.error);
        let has_probability = stated(object.answer.probability).is_some();
        // A probability beside an error of `crag score` is what the record came with, and another's.
        let instead = error.and_then(|raw| match ErrorRecord::parse(raw) {
            Some(error) if !has_probability || error.is_of_a_score() => {
                Some((Cow::Owned(error.code), error.message.unwrap_or_default()))
            }
            None if !has_probability => Some(reject("error_record", found(raw))),
            _ => None,
        });
        if let Some(error) = instead {
            if object.is_of_a_record && matches!(object.gold, None | Some("null")) {
                return Ok(Reading::Unlabelled);
            }
            return Err(error);
        }
        let label = self.label(&object).map_err(|message| reject("bad_label", message))?;
        let Some(label) = label else {
            return Ok(Reading::Unlabelled);
        };
        let Some(raw) = object.answer.probability else {
            let place = match &self.output_key {
                Some(key) => format!("{} in {}", quoted(&self.probability), quoted(key)),
                None => quoted(&self.probability),
            };
            let message = format!(
                "field {place}: expected a probability, found no such field; the object has {}",
                object
                    .keys
                    .iter()
                    .map(|key| raw_json::shown(key))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            return Err(reject("missing_probability", message));
        };
        let probability = probability(raw).ok_or_else(|| {
            let message = format!(
                "field {}: expected a number from 0 to 1, found {}",
                quoted(&self.probability),
                found(raw)
            );
            reject("bad_probability", message)
        })?;
        // Of another probability they say nothing.
        let is_usual = self.probability == Fields::default().probability;
        let causal = object.answer.causal.filter(|_| is_usual);
        let probabilities = object.answer.probabilities.filter(|_| is_usual);
        Ok(Reading::Usable(Usable {
            probability,
            label,
            causal: causal.and_then(|causal| causal.parse().ok()),
            is_of_several: probabilities.is_some_and(|raw| raw.starts_with('{')),
            document: self.document(&object),
            id: object.id.and_then(named),
            shown: Shown { raw: object.shown },
        }))
    }

    fn label(&self, object: &Object<'_>) -> Result<Option<bool>, String> {
        match object.gold {
            None | Some("null") => Ok(None),
            Some(raw) => label(raw).map(Some).ok_or_else(|| {
                format!(
                    "field {}: expected 0, 1, false or true, found {}",
                    quoted(&self.gold),
                    found(raw)
                )
            }),
        }
    }

    fn document<'a>(&'a self, object: &Object<'a>) -> Option<(&'a str, Cow<'a, str>)> {
        let names = self
            .document
            .as_deref()
            .map_or(&DOCUMENT_FIELDS[..], |_| &DOCUMENT_FIELDS[..1]);
        names.iter().zip(object.documents).find_map(|(name, raw)| {
            let value = raw.and_then(named)?;
            Some((self.document.as_deref().unwrap_or(name), value))
        })
    }

    fn object<'a>(&self, text: &'a str, nested: bool) -> Result<Object<'a>, (&'static str, String)> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let trimmed = text.trim_start_matches([' ', '\t', '\r', '\n']);
        let object = match trimmed.starts_with('{') {
            true => deserializer
                .deserialize_map(ObjectVisitor { fields: self, nested })
                .map(Some),
            false => IgnoredAny::deserialize(&mut deserializer).map(|_| None),
        };
        let object = object
            .and_then(|object| deserializer.end().map(|()| object))
            .map_err(|error| ("invalid_json", raw_json::describe(&error)))?;
        object.ok_or_else(|| ("not_an_object", format!("expected an object, found {}", found(trimmed))))
    }
}

fn twice(key: &str) -> String {
    format!("field {}: expected once, found twice", quoted(key))
}

/// 0, 1, false or true; 0.0 and 1.0 are what data frames make of labels beside missing ones.
fn label(raw: &str) -> Option<bool> {
    match raw {
        "true" => Some(true),
        "false" => Some(false),
        _ => match number(raw)? {
            0.0 => Some(false),
            1.0 => Some(true),
            _ => None,
        },
    }
}

fn probability(raw: &str) -> Option<f64> {
    // Adding 0 turns a negative zero into the zero that it equals.
    number(raw).filter(|p| (0.0..=1.0).contains(p)).map(|p| p + 0.0)
}

fn number(raw: &str) -> Option<f64> {
    let first = raw.as_bytes().first()?;
    (first.is_ascii_digit() || *first == b'-').then(|| serde_json::from_str(raw).ok())?
}

/// A string's value, or a number as it is written; nothing else names anything.
fn scalar(raw: &str) -> Option<Cow<'_, str>> {
    match raw.as_bytes().first()? {
        b'"' => decode(raw),
        // 7.0 is what data frames make of 7 in a column with missing values.
        b'-' | b'0'..=b'9' => match raw.split_once('.') {
            Some((whole, zeros)) if zeros.bytes().all(|digit| digit == b'0') => Some(Cow::Borrowed(whole)),
            _ => Some(Cow::Borrowed(raw)),
        },
        _ => None,
    }
}

/// [`scalar`], but what is blank names nothing: data frames write it where there is nothing.
fn named(raw: &str) -> Option<Cow<'_, str>> {
    scalar(raw).filter(|value| !value.trim().is_empty())
}

/// An `error` member that has a code.
#[derive(Deserialize)]
struct ErrorRecord {
    code: String,
    message: Option<String>,
}

impl ErrorRecord {
    fn parse(raw: &str) -> Option<Self> {
        // An array would pass for the members in their order.
        raw.starts_with('{').then(|| serde_json::from_str(raw).ok())?
    }

    /// Whether it looks as `crag score` writes it, and not as an error of somebody's own.
    fn is_of_a_score(&self) -> bool {
        let is_code = self
            .code
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || b"_8".contains(&byte));
        is_code && self.message.is_some()
    }
}

/// What a value is, for a message: itself where it is short.
fn found(raw: &str) -> String {
    const LIMIT: usize = 40;
    match raw.as_bytes().first() {
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "an array".to_owned(),
        Some(b'"') => format!("the string {}", shortened(raw, LIMIT)),
        Some(_) => shortened(raw, LIMIT),
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests;
