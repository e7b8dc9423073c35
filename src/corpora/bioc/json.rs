//! BioC JSON: a collection, PubTator3's answers, an array of documents, or one document a line.
//!
//! The cutter only counts brackets outside of strings. It looks for documents in arrays named `documents` or
//! `PubTator3` and in arrays at the top; any other object at the top is a document. Once a document at the top has
//! ended on the line where it began, the file is taken to hold one document a line, and a torn line costs itself alone.

use serde::Deserialize;

use super::Piece;
use super::structures::BiocDocument;
use super::values;
use crate::corpora::report::CorpusError;
use crate::corpora::source::Source;
use crate::files::BYTE_ORDER_MARK;
use crate::words::quoted;

const CONTAINERS: [&[u8]; 2] = [b"\"documents\"", b"\"PubTator3\""];
/// Arrays and collections around a document. Each file form that is known has at most three.
const MAX_OUTER: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outer {
    /// Elements are documents, or collections.
    Array,
    /// A collection's other members, before and after its documents.
    Collection,
}

#[derive(Debug, Default)]
pub struct Cutter {
    outer: Vec<Outer>,
    one_a_line: bool,
}

/// How far an object has been walked.
#[derive(Debug, Default)]
struct Walk {
    at: usize,
    depth: usize,
    in_string: bool,
    /// Start of the last string at depth 1 after `{` or `,`, while it may still be a container's name.
    key: Option<usize>,
    expects_key: bool,
    names_container: bool,
    /// The object may be a line that was cut short, with the next document in the line after it.
    may_be_torn: bool,
    /// The last byte that means something, strings by their quote.
    last: u8,
    /// The first line end after it.
    line_end: Option<usize>,
}

enum Stop {
    /// After the object's end.
    End(usize),
    /// After the `[` of a container.
    Container(usize),
    /// Before a line end that no document goes on after.
    Line(usize),
    /// The stream ended.
    Torn,
    TooLarge,
}

impl Cutter {
    /// The next piece and the line where it begins.
    pub fn next(&mut self, source: &mut Source, max_bytes: usize) -> Result<Option<(Piece, u64)>, CorpusError> {
        loop {
            let Some(first) = skip(source)? else {
                return Ok(self.broken_off(source.line()));
            };
            let line = source.line();
            match (first, self.outer.last()) {
                (b'}', Some(Outer::Collection)) | (b']', Some(Outer::Array)) => {
                    self.outer.pop();
                    source.consume(1);
                }
                (_, Some(Outer::Collection)) => {
                    // The rest of a collection: nothing to keep but another container.
                    let walk = Walk {
                        depth: 1,
                        expects_key: true,
                        ..Walk::default()
                    };
                    match walk.run(source, None, false)? {
                        Stop::Container(at) => {
                            source.consume(at);
                            self.outer.push(Outer::Array);
                        }
                        Stop::End(at) => {
                            source.consume(at);
                            self.outer.pop();
                        }
                        _ => return Ok(self.broken_off(line)),
                    }
                }
                (b'[', _) if self.outer.len() < MAX_OUTER => {
                    source.consume(1);
                    self.outer.push(Outer::Array);
                }
                (b'{', _) => {
                    if let Some(piece) = self.object(source, max_bytes, line)? {
                        return Ok(Some(piece));
                    }
                }
                (other, _) => {
                    let message = format!("expected a document, found {:?}", char::from(other));
                    skip_other(source)?;
                    return Ok(Some((Piece::Other(message), line)));
                }
            }
        }
    }

    /// Where the torn object in hand ends, which goes no further than `end`: where the next line begins a document,
    /// unless it is known to be one line.
    fn first_line(&self, source: &Source, end: usize, is_one_line: bool) -> usize {
        match memchr::memmem::find(&source.bytes()[..end], b"\n{") {
            Some(first) if !is_one_line => first,
            _ => end,
        }
    }

    /// What is to be said where the stream ends: that a collection or an array does not, if so.
    fn broken_off(&mut self, line: u64) -> Option<(Piece, u64)> {
        let awaited = match self.outer.last()? {
            Outer::Array => "]",
            Outer::Collection => "}",
        };
        self.outer.clear();
        let message = format!("expected {awaited:?}, found the end of the file");
        Some((Piece::Other(message), line))
    }

    /// The piece that begins here; none of a collection, which is gone into.
    fn object(
        &mut self,
        source: &mut Source,
        max_bytes: usize,
        line: u64,
    ) -> Result<Option<(Piece, u64)>, CorpusError> {
        let at_top = self.outer.is_empty();
        let by_line = at_top && self.one_a_line;
        let walk = Walk {
            may_be_torn: at_top,
            ..Walk::default()
        };
        match walk.run(source, Some(max_bytes), by_line)? {
            Stop::Container(at) if self.outer.len() + 2 <= MAX_OUTER => {
                source.consume(at);
                self.outer.extend([Outer::Collection, Outer::Array]);
                Ok(None)
            }
            Stop::Container(at) => {
                source.consume(at);
                Ok(Some((
                    Piece::Other("expected documents, found collections within collections".to_owned()),
                    line,
                )))
            }
            Stop::End(at) => {
                if at_top {
                    self.one_a_line = !source.bytes()[..at].contains(&b'\n');
                }
                Ok(Some((Piece::Document(at), line)))
            }
            Stop::Line(at) => {
                self.one_a_line = true;
                Ok(Some((Piece::Torn(self.first_line(source, at, by_line)), line)))
            }
            Stop::Torn => {
                // Nothing that follows can be told apart any more, but for documents in lines of their own.
                self.outer.clear();
                let end = source.bytes().len();
                let first = self.first_line(source, end, by_line || !at_top);
                self.one_a_line |= first < end;
                Ok(Some((Piece::Torn(first), line)))
            }
            Stop::TooLarge => Ok(Some((Piece::TooLarge, line))),
        }
    }
}

/// Drops whitespace, commas and byte order marks, which files that were put together keep; the next byte.
fn skip(source: &mut Source) -> Result<Option<u8>, CorpusError> {
    loop {
        let bytes = source.bytes();
        if let Some(at) = bytes
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b','))
        {
            let first = bytes[at];
            source.consume(at);
            if first == BYTE_ORDER_MARK[0] {
                while source.bytes().len() < BYTE_ORDER_MARK.len() && source.more()? {}
                if source.bytes().starts_with(BYTE_ORDER_MARK) {
                    source.consume(BYTE_ORDER_MARK.len());
                    continue;
                }
            }
            return Ok(Some(first));
        }
        let count = bytes.len();
        source.consume(count);
        if !source.more()? {
            return Ok(None);
        }
    }
}

/// Drops what is no document: up to the next comma, bracket or line end, at least one byte.
fn skip_other(source: &mut Source) -> Result<(), CorpusError> {
    source.consume(1);
    loop {
        let bytes = source.bytes();
        let end = bytes
            .iter()
            .position(|byte| matches!(byte, b',' | b'\n' | b'{' | b'}' | b'[' | b']'));
        let count = end.unwrap_or(bytes.len());
        source.consume(count);
        if end.is_some() || !source.more()? {
            return Ok(());
        }
    }
}

impl Walk {
    /// Walks to the end of the object that begins (or goes on, at depth 1) with the bytes in hand. With a limit its bytes
    /// are kept, unless it is longer; without one they are let go.
    fn run(mut self, source: &mut Source, limit: Option<usize>, by_line: bool) -> Result<Stop, CorpusError> {
        let mut keeps = limit.is_some();
        loop {
            if let Some(stop) = self.walk(source.bytes(), by_line) {
                return Ok(match (stop, keeps || limit.is_none()) {
                    (Stop::End(at) | Stop::Line(at), false) => {
                        source.consume(at);
                        Stop::TooLarge
                    }
                    (Stop::End(at), true) if limit.is_some_and(|limit| at > limit) => {
                        source.consume(at);
                        Stop::TooLarge
                    }
                    (stop, _) => stop,
                });
            }
            if keeps && limit.is_some_and(|limit| self.at > limit) {
                keeps = false;
            }
            if !keeps {
                // A name that may be a container's stays in hand.
                let gone = self.key.unwrap_or(self.at).min(self.at);
                source.consume(gone);
                self.at -= gone;
                self.key = self.key.map(|key| key - gone);
                self.line_end = self.line_end.map(|at| at.saturating_sub(gone));
                if self.at > 1 << 20 {
                    // No name is that long.
                    self.key = None;
                }
            }
            if !source.more()? {
                return Ok(if keeps || limit.is_none() {
                    Stop::Torn
                } else {
                    let rest = source.bytes().len();
                    source.consume(rest);
                    Stop::TooLarge
                });
            }
        }
    }

    /// Walks over the bytes in hand; none if they do not suffice.
    fn walk(&mut self, bytes: &[u8], by_line: bool) -> Option<Stop> {
        while self.at < bytes.len() {
            if self.in_string {
                let rest = &bytes[self.at..];
                // No string goes over a line end.
                let found = match by_line || self.may_be_torn {
                    true => memchr::memchr3(b'"', b'\\', b'\n', rest),
                    false => memchr::memchr2(b'"', b'\\', rest),
                };
                let Some(found) = found else {
                    self.at = bytes.len();
                    return None;
                };
                match rest[found] {
                    b'\n' if by_line => return Some(Stop::Line(self.at + found)),
                    b'\n' => match rest.get(found + 1) {
                        Some(b'{') => return Some(Stop::Line(self.at + found)),
                        Some(_) => self.at += found + 1,
                        None => {
                            self.at += found;
                            return None;
                        }
                    },
                    b'\\' => {
                        // The escaped byte may not be in hand yet.
                        if self.at + found + 1 >= bytes.len() {
                            self.at += found;
                            return None;
                        }
                        self.at += found + 2;
                    }
                    _ => {
                        self.at += found + 1;
                        self.in_string = false;
                        if let Some(start) = self.key.take() {
                            self.names_container = CONTAINERS.contains(&&bytes[start..self.at]);
                        }
                    }
                }
                continue;
            }
            let byte = bytes[self.at];
            if self.may_be_torn && byte == b'{' && !matches!(self.last, 0 | b'[' | b',' | b':') {
                // Not JSON, unless it is the next one.
                if let Some(at) = self.line_end {
                    return Some(Stop::Line(at));
                }
            }
            match byte {
                b'\n' if self.line_end.is_none() => self.line_end = Some(self.at),
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => (self.last, self.line_end) = (byte, None),
            }
            self.at += 1;
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.names_container = false;
                    self.key = (self.depth == 1 && self.expects_key).then_some(self.at - 1);
                    self.expects_key = false;
                }
                b'{' | b'[' => {
                    if byte == b'[' && self.depth == 1 && self.names_container {
                        return Some(Stop::Container(self.at));
                    }
                    self.depth += 1;
                    self.expects_key = byte == b'{';
                    self.names_container = false;
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(Stop::End(self.at));
                    }
                }
                b',' => {
                    self.expects_key = self.depth == 1;
                    self.names_container = false;
                }
                b'\n' if by_line => return Some(Stop::Line(self.at - 1)),
                b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => self.names_container = false,
            }
        }
        None
    }
}

/// Reads one document; what could be read of it, and what was wrong.
pub fn parse(text: &str) -> (BiocDocument, Option<String>) {
    match serde_json::from_str::<BiocDocument>(text) {
        Ok(document) if document.passages.is_empty() => {
            let error = without_passages(text);
            (document, error)
        }
        Ok(document) => (document, None),
        Err(error) => {
            // The identifier, for the message, where the document is JSON at all.
            #[derive(Deserialize)]
            struct Named {
                #[serde(deserialize_with = "values::text")]
                id: String,
            }
            let id = serde_json::from_str::<Named>(text)
                .map(|named| named.id)
                .unwrap_or_default();
            let document = BiocDocument {
                id,
                ..BiocDocument::default()
            };
            (
                document,
                Some(format!("expected a BioC document: {error} of the document")),
            )
        }
    }
}

/// What is wrong with an object that has no passages; nothing if it says so itself.
fn without_passages(text: &str) -> Option<String> {
    const SHOWN: usize = 6;
    let members = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).ok()?;
    if members.contains_key("passages") {
        return None;
    }
    let keys: Vec<String> = members.keys().take(SHOWN).map(|key| quoted(key)).collect();
    let found = match members.len() {
        0 => "an empty object".to_owned(),
        1 => format!("the key {} alone", keys[0]),
        count => format!("the keys {}{}", keys.join(", "), if count > SHOWN { ", …" } else { "" }),
    };
    let is_record = ["text", "drug", "drug_text"]
        .iter()
        .any(|key| members.contains_key(*key));
    let question = match is_record {
        true => "; is this JSONL for crag score?",
        false => "",
    };
    Some(format!(
        "expected a BioC document with \"passages\", found {found}{question}"
    ))
}
