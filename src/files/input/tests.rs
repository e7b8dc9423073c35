//! Compressed inputs, whole, damaged and in any portions.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;

const ALL: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::Bzip2];

fn pack(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => {
            // With a checksum, as the command line tool writes it.
            let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// Gives one byte at a time, with an interruption before each.
struct Drip(Cursor<Vec<u8>>, bool);

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let end = buffer.len().min(1);
        self.0.read(&mut buffer[..end])
    }
}

fn from(bytes: &[u8], drip: bool) -> Input {
    let cursor = Cursor::new(bytes.to_vec());
    let reader: Box<dyn Read + Send> = if drip {
        Box::new(Drip(cursor, false))
    } else {
        Box::new(cursor)
    };
    Input::Reader("test".to_owned(), reader)
}

/// What comes out, up to an error if there is one.
fn read(bytes: &[u8], drip: bool) -> (Vec<u8>, io::Result<Digest>) {
    let mut out = Vec::new();
    let digest = from(bytes, drip).open().and_then(|mut open| {
        open.read_to_end(&mut out)?;
        open.finish()
    });
    (out, digest)
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest {
        bytes: bytes.len() as u64,
        sha256: Sha256::digest(bytes).into(),
    }
}

#[test]
fn all_members_of_an_archive_are_read_in_any_portions() {
    for compression in ALL {
        let parts: [&[u8]; 4] = [b"one\n", b"", b"two\nthr", b"ee\n"];
        let archive: Vec<u8> = parts.iter().flat_map(|part| pack(part, compression)).collect();
        for drip in [false, true] {
            let (out, digest) = read(&archive, drip);
            assert_eq!(out, parts.concat(), "{compression}");
            assert_eq!(digest.unwrap(), digest_of(&archive), "{compression}");
        }
    }
}

#[test]
fn an_archive_that_breaks_off_anywhere_is_an_error_or_shorter_by_whole_members() {
    for compression in ALL {
        let (first, second) = (
            pack(b"first member\n", compression),
            pack(b"second member\n", compression),
        );
        let archive = [first.clone(), second].concat();
        for length in 0..archive.len() {
            let (out, digest) = read(&archive[..length], false);
            // Before the magic bytes are complete nothing says that this is an archive: its bytes come through
            // as they are, and no record can begin with them.
            let told = match compression {
                Compression::Gzip => 2,
                Compression::Zstd => 4,
                Compression::Bzip2 => 10,
            };
            if length < told {
                assert_eq!((&out[..], digest.is_ok()), (&archive[..length], true));
                continue;
            }
            assert!(
                b"first member\nsecond member\n".starts_with(&out[..]),
                "{compression} {length}"
            );
            if length == first.len() {
                assert_eq!(
                    (&out[..], digest.unwrap()),
                    (b"first member\n".as_slice(), digest_of(&first))
                );
                continue;
            }
            let message = digest.unwrap_err().to_string();
            assert!(
                message.contains("breaks off") || message.contains("damaged"),
                "{compression} {length}: {message}"
            );
        }
    }
}

#[test]
fn a_changed_byte_never_gives_other_content_without_an_error() {
    let text: Vec<u8> = (0..50).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
    for compression in ALL {
        let archive = pack(&text, compression);
        for i in 10..archive.len() {
            let mut changed = archive.clone();
            changed[i] ^= 0x10;
            let (out, digest) = read(&changed, false);
            assert!(digest.is_err() || out == text, "{compression}: byte {i}");
        }
    }
}

#[test]
fn padding_with_zeros_is_passed_over_and_other_bytes_are_not() {
    for compression in ALL {
        let archive = pack(b"text\n", compression);
        for drip in [false, true] {
            let padded = [&archive[..], &[0; 1000]].concat();
            let (out, digest) = read(&padded, drip);
            assert_eq!(out, b"text\n");
            assert_eq!(digest.unwrap(), digest_of(&padded), "padding is hashed too");
        }
        for tail in [b"x".as_slice(), b"\0\0x", b"{\"a\":1}\n", &archive[..1]] {
            let (out, digest) = read(&[&archive[..], tail].concat(), false);
            assert_eq!(out, b"text\n", "what came before is there");
            digest.unwrap_err();
        }
    }
}

#[test]
fn an_archive_in_an_archive_is_told_for_what_it_is() {
    for inner in ALL {
        for outer in ALL {
            let (unpacked, ended) = read(&pack(&pack(b"text\n", inner), outer), false);
            assert_eq!(unpacked, b"");
            let error = ended.unwrap_err().to_string();
            let expected = format!("found {inner} within {outer}; unpack it once more");
            assert!(error.contains(&expected), "{error}");
        }
    }
}

#[test]
fn frames_that_hold_nothing_are_passed_over() {
    // A skippable frame of 4 bytes, as pzstd begins with.
    let skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd";
    let frame = pack(b"text\n", Compression::Zstd);
    let archive = [&skippable[..], &frame, skippable, &frame].concat();
    let (out, digest) = read(&archive, true);
    assert_eq!(out, b"text\ntext\n");
    digest.unwrap();
}

#[test]
fn small_inputs_come_through_as_they_are() {
    for bytes in [b"".as_slice(), b"\n", b"\x1f", b"B", b"(", b"P", b"\xfd", b"\x28\xb5"] {
        let (out, digest) = read(bytes, false);
        assert_eq!((&out[..], digest.unwrap()), (bytes, digest_of(bytes)));
    }
    let digest = digest_of(b"abc");
    assert_eq!(
        digest.sha256_hex(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn a_file_whose_name_promises_an_archive_holds_more_than_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    for (name, compression) in [("a.gz", ALL[0]), ("a.zst", ALL[1]), ("a.csv.bz2", ALL[2])] {
        let path = folder.path().join(name);
        let archive = pack(b"text\n", compression);
        for length in 0..archive.len() {
            std::fs::write(&path, &archive[..length]).unwrap();
            let mut out = Vec::new();
            let read = Input::File(path.clone())
                .open()
                .and_then(|mut open| open.read_to_end(&mut out));
            assert!(read.is_err(), "{name}: {length}");
        }
        // A file that something on its way has unpacked is as good.
        std::fs::write(&path, "text\n").unwrap();
        let mut out = Vec::new();
        Input::File(path).open().unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out, b"text\n");
    }
}

#[test]
fn a_folder_is_no_input() {
    let folder = tempfile::tempdir().unwrap();
    let error = Input::File(folder.path().into()).open().err().unwrap();
    assert!(error.to_string().contains("found a folder"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_come_back(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4),
        format in 0usize..3,
    ) {
        let archive: Vec<u8> = parts.iter().flat_map(|part| pack(part, ALL[format])).collect();
        let (out, digest) = read(&archive, false);
        prop_assert_eq!(out, parts.concat());
        prop_assert_eq!(digest.unwrap(), digest_of(&archive));
    }

    #[test]
    fn bytes_that_only_begin_like_an_archive_never_panic(
        magic in 0usize..3,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let archive = pack(b"", ALL[magic]);
        for keep in [2, 4, 10] {
            let _ = read(&[&archive[..keep], &bytes[..]].concat(), false);
        }
    }
}

#[test]
fn a_gauge_tells_what_packed_bytes_become() {
    let plain: Vec<u8> = (0..200_000u32).flat_map(|i| (i / 50).to_le_bytes()).collect();
    for compression in ALL {
        let packed = pack(&plain, compression);
        let gauge = Arc::new(Gauge::default());
        assert_eq!(gauge.unpacked(1), None, "nothing is known yet");
        let mut open = from(&packed, false).open_measured(Arc::clone(&gauge)).unwrap();
        let mut half = vec![0; plain.len() / 2];
        open.read_exact(&mut half).unwrap();
        // One input like another: half of it tells of the whole, but for what is buffered.
        let guess = gauge.unpacked(packed.len() as u64).unwrap() as f64 / plain.len() as f64;
        assert!((0.4..2.5).contains(&guess), "{compression}: {guess}");
        open.finish().unwrap();
        assert_eq!(
            gauge.unpacked(packed.len() as u64),
            Some(plain.len() as u64),
            "{compression}"
        );
    }
    let gauge = Arc::new(Gauge::default());
    from(&plain, false)
        .open_measured(Arc::clone(&gauge))
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(gauge.unpacked(1), None, "plain inputs do not count");
}

/// A zstd frame whose window is `1 << window_log` bytes, however little is in it.
fn zstd_frame(window_log: u8, content: &[u8]) -> Vec<u8> {
    let last_raw_block = (content.len() as u32) << 3 | 1;
    let header = [0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3];
    [&header, &last_raw_block.to_le_bytes()[..3], content].concat()
}

#[test]
fn a_zstd_window_that_takes_too_much_memory_is_no_damage_and_the_message_says_what_to_do() {
    let (out, digest) = read(&zstd_frame(27, b"one\n"), false);
    assert_eq!((out.as_slice(), digest.is_ok()), (b"one\n".as_slice(), true));
    for window_log in [28, 31] {
        let second = [pack(b"one\n", Compression::Zstd), zstd_frame(window_log, b"two\n")].concat();
        let (out, digest) = read(&second, false);
        let message = digest.unwrap_err().to_string();
        assert_eq!(out, b"one\n");
        assert!(
            message.contains("more than 128 MiB") && message.contains("zstd -dc --long=31 FILE"),
            "{message}"
        );
        assert!(!message.contains("damaged"), "{message}");
    }
}

/// Gives its parts, each of which ends as a terminal's input does at ctrl-d.
struct Typed(Vec<&'static [u8]>);

impl Read for Typed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(part) = (!self.0.is_empty()).then(|| self.0.remove(0)) else {
            return Ok(0);
        };
        buffer[..part.len()].copy_from_slice(part);
        Ok(part.len())
    }
}

#[test]
fn what_comes_after_an_end_is_not_read() {
    let parts: Vec<&[u8]> = vec![b"{", b"}\n", b"", b"more\n"];
    let mut open = Input::Reader("typed".to_owned(), Box::new(Typed(parts)))
        .open()
        .unwrap();
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"{}\n");
    assert_eq!(open.finish().unwrap().bytes, 3);
    let empty: Vec<&[u8]> = vec![b"", b"more\n"];
    let open = Input::Reader("typed".to_owned(), Box::new(Typed(empty)))
        .open()
        .unwrap();
    assert_eq!(open.finish().unwrap().bytes, 0);
}

#[test]
fn a_file_that_is_written_to_while_it_is_read_is_no_input_that_ended_well() {
    use std::io::{Seek as _, Write as _};
    let bytes = "line\n".repeat(100_000).into_bytes();
    type Change = fn(&mut File);
    let cases: [(Change, Option<&str>); 5] = [
        (|_| (), None),
        // Added to, as a log is.
        (|file| file.write_all(b"one more\n").unwrap(), None),
        // The same once more, or only said to be written to.
        (
            |file| {
                file.rewind().unwrap();
                file.write_all(b"line\n").unwrap();
            },
            None,
        ),
        (
            |file| file.set_len(3000).unwrap(),
            Some("cut short while it was read: "),
        ),
        (
            |file| {
                file.rewind().unwrap();
                file.write_all(b"LINE\n").unwrap();
            },
            Some("another program wrote to it while it was read"),
        ),
    ];
    for (change, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.jsonl");
        std::fs::write(&path, &bytes).unwrap();
        let mut open = Input::File(path.clone()).open().unwrap();
        let mut read = vec![0; 10_000];
        open.read_exact(&mut read).unwrap();
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        file.seek(io::SeekFrom::End(0)).unwrap();
        change(&mut file);
        // Some file systems know no shorter time.
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        file.set_modified(later).unwrap();
        let ended = open.read_to_end(&mut read).map_err(|error| error.to_string());
        match expected {
            None => assert!(ended.is_ok() && read.starts_with(&bytes), "{ended:?}"),
            Some(reason) => assert!(ended.as_ref().is_err_and(|error| error.contains(reason)), "{ended:?}"),
        }
    }
}
