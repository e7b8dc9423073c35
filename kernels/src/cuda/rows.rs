//! Passes over rows of hidden states: embedding, LayerNorm, bias, activation, residual.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Shape, Tensor};

use super::launch::{Float, Operand, ROWS, address, checked, int, launch, name, start, vector, view};
use super::{WARPS, for_float, profile};
use crate::{Activation, LayerNorm, Sequences};

/// The numbers of the enumeration in common.cuh.
fn activation_code(activation: Activation) -> i32 {
    match activation {
        Activation::Identity => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::Relu => 3,
        Activation::Tanh => 4,
    }
}

/// [`LayerNorm::forward`] on the GPU.
pub fn layer_norm(
    x: &CudaStorage,
    layout: &Layout,
    norm: &LayerNorm,
    activation: Activation,
) -> Result<(CudaStorage, Shape)> {
    for_float!("layer norm", x.dtype(), layer_norm_of(x, layout, norm, activation))
}

fn layer_norm_of<T: Float>(
    x: &CudaStorage,
    layout: &Layout,
    norm: &LayerNorm,
    activation: Activation,
) -> Result<(CudaStorage, Shape)> {
    const OP: &str = "layer norm";
    let (rows, width) = layout.shape().dims2()?;
    let device = x.device();
    let input = view::<T>(OP, x, layout)?;
    let parameters = NormParameters::of(norm);
    let (weight, bias) = parameters.views(OP)?;
    let vector = vector(
        width,
        &[start::<T>(layout), parameters.weight_start(), parameters.bias_start()],
    );
    // SAFETY: the kernel writes all rows * width elements.
    let mut out = unsafe { device.alloc::<T>(rows * width)? };
    {
        let _span = profile::span(OP, device, 0.0, 2.0 * (rows * width * size_of::<T>()) as f64);
        // SAFETY: the arguments of `layer_norm` in rows.cu; `LayerNorm::forward` checked the width.
        checked(unsafe {
            launch!(device, ROWS, name::<T>("layer_norm"), grid: (rows.div_ceil(WARPS), 1), threads: 32 * WARPS,
                (input, out.as_view(), rows as i64, int(OP, width)?, vector, weight, bias, norm.eps()))
        })?;
    }
    if activation != Activation::Identity {
        bias_activation(device, &mut out, None, width, activation)?;
    }
    Ok((
        CudaStorage::wrap_cuda_slice(out, device.clone()),
        layout.shape().clone(),
    ))
}

/// [`crate::Embedding::forward`] on the GPU. A token id outside the vocabulary gives a row
/// of NaN, so it cannot pass unseen.
pub fn embed(
    ids: &CudaStorage,
    layout: &Layout,
    sequences: &Sequences,
    word: &Tensor,
    position: &Tensor,
    norm: &LayerNorm,
) -> Result<(CudaStorage, Shape)> {
    for_float!(
        "embeddings",
        word.dtype(),
        embed_as(ids, layout, sequences, word, position, norm)
    )
}

fn embed_as<T: Float>(
    ids: &CudaStorage,
    layout: &Layout,
    sequences: &Sequences,
    word: &Tensor,
    position: &Tensor,
    norm: &LayerNorm,
) -> Result<(CudaStorage, Shape)> {
    const OP: &str = "embeddings";
    let (vocabulary, width) = word.dims2()?;
    let rows = sequences.total_tokens();
    let device = ids.device();
    let ids = view::<u32>(OP, ids, layout)?;
    let positions = Operand::of(sequences.positions());
    let (word, position) = (Operand::of(word), Operand::of(position));
    let parameters = NormParameters::of(norm);
    let (weight, bias) = parameters.views(OP)?;
    let starts = [
        start::<T>(word.layout()),
        start::<T>(position.layout()),
        parameters.weight_start(),
        parameters.bias_start(),
    ];
    let vector = vector(width, &starts);
    // SAFETY: the kernel writes all rows * width elements.
    let out = unsafe { device.alloc::<T>(rows * width)? };
    let _span = profile::span(OP, device, 0.0, 2.0 * (rows * width * size_of::<T>()) as f64);
    // SAFETY: the arguments of `embed` in rows.cu. Positions stay inside their table, which
    // `Embedding::forward` compared with the longest sequence; the kernel checks ids itself.
    checked(unsafe {
        launch!(device, ROWS, name::<T>("embed"), grid: (rows.div_ceil(WARPS), 1), threads: 32 * WARPS,
            (ids, positions.view::<u32>(OP)?, word.view::<T>(OP)?, position.view::<T>(OP)?, out.as_view(),
             vocabulary as u32, rows as i64, int(OP, width)?, vector, weight, bias, norm.eps()))
    })?;
    Ok((
        CudaStorage::wrap_cuda_slice(out, device.clone()),
        Shape::from((rows, width)),
    ))
}

/// `x = activation(x + bias)` over rows of `width`. `x` and `bias` start their allocations.
pub(super) fn bias_activation<T: Float>(
    device: &CudaDevice,
    x: &mut CudaSlice<T>,
    bias: Option<&CudaView<f32>>,
    width: usize,
    activation: Activation,
) -> Result<()> {
    const OP: &str = "bias and activation";
    let rows = x.len() / width;
    let threads = width.div_ceil(8).next_multiple_of(32).min(512);
    let _span = profile::span(OP, device, 0.0, 2.0 * (x.len() * size_of::<T>()) as f64);
    let (rows_i, width_i, code) = (rows as i64, int(OP, width)?, activation_code(activation));
    // SAFETY: the arguments of `bias_activation` in rows.cu; a null pointer stands for no bias.
    checked(unsafe {
        launch!(device, ROWS, name::<T>("bias_activation"), grid: (rows.div_ceil(2), 1), threads: threads,
            (x.as_view(), address(bias, device), rows_i, width_i, code))
    })
}

/// `x = LayerNorm(x + bias + residual)` over rows of the norm's width. `x` and `bias` start their
/// allocations; `residual_start` is where `residual` starts in its own, in bytes.
pub(super) fn add_norm<T: Float>(
    device: &CudaDevice,
    x: &mut CudaSlice<T>,
    residual: CudaView<T>,
    residual_start: usize,
    bias: Option<&CudaView<f32>>,
    norm: &LayerNorm,
) -> Result<()> {
    const OP: &str = "bias, residual and layer norm";
    let width = norm.width();
    let rows = x.len() / width;
    let parameters = NormParameters::of(norm);
    let (weight, norm_bias) = parameters.views(OP)?;
    let vector = vector(
        width,
        &[residual_start, parameters.weight_start(), parameters.bias_start()],
    );
    let (rows_i, width_i) = (rows as i64, int(OP, width)?);
    let _span = profile::span(OP, device, 0.0, 3.0 * (x.len() * size_of::<T>()) as f64);
    // SAFETY: the arguments of `add_norm` in rows.cu; a null pointer stands for no bias.
    checked(unsafe {
        launch!(device, ROWS, name::<T>("add_norm"), grid: (rows.div_ceil(WARPS), 1), threads: 32 * WARPS,
            (x.as_view(), residual, address(bias, device), rows_i, width_i, vector, weight, norm_bias, norm.eps()))
    })
}

/// A LayerNorm's parameters, locked for reading.
struct NormParameters<'a> {
    weight: Operand<'a>,
    bias: Operand<'a>,
}

impl<'a> NormParameters<'a> {
    fn of(norm: &'a LayerNorm) -> Self {
        Self {
            weight: Operand::of(norm.weight()),
            bias: Operand::of(norm.bias()),
        }
    }

    fn views(&self, op: &'static str) -> Result<(CudaView<'_, f32>, CudaView<'_, f32>)> {
        Ok((self.weight.view(op)?, self.bias.view(op)?))
    }

    fn weight_start(&self) -> usize {
        start::<f32>(self.weight.layout())
    }

    fn bias_start(&self) -> usize {
        start::<f32>(self.bias.layout())
    }
}
