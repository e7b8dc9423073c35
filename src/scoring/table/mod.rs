//! Records as rows of a table, CSV or TSV: columns by the header's names, the answer in columns after the row's own.
//!
//! A row keeps its bytes, or where it has too many fields its words. The columns that are appended are `probability`, `causal` (true
//! or false), `calibrated_probability` where it is asked for, `probabilities` of several models, `warnings` (between
//! semicolons), `error_code` and `error_message`, or with an output key `crag` all of them behind `crag_`. So that the answer stands in its
//! columns, a row with too few fields is filled up with empty ones, an open quote is closed, and of a row with too many the last column
//! takes what is left, as one field.

mod as_json;

use std::sync::OnceLock;

use super::error::{ErrorCode, LineError, ScoreError};
use super::fields::{ADR, ADR_ENTITY, ADR_TEXT, DRUG, DRUG_ENTITY, DRUG_TEXT, FIELDS, FieldMap, TEXT};
use super::format::Format;
use super::output_key::{CALIBRATED_KEY, OutputKey, PROBABILITIES};
use super::record::{Record, Rejection, Value, Values};
use super::record_format::{Answer, RecordFormat, write_probabilities, write_probability};
use super::rows::{self, Field, RowEnds, Shape};
use super::warning::Warning;
use crate::words::{quoted, utf8};
pub use as_json::RowsAsJson;

/// The columns that are appended.
const COLUMNS: [&str; 7] = [
    "probability",
    "causal",
    CALIBRATED_KEY,
    PROBABILITIES,
    "warnings",
    ERROR_CODE,
    ERROR_MESSAGE,
];
const ERROR_CODE: &str = "error_code";
const ERROR_MESSAGE: &str = "error_message";
/// Most columns that a message lists.
const SHOWN_COLUMNS: usize = 12;

/// Reads and writes the rows of one run.
#[derive(Debug)]
pub struct Table {
    format: Format,
    delimiter: u8,
    map: FieldMap,
    output: OutputKey,
    header: OnceLock<Header>,
}

/// What the first input's header says.
#[derive(Debug)]
struct Header {
    /// The input's name.
    name: String,
    columns: Vec<String>,
    /// Of each column, the fields that are read from it.
    fields: Vec<Vec<usize>>,
}

impl Table {
    /// `format` is CSV or TSV.
    pub fn new(format: Format, map: FieldMap, output: OutputKey) -> Self {
        Self {
            format,
            delimiter: rows::delimiter(format).unwrap_or(b','),
            map,
            output,
            header: OnceLock::new(),
        }
    }

    fn read_header(&self, name: &str, row: &[u8]) -> Result<Header, String> {
        let columns = header_columns(row, self.format)?;
        for column in self.answer_columns() {
            if columns.contains(&column) {
                let name = self.output.key().map_or("a name", |_| "another name");
                return Err(format!(
                    "the column {} is already there; rename it, or put {name} before those that are added with --output-key",
                    quoted(&column)
                ));
            }
        }
        let mut fields = vec![Vec::new(); columns.len()];
        let mut found = [false; FIELDS.len()];
        for field in 0..FIELDS.len() {
            let wanted = self.map.column(field);
            let mut places = columns.iter().enumerate().filter(|(_, column)| *column == wanted);
            let Some((place, _)) = places.next() else { continue };
            if places.next().is_some() {
                return Err(format!(
                    "the column {} is there twice; rename one, or name another with --field {}=COLUMN",
                    quoted(wanted),
                    FIELDS[field]
                ));
            }
            fields[place].push(field);
            found[field] = true;
        }
        self.check_complete(&columns, &found)?;
        Ok(Header {
            name: name.to_owned(),
            columns,
            fields,
        })
    }

    /// Whether a record can be made of the fields that were found.
    fn check_complete(&self, columns: &[String], found: &[bool; FIELDS.len()]) -> Result<(), String> {
        let either = |a: usize, b: usize| found[a] || found[b];
        let or = |others: &[usize]| {
            let others: Vec<String> = others.iter().map(|&other| quoted(self.map.column(other))).collect();
            format!(" (or {})", others.join(" and "))
        };
        let mut missing = Vec::new();
        if !either(DRUG, DRUG_ENTITY) {
            missing.push((DRUG, or(&[DRUG_ENTITY])));
        }
        if !either(ADR, ADR_ENTITY) {
            missing.push((ADR, or(&[ADR_ENTITY])));
        }
        if !(either(DRUG_TEXT, TEXT) && either(ADR_TEXT, TEXT)) {
            missing.push((TEXT, or(&[DRUG_TEXT, ADR_TEXT])));
        }
        // A field that was mapped by hand has to be there: a typing error must not look like an empty column.
        for field in 0..FIELDS.len() {
            let is_mapped = self.map.column(field) != FIELDS[field];
            if is_mapped && !found[field] && missing.iter().all(|(other, _)| *other != field) {
                missing.push((field, String::new()));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let expected: Vec<String> = missing
            .iter()
            .map(|(field, or)| quoted(self.map.column(*field)) + or)
            .collect();
        let column = if missing.len() == 1 { "column" } else { "columns" };
        let mut message = format!(
            "expected the {column} {}, found {}",
            expected.join(", "),
            listed(columns)
        );
        match columns {
            [first, ..] if first.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("sep=")) => {
                message +=
                    "; the line \"sep=\", by which Excel knows how fields are delimited, is no header: remove it";
            }
            [one] if one.contains([',', ';', '\t', '|']) => {
                message += "; that is one column: is the file delimited otherwise? crag reads commas (--format csv) and tabs \
                            (--format tsv)";
            }
            _ => {
                let flags: Vec<String> = missing
                    .iter()
                    .map(|(field, _)| format!("--field {}=COLUMN", FIELDS[*field]))
                    .collect();
                message += &format!("; name the {column} to read with {}", flags.join(" "));
            }
        }
        Err(message)
    }

    /// The names of the columns that are appended.
    fn answer_columns(&self) -> impl Iterator<Item = String> {
        let columns = COLUMNS.into_iter();
        let columns = columns.filter(|&column| match column {
            CALIBRATED_KEY => self.output.calibrated(),
            PROBABILITIES => self.output.several(),
            _ => true,
        });
        columns.map(|column| match self.output.key() {
            Some(key) => format!("{key}_{column}"),
            None => column.to_owned(),
        })
    }

    fn parse_row<'a>(&self, row: &'a [u8]) -> Result<Record<'a>, LineError> {
        let row = utf8(row).map_err(|message| LineError::new(ErrorCode::InvalidUtf8, message))?;
        let invalid =
            |message: String| LineError::new(ErrorCode::InvalidRow, message + &rows::lines_taken(row.lines().count()));
        let header = self.header()?;
        let mut values: [Option<Value<'a>>; FIELDS.len()] = Default::default();
        let mut count = 0;
        for (i, field) in rows::fields(row, self.format).enumerate() {
            count += 1;
            if let Field::AfterQuote | Field::Unclosed = field {
                return Err(invalid(format!("field {count}: {}", quoting_message(&field))));
            }
            let wanted = header.fields.get(i).map_or(&[][..], Vec::as_slice);
            if let (false, Some(text)) = (wanted.is_empty(), field.text()) {
                for &wanted in wanted {
                    values[wanted] = Some(Value::Cell(text.clone()));
                }
            }
        }
        let expected = header.columns.len();
        if count != expected {
            return Err(invalid(fields_expected(self.format, expected, count)));
        }
        let inventory = || format!("the header has {}", listed(&header.columns));
        Values {
            values,
            map: &self.map,
            inventory: &inventory,
        }
        .record()
    }

    fn header(&self) -> Result<&Header, LineError> {
        // The reader takes the header before it hands out a row.
        let none = || LineError::new(ErrorCode::InvalidRow, "expected a header row first, found none");
        self.header.get().ok_or_else(none)
    }

    /// Appends a row that may have another number of fields than the header, with as many.
    fn write_damaged_row(&self, out: &mut Vec<u8>, row: &[u8]) {
        let Shape { unclosed, starts } = Shape::of(row, self.format);
        let expected = self.header.get().map_or(starts.len(), |header| header.columns.len());
        match starts.get(expected.saturating_sub(1)) {
            Some(&last) if starts.len() > expected => {
                out.extend_from_slice(&row[..last]);
                rows::write_field(out, &row[last..], self.format);
            }
            _ => {
                out.extend_from_slice(row);
                if unclosed {
                    out.push(b'"');
                }
                out.extend(std::iter::repeat_n(
                    self.delimiter,
                    expected.saturating_sub(starts.len()),
                ));
            }
        }
    }

    fn write_warnings(&self, out: &mut Vec<u8>, warnings: &[Warning]) {
        for (i, warning) in warnings.iter().enumerate() {
            if i > 0 {
                out.push(b';');
            }
            out.extend_from_slice(warning.name().as_bytes());
        }
    }
}

impl RecordFormat for Table {
    fn ends(&self) -> RowEnds {
        RowEnds::of(self.format)
    }

    fn has_header(&self) -> bool {
        true
    }

    fn take_header(&self, name: &str, line: u64, row: &[u8]) -> Result<Vec<u8>, ScoreError> {
        let header_error = |message| ScoreError::Header {
            name: name.to_owned(),
            line,
            message,
        };
        let header = self.read_header(name, row).map_err(header_error)?;
        if let Some(first) = self.header.get() {
            if first.columns != header.columns {
                return Err(header_error(format!(
                    "expected the header of {}, which has {}, found {}; score them in runs of their own",
                    first.name,
                    listed(&first.columns),
                    listed(&header.columns)
                )));
            }
            return Ok(Vec::new());
        }
        let mut out = row.to_vec();
        for column in self.answer_columns() {
            out.push(self.delimiter);
            rows::write_field(&mut out, column.as_bytes(), self.format);
        }
        out.push(b'\n');
        self.header.get_or_init(|| header);
        Ok(out)
    }

    fn parse<'a>(&self, row: &'a [u8]) -> Result<Record<'a>, Rejection> {
        self.parse_row(row).map_err(|error| Rejection {
            error,
            spliceable: true,
        })
    }

    fn write(&self, out: &mut Vec<u8>, row: &[u8], answer: &Answer<'_>) {
        let delimiter = self.delimiter;
        match answer {
            Answer::Scored(scored) => {
                out.extend_from_slice(row);
                out.push(delimiter);
                write_probability(out, scored.probability);
                out.push(delimiter);
                out.extend_from_slice(if scored.causal { b"true" } else { b"false" });
                if self.output.calibrated() {
                    out.push(delimiter);
                    (scored.calibrated.iter()).for_each(|&calibrated| write_probability(out, calibrated));
                }
                if self.output.several() {
                    let mut named = Vec::new();
                    write_probabilities(&mut named, scored.probabilities);
                    out.push(delimiter);
                    rows::write_field(out, &named, self.format);
                }
                out.push(delimiter);
                self.write_warnings(out, scored.warnings);
                out.extend_from_slice(&[delimiter, delimiter]);
            }
            Answer::Error { error, place, .. } => {
                self.write_damaged_row(out, row);
                let columns = self.answer_columns().count();
                out.extend(std::iter::repeat_n(delimiter, columns - 1));
                out.extend_from_slice(error.code.name().as_bytes());
                out.push(delimiter);
                // Without the row's own bytes nothing else says which row it is.
                let message = match (row.is_empty(), place.file) {
                    (false, _) => error.message.clone(),
                    (true, None) => format!("line {}: {}", place.line, error.message),
                    (true, Some(file)) => format!("{file}:{}: {}", place.line, error.message),
                };
                rows::write_field(out, message.as_bytes(), self.format);
            }
        }
        out.push(b'\n');
    }
}

/// The names of a header's columns.
fn header_columns(row: &[u8], format: Format) -> Result<Vec<String>, String> {
    const LONE_RETURN: &str = "expected lines to end with LF or CRLF, found a lone CR; \
                               convert them, for example with tr '\\r' '\\n'";
    let row = utf8(row)?;
    if row.trim_start().starts_with('{') && row.contains(':') {
        return Err("expected a header row, found an object; is it JSONL? --format jsonl reads it".to_owned());
    }
    let mut columns = Vec::new();
    for field in rows::fields(row, format) {
        // In quotes it is a part of the name; the end of a file's first line, where all of the file looks like one row, is not.
        if let Field::Bytes(name) = field
            && name.contains('\r')
        {
            return Err(LONE_RETURN.to_owned());
        }
        match field.text() {
            Some(column) => columns.push(column.into_owned()),
            None if row.contains("\"\r") => return Err(LONE_RETURN.to_owned()),
            None => return Err(format!("column {}: {}", columns.len() + 1, quoting_message(&field))),
        }
    }
    Ok(columns)
}

/// What is wrong with a row of another number of fields than the header's.
fn fields_expected(format: Format, expected: usize, found: usize) -> String {
    let hint = match (format, found < expected) {
        (Format::Tsv, true) => "; a TSV row is one line, and a tab ends a field also in quotes",
        (Format::Tsv, false) => "; in TSV a tab ends a field also in quotes",
        (_, true) => "",
        (_, false) => "; a field with a comma in it has to be in quotes",
    };
    format!("expected {expected} fields, found {found}{hint}")
}

fn quoting_message(field: &Field<'_>) -> &'static str {
    match field {
        Field::Unclosed => "expected a closing quote, found the end of the input",
        _ => {
            "expected a delimiter after the closing quote, found something else; \
              put the whole field in quotes and double the quotes in it"
        }
    }
}

/// The columns, for a message.
fn listed(columns: &[String]) -> String {
    let shown: Vec<String> = columns
        .iter()
        .take(SHOWN_COLUMNS)
        .map(|column| quoted(column))
        .collect();
    let more = if columns.len() > SHOWN_COLUMNS { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests;
