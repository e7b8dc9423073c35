//! The hub's settings, as its Python client reads them from the environment.

use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// How to reach the hub, and where its files are kept.
#[derive(Clone, Default)]
pub struct HubOptions {
    /// `https://huggingface.co` where none is given.
    pub endpoint: Option<String>,
    /// The folder with `models--owner--name` folders; the one that [`HubOptions::from_env`] finds where none
    /// is given.
    pub cache_dir: Option<PathBuf>,
    /// Sent to the endpoint's host and to no other; never shown.
    pub token: Option<String>,
    /// Where the token is from, for messages: a variable's name or a file.
    pub token_source: Option<String>,
    /// A file of the certificates (PEM) of those who are trusted in place of the public authorities, and the variable that names it.
    pub certificates: Option<(PathBuf, &'static str)>,
    /// Make no connection at all.
    pub offline: bool,
    /// Draw progress bars on stderr.
    pub progress: bool,
    /// Is told of what takes long for a reason of the hub's.
    pub tell: Option<fn(&str)>,
}

/// The first of these that is set names [`HubOptions::certificates`].
const CERTIFICATES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

impl HubOptions {
    /// The variables that say where models come from and are kept, but for tokens.
    pub const VARIABLES: [&str; 17] = [
        "HF_ENDPOINT",
        "HF_HOME",
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "HUGGINGFACE_HUB_CACHE",
        "XDG_CACHE_HOME",
        CERTIFICATES[0],
        CERTIFICATES[1],
        CERTIFICATES[2],
        // Of the library that makes connections.
        "ALL_PROXY",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "all_proxy",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ];

    /// `HF_ENDPOINT`; `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub` in `HF_HOME`, else in
    /// `huggingface` in `XDG_CACHE_HOME` or `~/.cache`; `HF_TOKEN`, else `HUGGING_FACE_HUB_TOKEN`, else the file
    /// `token` in `HF_HOME`; `SSL_CERT_FILE`, else `REQUESTS_CA_BUNDLE`, else `CURL_CA_BUNDLE`, as Python's libraries heed them;
    /// `HF_HUB_OFFLINE` (1, true, yes, on). Progress is drawn where stderr is a terminal,
    /// unless `HF_HUB_DISABLE_PROGRESS_BARS` is set.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var_os(name), std::io::stderr().is_terminal())
    }

    fn from_vars(var: impl Fn(&str) -> Option<OsString>, terminal: bool) -> Self {
        let text = |name: &str| {
            let value = var(name)?.into_string().ok()?;
            let value = value.trim();
            (!value.is_empty()).then(|| value.to_string())
        };
        let token_file = || {
            let path = home(&var)?.join("token");
            // What is no text is no token either, and that is told.
            let token = String::from_utf8_lossy(&std::fs::read(&path).ok()?).trim().to_owned();
            (!token.is_empty()).then(|| (token, path.display().to_string()))
        };
        let variable = |name: &str| Some((text(name)?, name.to_owned()));
        let token = variable("HF_TOKEN")
            .or_else(|| variable("HUGGING_FACE_HUB_TOKEN"))
            .or_else(token_file);
        let (token, token_source) = token.unzip();
        let flag = |name: &str| {
            let value = text(name).unwrap_or_default().to_ascii_lowercase();
            matches!(value.as_str(), "1" | "true" | "yes" | "on")
        };
        Self {
            endpoint: text("HF_ENDPOINT"),
            cache_dir: cache_dir(&var),
            token,
            token_source,
            certificates: certificates(&var),
            offline: flag("HF_HUB_OFFLINE"),
            progress: terminal && !flag("HF_HUB_DISABLE_PROGRESS_BARS"),
            tell: None,
        }
    }

    pub(super) fn cache_dir(&self) -> Option<PathBuf> {
        self.cache_dir
            .clone()
            .or_else(|| cache_dir(|name| std::env::var_os(name)))
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("token_source", &self.token_source)
            .field("certificates", &self.certificates)
            .field("offline", &self.offline)
            .field("progress", &self.progress)
            .finish()
    }
}

fn path(var: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    let value = var(name).filter(|value| !value.is_empty())?;
    let path = Path::new(&value);
    match path.strip_prefix("~") {
        Ok(rest) => Some(PathBuf::from(var("HOME")?).join(rest)),
        Err(_) => Some(path.to_path_buf()),
    }
}

/// What `HF_HOME` is, or is by default.
fn home(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let default = || {
        let caches = path(&var, "XDG_CACHE_HOME").or_else(|| Some(path(&var, "HOME")?.join(".cache")))?;
        Some(caches.join("huggingface"))
    };
    path(&var, "HF_HOME").or_else(default)
}

fn cache_dir(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    path(&var, "HF_HUB_CACHE")
        .or_else(|| path(&var, "HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(home(&var)?.join("hub")))
}

fn certificates(var: impl Fn(&str) -> Option<OsString>) -> Option<(PathBuf, &'static str)> {
    let named = |name| Some((path(&var, name)?, name));
    let found = CERTIFICATES.into_iter().find_map(named)?;
    // Some of those who heed the variable take a folder, too.
    (!found.0.is_dir()).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn options(vars: &[(&str, &str)]) -> HubOptions {
        let vars: HashMap<&str, &str> = vars.iter().copied().collect();
        HubOptions::from_vars(|name| vars.get(name).map(OsString::from), false)
    }

    #[test]
    fn the_cache_is_where_the_hubs_users_expect_it() {
        let cache = |vars: &[(&str, &str)]| options(vars).cache_dir.unwrap();
        let home = ("HOME", "/h");
        assert_eq!(cache(&[home]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/x")]),
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/f")]),
            Path::new("/h/f/hub")
        );
        let old = ("HUGGINGFACE_HUB_CACHE", "/old");
        assert_eq!(cache(&[home, ("HF_HOME", "/f"), old]), Path::new("/old"));
        assert_eq!(
            cache(&[("HF_HOME", "/f"), old, ("HF_HUB_CACHE", "/new")]),
            Path::new("/new")
        );
        assert_eq!(
            cache(&[home, ("HF_HUB_CACHE", "")]),
            Path::new("/h/.cache/huggingface/hub")
        );
        assert_eq!(options(&[]).cache_dir, None);
    }

    #[test]
    fn a_token_comes_from_the_environment_or_the_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        assert_eq!(options(&[home]).token.as_deref(), Some("hf_file"));
        let old = ("HUGGING_FACE_HUB_TOKEN", "hf_old");
        assert_eq!(options(&[home, old]).token.as_deref(), Some("hf_old"));
        let all = options(&[home, old, ("HF_TOKEN", " hf_new ")]);
        assert_eq!(all.token.as_deref(), Some("hf_new"));
        assert!(!format!("{all:?}").contains("hf_"));
        let source = |vars: &[(&str, &str)]| options(vars).token_source.unwrap();
        let file = folder.path().join("token").display().to_string();
        assert_eq!(
            [source(&[home]), source(&[home, old]), source(&[old, ("HF_TOKEN", "x")])],
            [file.as_str(), "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"]
        );
        // Bytes that are no text are no missing token.
        std::fs::write(folder.path().join("token"), b"\xff\xfe").unwrap();
        assert!(options(&[home]).token.is_some());
    }

    #[test]
    fn offline_is_what_python_takes_for_true() {
        for (value, offline) in [
            ("1", true),
            ("TRUE", true),
            ("yes", true),
            ("On", true),
            ("0", false),
            ("", false),
        ] {
            assert_eq!(options(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }
}
