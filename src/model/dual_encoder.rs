//! The whole network: two sides and what joins them.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{
    Side,
    calibration::sigmoid,
    checkpoint::{Checkpoint, MappedFile},
    kernels::{Bilinear, Precision, Sequences, download, upload},
};

use super::{
    config::{ModelConfig, View},
    encoder::Encoder,
    head::{Steps, concatenate_views, load_bilinear},
    pooler::Pooler,
    roles::Roles,
    weights::{Loader, ModelError, PackedWeights},
};

/// Where a model runs and in which precision its encoders compute; the head is f32, but for the bilinear's product.
#[derive(Clone, Debug)]
pub struct Placement {
    pub device: Device,
    pub precision: Precision,
}

impl Placement {
    /// f32 on the CPU.
    pub fn cpu() -> Self {
        Self {
            device: Device::Cpu,
            precision: Precision::F32,
        }
    }
}

/// A CRAG dual encoder: a context of each side to a representation, two representations to a logit.
pub struct DualEncoder {
    sides: [SideEncoder; 2],
    /// The files that weights lie in while they are computed with; none where all were copied out of them.
    mapped: Vec<Arc<MappedFile>>,
    bilinear: Option<Bilinear>,
    classifier: Steps,
    views: Vec<View>,
    placement: Placement,
    max_length: usize,
    token_bytes: usize,
}

/// Encoder, pooling and projection of one side.
struct SideEncoder {
    encoder: Encoder,
    pooler: Pooler,
    projection: Steps,
}

impl DualEncoder {
    /// Loads the tensors that `roles` names. Both sides are loaded in parallel.
    ///
    /// # Errors
    /// A tensor that cannot be read, or a device that lacks the precision or the memory.
    pub fn load(
        checkpoint: &Checkpoint,
        roles: &Roles,
        config: &ModelConfig,
        placement: Placement,
    ) -> Result<Self, ModelError> {
        Self::load_noting(checkpoint, roles, config, placement, None)
    }

    /// Loads a model for `precision` on the CPU and returns its weights as the kernel packed them, to be
    /// stored beside the model's own tensors: loading those needs no packing.
    pub fn packed_weights(
        checkpoint: &Checkpoint,
        roles: &Roles,
        config: &ModelConfig,
        precision: Precision,
    ) -> Result<PackedWeights, ModelError> {
        let packed = Mutex::default();
        let placement = Placement {
            device: Device::Cpu,
            precision,
        };
        Self::load_noting(checkpoint, roles, config, placement, Some(&packed))?;
        Ok(packed.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn load_noting(
        checkpoint: &Checkpoint,
        roles: &Roles,
        config: &ModelConfig,
        placement: Placement,
        packed: Option<&Mutex<PackedWeights>>,
    ) -> Result<Self, ModelError> {
        let loader = Loader {
            checkpoint,
            device: &placement.device,
            uses_packed: placement.device.is_cpu() && checkpoint.packed_are_current(),
            packed,
            uses_mapped: AtomicBool::new(false),
        };
        let activation = config.activation.kernel();
        let load_side = |side| -> Result<SideEncoder, ModelError> {
            Ok(SideEncoder {
                encoder: Encoder::load(&loader, roles.encoder(side), config, placement.precision)?,
                pooler: Pooler::load(&loader, roles, side, config)?,
                projection: Steps::load(&loader, roles.projection(side), activation)?,
            })
        };
        let (drug, adr) = rayon::join(|| load_side(Side::Drug), || load_side(Side::Adr));
        let bilinear = roles
            .bilinear
            .as_ref()
            .map(|role| load_bilinear(&loader, role, placement.precision))
            .transpose()?;
        let classifier = Steps::load(&loader, &roles.classifier, activation)?;
        let sides = [drug?, adr?];
        let mapped = match loader.uses_mapped.into_inner() {
            true => checkpoint.packed_files(),
            false => Vec::new(),
        };
        checkpoint.check_unchanged()?;
        Ok(Self {
            sides,
            mapped,
            bilinear,
            classifier,
            views: config.views.value.clone(),
            max_length: roles.positions(),
            token_bytes: token_bytes(roles, &placement)?,
            placement,
        })
    }

    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Device memory that encoding needs for each token of a batch, at most, weights aside.
    pub fn token_bytes(&self) -> usize {
        self.token_bytes
    }

    /// Makes the classifier see other views. Whether their width is its own shows in [`Self::logits`]' error.
    pub fn set_views(&mut self, views: Vec<View>) {
        self.views = views;
    }

    /// Representations of texts given as token ids, `[CLS]` and `[SEP]` included.
    ///
    /// Returns `[B, F]` in f32. Each row is independent, to the bit, of the other texts.
    /// Errors on an empty or too long text, on an id outside the vocabulary, and where another program has written to
    /// a file that the weights lie in.
    pub fn encode(&self, side: Side, token_ids: &[&[u32]]) -> Result<Tensor, ModelError> {
        let lengths: Vec<usize> = token_ids.iter().map(|ids| ids.len()).collect();
        if let Some(&length) = lengths.iter().find(|&&n| n > self.max_length) {
            return Err(message(format!(
                "a text has {length} tokens, the model {} positions",
                self.max_length
            )));
        }
        let device = &self.placement.device;
        let sequences = Sequences::new(&lengths, device)?;
        let packed = upload(&token_ids.concat(), device)?;
        let part = &self.sides[side as usize];
        let hidden = part.encoder.forward(&packed, &sequences)?;
        let pooled = part.pooler.forward(&hidden, &sequences)?;
        let representations = part.projection.forward(&pooled)?;
        self.check_unchanged()?;
        Ok(representations)
    }

    /// For whoever has computed: whether all of it was computed with one model's weights.
    fn check_unchanged(&self) -> Result<(), ModelError> {
        Ok(self.mapped.iter().try_for_each(|file| file.check_unchanged())?)
    }

    /// Has a GPU load all kernels and choose its products' algorithms, so that no batch of a run waits for that; on the
    /// CPU there is nothing to do.
    pub fn warm_up(&self) -> Result<(), ModelError> {
        const TOKENS: usize = 2048;
        if self.placement.device.is_cpu() {
            return Ok(());
        }
        // Any vocabulary has a first id.
        let text = vec![0u32; self.max_length.min(128)];
        let texts = vec![text.as_slice(); (TOKENS / text.len().max(1)).max(1)];
        let logits = self
            .encode(Side::Drug, &texts)
            .and_then(|drug| self.logits(&drug, &self.encode(Side::Adr, &texts)?));
        match logits.and_then(|logits| Ok(download(&logits)?)) {
            // A run may find batches that fit.
            Err(error) if error.is_out_of_memory() => Ok(()),
            warm => warm.map(|_| ()),
        }
    }

    /// Logits of pairs. `drug`, `adr`: `[N, F]` representations. Returns `[N]`.
    ///
    /// On the CPU the pairs are spread over the threads of the pool that this is called on; a pair's logit does
    /// not depend on the others.
    pub fn logits(&self, drug: &Tensor, adr: &Tensor) -> Result<Tensor, ModelError> {
        if drug.dims() != adr.dims() {
            let (drug, adr) = (drug.shape(), adr.shape());
            return Err(message(format!(
                "expected as many drug as adr representations, found {drug:?} and {adr:?}"
            )));
        }
        let pairs = drug.dim(0)?;
        let group = match drug.device().is_cpu() {
            true => pairs
                .div_ceil(rayon::current_num_threads())
                .clamp(LEAST_PAIRS, MOST_PAIRS),
            false => pairs,
        };
        if pairs <= group {
            let logits = self.group_logits(drug, adr)?;
            self.check_unchanged()?;
            return Ok(logits);
        }
        let starts: Vec<usize> = (0..pairs).step_by(group).collect();
        let parts = starts.par_iter().map(|&start| {
            let count = group.min(pairs - start);
            self.group_logits(&drug.narrow(0, start, count)?, &adr.narrow(0, start, count)?)
        });
        let logits = Tensor::cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)?;
        self.check_unchanged()?;
        Ok(logits)
    }

    fn group_logits(&self, drug: &Tensor, adr: &Tensor) -> Result<Tensor, ModelError> {
        let fused = match (&self.bilinear, self.views.contains(&View::Bilinear)) {
            (Some(bilinear), true) => Some(bilinear.forward(drug, adr)?),
            _ => None,
        };
        let views = concatenate_views(&self.views, drug, adr, fused.as_ref())?;
        Ok(self.classifier.forward(&views)?.squeeze(1)?)
    }
}

/// Pairs that a thread takes at once: for fewer, reading the bilinear's weights (67 MB at full size) would
/// take longer than multiplying with them; more would not stay in its cache.
const LEAST_PAIRS: usize = 24;
const MOST_PAIRS: usize = 192;

/// The widest moment of a layer: hidden states and residual, the fused projections or the
/// intermediate states, and a result as wide as either.
fn token_bytes(roles: &Roles, placement: &Placement) -> Result<usize, ModelError> {
    let encoder = roles.encoder(Side::Drug);
    let intermediate = encoder
        .layers
        .first()
        .map_or(0, |layer| layer.intermediate.out_features);
    let size = placement.precision.hidden_dtype(&placement.device)?.size_in_bytes();
    Ok((4 * encoder.hidden_size + 2 * intermediate.max(3 * encoder.hidden_size)) * size)
}

fn message(text: String) -> ModelError {
    candle_core::Error::Msg(text).into()
}

/// The logistic function in f64, rounded once. NaN of an infinite logit too: that is a head which overflowed or is
/// damaged, and 1 would look like certainty.
pub fn probability(logit: f32) -> f32 {
    match logit.is_finite() {
        true => sigmoid(f64::from(logit)) as f32,
        false => f32::NAN,
    }
}
