//! Word plus position embedding of each packed token, then LayerNorm.

use super::detect::Kernel;
use super::norm::Norm;
use super::simd::{Simd, Task};
use super::vector_math::Identity;

/// Embedding tables, `[V, hidden]` and `[P, hidden]`, and the LayerNorm over their sum.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub word: &'a [f32],
    pub position: &'a [f32],
    pub norm: Norm<'a>,
}

/// See [`super::embed`].
pub(super) fn embed(kernel: Kernel, ids: &[u32], offsets: &[u32], tables: Tables) -> Vec<f32> {
    let mut out = vec![0.0; ids.len() * tables.norm.weight.len()];
    kernel.run(Embed {
        ids,
        offsets,
        tables,
        out: &mut out,
    });
    out
}

struct Embed<'a> {
    ids: &'a [u32],
    offsets: &'a [u32],
    tables: Tables<'a>,
    out: &'a mut [f32],
}

impl Task for Embed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Tables { word, position, norm } = self.tables;
        let hidden = norm.weight.len();
        for sequence in self.offsets.windows(2) {
            let (begin, end) = (sequence[0] as usize, sequence[1] as usize);
            for (p, token) in (begin..end).enumerate() {
                let row = &mut self.out[token * hidden..][..hidden];
                let word = &word[self.ids[token] as usize * hidden..][..hidden];
                let position = &position[p * hidden..][..hidden];
                for ((sum, word), position) in row.iter_mut().zip(word).zip(position) {
                    *sum = word + position;
                }
                norm.apply(simd, row, Identity);
            }
        }
    }
}
