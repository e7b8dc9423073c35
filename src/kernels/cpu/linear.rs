//! Linear layers over packed weights; bias, activation, residual and LayerNorm ride along.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use memmap2::Mmap;

use super::buffer::{Scratch, Words, with_scratch};
use super::detect::{Kernel, selected};
use super::format::{Bf16, F32, Format, Int8};
use super::gemm::{groups, multiply_panel, pack_rows, panel_width, words};
use super::norm::Norm;
use super::packing::PackPanels;
use super::simd::{MAX_LANES, Simd, Task};
use super::vector_math::{Elementwise, Identity, WithElementwise, with_activation};
use crate::kernels::{Activation, Precision};

/// A linear layer's weights, laid out for the CPU's kernel.
pub struct PackedLinear {
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) kernel: Kernel,
    pub(super) precision: Precision,
    /// Panels of columns of the product, see [`super::gemm`].
    pub(super) panels: Words,
    /// For each panel `[groups, COLUMN_TERMS, width]`, see [`Format`].
    columns: Vec<f32>,
    /// One value a column of the panels; zeros where the layer has no bias.
    bias: Vec<f32>,
}

impl fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("PackedLinear")
            .field("in_features", &self.in_features)
            .field("out_features", &self.out_features)
            .field("kernel", &self.kernel.name(self.precision))
            .finish_non_exhaustive()
    }
}

/// The packed rows of the left operand that stay in the L2 cache while all panels go by, in words.
const BLOCK_WORDS: usize = 128 * 1024;

/// How a layer's weights are packed. What was packed under one descriptor can be used under an equal
/// one only: another kernel may want other panels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedLayout {
    pub in_features: usize,
    pub out_features: usize,
    /// Format, columns in a panel, and a version of the layout.
    pub name: String,
    /// Bytes of the panels.
    pub panel_bytes: usize,
    /// Values that go with the columns beside the bias, such as scales.
    pub column_terms: usize,
}

impl PackedLayout {
    /// What `kernel` wants for a weight `[N, K]`. Errors on f16 and on empty dimensions.
    pub fn new(kernel: Kernel, precision: Precision, out_features: usize, in_features: usize) -> Result<Self> {
        if out_features == 0 || in_features == 0 {
            bail!("linear: expected a weight without empty dimensions, found [{out_features}, {in_features}]")
        }
        let columns = out_features.next_multiple_of(kernel.run(PanelWidth));
        let (words, terms) = match precision {
            Precision::F32 => sizes::<F32>(in_features),
            Precision::Bf16 => sizes::<Bf16>(in_features),
            Precision::Int8 => sizes::<Int8>(in_features),
            Precision::F16 => bail!("linear: the CPU does not compute in f16"),
        };
        Ok(Self {
            in_features,
            out_features,
            name: Self::name_for(kernel, precision),
            panel_bytes: columns * words * size_of::<f32>(),
            column_terms: columns * terms,
        })
    }

    /// [`Self::name`] of every layer that `kernel` packs in `precision`.
    pub fn name_for(kernel: Kernel, precision: Precision) -> String {
        let width = kernel.run(PanelWidth);
        match precision {
            Precision::Int8 => format!("int8-panels-of-{width}-groups-of-{}-v1", Int8::GROUP * Int8::VALUES),
            _ => format!("{}-panels-of-{width}-v1", precision.name()),
        }
    }
}

/// Words and terms of a column of `k` values.
fn sizes<F: Format>(k: usize) -> (usize, usize) {
    (words::<F>(k), groups::<F>(k) * F::COLUMN_TERMS)
}

struct PanelWidth;

impl Task for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        panel_width::<S>()
    }
}

impl PackedLinear {
    /// `weight`: `[N, K]`; `bias`: `[N]`; any float dtype. Errors if a dimension is 0, and on f16.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, precision: Precision) -> Result<Self> {
        Self::for_kernel(selected(), weight, bias, precision)
    }

    /// As [`Self::new`], for a kernel other than the selected one.
    pub fn for_kernel(kernel: Kernel, weight: &Tensor, bias: Option<&Tensor>, precision: Precision) -> Result<Self> {
        let (out_features, in_features) = weight.dims2()?;
        let layout = PackedLayout::new(kernel, precision, out_features, in_features)?;
        let mut columns = vec![0.0; layout.column_terms];
        let columns_to = columns.as_mut_slice();
        let panels = match precision {
            Precision::Bf16 => kernel.run(PackPanels::<Bf16>::new(weight, columns_to)),
            Precision::Int8 => kernel.run(PackPanels::<Int8>::new(weight, columns_to)),
            _ => kernel.run(PackPanels::<F32>::new(weight, columns_to)),
        }?;
        let mut padded_bias = vec![0.0; out_features.next_multiple_of(kernel.run(PanelWidth))];
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
            precision,
            panels: Words::Owned(panels),
            columns,
            bias: padded_bias,
        })
    }

    /// A layer as [`Self::layout`], [`Self::panel_bytes`], [`Self::columns`] and [`Self::bias`] gave it, its panels
    /// read from `range` of `map`: nothing is copied. The file must not change while it is mapped.
    ///
    /// Errors if the layout is not the selected kernel's or a length is not the layout's.
    pub fn from_mapped(
        layout: &PackedLayout,
        precision: Precision,
        map: Arc<Mmap>,
        range: Range<usize>,
        columns: Vec<f32>,
        bias: &[f32],
    ) -> Result<Self> {
        let kernel = selected();
        let expected = PackedLayout::new(kernel, precision, layout.out_features, layout.in_features)?;
        if *layout != expected {
            bail!(
                "packed weights: the kernel {} needs {expected:?}, found {layout:?}",
                kernel.name(precision)
            )
        }
        let lengths = (range.len(), columns.len(), bias.len());
        let wanted = (layout.panel_bytes, layout.column_terms, layout.out_features);
        if lengths != wanted {
            bail!("packed weights: expected {wanted:?} bytes, column terms and biases, found {lengths:?}")
        }
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(layout.out_features.next_multiple_of(kernel.run(PanelWidth)), 0.0);
        let Some(panels) = Words::mapped(map, range.clone()) else {
            bail!("packed weights: bytes {range:?} do not lie within the file or do not begin at a multiple of 4")
        };
        Ok(Self {
            in_features: layout.in_features,
            out_features: layout.out_features,
            kernel,
            precision,
            panels,
            columns,
            bias: padded_bias,
        })
    }

    /// How this layer is packed.
    pub fn layout(&self) -> Result<PackedLayout> {
        PackedLayout::new(self.kernel, self.precision, self.out_features, self.in_features)
    }

    /// The panels, to be stored as they are; in this machine's byte order.
    pub fn panel_bytes(&self) -> Result<&[u8]> {
        let words = self.panels.as_slice();
        // SAFETY: every f32 is four bytes without padding.
        let bytes = unsafe { words.align_to::<u8>().1 };
        Ok(&bytes[..self.layout()?.panel_bytes])
    }

    /// What goes with the columns beside the bias: for int8 scales and sums.
    pub fn columns(&self) -> &[f32] {
        &self.columns
    }

    /// `[N]`, zeros where the layer has no bias.
    pub fn bias(&self) -> &[f32] {
        &self.bias[..self.out_features]
    }

    pub fn in_features(&self) -> usize {
        self.in_features
    }

    pub fn out_features(&self) -> usize {
        self.out_features
    }

    pub fn precision(&self) -> Precision {
        self.precision
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
        let room = &mut out.spare_capacity_mut()[..len];
        match self.precision {
            Precision::Bf16 => self.run_as(Bf16, x, rows, finish, room),
            Precision::Int8 => self.run_as(Int8, x, rows, finish, room),
            _ => self.run_as(F32, x, rows, finish, room),
        }
        // SAFETY: `Forward` writes each column of each row of the `len` elements: its blocks of rows
        // and its panels of columns cover both ranges without a gap.
        unsafe { out.set_len(len) };
        out
    }

    fn run_as<F: Format>(&self, format: F, x: &[f32], rows: usize, finish: Finish, out: &mut [MaybeUninit<f32>]) {
        with_scratch(|scratch| {
            let forward = Forward {
                format,
                layer: self,
                x,
                rows,
                finish,
                out,
                scratch,
            };
            match self.precision {
                Precision::F32 => self.kernel.run(forward),
                _ => self.kernel.run_with_dots(forward),
            }
        });
    }
}

/// What follows the product and the bias.
#[derive(Clone, Copy)]
enum Finish<'a> {
    Activation(Activation),
    AddNorm { residual: &'a [f32], norm: Norm<'a> },
}

struct Forward<'a, F> {
    format: F,
    layer: &'a PackedLinear,
    x: &'a [f32],
    rows: usize,
    finish: Finish<'a>,
    /// `[rows, N]`.
    out: &'a mut [MaybeUninit<f32>],
    scratch: &'a mut Scratch,
}

impl<F: Format> Task for Forward<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (n, k) = (self.layer.out_features, self.layer.in_features);
        let (width, words) = (panel_width::<S>(), words::<F>(k));
        let panels = self.layer.panels.as_slice().chunks_exact(width * words);
        let columns = groups::<F>(k) * F::COLUMN_TERMS * width;
        let biases = self.layer.bias.chunks_exact(width);
        let (activation, residual) = match self.finish {
            Finish::Activation(activation) => (activation, None),
            Finish::AddNorm { residual, .. } => (Activation::Identity, Some(residual)),
        };
        let block_rows = (BLOCK_WORDS / words / S::TILE_ROWS).max(1) * S::TILE_ROWS;
        for first in (0..self.rows).step_by(block_rows) {
            let rows = block_rows.min(self.rows - first);
            let left = self.scratch.left.scratch(rows * words);
            let terms = self.scratch.terms.scratch(rows * groups::<F>(k) * F::ROW_TERMS);
            let sums = self.scratch.sums.scratch(rows * width);
            let out = &mut self.out[first * n..][..rows * n];
            pack_rows(simd, self.format, &self.x[first * k..], k, rows, k, left, terms);
            for (p, (panel, bias)) in panels.clone().zip(biases.clone()).enumerate() {
                let columns = &self.layer.columns[p * columns..][..columns];
                multiply_panel(simd, self.format, (left, terms), rows, (panel, columns), sums);
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
                        range: p * width..n.min((p + 1) * width),
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
    /// The panel's columns.
    range: Range<usize>,
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
            let out = &mut out[self.range.clone()];
            let residual = self.residual.map(|values| &values[r * self.n..][self.range.clone()]);
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
