//! Bytes as `model.safetensors`.
#![no_main]

mod checkpoint;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checkpoint::check(bytes, "model.safetensors"));
