//! Compressed bytes into plain ones: every member of a gzip file, frame of a zstd file, stream of a bzip2 file.
//!
//! The libraries decode one member each; what comes after one is decided here, the same for all formats: the end,
//! another member, padding with zeros (tapes and block devices leave it; ignored), or an error. Nothing is ever
//! passed over in silence.

use std::io::{self, BufRead, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::compression::{Compression, broken_off};

/// The memory that a zstd frame may ask for is 128 MiB, zstd's own limit unless `--long` is given to unpack too. Its
/// largest is 2 GiB, which a few bytes from anywhere can ask for.
const ZSTD_WINDOW_LOG: u32 = 27;
/// What the library says of a frame that asks for more.
const ZSTD_WINDOW_TOO_LARGE: &str = "Frame requires too much memory for decoding";

/// Decodes all of `R`.
pub struct Decompressor<R: BufRead> {
    compression: Compression,
    state: State<R>,
}

enum State<R: BufRead> {
    Gzip(Box<GzDecoder<R>>),
    Zstd(ZstdDecoder<'static, R>),
    Bzip2(BzDecoder<R>),
    End(R),
    Failed,
}

impl<R: BufRead> Decompressor<R> {
    /// `reader` has been recognised as `compression`.
    pub fn new(reader: R, compression: Compression) -> io::Result<Self> {
        let state = State::begin(reader, compression)?;
        Ok(Self { compression, state })
    }

    /// What all was read from, none before the end or after an error.
    pub fn into_inner(self) -> Option<R> {
        match self.state {
            State::End(reader) => Some(reader),
            _ => None,
        }
    }

    /// After a member: the next one, or the end.
    fn go_on(&mut self, mut reader: R) -> io::Result<State<R>> {
        match reader.fill_buf()?.first() {
            None => Ok(State::End(reader)),
            Some(&first) if self.compression.may_begin_with(first) => State::begin(reader, self.compression),
            Some(_) => {
                self.expect_padding(&mut reader)?;
                Ok(State::End(reader))
            }
        }
    }

    /// Reads to the end, which zeros alone may come before.
    fn expect_padding(&self, reader: &mut R) -> io::Result<()> {
        loop {
            let rest = reader.fill_buf()?;
            if rest.is_empty() {
                return Ok(());
            }
            if let Some(byte) = rest.iter().find(|&&byte| byte != 0) {
                let message = format!(
                    "expected the end or more {} data after the compressed data, found the byte 0x{byte:02x}; \
                     is the file damaged or cut together wrongly?",
                    self.compression
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            let length = rest.len();
            reader.consume(length);
        }
    }

    /// What a library says, as the file's owner needs it.
    fn explain(&self, error: io::Error) -> io::Error {
        let compression = self.compression;
        if error.raw_os_error().is_some() {
            return error;
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return broken_off(compression);
        }
        if compression == Compression::Zstd && error.to_string() == ZSTD_WINDOW_TOO_LARGE {
            return io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the zstd data was made with --long and needs more than {} MiB of memory to unpack; unpack it first, \
                     for example with zstd -dc --long=31 FILE | crag …",
                    (1u64 << ZSTD_WINDOW_LOG) >> 20
                ),
            );
        }
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the {compression} data is damaged: {error}"),
        )
    }
}

impl<R: BufRead> State<R> {
    fn begin(reader: R, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Gzip => State::Gzip(Box::new(GzDecoder::new(reader))),
            Compression::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(reader)?.single_frame();
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                State::Zstd(decoder)
            }
            Compression::Bzip2 => State::Bzip2(BzDecoder::new(reader)),
        })
    }
}

impl<R: BufRead> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The libraries could not tell "no room" from "no more".
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let read = match &mut self.state {
                State::Gzip(decoder) => decoder.read(buffer),
                State::Zstd(decoder) => decoder.read(buffer),
                State::Bzip2(decoder) => decoder.read(buffer),
                State::End(_) | State::Failed => return Ok(0),
            };
            match read {
                Ok(0) => {}
                Ok(count) => return Ok(count),
                Err(error) => {
                    // A reader that goes on after an error must not meet a half-read member again.
                    self.state = State::Failed;
                    return Err(self.explain(error));
                }
            }
            let reader = match std::mem::replace(&mut self.state, State::Failed) {
                State::Gzip(decoder) => decoder.into_inner(),
                State::Zstd(decoder) => decoder.finish(),
                State::Bzip2(decoder) => decoder.into_inner(),
                State::End(_) | State::Failed => return Ok(0),
            };
            self.state = self.go_on(reader)?;
        }
    }
}
