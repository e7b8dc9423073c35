//! PyTorch's `torch.save` archives: a zip of stored records, with the object tree in `data.pkl`.
//!
//! candle has a reader for these, which is not used because on damaged or hostile files it panics (malformed
//! tuples), can allocate up to 4 GiB (crafted lengths), and skips tensors that it cannot convert; it also fails
//! on tensors that are not contiguous. This one lists every tensor or says which one it cannot read.
//!
//! [`pickle`] runs the pickle's instructions over data alone, [`state_dict`] finds the tensors in the result,
//! and this file finds the records in the zip. Tensor bytes are never copied here: since records are stored,
//! not compressed, a tensor is a place in the mapped file.

mod pickle;
mod state_dict;

use std::collections::HashMap;
use std::io::Cursor;

use zip::CompressionMethod;
use zip::read::{ArchiveOffset, Config, ZipArchive};

use self::pickle::Pickle;
use super::CheckpointError;
use super::error::shorten;
use super::listing::{Listing, StoredTensor};

const RESAVE: &str = "load it in Python and save model.state_dict() with torch.save, or convert it to safetensors";

/// Lists the tensors of the zip archive `bytes`.
pub(super) fn list(file: &str, bytes: &[u8]) -> Result<Listing, CheckpointError> {
    let archive = Archive::open(file, bytes)?;
    let program = archive.record(file, "data.pkl")?;
    let pickle = Pickle::read(program).map_err(|why| CheckpointError::malformed(file, format!("data.pkl: {why}")))?;
    let found = state_dict::find(file, &pickle)?;

    let mut tensors = Vec::with_capacity(found.entries.len());
    let mut raw_names = Vec::with_capacity(found.entries.len());
    for (name, tensor) in found.entries {
        if super::names::clean(name).is_some() {
            let dtype = match pickle.dtype_of(tensor) {
                Ok(dtype) => dtype,
                Err(why) => return Err(CheckpointError::tensor(file, name, why)),
            };
            let place = archive
                .stored(&format!("data/{}", tensor.key))
                .and_then(|(start, end)| {
                    let claimed = tensor.storage_elements.checked_mul(dtype.size_in_bytes() as u64);
                    let held = (end - start) as u64;
                    match claimed {
                        Some(claimed) if claimed <= held => Ok((start, end)),
                        _ => Err(format!(
                            "its storage claims {} elements of {}, and the record holds {held} bytes; is the file cut short?",
                            tensor.storage_elements,
                            dtype.as_str()
                        )),
                    }
                })
                .and_then(|(start, end)| {
                    let skipped = usize::try_from(tensor.offset).ok().and_then(|n| n.checked_mul(dtype.size_in_bytes()));
                    let first = skipped.and_then(|skipped| start.checked_add(skipped));
                    first.map(|first| (first, end)).ok_or_else(|| "its storage offset is out of range".to_string())
                });
            let (start, limit) = place.map_err(|why| CheckpointError::tensor(file, name, why))?;
            tensors.push(StoredTensor {
                raw_name: name.to_string(),
                shape: tensor.shape.clone(),
                dtype,
                start,
                limit,
                strides: Some(tensor.strides.clone()),
            });
        }
        raw_names.push(name.to_string());
    }
    if tensors.is_empty() {
        return Err(CheckpointError::malformed(file, "its state dict holds no tensors"));
    }
    Ok(Listing {
        tensors,
        raw_names,
        mark: None,
        storage: match found.key {
            Some(key) => format!("PyTorch zip pickle (state dict under \"{key}\")"),
            None => "PyTorch zip pickle".to_string(),
        },
    })
}

/// The error for a pickle that is not inside a zip.
pub(super) fn bare_pickle(file: &str, bytes: &[u8]) -> CheckpointError {
    // `torch.save` before 1.6 starts with this number as a pickled integer.
    const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    let start = &bytes[..bytes.len().min(64)];
    let what = if start.windows(MAGIC.len()).any(|window| window == MAGIC) {
        "PyTorch's format from before 1.6, which is not read here"
    } else {
        "a pickle outside of a PyTorch archive, which is not read here"
    };
    CheckpointError::unsupported(
        file,
        format!("{what}; {RESAVE} (torch.save writes the zip form since PyTorch 1.6)"),
    )
}

/// Where a record's bytes lie.
#[derive(Clone, Copy)]
struct Record {
    start: usize,
    end: usize,
    stored: bool,
}

struct Archive<'a> {
    bytes: &'a [u8],
    /// The folder within the archive that everything is in, with its slash.
    prefix: String,
    records: HashMap<String, Record>,
}

impl<'a> Archive<'a> {
    fn open(file: &str, bytes: &'a [u8]) -> Result<Self, CheckpointError> {
        let damaged = |error: zip::result::ZipError| {
            CheckpointError::malformed(
                file,
                format!("not a whole zip archive: {error}; is the file cut short?"),
            )
        };
        // A PyTorch archive starts at byte 0: nothing need be searched for.
        let config = Config {
            archive_offset: ArchiveOffset::Known(0),
        };
        let mut zip = ZipArchive::with_config(config, Cursor::new(bytes)).map_err(damaged)?;
        if zip.has_duplicate_names() {
            return Err(CheckpointError::malformed(
                file,
                "two records of the archive have one name",
            ));
        }
        let mut records = HashMap::new();
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(damaged)?;
            let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
            let place = entry.data_start().and_then(|start| {
                let end = start.checked_add(entry.compressed_size())?;
                Some((usize::try_from(start).ok()?, usize::try_from(end).ok()?))
            });
            let Some((start, end)) = place.filter(|(_, end)| *end <= bytes.len()) else {
                let name = shorten(&name);
                return Err(CheckpointError::malformed(
                    file,
                    format!("record \"{name}\" reaches past the end of the file; is it cut short?"),
                ));
            };
            let stored = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
            records.insert(name, Record { start, end, stored });
        }
        let mut trees = records.keys().filter_map(|name| match name.split_once('/') {
            Some((folder, "data.pkl")) => Some(format!("{folder}/")),
            None if name == "data.pkl" => Some(String::new()),
            _ => None,
        });
        let prefix = match (trees.next(), trees.next()) {
            (Some(prefix), None) => prefix,
            (None, _) => {
                return Err(CheckpointError::malformed(
                    file,
                    "a zip archive, but not one of torch.save: it has no data.pkl",
                ));
            }
            _ => {
                return Err(CheckpointError::malformed(
                    file,
                    "the archive holds more than one data.pkl",
                ));
            }
        };
        drop(trees);
        let archive = Self { bytes, prefix, records };
        if archive.find("constants.pkl").is_some() {
            return Err(CheckpointError::unsupported(
                file,
                format!("a TorchScript archive (torch.jit.save), which is not read here; {RESAVE}"),
            ));
        }
        if archive.find("byteorder").is_some() && archive.record(file, "byteorder")?.trim_ascii() != b"little" {
            return Err(CheckpointError::unsupported(
                file,
                "written on a big-endian machine, which is not read here; save it again on a little-endian one",
            ));
        }
        Ok(archive)
    }

    fn find(&self, name: &str) -> Option<Record> {
        self.records.get(&format!("{}{name}", self.prefix)).copied()
    }

    /// Start and end of a record in the file's bytes.
    fn stored(&self, name: &str) -> Result<(usize, usize), String> {
        let record = self
            .find(name)
            .ok_or_else(|| format!("the archive has no record \"{}\"; is it damaged?", shorten(name)))?;
        if !record.stored {
            return Err(format!(
                "record \"{}\" is compressed, which torch.save does not do; {RESAVE}",
                shorten(name)
            ));
        }
        Ok((record.start, record.end))
    }

    fn record(&self, file: &str, name: &str) -> Result<&'a [u8], CheckpointError> {
        let (start, end) = self.stored(name).map_err(|why| CheckpointError::malformed(file, why))?;
        Ok(&self.bytes[start..end])
    }
}
