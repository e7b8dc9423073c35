//! BERT's input: word, position and token type embeddings, summed and normalised.

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::{LayerNorm, Sequences, cpu, f32_slice};

/// Embedding tables of one encoder. All tokens have token type 0, so that row of the token type
/// table is added to every position's row once, here.
#[derive(Clone, Debug)]
pub struct Embedding {
    word: Tensor,
    position: Tensor,
    norm: LayerNorm,
}

impl Embedding {
    /// `word`: `[V, H]`; `position`: `[P, H]`; `token_type`: `[types, H]`. Any float dtype; kept as
    /// `dtype` on `device` (the sum of position and token type rows is formed in f32 first).
    pub fn new(
        word: &Tensor,
        position: &Tensor,
        token_type: &Tensor,
        norm: LayerNorm,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let (_, hidden) = word.dims2()?;
        if norm.width() != hidden {
            bail!("embeddings: words are {hidden} wide, their norm {}", norm.width())
        }
        for (name, table) in [("position", position), ("token type", token_type)] {
            let (_, width) = table.dims2()?;
            if width != hidden {
                bail!("embeddings: words are {hidden} wide, {name} embeddings {width}")
            }
        }
        // By hand: candle would spread it over as many threads as the machine has cores.
        let mut sums: Vec<f32> = position.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let token_type: Vec<f32> = token_type.to_dtype(DType::F32)?.get(0)?.to_vec1()?;
        for row in sums.chunks_exact_mut(hidden.max(1)) {
            row.iter_mut().zip(&token_type).for_each(|(sum, &value)| *sum += value);
        }
        let position = Tensor::from_vec(sums, position.shape(), &Device::Cpu)?;
        let prepare = |t: &Tensor| t.to_device(device)?.to_dtype(dtype)?.contiguous();
        Ok(Self {
            word: prepare(word)?,
            position: prepare(&position)?,
            norm,
        })
    }

    pub fn hidden_size(&self) -> usize {
        self.norm.width()
    }

    /// `token_ids`: `[T]`, u32, packed as `sequences` says. Returns hidden states `[T, H]` in the
    /// tables' dtype. Errors on an id outside the vocabulary or a sequence longer than the
    /// position table; on a GPU the ids are the caller's to check.
    pub fn forward(&self, token_ids: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        if token_ids.dims() != [sequences.total_tokens()] || token_ids.dtype() != DType::U32 {
            bail!(
                "embeddings: expected [{}] token ids in u32, found {:?} in {:?}",
                sequences.total_tokens(),
                token_ids.dims(),
                token_ids.dtype()
            )
        }
        let positions = self.position.dim(0)?;
        if sequences.max_len() > positions {
            bail!(
                "embeddings: a sequence has {} tokens, the model {positions} positions",
                sequences.max_len()
            )
        }
        token_ids.contiguous()?.apply_op1_no_bwd(&Forward {
            embedding: self,
            sequences,
        })
    }
}

struct Forward<'a> {
    embedding: &'a Embedding,
    sequences: &'a Sequences,
}

impl CustomOp1 for Forward<'_> {
    fn name(&self) -> &'static str {
        "embeddings"
    }

    fn cpu_fwd(&self, ids: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let CpuStorage::U32(ids) = ids else {
            bail!("embeddings: expected token ids in u32")
        };
        let ids = &ids[layout.start_offset()..][..self.sequences.total_tokens()];
        let (vocabulary, hidden) = self.embedding.word.dims2()?;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            bail!("embeddings: token id {id} is outside the vocabulary of {vocabulary}")
        }
        let (word, word_layout) = self.embedding.word.storage_and_layout();
        let (position, position_layout) = self.embedding.position.storage_and_layout();
        let (candle_core::Storage::Cpu(word), candle_core::Storage::Cpu(position)) = (&*word, &*position) else {
            bail!("embeddings: the tables are on another device than the token ids")
        };
        let word = f32_slice(self.name(), word, word_layout)?;
        let position = f32_slice(self.name(), position, position_layout)?;
        let out = (self.embedding.norm)
            .with_cpu_parameters(|norm| cpu::embed(ids, self.sequences.offsets(), word, position, norm))?;
        Ok((CpuStorage::F32(out), Shape::from((ids.len(), hidden))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, ids: &candle_core::CudaStorage, layout: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        let e = self.embedding;
        super::cuda::embed(ids, layout, self.sequences, &e.word, &e.position, &e.norm)
    }
}
