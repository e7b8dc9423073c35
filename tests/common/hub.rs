//! A small hub on loopback, in the likeness of the real one: file lists, small files served directly, weights
//! redirected to a second host with their SHA-256 and size, ranges, tokens, error codes, and cut connections.
//!
//! Drive the library with [`Hub::endpoint`], or the binary with `HF_ENDPOINT` set to it. Each request is its own
//! connection, so connections and requests are one count.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the hub behaves; change it at any time through [`Hub::settings`].
#[derive(Default)]
pub struct Settings {
    /// `owner/name` to its files, all at [`COMMIT`], which `main` and `v1` name.
    pub repositories: HashMap<String, BTreeMap<String, Vec<u8>>>,
    /// Asked for on every request when set.
    pub token: Option<String>,
    /// Answer 403 to every file.
    pub gated: bool,
    /// Answer file lists with 404, as a plain mirror does.
    pub no_lists: bool,
    /// Leave out the X-Error-Code header.
    pub no_error_codes: bool,
    /// Send whole files whatever range is asked for.
    pub ignore_ranges: bool,
    /// How many more times to cut the connection in mid-body, by file name.
    pub cuts: HashMap<String, u32>,
    /// How many more times to flip the last byte of a body, by file name.
    pub damages: HashMap<String, u32>,
    /// How many bytes of it the second host has, by file name; the first states the whole length.
    pub shortened: HashMap<String, usize>,
    /// Names of files that are sent without a length and without an end.
    pub endless: Vec<String>,
    /// Names in the list of files that are answered with 404.
    pub unserved: Vec<String>,
    /// State no hash of a redirected file; the host that it is redirected to has an etag of its own making.
    pub no_linked_etags: bool,
    /// Answer this many requests with status 503.
    pub overloaded: u32,
    /// After [`Self::allowed`] more requests, answer this many with status 429 and the header [`Self::limit`].
    pub limited: u32,
    pub allowed: u32,
    /// When to come back, as a header.
    pub limit: String,
    /// Wait this long before each body.
    pub delay: Duration,
    /// Every request so far: `GET /path`, with ` from N` when a range was asked for.
    pub requests: Vec<String>,
    /// Whether a token was ever sent to the second host.
    pub token_leaked: bool,
    /// Bytes of bodies sent.
    pub bytes_sent: usize,
    /// Names of the files that the second host sent to their ends: nobody closed the connection before.
    pub sent_whole: Vec<String>,
}

pub struct Hub {
    port: u16,
    settings: Arc<Mutex<Settings>>,
}

impl Hub {
    /// A hub with one repository.
    pub fn serving(id: &str, files: &[(&str, &[u8])]) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let (listener, storage) = (listen(), listen());
        let port = |listener: &TcpListener| listener.local_addr().expect("a bound listener has an address").port();
        let (hub_port, storage_port) = (port(&listener), port(&storage));
        let files = files
            .iter()
            .map(|(name, bytes)| (name.to_string(), bytes.to_vec()))
            .collect();
        let settings = Arc::new(Mutex::new(Settings {
            repositories: HashMap::from([(id.to_string(), files)]),
            ..Settings::default()
        }));
        for (listener, is_storage) in [(listener, false), (storage, true)] {
            let settings = settings.clone();
            // Both end with the test process.
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let settings = settings.clone();
                    thread::spawn(move || {
                        let _ = serve(stream, &settings, is_storage, storage_port);
                    });
                }
            });
        }
        Self {
            port: hub_port,
            settings,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.settings().requests)
    }
}

fn lock(settings: &Mutex<Settings>) -> MutexGuard<'_, Settings> {
    settings.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Request {
    method: String,
    path: String,
    start: Option<usize>,
    token: Option<String>,
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ');
    let mut request = Request {
        method: words.next().unwrap_or_default().to_string(),
        path: words.next().unwrap_or_default().to_string(),
        start: None,
        token: None,
    };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let start = value
                    .trim()
                    .strip_prefix("bytes=")
                    .and_then(|range| range.split('-').next());
                request.start = start.and_then(|start| start.parse().ok());
            }
            "authorization" => request.token = value.trim().strip_prefix("Bearer ").map(str::to_string),
            _ => {}
        }
    }
    Ok(request)
}

fn serve(
    mut stream: TcpStream,
    settings: &Mutex<Settings>,
    is_storage: bool,
    storage_port: u16,
) -> std::io::Result<()> {
    let request = read_request(&stream)?;
    let mut state = lock(settings);
    let from = request.start.map(|start| format!(" from {start}")).unwrap_or_default();
    state
        .requests
        .push(format!("{} {}{from}", request.method, request.path));
    if is_storage {
        state.token_leaked |= request.token.is_some();
        let name = request.path.rsplit('/').next().unwrap_or_default().to_string();
        let found = state.repositories.values().find_map(|files| files.get(&name).cloned());
        return match found {
            Some(mut bytes) => {
                bytes.truncate(state.shortened.get(&name).copied().unwrap_or(usize::MAX));
                let etag = match state.no_linked_etags {
                    true => "5".repeat(64),
                    false => sha256(&bytes),
                };
                send_file(stream, state, &request, &name, &bytes, &format!("ETag: \"{etag}\"\r\n"))?;
                lock(settings).sent_whole.push(name);
                Ok(())
            }
            None => refuse(&mut stream, 404, ""),
        };
    }
    if state.overloaded > 0 {
        state.overloaded -= 1;
        return refuse(&mut stream, 503, "");
    }
    if state.limited > 0 && state.allowed > 0 {
        state.allowed -= 1;
    } else if state.limited > 0 {
        state.limited -= 1;
        return refuse_with(&mut stream, 429, &format!("{}\r\n", state.limit));
    }
    let code = |name: &'static str| if state.no_error_codes { "" } else { name };
    if state.token.is_some() && state.token != request.token {
        return refuse(&mut stream, 401, code("RepoNotFound"));
    }
    let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let (owner, name, revision, file) = match parts.as_slice() {
        ["api", "models", owner, name, "revision", revision] => (owner, name, revision, None),
        [owner, name, "resolve", revision, file] => (owner, name, revision, Some(file.to_string())),
        _ => return refuse(&mut stream, 404, code("RepoNotFound")),
    };
    let Some(files) = state.repositories.get(&format!("{owner}/{name}")) else {
        return refuse(&mut stream, 404, code("RepoNotFound"));
    };
    if !["main", "v1", COMMIT].contains(revision) {
        return refuse(&mut stream, 404, code("RevisionNotFound"));
    }
    let Some(file) = file else {
        if state.no_lists {
            return refuse(&mut stream, 404, "");
        }
        let names: Vec<String> = files
            .keys()
            .map(|name| format!("{{\"rfilename\":\"{name}\"}}"))
            .collect();
        let body = format!(
            "{{\"sha\":\"{COMMIT}\",\"private\":false,\"siblings\":[{}]}}",
            names.join(",")
        );
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    };
    if state.gated {
        return refuse(&mut stream, 403, code("GatedRepo"));
    }
    let served = files.get(&file).filter(|_| !state.unserved.contains(&file));
    let Some(bytes) = served.cloned() else {
        return refuse(&mut stream, 404, code("EntryNotFound"));
    };
    if file.ends_with(".safetensors") || file.ends_with(".bin") {
        let linked = match state.no_linked_etags {
            true => String::new(),
            false => format!("X-Linked-Etag: \"{}\"\r\n", sha256(&bytes)),
        };
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\nX-Repo-Commit: {COMMIT}\r\n{linked}X-Linked-Size: {}\r\n\
             Location: http://127.0.0.1:{storage_port}/blobs/{file}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            bytes.len()
        );
    }
    let headers = format!("X-Repo-Commit: {COMMIT}\r\nETag: \"{}\"\r\n", git_hash(&bytes));
    send_file(stream, state, &request, &file, &bytes, &headers)
}

fn send_file(
    mut stream: TcpStream,
    mut state: MutexGuard<'_, Settings>,
    request: &Request,
    name: &str,
    bytes: &[u8],
    headers: &str,
) -> std::io::Result<()> {
    let start = request.start.filter(|_| !state.ignore_ranges);
    let takes_one = |left: Option<&mut u32>| match left {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    };
    let cut = takes_one(state.cuts.get_mut(name));
    let mut bytes = bytes.to_vec();
    if takes_one(state.damages.get_mut(name)) {
        bytes.last_mut().into_iter().for_each(|byte| *byte ^= 1);
    }
    if state.endless.iter().any(|endless| endless == name) {
        drop(state);
        write!(stream, "HTTP/1.1 200 OK\r\n{headers}Connection: close\r\n\r\n")?;
        let block = vec![b' '; 1 << 20];
        loop {
            stream.write_all(&block)?;
        }
    }
    let delay = state.delay;
    let (status, range) = match start {
        None => ("200 OK", String::new()),
        Some(start) if start < bytes.len() => {
            let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            ("206 Partial Content", range)
        }
        Some(_) => {
            drop(state);
            return refuse(&mut stream, 416, "");
        }
    };
    let mut body = &bytes[start.unwrap_or(0)..];
    let length = body.len();
    if cut {
        body = &body[..length / 2];
    }
    if request.method == "HEAD" {
        body = &[];
    }
    state.bytes_sent += body.len();
    drop(state);
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{headers}{range}Accept-Ranges: bytes\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.flush()?;
    thread::sleep(delay);
    stream.write_all(body)
}

fn refuse(stream: &mut TcpStream, status: u16, code: &str) -> std::io::Result<()> {
    let code = if code.is_empty() {
        String::new()
    } else {
        format!("X-Error-Code: {code}\r\n")
    };
    refuse_with(stream, status, &code)
}

/// `headers`: whole lines.
fn refuse_with(stream: &mut TcpStream, status: u16, headers: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status} Refused\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

/// The etag of large files.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Forty hexadecimal digits that depend on the bytes (FNV-1a from several bases), as the etags of small files do.
fn git_hash(bytes: &[u8]) -> String {
    let fnv = |basis: u64| {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        bytes.iter().fold(0xcbf2_9ce4_8422_2325 ^ basis, step)
    };
    let digits = format!("{:016x}{:016x}{:016x}", fnv(0), fnv(1), fnv(2));
    digits[..40].to_string()
}
