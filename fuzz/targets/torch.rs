//! Bytes as `pytorch_model.bin`.
#![no_main]

mod checkpoint;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checkpoint::check(bytes, "pytorch_model.bin"));
