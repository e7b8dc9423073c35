//! Moving a batch to the GPU and its results back without making one host thread wait for another.

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::{CudaDevice, CudaStorage, Device, Result, Shape, Storage, Tensor, WithDType, bail};

use super::launch::{checked, view};

/// A copy of less than 64 KiB from ordinary memory is taken over by the driver at once; a larger one
/// makes the host wait until the stream has come to it, behind all work that is queued.
const PIECE_BYTES: usize = 32 * 1024;

/// What the driver can copy and candle can hold.
pub trait Element: WithDType + CudaDType + DeviceRepr {}
impl<T: WithDType + CudaDType + DeviceRepr> Element for T {}

/// `[n]` on `device`; `values` may be dropped at once.
pub fn upload<T: Element>(values: &[T], device: &CudaDevice) -> Result<Tensor> {
    if values.is_empty() {
        return Tensor::zeros(0, T::DTYPE, &Device::Cuda(device.clone()));
    }
    // SAFETY: all of it is written below.
    let mut buffer = unsafe { device.alloc::<T>(values.len())? };
    let most = PIECE_BYTES / size_of::<T>();
    for (i, piece) in values.chunks(most).enumerate() {
        let start = i * most;
        device.memcpy_htod(piece, &mut buffer.slice_mut(start..start + piece.len()))?;
    }
    let storage = CudaStorage::wrap_cuda_slice(buffer, device.clone());
    Ok(Tensor::from_storage(
        Storage::Cuda(storage),
        Shape::from(values.len()),
        candle_core::op::BackpropOp::none(),
        false,
    ))
}

/// The elements of an f32 tensor. Waits for the work submitted before this call and for no other,
/// asleep: an event marks the place, and the copy runs on a stream of its own.
pub fn download(tensor: &Tensor) -> Result<Vec<f32>> {
    const OP: &str = "download";
    let tensor = tensor.contiguous()?;
    let Device::Cuda(device) = tensor.device() else {
        bail!("{OP}: the tensor is not on a GPU")
    };
    if tensor.elem_count() == 0 {
        return Ok(Vec::new());
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        bail!("{OP}: the tensor is not on a GPU")
    };
    let source = view::<f32>(OP, storage, layout)?;
    let compute = device.cuda_stream();
    let done = checked(compute.record_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC)))?;
    checked(done.synchronize())?;
    let copies = super::device::copy_stream(device)?;
    let mut values = vec![0f32; source.len()];
    checked(copies.memcpy_dtoh(&source, &mut values))?;
    checked(copies.synchronize())?;
    Ok(values)
}
