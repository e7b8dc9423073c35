//! Device memory: how much is free, and what running out of it looks like.
//!
//! The host's memory is the operating system's business; only GPUs answer here.

use candle_core::{Device, Error};

/// Bytes that new buffers on `device` may take, where the device can tell.
pub fn free_bytes(device: &Device) -> Option<u64> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => super::cuda::device::describe(device).ok().map(|gpu| gpu.memory_free),
        _ => None,
    }
}

/// Whether an operation failed for want of device memory, so that a smaller batch may go through.
pub fn is_out_of_memory(error: &Error) -> bool {
    #[cfg(feature = "cuda")]
    return super::cuda::device::is_out_of_memory(error);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = error;
        false
    }
}

/// Gives memory that is held for reuse back to the device: pieces too small for the next buffer may
/// stand in its way.
pub fn release_unused(device: &Device) {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        // A failure shows again, with its reason, in the operation that needs the memory.
        let _ = super::cuda::device::release_unused(device);
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}
