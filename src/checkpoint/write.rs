//! Writing safetensors: header first, then one tensor after the other, so that memory holds one at a time.

use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use candle_core::{DType, Tensor};
use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::packed_mark::{MARK_BYTES, PACKED_MARK, mark_of, nanoseconds_of};
use super::{CheckpointError, PACKED_PREFIX};
use crate::files::Replacement;

/// A tensor to write, which is made when its turn comes.
pub struct Unwritten<'t, E> {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    make: Box<dyn Fn() -> Result<Tensor, E> + 't>,
}

impl<'t, E> Unwritten<'t, E> {
    /// `make` gives a tensor of that type and shape.
    pub fn new(name: String, dtype: DType, shape: Vec<usize>, make: impl Fn() -> Result<Tensor, E> + 't) -> Self {
        let make = Box::new(make);
        Self {
            name,
            dtype,
            shape,
            make,
        }
    }
}

/// [`write_each`] of tensors that are there.
///
/// # Errors
/// A type other than the three, two tensors of one name, or a failure to write.
pub fn write_safetensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), CheckpointError> {
    let unwritten = tensors.iter().map(|(name, tensor)| {
        let shape = tensor.dims().to_vec();
        Unwritten::new(name.clone(), tensor.dtype(), shape, || Ok(tensor.clone()))
    });
    write_each(path, unwritten.collect())
}

/// Writes `tensors` (f32, f16 or bf16) to `path` so that it holds either what it held before or all of them.
///
/// The bytes depend on the tensors alone: packed weights first (see [`PACKED_PREFIX`]), each at a multiple of
/// 64 bytes as long as their sizes are such multiples; then wider types, so that every tensor is aligned; then by name.
/// They go to a file beside `path`, which is synced and then renamed over it.
///
/// # Errors
/// A type other than the three, two tensors of one name, a tensor that cannot be made, or a failure to write.
pub fn write_each<E: From<CheckpointError>>(path: &Path, mut tensors: Vec<Unwritten<'_, E>>) -> Result<(), E> {
    let file_name = path.display().to_string();
    tensors.sort_by(|left, right| {
        let rank = |tensor: &Unwritten<'_, E>| {
            (
                !tensor.name.starts_with(PACKED_PREFIX),
                std::cmp::Reverse(tensor.dtype.size_in_bytes()),
            )
        };
        rank(left).cmp(&rank(right)).then_with(|| left.name.cmp(&right.name))
    });
    let (header, offsets) = header(&file_name, &tensors)?;

    let failed = |action, source| CheckpointError::io(path, action, source);
    let replacement = Replacement::begin(path).map_err(|error| failed("creating a file beside it failed", error))?;
    let mut file = replacement.file();
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let write_failed = |error| failed("writing it failed", error);
    out.write_all(&(header.len() as u64).to_le_bytes())
        .map_err(write_failed)?;
    out.write_all(&header).map_err(write_failed)?;
    for unwritten in &tensors {
        let tensor = (unwritten.make)()?;
        let name = &unwritten.name;
        if (tensor.dtype(), tensor.dims()) != (unwritten.dtype, &unwritten.shape) {
            let (dtype, shape) = (unwritten.dtype, &unwritten.shape);
            let reason = format!(
                "expected {dtype:?} {shape:?}, found {:?} {:?}",
                tensor.dtype(),
                tensor.dims()
            );
            return Err(CheckpointError::tensor(&file_name, name, reason).into());
        }
        write_elements(&mut out, &tensor).map_err(|error| match error {
            ElementsError::Io(error) => write_failed(error),
            ElementsError::Candle(error) => CheckpointError::tensor(&file_name, name, error.to_string()),
        })?;
    }
    out.flush().map_err(write_failed)?;
    drop(out);
    if let Some(at) = memchr::memmem::find(&header, NO_MARK.as_bytes()) {
        let mut own = offsets;
        own.retain(|(name, _)| !name.starts_with(PACKED_PREFIX));
        // SAFETY: the file was created here under a name of its own, and nobody else writes to it or cuts it.
        let map = unsafe { memmap2::Mmap::map(file) }.map_err(write_failed)?;
        let data = &map[8 + header.len()..];
        let mark = mark_of(&own, data, |_| ());
        drop(map);
        file.seek(SeekFrom::Start(8 + at as u64)).map_err(write_failed)?;
        file.write_all(mark.as_bytes()).map_err(write_failed)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let marked = Duration::new(now.as_secs(), nanoseconds_of(&mark).unwrap_or_default());
        // Where that is not possible, the hash is computed at each start.
        let _ = file.set_modified(UNIX_EPOCH + marked);
    }
    (replacement.put_in_place()).map_err(|error| failed("putting the finished file in its place failed", error))?;
    Ok(())
}

type Offsets = Vec<(String, Range<usize>)>;

/// What stands in the header until the mark is known: as long, and no tensor's name.
const NO_MARK: &str = "----------------------------------------------------------------";
const _: () = assert!(NO_MARK.len() == MARK_BYTES);

/// The header, and where each tensor's bytes will be behind it.
fn header<E>(file: &str, tensors: &[Unwritten<'_, E>]) -> Result<(Vec<u8>, Offsets), CheckpointError> {
    let mut entries = Map::new();
    // Python's loaders ask for this key.
    let mut metadata = json!({"format": "pt"});
    if tensors.iter().any(|tensor| tensor.name.starts_with(PACKED_PREFIX)) {
        // In its place when all has been written.
        metadata[PACKED_MARK] = json!(NO_MARK);
    }
    entries.insert("__metadata__".into(), metadata);
    let mut offset = 0usize;
    let mut offsets = Offsets::new();
    for Unwritten { name, dtype, shape, .. } in tensors {
        let size = dtype.size_in_bytes();
        let dtype = match dtype {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            other => {
                let reason = format!("type {} is not written here: expected f32, f16 or bf16", other.as_str());
                return Err(CheckpointError::tensor(file, name, reason));
            }
        };
        let end = offset + shape.iter().product::<usize>() * size;
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]});
        if entries.insert(name.clone(), entry).is_some() {
            return Err(CheckpointError::tensor(file, name, "there are two of this name"));
        }
        offsets.push((name.clone(), offset..end));
        offset = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    // With the eight bytes of its length before it, the header ends at a cache line.
    header.resize((header.len() + 8).next_multiple_of(64) - 8, b' ');
    Ok((header, offsets))
}

enum ElementsError {
    Io(io::Error),
    Candle(candle_core::Error),
}

impl From<io::Error> for ElementsError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<candle_core::Error> for ElementsError {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(error)
    }
}

fn write_elements(out: &mut impl Write, tensor: &Tensor) -> Result<(), ElementsError> {
    let flat = tensor.flatten_all()?;
    match tensor.dtype() {
        DType::F32 => write_chunks(out, &flat.to_vec1::<f32>()?, |x| x.to_le_bytes())?,
        DType::F16 => write_chunks(out, &flat.to_vec1::<f16>()?, |x| x.to_le_bytes())?,
        // `header` let nothing else through.
        _ => write_chunks(out, &flat.to_vec1::<bf16>()?, |x| x.to_le_bytes())?,
    }
    Ok(())
}

/// Many elements at a time: one call for each would take longer than the disk.
fn write_chunks<const N: usize, T: Copy>(
    out: &mut impl Write,
    elements: &[T],
    bytes_of: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut buffer = Vec::new();
    for chunk in elements.chunks(1 << 16) {
        buffer.clear();
        buffer.extend(chunk.iter().map(|x| bytes_of(*x)));
        out.write_all(buffer.as_flattened())?;
    }
    Ok(())
}
