//! The dual encoder as the pipeline's model.

use anyhow::Context as _;
use candle_core::Tensor;

use super::PairModel;
use crate::{
    Side,
    model::{DualEncoder, probability},
};

impl PairModel for DualEncoder {
    fn encode(&self, side: Side, token_ids: &[&[u32]]) -> anyhow::Result<Vec<Box<[f32]>>> {
        let representations = DualEncoder::encode(self, side, token_ids)?.to_vec2::<f32>()?;
        Ok(representations.into_iter().map(Vec::into_boxed_slice).collect())
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
        let logits = self.logits(&drug, &adr)?.to_vec1::<f32>()?;
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
        // cache and answers flow. GPU: enough to fill it.
        if self.on_host() { 512 } else { 16_384 }
    }
}
