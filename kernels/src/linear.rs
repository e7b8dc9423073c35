//! Linear layers, with what rides in their last pass: bias, activation, residual and LayerNorm.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor, bail};

use super::{Activation, LayerNorm, Precision, cpu, f32_slice};

/// `y = activation(x W^T + b)` with weights prepared once for the device they run on.
#[derive(Clone, Debug)]
pub struct Linear {
    in_features: usize,
    out_features: usize,
    weight: Weight,
}

/// What the rows of a layer's input are, which says how many there are in a full batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    Tokens,
    /// Texts, or pairs of them.
    Texts,
    /// Pairs that are fused at once, see [`super::Bilinear`].
    Pairs,
}

#[derive(Clone, Debug)]
enum Weight {
    Cpu(std::sync::Arc<cpu::PackedLinear>),
    #[cfg(feature = "cuda")]
    Cuda(super::cuda::DenseLinear),
}

impl Linear {
    /// [`Self::for_rows`] of tokens.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, precision: Precision, device: &Device) -> Result<Self> {
        Self::for_rows(RowKind::Tokens, weight, bias, precision, device)
    }

    /// `weight`: `[N, K]` as PyTorch stores it; `bias`: `[N]`. Any float dtype; both are converted
    /// as `precision` asks and moved to `device`. Errors where the device does not compute so. Any number of `rows` is
    /// multiplied; a GPU's way of doing it suits a full batch of them.
    pub fn for_rows(
        rows: RowKind,
        weight: &Tensor,
        bias: Option<&Tensor>,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        // The CPU's kernels do all alike.
        #[cfg(not(feature = "cuda"))]
        let _ = rows;
        let (out_features, in_features) = weight.dims2()?;
        if let Some(bias) = bias
            && bias.dims() != [out_features]
        {
            bail!(
                "linear: weight is [{out_features}, {in_features}], so the bias must be [{out_features}], found {:?}",
                bias.dims()
            )
        }
        let weight = match device {
            Device::Cpu => Weight::Cpu(std::sync::Arc::new(cpu::PackedLinear::new(weight, bias, precision)?)),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => Weight::Cuda(super::cuda::DenseLinear::new(
                rows,
                weight,
                bias,
                precision.hidden_dtype(device)?,
                device,
            )?),
            other => bail!("linear: no kernel for device {other:?}"),
        };
        Ok(Self {
            in_features,
            out_features,
            weight,
        })
    }

    /// A layer whose packed weights are already laid out for the CPU's kernel.
    pub fn from_packed(packed: cpu::PackedLinear) -> Self {
        Self {
            in_features: packed.in_features(),
            out_features: packed.out_features(),
            weight: Weight::Cpu(std::sync::Arc::new(packed)),
        }
    }

    /// The packed weights, on the CPU.
    pub fn packed(&self) -> Option<&std::sync::Arc<cpu::PackedLinear>> {
        match &self.weight {
            Weight::Cpu(packed) => Some(packed),
            #[cfg(feature = "cuda")]
            Weight::Cuda(_) => None,
        }
    }

    pub fn in_features(&self) -> usize {
        self.in_features
    }

    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// `x`: `[M, K]`. Returns `[M, N]`.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.check(x)?;
        match &self.weight {
            Weight::Cpu(packed) => x.contiguous()?.apply_op1_no_bwd(&CpuLinear { packed, activation }),
            #[cfg(feature = "cuda")]
            Weight::Cuda(dense) => dense.forward(x, activation),
        }
    }

    /// `LayerNorm(residual + x W^T + b)`, the end of both halves of a BERT layer.
    ///
    /// `x`: `[M, K]`; `residual`: `[M, N]`. Returns `[M, N]`.
    pub fn forward_add_norm(&self, x: &Tensor, residual: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        let rows = self.check(x)?;
        if residual.dims() != [rows, self.out_features] || norm.width() != self.out_features {
            bail!(
                "linear + residual + layer norm: expected residual [{rows}, {}] and a norm of width {0}, found {:?} and {}",
                self.out_features,
                residual.dims(),
                norm.width()
            )
        }
        match &self.weight {
            Weight::Cpu(packed) => x
                .contiguous()?
                .apply_op2_no_bwd(&residual.contiguous()?, &CpuLinearAddNorm { packed, norm }),
            #[cfg(feature = "cuda")]
            Weight::Cuda(dense) => dense.forward_add_norm(x, residual, norm),
        }
    }

    pub(super) fn check(&self, x: &Tensor) -> Result<usize> {
        match x.dims() {
            &[rows, width] if width == self.in_features => Ok(rows),
            found => bail!("linear: expected [M, {}], found {found:?}", self.in_features),
        }
    }
}

struct CpuLinear<'a> {
    packed: &'a cpu::PackedLinear,
    activation: Activation,
}

impl CustomOp1 for CpuLinear<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = f32_slice(self.name(), x, layout)?;
        let rows = x.len() / self.packed.in_features();
        let out = self.packed.forward(x, rows, self.activation);
        Ok((CpuStorage::F32(out), Shape::from((rows, self.packed.out_features()))))
    }
}

struct CpuLinearAddNorm<'a> {
    packed: &'a cpu::PackedLinear,
    norm: &'a LayerNorm,
}

impl CustomOp2 for CpuLinearAddNorm<'_> {
    fn name(&self) -> &'static str {
        "linear + residual + layer norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, residual: &CpuStorage, rl: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = f32_slice(self.name(), x, xl)?;
        let residual = f32_slice(self.name(), residual, rl)?;
        let rows = x.len() / self.packed.in_features();
        let forward = |norm: cpu::Norm| self.packed.forward_add_norm(x, rows, residual, norm);
        let out = self.norm.with_cpu_parameters(forward)?;
        Ok((CpuStorage::F32(out), Shape::from((rows, self.packed.out_features()))))
    }
}
