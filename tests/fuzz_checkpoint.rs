//! Damaged and hostile weight files: no panic, one clear error, and memory in proportion to the file.
//!
//! Mutations are seeded. `CRAG_FUZZ_ITERATIONS` asks for more than the few thousand that run by default, and
//! `CRAG_FUZZ_SEED` for others.

use std::fs;
use std::io::{Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use crag::checkpoint::{Checkpoint, CheckpointError, HubOptions, ModelSource, locate, write_safetensors};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::common::memory::peak_of;
use crate::common::random::Random;

/// What reading may hold at most, beyond the mapped file: a part in proportion to it, and one that does not grow.
fn allowance(file_len: usize) -> usize {
    32 * file_len + (512 << 10)
}

/// Reads everything in a file.
fn read(path: &Path) -> Result<usize, CheckpointError> {
    let checkpoint = Checkpoint::open(&locate(&ModelSource::File(path.to_path_buf()), &HubOptions::default())?)?;
    for info in checkpoint.tensors() {
        assert_eq!(checkpoint.tensor(&info.name)?.dims(), info.shape);
    }
    Ok(checkpoint.tensors().len())
}

/// Reads `bytes` as a file and checks everything that must hold whatever they are.
fn check(path: &Path, bytes: &[u8], allowed: usize) -> Result<usize, String> {
    // A new file each time: some file systems flush to disk when one is truncated and written again.
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
    let start = Instant::now();
    let (outcome, peak) = peak_of(|| read(path));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(60), "took {took:?}");
    assert!(peak <= allowed, "held {peak} bytes for a file of {}", bytes.len());
    outcome.map_err(|error| {
        let message = error.to_string();
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(message.contains(&*name), "{message}");
        assert!(!message.contains('\n') && message.len() < 5000, "{message}");
        message
    })
}

/// Numbers at which lengths, counts and offsets go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    7,
    8,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_fff0,
    0xffff_ffff,
    1 << 40,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, others: &[(String, Vec<u8>)]) {
    for _ in 0..1 + random.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(9) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            // A length or an offset, of any width, near the start half of the time.
            3 | 4 => {
                let at = if random.below(2) == 0 {
                    random.below(bytes.len().min(64))
                } else {
                    at
                };
                let edge = EDGES[random.below(EDGES.len())]
                    .wrapping_add(random.below(3) as u64)
                    .wrapping_sub(1);
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&edge.to_le_bytes()[..width]);
            }
            5 => {
                let other = &others[random.below(others.len())].1;
                let from = random.below(other.len());
                let len = random.below(200).min(other.len() - from);
                let to = (at + random.below(len + 1)).min(bytes.len());
                bytes.splice(at..to, other[from..from + len].iter().copied());
            }
            6 => {
                let to = (at + random.below(40)).min(bytes.len());
                bytes.drain(at..to);
            }
            7 => {
                let (byte, len) = (bytes[random.below(bytes.len())], random.below(60));
                bytes.splice(at..at, std::iter::repeat_n(byte, len));
            }
            // Another digit, in a shape or an offset of a JSON header.
            _ => {
                let digits: Vec<usize> = (0..bytes.len().min(2000))
                    .filter(|&i| bytes[i].is_ascii_digit())
                    .collect();
                if let Some(&digit) = digits.get(random.below(digits.len())) {
                    bytes[digit] = b'0' + random.below(10) as u8;
                }
            }
        }
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint")
}

/// Whole files of both formats to start from.
fn corpus(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut corpus = Vec::new();
    let mut names: Vec<PathBuf> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    for path in names
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "bin"))
    {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        corpus.push((name, fs::read(path).unwrap()));
    }
    let tensor = |dims: &[usize], dtype| {
        Tensor::ones(dims, DType::F32, &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap()
    };
    for (name, tensors) in [
        ("one", vec![("w".to_string(), tensor(&[3, 4], DType::F32))]),
        (
            "several",
            vec![
                ("module.a.weight".to_string(), tensor(&[2, 3], DType::F32)),
                ("b".to_string(), tensor(&[5], DType::F16)),
                ("c._orig_mod.d".to_string(), tensor(&[1, 2, 2], DType::BF16)),
                ("e".to_string(), tensor(&[], DType::F32)),
            ],
        ),
    ] {
        let path = folder.join("seed");
        write_safetensors(&path, &tensors).unwrap();
        // As many as there are of the other format.
        for copy in 0..8 {
            corpus.push((format!("{name}-{copy}.safetensors"), fs::read(&path).unwrap()));
        }
    }
    corpus
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

#[test]
fn damaged_weight_files_give_an_error_or_whole_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path());
    let iterations = number("CRAG_FUZZ_ITERATIONS", 6000);
    let seed = number("CRAG_FUZZ_SEED", 1);
    let path = folder.path().join("damaged");
    let mut read = 0u64;
    for iteration in 0..iterations {
        let mut random = Random(seed.wrapping_mul(0x1_0000_0001) ^ iteration << 20);
        let (name, whole) = &corpus[random.below(corpus.len())];
        let mut bytes = whole.clone();
        mutate(&mut random, &mut bytes, &corpus);
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&path, &bytes, allowance(bytes.len()))));
        match outcome {
            Ok(outcome) => read += u64::from(outcome.is_ok()),
            Err(_) => {
                let kept = std::env::temp_dir().join(format!("crag-fuzz-{seed}-{iteration}"));
                let _ = fs::write(&kept, &bytes);
                panic!(
                    "seed {seed}, iteration {iteration} from {name}: kept as {}",
                    kept.display()
                );
            }
        }
    }
    // Neither everything nor nothing: else the mutations would not be testing what they should.
    assert!(read > 0 && read < iterations, "{read} of {iterations} were read");
}

/// A `torch.save` archive of this pickle and these storages.
fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(pickle).unwrap();
    for (key, bytes) in storages {
        zip.start_file(format!("archive/data/{key}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A pickled dict from `w` to a tensor over storage `0`; `shape` and `strides` are instructions for tuples.
fn tensor_pickle(elements: i32, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage".to_vec();
    pickle.extend(b"ctorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ");
    pickle.extend(elements.to_le_bytes());
    pickle.extend(b"tQK\0");
    pickle.extend(shape);
    pickle.extend(strides);
    pickle.extend(b"\x89}tRs.");
    pickle
}

#[test]
fn the_archives_crafted_here_are_well_formed_without_the_attack() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.bin");
    let bytes = archive(
        &tensor_pickle(6, b"K\x02K\x03\x86", b"K\x03K\x01\x86"),
        &[("0", &[0; 24])],
    );
    assert_eq!(check(&path, &bytes, allowance(bytes.len())), Ok(1));
}

#[test]
fn claims_far_beyond_the_file_are_refused_before_memory_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.bin");
    let huge = b"\x8a\x08\0\0\0\0\0\0\0\x40";
    let tuple = |item: &[u8]| [item, b"\x85"].concat();
    let pair = |a: &[u8], b: &[u8]| [a, b, b"\x86"].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "expanded",
            tensor_pickle(6, &tuple(b"J\0\0\0\x40"), &tuple(b"K\0")),
            "out of a file",
        ),
        (
            "overflowing shape",
            tensor_pickle(6, &pair(huge, huge), &pair(b"K\0", b"K\0")),
            "more elements",
        ),
        (
            "overflowing stride",
            tensor_pickle(6, &pair(b"K\x02", b"K\x03"), &pair(huge, huge)),
            "more elements",
        ),
        (
            "negative shape",
            tensor_pickle(6, &tuple(b"J\xff\xff\xff\xff"), &tuple(b"K\x01")),
            "not (storage",
        ),
        (
            "reach",
            tensor_pickle(6, &tuple(b"K\x07"), &tuple(b"K\x01")),
            "its data end",
        ),
        (
            "storage",
            tensor_pickle(7, &tuple(b"K\x01"), &tuple(b"K\x01")),
            "claims 7 elements",
        ),
        ("unmatched strides", tensor_pickle(6, &tuple(b"K\x01"), b")"), "strides"),
        (
            "long string",
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.".to_vec(),
            "remain",
        ),
        ("long bytes", b"\x80\x04\x8e\0\0\0\0\x01\0\0\0.".to_vec(), "remain"),
        ("long integer", b"\x80\x02\x8b\xff\xff\xff\x7f.".to_vec(), "remain"),
        (
            "frame",
            b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.".to_vec(),
            "remain",
        ),
        ("memo", b"\x80\x02}r\xff\xff\xff\xff.".to_vec(), "no state dict"),
        ("unset memo", b"\x80\x02h\x05.".to_vec(), "before it is written"),
        ("underflow", b"\x80\x02R.".to_vec(), "stack underflow"),
        ("no mark", b"\x80\x02}u.".to_vec(), "no mark"),
        ("below a mark", b"\x80\x02}}((RR.".to_vec(), "stack underflow"),
        ("odd items", b"\x80\x02}(Nu.".to_vec(), "without a value"),
        ("self", b"\x80\x02}q\0X\x05\0\0\0modelh\0s.".to_vec(), "no state dict"),
        ("no stop", b"\x80\x02}".to_vec(), "STOP"),
        ("empty", Vec::new(), "STOP"),
        ("system", b"cos\nsystem\n(X\x02\0\0\0idtR.".to_vec(), "os.system"),
    ];
    for (name, pickle, part) in cases {
        let bytes = archive(&pickle, &[("0", &[0; 24])]);
        let message = check(&path, &bytes, 256 << 10).unwrap_err();
        assert!(message.contains(part), "{name}: {message}");
    }
}

#[test]
fn deep_and_wide_pickles_stay_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.bin");
    // Objects of one byte each are the worst ratio; their number is bounded, at some hundred bytes each.
    let most = 200 << 20;
    let program =
        |start: &[u8], repeated: &[u8], times: usize| [&b"\x80\x02"[..], start, &repeated.repeat(times), b"."].concat();
    for (name, pickle) in [
        ("nested tuples", program(b"N", b"\x85", 1_000_000)),
        ("nested lists", program(b"", b"]", 3_000_000)),
        ("appended lists", program(b"]", b"]a", 3_000_000)),
        ("marks", program(b"", b"(", 5_000_000)),
        ("dups", program(b"N", b"2", 5_000_000)),
        ("memo", program(b"]", b"\x94", 5_000_000)),
        ("long name, many times", {
            let mut start = b"}(X\0\0\x10\0".to_vec();
            start.extend(std::iter::repeat_n(b'n', 1 << 20));
            start.extend(b"q\x000");
            program(&start, b"h\0N", 300_000)
        }),
        ("long name, many times in a dict", {
            let mut start = b"}(X\0\0\x10\0".to_vec();
            start.extend(std::iter::repeat_n(b'n', 1 << 20));
            start.extend(b"q\x000");
            let mut program = program(&start, b"h\0N", 300_000);
            program.splice(program.len() - 1.., *b"u.");
            program
        }),
    ] {
        let bytes = archive(&pickle, &[]);
        let message = check(&path, &bytes, most).unwrap_err();
        assert!(message.len() < 3000, "{name}");
    }
}

#[test]
fn hostile_safetensors_headers_stay_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.safetensors");
    let file = |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let many: Vec<String> = (0..100_000).map(|i| format!("\"{i}\":{empty}")).collect();
    for (name, header, part) in [
        (
            "deep",
            format!("{{\"a\":{}", "[".repeat(1 << 20)),
            "header is not valid",
        ),
        (
            "deep metadata",
            format!("{{\"__metadata__\":{}", "[".repeat(1 << 20)),
            "header is not valid",
        ),
        ("many", format!("{{{}}}", many.join(",")), "more than 65536 tensors"),
        (
            "many dimensions",
            format!(
                "{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{}0],\"data_offsets\":[0,0]}}}}",
                "0,".repeat(1 << 20)
            ),
            "dimensions",
        ),
        (
            "long name",
            format!(
                "{{\"{}\":{{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}}}}",
                "n".repeat(1 << 20)
            ),
            "type I8",
        ),
    ] {
        let bytes = file(&header);
        let message = check(&path, &bytes, allowance(bytes.len())).unwrap_err();
        assert!(message.contains(part), "{name}: {message}");
    }
}
