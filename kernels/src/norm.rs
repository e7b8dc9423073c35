//! Layer normalisation over the last dimension (Ba et al., arXiv:1607.06450).

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::{Activation, cpu, f32_slice};

/// Weight, bias and epsilon of one LayerNorm; statistics are always taken in f32 or wider.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// `weight`, `bias`: `[N]`, any float dtype; kept as f32 on `device`. Errors if they are not equally long.
    pub fn new(weight: &Tensor, bias: &Tensor, eps: f64, device: &Device) -> Result<Self> {
        let width = weight.dims1()?;
        if bias.dims() != [width] {
            bail!(
                "layer norm: weight is [{width}], so the bias must be [{width}], found {:?}",
                bias.dims()
            )
        }
        let prepare = |t: &Tensor| t.to_device(device)?.to_dtype(DType::F32)?.contiguous();
        Ok(Self {
            weight: prepare(weight)?,
            bias: prepare(bias)?,
            eps: eps as f32,
        })
    }

    pub fn width(&self) -> usize {
        self.weight.elem_count()
    }

    pub fn eps(&self) -> f32 {
        self.eps
    }

    /// `[N]`, f32, on the device given to [`Self::new`].
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `[N]`, f32, on the device given to [`Self::new`].
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// `activation(LayerNorm(x))` for `x`: `[M, N]`. Returns `[M, N]`.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let (_, width) = x.dims2()?;
        if width != self.width() {
            bail!("layer norm: expected [M, {}], found {:?}", self.width(), x.dims())
        }
        x.contiguous()?.apply_op1_no_bwd(&Forward { norm: self, activation })
    }

    /// Calls `f` with the parameters, which must be on the CPU.
    pub(crate) fn with_cpu_parameters<R>(&self, f: impl FnOnce(cpu::Norm) -> R) -> Result<R> {
        let (weight, weight_layout) = self.weight.storage_and_layout();
        let (bias, bias_layout) = self.bias.storage_and_layout();
        match (&*weight, &*bias) {
            (candle_core::Storage::Cpu(w), candle_core::Storage::Cpu(b)) => Ok(f(cpu::Norm {
                weight: f32_slice("layer norm", w, weight_layout)?,
                bias: f32_slice("layer norm", b, bias_layout)?,
                eps: self.eps,
            })),
            _ => bail!("layer norm: its parameters are on another device than its input"),
        }
    }
}

struct Forward<'a> {
    norm: &'a LayerNorm,
    activation: Activation,
}

impl CustomOp1 for Forward<'_> {
    fn name(&self) -> &'static str {
        "layer norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = f32_slice(self.name(), x, layout)?;
        let out = self
            .norm
            .with_cpu_parameters(|norm| cpu::layer_norm(x, norm, self.activation))?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &candle_core::CudaStorage, layout: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::layer_norm(x, layout, self.norm, self.activation)
    }
}
