//! From roles to prepared operations: loading tensors onto a device.

use candle_core::{Device, Tensor};

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    kernels::{LayerNorm, Linear, Precision},
};

use super::roles::{LinearRole, NormRole};

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("while loading {part}: {source}")]
    Load { part: String, source: candle_core::Error },
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Loads tensors of one checkpoint onto one device.
pub(super) struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
    pub device: &'a Device,
}

impl Loader<'_> {
    /// The tensor as stored, on the CPU.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        Ok(self.checkpoint.tensor(name)?)
    }

    pub fn optional(&self, name: Option<&String>) -> Result<Option<Tensor>, ModelError> {
        name.map(|name| self.tensor(name)).transpose()
    }

    pub fn linear(&self, role: &LinearRole, precision: Precision) -> Result<Linear, ModelError> {
        let weight = self.tensor(&role.weight)?;
        let bias = self.optional(role.bias.as_ref())?;
        Linear::new(&weight, bias.as_ref(), precision, self.device).map_err(|source| ModelError::Load {
            part: format!("\"{}\"", role.weight),
            source,
        })
    }

    pub fn norm(&self, role: &NormRole, eps: f64) -> Result<LayerNorm, ModelError> {
        let (weight, bias) = (self.tensor(&role.weight)?, self.tensor(&role.bias)?);
        LayerNorm::new(&weight, &bias, eps, self.device).map_err(|source| ModelError::Load {
            part: format!("\"{}\"", role.weight),
            source,
        })
    }
}
