//! Dot products of short numbers that a machine may have beyond its vectors of f32.

/// Which of them a kernel uses; part of an instruction set's type, so that tasks are compiled for each.
pub(in super::super) trait Dots: Copy {
    /// Of bytes: AVX512-VNNI or AVX-VNNI, or `FEAT_DotProd` of Arm.
    const BYTES: bool;
    /// Of bf16: AVX512-BF16, or `FEAT_BF16` with `FEAT_I8MM` (unsigned by signed bytes) of Arm. The machines that have it
    /// have those of bytes too.
    const BF16: bool;
    /// AMX-BF16 and AMX-INT8: products of whole tiles.
    #[cfg(target_arch = "x86_64")]
    const TILES: bool = false;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct NoDots;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct ByteDots;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Bf16Dots;
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct WholeTiles;

impl Dots for NoDots {
    const BYTES: bool = false;
    const BF16: bool = false;
}

impl Dots for ByteDots {
    const BYTES: bool = true;
    const BF16: bool = false;
}

impl Dots for Bf16Dots {
    const BYTES: bool = true;
    const BF16: bool = true;
}

#[cfg(target_arch = "x86_64")]
impl Dots for WholeTiles {
    const BYTES: bool = true;
    const BF16: bool = true;
    const TILES: bool = true;
}
