//! Which instruction set the CPU's kernels use: the best one found, or the one `CRAG_KERNEL` names.

use std::sync::OnceLock;

use super::caches::l2_bytes;
#[cfg(any(target_arch = "aarch64", test))]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512, WholeTiles};
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
use super::simd::{Bf16Dots, ByteDots};
use super::simd::{Portable, Simd, Task};
use crate::Precision;

/// The environment variable that forces a kernel: `portable`, `neon`, `avx2`, `avx512` or `amx`.
pub const KERNEL_VARIABLE: &str = "CRAG_KERNEL";

/// The slowest first.
pub(super) const SETTINGS: [&str; 5] = ["portable", "neon", "avx2", "avx512", "amx"];

/// A family of kernels that this machine can run. Results of two families differ by rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(InstructionSet);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InstructionSet {
    Portable(Portable),
    /// In unit tests on other targets too: see [`super::simd`].
    #[cfg(any(target_arch = "aarch64", test))]
    Neon(Neon),
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(Neon<ByteDots>),
    #[cfg(target_arch = "aarch64")]
    NeonBf16(Neon<Bf16Dots>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni(Avx2<ByteDots>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512<ByteDots>),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512<Bf16Dots>),
    #[cfg(target_arch = "x86_64")]
    Amx(Avx512<WholeTiles>),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KernelError {
    #[error("{KERNEL_VARIABLE}={found}: expected portable, neon, avx2, avx512 or amx; unset it to take the fastest")]
    Unknown { found: String },
    #[error("{KERNEL_VARIABLE}={name}: this machine has no {name}; it can run {available}, or unset the variable")]
    Unavailable { name: String, available: String },
}

impl Kernel {
    /// Every kernel that this machine can run, the fastest first.
    pub fn available() -> Vec<Self> {
        SETTINGS.iter().rev().filter_map(|name| Self::find(name)).collect()
    }

    /// The kernel whose [`Self::name`] that is, and in which precision, where this machine has it.
    pub fn named(name: &str) -> Option<(Self, Precision)> {
        let precisions = [Precision::F32, Precision::Bf16, Precision::Int8];
        let all = Self::available().into_iter();
        all.flat_map(|kernel| precisions.map(|precision| (kernel, precision)))
            .find(|(kernel, precision)| kernel.name(*precision) == name)
    }

    /// The kernel of that setting, where this machine has it.
    pub fn find(setting: &str) -> Option<Self> {
        Self::variants(setting).into_iter().next()
    }

    /// The kernels of that setting that this machine can run: the one with all its dot products
    /// first, then those that do without, which other machines have.
    pub(super) fn variants(setting: &str) -> Vec<Self> {
        let found: &[Option<InstructionSet>] = match setting {
            "portable" => &[Some(InstructionSet::Portable(Portable))],
            #[cfg(any(target_arch = "aarch64", test))]
            "neon" => &[
                #[cfg(target_arch = "aarch64")]
                Neon::detect().map(InstructionSet::NeonBf16),
                #[cfg(target_arch = "aarch64")]
                Neon::detect().map(InstructionSet::NeonDotprod),
                Neon::detect().map(InstructionSet::Neon),
            ],
            #[cfg(target_arch = "x86_64")]
            "avx2" => &[
                Avx2::detect().map(InstructionSet::Avx2Vnni),
                Avx2::detect().map(InstructionSet::Avx2),
            ],
            #[cfg(target_arch = "x86_64")]
            "avx512" => &[
                Avx512::detect().map(InstructionSet::Avx512Bf16),
                Avx512::detect().map(InstructionSet::Avx512Vnni),
                Avx512::detect().map(InstructionSet::Avx512),
            ],
            #[cfg(target_arch = "x86_64")]
            "amx" => &[Avx512::detect().map(InstructionSet::Amx)],
            _ => &[],
        };
        found.iter().flatten().copied().map(Self).collect()
    }

    /// What [`KERNEL_VARIABLE`] calls it.
    pub fn setting(self) -> &'static str {
        match self.0 {
            InstructionSet::Portable(_) => "portable",
            #[cfg(any(target_arch = "aarch64", test))]
            InstructionSet::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonDotprod(_) | InstructionSet::NeonBf16(_) => "neon",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2(_) | InstructionSet::Avx2Vnni(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512(_) | InstructionSet::Avx512Vnni(_) | InstructionSet::Avx512Bf16(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx(_) => "amx",
        }
    }

    /// Architecture, precision, instruction set and revision, and how the machine does without instructions
    /// for that precision. Kernels of one name give the same bits; portable code does on machines that all round a product
    /// before it is added to something, or do not.
    pub fn name(self, precision: Precision) -> String {
        if let InstructionSet::Portable(_) = self.0 {
            return format!(
                "portable{}-{}{}{}",
                if Portable::HAS_FMA { "-fma" } else { "" },
                precision.name(),
                revision(precision),
                self.way(precision)
            );
        }
        let architecture = std::env::consts::ARCH;
        let (set, revision, way) = (self.setting(), revision(precision), self.way(precision));
        let dots = match (precision, set) {
            (Precision::Int8, "avx2" | "avx512") if self.is_native(precision) => "vnni",
            (Precision::Int8, "neon") if self.is_native(precision) => "dot",
            _ => "",
        };
        format!("{architecture}-{}-{set}{dots}{revision}{way}", precision.name())
    }

    fn way(self, precision: Precision) -> &'static str {
        match precision {
            // The bilinear's product is bf16 then, so that the last bits differ.
            Precision::Int8 if self.is_native(precision) && !self.is_native(Precision::Bf16) => {
                " (bf16 emulated in f32)"
            }
            _ if self.is_native(precision) => "",
            Precision::Int8 => " (emulated in i16)",
            _ => " (emulated in f32)",
        }
    }

    /// Whether the kernel has instructions for products in `precision`, rather than emulating them.
    pub fn is_native(self, precision: Precision) -> bool {
        match (precision, self.0) {
            (Precision::F32, _) => true,
            #[cfg(target_arch = "x86_64")]
            (Precision::Bf16 | Precision::Int8, InstructionSet::Avx512Bf16(_) | InstructionSet::Amx(_)) => true,
            #[cfg(target_arch = "x86_64")]
            (Precision::Int8, InstructionSet::Avx2Vnni(_) | InstructionSet::Avx512Vnni(_)) => true,
            #[cfg(target_arch = "aarch64")]
            (Precision::Bf16 | Precision::Int8, InstructionSet::NeonBf16(_)) => true,
            #[cfg(target_arch = "aarch64")]
            (Precision::Int8, InstructionSet::NeonDotprod(_)) => true,
            _ => false,
        }
    }

    /// Whether products in bf16 are faster than in f32. Having instructions is not enough: Intel's processors multiply
    /// vectors of bf16 at half the rate of f32 (121 GFLOP/s a core beside 243), and gain by AMX alone. Arm's have never been
    /// measured.
    pub fn gains_by_bf16(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx(_) => true,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16(_) => !is_intel(),
            _ => false,
        }
    }

    /// Whether products are the machine's own, of whole tiles; f32 is then computed as three bf16.
    pub fn has_tiles(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx(_) => true,
            _ => false,
        }
    }

    /// Whether several products are computed in one pass, block by block of rows which stay in cache from one to the next,
    /// rather than product by product; with the same bits. Where it was measured to gain: it takes 1.3 to 2 MiB of L2
    /// (`benches/NOTES.md`), which machines with tiles have.
    pub(super) fn fuses(self) -> bool {
        self.can_fuse() && (self.has_tiles() || l2_bytes() >= 2 << 20)
    }

    /// Whether passes through several products are compiled for this kernel.
    pub(super) fn can_fuse(self) -> bool {
        self.run(Fuses)
    }

    /// Runs `task`, which uses no dot products, compiled for this kernel's instruction set.
    pub(super) fn run<T: Task>(self, task: T) -> T::Output {
        match self.0 {
            InstructionSet::Portable(simd) => simd.vectorize(task),
            #[cfg(any(target_arch = "aarch64", test))]
            InstructionSet::Neon(simd) => simd.vectorize(task),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonDotprod(simd) => simd.vectors().vectorize(task),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonBf16(simd) => simd.vectors().vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2Vnni(simd) => simd.vectors().vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni(simd) => simd.base().vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16(simd) => simd.base().vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx(simd) => simd.base().vectorize(task),
        }
    }

    /// As [`Self::run`], with dot products of bytes where the kernel has them.
    pub(super) fn run_with_byte_dots<T: Task>(self, task: T) -> T::Output {
        match self.0 {
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonDotprod(simd) => simd.vectorize(task),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonBf16(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2Vnni(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16(simd) => simd.bytes().vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx(simd) => simd.vectorize(task),
            _ => self.run(task),
        }
    }

    /// As [`Self::run`], with dot products of bf16 where the kernel has them.
    pub(super) fn run_with_bf16_dots<T: Task>(self, task: T) -> T::Output {
        match self.0 {
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonBf16(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx(simd) => simd.vectorize(task),
            _ => self.run(task),
        }
    }

    /// As [`Self::run`], for a kernel with products of whole tiles.
    pub(super) fn run_with_tiles<T: Task>(
        self,
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "only AMX has them"))] task: T,
    ) -> T::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx(simd) => simd.vectorize(task),
            _ => unreachable!("{} has no products of whole tiles", self.setting()),
        }
    }
}

/// [`Simd::FUSES`] of a kernel.
struct Fuses;

impl Task for Fuses {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        S::FUSES
    }
}

/// Counts the changes of arithmetic that gave a precision other last bits: what was computed before one is no part of what is
/// computed after it, in a cache or an unfinished run.
fn revision(precision: Precision) -> &'static str {
    match precision {
        // GELU before bf16 and bytes by a polynomial of its own, and attention by tiles in bf16.
        Precision::Bf16 | Precision::Int8 => "-r2",
        Precision::F32 | Precision::F16 => "",
    }
}

/// Whether CPUID names Intel as the maker.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

/// The kernel that a setting asks for; the fastest without one.
pub(super) fn select(setting: Option<&str>) -> Result<Kernel, KernelError> {
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
    let setting = std::env::var_os(KERNEL_VARIABLE).filter(|value| !value.is_empty());
    let setting = setting.map(|v| v.to_string_lossy().into_owned());
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
