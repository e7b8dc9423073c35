//! exp, tanh and the activations on vectors, each within a few units in the last place of the exact value. Exceptions: in the
//! far tail, GELU without fused multiplication and its tanh form are within some hundred units; `coarse_gelu` is only as accurate as
//! the bf16 or byte that it is rounded to.
//!
//! The polynomials are minimax fits on the stated interval (Lawson's iteration in f64); the errors
//! named beside them are those of the polynomial alone.

use super::simd::Simd;
use crate::Activation;

/// A function applied to each element as a result is stored.
pub(super) trait Elementwise: Copy {
    /// Implementations must be `#[inline(always)]`, as everything beneath a task.
    fn apply<S: Simd>(self, simd: S, x: S::V) -> S::V;
}

/// What to do with a function once it is known which one it is, so that loops run without asking.
pub(super) trait WithElementwise {
    type Output;

    /// Implementations must be `#[inline(always)]`.
    fn run<F: Elementwise>(self, f: F) -> Self::Output;
}

#[inline(always)]
pub(super) fn with_activation<W: WithElementwise>(activation: Activation, work: W) -> W::Output {
    match activation {
        Activation::Identity => work.run(Identity),
        Activation::Gelu => work.run(Gelu),
        Activation::GeluTanh => work.run(GeluTanh),
        Activation::Relu => work.run(Relu),
        Activation::Tanh => work.run(Tanh),
    }
}

/// [`with_activation`] for results that are cut to a few bits next: to bf16 or to a byte.
#[inline(always)]
pub(super) fn with_coarse_activation<W: WithElementwise>(activation: Activation, work: W) -> W::Output {
    match activation {
        Activation::Gelu => work.run(CoarseGelu),
        _ => with_activation(activation, work),
    }
}

#[derive(Clone, Copy)]
pub(super) struct Identity;
#[derive(Clone, Copy)]
pub(super) struct Gelu;
#[derive(Clone, Copy)]
pub(super) struct CoarseGelu;
#[derive(Clone, Copy)]
pub(super) struct GeluTanh;
#[derive(Clone, Copy)]
pub(super) struct Relu;
#[derive(Clone, Copy)]
pub(super) struct Tanh;

impl Elementwise for Identity {
    #[inline(always)]
    fn apply<S: Simd>(self, _: S, x: S::V) -> S::V {
        x
    }
}

impl Elementwise for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::V) -> S::V {
        gelu(simd, x)
    }
}

impl Elementwise for CoarseGelu {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::V) -> S::V {
        coarse_gelu(simd, x)
    }
}

impl Elementwise for GeluTanh {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::V) -> S::V {
        gelu_tanh(simd, x)
    }
}

impl Elementwise for Relu {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::V) -> S::V {
        simd.max(simd.splat(0.0), x)
    }
}

impl Elementwise for Tanh {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::V) -> S::V {
        tanh(simd, x)
    }
}

/// `coefficients[0] + coefficients[1] x + …`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut sum = simd.splat(coefficients[N - 1]);
    for i in (0..N - 1).rev() {
        sum = simd.mul_add(sum, x, simd.splat(coefficients[i]));
    }
    sum
}

/// `e^x`, gradual underflow and overflow to infinity included; NaN stays NaN.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    // Beyond these the result is 0 and infinity.
    exp_of_bounded(simd, simd.max(simd.splat(-104.0), simd.min(simd.splat(89.0), x)))
}

/// [`exp`], but 0 from -87 down, before results are denormal: those take some processors hundreds of cycles, and in a
/// softmax they, like the minus infinity of padding, count for nothing.
#[inline(always)]
pub(super) fn exp_or_zero<S: Simd>(simd: S, x: S::V) -> S::V {
    let least = simd.splat(-87.0);
    let e = exp_of_bounded(simd, simd.max(least, simd.min(simd.splat(89.0), x)));
    simd.select_less(x, least, simd.splat(0.0), e)
}

/// [`exp`] for `x` from -150 to 89, or NaN.
#[inline(always)]
fn exp_of_bounded<S: Simd>(simd: S, x: S::V) -> S::V {
    // n = x / ln 2, rounded: beside this large number the spacing of f32 is 1.
    let large = simd.splat(12_582_912.0);
    let n = simd.sub(simd.mul_add(x, simd.splat(std::f32::consts::LOG2_E), large), large);
    // r = x - n ln 2, with ln 2 in two parts of which the first has so few bits that its product is exact.
    let r = simd.mul_add(n, simd.splat(-0.693_359_4), x);
    let r = simd.mul_add(n, simd.splat(2.121_944_4e-4), r);
    // (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2, such that e^r is within 3.1e-9 of its value.
    let coefficients = [0.499_999_94, 0.166_665_2, 0.041_668_393, 0.008_368_781, 0.001_381_446_7];
    let p = polynomial(simd, r, coefficients);
    let p = simd.add(simd.splat(1.0), simd.mul_add(simd.mul(r, r), p, r));
    simd.scale(p, n)
}

/// Hyperbolic tangent.
#[inline(always)]
pub(super) fn tanh<S: Simd>(simd: S, x: S::V) -> S::V {
    let z = simd.abs(x);
    // (tanh z / z - 1) / z^2 in terms of z^2 for z <= 0.625, such that tanh is within 4.2e-9.
    let square = simd.mul(z, z);
    let p = polynomial(
        simd,
        square,
        [
            -0.333_332_84,
            0.133_314_91,
            -0.053_743_497,
            0.020_650_588,
            -0.005_717_045,
        ],
    );
    let small = simd.mul_add(simd.mul(p, square), z, z);
    // 1 - 2 / (e^2z + 1); at 10 it has long been 1.
    let bounded = simd.min(simd.splat(10.0), z);
    let e = exp(simd, simd.add(bounded, bounded));
    let large = simd.sub(simd.splat(1.0), simd.div(simd.splat(2.0), simd.add(e, simd.splat(1.0))));
    simd.copy_sign(simd.select_less(z, simd.splat(0.625), small, large), x)
}

/// `x Phi(x)`, Phi the standard normal distribution: the same as `x (1 + erf(x / sqrt 2)) / 2`,
/// without the cancellation which that form suffers for negative `x`.
///
/// With `z = |x|` and `Q(z) = Phi(-z)` it is `max(x, 0) - z Q(z)` on both sides of zero. Q is
/// `e^(-z^2 / 2)` times a function that varies slowly.
#[inline(always)]
pub(super) fn gelu<S: Simd>(simd: S, x: S::V) -> S::V {
    // At 15, Q is 0 in f32; and 0 * infinity must not arise.
    let z = simd.min(simd.splat(15.0), simd.abs(x));
    // e^(z^2 / 2) Q(z) = u P(u) with u = 1 / (1 + 0.35 z), within 3.3e-8 of its value for z <= 15.
    let u = simd.div(simd.splat(1.0), simd.mul_add(z, simd.splat(0.35), simd.splat(1.0)));
    let p = polynomial(
        simd,
        simd.sub(u, simd.splat(0.5)),
        [
            0.253_244_28,
            0.342_991_62,
            0.284_395_78,
            0.081_870_88,
            -0.081_739_71,
            -0.056_140_93,
            0.044_163_45,
            0.027_405_007,
            -0.029_163_8,
        ],
    );
    // The square's rounding error would be magnified by up to 112, so it is carried along.
    let half = simd.mul(z, simd.splat(-0.5));
    let square = simd.mul(z, half);
    let error = simd.mul_sub(z, half, square);
    let e = exp_of_bounded(simd, square);
    let e = simd.mul_add(e, error, e);
    let q = simd.mul(simd.mul(u, p), e);
    damaged_as_nan(simd, x, simd.sub(simd.max(simd.splat(0.0), x), simd.mul(z, q)))
}

/// [`gelu`] within 9e-6, and from -2.5 up within 6.4e-4 of its value, where bf16 rounds by up to 3.9e-3 of that: a third of the work.
#[inline(always)]
pub(super) fn coarse_gelu<S: Simd>(simd: S, x: S::V) -> S::V {
    // z Q(z) is 1.5e-5 at 4.5 and less beyond.
    let z = simd.min(simd.splat(4.5), simd.abs(x));
    // Q(z) in terms of z - 2.25, such that z Q(z) is within 7.2e-6 of its value for z <= 4.5.
    let q = polynomial(
        simd,
        simd.sub(z, simd.splat(2.25)),
        [
            0.012_222_05,
            -0.031_726_99,
            0.035_737_39,
            -0.021_561_911,
            0.006_084_271_2,
            0.000_570_813,
            -0.000_967_936_1,
            0.000_197_451_87,
            3.450_295_5e-5,
            -1.605_154_3e-5,
            1.203_841_2e-6,
        ],
    );
    damaged_as_nan(simd, x, simd.sub(simd.max(simd.splat(0.0), x), simd.mul(z, q)))
}

/// `value`, but NaN where `x` is minus infinity, as the definitions of these functions have it (`-inf * 0`): it comes of
/// damaged weights, and 0 would hide them.
#[inline(always)]
fn damaged_as_nan<S: Simd>(simd: S, x: S::V, value: S::V) -> S::V {
    simd.mul_add(simd.min(simd.splat(0.0), x), simd.splat(0.0), value)
}

/// `x (1 + tanh(y)) / 2` with `y = sqrt(2 / pi) (x + 0.044715 x^3)`, in the form `x / (1 + e^(-2 y))`.
#[inline(always)]
fn gelu_tanh<S: Simd>(simd: S, x: S::V) -> S::V {
    // At -15 the result is 0 in f32; and infinity / infinity must not arise.
    let bounded = simd.max(simd.splat(-15.0), x);
    // -2 sqrt(2 / pi), and that times 0.044715.
    let scale = simd.mul_add(
        simd.mul(bounded, bounded),
        simd.splat(-0.071_354_814),
        simd.splat(-1.595_769),
    );
    let e = exp(simd, simd.mul(bounded, scale));
    damaged_as_nan(simd, x, simd.div(bounded, simd.add(simd.splat(1.0), e)))
}
