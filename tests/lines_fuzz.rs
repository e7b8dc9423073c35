//! Mutated lines: whatever comes in, one valid answer for each line goes out.
//!
//! `CRAG_FUZZ_ITERATIONS` sets how many lines (20,000 without it).

use std::io::{self, Read};

use crag::files::Input;
use crag::scoring::{Options, run};

use crate::common::random::Random;
use crate::lines_stub::*;

const SEEDS: [&str; 8] = [
    r#"{"text":"aspirin caused bleeding","drug":"aspirin","adr":"bleeding"}"#,
    r#"{"id":"a\"b","drug_text":"aspirin, twice","adr_text":"bleeding","drug_entity":"aspirin","adr_entity":"bleeding"}"#,
    r#"{"text":"caf\u00e9 \ud83d\ude00 x","drug":"caf\u00e9","adr":"x","drug_span":[0,4],"adr_span":null}"#,
    r#"{ "n" : [1e400, -0.0, 18446744073709551617, {"a":[[]]}] , "text":"a b","drug":"a","adr":"b" } "#,
    r#"{"text":"a b","drug":"a","adr":"b","warnings":[],"error":{}}"#,
    "{\"text\":\"naïve Zürich — “x”\",\"drug\":\"Zürich\",\"adr\":\"x\",\"adr_span\":[16,17]}",
    r#"[{"text":"a"},null,true,"x"]"#,
    "{}",
];
const TOKENS: [&str; 20] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\\u",
    "\\ud800",
    "null",
    "NaN",
    "1e999",
    "\r",
    "\0",
    "\u{feff}",
    "\"text\":",
    "\"drug\":\"\"",
    "\"error\":0",
    " ",
];

/// A seed with up to three changes.
fn mutated(random: &mut Random) -> Vec<u8> {
    let mut line = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(line.len() + 1);
        match random.below(6) {
            0 if at < line.len() => line[at] ^= 1 << random.below(8),
            1 if at < line.len() => line[at] = random.below(256) as u8,
            2 => line.truncate(at),
            3 => {
                let end = at + random.below(line.len() - at + 1);
                line.drain(at..end);
            }
            4 => {
                let token = TOKENS[random.below(TOKENS.len())];
                line.splice(at..at, token.bytes());
            }
            _ => {
                let other = SEEDS[random.below(SEEDS.len())].as_bytes();
                let from = random.below(other.len());
                line.splice(at..at, other[from..].iter().copied());
            }
        }
    }
    line.retain(|&byte| byte != b'\n');
    line
}

/// Produces mutated lines while they are read, so that any number of them needs no memory.
struct Lines {
    random: Random,
    left: usize,
    line: io::Cursor<Vec<u8>>,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.line.read(buffer)?;
        if count > 0 || self.left == 0 {
            return Ok(count);
        }
        self.left -= 1;
        let mut line = mutated(&mut self.random);
        line.push(b'\n');
        self.line = io::Cursor::new(line);
        self.line.read(buffer)
    }
}

/// Checks each line of output as it comes, against the same lines produced once more.
struct Checker {
    expected: Random,
    partial: Vec<u8>,
    records: u64,
    scored: u64,
}

impl Checker {
    fn check(&mut self, line: &[u8]) {
        self.records += 1;
        let text = std::str::from_utf8(line).expect("UTF-8");
        let value = value_of(text);
        let source = loop {
            let source = mutated(&mut self.expected);
            if !source.iter().all(u8::is_ascii_whitespace) {
                break source;
            }
        };
        let source = source.strip_suffix(b"\r").unwrap_or(&source);
        self.scored += u64::from(value["probability"].is_number() && value.get("error").is_none());
        if value.get("line").is_none() {
            let brace = source.iter().rposition(|&b| b == b'}').expect("an object has a brace");
            assert!(
                line.starts_with(&source[..brace]) && line.ends_with(&source[brace..]),
                "{text}"
            );
        }
    }
}

impl io::Write for Checker {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            self.partial.extend_from_slice(part);
            if self.partial.pop_if(|&mut last| last == b'\n').is_some() {
                let line = std::mem::take(&mut self.partial);
                self.check(&line);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn mutated_lines_give_one_valid_answer_each() {
    let iterations = match std::env::var("CRAG_FUZZ_ITERATIONS") {
        Ok(count) => count.parse().expect("CRAG_FUZZ_ITERATIONS is a number"),
        Err(_) => 20_000,
    };
    let seed = 0x5eed_0000_0000_0001;
    // A byte order mark in front keeps a mutated first line from looking like UTF-16.
    let lines = Lines {
        random: Random(seed),
        left: iterations,
        line: io::Cursor::new(b"\xef\xbb\xbf".to_vec()),
    };
    let mut checker = Checker {
        expected: Random(seed),
        partial: Vec::new(),
        records: 0,
        scored: 0,
    };
    let options = Options {
        window_lines: 500,
        ..options()
    };
    let inputs = vec![Input::Reader("fuzz".into(), Box::new(lines))];
    let counts = run(
        inputs,
        &mut checker,
        &StubModel::default(),
        &StubText::default(),
        &options,
    )
    .unwrap();
    assert!(checker.partial.is_empty());
    assert_eq!(checker.records, counts.records());
    assert_eq!(counts.records() + counts.blank, iterations as u64);
    assert!(counts.scored > 0 && counts.errors() > 0 && checker.scored <= counts.scored);
    println!("{counts}");
}
