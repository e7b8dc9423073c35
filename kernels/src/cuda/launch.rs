//! How a kernel of this folder is found, given its arguments and started.

use std::ops::Deref;

use candle_core::cuda_backend::cudarc::driver::{CudaView, DevicePtr as _, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Storage, Tensor, bail};
use half::{bf16, f16};

/// Where a kernel finds `values`; a null pointer stands for none. For work on the device's own stream, in whose order memory is
/// freed too.
pub(super) fn address<T>(values: Option<&CudaView<T>>, device: &CudaDevice) -> u64 {
    values.map_or(0, |values| values.device_ptr(&device.cuda_stream()).0)
}

/// One compiled `.cu` file. The driver compiles the PTX when the first of its kernels is asked for
/// and keeps the result with the device.
pub(super) struct Module {
    pub name: &'static str,
    pub ptx: &'static str,
    /// One of its kernels.
    pub kernel: &'static str,
}

/// All that there are.
pub(super) const ALL: [&Module; 5] = [&ATTENTION, &BILINEAR, &POOLING, &VIEWS, &ROWS];

pub(super) const ATTENTION: Module = Module {
    name: "crag_attention",
    ptx: include_str!(concat!(env!("OUT_DIR"), "/attention.ptx")),
    kernel: "attention_f32",
};
pub(super) const BILINEAR: Module = Module {
    name: "crag_bilinear",
    ptx: include_str!(concat!(env!("OUT_DIR"), "/bilinear.ptx")),
    kernel: "inner_products_f32",
};
pub(super) const POOLING: Module = Module {
    name: "crag_pooling",
    ptx: include_str!(concat!(env!("OUT_DIR"), "/pooling.ptx")),
    kernel: "pool_mean_f32",
};
pub(super) const VIEWS: Module = Module {
    name: "crag_views",
    ptx: include_str!(concat!(env!("OUT_DIR"), "/views.ptx")),
    kernel: "product_f32",
};
pub(super) const ROWS: Module = Module {
    name: "crag_rows",
    ptx: include_str!(concat!(env!("OUT_DIR"), "/rows.ptx")),
    kernel: "layer_norm_f32",
};

/// An element type of hidden states.
pub(super) trait Float: CudaDType + DeviceRepr + Send + Sync + 'static {
    /// The end of the kernels' names.
    const NAME: &'static str;
}

impl Float for f32 {
    const NAME: &'static str = "f32";
}
impl Float for bf16 {
    const NAME: &'static str = "bf16";
}
impl Float for f16 {
    const NAME: &'static str = "f16";
}

/// The elements of a contiguous GPU tensor.
pub(super) fn view<'a, T: CudaDType>(
    op: &'static str,
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) if end > start => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        Some(_) => bail!("{op}: an empty tensor has nothing to compute"),
        None => bail!("{op}: expected a contiguous tensor, found {layout:?}"),
    }
}

/// A tensor that an operation holds besides its inputs, locked for reading.
pub(super) struct Operand<'a> {
    /// The lock's guard; boxed because candle does not export its type.
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    layout: &'a Layout,
}

impl<'a> Operand<'a> {
    pub fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self {
            storage: Box::new(storage),
            layout,
        }
    }

    pub fn view<T: CudaDType>(&self, op: &'static str) -> Result<CudaView<'_, T>> {
        match &**self.storage {
            Storage::Cuda(storage) => view(op, storage, self.layout),
            _ => bail!("{op}: a parameter is on another device than the input"),
        }
    }

    pub fn layout(&self) -> &Layout {
        self.layout
    }
}

/// Allocations start at multiples of so many bytes, and cublasLt chooses algorithms for operands that do.
pub(super) const ALIGNMENT: usize = 256;

/// Whether rows of `width` elements that start at these offsets (in bytes) can be read in pieces of
/// eight elements; allocations themselves start at multiples of [`ALIGNMENT`].
pub(super) fn vector(width: usize, starts: &[usize]) -> i32 {
    i32::from(width.is_multiple_of(8) && starts.iter().all(|start| start.is_multiple_of(16)))
}

/// Where a view's first element lies in its allocation, in bytes.
pub(super) fn start<T>(layout: &Layout) -> usize {
    layout.start_offset() * size_of::<T>()
}

/// A size as the kernels take it.
pub(super) fn int(op: &'static str, n: usize) -> Result<i32> {
    match i32::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => bail!("{op}: {n} is more than a GPU kernel takes ({})", i32::MAX),
    }
}

/// Starts `function` on the device's stream. Grid sizes past the hardware's (2^31 - 1 blocks along
/// x, 65535 along y) are an error.
///
/// # Safety
/// The arguments are those of the kernel, in order: pointers as views of device memory, large
/// enough for the sizes given with them; i32, i64, u32 and f32 by value.
macro_rules! launch {
    ($device:expr, $module:expr, $function:expr, grid: $grid:expr, threads: $threads:expr, ($($argument:expr),+ $(,)?)) => {{
        use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
        let name = $function;
        let (x, y): (usize, usize) = $grid;
        if x > i32::MAX as usize || y > 65535 {
            candle_core::bail!("{name}: a grid of {x} x {y} blocks is more than a GPU takes: use smaller batches")
        }
        let function = $device.get_or_load_custom_func(&name, $module.name, $module.ptx)?;
        let mut builder = function.builder();
        $crate::cuda::launch::push!(builder, $($argument),+);
        let config = LaunchConfig {
            grid_dim: (x as u32, y as u32, 1),
            block_dim: ($threads as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        builder.launch(config).map(|_| ())
    }};
}

/// Each argument gets its own variable, since the builder keeps its address until the launch.
macro_rules! push {
    ($builder:ident, $($argument:expr),+) => {
        $(
            let argument = $argument;
            $builder.arg(&argument);
        )+
    };
}
pub(super) use {launch, push};

/// cudarc's errors as candle's.
pub(super) fn checked<T, E: Into<candle_core::cuda_backend::CudaError>>(
    result: std::result::Result<T, E>,
) -> Result<T> {
    result.w()
}

pub(super) fn name<T: Float>(kernel: &str) -> String {
    format!("{kernel}_{}", T::NAME)
}
