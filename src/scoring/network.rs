//! The dual encoder as the pipeline sees it: plain slices in and out.

use candle_core::{Device, Tensor};

use super::pipeline::PairModel;
use crate::Side;
use crate::model::{DualEncoder, probability};

/// Calls on a GPU that overlap, so that it never waits for the host between two of them.
const CALLS_ON_A_GPU: usize = 2;
/// Tokens in a batch on the CPU: enough rows to keep products at full speed, few enough that answers
/// of a slow model come often.
const CPU_BATCH_TOKENS: usize = 1024;
const GPU_BATCH_TOKENS: usize = 16 * 1024;

impl PairModel for DualEncoder {
    fn encode(&self, side: Side, token_ids: &[&[u32]]) -> anyhow::Result<Vec<Box<[f32]>>> {
        let representations = DualEncoder::encode(self, side, token_ids)?.to_vec2::<f32>()?;
        Ok(representations.into_iter().map(Vec::into_boxed_slice).collect())
    }

    fn probabilities(&self, pairs: &[(&[f32], &[f32])]) -> anyhow::Result<Vec<f32>> {
        let (drugs, adrs): (Vec<&[f32]>, Vec<&[f32]>) = pairs.iter().copied().unzip();
        let tensor = |rows: Vec<&[f32]>| {
            let width = rows.first().map_or(0, |row| row.len());
            Tensor::from_vec(rows.concat(), (rows.len(), width), &self.placement().device)
        };
        let logits = self.logits(&tensor(drugs)?, &tensor(adrs)?)?.to_vec1::<f32>()?;
        Ok(logits.into_iter().map(probability).collect())
    }

    /// A call on the CPU works on its own thread alone, so there is one for each thread.
    fn concurrency(&self) -> usize {
        if self.on_host() { usize::MAX } else { CALLS_ON_A_GPU }
    }

    fn on_host(&self) -> bool {
        matches!(self.placement().device, Device::Cpu)
    }

    fn batch_tokens(&self) -> usize {
        if self.on_host() {
            CPU_BATCH_TOKENS
        } else {
            GPU_BATCH_TOKENS
        }
    }
}
