//! Vectors of f32 in the width that an instruction set offers.
//!
//! A lane is 32 bits: an f32, or a *word* that holds the bits of two bf16, four bytes or an i32.
//! Words are kept in memory as f32 too, whatever they mean, and only the operations that say so may
//! be applied to them.
//!
//! Kernels are written once over [`Simd`]; each instruction set implements it in its own file. A
//! value of an implementation is proof that the machine has the instructions: it is only handed
//! out after the check. [`Simd::vectorize`] compiles a [`Task`] for the instruction set, so
//! everything a task calls on its hot path must be `#[inline(always)]`.

use half::bf16;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64", test))]
mod dots;
#[cfg(any(target_arch = "aarch64", test))]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dots;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(super) use dots::WholeTiles;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
pub(super) use dots::{Bf16Dots, ByteDots};
#[cfg(any(target_arch = "aarch64", test))]
pub(super) use neon::Neon;
pub(super) use portable::Portable;

/// Words in a cache line.
pub(super) const LINE: usize = 16;

/// The most lanes a vector of any instruction set has.
pub(super) const MAX_LANES: usize = 16;

/// What the words of two tiles are taken for when the machine multiplies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operands {
    /// Two bf16 a word, sums in f32.
    Bf16,
    /// Four u8 a word of the left operand, four i8 of the right, sums in i32.
    Bytes,
    /// f32 in three planes of bf16, see [`super::format`]: six products of planes, sums in f32.
    SplitF32,
    /// No machine multiplies tiles of such words.
    None,
}

impl Operands {
    /// Words that [`Simd::multiply_tiles`] asks for from memory with each block, so that with a full block of rows all of
    /// the next panel are: 16 tiles of rows, of split f32 (whose rows are three times as long) 8.
    pub const fn ahead(self) -> usize {
        match self {
            Self::SplitF32 => 4 * LINE,
            _ => 2 * LINE,
        }
    }
}

/// Rows of the largest product of whole tiles.
pub(super) const WHOLE_TILE_ROWS: usize = 32;

/// What [`Simd::multiply_tiles`] multiplies.
#[derive(Clone, Copy)]
// AMX alone multiplies them.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
pub(super) struct Tiles {
    /// All that the words mean is multiplied, so three blocks are one of split f32. Not [`Operands::None`].
    pub operands: Operands,
    /// At most [`WHOLE_TILE_ROWS`].
    pub rows: usize,
    /// Blocks of [`LINE`] words along k; not 0.
    pub blocks: usize,
    /// Valid for reading `[blocks, rows, LINE]` and, whatever it holds, as much after that as makes the last block's
    /// rows [`WHOLE_TILE_ROWS`].
    pub left: *const f32,
    /// Valid for reading `[blocks, LINE, 2 LANES]`.
    pub right: *const f32,
    /// From here on [`Operands::ahead`] words for each block are asked for from memory on the way. May be anything.
    pub ahead: *const f32,
}

/// Room for the product of [`Simd::multiply_tiles`].
#[repr(C, align(64))]
pub(super) struct TileProduct(pub [f32; WHOLE_TILE_ROWS * 2 * MAX_LANES]);

impl TileProduct {
    #[inline(always)]
    pub fn zeros() -> Self {
        Self([0.0; WHOLE_TILE_ROWS * 2 * MAX_LANES])
    }
}

/// [`Simd::pack_bf16`] without instructions for it.
#[inline(always)]
fn bf16_words(from: &[f32; 2 * LINE], to: &mut [f32; LINE]) {
    let bits = |x: f32| u32::from(bf16::from_f32(x).to_bits());
    for (to, pair) in to.iter_mut().zip(from.as_chunks::<2>().0) {
        *to = f32::from_bits(bits(pair[0]) | bits(pair[1]) << 16);
    }
}

/// [`Simd::pack_u8`] without instructions for it.
#[inline(always)]
fn u8_words(from: &[f32; 4 * LINE], least: f32, factor: f32, to: &mut [f32; LINE]) {
    // Beside this large number the spacing of f32 is 1, and the lowest bits are the byte.
    let byte = |x: f32| ((x - least) * factor + 8_388_608.0).to_bits() & 0xff;
    for (to, x) in to.iter_mut().zip(from.as_chunks::<4>().0) {
        *to = f32::from_bits(byte(x[0]) | byte(x[1]) << 8 | byte(x[2]) << 16 | byte(x[3]) << 24);
    }
}

/// Work that is compiled once for each instruction set.
pub(super) trait Task {
    type Output;

    /// Implementations must be `#[inline(always)]`, else they are compiled without the instructions.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Arithmetic on vectors of [`Self::LANES`] f32 values, IEEE 754 in each lane.
pub(super) trait Simd: Copy {
    type V: Copy;

    /// The same vectors without products of whole tiles.
    type Vectors: Simd<V = Self::V>;

    fn vectors(self) -> Self::Vectors;

    /// Values in a vector.
    const LANES: usize;

    /// Rows of the largest tile of a matrix product whose sums stay in registers when the tile
    /// is [`super::operands::TILE_VECTORS`] vectors wide.
    const TILE_ROWS: usize;

    /// Whether the totals of groups before stay in registers beside such a tile's sums; else they wait in
    /// memory until a group ends. The order of sums is the same.
    const TOTALS_IN_REGISTERS: bool = true;

    /// Whether there are registers for the sums of such a tile beside another panel's, totals waiting in memory; and it
    /// was found to gain.
    const PAIRS: bool = false;

    /// Whether [`Self::dot_u8_i8`] is an instruction.
    const BYTE_DOTS: bool = false;

    /// Whether the machine multiplies tiles of up to [`WHOLE_TILE_ROWS`] rows at once, with [`Self::multiply_tiles`].
    const TILES: bool = false;

    /// Whether passes through several products at once are compiled for it, see [`super::Kernel::fuses`].
    const FUSES: bool = false;

    /// Runs `task` compiled for this instruction set, with this thread's tiles configured where it multiplies whole
    /// tiles. Tasks do not nest: the inner one's end would give up the outer one's tiles.
    fn vectorize<T: Task>(self, task: T) -> T::Output;

    /// # Safety
    /// `from` must be valid for reading `LANES` values; it need not be aligned.
    unsafe fn load_ptr(self, from: *const f32) -> Self::V;

    /// # Safety
    /// `to` must be valid for writing `LANES` values; it need not be aligned.
    unsafe fn store_ptr(self, v: Self::V, to: *mut f32);

    /// Asks memory for the cache line at `at`, which may be anything; nothing where that was not tried.
    #[inline(always)]
    fn prefetch(self, _at: *const f32) {}

    fn splat(self, x: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the machine can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a * b - c`, as [`Self::mul_add`].
    fn mul_sub(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger value; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller value; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    fn copy_sign(self, magnitude: Self::V, sign: Self::V) -> Self::V;
    /// `then` where `a < b`, else `otherwise`.
    fn select_less(self, a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V;
    /// `sum + a0 b0 + a1 b1` for words of two bf16, 0 the lower half; what is denormal may count as 0.
    fn dot_bf16(self, a: Self::V, b: Self::V, sum: Self::V) -> Self::V;
    /// `sum + a0 b0 + … + a3 b3` for words of four u8 (`a`, from [`Self::pack_u8`]) and of four i8 (`b`, none of them -128), and
    /// i32 sums; exact, less what [`Self::shortfall_u8_i8`] tells.
    fn dot_u8_i8(self, a: Self::V, b: Self::V, sum: Self::V) -> Self::V;

    /// Whether [`Self::dot_u8_i8`] falls short.
    const DOTS_FALL_SHORT: bool = false;

    /// `sum` plus what [`Self::dot_u8_i8`] falls short by, whatever `a` is: sums over many `a` with the same `b` begin with it.
    #[inline(always)]
    fn shortfall_u8_i8(self, _b: Self::V, sum: Self::V) -> Self::V {
        sum
    }

    /// The sum of words of one i32 each, wrapping around.
    fn add_i32(self, a: Self::V, b: Self::V) -> Self::V;
    /// Words of one i32 each as f32, rounded to nearest.
    fn i32_to_f32(self, v: Self::V) -> Self::V;
    /// The product of rows with a panel of two vectors, in `to` as `[rows, 2 LANES]`.
    ///
    /// # Safety
    /// [`Self::TILES`] must hold, and the pointers of `tiles` be valid as it states. Only within [`Self::vectorize`].
    unsafe fn multiply_tiles(self, tiles: Tiles, to: &mut TileProduct) {
        let _ = (tiles, to);
        unreachable!("only where TILES holds")
    }

    /// `x * 2^n` for whole `n` from -250 to 250; NaN where `x` or `n` is.
    fn scale(self, x: Self::V, n: Self::V) -> Self::V;

    /// Words of two bf16 each, rounded to nearest even.
    #[inline(always)]
    fn pack_bf16(self, from: &[f32; 2 * LINE], to: &mut [f32; LINE]) {
        bf16_words(from, to);
    }

    /// Words of the bf16 nearest to a lane of each, `first` in the lower half.
    #[inline(always)]
    fn pair_bf16(self, first: Self::V, second: Self::V) -> Self::V {
        let mut lanes = [[0.0; MAX_LANES]; 2];
        self.store(first, &mut lanes[0]);
        self.store(second, &mut lanes[1]);
        let bits = |x: f32| u32::from(bf16::from_f32(x).to_bits());
        let [first, second] = lanes;
        let words: [f32; MAX_LANES] = std::array::from_fn(|i| f32::from_bits(bits(first[i]) | bits(second[i]) << 16));
        self.load(&words)
    }

    /// Transposes [`LINE`] times [`LINE`] words: `to[i * to_stride + j] = from[j * from_stride + i]`. Panics if they are
    /// not there.
    #[inline(always)]
    fn transpose(self, from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
        for j in 0..LINE {
            for (i, &word) in from[j * from_stride..][..LINE].iter().enumerate() {
                to[i * to_stride + j] = word;
            }
        }
    }

    /// `from` less the words of [`Self::pack_bf16`].
    #[inline(always)]
    fn subtract_bf16(self, words: &[f32; LINE], from: &mut [f32; 2 * LINE]) {
        for (pair, word) in from.as_chunks_mut::<2>().0.iter_mut().zip(words) {
            let bits = word.to_bits();
            pair[0] -= f32::from_bits(bits << 16);
            pair[1] -= f32::from_bits(bits & 0xffff_0000);
        }
    }

    /// Words of four bytes each: `(x - least) * factor` rounded to nearest even, which must lie
    /// within 0 to 255; elsewhere the byte has no meaning. In the form that [`Self::dot_u8_i8`] takes.
    #[inline(always)]
    fn pack_u8(self, from: &[f32; 4 * LINE], least: f32, factor: f32, to: &mut [f32; LINE]) {
        u8_words(from, least, factor, to);
    }

    /// The first `LANES` values. Panics if there are fewer.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the line above.
        unsafe { self.load_ptr(from.as_ptr()) }
    }

    /// Writes the first `LANES` values. Panics if there is room for fewer.
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32]) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the line above.
        unsafe { self.store_ptr(v, to.as_mut_ptr()) }
    }

    /// Up to `LANES` values; lanes beyond `from` hold `fill`.
    #[inline(always)]
    fn load_or(self, from: &[f32], fill: f32) -> Self::V {
        if from.len() >= Self::LANES {
            return self.load(from);
        }
        let mut lanes = [fill; MAX_LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// Writes as many lanes as `to` has room for.
    #[inline(always)]
    fn store_some(self, v: Self::V, to: &mut [f32]) {
        if to.len() >= Self::LANES {
            return self.store(v, to);
        }
        let mut lanes = [0.0; MAX_LANES];
        self.store(v, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    /// The sum over all lanes, in a fixed order.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        self.fold(v, |a, b| a + b)
    }

    /// The largest lane; NaN may or may not win.
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        self.fold(v, f32::max)
    }

    /// The smallest lane; NaN may or may not win.
    #[inline(always)]
    fn smallest(self, v: Self::V) -> f32 {
        self.fold(v, f32::min)
    }

    /// Halves the vector onto itself with `f` until one lane is left.
    #[inline(always)]
    fn fold(self, v: Self::V, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = [0.0; MAX_LANES];
        self.store(v, &mut lanes);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] = f(lanes[i], lanes[i + half]);
            }
            half /= 2;
        }
        lanes[0]
    }
}
