use super::super::format::Format;
use super::*;

fn parse<'a>(line: &'a [u8], output: &OutputKey) -> Result<Record<'a>, Rejection> {
    let map = FieldMap::new(Format::Jsonl, []).unwrap();
    JsonReader::new(map, output.clone()).parse(line)
}

fn rejected(line: &str) -> Rejection {
    parse(line.as_bytes(), &OutputKey::default()).expect_err(line)
}

fn code(line: &str) -> ErrorCode {
    rejected(line).error.code
}

fn accepted(line: &str) -> Record<'_> {
    parse(line.as_bytes(), &OutputKey::default()).unwrap_or_else(|e| panic!("{line}: {e:?}"))
}

#[test]
fn one_text_for_both_sides_or_one_for_each() {
    let record = accepted(r#"{"text":"a b","drug":"a","adr":"b"}"#);
    assert_eq!((&*record.drug.text, &*record.adr.text), ("a b", "a b"));
    let record = accepted(r#" {"drug_text":"a","adr_text":"b","drug_entity":"a","adr_entity":"b"} "#);
    assert_eq!((&*record.drug.text, &*record.adr.text), ("a", "b"));
    let record = accepted(r#"{"text":"a","drug_text":"a","drug":"a","drug_entity":"a","adr":"b"}"#);
    assert_eq!((&*record.drug.entity, &*record.adr.text), ("a", "a"));
}

#[test]
fn a_field_and_its_other_name_have_to_agree() {
    assert_eq!(
        code(r#"{"text":"a","drug":"a","drug_entity":"A","adr":"b"}"#),
        ErrorCode::ConflictingFields
    );
    assert_eq!(
        code(r#"{"text":"a","adr_text":"b","drug":"a","adr":"b"}"#),
        ErrorCode::ConflictingFields
    );
}

#[test]
fn null_is_as_good_as_absent_where_the_other_name_has_a_value() {
    let record =
        accepted(r#"{"text":"a b","drug_text":null,"adr_text":"a b","drug":null,"drug_entity":"a","adr":"b"}"#);
    assert_eq!(
        (&*record.drug.text, &*record.adr.text, &*record.drug.entity),
        ("a b", "a b", "a")
    );
    for line in [
        r#"{"text":"a","drug":null,"drug_entity":null,"adr":"b"}"#,
        r#"{"text":null,"drug_text":"a","drug":"a","adr":"b"}"#,
    ] {
        assert_eq!(code(line), ErrorCode::WrongType, "{line}");
    }
}

#[test]
fn spans_are_two_whole_numbers_or_null() {
    let with_span = |span: &str| format!(r#"{{"text":"a","drug":"a","adr":"b","drug_span":{span}}}"#);
    assert_eq!(accepted(&with_span("[ 3, 9 ]")).drug.span, Some([3, 9]));
    assert_eq!(accepted(&with_span("null")).drug.span, None);
    for span in [
        "3",
        "[3]",
        "[3,9,12]",
        "[3.0,9]",
        "[-1,9]",
        "\"3:9\"",
        "[3,18446744073709551617]",
        "[[1],2]",
        "{}",
    ] {
        assert_eq!(code(&with_span(span)), ErrorCode::WrongType, "{span}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(code(&with_span(&deep)), ErrorCode::WrongType);
}

#[test]
fn keys_and_values_are_read_through_their_escapes() {
    let record = accepted(r#"{"te\u0078t":"caf\u00e9 \ud83d\ude00","drug":"caf\u00e9","adr":"x"}"#);
    assert_eq!((&*record.drug.text, &*record.drug.entity), ("café 😀", "café"));
    assert_eq!(
        code(r#"{"text":"a","t\u0065xt":"b","drug":"a","adr":"b"}"#),
        ErrorCode::DuplicateKey
    );
}

#[test]
fn what_is_not_read_is_not_judged() {
    for extra in [
        r#""x":1e400"#,
        r#""x":18446744073709551617"#,
        r#""x":"\ud800""#,
        r#""\udfff":1"#,
        r#""x":1,"x":2"#,
        r#""x":{"probability":1,"error":{}}"#,
        r#""x":"\u0000""#,
    ] {
        accepted(&format!(r#"{{{extra},"text":"a","drug":"a","adr":"b"}}"#));
    }
    let deep = "[".repeat(100_000) + &"{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000) + &"]".repeat(100_000);
    accepted(&format!(r#"{{"x":{deep},"text":"a","drug":"a","adr":"b"}}"#));
}

#[test]
fn lines_that_are_no_object_are_told_apart() {
    for (line, expected) in [
        ("[1,2]", ErrorCode::NotAnObject),
        ("\"a\"", ErrorCode::NotAnObject),
        (" 12", ErrorCode::NotAnObject),
        ("null", ErrorCode::NotAnObject),
        ("NaN", ErrorCode::InvalidJson),
        ("{\"a\":NaN}", ErrorCode::InvalidJson),
        ("{\"a\":1}x", ErrorCode::InvalidJson),
        ("{\"a\":1} {}", ErrorCode::InvalidJson),
        ("{\"a\":1,}", ErrorCode::InvalidJson),
        ("{\"a\"", ErrorCode::InvalidJson),
        ("{'a':1}", ErrorCode::InvalidJson),
        ("{\"a\":\"\0\"}", ErrorCode::InvalidJson),
        ("{\"a\":\"\\x\"}", ErrorCode::InvalidJson),
        ("{\"a\":01}", ErrorCode::InvalidJson),
        ("\u{c}{}", ErrorCode::InvalidJson),
        ("[1,2", ErrorCode::InvalidJson),
        (&"[".repeat(100_000), ErrorCode::InvalidJson),
    ] {
        let rejection = rejected(line);
        assert_eq!(rejection.error.code, expected, "{}", quoted(line));
        assert!(!rejection.spliceable);
    }
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(code(&deep), ErrorCode::NotAnObject);
    let invalid = parse(b"{\"a\":\"\xff\"}", &OutputKey::default()).unwrap_err();
    assert_eq!(invalid.error.code, ErrorCode::InvalidUtf8);
    assert_eq!(
        invalid.error.message,
        "expected UTF-8, found the byte 0xff at byte 7; if all of it is text from Windows, iconv -f CP1252 -t UTF-8 converts it"
    );
}

#[test]
fn every_other_code_has_its_line() {
    for (line, expected) in [
        (r#"{}"#, ErrorCode::MissingField),
        (r#"{"text":"a","drug":"a"}"#, ErrorCode::MissingField),
        (r#"{"drug_text":"a","drug":"a","adr":"b"}"#, ErrorCode::MissingField),
        (r#"{"text":null,"drug":"a","adr":"b"}"#, ErrorCode::WrongType),
        (r#"{"text":["a"],"drug":"a","adr":"b"}"#, ErrorCode::WrongType),
        (r#"{"text":"a","drug":1,"adr":"b"}"#, ErrorCode::WrongType),
        (r#"{"text":"","drug":"a","adr":"b"}"#, ErrorCode::EmptyText),
        (r#"{"text":" \u00a0\n","drug":"a","adr":"b"}"#, ErrorCode::EmptyText),
        (r#"{"text":"a","drug":"","adr":"b"}"#, ErrorCode::EmptyEntity),
        (r#"{"text":"a","drug":"a","adr":"\t"}"#, ErrorCode::EmptyEntity),
        (r#"{"text":"a\ud800","drug":"a","adr":"b"}"#, ErrorCode::LoneSurrogate),
        (
            r#"{"text":"a","text":"a","drug":"a","adr":"b"}"#,
            ErrorCode::DuplicateKey,
        ),
        (
            r#"{"text":"a","drug":"a","adr":"b","probability":1}"#,
            ErrorCode::KeyConflict,
        ),
        (
            r#"{"text":"a","drug":"a","adr":"b","causal":1}"#,
            ErrorCode::KeyConflict,
        ),
        (
            r#"{"text":"a","drug":"a","adr":"b","warnings":[]}"#,
            ErrorCode::KeyConflict,
        ),
        (r#"{"warn\u0069ngs":[]}"#, ErrorCode::KeyConflict),
    ] {
        let rejection = rejected(line);
        assert_eq!(rejection.error.code, expected, "{line}");
        assert!(rejection.spliceable, "{line}");
    }
}

#[test]
fn an_error_key_leaves_no_room_for_the_error() {
    let rejection = rejected(r#"{"causal":1,"error":{}}"#);
    assert_eq!(
        (rejection.error.code, rejection.spliceable),
        (ErrorCode::KeyConflict, false)
    );
}

#[test]
fn with_an_output_key_only_that_key_is_taken() {
    let output = OutputKey::nested("crag").unwrap();
    let line = br#"{"text":"a","drug":"a","adr":"b","probability":1,"error":2}"#;
    assert!(parse(line, &output).is_ok());
    let rejection = parse(br#"{"crag":1}"#, &output).unwrap_err();
    assert_eq!(
        (rejection.error.code, rejection.spliceable),
        (ErrorCode::KeyConflict, false)
    );
}

#[test]
fn messages_name_the_field_what_was_expected_and_what_was_found() {
    for (line, message) in [
        (
            r#"{"text":null,"drug":"a","adr":"b"}"#,
            "field \"text\": expected a string, found null",
        ),
        (
            r#"{"txt":"a","drug":"a","adr":"b"}"#,
            "field \"text\" or \"drug_text\": expected a string, found no such field; the object has \"drug\", \"adr\", \"txt\"; \
             --field says where else a field is, such as drug=/Drug",
        ),
        (
            "{\"text\":\"a}",
            "EOF while parsing a string at byte 11; expected a whole object on the line: jq -c . makes lines of longer ones",
        ),
        (
            "[{",
            "EOF while parsing an object at byte 2; expected one object a line: jq -c '.[]' makes lines of an array's objects",
        ),
        (
            r#"[1]"#,
            "expected an object, found an array; jq -c '.[]' makes lines of an array's objects",
        ),
        (r#"1"#, "expected an object, found a number"),
        (
            "id,text,drug,adr,and,more",
            "expected value at byte 1; expected an object, found \"id,text,drug,adr,and\"; is it a table? --format csv or tsv reads one",
        ),
        (r#"  "text": "a","#, "trailing characters at byte 9"),
        (
            "12345|t|Rash after aspirin",
            "trailing characters at byte 6; expected an object, found what looks like a corpus: crag extract --from pubtator makes \
             records of it",
        ),
        (
            "12345|Rash after aspirin.|Rash|0|4|aspirin|11|18",
            "trailing characters at byte 6; expected an object, found what looks like a corpus: crag extract --from ade-rel makes \
             records of it",
        ),
        (
            "<?xml version='1.0'?>",
            "expected value at byte 1; expected an object, found what looks like a corpus: crag extract --from bioc makes records of it",
        ),
        ("12345 0 1", "trailing characters at byte 7"),
        (
            r#"{"text":"a","drug":"a","adr":"b","drug_span":[1]}"#,
            "field \"drug_span\": expected [start, end) as two whole numbers of code points, found [1]",
        ),
    ] {
        assert_eq!(rejected(line).error.message, message);
    }
}

fn mapped(places: &[(&str, &str)]) -> JsonReader {
    let map = FieldMap::new(Format::Jsonl, places.iter().copied()).unwrap();
    JsonReader::new(map, OutputKey::default())
}

#[test]
fn fields_are_found_where_they_are_mapped_to() {
    let reader = mapped(&[
        ("text", "/abstract/body"),
        ("drug", "/entities/0/name"),
        ("adr", "/entities/1/name"),
        ("drug_span", "/entities/0/span"),
        ("adr_span", "/a~1b/~0/"),
    ]);
    let line = br#"{"text":1,"abstract":{"x":[],"body":"a b"},"entities":[{"name":"a","span":[0,1]},{"name":"b"}],"a/b":{"~":{"":[2,3]}}}"#;
    let record = reader.parse(line).unwrap();
    assert_eq!((&*record.drug.text, &*record.adr.text), ("a b", "a b"));
    assert_eq!((&*record.drug.entity, record.drug.span), ("a", Some([0, 1])));
    assert_eq!((&*record.adr.entity, record.adr.span), ("b", Some([2, 3])));
    // Two fields may share a place, and one may lie within another's.
    let reader = mapped(&[
        ("drug_text", "/t"),
        ("adr_text", "/t"),
        ("drug", "/e/d"),
        ("adr", "/e/a"),
    ]);
    let record = reader.parse(br#"{"t":"x","e":{"a":"1","d":"2"}}"#).unwrap();
    assert_eq!(
        (&*record.adr.text, &*record.drug.entity, &*record.adr.entity),
        ("x", "2", "1")
    );
}

#[test]
fn errors_on_mapped_fields_name_the_pointer() {
    let reader = mapped(&[("text", "/abstract/body"), ("drug", "/e/0")]);
    let message = |line: &str| {
        let rejection = reader.parse(line.as_bytes()).expect_err(line);
        assert!(rejection.spliceable);
        (rejection.error.code, rejection.error.message)
    };
    for (line, code, expected) in [
        (
            r#"{"abstract":{"body":null},"e":["a"],"adr":"b"}"#,
            ErrorCode::WrongType,
            "field \"text\" (/abstract/body): expected a string, found null",
        ),
        (
            r#"{"abstract":"body","e":["a"],"adr":"b","text":"a"}"#,
            ErrorCode::MissingField,
            "field \"text\" (/abstract/body) or \"drug_text\": expected a string, found no such field; \
             the object has \"e\", \"adr\", \"abstract\", \"text\"; --field says where else a field is, such as drug=/Drug",
        ),
        (
            r#"{"abstract":{"body":"a"},"e":{"0":""},"adr":"b"}"#,
            ErrorCode::EmptyEntity,
            "field \"drug\" (/e/0): expected a name, found an empty string",
        ),
        (
            r#"{"abstract":{"body":"a"},"e":[],"adr":"b"}"#,
            ErrorCode::MissingField,
            "field \"drug\" (/e/0) or \"drug_entity\": expected a string, found no such field; \
             the object has \"e\", \"adr\", \"abstract\"; --field says where else a field is, such as drug=/Drug",
        ),
        (
            r#"{"abstract":{"body":"a","b\u006fdy":"a"},"e":["a"],"adr":"b"}"#,
            ErrorCode::DuplicateKey,
            "field \"text\" (/abstract/body): expected once, found twice",
        ),
        (
            r#"{"abstract":{"body":"a"},"abstract":{},"e":["a"],"adr":"b"}"#,
            ErrorCode::DuplicateKey,
            "field \"text\" (/abstract/body): expected once, found \"abstract\" on the way there twice",
        ),
        (
            r#"{"abstract":{"body":"a"},"e":["a"],"adr":"b","causal":1}"#,
            ErrorCode::KeyConflict,
            "the key \"causal\" is already there; remove it or name another with --output-key",
        ),
    ] {
        assert_eq!(message(line), (code, expected.to_owned()), "{line}");
    }
}

#[test]
fn what_lies_beside_a_mapped_field_is_not_judged() {
    let reader = mapped(&[("text", "/a/b/c")]);
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    for beside in [
        r#""x":1e400"#,
        r#""x":"\ud800""#,
        r#""\udfff":1"#,
        r#""x":1,"x":2"#,
        &format!("\"x\":{deep}"),
    ] {
        let line = format!(r#"{{"a":{{{beside},"b":{{{beside},"c":"a b"}}}},"drug":"a","adr":"b"}}"#);
        reader
            .parse(line.as_bytes())
            .unwrap_or_else(|e| panic!("{}: {e:?}", quoted(&line)));
    }
}
