//! The header of a safetensors file: eight bytes of length, that much JSON, then the tensors' bytes.
//!
//! The types of an entry are the `safetensors` crate's. The header is taken apart here because the crate's
//! reader lets the second of two equal names win silently, leaves the tensor out of its messages, and buffers
//! the header as a tree that takes some twenty times its length.

use std::collections::{HashMap, HashSet};
use std::fmt;

use candle_core::DType;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{quoting, shorten};
use super::listing::{Listing, MOST_TENSORS, StoredTensor};
use super::packed_mark::{PACKED_MARK, PackedMark};
use super::{CheckpointError, PACKED_PREFIX, names};

/// The format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;

/// Lists the tensors of the safetensors file `bytes`; `held` says how it is in memory.
pub(super) fn list(file: &str, bytes: &[u8], held: &str) -> Result<Listing, CheckpointError> {
    let malformed = |reason: String| CheckpointError::malformed(file, reason);
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(malformed(format!(
            "{} bytes are too few for safetensors or a PyTorch archive; is the file cut short?",
            bytes.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    if !rest.starts_with(b"{") {
        return Err(malformed(
            "neither safetensors nor a PyTorch archive: expected a JSON header at byte 8 or a zip signature at byte 0"
                .into(),
        ));
    }
    if length > LONGEST_HEADER {
        return Err(malformed(format!(
            "the header claims {length} bytes, and the format allows {LONGEST_HEADER}"
        )));
    }
    let header = usize::try_from(length)
        .ok()
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| {
            malformed(format!(
                "the header claims {length} bytes, and {} follow; is the file cut short?",
                rest.len()
            ))
        })?;
    let data_start = 8 + header.len();
    let data_len = bytes.len() - data_start;

    let (mut entries, metadata) = read_header(header)
        .map_err(|error| malformed(format!("the header is not valid: {}", quoting(&error.to_string()))))?;
    entries.sort_by(|(a, left), (b, right)| left.data_offsets.cmp(&right.data_offsets).then_with(|| a.cmp(b)));
    let mut tensors = Vec::with_capacity(entries.len());
    let mut raw_names = Vec::with_capacity(entries.len());
    // The model's tensors, which packed ones stand for.
    let mut own = Vec::new();
    let mut expected_start = 0;
    for (raw_name, info) in entries {
        let refuse = |reason: String| Err(CheckpointError::tensor(file, &raw_name, reason));
        let (start, end) = info.data_offsets;
        if start < expected_start {
            return refuse(format!(
                "data at offsets {start} to {end} overlap a tensor that ends at {expected_start}"
            ));
        }
        if start > expected_start {
            return refuse(format!(
                "data at offsets {start} to {end} leave a hole after offset {expected_start}"
            ));
        }
        if end < start || end > data_len {
            return refuse(format!(
                "data at offsets {start} to {end}, but the file holds {data_len} bytes of data; is it cut short?"
            ));
        }
        expected_start = end;
        if !raw_name.starts_with(PACKED_PREFIX) {
            own.push((raw_name.clone(), data_start + start..data_start + end));
        }
        let bits = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |n, &dim| n.checked_mul(dim));
        if bits != (end - start).checked_mul(8) {
            return refuse(format!(
                "shape {:?} of {} does not take the {} bytes at offsets {start} to {end}",
                info.shape,
                info.dtype,
                end - start
            ));
        }
        if names::clean(&raw_name).is_some() {
            let dtype = match info.dtype {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                other => return refuse(format!("type {other} is not read here: expected F32, F16 or BF16")),
            };
            tensors.push(StoredTensor {
                raw_name: raw_name.clone(),
                shape: info.shape,
                dtype,
                start: data_start + start,
                limit: data_start + end,
                strides: None,
            });
        }
        raw_names.push(raw_name);
    }
    add_aliases(metadata.aliases, &mut tensors, &mut raw_names);
    if expected_start != data_len {
        return Err(malformed(format!(
            "{data_len} bytes of data, of which the header describes {expected_start}"
        )));
    }
    if tensors.is_empty() {
        return Err(malformed("holds no tensors".into()));
    }
    Ok(Listing {
        tensors,
        raw_names,
        mark: metadata.mark.map(|stated| PackedMark { stated, own }),
        storage: format!("safetensors, {held}"),
    })
}

type Header = (Vec<(String, TensorInfo)>, Metadata);

fn read_header(header: &[u8]) -> serde_json::Result<Header> {
    let mut deserializer = serde_json::Deserializer::from_slice(header);
    let entries = deserializer.deserialize_map(Entries)?;
    // The format pads the header with spaces.
    deserializer.end()?;
    Ok(entries)
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object from tensor names to dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut metadata = Metadata::default();
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if entries.len() == MOST_TENSORS {
                return Err(serde::de::Error::custom(format_args!(
                    "more than {MOST_TENSORS} tensors"
                )));
            }
            if !seen.insert(name.clone()) {
                return Err(serde::de::Error::custom(format_args!(
                    "\"{}\" occurs twice",
                    shorten(&name)
                )));
            }
            if name == "__metadata__" {
                metadata = map.next_value()?;
            } else {
                let info = map.next_value::<TensorInfo>().map_err(|error| {
                    serde::de::Error::custom(format_args!("tensor \"{}\": {error}", shorten(&name)))
                })?;
                entries.push((name, info));
            }
        }
        Ok((entries, metadata))
    }
}

/// What the format lets a writer say of a file.
#[derive(Default)]
struct Metadata {
    mark: Option<String>,
    /// What may be names of tensors that safetensors' `save_model` has left out for being the same as others, and those others.
    aliases: Vec<(String, String)>,
}

/// Whether `save_model` may say with these two texts that one tensor is the same as another, as of encoders that share a part.
fn may_be_aliases(name: &str, of: &str) -> bool {
    fn last(name: &str) -> Option<&str> {
        Some(name.rsplit_once('.')?.1)
    }
    name != of && last(name).is_some() && last(name) == last(of)
}

/// Adds the tensors that are left out for being the same as others, where those are there and the names are free.
fn add_aliases(aliases: Vec<(String, String)>, tensors: &mut Vec<StoredTensor>, raw_names: &mut Vec<String>) {
    if aliases.is_empty() {
        return;
    }
    let places: HashMap<String, usize> = tensors.iter().map(|tensor| tensor.raw_name.clone()).zip(0..).collect();
    let mut taken: HashSet<String> = raw_names.iter().cloned().collect();
    for (alias, of) in aliases {
        if let Some(&place) = places.get(&of)
            && names::clean(&alias).is_some()
            && taken.insert(alias.clone())
        {
            let mut same = tensors[place].clone();
            same.raw_name.clone_from(&alias);
            tensors.push(same);
            raw_names.push(alias);
        }
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetadataVisitor;
        impl<'de> Visitor<'de> for MetadataVisitor {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of strings")
            }

            // Whatever other writers put here is theirs.
            fn visit_unit<E>(self) -> Result<Metadata, E> {
                Ok(Metadata::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut metadata = Metadata::default();
                while let Some(key) = map.next_key::<String>()? {
                    // Not a tree of whatever it is.
                    let raw: &RawValue = map.next_value()?;
                    let text = || serde_json::from_str::<String>(raw.get()).ok();
                    if key == PACKED_MARK {
                        metadata.mark = text();
                    } else if let Some(of) = text().filter(|of| may_be_aliases(&key, of))
                        && metadata.aliases.len() < MOST_TENSORS
                    {
                        metadata.aliases.push((key, of));
                    }
                }
                Ok(metadata)
            }
        }
        deserializer.deserialize_any(MetadataVisitor)
    }
}
