//! All integration tests in one binary, one module a subject; it links once.

mod bert;
mod cache;
mod common;
mod convert;
mod cuda;
mod fuzz_checkpoint;
mod hub;
mod inspect;
mod lines;
mod lines_fuzz;
mod lines_stub;
mod parity;
mod precision;
mod score;
mod text;
mod train;
mod verify;
