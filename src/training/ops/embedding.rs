//! The sum of word, position and token type embeddings.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{Lengths, ROWS_AT_ONCE, composed, elements, gradient, slice};

/// `words`: `[V, H]`, `positions`: `[P, H]`, `types`: `[2, H]`; token `i` of a sequence takes position `i` and type 0.
/// Returns `[T, H]`. Errors on an id or a position without a row.
pub(in crate::training) fn embed(
    words: &Tensor,
    positions: &Tensor,
    types: &Tensor,
    token_ids: &[u32],
    lengths: &Lengths,
) -> Result<Tensor> {
    let rows: Vec<[usize; 2]> = lengths
        .ranges()
        .flat_map(|range| {
            range
                .enumerate()
                .map(|(position, token)| [token_ids[token] as usize, position])
        })
        .collect();
    let (word_rows, position_rows) = (words.dim(0)?, positions.dim(0)?);
    if let Some([word, position]) = rows
        .iter()
        .find(|[word, position]| *word >= word_rows || *position >= position_rows)
    {
        bail!("token id {word} at position {position}: the embeddings have {word_rows} and {position_rows} rows")
    }
    match words.device().is_cpu() {
        true => words
            .contiguous()?
            .apply_op3(&positions.contiguous()?, &types.contiguous()?, Embed { rows }),
        false => composed::embed(words, positions, types, &rows),
    }
}

struct Embed {
    /// Word and position of each token.
    rows: Vec<[usize; 2]>,
}

impl CustomOp3 for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(
        &self,
        w: &CpuStorage,
        lw: &Layout,
        p: &CpuStorage,
        lp: &Layout,
        t: &CpuStorage,
        lt: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, width) = lw.shape().dims2()?;
        let (words, positions, types) = (
            slice(self.name(), w, lw)?,
            slice(self.name(), p, lp)?,
            slice(self.name(), t, lt)?,
        );
        let mut y = vec![0.0; self.rows.len() * width];
        y.par_chunks_mut(ROWS_AT_ONCE * width)
            .zip(self.rows.par_chunks(ROWS_AT_ONCE))
            .for_each(|(y, rows)| {
                for (y, [word, position]) in y.chunks_exact_mut(width).zip(rows) {
                    let (word, position) = (&words[word * width..], &positions[position * width..]);
                    for i in 0..width {
                        y[i] = word[i] + position[i] + types[i];
                    }
                }
            });
        Ok((CpuStorage::F32(y), Shape::from((self.rows.len(), width))))
    }

    fn bwd(
        &self,
        w: &Tensor,
        p: &Tensor,
        t: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (width, grads) = (w.dim(1)?, elements(&grad)?);
        let [mut words, mut positions, mut types] = [w, p, t].map(|table| vec![0.0f32; table.elem_count()]);
        // One after the other: the order of sums over equal tokens is that of the batch.
        let add = |table: &mut [f32], row: usize, grad: &[f32]| {
            let row = &mut table[row * width..(row + 1) * width];
            row.iter_mut().zip(grad).for_each(|(sum, value)| *sum += value);
        };
        for (grad, [word, position]) in grads.chunks_exact(width).zip(&self.rows) {
            add(&mut words, *word, grad);
            add(&mut positions, *position, grad);
            add(&mut types, 0, grad);
        }
        Ok((
            Some(gradient(words, w)?),
            Some(gradient(positions, p)?),
            Some(gradient(types, t)?),
        ))
    }
}
