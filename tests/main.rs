//! All integration tests in one binary, one module a subject; it links once.

mod bert;
mod cache;
mod common;
mod convert;
mod cuda;
mod ensemble;
mod evaluation;
mod extract;
mod extract_fuzz;
mod formats;
mod fuzz_checkpoint;
mod hub;
mod inputs;
mod inspect;
mod lines;
mod lines_fuzz;
mod lines_stub;
mod parity;
mod precision;
mod score;
mod shard;
mod text;
mod threads;
mod verify;
