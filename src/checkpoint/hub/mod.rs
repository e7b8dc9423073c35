//! A model on the hub: which of its files are needed, and whether the cache already holds them.
//!
//! The cache's layout is that of the hub's Python client, so that both share downloads. hf-hub, which has it too, leaves out
//! what this needs from a transfer (`HF_HUB_CACHE`, offline use, a cached commit, timeouts, checks of length and hash,
//! resuming after the first failure, waiting for another process), and else would give five addresses and paths.
//!
//! Connections made: none when offline, or when the revision is a commit whose files are all cached; one when
//! a branch or tag has not moved; else one more for each file downloaded.

mod address;
mod attempts;
mod cache;
mod digest;
mod options;
mod progress;
mod request;
mod transfer;

use std::collections::BTreeSet;
use std::path::PathBuf;

use self::cache::RepoCache;
pub use self::options::HubOptions;
use self::request::{Client, RevisionFiles};
use super::folder::{self, BESIDE, WEIGHTS};
use super::{CheckpointError, ModelFiles};

/// Finds the files of `id` at `revision`, both already checked to be plain names.
pub(super) fn locate(id: &str, revision: &str, options: &HubOptions) -> Result<ModelFiles, CheckpointError> {
    let Some(folder) = options.cache_dir() else {
        return Err(CheckpointError::NotOnHub {
            repo: id.to_string(),
            reason: "there is no home folder to cache downloads in; set HF_HOME".into(),
        });
    };
    let cache = RepoCache::new(folder, id);
    let model = Model { id, revision, cache };
    if options.offline {
        return model.offline();
    }
    if is_commit(revision) && model.cache.is_complete(revision) {
        return model.in_snapshot(revision, "");
    }
    let client = Client::new(id, options)?;
    let cached = model.cached_commit();
    let cached = cached.filter(|commit| model.cache.weights(commit).is_some());
    match client.info(revision, cached.is_none()) {
        Ok(listing) => model.online(&client, listing),
        // Better the last copy than none, but say so.
        Err(error) => {
            let Some((reason, commit)) = error.why_unreachable().zip(cached) else {
                return Err(error);
            };
            let mut files = model.unasked(&commit, "; from the cache, since the hub could not be reached")?;
            let newer = if is_commit(revision) {
                ""
            } else {
                ", of which there may be a newer"
            };
            let warning = format!("{}: {reason}; the copy in the cache is used{newer}", model.place());
            files.warnings.insert(0, warning);
            Ok(files)
        }
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

struct Model<'a> {
    id: &'a str,
    revision: &'a str,
    cache: RepoCache,
}

impl Model<'_> {
    fn place(&self) -> String {
        format!("{} at {}", self.id, self.revision)
    }

    /// The commit that the revision was last known to be.
    fn cached_commit(&self) -> Option<String> {
        if is_commit(self.revision) {
            return Some(self.revision.to_string());
        }
        self.cache.read_ref(self.revision)
    }

    fn offline(&self) -> Result<ModelFiles, CheckpointError> {
        let refuse = |missing: String| {
            Err(CheckpointError::Offline {
                repo: self.place(),
                cache: self.cache.root().display().to_string(),
                missing,
            })
        };
        let Some(commit) = self.cached_commit() else {
            let path = self.cache.ref_path(self.revision);
            if path.symlink_metadata().is_ok() {
                return refuse(format!(
                    "{} should hold the commit of revision \"{}\", and holds none",
                    path.display(),
                    self.revision
                ));
            }
            return refuse(format!("revision \"{}\" was never downloaded", self.revision));
        };
        if self.cache.weights(&commit).is_none() {
            return refuse(format!(
                "no complete weights ({}) of commit {commit}",
                WEIGHTS.join(", ")
            ));
        }
        self.unasked(&commit, "")
    }

    /// As [`Self::in_snapshot`], without a hub that says which files there are.
    fn unasked(&self, commit: &str, remark: &str) -> Result<ModelFiles, CheckpointError> {
        let mut files = self.in_snapshot(commit, remark)?;
        let unknown = self.cache.unknown(commit);
        if !unknown.is_empty() {
            files.warnings.push(format!(
                "{}: the cache does not tell whether the repository has {}: if it has, they are left out, and every probability may be \
                 wrong; where there is a network, crag inspect --model fetches them",
                self.place(),
                unknown.join(", ")
            ));
        }
        Ok(files)
    }

    fn in_snapshot(&self, commit: &str, remark: &str) -> Result<ModelFiles, CheckpointError> {
        let folder = self.cache.snapshot(commit);
        let Some(weights) = self.cache.weights(commit) else {
            return Err(self.no_weights());
        };
        let source = if commit == self.revision {
            format!("{}{remark}", self.place())
        } else {
            format!("{} (commit {commit}){remark}", self.place())
        };
        let mut files = folder::assemble(&folder, &folder.join(weights), source)?;
        files.revision = Some(commit.to_string());
        Ok(files)
    }

    fn no_weights(&self) -> CheckpointError {
        CheckpointError::NoWeights {
            place: self.place(),
            looked_for: WEIGHTS.join(", "),
        }
    }

    fn online(&self, client: &Client, listing: Option<RevisionFiles>) -> Result<ModelFiles, CheckpointError> {
        let mut download = Download {
            model: self,
            client,
            commit: listing.as_ref().map(|info| info.commit.clone()),
            listed: listing.map(|info| info.files),
        };
        // Known before anything is downloaded, so that a repository without weights costs one request.
        if let Some(listed) = &download.listed
            && !WEIGHTS.iter().any(|name| listed.contains(*name))
        {
            return Err(self.no_weights());
        }
        let mut absent = Vec::new();
        for name in BESIDE {
            if download.file(name)?.is_none() {
                absent.push(name);
            }
        }
        let mut weights = None;
        for name in WEIGHTS {
            if let Some(path) = download.file(name)? {
                weights = Some((name, path));
                break;
            }
        }
        let Some((name, path)) = weights else {
            // Neither a list nor a file: a hub that words its 404s otherwise has no such repository.
            return Err(CheckpointError::NotOnHub {
                repo: self.place(),
                reason: format!(
                    "no such repository or revision, or no weights in it ({}); check the id and --revision",
                    WEIGHTS.join(", ")
                ),
            });
        };
        if folder::is_index(name) {
            for shard in folder::shard_names(&path)? {
                if download.file(&shard)?.is_none() {
                    let reason = format!("shard \"{shard}\" is not in the repository {}", self.place());
                    return Err(CheckpointError::malformed(path.display().to_string(), reason));
                }
            }
        }
        let Some(commit) = download.commit else {
            return Err(self.no_weights());
        };
        self.cache.note_absent(&commit, &absent);
        if commit != self.revision {
            // As with what is absent: it is the next run, without a network, that would need it.
            let _ = self.cache.write_ref(self.revision, &commit);
        }
        self.in_snapshot(&commit, "")
    }
}

/// One visit to the hub. All files come from one commit, even if the branch moves meanwhile.
struct Download<'a> {
    model: &'a Model<'a>,
    client: &'a Client,
    commit: Option<String>,
    /// The names in the repository, where the hub lists them.
    listed: Option<BTreeSet<String>>,
}

impl Download<'_> {
    /// The file in the cache, downloaded if need be; `None` where the repository has none.
    fn file(&mut self, name: &str) -> Result<Option<PathBuf>, CheckpointError> {
        if self.listed.as_ref().is_some_and(|listed| !listed.contains(name)) {
            return Ok(None);
        }
        let cache = &self.model.cache;
        if let Some(commit) = &self.commit {
            let cached = cache.snapshot(commit).join(name);
            if cached.exists() {
                return Ok(Some(cached));
            }
        }
        let revision = self.commit.clone().unwrap_or_else(|| self.model.revision.to_string());
        match self.client.download(cache, &revision, name) {
            // Taken for absent, it would be replaced by defaults, or by weights of another kind.
            Ok(None) if self.listed.is_some() => {
                let reason = "the list of files has it, and the answer is status 404".to_owned();
                Err(self.client.altered(name, reason))
            }
            Ok(None) => Ok(None),
            Ok(Some(done)) => {
                let path = cache.snapshot(&done.commit).join(name);
                self.commit.get_or_insert(done.commit);
                Ok(Some(path))
            }
            Err(failure) => Err(self.client.failed(name, failure)),
        }
    }
}
