use super::*;

fn fields() -> Fields {
    Fields::default()
}

fn rejection(fields: &Fields, line: &str) -> (String, String) {
    match fields.read(line.as_bytes()) {
        Reading::Rejected { code, message } => (code.into_owned(), message),
        other => panic!("{line}: {other:?}"),
    }
}

fn usable<'a>(fields: &'a Fields, line: &'a str) -> Usable<'a> {
    match fields.read(line.as_bytes()) {
        Reading::Usable(usable) => usable,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn labels_are_numbers_or_booleans() {
    let fields = fields();
    for (label, expected) in [
        ("0", false),
        ("1", true),
        ("true", true),
        ("false", false),
        ("1.0", true),
    ] {
        let line = format!(r#"{{"label":{label},"probability":0.5}}"#);
        assert_eq!(usable(&fields, &line).label, expected, "{label}");
    }
    for label in [r#""1""#, "2", "-1", "0.5", "[]", "{}", r#""true""#, "1e999"] {
        let line = format!(r#"{{"label":{label},"probability":0.5}}"#);
        let (code, message) = rejection(&fields, &line);
        assert_eq!(code, "bad_label", "{label}");
        assert!(message.contains("expected 0, 1, false or true"), "{message}");
    }
    for line in [r#"{"label":null,"probability":0.5}"#, r#"{"probability":0.5}"#] {
        assert_eq!(fields.read(line.as_bytes()), Reading::Unlabelled);
    }
}

#[test]
fn probabilities_are_numbers_from_0_to_1() {
    let fields = fields();
    for (raw, expected) in [
        ("0", 0.0),
        ("1", 1.0),
        ("-0.0", 0.0),
        ("0.34734327", 0.34734327),
        ("1e-400", 0.0),
    ] {
        let line = format!(r#"{{"label":1,"probability":{raw}}}"#);
        let found = usable(&fields, &line).probability;
        assert!(found == expected && found.is_sign_positive(), "{raw}: {found}");
    }
    for raw in ["1.0000001", "-0.1", r#""0.5""#, "null", "1e400", "true", "[0.5]"] {
        let line = format!(r#"{{"label":1,"probability":{raw}}}"#);
        assert_eq!(rejection(&fields, &line).0, "bad_probability", "{raw}");
    }
    for raw in ["NaN", "Infinity", ".5", ""] {
        let line = format!(r#"{{"label":1,"probability":{raw}}}"#);
        assert_eq!(rejection(&fields, &line).0, "invalid_json", "{raw}");
    }
    let (code, message) = rejection(&fields, r#"{"label":1,"score":0.5}"#);
    assert_eq!(code, "missing_probability");
    assert!(message.contains("\"score\""), "{message}");
}

#[test]
fn an_error_record_keeps_its_code() {
    let line = r#"{"label":1,"error":{"code":"empty_text","message":"no text"}}"#;
    assert_eq!(rejection(&fields(), line), ("empty_text".into(), "no text".into()));
    assert_eq!(rejection(&fields(), r#"{"error":"oops"}"#).0, "error_record");
    // As a data frame writes it back, with a field for all that any record has.
    let written_back =
        r#"{"label":1.0,"probability":null,"causal":null,"error":{"code":"empty_text","message":"no text"}}"#;
    assert_eq!(rejection(&fields(), written_back).0, "empty_text");
    let unread =
        r#"{"text":null,"label":null,"probability":null,"line":3.0,"error":{"code":"invalid_json","message":"m"}}"#;
    assert_eq!(rejection(&fields(), unread).0, "invalid_json");
    // Somebody's own field of that name is none of ours.
    assert!(usable(&fields(), r#"{"label":1,"probability":1,"error":null}"#).label);
}

#[test]
fn a_nested_answer_is_read_where_it_is() {
    let fields = Fields {
        output_key: Some("crag".into()),
        ..fields()
    };
    let line = r#"{"probability":"mine","label":true,"crag":{"probability":0.25,"causal":false}}"#;
    assert_eq!(usable(&fields, line).probability, 0.25);
    let line = r#"{"label":true,"crag":{"error":{"code":"empty_text"}}}"#;
    assert_eq!(rejection(&fields, line).0, "empty_text");
    assert_eq!(rejection(&fields, r#"{"label":true,"crag":0.5}"#).0, "wrong_type");
    let (code, message) = rejection(&fields, r#"{"label":true,"probability":0.5}"#);
    assert_eq!(code, "missing_probability");
    assert!(message.contains("\"probability\" in \"crag\""), "{message}");
}

#[test]
fn documents_are_found_by_the_usual_names_or_the_stated_one() {
    let usual = fields();
    let line = r#"{"pmid":12,"doc_id":null,"label":1,"probability":1,"document_id":"x","own":"é\n"}"#;
    assert_eq!(usable(&usual, line).document, Some(("pmid", "12".into())));
    let own = Fields {
        document: Some("own".into()),
        ..fields()
    };
    assert_eq!(usable(&own, line).document, Some(("own", "é\n".into())));
    assert_eq!(
        usable(&usual, r#"{"label":1,"probability":1,"pmid":[1]}"#).document,
        None
    );
}

#[test]
fn a_blank_name_is_none_and_hides_no_other() {
    let fields = fields();
    let line = r#"{"id":" ","doc_id":"","pmid":12,"drug":"","drug_entity":"aspirin","label":1,"probability":1}"#;
    let record = usable(&fields, line);
    assert_eq!((record.id, record.document), (None, Some(("pmid", "12".into()))));
    assert_eq!(record.shown.drug(), "aspirin");
    let line = r#"{"doc_id":"\t","label":1,"probability":1}"#;
    assert_eq!(usable(&fields, line).document, None);
    assert_eq!(fields.labels(line.as_bytes()).unwrap().document, None);
}

#[test]
fn what_is_said_twice_is_refused_only_where_it_matters() {
    let (code, message) = rejection(&fields(), r#"{"label":1,"label":0,"probability":1}"#);
    assert_eq!((code.as_str(), message.contains("\"label\"")), ("duplicate_key", true));
    assert!(usable(&fields(), r#"{"label":1,"x":1,"x":2,"probability":1}"#).label);
}

#[test]
fn wild_lines_are_rejections() {
    let deep = format!(
        r#"{{"label":1,"probability":1,"x":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(usable(&fields(), &deep).label);
    for (line, code) in [
        ("[]", "not_an_object"),
        ("3", "not_an_object"),
        ("{", "invalid_json"),
        ("{}}", "invalid_json"),
    ] {
        assert_eq!(rejection(&fields(), line).0, code, "{line}");
    }
    assert!(matches!(fields().read(b"{\"\xff\":1}"), Reading::Rejected { .. }));
    assert!(usable(&fields(), r#"{"\ud800":1,"label":1,"probability":1}"#).label);
}

#[test]
fn one_field_may_serve_two_purposes() {
    let fields = Fields {
        id: "pmid".into(),
        ..fields()
    };
    let record = usable(&fields, r#"{"pmid":"7","label":1,"probability":1}"#);
    assert_eq!(
        (record.id, record.document),
        (Some("7".into()), Some(("pmid", "7".into())))
    );
}

#[test]
fn labels_are_read_without_a_probability() {
    let fields = fields();
    let read = |line: &'static str| fields.labels(line.as_bytes());
    let found = read(r#"{"label":true,"probability":"none","pmid":17}"#).unwrap();
    assert_eq!(found.label, Ok(Some(true)));
    assert_eq!(found.document, Some(("pmid", Cow::Borrowed("17"))));
    let found = read(r#"{"label":null,"doc_id":"x","pmid":17}"#).unwrap();
    assert_eq!(
        (found.label, found.document),
        (Ok(None), Some(("doc_id", Cow::Borrowed("x"))))
    );
    assert!(found.has_field && !read("{}").unwrap().has_field);
    assert_eq!(
        read(r#"{"pmid":7.0}"#).unwrap().document,
        Some(("pmid", Cow::Borrowed("7")))
    );
    for (line, message) in [
        (r#"{"label":"yes"}"#, "field \"label\": expected 0, 1, false or true"),
        (r#"{"label":1,"label":0}"#, "found twice"),
        ("[1]", "expected an object"),
    ] {
        let error = read(line).and_then(|found| found.label).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}
