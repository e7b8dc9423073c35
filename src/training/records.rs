//! Labelled records from JSONL: `crag score`'s fields, and `label` and `doc_id` beside them.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::{Value, value::RawValue};

use super::TrainError;
use crate::{
    Side,
    scoring::{Record, read_records},
};

/// One side of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mention {
    pub text: String,
    pub entity: String,
    /// `[start, end)` in code points.
    pub span: Option<[usize; 2]>,
}

/// One pair of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledPair {
    sides: [Mention; 2],
    /// None where the record says nothing.
    pub label: Option<bool>,
    pub document: Option<String>,
    /// `file:line`, for messages.
    pub place: String,
}

impl LabelledPair {
    pub fn side(&self, side: Side) -> &Mention {
        &self.sides[side as usize]
    }
}

/// What files gave: pairs, and the lines that are none.
#[derive(Clone, Debug, Default)]
pub struct LabelledPairs {
    pub pairs: Vec<LabelledPair>,
    /// `file:line: reason`
    pub rejected: Vec<String>,
}

/// The fields with the label and with the document that a pair comes from.
pub const LABEL_FIELD: &str = "label";
pub const DOCUMENT_FIELD: &str = "doc_id";

impl LabelledPairs {
    /// Adds a whole file. A line that is no pair costs itself alone. In a file without any label all pairs are
    /// related; where some have one, all must.
    ///
    /// # Errors
    /// An input that cannot be read or holds no pair at all.
    pub fn read(&mut self, name: &str, input: impl Read) -> Result<(), TrainError> {
        let mut pairs = Vec::new();
        let mut rejected = Vec::new();
        let read = read_records(name, input, |line, record| {
            let place = format!("{name}:{line}");
            match record.and_then(|(record, bytes)| labelled(&record, bytes, place.clone())) {
                Ok(pair) => pairs.push(pair),
                Err(reason) => rejected.push(format!("{place}: {reason}")),
            }
        });
        read.map_err(|error| TrainError::data(name, error.to_string()))?;
        if pairs.iter().any(|pair| pair.label.is_some()) {
            pairs.retain(|pair| {
                let labelled = pair.label.is_some();
                if !labelled {
                    let reason = "no such field, and other records of the file have it";
                    rejected.push(format!("{}: field \"{LABEL_FIELD}\": {reason}", pair.place));
                }
                labelled
            });
        }
        if pairs.is_empty() {
            let reason = match rejected.first() {
                None => "the file is empty: expected labelled pairs, one JSON object a line".to_owned(),
                Some(first) => format!("no line is a labelled pair; the first: {first}"),
            };
            return Err(TrainError::data(name, reason));
        }
        self.pairs.append(&mut pairs);
        self.rejected.append(&mut rejected);
        Ok(())
    }
}

fn labelled(record: &Record<'_>, line: &[u8], place: String) -> Result<LabelledPair, String> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let label = match fields.get(LABEL_FIELD).map(|raw| raw.get()) {
        None | Some("null") => None,
        Some("1" | "1.0" | "true") => Some(true),
        Some("0" | "0.0" | "false") => Some(false),
        Some(other) => {
            let found: String = other.chars().take(40).collect();
            return Err(format!(
                "field \"{LABEL_FIELD}\": expected 0, 1, true or false, found {found}"
            ));
        }
    };
    let document = match fields.get(DOCUMENT_FIELD).map(|raw| serde_json::from_str(raw.get())) {
        None | Some(Ok(Value::Null)) => None,
        Some(Ok(Value::String(id))) => Some(id),
        Some(Ok(Value::Number(id))) => Some(id.to_string()),
        Some(_) => return Err(format!("field \"{DOCUMENT_FIELD}\": expected a string or a number")),
    };
    let mention = |side| {
        let half = record.half(side);
        Mention {
            text: half.text.to_string(),
            entity: half.entity.to_string(),
            span: half.span,
        }
    };
    Ok(LabelledPair {
        sides: Side::BOTH.map(mention),
        label,
        document,
        place,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LabelledPairs, TrainError> {
        let mut pairs = LabelledPairs::default();
        pairs.read("x.jsonl", text.as_bytes()).map(|()| pairs)
    }

    #[test]
    fn labels_and_documents_are_read_in_every_form_they_have() {
        let found = read(concat!(
            r#"{"text":"a b","drug":"a","adr":"b","label":1,"doc_id":"x"}"#,
            "\n\n",
            r#"{"text":"a b","drug":"a","adr":"b","label":false,"doc_id":17,"probability":0.5}"#,
            "\n",
            r#"{"text":"a b","drug":"a","adr":"b","label":"yes"}"#,
            "\n",
            r#"{"text":"a b","drug":"a","adr":"b"}"#,
            "\n",
        ))
        .unwrap();
        let labels: Vec<_> = found.pairs.iter().map(|p| (p.label, p.document.clone())).collect();
        assert_eq!(
            labels,
            [(Some(true), Some("x".into())), (Some(false), Some("17".into()))]
        );
        assert_eq!(found.pairs[0].side(Side::Adr).entity, "b");
        assert_eq!(found.rejected.len(), 2);
        assert!(
            found.rejected[0].starts_with("x.jsonl:4: field \"label\""),
            "{:?}",
            found.rejected
        );
        assert!(
            found.rejected[1].starts_with("x.jsonl:5: field \"label\""),
            "{:?}",
            found.rejected
        );
    }

    #[test]
    fn without_any_label_all_pairs_are_related() {
        let found = read(r#"{"text":"a b","drug":"a","adr":"b"}"#).unwrap();
        assert_eq!(found.pairs[0].label, None);
    }

    #[test]
    fn an_empty_file_is_one_clear_error() {
        assert!(
            read(" \n")
                .unwrap_err()
                .to_string()
                .contains("x.jsonl: the file is empty")
        );
        assert!(
            read("{}")
                .unwrap_err()
                .to_string()
                .contains("no line is a labelled pair")
        );
    }
}
