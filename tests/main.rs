//! All integration tests in one binary, one module a subject; it links once.

mod common;
mod lines;
mod lines_fuzz;
mod lines_stub;
mod score;
