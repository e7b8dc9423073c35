//! Memory: how much of a device's is free, what running out of it looks like, and what becomes of freed buffers.

use candle_core::{Device, Error};

/// Bytes that new buffers on `device` may take, where the device can tell.
pub fn free_bytes(device: &Device) -> Option<u64> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => super::cuda::device::describe(device).ok().map(|gpu| gpu.memory_free),
        _ => None,
    }
}

/// Bytes of the host's memory, where the system can tell.
pub fn host_bytes() -> Option<u64> {
    // SAFETY: sysconf only looks numbers up.
    let [pages, size] = [libc::_SC_PHYS_PAGES, libc::_SC_PAGESIZE].map(|name| unsafe { libc::sysconf(name) });
    u64::try_from(pages).ok()?.checked_mul(u64::try_from(size).ok()?)
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

/// Has the host's allocator keep buffers of hidden states for the next layer: some megabytes come and go with each
/// operation, and giving their pages back and faulting them in again took 3% of an int8 run. For the whole process;
/// does nothing where the allocator is not glibc's.
///
/// # Safety
/// The process must have no other thread yet: glibc changes these settings without a lock.
pub unsafe fn keep_freed_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The most that glibc takes: larger buffers, such as embeddings being loaded, are given back at once.
        const MAPPED_ALONE: libc::c_int = 32 << 20;
        /// Free memory at the end of a thread's heap above which it is given back.
        const KEPT: libc::c_int = 64 << 20;
        // SAFETY: sets two numbers of the allocator's, which every libc::malloc reads; the caller has no other threads.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_ALONE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    }
}

/// Has all threads allocate from one heap where the process's addresses are limited (`ulimit -v`, and queues of clusters that set
/// it): each further heap asks for 64 MiB of them, and where there are none a thread without a heap of its own asks again at each
/// allocation, with which a run takes ten times as long. Does nothing where the allocator is not glibc's.
///
/// # Safety
/// The process must have no other thread yet: glibc changes these settings without a lock.
pub unsafe fn share_heap_if_addresses_are_limited() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let mut limit = libc::rlimit {
            rlim_cur: libc::RLIM_INFINITY,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the first writes to `limit`, a place for one; the second sets a number of the allocator's, and the caller has
        // no other threads.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) == 0 && limit.rlim_cur != libc::RLIM_INFINITY {
                libc::mallopt(libc::M_ARENA_MAX, 1);
            }
        }
    }
}

/// Gives pages of the host's allocator that nothing lies on back to the system. Blocks that one thread allocates and
/// another frees leave holes in the heaps of both, and heaps with holes grow: by a tenth in the first quarter of an hour
/// of a run. Takes some milliseconds; does nothing where the allocator is not glibc's.
pub fn give_back_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: takes the allocator's own locks, heap by heap, and touches only what is free.
        unsafe { libc::malloc_trim(0) };
    }
}
