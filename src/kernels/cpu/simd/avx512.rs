//! AVX-512: 16 lanes, 32 registers.

use std::arch::x86_64::*;

use super::{Simd, Task};

/// Proof that the machine has AVX-512F (which includes AVX2 and FMA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Avx512(());

impl Avx512 {
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma");
        found.then_some(Self(()))
    }
}

/// An intrinsic called from a method of [`Avx512`].
macro_rules! avx512 {
    ($call:expr) => {
        // SAFETY: a value of `Avx512` exists only where `detect` found the instructions.
        unsafe { $call }
    };
}

impl Simd for Avx512 {
    type V = __m512;

    const LANES: usize = 16;

    /// 12 x 2 vectors of sums, 2 of weights and a broadcast leave 5 of 32 registers free.
    const TILE_ROWS: usize = 12;

    #[inline]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "avx512f,avx2,fma")]
        fn compiled<T: Task>(simd: Avx512, task: T) -> T::Output {
            task.run(simd)
        }
        avx512!(compiled(self, task))
    }

    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> __m512 {
        // SAFETY: the token proves the instructions, the caller that the memory is readable.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, v: __m512, to: *mut f32) {
        // SAFETY: the token proves the instructions, the caller that the memory is writable.
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        avx512!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn mul_sub(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fmsub_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        avx512!(_mm512_abs_ps(a))
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: __m512, sign: __m512) -> __m512 {
        avx512!({
            let mask = _mm512_set1_epi32(i32::MIN);
            let sign = _mm512_and_si512(mask, _mm512_castps_si512(sign));
            let magnitude = _mm512_andnot_si512(mask, _mm512_castps_si512(magnitude));
            _mm512_castsi512_ps(_mm512_or_si512(sign, magnitude))
        })
    }

    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512 {
        avx512!({
            let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
            _mm512_mask_blend_ps(less, otherwise, then)
        })
    }

    #[inline(always)]
    fn scale(self, x: __m512, n: __m512) -> __m512 {
        avx512!(_mm512_scalef_ps(x, n))
    }
}
