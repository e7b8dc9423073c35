//! Where a line of an input ends, and what a row of a table holds.
//!
//! CSV is RFC 4180's: a field that begins with a quote ends with the quote that is not doubled, and may hold
//! delimiters and line ends; any other field is its own bytes, quotes included. Rows end with LF or CRLF. In TSV a
//! row is a line, always, so that a stray quote costs one row at most; a field that is in quotes as a whole, with
//! those inside doubled, is read without them.
//!
//! The csv crates decode rows but keep no bytes and pass over misplaced quotes, which would change a text in
//! silence; that is why this is written here (the tests hold it against csv-core).

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2};

use super::format::Format;
use crate::files::BYTE_ORDER_MARK;

/// What stands between the fields of CSV, in which alone quotes may hold line ends.
const COMMA: u8 = b',';

/// Finds the ends of rows in a stream of bytes.
#[derive(Clone, Debug)]
pub struct RowEnds {
    /// None where every line end ends a row.
    quoting: Option<Quoting>,
    /// Whitespace that means something.
    delimiter: Option<u8>,
}

#[derive(Clone, Debug)]
struct Quoting {
    place: Place,
    /// Bytes of a byte order mark seen at the beginning: a quote after it begins a field.
    mark_seen: usize,
}

/// Where in a row the last byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote in a quoted field: its end, or half of a doubled one.
    QuoteInQuoted,
}

impl RowEnds {
    /// Every line is one.
    pub fn lines() -> Self {
        Self {
            quoting: None,
            delimiter: None,
        }
    }

    /// For an input of this format, from its beginning.
    pub fn of(format: Format) -> Self {
        let quoting = (format == Format::Csv).then_some(Quoting {
            place: Place::FieldStart,
            mark_seen: 0,
        });
        let delimiter = delimiter(format);
        Self { quoting, delimiter }
    }

    /// The place of the line feed that ends the row which `bytes` go on with; none if they do not end it.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        match &mut self.quoting {
            None => memchr(b'\n', bytes),
            Some(quoting) => quoting.find(bytes),
        }
    }

    /// Line ends within a row, of which `part` is a part.
    pub fn line_ends_in(&self, part: &[u8]) -> u64 {
        match self.quoting {
            None => 0,
            Some(_) => memchr_iter(b'\n', part).count() as u64,
        }
    }

    /// Whether `bytes` are whitespace that means nothing.
    pub fn are_blank(&self, bytes: &[u8]) -> bool {
        bytes
            .iter()
            .all(|&byte| byte.is_ascii_whitespace() && Some(byte) != self.delimiter)
    }
}

impl Quoting {
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut i = 0;
        while let Some(&byte) = bytes.get(i) {
            // Searching for what ends a state is several times as fast as going byte by byte.
            match self.place {
                Place::FieldStart if BYTE_ORDER_MARK.get(self.mark_seen) == Some(&byte) => self.mark_seen += 1,
                Place::FieldStart | Place::QuoteInQuoted => {
                    let torn_mark = self.mark_seen > 0 && self.mark_seen < BYTE_ORDER_MARK.len();
                    self.mark_seen = BYTE_ORDER_MARK.len();
                    self.place = match byte {
                        b'"' if !torn_mark => Place::Quoted,
                        b'\n' => Place::FieldStart,
                        COMMA => Place::FieldStart,
                        _ => Place::Plain,
                    };
                    if byte == b'\n' {
                        return Some(i);
                    }
                }
                Place::Plain => {
                    i += memchr2(b'\n', COMMA, &bytes[i..])?;
                    self.place = Place::FieldStart;
                    if bytes[i] == b'\n' {
                        return Some(i);
                    }
                }
                Place::Quoted => {
                    i += memchr(b'"', &bytes[i..])?;
                    self.place = Place::QuoteInQuoted;
                }
            }
            i += 1;
        }
        None
    }
}

/// What stands between the fields of a row.
pub fn delimiter(format: Format) -> Option<u8> {
    match format {
        Format::Jsonl => None,
        Format::Csv => Some(COMMA),
        Format::Tsv => Some(b'\t'),
    }
}

/// A field of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// As it stands there.
    Bytes(&'a str),
    /// Of a field in quotes, what is between them.
    Quoted(&'a str),
    /// The closing quote is followed by something else than the field's end.
    AfterQuote,
    /// The closing quote is missing.
    Unclosed,
}

impl<'a> Field<'a> {
    /// The field's text; none if it has none.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match *self {
            Field::Bytes(text) => Some(Cow::Borrowed(text)),
            Field::Quoted(inner) if inner.contains('"') => Some(Cow::Owned(inner.replace("\"\"", "\""))),
            Field::Quoted(inner) => Some(Cow::Borrowed(inner)),
            Field::AfterQuote | Field::Unclosed => None,
        }
    }
}

/// The fields of a row without its line end, at least one.
pub fn fields(row: &str, format: Format) -> impl Iterator<Item = Field<'_>> {
    let mut rest = Some(row);
    std::iter::from_fn(move || {
        let row = rest?;
        let (field, after) = match format {
            Format::Tsv => tsv_field(row),
            _ => csv_field(row),
        };
        rest = after;
        Some(field)
    })
}

fn tsv_field(row: &str) -> (Field<'_>, Option<&str>) {
    let (field, rest) = match row.split_once('\t') {
        Some((field, rest)) => (field, Some(rest)),
        None => (row, None),
    };
    let inner = field.strip_prefix('"').and_then(|field| field.strip_suffix('"'));
    let inner = inner.filter(|inner| !inner.replace("\"\"", "").contains('"'));
    (inner.map_or(Field::Bytes(field), Field::Quoted), rest)
}

fn csv_field(row: &str) -> (Field<'_>, Option<&str>) {
    let until_delimiter = |row| match str::split_once(row, ',') {
        Some((field, rest)) => (field, Some(rest)),
        None => (row, None),
    };
    let Some(quoted) = row.strip_prefix('"') else {
        let (field, rest) = until_delimiter(row);
        return (Field::Bytes(field), rest);
    };
    let mut end = 0;
    loop {
        let Some(quote) = memchr(b'"', &quoted.as_bytes()[end..]) else {
            return (Field::Unclosed, None);
        };
        end += quote;
        match quoted.as_bytes().get(end + 1) {
            Some(b'"') => end += 2,
            Some(b',') => return (Field::Quoted(&quoted[..end]), Some(&quoted[end + 2..])),
            None => return (Field::Quoted(&quoted[..end]), None),
            Some(_) => return (Field::AfterQuote, until_delimiter(&quoted[end + 1..]).1),
        }
    }
}

/// A row as it looks from outside, whatever its bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    /// It ends inside of a quoted field.
    pub unclosed: bool,
    /// Where its fields begin, at least one.
    pub starts: Vec<usize>,
}

impl Shape {
    pub fn of(row: &[u8], format: Format) -> Self {
        let mut starts = vec![0];
        if format != Format::Csv {
            starts.extend(memchr_iter(b'\t', row).map(|tab| tab + 1));
            return Self {
                unclosed: false,
                starts,
            };
        }
        let mut ends = Quoting {
            place: Place::FieldStart,
            mark_seen: BYTE_ORDER_MARK.len(),
        };
        for (i, byte) in row.iter().enumerate() {
            let quoted = ends.place == Place::Quoted;
            ends.find(std::slice::from_ref(byte));
            if *byte == b',' && !quoted {
                starts.push(i + 1);
            }
        }
        Self {
            unclosed: ends.place == Place::Quoted,
            starts,
        }
    }
}

/// Appends a field, in quotes if it would not be read as it is without.
pub fn write_field(out: &mut Vec<u8>, text: &[u8], format: Format) {
    match format {
        Format::Tsv => {
            // A TSV row is one line, so these cannot be kept.
            let kept = |&byte: &u8| if b"\t\n\r".contains(&byte) { b' ' } else { byte };
            let text: Vec<u8> = text.iter().map(kept).collect();
            match text.starts_with(b"\"") {
                true => write_quoted(out, &text),
                false => out.extend_from_slice(&text),
            }
        }
        _ if text.iter().any(|byte| b",\"\n\r".contains(byte)) => write_quoted(out, text),
        _ => out.extend_from_slice(text),
    }
}

fn write_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        out.push(byte);
        if byte == b'"' {
            out.push(byte);
        }
    }
    out.push(b'"');
}

/// What a message about a row adds where it takes several lines.
pub fn lines_taken(lines: usize) -> String {
    match lines {
        0 | 1 => String::new(),
        lines => format!("; the row takes {lines} lines: is a quote missing or too many?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows of `bytes`, without line feeds, read in pieces of `step` bytes.
    fn rows(bytes: &[u8], format: Format, step: usize) -> Vec<Vec<u8>> {
        let mut ends = RowEnds::of(format);
        let (mut rows, mut row) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            let mut rest = piece;
            while let Some(end) = ends.find(rest) {
                row.extend_from_slice(&rest[..end]);
                rows.push(std::mem::take(&mut row));
                rest = &rest[end + 1..];
            }
            row.extend_from_slice(rest);
        }
        if !row.is_empty() {
            rows.push(row);
        }
        rows
    }

    fn texts(row: &str, format: Format) -> Vec<Option<String>> {
        fields(row, format)
            .map(|field| field.text().map(Cow::into_owned))
            .collect()
    }

    fn some(texts: &[&str]) -> Vec<Option<String>> {
        texts.iter().map(|text| Some((*text).to_owned())).collect()
    }

    #[test]
    fn a_row_ends_at_a_line_end_outside_of_quotes() {
        let bytes = b"a,\"b\nc\"\n\"x\"\"\n\"\"\",5\" nail\n,\"\"\n\n\"open\nend";
        let expected: [&[u8]; 5] = [
            b"a,\"b\nc\"",
            b"\"x\"\"\n\"\"\",5\" nail",
            b",\"\"",
            b"",
            b"\"open\nend",
        ];
        for step in 1..bytes.len() {
            assert_eq!(rows(bytes, Format::Csv, step), expected, "{step}");
        }
        assert_eq!(rows(b"\"a\nb\"", Format::Tsv, 2), [b"\"a".as_slice(), b"b\""]);
    }

    #[test]
    fn a_quote_after_a_byte_order_mark_begins_a_field() {
        for step in 1..6 {
            assert_eq!(rows(b"\xef\xbb\xbf\"a\nb\"\nc", Format::Csv, step).len(), 2, "{step}");
            // Half a mark is text, and quotes in it mean nothing.
            assert_eq!(rows(b"\xef\xbb\"a\nb\"\nc", Format::Csv, step).len(), 3, "{step}");
        }
    }

    #[test]
    fn csv_fields_are_read_through_their_quotes() {
        assert_eq!(texts("", Format::Csv), some(&[""]));
        assert_eq!(texts(",", Format::Csv), some(&["", ""]));
        assert_eq!(
            texts("a, b,\"c,\"\"d\"\"\n\",\"\",5\" nail,e\"", Format::Csv),
            some(&["a", " b", "c,\"d\"\n", "", "5\" nail", "e\""])
        );
    }

    #[test]
    fn misplaced_quotes_give_no_text() {
        assert_eq!(
            fields("\"a\"b,\"c\"", Format::Csv).collect::<Vec<_>>(),
            [Field::AfterQuote, Field::Quoted("c")]
        );
        assert_eq!(
            fields("a,\"b,c", Format::Csv).collect::<Vec<_>>(),
            [Field::Bytes("a"), Field::Unclosed]
        );
        assert_eq!(fields("\"a\" ", Format::Csv).collect::<Vec<_>>(), [Field::AfterQuote]);
    }

    #[test]
    fn in_tsv_only_a_field_that_is_in_quotes_as_a_whole_is_quoted() {
        assert_eq!(
            texts("\"a\"\t\"b\"\"c\"\t\"d\" e\t\"f\t\"\t\"\"\t\"g\"h\"", Format::Tsv),
            some(&["a", "b\"c", "\"d\" e", "\"f", "\"", "", "\"g\"h\""])
        );
    }

    fn csv_bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(b'"'),
            Just(b'"'),
            Just(b','),
            Just(b'\n'),
            Just(b'\r'),
            Just(b'a'),
            Just(0xef),
            any::<u8>()
        ];
        prop::collection::vec(byte, 0..60)
    }

    /// What csv-core makes of one row: its fields.
    fn reference(row: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = csv_core::ReaderBuilder::new()
            .terminator(csv_core::Terminator::Any(b'\n'))
            .build();
        let (mut out, mut ends) = (vec![0; row.len() + 16], vec![0; row.len() + 16]);
        // A letter first, which is taken off again: csv-core drops a byte order mark and skips empty rows.
        let row = [b"x,", row, b"\n"].concat();
        let (result, _, _, count) = reader.read_record(&row, &mut out, &mut ends);
        assert!(matches!(result, csv_core::ReadRecordResult::Record), "{result:?}");
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let all = starts.zip(&ends[..count]).map(|(start, &end)| out[start..end].to_vec());
        all.skip(1).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn rows_of_any_bytes_are_those_of_csv_core(bytes in csv_bytes(), step in 1usize..20) {
            let mut reader = csv_core::ReaderBuilder::new()
                .terminator(csv_core::Terminator::Any(b'\n'))
                .build();
            let (mut out, mut ends) = (vec![0; 200], vec![0; 200]);
            let (mut rest, mut expected) = (&bytes[..], Vec::new());
            // csv-core passes over empty rows.
            let begin = |rest: &mut &[u8]| while let [b'\n', after @ ..] = rest { *rest = after };
            begin(&mut rest);
            while !rest.is_empty() {
                let (result, read, ..) = reader.read_record(rest, &mut out, &mut ends);
                let row = &rest[..read];
                rest = &rest[read..];
                match result {
                    csv_core::ReadRecordResult::Record => expected.push(row[..row.len() - 1].to_vec()),
                    _ => expected.push(row.to_vec()),
                }
                begin(&mut rest);
            }
            let mut found = rows(&bytes, Format::Csv, step);
            found.retain(|row| !row.is_empty());
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn fields_that_have_a_text_are_those_of_csv_core(bytes in csv_bytes()) {
            for row in rows(&bytes, Format::Csv, 1000) {
                let Ok(row) = std::str::from_utf8(&row) else { continue };
                let found = texts(row, Format::Csv);
                let Shape { unclosed, starts } = Shape::of(row.as_bytes(), Format::Csv);
                prop_assert_eq!(starts.len(), found.len());
                prop_assert_eq!(unclosed, fields(row, Format::Csv).last() == Some(Field::Unclosed));
                if unclosed {
                    continue;
                }
                let expected = reference(row.as_bytes());
                prop_assert_eq!(found.len(), expected.len());
                for (found, expected) in found.into_iter().zip(expected) {
                    if let Some(found) = found {
                        prop_assert_eq!(found.into_bytes(), expected);
                    }
                }
            }
        }

        #[test]
        fn a_written_field_reads_back(text in "[\",\na-c\r]{0,8}", other in "[\",\na\r]{0,4}") {
            let mut out = Vec::new();
            write_field(&mut out, text.as_bytes(), Format::Csv);
            out.push(b',');
            write_field(&mut out, other.as_bytes(), Format::Csv);
            prop_assert_eq!(rows(&out, Format::Csv, 100).concat(), &out[..]);
            prop_assert_eq!(texts(std::str::from_utf8(&out).unwrap(), Format::Csv), some(&[&text, &other]));
            let flat = text.replace(['\n', '\r'], " ");
            let mut out = Vec::new();
            write_field(&mut out, flat.as_bytes(), Format::Tsv);
            prop_assert_eq!(texts(std::str::from_utf8(&out).unwrap(), Format::Tsv), some(&[&flat]));
        }
    }
}
