//! Requests to the hub: the list of a repository's files, and one file at a time into the cache.
//!
//! A passing failure (a cut connection, a timeout, an overloaded hub) is tried again, from the byte that was
//! reached; what arrives is counted against the length that was announced. The token goes to the endpoint's
//! host only: the hub redirects large files to other hosts with signed addresses.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use hf_hub::Repo;
use hf_hub::api::RepoInfo;
use indicatif::{ProgressBar, ProgressStyle};
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::HubOptions;
use super::cache::{RepoCache, is_plain_commit};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::error::shorten;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Failures in a row, without a byte of progress, after which a file is given up.
const MOST_FAILURES: u32 = 5;
/// The list is asked for fewer times: where the network is down, the cache serves, and soon.
const MOST_LIST_FAILURES: u32 = 2;
const MOST_REDIRECTS: u32 = 8;
const LARGEST_LIST: u64 = 32 << 20;
const ADVICE: &str = "check the network and HF_ENDPOINT, or use --offline with a model that is already cached";

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may go better next time.
    Passing(String),
    /// It will not.
    Final(CheckpointError),
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        Self::Final(error)
    }
}

/// What the hub says about a revision.
pub(super) struct Listing {
    pub commit: String,
    pub files: BTreeSet<String>,
}

/// A file that is now in the cache.
#[derive(Debug)]
pub(super) struct Downloaded {
    pub commit: String,
}

pub(super) struct Client {
    agent: Agent,
    id: String,
    /// Without a slash at its end.
    endpoint: String,
    token: Option<String>,
    progress: bool,
}

impl Client {
    pub(super) fn new(id: &str, options: &HubOptions) -> Result<Self, CheckpointError> {
        let endpoint = options
            .endpoint
            .as_deref()
            .unwrap_or(DEFAULT_ENDPOINT)
            .trim_end_matches('/')
            .to_string();
        let refuse = |reason: String| CheckpointError::NotOnHub {
            repo: id.to_string(),
            reason,
        };
        if origin(&endpoint).is_none() {
            let shown = shorten(&endpoint);
            return Err(refuse(format!(
                "HF_ENDPOINT is \"{shown}\": expected an address that starts with https:// or http://"
            )));
        }
        if options
            .token
            .as_ref()
            .is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(refuse("the token (HF_TOKEN) holds characters that no token has".into()));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Bytes are counted and resumed as they are stored.
            .accept_encoding("identity")
            .user_agent(concat!("crag/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(10)))
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .build();
        Ok(Self {
            agent: config.into(),
            id: id.to_string(),
            endpoint,
            token: options.token.clone(),
            progress: options.progress,
        })
    }

    pub(super) fn unreachable(&self, what: &str, reason: String) -> CheckpointError {
        CheckpointError::Unreachable {
            repo: self.id.clone(),
            what: what.to_string(),
            endpoint: without_credentials(&self.endpoint),
            reason,
            advice: ADVICE,
        }
    }

    /// The commit and the files of a revision; `None` where this hub keeps no such list.
    pub(super) fn info(&self, revision: &str) -> Result<Option<Listing>, CheckpointError> {
        let repo = Repo::with_revision(self.id.clone(), hf_hub::RepoType::Model, revision.to_string());
        let url = format!("{}/api/{}", self.endpoint, repo.api_url());
        let mut failures = 0;
        loop {
            let reason = match self.request_list(&url, revision) {
                Ok(list) => return Ok(list),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => reason,
            };
            failures += 1;
            if failures == MOST_LIST_FAILURES {
                return Err(self.unreachable("the list of files", reason));
            }
            pause(failures);
        }
    }

    fn request_list(&self, url: &str, revision: &str) -> Result<Option<Listing>, Failure> {
        let answer = self.get(url, revision, 0)?;
        if answer.status != 200 {
            return Ok(None);
        }
        let mut body = answer.body;
        let text = body
            .body_mut()
            .with_config()
            .limit(LARGEST_LIST)
            .read_to_vec()
            .map_err(|error| Failure::Passing(error.to_string()))?;
        let list = serde_json::from_slice::<RepoInfo>(&text)
            .ok()
            .filter(|info| is_plain_commit(&info.sha));
        Ok(list.map(|info| Listing {
            commit: info.sha,
            files: info.siblings.into_iter().map(|file| file.rfilename).collect(),
        }))
    }

    /// Brings `name` (a plain file name) at `revision` into the cache; `None` where the hub has no such file.
    pub(super) fn download(
        &self,
        cache: &RepoCache,
        revision: &str,
        name: &str,
    ) -> Result<Option<Downloaded>, Failure> {
        let repo = Repo::with_revision(self.id.clone(), hf_hub::RepoType::Model, revision.to_string());
        let url = format!(
            "{}/{}/resolve/{}/{name}",
            self.endpoint,
            repo.url(),
            repo.url_revision()
        );
        let mut job = Job {
            url,
            revision,
            name,
            found: None,
            reached: 0,
        };
        let mut failures = 0;
        loop {
            let before = job.reached;
            let reason = match self.attempt(cache, &mut job) {
                Err(Failure::Passing(reason)) => reason,
                other => return other,
            };
            failures = if job.reached > before { 1 } else { failures + 1 };
            if failures == MOST_FAILURES {
                let reached = match job.reached {
                    0 => String::new(),
                    reached => format!(" (at byte {reached}; the next run goes on from there)"),
                };
                return Err(Failure::Passing(format!("{reason}{reached}")));
            }
            pause(failures);
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
                    return Err(Failure::Final(self.unreachable(job.name, reason)));
                };
                let found = Found {
                    blob: blob_name(first.etag.as_deref(), &commit, job.name),
                    commit,
                    size: first.size,
                };
                answer = Some(first);
                job.found.insert(found).clone()
            }
        };
        cache.create_blobs()?;
        // The answer is dropped when there is a wait: a connection that nobody reads from would not survive it.
        let lock = cache.lock(&found.blob, || answer = None)?;
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
            .write(true)
            .open(part)
            .map_err(failed)?;
        let mut held = file.metadata().map_err(failed)?.len();
        // Without a length there is no telling whether the rest fits what is here.
        if found.size.is_none_or(|size| held > size) {
            held = 0;
        }
        job.reached = held;
        if held > 0 && found.size == Some(held) {
            return file.sync_all().map_err(failed);
        }
        let answer = match answer {
            Some(answer) if held == 0 => answer,
            _ => {
                let answer = self.get(&job.url, job.revision, held)?;
                if blob_name(answer.etag.as_deref(), &found.commit, job.name) != found.blob {
                    job.found = None;
                    return Err(Failure::Passing("the file changed while it was downloaded".into()));
                }
                answer
            }
        };
        if !matches!(answer.status, 200 | 206) || answer.start > held {
            file.set_len(0).map_err(failed)?;
            job.reached = 0;
            return Err(Failure::Passing(format!(
                "status {} in answer to a partial request",
                answer.status
            )));
        }
        // A hub that ignores the range sends everything again.
        file.set_len(answer.start).map_err(failed)?;
        file.seek(SeekFrom::Start(answer.start)).map_err(failed)?;
        job.reached = answer.start;

        let bar = self.bar(job.name, found.size, answer.start);
        let mut body = answer.body.into_body().into_reader();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(Failure::Passing(format!("the connection was cut: {error}"))),
            };
            file.write_all(&buffer[..count]).map_err(failed)?;
            job.reached += count as u64;
            bar.inc(count as u64);
        }
        if let Some(size) = found.size.filter(|size| *size != job.reached) {
            return Err(Failure::Passing(format!("{} of {size} bytes arrived", job.reached)));
        }
        bar.finish_and_clear();
        file.sync_all().map_err(failed)
    }

    fn bar(&self, name: &str, size: Option<u64>, start: u64) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ({eta})";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(name.to_string());
        bar.set_position(start);
        bar
    }

    /// One request, redirects followed. Success, 404 of a file and 416 are for the caller to judge.
    fn get(&self, url: &str, revision: &str, start: u64) -> Result<Answer, Failure> {
        let mut url = url.to_string();
        let home = origin(&self.endpoint);
        let (mut commit, mut linked_etag, mut linked_size, mut etag) = (None, None, None, None);
        for _ in 0..=MOST_REDIRECTS {
            let at_home = origin(&url) == home;
            let mut request = self.agent.get(&url);
            if let Some(token) = self.token.as_ref().filter(|_| at_home) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if start > 0 {
                request = request.header("Range", format!("bytes={start}-"));
            }
            let response = request.call().map_err(|error| self.network_failure(&error))?;
            let status = response.status().as_u16();
            let headers = response.headers();
            if at_home {
                commit = commit.or_else(|| header(headers, "x-repo-commit"));
                linked_etag = linked_etag.or_else(|| header(headers, "x-linked-etag"));
                linked_size = linked_size.or_else(|| header(headers, "x-linked-size")?.parse().ok());
            }
            if matches!(status, 301 | 302 | 303 | 307 | 308) {
                let Some(next) = header(headers, "location").and_then(|location| resolve(&url, &location)) else {
                    return Err(Failure::Passing(format!("a redirect (status {status}) to nowhere")));
                };
                if url.starts_with("https://") && !next.starts_with("https://") {
                    return Err(Failure::Passing(
                        "a redirect from https to an unencrypted address".into(),
                    ));
                }
                url = next;
                continue;
            }
            etag = header(headers, "etag").or(etag);
            let code = header(headers, "x-error-code").unwrap_or_default();
            self.judge(status, &code, revision)?;
            let range = header(headers, "content-range").filter(|_| status == 206);
            let (first, whole) = range.as_deref().map_or((0, None), parse_range);
            let length = if status == 200 {
                header(headers, "content-length").and_then(|length| length.parse().ok())
            } else {
                whole
            };
            return Ok(Answer {
                status,
                commit,
                etag: linked_etag.or(etag),
                size: linked_size.or(length),
                start: first,
                body: response,
            });
        }
        Err(Failure::Passing(format!("more than {MOST_REDIRECTS} redirects")))
    }

    fn judge(&self, status: u16, code: &str, revision: &str) -> Result<(), Failure> {
        let access = |reason: &str| {
            Err(Failure::Final(CheckpointError::Access {
                repo: self.id.clone(),
                reason: reason.to_string(),
            }))
        };
        match (status, code) {
            (404, "RepoNotFound" | "RevisionNotFound") => {
                let what = if code == "RepoNotFound" {
                    format!("no such repository on {}", without_credentials(&self.endpoint))
                } else {
                    format!("the repository has no revision \"{revision}\"")
                };
                Err(Failure::Final(CheckpointError::NotOnHub {
                    repo: self.id.clone(),
                    reason: format!(
                        "{what}; check the id and --revision (a private repository is found only with HF_TOKEN set)"
                    ),
                }))
            }
            (401, _) if self.token.is_some() => access(
                "the hub refuses the token (status 401): it is wrong or expired, or the repository does not exist",
            ),
            (401, _) => {
                access("the hub asks for a token (status 401): the repository is private, gated or does not exist")
            }
            (403, _) => access(
                "the hub forbids access (status 403): the token lacks the right, or the repository is gated and its \
                 terms are not accepted",
            ),
            (200 | 206 | 404 | 416, _) => Ok(()),
            (408 | 425 | 429 | 500.., _) => Err(Failure::Passing(format!("status {status}"))),
            _ => Err(Failure::Final(
                self.unreachable("an answer", format!("status {status}")),
            )),
        }
    }

    fn network_failure(&self, error: &ureq::Error) -> Failure {
        let reason = match error {
            ureq::Error::HostNotFound => "the host is not found; is the network up?".to_string(),
            ureq::Error::Timeout(_) => format!("no answer in time ({error})"),
            other => other.to_string(),
        };
        Failure::Passing(reason)
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
}

#[derive(Clone)]
struct Found {
    commit: String,
    blob: String,
    size: Option<u64>,
}

struct Answer {
    status: u16,
    commit: Option<String>,
    etag: Option<String>,
    /// Of the whole file.
    size: Option<u64>,
    /// Where in the file the body starts.
    start: u64,
    body: Response<Body>,
}

fn pause(failures: u32) {
    thread::sleep(Duration::from_millis(100 << failures.min(5)));
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_string())
}

/// Scheme and host with port of an http address.
fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty())?;
    matches!(scheme, "http" | "https").then_some((scheme, host))
}

fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.split_once('@') {
            Some((before, after)) if !before.contains('/') => format!("{scheme}://{after}"),
            _ => url.to_string(),
        },
        None => url.to_string(),
    }
}

/// Where a `Location` leads from `url`: absolute, or a path on the same host.
fn resolve(url: &str, location: &str) -> Option<String> {
    if origin(location).is_some() {
        return Some(location.to_string());
    }
    let (scheme, host) = origin(url)?;
    match location.strip_prefix("//") {
        Some(rest) => Some(format!("{scheme}://{rest}")),
        None => location
            .starts_with('/')
            .then(|| format!("{scheme}://{host}{location}")),
    }
}

/// First byte and whole length of `bytes 5-9/10`.
fn parse_range(range: &str) -> (u64, Option<u64>) {
    let parse = || {
        let (span, whole) = range.strip_prefix("bytes")?.trim_start().split_once('/')?;
        Some((span.split_once('-')?.0.trim().parse().ok()?, whole.trim().parse().ok()))
    };
    // A first byte that cannot be read must not pass for the one asked for.
    parse().unwrap_or((u64::MAX, None))
}

/// The blob's file name. The hub's etags are hashes of the contents; a mirror's may be anything, so there they
/// are made safe as file names and count for one file name only.
fn blob_name(etag: Option<&str>, commit: &str, name: &str) -> String {
    let etag = etag.unwrap_or(commit);
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
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
    use super::*;

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

    #[test]
    fn redirects_resolve_and_hosts_compare_with_their_ports() {
        assert_eq!(resolve("http://a:1/x/y", "/z").as_deref(), Some("http://a:1/z"));
        assert_eq!(resolve("https://a/x", "//b/z").as_deref(), Some("https://b/z"));
        assert_eq!(resolve("https://a/x", "http://b/z").as_deref(), Some("http://b/z"));
        assert_eq!(resolve("https://a/x", "z"), None);
        assert_ne!(origin("http://a:1/x"), origin("http://a:2/x"));
        assert_ne!(origin("https://a.b/x"), origin("https://a.b.evil/x"));
        assert_eq!(origin("ftp://a"), None);
        assert_eq!(without_credentials("https://user:secret@host/x"), "https://host/x");
    }

    #[test]
    fn a_content_range_gives_start_and_whole_length() {
        assert_eq!(parse_range("bytes 5-9/10"), (5, Some(10)));
        assert_eq!(parse_range("bytes 5-9/*"), (5, None));
        assert_eq!(parse_range("nonsense"), (u64::MAX, None));
    }
}
