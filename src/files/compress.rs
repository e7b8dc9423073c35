//! Bytes into members (gzip), frames (zstd) or streams (bzip2), each whole in itself: a file of several reads as one.

use std::io::{self, Write as _};

use super::Compression;

/// What a member of a compressed output is made of, about.
pub const MEMBER_BYTES: usize = 1 << 20;

/// `bytes` as one member. Equal bytes give equal members.
pub fn compress(compression: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let member = Vec::with_capacity(bytes.len() / 4 + 64);
    match compression {
        Compression::Gzip => {
            // The header has no time and no name.
            let mut encoder = flate2::write::GzEncoder::new(member, flate2::Compression::default());
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(member, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(member, bzip2::Compression::best());
            encoder.write_all(bytes)?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Input;
    use std::io::{Cursor, Read as _};

    #[test]
    fn members_after_one_another_read_as_one() {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::Bzip2] {
            let parts = [b"first\n".to_vec(), vec![b'x'; 100_000], Vec::new(), b"last\n".to_vec()];
            let members: Vec<Vec<u8>> = parts.iter().map(|part| compress(compression, part).unwrap()).collect();
            assert_eq!(
                members[1],
                compress(compression, &parts[1]).unwrap(),
                "{compression}: not the same again"
            );
            let input = Input::Reader("test".to_owned(), Box::new(Cursor::new(members.concat())));
            let mut read = Vec::new();
            input.open().unwrap().read_to_end(&mut read).unwrap();
            assert!(read == parts.concat(), "{compression}");
        }
    }
}
