//! All integration tests in one binary, one module a subject; it links once.

mod bert;
mod cache;
mod check;
mod common;
mod config;
mod convert;
mod cuda;
mod ensemble;
mod fuzz_checkpoint;
mod generate;
mod hub;
mod inspect;
mod lines;
mod lines_fuzz;
mod lines_stub;
mod manifest;
mod parity;
mod precision;
mod progress;
mod score;
mod text;
mod verify;
