//! The dual encoder as the pipeline's model.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use candle_core::{Device, Tensor};

use super::PairModel;
use crate::{
    Side,
    kernels::{cpu, download, memory, upload},
    model::{DualEncoder, ModelError, probability},
};

impl PairModel for DualEncoder {
    fn encode(&self, side: Side, token_ids: &[&[u32]]) -> anyhow::Result<Vec<Box<[f32]>>> {
        let tokens = |texts: &[&[u32]]| texts.iter().map(|ids| ids.len()).sum::<usize>();
        let encode = |texts: &[&[u32]]| {
            let values = download(&DualEncoder::encode(self, side, texts)?)?;
            let width = values.len() / texts.len().max(1);
            Ok(values.chunks_exact(width).map(Box::from).collect())
        };
        let outcome = in_parts(&self.placement().device, token_ids, &encode, &|texts| {
            // The halves fitted, or will: later batches begin so small.
            FITTING_TOKENS.fetch_min((tokens(texts) / 2).max(1), Ordering::Relaxed);
        });
        Ok(outcome.map_err(|error| no_room(error, "even one text"))?)
    }

    fn probabilities(&self, pairs: &[(&[f32], &[f32])]) -> anyhow::Result<Vec<f32>> {
        let Some(width) = pairs.first().map(|(drug, _)| drug.len()) else {
            return Ok(Vec::new());
        };
        let device = &self.placement().device;
        anyhow::ensure!(
            pairs
                .iter()
                .all(|(drug, adr)| drug.len() == width && adr.len() == width),
            "representations of different widths"
        );
        let classify = |pairs: &[(&[f32], &[f32])]| {
            let drug = matrix(pairs.iter().map(|(drug, _)| *drug), width, device)?;
            let adr = matrix(pairs.iter().map(|(_, adr)| *adr), width, device)?;
            let logits = download(&self.logits(&drug, &adr)?)?;
            Ok(logits.into_iter().map(probability).collect())
        };
        let outcome = in_parts(device, pairs, &classify, &|_| ());
        Ok(outcome.map_err(|error| no_room(error, "even one pair"))?)
    }

    fn concurrency(&self) -> usize {
        // On a GPU two calls at once: while one's result is copied back, the other's work is queued.
        if self.on_host() { usize::MAX } else { 2 }
    }

    fn on_host(&self) -> bool {
        self.placement().device.is_cpu()
    }

    fn batch_tokens(&self) -> usize {
        // CPU: enough rows to amortise a pass over a layer's weights, few enough that activations stay in
        // cache and answers flow. GPU: enough to fill it, within a quarter of what is free for each of two
        // batches in flight.
        match memory::free_bytes(&self.placement().device) {
            None => 512,
            Some(free) => (free as usize / 4 / self.token_bytes()).clamp(1, GPU_BATCH_TOKENS),
        }
    }

    fn full_rate_tokens(&self) -> usize {
        // As measured with AVX2 (benches/NOTES.md). Products of whole tiles are fastest at a full batch, and less does not fill a GPU.
        match self.on_host() && !cpu::selected().has_tiles() {
            true => 128,
            false => usize::MAX,
        }
    }

    fn fitting_tokens(&self) -> usize {
        FITTING_TOKENS.load(Ordering::Relaxed)
    }
}

/// `[N, width]` on `device`, of as many values a row.
fn matrix<'r>(
    rows: impl ExactSizeIterator<Item = &'r [f32]>,
    width: usize,
    device: &Device,
) -> candle_core::Result<Tensor> {
    let shape = (rows.len(), width);
    let mut values = Vec::with_capacity(rows.len() * width);
    rows.for_each(|row| values.extend_from_slice(row));
    match device.is_cpu() {
        // No copy is needed.
        true => Tensor::from_vec(values, shape, device),
        false => upload(&values, device)?.reshape(shape),
    }
}

/// Held for reading by whoever computes on the GPU, for writing by who needs it alone: a process computes on one.
static COMPUTING: RwLock<()> = RwLock::new(());

/// More tokens than this have not fitted into a batch.
static FITTING_TOKENS: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The largest batch, in tokens, that is made since larger ones did not fit into a GPU's memory; none where all did.
pub fn batches_cut_to() -> Option<usize> {
    let tokens = FITTING_TOKENS.load(Ordering::Relaxed);
    (tokens < usize::MAX).then_some(tokens)
}

/// One result for each item.
type Compute<'c, I, O> = dyn Fn(&[I]) -> Result<Vec<O>, ModelError> + 'c;

/// What `compute` makes of `items`. On a GPU, where they are too many for the GPU's memory, which another process may have taken,
/// in halves, and so on down to one, with nothing else of this process computing: what that holds comes free first.
/// `halved` is told of all that did not fit.
fn in_parts<I, O>(
    device: &Device,
    items: &[I],
    compute: &Compute<'_, I, O>,
    halved: &dyn Fn(&[I]),
) -> Result<Vec<O>, ModelError> {
    if device.is_cpu() {
        return compute(items);
    }
    let together = {
        let _with_others = COMPUTING.read().unwrap_or_else(PoisonError::into_inner);
        compute(items)
    };
    match together {
        Err(error) if error.is_out_of_memory() => {
            let _alone = COMPUTING.write().unwrap_or_else(PoisonError::into_inner);
            memory::release_unused(device);
            match items.len() {
                0 | 1 => compute(items),
                _ => in_halves(device, items, compute, halved),
            }
        }
        outcome => outcome,
    }
}

fn in_halves<I, O>(
    device: &Device,
    items: &[I],
    compute: &Compute<'_, I, O>,
    halved: &dyn Fn(&[I]),
) -> Result<Vec<O>, ModelError> {
    halved(items);
    let (first, second) = items.split_at(items.len() / 2);
    let mut results = Vec::with_capacity(items.len());
    for half in [first, second] {
        match compute(half) {
            Err(error) if half.len() > 1 && error.is_out_of_memory() => {
                memory::release_unused(device);
                results.extend(in_halves(device, half, compute, halved)?);
            }
            outcome => results.extend(outcome?),
        }
    }
    Ok(results)
}

/// The error as it concerns a user: that not even `what` fits.
fn no_room(error: ModelError, what: &str) -> ModelError {
    match error.is_out_of_memory() {
        true => ModelError::OutOfMemory { what: what.to_owned() },
        false => error,
    }
}

/// Tokens that keep a large GPU's multiprocessors busy in every product.
const GPU_BATCH_TOKENS: usize = 16_384;
