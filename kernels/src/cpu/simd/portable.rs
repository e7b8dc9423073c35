//! Plain arrays of 4 lanes, which compilers turn into the vectors that every target has.

use super::{Simd, Task};

/// Needs nothing of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Portable;

type V = [f32; 4];

impl Portable {
    /// Whether `f32::mul_add` is an instruction where this is compiled for; elsewhere it is a call that costs tens of cycles.
    pub(in super::super) const HAS_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
}

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Simd for Portable {
    type V = V;
    type Vectors = Self;

    const LANES: usize = 4;

    /// 4 x 2 vectors of a group's sums, 2 of weights, a broadcast and a product: SSE has 16 registers.
    const TILE_ROWS: usize = 4;

    const TOTALS_IN_REGISTERS: bool = false;

    #[inline(always)]
    fn vectors(self) -> Self {
        self
    }

    #[inline]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        task.run(self)
    }

    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> V {
        // SAFETY: the caller proves that the memory is readable; alignment is not assumed.
        unsafe { from.cast::<V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, v: V, to: *mut f32) {
        // SAFETY: the caller proves that the memory is writable; alignment is not assumed.
        unsafe { to.cast::<V>().write_unaligned(v) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; 4]
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        if Self::HAS_FMA {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }

    #[inline(always)]
    fn mul_sub(self, a: V, b: V, c: V) -> V {
        self.mul_add(a, b, c.map(|c| -c))
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: V) -> V {
        a.map(f32::abs)
    }

    #[inline(always)]
    fn copy_sign(self, magnitude: V, sign: V) -> V {
        zip(magnitude, sign, f32::copysign)
    }

    #[inline(always)]
    fn select_less(self, a: V, b: V, then: V, otherwise: V) -> V {
        std::array::from_fn(|i| if a[i] < b[i] { then[i] } else { otherwise[i] })
    }

    #[inline(always)]
    fn dot_bf16(self, a: V, b: V, sum: V) -> V {
        let low = |v: V| v.map(|v| f32::from_bits(v.to_bits() << 16));
        let high = |v: V| v.map(|v| f32::from_bits(v.to_bits() & 0xffff_0000));
        self.mul_add(high(a), high(b), self.mul_add(low(a), low(b), sum))
    }

    #[inline(always)]
    fn dot_u8_i8(self, a: V, b: V, sum: V) -> V {
        let dot = |a: f32, b: f32| {
            let (a, b) = (a.to_bits().to_le_bytes(), b.to_bits().to_le_bytes());
            let term = |i: usize| i32::from(a[i]) * i32::from(b[i].cast_signed());
            f32::from_bits((term(0) + term(1) + term(2) + term(3)).cast_unsigned())
        };
        self.add_i32(sum, zip(a, b, dot))
    }

    #[inline(always)]
    fn add_i32(self, a: V, b: V) -> V {
        zip(a, b, |a, b| f32::from_bits(a.to_bits().wrapping_add(b.to_bits())))
    }

    #[inline(always)]
    fn i32_to_f32(self, v: V) -> V {
        v.map(|v| v.to_bits().cast_signed() as f32)
    }

    #[inline(always)]
    fn scale(self, x: V, n: V) -> V {
        // 2^n itself may lie outside the exponents of f32 where the result does not: two factors.
        zip(x, n, |x, n| {
            let half = (0.5 * n + 12_582_912.0) - 12_582_912.0;
            x * power_of_two(half) * power_of_two(n - half)
        })
    }
}

/// `2^n` for whole `n` from -126 to 127.
#[inline(always)]
fn power_of_two(n: f32) -> f32 {
    // The sum's low mantissa bits hold n + 127, which is the exponent of 2^n.
    f32::from_bits((n + (8_388_608.0 + 127.0)).to_bits() << 23)
}
