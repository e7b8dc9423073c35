//! Writes answers: the input line's own bytes with the answer spliced in before its closing brace.

use std::io::Write;

use super::error::LineError;
use super::fields::{FIELDS, FieldMap};
use super::warning::Warning;

/// The keys of an answer that is not nested.
const RESERVED_KEYS: [&str; 4] = ["probability", "causal", "warnings", "error"];
/// Where a record is kept that cannot take its error.
const RECORD_KEY: &str = "record";
/// One more with several models.
pub(super) const PROBABILITIES: &str = "probabilities";

/// Where the answer goes: beside the record's own keys (the default), or nested under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputKey {
    key: Option<String>,
    /// Whether answers name the probability of each of several models.
    several: bool,
    calibrated: bool,
}

/// The key of a calibrated probability, which an answer has beside the raw one where it was asked for.
pub const CALIBRATED_KEY: &str = "calibrated_probability";

impl OutputKey {
    /// Nested under `key`. Errors, with the reason, on one that can never work: an empty key, a field that
    /// is read from the record, and `file`, `line` and `record`, which stand beside an error that the line cannot take, and `error`, by which
    /// whoever reads answers knows the lines that have none.
    pub fn nested(key: &str) -> Result<Self, String> {
        if key.is_empty() {
            return Err("expected a key, found an empty string".to_owned());
        }
        if ["error", "file", "line", RECORD_KEY].contains(&key) || FIELDS.contains(&key) {
            return Err(format!(
                "expected a key of its own, found \"{key}\", which records use themselves"
            ));
        }
        Ok(Self {
            key: Some(key.to_owned()),
            several: false,
            calibrated: false,
        })
    }

    /// The same for answers that have a calibrated probability too, or have none.
    pub fn with_calibrated(self, calibrated: bool) -> Self {
        Self { calibrated, ..self }
    }

    /// Whether answers have a calibrated probability too.
    pub(super) fn calibrated(&self) -> bool {
        self.calibrated
    }

    /// The key that answers are nested under, if they are.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Whether answers name the probability of each of several models.
    pub(super) fn several(&self) -> bool {
        self.several
    }

    /// The same for answers of this many models.
    pub fn of_members(mut self, count: usize) -> Self {
        self.several = count > 1;
        self
    }

    /// Whether an answer would be written under `key`.
    pub(super) fn takes(&self, key: &str) -> bool {
        match &self.key {
            Some(own) => own == key,
            None => {
                RESERVED_KEYS.contains(&key)
                    || (self.several && key == PROBABILITIES)
                    || (self.calibrated && key == CALIBRATED_KEY)
            }
        }
    }

    /// The first place of a field that an answer would be written over, if there is one.
    pub fn conflict<'m>(&self, fields: &'m FieldMap) -> Option<&'m str> {
        let mut firsts = fields.steps().filter_map(|steps| steps.first());
        firsts.find(|first| self.takes(first)).map(String::as_str)
    }

    /// Whether an error would be written under `key`.
    pub(super) fn error_goes_under(&self, key: &str) -> bool {
        match &self.key {
            Some(own) => own == key,
            None => key == "error",
        }
    }

    /// Writes members for the record: `members` as they are, or as one object under the key.
    fn write(&self, out: &mut Vec<u8>, members: impl FnOnce(&mut Vec<u8>)) {
        match &self.key {
            None => members(out),
            Some(key) => {
                write_string(out, key);
                out.extend_from_slice(b":{");
                members(out);
                out.push(b'}');
            }
        }
    }
}

/// Where a line is, for an answer that cannot be put into it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The input's name, where there are several.
    pub file: Option<&'a str>,
    pub line: u64,
}

/// What is said of a scored line. All probabilities are finite.
pub struct Scored<'a> {
    pub probability: f32,
    pub causal: bool,
    /// Where calibrated probabilities were asked for.
    pub calibrated: Option<f32>,
    /// Of several models, each name with its probability; empty with one.
    pub probabilities: &'a [(&'a str, f32)],
    pub warnings: &'a [Warning],
}

/// Appends `line` with its answer and a line end. `line` has been read as an object.
pub fn write_scored(out: &mut Vec<u8>, line: &[u8], key: &OutputKey, answer: &Scored<'_>) {
    splice(out, line, |out| {
        key.write(out, |out| {
            out.extend_from_slice(b"\"probability\":");
            write_probability(out, answer.probability);
            if let Some(calibrated) = answer.calibrated {
                out.push(b',');
                write_string(out, CALIBRATED_KEY);
                out.push(b':');
                write_probability(out, calibrated);
            }
            out.extend_from_slice(if answer.causal {
                b",\"causal\":true"
            } else {
                b",\"causal\":false"
            });
            if !answer.probabilities.is_empty() {
                out.extend_from_slice(b",\"probabilities\":");
                write_probabilities(out, answer.probabilities);
            }
            for (i, warning) in answer.warnings.iter().enumerate() {
                out.extend_from_slice(if i == 0 { b",\"warnings\":[" } else { b"," });
                write_string(out, warning.name());
            }
            if !answer.warnings.is_empty() {
                out.push(b']');
            }
        })
    });
}

/// Appends `line` with an error and a line end. `line` has been read as an object.
pub fn write_error(out: &mut Vec<u8>, line: &[u8], key: &OutputKey, error: &LineError) {
    splice(out, line, |out| key.write(out, |out| write_error_member(out, error)));
}

/// Appends a record that stands for a line that cannot take its error, with its line end: it is no object, or the
/// error's key is taken in it. Then it is the `record`, and kept under that key.
pub fn write_line_error(
    out: &mut Vec<u8>,
    place: Place<'_>,
    key: &OutputKey,
    error: &LineError,
    record: Option<&[u8]>,
) {
    out.push(b'{');
    if let Some(file) = place.file {
        out.extend_from_slice(b"\"file\":");
        write_string(out, file);
        out.push(b',');
    }
    out.extend_from_slice(b"\"line\":");
    write_json(out, &place.line);
    out.push(b',');
    key.write(out, |out| write_error_member(out, error));
    if let Some(record) = record {
        out.push(b',');
        write_string(out, RECORD_KEY);
        out.push(b':');
        out.extend_from_slice(record);
    }
    out.extend_from_slice(b"}\n");
}

fn write_error_member(out: &mut Vec<u8>, error: &LineError) {
    out.extend_from_slice(b"\"error\":{\"code\":");
    write_string(out, error.code.name());
    out.extend_from_slice(b",\"message\":");
    write_string(out, &error.message);
    out.push(b'}');
}

/// Puts members before the last brace of an object, whose bytes stay as they are.
fn splice(out: &mut Vec<u8>, line: &[u8], members: impl FnOnce(&mut Vec<u8>)) {
    // An object always has its brace; without one the line would be kept and the members follow it.
    let brace = line.iter().rposition(|&b| b == b'}').unwrap_or(line.len());
    let (head, tail) = line.split_at(brace);
    out.extend_from_slice(head);
    // Directly after the opening brace there is no member to separate from: a value never ends in `{`.
    if head.iter().rfind(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n')) != Some(&b'{') {
        out.push(b',');
    }
    members(out);
    out.extend_from_slice(tail);
    out.push(b'\n');
}

/// Appends an object from names of models to their probabilities.
pub fn write_probabilities(out: &mut Vec<u8>, probabilities: &[(&str, f32)]) {
    for (i, (name, probability)) in probabilities.iter().enumerate() {
        out.push(if i == 0 { b'{' } else { b',' });
        write_string(out, name);
        out.push(b':');
        write_probability(out, *probability);
    }
    out.push(b'}');
}

/// The shortest digits that read back to the same f32.
pub fn write_probability(out: &mut Vec<u8>, probability: f32) {
    write_json(out, &probability);
}

fn write_string(out: &mut Vec<u8>, value: &str) {
    write_json(out, value);
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Neither numbers nor strings can fail to serialise, and a Vec takes every write.
    let written = serde_json::to_writer(out.by_ref(), value);
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::{ErrorCode, Format};
    use proptest::prelude::*;

    fn scored(line: &str, key: &OutputKey, probability: f32, warnings: &[Warning]) -> String {
        let mut out = Vec::new();
        let answer = Scored {
            probability,
            causal: probability >= 0.5,
            calibrated: None,
            probabilities: &[],
            warnings,
        };
        write_scored(&mut out, line.as_bytes(), key, &answer);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_answer_stands_directly_before_the_closing_brace() {
        let key = OutputKey::default();
        assert_eq!(
            scored(r#"{"a":1}"#, &key, 0.9230769, &[]),
            "{\"a\":1,\"probability\":0.9230769,\"causal\":true}\n"
        );
        assert_eq!(
            scored("{ \"a\" : {} \t} ", &key, 0.25, &[]),
            "{ \"a\" : {} \t,\"probability\":0.25,\"causal\":false} \n"
        );
        assert_eq!(
            scored(" { } ", &key, 1.0, &[]),
            " { \"probability\":1.0,\"causal\":true} \n"
        );
        assert_eq!(
            scored(
                r#"{"a":"{"}"#,
                &key,
                0.0,
                &[Warning::DrugTruncated, Warning::AdrNotFound]
            ),
            "{\"a\":\"{\",\"probability\":0.0,\"causal\":false,\"warnings\":[\"drug_truncated\",\"adr_not_found\"]}\n"
        );
    }

    #[test]
    fn an_output_key_holds_the_whole_answer() {
        let key = OutputKey::nested("cr\"ag").unwrap();
        assert_eq!(
            scored(r#"{"a":1}"#, &key, 0.5, &[Warning::AdrTruncated]),
            "{\"a\":1,\"cr\\\"ag\":{\"probability\":0.5,\"causal\":true,\"warnings\":[\"adr_truncated\"]}}\n"
        );
        let error = LineError::new(ErrorCode::EmptyText, "a \"b\"");
        let mut out = Vec::new();
        write_error(&mut out, b"{}", &key, &error);
        write_line_error(&mut out, Place { file: None, line: 7 }, &key, &error, None);
        let file = Some("a.jsonl");
        write_line_error(&mut out, Place { file, line: 8 }, &key, &error, Some(b"{ \"crag\":1}"));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                "{\"cr\\\"ag\":{\"error\":{\"code\":\"empty_text\",\"message\":\"a \\\"b\\\"\"}}}\n",
                "{\"line\":7,\"cr\\\"ag\":{\"error\":{\"code\":\"empty_text\",\"message\":\"a \\\"b\\\"\"}}}\n",
                "{\"file\":\"a.jsonl\",\"line\":8,\"cr\\\"ag\":{\"error\":{\"code\":\"empty_text\",\"message\":\"a \\\"b\\\"\"}},",
                "\"record\":{ \"crag\":1}}\n"
            )
        );
    }

    #[test]
    fn several_models_are_named_after_their_mean() {
        let answer = Scored {
            probability: 0.5,
            causal: true,
            calibrated: Some(0.125),
            probabilities: &[("a\"b", 0.25), ("c", 0.75)],
            warnings: &[Warning::AdrTruncated],
        };
        let mut out = Vec::new();
        write_scored(&mut out, b"{}", &OutputKey::default(), &answer);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"probability\":0.5,\"calibrated_probability\":0.125,\"causal\":true,\"probabilities\":{\"a\\\"b\":0.25,\"c\":0.75},\
             \"warnings\":[\"adr_truncated\"]}\n"
        );
        let takes = |key: OutputKey| key.takes("probabilities");
        assert!(!takes(OutputKey::default()) && !takes(OutputKey::default().of_members(1)));
        assert!(takes(OutputKey::default().of_members(2)));
        assert!(!takes(OutputKey::nested("crag").unwrap().of_members(2)));
    }

    #[test]
    fn output_keys_that_can_never_work_are_refused() {
        for key in ["", "error", "file", "line", "text", "drug_span"] {
            assert!(OutputKey::nested(key).is_err(), "{key}");
        }
        assert!(OutputKey::nested("probability").is_ok());
    }

    #[test]
    fn a_place_that_the_answer_takes_is_told() {
        let map = FieldMap::new(Format::Jsonl, [("text", "/crag/text")]).unwrap();
        assert_eq!(OutputKey::nested("crag").unwrap().conflict(&map), Some("crag"));
        assert_eq!(OutputKey::default().conflict(&map), None);
        let map = FieldMap::new(Format::Jsonl, [("text", "/warnings/0")]).unwrap();
        assert_eq!(OutputKey::default().conflict(&map), Some("warnings"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_probability_reads_back_to_the_same_f32(bits in 0u32..=0x3f80_0000) {
            let probability = f32::from_bits(bits);
            let line = scored("{}", &OutputKey::default(), probability, &[]);
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            let text = line.split([':', ',']).nth(1).unwrap();
            prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), bits);
            prop_assert_eq!((value["probability"].as_f64().unwrap() as f32).to_bits(), bits);
            // The shortest digits that read back, wherever the point is put.
            let digits = |text: &str| {
                let mantissa = text.split('e').next().unwrap_or_default().replace('.', "");
                mantissa.trim_start_matches('0').trim_end_matches('0').to_owned()
            };
            prop_assert_eq!(digits(text), digits(&format!("{probability:e}")));
        }
    }
}
