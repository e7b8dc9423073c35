//! What arrives, held against the SHA-256 that the hub states of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest as _, Sha256};

use crate::words::hexadecimal;

/// The hash of a file's bytes so far; nothing where none is stated.
pub(super) struct Check(Option<(String, Sha256)>);

impl Check {
    /// `stated`: 64 hexadecimal digits.
    pub(super) fn new(stated: Option<&str>) -> Self {
        Self(stated.map(|stated| (stated.to_ascii_lowercase(), Sha256::new())))
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        if let Some((_, sha256)) = &mut self.0 {
            sha256.update(bytes);
        }
    }

    /// Adds the first `length` bytes of `file`, and leaves it behind them.
    pub(super) fn add_start(&mut self, file: &mut File, length: u64) -> io::Result<()> {
        if self.0.is_none() {
            file.seek(SeekFrom::Start(length))?;
            return Ok(());
        }
        file.rewind()?;
        let mut buffer = vec![0; 256 << 10];
        let mut left = length;
        while left > 0 {
            let most = left.min(buffer.len() as u64) as usize;
            file.read_exact(&mut buffer[..most])?;
            self.add(&buffer[..most]);
            left -= most as u64;
        }
        Ok(())
    }

    /// Whether these are the bytes; else both hashes, shortened.
    pub(super) fn finish(self) -> Result<(), String> {
        let Some((stated, sha256)) = self.0 else {
            return Ok(());
        };
        let found = hexadecimal(&sha256.finalize());
        match found == stated {
            true => Ok(()),
            false => Err(format!(
                "the SHA-256 of what arrived is {found:.12}…, the hub states {stated:.12}…; what arrived was thrown away"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_hash_is_of_all_bytes_whichever_way_they_came() {
        // What sha256sum says of "abc".
        let abc = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abxx").unwrap();
        let check = |held: u64, rest: &[u8], file: &mut File| {
            let mut check = Check::new(Some(abc));
            check.add_start(file, held).unwrap();
            assert_eq!(file.stream_position().unwrap(), held);
            check.add(rest);
            check.finish()
        };
        check(0, b"abc", &mut file).unwrap();
        check(2, b"c", &mut file).unwrap();
        let refused = check(3, b"c", &mut file).unwrap_err();
        assert!(refused.contains("the hub states ba7816bf8f01…;"), "{refused}");
        Check::new(None).finish().unwrap();
    }
}
