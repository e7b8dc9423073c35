//! Mutated documents: no adapter panics, loops or fills memory, and what comes out holds.
//!
//! `CRAG_FUZZ_ITERATIONS` sets how many inputs an adapter reads (2,000 without it).

use std::io::Cursor;
use std::time::{Duration, Instant};

use crag::corpora::{BratFiles, CompositeUse, Format, Options, Scope, Sources, run};
use crag::files::Input;

use crate::common::extracted::check;
use crate::common::random::Random;
use crate::common::{fixture, memory};

const TOKENS: &[&str] = &[
    "\n",
    "\r\n",
    "\t",
    "|",
    "\0",
    "\u{feff}",
    "😀",
    "é",
    "-1",
    "0",
    "18446744073709551615",
    "99999999999999999999",
    "<",
    ">",
    "</",
    "/>",
    "<document>",
    "</document>",
    "<passage>",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?",
    "&",
    "&amp;",
    "&#0;",
    "&#xD800;",
    "&#x110000;",
    "&lol;",
    "<sentence>",
    "<location offset='1' length='2'/>",
    "\"",
    "\\",
    "\\u",
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "1e999",
    "{\"documents\":[",
    "\"passages\":[",
    "1|t|",
    "1|a|",
    "\tCID\t",
    ";",
    "T1\tDrug 0 1;3 4\tx",
    "R1\tX Arg1:T1 Arg2:T1",
    "E1\tX:T1 A:T2 B:T3",
    ".",
    ". 1",
    "i.v. ",
];

fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => bytes.truncate(at),
            3 => {
                let end = (at + random.below(200)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let token = TOKENS[random.below(TOKENS.len())].repeat(1 + random.below(3) * random.below(40));
                bytes.splice(at..at, token.bytes());
            }
            5 => {
                let digits: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
                if let Some(&digit) = digits.get(random.below(digits.len())) {
                    bytes[digit] = b'0' + random.below(10) as u8;
                }
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let to = (from + random.below(2000)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

fn options(random: &mut Random) -> Options {
    Options {
        scope: [Scope::Sentence, Scope::Passage, Scope::Document][random.below(3)],
        window: [None, Some(0), Some(2)][random.below(3)],
        composite: [CompositeUse::Whole, CompositeUse::Parts][random.below(2)],
        max_pairs_per_document: [10_000, 7][random.below(2)],
        max_document_bytes: [16 << 20, 3000][random.below(2)],
        ..Options::default()
    }
}

fn iterations() -> usize {
    match std::env::var("CRAG_FUZZ_ITERATIONS") {
        Ok(count) => count.parse().expect("CRAG_FUZZ_ITERATIONS is a number"),
        Err(_) => 2_000,
    }
}

fn fuzz(format: Format, names: &[&str]) {
    let seeds: Vec<Vec<u8>> = names
        .iter()
        .map(|name| std::fs::read(fixture("corpora").join(name)).unwrap())
        .collect();
    let mut random = Random(0x5eed_0000_0000_0002);
    let mut records = 0;
    for _ in 0..iterations() {
        let bytes = mutate(&mut random, &seeds);
        let options = options(&mut random);
        let input = Input::Reader("fuzz".into(), Box::new(Cursor::new(bytes)));
        records += check(Sources::Streams(format, vec![input]), &options);
    }
    assert!(
        records > iterations(),
        "{records} records: the mutations leave nothing to pair"
    );
}

#[test]
fn mutated_pubtator_is_read_or_reported() {
    fuzz(Format::PubTator, &["sample.pubtator.txt"]);
}

#[test]
fn mutated_bioc_xml_is_read_or_reported() {
    fuzz(Format::Bioc, &["sample.bioc.xml"]);
}

#[test]
fn mutated_bioc_json_is_read_or_reported() {
    fuzz(
        Format::Bioc,
        &["sample.bioc.json", "sample.bioc.jsonl", "unicode.byte.bioc.json"],
    );
}

#[test]
fn mutated_ade_relations_are_read_or_reported() {
    fuzz(Format::AdeRel, &["sample.rel"]);
}

#[test]
fn mutated_brat_is_read_or_reported() {
    let seed = |name: &str| std::fs::read(fixture("corpora/brat").join(name)).unwrap();
    let (texts, annotations) = (
        [seed("note.txt"), seed("event.txt")],
        [seed("note.ann"), seed("event.ann")],
    );
    let folder = tempfile::tempdir().unwrap();
    let (text, annotation) = (folder.path().join("x.txt"), folder.path().join("x.ann"));
    let mut random = Random(0x5eed_0000_0000_0003);
    let mut records = 0;
    for _ in 0..iterations() {
        let which = random.below(2);
        let spared = random.below(3) > 0;
        std::fs::write(
            &text,
            if spared {
                texts[which].clone()
            } else {
                mutate(&mut random, &texts)
            },
        )
        .unwrap();
        std::fs::write(&annotation, mutate(&mut random, &annotations[which..=which])).unwrap();
        let files = BratFiles {
            id: "x".into(),
            text: text.clone(),
            annotations: annotation.clone(),
        };
        records += check(Sources::Brat(vec![files]), &options(&mut random));
    }
    assert!(records > 0);
}

#[test]
fn hostile_inputs_take_neither_memory_nor_time() {
    let document = |inner: &str| format!("<collection><document><id>1</id>{inner}</document></collection>");
    let many = |text: &str, bytes: usize| text.repeat(bytes / text.len());
    let size = 4 << 20;
    let cases: Vec<(Format, &str, Vec<u8>)> = vec![
        (Format::PubTator, "an endless line", many("x", 8 * size).into_bytes()),
        (
            Format::PubTator,
            "an endless title",
            (String::from("1|t|") + &many("x", 8 * size)).into_bytes(),
        ),
        (Format::PubTator, "passages alone", many("1|b|x\n", size).into_bytes()),
        (
            Format::PubTator,
            "mentions alone",
            (String::from("1|t|ab\n") + &many("1\t0\t1\ta\tDrug\tD\n", size)).into_bytes(),
        ),
        (Format::PubTator, "one mention of many concepts", {
            let concepts: String = (0..300_000).map(|i| format!("{i}|")).collect();
            format!(
                "1|t|a b\n1\t0\t1\ta\tDrug\t{concepts}\n1\t2\t3\tb\tADE\t{concepts}\n1\tCID\t{concepts}\t{concepts}\n"
            )
            .into_bytes()
        }),
        (Format::PubTator, "one relation of many mentions over and over", {
            let mentions: String = (0..10_000)
                .map(|i| format!("1\t{}\t{}\tb\tADE\tE\n", 2 + 2 * i, 3 + 2 * i))
                .collect();
            let text = String::from("1|t|a") + &" b".repeat(10_000);
            let relations = many("1\tCID\tD\tE\n", 3 * (size / 4));
            format!("{text}\n1\t0\t1\ta\tDrug\tD\n{mentions}{relations}").into_bytes()
        }),
        (
            Format::PubTator,
            "line ends alone",
            (String::from("1|t|a b") + &many("\u{2029}", size) + "\n1\t0\t1\ta\tDrug\tD\n1\t2\t3\tb\tADE\tD\n")
                .into_bytes(),
        ),
        (Format::Bioc, "nesting", document(&many("<a>", size)).into_bytes()),
        (
            Format::Bioc,
            "an open comment",
            document(&(String::from("<!--") + &many("-", 8 * size))).into_bytes(),
        ),
        (Format::Bioc, "open tags", document(&many("<", size)).into_bytes()),
        (Format::Bioc, "torn documents", many("<document>", size).into_bytes()),
        (Format::Bioc, "arrays", many("[", size).into_bytes()),
        (Format::Bioc, "objects", many("{\"a\":", size).into_bytes()),
        (Format::Bioc, "collections", many("{\"documents\":[", size).into_bytes()),
        (
            Format::Bioc,
            "an endless string",
            (String::from("{\"id\":\"") + &many("x", 8 * size)).into_bytes(),
        ),
        (Format::AdeRel, "an endless line", many("|", 8 * size).into_bytes()),
        (
            Format::AdeRel,
            "one word over and over",
            (String::from("1|") + &many("a", size / 4) + "|a|0|1|a|0|1\n").into_bytes(),
        ),
        (
            Format::AdeRel,
            "more documents than are held",
            (0..size / 8).fold(Vec::new(), |mut lines, pmid| {
                lines.extend_from_slice(format!("{pmid}|a b|b|2|3|a|0|1\n").as_bytes());
                lines
            }),
        ),
    ];
    let options = Options {
        max_document_bytes: size,
        ..Options::default()
    };
    for (format, name, bytes) in cases {
        let length = bytes.len();
        let input = Input::Reader("hostile".into(), Box::new(Cursor::new(bytes)));
        let start = Instant::now();
        let run = || {
            run(
                Sources::Streams(format, vec![input]),
                &mut std::io::sink(),
                &options,
                &mut |_| {},
            )
        };
        let (result, peak) = memory::peak_of(run);
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
        // The document, its window, and what its shortest annotations become.
        assert!(peak < 64 * size, "{name}: {peak} bytes held for {length}");
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{name}: {:?}",
            start.elapsed()
        );
    }
}
