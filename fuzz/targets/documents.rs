//! Reads bytes as annotated documents, in the scope and with the limits that their first byte chooses.
#![allow(dead_code)]

#[path = "../../tests/common/extracted.rs"]
mod extracted;

use std::io::Cursor;

use crag::corpora::{BratFiles, CompositeUse, Format, Options, Scope, Sources};
use crag::files::Input;

fn options(choice: u8) -> Options {
    Options {
        scope: [Scope::Sentence, Scope::Passage, Scope::Document][usize::from(choice) % 3],
        window: [None, Some(0), Some(2)][usize::from(choice) / 3 % 3],
        composite: [CompositeUse::Whole, CompositeUse::Parts][usize::from(choice) / 9 % 2],
        max_pairs_per_document: 1000,
        max_document_bytes: [16 << 20, 3000][usize::from(choice) / 18 % 2],
        ..Options::default()
    }
}

pub fn check_stream(format: Format, bytes: &[u8]) {
    let Some((&choice, document)) = bytes.split_last() else {
        return;
    };
    // Archives are another target's.
    if [
        &b"\x1f\x8b"[..],
        b"BZh",
        b"\x28\xb5\x2f\xfd",
        b"\xfd7z",
        b"PK\x03\x04",
        b"\x04\x22\x4d\x18",
        b"P*M",
    ]
    .iter()
    .any(|magic| document.starts_with(magic) || document.get(1..).is_some_and(|rest| rest.starts_with(magic)))
    {
        return;
    }
    let input = Input::Reader("fuzz".into(), Box::new(Cursor::new(document.to_vec())));
    extracted::check(Sources::Streams(format, vec![input]), &options(choice));
}

/// The bytes up to the first NUL are a text, the others its annotations.
pub fn check_brat(bytes: &[u8]) {
    let Some((&choice, document)) = bytes.split_last() else {
        return;
    };
    let Some(end) = document.iter().position(|&byte| byte == 0) else {
        return;
    };
    let folder = std::env::temp_dir().join(format!("crag-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let files = BratFiles {
        id: "note".to_owned(),
        text: folder.join("note.txt"),
        annotations: folder.join("note.ann"),
    };
    std::fs::write(&files.text, &document[..end]).expect("a temporary file");
    std::fs::write(&files.annotations, &document[end + 1..]).expect("a temporary file");
    extracted::check(Sources::Brat(vec![files]), &options(choice));
}
