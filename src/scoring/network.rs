//! The dual encoder as the pipeline's model.

use anyhow::Context as _;
use candle_core::Tensor;

use super::PairModel;
use crate::{
    Side,
    kernels::{download, memory},
    model::{DualEncoder, ModelError, probability},
};

impl PairModel for DualEncoder {
    fn encode(&self, side: Side, token_ids: &[&[u32]]) -> anyhow::Result<Vec<Box<[f32]>>> {
        let width = token_ids.len();
        match DualEncoder::encode(self, side, token_ids).and_then(|rows| Ok(download(&rows)?)) {
            Ok(values) => Ok(values
                .chunks_exact(values.len() / width.max(1))
                .map(Box::from)
                .collect()),
            // Another process may have taken the memory since the budget was set: halves need half of it.
            Err(ModelError::Tensor(error)) if width > 1 && memory::is_out_of_memory(&error) => {
                memory::release_unused(&self.placement().device);
                let (first, second) = token_ids.split_at(width / 2);
                let mut rows = PairModel::encode(self, side, first)?;
                rows.extend(PairModel::encode(self, side, second)?);
                Ok(rows)
            }
            Err(error) => Err(error.into()),
        }
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
        let drug: Vec<f32> = pairs.iter().flat_map(|(drug, _)| drug.iter().copied()).collect();
        let adr: Vec<f32> = pairs.iter().flat_map(|(_, adr)| adr.iter().copied()).collect();
        let shape = (pairs.len(), width);
        let drug = Tensor::from_vec(drug, shape, device).context("drug representations")?;
        let adr = Tensor::from_vec(adr, shape, device).context("adr representations")?;
        let logits = download(&self.logits(&drug, &adr)?)?;
        Ok(logits.into_iter().map(probability).collect())
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
}

/// Tokens that keep a large GPU's multiprocessors busy in every product.
const GPU_BATCH_TOKENS: usize = 16_384;
