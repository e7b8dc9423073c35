//! Bytes as a CSV or TSV table: a header that does not do is one error; otherwise each row is answered in a row that
//! begins with its own bytes.
#![no_main]

#[path = "../../tests/lines_stub.rs"]
#[allow(dead_code)]
mod lines_stub;

use crag::scoring::{Format, Options, run};
use lines_stub::{StubModel, StubText, input};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, table)) = bytes.split_last() else {
        return;
    };
    let format = [Format::Csv, Format::Tsv][usize::from(choice % 2)];
    let options = Options {
        threads: 1,
        format,
        max_line_bytes: 4096,
        ..lines_stub::options()
    };
    let mut output = Vec::new();
    let result = run(
        input(table),
        &mut output,
        &StubModel::default(),
        &StubText::default(),
        &options,
    );
    match result {
        Ok(counts) if counts.records() > 0 => assert!(output.ends_with(b"\n")),
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
