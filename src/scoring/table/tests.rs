use super::*;
use crate::scoring::record_format::{Place, Scored};
use proptest::prelude::*;

fn table(format: Format, places: &[(&str, &str)], header: &str) -> Result<(Table, String), String> {
    let map = FieldMap::new(format, places.iter().copied()).unwrap();
    let table = Table::new(format, map, OutputKey::default());
    let written = table
        .take_header("a.csv", 1, header.as_bytes())
        .map_err(|error| error.to_string())?;
    Ok((table, String::from_utf8(written).unwrap()))
}

fn plain() -> Table {
    table(Format::Csv, &[], "id,text,drug,adr").unwrap().0
}

/// The row with its answer; a row that parses is scored with 0.25.
fn answered(table: &Table, row: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match table.parse(row) {
        Ok(_) => table.write(
            &mut out,
            row,
            &Answer::Scored(Scored {
                probability: 0.25,
                causal: false,
                calibrated: table.output.calibrated().then_some(0.125),
                probabilities: &[],
                warnings: &[Warning::DrugTruncated, Warning::AdrNotFound],
            }),
        ),
        Err(Rejection { error, spliceable }) => table.write(
            &mut out,
            row,
            &Answer::Error {
                error: &error,
                spliceable,
                place: Place { file: None, line: 7 },
            },
        ),
    }
    out
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_answer_stands_in_columns_after_the_rows_own() {
    let (table, header) = table(Format::Csv, &[], "id,text,drug,adr").unwrap();
    assert_eq!(
        header,
        "id,text,drug,adr,probability,causal,warnings,error_code,error_message\n"
    );
    assert_eq!(
        text(answered(&table, b"1,\"a, b\",\"a\",b")),
        "1,\"a, b\",\"a\",b,0.25,false,drug_truncated;adr_not_found,,\n"
    );
    assert_eq!(
        text(answered(&table, b"1,a b,,b")),
        "1,a b,,b,,,,empty_entity,\"field \"\"drug\"\": expected a name, found an empty string\"\n"
    );
}

#[test]
fn an_output_key_stands_before_the_names_of_the_columns() {
    let table = Table::new(Format::Tsv, FieldMap::default(), OutputKey::nested("crag").unwrap());
    let header = table.take_header("a", 1, b"text\tdrug\tadr\tprobability").unwrap();
    assert!(text(header).ends_with(
        "\tprobability\tcrag_probability\tcrag_causal\tcrag_warnings\tcrag_error_code\tcrag_error_message\n"
    ));
}

#[test]
fn a_header_that_does_not_do_names_the_way_out() {
    for (header, places, expected) in [
        (
            "id,Abstract,drug,adr",
            [].as_slice(),
            "a.csv:1: expected the column \"text\" (or \"drug_text\" and \"adr_text\"), found \"id\", \"Abstract\", \
             \"drug\", \"adr\"; name the column to read with --field text=COLUMN",
        ),
        ("text,adr", &[], "expected the column \"drug\" (or \"drug_entity\")"),
        ("text,drug", &[], "expected the column \"adr\" (or \"adr_entity\")"),
        ("drug_text,drug,adr", &[], "expected the column \"text\""),
        (
            "text,drug,adr",
            &[("drug_span", "span")],
            "expected the column \"span\", found",
        ),
        (
            "text,drug,adr",
            &[("text", "Text")],
            "expected the column \"Text\" (or \"drug_text\" and",
        ),
        (
            "ID,Text,Drug,adr",
            &[("drug_span", "span")],
            "expected the columns \"drug\" (or \"drug_entity\"), \"text\" (or \"drug_text\" and \"adr_text\"), \"span\", found \"ID\", \
             \"Text\", \"Drug\", \"adr\"; name the columns to read with --field drug=COLUMN --field text=COLUMN --field \
             drug_span=COLUMN",
        ),
        (
            "id;text;drug;adr",
            &[],
            "found \"id;text;drug;adr\"; that is one column: is the file delimited otherwise? crag reads commas (--format csv) \
             and tabs (--format tsv)",
        ),
        ("text,drug,adr,text", &[], "the column \"text\" is there twice"),
        ("text,drug,adr,causal", &[], "the column \"causal\" is already there"),
        ("text,drug,\"adr", &[], "column 3: expected a closing quote"),
        ("text,\"drug\"x,adr", &[], "column 2: expected a delimiter"),
        ("text,drug,adr\r1,2,3", &[], "found a lone CR"),
        (
            "text,drug,adr,id\r\"Aspirin, then rash.\",Aspirin,rash,1\r",
            &[],
            "found a lone CR",
        ),
        (
            "id,text,drug,adr\r1,\"Aspirin, then rash.\",Aspirin,rash",
            &[],
            "found a lone CR",
        ),
        ("\"text\",drug,adr,note\r", &[], "found a lone CR"),
        ("drug,adr,\"text\"\r\"a\",\"b\",\"a b\"", &[], "found a lone CR"),
    ] {
        let message = table(Format::Csv, places, header)
            .err()
            .unwrap_or_else(|| panic!("{header}"));
        assert!(message.contains(expected), "{header}: {message}");
    }
    assert!(table(Format::Csv, &[], "x,text,x,drug,adr").is_ok(), "x is not read");
}

#[test]
fn further_inputs_have_the_same_columns() {
    let table = plain();
    assert_eq!(table.take_header("b.csv", 1, b"\"id\",text,drug,\"adr\"").unwrap(), b"");
    let message = table
        .take_header("b.csv", 1, b"text,id,drug,adr")
        .unwrap_err()
        .to_string();
    assert!(message.contains("b.csv:1: expected the header of a.csv"), "{message}");
}

#[test]
fn columns_are_mapped_and_one_may_serve_two_fields() {
    let places = [("drug_text", "Abstract"), ("adr_text", "/Abstract"), ("drug", "a/b")];
    let (table, _) = table(Format::Csv, &places, "adr,a/b,Abstract,drug_span").unwrap();
    let record = table.parse(b"b,a,a b,0:1").unwrap();
    assert_eq!((&*record.drug.text, &*record.adr.text), ("a b", "a b"));
    assert_eq!((&*record.drug.entity, record.drug.span), ("a", Some([0, 1])));
    let error = table.parse(b"b,,a b,").unwrap_err().error;
    assert_eq!(
        error.message,
        "field \"drug\" (column \"a/b\"): expected a name, found an empty string"
    );
}

#[test]
fn an_empty_cell_gives_way_to_the_fields_other_name() {
    let (table, _) = table(Format::Csv, &[], "text,drug_text,adr_text,drug,drug_entity,adr").unwrap();
    let record = table.parse(b"a b,,,,a,b").unwrap();
    assert_eq!(
        (&*record.drug.text, &*record.drug.entity, &*record.adr.text),
        ("a b", "a", "a b")
    );
    let record = table.parse(b",x,y,a,a,b").unwrap();
    assert_eq!((&*record.drug.text, &*record.adr.text), ("x", "y"));
    for (row, code) in [
        (b"a,,,c,d,b".as_slice(), ErrorCode::ConflictingFields),
        (b",x,,a,,b", ErrorCode::EmptyText),
        (b"a b,,,,,b", ErrorCode::EmptyEntity),
    ] {
        assert_eq!(table.parse(row).unwrap_err().error.code, code);
    }
}

#[test]
fn spans_are_written_in_two_ways() {
    let (table, _) = table(Format::Csv, &[], "text,drug,adr,drug_span").unwrap();
    for (cell, expected) in [
        ("3:9", Some([3, 9])),
        (" 3:9 ", Some([3, 9])),
        ("\"[3,9]\"", Some([3, 9])),
        ("\"[ 3, 9 ]\"", Some([3, 9])),
        ("", None),
        (" ", None),
    ] {
        let row = format!("a,a,b,{cell}");
        assert_eq!(table.parse(row.as_bytes()).unwrap().drug.span, expected, "{cell}");
    }
    for cell in ["3", "3-9", "3:9:1", "+3:9", "-3:9", "3.0:9", ":", "null", "\"[3]\""] {
        let row = format!("a,a,b,{cell}");
        let error = table.parse(row.as_bytes()).unwrap_err().error;
        assert_eq!(error.code, ErrorCode::WrongType, "{cell}");
        assert!(error.message.contains("such as 3:9 or [3,9], found "), "{error}");
    }
}

#[test]
fn broken_rows_keep_their_words_and_the_answer_its_columns() {
    let table = plain();
    for (row, code, head) in [
        (b"1,a".as_slice(), "invalid_row", b"1,a,,,,,,invalid_row,".as_slice()),
        (b"1,a b,a,b,c", "invalid_row", b"1,a b,a,\"b,c\",,,,invalid_row,"),
        (
            b"1,a b,a,\"b\",\xff,",
            "invalid_utf8",
            b"1,a b,a,\"\"\"b\"\",\xff,\",,,,invalid_utf8,",
        ),
        (b"1,a b,a,b,\"c", "invalid_row", b"1,a b,a,\"b,\"\"c\",,,,invalid_row,"),
        (b"1,\"a\" b,a,b", "invalid_row", b"1,\"a\" b,a,b,,,,invalid_row,"),
        (b"1,\"a b,a,b", "invalid_row", b"1,\"a b,a,b\",,,,,,invalid_row,"),
        (b"1,\xff,a,b", "invalid_utf8", b"1,\xff,a,b,,,,invalid_utf8,"),
        (b"", "line_too_long", b",,,,,,,line_too_long,line 7: "),
    ] {
        let out = match row.is_empty() {
            false => answered(&table, row),
            true => {
                let error = LineError::new(ErrorCode::LineTooLong, "x");
                let (place, spliceable) = (Place { file: None, line: 7 }, false);
                let answer = Answer::Error {
                    error: &error,
                    spliceable,
                    place,
                };
                let mut out = Vec::new();
                table.write(&mut out, row, &answer);
                out
            }
        };
        assert!(out.starts_with(head), "{code}: {}", String::from_utf8_lossy(&out));
    }
}

#[test]
fn fields_too_many_in_tsv_are_left_with_spaces_between_them() {
    let (table, _) = table(Format::Tsv, &[], "text\tdrug\tadr").unwrap();
    assert!(text(answered(&table, b"a b\ta\tb\tc\t")).starts_with("a b\ta\tb c \t\t\t\tinvalid_row\t"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_stands_in_its_columns(row in "[\",a\t ]{0,16}") {
        for (format, header) in [(Format::Csv, "text,drug,adr"), (Format::Tsv, "text\tdrug\tadr")] {
            let (table, out) = table(format, &[], header).unwrap();
            let columns = Shape::of(out.trim_end().as_bytes(), format).starts.len();
            let answer = answered(&table, row.as_bytes());
            let shape = Shape::of(answer.strip_suffix(b"\n").unwrap(), format);
            prop_assert!(!shape.unclosed);
            prop_assert_eq!(shape.starts.len(), columns);
        }
    }
}

#[test]
fn what_is_no_header_is_told_by_how_it_begins() {
    let message = |header: &str| table(Format::Csv, &[], header).unwrap_err();
    assert!(
        message("sep=,").contains("is no header: remove it"),
        "{}",
        message("sep=,")
    );
    let object = r#"{"text":"a b","drug":"a","adr":"b"}"#;
    assert!(
        message(object).contains("is it JSONL? --format jsonl"),
        "{}",
        message(object)
    );
    // Braces in a name are no object.
    assert!(message("{text},drug,adr").contains("expected the column \"text\""));
}

#[test]
fn the_numbers_of_fields_are_named() {
    let message = |format, header: &str, row: &[u8]| {
        let (table, _) = table(format, &[], header).unwrap();
        table.parse(row).unwrap_err().error.message
    };
    assert_eq!(
        message(Format::Csv, "text,drug,adr", b"a"),
        "expected 3 fields, found 1"
    );
    assert!(
        message(Format::Csv, "text,drug,adr", b"a,b,c,d")
            .starts_with("expected 3 fields, found 4; a field with a comma")
    );
    assert!(message(Format::Tsv, "text\tdrug\tadr", b"\"a").contains("a TSV row is one line"));
}

#[test]
fn a_calibrated_probability_has_a_column_where_it_is_asked_for() {
    let output = OutputKey::default().with_calibrated(true);
    let calibrated = Table::new(Format::Tsv, FieldMap::default(), output);
    let header = calibrated.take_header("a", 1, b"text\tdrug\tadr").unwrap();
    let columns = "probability\tcausal\tcalibrated_probability\twarnings\terror_code\terror_message\n";
    assert_eq!(text(header), format!("text\tdrug\tadr\t{columns}"));
    let row = text(answered(&calibrated, b"t\td\ta"));
    assert_eq!(row, "t\td\ta\t0.25\tfalse\t0.125\tdrug_truncated;adr_not_found\t\t\n");
    let row = text(answered(&calibrated, b"t\td"));
    assert!(row.starts_with("t\td\t\t\t\t\t\tinvalid_row\t"), "{row}");

    // Only where it is asked for is the name taken.
    let header = b"text\tdrug\tadr\tcalibrated_probability";
    let error = Table::new(Format::Tsv, FieldMap::default(), calibrated.output.clone()).take_header("a", 1, header);
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("calibrated_probability") && message.contains("--output-key"),
        "{message}"
    );
    assert!(plain_tsv().take_header("a", 1, header).is_ok());
}

fn plain_tsv() -> Table {
    Table::new(Format::Tsv, FieldMap::default(), OutputKey::default())
}

#[test]
fn several_models_have_a_column_of_their_own() {
    let output = OutputKey::default().of_members(2);
    let table = Table::new(Format::Csv, FieldMap::default(), output);
    let header = table.take_header("a", 1, b"text,drug,adr").unwrap();
    assert_eq!(
        text(header),
        "text,drug,adr,probability,causal,probabilities,warnings,error_code,error_message\n"
    );
    let mut out = Vec::new();
    let scored = Scored {
        probability: 0.5,
        causal: true,
        calibrated: None,
        probabilities: &[("a", 0.25), ("b", 0.75)],
        warnings: &[],
    };
    table.write(&mut out, b"t,d,a", &Answer::Scored(scored));
    assert_eq!(text(out), "t,d,a,0.5,true,\"{\"\"a\"\":0.25,\"\"b\"\":0.75}\",,,\n");
    assert_eq!(
        text(answered(&table, b"t,,a")),
        "t,,a,,,,,empty_entity,\"field \"\"drug\"\": expected a name, found an empty string\"\n"
    );
}
