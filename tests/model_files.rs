//! A model's files as editors and other machines write them: byte order marks, byte orders, vocabularies of another size.

use std::path::Path;

use crag::checkpoint::{Checkpoint, HubOptions, ModelSource, locate};

use crate::common::{crag, fixture};

/// A copy of a fixture's folder.
fn copied(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("model").join(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn scores(model: &Path) -> Vec<u8> {
    let cases = fixture("model/cases.jsonl");
    let output = crag().args(["score", "-q", "--model"]).arg(model).arg(cases).output();
    output.unwrap().stdout
}

/// What `crag inspect` says of a model that it refuses.
fn refusal(model: &Path) -> String {
    let output = crag().args(["inspect", "--model"]).arg(model).assert().code(1);
    String::from_utf8(output.get_output().stderr.clone()).unwrap()
}

#[test]
fn a_byte_order_mark_before_a_settings_file_changes_nothing() {
    let expected = scores(&fixture("model/mean"));
    assert!(!expected.is_empty());
    for name in ["config.json", "crag.json", "tokenizer_config.json"] {
        let folder = copied("mean");
        let path = folder.path().join(name);
        let marked = [b"\xef\xbb\xbf", &std::fs::read(&path).unwrap()[..]].concat();
        std::fs::write(&path, marked).unwrap();
        assert!(scores(folder.path()) == expected, "{name}");
    }
}

#[test]
fn a_file_of_a_big_endian_machine_is_refused() {
    let bytes = std::fs::read(fixture("checkpoint/halves.bin")).unwrap();
    let at = bytes.windows(6).position(|window| window == b"little").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pytorch_model.bin");
    let open = |order: &[u8; 6]| {
        let patched = [&bytes[..at], order, &bytes[at + 6..]].concat();
        std::fs::write(&path, patched).unwrap();
        let files = locate(&ModelSource::File(path.clone()), &HubOptions::default()).unwrap();
        Checkpoint::open(&files)
    };
    assert_eq!(open(b"little").unwrap().tensors().len(), 3);
    let message = open(b"big   ").err().unwrap().to_string();
    assert!(
        message.contains("pytorch_model.bin") && message.contains("written on a big-endian machine"),
        "{message}"
    );
}

#[test]
fn a_tokenizer_with_more_entries_than_rows_is_refused_with_and_without_markers() {
    // Without markers: the first entry too many.
    let folder = copied("cls");
    let path = folder.path().join("vocab.txt");
    let vocabulary = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{vocabulary}##toomuch\n")).unwrap();
    let message = refusal(folder.path());
    let expected =
        "expected a row for each of the tokenizer's 601 entries, found 600 rows; are tokenizer and weights from";
    assert!(message.contains(expected), "{message}");

    // With markers that have their rows, of 604.
    let folder = copied("mean");
    let path = folder.path().join("vocab.txt");
    let vocabulary = std::fs::read_to_string(&path).unwrap();
    let with_markers = format!("{vocabulary}[DRUG]\n[/DRUG]\n[ADR]\n[/ADR]\n");
    std::fs::write(&path, &with_markers).unwrap();
    assert!(scores(folder.path()) == scores(&fixture("model/mean")));
    std::fs::write(&path, format!("{with_markers}##toomuch\n")).unwrap();
    let message = refusal(folder.path());
    let expected = "expected a row for each of the tokenizer's 605 entries, found 604 rows";
    assert!(message.contains(expected), "{message}");
}
