//! All integration tests in one binary, one module a subject; it links once.

mod bert;
mod cache;
mod common;
mod convert;
mod cuda;
mod faults;
mod formats;
mod fuzz_checkpoint;
mod hub;
mod inputs;
mod inspect;
mod interrupts;
mod lines;
mod lines_fuzz;
mod lines_stub;
mod output;
mod parity;
mod precision;
mod resume;
mod score;
mod shard;
mod text;
mod verify;
