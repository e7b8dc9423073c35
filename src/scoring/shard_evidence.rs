//! Whether finished outputs are the shards of one run, by the evidence that their runs left.
//!
//! [`super::check_shards`] goes by numbers of records alone. The evidence also says which shard it was, what was read,
//! with which model and settings, and what was written.

use std::io;
use std::path::PathBuf;

use super::format::Format;
use super::resume::State;

/// A shard's output and what its run said of it.
#[derive(Clone, Debug)]
pub struct ShardEvidence {
    /// The output.
    pub path: PathBuf,
    /// The file that the evidence is from.
    pub source: PathBuf,
    /// [`Finished::evidence`](super::Finished), as it was read from there.
    pub evidence: serde_json::Value,
}

/// Why outputs are not the shards of one run.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error("{}: expected what a finished run of crag score left, found something else: {reason}", source_path.display())]
    Damaged { source_path: PathBuf, reason: String },
    #[error(
        "{}: expected shard {expected} in this place, found {found} (so says {})",
        path.display(), source_path.display()
    )]
    OtherShard {
        path: PathBuf,
        source_path: PathBuf,
        expected: String,
        found: String,
    },
    #[error(
        "{}: of another run than {} (so says {}): {}",
        path.display(), first.display(), source_path.display(), differences.join("; ")
    )]
    OtherRun {
        path: PathBuf,
        first: PathBuf,
        source_path: PathBuf,
        differences: Vec<String>,
    },
    #[error(
        "{}: expected the {bytes} bytes that were written (so says {}), found others; score it again",
        path.display(), source_path.display()
    )]
    OtherBytes {
        path: PathBuf,
        source_path: PathBuf,
        bytes: u64,
    },
    #[error("{}: cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// The format of the records in the first shard whose run says so.
pub fn stated_format(shards: &[Option<ShardEvidence>]) -> Option<(Format, &ShardEvidence)> {
    shards.iter().flatten().find_map(|shard| {
        let state = State::from_evidence(&shard.evidence).ok()?;
        let format = Format::ALL
            .into_iter()
            .find(|format| Some(format.name()) == state.format())?;
        Some((format, shard))
    })
}

/// Checks shards given in order, those of them that have evidence: each is the shard that belongs in its place, has
/// the bytes that its run wrote, and comes of the same lines, model, settings and version as the others. Reads them.
pub fn check_evidence(shards: &[Option<ShardEvidence>]) -> Result<(), EvidenceError> {
    let mut first: Option<(&ShardEvidence, State)> = None;
    for (i, shard) in shards.iter().enumerate() {
        let Some(shard) = shard else { continue };
        let (path, source_path) = (shard.path.clone(), shard.source.clone());
        let state = match State::from_evidence(&shard.evidence) {
            Ok(state) => state,
            Err(reason) => return Err(EvidenceError::Damaged { source_path, reason }),
        };
        let expected = format!("{}/{}", i + 1, shards.len());
        if state.shard() != Some(&expected) {
            let found = state.shard().unwrap_or("the output of all lines").to_owned();
            return Err(EvidenceError::OtherShard {
                path,
                source_path,
                expected,
                found,
            });
        }
        let differences = match &first {
            Some((_, first)) => first.differences_from_shard(&state),
            None => Vec::new(),
        };
        if let Some((first, _)) = first.as_ref().filter(|_| !differences.is_empty()) {
            return Err(EvidenceError::OtherRun {
                path,
                first: first.path.clone(),
                source_path,
                differences,
            });
        }
        match state.output.is_all_of(&path) {
            Ok(true) => {}
            Ok(false) => {
                return Err(EvidenceError::OtherBytes {
                    path,
                    source_path,
                    bytes: state.output.bytes,
                });
            }
            Err(source) => return Err(EvidenceError::Read { path, source }),
        }
        first.get_or_insert((shard, state));
    }
    Ok(())
}
