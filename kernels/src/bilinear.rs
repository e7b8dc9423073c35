//! Bilinear fusion of two representations, `nn.Bilinear`.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::{Activation, Linear, Precision, cpu, f32_slice};

/// `y_o = x1^T W_o x2 + b_o`.
#[derive(Clone, Debug)]
pub struct Bilinear {
    /// `[O F1, F2]`: row `o F1 + i` holds `W_o[i, :]`.
    weight: Linear,
    /// `[O]`, on the weight's device.
    bias: Option<Tensor>,
    /// The same on the host; zeros where there is none.
    host_bias: Vec<f32>,
    left_width: usize,
}

/// Pairs fused at once on a GPU, as many as a tile of the product has rows: the intermediate result is `O F` numbers a pair,
/// 256 kB at full size.
pub(super) const PAIRS_AT_ONCE: usize = 128;

impl Bilinear {
    /// `weight`: a layer without bias, `[O F1, F2]`, row `o F1 + i` being `W_o[i, :]`, on `device`; `bias`: `[O]`
    /// of any float dtype. Errors if the bias is not that long or the weight's rows are not so many for each output, and on int8.
    pub fn new(weight: Linear, bias: Option<&Tensor>, outputs: usize, device: &Device) -> Result<Self> {
        let rows = weight.out_features();
        let found = bias.map_or(vec![outputs], |bias| bias.dims().to_vec());
        if outputs == 0 || !rows.is_multiple_of(outputs) || found != [outputs] {
            bail!("bilinear: expected rows of {outputs} outputs and as many biases, found {rows} rows and {found:?}")
        }
        if weight
            .packed()
            .is_some_and(|packed| packed.precision() == Precision::Int8)
        {
            bail!("bilinear: expected weights in f32 or bf16, found int8")
        }
        let bias = bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
        Ok(Self {
            host_bias: bias.as_ref().map_or(Ok(vec![0.0; outputs]), |bias| bias.to_vec1())?,
            bias: bias.map(|bias| bias.to_device(device)).transpose()?,
            left_width: rows / outputs,
            weight,
        })
    }

    /// `x1`: `[N, F1]`; `x2`: `[N, F2]`. Returns `[N, O]`. On the CPU by the calling thread alone, and a row's
    /// bits do not depend on the other rows.
    pub fn forward(&self, x1: &Tensor, x2: &Tensor) -> Result<Tensor> {
        let (pairs, left_width) = x1.dims2()?;
        if left_width != self.left_width || x2.dims() != [pairs, self.weight.in_features()] {
            bail!(
                "bilinear: expected [N, {}] and [N, {}], found {:?} and {:?}",
                self.left_width,
                self.weight.in_features(),
                x1.dims(),
                x2.dims()
            )
        }
        match self.weight.packed() {
            Some(packed) => {
                let fuse = CpuBilinear {
                    packed,
                    bias: &self.host_bias,
                };
                x1.contiguous()?.apply_op2_no_bwd(&x2.contiguous()?, &fuse)
            }
            None => self.composed(x1, x2),
        }
    }

    /// On a GPU: `W_o x2` for all `o`, then the inner products with `x1`.
    fn composed(&self, x1: &Tensor, x2: &Tensor) -> Result<Tensor> {
        let (pairs, outputs) = (x1.dim(0)?, self.host_bias.len());
        let bias = self.bias.as_ref();
        let fuse = |start: usize| {
            let n = PAIRS_AT_ONCE.min(pairs - start);
            let transformed = self.weight.forward(&x2.narrow(0, start, n)?, Activation::Identity)?;
            let x1 = x1.narrow(0, start, n)?.contiguous()?;
            transformed.apply_op2_no_bwd(&x1, &InnerProducts { bias, outputs })
        };
        let parts: Result<Vec<Tensor>> = (0..pairs).step_by(PAIRS_AT_ONCE).map(fuse).collect();
        Tensor::cat(&parts?, 0)
    }
}

/// Of `transformed`, `[N, O F]`, and `x1`, `[N, F]`.
struct InnerProducts<'a> {
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "for a GPU"))]
    bias: Option<&'a Tensor>,
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "for a GPU"))]
    outputs: usize,
}

impl CustomOp2 for InnerProducts<'_> {
    fn name(&self) -> &'static str {
        "bilinear"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("bilinear: the weights are on a GPU, the input on the CPU")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        transformed: &CudaStorage,
        layout: &Layout,
        x1: &CudaStorage,
        x1_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        super::cuda::inner_products(transformed, layout, x1, x1_layout, self.bias, self.outputs)
    }
}

struct CpuBilinear<'a> {
    packed: &'a cpu::PackedLinear,
    bias: &'a [f32],
}

impl CustomOp2 for CpuBilinear<'_> {
    fn name(&self) -> &'static str {
        "bilinear"
    }

    fn cpu_fwd(&self, x1: &CpuStorage, l1: &Layout, x2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x1, x2) = (f32_slice(self.name(), x1, l1)?, f32_slice(self.name(), x2, l2)?);
        let rows = x2.len() / self.packed.in_features();
        let out = self.packed.bilinear(x1, x2, rows, self.bias);
        Ok((CpuStorage::F32(out), Shape::from((rows, self.bias.len()))))
    }
}
