//! The feed-forward half of a layer: what the first product makes of a block of rows is packed at once for the
//! second, so that `[rows, 4 hidden]` intermediate values are never written to memory.

use std::ops::Range;

use super::buffer::{AlignedBuffer, ProductScratch, as_uninit, with_scratch};
use super::format::Format;
use super::forward::{Finish, FinishPanels, Rows, Segment, Source, block_words, forward};
use super::linear::PackedLinear;
use super::norm::Norm;
use super::operands::{PackedRows, at_once, panel_width, words};
use super::simd::Simd;
use crate::Activation;

/// Columns of the first product that are packed for the second at once: whole groups of every format with terms.
const RUN: usize = 256;

/// Values of the intermediate rows that are made before they are multiplied, or a chunk of the format if that is more;
/// whole runs. 256 to 768 take the same time.
const SEGMENT: usize = 512;

/// `LayerNorm(x + output(activation(intermediate(x))))`, the same bits as one after the other. `x`: `[rows, hidden]`,
/// which the norm is as wide as. Returns `[rows, hidden]`.
pub fn feed_forward(
    x: &[f32],
    rows: usize,
    intermediate: &PackedLinear,
    activation: Activation,
    output: &PackedLinear,
    norm: Norm,
) -> Vec<f32> {
    assert_eq!(x.len(), rows * intermediate.in_features, "x is [rows, hidden]");
    assert_eq!(intermediate.out_features, output.in_features, "the layers fit");
    let together = intermediate.kernel == output.kernel && intermediate.precision == output.precision;
    if together && intermediate.kernel.fuses() {
        return feed_forward_fused(x, rows, intermediate, activation, output, norm);
    }
    let hidden = intermediate.forward(x, rows, activation);
    output.forward_add_norm(&hidden, rows, x, norm)
}

/// [`feed_forward`] in one pass, for a kernel that [can](super::Kernel::can_fuse).
pub(super) fn feed_forward_fused(
    x: &[f32],
    rows: usize,
    intermediate: &PackedLinear,
    activation: Activation,
    output: &PackedLinear,
    norm: Norm,
) -> Vec<f32> {
    with_scratch(|scratch| {
        let source = Intermediate {
            layer: intermediate,
            x: Rows {
                x,
                k: intermediate.in_features(),
            },
            activation,
            scratch: &mut scratch.product_before,
            run: &mut scratch.between,
        };
        let finish = Finish::AddNorm { residual: x, norm };
        forward(output, source, rows, finish, &mut scratch.product)
    })
}

/// Rows that are the result of a product themselves.
struct Intermediate<'a> {
    layer: &'a PackedLinear,
    x: Rows<'a>,
    activation: Activation,
    scratch: &'a mut ProductScratch,
    /// `[rows, RUN]`.
    run: &'a mut AlignedBuffer,
}

impl Source for Intermediate<'_> {
    const FUSED: bool = true;

    #[inline(always)]
    fn segment_words<S: Simd, F: Format>(&self, words: usize) -> usize {
        words.min((SEGMENT / F::VALUES * F::PLANES).next_multiple_of(F::CHUNK))
    }

    #[inline(always)]
    fn block_rows<S: Simd, F: Format>(&self) -> usize {
        block_words::<S>() / words::<F>(self.x.k)
    }

    #[inline(always)]
    fn pack<S: Simd, F: Format>(
        &mut self,
        simd: S,
        format: F,
        rows: Range<usize>,
        columns: Range<usize>,
        to: &mut PackedRows,
    ) {
        let (k, count, width) = (self.x.k, rows.len(), panel_width::<S>());
        let ProductScratch { left, terms, sums } = &mut *self.scratch;
        let mut packed = PackedRows::new::<S, F>(left, terms, count, k);
        // They stay for the block's further segments.
        if columns.start == 0 {
            self.x.pack(simd, format, rows, 0..k, &mut packed);
        }
        let segment = Segment {
            layer: self.layer,
            rows: &packed,
            words: 0..words::<F>(k),
        };
        let sums = sums.scratch(at_once::<S, F>(RUN / width) * count * width);
        for begin in columns.clone().step_by(RUN) {
            let end = columns.end.min(begin + RUN);
            let run = self.run.scratch(count * RUN);
            let (mut p, panels) = (begin / width, end.div_ceil(width));
            while p < panels {
                let after = p + at_once::<S, F>(panels - p);
                let finish = FinishPanels {
                    residual: None,
                    // SAFETY: `Segment::finish` writes f32s there and reads nothing.
                    out: unsafe { as_uninit(run) },
                    n: RUN,
                    range: p * width - begin..end.min(after * width) - begin,
                };
                let sums = &mut sums[..(after - p) * count * width];
                let next = segment.after::<S, F>(after);
                segment.finish(simd, format, p..after, next, sums, self.activation, finish);
                p = after;
            }
            let packed = begin - columns.start..end - columns.start;
            to.pack(simd, format, run, RUN, packed);
        }
    }
}
