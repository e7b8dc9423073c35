//! The scoring pipeline from lines to answers, in process, with a stub for the network.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crag::files::Input;
use crag::scoring::{ErrorCode, Member, OnError, Options, OutputKey, Progress, ScoreError, Sink, run, run_into};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::lines_stub::*;

fn pair(i: usize) -> String {
    format!(r#"{{"id":{i},"text":"drug{i} caused rash{i}","drug":"drug{i}","adr":"rash{i}"}}"#)
}

fn pairs(range: std::ops::Range<usize>) -> String {
    range.map(|i| pair(i) + "\n").collect()
}

/// The code of the only line's error.
fn code_of(line: &str) -> String {
    let scored = score(line);
    let values = scored.values();
    assert_eq!(values.len(), 1, "{line}");
    values[0]["error"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("{line}: {}", values[0]))
        .to_owned()
}

#[test]
fn every_line_gets_its_answer_in_order() {
    let model = StubModel {
        concurrency: 4,
        delay: Duration::from_micros(300),
        ..StubModel::default()
    };
    let options = Options {
        threads: 4,
        ..options()
    };
    let scored = score_with(input(pairs(0..500)), &model, &StubText::default(), &options);
    for (i, (line, value)) in scored.lines().iter().zip(scored.values()).enumerate() {
        let source = pair(i);
        assert!(line.starts_with(&source[..source.len() - 1]), "{line}");
        assert_eq!(value["id"], json!(i));
        assert_eq!(value["causal"], json!(value["probability"].as_f64().unwrap() >= 0.55));
    }
    assert_eq!(
        (scored.lines().len(), scored.counts().scored, scored.counts().errors()),
        (500, 500, 0)
    );
    // One pair at a time on one thread gives the same bytes.
    let alone = Options {
        threads: 1,
        window_lines: 1,
        batch_tokens: Some(1),
        ..options
    };
    let single = score_with(
        input(pairs(0..500)),
        &StubModel::default(),
        &StubText::default(),
        &alone,
    );
    assert!(single.output == scored.output);
}

#[test]
fn a_network_off_the_host_gives_the_same_answers() {
    let model = StubModel {
        concurrency: 2,
        off_host: true,
        ..StubModel::default()
    };
    let scored = score_with(input(pairs(0..100)), &model, &StubText::default(), &options());
    assert!(scored.output == score(pairs(0..100)).output);
}

#[test]
fn every_error_code_has_a_line_that_gets_it() {
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(2000));
    let cases: [(&[u8], &str); 16] = [
        (b"{\"text\":\"\xff\"}", "invalid_utf8"),
        (b"{\"text\":", "invalid_json"),
        (b"[1]", "not_an_object"),
        (long.as_bytes(), "line_too_long"),
        (br#"{"text":"a b","drug":"a","adr":"b","causal":1}"#, "key_conflict"),
        (br#"{"text":"a b","drug":"a","drug":"a","adr":"b"}"#, "duplicate_key"),
        (
            br#"{"text":"a b","drug":"a","drug_entity":"b","adr":"b"}"#,
            "conflicting_fields",
        ),
        (br#"{"text":"a b","drug":"a"}"#, "missing_field"),
        (br#"{"text":"a b","drug":null,"adr":"b"}"#, "wrong_type"),
        (br#"{"text":"a b \ud800","drug":"a","adr":"b"}"#, "lone_surrogate"),
        (br#"{"text":" ","drug":"a","adr":"b"}"#, "empty_text"),
        (br#"{"text":"a b","drug":"","adr":"b"}"#, "empty_entity"),
        (br#"{"text":"a b","drug":"z","adr":"b"}"#, "entity_not_found"),
        (
            br#"{"text":"a b","drug":"a","adr":"b","adr_span":[0,1]}"#,
            "span_mismatch",
        ),
        (br#"{"text":"a b UNTOKENIZABLE","drug":"a","adr":"b"}"#, "not_tokenized"),
        (br#"{"text":"a b~","drug":"a","adr":"b"}"#, "not_finite"),
    ];
    // Only a row of a table can be an invalid one.
    let of_lines = || ErrorCode::ALL.into_iter().filter(|&code| code != ErrorCode::InvalidRow);
    assert!(cases.iter().map(|(_, name)| *name).eq(of_lines().map(ErrorCode::name)));
    let mut bytes = Vec::new();
    for (line, _) in cases {
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
        bytes.extend_from_slice(pair(0).as_bytes());
        bytes.push(b'\n');
    }
    let model = StubModel {
        nan_on: Some('~'.into()),
        ..StubModel::default()
    };
    let options = Options {
        max_line_bytes: 1000,
        ..options()
    };
    let scored = score_with(input(bytes), &model, &StubText::default(), &options);
    let (lines, values) = (scored.lines(), scored.values());
    assert_eq!(values.len(), 2 * cases.len());
    for (i, (source, name)) in cases.into_iter().enumerate() {
        let value = &values[2 * i];
        assert_eq!(value["error"]["code"], json!(name));
        assert!(!value["error"]["message"].as_str().unwrap().is_empty());
        assert!(value.get("probability").is_none());
        if i < 4 {
            assert_eq!(value["line"], json!(2 * i + 1), "{name}");
            assert_eq!(value.as_object().unwrap().len(), 2, "{name}");
        } else {
            let source = std::str::from_utf8(source).unwrap();
            let head = format!("{},\"error\":{{\"code\":\"{name}\",", &source[..source.len() - 1]);
            assert!(lines[2 * i].starts_with(&head), "{}", lines[2 * i]);
        }
        assert!(
            values[2 * i + 1]["probability"].is_number(),
            "the line after {name} is scored"
        );
    }
    let counts = scored.counts();
    assert!(of_lines().all(|code| counts.errors_of(code) == 1));
    assert_eq!((counts.scored, counts.errors()), (16, 16));
}

#[test]
fn an_error_key_that_is_taken_gives_the_line_form_with_the_record_in_it() {
    let record = r#"{"text":"a b","drug":"a","adr":"b","error":null, "n":1.50}"#;
    let scored = score(record);
    let value = &scored.values()[0];
    assert_eq!(
        (&value["line"], &value["error"]["code"]),
        (&json!(1), &json!("key_conflict"))
    );
    let end = format!(",\"record\":{record}}}");
    assert!(scored.lines()[0].ends_with(&end), "{}", scored.lines()[0]);
}

#[test]
fn with_several_inputs_the_line_form_names_the_input() {
    let reader = |name: &str, bytes: &'static [u8]| Input::Reader(name.into(), Box::new(bytes));
    let inputs = vec![
        reader("a", b"\xef\xbb\xbf{}\n\n1"),
        reader("b", b"\xef\xbb\xbf{}\n\n2\n"),
    ];
    let scored = score_with(inputs, &StubModel::default(), &StubText::default(), &options());
    let values = scored.values();
    assert_eq!(values.len(), 4);
    assert_eq!(values[0]["error"]["code"], json!("missing_field"));
    assert_eq!(values[2]["error"]["code"], json!("missing_field"));
    for (value, name) in [(&values[1], "a"), (&values[3], "b")] {
        assert_eq!((&value["file"], &value["line"]), (&json!(name), &json!(3)));
        assert_eq!(value["error"]["code"], json!("not_an_object"));
    }
    assert_eq!(scored.counts().blank, 2);
}

#[test]
fn marks_line_ends_and_blank_lines_leave_no_trace() {
    let (a, b) = (pair(1), pair(2));
    let plain = score(format!("{a}\n{b}\n"));
    let windows = score(format!("\u{feff}{a}\r\n\r\n \t\n{b}"));
    assert!(plain.output == windows.output);
    assert_eq!(windows.counts().blank, 2);
}

#[test]
fn utf16_ends_the_run_with_one_clear_error() {
    let scored = score(b"\xff\xfe{\0}\0\n\0".as_slice());
    let message = scored.result.unwrap_err().to_string();
    assert!(
        message.contains("test.jsonl: expected UTF-8, found UTF-16"),
        "{message}"
    );
}

#[test]
fn nesting_of_a_hundred_thousand_passes_through() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let line = format!(r#"{{"deep":{deep},"text":"a b","drug":"a","adr":"b"}}"#);
    let scored = score(line.clone());
    assert_eq!(scored.counts().scored, 1);
    assert!(scored.output.starts_with(&line.as_bytes()[..line.len() - 1]));
    assert_eq!(code_of(&"[".repeat(100_000)), "invalid_json");
    assert_eq!(code_of(&deep), "not_an_object");
}

#[test]
fn oddities_in_fields_that_are_not_read_pass_through() {
    for extra in [
        r#""n":1e400"#,
        r#""n":18446744073709551617"#,
        r#""s":"\ud800""#,
        r#""k":1,"k":2"#,
        r#""s":"\u0000/\/""#,
    ] {
        let line = format!(r#"{{ {extra} , "text":"a b","drug":"a","adr":"b"{} }}"#, " ".repeat(3));
        let scored = score(line.clone());
        assert_eq!(scored.counts().scored, 1, "{line}");
        assert!(scored.lines()[0].starts_with(&line[..line.len() - 1]), "{line}");
    }
}

#[test]
fn raw_control_characters_and_nan_are_no_json() {
    for line in [
        "{\"text\":\"a\0b\"}",
        "{\"text\":\"a\tb\"}",
        "\0",
        "{\"x\":NaN}",
        "{\"x\":Infinity}",
    ] {
        assert_eq!(code_of(line), "invalid_json", "{line:?}");
    }
}

#[test]
fn an_escaped_nul_in_a_text_is_a_character_like_any_other() {
    assert_eq!(
        score(r#"{"text":"a \u0000 b","drug":"a","adr":"b"}"#).counts().scored,
        1
    );
}

#[test]
fn an_output_key_nests_answers_and_errors() {
    let options = Options {
        output: OutputKey::nested("crag").unwrap(),
        ..options()
    };
    let bytes = format!("{}\n{}\n[]\n", pair(1), r#"{"probability":1,"crag":2}"#);
    let values = score_with(input(bytes), &StubModel::default(), &StubText::default(), &options).values();
    assert!(values[0]["crag"]["probability"].is_number() && values[0]["crag"]["causal"].is_boolean());
    assert_eq!(
        values[1],
        json!({
            "line": 2,
            "crag": {"error": values[1]["crag"]["error"]},
            "record": {"probability": 1, "crag": 2},
        })
    );
    assert_eq!(values[1]["crag"]["error"]["code"], json!("key_conflict"));
    assert_eq!(values[2]["crag"]["error"]["code"], json!("not_an_object"));
}

#[test]
fn warnings_say_what_the_network_did_not_see() {
    let far = format!(r#"{{"text":"{} a","drug":"a","adr":"zz","id":1}}"#, "-".repeat(200));
    let text = StubText { unmarked: true };
    let scored = score_with(input(far), &StubModel::default(), &text, &options());
    assert_eq!(
        scored.values()[0]["warnings"],
        json!(["drug_truncated", "adr_not_found"])
    );
    assert_eq!(scored.counts().warned, 1);
}

#[test]
fn equal_sequences_of_a_window_are_encoded_once() {
    let line = |(drug, adr): (usize, usize)| {
        format!("{{\"drug_text\":\"d{drug}.\",\"adr_text\":\"r{adr}.\",\"drug\":\"d{drug}\",\"adr\":\"r{adr}\"}}\n")
    };
    let lines: String = (0..10)
        .flat_map(|drug| (0..10).map(move |adr| (drug, adr)))
        .map(line)
        .collect();
    let mut outputs = Vec::new();
    for reuse in [true, false] {
        let model = StubModel::default();
        let options = Options {
            reuse,
            window_lines: 1000,
            ..options()
        };
        let scored = score_with(input(lines.clone()), &model, &StubText::default(), &options);
        let encoded = model.sequences.load(Ordering::Relaxed);
        assert_eq!(scored.counts().encoded + scored.counts().reused, 200);
        assert_eq!(scored.counts().encoded as usize, encoded);
        // How many depends on where the windows happen to end.
        assert!(
            if reuse {
                (20..200).contains(&encoded)
            } else {
                encoded == 200
            },
            "{encoded}"
        );
        outputs.push(scored.output);
    }
    assert!(outputs[0] == outputs[1]);
}

/// How many sequences each answered line and those before it had no need to have encoded.
#[derive(Default)]
struct Spared(Vec<u64>);

impl Sink for Spared {
    fn answer(&mut self, _: &[u8], progress: Progress<'_>) -> io::Result<()> {
        self.0.push(progress.counts.reused);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn suspend(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_reused_is_counted_with_the_line_that_had_no_need_of_it() {
    let (model, text) = (StubModel::default(), StubText::default());
    let options = Options {
        window_lines: 1000,
        ..options()
    };
    let mut spared = Spared::default();
    let members = [Member::only(&model, &text)];
    let counts = run_into(input(pairs(0..4).repeat(50)), &mut spared, &members, &options).unwrap();
    assert_eq!(spared.0.last(), Some(&counts.reused));
    assert_eq!(counts.encoded + counts.reused, 400);
    // Where the windows end is the run's affair; no line before the fifth is like one before it, and a line has two sequences.
    for (i, &reused) in spared.0.iter().enumerate() {
        let most = 2 * (i as u64 + 1).saturating_sub(4);
        assert!(reused <= most, "line {}: {reused}", i + 1);
    }
}

#[test]
fn on_error_fail_stops_at_the_first_after_the_lines_before_it() {
    let bytes = format!("{}\n[]\n{}", pairs(0..30), pairs(30..60));
    let options = Options {
        on_error: OnError::Fail,
        ..options()
    };
    let scored = score_with(input(bytes), &StubModel::default(), &StubText::default(), &options);
    assert!(scored.output == score(pairs(0..30)).output);
    let error = scored.result.as_ref().unwrap_err().to_string();
    assert_eq!(
        error,
        "test.jsonl:32: not_an_object: expected an object, found an array; jq -c '.[]' makes lines of an array's objects"
    );
}

#[test]
fn an_encoding_that_fails_ends_the_run_after_the_lines_before_it() {
    for (fails_on, panics_on) in [(Some('~'.into()), None), (None, Some('~'.into()))] {
        let bytes = format!(
            "{}{}\n{}",
            pairs(0..30),
            r#"{"text":"a b~","drug":"a","adr":"b"}"#,
            pairs(30..60)
        );
        let model = StubModel {
            concurrency: 2,
            fails_on,
            panics_on,
            ..StubModel::default()
        };
        // One sequence a batch: only the failing line's own representations are missing.
        let options = Options {
            batch_tokens: Some(1),
            window_lines: 100,
            ..options()
        };
        let scored = score_with(input(bytes), &model, &StubText::default(), &options);
        let error = scored.result.as_ref().unwrap_err();
        assert!(matches!(error, ScoreError::Network { .. }), "{error}");
        assert!(
            error.to_string().starts_with("the network failed at test.jsonl:31: "),
            "{error}"
        );
        assert!(scored.output == score(pairs(0..30)).output);
    }
}

#[test]
fn a_missing_file_ends_the_run_after_the_inputs_before_it() {
    let inputs = input(pairs(0..3))
        .into_iter()
        .chain([Input::File("/nonexistent/x.jsonl".into())])
        .collect();
    let scored = score_with(inputs, &StubModel::default(), &StubText::default(), &options());
    assert_eq!(scored.lines().len(), 3);
    assert_eq!(
        scored.result.unwrap_err().to_string(),
        "/nonexistent/x.jsonl: cannot be read"
    );
}

#[test]
fn no_input_gives_no_output() {
    for bytes in ["", "\n", "\r\n \n", "\u{feff}"] {
        let scored = score(bytes);
        assert!(scored.output.is_empty() && scored.counts().records() == 0, "{bytes:?}");
    }
}

#[test]
fn a_slow_producer_gets_each_answer_before_it_sends_more() {
    let (input_reader, mut input_writer) = io::pipe().unwrap();
    let (output_reader, mut output_writer) = io::pipe().unwrap();
    let worker = std::thread::spawn(move || {
        let inputs = vec![Input::Reader("pipe".into(), Box::new(input_reader))];
        let options = Options {
            window_lines: 1000,
            batch_tokens: Some(1 << 20),
            ..options()
        };
        run(
            inputs,
            &mut output_writer,
            &StubModel::default(),
            &StubText::default(),
            &options,
        )
    });
    let mut answers = BufReader::new(output_reader).lines();
    for i in 0..20 {
        writeln!(input_writer, "{}", pair(i)).unwrap();
        let value: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(value["id"], json!(i));
    }
    drop(input_writer);
    assert!(answers.next().is_none());
    assert_eq!(worker.join().unwrap().unwrap().scored, 20);
}

#[test]
fn a_closed_output_ends_the_run_though_the_input_goes_on() {
    let (output_reader, mut output_writer) = io::pipe().unwrap();
    drop(output_reader);
    let endless = (0..).map(pair).map(|line| line + "\n");
    struct Lines<I>(I, io::Cursor<Vec<u8>>);
    impl<I: Iterator<Item = String>> Read for Lines<I> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.1.read(buffer)? {
                0 => {
                    self.1 = io::Cursor::new(self.0.next().unwrap_or_default().into_bytes());
                    self.1.read(buffer)
                }
                count => Ok(count),
            }
        }
    }
    let inputs = vec![Input::Reader(
        "endless".into(),
        Box::new(Lines(endless, io::Cursor::default())),
    )];
    let error = run(
        inputs,
        &mut output_writer,
        &StubModel::default(),
        &StubText::default(),
        &options(),
    )
    .unwrap_err();
    assert!(matches!(error, ScoreError::ClosedPipe), "{error}");
}

#[test]
fn a_full_disk_is_an_error_and_not_a_panic() {
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    let error = run(
        input(pairs(0..100)),
        &mut full,
        &StubModel::default(),
        &StubText::default(),
        &options(),
    )
    .unwrap_err();
    assert!(
        matches!(&error, ScoreError::Write { source } if source.kind() == io::ErrorKind::StorageFull),
        "{error}"
    );
}

#[test]
fn an_output_that_fails_anywhere_has_got_a_prefix_of_the_answers() {
    let whole = score(pairs(0..50)).output;
    for left in (0..whole.len()).step_by(97) {
        let mut output = Failing {
            taken: Vec::new(),
            left,
            kind: io::ErrorKind::StorageFull,
        };
        let result = run(
            input(pairs(0..50)),
            &mut output,
            &StubModel::default(),
            &StubText::default(),
            &options(),
        );
        assert!(result.is_err());
        assert!(output.taken == whole[..left]);
    }
}

#[test]
fn a_read_that_fails_in_the_middle_ends_the_run_with_its_name() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("bad sector"))
        }
    }
    let bytes = io::Cursor::new(pairs(0..10)).chain(Broken);
    let inputs = vec![Input::Reader("disk.jsonl".into(), Box::new(bytes))];
    let scored = score_with(inputs, &StubModel::default(), &StubText::default(), &options());
    assert_eq!(scored.lines().len(), 10);
    assert_eq!(scored.result.unwrap_err().to_string(), "disk.jsonl: cannot be read");
}

#[test]
fn a_line_longer_than_the_limit_is_read_past() {
    let long = io::repeat(b'x').take(64 << 20);
    let bytes = io::Cursor::new(pairs(0..1))
        .chain(long)
        .chain(io::Cursor::new(format!("\n{}", pair(1))));
    let inputs = vec![Input::Reader("long".into(), Box::new(bytes))];
    let options = Options {
        max_line_bytes: 1 << 20,
        ..options()
    };
    let values = score_with(inputs, &StubModel::default(), &StubText::default(), &options).values();
    assert_eq!(
        values[1]["error"]["message"],
        "expected at most 1048576 bytes, found 67108864; --max-line-bytes raises the limit"
    );
    assert_eq!((&values[1]["line"], &values[2]["id"]), (&json!(2), &json!(1)));
}

#[test]
fn a_window_does_not_wait_for_the_one_before_it() {
    // The first line's encoding is done only once the last line, two windows on, is being encoded.
    let line = |drug: &str| format!("{{\"text\":\"{drug} r\",\"drug\":\"{drug}\",\"adr\":\"r\"}}\n");
    let lines: String = ["a~", "b", "g^"].map(line).concat();
    let waits = Some(['~'.into(), '^'.into()]);
    let model = StubModel {
        concurrency: 3,
        off_host: true,
        waits,
        ..StubModel::default()
    };
    let options = Options {
        window_lines: 1,
        batch_tokens: Some(1),
        ..options()
    };
    let scored = score_with(input(lines), &model, &StubText::default(), &options);
    assert_eq!(scored.counts().scored, 3);
}

#[test]
fn an_input_is_not_read_ahead_without_bound() {
    struct Endless<'a>(Vec<u8>, &'a AtomicUsize, &'a AtomicBool);
    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.2.load(Ordering::Relaxed) {
                return Ok(0);
            }
            let rest = &self.0[self.1.load(Ordering::Relaxed) % self.0.len()..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.1.fetch_add(count, Ordering::Relaxed);
            Ok(count)
        }
    }
    static READ: AtomicUsize = AtomicUsize::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    let line = format!(
        "{{\"x\":\"{}\",\"text\":\"~ b\",\"drug\":\"~\",\"adr\":\"b\"}}\n",
        "x".repeat(1000)
    );
    // Off the host, so that windows are prepared while it waits.
    let model = StubModel {
        concurrency: 2,
        off_host: true,
        waits: Some(['~'.into(), '^'.into()]),
        ..StubModel::default()
    };
    let options = Options {
        window_lines: 100_000,
        window_bytes: 64 * 1024,
        ..options()
    };
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let reader = Endless(line.into_bytes(), &READ, &STOP);
            score_with(
                vec![Input::Reader("endless".into(), Box::new(reader))],
                &model,
                &StubText::default(),
                &options,
            )
        });
        // Two windows in the queue, three in flight, one line in hand; and then nothing for a while.
        let most = 6 * 64 * 1024;
        let mut read = 0;
        while read <= most && (read < 1000 || read != READ.load(Ordering::Relaxed)) {
            read = READ.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(200));
        }
        STOP.store(true, Ordering::Relaxed);
        model.seen.open();
        assert!(read <= most, "{read}");
        assert!(run.join().unwrap().counts().scored > 0);
    });
}

/// Any JSON value as text, written in odd ways.
fn any_json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        ".*".prop_map(|s| serde_json::to_string(&s).unwrap()),
        "[a-z{}\\[\\],:]{0,8}".prop_map(|s| format!("\"{s}\"")),
        Just(r#""\ud800\u0000\/""#.to_owned()),
    ];
    let leaf = prop_oneof![
        string.clone(),
        any::<i64>().prop_map(|n| n.to_string()),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
        Just("null".to_owned()),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(" ,\t"))),
            prop::collection::vec((string.clone(), inner), 0..5).prop_map(|members| {
                let members: Vec<String> = members.into_iter().map(|(k, v)| format!("{k} : {v}")).collect();
                format!("{{ {} }}", members.join(","))
            }),
        ]
    })
}

/// Lines of all kinds, most of them nearly records.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => (0usize..5).prop_map(|i| pair(i).into_bytes()),
        1 => prop::collection::vec(any::<u8>().prop_filter("line end", |&b| b != b'\n'), 0..30),
        1 => any_json().prop_map(String::into_bytes),
        1 => Just(b" \t".to_vec()),
        1 => Just(vec![b'x'; 600]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_object_passes_through_byte_for_byte(
        before in prop::collection::vec(("x[a-z]{0,3}", any_json()), 0..4),
        after in prop::collection::vec(("x[a-z]{0,3}", any_json()), 0..4),
        space in "[ \t\r]{0,3}",
    ) {
        let mut members: Vec<String> = before.iter().map(|(k, v)| format!("\"{k}\"{space}:{v}")).collect();
        members.push(r#""text":"a b","drug":"a","adr":"b""#.to_owned());
        members.extend(after.iter().map(|(k, v)| format!("{space}\"{k}\":{v}")));
        let head = format!("{space}{{{}{space}", members.join(","));
        let line = format!("{head}}}{space}");
        let scored = score(line.clone() + "\n");
        prop_assert_eq!(scored.counts().scored, 1, "{}", line);
        let output = scored.lines()[0];
        prop_assert!(output.starts_with(&head));
        // What was added stands alone between the record's bytes and its brace.
        let added: Value = serde_json::from_str(&format!("{{{}", output[head.len()..].strip_prefix(',').unwrap())).unwrap();
        prop_assert_eq!(added.as_object().unwrap().len(), 2);
    }

    #[test]
    fn any_lines_give_one_valid_answer_each_however_they_are_cut(
        lines in prop::collection::vec(any_line(), 0..30),
        sizes in prop::collection::vec(1usize..60, 1..20),
        window_lines in 1usize..10,
        window_bytes in 1usize..2000,
        batch_tokens in 1usize..600,
        threads in 1usize..4,
    ) {
        // A first line that nothing can be read into by chance, such as a byte order mark of UTF-16.
        let bytes = [b"{}".to_vec()].into_iter().chain(lines.iter().cloned()).collect::<Vec<_>>().join(&b'\n');
        let blank = lines.iter().filter(|line| line.iter().all(u8::is_ascii_whitespace)).count();
        let long = Options { max_line_bytes: 500, ..options() };
        let plain = score_with(input(bytes.clone()), &StubModel::default(), &StubText::default(), &long);
        prop_assert_eq!(plain.values().len(), lines.len() + 1 - blank);
        let inner = io::Cursor::new(bytes);
        let inputs = vec![Input::Reader("test.jsonl".into(), Box::new(Portions { inner, sizes, next: 0 }))];
        let cut = Options { window_lines, window_bytes, batch_tokens: Some(batch_tokens), threads, ..long };
        let model = StubModel { concurrency: 3, ..StubModel::default() };
        let other = score_with(inputs, &model, &StubText::default(), &cut);
        prop_assert!(plain.output == other.output);
    }
}
