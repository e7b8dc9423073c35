//! Bytes into lines: bounded length, byte order marks, line ends, blank lines. A row of a table is a line here,
//! also where a quoted field of it holds line ends.

use std::io::{self, Read};

use super::error::ScoreError;
use super::rows::RowEnds;
use crate::files::{BYTE_ORDER_MARK, WideEncoding};

/// One line, without its line end.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    Bytes(Vec<u8>),
    /// Longer than the limit: only the numbers of its bytes and, of a row of a table, of its lines are known.
    TooLong {
        bytes: u64,
        lines: usize,
    },
    /// ASCII whitespace alone (though an empty cell is not nothing: no delimiter either).
    Blank,
}

const CHUNK_BYTES: usize = 256 * 1024;

/// Splits one input into lines of at most `max_bytes`, counted without byte order mark and line end.
pub struct LineReader<R> {
    reader: R,
    name: String,
    max_bytes: usize,
    chunk: Box<[u8]>,
    filled: usize,
    position: usize,
    /// Bytes of all lines so far, line ends included.
    read: u64,
    first_line: bool,
    hasher: blake3::Hasher,
    digest: [u8; 32],
    ends: RowEnds,
    /// Line ends read so far, and whether the last line had none.
    line_ends: u64,
    unended: bool,
}

impl<R: Read> LineReader<R> {
    /// `ends` says where a line ends.
    pub fn new(reader: R, name: String, max_bytes: usize, ends: RowEnds) -> Self {
        let chunk = vec![0; CHUNK_BYTES].into_boxed_slice();
        Self {
            reader,
            name,
            max_bytes,
            chunk,
            filled: 0,
            position: 0,
            read: 0,
            first_line: true,
            ends,
            line_ends: 0,
            unended: false,
            hasher: blake3::Hasher::new(),
            digest: [0; 32],
        }
    }

    /// A hash of all lines so far, as they came: of each line's bytes without its line feed after the hash of the
    /// lines before it. Dropped bytes count; zeros before the first line.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// What lines are read from.
    pub fn into_inner(self) -> R {
        self.reader
    }

    /// How many lines there have been, as an editor counts them.
    pub fn lines(&self) -> u64 {
        self.line_ends + u64::from(self.unended)
    }

    /// Bytes of all lines so far, line ends and a byte order mark included.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// The next line with its number from 1 (of a row over several lines: of its first), or none at the end of the
    /// input. A last line need not have a line end.
    pub fn next_line(&mut self) -> Result<Option<(u64, Content)>, ScoreError> {
        let number = self.line_ends + 1;
        Ok(self.next_content()?.map(|content| (number, content)))
    }

    fn next_content(&mut self) -> Result<Option<Content>, ScoreError> {
        // Room for what is dropped at the end: a byte order mark and a carriage return.
        let keep = self.max_bytes.saturating_add(BYTE_ORDER_MARK.len() + 1);
        let mut line = Vec::new();
        let (mut total, mut last, mut blank) = (0u64, 0u8, true);
        let lines_before = self.line_ends;
        self.hasher.reset().update(&self.digest);
        loop {
            if self.position == self.filled && !self.fill()? {
                if total == 0 {
                    return Ok(None);
                }
                self.unended = true;
                break;
            }
            let rest = &self.chunk[self.position..self.filled];
            let end = self.ends.find(rest);
            let part = &rest[..end.unwrap_or(rest.len())];
            self.line_ends += self.ends.line_ends_in(part) + u64::from(end.is_some());
            if let Some(&byte) = part.last() {
                last = byte;
            }
            self.hasher.update(part);
            blank = blank && self.ends.are_blank(part);
            total += part.len() as u64;
            if total <= keep as u64 {
                line.extend_from_slice(part);
            } else {
                // Enough is kept to recognise a byte order mark; the memory goes back.
                let wanted = BYTE_ORDER_MARK.len().saturating_sub(line.len());
                line.extend_from_slice(&part[..part.len().min(wanted)]);
                line.truncate(BYTE_ORDER_MARK.len());
                line.shrink_to_fit();
            }
            let taken = part.len() + usize::from(end.is_some());
            self.position += taken;
            self.read += taken as u64;
            if end.is_some() {
                break;
            }
        }
        self.digest = self.hasher.finalize().into();
        let mut length = total;
        if std::mem::take(&mut self.first_line) {
            self.refuse_wide_encoding(&line)?;
            if line.starts_with(BYTE_ORDER_MARK) {
                length -= BYTE_ORDER_MARK.len() as u64;
                if total <= keep as u64 {
                    line.drain(..BYTE_ORDER_MARK.len());
                    blank = self.ends.are_blank(&line);
                }
            }
        }
        if length > 0 && last == b'\r' {
            length -= 1;
        }
        if blank {
            return Ok(Some(Content::Blank));
        }
        if length > self.max_bytes as u64 {
            let lines = (self.lines() - lines_before) as usize;
            return Ok(Some(Content::TooLong { bytes: length, lines }));
        }
        line.truncate(length as usize);
        Ok(Some(Content::Bytes(line)))
    }

    /// Reads once, however little comes. False at the end of the input.
    fn fill(&mut self) -> Result<bool, ScoreError> {
        loop {
            match self.reader.read(&mut self.chunk) {
                Ok(count) => {
                    (self.position, self.filled) = (0, count);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ScoreError::Read {
                        name: self.name.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// What of the beginning makes reading on senseless. For inputs that can be opened again: it reads some of this one.
    pub fn check_beginning(mut self) -> Result<(), ScoreError> {
        let mut beginning = Vec::new();
        let read = (&mut self.reader)
            .take(WideEncoding::TELLING_BYTES as u64)
            .read_to_end(&mut beginning);
        read.map_err(|source| ScoreError::Read {
            name: self.name.clone(),
            source,
        })?;
        self.refuse_wide_encoding(&beginning)
    }

    fn refuse_wide_encoding(&self, beginning: &[u8]) -> Result<(), ScoreError> {
        match WideEncoding::of(beginning) {
            None => Ok(()),
            Some(encoding) => Err(ScoreError::Encoding {
                name: self.name.clone(),
                encoding,
            }),
        }
    }
}

/// Of a line with more bytes than the limit, in a message.
pub fn too_long(limit: usize, found: u64) -> String {
    format!("expected at most {limit} bytes, found {found}; --max-line-bytes raises the limit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives at most `step` bytes at once.
    struct Trickle<'a>(&'a [u8], Vec<usize>);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let step = self.1.pop().unwrap_or(usize::MAX).clamp(1, buffer.len());
            let count = step.min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn lines_of(bytes: &[u8], max_bytes: usize, steps: Vec<usize>) -> Result<Vec<Content>, ScoreError> {
        let mut reader = LineReader::new(Trickle(bytes, steps), "test".into(), max_bytes, RowEnds::lines());
        let mut number = 0;
        let lines = std::iter::from_fn(|| reader.next_line().transpose());
        let lines = lines.map(|line| {
            line.map(|(found, content)| {
                number += 1;
                assert_eq!(found, number);
                content
            })
        });
        lines.collect()
    }

    fn all(bytes: &[u8]) -> Vec<Content> {
        lines_of(bytes, 1 << 20, vec![]).unwrap()
    }

    fn too_long(bytes: u64) -> Content {
        Content::TooLong { bytes, lines: 1 }
    }

    fn text(line: &str) -> Content {
        Content::Bytes(line.as_bytes().to_vec())
    }

    #[test]
    fn line_ends_of_both_kinds_and_none_at_the_end() {
        assert_eq!(all(b"a\nb\r\nc"), [text("a"), text("b"), text("c")]);
        assert_eq!(all(b"a\rb\r\r\nc\r"), [text("a\rb\r"), text("c")]);
        assert_eq!(all(b""), []);
    }

    #[test]
    fn blank_lines_are_told_apart() {
        assert_eq!(
            all(b"\n \t\r\na\n\r"),
            [Content::Blank, Content::Blank, text("a"), Content::Blank]
        );
        assert_eq!(lines_of(&[b' '; 1000], 10, vec![]).unwrap(), [Content::Blank]);
    }

    #[test]
    fn a_byte_order_mark_is_dropped_at_the_beginning_only() {
        assert_eq!(all(b"\xef\xbb\xbfa\n\xef\xbb\xbfb"), [text("a"), text("\u{feff}b")]);
        assert_eq!(all(b"\xef\xbb\xbf\r\nb"), [Content::Blank, text("b")]);
        assert_eq!(all(b"\xef\xbb\xbf"), [Content::Blank]);
        assert_eq!(lines_of(b"\xef\xbb\xbfabc\r\n", 3, vec![1; 9]).unwrap(), [text("abc")]);
        assert_eq!(lines_of(b"\xef\xbb\xbfabcd\r\n", 3, vec![1; 9]).unwrap(), [too_long(4)]);
        assert_eq!(
            lines_of(b"\xef\xbb\xbfabcdefghij\r\n", 3, vec![1; 9]).unwrap(),
            [too_long(10)]
        );
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_byte_more_does_not() {
        assert_eq!(
            lines_of(b"abc\r\nabcd\nab\n", 3, vec![]).unwrap(),
            [text("abc"), too_long(4), text("ab")]
        );
    }

    #[test]
    fn utf16_is_one_clear_error() {
        for (bytes, mark) in [
            (b"\xff\xfe{\0\n\0", "bytes ff fe"),
            (b"\xfe\xff\0{\0\n", "bytes fe ff"),
            (
                b"{\0}\0\n\0",
                "second byte is zero); convert it first, for example with iconv -f UTF-16LE",
            ),
            (b"\0{\0}\0\n", "iconv -f UTF-16BE"),
        ] {
            let message = lines_of(bytes, 100, vec![1; 9]).unwrap_err().to_string();
            assert!(message.contains("UTF-16") && message.contains(mark), "{message}");
        }
        assert!(lines_of(&[b"\xff\xfe".as_slice(), &[b'a'; 100]].concat(), 10, vec![3]).is_err());
    }

    #[test]
    fn an_overlong_line_is_read_past_without_being_kept() {
        let long = io::repeat(b'x').take(64 << 20).chain(&b"\nnext"[..]);
        let mut reader = LineReader::new(long, "test".into(), 1000, RowEnds::lines());
        assert_eq!(reader.next_line().unwrap(), Some((1, too_long(64 << 20))));
        assert_eq!(reader.next_line().unwrap(), Some((2, text("next"))));
        assert_eq!((reader.next_line().unwrap(), reader.lines()), (None, 2));
        assert_eq!(reader.bytes_read(), (64 << 20) + 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_split_into_reads_gives_the_same_lines(
            bytes in prop::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b' '), Just(0xef), Just(0xbb), Just(0xbf), Just(0xff), Just(0xfe), any::<u8>()],
                0..200),
            steps in prop::collection::vec(1usize..20, 0..100),
            max_bytes in 0usize..20,
        ) {
            let whole = lines_of(&bytes, max_bytes, vec![]).map_err(|e| e.to_string());
            let split = lines_of(&bytes, max_bytes, steps).map_err(|e| e.to_string());
            prop_assert_eq!(whole, split);
        }
    }
}
