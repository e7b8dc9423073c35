//! The cache's file: what it gives back, and what it makes of files that are not (or no longer) its own.

use std::path::PathBuf;

use redb::TableDefinition;

use super::file::{ABOUT, FORMAT, MAGIC};
use super::*;

const MODEL: [u8; 32] = [7; 32];

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.cache");
    (folder, path)
}

fn open(path: &Path) -> Result<Cache, CacheError> {
    Cache::open(path, &MODEL, "portable-f32")
}

/// Every bit counts: a negative zero, a subnormal, an infinity, a NaN with a payload.
fn representation(i: u32) -> Vec<f32> {
    vec![
        i as f32,
        -0.0,
        f32::from_bits(1),
        f32::INFINITY,
        f32::from_bits(0x7fc0_1234),
    ]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn fill(path: &Path, count: u32) {
    let cache = open(path).unwrap();
    for i in 0..count {
        cache.store(Side::Drug, &[1, i, 2], &representation(i));
    }
    cache.flush().unwrap();
}

fn found(cache: &Cache, count: u32) -> usize {
    let reader = cache.reader().unwrap();
    let found = (0..count).filter_map(|i| Some((i, reader.find(Side::Drug, &[1, i, 2])?)));
    found
        .inspect(|(i, values)| assert_eq!(bits(values), bits(&representation(*i))))
        .count()
}

#[test]
fn what_is_stored_is_found_to_the_bit_by_this_run_and_the_next() {
    let (folder, path) = folder();
    // More than one commit holds.
    let count = COMMIT_REPRESENTATIONS as u32 + 100;
    let cache = open(&path).unwrap();
    assert_eq!(found(&cache, count), 0);
    for i in 0..count {
        cache.store(Side::Drug, &[1, i, 2], &representation(i));
    }
    cache.flush().unwrap();
    assert_eq!(found(&cache, count), count as usize);
    // Without a flush: the end of the cache is one.
    cache.store(Side::Drug, &[9], &[9.0]);
    drop(cache);
    let cache = open(&path).unwrap();
    assert_eq!(found(&cache, count), count as usize);
    assert_eq!(cache.reader().unwrap().find(Side::Drug, &[9]).unwrap()[..], [9.0]);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing else is left behind"
    );
}

#[test]
fn another_side_model_kernel_or_text_has_another_key() {
    let (_folder, path) = folder();
    fill(&path, 1);
    let cache = open(&path).unwrap();
    let find = |cache: &Cache, side, ids: &[u32]| cache.reader().unwrap().find(side, ids).is_some();
    assert!(find(&cache, Side::Drug, &[1, 0, 2]));
    assert!(!find(&cache, Side::Adr, &[1, 0, 2]));
    assert!(!find(&cache, Side::Drug, &[1, 0]));
    drop(cache);
    for (model, kernel) in [([8; 32], "portable-f32"), (MODEL, "portable-bf16")] {
        let cache = Cache::open(&path, &model, kernel).unwrap();
        assert!(!find(&cache, Side::Drug, &[1, 0, 2]));
    }
}

#[test]
fn a_cache_in_use_is_one_clear_error() {
    let (_folder, path) = folder();
    let first = open(&path).unwrap();
    let message = open(&path).unwrap_err().to_string();
    assert!(message.contains("in use by another run"), "{message}");
    drop(first);
    open(&path).unwrap();
}

#[test]
fn a_file_that_is_no_cache_is_refused_and_left_as_it_was() {
    let (folder, path) = folder();
    for content in ["", "redb", "{\"text\": 1}\n", &"x".repeat(100_000)] {
        std::fs::write(&path, content).unwrap();
        let message = open(&path).unwrap_err().to_string();
        assert!(
            message.contains("pairs.cache: expected a cache of crag or no file"),
            "{message}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    assert!(open(folder.path()).unwrap_err().to_string().contains("found a folder"));
    let message = open(&folder.path().join("none/pairs.cache")).unwrap_err().to_string();
    assert!(message.contains("cannot be created"), "{message}");

    // Another program's database.
    std::fs::remove_file(&path).unwrap();
    let theirs = TableDefinition::<&str, u64>::new("theirs");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(theirs).unwrap().insert("a", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let message = open(&path).unwrap_err().to_string();
    assert!(message.contains("a redb database of another program"), "{message}");
    let database = Database::create(&path).unwrap();
    let table = database.begin_read().unwrap().open_table(theirs).unwrap();
    assert_eq!(redb::ReadableTable::get(&table, "a").unwrap().unwrap().value(), 1);
}

#[test]
fn a_cache_of_another_format_is_refused() {
    let (_folder, path) = folder();
    fill(&path, 1);
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(ABOUT)
        .unwrap()
        .insert("format", FORMAT + 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let message = open(&path).unwrap_err().to_string();
    assert!(
        message.contains("expected a cache of format 1, found format 2"),
        "{message}"
    );
}

#[test]
fn a_damaged_cache_is_an_error_or_gives_what_was_stored() {
    let (_folder, path) = folder();
    let count = 200;
    fill(&path, count);
    let whole = std::fs::read(&path).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut refused = 0;
    for round in 0..60 {
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes.truncate(random(whole.len())),
            // Most of a new file's bytes are unused; the header and the first pages are not.
            1 => bytes[MAGIC.len() + random(500)] ^= 1 << random(8),
            _ => {
                let start = random(whole.len() / 2);
                let end = (start + 5000).min(whole.len());
                bytes[start..end].fill(random(256) as u8);
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        match open(&path) {
            Ok(cache) => {
                found(&cache, count);
                cache.flush().unwrap();
            }
            Err(error) => {
                let message = error.to_string();
                assert!(
                    message.contains("pairs.cache: ") && !message.contains('\n'),
                    "{message}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused >= 20, "{refused}");
}

/// A disk that is full from the moment it is told so.
#[derive(Debug, Clone, Default)]
struct Disk {
    memory: Arc<redb::backends::InMemoryBackend>,
    is_full: Arc<std::sync::atomic::AtomicBool>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        match self.is_full.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check().and_then(|()| self.memory.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check().and_then(|()| self.memory.write(offset, data))
    }
}

#[test]
fn a_full_disk_costs_nothing_but_a_word_at_the_end() {
    let disk = Disk::default();
    let database = redb::Builder::new().create_with_backend(disk.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(REPRESENTATIONS).unwrap();
    transaction.commit().unwrap();
    let cache = Cache::with_database(database, "pairs.cache".to_owned(), &MODEL, "portable-f32").unwrap();
    cache.store(Side::Drug, &[1, 0, 2], &representation(0));
    cache.flush().unwrap();
    disk.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    // More than can wait: nobody takes them any more, and nobody waits for that.
    for i in 0..2 * WAITING as u32 {
        cache.store(Side::Adr, &[i], &representation(i));
    }
    let message = cache.flush().unwrap_err().to_string();
    assert!(
        message.starts_with("pairs.cache: writing the cache failed: "),
        "{message}"
    );
    assert!(
        message.ends_with("all answers are complete, the cache holds only some of their representations"),
        "{message}"
    );
    if let Some(reader) = cache.reader() {
        let found = reader.find(Side::Drug, &[1, 0, 2]);
        assert!(found.is_none_or(|values| bits(&values) == bits(&representation(0))));
    }
}

#[test]
fn another_model_kernel_or_version_has_other_keys() {
    let own = fingerprint(&[1; 32], "kernel", "0.1.0");
    assert_eq!(own, fingerprint(&[1; 32], "kernel", "0.1.0"));
    for other in [
        fingerprint(&[2; 32], "kernel", "0.1.0"),
        fingerprint(&[1; 32], "kernels", "0.1.0"),
        fingerprint(&[1; 32], "kernel", "0.1.1"),
        // What is part of which is part of the key.
        fingerprint(&[1; 32], "kernel0", ".1.0"),
    ] {
        assert_ne!(own, other);
    }
}
