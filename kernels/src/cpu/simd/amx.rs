//! AMX: products of whole tiles, 16 rows of 64 bytes each, sixteen times as many multiplications of bf16 a cycle as AVX-512 has of f32.
//!
//! Tiles are registers that the compiler does not know: each product is one block of assembly that
//! begins with zeros and ends with a store. What lies outside is their configuration, which a thread loads
//! when a task begins ([`Configured`]) and gives up when it ends, so that no other task pays for saving them.

use std::arch::asm;
use std::marker::PhantomData;

use super::{LINE, MAX_LANES, Operands, TileProduct, Tiles};

/// Bytes from one line of 16 words to the next in the left operand.
const LINE_BYTES: usize = LINE * size_of::<f32>();

/// Bytes from one row of a panel, or of the product, to the next.
const PANEL_BYTES: usize = 2 * MAX_LANES * size_of::<f32>();

/// What the instruction `ldtilecfg` loads: all eight tiles have 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_row: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_of_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Whether the machine has AMX for bf16 and bytes and the system lets this process use it, which it is asked for.
pub(super) fn is_usable() -> bool {
    static USABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *USABLE.get_or_init(|| has_instructions() && is_permitted())
}

/// Intel's manual, volume 2, CPUID: leaf 7 has AMX-BF16, AMX-TILE and AMX-INT8 in bits 22, 24 and 25 of EDX; leaf 1
/// says in bit 27 of ECX whether XGETBV may be asked, whose bits 17 and 18 are the system's support.
fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    const AMX: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const TILES: u64 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & AMX != AMX || __cpuid(1).ecx & (1 << 27) == 0 {
        return false;
    }
    #[target_feature(enable = "xsave")]
    fn enabled() -> u64 {
        // SAFETY: the register 0 exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: the bit that says so has just been seen.
    (unsafe { enabled() }) & TILES == TILES
}

/// Linux saves tiles only for processes that ask; threads that begin later have the permission too.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// While it lives, this thread's tiles are configured.
pub(super) struct Configured {
    /// Tiles are the thread's own.
    not_send: PhantomData<*const ()>,
}

impl Configured {
    /// # Safety
    /// [`is_usable`] must have said so.
    pub unsafe fn new() -> Self {
        // SAFETY: the machine has the instruction, and it reads 64 bytes that are there.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, preserves_flags, readonly));
        }
        Self { not_send: PhantomData }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: the machine has the instruction, since this could be made.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// See [`super::Simd::multiply_tiles`].
///
/// # Safety
/// As stated there. This thread's tiles must be configured.
#[inline(always)]
pub(super) unsafe fn multiply(tiles: Tiles, to: &mut TileProduct) {
    let Tiles {
        operands,
        rows,
        blocks,
        left,
        right,
        ahead,
    } = tiles;
    // Four sums, tmm0 to tmm3, of two tiles of the left operand (tmm4, tmm5) and two of the right (tmm6, tmm7): as many
    // products as it takes until the first sum is ready for another.
    macro_rules! products {
        ($multiply:literal, upper) => {
            concat!($multiply, " tmm0, tmm4, tmm6\n", $multiply, " tmm1, tmm4, tmm7")
        };
        ($multiply:literal, lower) => {
            concat!($multiply, " tmm2, tmm5, tmm6\n", $multiply, " tmm3, tmm5, tmm7")
        };
    }
    macro_rules! sums {
        ($steps:expr, $($step:expr,)*) => {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                $($step,)*
                "tilestored [{to} + {row}], tmm0",
                "tilestored [{to} + {row} + 64], tmm1",
                "tilestored [{to} + {row} + 2048], tmm2",
                "tilestored [{to} + {row} + 2112], tmm3",
                left = inout(reg) left => _,
                right = inout(reg) right => _,
                ahead = inout(reg) ahead => _,
                steps = inout(reg) $steps => _,
                block = in(reg) rows * LINE_BYTES,
                line = in(reg) LINE_BYTES,
                row = in(reg) PANEL_BYTES,
                to = in(reg) to.0.as_mut_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            )
        };
    }
    // A step's tiles are loaded as soon as the last products of the step before have taken theirs: those that come
    // from L2 are then on their way while products are computed.
    macro_rules! sums_of {
        ($multiply:literal) => {
            sums!(
                blocks,
                "tileloadd tmm6, [{right} + {row}]",
                "tileloaddt1 tmm4, [{left} + {line}]",
                "tileloadd tmm7, [{right} + {row} + 64]",
                "tileloaddt1 tmm5, [{left} + {line} + 1024]",
                "dec {steps}",
                "jz 3f",
                "2:",
                "add {left}, {block}",
                "add {right}, 2048",
                products!($multiply, upper),
                "tileloaddt1 tmm4, [{left} + {line}]",
                "prefetcht1 [{ahead}]",
                "prefetcht1 [{ahead} + 64]",
                "add {ahead}, 128",
                concat!($multiply, " tmm2, tmm5, tmm6"),
                "tileloadd tmm6, [{right} + {row}]",
                concat!($multiply, " tmm3, tmm5, tmm7"),
                "tileloadd tmm7, [{right} + {row} + 64]",
                "tileloaddt1 tmm5, [{left} + {line} + 1024]",
                "dec {steps}",
                "jnz 2b",
                "3:",
                products!($multiply, upper),
                "prefetcht1 [{ahead}]",
                "prefetcht1 [{ahead} + 64]",
                products!($multiply, lower),
            )
        };
    }
    // SAFETY: the caller states that the tiles are configured, and that all that is loaded and stored here is there;
    // asking for memory that is not there does nothing.
    unsafe {
        match operands {
            Operands::Bf16 => sums_of!("tdpbf16ps"),
            Operands::Bytes => sums_of!("tdpbusd"),
            // With x = h + m + l on either side, the small products first, and each tile loaded as seldom as can be.
            Operands::SplitF32 => sums!(
                blocks / 3,
                "tileloadd tmm6, [{right} + {row} + 4096]",
                "tileloaddt1 tmm4, [{left} + {line}]",
                "tileloadd tmm7, [{right} + {row} + 4160]",
                "tileloaddt1 tmm5, [{left} + {line} + 1024]",
                "2:",
                products!("tdpbf16ps", upper), // h l
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{right} + {row} + 2048]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm7, [{right} + {row} + 2112]",
                "prefetcht1 [{ahead}]",
                "prefetcht1 [{ahead} + 64]",
                "prefetcht1 [{ahead} + 128]",
                "prefetcht1 [{ahead} + 192]",
                products!("tdpbf16ps", upper), // h m
                "add {left}, {block}",
                "tileloaddt1 tmm4, [{left} + {line}]",
                products!("tdpbf16ps", lower),
                "tileloaddt1 tmm5, [{left} + {line} + 1024]",
                products!("tdpbf16ps", upper), // m m
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{right} + {row}]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm7, [{right} + {row} + 64]",
                "prefetcht1 [{ahead} + 256]",
                "prefetcht1 [{ahead} + 320]",
                "prefetcht1 [{ahead} + 384]",
                "prefetcht1 [{ahead} + 448]",
                products!("tdpbf16ps", upper), // m h
                "add {left}, {block}",
                "tileloaddt1 tmm4, [{left} + {line}]",
                products!("tdpbf16ps", lower),
                "tileloaddt1 tmm5, [{left} + {line} + 1024]",
                products!("tdpbf16ps", upper), // l h
                "sub {left}, {block}",
                "sub {left}, {block}",
                "tileloaddt1 tmm4, [{left} + {line}]",
                products!("tdpbf16ps", lower),
                "tileloaddt1 tmm5, [{left} + {line} + 1024]",
                "prefetcht1 [{ahead} + 512]",
                "prefetcht1 [{ahead} + 576]",
                "prefetcht1 [{ahead} + 640]",
                "prefetcht1 [{ahead} + 704]",
                "add {ahead}, 768",
                products!("tdpbf16ps", upper), // h h
                "dec {steps}",
                "jz 3f",
                "lea {left}, [{left} + 2*{block}]",
                "add {left}, {block}",
                "add {right}, 6144",
                "tileloaddt1 tmm4, [{left} + {line}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{right} + {row} + 4096]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm7, [{right} + {row} + 4160]",
                "tileloaddt1 tmm5, [{left} + {line} + 1024]",
                "jmp 2b",
                "3:",
                products!("tdpbf16ps", lower),
            ),
            Operands::None => unreachable!("there are no tiles of such words"),
        }
    }
}
