//! A weight file in memory, and whether another program has written to it since.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::CheckpointError;

/// A file that is mapped for reading, by parts or as a whole, for as long as this or the map lives.
///
/// A program that puts a new file into the place of the old one, as `mv` and [`write_safetensors`](super::write_safetensors) do, leaves
/// the mapped one as it is. One that writes into the file changes the numbers under whoever computes with them; nothing keeps
/// it from that, so whoever has computed asks [`Self::check_unchanged`] before the result is used.
#[derive(Debug)]
pub struct MappedFile {
    /// For messages.
    name: String,
    file: File,
    opened: Written,
    map: Arc<Mmap>,
}

impl MappedFile {
    /// The file at `path`, which must be a regular one.
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let failed = |source| CheckpointError::io(path, "opening the weights failed", source);
        let name = path.display().to_string();
        // Looked at before it is opened, since opening a pipe waits for whoever writes to it.
        if !path.metadata().map_err(failed)?.is_file() {
            return Err(CheckpointError::malformed(name, NO_FILE));
        }
        let file = File::open(path).map_err(failed)?;
        let opened = Written::of(&file.metadata().map_err(failed)?);
        if opened.length == 0 {
            return Err(CheckpointError::malformed(
                name,
                "the file is empty; copy or download it again",
            ));
        }
        // SAFETY: the map is read only. What cannot be ruled out from here is that another process writes to the file
        // meanwhile: if it overwrites bytes, numbers read later are the new ones (every bit pattern is a valid f32, f16
        // or bf16, and each offset is checked against the length at opening, so nothing goes out of bounds), which
        // `check_unchanged` tells; if it truncates the file, touching a lost page ends the process with SIGBUS.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Self {
            name,
            file,
            opened,
            map: Arc::new(map),
        })
    }

    pub(super) fn map(&self) -> &Arc<Mmap> {
        &self.map
    }

    /// Of the time at which it was written.
    pub(super) fn nanoseconds(&self) -> u32 {
        u32::try_from(self.opened.time.1).unwrap_or_default()
    }

    /// Errors if the file has been written to since it was opened: what was read of it may be of two models.
    pub fn check_unchanged(&self) -> Result<(), CheckpointError> {
        let now = self.file.metadata();
        let now = now.map_err(|source| CheckpointError::io(&self.name, "asking when it was written failed", source))?;
        match Written::of(&now) == self.opened {
            true => Ok(()),
            false => Err(CheckpointError::Changed {
                file: self.name.clone(),
            }),
        }
    }
}

pub(super) const NO_FILE: &str = "not a regular file";

/// When a file was last written to, and how long it was then.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    length: u64,
    /// Seconds and nanoseconds.
    time: (i64, i64),
}

impl Written {
    fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            time: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Checkpoint, HubOptions, ModelSource, locate};
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn whoever_has_read_a_file_that_was_written_to_is_told_and_of_one_that_was_replaced_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let write = |path: &Path| {
            let tensor = Tensor::zeros(8, candle_core::DType::F32, &Device::Cpu).unwrap();
            super::super::write_safetensors(path, &[("a".to_owned(), tensor)]).unwrap();
        };
        write(&path);
        let files = locate(&ModelSource::File(path.clone()), &HubOptions::default()).unwrap();
        let replaced = Checkpoint::open(&files).unwrap();
        write(&path);
        let changed = Checkpoint::open(&files).unwrap();
        changed.check_unchanged().unwrap();
        // The same bytes at another time; of others nobody could tell when they were read.
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        // Some file systems know no shorter time.
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(later)
            .unwrap();
        for told in [
            changed.check_unchanged(),
            changed.weight_hashes().map(drop),
            changed.model_hash([None, None]).map(drop),
        ] {
            assert!(matches!(told, Err(CheckpointError::Changed { .. })), "{told:?}");
        }
        replaced.check_unchanged().unwrap();
        assert!(replaced.weight_hashes().is_ok() && replaced.model_hash([None, None]).is_ok());
    }
}
