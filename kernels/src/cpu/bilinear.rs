//! Bilinear fusion of pairs: the product with all weight matrices, each panel's sums joined with the
//! other side at once, so that a pair's `O F` numbers between the two products never leave the cache.
//!
//! **Summation order.** An output is the sum over the columns of its weight matrix of the product's
//! element (see [`super::gemm`]) times the other side's value, in lanes by column, the lanes folded at
//! the end. Columns are cut at panels and outputs, which depends on the sizes alone, never on the pairs.

use super::buffer::{ProductScratch, Scratch, with_scratch};
use super::format::{Format, WithFormat, with_format};
use super::gemm::multiply_panels;
use super::linear::PackedLinear;
use super::operands::{PackedRows, Product, panel_width, words};
use super::simd::{Simd, Task};
use crate::Precision;

/// Words of packed `x2` rows in a block: so many that they and the same pairs' `x1` stay in L2 while all weights go by once.
const BLOCK_WORDS: usize = 48 * 1024;

impl PackedLinear {
    /// `x1^T W_o x2 + b_o` for this layer's weight `[O F1, F2]`, row `o F1 + i` being `W_o[i, :]`. Packed in bf16,
    /// weights and `x2` are rounded; sums and all that follows are f32. Panics on a layer packed in int8.
    ///
    /// `x1`: `[rows, F1]`; `x2`: `[rows, F2]`; `bias`: `[O]`, as long as there are outputs. Returns `[rows, O]`.
    pub fn bilinear(&self, x1: &[f32], x2: &[f32], rows: usize, bias: &[f32]) -> Vec<f32> {
        assert_eq!(x2.len(), rows * self.in_features, "x2 is [rows, F2]");
        assert_eq!(
            x1.len() * bias.len(),
            rows * self.out_features,
            "x1 is [rows, F1], the bias [O]"
        );
        assert!(
            self.precision != Precision::Int8,
            "a bilinear's weights are f32 or bf16"
        );
        let mut out = vec![0.0; rows * bias.len()];
        with_scratch(|scratch| {
            let fuse = Fuse {
                layer: self,
                x1,
                x2,
                rows,
                bias,
                out: &mut out,
                scratch,
            };
            with_format(self.kernel, self.precision, fuse);
        });
        out
    }
}

struct Fuse<'a> {
    layer: &'a PackedLinear,
    x1: &'a [f32],
    x2: &'a [f32],
    rows: usize,
    bias: &'a [f32],
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithFormat for Fuse<'_> {
    type Output = ();

    fn run<F: Format>(self, format: F) {
        F::run(self.layer.kernel, (format, self));
    }
}

impl<F: Format> Task for (F, Fuse<'_>) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (format, fuse) = self;
        let (k, outputs) = (fuse.layer.in_features, fuse.bias.len());
        let f1 = fuse.layer.out_features / outputs.max(1);
        let (width, words) = (panel_width::<S>(), words::<F>(k));
        let block_rows = (BLOCK_WORDS / words / S::TILE_ROWS).max(1) * S::TILE_ROWS;
        for first in (0..fuse.rows).step_by(block_rows) {
            let rows = block_rows.min(fuse.rows - first);
            let x1 = &fuse.x1[first * f1..][..rows * f1];
            let out = &mut fuse.out[first * outputs..][..rows * outputs];
            let ProductScratch { left, terms, sums } = &mut fuse.scratch.product;
            let sums = sums.scratch(rows * width);
            let lanes = fuse.scratch.between.scratch(rows * S::LANES);
            let mut packed = PackedRows::new::<S, F>(left, terms, rows, k);
            packed.pack(simd, format, &fuse.x2[first * k..], k, 0..k);
            let panels = fuse.layer.panels.as_slice().chunks_exact(width * words);
            for (p, panel) in panels.enumerate() {
                multiply_panels(simd, format, &mut Product::plain(&packed, panel, sums));
                let mut column = p * width;
                let end = fuse.layer.out_features.min(column + width);
                while column < end {
                    // The columns of this panel that belong to one output.
                    let (output, begin) = (column / f1, column % f1);
                    let count = (f1 - begin).min(end - column);
                    let at = column - p * width;
                    for r in 0..rows {
                        let mut sum = match begin {
                            0 => simd.splat(0.0),
                            _ => simd.load(&lanes[r * S::LANES..]),
                        };
                        let products = sums[r * width + at..][..count].chunks(S::LANES);
                        let others = x1[r * f1 + begin..][..count].chunks(S::LANES);
                        for (product, other) in products.zip(others) {
                            sum = simd.mul_add(simd.load_or(product, 0.0), simd.load_or(other, 0.0), sum);
                        }
                        if begin + count == f1 {
                            out[r * outputs + output] = simd.sum(sum) + fuse.bias[output];
                        } else {
                            simd.store(sum, &mut lanes[r * S::LANES..]);
                        }
                    }
                    column += count;
                }
            }
        }
    }
}
