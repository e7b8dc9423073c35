//! The cache's file: what it is, what of it is checked, and what is wrong with it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase as _, TableDefinition, TableHandle as _};

use crate::files::{Disk as _, RealDisk, with_suffix};

/// A hash of all that a representation's bits depend on.
pub type Key = [u8; 32];

/// Raised with every change to keys, values or tables.
pub const FORMAT: u64 = 1;
/// What the file is: `"format"` to [`FORMAT`].
pub const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("crag_cache");
pub const REPRESENTATIONS: TableDefinition<&Key, &[u8]> = TableDefinition::new("representations");

/// The first bytes of every redb file.
pub const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// Pages of the file kept in memory, read and written ones together.
const PAGE_MEMORY_BYTES: usize = 64 << 20;

/// What is wrong with a cache's file.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("{path}: the cache is in use by another run; wait for its end, or give this run another --cache")]
    InUse { path: String },
    #[error("{path}: expected a cache of crag or no file, found {found}; it was left as it is, name another --cache")]
    Foreign { path: String, found: &'static str },
    #[error(
        "{path}: expected a cache of format {FORMAT}, found format {found}; \
         use the crag that wrote it, or name another --cache"
    )]
    Format { path: String, found: String },
    #[error("{path}: the cache is damaged: {reason}; delete it to have it built anew")]
    Damaged { path: String, reason: String },
    #[error("{path}: {action}")]
    Io {
        path: String,
        action: &'static str,
        source: io::Error,
    },
    #[error("{path}: {action}: {reason}; all answers are complete, the cache holds only some of their representations")]
    Run {
        path: String,
        action: &'static str,
        reason: String,
    },
}

/// The database at `path`, or a new one where there is no file. All of its pages are checked.
pub fn open(path: &Path) -> Result<Database, CacheError> {
    match check_is_redb(path) {
        Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => create(path)?,
        checked => checked?,
    }
    let database = open_database(path)?;
    check_format(&database, &path.display().to_string())?;
    Ok(database)
}

pub fn io_error(path: &Path, action: &'static str, source: io::Error) -> CacheError {
    CacheError::Io {
        path: path.display().to_string(),
        action,
        source,
    }
}

/// That the file can be handed to redb, which says less well what a file is that is not its own.
fn check_is_redb(path: &Path) -> Result<(), CacheError> {
    let foreign = |found| {
        let path = path.display().to_string();
        Err(CacheError::Foreign { path, found })
    };
    let failed = |source| io_error(path, "the cache cannot be read", source);
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return foreign("a folder");
    }
    if !metadata.is_file() {
        return foreign("something that is not a file");
    }
    if metadata.len() == 0 {
        return foreign("an empty file");
    }
    let mut start = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(failed)?;
    if start == MAGIC {
        Ok(())
    } else {
        foreign("something else")
    }
}

fn open_database(path: &Path) -> Result<Database, CacheError> {
    redb::Builder::new()
        .set_cache_size(PAGE_MEMORY_BYTES)
        // Without it redb trusts a file that was closed well, and a flipped bit is a wrong answer or a panic.
        .set_check_integrity_on_open(true)
        .open(path)
        .map_err(|error| database_error(path, error))
}

fn database_error(path: &Path, error: DatabaseError) -> CacheError {
    let name = path.display().to_string();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => CacheError::InUse { path: name },
        DatabaseError::UpgradeRequired(version) => CacheError::Format {
            path: name,
            found: format!("redb {version}"),
        },
        DatabaseError::Storage(redb::StorageError::Io(source)) => io_error(path, "the cache cannot be opened", source),
        other => CacheError::Damaged {
            path: name,
            reason: other.to_string(),
        },
    }
}

/// A new, empty cache at `path`. It gets its name when it is whole: a run that is killed meanwhile leaves
/// no half of one behind, and of two runs one is first.
fn create(path: &Path) -> Result<(), CacheError> {
    let temporary = with_suffix(path, &format!(".{}.new", std::process::id()));
    let failed = |source| io_error(path, "the cache cannot be created", source);
    let write = || -> Result<(), redb::Error> {
        let database = redb::Builder::new()
            .set_cache_size(PAGE_MEMORY_BYTES)
            .create(&temporary)?;
        let transaction = database.begin_write()?;
        transaction.open_table(ABOUT)?.insert("format", FORMAT)?;
        transaction.open_table(REPRESENTATIONS)?;
        transaction.commit()?;
        Ok(database.close()?)
    };
    let named = write()
        .map_err(|error| match error {
            redb::Error::Io(source) => source,
            other => io::Error::other(other),
        })
        .and_then(|()| match RealDisk.rename_new(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            renamed => renamed,
        });
    let _ = std::fs::remove_file(&temporary);
    named.map_err(failed)
}

/// That the database is a cache, and of this format.
fn check_format(database: &Database, name: &str) -> Result<(), CacheError> {
    let damaged = |error: redb::Error| CacheError::Damaged {
        path: name.to_owned(),
        reason: error.to_string(),
    };
    let transaction = database.begin_read().map_err(|error| damaged(error.into()))?;
    let mut tables = transaction.list_tables().map_err(|error| damaged(error.into()))?;
    if !tables.any(|table| table.name() == ABOUT.name()) {
        return Err(CacheError::Foreign {
            path: name.to_owned(),
            found: "a redb database of another program",
        });
    }
    let read = || -> Result<Option<u64>, redb::Error> {
        let about = transaction.open_table(ABOUT)?;
        Ok(about.get("format")?.map(|format| format.value()))
    };
    match read().map_err(damaged)? {
        Some(FORMAT) => transaction
            .open_table(REPRESENTATIONS)
            .map(|_| ())
            .map_err(|error| damaged(error.into())),
        found => Err(CacheError::Format {
            path: name.to_owned(),
            found: found.map_or("none".to_owned(), |format| format.to_string()),
        }),
    }
}
