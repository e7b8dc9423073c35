//! Bytes as an input that may be compressed: unpacked, or one error; never a panic.
#![no_main]

use std::io::{Cursor, Read, sink};

use crag::files::Input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let input = Input::Reader("fuzz".into(), Box::new(Cursor::new(bytes.to_vec())));
    if let Ok(opened) = input.open() {
        // A small archive may unpack to more than anyone wants to wait for.
        let _ = std::io::copy(&mut opened.take(8 << 20), &mut sink());
    }
});
