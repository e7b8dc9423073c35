//! The product of a linear layer, `x W^T`, by cublasLt and, of each layer, by one algorithm.
//!
//! Left to itself cuBLAS takes an algorithm by the number of rows, and two algorithms add up in different orders: the last
//! digits of a text's score would hang on what else is in its batch, and so on how the lines came in. Here a
//! layer asks once for the best algorithm over a full batch, among those that do not split a sum between blocks
//! (split-K) and that take any number of rows, and keeps to it. Every row of a result is then computed alike, whatever
//! the other rows are.
//!
//! Sums are f32, of f32 operands too: never TF32. Where cublasLt has no such algorithm (16-bit rows that are no multiple of
//! 16 bytes), cuBLAS proper takes the layer; [`super::refused_products`] says where that was.

use std::ffi::c_void;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm, GemmConfig};
use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError as LtError};
use candle_core::cuda_backend::cudarc::cublaslt::sys::{cublasLtMatmulAlgo_t, cublasStatus_t, cudaDataType_t};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut};
use candle_core::{CudaDevice, Result, bail};
use half::{bf16, f16};

use super::choices::{Wanted, chosen, refused, wanted};
use super::cublas_lt::{Description, Layouts, Library, Preferences, Sizes, Sums, WORKSPACE, candidates, is_supported};
use super::launch::{Float, checked, int};
use crate::RowKind;
use crate::bilinear::PAIRS_AT_ONCE;

/// How many rows there are in a batch that fills a large GPU, for which an algorithm is chosen: texts have some forty
/// tokens.
fn full_batch(rows: RowKind) -> u64 {
    match rows {
        RowKind::Tokens => 16_384,
        RowKind::Texts => 400,
        RowKind::Pairs => PAIRS_AT_ONCE as u64,
    }
}

/// A type that is multiplied.
pub(super) trait Multiply: Float {
    const MATRIX: cudaDataType_t;
    /// In profiles.
    const PRODUCTS: &'static str;

    /// By cuBLAS proper. The slices hold as many elements as `sizes` and `rows` say.
    fn gemm(
        device: &CudaDevice,
        sizes: Sizes,
        rows: usize,
        x: &CudaView<Self>,
        weight: &CudaView<Self>,
        out: &mut CudaSlice<Self>,
    ) -> Result<()>;
}

macro_rules! multiply {
    ($type:ty, $matrix:ident, $products:literal, $one:expr, $zero:expr) => {
        impl Multiply for $type {
            const MATRIX: cudaDataType_t = cudaDataType_t::$matrix;
            const PRODUCTS: &'static str = $products;

            fn gemm(
                device: &CudaDevice,
                sizes: Sizes,
                rows: usize,
                x: &CudaView<Self>,
                weight: &CudaView<Self>,
                out: &mut CudaSlice<Self>,
            ) -> Result<()> {
                gemm(device, sizes, rows, x, weight, out, ($one, $zero))
            }
        }
    };
}
multiply!(f32, CUDA_R_32F, "products f32", 1.0, 0.0);
multiply!(bf16, CUDA_R_16BF, "products bf16", bf16::ONE, bf16::ZERO);
multiply!(f16, CUDA_R_16F, "products f16", f16::ONE, f16::ZERO);

/// cuBLAS is column-major: `out^T [N, M] = weight [N, K] x^T [K, M]`, `weight` stored transposed.
fn gemm<T: Float>(
    device: &CudaDevice,
    sizes: Sizes,
    rows: usize,
    x: &CudaView<T>,
    weight: &CudaView<T>,
    out: &mut CudaSlice<T>,
    (alpha, beta): (T, T),
) -> Result<()>
where
    CudaBlas: Gemm<T>,
{
    check_lengths(sizes, rows, (x.len(), weight.len(), out.len()))?;
    const OP: &str = "linear";
    let (n, m, k) = (
        int(OP, sizes.out_features)?,
        int(OP, rows)?,
        int(OP, sizes.in_features)?,
    );
    let config = GemmConfig {
        transa: cublasOperation_t::CUBLAS_OP_T,
        transb: cublasOperation_t::CUBLAS_OP_N,
        m: n,
        n: m,
        k,
        alpha,
        lda: k,
        ldb: k,
        beta,
        ldc: n,
    };
    // SAFETY: the views hold N * K and M * K elements and `out` M * N, which has been checked.
    checked(unsafe { device.cublas_handle().gemm(config, weight, x, out) })
}

/// That the elements of rows, weights and results are as many as the sizes say.
fn check_lengths(sizes: Sizes, rows: usize, (x, weight, out): (usize, usize, usize)) -> Result<()> {
    let Sizes {
        in_features,
        out_features,
    } = sizes;
    if (x, weight, out) != (rows * in_features, out_features * in_features, rows * out_features) {
        bail!("linear: {x} elements in {rows} rows, {weight} weights and {out} results are not those of {sizes:?}")
    }
    Ok(())
}

/// How one layer is multiplied, with its bias or without.
#[derive(Debug)]
pub(super) struct Plan {
    library: Arc<Library>,
    description: Description,
    algorithm: cublasLtMatmulAlgo_t,
    sizes: Sizes,
}

impl Plan {
    /// None where cublasLt has no algorithm for the sizes, or may not be asked. `bias` is read at every product and
    /// so has to outlive the plan: `out_features` elements that start an allocation.
    pub fn new<T: Multiply>(
        device: &CudaDevice,
        sizes: Sizes,
        bias: Option<&CudaView<T>>,
        rows: RowKind,
    ) -> Result<Option<Self>> {
        if wanted() == Wanted::CublasAlone {
            return Ok(None);
        }
        let library = Library::of(device)?;
        let stream = device.cuda_stream();
        let bias = bias.map(|bias| bias.device_ptr(&stream).0);
        // One that splits sums, but always alike, is still better than another for each number of rows.
        let mut none = None;
        for sums in [Sums::Whole, Sums::Any] {
            match Self::find::<T>(&library, sizes, bias, full_batch(rows), sums) {
                Ok(plan) => return Ok(Some(plan)),
                Err(error) if does_not_fit(&error) => none = Some(error),
                Err(error) => bail!("linear: cublasLt finds no algorithm for {sizes:?}: {error}"),
            }
        }
        if let Some(error) = none {
            refused(sizes, 0, &error);
        }
        Ok(None)
    }

    fn find<T: Multiply>(
        library: &Arc<Library>,
        sizes: Sizes,
        bias: Option<u64>,
        rows: u64,
        sums: Sums,
    ) -> std::result::Result<Self, LtError> {
        let description = Description::new(bias)?;
        let layouts = |rows| Layouts::new(T::MATRIX, sizes, rows);
        let candidates = candidates(library, &description, &layouts(rows)?, &Preferences::new(sums)?)?;
        let few = [layouts(1)?, layouts(41)?];
        let takes_any_rows = |algorithm: &cublasLtMatmulAlgo_t| {
            few.iter()
                .all(|layouts| is_supported(library, &description, layouts, algorithm))
        };
        let found = match wanted() {
            Wanted::Algorithm(place) => Some(place - 1),
            _ => candidates.iter().position(takes_any_rows),
        };
        // A place beyond the last is looked for among those that split sums; beyond those too cuBLAS multiplies.
        let Some(best) = candidates.get(found.unwrap_or(0)) else {
            return Err(LtError(cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED));
        };
        chosen(sizes, T::PRODUCTS, rows, found, candidates.len(), sums);
        Ok(Self {
            library: Arc::clone(library),
            algorithm: *best,
            description,
            sizes,
        })
    }

    /// `out = x W^T`, plus the bias if the plan has one. False, and nothing done, where the algorithm cannot take as many
    /// rows. All slices start at multiples of [`super::launch::ALIGNMENT`]; `x` holds `rows` rows, `out` takes as many.
    pub fn multiply<T: Multiply>(
        &self,
        device: &CudaDevice,
        rows: usize,
        x: &CudaView<T>,
        weight: &CudaView<T>,
        out: &mut CudaSlice<T>,
    ) -> Result<bool> {
        check_lengths(self.sizes, rows, (x.len(), weight.len(), out.len()))?;
        let stream = device.cuda_stream();
        let multiplied = Layouts::new(T::MATRIX, self.sizes, rows as u64).and_then(|layouts| {
            let (weight, _weight_read) = weight.device_ptr(&stream);
            let (x, _x_read) = x.device_ptr(&stream);
            let (out, _out_written) = out.device_ptr_mut(&stream);
            let (workspace, _workspace_used) = self.library.workspace.device_ptr(&stream);
            let (alpha, beta) = (1f32, 0f32);
            // SAFETY: the layouts describe the slices, whose lengths have been checked; the bias outlives the plan; the workspace is
            // used by work of this one stream alone; the context is current on this thread since `out` was just allocated.
            unsafe {
                result::matmul(
                    self.library.handle,
                    self.description.0,
                    (&raw const alpha).cast(),
                    (&raw const beta).cast(),
                    weight as *const c_void,
                    layouts.weight.0,
                    x as *const c_void,
                    layouts.x.0,
                    out as *const c_void,
                    layouts.out.0,
                    out as *mut c_void,
                    layouts.out.0,
                    &self.algorithm,
                    workspace as *mut c_void,
                    WORKSPACE,
                    stream.cu_stream().cast(),
                )
            }
        });
        match multiplied {
            Ok(()) => Ok(true),
            Err(error) if does_not_fit(&error) => {
                refused(self.sizes, rows, &error);
                Ok(false)
            }
            Err(error) => bail!("linear: cublasLt failed on {rows} rows of {:?}: {error}", self.sizes),
        }
    }
}

/// Whether cuBLAS proper may do what cublasLt did not: not where memory ran out or the GPU failed, which would come again.
fn does_not_fit(error: &LtError) -> bool {
    !matches!(
        error.0,
        cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED | cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED
    )
}
