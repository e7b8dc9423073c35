//! The functions of NVIDIA's libraries, defined here as jumps to the real ones, so that a program built with CUDA starts
//! where those libraries are not.
//!
//! candle has cudarc link the driver, cuBLAS and cuRAND the ordinary way, and a program linked so does not start at all on a
//! machine that lacks one of them. The linker comes to the definitions in this file first; needing nothing more of the
//! libraries it leaves them out (`--as-needed`, which rustc asks for). [`forward_to`] looks the real functions up once
//! [`super::device`] has opened the libraries. Other linkers' name for this is delayed loading.
//!
//! A function that is called and not listed still links, and makes its library a condition for starting again: a test
//! sees to that. One that is listed and not called, or not in this version of a library, does no harm.
//!
//! It takes lld, with which rustc links on x86-64 Linux since 1.90. GNU's linker counts a thousand functions that cudarc
//! mentions and nothing calls: linked by it the program is right, but starts only where the libraries are. Elsewhere than on
//! Linux the libraries are linked the ordinary way.

use libloading::Library;

/// Sends calls of the functions that `library` has to it, but for those that another has been found for. It stays
/// loaded for good, since nobody can tell when the last call comes.
pub(super) fn forward_to(library: Library) {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    forward::to(&library);
    std::mem::forget(library);
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod forward {
    use std::sync::atomic::{AtomicPtr, Ordering};

    use libloading::Library;

    /// Where calls of a function go.
    type Target = AtomicPtr<()>;

    /// Where they go until a library that has the function is open.
    extern "C" fn not_open() -> ! {
        eprintln!(
            "crag: a function of NVIDIA's libraries was called that none of them has; this is a fault of this program"
        );
        std::process::abort()
    }

    pub fn to(library: &Library) {
        for (name, target) in FUNCTIONS {
            // SAFETY: nothing is called here. Who calls the function does so by cudarc's declaration of it.
            let found = unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) };
            if let Ok(function) = found
                && target.load(Ordering::Relaxed) == not_open as *mut ()
            {
                target.store(*function as *mut (), Ordering::Release);
            }
        }
    }

    /// For each name a static with where it goes, a global symbol that jumps there, and an entry in the table. The symbols
    /// are hidden: the libraries call each other, and must not come by here.
    macro_rules! functions {
        ($($name:ident)*) => {
            const FUNCTIONS: &[(&str, &Target)] = &[$((stringify!($name), &$name::TARGET)),*];
            $(
                #[allow(non_snake_case)]
                mod $name {
                    pub static TARGET: super::Target = super::Target::new(super::not_open as *mut ());

                    std::arch::global_asm!(
                        concat!(".pushsection .text.crag_forward.", stringify!($name), ",\"ax\",@progbits"),
                        concat!(".globl ", stringify!($name)),
                        concat!(".hidden ", stringify!($name)),
                        concat!(".type ", stringify!($name), ",@function"),
                        concat!(stringify!($name), ":"),
                        // The arguments, in registers and on the stack, stay where they are.
                        jump!(),
                        concat!(".size ", stringify!($name), ", . - ", stringify!($name)),
                        ".popsection",
                        target = sym TARGET,
                    );
                }
            )*
        };
    }

    #[cfg(target_arch = "x86_64")]
    macro_rules! jump {
        () => {
            "jmp qword ptr [rip + {target}]"
        };
    }

    // x16 is the register that calls may lose on their way (AAPCS64).
    #[cfg(target_arch = "aarch64")]
    macro_rules! jump {
        () => {
            "adrp x16, {target}\nldr x16, [x16, :lo12:{target}]\nbr x16"
        };
    }

    functions! {
        cuCtxDestroy_v2 cuCtxGetCurrent cuCtxSetCurrent cuCtxSynchronize cuDeviceGet cuDeviceGetAttribute
        cuDeviceGetMemPool cuDeviceGetName cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuDriverGetVersion
        cuEventCreate cuEventDestroy_v2 cuEventElapsedTime cuEventElapsedTime_v2 cuEventRecord cuEventSynchronize
        cuGetErrorString cuInit cuLaunchKernel cuMemAllocAsync cuMemAlloc_v2 cuMemFreeAsync cuMemFree_v2 cuMemGetInfo_v2
        cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemPoolTrimTo cuMemcpyDtoDAsync_v2 cuMemcpyDtoHAsync_v2
        cuMemcpyHtoDAsync_v2 cuMemcpyPeerAsync cuMemsetD8Async cuModuleGetFunction cuModuleLoad cuModuleLoadData
        cuModuleUnload cuStreamCreate cuStreamDestroy_v2 cuStreamIsCapturing cuStreamSynchronize cuStreamWaitEvent
        cublasCreate_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasGemmEx cublasGemmStridedBatchedEx cublasLtCreate
        cublasLtDestroy cublasLtMatmul cublasLtMatmulAlgoCheck cublasLtMatmulAlgoGetHeuristic cublasLtMatmulDescCreate
        cublasLtMatmulDescDestroy
        cublasLtMatmulDescSetAttribute cublasLtMatmulPreferenceCreate cublasLtMatmulPreferenceDestroy
        cublasLtMatmulPreferenceSetAttribute cublasLtMatrixLayoutCreate cublasLtMatrixLayoutDestroy
        cublasLtMatrixLayoutSetAttribute cublasSetStream_v2 cublasSgemm_v2 curandCreateGenerator curandDestroyGenerator
        curandGenerateNormal curandGenerateNormalDouble curandSetPseudoRandomGeneratorSeed curandSetStream
    }
}
