//! Which instruction set the CPU's kernels use: the best one found, or the one `CRAG_KERNEL` names.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd, Task};

/// The environment variable that forces a kernel: `portable`, `avx2` or `avx512`.
pub const KERNEL_VARIABLE: &str = "CRAG_KERNEL";

const SETTINGS: [&str; 3] = ["portable", "avx2", "avx512"];

/// A family of kernels that this machine can run. Results of two families differ by rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(InstructionSet);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InstructionSet {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KernelError {
    #[error("{KERNEL_VARIABLE}={found}: expected portable, avx2 or avx512; unset it to take the fastest")]
    Unknown { found: String },
    #[error("{KERNEL_VARIABLE}={name}: this machine has no {name}; it can run {available}, or unset the variable")]
    Unavailable { name: String, available: String },
}

impl Kernel {
    /// Every kernel that this machine can run, the fastest first.
    pub fn available() -> Vec<Self> {
        SETTINGS.iter().rev().filter_map(|name| Self::find(name)).collect()
    }

    /// The kernel of that setting, where this machine has it.
    pub fn find(setting: &str) -> Option<Self> {
        match setting {
            "portable" => Some(Self(InstructionSet::Portable(Portable))),
            #[cfg(target_arch = "x86_64")]
            "avx2" => Avx2::detect().map(|token| Self(InstructionSet::Avx2(token))),
            #[cfg(target_arch = "x86_64")]
            "avx512" => Avx512::detect().map(|token| Self(InstructionSet::Avx512(token))),
            _ => None,
        }
    }

    /// What [`KERNEL_VARIABLE`] calls it.
    pub fn setting(self) -> &'static str {
        match self.0 {
            InstructionSet::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512(_) => "avx512",
        }
    }

    /// Architecture, precision and instruction set.
    pub fn name(self) -> &'static str {
        match self.0 {
            InstructionSet::Portable(_) => "portable-f32",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2(_) => "x86_64-f32-avx2",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512(_) => "x86_64-f32-avx512",
        }
    }

    /// Runs `task` compiled for this kernel's instruction set.
    pub(super) fn run<T: Task>(self, task: T) -> T::Output {
        match self.0 {
            InstructionSet::Portable(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512(simd) => simd.vectorize(task),
        }
    }
}

/// The kernel that a setting asks for; the fastest without one.
pub fn select(setting: Option<&str>) -> Result<Kernel, KernelError> {
    let available = Kernel::available();
    match setting {
        // `portable` is always there, so the list is never empty.
        None => Ok(available[0]),
        Some(name) if !SETTINGS.contains(&name) => Err(KernelError::Unknown { found: name.into() }),
        Some(name) => Kernel::find(name).ok_or_else(|| KernelError::Unavailable {
            name: name.into(),
            available: available.iter().map(|k| k.setting()).collect::<Vec<_>>().join(", "),
        }),
    }
}

fn from_environment() -> Result<Kernel, KernelError> {
    let setting = std::env::var_os(KERNEL_VARIABLE).map(|v| v.to_string_lossy().into_owned());
    select(setting.as_deref())
}

/// Errors if [`KERNEL_VARIABLE`] asks for what does not exist or cannot run here. To be called
/// once at start: the operations themselves cannot fail, so [`selected`] passes over such a value.
pub fn check_selection() -> Result<(), KernelError> {
    from_environment().map(|_| ())
}

/// The kernel that all operations of this process use, settled at the first call.
pub fn selected() -> Kernel {
    static SELECTED: OnceLock<Kernel> = OnceLock::new();
    *SELECTED.get_or_init(|| from_environment().unwrap_or_else(|_| Kernel::available()[0]))
}
