//! A stream of bytes through a window that grows only as far as its reader wants: lines, and bytes in hand.

use std::io::{self, Read};
use std::sync::Arc;

use super::report::{CorpusError, Place, Problem, Reason};
use crate::files::{BYTE_ORDER_MARK, WideEncoding};

const CHUNK_BYTES: usize = 256 * 1024;
/// A window that one large document has grown goes back to this.
const KEPT_BYTES: usize = 4 * CHUNK_BYTES;
/// What is kept of a line that is too long: enough to tell whose it is.
const PREFIX_BYTES: usize = 256;

pub struct Source {
    reader: Box<dyn Read + Send>,
    name: Arc<str>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    line: u64,
    at_end: bool,
}

/// One line without its line end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// So many bytes in hand.
    Whole(usize),
    /// Longer than the limit: its first bytes. It has been read past.
    TooLong(Vec<u8>),
}

impl Source {
    pub fn new(reader: Box<dyn Read + Send>, name: &str) -> Self {
        Self {
            reader,
            name: Arc::from(name),
            buffer: vec![0; CHUNK_BYTES],
            start: 0,
            end: 0,
            line: 1,
            at_end: false,
        }
    }

    /// The place of the first byte in hand.
    pub fn place(&self) -> Place {
        self.place_at(self.line)
    }

    pub fn place_at(&self, line: u64) -> Place {
        Place {
            file: self.name.clone(),
            line,
            document: String::new(),
        }
    }

    pub fn line(&self) -> u64 {
        self.line
    }

    /// The bytes in hand.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Reads once, however little comes, behind the bytes in hand. False at the end of the stream.
    pub fn more(&mut self) -> Result<bool, CorpusError> {
        if self.at_end {
            return Ok(false);
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > KEPT_BYTES {
                self.buffer = vec![0; CHUNK_BYTES];
            }
        }
        if self.end == self.buffer.len() {
            if self.start > self.buffer.len() / 2 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    self.at_end = count == 0;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let name = self.name.to_string();
                    return Err(CorpusError::Read { name, source });
                }
            }
        }
    }

    /// Lets go of the first `count` bytes in hand.
    pub fn consume(&mut self, count: usize) {
        let gone = &self.buffer[self.start..self.start + count];
        self.line += memchr::memchr_iter(b'\n', gone).count() as u64;
        self.start += count;
    }

    /// Drops a byte order mark and whitespace at the beginning of the stream, and says which byte comes first.
    /// The problem of a stream in another encoding of Unicode, or where `refused` is first.
    pub fn begin(&mut self, refused: &[u8], expected: &str) -> Result<Result<Option<u8>, Problem>, CorpusError> {
        while self.bytes().len() < WideEncoding::TELLING_BYTES && self.more()? {}
        let problem = |place: Place, message: String| Problem::new(place, Reason::WrongFormat, message);
        if let Some(wide) = WideEncoding::of(self.bytes()) {
            return Ok(Err(problem(self.place(), wide.to_string())));
        }
        if self.bytes().starts_with(BYTE_ORDER_MARK) {
            self.consume(BYTE_ORDER_MARK.len());
        }
        loop {
            if let Some(at) = self.bytes().iter().position(|byte| !byte.is_ascii_whitespace()) {
                let first = self.bytes()[at];
                if refused.contains(&first) {
                    let message = format!("expected {expected}, found {:?} at the beginning", char::from(first));
                    return Ok(Err(problem(self.place(), message)));
                }
                return Ok(Ok(Some(first)));
            }
            let count = self.bytes().len();
            self.consume(count);
            if !self.more()? {
                return Ok(Ok(None));
            }
        }
    }

    /// The next line, of at most `max_bytes`; [`Source::end_line`] lets go of a whole one. None at the end.
    pub fn next_line(&mut self, max_bytes: usize) -> Result<Option<Line>, CorpusError> {
        let mut seen = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.bytes()[seen..]) {
                let mut length = seen + at;
                if length > 0 && self.bytes()[length - 1] == b'\r' {
                    length -= 1;
                }
                if length > max_bytes {
                    break;
                }
                return Ok(Some(Line::Whole(length)));
            }
            seen = self.bytes().len();
            // One byte more may be a carriage return.
            if seen > max_bytes.saturating_add(1) {
                break;
            }
            if !self.more()? {
                let length = seen - usize::from(self.bytes().ends_with(b"\r"));
                return Ok((seen > 0).then_some(Line::Whole(length)));
            }
        }
        let prefix = self.bytes()[..self.bytes().len().min(PREFIX_BYTES)].to_vec();
        loop {
            match memchr::memchr(b'\n', self.bytes()) {
                Some(at) => {
                    self.consume(at + 1);
                    return Ok(Some(Line::TooLong(prefix)));
                }
                None => {
                    let count = self.bytes().len();
                    self.consume(count);
                    if !self.more()? {
                        return Ok(Some(Line::TooLong(prefix)));
                    }
                }
            }
        }
    }

    /// Lets go of a line of `length` bytes and of its line end.
    pub fn end_line(&mut self, length: usize) {
        let rest = &self.bytes()[length..];
        let line_end =
            usize::from(rest.starts_with(b"\r")) + usize::from(matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..]));
        self.consume(length + line_end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Trickle(io::Cursor<Vec<u8>>);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut buffer[..1])
        }
    }

    fn lines(bytes: &[u8], max_bytes: usize) -> Vec<Result<String, String>> {
        let read = |reader: Box<dyn Read + Send>| {
            let mut source = Source::new(reader, "test");
            source.begin(b"", "").unwrap().unwrap();
            let mut lines = Vec::new();
            while let Some(line) = source.next_line(max_bytes).unwrap() {
                lines.push(match line {
                    Line::Whole(length) => {
                        let text = String::from_utf8_lossy(&source.bytes()[..length]).into_owned();
                        source.end_line(length);
                        Ok(text)
                    }
                    Line::TooLong(prefix) => Err(String::from_utf8_lossy(&prefix).into_owned()),
                });
            }
            (lines, source.line())
        };
        let whole = read(Box::new(io::Cursor::new(bytes.to_vec())));
        let trickled = read(Box::new(Trickle(io::Cursor::new(bytes.to_vec()))));
        assert_eq!(whole.1, 1 + bytes.iter().filter(|&&byte| byte == b'\n').count() as u64);
        let whole_lines =
            |lines: &[Result<String, String>]| lines.iter().map(|line| line.clone().ok()).collect::<Vec<_>>();
        assert_eq!(whole_lines(&whole.0), whole_lines(&trickled.0));
        whole.0
    }

    #[test]
    fn lines_end_in_either_way_or_not_at_all() {
        let all = |bytes| lines(bytes, 100).into_iter().map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(all(b"a\nb\r\n\nc"), ["a", "b", "", "c"]);
        assert_eq!(all(b"\xef\xbb\xbfa\rb\r\r\nc\r"), ["a\rb\r", "c"]);
        assert_eq!(all(b""), [""; 0]);
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_byte_more_does_not() {
        let found = lines(b"abc\r\nabcd\nab\nabcde", 3);
        assert_eq!(found[0], Ok("abc".into()));
        assert_eq!(found[2], Ok("ab".into()));
        assert!(found[1].is_err() && found[3].is_err(), "{found:?}");
    }

    #[test]
    fn a_long_stream_of_lines_takes_no_more_than_the_window() {
        // Of a length that does not divide the window's, so that it never ends with a line.
        let line = [&[b'x'; 998][..], b"\n"].concat();
        let mut source = Source::new(Box::new(io::Cursor::new(line.repeat(16 << 10))), "test");
        let mut lines = 0;
        while let Some(line) = source.next_line(1000).unwrap() {
            assert_eq!(line, Line::Whole(998));
            source.end_line(998);
            assert_eq!(source.buffer.len(), CHUNK_BYTES);
            lines += 1;
        }
        assert_eq!(lines, 16 << 10);
    }

    #[test]
    fn an_endless_line_is_read_past_without_being_kept() {
        let reader = io::repeat(b'x').take(64 << 20).chain(&b"\nnext"[..]);
        let mut source = Source::new(Box::new(reader), "test");
        let line = source.next_line(1000).unwrap();
        assert_eq!(line, Some(Line::TooLong(vec![b'x'; PREFIX_BYTES])));
        assert!(source.buffer.len() <= KEPT_BYTES);
        assert_eq!(source.next_line(1000).unwrap(), Some(Line::Whole(4)));
        assert_eq!(source.line(), 2);
    }

    #[test]
    fn utf16_and_other_formats_are_one_clear_problem() {
        for bytes in [&b"\xff\xfe1\0|\0"[..], b"1\x002\0|\0", b"\xef\xbb\xbf \n<x>"] {
            let mut source = Source::new(Box::new(io::Cursor::new(bytes.to_vec())), "test");
            let problem = source.begin(b"<", "PubTator").unwrap().unwrap_err();
            assert_eq!(problem.reason, Reason::WrongFormat);
        }
    }
}
