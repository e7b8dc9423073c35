//! The projection to queries, keys and values and the attention that follows, head by head where products are fused: a
//! head's queries, keys and values are then used while they are in cache, and never all written to memory.

use super::attention::{Head, attention};
use super::buffer::{ProductScratch, Scratch, as_uninit, with_scratch};
use super::format::{Bf16, F32, Format, WithFormat, with_format};
use super::forward::{FinishPanels, Rows, Segment, Source, block_words};
use super::linear::{PackedLinear, PanelWidth};
use super::operands::{PackedRows, at_once, panel_width, words};
use super::simd::{Simd, Task};
use crate::Activation;

/// The most rows whose queries, keys and values of one head stay in cache beside the packed rows.
const BLOCK_ROWS: usize = 512;

/// [`super::attention()`] of what the layer `projection` makes of `x`, `[T, K]`: of `[T, 3 hidden]`. The same bits as one
/// after the other. Returns `[T, hidden]`.
pub fn self_attention(x: &[f32], projection: &PackedLinear, offsets: &[u32], heads: usize) -> Vec<f32> {
    let (kernel, k, hidden) = (projection.kernel, projection.in_features, projection.out_features / 3);
    if kernel.fuses() && heads_are_panels(projection, heads) {
        return self_attention_fused(x, projection, offsets, heads);
    }
    let qkv = projection.forward(x, x.len() / k, Activation::Identity);
    attention(kernel, projection.precision, &qkv, offsets, hidden, heads)
}

/// Whether a head's queries, keys and values are each the product of whole panels.
pub(super) fn heads_are_panels(projection: &PackedLinear, heads: usize) -> bool {
    (projection.out_features / 3 / heads).is_multiple_of(projection.kernel.run(PanelWidth))
}

/// [`self_attention`] head by head, for a kernel that [can](super::Kernel::can_fuse) and heads that [are
/// panels](heads_are_panels).
pub(super) fn self_attention_fused(x: &[f32], projection: &PackedLinear, offsets: &[u32], heads: usize) -> Vec<f32> {
    let (kernel, k, hidden) = (projection.kernel, projection.in_features, projection.out_features / 3);
    let tokens = x.len() / k;
    let mut out = vec![0.0; tokens * hidden];
    with_scratch(|scratch| {
        let attend = SelfAttention {
            x,
            projection,
            offsets,
            heads,
            out: &mut out,
            scratch,
        };
        with_format(kernel, projection.precision, attend);
    });
    out
}

struct SelfAttention<'a> {
    x: &'a [f32],
    projection: &'a PackedLinear,
    offsets: &'a [u32],
    heads: usize,
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithFormat for SelfAttention<'_> {
    type Output = ();

    fn run<F: Format>(self, format: F) {
        F::run(self.projection.kernel, (format, self));
    }
}

impl<F: Format> Task for (F, SelfAttention<'_>) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !S::FUSES {
            unreachable!("only where products are fused")
        }
        let (format, task) = self;
        let (k, hidden) = (task.projection.in_features, task.projection.out_features / 3);
        let (panel, width) = (panel_width::<S>(), hidden / task.heads);
        // Panels of a head's queries, or keys, or values; of all three; and which ones are multiplied at once, beginning
        // with the `i`th.
        let part = width / panel;
        let of_head = 3 * part;
        let panels_at = |i: usize| {
            let (head, rest) = (i / of_head % task.heads, i % of_head);
            let first = rest / part * (hidden / panel) + head * part + rest % part;
            first..first + at_once::<S, F>(part - rest % part)
        };
        let block_rows = (block_words::<S>() / words::<F>(k)).min(BLOCK_ROWS);
        let mut sequences = task.offsets;
        while sequences.len() > 1 {
            // Whole sequences, as many as fit into a block, or one.
            let begin = sequences[0] as usize;
            let fit = sequences.partition_point(|&end| end as usize - begin <= block_rows);
            let (block, rest) = (&sequences[..fit.max(2)], &sequences[fit.max(2) - 1..]);
            sequences = rest;
            let rows = block[block.len() - 1] as usize - begin;
            let ProductScratch { left, terms, sums } = &mut task.scratch.product;
            let mut packed = PackedRows::new::<S, F>(left, terms, rows, k);
            Rows { x: task.x, k }.pack(simd, format, begin..begin + rows, 0..k, &mut packed);
            let segment = Segment {
                layer: task.projection,
                rows: &packed,
                words: 0..words::<F>(k),
            };
            let sums = sums.scratch(at_once::<S, F>(part) * rows * panel);
            let qkv = task.scratch.between.scratch(rows * 3 * width);
            for head in 0..task.heads {
                let mut j = 0;
                while j < of_head {
                    let panels = panels_at(head * of_head + j);
                    let after = j + panels.len();
                    let finish = FinishPanels {
                        residual: None,
                        // SAFETY: `Segment::finish` writes f32s there and reads nothing.
                        out: unsafe { as_uninit(qkv) },
                        n: 3 * width,
                        range: j * panel..after * panel,
                    };
                    let sums = &mut sums[..panels.len() * rows * panel];
                    let next = segment.at_once::<S, F>(panels_at(head * of_head + after));
                    segment.finish(simd, format, panels, next, sums, Activation::Identity, finish);
                    j = after;
                }
                for sequence in block.windows(2) {
                    let (first, end) = (sequence[0] as usize, sequence[1] as usize);
                    let of_sequence = Head {
                        query: 0,
                        key: width,
                        value: 2 * width,
                        out: head * width,
                        width,
                        stride: 3 * width,
                        tokens: end - first,
                    };
                    let qkv = &qkv[(first - begin) * 3 * width..(end - begin) * 3 * width];
                    let out = &mut task.out[first * hidden..end * hidden];
                    let scratch = &mut task.scratch.attention;
                    if F::IS_COARSE && S::TILES {
                        of_sequence.attend(simd, Bf16, qkv, out, hidden, scratch);
                    } else {
                        of_sequence.attend(simd.vectors(), F32, qkv, out, hidden, scratch);
                    }
                }
            }
        }
    }
}
