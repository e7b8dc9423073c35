//! Where each sequence of a packed batch begins and ends.

use candle_core::{Device, Result, Tensor, bail};

use super::transfer::upload;

/// Boundaries of `B` sequences packed without padding into `T` tokens.
///
/// Kept twice: as plain numbers for CPU kernels and launch sizes, and as tensors on the batch's
/// device for kernels that run there.
#[derive(Clone, Debug)]
pub struct Sequences {
    offsets: Vec<u32>,
    max_len: usize,
    device_offsets: Tensor,
    positions: Tensor,
}

impl Sequences {
    /// `lengths`: tokens in each sequence, each at least 1. Errors on an empty sequence or batch.
    pub fn new(lengths: &[usize], device: &Device) -> Result<Self> {
        if lengths.is_empty() {
            bail!("a packed batch needs at least one sequence, found none")
        }
        if let Some(empty) = lengths.iter().position(|&length| length == 0) {
            bail!(
                "a packed batch has no empty sequence, found one at {empty} of {}",
                lengths.len()
            )
        }
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        let mut total = 0usize;
        offsets.push(0);
        for length in lengths {
            total += length;
            match u32::try_from(total) {
                Ok(end) if end <= i32::MAX as u32 => offsets.push(end),
                _ => bail!("a packed batch holds at most {} tokens, found {total}", i32::MAX),
            }
        }
        let positions: Vec<u32> = lengths.iter().flat_map(|&n| 0..n as u32).collect();
        Ok(Self {
            max_len: lengths.iter().copied().max().unwrap_or(0),
            device_offsets: upload(&offsets, device)?,
            positions: upload(&positions, device)?,
            offsets,
        })
    }

    /// Number of sequences, `B`.
    pub fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of tokens in all sequences, `T`.
    pub fn total_tokens(&self) -> usize {
        self.offsets[self.count()] as usize
    }

    /// Tokens in the longest sequence.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// `[B + 1]`: the first token of each sequence, and the total.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// The token ranges of the sequences, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = std::ops::Range<usize>> + '_ {
        self.offsets.windows(2).map(|w| w[0] as usize..w[1] as usize)
    }

    /// [`Self::offsets`] on the batch's device: `[B + 1]`, u32.
    pub fn device_offsets(&self) -> &Tensor {
        &self.device_offsets
    }

    /// Position of each token within its own sequence: `[T]`, u32, on the batch's device.
    pub fn positions(&self) -> &Tensor {
        &self.positions
    }
}
