//! Linear layers on the GPU: a product, then one pass for what rides on it.
//!
//! The weight stays `[N, K]`, as PyTorch stores it; [`super::product`] reads it transposed. The product can add the bias before
//! the result is rounded; its library's GELU is the tanh form, so an activation is a pass of its own.

use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail,
};

use super::cublas_lt::Sizes;
use super::launch::{ALIGNMENT, Operand, start, view};
use super::product::{Multiply, Plan};
use super::rows::{add_norm, bias_activation};
use super::{for_float, profile};
use crate::{Activation, LayerNorm, RowKind};

/// Weight and bias of one layer on a GPU.
#[derive(Clone, Debug)]
pub struct DenseLinear {
    weight: Tensor,
    /// f32, for the passes after the product.
    bias: Option<Tensor>,
    /// The same in the weight's type, for the product.
    product_bias: Option<Tensor>,
    /// How to multiply, without the bias and with it; none where cuBLAS proper has to. They hold the biases' addresses, and go
    /// with the biases.
    plans: Arc<[OnceLock<Option<Plan>>; 2]>,
    rows: RowKind,
}

impl DenseLinear {
    /// `weight`: `[N, K]`; `bias`: `[N]`; any float dtype, converted to `dtype` (f32, bf16 or f16)
    /// and moved to `device`.
    pub fn new(rows: RowKind, weight: &Tensor, bias: Option<&Tensor>, dtype: DType, device: &Device) -> Result<Self> {
        // A view's elements alone go to the device, not all that it is cut from.
        let own = |t: &Tensor, dtype: DType| -> Result<Tensor> {
            let t = t.contiguous()?;
            let t = if t.layout().start_offset() == 0 {
                t
            } else {
                t.force_contiguous()?
            };
            t.to_device(device)?.to_dtype(dtype)
        };
        Ok(Self {
            weight: own(weight, dtype)?,
            bias: bias.map(|bias| own(bias, DType::F32)).transpose()?,
            product_bias: bias.map(|bias| own(bias, dtype)).transpose()?,
            plans: Arc::default(),
            rows,
        })
    }

    /// `x`: `[M, K]` in the weight's dtype. Returns `activation(x W^T + b)`, `[M, N]`.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        aligned(&x.contiguous()?)?.apply_op1_no_bwd(&Forward {
            linear: self,
            activation,
        })
    }

    /// `x`: `[M, K]`, `residual`: `[M, N]`, both in the weight's dtype. Returns
    /// `LayerNorm(residual + x W^T + b)`, `[M, N]`.
    pub fn forward_add_norm(&self, x: &Tensor, residual: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        aligned(&x.contiguous()?)?.apply_op2_no_bwd(&residual.contiguous()?, &ForwardAddNorm { linear: self, norm })
    }

    fn plan<T: Multiply>(&self, device: &CudaDevice, sizes: Sizes, with_bias: bool) -> Result<Option<&Plan>> {
        let plan = &self.plans[usize::from(with_bias)];
        if let Some(plan) = plan.get() {
            return Ok(plan.as_ref());
        }
        let bias = self.product_bias.as_ref().filter(|_| with_bias).map(Operand::of);
        let bias = bias.as_ref().map(|bias| bias.view::<T>(OP)).transpose()?;
        let new = Plan::new(device, sizes, bias.as_ref(), self.rows)?;
        // Another thread may have been faster; its plan is the same.
        Ok(plan.get_or_init(|| new).as_ref())
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

const OP: &str = "linear";

/// `x W^T`, `[M, N]`, with the bias where `fuse_bias` asks for it and the library can: whether it
/// was added is the last of what is returned.
fn product<T: Multiply>(
    linear: &DenseLinear,
    x: &CudaStorage,
    layout: &Layout,
    fuse_bias: bool,
) -> Result<(CudaSlice<T>, Shape, bool)> {
    let (rows, found) = layout.shape().dims2()?;
    let (out_features, in_features) = linear.weight.dims2()?;
    if found != in_features {
        bail!("{OP}: the layer takes rows of {in_features}, its input has rows of {found}")
    }
    let device = x.device();
    debug_assert!(start::<T>(layout).is_multiple_of(ALIGNMENT));
    let x = view::<T>(OP, x, layout)?;
    let weight = Operand::of(&linear.weight);
    let weight = weight.view::<T>(OP)?;
    let sizes = Sizes {
        out_features,
        in_features,
    };
    let with_bias = fuse_bias && linear.product_bias.is_some();
    // SAFETY: the product writes all M * N elements.
    let mut out = unsafe { device.alloc::<T>(rows * out_features)? };
    // The allocation has made the device's context this thread's, which a new plan needs too.
    let plan = linear.plan::<T>(device, sizes, with_bias)?;
    let flops = 2.0 * rows as f64 * out_features as f64 * in_features as f64;
    let moved = (rows * (in_features + out_features) + in_features * out_features) * size_of::<T>();
    let _span = profile::span(T::PRODUCTS, device, flops, moved as f64);
    let multiplied = match plan {
        Some(plan) => plan.multiply(device, rows, &x, &weight, &mut out)?,
        None => false,
    };
    if !multiplied {
        T::gemm(device, sizes, rows, &x, &weight, &mut out)?;
    }
    Ok((out, Shape::from((rows, out_features)), multiplied && with_bias))
}

/// A contiguous tensor at an address that the products and 16-byte reads want.
fn aligned(tensor: &Tensor) -> Result<Tensor> {
    let start = tensor.layout().start_offset() * tensor.dtype().size_in_bytes();
    match start.is_multiple_of(ALIGNMENT) {
        true => Ok(tensor.clone()),
        false => tensor.force_contiguous(),
    }
}
