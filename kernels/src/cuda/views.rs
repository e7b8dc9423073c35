//! What the classifier sees of a pair besides its parts, on the GPU. candle has both operations, in modules of which
//! the driver compiles hundreds of kernels at the first start, some seconds long.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape};

use super::launch::{VIEWS, checked, launch, view};
use super::profile;
use crate::views::Pairwise;

const THREADS: usize = 256;

/// `a` and `b`: f32, contiguous, of one shape.
pub fn pairwise(
    a: &CudaStorage,
    a_layout: &Layout,
    b: &CudaStorage,
    b_layout: &Layout,
    operation: Pairwise,
) -> Result<(CudaStorage, Shape)> {
    const OP: &str = "views";
    let device = a.device();
    let count = a_layout.shape().elem_count();
    let (a, b) = (view::<f32>(OP, a, a_layout)?, view::<f32>(OP, b, b_layout)?);
    // SAFETY: the kernels write all elements.
    let out = unsafe { device.alloc::<f32>(count)? };
    let _span = profile::span(OP, device, 0.0, (3 * count * size_of::<f32>()) as f64);
    let kernel = match operation {
        Pairwise::Product => "product_f32",
        Pairwise::AbsDiff => "abs_diff_f32",
    };
    // SAFETY: the arguments of both kernels in views.cu; the caller has seen that the shapes are equal.
    checked(unsafe {
        launch!(device, VIEWS, kernel, grid: (count.div_ceil(THREADS), 1), threads: THREADS,
            (a, b, out.as_view(), count as i64))
    })?;
    let shape = a_layout.shape().clone();
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
}
