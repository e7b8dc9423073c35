//! AVX2 with FMA: 8 lanes, 16 registers; and AVX-VNNI beside it.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::dots::{Dots, NoDots};
use super::{LINE, Simd, Task, u8_words};

/// Proof that the machine has AVX2 and FMA, and the dot products of `D`, which has none of bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Avx2<D = NoDots>(PhantomData<D>);

impl<D: Dots> Avx2<D> {
    pub fn detect() -> Option<Self> {
        const { assert!(!D::BF16, "no machine has them in this width alone") };
        let base = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        (base && (!D::BYTES || is_x86_feature_detected!("avxvnni"))).then_some(Self(PhantomData))
    }
}

/// A word of four bytes of zero, each less 128: what dot products in 16 bits take.
const ZEROS: u32 = 0x8080_8080;

/// An intrinsic called from a method of [`Avx2`].
macro_rules! avx2 {
    ($call:expr) => {
        // SAFETY: a value of `Avx2` exists only where `detect` found the instructions.
        unsafe { $call }
    };
}

impl<D: Dots> Simd for Avx2<D> {
    type V = __m256;
    type Vectors = Avx2;

    const LANES: usize = 8;

    /// 4 x 2 vectors of a group's sums, 4 of weights (halves of bf16, signs and magnitudes of bytes) and a broadcast; of 16 registers that
    /// leaves 3, so the compiler keeps totals in memory. Dot products of bytes take weights as they are and 5 cycles, two begun in
    /// each, so that 6 x 2 sums fit and are needed.
    const TILE_ROWS: usize = if D::BYTES { 6 } else { 4 };

    #[inline(always)]
    fn vectors(self) -> Avx2 {
        Avx2(PhantomData)
    }

    #[inline]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "avx2,fma")]
        fn base<T: Task, S: Simd>(simd: S, task: T) -> T::Output {
            task.run(simd)
        }
        #[target_feature(enable = "avx2,fma,avxvnni")]
        fn bytes<T: Task, S: Simd>(simd: S, task: T) -> T::Output {
            task.run(simd)
        }
        if D::BYTES {
            avx2!(bytes(self, task))
        } else {
            avx2!(base(self, task))
        }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> __m256 {
        // SAFETY: the token proves the instructions, the caller that the memory is readable.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, v: __m256, to: *mut f32) {
        // SAFETY: the token proves the instructions, the caller that the memory is writable.
        unsafe { _mm256_storeu_ps(to, v) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const f32) {
        // To L2: the chunk that is being multiplied has half of L1.
        avx2!(_mm_prefetch::<_MM_HINT_T1>(at.cast()));
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        avx2!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn mul_sub(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fmsub_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        avx2!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: __m256, sign: __m256) -> __m256 {
        avx2!({
            let mask = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_and_ps(mask, sign), _mm256_andnot_ps(mask, magnitude))
        })
    }

    #[inline(always)]
    fn select_less(self, a: __m256, b: __m256, then: __m256, otherwise: __m256) -> __m256 {
        avx2!(_mm256_blendv_ps(otherwise, then, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)))
    }

    #[inline(always)]
    fn dot_bf16(self, a: __m256, b: __m256, sum: __m256) -> __m256 {
        avx2!({
            let low = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(v)));
            let high = |v| _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(-0x1_0000)));
            _mm256_fmadd_ps(high(a), high(b), _mm256_fmadd_ps(low(a), low(b), sum))
        })
    }

    #[inline(always)]
    fn dot_u8_i8(self, a: __m256, b: __m256, sum: __m256) -> __m256 {
        avx2!({
            let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
            if D::BYTES {
                return _mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(_mm256_castps_si256(sum), a, b));
            }
            // `_mm256_maddubs_epi16` adds two products in 16 bits and saturates. With a' = a - 128, from -128 to 127, |b| a' fits.
            // A product by a negative b takes the complement of a', so -1 - a' for -a', which costs no instruction more.
            let negative = _mm256_cmpgt_epi8(_mm256_setzero_si256(), b);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_xor_si256(a, negative));
            let quads = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), quads))
        })
    }

    const DOTS_FALL_SHORT: bool = !D::BYTES;

    #[inline(always)]
    fn shortfall_u8_i8(self, b: __m256, sum: __m256) -> __m256 {
        if D::BYTES {
            return sum;
        }
        // What is to be 0 for bytes of zero.
        let found = self.dot_u8_i8(self.splat(f32::from_bits(ZEROS)), b, self.splat(0.0));
        avx2!(_mm256_castsi256_ps(_mm256_sub_epi32(
            _mm256_castps_si256(sum),
            _mm256_castps_si256(found)
        )))
    }

    #[inline(always)]
    fn pack_u8(self, from: &[f32; 4 * LINE], least: f32, factor: f32, to: &mut [f32; LINE]) {
        u8_words(from, least, factor, to);
        if !D::BYTES {
            to.iter_mut()
                .for_each(|word| *word = f32::from_bits(word.to_bits() ^ ZEROS));
        }
    }

    #[inline(always)]
    fn add_i32(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_castsi256_ps(_mm256_add_epi32(
            _mm256_castps_si256(a),
            _mm256_castps_si256(b)
        )))
    }

    #[inline(always)]
    fn i32_to_f32(self, v: __m256) -> __m256 {
        avx2!(_mm256_cvtepi32_ps(_mm256_castps_si256(v)))
    }

    #[inline(always)]
    fn scale(self, x: __m256, n: __m256) -> __m256 {
        avx2!({
            // 2^n itself may lie outside the exponents of f32 where the result does not: two factors.
            let half = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
                n,
                _mm256_set1_ps(0.5),
            ));
            let power = |n| {
                // The addend's low mantissa bits now hold n + 127, which is the exponent of 2^n.
                let biased = _mm256_add_ps(n, _mm256_set1_ps(8_388_608.0 + 127.0));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(biased)))
            };
            _mm256_mul_ps(_mm256_mul_ps(x, power(half)), power(_mm256_sub_ps(n, half)))
        })
    }
}
