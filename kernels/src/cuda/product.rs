//! The product of a linear layer, `x W^T`, by cublasLt and, of each layer, by one algorithm.
//!
//! Left to itself cuBLAS takes an algorithm by the number of rows, and two algorithms add up in different orders: the last
//! digits of a text's score would hang on what else is in its batch, and so on how the lines came in. Here a
//! layer asks once for the best algorithm over a full batch, among those that do not split a sum between blocks
//! (split-K) and that take any number of rows, and keeps to it. Every row of a result is then computed alike, whatever
//! the other rows are.
//!
//! Sums are f32, of f32 operands too: never TF32. Where cublasLt has no such algorithm (16-bit rows that are no multiple of
//! 16 bytes), cuBLAS proper takes the layer; [`refused_products`] says where that was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm, GemmConfig};
use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError as LtError};
use candle_core::cuda_backend::cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType_t,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut};
use candle_core::{CudaDevice, Result, bail};
use half::{bf16, f16};

use super::launch::{Float, checked, int};
use crate::bilinear::PAIRS_AT_ONCE;
use crate::{CUDA_LT_VARIABLE, RowKind};

/// How many rows there are in a batch that fills a large GPU, for which an algorithm is chosen: texts have some forty
/// tokens.
fn full_batch(rows: RowKind) -> u64 {
    match rows {
        RowKind::Tokens => 16_384,
        RowKind::Texts => 400,
        RowKind::Pairs => PAIRS_AT_ONCE as u64,
    }
}

/// Of a layer: `weight` is `[out_features, in_features]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub out_features: usize,
    pub in_features: usize,
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
    // SAFETY: the views hold N * K and M * K elements and `out` M * N, as the caller promises.
    checked(unsafe { device.cublas_handle().gemm(config, weight, x, out) })
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
        // A place beyond the last is refused, and then cuBLAS multiplies.
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
        let stream = device.cuda_stream();
        let multiplied = Layouts::new(T::MATRIX, self.sizes, rows as u64).and_then(|layouts| {
            let (weight, _weight_read) = weight.device_ptr(&stream);
            let (x, _x_read) = x.device_ptr(&stream);
            let (out, _out_written) = out.device_ptr_mut(&stream);
            let (workspace, _workspace_used) = self.library.workspace.device_ptr(&stream);
            let (alpha, beta) = (1f32, 0f32);
            // SAFETY: the layouts describe the slices, which the caller sized; the bias outlives the plan; the workspace is
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

/// Algorithms for these sizes, the one that the library takes for the fastest first.
fn candidates(
    library: &Library,
    description: &Description,
    layouts: &Layouts,
    preferences: &Preferences,
) -> std::result::Result<Vec<cublasLtMatmulAlgo_t>, LtError> {
    const ASKED_FOR: usize = 8;
    let mut found = [const { MaybeUninit::<cublasLtMatmulHeuristicResult_t>::uninit() }; ASKED_FOR];
    let mut count: c_int = 0;
    // SAFETY: all handles are alive, and those of the types that the function takes; it writes at most as many results
    // as there is room for, and their number.
    unsafe {
        sys::cublasLtMatmulAlgoGetHeuristic(
            library.handle,
            description.0,
            layouts.weight.0,
            layouts.x.0,
            layouts.out.0,
            layouts.out.0,
            preferences.0,
            ASKED_FOR as c_int,
            found.as_mut_ptr().cast(),
            &mut count,
        )
        .result()?;
    }
    let count = usize::try_from(count).unwrap_or(0).min(ASKED_FOR);
    // SAFETY: so many have been written.
    let found = found[..count].iter().map(|result| unsafe { result.assume_init_ref() });
    let usable = found.filter(|result| result.state == cublasStatus_t::CUBLAS_STATUS_SUCCESS);
    Ok(usable.map(|result| result.algo).collect())
}

/// Whether the library says that `algorithm` takes these sizes too.
fn is_supported(
    library: &Library,
    description: &Description,
    layouts: &Layouts,
    algorithm: &cublasLtMatmulAlgo_t,
) -> bool {
    let mut result = MaybeUninit::<cublasLtMatmulHeuristicResult_t>::uninit();
    // SAFETY: all handles are alive, and those of the types that the function takes; it writes one result.
    let status = unsafe {
        sys::cublasLtMatmulAlgoCheck(
            library.handle,
            description.0,
            layouts.weight.0,
            layouts.x.0,
            layouts.out.0,
            layouts.out.0,
            algorithm,
            result.as_mut_ptr(),
        )
    };
    status == cublasStatus_t::CUBLAS_STATUS_SUCCESS
}

/// Times that cublasLt had no algorithm for a layer or its algorithm did not take a batch, by layer and reason, with the
/// fewest and the most rows.
static REFUSED: Mutex<BTreeMap<String, (u64, usize, usize)>> = Mutex::new(BTreeMap::new());

/// `rows`: 0 where there was no algorithm at all.
fn refused(sizes: Sizes, rows: usize, error: &LtError) {
    let what = format!("{} x {}: {:?}", sizes.out_features, sizes.in_features, error.0);
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    let (times, least, most) = refused.entry(what).or_insert((0, rows, rows));
    *times += 1;
    *least = rows.min(*least);
    *most = rows.max(*most);
}

/// What was chosen for each kind of layer.
static CHOSEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// `found`: the place of the chosen one among `candidates` algorithms; none where the fastest was taken though the library does not
/// say that it takes any number of rows.
fn chosen(sizes: Sizes, products: &str, rows: u64, found: Option<usize>, candidates: usize, sums: Sums) {
    let which = match found {
        Some(place) => format!("algorithm {} of {candidates}", place + 1),
        None => format!("algorithm 1 of {candidates}, none of which takes any number of rows"),
    };
    let splits = match sums {
        Sums::Whole => "",
        Sums::Any => "; sums may be split",
    };
    let what = format!(
        "{products}, {} x {} x {rows} rows: {which}{splits}",
        sizes.out_features, sizes.in_features
    );
    CHOSEN.lock().unwrap_or_else(PoisonError::into_inner).insert(what);
}

/// A line for each kind of layer: which of cublasLt's algorithms, the fastest first, it is multiplied by. Where that is not the
/// first, those before it do not take every number of rows, or [`CUDA_LT_VARIABLE`] asked for it.
pub fn chosen_algorithms() -> Vec<String> {
    let chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    chosen.iter().cloned().collect()
}

/// A line for each kind of product that cublasLt left to cuBLAS in this process. Where some batches of a layer went the
/// one way and some the other, a text's last digits hang on its batch.
pub fn refused_products() -> Vec<String> {
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    let line = |(what, (times, least, most)): (&String, &(u64, usize, usize))| match most {
        0 => format!("cublasLt has no algorithm for {what}; cuBLAS multiplied"),
        _ => format!("cublasLt did not take {least} to {most} rows of {what}, {times} times; cuBLAS multiplied"),
    };
    refused.iter().map(line).collect()
}

/// Whether cuBLAS proper may do what cublasLt did not: not where memory ran out or the GPU failed, which would come again.
fn does_not_fit(error: &LtError) -> bool {
    !matches!(
        error.0,
        cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED | cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED
    )
}

/// What [`CUDA_LT_VARIABLE`] asks for.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    /// The fastest that takes any number of rows.
    Suitable,
    /// By its place among cublasLt's, from 1.
    Algorithm(usize),
    CublasAlone,
}

fn wanted() -> Wanted {
    static WANTED: OnceLock<Wanted> = OnceLock::new();
    *WANTED.get_or_init(|| {
        let value = std::env::var(CUDA_LT_VARIABLE).ok();
        match value.and_then(|value| value.parse().ok()) {
            None => Wanted::Suitable,
            Some(0) => Wanted::CublasAlone,
            Some(place) => Wanted::Algorithm(place),
        }
    })
}

/// What multiplies, where that is not as usual: other algorithms give other last digits.
pub fn unusual_products() -> Option<String> {
    match wanted() {
        Wanted::Suitable => None,
        Wanted::Algorithm(place) => Some(format!("cublasLt's algorithm {place}")),
        Wanted::CublasAlone => Some("cuBLAS alone".to_owned()),
    }
}

/// Bytes; what NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// cublasLt on one device, for as long as the process lives.
#[derive(Debug)]
struct Library {
    handle: cublasLtHandle_t,
    workspace: CudaSlice<u8>,
}

// SAFETY: cublasLt's functions may be called from any thread with one handle.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    fn of(device: &CudaDevice) -> Result<Arc<Self>> {
        static OPEN: OnceLock<Mutex<HashMap<DeviceId, Arc<Library>>>> = OnceLock::new();
        let open = OPEN.get_or_init(Mutex::default);
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = open.get(&device.id()) {
            return Ok(library.clone());
        }
        // SAFETY: nothing reads it before writing.
        let workspace = unsafe { device.alloc::<u8>(WORKSPACE)? };
        match result::create_handle() {
            Ok(handle) => {
                let library = Arc::new(Self { handle, workspace });
                open.insert(device.id(), library.clone());
                Ok(library)
            }
            Err(error) => bail!("linear: cublasLt cannot be started: {error}"),
        }
    }
}

/// What is computed: sums in f32, the left operand transposed, perhaps a bias added.
#[derive(Debug)]
struct Description(cublasLtMatmulDesc_t);

// SAFETY: a plain record for cublasLt, which nobody writes to after `new`.
unsafe impl Send for Description {}
// SAFETY: as above.
unsafe impl Sync for Description {}

impl Description {
    /// `bias`: a device address.
    fn new(bias: Option<u64>) -> std::result::Result<Self, LtError> {
        let scale = cudaDataType_t::CUDA_R_32F;
        let new = Self(result::create_matmul_desc(
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            scale,
        )?);
        new.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, 1i32)?;
        if let Some(bias) = bias {
            new.set(
                Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
                cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            )?;
            new.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)?;
        }
        Ok(new)
    }

    /// `V` has to be the attribute's type.
    fn set<V: Copy>(&self, attribute: Attribute, value: V) -> std::result::Result<(), LtError> {
        // SAFETY: the library copies as many bytes as the value has.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, (&raw const value).cast(), size_of::<V>()) }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once. A failure would leak some bytes.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// Whether an algorithm may split a sum between blocks.
#[derive(Clone, Copy)]
enum Sums {
    Whole,
    Any,
}

/// Which algorithms will do.
struct Preferences(cublasLtMatmulPreference_t);

impl Preferences {
    fn new(sums: Sums) -> std::result::Result<Self, LtError> {
        /// `CUBLASLT_REDUCTION_SCHEME_NONE`: no way of putting split sums together.
        const NONE: u32 = 0;
        let new = Self(result::create_matmul_pref()?);
        new.set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE)?;
        if let Sums::Whole = sums {
            new.set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, NONE)?;
        }
        Ok(new)
    }

    /// `V` has to be the preference's type.
    fn set<V: Copy>(&self, preference: Preference, value: V) -> std::result::Result<(), LtError> {
        // SAFETY: the library copies as many bytes as the value has.
        unsafe { result::set_matmul_pref_attribute(self.0, preference, (&raw const value).cast(), size_of::<V>()) }
    }
}

impl Drop for Preferences {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once. A failure would leak some bytes.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

/// How the operands lie in memory, as the column-major library sees them.
struct Layouts {
    weight: MatrixLayout,
    x: MatrixLayout,
    out: MatrixLayout,
}

impl Layouts {
    fn new(matrix: cudaDataType_t, sizes: Sizes, rows: u64) -> std::result::Result<Self, LtError> {
        let (n, k) = (sizes.out_features as u64, sizes.in_features as u64);
        Ok(Self {
            weight: MatrixLayout::new(matrix, k, n)?,
            x: MatrixLayout::new(matrix, k, rows)?,
            out: MatrixLayout::new(matrix, n, rows)?,
        })
    }
}

struct MatrixLayout(cublasLtMatrixLayout_t);

impl MatrixLayout {
    /// `rows` by `columns`, each column right behind the one before.
    fn new(matrix: cudaDataType_t, rows: u64, columns: u64) -> std::result::Result<Self, LtError> {
        result::create_matrix_layout(matrix, rows, columns, rows as i64).map(Self)
    }
}

impl Drop for MatrixLayout {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once. A failure would leak some bytes.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}
