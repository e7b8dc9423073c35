//! cublasLt's own objects: a handle, what is computed, how operands lie, and its algorithms for that.

use std::collections::HashMap;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError as LtError};
use candle_core::cuda_backend::cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType_t,
};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, Result, bail};

/// Of a layer: `weight` is `[out_features, in_features]`.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub out_features: usize,
    pub in_features: usize,
}

/// Bytes; what NVIDIA recommends for Hopper.
pub const WORKSPACE: usize = 32 << 20;

/// cublasLt on one device, for as long as the process lives.
#[derive(Debug)]
pub struct Library {
    pub handle: cublasLtHandle_t,
    pub workspace: CudaSlice<u8>,
}

// SAFETY: cublasLt's functions may be called from any thread with one handle.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    pub fn of(device: &CudaDevice) -> Result<Arc<Self>> {
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
pub struct Description(pub cublasLtMatmulDesc_t);

// SAFETY: a plain record for cublasLt, which nobody writes to after `new`.
unsafe impl Send for Description {}
// SAFETY: as above.
unsafe impl Sync for Description {}

impl Description {
    /// `bias`: a device address.
    pub fn new(bias: Option<u64>) -> std::result::Result<Self, LtError> {
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
pub enum Sums {
    Whole,
    Any,
}

/// Which algorithms will do.
pub struct Preferences(cublasLtMatmulPreference_t);

impl Preferences {
    pub fn new(sums: Sums) -> std::result::Result<Self, LtError> {
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
pub struct Layouts {
    pub weight: MatrixLayout,
    pub x: MatrixLayout,
    pub out: MatrixLayout,
}

impl Layouts {
    pub fn new(matrix: cudaDataType_t, sizes: Sizes, rows: u64) -> std::result::Result<Self, LtError> {
        let (n, k) = (sizes.out_features as u64, sizes.in_features as u64);
        Ok(Self {
            weight: MatrixLayout::new(matrix, k, n)?,
            x: MatrixLayout::new(matrix, k, rows)?,
            out: MatrixLayout::new(matrix, n, rows)?,
        })
    }
}

pub struct MatrixLayout(pub cublasLtMatrixLayout_t);

impl MatrixLayout {
    /// `rows` by `columns`, each column right behind the one before.
    pub fn new(matrix: cudaDataType_t, rows: u64, columns: u64) -> std::result::Result<Self, LtError> {
        result::create_matrix_layout(matrix, rows, columns, rows as i64).map(Self)
    }
}

impl Drop for MatrixLayout {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once. A failure would leak some bytes.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// Algorithms for these sizes, the one that the library takes for the fastest first.
pub fn candidates(
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
pub fn is_supported(
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
