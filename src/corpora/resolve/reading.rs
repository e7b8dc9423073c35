//! In which of the ways that there are a document's offsets count.

use crate::corpora::document::Unit;

/// How a document's offsets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub unit: Unit,
    /// They count from the passage's beginning, not from the document's.
    pub passage_relative: bool,
    /// They count `\r\n` as one: of a file that was read in text mode, or has become one of Windows since.
    pub short_line_ends: bool,
}

/// What a file of Windows has, and whoever reads it as text sees as `\n`.
pub const LONG_LINE_END: &str = "\r\n";
