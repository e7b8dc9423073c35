//! Requests to the hub: who is asked, what is sent along, and what an answer means.
//!
//! The token goes to the endpoint's host only: the hub redirects large files to other hosts with signed
//! addresses.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::HubOptions;
use super::address::{in_address, origin, resolve, without_credentials};
use super::attempts::{Attempts, Failure};
use super::cache::is_plain_commit;
use crate::checkpoint::CheckpointError;
use crate::checkpoint::error::shorten;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Failures after which the list of files is given up: few, so that the cache serves soon where the network is down.
const MOST_LIST_FAILURES: u32 = 2;
const MOST_REDIRECTS: u32 = 8;
const LARGEST_LIST: u64 = 32 << 20;
const LATER: &str = "try again then, or use --offline with a model that is already cached";
pub(super) const ADVICE: &str =
    "check the network and HF_ENDPOINT, or use --offline with a model that is already cached";

/// What the hub says about a revision.
pub(super) struct RevisionFiles {
    pub commit: String,
    pub files: BTreeSet<String>,
}

/// [`RevisionFiles`] as the hub writes it.
#[derive(Deserialize)]
struct RevisionInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

pub(super) struct Client {
    agent: Agent,
    pub(super) id: String,
    /// Without a slash at its end.
    pub(super) endpoint: String,
    token: Option<String>,
    pub(super) progress: bool,
    pub(super) tell: Option<fn(&str)>,
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
            let source = options.token_source.as_deref().unwrap_or("HF_TOKEN");
            return Err(refuse(format!(
                "the token ({source}) holds characters that no token has"
            )));
        }
        let mut config = Agent::config_builder();
        if origin(&endpoint).is_some_and(|(_, host)| host.starts_with("127.0.0.1") || host.starts_with("localhost")) {
            // A proxy elsewhere cannot reach this machine's own ports.
            config = config.proxy(None);
        }
        if let Some((path, variable)) = &options.certificates {
            let authorities = authorities(path).map_err(|reason| {
                refuse(format!(
                    "{variable} is \"{}\": {reason}",
                    shorten(&path.to_string_lossy())
                ))
            })?;
            config = config.tls_config(TlsConfig::builder().root_certs(authorities).build());
        }
        let config = config
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
            tell: options.tell,
        })
    }

    pub(super) fn unreachable(&self, what: &str, reason: String, advice: &'static str) -> CheckpointError {
        CheckpointError::Unreachable {
            repo: self.id.clone(),
            what: what.to_string(),
            endpoint: without_credentials(&self.endpoint),
            reason,
            advice,
        }
    }

    /// A file that is not what the hub says it is.
    pub(super) fn altered(&self, what: &str, reason: String) -> CheckpointError {
        const ALTERED: &str =
            "try again, and if it stays so, see what lies between (a proxy, or a mirror in HF_ENDPOINT)";
        self.unreachable(what, reason, ALTERED)
    }

    /// The commit and the files of a revision; `None` where this hub keeps no such list. `waits`: as of [`Attempts::new`].
    pub(super) fn info(&self, revision: &str, waits: bool) -> Result<Option<RevisionFiles>, CheckpointError> {
        let url = format!(
            "{}/api/models/{}/revision/{}",
            self.endpoint,
            self.id,
            in_address(revision)
        );
        let mut attempts = Attempts::new(&self.id, self.tell, MOST_LIST_FAILURES, waits);
        loop {
            let failure = match self.request_list(&url, revision) {
                Ok(list) => return Ok(list),
                Err(failure) => failure,
            };
            let given_up = attempts.pause(failure);
            given_up.map_err(|failure| self.failed("the list of files", failure))?;
        }
    }

    /// The error of what has been given up.
    pub(super) fn failed(&self, what: &str, failure: Failure) -> CheckpointError {
        match failure {
            Failure::Final(error) => error,
            Failure::Passing(reason) => self.unreachable(what, reason, ADVICE),
            Failure::Later { reason, .. } => self.unreachable(what, reason, LATER),
        }
    }

    fn request_list(&self, url: &str, revision: &str) -> Result<Option<RevisionFiles>, Failure> {
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
        let list = serde_json::from_slice::<RevisionInfo>(&text)
            .ok()
            .filter(|info| is_plain_commit(&info.sha));
        Ok(list.map(|info| RevisionFiles {
            commit: info.sha,
            files: info.siblings.into_iter().map(|file| file.rfilename).collect(),
        }))
    }

    /// One request, redirects followed. Success, 404 of a file and 416 are for the caller to judge.
    pub(super) fn get(&self, url: &str, revision: &str, start: u64) -> Result<Answer, Failure> {
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
            self.judge(status, &code, asked_wait(status, headers), revision)?;
            let range = header(headers, "content-range").filter(|_| status == 206);
            let (first, whole) = range.as_deref().map_or((0, None), parse_range);
            let length = if status == 200 {
                header(headers, "content-length").and_then(|length| length.parse().ok())
            } else {
                whole
            };
            // Another host's etag may be a hash of anything, such as of the chunks that it stores.
            let stated = linked_etag.as_ref().or(etag.as_ref().filter(|_| at_home));
            return Ok(Answer {
                status,
                commit,
                sha256: stated.and_then(|etag| sha256_in(etag)).map(str::to_string),
                etag: linked_etag.or(etag),
                size: linked_size.or(length),
                start: first,
                body: response,
            });
        }
        Err(Failure::Passing(format!("more than {MOST_REDIRECTS} redirects")))
    }

    fn judge(&self, status: u16, code: &str, wait: Option<Duration>, revision: &str) -> Result<(), Failure> {
        let access = |reason: &str| {
            Err(Failure::Final(CheckpointError::Access {
                repo: self.id.clone(),
                reason: reason.to_string(),
            }))
        };
        match (status, code) {
            (404, "RepoNotFound" | "RevisionNotFound") => {
                let what = if code == "RepoNotFound" {
                    format!(
                        "no such repository on {}, and no folder or file of this name here",
                        without_credentials(&self.endpoint)
                    )
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
            (408 | 425 | 429 | 500.., _) => {
                let mut reason = format!("status {status}");
                if status == 429 {
                    reason += match self.token {
                        Some(_) => ", too many requests with this token",
                        None => ", too many requests from this address; with a token (HF_TOKEN) more are allowed",
                    };
                }
                Err(match wait {
                    Some(wait) => {
                        let seconds = wait.as_secs();
                        let reason = format!("{reason}; the hub asks to come back in {seconds} s");
                        Failure::Later { reason, wait }
                    }
                    None => Failure::Passing(reason),
                })
            }
            _ => Err(Failure::Final(self.unreachable(
                "an answer",
                format!("status {status}"),
                ADVICE,
            ))),
        }
    }

    fn network_failure(&self, error: &ureq::Error) -> Failure {
        let reason = match error {
            ureq::Error::HostNotFound => "the host is not found; is the network up?".to_string(),
            ureq::Error::Timeout(_) => format!("no answer in time ({error})"),
            other if other.to_string().contains("invalid peer certificate") => format!(
                "{other}: what lies between opens what is encrypted, or the hub's certificate is a company's own; name a file (PEM) of who \
                 issues it in SSL_CERT_FILE"
            ),
            other => other.to_string(),
        };
        Failure::Passing(reason)
    }
}

/// Those who are trusted by a file of certificates.
fn authorities(path: &Path) -> Result<RootCerts, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    };
    let found: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    match found.is_empty() {
        true => Err("expected certificates (PEM), found none".to_owned()),
        false => Ok(RootCerts::new_with_certs(&found)),
    }
}

pub(super) struct Answer {
    pub status: u16,
    pub commit: Option<String>,
    pub etag: Option<String>,
    /// Of the whole file, in hexadecimal, where the hub itself states it.
    pub sha256: Option<String>,
    /// Of the whole file.
    pub size: Option<u64>,
    /// Where in the file the body starts.
    pub start: u64,
    pub body: Response<Body>,
}

/// When to come back after too many requests (429) or where the hub is not available (503): `Retry-After: 55` (RFC 9110, in seconds), or
/// after too many `RateLimit: "api";r=0;t=55` as the hub has it: nothing remains of that limit for so long. None if that is at once.
fn asked_wait(status: u16, headers: &HeaderMap) -> Option<Duration> {
    let seconds = |text: &str| text.trim().parse::<u64>().ok();
    let after = header(headers, "retry-after").filter(|_| matches!(status, 429 | 503));
    let after = after.and_then(|value| seconds(&value));
    let limits = header(headers, "ratelimit")
        .filter(|_| status == 429)
        .unwrap_or_default();
    let reset = |limit: &str| {
        let of = |key: &str| {
            limit
                .split(';')
                .find_map(|part| seconds(part.trim().strip_prefix(key)?))
        };
        of("t=").filter(|_| of("r=").is_none_or(|remaining| remaining == 0))
    };
    let wait = after.or_else(|| limits.split(',').filter_map(reset).max());
    wait.filter(|&seconds| seconds > 0).map(Duration::from_secs)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_string())
}

/// An etag without its quotes and the mark of a weak one.
pub(super) fn bare_etag(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

/// The hub's etags are SHA-256 for large files and git's hashes of blobs, which are shorter, for others.
fn sha256_in(etag: &str) -> Option<&str> {
    let etag = bare_etag(etag);
    (etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit())).then_some(etag)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_of_sixty_four_digits_is_a_sha256() {
        let hash = "0123456789abcdef".repeat(4);
        assert_eq!(sha256_in(&format!("\"{hash}\"")), Some(hash.as_str()));
        assert_eq!(sha256_in(&format!("W/\"{hash}\"")), Some(hash.as_str()));
        assert_eq!(sha256_in(&hash[..40]), None);
        assert_eq!(sha256_in(&hash.replace('f', "g")), None);
    }

    #[test]
    fn a_content_range_gives_start_and_whole_length() {
        assert_eq!(parse_range("bytes 5-9/10"), (5, Some(10)));
        assert_eq!(parse_range("bytes 5-9/*"), (5, None));
        assert_eq!(parse_range("nonsense"), (u64::MAX, None));
    }
}
