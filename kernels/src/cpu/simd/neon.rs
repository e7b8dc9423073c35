//! NEON by way of `wide`: 4 lanes, 32 registers, fused multiply-add.
//!
//! Every aarch64 machine has NEON, so there is nothing to detect but dot products. On other targets `wide` has the same
//! types over what they offer; unit tests run this file there, without dot products, so that it is tested without
//! such a machine.

use std::marker::PhantomData;

use wide::bytemuck::cast;
use wide::{f32x4, i16x8, i32x4, u16x8, u32x4};

use super::dots::{Dots, NoDots};
#[cfg(target_arch = "aarch64")]
use super::neon_dots;
use super::{LINE, Simd, Task, bf16_words};

/// Proof that the machine has the dot products of `D`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Neon<D = NoDots>(PhantomData<D>);

impl<D: Dots> Neon<D> {
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "aarch64")]
        let (bytes, bf16) = (neon_dots::has_bytes(), neon_dots::has_bf16());
        #[cfg(not(target_arch = "aarch64"))]
        let (bytes, bf16) = (false, false);
        ((bytes || !D::BYTES) && (bf16 || !D::BF16)).then_some(Self(PhantomData))
    }
}

impl<D: Dots> Simd for Neon<D> {
    type V = f32x4;
    type Vectors = Neon;

    const LANES: usize = 4;

    /// As for AVX-512: of 32 registers 5 stay free.
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn vectors(self) -> Neon {
        Neon(PhantomData)
    }

    #[inline]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        #[cfg(target_arch = "aarch64")]
        {
            #[target_feature(enable = "dotprod")]
            fn bytes<T: Task, S: Simd>(simd: S, task: T) -> T::Output {
                task.run(simd)
            }
            #[target_feature(enable = "dotprod,i8mm,bf16")]
            fn all<T: Task, S: Simd>(simd: S, task: T) -> T::Output {
                task.run(simd)
            }
            if D::BF16 {
                // SAFETY: a value of `Neon<D>` exists only where `detect` found the instructions.
                return unsafe { all(self, task) };
            } else if D::BYTES {
                // SAFETY: as above.
                return unsafe { bytes(self, task) };
            }
        }
        task.run(self)
    }

    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> f32x4 {
        // SAFETY: the caller proves that the memory is readable; alignment is not assumed.
        unsafe { from.cast::<f32x4>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, v: f32x4, to: *mut f32) {
        // SAFETY: the caller proves that the memory is writable; alignment is not assumed.
        unsafe { to.cast::<f32x4>().write_unaligned(v) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> f32x4 {
        f32x4::splat(x)
    }

    #[inline(always)]
    fn add(self, a: f32x4, b: f32x4) -> f32x4 {
        a + b
    }

    #[inline(always)]
    fn sub(self, a: f32x4, b: f32x4) -> f32x4 {
        a - b
    }

    #[inline(always)]
    fn mul(self, a: f32x4, b: f32x4) -> f32x4 {
        a * b
    }

    #[inline(always)]
    fn div(self, a: f32x4, b: f32x4) -> f32x4 {
        a / b
    }

    #[inline(always)]
    fn mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn mul_sub(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        a.mul_add(b, -c)
    }

    #[inline(always)]
    fn max(self, a: f32x4, b: f32x4) -> f32x4 {
        // `wide`'s own gives the number where one is NaN.
        self.select_less(b, a, a, b)
    }

    #[inline(always)]
    fn min(self, a: f32x4, b: f32x4) -> f32x4 {
        self.select_less(a, b, a, b)
    }

    #[inline(always)]
    fn abs(self, a: f32x4) -> f32x4 {
        a.abs()
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: f32x4, sign: f32x4) -> f32x4 {
        let mask = f32x4::splat(-0.0);
        (mask & sign) | magnitude.abs()
    }

    #[inline(always)]
    fn select_less(self, a: f32x4, b: f32x4, then: f32x4, otherwise: f32x4) -> f32x4 {
        a.simd_lt(b).bitselect(then, otherwise)
    }

    #[inline(always)]
    fn dot_bf16(self, a: f32x4, b: f32x4, sum: f32x4) -> f32x4 {
        #[cfg(target_arch = "aarch64")]
        if D::BF16 {
            // SAFETY: a value of `Neon<D>` exists only where `detect` found the instructions.
            return unsafe { neon_dots::bf16(a, b, sum) };
        }
        let low = |v: f32x4| -> f32x4 { cast(cast::<f32x4, u32x4>(v) << 16) };
        let high = |v: f32x4| -> f32x4 { cast(cast::<f32x4, u32x4>(v) & u32x4::splat(0xffff_0000)) };
        self.mul_add(high(a), high(b), self.mul_add(low(a), low(b), sum))
    }

    #[inline(always)]
    fn dot_u8_i8(self, a: f32x4, b: f32x4, sum: f32x4) -> f32x4 {
        #[cfg(target_arch = "aarch64")]
        if D::BF16 {
            // SAFETY: a value of `Neon<D>` exists only where `detect` found the instructions.
            return unsafe { neon_dots::unsigned_signed(a, b, sum) };
        } else if D::BYTES {
            // SAFETY: as above.
            return unsafe { neon_dots::unsigned_signed_by_halves(a, b, sum) };
        }
        // In 16 bits, even and odd bytes apart; no sum can overflow.
        let (a, b): (u16x8, i16x8) = (cast(a), cast(b));
        let even = cast::<u16x8, i16x8>(a & u16x8::splat(0xff)).dot((b << 8) >> 8);
        let odd = cast::<u16x8, i16x8>(a >> 8).dot(b >> 8);
        cast(cast::<f32x4, i32x4>(sum) + even + odd)
    }

    #[inline(always)]
    fn add_i32(self, a: f32x4, b: f32x4) -> f32x4 {
        cast(cast::<f32x4, i32x4>(a) + cast::<f32x4, i32x4>(b))
    }

    #[inline(always)]
    fn i32_to_f32(self, v: f32x4) -> f32x4 {
        cast::<f32x4, i32x4>(v).round_float()
    }

    #[inline(always)]
    fn pack_bf16(self, from: &[f32; 2 * LINE], to: &mut [f32; LINE]) {
        #[cfg(target_arch = "aarch64")]
        if D::BF16 {
            for (to, from) in to.as_chunks_mut::<4>().0.iter_mut().zip(from.as_chunks::<8>().0) {
                let halves = from.as_chunks::<4>().0;
                // SAFETY: a value of `Neon<D>` exists only where `detect` found the instructions.
                *to = unsafe { neon_dots::to_bf16(halves[0].into(), halves[1].into()) }.to_array();
            }
            return;
        }
        bf16_words(from, to);
    }

    #[inline(always)]
    fn scale(self, x: f32x4, n: f32x4) -> f32x4 {
        // 2^n itself may lie outside the exponents of f32 where the result does not: two factors.
        let large = f32x4::splat(12_582_912.0);
        let half = (n * f32x4::splat(0.5) + large) - large;
        let power = |n: f32x4| -> f32x4 {
            // The sum's low mantissa bits hold n + 127, which is the exponent of 2^n.
            cast(cast::<f32x4, u32x4>(n + f32x4::splat(8_388_608.0 + 127.0)) << 23)
        };
        x * power(half) * power(n - half)
    }
}
