//! Tables and mapped fields, as files and through the pipeline.

use crag::scoring::{FieldMap, Format, Options, OutputKey};
use proptest::prelude::*;
use serde_json::json;

use crate::common::pack::gzip;
use crate::common::{crag, json_lines};
use crate::lines_stub::*;

const ANSWER: &str = ",probability,causal,warnings,error_code,error_message\n";

fn scored(bytes: impl Into<Vec<u8>>, format: Format) -> Scored {
    let options = Options { format, ..options() };
    score_with(input(bytes), &StubModel::default(), &StubText::default(), &options)
}

/// The rows of a table with their line ends, and their fields, by csv-core.
fn rows(mut bytes: &[u8]) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
    let mut reader = csv_core::ReaderBuilder::new()
        .terminator(csv_core::Terminator::Any(b'\n'))
        .build();
    let (mut out, mut ends) = (vec![0; bytes.len() + 16], vec![0; bytes.len() + 16]);
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        if bytes[0] == b'\n' {
            // csv-core passes over empty rows.
            bytes = &bytes[1..];
            continue;
        }
        let (result, mut read, written, mut count) = reader.read_record(bytes, &mut out, &mut ends);
        if let csv_core::ReadRecordResult::InputEmpty = result {
            let (_, _, _, last) = reader.read_record(&[], &mut out[written..], &mut ends[count..]);
            read = bytes.len();
            count += last;
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let fields = starts.zip(&ends[..count]).map(|(start, &end)| out[start..end].to_vec());
        rows.push((bytes[..read].to_vec(), fields.collect()));
        bytes = &bytes[read..];
    }
    rows
}

fn texts(output: &[u8]) -> Vec<Vec<String>> {
    let text = |field: Vec<u8>| String::from_utf8(field).unwrap();
    let row = |(_, fields): (_, Vec<Vec<u8>>)| fields.into_iter().map(text).collect();
    rows(output).into_iter().map(row).collect()
}

#[test]
fn a_table_gets_the_probabilities_that_its_records_get_as_json() {
    let texts_in = ["a caused b", "a, \"b\"", "a\nb\r\n", "ab \u{1f600}"];
    let lines: String = texts_in
        .iter()
        .map(|text| json!({"text": text, "drug": "a", "adr": "b"}).to_string() + "\n")
        .collect();
    let expected = score(lines);
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let table: String = texts_in
        .iter()
        .map(|text| format!("a,{},\"b\"\r\n", quoted(text)))
        .collect();
    let found = scored(format!("\u{feff}drug,text,adr\r\n{table}"), Format::Csv);
    let rows = texts(&found.output);
    assert_eq!(rows[0].join(",") + "\n", format!("drug,text,adr{ANSWER}"));
    assert_eq!(rows.len(), 1 + texts_in.len());
    for (row, (value, text)) in rows[1..].iter().zip(expected.values().iter().zip(texts_in)) {
        assert_eq!(row[1], text);
        assert_eq!(row[3], value["probability"].to_string());
        assert_eq!(row[4], value["causal"].to_string());
        assert_eq!(row[5..], ["", "", ""]);
    }
    let tsv = scored("drug\ttext\tadr\na\ta caused b\tb\n", Format::Tsv);
    let cells: Vec<&str> = tsv.lines()[1].split('\t').collect();
    assert_eq!(cells[3], rows[1][3]);
}

#[test]
fn a_table_without_rows_is_its_header() {
    for table in ["text,drug,adr", "text,drug,adr\n", "\n\r\n\u{20}\ntext,drug,adr\r\n\n"] {
        let scored = scored(table, Format::Csv);
        assert_eq!(scored.lines(), [format!("text,drug,adr{}", ANSWER.trim_end())]);
        assert_eq!(scored.counts().records(), 0);
    }
    for (table, found) in [("", "an empty input"), ("\n \n", "blank lines alone")] {
        let scored = scored(table, Format::Csv);
        let message = scored.result.unwrap_err().to_string();
        assert_eq!(message, format!("test.jsonl: expected a header row, found {found}"));
        assert!(scored.output.is_empty());
    }
}

#[test]
fn a_row_is_named_by_the_line_it_begins_on() {
    let table = "text,drug,adr\n\"a\n\nb\",a,b\n\na b,z,b\n";
    let options = Options {
        format: Format::Csv,
        on_error: crag::scoring::OnError::Fail,
        ..options()
    };
    let failed = score_with(input(table), &StubModel::default(), &StubText::default(), &options);
    let message = failed.result.unwrap_err().to_string();
    assert!(message.starts_with("test.jsonl:6: entity_not_found"), "{message}");
}

#[test]
fn a_row_that_is_too_long_is_named_by_its_line() {
    let table = format!("text,drug,adr\na b,a,b\n\"{}\n\",a,b\na b,a,b\n", "x".repeat(2000));
    let options = Options {
        format: Format::Csv,
        max_line_bytes: 1000,
        ..options()
    };
    let scored = score_with(input(table), &StubModel::default(), &StubText::default(), &options);
    let lines = scored.lines();
    assert_eq!(lines.len(), 4);
    assert!(
        lines[2].starts_with(",,,,,,line_too_long,\"line 3: expected at most"),
        "{}",
        lines[2]
    );
    assert!(lines[2].contains("takes 2 lines: is a quote missing"), "{}", lines[2]);
}

#[test]
fn a_quote_that_is_never_closed_is_one_error_with_all_that_it_swallows() {
    let table = "text,drug,adr\na b,a,b\n\"a b,a,b\na b,a,b\n";
    let scored = scored(table, Format::Csv);
    let rows = texts(&scored.output);
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (rows[2][0].as_str(), rows[2][6].as_str()),
        ("a b,a,b\na b,a,b\n", "invalid_row")
    );
    assert_eq!(scored.counts().errors(), 1);
}

#[test]
fn fields_mapped_to_pointers_are_scored_as_if_they_were_plain() {
    let plain = score(r#"{"text":"a caused b","drug":"a","adr":"b"}"#);
    let map = FieldMap::new(
        Format::Jsonl,
        [("text", "/doc/body"), ("drug", "/pair/0"), ("adr", "/pair/1")],
    );
    let options = Options {
        fields: map.unwrap(),
        output: OutputKey::nested("crag").unwrap(),
        ..options()
    };
    let line = r#"{"doc":{"body":"a caused b"},"pair":["a","b"]}"#;
    let mapped = score_with(input(line), &StubModel::default(), &StubText::default(), &options);
    assert_eq!(
        mapped.values()[0]["crag"]["probability"],
        plain.values()[0]["probability"]
    );
    assert!(mapped.lines()[0].starts_with(&line[..line.len() - 1]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_as_many_rows_out_as_in_and_keep_their_bytes_or_words(
        bytes in prop::collection::vec(
            prop_oneof![
                Just(b"\n".to_vec()), Just(b"\n".to_vec()), Just(b",".to_vec()), Just(b",".to_vec()),
                Just(b"\"".to_vec()), Just(b"\r\n".to_vec()), Just(b" ".to_vec()), Just(b"\xff".to_vec()),
                Just(b"a b,a,b\n".to_vec()), Just(b"\"a\nb\",a,b\n".to_vec()), any::<u8>().prop_map(|b| vec![b])
            ],
            0..60),
    ) {
        let rows_in = bytes.concat();
        let table = [b"text,drug,adr\n", &rows_in[..]].concat();
        let scored = scored(table, Format::Csv);
        prop_assert!(scored.result.is_ok());
        let mut expected: Vec<Vec<u8>> = rows(&rows_in).into_iter().map(|(row, _)| row).collect();
        // A row's line end is not its own, and one of white space alone is none.
        for row in &mut expected {
            if row.ends_with(b"\n") {
                row.pop();
            }
        }
        // (A last row in open quotes ends in what csv-core takes for its own.)
        expected.retain(|row| !row.iter().all(u8::is_ascii_whitespace));
        let found = rows(&scored.output);
        prop_assert_eq!(found.len(), 1 + expected.len());
        for ((row, fields), expected) in found[1..].iter().zip(&expected) {
            let own = expected.strip_suffix(b"\r").unwrap_or(expected);
            prop_assert_eq!(fields.len(), 8);
            // Of a row with too many fields the last column has what is left.
            let last = &fields[2][..];
            let ends: [&[u8]; 3] = [b"", b"\n", b"\r\n"];
            let mut kept = ends.iter().filter_map(|end| own.strip_suffix(last.strip_suffix(*end)?));
            let kept = kept.next().unwrap_or(own);
            prop_assert!(row.starts_with(own) || row.starts_with(kept), "{:?} {:?}", row, own);
            prop_assert!(row.ends_with(b"\n"));
            let code = &fields[fields.len() - 2];
            let probability = &fields[fields.len() - 5];
            prop_assert!(code.is_empty() != probability.is_empty());
        }
    }

    #[test]
    fn any_bytes_of_tsv_are_a_row_for_each_line_with_the_answer_in_its_columns(
        bytes in prop::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\t'), Just(b'"'), Just(b'\r'), Just(b' '), any::<u8>()], 0..200),
    ) {
        let table = [b"text\tdrug\tadr\n", &bytes[..]].concat();
        let scored = scored(table, Format::Tsv);
        prop_assert!(scored.result.is_ok());
        let is_row = |line: &&[u8]| !line.iter().all(|&b| b.is_ascii_whitespace() && b != b'\t');
        let expected: Vec<&[u8]> = bytes.split(|&b| b == b'\n').filter(is_row).collect();
        let found: Vec<&[u8]> = scored.output.split_inclusive(|&b| b == b'\n').skip(1).collect();
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let own: Vec<&[u8]> = expected.strip_suffix(b"\r").unwrap_or(expected).split(|&b| b == b'\t').collect();
            let found: Vec<&[u8]> = found.split(|&b| b == b'\t').collect();
            prop_assert_eq!(found.len(), 8);
            // Of a row with too many fields the last column has what is left.
            let kept = if own.len() > 3 { 2 } else { own.len() };
            prop_assert_eq!(&found[..kept], &own[..kept]);
        }
    }
}

fn run(arguments: &[&str], stdin: impl Into<Vec<u8>>) -> (i32, Vec<u8>, String) {
    let output = crag()
        .args(["score", "--model", "demo", "-q"])
        .args(arguments)
        .write_stdin(stdin)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap(), output.stdout, stderr)
}

#[test]
fn the_binary_knows_tables_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.csv.gz");
    let table = "Abstract,drug,adr\n\"aspirin, bleeding\",aspirin,bleeding\n,,\n";
    std::fs::write(&path, gzip(table.as_bytes())).unwrap();
    let path = path.to_str().unwrap();
    let (code, by_name, stderr) = run(&["--field", "text=Abstract", path], "");
    assert_eq!(code, 3, "{stderr}");
    let rows = texts(&by_name);
    assert_eq!(rows.len(), 3);
    assert!(rows[1][3].parse::<f32>().is_ok() && rows[2][6] == "empty_entity");
    let (code, by_flag, _) = run(&["--format", "csv", "--field", "text=/Abstract"], table);
    assert_eq!((code, by_flag == by_name), (3, true));
    let (code, output, stderr) = run(&[path], "");
    assert_eq!((code, output.len()), (1, 0));
    assert!(
        stderr.contains("pairs.csv.gz:1: expected the column \"text\""),
        "{stderr}"
    );
    assert!(stderr.contains("--field text=COLUMN"), "{stderr}");
}

#[test]
fn the_binary_refuses_what_cannot_be_meant() {
    for (arguments, message) in [
        (["--field", "text"].as_slice(), "expected FIELD=PLACE"),
        (&["--field", "txt=/a"], "expected one of drug, drug_entity"),
        (&["--field", "text=a"], "expected a JSON Pointer such as /abstract/body"),
        (&["--field", "text=a"], "names of columns go with --format csv or tsv"),
        (
            &["--field", "text=/a", "--field", "text=/b"],
            "expected one place for text",
        ),
        (
            &["--field", "text=/crag/t", "--output-key", "crag"],
            "name another key with --output-key",
        ),
        (
            &["--field", "text=/a/b", "--format", "csv"],
            "expected the name of a column",
        ),
        (&["--shard", "4/3"], "expected a part from 1 to 3"),
        (
            &["--text", "a", "--drug", "a", "--adr", "b", "--format", "csv"],
            "one pair given by flags has no --format",
        ),
    ] {
        let (code, output, stderr) = run(arguments, "");
        assert_eq!((code, output.len()), (2, 0), "{arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_binary_reads_nested_fields() {
    let record =
        r#"{"id":12345678901234567890,"abstract":{"body":"aspirin, bleeding"},"e":[{"n":"aspirin"},{"n":"bleeding"}]}"#;
    let plain = r#"{"text":"aspirin, bleeding","drug":"aspirin","adr":"bleeding"}"#;
    let fields = [
        "--field",
        "text=/abstract/body",
        "--field",
        "drug=/e/0/n",
        "--field",
        "adr=/e/1/n",
    ];
    let (code, output, stderr) = run(&fields, record);
    assert_eq!(code, 0, "{stderr}");
    assert!(output.starts_with(&record.as_bytes()[..record.len() - 1]));
    let (_, expected, _) = run(&[], plain);
    assert_eq!(
        json_lines(&output)[0]["probability"],
        json_lines(&expected)[0]["probability"]
    );
}
