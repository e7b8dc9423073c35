//! Where bytes come from: stdin, a file, or any reader with a name; unpacked, and hashed as they lie there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use super::at_start::stdin_was_missing;
use super::compression::{Beginning, Compression, recognise};
use super::decompress::Decompressor;
use super::steady::Steady;
use super::waiting::Waiting;
use crate::words::hexadecimal;

/// Where bytes come from.
pub enum Input {
    Stdin,
    File(PathBuf),
    /// Any other source, with the name that messages give it.
    Reader(String, Box<dyn Read + Send>),
}

/// Compressed bytes read at once.
const BUFFER_BYTES: usize = 128 * 1024;

impl Input {
    /// Whether it gives the same bytes when it is opened once more.
    pub fn can_be_reread(&self) -> bool {
        matches!(self, Input::File(path) if path.is_file())
    }

    /// The name in messages.
    pub fn name(&self) -> String {
        match self {
            Input::Stdin => "<stdin>".to_owned(),
            Input::File(path) => path.display().to_string(),
            Input::Reader(name, _) => name.clone(),
        }
    }

    /// Opens the input and reads its first bytes: gzip, zstd and bzip2 are unpacked, once, whatever the name says.
    ///
    /// Errors where it cannot be opened or read, and on other compressed formats.
    pub fn open(self) -> io::Result<OpenInput> {
        self.open_measured(Arc::default())
    }

    /// As [`Self::open`]; what is unpacked is added to `gauge`.
    pub fn open_measured(self, gauge: Arc<Gauge>) -> io::Result<OpenInput> {
        let promised = match &self {
            Input::File(path) => Compression::of_name(path),
            _ => None,
        };
        let mut steady = None;
        let raw: Box<dyn Read + Send> = match self {
            Input::Stdin if stdin_was_missing() => {
                return Err(io::Error::other("it is closed, or not open for reading"));
            }
            Input::Stdin => {
                steady = io::stdin()
                    .as_fd()
                    .try_clone_to_owned()
                    .ok()
                    .and_then(|fd| Steady::of(fd.into()));
                Box::new(Waiting(io::stdin()))
            }
            Input::File(path) => {
                let file = File::open(path)?;
                // Reading a folder would say so too, but not what to do.
                if file.metadata()?.is_dir() {
                    return Err(io::Error::new(
                        io::ErrorKind::IsADirectory,
                        "expected a file, found a folder",
                    ));
                }
                steady = file.try_clone().ok().and_then(Steady::of);
                Box::new(file)
            }
            Input::Reader(_, reader) => reader,
        };
        let mut raw = Hashing {
            inner: raw,
            hasher: Sha256::new(),
            bytes: 0,
            ended: false,
            steady,
        };
        let (beginning, compression) = recognise(&mut raw, promised)?;
        let whole = Cursor::new(beginning).chain(raw);
        let bytes = match compression {
            None => Bytes::Plain(whole),
            Some(compression) => {
                let compressed = Measured {
                    inner: BufReader::with_capacity(BUFFER_BYTES, whole),
                    gauge: Arc::clone(&gauge),
                };
                Bytes::Compressed(Box::new(Decompressor::new(compressed, compression)?), gauge)
            }
        };
        let beginning = Beginning::new(compression);
        Ok(OpenInput { bytes, beginning })
    }
}

/// How much compressed inputs have grown by unpacking them, so far. Shared with whoever watches.
#[derive(Debug, Default)]
pub struct Gauge {
    compressed: AtomicU64,
    unpacked: AtomicU64,
}

impl Gauge {
    /// What `compressed` bytes of such inputs would become, in bytes; none before anything has been unpacked.
    pub fn unpacked(&self, compressed: u64) -> Option<u64> {
        let (read, became) = (
            self.compressed.load(Ordering::Relaxed),
            self.unpacked.load(Ordering::Relaxed),
        );
        (read > 0 && became > 0).then(|| (compressed as f64 * (became as f64 / read as f64)).round() as u64)
    }
}

/// Compressed bytes, counted as they are used up.
struct Measured<R> {
    inner: R,
    gauge: Arc<Gauge>,
}

impl<R: BufRead> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.gauge.compressed.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Measured<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.gauge.compressed.fetch_add(count as u64, Ordering::Relaxed);
        self.inner.consume(count);
    }
}

/// An input being read.
pub struct OpenInput {
    bytes: Bytes,
    beginning: Beginning,
}

type Raw = Chain<Cursor<Vec<u8>>, Hashing>;

enum Bytes {
    Plain(Raw),
    Compressed(Box<Decompressor<Measured<BufReader<Raw>>>>, Arc<Gauge>),
}

impl Read for OpenInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.bytes {
            Bytes::Plain(raw) => raw.read(buffer)?,
            Bytes::Compressed(decompressor, gauge) => {
                let count = decompressor.read(buffer)?;
                gauge.unpacked.fetch_add(count as u64, Ordering::Relaxed);
                count
            }
        };
        self.beginning.pass(&buffer[..count])?;
        Ok(count)
    }
}

impl OpenInput {
    /// What has been read, as it lies in the file. Reads on to the end first, where the end has not been reached.
    pub fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        let raw = match self.bytes {
            Bytes::Plain(raw) => Some(raw),
            Bytes::Compressed(decompressor, _) => decompressor
                .into_inner()
                .map(|compressed| compressed.inner.into_inner()),
        };
        let hashing = raw.map(|raw| raw.into_inner().1);
        let hashing = hashing.ok_or_else(|| io::Error::other("read on after an error"))?;
        Ok(Digest {
            bytes: hashing.bytes,
            sha256: hashing.hasher.finalize().into(),
        })
    }
}

/// Names an input by its content: all its bytes, as they lie in the file (compressed, if they are).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    pub bytes: u64,
    pub sha256: [u8; 32],
}

impl Digest {
    /// The SHA-256 as `sha256sum` prints it.
    pub fn sha256_hex(&self) -> String {
        hexadecimal(&self.sha256)
    }
}

/// Hashes what passes, and reads again where a signal came between.
struct Hashing {
    inner: Box<dyn Read + Send>,
    hasher: Sha256,
    bytes: u64,
    /// A terminal goes on after its end, and would have to be told again that this was it.
    ended: bool,
    /// Of a file.
    steady: Option<Steady>,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            match self.inner.read(buffer) {
                Ok(count) => {
                    self.ended = count == 0;
                    if let Some(steady) = self.steady.as_ref().filter(|_| self.ended) {
                        steady.check(self.bytes, &self.hasher)?;
                    }
                    self.hasher.update(&buffer[..count]);
                    self.bytes += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests;
