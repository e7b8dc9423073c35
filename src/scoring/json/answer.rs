//! Writes answers to lines of JSON: their own bytes with the answer spliced in before the closing brace.

use crate::scoring::error::LineError;
use crate::scoring::output_key::{CALIBRATED_KEY, OutputKey, RECORD_KEY};
use crate::scoring::record_format::{Place, Scored, write_json, write_probabilities, write_probability, write_string};

/// Appends `line` with its answer and a line end. `line` has been read as an object.
pub fn write_scored(out: &mut Vec<u8>, line: &[u8], key: &OutputKey, answer: &Scored<'_>) {
    splice(out, line, |out| {
        write_members(out, key, |out| {
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
    splice(out, line, |out| {
        write_members(out, key, |out| write_error_member(out, error))
    });
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
    write_members(out, key, |out| write_error_member(out, error));
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

/// Writes members for the record: `members` as they are, or as one object under the key.
fn write_members(out: &mut Vec<u8>, key: &OutputKey, members: impl FnOnce(&mut Vec<u8>)) {
    match key.key() {
        None => members(out),
        Some(key) => {
            write_string(out, key);
            out.extend_from_slice(b":{");
            members(out);
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::{ErrorCode, Warning};
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
