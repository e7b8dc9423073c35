//! What the nine fields of a record mean: which go together, what they must hold, what is said when they do not.
//!
//! Where a record comes from and how its values are written there is [`super::json`]'s and [`super::table`]'s.

use std::borrow::Cow;

use super::error::{ErrorCode, LineError};
use super::fields::{
    ADR, ADR_ENTITY, ADR_SPAN, ADR_TEXT, DRUG, DRUG_ENTITY, DRUG_SPAN, DRUG_TEXT, FIELDS, FieldMap, TEXT,
};
use crate::Side;
use crate::raw_json;
use crate::words::{quoted, shortened, visible};

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
    /// Which of [`FIELDS`] the entity was found in.
    pub entity_field: usize,
    /// Which of them has the span, if there is one.
    pub span_field: usize,
}

/// A line that is no record: why, and whether the error can be put into the line.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejection {
    pub error: LineError,
    pub spliceable: bool,
}

impl Record<'_> {
    pub fn half(&self, side: Side) -> &Half<'_> {
        match side {
            Side::Drug => &self.drug,
            Side::Adr => &self.adr,
        }
    }
}

/// A value as its format has it.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// Valid JSON, not decoded.
    Json(&'a str),
    /// A cell of a table. An empty one is as good as none where another field can take its place.
    Cell(Cow<'a, str>),
}

/// The values of one record's fields, in the order of [`FIELDS`].
pub struct Values<'a, 'm> {
    pub values: [Option<Value<'a>>; FIELDS.len()],
    pub map: &'m FieldMap,
    /// What there is instead of a field that is not.
    pub inventory: &'m dyn Fn() -> String,
}

impl<'a> Values<'a, '_> {
    pub fn record(&self) -> Result<Record<'a>, LineError> {
        let (drug, drug_field) = self.entity(DRUG, DRUG_ENTITY)?;
        let (adr, adr_field) = self.entity(ADR, ADR_ENTITY)?;
        let drug_text = self.text(DRUG_TEXT)?;
        let adr_text = self.text(ADR_TEXT)?;
        Ok(Record {
            drug: Half {
                text: drug_text,
                entity: drug,
                span: self.span(DRUG_SPAN)?,
                entity_field: drug_field,
                span_field: DRUG_SPAN,
            },
            adr: Half {
                text: adr_text,
                entity: adr,
                span: self.span(ADR_SPAN)?,
                entity_field: adr_field,
                span_field: ADR_SPAN,
            },
        })
    }

    /// With the field that it is found in.
    fn entity(&self, name: usize, other_name: usize) -> Result<(Cow<'a, str>, usize), LineError> {
        let (entity, field) = self.either(name, other_name, name)?;
        if entity.trim().is_empty() {
            let message = format!(
                "field {}: expected a name, found {}",
                self.label(field),
                emptiness(&entity)
            );
            return Err(LineError::new(ErrorCode::EmptyEntity, message));
        }
        Ok((entity, field))
    }

    fn text(&self, own: usize) -> Result<Cow<'a, str>, LineError> {
        let (text, field) = self.either(own, TEXT, TEXT)?;
        if text.trim().is_empty() {
            let message = format!(
                "field {}: expected a text, found {}",
                self.label(field),
                emptiness(&text)
            );
            return Err(LineError::new(ErrorCode::EmptyText, message));
        }
        Ok(text)
    }

    /// The value of the one of two fields that is there, and which it is; both have to agree. `usual` is the one that
    /// a message names first.
    fn either(&self, a: usize, b: usize, usual: usize) -> Result<(Cow<'a, str>, usize), LineError> {
        // A data frame writes null where a row has nothing in a column.
        match (self.is_null(a), self.is_null(b)) {
            (true, false) if self.values[b].is_some() => return Ok((self.string(b)?.unwrap_or_default(), b)),
            (false, true) if self.values[a].is_some() => return Ok((self.string(a)?.unwrap_or_default(), a)),
            _ => {}
        }
        match (self.string(a)?, self.string(b)?) {
            (Some(one), Some(other)) if one != other => {
                // A table has a cell for both names in every row; one of them may be left empty.
                match (self.is_empty_cell(a), self.is_empty_cell(b)) {
                    (true, _) => return Ok((other, b)),
                    (_, true) => return Ok((one, a)),
                    _ => {}
                }
                let message = format!(
                    "fields {} and {}: expected one of them or equal values, found {} and {}",
                    self.label(a),
                    self.label(b),
                    quoted(&one),
                    quoted(&other)
                );
                Err(LineError::new(ErrorCode::ConflictingFields, message))
            }
            (Some(value), _) => Ok((value, a)),
            (None, Some(value)) => Ok((value, b)),
            (None, None) => Err(LineError::new(
                ErrorCode::MissingField,
                format!(
                    "field {} or {}: expected a string, found no such field; {}",
                    self.label(usual),
                    self.label(if usual == a { b } else { a }),
                    (self.inventory)()
                ),
            )),
        }
    }

    fn string(&self, i: usize) -> Result<Option<Cow<'a, str>>, LineError> {
        let raw = match &self.values[i] {
            None => return Ok(None),
            Some(Value::Cell(text)) => return Ok(Some(text.clone())),
            Some(Value::Json(raw)) => raw,
        };
        let first = raw.as_bytes().first().copied().unwrap_or(b' ');
        if first != b'"' {
            let message = format!(
                "field {}: expected a string, found {}",
                self.label(i),
                raw_json::kind(first)
            );
            return Err(LineError::new(ErrorCode::WrongType, message));
        }
        match raw_json::decode(raw) {
            Some(value) => Ok(Some(value)),
            // The walk over the line has checked all else about the string.
            None => Err(LineError::new(
                ErrorCode::LoneSurrogate,
                format!(
                    "field {}: expected Unicode text, found half of a surrogate pair in an escape",
                    self.label(i)
                ),
            )),
        }
    }

    fn span(&self, i: usize) -> Result<Option<[usize; 2]>, LineError> {
        let (raw, span) = match &self.values[i] {
            None | Some(Value::Json("null")) => return Ok(None),
            Some(Value::Json(raw)) => (*raw, json_span(raw)),
            Some(Value::Cell(cell)) if cell.trim().is_empty() => return Ok(None),
            Some(Value::Cell(cell)) => (&**cell, span_of_cell(cell)),
        };
        span.map(Some).ok_or_else(|| {
            let (such_as, found) = match self.values[i] {
                // A cell may hold line breaks and what a terminal obeys.
                Some(Value::Cell(_)) => (", such as 3:9 or [3,9]", quoted(raw)),
                // JSON has its own escapes and is shown as it is.
                _ => ("", visible(&shortened(raw, 40))),
            };
            let message = format!(
                "field {}: expected [start, end) as two whole numbers of code points{such_as}, found {found}",
                self.label(i)
            );
            LineError::new(ErrorCode::WrongType, message)
        })
    }

    fn is_null(&self, i: usize) -> bool {
        matches!(&self.values[i], Some(Value::Json("null")))
    }

    fn is_empty_cell(&self, i: usize) -> bool {
        matches!(&self.values[i], Some(Value::Cell(text)) if text.is_empty())
    }

    fn label(&self, field: usize) -> &str {
        self.map.label(field)
    }
}

fn json_span(raw: &str) -> Option<[usize; 2]> {
    serde_json::from_str(raw).ok()
}

/// Of a cell, `[3,9]` or `3:9`.
pub(super) fn span_of_cell(cell: &str) -> Option<[usize; 2]> {
    json_span(cell).or_else(|| colon_span(cell))
}

/// `3:9`
fn colon_span(cell: &str) -> Option<[usize; 2]> {
    // Digits alone: `parse` would take a plus sign too.
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let (start, end) = cell.trim().split_once(':')?;
    Some([number(start)?, number(end)?])
}

fn emptiness(value: &str) -> &'static str {
    if value.is_empty() {
        "an empty string"
    } else {
        "whitespace alone"
    }
}
