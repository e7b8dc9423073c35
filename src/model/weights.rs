//! From roles to prepared operations: loading tensors onto a device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use crate::{
    Side,
    checkpoint::{Checkpoint, CheckpointError, PACKED_PREFIX, Unwritten},
    kernels::{
        LayerNorm, Linear, Precision, RowKind,
        cpu::{self, PackedLayout, PackedLinear},
        memory,
    },
};

use super::roles::{LinearRole, NormRole, Roles};

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("while loading {part}")]
    Load { part: String, source: candle_core::Error },
    #[error(
        "the GPU's memory is too small for {what}: end what else uses that GPU, or take --dtype bf16, another GPU \
         (--device cuda:N) or --device cpu"
    )]
    OutOfMemory { what: String },
    #[error(transparent)]
    Tensor(candle_core::Error),
}

impl ModelError {
    fn load(part: &str, error: candle_core::Error) -> Self {
        match memory::is_out_of_memory(&error) {
            true => Self::OutOfMemory {
                what: format!("the model, while loading \"{part}\""),
            },
            false => Self::Load {
                part: format!("\"{part}\""),
                source: without_backtrace(error),
            },
        }
    }

    /// Whether the operation failed for want of device memory, so that one over less may go through.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::OutOfMemory { .. } => true,
            Self::Load { source, .. } | Self::Tensor(source) => memory::is_out_of_memory(source),
            Self::Checkpoint(_) => false,
        }
    }
}

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(without_backtrace(error))
    }
}

/// candle prints its backtrace within the message where `RUST_BACKTRACE` is set; ours are one line.
fn without_backtrace(error: candle_core::Error) -> candle_core::Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => without_backtrace(*inner),
        other => other,
    }
}

/// How the packed weights that a checkpoint holds beside the model's own tensors are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLayouts {
    /// Those of the encoders, sorted, never empty.
    pub found: Vec<String>,
    /// What the selected kernel wants for the encoders; used if it is among `found`.
    pub wanted: String,
    /// Whether they stand for the model's tensors; see [`Checkpoint::packed_are_current`].
    pub are_current: bool,
}

impl StoredLayouts {
    /// None if `checkpoint` holds no packed weights.
    pub fn of(checkpoint: &Checkpoint, roles: &Roles, precision: Precision) -> Option<Self> {
        // The head is packed in f32 whatever the encoders are, so one of their layers stands for all.
        let layer = roles.encoder(Side::Drug).layers.first()?;
        let has_layer = |layout: &String| {
            let stored = format!("{PACKED_PREFIX}{layout}.{}", layer.output.weight);
            checkpoint.packed(&stored).is_some()
        };
        let found: Vec<String> = checkpoint.packed_layouts().into_iter().filter(has_layer).collect();
        let wanted = PackedLayout::name_for(cpu::selected(), precision);
        (!found.is_empty()).then_some(Self {
            found,
            wanted,
            are_current: checkpoint.packed_are_current(),
        })
    }

    pub fn are_used(&self) -> bool {
        self.are_current && self.found.contains(&self.wanted)
    }
}

impl std::fmt::Display for StoredLayouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let found = self.found.join(", ");
        match (self.are_current, self.are_used()) {
            (true, true) => write!(f, "{found}"),
            (false, _) => write!(
                f,
                "{found}, not used: the model's own tensors are others than those that they were packed from (another program has \
                 written the file since crag convert did), or an earlier crag has packed them; convert it again"
            ),
            (true, false) => write!(
                f,
                "{found}, of no use here: this kernel and --dtype need {}, so the model's own tensors are packed at \
                 each start; the --dtype that it was converted for takes them, or crag convert with this one on this machine",
                self.wanted
            ),
        }
    }
}

/// Packed weights by the name under which `Loader::packed_or` looks for them.
pub type PackedWeights = Vec<(String, Arc<PackedLinear>)>;

/// Loads tensors of one checkpoint onto one device.
pub(super) struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
    pub device: &'a Device,
    /// Whether packed weights in the checkpoint, where they are as the kernel wants them, are taken in place of tensors.
    pub uses_packed: bool,
    /// Where to note every packed layer, for [`super::DualEncoder::packed_weights`].
    pub packed: Option<&'a Mutex<PackedWeights>>,
    /// Set where a layer is computed with as it lies in its mapped file.
    pub uses_mapped: AtomicBool,
}

impl Loader<'_> {
    /// The tensor as stored, on the CPU.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        Ok(self.checkpoint.tensor(name)?)
    }

    pub fn optional(&self, name: Option<&String>) -> Result<Option<Tensor>, ModelError> {
        name.map(|name| self.tensor(name)).transpose()
    }

    pub fn linear(&self, rows: RowKind, role: &LinearRole, precision: Precision) -> Result<Linear, ModelError> {
        let sizes = [role.out_features, role.in_features];
        self.packed_or(&role.weight, rows, sizes, precision, || {
            Ok((self.tensor(&role.weight)?, self.optional(role.bias.as_ref())?))
        })
    }

    /// A layer `[N, K]` from packed weights, if the checkpoint holds them under `name` as this
    /// machine's kernel wants them; else from the weight and bias that `tensors` gives.
    pub fn packed_or(
        &self,
        name: &str,
        rows: RowKind,
        [out_features, in_features]: [usize; 2],
        precision: Precision,
        tensors: impl FnOnce() -> Result<(Tensor, Option<Tensor>), ModelError>,
    ) -> Result<Linear, ModelError> {
        let failed = |error| ModelError::load(name, error);
        if self.uses_packed {
            let layout = PackedLayout::new(cpu::selected(), precision, out_features, in_features).map_err(failed)?;
            let stored = format!("{PACKED_PREFIX}{}.{name}", layout.name);
            let packed = self.checkpoint.packed(&stored);
            if let Some((map, range)) = packed {
                let terms = self.tensor(&format!("{stored}{TERMS}"))?.to_vec1::<f32>()?;
                let (bias, columns) = terms.split_at(out_features.min(terms.len()));
                let packed = PackedLinear::from_mapped(&layout, precision, map, range, columns.to_vec(), bias);
                self.uses_mapped.store(true, Ordering::Relaxed);
                return packed.map(Linear::from_packed).map_err(failed);
            }
        }
        let (weight, bias) = tensors()?;
        let linear = Linear::for_rows(rows, &weight, bias.as_ref(), precision, self.device).map_err(failed)?;
        if let (Some(noted), Some(packed)) = (self.packed, linear.packed()) {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.push((name.to_owned(), packed.clone()));
        }
        Ok(linear)
    }

    pub fn norm(&self, role: &NormRole, eps: f64) -> Result<LayerNorm, ModelError> {
        let (weight, bias) = (self.tensor(&role.weight)?, self.tensor(&role.bias)?);
        LayerNorm::new(&weight, &bias, eps, self.device).map_err(|error| ModelError::load(&role.weight, error))
    }
}

/// What the name of a packed layer's biases and columns' terms, one after the other, has behind that of
/// its panels.
const TERMS: &str = "#terms";

/// Packed weights as tensors to write, under the names by which `Loader::packed_or` finds them.
pub fn packed_tensors<'p, E>(packed: &'p PackedWeights) -> candle_core::Result<Vec<Unwritten<'p, E>>>
where
    E: From<candle_core::Error> + 'p,
{
    let mut tensors = Vec::with_capacity(2 * packed.len());
    for (name, linear) in packed {
        let stored = format!("{PACKED_PREFIX}{}.{name}", linear.layout()?.name);
        let terms = [linear.bias(), linear.columns()].concat();
        let count = terms.len();
        let terms = move || Ok(Tensor::from_slice(&terms, count, &Device::Cpu)?);
        tensors.push(Unwritten::new(
            format!("{stored}{TERMS}"),
            DType::F32,
            vec![count],
            terms,
        ));
        let (words, _) = linear.panel_bytes()?.as_chunks::<4>();
        let panels = move || {
            let words: Vec<f32> = words.iter().map(|word| f32::from_ne_bytes(*word)).collect();
            let count = words.len();
            Ok(Tensor::from_vec(words, count, &Device::Cpu)?)
        };
        tensors.push(Unwritten::new(stored, DType::F32, vec![words.len()], panels));
    }
    Ok(tensors)
}
