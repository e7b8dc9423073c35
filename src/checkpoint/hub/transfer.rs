//! Files from the hub into the cache, one at a time.
//!
//! A passing failure (a cut connection, a timeout, an overloaded hub) is tried again, from the byte that was
//! reached; what arrives is counted against the length that was announced, and held against the SHA-256 where one was.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use super::address::in_address;
use super::attempts::{Attempts, Failure};
use super::cache::{RepoCache, is_plain_commit};
use super::digest::Check;
use super::request::{ADVICE, Answer, Client, bare_etag};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::folder::{LARGEST_SMALL_FILE, is_small};

/// Failures in a row, without a byte beyond those that have arrived before, after which a file is given up.
const MOST_FAILURES: u32 = 5;

/// A file that is now in the cache.
#[derive(Debug)]
pub(super) struct Downloaded {
    pub commit: String,
}

impl Client {
    /// Brings `name` (a plain file name) at `revision` into the cache; `None` where the hub has no such file.
    pub(super) fn download(
        &self,
        cache: &RepoCache,
        revision: &str,
        name: &str,
    ) -> Result<Option<Downloaded>, Failure> {
        let url = format!("{}/{}/resolve/{}/{name}", self.endpoint, self.id, in_address(revision));
        let mut job = Job {
            url,
            revision,
            name,
            found: None,
            reached: 0,
            farthest: 0,
            was_thrown_away: false,
        };
        let mut attempts = Attempts::new(&self.id, self.tell, MOST_FAILURES, true);
        loop {
            let failure = match self.attempt(cache, &mut job) {
                Err(failure) => failure,
                done => return done,
            };
            if job.reached > job.farthest {
                attempts.begin_anew();
            }
            job.farthest = job.farthest.max(job.reached);
            attempts.pause(failure).map_err(|mut failure| {
                if let (Failure::Passing(reason) | Failure::Later { reason, .. }, 1..) = (&mut failure, job.reached) {
                    *reason += &format!(" (at byte {}; the next run goes on from there)", job.reached);
                }
                failure
            })?;
        }
    }

    fn attempt(&self, cache: &RepoCache, job: &mut Job) -> Result<Option<Downloaded>, Failure> {
        let mut answer = None;
        let found = match &job.found {
            Some(found) => found.clone(),
            None => {
                let mut first = self.get(&job.url, job.revision, 0)?;
                if first.status == 404 {
                    return Ok(None);
                }
                let Some(commit) = first.commit.take().filter(|commit| is_plain_commit(commit)) else {
                    let reason = "the answer names no commit; is this a hub?".into();
                    return Err(Failure::Final(self.unreachable(job.name, reason, ADVICE)));
                };
                let found = Found {
                    blob: blob_name(first.etag.as_deref(), &commit, job.name),
                    commit,
                    sha256: first.sha256.take(),
                    size: first.size,
                };
                answer = Some(first);
                job.found.insert(found).clone()
            }
        };
        cache.create_blobs()?;
        // The answer is dropped when there is a wait: a connection that nobody reads from would not survive it.
        let mut waiting = None;
        let lock = cache.lock(&found.blob, || {
            answer = None;
            waiting = Some(self.waiting(job.name));
        })?;
        if let Some(waiting) = waiting {
            waiting.finish_and_clear();
        }
        let path = cache.blob(&found.blob);
        let held = fs::metadata(&path).ok().map(|metadata| metadata.len());
        if held.is_none_or(|held| found.size.is_some_and(|size| size != held)) {
            let part = if lock.exclusive {
                path.with_added_extension("incomplete")
            } else {
                path.with_added_extension(format!("{}.incomplete", std::process::id()))
            };
            self.receive(job, &found, &part, answer)?;
            fs::rename(&part, &path)
                .map_err(|error| CheckpointError::io(&path, "renaming a finished download failed", error))?;
        }
        cache.link(&found.blob, &found.commit, job.name)?;
        Ok(Some(Downloaded { commit: found.commit }))
    }

    /// Fills `part` up to its size, going on from what it already holds.
    fn receive(&self, job: &mut Job, found: &Found, part: &Path, answer: Option<Answer>) -> Result<(), Failure> {
        let failed = |error| Failure::Final(CheckpointError::io(part, "writing a download failed", error));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(part)
            .map_err(failed)?;
        let mut check = Check::new(found.sha256.as_deref());
        let mut held = file.metadata().map_err(failed)?.len();
        // Without a length there is no telling whether the rest fits what is here, nor whether what is here is right without a hash,
        // which small files have not; of those there is little to fetch anew.
        if is_small(job.name) || found.size.is_none_or(|size| held > size) {
            held = 0;
        }
        job.reached = held;
        if held > 0 && found.size == Some(held) {
            check.add_start(&mut file, held).map_err(failed)?;
            self.keep_if_right(job, check, part, held)?;
            return file.sync_all().map_err(failed);
        }
        let answer = match answer {
            Some(answer) if held == 0 => answer,
            _ => {
                let answer = self.get(&job.url, job.revision, held)?;
                // An answer without the file need not name its hash either.
                let has_file = matches!(answer.status, 200 | 206);
                if has_file && blob_name(answer.etag.as_deref(), &found.commit, job.name) != found.blob {
                    job.found = None;
                    return Err(Failure::Passing("the file changed while it was downloaded".into()));
                }
                answer
            }
        };
        if !matches!(answer.status, 200 | 206) || answer.start > held {
            file.set_len(0).map_err(failed)?;
            job.reached = 0;
            let whole = found.size.map_or(String::new(), |size| format!(" of {size}"));
            return Err(Failure::Passing(format!(
                "status {} in answer to a request for the bytes{whole} from {held} on",
                answer.status
            )));
        }
        // A hub that ignores the range sends everything again.
        file.set_len(answer.start).map_err(failed)?;
        check.add_start(&mut file, answer.start).map_err(failed)?;
        let start = answer.start;
        job.reached = start;

        let mut arriving = self.arriving(job.name, found.size, answer.start);
        let mut body = answer.body.into_body().into_reader();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(Failure::Passing(format!("the connection was cut: {error}"))),
            };
            file.write_all(&buffer[..count]).map_err(failed)?;
            check.add(&buffer[..count]);
            job.reached += count as u64;
            // The rest of the disk is not for what turns out to be no small file.
            if is_small(job.name) && job.reached > LARGEST_SMALL_FILE {
                let _ = fs::remove_file(part);
                let reason = format!("it is larger than {LARGEST_SMALL_FILE} bytes");
                return Err(Failure::Final(self.altered(job.name, reason)));
            }
            arriving.go_on(job.reached);
        }
        if let Some(size) = found.size.filter(|size| *size != job.reached) {
            return Err(Failure::Passing(format!("{} of {size} bytes arrived", job.reached)));
        }
        arriving.finish();
        self.keep_if_right(job, check, part, start)?;
        file.sync_all().map_err(failed)
    }

    /// Removes `part` if its bytes are not those that the hub states. `held`: how many of them had been there before.
    fn keep_if_right(&self, job: &mut Job, check: Check, part: &Path, held: u64) -> Result<(), Failure> {
        let Err(reason) = check.finish() else {
            return Ok(());
        };
        fs::remove_file(part)
            .map_err(|error| CheckpointError::io(part, "removing a damaged download failed", error))?;
        (job.reached, job.farthest) = (0, 0);
        // What lay here may be what was damaged (by a power cut, say), so once it is worth another try from the first byte.
        if held > 0 && !job.was_thrown_away {
            job.was_thrown_away = true;
            return Err(Failure::Passing(reason));
        }
        Err(Failure::Final(self.altered(job.name, reason)))
    }
}

/// One file on its way.
struct Job<'a> {
    url: String,
    revision: &'a str,
    name: &'a str,
    /// What the hub said about it, once it has.
    found: Option<Found>,
    /// How many of its bytes are on disk.
    reached: u64,
    /// How many were, at most: a mirror that ends too early sends the same bytes again and again.
    farthest: u64,
    /// Whether its bytes once were not those that the hub states.
    was_thrown_away: bool,
}

#[derive(Clone)]
struct Found {
    commit: String,
    blob: String,
    /// See [`Answer::sha256`].
    sha256: Option<String>,
    size: Option<u64>,
}

/// The blob's file name. The hub's etags are hashes of the contents (see `sha256_in`); a mirror's may be anything, so there they
/// are made safe as file names and count for one file name only.
fn blob_name(etag: Option<&str>, commit: &str, name: &str) -> String {
    let etag = etag.unwrap_or(commit);
    let etag = bare_etag(etag);
    if matches!(etag.len(), 40 | 64) && etag != commit && etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return etag.to_string();
    }
    let mut safe = String::new();
    for byte in etag.bytes().take(60) {
        if byte.is_ascii_alphanumeric() {
            safe.push(char::from(byte));
        } else {
            safe.push_str(&format!("-{byte:02x}"));
        }
    }
    format!("{safe}-{name}")
}

#[cfg(test)]
mod tests {
    use super::blob_name;

    #[test]
    fn a_blob_name_is_the_hash_or_a_safe_name_of_its_own() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(blob_name(Some(&format!("\"{hash}\"")), "c", "f"), hash);
        assert_eq!(
            blob_name(Some("W/\"../../x\""), "c", "f.json"),
            "-2e-2e-2f-2e-2e-2fx-f.json"
        );
        assert_ne!(
            blob_name(Some("\"1-2\""), "c", "a"),
            blob_name(Some("\"1-2\""), "c", "b")
        );
        assert_eq!(blob_name(None, hash, "f"), format!("{hash}-f"));
    }
}
