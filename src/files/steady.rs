//! Whether a file that is read stays what it is meanwhile: what is cut short would look like its end.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

/// A file as it was when it was opened.
pub(super) struct Steady {
    file: File,
    /// Where reading begins.
    start: u64,
    modified: SystemTime,
}

/// Bytes that are read again at once.
const CHUNK_BYTES: usize = 256 * 1024;

impl Steady {
    /// For a file on a disk; none for pipes and the like.
    pub fn of(mut file: File) -> Option<Self> {
        let metadata = file.metadata().ok().filter(|metadata| metadata.is_file())?;
        Some(Self {
            start: file.stream_position().ok()?,
            modified: metadata.modified().ok()?,
            file,
        })
    }

    /// At the end of the file, after `bytes` of it, which `hasher` has seen.
    ///
    /// # Errors
    /// It holds less by now, or something else: it was written to meanwhile. What was added at its end does no harm.
    pub fn check(&self, bytes: u64, hasher: &Sha256) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        let left = metadata.len().saturating_sub(self.start);
        if left < bytes {
            return Err(io::Error::other(format!(
                "it was cut short while it was read: {bytes} bytes had been read, and {left} are left"
            )));
        }
        // Whoever only said that it was written to has changed nothing.
        if metadata.modified()? != self.modified && self.hash(bytes)? != hasher.clone().finalize().as_slice() {
            return Err(io::Error::other(
                "another program wrote to it while it was read, so what has been read is of no one file; read a copy that stays as it is",
            ));
        }
        Ok(())
    }

    /// The hash of the first `bytes` as they are now.
    fn hash(&self, bytes: u64) -> io::Result<[u8; 32]> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut done = 0;
        while done < bytes {
            let wanted = CHUNK_BYTES.min((bytes - done) as usize);
            match self.file.read_at(&mut buffer[..wanted], self.start + done)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    done += count as u64;
                }
            }
        }
        Ok(hasher.finalize().into())
    }
}
