use super::*;

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
    assert_eq!(invalid.error.message, "expected UTF-8, found the byte 0xff at byte 7");
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
            "field \"text\" (or \"drug_text\"): expected a string, found no such field; the object has \"drug\", \"adr\", \"txt\"",
        ),
        ("{\"text\":\"a}", "EOF while parsing a string at byte 11"),
        (r#"[1]"#, "expected an object, found an array"),
        (
            r#"{"text":"a","drug":"a","adr":"b","drug_span":[1]}"#,
            "field \"drug_span\": expected [start, end) as two whole numbers of code points, found [1]",
        ),
    ] {
        assert_eq!(rejected(line).error.message, message);
    }
}
