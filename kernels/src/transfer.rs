//! Token ids in, representations out: copies between the host and whatever device computes.

use candle_core::{DType, Device, Result, Tensor};

/// What is uploaded: token ids and representations.
#[cfg(feature = "cuda")]
pub trait Element: candle_core::WithDType + super::cuda::transfer::Element {}
#[cfg(not(feature = "cuda"))]
pub trait Element: candle_core::WithDType {}

impl Element for u32 {}
impl Element for f32 {}

/// `[n]` on `device`. On a GPU the copy does not wait for work that is queued there.
pub fn upload<T: Element>(values: &[T], device: &Device) -> Result<Tensor> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => super::cuda::transfer::upload(values, gpu),
        other => Tensor::from_slice(values, values.len(), other),
    }
}

/// All elements of `tensor` in row-major order, as f32. On a GPU this waits for the work that this
/// thread has submitted, and not for what other threads submit after it.
pub fn download(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.to_dtype(DType::F32)?;
    match tensor.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => super::cuda::transfer::download(&tensor),
        _ => tensor.flatten_all()?.to_vec1(),
    }
}
