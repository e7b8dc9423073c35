//! Representations kept between runs, in one file.
//!
//! The file is a redb database: a table of representations and one that says what the file is. A key is a
//! hash of all that a representation's bits depend on: the model, the kernels and their precision, this
//! version of the program, the side and the token ids; so one file serves many models, and nothing in it
//! ever has to be invalidated. A value is the representation's f32 as little-endian bytes, so results are
//! the same to the bit with and without a cache.
//!
//! Writing is a thread's work, so that committing holds no encoder up. It commits every
//! [`COMMIT_REPRESENTATIONS`] or [`COMMIT_AFTER`], durably: a run that is killed loses at most what it
//! computed since. Nothing that goes wrong with the file during a run costs an answer: what cannot be read
//! is computed again, and [`Cache::flush`] tells what happened.
//!
//! Where look-ups belong in a run is [`super::stage`]'s.

mod file;

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase as _};

pub use self::file::CacheError;
use self::file::{Key, REPRESENTATIONS, io_error};

use crate::Side;
use crate::guard::guarded;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Representations waiting to be written; whoever has more waits.
const WAITING: usize = 4096;
const COMMIT_REPRESENTATIONS: usize = 4096;
const COMMIT_AFTER: Duration = Duration::from_millis(250);

/// An open cache file, as far as it is one model's on one kernel. No other run can open it meanwhile.
pub struct Cache {
    file: Arc<OpenFile>,
    /// Keys every hash; from all that a run holds fixed.
    fingerprint: Key,
}

/// The file behind the caches of all models of a run.
struct OpenFile {
    path: String,
    database: Arc<Database>,
    /// None once closing.
    sender: Option<SyncSender<Write>>,
    writer: Option<JoinHandle<()>>,
    /// The first thing that went wrong since the last flush.
    failure: Arc<Mutex<Option<CacheError>>>,
}

enum Write {
    Representation(Key, Box<[f32]>),
    /// Asks for a commit, and for word when it is done.
    Flush(SyncSender<()>),
}

impl Cache {
    /// Opens the cache at `path`, or makes a new one where there is no file.
    ///
    /// `model`: a hash of all that makes up the model. `kernel`: what computes it, and how precisely.
    /// All pages of the file are checked, which reads it once.
    ///
    /// # Errors
    /// A file in use by another run, one that is damaged, of another format or no cache at all. A file
    /// that is not redb's is not written to; another program's database keeps its contents, though
    /// checking it commits.
    pub fn open(path: &Path, model: &[u8; 32], kernel: &str) -> Result<Self, CacheError> {
        let database = file::open(path)?;
        Self::with_database(database, path.display().to_string(), model, kernel)
            .map_err(|source| io_error(path, "cannot start a thread to write it", source))
    }

    fn with_database(database: Database, path: String, model: &[u8; 32], kernel: &str) -> io::Result<Self> {
        let database = Arc::new(database);
        let failure = Arc::new(Mutex::new(None));
        let (sender, receiver) = sync_channel(WAITING);
        let thread = Writer {
            path: path.clone(),
            database: Arc::clone(&database),
            failure: Arc::clone(&failure),
        };
        let writer = std::thread::Builder::new()
            .name("crag-cache".to_owned())
            .spawn(move || thread.run(&receiver))?;
        Ok(Self {
            file: Arc::new(OpenFile {
                path,
                database,
                sender: Some(sender),
                writer: Some(writer),
                failure,
            }),
            fingerprint: fingerprint(model, kernel, VERSION),
        })
    }

    /// The same file for another model: both can be used at once.
    pub fn of_model(&self, model: &[u8; 32], kernel: &str) -> Self {
        Self {
            file: Arc::clone(&self.file),
            fingerprint: fingerprint(model, kernel, VERSION),
        }
    }

    /// What is kept now. Later writes do not show in it.
    pub fn reader(&self) -> Option<Reader<'_>> {
        let open = || -> Result<_, redb::Error> { Ok(self.file.database.begin_read()?.open_table(REPRESENTATIONS)?) };
        match guarded(|| open().map_err(|error| error.to_string())).flatten() {
            Ok(table) => Some(Reader { cache: self, table }),
            Err(reason) => {
                self.note_unreadable(&reason);
                None
            }
        }
    }

    /// Keeps a representation. Waits only where writing is far behind.
    pub fn store(&self, side: Side, token_ids: &[u32], representation: &[f32]) {
        if let Some(sender) = &self.file.sender {
            // A writer that has ended has said why.
            let _ = sender.send(Write::Representation(self.key(side, token_ids), representation.into()));
        }
    }

    /// Waits until all that was stored is in the file for good.
    ///
    /// # Errors
    /// The first thing that went wrong since the last call, reading or writing.
    pub fn flush(&self) -> Result<(), CacheError> {
        let (done, wait) = sync_channel(1);
        if let Some(sender) = &self.file.sender
            && sender.send(Write::Flush(done)).is_ok()
        {
            // An error is the writer's end, of which it leaves word.
            let _ = wait.recv();
        }
        match self.file.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn key(&self, side: Side, token_ids: &[u32]) -> Key {
        let mut bytes = Vec::with_capacity(1 + 4 * token_ids.len());
        bytes.push(side as u8);
        bytes.extend(token_ids.iter().flat_map(|id| id.to_le_bytes()));
        blake3::keyed_hash(&self.fingerprint, &bytes).into()
    }

    fn note_unreadable(&self, error: &dyn std::fmt::Display) {
        note(
            &self.file.failure,
            CacheError::Run {
                path: self.file.path.clone(),
                action: "reading the cache failed",
                reason: error.to_string(),
            },
        );
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("path", &self.file.path)
            .finish_non_exhaustive()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // The writer commits what it has when nothing more can come.
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// A view of the cache at one moment; to be shared between threads.
pub struct Reader<'c> {
    cache: &'c Cache,
    table: redb::ReadOnlyTable<&'static Key, &'static [u8]>,
}

impl Reader<'_> {
    /// The representation of these token ids, if it is kept.
    pub fn find(&self, side: Side, token_ids: &[u32]) -> Option<Box<[f32]>> {
        guarded(|| self.look_up(side, token_ids)).unwrap_or_else(|reason| {
            self.cache.note_unreadable(&reason);
            None
        })
    }

    fn look_up(&self, side: Side, token_ids: &[u32]) -> Option<Box<[f32]>> {
        let found = match self.table.get(&self.cache.key(side, token_ids)) {
            Ok(found) => found?,
            Err(error) => {
                self.cache.note_unreadable(&error);
                return None;
            }
        };
        let (values, rest) = found.value().as_chunks::<4>();
        if values.is_empty() || !rest.is_empty() {
            let length = found.value().len();
            self.cache
                .note_unreadable(&format!("expected a representation, found {length} bytes"));
            return None;
        }
        Some(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// What the writing thread works with.
struct Writer {
    path: String,
    database: Arc<Database>,
    failure: Arc<Mutex<Option<CacheError>>>,
}

impl Writer {
    /// Until the cache is dropped or the file cannot be written.
    fn run(self, receiver: &Receiver<Write>) {
        while let Ok(first) = receiver.recv() {
            let committed = guarded(|| self.commit(first, receiver).map_err(|error| error.to_string()));
            if let Err(reason) = committed.flatten() {
                note(
                    &self.failure,
                    CacheError::Run {
                        path: self.path.clone(),
                        action: "writing the cache failed",
                        reason,
                    },
                );
                return;
            }
        }
    }

    /// Commits `first` and what comes soon after.
    fn commit(&self, first: Write, receiver: &Receiver<Write>) -> Result<(), redb::Error> {
        let deadline = Instant::now() + COMMIT_AFTER;
        let transaction = self.database.begin_write()?;
        let mut flush = None;
        {
            let mut table = transaction.open_table(REPRESENTATIONS)?;
            let mut next = Some(first);
            let mut bytes = Vec::new();
            let mut inserted = 0;
            while let Some(write) = next {
                match write {
                    Write::Representation(key, representation) => {
                        bytes.clear();
                        bytes.extend(representation.iter().flat_map(|value| value.to_le_bytes()));
                        table.insert(&key, bytes.as_slice())?;
                        inserted += 1;
                    }
                    Write::Flush(done) => {
                        flush = Some(done);
                        break;
                    }
                }
                next = match inserted {
                    COMMIT_REPRESENTATIONS.. => None,
                    _ => receiver
                        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                        .ok(),
                };
            }
        }
        transaction.commit()?;
        if let Some(done) = flush {
            let _ = done.send(());
        }
        Ok(())
    }
}

/// Of all that a representation depends on besides its text: model, kernel and version of the program.
fn fingerprint(model: &[u8; 32], kernel: &str, version: &str) -> Key {
    let mut fingerprint = blake3::Hasher::new_derive_key("crag representations");
    for part in [model, kernel.as_bytes(), version.as_bytes()] {
        fingerprint.update(blake3::hash(part).as_bytes());
    }
    fingerprint.finalize().into()
}

fn note(failure: &Mutex<Option<CacheError>>, error: CacheError) {
    failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert(error);
}

#[cfg(test)]
mod tests;
