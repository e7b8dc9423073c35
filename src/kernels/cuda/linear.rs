//! Linear layers on the GPU: a product by cuBLAS, then one pass for what rides on it.
//!
//! The weight stays `[N, K]`, as PyTorch stores it: cuBLAS reads it transposed. bf16 and f16
//! products accumulate in f32 and go through cublasLt, which can add the bias before the result is
//! rounded; its fused GELU is the tanh form, so an activation is a pass of its own. f32 products
//! are plain f32 (`cublasSgemm`), never TF32.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm, GemmConfig};
use candle_core::cuda_backend::cudarc::cublaslt::result::CublasError as LtError;
use candle_core::cuda_backend::cudarc::cublaslt::sys::cublasStatus_t;
use candle_core::cuda_backend::cudarc::cublaslt::{CudaBlasLT, Matmul, MatmulConfig};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail,
};
use half::{bf16, f16};

use super::launch::{Float, Operand, checked, int, start, view};
use super::rows::{add_norm, bias_activation};
use super::{for_float, profile};
use crate::kernels::{Activation, LayerNorm};

/// Weight and bias of one layer on a GPU.
#[derive(Clone, Debug)]
pub struct DenseLinear {
    weight: Tensor,
    /// f32, for the passes after the product.
    bias: Option<Tensor>,
    /// The same in the weight's type, for cublasLt.
    product_bias: Option<Tensor>,
}

impl DenseLinear {
    /// `weight`: `[N, K]`; `bias`: `[N]`; any float dtype, converted to `dtype` (f32, bf16 or f16)
    /// and moved to `device`.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, dtype: DType, device: &Device) -> Result<Self> {
        let own = |t: &Tensor, dtype: DType| -> Result<Tensor> {
            let t = t.to_device(device)?.to_dtype(dtype)?.contiguous()?;
            // cuBLAS and 16-byte reads want the start of an allocation
            if t.layout().start_offset() == 0 {
                Ok(t)
            } else {
                t.copy()
            }
        };
        Ok(Self {
            weight: own(weight, dtype)?,
            bias: bias.map(|bias| own(bias, DType::F32)).transpose()?,
            product_bias: bias.map(|bias| own(bias, dtype)).transpose()?,
        })
    }

    /// `x`: `[M, K]` in the weight's dtype. Returns `activation(x W^T + b)`, `[M, N]`.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        x.contiguous()?.apply_op1_no_bwd(&Forward {
            linear: self,
            activation,
        })
    }

    /// `x`: `[M, K]`, `residual`: `[M, N]`, both in the weight's dtype. Returns
    /// `LayerNorm(residual + x W^T + b)`, `[M, N]`.
    pub fn forward_add_norm(&self, x: &Tensor, residual: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        x.contiguous()?
            .apply_op2_no_bwd(&residual.contiguous()?, &ForwardAddNorm { linear: self, norm })
    }

    fn check(&self, op: &'static str, found: DType) -> Result<DType> {
        match self.weight.dtype() {
            expected if expected == found => Ok(found),
            expected => bail!("{op}: the layer computes in {expected:?}, its input is {found:?}"),
        }
    }
}

struct Forward<'a> {
    linear: &'a DenseLinear,
    activation: Activation,
}

impl CustomOp1 for Forward<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("linear: the weights are on a GPU, the input on the CPU")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let dtype = self.linear.check(self.name(), x.dtype())?;
        for_float!(self.name(), dtype, forward_of(self.linear, x, layout, self.activation))
    }
}

fn forward_of<T: Multiply>(
    linear: &DenseLinear,
    x: &CudaStorage,
    layout: &Layout,
    activation: Activation,
) -> Result<(CudaStorage, Shape)> {
    let device = x.device();
    let fuse_bias = activation == Activation::Identity;
    let (mut out, shape, bias_added) = product::<T>(linear, x, layout, fuse_bias)?;
    let bias = linear.bias.as_ref().filter(|_| !bias_added).map(Operand::of);
    if bias.is_some() || activation != Activation::Identity {
        let bias = bias.as_ref().map(|bias| bias.view::<f32>("linear")).transpose()?;
        bias_activation(device, &mut out, bias.as_ref(), linear.weight.dim(0)?, activation)?;
    }
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
}

struct ForwardAddNorm<'a> {
    linear: &'a DenseLinear,
    norm: &'a LayerNorm,
}

impl CustomOp2 for ForwardAddNorm<'_> {
    fn name(&self) -> &'static str {
        "linear + residual + layer norm"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("linear: the weights are on a GPU, the input on the CPU")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        residual: &CudaStorage,
        residual_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let dtype = self.linear.check(self.name(), x.dtype())?;
        self.linear.check(self.name(), residual.dtype())?;
        for_float!(
            self.name(),
            dtype,
            forward_add_norm_of(self.linear, x, layout, residual, residual_layout, self.norm)
        )
    }
}

fn forward_add_norm_of<T: Multiply>(
    linear: &DenseLinear,
    x: &CudaStorage,
    layout: &Layout,
    residual: &CudaStorage,
    residual_layout: &Layout,
    norm: &LayerNorm,
) -> Result<(CudaStorage, Shape)> {
    const OP: &str = "linear + residual + layer norm";
    let device = x.device();
    let (mut out, shape, _) = product::<T>(linear, x, layout, false)?;
    let bias = linear.bias.as_ref().map(Operand::of);
    let bias = bias.as_ref().map(|bias| bias.view::<f32>(OP)).transpose()?;
    let start = start::<T>(residual_layout);
    let residual = view::<T>(OP, residual, residual_layout)?;
    add_norm(device, &mut out, residual, start, bias.as_ref(), norm)?;
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
}

/// `x W^T`, `[M, N]`, with the bias where `fuse_bias` asks for it and the library can: whether it
/// was added is the last of what is returned.
fn product<T: Multiply>(
    linear: &DenseLinear,
    x: &CudaStorage,
    layout: &Layout,
    fuse_bias: bool,
) -> Result<(CudaSlice<T>, Shape, bool)> {
    const OP: &str = "linear";
    let (rows, in_features) = layout.shape().dims2()?;
    let out_features = linear.weight.dim(0)?;
    let device = x.device();
    let x_view = view::<T>(OP, x, layout)?;
    let weight = Operand::of(&linear.weight);
    let weight = weight.view::<T>(OP)?;
    let bias = linear.product_bias.as_ref().filter(|_| fuse_bias).map(Operand::of);
    let bias = bias.as_ref().map(|bias| bias.view::<T>(OP)).transpose()?;
    let sizes = Sizes {
        m: int(OP, rows)?,
        n: int(OP, out_features)?,
        k: int(OP, in_features)?,
    };
    // SAFETY: the product writes all M * N elements.
    let mut out = unsafe { device.alloc::<T>(rows * out_features)? };
    let flops = 2.0 * rows as f64 * out_features as f64 * in_features as f64;
    let moved = (rows * (in_features + out_features) + in_features * out_features) * size_of::<T>();
    let _span = profile::span("products", device, flops, moved as f64);
    let at_start = layout.start_offset() == 0;
    let bias_added = T::multiply(device, sizes, &x_view, &weight, bias.as_ref(), at_start, &mut out)?;
    Ok((out, Shape::from((rows, out_features)), bias_added))
}

/// `out[m, n] = x[m, k] weight[n, k]^T`, all row-major.
#[derive(Clone, Copy)]
struct Sizes {
    m: i32,
    n: i32,
    k: i32,
}

/// How a type is multiplied.
trait Multiply: Float {
    /// Returns whether the bias was added. `at_start`: `x` begins its allocation, as the alignment
    /// that cublasLt assumes (256 bytes) wants; weight and bias always do.
    fn multiply(
        device: &CudaDevice,
        sizes: Sizes,
        x: &CudaView<Self>,
        weight: &CudaView<Self>,
        bias: Option<&CudaView<Self>>,
        at_start: bool,
        out: &mut CudaSlice<Self>,
    ) -> Result<bool>;
}

impl Multiply for f32 {
    fn multiply(
        device: &CudaDevice,
        sizes: Sizes,
        x: &CudaView<f32>,
        weight: &CudaView<f32>,
        _: Option<&CudaView<f32>>,
        _: bool,
        out: &mut CudaSlice<f32>,
    ) -> Result<bool> {
        gemm(device, sizes, x, weight, out, (1.0, 0.0)).map(|()| false)
    }
}

impl Multiply for bf16 {
    fn multiply(
        device: &CudaDevice,
        sizes: Sizes,
        x: &CudaView<bf16>,
        weight: &CudaView<bf16>,
        bias: Option<&CudaView<bf16>>,
        at_start: bool,
        out: &mut CudaSlice<bf16>,
    ) -> Result<bool> {
        match lt_multiply(device, sizes, x, weight, bias, at_start, out)? {
            true => Ok(bias.is_some()),
            false => gemm(device, sizes, x, weight, out, (bf16::ONE, bf16::ZERO)).map(|()| false),
        }
    }
}

impl Multiply for f16 {
    fn multiply(
        device: &CudaDevice,
        sizes: Sizes,
        x: &CudaView<f16>,
        weight: &CudaView<f16>,
        bias: Option<&CudaView<f16>>,
        at_start: bool,
        out: &mut CudaSlice<f16>,
    ) -> Result<bool> {
        match lt_multiply(device, sizes, x, weight, bias, at_start, out)? {
            true => Ok(bias.is_some()),
            false => gemm(device, sizes, x, weight, out, (f16::ONE, f16::ZERO)).map(|()| false),
        }
    }
}

/// By cuBLAS, which is column-major: `out^T [N, M] = weight [N, K] x^T [K, M]`, `weight` stored
/// transposed.
fn gemm<T: Float>(
    device: &CudaDevice,
    sizes: Sizes,
    x: &CudaView<T>,
    weight: &CudaView<T>,
    out: &mut CudaSlice<T>,
    (alpha, beta): (T, T),
) -> Result<()>
where
    CudaBlas: Gemm<T>,
{
    let config = GemmConfig {
        transa: cublasOperation_t::CUBLAS_OP_T,
        transb: cublasOperation_t::CUBLAS_OP_N,
        m: sizes.n,
        n: sizes.m,
        k: sizes.k,
        alpha,
        lda: sizes.k,
        ldb: sizes.k,
        beta,
        ldc: sizes.n,
    };
    // SAFETY: the views hold N * K and M * K elements and `out` M * N: `product` sized them.
    checked(unsafe { device.cublas_handle().gemm(config, weight, x, out) })
}

/// By cublasLt; false where it has no algorithm for the sizes, or may not be asked.
fn lt_multiply<T: Float>(
    device: &CudaDevice,
    sizes: Sizes,
    x: &CudaView<T>,
    weight: &CudaView<T>,
    bias: Option<&CudaView<T>>,
    at_start: bool,
    out: &mut CudaSlice<T>,
) -> Result<bool>
where
    CudaBlasLT: Matmul<T>,
{
    // rows of 16 bytes, or its kernels are slow or missing
    if !at_start || sizes.k % 8 != 0 || sizes.n % 8 != 0 || !lt_wanted() {
        return Ok(false);
    }
    let lt = lt_handle(device)?;
    let config = MatmulConfig {
        transa: true,
        transb: false,
        transc: false,
        m: sizes.n as u64,
        n: sizes.m as u64,
        k: sizes.k as u64,
        alpha: 1.0,
        lda: sizes.k.into(),
        ldb: sizes.k.into(),
        beta: 0.0,
        ldc: sizes.n.into(),
        stride_a: None,
        stride_b: None,
        stride_c: None,
        stride_bias: None,
        batch_size: None,
    };
    // SAFETY: as in `gemm`; the bias has N elements. The context is current on this thread since
    // `product` has just allocated `out` from it.
    match unsafe { lt.matmul(config, weight, x, out, bias, None) } {
        Ok(()) => Ok(true),
        Err(LtError(cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => Ok(false),
        Err(error) => bail!(
            "linear: cublasLt failed on [{}, {}] x [{1}, {}]: {error}",
            sizes.m,
            sizes.k,
            sizes.n
        ),
    }
}

/// `CRAG_CUDA_LT=0` sends every product through cuBLAS proper, to compare the two.
fn lt_wanted() -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    *WANTED.get_or_init(|| std::env::var_os("CRAG_CUDA_LT").is_none_or(|value| value != "0"))
}

/// One handle, with its workspace, for each device that was opened. Threads share it: its calls
/// are thread-safe, and the workspace is only used by work on the device's one stream.
fn lt_handle(device: &CudaDevice) -> Result<Arc<CudaBlasLT>> {
    static HANDLES: OnceLock<Mutex<HashMap<candle_core::cuda_backend::DeviceId, Arc<CudaBlasLT>>>> = OnceLock::new();
    let handles = HANDLES.get_or_init(Mutex::default);
    let mut handles = handles.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = handles.get(&device.id()) {
        return Ok(handle.clone());
    }
    // cudarc panics where the workspace (32 MiB at most) cannot be had, so see that it can
    // SAFETY: never read.
    drop(unsafe { device.alloc::<u8>(32 << 20)? });
    match CudaBlasLT::new(device.cuda_stream()) {
        Ok(handle) => {
            let handle = Arc::new(handle);
            handles.insert(device.id(), handle.clone());
            Ok(handle)
        }
        Err(error) => bail!("linear: cublasLt cannot be started: {error}"),
    }
}
