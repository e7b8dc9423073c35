//! Rows of a table as lines of JSON, for whoever reads records and answers none.

use std::io::{self, Read};

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{ERROR_CODE, ERROR_MESSAGE, fields_expected, quoting_message};
use crate::scoring::error::{ErrorCode, LineError, ScoreError};
use crate::scoring::fields::{ADR_SPAN, DRUG_SPAN, FIELDS};
use crate::scoring::format::Format;
use crate::scoring::lines::{Content, LineReader, too_long};
use crate::scoring::reader::no_header;
use crate::scoring::record::span_of_cell;
use crate::scoring::rows::{self, RowEnds};
use crate::words::utf8;

/// Reads a table as JSONL of the same records, each on the line on which its row begins.
///
/// A cell is a number, a truth value or an object where it reads as one, and a string elsewhere, always in what records are
/// made of. An empty cell is no field. What `crag score` appended is nested under the output key, if there is one.
pub struct RowsAsJson<R> {
    lines: LineReader<R>,
    format: Format,
    max_line_bytes: usize,
    columns: Vec<Column>,
    output_key: Option<String>,
    /// Bytes to be read, and how many of them have been.
    ready: Vec<u8>,
    read: usize,
    /// Line ends written.
    written: u64,
    is_over: bool,
}

/// Where a column's cells go.
struct Column {
    /// Under the output key.
    is_nested: bool,
    key: String,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Value,
    Text,
    Span,
    ErrorCode,
    ErrorMessage,
}

impl<R: Read> RowsAsJson<R> {
    /// Reads the header. `output_key`: what answers are nested under.
    ///
    /// # Errors
    /// An input that cannot be read, and one without a header of text.
    pub fn new(
        input: R,
        name: &str,
        format: Format,
        max_line_bytes: usize,
        output_key: Option<&str>,
    ) -> Result<Self, ScoreError> {
        let mut lines = LineReader::new(input, name.to_owned(), max_line_bytes, RowEnds::of(format));
        let (line, row) = loop {
            match lines.next_line()? {
                None => return Err(no_header(name.to_owned(), lines.lines())),
                Some((_, Content::Blank)) => {}
                Some((line, Content::Bytes(row))) => break (line, Ok(row)),
                Some((line, Content::TooLong { bytes, .. })) => break (line, Err(too_long(max_line_bytes, bytes))),
            }
        };
        let columns = row.and_then(|row| super::header_columns(&row, format));
        let columns = columns.map_err(|message| ScoreError::Header {
            name: name.to_owned(),
            line,
            message,
        })?;
        Ok(Self {
            columns: columns.into_iter().map(|name| Column::of(name, output_key)).collect(),
            output_key: output_key.map(str::to_owned),
            lines,
            format,
            max_line_bytes,
            ready: Vec::new(),
            read: 0,
            written: 0,
            is_over: false,
        })
    }

    /// Makes the next row ready, or finds that there is none.
    fn advance(&mut self) -> Result<(), ScoreError> {
        let (line, record) = loop {
            match self.lines.next_line()? {
                None => {
                    self.is_over = true;
                    return Ok(());
                }
                Some((_, Content::Blank)) => {}
                Some((line, Content::Bytes(row))) => break (line, self.record(&row)),
                Some((line, Content::TooLong { bytes, .. })) => {
                    let message = too_long(self.max_line_bytes, bytes);
                    break (line, Err(LineError::new(ErrorCode::LineTooLong, message)));
                }
            }
        };
        let record = record.unwrap_or_else(|LineError { code, message }| {
            json!({"line": line, "error": {"code": code.name(), "message": message}}).to_string()
        });
        self.ready.clear();
        self.read = 0;
        self.ready.resize((line - 1 - self.written) as usize, b'\n');
        self.ready.extend_from_slice(record.as_bytes());
        self.ready.push(b'\n');
        self.written = line;
        Ok(())
    }

    fn record(&self, row: &[u8]) -> Result<String, LineError> {
        let row = utf8(row).map_err(|message| LineError::new(ErrorCode::InvalidUtf8, message))?;
        let invalid = |message: String| LineError::new(ErrorCode::InvalidRow, message);
        let (mut outer, mut inner, mut error) = (Members::default(), Members::default(), Map::new());
        let mut count = 0;
        let mut error_is_nested = false;
        for field in rows::fields(row, self.format) {
            let column = self.columns.get(count);
            count += 1;
            let Some(text) = field.text() else {
                return Err(invalid(format!("field {count}: {}", quoting_message(&field))));
            };
            let Some(column) = column.filter(|_| !text.is_empty()) else {
                continue;
            };
            let members = if column.is_nested { &mut inner } else { &mut outer };
            match column.kind {
                Kind::ErrorCode | Kind::ErrorMessage => {
                    error_is_nested = column.is_nested;
                    error.insert(column.key.clone(), Value::from(text));
                }
                Kind::Text => members.add(&column.key, &string(&text)),
                Kind::Value => members.add(&column.key, &value_of(&text)),
                Kind::Span => members.add(&column.key, &span(&text)),
            }
        }
        if count != self.columns.len() {
            return Err(invalid(fields_expected(self.format, self.columns.len(), count)));
        }
        if !error.is_empty() {
            let members = if error_is_nested { &mut inner } else { &mut outer };
            members.add("error", &Value::Object(error).to_string());
        }
        if let Some(key) = self.output_key.as_deref().filter(|_| !inner.0.is_empty()) {
            outer.add(key, &inner.object());
        }
        Ok(outer.object())
    }
}

impl Column {
    fn of(name: String, output_key: Option<&str>) -> Self {
        let rest = output_key.and_then(|key| name.strip_prefix(key)?.strip_prefix('_'));
        let (is_nested, key) = (rest.is_some(), rest.unwrap_or(&name));
        let is_of_an_answer = is_nested || output_key.is_none();
        let field = FIELDS.iter().position(|field| !is_nested && *field == key);
        let (kind, key) = match (key, field) {
            (ERROR_CODE, _) if is_of_an_answer => (Kind::ErrorCode, "code"),
            (ERROR_MESSAGE, _) if is_of_an_answer => (Kind::ErrorMessage, "message"),
            (key, Some(DRUG_SPAN | ADR_SPAN)) => (Kind::Span, key),
            (key, Some(_)) => (Kind::Text, key),
            (key, None) => (Kind::Value, key),
        };
        Self {
            is_nested,
            key: key.to_owned(),
            kind,
        }
    }
}

/// The members of an object, as JSON.
#[derive(Default)]
struct Members(String);

impl Members {
    fn add(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0 += &string(key);
        self.0.push(':');
        self.0 += value;
    }

    fn object(&self) -> String {
        format!("{{{}}}", self.0)
    }
}

fn string(text: &str) -> String {
    Value::from(text).to_string()
}

/// What a cell reads as, on one line.
fn value_of(cell: &str) -> String {
    let trimmed = cell.trim();
    // As spreadsheets write them.
    let truth = ["true", "false"]
        .into_iter()
        .find(|truth| trimmed.eq_ignore_ascii_case(truth));
    if let Some(truth) = truth {
        return truth.to_owned();
    }
    let may_be_json =
        trimmed.starts_with(|c: char| c.is_ascii_digit() || "-{[".contains(c)) && !trimmed.contains(['\n', '\r']);
    match may_be_json && serde_json::from_str::<&RawValue>(trimmed).is_ok() {
        true => trimmed.to_owned(),
        false => string(cell),
    }
}

fn span(cell: &str) -> String {
    span_of_cell(cell).map_or_else(|| string(cell), |[start, end]| format!("[{start},{end}]"))
}

impl<R: Read> Read for RowsAsJson<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.ready.len() && !self.is_over {
            self.advance().map_err(|error| match error {
                ScoreError::Read { source, .. } => source,
                other => io::Error::other(other),
            })?;
        }
        let count = buffer.len().min(self.ready.len() - self.read);
        buffer[..count].copy_from_slice(&self.ready[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_a_table_holds_comes_out_as_objects_on_the_rows_lines(
            rows in proptest::collection::vec("([a,\t0-9.:\"{}\\[\\]\\\\ -]|true|\r|\u{0}|\u{2028}|é|\n){0,12}", 0..8),
            format in prop_oneof![Just(Format::Csv), Just(Format::Tsv)],
            output_key in prop_oneof![Just(None), Just(Some("c"))],
        ) {
            let delimiter = if format == Format::Csv { "," } else { "\t" };
            let header = ["text", "c_probability", "drug_span", "probability", "error_code", "c_error_message", "x\"y"].join(delimiter);
            let table = format!("{header}\n{}", rows.join("\n"));
            let mut expected = Vec::new();
            let mut lines = LineReader::new(table.as_bytes(), "t".to_owned(), 200, RowEnds::of(format));
            while let Some((line, content)) = lines.next_line().unwrap() {
                if line > 1 && content != Content::Blank {
                    expected.push(line);
                }
            }
            let read = read(format, output_key, &table).unwrap();
            let mut found = Vec::new();
            for (line, text) in (1u64..).zip(&read) {
                if !text.is_empty() {
                    prop_assert!(serde_json::from_str::<Map<String, Value>>(text).is_ok(), "{text}");
                    found.push(line);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }

    fn read(format: Format, output_key: Option<&str>, table: &str) -> Result<Vec<String>, String> {
        let rows = RowsAsJson::new(table.as_bytes(), "t", format, 200, output_key);
        let mut text = String::new();
        rows.map_err(|error| error.to_string())?
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    #[test]
    fn cells_are_what_they_read_as_and_rows_stay_on_their_lines() {
        let table = "id,label,text,drug_span,note,more\r\n007,TRUE,\"12\",3:9,\"a \"\"b\"\"\nc\",\r\n\r\n1e5,0.0,x,[1;2],-,\"{\"\"a\"\":1}\"\r\n";
        assert_eq!(
            read(Format::Csv, None, table).unwrap(),
            [
                "",
                r#"{"id":"007","label":true,"text":"12","drug_span":[3,9],"note":"a \"b\"\nc"}"#,
                "",
                "",
                r#"{"id":1e5,"label":0.0,"text":"x","drug_span":"[1;2]","note":"-","more":{"a":1}}"#,
            ]
        );
    }

    #[test]
    fn answers_are_as_in_json() {
        let header = "text\tprobability\tcausal\terror_code\terror_message\n";
        let rows = "a\t0.5\ttrue\t\t\n\t\t\tempty_text\tm \"x\"\n";
        let plain = [
            "",
            r#"{"text":"a","probability":0.5,"causal":true}"#,
            r#"{"error":{"code":"empty_text","message":"m \"x\""}}"#,
        ];
        assert_eq!(read(Format::Tsv, None, &format!("{header}{rows}")).unwrap(), plain);
        let nested = header
            .replace("\tp", "\tc_p")
            .replace("\tc", "\tc_c")
            .replace("c_c_p", "c_p")
            .replace("\te", "\tc_e");
        assert_eq!(
            read(Format::Tsv, Some("c"), &format!("{nested}{rows}")).unwrap(),
            [
                "",
                r#"{"text":"a","c":{"probability":0.5,"causal":true}}"#,
                r#"{"c":{"error":{"code":"empty_text","message":"m \"x\""}}}"#,
            ]
        );
    }

    #[test]
    fn a_row_that_cannot_be_read_is_an_error_record_on_its_line() {
        let long = "x".repeat(300);
        let lines = read(Format::Csv, None, &format!("a,b\n1\n{long},2\n\"1\"x,2\n3,4\n")).unwrap();
        for (line, expected) in [
            (
                1,
                r#"{"error":{"code":"invalid_row","message":"expected 2 fields, found 1"},"line":2}"#,
            ),
            (
                2,
                r#"{"error":{"code":"line_too_long","message":"expected at most 200 bytes, found 302; --max-line-bytes raises the limit"},"line":3}"#,
            ),
            (4, r#"{"a":3,"b":4}"#),
        ] {
            assert_eq!(lines[line], expected);
        }
        assert!(
            lines[3].contains("invalid_row") && lines[3].contains("closing quote"),
            "{}",
            lines[3]
        );
        for (table, message) in [
            ("", "t: expected a header row"),
            ("a\rb", "t:1: expected lines to end"),
            ("{\"a\":1}", "is it JSONL?"),
        ] {
            let error = read(Format::Csv, None, table).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
