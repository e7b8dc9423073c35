//! The compressed formats: by which bytes a file says that it is one, and which endings name it; and what is no text
//! at all.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A compressed format that is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    Bzip2,
}

/// Longest beginning that [`recognise`] has to see.
const MAGIC_BYTES: usize = 10;
/// Of zstd's skippable frames (parallel compressors begin with one): the first byte is any of 0x50 to 0x5f.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// After `BZh` and a digit: a block (the digits of pi), or the end of an empty stream (of its square root).
/// A text may well begin with `BZh9`; these bytes no text has.
const BZIP2_NEXT: [[u8; 6]; 2] = [*b"\x31\x41\x59\x26\x53\x59", *b"\x17\x72\x45\x38\x50\x90"];
/// What is often met, is not read here, and would otherwise become a file of unreadable lines: how it begins, what it is,
/// and the way out.
const UNREAD: [(&[u8], &str, &str); 6] = [
    (b"\xfd7zXZ\0", "xz", "unpack it first, for example with xz -dc"),
    (
        b"PK\x03\x04",
        "zip",
        "save a spreadsheet (.xlsx, .ods) as \"CSV UTF-8\"; unpack anything else first, for example with unzip -p",
    ),
    (b"\x04\x22\x4d\x18", "lz4", "unpack it first, for example with lz4 -dc"),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "a file of an old Office program",
        "save a spreadsheet (.xls) as \"CSV UTF-8\"",
    ),
    // Its fourth byte alone might begin a table's header.
    (
        b"PAR1\x15",
        "Parquet",
        "write it as JSONL or CSV first, for example with pandas or DuckDB",
    ),
    (b"%PDF-", "PDF", "extract its text first"),
];

impl Compression {
    /// By the ending of a name: `.gz`, `.zst` or `.bz2`, in upper or lower case.
    pub fn of_name(name: &Path) -> Option<Self> {
        let ending = name.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "gz" => Some(Compression::Gzip),
            "zst" => Some(Compression::Zstd),
            "bz2" => Some(Compression::Bzip2),
            _ => None,
        }
    }

    /// By the bytes that the file at `path` begins with; none where they are not compressed.
    pub fn of_file(path: &Path) -> io::Result<Option<Self>> {
        Ok(recognise(&mut File::open(path)?, None)?.1)
    }

    /// Whether a further member, stream or frame of this format can begin with `first`.
    pub(super) fn may_begin_with(self, first: u8) -> bool {
        match self {
            Compression::Gzip => first == 0x1f,
            Compression::Zstd => first == 0x28 || first & 0xf0 == 0x50,
            Compression::Bzip2 => first == b'B',
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Bzip2 => "bzip2",
        })
    }
}

/// What a beginning says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Plain,
    Compressed(Compression),
    Unread {
        format: &'static str,
        way_out: &'static str,
    },
    /// More bytes are needed to tell.
    Open,
}

fn judge(beginning: &[u8]) -> Verdict {
    let mut open = false;
    let mut is = |magic: &[u8]| {
        open |= beginning.len() < magic.len() && magic.starts_with(beginning);
        beginning.starts_with(magic)
    };
    if is(b"\x1f\x8b") {
        return Verdict::Compressed(Compression::Gzip);
    }
    if is(b"\x28\xb5\x2f\xfd") {
        return Verdict::Compressed(Compression::Zstd);
    }
    for (magic, format, way_out) in UNREAD {
        if is(magic) {
            return Verdict::Unread { format, way_out };
        }
    }
    if let [0x50..=0x5f, rest @ ..] = beginning {
        if rest.starts_with(&SKIPPABLE) {
            return Verdict::Compressed(Compression::Zstd);
        }
        open |= SKIPPABLE.starts_with(rest);
    }
    let level = beginning.get(3).copied();
    if b"BZh".starts_with(&beginning[..beginning.len().min(3)]) && level.is_none_or(|b| matches!(b, b'1'..=b'9')) {
        let rest = beginning.get(4..).unwrap_or_default();
        if BZIP2_NEXT.iter().any(|next| rest.starts_with(next)) {
            return Verdict::Compressed(Compression::Bzip2);
        }
        open |= BZIP2_NEXT.iter().any(|next| next.starts_with(rest));
    }
    if open { Verdict::Open } else { Verdict::Plain }
}

/// Compressed data ends before its format says so.
pub(super) fn broken_off(compression: Compression) -> io::Error {
    let message = format!("the {compression} data breaks off; the file is incomplete, fetch or write it again");
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

/// Reads as few bytes as tell what the input is, and returns them with it (none: nothing is compressed). `promised`
/// is what the input's name says; one that ends before its bytes say so too has been cut short.
///
/// Never waits for a byte that is not needed: `{` alone decides, so that a slow producer's first line is answered
/// at once. Errors, with the way out, on a format that is not read here.
pub(super) fn recognise(
    reader: &mut impl Read,
    promised: Option<Compression>,
) -> io::Result<(Vec<u8>, Option<Compression>)> {
    let mut beginning = Vec::with_capacity(MAGIC_BYTES);
    loop {
        let mut byte = [0];
        if reader.read(&mut byte)? == 0 {
            return match promised {
                None => Ok((beginning, None)),
                Some(compression) => Err(broken_off(compression)),
            };
        }
        beginning.push(byte[0]);
        match judge(&beginning) {
            Verdict::Plain => return Ok((beginning, None)),
            Verdict::Compressed(compression) => return Ok((beginning, Some(compression))),
            Verdict::Unread { format, way_out } => return Err(unread(format, way_out)),
            Verdict::Open => {}
        }
    }
}

fn unread(format: impl fmt::Display, way_out: &str) -> io::Error {
    let message = format!("expected text, or gzip, zstd or bzip2 of it, found {format}; {way_out}");
    io::Error::new(io::ErrorKind::Unsupported, message)
}

/// The first bytes of what has been unpacked, or was not packed, where it is no text although [`recognise`] could not say
/// so: a tar archive tells itself far within its first header, and what is packed twice only once it is unpacked.
pub(super) struct Beginning {
    /// As much as has passed of what tells.
    seen: Vec<u8>,
    packed: Option<Compression>,
}

/// Where a tar archive says what it is, POSIX's and GNU's: after a name that is filled up with zeros.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");
const TAR_NAME_BYTES: usize = 100;

impl Beginning {
    /// `packed`: what the bytes that will pass were unpacked from.
    pub fn new(packed: Option<Compression>) -> Self {
        let seen = Vec::new();
        Self { seen, packed }
    }

    /// Looks at bytes on their way. Errors, with the way out, once they are known to be no text; a tar archive's header
    /// has no end of line before that.
    pub fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (at, magic) = TAR_MAGIC;
        let wanted = at + magic.len() - self.seen.len();
        if wanted == 0 || bytes.is_empty() {
            return Ok(());
        }
        self.seen.extend_from_slice(&bytes[..bytes.len().min(wanted)]);
        if self.seen.ends_with(magic) && self.seen.len() == at + magic.len() && self.seen[..TAR_NAME_BYTES].contains(&0)
        {
            return Err(unread(
                "a tar archive",
                "unpack it first, for example with tar -xOf FILE | crag …",
            ));
        }
        let Some(outer) = self.packed else { return Ok(()) };
        match judge(&self.seen) {
            Verdict::Compressed(inner) => Err(unread(
                format_args!("{inner} within {outer}"),
                "unpack it once more first",
            )),
            Verdict::Unread { format, way_out } => Err(unread(format_args!("{format} within {outer}"), way_out)),
            Verdict::Plain | Verdict::Open => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recognised(bytes: &[u8]) -> (Vec<u8>, Option<Compression>) {
        recognise(&mut &bytes[..], None).unwrap()
    }

    #[test]
    fn a_record_is_plain_after_one_byte() {
        assert_eq!(recognised(b"{\"a\":1}"), (b"{".to_vec(), None));
        assert_eq!(recognised(b"\xef\xbb\xbfa"), (b"\xef".to_vec(), None));
        assert_eq!(recognised(b""), (vec![], None));
        assert_eq!(recognised(b"\x1f"), (vec![0x1f], None));
    }

    #[test]
    fn text_that_begins_like_an_archive_is_text() {
        for text in [
            "BZh9,text",
            "B",
            "BZh",
            "BZh91AY&SX",
            "P",
            "PK,",
            "P*M,",
            "(",
            "Q*M\u{19}",
            "BZh0",
        ] {
            assert_eq!(recognised(text.as_bytes()).1, None, "{text}");
        }
    }

    #[test]
    fn each_format_is_told_by_its_first_bytes() {
        for (magic, compression) in [
            (b"\x1f\x8b".as_slice(), Compression::Gzip),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x50\x2a\x4d\x18", Compression::Zstd),
            (b"\x5f\x2a\x4d\x18", Compression::Zstd),
            (b"BZh91AY&SY", Compression::Bzip2),
            (b"BZh1\x17\x72\x45\x38\x50\x90", Compression::Bzip2),
        ] {
            assert_eq!(recognised(magic), (magic.to_vec(), Some(compression)));
        }
    }

    #[test]
    fn formats_that_are_not_read_name_the_way_out() {
        for (magic, format, way_out) in UNREAD {
            let message = recognise(&mut &magic[..], None).unwrap_err().to_string();
            assert!(message.contains(format) && message.contains(way_out), "{message}");
        }
    }

    #[test]
    fn what_is_no_text_is_told_wherever_its_bytes_are_cut() {
        let mut header = [0; 512];
        header[..11].copy_from_slice(b"pairs.jsonl");
        header[257..262].copy_from_slice(b"ustar");
        let passes = |bytes: &[u8], at: usize, packed| {
            let mut beginning = Beginning::new(packed);
            let (one, other) = bytes.split_at(at);
            [one, other].into_iter().try_for_each(|bytes| beginning.pass(bytes))
        };
        for at in [0, 1, 257, 261, 262, 512] {
            for packed in [None, Some(Compression::Gzip)] {
                let message = passes(&header, at, packed).unwrap_err().to_string();
                assert!(message.contains("a tar archive; unpack it first"), "{message}");
            }
            // A text of that many letters may have the word in it.
            let text = [&[b'x'; 257], b"ustar is a word".as_slice()].concat();
            passes(&text, at.min(text.len()), Some(Compression::Zstd)).unwrap();
        }
        for at in 0..=10 {
            let message = passes(b"BZh91AY&SY", at, Some(Compression::Gzip))
                .unwrap_err()
                .to_string();
            assert!(message.contains("bzip2 within gzip; unpack it once more"), "{message}");
            passes(b"BZh91AY&SX", at, Some(Compression::Gzip)).unwrap();
        }
        let message = passes(b"PK\x03\x04", 2, Some(Compression::Zstd))
            .unwrap_err()
            .to_string();
        assert!(message.contains("zip within zstd; save a spreadsheet"), "{message}");
    }

    #[test]
    fn endings_name_the_format() {
        for (name, expected) in [
            ("a.jsonl.gz", Some(Compression::Gzip)),
            ("a.ZST", Some(Compression::Zstd)),
            ("b/a.csv.bz2", Some(Compression::Bzip2)),
            ("a.gz/b", None),
            ("gz", None),
        ] {
            assert_eq!(Compression::of_name(Path::new(name)), expected, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_read_that_is_not_handed_on(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut rest = &bytes[..];
            if let Ok((beginning, _)) = recognise(&mut rest, None) {
                prop_assert!(beginning.len() <= MAGIC_BYTES);
                prop_assert_eq!([&beginning[..], rest].concat(), bytes);
            }
        }
    }
}
