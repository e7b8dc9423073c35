//! A linear layer's packed weights; [`super::forward`] multiplies with them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use memmap2::Mmap;

use super::buffer::Words;
use super::detect::{Kernel, selected};
use super::format::{Format, Int8, WithFormat, with_format};
use super::operands::{groups, panel_width, words};
use super::packing::PackPanels;
use super::simd::{Simd, Task};
use crate::Precision;

/// A linear layer's weights, laid out for the CPU's kernel.
pub struct PackedLinear {
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) kernel: Kernel,
    pub(super) precision: Precision,
    /// Panels of columns of the product, see [`super::operands`].
    pub(super) panels: Words,
    /// For each panel `[groups, COLUMN_TERMS, width]`, see [`Format`].
    pub(super) columns: Vec<f32>,
    /// One value a column of the panels; zeros where the layer has no bias.
    pub(super) bias: Vec<f32>,
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

/// [`panel_width`] of a kernel.
pub(super) struct PanelWidth;

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
    /// read from `range` of `map`: nothing is copied. If the file is written to, results are those of what it holds then.
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
}
