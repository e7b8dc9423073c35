//! Bytes as documents of `crag extract`: what comes out holds, the rest is reported.
#![no_main]

mod documents;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| documents::check_stream(crag::corpora::Format::Bioc, bytes));
