//! Linear layers over packed weights; bias, activation, residual and LayerNorm ride along.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use memmap2::Mmap;

use super::buffer::{Scratch, Words, with_scratch};
use super::detect::{Kernel, selected};
use super::format::{Format, Int8, WithFormat, with_format};
use super::gemm::{
    Product, Sink, groups, multiply_panel, multiply_panel_into, pack_rows, packed_rows, panel_width, words,
};
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

/// The packed rows of the left operand that stay in the L2 cache while all panels go by, in words: 512 KiB, and
/// 1.25 MiB of the 2 that machines with AMX have.
const fn block_words<S: Simd>() -> usize {
    if S::TILES { 320 * 1024 } else { 128 * 1024 }
}

/// Words along k that are multiplied with all panels before the next ones are packed.
///
/// Products of whole tiles are so fast that weights come too slowly from memory when few rows share them; so long rows
/// are cut, such that a block has 256 of them. Sums wait in memory for the next segment, and the order in which
/// they are added is the same.
const fn segment_words<S: Simd, F: Format>(words: usize) -> usize {
    const ROWS: usize = 256;
    if !S::TILES {
        return words;
    }
    let segments = words.div_ceil(block_words::<S>() / ROWS);
    words.div_ceil(segments).next_multiple_of(F::CHUNK)
}

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
        if precision == Precision::F16 {
            bail!("linear: the CPU does not compute in f16")
        }
        let columns = out_features.next_multiple_of(kernel.run(PanelWidth));
        let (words, terms) = with_format(kernel, precision, Sizes { k: in_features });
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
            Precision::F32 if kernel.has_tiles() => format!("f32-in-three-bf16-panels-of-{width}-v1"),
            _ => format!("{}-panels-of-{width}-v1", precision.name()),
        }
    }
}

/// Words and terms of a column of `k` values.
struct Sizes {
    k: usize,
}

impl WithFormat for Sizes {
    type Output = (usize, usize);

    fn run<F: Format>(self, _: F) -> (usize, usize) {
        (words::<F>(self.k), groups::<F>(self.k) * F::COLUMN_TERMS)
    }
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
        let pack = PackPanels {
            kernel,
            width: kernel.run(PanelWidth),
            weight,
            columns: &mut columns,
        };
        let panels = with_format(kernel, precision, pack)?;
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
        with_scratch(|scratch| {
            let forward = Forward {
                layer: self,
                x,
                rows,
                finish,
                out: room,
                scratch,
            };
            with_format(self.kernel, self.precision, forward);
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

impl WithFormat for Forward<'_> {
    type Output = ();

    fn run<F: Format>(self, format: F) {
        F::run(self.layer.kernel, (format, self));
    }
}

impl<F: Format> Task for (F, Forward<'_>) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (format, forward) = self;
        let (n, k) = (forward.layer.out_features, forward.layer.in_features);
        let (width, words) = (panel_width::<S>(), words::<F>(k));
        let all = forward.layer.panels.as_slice();
        let panels = all.chunks_exact(width * words);
        let columns = groups::<F>(k) * F::COLUMN_TERMS * width;
        let biases = forward.layer.bias.chunks_exact(width);
        let (activation, residual) = match forward.finish {
            Finish::Activation(activation) => (activation, None),
            Finish::AddNorm { residual, .. } => (Activation::Identity, Some(residual)),
        };
        let segment_words = segment_words::<S, F>(words);
        let segment_values = segment_words / F::PLANES * F::VALUES;
        let block_rows = (block_words::<S>() / segment_words / S::TILE_ROWS).max(1) * S::TILE_ROWS;
        // Blocks of about equal size: a small last one would have the weights to itself.
        let blocks = forward.rows.div_ceil(block_rows).max(1);
        let block_rows = forward.rows.div_ceil(blocks).next_multiple_of(S::TILE_ROWS).max(1);
        for first in (0..forward.rows).step_by(block_rows) {
            let rows = block_rows.min(forward.rows - first);
            let out = &mut forward.out[first * n..][..rows * n];
            // Of one panel, or of all where they wait for further segments.
            let waiting = if segment_words < words { rows * width } else { 0 };
            let sums = forward.scratch.sums.scratch((waiting * panels.len()).max(rows * width));
            for begin in (0..words).step_by(segment_words) {
                let end = words.min(begin + segment_words);
                let from = begin / segment_words * segment_values;
                let values = segment_values.min(k - from);
                let left = forward.scratch.left.scratch(packed_rows::<S, F>(rows, values));
                let terms = forward.scratch.terms.scratch(rows * groups::<F>(values) * F::ROW_TERMS);
                pack_rows(
                    simd,
                    format,
                    &forward.x[first * k + from..],
                    k,
                    rows,
                    values,
                    left,
                    terms,
                );
                let terms_before = begin / F::GROUP * F::COLUMN_TERMS * width;
                for (p, (panel, bias)) in panels.clone().zip(biases.clone()).enumerate() {
                    let next = match all.get((p + 1) * width * words..) {
                        Some(next) if !next.is_empty() => &next[begin * width..end * width],
                        _ => &all[..width * words][end * width..],
                    };
                    let product = Product {
                        left,
                        row_terms: terms,
                        rows,
                        panel: &panel[begin * width..end * width],
                        columns: &forward.layer.columns[p * columns..][..columns][terms_before..],
                        sums: &mut sums[p * waiting..][..rows * width],
                        is_first: begin == 0,
                        next,
                    };
                    if end < words {
                        multiply_panel(simd, format, product);
                        continue;
                    }
                    let finish = FinishPanel {
                        bias,
                        residual: residual.map(|values| &values[first * n..]),
                        out: &mut *out,
                        n,
                        range: p * width..n.min((p + 1) * width),
                    };
                    with_activation(
                        activation,
                        Last {
                            simd,
                            format,
                            product,
                            finish,
                        },
                    );
                }
            }
            if let Finish::AddNorm { norm, .. } = forward.finish {
                for row in out.chunks_exact_mut(n) {
                    // SAFETY: the panels above have written every column of the rows of this block.
                    let row = unsafe { row.assume_init_mut() };
                    norm.apply(simd, row, Identity);
                }
            }
        }
    }
}

/// The product of one panel's last segment, and what becomes of it.
struct Last<'a, S, F> {
    simd: S,
    format: F,
    product: Product<'a>,
    finish: FinishPanel<'a>,
}

impl<S: Simd, F: Format> WithElementwise for Last<'_, S, F> {
    type Output = ();

    #[inline(always)]
    fn run<E: Elementwise>(self, f: E) {
        let mut sink = Finished { f, to: self.finish };
        multiply_panel_into(self.simd, self.format, self.product, &mut sink);
    }
}

/// One panel's columns of the result.
struct FinishPanel<'a> {
    /// `[panel_width]`.
    bias: &'a [f32],
    /// `[rows, n]`, as is `out`.
    residual: Option<&'a [f32]>,
    out: &'a mut [MaybeUninit<f32>],
    n: usize,
    /// The panel's columns.
    range: Range<usize>,
}

/// Adds bias and residual, applies `f` and stores.
struct Finished<'a, E> {
    f: E,
    to: FinishPanel<'a>,
}

impl<E: Elementwise> Sink for Finished<'_, E> {
    #[inline(always)]
    fn put<S: Simd>(&mut self, simd: S, first: usize, sums: &[f32]) {
        let FinishPanel {
            bias,
            residual,
            out,
            n,
            range,
        } = &mut self.to;
        let from = first * *n;
        let out = out[from..].chunks_exact_mut(*n);
        for (r, (sums, out)) in sums.chunks_exact(panel_width::<S>()).zip(out).enumerate() {
            let out = &mut out[range.clone()];
            let residual = residual.map(|values| &values[from + r * *n..][range.clone()]);
            for (j, out) in out.chunks_mut(S::LANES).enumerate() {
                let at = j * S::LANES;
                let mut y = simd.add(simd.load(&sums[at..]), simd.load(&bias[at..]));
                if let Some(residual) = residual {
                    y = simd.add(y, simd.load_or(&residual[at..][..out.len()], 0.0));
                }
                store_new(simd, self.f.apply(simd, y), out);
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
