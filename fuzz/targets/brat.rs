//! Bytes as a text and its brat annotations.
#![no_main]

mod documents;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| documents::check_brat(bytes));
