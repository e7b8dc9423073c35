//! Labelled records from JSONL: `crag score`'s fields, and beside them a label and a document as `crag eval` reads
//! them.

use std::io::Read;

use serde::Deserialize;
use serde_json::Value;

use super::TrainError;
use crate::{
    Side,
    evaluation::{Fields, Labels},
    scoring::{Record, read_records},
};

/// One side of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mention {
    pub text: String,
    pub entity: String,
    /// `[start, end)` in code points.
    pub span: Option<[usize; 2]>,
    /// Identifiers of what the entity is, as `crag extract` writes them.
    pub concepts: Vec<String>,
}

/// One pair of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledPair {
    sides: [Mention; 2],
    /// None where the record says nothing.
    pub label: Option<bool>,
    /// The field that names the document, and its value.
    pub document: Option<(String, String)>,
    /// `file:line`, for messages.
    pub place: String,
}

impl LabelledPair {
    pub fn side(&self, side: Side) -> &Mention {
        &self.sides[side as usize]
    }
}

/// A file as it is read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'s> {
    /// In messages.
    pub name: &'s str,
    /// Where label and document are.
    pub fields: &'s Fields,
    pub max_line_bytes: usize,
}

/// What files gave: pairs, and the lines that are none.
#[derive(Clone, Debug, Default)]
pub struct LabelledPairs {
    pub pairs: Vec<LabelledPair>,
    /// `file:line: reason`
    pub rejected: Vec<String>,
}

impl LabelledPairs {
    /// Adds a whole file, and says whether it has labels. A line that is no pair costs itself alone. In a file where no
    /// record has the label's field all pairs are related; where some have it, all must have a label.
    ///
    /// # Errors
    /// An input that cannot be read or holds no pair at all.
    pub fn read(&mut self, source: &Source<'_>, input: impl Read) -> Result<bool, TrainError> {
        let Source {
            name,
            fields,
            max_line_bytes,
        } = *source;
        let mut pairs = Vec::new();
        let mut rejected = Vec::new();
        let mut has_labels = false;
        let read = read_records(name, input, max_line_bytes, |line, record| {
            let place = format!("{name}:{line}");
            let pair = record.and_then(|(record, bytes)| {
                let labels = fields.labels(bytes)?;
                has_labels |= labels.has_field;
                labelled(&record, labels, Concepts::of(bytes), place.clone())
            });
            match pair {
                Ok(pair) => pairs.push(pair),
                Err(reason) => rejected.push(format!("{place}: {reason}")),
            }
        });
        read?;
        if has_labels {
            pairs.retain(|pair| {
                let labelled = pair.label.is_some();
                if !labelled {
                    let reason = "none or null, and records of the file have labels";
                    rejected.push(format!("{}: field \"{}\": {reason}", pair.place, fields.gold));
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
        Ok(has_labels)
    }
}

/// A line's identifiers; what is no list of such is of somebody else.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Concepts {
    drug_concepts: Value,
    adr_concepts: Value,
}

impl Concepts {
    fn of(line: &[u8]) -> Self {
        serde_json::from_slice(line).unwrap_or_default()
    }

    fn side(&self, side: Side) -> Vec<String> {
        let concepts = match side {
            Side::Drug => &self.drug_concepts,
            Side::Adr => &self.adr_concepts,
        };
        let concepts = concepts.as_array().into_iter().flatten();
        let identifier = |value: &Value| match value {
            Value::String(identifier) => Some(identifier.clone()),
            // MedDRA's, for example, are numbers.
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        concepts.filter_map(identifier).collect()
    }
}

fn labelled(
    record: &Record<'_>,
    labels: Labels<'_>,
    concepts: Concepts,
    place: String,
) -> Result<LabelledPair, String> {
    let mention = |side| {
        let half = record.half(side);
        Mention {
            text: half.text.to_string(),
            entity: half.entity.to_string(),
            span: half.span,
            concepts: concepts.side(side),
        }
    };
    Ok(LabelledPair {
        sides: Side::BOTH.map(mention),
        label: labels.label?,
        document: labels
            .document
            .map(|(field, value)| (field.to_owned(), value.into_owned())),
        place,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LabelledPairs, TrainError> {
        let mut pairs = LabelledPairs::default();
        let source = Source {
            name: "x.jsonl",
            fields: &Fields::default(),
            max_line_bytes: 1 << 20,
        };
        pairs.read(&source, text.as_bytes()).map(|_| pairs)
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
            [
                (Some(true), Some(("doc_id".into(), "x".into()))),
                (Some(false), Some(("doc_id".into(), "17".into())))
            ]
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
    fn identifiers_are_words_or_numbers() {
        let found =
            read(r#"{"text":"a b","drug":"a","adr":"b","drug_concepts":["D1",7,null],"adr_concepts":"x"}"#).unwrap();
        assert_eq!(found.pairs[0].side(Side::Drug).concepts, ["D1", "7"]);
        assert_eq!(found.pairs[0].side(Side::Adr).concepts, [""; 0]);
    }

    #[test]
    fn without_any_label_all_pairs_are_related() {
        let found = read(r#"{"text":"a b","drug":"a","adr":"b"}"#).unwrap();
        assert_eq!(found.pairs[0].label, None);
    }

    #[test]
    fn labels_that_are_none_make_no_pair_related() {
        let record = |label: &str| format!("{{\"text\":\"a b\",\"drug\":\"a\",\"adr\":\"b\"{label}}}\n");
        for labels in [
            [",\"label\":null", ""],
            [",\"label\":\"1\"", ",\"label\":null"],
            [",\"label\":\"1\"", ""],
        ] {
            let error = read(&labels.map(record).concat()).unwrap_err().to_string();
            assert!(error.contains("no line is a labelled pair"), "{labels:?}: {error}");
        }
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
