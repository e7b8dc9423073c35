//! Bytes as JSONL: one valid answer for each line that is not blank, with the line's own bytes around it.
#![no_main]

#[path = "../../tests/lines_stub.rs"]
#[allow(dead_code)]
mod lines_stub;

use crag::scoring::{Options, ScoreError, run};
use libfuzzer_sys::fuzz_target;
use lines_stub::{StubModel, StubText, input};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let options = Options {
        threads: 1,
        max_line_bytes: 4096,
        ..lines_stub::options()
    };
    let mut output = Vec::new();
    let result = run(
        input(bytes),
        &mut output,
        &StubModel::default(),
        &StubText::default(),
        &options,
    );
    let counts = match result {
        Ok(counts) => counts,
        // Refused as a whole, at its first line.
        Err(ScoreError::Utf16 { .. }) => return,
        // Taken for an archive by its first bytes.
        Err(ScoreError::Read { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let text = std::str::from_utf8(&output).expect("UTF-8");
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.iter().all(u8::is_ascii_whitespace));
    let mut records = 0;
    for answer in text.split_terminator('\n') {
        let line = lines.next().expect("no more answers than lines");
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        records += 1;
        // Raw values: a line may hold lone surrogates and numbers that no other type takes.
        let value: std::collections::BTreeMap<String, &serde_json::value::RawValue> = match serde_json::from_str(answer)
        {
            Ok(value) => value,
            // A key with a lone surrogate is the line's own.
            Err(_) if line.windows(2).any(|two| two == b"\\u") => continue,
            Err(error) => panic!("{error}: {answer}"),
        };
        if value.contains_key("line") && !line.windows(6).any(|six| six == b"\"line\"") {
            let error: Value = serde_json::from_str(value["error"].get()).expect("an error");
            assert!(error["code"].is_string() && error["message"].is_string());
            continue;
        }
        let brace = line.iter().rposition(|&byte| byte == b'}');
        if let Some(brace) = brace.filter(|_| answer.as_bytes().starts_with(line.get(..1).unwrap_or_default())) {
            assert!(
                answer.as_bytes().starts_with(&line[..brace]) || value.contains_key("line"),
                "{answer}"
            );
        }
    }
    assert!(lines.next().is_none(), "no fewer answers than lines");
    assert_eq!(records, counts.records());
});
