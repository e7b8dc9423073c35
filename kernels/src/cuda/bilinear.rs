//! What a bilinear fusion does after its product, on the GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape, Tensor};

use super::launch::{BILINEAR, Operand, address, checked, int, launch, start, vector, view};
use super::{WARPS, profile};

/// `transformed`: `[N, outputs * F]`, `x1`: `[N, F]`, `bias`: `[outputs]`, all f32. Returns `[N, outputs]`: the inner product
/// of each `F` of `transformed` with its pair's `x1`, plus the bias.
pub fn inner_products(
    transformed: &CudaStorage,
    layout: &Layout,
    x1: &CudaStorage,
    x1_layout: &Layout,
    bias: Option<&Tensor>,
    outputs: usize,
) -> Result<(CudaStorage, Shape)> {
    const OP: &str = "bilinear";
    let (pairs, width) = x1_layout.shape().dims2()?;
    let results = pairs * outputs;
    let device = transformed.device();
    let transformed = view::<f32>(OP, transformed, layout)?;
    let x1 = view::<f32>(OP, x1, x1_layout)?;
    let bias = bias.map(Operand::of);
    let bias = bias.as_ref().map(|bias| bias.view::<f32>(OP)).transpose()?;
    let vector = vector(width, &[start::<f32>(layout), start::<f32>(x1_layout)]);
    // SAFETY: the kernel writes all results.
    let out = unsafe { device.alloc::<f32>(results)? };
    let _span = profile::span(OP, device, 0.0, (results * width * size_of::<f32>()) as f64);
    let (results_i, outputs_i, width_i) = (results as i64, int(OP, outputs)?, int(OP, width)?);
    // SAFETY: the arguments of `inner_products` in bilinear.cu; `Bilinear::forward` checked the shapes. A null pointer stands for
    // no bias.
    checked(unsafe {
        launch!(device, BILINEAR, "inner_products_f32", grid: (results.div_ceil(WARPS), 1), threads: 32 * WARPS,
            (transformed, x1, address(bias.as_ref(), device), out.as_view(), results_i, outputs_i, width_i, vector))
    })?;
    Ok((
        CudaStorage::wrap_cuda_slice(out, device.clone()),
        Shape::from((pairs, outputs)),
    ))
}
