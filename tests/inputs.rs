//! Inputs as users have them: compressed, several, cut short, not there.

use std::io::Cursor;
use std::path::PathBuf;

use crag::files::Input;
use crag::scoring::ScoreError;
use serde_json::json;

use crate::common::pack::{bzip2, gzip, zstd};
use crate::common::run::Run;
use crate::common::{crag, json_lines};
use crate::lines_stub::*;

fn pair(i: usize) -> String {
    format!(r#"{{"id":{i},"text":"drug{i} caused rash{i}","drug":"drug{i}","adr":"rash{i}"}}"#)
}

fn pairs(range: std::ops::Range<usize>) -> String {
    range.map(|i| pair(i) + "\n").collect()
}

fn reader(name: &str, bytes: Vec<u8>) -> Input {
    Input::Reader(name.into(), Box::new(Cursor::new(bytes)))
}

fn scored(inputs: Vec<Input>) -> Scored {
    score_with(inputs, &StubModel::default(), &StubText::default(), &options())
}

fn folder_with(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let paths = files.iter().map(|(name, content)| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    });
    let paths = paths.collect();
    (folder, paths)
}

fn run(arguments: &[&str], paths: &[PathBuf], stdin: impl Into<Vec<u8>>) -> Run {
    let output = crag()
        .args(["score", "--model", "demo"])
        .args(arguments)
        .args(paths)
        .write_stdin(stdin)
        .output()
        .unwrap();
    Run::of(output)
}

#[test]
fn compressed_and_plain_inputs_in_any_mixture_are_one_run() {
    let plain = scored(vec![reader("all", pairs(0..50).into_bytes())]);
    let part = |range| pairs(range).into_bytes();
    // A record may begin in one member and end in the next.
    let (head, tail) = (part(0..10), part(10..20));
    let torn = [gzip(&head[..100]), gzip(&[]), gzip(&head[100..]), gzip(&tail)].concat();
    let mixed = scored(vec![
        reader("a.gz", torn),
        reader("b", part(20..21)),
        reader("empty", Vec::new()),
        reader("empty.gz", gzip(b"")),
        reader("c.zst", [zstd(&part(21..30)), zstd(&part(30..33))].concat()),
        reader("d.bz2", [bzip2(&part(33..40)), bzip2(&part(40..50))].concat()),
    ]);
    assert!(mixed.output == plain.output);
    let inputs = &mixed.counts().inputs;
    let names_and_lines: Vec<_> = inputs.iter().map(|input| (input.name.as_str(), input.lines)).collect();
    assert_eq!(
        names_and_lines,
        [
            ("a.gz", 20),
            ("b", 1),
            ("empty", 0),
            ("empty.gz", 0),
            ("c.zst", 12),
            ("d.bz2", 17)
        ]
    );
    assert_eq!(inputs[1].digest.bytes, pairs(20..21).len() as u64);
    assert_eq!(inputs[3].digest.bytes, gzip(b"").len() as u64, "as it lies in the file");
    assert_eq!(
        inputs[2].digest.sha256_hex(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
}

#[test]
fn lines_are_counted_with_blank_ones_and_one_without_an_end() {
    for (bytes, lines) in [
        (b"".as_slice(), 0),
        (b"\n", 1),
        (b"1", 1),
        (b"1\n\n2", 3),
        (b"1\n\n2\n", 3),
    ] {
        assert_eq!(
            scored(vec![reader("a", bytes.to_vec())]).counts().inputs[0].lines,
            lines
        );
    }
}

#[test]
fn an_archive_cut_anywhere_ends_the_run_after_its_whole_lines() {
    let whole = scored(vec![reader("a", pairs(0..9).into_bytes())]).output;
    for (pack, told) in [(gzip as fn(&[u8]) -> Vec<u8>, 2), (zstd, 4), (bzip2, 10)] {
        let archive = [pack(pairs(0..5).as_bytes()), pack(pairs(5..9).as_bytes())].concat();
        let boundary = pack(pairs(0..5).as_bytes()).len();
        for length in told..archive.len() {
            let cut = scored(vec![reader("a", archive[..length].to_vec())]);
            let text = String::from_utf8(cut.output).unwrap();
            assert!(whole.starts_with(text.as_bytes()) && (text.is_empty() || text.ends_with('\n')));
            let lines = text.lines().count();
            match cut.result {
                // Where a member ends nothing says that there was another.
                Ok(_) => assert_eq!((length, lines), (boundary, 5)),
                Err(ScoreError::Read { .. }) => assert!(length < boundary || lines >= 5, "{length}"),
                Err(other) => panic!("{other}"),
            }
        }
        // Too short to be known as an archive, it is a line that is no record.
        for length in 1..told {
            let cut = scored(vec![reader("a", archive[..length].to_vec())]);
            assert_eq!((cut.counts().errors(), cut.counts().scored), (1, 0));
        }
    }
}

/// An archive of one file, as `tar cf` makes it: no more of a header than tells what it is.
fn tar(name: &str, text: &str) -> Vec<u8> {
    let mut archive = vec![0; 512];
    archive[..name.len()].copy_from_slice(name.as_bytes());
    archive[257..263].copy_from_slice(b"ustar\0");
    archive.extend_from_slice(text.as_bytes());
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

#[test]
fn a_damaged_archive_is_one_message_and_exit_code_1() {
    let archive = [gzip(pairs(0..3).as_bytes()), gzip(pairs(3..60).as_bytes())].concat();
    let cut = &archive[..archive.len() - 20];
    let garbage = [&archive[..], b"garbage"].concat();
    let (_folder, paths) = folder_with(&[
        ("cut.jsonl.gz", cut),
        ("garbage.gz", &garbage),
        ("empty.zst", b""),
        ("xz", b"\xfd7zXZ\0\0\0"),
        ("pairs.tar.gz", &gzip(&tar("pairs.jsonl", &pairs(0..3)))),
        ("pairs.tar", &tar("pairs.jsonl", &pairs(0..3))),
        ("twice.gz", &gzip(&gzip(pairs(0..3).as_bytes()))),
    ]);
    for (path, lines, message) in [
        (&paths[0], 3.., "cut.jsonl.gz: cannot be read: the gzip data breaks off"),
        (
            &paths[1],
            60..,
            "garbage.gz: cannot be read: expected the end or more gzip data",
        ),
        (&paths[2], 0.., "empty.zst: cannot be read: the zstd data breaks off"),
        (
            &paths[3],
            0..,
            "xz: cannot be read: expected text, or gzip, zstd or bzip2 of it, found xz; unpack it first",
        ),
        (
            &paths[4],
            0..,
            "found a tar archive; unpack it first, for example with tar -xOf",
        ),
        (
            &paths[5],
            0..,
            "found a tar archive; unpack it first, for example with tar -xOf",
        ),
        (&paths[6], 0.., "found gzip within gzip; unpack it once more first"),
    ] {
        let run = run(&[], std::slice::from_ref(path), "");
        assert_eq!(run.code, 1, "{message}");
        assert!(run.stderr.contains(message), "{message}: {}", run.stderr);
        assert!(!run.stderr.contains("scored "), "{}", run.stderr);
        let answers = json_lines(&run.stdout);
        assert!(lines.contains(&answers.len()), "{message}: {}", answers.len());
        assert!(answers.iter().all(|answer| answer["probability"].is_number()));
    }
}

struct Panics(usize);

impl std::io::Read for Panics {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0 += 1;
        assert!(self.0 < 20, "a fault in a reader");
        buffer[..1].copy_from_slice(b"\n");
        Ok(1)
    }
}

#[test]
fn a_reader_that_panics_is_not_the_end_of_the_inputs() {
    let panicked = scored(vec![Input::Reader("a".into(), Box::new(Panics(0)))]);
    assert!(matches!(panicked.result, Err(ScoreError::ReaderPanicked)));
}

#[test]
fn stdin_is_unpacked_too() {
    let plain = run(&[], &[], pairs(0..5));
    for packed in [gzip, zstd, bzip2].map(|pack| pack(pairs(0..5).as_bytes())) {
        let unpacked = run(&["-"], &[], packed);
        assert_eq!(
            (unpacked.code, unpacked.stdout == plain.stdout),
            (0, true),
            "{}",
            unpacked.stderr
        );
    }
}

#[test]
fn a_second_input_that_cannot_be_read_is_found_before_anything_is_written() {
    let (folder, mut paths) = folder_with(&[("a.jsonl", pairs(0..2).as_bytes()), ("b.zip", b"PK\x03\x04abc")]);
    let utf16 = folder.path().join("utf16.jsonl");
    std::fs::write(&utf16, b"{\0}\0\n\0").unwrap();
    for (second, message) in [
        (folder.path().join("missing.jsonl"), "missing.jsonl: No such file"),
        (folder.path().to_owned(), "expected a file of records, found a folder"),
        (paths[1].clone(), "b.zip: cannot be read: expected text"),
        (
            utf16,
            "utf16.jsonl: expected UTF-8, found UTF-16LE (every second byte is zero)",
        ),
    ] {
        paths[1] = second;
        let run = run(&[], &paths, "");
        assert_eq!((run.code, run.stdout.len()), (1, 0), "{message}");
        assert!(run.stderr.contains(message), "{message}: {}", run.stderr);
    }
    let twice = run(&["-", "-"], &[], "");
    assert_eq!(twice.code, 2);
    assert!(
        twice.stderr.contains("stdin (-) can be read only once"),
        "{}",
        twice.stderr
    );
}

#[test]
fn with_several_inputs_a_line_that_is_no_object_names_its_file() {
    let (_folder, paths) = folder_with(&[("a.jsonl", b"\n1\n"), ("b.jsonl.gz", &gzip(b"{}\nx\n"))]);
    let run = run(&[], &paths, "");
    assert_eq!(run.code, 3);
    let answers = json_lines(&run.stdout);
    assert_eq!(answers.len(), 3);
    for (answer, path) in [(&answers[0], &paths[0]), (&answers[2], &paths[1])] {
        assert_eq!((&answer["file"], &answer["line"]), (&json!(path), &json!(2)));
    }
}
