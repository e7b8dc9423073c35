//! The operations on an NVIDIA GPU: products (`product`) by cuBLAS, everything between them by own kernels.
//!
//! Hidden states are f32, bf16 or f16; statistics, softmax and sums are f32 inside every kernel.
//! Each function here is what the operation of the same name above calls once shapes are checked.
//! [`device`] opens a GPU and says what it is, and `forwarding` lets a program start where NVIDIA's
//! libraries are not; [`transfer`] moves a batch in and its results out; [`profile`] times operations
//! on the GPU where asked to. The folder `emulation` is a GPU for tests where there is none: it runs these kernels, and the
//! whole program, on the CPU.
//!
//! All work of a device goes to one stream, in the order in which host threads submit it, so memory
//! that is freed may be handed out again at once and several threads may share a device. Nothing
//! here waits for the GPU but [`transfer::download`].

mod attention;
mod bilinear;
mod choices;
mod cublas_lt;
pub mod device;
mod forwarding;
mod launch;
mod linear;
mod pooling;
mod product;
pub mod profile;
mod rows;
pub mod transfer;
mod views;

// What is safe by the checks of the operations above alone stays in this package.
pub(crate) use attention::attention;
pub(crate) use bilinear::inner_products;
pub use choices::{chosen_algorithms, refused_products, unusual_products};
pub(crate) use linear::DenseLinear;
pub(crate) use pooling::{attention_pool, simple_pool};
pub(crate) use rows::{embed, layer_norm};
pub(crate) use views::pairwise;

/// Calls a generic function for a float type.
macro_rules! for_float {
    ($op:expr, $dtype:expr, $f:ident($($argument:expr),* $(,)?)) => {
        match $dtype {
            candle_core::DType::F32 => $f::<f32>($($argument),*),
            candle_core::DType::BF16 => $f::<half::bf16>($($argument),*),
            candle_core::DType::F16 => $f::<half::f16>($($argument),*),
            other => candle_core::bail!("{}: expected f32, bf16 or f16 on the GPU, found {other:?}", $op),
        }
    };
}
use for_float;

/// Warps a block in kernels that give each row or token a warp.
const WARPS: usize = 4;
