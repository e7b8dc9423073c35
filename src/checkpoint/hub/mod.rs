//! placeholder
use super::{CheckpointError, ModelFiles};
use std::path::PathBuf;
/// Options.
#[derive(Clone, Debug, Default)]
pub struct HubOptions {
    pub endpoint: Option<String>,
    pub cache_dir: Option<PathBuf>,
    pub token: Option<String>,
    pub offline: bool,
    pub progress: bool,
}
pub(super) fn locate(id: &str, _revision: &str, _hub: &HubOptions) -> Result<ModelFiles, CheckpointError> {
    Err(CheckpointError::NotOnHub {
        repo: id.to_string(),
        reason: "the hub is not reached yet".into(),
    })
}
