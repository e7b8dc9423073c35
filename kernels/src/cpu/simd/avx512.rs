//! AVX-512: 16 lanes, 32 registers; and AMX beside it.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::transmute;

use super::amx;
use super::dots::{Bf16Dots, ByteDots, Dots, NoDots};
use super::{LINE, Simd, Task, TileProduct, Tiles, WHOLE_TILE_ROWS};

/// Proof that the machine has AVX-512F and -BW (which include AVX2 and FMA), and the dot products of `D`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Avx512<D = NoDots>(PhantomData<D>);

impl<D: Dots> Avx512<D> {
    pub fn detect() -> Option<Self> {
        let base = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        let found = base
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && (!D::BYTES || is_x86_feature_detected!("avx512vnni"))
            && (!D::BF16 || is_x86_feature_detected!("avx512bf16"))
            && (!D::TILES || amx::is_usable());
        found.then_some(Self(PhantomData))
    }

    /// The same without the dot products.
    pub fn base(self) -> Avx512 {
        Avx512(PhantomData)
    }
}

impl Avx512<Bf16Dots> {
    /// The same with the dot products of bytes alone.
    pub fn bytes(self) -> Avx512<ByteDots> {
        Avx512(PhantomData)
    }
}

/// An intrinsic called from a method of [`Avx512`].
macro_rules! avx512 {
    ($call:expr) => {
        // SAFETY: a value of `Avx512` exists only where `detect` found the instructions.
        unsafe { $call }
    };
}

impl<D: Dots> Simd for Avx512<D> {
    type V = __m512;
    type Vectors = Avx512;

    const LANES: usize = 16;

    /// 6 x 2 vectors of a group's sums, as many totals, 2 of weights and a broadcast leave 5 of 32 registers free; 6 x 4
    /// of sums, 4 of weights and a broadcast leave 3.
    const TILE_ROWS: usize = if D::TILES { WHOLE_TILE_ROWS } else { 6 };

    const PAIRS: bool = !D::TILES;

    const BYTE_DOTS: bool = D::BYTES;

    const TILES: bool = D::TILES;

    const FUSES: bool = true;

    #[inline(always)]
    fn vectors(self) -> Avx512 {
        self.base()
    }

    #[inline]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
        fn base<T: Task, S: Simd>(simd: S, task: T) -> T::Output {
            task.run(simd)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
        fn bytes<T: Task, S: Simd>(simd: S, task: T) -> T::Output {
            task.run(simd)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bf16,avx2,fma")]
        fn all<T: Task, S: Simd>(simd: S, task: T) -> T::Output {
            task.run(simd)
        }
        if D::TILES {
            // SAFETY: a value of `Avx512<WholeTiles>` exists only where AMX was found and its use is allowed.
            let _configured = unsafe { amx::Configured::new() };
            avx512!(all(self, task))
        } else if D::BF16 {
            avx512!(all(self, task))
        } else if D::BYTES {
            avx512!(bytes(self, task))
        } else {
            avx512!(base(self, task))
        }
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
    fn prefetch(self, at: *const f32) {
        // Reads nothing, so the address may be anything.
        avx512!(_mm_prefetch::<_MM_HINT_T1>(at.cast()));
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
    fn largest(self, v: __m512) -> f32 {
        avx512!(_mm512_reduce_max_ps(v))
    }

    #[inline(always)]
    fn smallest(self, v: __m512) -> f32 {
        avx512!(_mm512_reduce_min_ps(v))
    }

    #[inline(always)]
    fn dot_bf16(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        if D::BF16 {
            // SAFETY: the token is one of a machine with AVX512-BF16; both types are 64 bytes of any pattern.
            return unsafe {
                _mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b))
            };
        }
        avx512!({
            let low = |v| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(v)));
            let mask = _mm512_set1_epi32(-0x1_0000);
            let high = |v| _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), mask));
            _mm512_fmadd_ps(high(a), high(b), _mm512_fmadd_ps(low(a), low(b), sum))
        })
    }

    #[inline(always)]
    fn dot_u8_i8(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        avx512!({
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            let sum = _mm512_castps_si512(sum);
            if D::BYTES {
                return _mm512_castsi512_ps(_mm512_dpbusd_epi32(sum, a, b));
            }
            // In 16 bits, even and odd bytes apart: `_mm512_maddubs_epi16` is shorter, but saturates.
            let even = _mm512_madd_epi16(
                _mm512_and_si512(a, _mm512_set1_epi16(0xff)),
                _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b)),
            );
            let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(a), _mm512_srai_epi16::<8>(b));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_add_epi32(sum, even), odd))
        })
    }

    #[inline(always)]
    unsafe fn multiply_tiles(self, tiles: Tiles, to: &mut TileProduct) {
        // SAFETY: the caller states what is valid, that TILES holds, so that this value is proof of AMX, and that this is
        // within `vectorize`, which has configured this thread's tiles.
        unsafe { amx::multiply(tiles, to) }
    }

    #[inline(always)]
    fn add_i32(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_castsi512_ps(_mm512_add_epi32(
            _mm512_castps_si512(a),
            _mm512_castps_si512(b)
        )))
    }

    #[inline(always)]
    fn i32_to_f32(self, v: __m512) -> __m512 {
        avx512!(_mm512_cvtepi32_ps(_mm512_castps_si512(v)))
    }

    #[inline(always)]
    fn pack_bf16(self, from: &[f32; 2 * LINE], to: &mut [f32; LINE]) {
        // SAFETY: the token proves the instructions; `from` and `to` have room for two vectors and one.
        unsafe {
            let (first, second) = (_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from.as_ptr().add(LINE)));
            let words = if D::BF16 {
                transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first))
            } else {
                let half = |v| _mm512_cvtepi32_epi16(rounded_to_bf16(v));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(first)), half(second))
            };
            _mm512_storeu_ps(to.as_mut_ptr(), _mm512_castsi512_ps(words));
        }
    }

    #[inline(always)]
    fn pair_bf16(self, first: __m512, second: __m512) -> __m512 {
        avx512!({
            let words = if D::BF16 {
                // Neighbours are half a vector apart.
                const ORDER: [u16; 32] = {
                    let mut order = [0; 32];
                    let mut i = 0;
                    while i < 32 {
                        order[i] = (i / 2 + i % 2 * 16) as u16;
                        i += 1;
                    }
                    order
                };
                let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
                _mm512_permutexvar_epi16(transmute::<[u16; 32], __m512i>(ORDER), halves)
            } else {
                _mm512_or_si512(rounded_to_bf16(first), _mm512_slli_epi32::<16>(rounded_to_bf16(second)))
            };
            _mm512_castsi512_ps(words)
        })
    }

    #[inline(always)]
    fn transpose(self, from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
        assert!(from.len() >= (LINE - 1) * from_stride + LINE && to.len() >= (LINE - 1) * to_stride + LINE);
        // SAFETY: the token proves the instructions, the line above that 16 rows of 16 words are there on both sides.
        unsafe {
            let mut rows = [_mm512_setzero_ps(); LINE];
            for (j, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(from.as_ptr().add(j * from_stride));
            }
            // In each quarter of 4 lanes: 4 x 4 words of rows 4 q to 4 q + 3.
            let mut quads = [_mm512_setzero_ps(); LINE];
            for q in (0..LINE).step_by(4) {
                let low = [
                    _mm512_unpacklo_ps(rows[q], rows[q + 1]),
                    _mm512_unpacklo_ps(rows[q + 2], rows[q + 3]),
                ];
                let high = [
                    _mm512_unpackhi_ps(rows[q], rows[q + 1]),
                    _mm512_unpackhi_ps(rows[q + 2], rows[q + 3]),
                ];
                quads[q] = _mm512_shuffle_ps::<0x44>(low[0], low[1]);
                quads[q + 1] = _mm512_shuffle_ps::<0xee>(low[0], low[1]);
                quads[q + 2] = _mm512_shuffle_ps::<0x44>(high[0], high[1]);
                quads[q + 3] = _mm512_shuffle_ps::<0xee>(high[0], high[1]);
            }
            // Quarter `p` of quad `c` of each four rows is a quarter of column 4 p + c.
            for c in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(quads[c], quads[4 + c]);
                let odd = _mm512_shuffle_f32x4::<0xdd>(quads[c], quads[4 + c]);
                let other_even = _mm512_shuffle_f32x4::<0x88>(quads[8 + c], quads[12 + c]);
                let other_odd = _mm512_shuffle_f32x4::<0xdd>(quads[8 + c], quads[12 + c]);
                let columns = [
                    _mm512_shuffle_f32x4::<0x88>(even, other_even),
                    _mm512_shuffle_f32x4::<0x88>(odd, other_odd),
                    _mm512_shuffle_f32x4::<0xdd>(even, other_even),
                    _mm512_shuffle_f32x4::<0xdd>(odd, other_odd),
                ];
                for (p, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_ps(to.as_mut_ptr().add((4 * p + c) * to_stride), column);
                }
            }
        }
    }

    #[inline(always)]
    fn subtract_bf16(self, words: &[f32; LINE], from: &mut [f32; 2 * LINE]) {
        // SAFETY: the token proves the instructions; `words` and `from` have room for one vector and two.
        unsafe {
            for (half, from) in from.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
                let words = _mm256_loadu_si256(words.as_ptr().cast::<__m256i>().add(half));
                let rounded = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)));
                let rest = _mm512_sub_ps(_mm512_loadu_ps(from.as_ptr()), rounded);
                _mm512_storeu_ps(from.as_mut_ptr(), rest);
            }
        }
    }

    #[inline(always)]
    fn pack_u8(self, from: &[f32; 4 * LINE], least: f32, factor: f32, to: &mut [f32; LINE]) {
        // SAFETY: the token proves the instructions; `from` and `to` have room for four vectors and one.
        unsafe {
            let (least, factor) = (_mm512_set1_ps(least), _mm512_set1_ps(factor));
            for i in 0..4 {
                let x = _mm512_loadu_ps(from.as_ptr().add(i * LINE));
                let q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(x, least), factor));
                _mm_storeu_si128(to.as_mut_ptr().cast::<__m128i>().add(i), _mm512_cvtusepi32_epi8(q));
            }
        }
    }

    #[inline(always)]
    fn scale(self, x: __m512, n: __m512) -> __m512 {
        avx512!(_mm512_scalef_ps(x, n))
    }
}

/// The bits of a bf16 in each lane: rounded to nearest even, NaN kept (quiet).
///
/// # Safety
/// The machine must have AVX-512F.
#[inline(always)]
unsafe fn rounded_to_bf16(v: __m512) -> __m512i {
    // SAFETY: the caller states that the machine has the instructions.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        _mm512_srli_epi32::<16>(_mm512_mask_mov_epi32(rounded, nan, quiet))
    }
}
