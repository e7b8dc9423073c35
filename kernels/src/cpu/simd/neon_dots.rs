//! Dot products of aarch64 that not every machine has. The compiler's own functions for them are not stable yet,
//! so each is one instruction of assembly; with `pure`, the compiler may still move and merge them.
//!
//! Source: Arm Architecture Reference Manual, C7.2 (`SDOT`, `USDOT`, `BFDOT`, `BFCVTN`, each "(vector)").

use std::arch::aarch64::{float32x4_t, uint8x16_t, vandq_u8, vdupq_n_u8, veorq_u8, vnegq_s8};
use std::arch::aarch64::{vreinterpretq_s8_u8, vreinterpretq_u8_s8};
use std::arch::{asm, is_aarch64_feature_detected};
use std::mem::transmute;

use wide::f32x4;

/// Of signed bytes.
pub fn has_bytes() -> bool {
    is_aarch64_feature_detected!("dotprod")
}

/// Of bf16, and of unsigned with signed bytes.
pub fn has_bf16() -> bool {
    has_bytes() && is_aarch64_feature_detected!("i8mm") && is_aarch64_feature_detected!("bf16")
}

/// `sum + a0 b0 + a1 b1` for words of two bf16; denormals count as 0.
///
/// # Safety
/// The machine must have [`has_bf16`], and the caller be compiled for it.
#[inline(always)]
pub unsafe fn bf16(a: f32x4, b: f32x4, sum: f32x4) -> f32x4 {
    let (a, b, mut sum) = (lanes(a), lanes(b), lanes(sum));
    // SAFETY: the caller states that the machine has the instruction, which touches these registers alone.
    unsafe {
        asm!("bfdot {sum:v}.4s, {a:v}.8h, {b:v}.8h", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    words(sum)
}

/// `sum + a0 b0 + … + a3 b3` for words of four u8 and of four i8, sums in i32.
///
/// # Safety
/// As [`bf16`].
#[inline(always)]
pub unsafe fn unsigned_signed(a: f32x4, b: f32x4, sum: f32x4) -> f32x4 {
    let (a, b, mut sum) = (lanes(a), lanes(b), lanes(sum));
    // SAFETY: the caller states that the machine has the instruction, which touches these registers alone.
    unsafe {
        asm!("usdot {sum:v}.4s, {a:v}.16b, {b:v}.16b", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    words(sum)
}

/// As [`unsigned_signed`], with signed bytes alone: a u8 is its low 7 bits less what its highest means in an i8, -128.
/// No i8 of `b` may be -128.
///
/// # Safety
/// The machine must have [`has_bytes`], and the caller be compiled for it.
#[inline(always)]
pub unsafe fn unsigned_signed_by_halves(a: f32x4, b: f32x4, sum: f32x4) -> f32x4 {
    // SAFETY: registers of 16 bytes of any pattern on both sides; these functions are of every aarch64 machine.
    let (low, high, b, negative) = unsafe {
        let (a, b) = (transmute::<f32x4, uint8x16_t>(a), transmute::<f32x4, uint8x16_t>(b));
        let low = vandq_u8(a, vdupq_n_u8(0x7f));
        let negative = vreinterpretq_u8_s8(vnegq_s8(vreinterpretq_s8_u8(b)));
        (low, veorq_u8(a, low), b, negative)
    };
    // SAFETY: the caller states that the machine has the instruction.
    unsafe { signed(high, negative, signed(low, b, sum)) }
}

/// # Safety
/// As [`unsigned_signed_by_halves`].
#[inline(always)]
unsafe fn signed(a: uint8x16_t, b: uint8x16_t, sum: f32x4) -> f32x4 {
    let mut sum = lanes(sum);
    // SAFETY: the caller states that the machine has the instruction, which touches these registers alone.
    unsafe {
        asm!("sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    words(sum)
}

/// Words of two bf16 each of the eight values, rounded to nearest even.
///
/// # Safety
/// As [`bf16`].
#[inline(always)]
pub unsafe fn to_bf16(first: f32x4, second: f32x4) -> f32x4 {
    let (first, second) = (lanes(first), lanes(second));
    let mut both: float32x4_t;
    // SAFETY: the caller states that the machine has the instructions, which touch these registers alone. The first one
    // writes before the second reads its operand.
    unsafe {
        asm!("bfcvtn {both:v}.4h, {first:v}.4s", "bfcvtn2 {both:v}.8h, {second:v}.4s",
            both = out(vreg) both, first = in(vreg) first, second = in(vreg) second,
            options(pure, nomem, nostack, preserves_flags));
    }
    words(both)
}

#[inline(always)]
fn lanes(v: f32x4) -> float32x4_t {
    // SAFETY: both are 16 bytes, any pattern of which is a value.
    unsafe { transmute(v) }
}

#[inline(always)]
fn words(v: float32x4_t) -> f32x4 {
    // SAFETY: both are 16 bytes, any pattern of which is a value.
    unsafe { transmute(v) }
}
