//! All integration tests in one binary, one module a subject; it links once.

mod common;
mod fuzz_checkpoint;
mod hub;
