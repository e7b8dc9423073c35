//! Linear layers over packed weights; bias, activation, residual and LayerNorm ride along.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};

use super::buffer::{AlignedBuffer, Scratch, with_scratch};
use super::detect::{Kernel, selected};
use super::gemm::{multiply_panel, pack_rows, padded, panel_width};
use super::norm::Norm;
use super::packing::PackPanels;
use super::simd::{MAX_LANES, Simd, Task};
use super::vector_math::{Elementwise, Identity, WithElementwise, with_activation};
use crate::kernels::Activation;

/// A linear layer's weights, laid out for the CPU's kernel.
pub struct PackedLinear {
    in_features: usize,
    out_features: usize,
    kernel: Kernel,
    /// Panels of columns of the product, see [`super::gemm`].
    panels: AlignedBuffer,
    /// One value a column of the panels; zeros where the layer has no bias.
    bias: Vec<f32>,
}

impl fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("PackedLinear")
            .field("in_features", &self.in_features)
            .field("out_features", &self.out_features)
            .field("kernel", &self.kernel.name())
            .finish_non_exhaustive()
    }
}

/// The packed rows of the left operand that stay in the L2 cache while all panels go by, in values.
const BLOCK_VALUES: usize = 128 * 1024;

impl PackedLinear {
    /// `weight`: `[N, K]`; `bias`: `[N]`; any float dtype. Errors if a dimension is 0.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        Self::for_kernel(selected(), weight, bias)
    }

    /// As [`Self::new`], for a kernel other than the selected one.
    pub fn for_kernel(kernel: Kernel, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let (out_features, in_features) = weight.dims2()?;
        if out_features == 0 || in_features == 0 {
            bail!("linear: expected a weight without empty dimensions, found [{out_features}, {in_features}]")
        }
        let panels = kernel.run(PackPanels { weight })?;
        let mut padded_bias = vec![0.0; panels.as_slice().len() / padded(in_features)];
        if let Some(bias) = bias {
            if bias.dims() != [out_features] {
                bail!("linear: expected a bias [{out_features}], found {:?}", bias.dims())
            }
            let bias = bias.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            padded_bias[..out_features].copy_from_slice(&bias);
        }
        Ok(Self {
            in_features,
            out_features,
            kernel,
            panels,
            bias: padded_bias,
        })
    }

    pub fn in_features(&self) -> usize {
        self.in_features
    }

    pub fn out_features(&self) -> usize {
        self.out_features
    }

    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// `activation(x W^T + b)`. `x`: `[rows, K]`. Returns `[rows, N]`.
    pub fn forward(&self, x: &[f32], rows: usize, activation: Activation) -> Vec<f32> {
        self.run(x, rows, Finish::Activation(activation))
    }

    /// `LayerNorm(residual + x W^T + b)`; `residual`: `[rows, N]`. Returns `[rows, N]`.
    pub fn forward_add_norm(
        &self,
        x: &[f32],
        rows: usize,
        residual: &[f32],
        weight: &[f32],
        bias: &[f32],
        eps: f32,
    ) -> Vec<f32> {
        assert_eq!(residual.len(), rows * self.out_features, "residual is [rows, N]");
        assert_eq!(weight.len(), self.out_features, "the norm is [N]");
        assert_eq!(bias.len(), self.out_features, "the norm is [N]");
        let norm = Norm { weight, bias, eps };
        self.run(x, rows, Finish::AddNorm { residual, norm })
    }

    fn run(&self, x: &[f32], rows: usize, finish: Finish) -> Vec<f32> {
        assert_eq!(x.len(), rows * self.in_features, "x is [rows, K]");
        let len = rows * self.out_features;
        let mut out = Vec::with_capacity(len);
        with_scratch(|scratch| {
            self.kernel.run(Forward {
                layer: self,
                x,
                rows,
                finish,
                out: &mut out.spare_capacity_mut()[..len],
                scratch,
            })
        });
        // SAFETY: `Forward` writes each column of each row of the `len` elements: its blocks of rows
        // and its panels of columns cover both ranges without a gap.
        unsafe { out.set_len(len) };
        out
    }
}

/// What follows the product and the bias.
#[derive(Clone, Copy)]
enum Finish<'a> {
    Activation(Activation),
    AddNorm { residual: &'a [f32], norm: Norm<'a> },
}

struct Forward<'a> {
    layer: &'a PackedLinear,
    x: &'a [f32],
    rows: usize,
    finish: Finish<'a>,
    /// `[rows, N]`.
    out: &'a mut [MaybeUninit<f32>],
    scratch: &'a mut Scratch,
}

impl Task for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (n, k) = (self.layer.out_features, self.layer.in_features);
        let width = panel_width::<S>();
        let panels = self.layer.panels.as_slice().chunks_exact(width * padded(k));
        let biases = self.layer.bias.chunks_exact(width);
        let (activation, residual) = match self.finish {
            Finish::Activation(activation) => (activation, None),
            Finish::AddNorm { residual, .. } => (Activation::Identity, Some(residual)),
        };
        let block_rows = (BLOCK_VALUES / padded(k) / S::TILE_ROWS).max(1) * S::TILE_ROWS;
        for first in (0..self.rows).step_by(block_rows) {
            let rows = block_rows.min(self.rows - first);
            let left = self.scratch.left.scratch(rows * padded(k));
            let sums = self.scratch.sums.scratch(rows * width);
            let out = &mut self.out[first * n..][..rows * n];
            pack_rows(simd, &self.x[first * k..], k, rows, k, left);
            for (p, (panel, bias)) in panels.clone().zip(biases.clone()).enumerate() {
                multiply_panel(simd, left, rows, panel, sums);
                let columns = p * width..n.min((p + 1) * width);
                let residual = residual.map(|values| &values[first * n..]);
                with_activation(
                    activation,
                    FinishPanel {
                        simd,
                        sums,
                        bias,
                        residual,
                        out,
                        n,
                        columns,
                    },
                );
            }
            if let Finish::AddNorm { norm, .. } = self.finish {
                for row in out.chunks_exact_mut(n) {
                    // SAFETY: the panels above have written every column of the rows of this block.
                    let row = unsafe { row.assume_init_mut() };
                    norm.apply(simd, row, Identity);
                }
            }
        }
    }
}

/// Takes one panel's sums to their columns of the result.
struct FinishPanel<'a, S> {
    simd: S,
    /// `[rows, panel_width]`.
    sums: &'a [f32],
    /// `[panel_width]`.
    bias: &'a [f32],
    /// `[rows, n]`, as is `out`.
    residual: Option<&'a [f32]>,
    out: &'a mut [MaybeUninit<f32>],
    n: usize,
    columns: Range<usize>,
}

impl<S: Simd> WithElementwise for FinishPanel<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<F: Elementwise>(self, f: F) {
        let simd = self.simd;
        let rows = self
            .sums
            .chunks_exact(self.bias.len())
            .zip(self.out.chunks_exact_mut(self.n));
        for (r, (sums, out)) in rows.enumerate() {
            let out = &mut out[self.columns.clone()];
            let residual = self.residual.map(|values| &values[r * self.n..][self.columns.clone()]);
            for (j, out) in out.chunks_mut(S::LANES).enumerate() {
                let at = j * S::LANES;
                let mut y = simd.add(simd.load(&sums[at..]), simd.load(&self.bias[at..]));
                if let Some(residual) = residual {
                    y = simd.add(y, simd.load_or(&residual[at..][..out.len()], 0.0));
                }
                store_new(simd, f.apply(simd, y), out);
            }
        }
    }
}

/// [`Simd::store_some`] into memory that may be uninitialised; it is all written.
#[inline(always)]
fn store_new<S: Simd>(simd: S, v: S::V, to: &mut [MaybeUninit<f32>]) {
    if to.len() >= S::LANES {
        // SAFETY: the line above; writing to uninitialised memory is sound.
        unsafe { simd.store_ptr(v, to.as_mut_ptr().cast()) }
    } else {
        let mut lanes = [0.0; MAX_LANES];
        simd.store(v, &mut lanes);
        to.write_copy_of_slice(&lanes[..to.len()]);
    }
}
