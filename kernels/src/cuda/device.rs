//! Opening a GPU, or saying in one line why there is none to open.
//!
//! cudarc panics when it cannot load a library, so each is looked for here first. The order of the
//! checks is the order of what a user can do about them: driver, its version, GPU, NVIDIA's
//! libraries, and only then candle.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::cuda_backend::cudarc::driver::{result, sys};
use candle_core::cuda_backend::{DeviceId, kernels};
use candle_core::{CudaDevice, Device};
use libloading::Library;
use thiserror::Error;

use super::forwarding::forward_to;
use super::launch::{self, checked};

/// Why there is no GPU to compute on.
#[derive(Debug, Error)]
pub enum CudaError {
    #[error("no NVIDIA driver: {reason}; install it, or use --device cpu")]
    NoDriver { reason: String },
    #[error("the NVIDIA driver cannot be used: {call} answers {code}{hint}")]
    Driver {
        call: &'static str,
        code: c_int,
        hint: &'static str,
    },
    #[error(
        "the NVIDIA driver supports CUDA {}.{}, this program was built with CUDA {}.{}: update the driver, or build \
         with an older toolkit",
        found.0, found.1, needed.0, needed.1
    )]
    DriverTooOld { found: (u32, u32), needed: (u32, u32) },
    #[error(
        "there is no CUDA device {ordinal}: the driver sees {count}, numbered from 0 (CUDA_VISIBLE_DEVICES can hide some)"
    )]
    NoDevice { ordinal: usize, count: usize },
    #[error("{gpu} has compute capability {}.{}, this program needs {}.{}{or_newer}{hint}", found.0, found.1, needed.0, needed.1)]
    UnfitGpu {
        gpu: String,
        found: (u32, u32),
        needed: (u32, u32),
        or_newer: &'static str,
        hint: &'static str,
    },
    #[error(
        "{library} cannot be loaded: {reason}; install the CUDA {toolkit} libraries, or add their folder to \
         LD_LIBRARY_PATH (beside PyTorch they are in site-packages/nvidia/*/lib)"
    )]
    MissingLibrary {
        library: String,
        reason: String,
        toolkit: u32,
    },
    #[error("CUDA device {ordinal} has too little free memory to start: {reason}")]
    OutOfMemory { ordinal: usize, reason: String },
    #[error("CUDA device {ordinal} cannot be opened: {reason}")]
    Open { ordinal: usize, reason: String },
    #[error("expected a CUDA device, found {0:?}")]
    NotCuda(Device),
}

impl CudaError {
    /// Whether the machine has no GPU at all, as far as can be told.
    pub fn is_absence(&self) -> bool {
        matches!(self, CudaError::NoDriver { .. } | CudaError::NoDevice { count: 0, .. })
    }
}

/// What a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    pub ordinal: usize,
    pub name: String,
    /// Bytes.
    pub memory_total: u64,
    /// Bytes, with what this process holds but does not use.
    pub memory_free: u64,
    pub compute_capability: (u32, u32),
    /// Newest CUDA that the driver supports.
    pub driver_version: (u32, u32),
}

/// Opens GPU number `ordinal`, with a stream of its own. Errors as [`CudaError`] says, never panics.
pub fn open(ordinal: usize) -> Result<Device, CudaError> {
    check(ordinal)?;
    let failed = |error: candle_core::Error| match is_out_of_memory(&error) {
        true => CudaError::OutOfMemory {
            ordinal,
            reason: one_line(&error),
        },
        false => CudaError::Open {
            ordinal,
            reason: one_line(&error),
        },
    };
    // not `Device::new_cuda`: that takes the per-thread default stream, so work of two host threads
    // would not be ordered and would share cuBLAS's workspace
    let device = Device::new_cuda_with_stream(ordinal).map_err(failed)?;
    let gpu = cuda(&device)?;
    keep(gpu);
    // SAFETY: there is one compute stream; `transfer::download` alone uses another, and only after
    // the host has waited for the compute stream.
    unsafe { gpu.disable_event_tracking() };
    keep_freed_memory(gpu).map_err(failed)?;
    // compiles the kernels now: a driver that cannot is told of here and not in the middle of a file
    for module in launch::ALL {
        gpu.get_or_load_custom_func(module.kernel, module.name, module.ptx)
            .map_err(failed)?;
    }
    // And those of candle that loading and scoring use: were two threads to ask for one first, candle would load it twice
    // and unload the copy that the other has just started a kernel of.
    for (module, kernel) in [(&kernels::CAST, "cast_f32_bf16"), (&kernels::FILL, "copy2d_f32")] {
        gpu.get_or_load_func(kernel, module).map_err(failed)?;
    }
    Ok(device)
}

/// Keeps an opened device for good: the destructors of cudarc's handles panic where a library answers with an error, and
/// of a GPU that was lost all do.
fn keep(gpu: &CudaDevice) {
    static OPENED: Mutex<Vec<CudaDevice>> = Mutex::new(Vec::new());
    OPENED.lock().unwrap_or_else(PoisonError::into_inner).push(gpu.clone());
}

/// Name, memory and versions of an open GPU.
pub fn describe(device: &Device) -> Result<GpuInfo, CudaError> {
    let gpu = cuda(device)?;
    let stream = gpu.cuda_stream();
    let context = stream.context();
    let ordinal = context.ordinal();
    let failed = |error| CudaError::Open {
        ordinal,
        reason: one_line(&error),
    };
    let (free, total) = checked(context.mem_get_info()).map_err(failed)?;
    let (major, minor) = checked(context.compute_capability()).map_err(failed)?;
    let mut version: c_int = 0;
    // SAFETY: the library is loaded, and the pointer is to a live integer.
    checked(unsafe { sys::cuDriverGetVersion(&mut version) }.result()).map_err(failed)?;
    Ok(GpuInfo {
        ordinal,
        name: checked(context.name()).map_err(failed)?,
        memory_total: total as u64,
        // The pool may give memory back between the two questions.
        memory_free: (free as u64 + unused(gpu).unwrap_or(0)).min(total as u64),
        compute_capability: (major as u32, minor as u32),
        driver_version: version_pair(version),
    })
}

/// Whether an operation failed for want of GPU memory, so that a smaller batch may go through.
pub fn is_out_of_memory(error: &candle_core::Error) -> bool {
    // candle boxes cudarc's errors, wraps them in context and backtraces; their names survive all
    let text = format!("{error:?}");
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"]
        .iter()
        .any(|name| text.contains(name))
}

/// Gives memory that is held but not used back to the driver, after waiting for the GPU: freed
/// buffers that are too small for the next batch may stand in its way.
pub fn release_unused(device: &Device) -> Result<(), CudaError> {
    let gpu = cuda(device)?;
    let stream = gpu.cuda_stream();
    let ordinal = stream.context().ordinal();
    let failed = |error| CudaError::Open {
        ordinal,
        reason: one_line(&error),
    };
    checked(stream.synchronize()).map_err(failed)?;
    match pool(gpu) {
        // SAFETY: the pool is the device's own, which lives as long as the context.
        Some(pool) => checked(unsafe { result::mem_pool::trim_to(pool, 0) }).map_err(failed),
        None => Ok(()),
    }
}

/// The stream on which results are copied to the host, one a device.
pub(super) fn copy_stream(device: &CudaDevice) -> candle_core::Result<Arc<CudaStream>> {
    static STREAMS: OnceLock<Mutex<HashMap<DeviceId, Arc<CudaStream>>>> = OnceLock::new();
    let mut streams = STREAMS
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(stream) = streams.get(&device.id()) {
        return Ok(stream.clone());
    }
    let stream = checked(device.cuda_stream().context().new_stream())?;
    streams.insert(device.id(), stream.clone());
    Ok(stream)
}

fn cuda(device: &Device) -> Result<&CudaDevice, CudaError> {
    match device {
        Device::Cuda(gpu) => Ok(gpu),
        other => Err(CudaError::NotCuda(other.clone())),
    }
}

/// By default the driver's pool returns freed memory to the system whenever the GPU is waited for,
/// and the next batch pays for getting it back.
fn keep_freed_memory(gpu: &CudaDevice) -> candle_core::Result<()> {
    let Some(pool) = pool(gpu) else { return Ok(()) };
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: this attribute is a 64-bit number, and the pointer is to one.
    checked(unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast()) })
}

/// Bytes in the pool that no buffer uses.
fn unused(gpu: &CudaDevice) -> Option<u64> {
    let pool = pool(gpu)?;
    let read = |attribute| {
        let mut value = 0u64;
        // SAFETY: both attributes asked for are 64-bit numbers, and the pointer is to one.
        unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut value).cast()) }.ok()?;
        Some(value)
    };
    let reserved = read(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    let used = read(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    Some(reserved.saturating_sub(used))
}

/// The memory pool that buffers come from; none on the few systems without pools.
fn pool(gpu: &CudaDevice) -> Option<sys::CUmemoryPool> {
    let stream = gpu.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return None;
    }
    // SAFETY: the device is the context's.
    unsafe { result::device::get_mem_pool(context.cu_device()) }.ok()
}

/// Whether GPU number `ordinal` can be opened, as far as can be told before memory is taken from it.
pub fn check(ordinal: usize) -> Result<(), CudaError> {
    let driver = load("libcuda.so.1").map_err(|reason| CudaError::NoDriver { reason })?;
    let (major, minor) = built_with();
    let version = version_pair(query(&driver, "cuDriverGetVersion", ordinal)?);
    if version < (major, minor) {
        return Err(CudaError::DriverTooOld {
            found: version,
            needed: (major, minor),
        });
    }
    initialise(&driver, ordinal)?;
    let count = query(&driver, "cuDeviceGetCount", ordinal)?.max(0) as usize;
    if ordinal >= count {
        return Err(CudaError::NoDevice { ordinal, count });
    }
    forward_to(driver);
    for library in libraries(major) {
        match load(&library) {
            Ok(loaded) => forward_to(loaded),
            Err(reason) => {
                return Err(CudaError::MissingLibrary {
                    library,
                    reason,
                    toolkit: major,
                });
            }
        }
    }
    check_capability(ordinal)
}

fn check_capability(ordinal: usize) -> Result<(), CudaError> {
    let failed = |reason: result::DriverError| CudaError::Open {
        ordinal,
        reason: format!("{reason}"),
    };
    let device = result::device::get(ordinal as c_int).map_err(failed)?;
    // SAFETY: `device` is a device that the driver has just named.
    let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) }.map_err(failed);
    let found = (
        attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32,
        attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32,
    );
    let named = COMPUTE_CAP.parse::<u32>().ok().map(|cap| (cap / 10, cap % 10));
    let needed = named.unwrap_or(OLDEST).max(OLDEST);
    // From 9.0 on candle's kernels are compiled for one architecture with all that only it has.
    let other = needed.0 >= 9 && found != needed;
    if found < needed || other {
        return Err(CudaError::UnfitGpu {
            gpu: result::device::get_name(device).unwrap_or_else(|_| format!("CUDA device {ordinal}")),
            found,
            needed,
            or_newer: if needed.0 >= 9 { "" } else { " or newer" },
            hint: match found < OLDEST {
                true => "",
                false => ": build with CUDA_COMPUTE_CAP set to this GPU's",
            },
        });
    }
    Ok(())
}

/// What `CUDA_COMPUTE_CAP` was when this was built, `90` for 9.0: candle's kernels are compiled for it. Empty where it was not set.
pub const COMPUTE_CAP: &str = env!("CRAG_CUDA_COMPUTE_CAP");

/// What the kernels of this folder are compiled for.
const OLDEST: (u32, u32) = (8, 0);

/// The toolkit that compiled the kernels.
fn built_with() -> (u32, u32) {
    let (major, minor) = env!("CRAG_CUDA_TOOLKIT").split_once('.').unwrap_or(("0", "0"));
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}

/// NVIDIA's libraries that candle calls, each after those that it needs.
fn libraries(major: u32) -> Vec<String> {
    vec![
        format!("libcublasLt.so.{major}"),
        format!("libcublas.so.{major}"),
        "libcurand.so.10".into(),
    ]
}

fn load(name: &str) -> Result<Library, String> {
    // SAFETY: NVIDIA's libraries may be initialised at any time, from any thread.
    unsafe { Library::new(name) }.map_err(|error| {
        // the loader's own words are in the source
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    })
}

/// Calls a driver function that answers one number through a pointer.
fn query(driver: &Library, call: &'static str, ordinal: usize) -> Result<c_int, CudaError> {
    let mut value: c_int = 0;
    // SAFETY: `call` is one of the driver functions with this signature.
    let code = unsafe {
        let function: libloading::Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> = symbol(driver, call)?;
        function(&mut value)
    };
    answered(call, code, ordinal).map(|()| value)
}

fn initialise(driver: &Library, ordinal: usize) -> Result<(), CudaError> {
    // SAFETY: `cuInit` takes flags, which must be 0.
    let code = unsafe {
        let function: libloading::Symbol<unsafe extern "C" fn(u32) -> c_int> = symbol(driver, "cuInit")?;
        function(0)
    };
    answered("cuInit", code, ordinal)
}

/// # Safety
/// `F` is the signature of the function.
unsafe fn symbol<'a, F>(driver: &'a Library, call: &'static str) -> Result<libloading::Symbol<'a, F>, CudaError> {
    // SAFETY: the caller's.
    unsafe { driver.get(call.as_bytes()) }.map_err(|error| CudaError::NoDriver {
        reason: format!("{call} is missing from the driver library: {error}"),
    })
}

fn answered(call: &'static str, code: c_int, ordinal: usize) -> Result<(), CudaError> {
    match code {
        0 => Ok(()),
        // CUDA_ERROR_NO_DEVICE
        100 => Err(CudaError::NoDevice { ordinal, count: 0 }),
        code => Err(CudaError::Driver {
            call,
            code,
            hint: match code {
                // CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
                803 => ": its kernel module and library are of different versions, restart the machine",
                // CUDA_ERROR_UNKNOWN, CUDA_ERROR_SYSTEM_NOT_READY
                999 | 802 => ": is the kernel module loaded and the device visible (nvidia-smi)",
                _ => "",
            },
        }),
    }
}

fn version_pair(version: c_int) -> (u32, u32) {
    let version = version.max(0) as u32;
    (version / 1000, version % 1000 / 10)
}

/// An error without candle's backtrace, which has a line for each frame.
fn one_line(error: &candle_core::Error) -> String {
    format!("{error}").lines().next().unwrap_or_default().to_string()
}
