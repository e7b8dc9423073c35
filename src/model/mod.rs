//! The dual encoder: one architecture for the whole family, over candle tensors.
//!
//! [`roles`] reads a checkpoint's tensors, [`config`] what shapes cannot say, [`DualEncoder`] runs
//! the network: per side embeddings, encoder layers, pooling and projection; per pair fusion and
//! classifier. What differs between processors is in [`crate::kernels`]; text and files are not seen.

pub mod config;
mod dual_encoder;
mod encoder;
mod head;
mod pooler;
pub mod roles;
#[cfg(test)]
mod test_shapes;
mod weights;

pub use config::{ConfigError, ModelConfig, Pooling, View};
pub use dual_encoder::{DualEncoder, Placement, probability};
pub use head::HEAD_NORM_EPS;
pub use roles::{Place, Roles, RolesError};
pub use weights::{ModelError, PackedWeights, StoredLayouts, packed_tensors};
