//! How what is to be UTF-8 begins, where it is something else.

/// What may stand before UTF-8, and is no part of it.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An encoding of Unicode in units of two or four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected UTF-8, found {encoding} ({sign}); convert it first, for example with iconv -f {encoding} -t UTF-8")]
pub struct WideEncoding {
    encoding: &'static str,
    sign: &'static str,
}

impl WideEncoding {
    /// So many bytes of a beginning tell it, or all where there are fewer.
    pub const TELLING_BYTES: usize = 4;

    /// By its byte order mark, or by zeros where texts in UTF-8 have none.
    pub fn of(beginning: &[u8]) -> Option<Self> {
        let (encoding, sign) = match beginning {
            [0xff, 0xfe, 0, 0, ..] => ("UTF-32", "it begins with the bytes ff fe 00 00"),
            [0, 0, 0xfe, 0xff, ..] => ("UTF-32", "it begins with the bytes 00 00 fe ff"),
            [0xff, 0xfe, ..] => ("UTF-16", "it begins with the bytes ff fe"),
            [0xfe, 0xff, ..] => ("UTF-16", "it begins with the bytes fe ff"),
            [1..=u8::MAX, 0, 0, 0, ..] => ("UTF-32LE", "three of four bytes are zero"),
            [0, 0, 0, 1..=u8::MAX, ..] => ("UTF-32BE", "three of four bytes are zero"),
            [1..=u8::MAX, 0, 1..=u8::MAX, 0, ..] => ("UTF-16LE", "every second byte is zero"),
            [0, 1..=u8::MAX, 0, 1..=u8::MAX, ..] => ("UTF-16BE", "every second byte is zero"),
            _ => return None,
        };
        Some(Self { encoding, sign })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wide_encoding_is_told_by_what_it_begins_with() {
        let of = |bytes: &[u8]| WideEncoding::of(bytes).map(|wide| wide.encoding);
        for (bytes, encoding) in [
            (&b"\xff\xfe{\0"[..], "UTF-16"),
            (b"\xff\xfe", "UTF-16"),
            (b"\xfe\xff\0{", "UTF-16"),
            (b"\xff\xfe\0\0{\0\0\0", "UTF-32"),
            (b"\0\0\xfe\xff\0\0\0{", "UTF-32"),
            (b"{\0\"\0", "UTF-16LE"),
            (b"\0{\0\"", "UTF-16BE"),
            (b"{\0\0\0", "UTF-32LE"),
            (b"\0\0\0{", "UTF-32BE"),
        ] {
            assert_eq!(of(bytes), Some(encoding), "{bytes:?}");
        }
        for text in ["", "a", "\u{feff}{}", "{\"text\":", "\u{fffd}", "\u{10ffff}"] {
            assert_eq!(of(text.as_bytes()), None, "{text:?}");
        }
    }
}
