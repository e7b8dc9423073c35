//! Every kernel that this machine has against the plain reference, on ragged sizes.

use candle_core::{DType, Device, Tensor};

use super::detect::{Kernel, KernelError, SETTINGS, select};
use super::embedding::Tables;
use super::norm::Norm;
use super::simd::{MAX_LANES, Simd, Task};
use super::{PackedLinear, embedding, norm, pooling, vector_math};
use crate::{Activation, Precision, reference};

mod attention;
mod bilinear;
mod passes;
mod precision;

/// Largest errors allowed, on values.
mod tolerance {
    /// Of a product, relative to the sum of the magnitudes of its terms.
    pub const PRODUCT: f32 = 3e-7;
    /// The same where the order of sums within a word is the machine's and sums are longer (bf16), of
    /// operands rounded already.
    pub const ROUNDED_PRODUCT: f32 = 1e-6;
    /// Of a product against the exact one, relative to the root of the sum of its terms' squares.
    pub const BF16: f32 = 1.2e-2;
    pub const INT8: f32 = 4e-2;
    /// Of values of the order of 1 (normalised rows; means of such rows).
    pub const UNIT: f32 = 3e-6;
    /// Of exp and tanh, in units in the last place.
    pub const FUNCTION_ULPS: f64 = 2.0;
    /// Of GELU, which is that far off only where its result is denormal.
    pub const GELU_ULPS: f64 = 8.0;
    /// Of GELU where the machine cannot fuse a product with a sum: its tail has a rounded square as exponent.
    pub const GELU_UNFUSED_ULPS: f64 = 100.0;
    /// Of GELU as it is before bf16 or bytes: absolute, and from -2.5 up relative too, a sixth of bf16's rounding.
    pub const COARSE_GELU: f64 = 9e-6;
    pub const COARSE_GELU_RELATIVE: f64 = 6.4e-4;
    /// Of the tanh form of GELU, whose tail has a rounded cubic of up to 88 as exponent.
    pub const GELU_TANH_ULPS: f64 = 256.0;
}

const ACTIVATIONS: [Activation; 5] = [
    Activation::Identity,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Tanh,
];

fn for_each_kernel(test: impl Fn(Kernel)) {
    for setting in SETTINGS {
        match Kernel::find(setting) {
            Some(kernel) => test(kernel),
            None => eprintln!("skipped: this machine has no {setting}"),
        }
    }
}

/// Values between -1 and 1 from a linear congruential generator (Knuth's MMIX constants).
fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn matrix(rows: usize, columns: usize, seed: u64) -> Tensor {
    Tensor::from_vec(random(rows * columns, seed), (rows, columns), &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance,
            "{what}: element {i}: expected {e}, found {f}"
        );
    }
}

#[track_caller]
fn assert_same_bits(a: &[f32], b: &[f32], what: &str) {
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(a), bits(b), "{what}");
}

/// Sequences of these lengths, as boundaries.
fn offsets(lengths: &[u32]) -> Vec<u32> {
    let mut offsets = vec![0];
    offsets.extend(lengths.iter().scan(0, |end, n| {
        *end += n;
        Some(*end)
    }));
    offsets
}

#[test]
fn linear_agrees_with_the_reference_on_ragged_sizes() {
    for_each_kernel(|kernel| {
        for k in [1, 2, 16, 31, 33, 129, 256, 257, 700] {
            for n in [1, 7, 31, 32, 33, 129] {
                let (weight, bias) = (matrix(n, k, 1), random(n, 2));
                let bias_tensor = Tensor::from_slice(&bias, n, &Device::Cpu).unwrap();
                let layer = PackedLinear::for_kernel(kernel, &weight, Some(&bias_tensor), Precision::F32).unwrap();
                for rows in [1, 2, 3, 5, 6, 7, 11, 12, 13, 24, 40] {
                    let x = random(rows * k, 3);
                    let found = layer.forward(&x, rows, Activation::Identity);
                    let expected = reference::linear(&x, &values(&weight), Some(&bias), k, Activation::Identity);
                    let what = format!("{}: M {rows} N {n} K {k}", kernel.name(Precision::F32));
                    assert_close(&found, &expected, tolerance::PRODUCT * (k as f32 / 4.0 + 1.0), &what);
                }
            }
        }
    });
}

#[test]
fn linear_crosses_blocks_of_rows_without_a_seam() {
    for_each_kernel(|kernel| {
        let (k, n, rows) = (3072, 33, 101);
        let weight = matrix(n, k, 1);
        let layer = PackedLinear::for_kernel(kernel, &weight, None, Precision::F32).unwrap();
        let x = random(rows * k, 2);
        let found = layer.forward(&x, rows, Activation::Identity);
        let expected = reference::linear(&x, &values(&weight), None, k, Activation::Identity);
        assert_close(
            &found,
            &expected,
            tolerance::PRODUCT * k as f32 / 4.0,
            &kernel.name(Precision::F32),
        );
    });
}

#[test]
fn activations_ride_along() {
    for_each_kernel(|kernel| {
        let (rows, n, k) = (13, 45, 20);
        let (weight, bias) = (matrix(n, k, 1), random(n, 2));
        let bias_tensor = Tensor::from_slice(&bias, n, &Device::Cpu).unwrap();
        let layer = PackedLinear::for_kernel(kernel, &weight, Some(&bias_tensor), Precision::F32).unwrap();
        let x = random(rows * k, 3);
        for activation in ACTIVATIONS {
            let found = layer.forward(&x, rows, activation);
            let expected = reference::linear(&x, &values(&weight), Some(&bias), k, activation);
            let what = format!("{}: {activation:?}", kernel.name(Precision::F32));
            assert_close(&found, &expected, tolerance::UNIT, &what);
        }
    });
}

/// With BERT's epsilon.
fn norm_of<'a>(weight: &'a [f32], bias: &'a [f32]) -> Norm<'a> {
    let eps = 1e-12;
    Norm { weight, bias, eps }
}

#[test]
fn residual_and_norm_ride_along() {
    for_each_kernel(|kernel| {
        for (rows, n, k) in [(1, 1, 1), (3, 31, 5), (13, 33, 129), (40, 768, 64), (200, 65, 1030)] {
            let weight = matrix(n, k, 1);
            let (residual, gain, shift) = (random(rows * n, 2), random(n, 3), random(n, 4));
            let layer = PackedLinear::for_kernel(kernel, &weight, None, Precision::F32).unwrap();
            let x = random(rows * k, 5);
            let found = layer.forward_add_norm(&x, rows, &residual, norm_of(&gain, &shift));
            let mut sum = reference::linear(&x, &values(&weight), None, k, Activation::Identity);
            sum.iter_mut().zip(&residual).for_each(|(s, r)| *s += r);
            let expected = reference::layer_norm(&sum, &gain, &shift, 1e-12, Activation::Identity);
            let what = format!("{}: M {rows} N {n} K {k}", kernel.name(Precision::F32));
            assert_close(&found, &expected, tolerance::UNIT, &what);
        }
    });
}

#[test]
fn a_rows_bits_do_not_depend_on_the_batch() {
    for_each_kernel(|kernel| {
        let (rows, n, k) = (61, 50, 700);
        let layer = PackedLinear::for_kernel(kernel, &matrix(n, k, 1), None, Precision::F32).unwrap();
        let (x, residual, gain) = (random(rows * k, 2), random(rows * n, 3), random(n, 4));
        let run = |x: &[f32], residual: &[f32]| {
            let rows = x.len() / k;
            let plain = layer.forward(x, rows, Activation::Gelu);
            let normed = layer.forward_add_norm(x, rows, residual, norm_of(&gain, &gain));
            (plain, normed)
        };
        let (plain, normed) = run(&x, &residual);
        for first in 0..rows {
            for count in [1, 2, 5, 12, 13, 40] {
                let end = rows.min(first + count);
                let part = run(&x[first * k..end * k], &residual[first * n..end * n]);
                let what = format!("{}: rows {first}..{end}", kernel.name(Precision::F32));
                assert_same_bits(&part.0, &plain[first * n..end * n], &what);
                assert_same_bits(&part.1, &normed[first * n..end * n], &what);
            }
        }
    });
}

#[test]
fn weights_of_every_float_type_and_layout_are_packed() {
    for_each_kernel(|kernel| {
        let (rows, n, k) = (5, 37, 21);
        let x = random(rows * k, 2);
        let run = |weight: &Tensor| {
            let layer = PackedLinear::for_kernel(kernel, weight, None, Precision::F32).unwrap();
            layer.forward(&x, rows, Activation::Identity)
        };
        let weight = matrix(n, k, 1);
        for dtype in [DType::F16, DType::BF16, DType::F64] {
            let stored = weight.to_dtype(dtype).unwrap();
            let expected = run(&stored.to_dtype(DType::F32).unwrap());
            assert_same_bits(
                &run(&stored),
                &expected,
                &format!("{}: {dtype:?}", kernel.name(Precision::F32)),
            );
        }
        let transposed = weight.t().unwrap().contiguous().unwrap().t().unwrap();
        assert_same_bits(&run(&transposed), &run(&weight), "transposed");
        let narrowed = matrix(n + 3, k, 1).narrow(0, 3, n).unwrap();
        assert_same_bits(&run(&narrowed), &run(&narrowed.copy().unwrap()), "narrowed");
    });
}

#[test]
fn an_empty_dimension_or_a_bias_of_another_length_is_an_error() {
    let kernel = select(None).unwrap();
    let empty = Tensor::zeros((0, 4), DType::F32, &Device::Cpu).unwrap();
    assert!(PackedLinear::for_kernel(kernel, &empty, None, Precision::F32).is_err());
    let bias = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    assert!(PackedLinear::for_kernel(kernel, &matrix(4, 4, 1), Some(&bias), Precision::F32).is_err());
}

#[test]
fn no_rows_give_no_rows() {
    for_each_kernel(|kernel| {
        let layer = PackedLinear::for_kernel(kernel, &matrix(4, 4, 1), None, Precision::F32).unwrap();
        assert!(layer.forward(&[], 0, Activation::Gelu).is_empty());
    });
}

#[test]
fn layer_norm_agrees_with_the_reference() {
    for_each_kernel(|kernel| {
        for width in [1, 2, 15, 16, 17, 31, 33, 129, 256, 768] {
            // An offset of 100 shows a variance taken as the difference of large numbers.
            let x: Vec<f32> = random(7 * width, 1).iter().map(|v| v + 100.0).collect();
            let (weight, bias) = (random(width, 2), random(width, 3));
            let parameters = Norm {
                weight: &weight,
                bias: &bias,
                eps: 1e-5,
            };
            for activation in ACTIVATIONS {
                let found = norm::layer_norm(kernel, &x, parameters, activation);
                let expected = reference::layer_norm(&x, &weight, &bias, 1e-5, activation);
                // The mean's rounding is that of values about 100.
                let what = format!("{}: width {width}, {activation:?}", kernel.name(Precision::F32));
                assert_close(&found, &expected, 20.0 * tolerance::UNIT, &what);
            }
        }
    });
}

#[test]
fn embeddings_agree_with_the_reference() {
    for_each_kernel(|kernel| {
        for hidden in [1, 24, 33, 768] {
            let (word, position) = (random(50 * hidden, 1), random(20 * hidden, 2));
            let (weight, bias) = (random(hidden, 3), random(hidden, 4));
            let ids: Vec<u32> = (0..23).map(|i| i * 7 % 50).collect();
            let offsets = offsets(&[1, 20, 2]);
            let norm = Norm {
                weight: &weight,
                bias: &bias,
                eps: 1e-12,
            };
            let tables = Tables {
                word: &word,
                position: &position,
                norm,
            };
            let found = embedding::embed(kernel, &ids, &offsets, tables);
            let expected = reference::embed(&ids, &offsets, &word, &position, hidden, &weight, &bias, 1e-12);
            let what = format!("{}: hidden {hidden}", kernel.name(Precision::F32));
            assert_close(&found, &expected, tolerance::UNIT, &what);
        }
    });
}

#[test]
fn what_is_pooled_of_a_sequence_does_not_depend_on_the_batch() {
    let lengths = [41, 1, 300, 13, 128, 33];
    let offsets = offsets(&lengths);
    let tokens = *offsets.last().unwrap() as usize;
    let hidden = 96;
    let (states, keys) = (random(tokens * hidden, 1), random(4 * hidden, 2));
    for_each_kernel(|kernel| {
        let pooled = pooling::attention_pool(kernel, &states, &keys, &offsets, 4, hidden);
        let means = pooling::mean_pool(kernel, &states, &offsets, hidden);
        for (i, range) in offsets.windows(2).enumerate() {
            let alone = &states[range[0] as usize * hidden..range[1] as usize * hidden];
            let own = [0, range[1] - range[0]];
            let what = format!("{}: sequence {i}", kernel.name(Precision::F32));
            let alone_pooled = pooling::attention_pool(kernel, alone, &keys, &own, 4, hidden);
            for (head, alone) in alone_pooled.chunks(hidden).enumerate() {
                let begin = (head * lengths.len() + i) * hidden;
                assert_same_bits(alone, &pooled[begin..begin + hidden], &what);
            }
            let alone_mean = pooling::mean_pool(kernel, alone, &own, hidden);
            assert_same_bits(&alone_mean, &means[i * hidden..(i + 1) * hidden], &what);
        }
    });
}

#[test]
fn pooling_agrees_with_the_reference() {
    let offsets = offsets(&[1, 2, 15, 16, 17, 41, 512]);
    let tokens = *offsets.last().unwrap() as usize;
    for_each_kernel(|kernel| {
        for width in [1, 31, 64, 129, 768] {
            let hidden = random(tokens * width, 1);
            let what = format!("{}: width {width}", kernel.name(Precision::F32));
            for heads in [1, 4] {
                let keys: Vec<f32> = random(heads * width, 2)
                    .iter()
                    .map(|v| v / (width as f32).sqrt())
                    .collect();
                let found = pooling::attention_pool(kernel, &hidden, &keys, &offsets, heads, width);
                let expected = reference::attention_pool(&hidden, &keys, &offsets, heads, width);
                assert_close(&found, &expected, tolerance::UNIT, &what);
            }
            let found = pooling::mean_pool(kernel, &hidden, &offsets, width);
            assert_close(
                &found,
                &reference::mean_pool(&hidden, &offsets, width),
                tolerance::UNIT,
                &what,
            );
            let found = pooling::first_token_pool(&hidden, &offsets, width);
            assert_same_bits(&found, &reference::first_token_pool(&hidden, &offsets, width), &what);
        }
    });
}

/// A function applied to all elements, by way of `with_activation` where it is an activation.
struct Apply<'a> {
    function: Function,
    x: &'a mut [f32],
}

#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    ExpOrZero,
    Tanh,
    Gelu,
    CoarseGelu,
}

impl Task for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for piece in self.x.chunks_mut(S::LANES) {
            let x = simd.load_or(piece, 0.0);
            let y = match self.function {
                Function::Exp => vector_math::exp(simd, x),
                Function::ExpOrZero => vector_math::exp_or_zero(simd, x),
                Function::Tanh => vector_math::tanh(simd, x),
                Function::Gelu => vector_math::gelu(simd, x),
                Function::CoarseGelu => vector_math::coarse_gelu(simd, x),
            };
            simd.store_some(y, piece);
        }
    }
}

/// About 430,000 numbers of all signs and magnitudes, denormal ones too, and a dense grid about zero.
fn many_numbers() -> Vec<f32> {
    let spread = (0..=u32::MAX).step_by(9973).map(f32::from_bits).filter(|x| !x.is_nan());
    let grid = (-130_000..=130_000).map(|i| i as f32 / 1000.0);
    let special = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
    ];
    spread.chain(grid).chain(special).collect()
}

/// The largest error in units in the last place of the exact value.
fn worst_ulps(x: &[f32], found: &[f32], exact: impl Fn(f64) -> f64) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for (&x, &found) in x.iter().zip(found) {
        let exact = exact(f64::from(x));
        let nearest = exact as f32;
        if nearest == found {
            continue;
        }
        let ulp = f64::from(nearest.abs().next_up()) - f64::from(nearest.abs());
        let error = (f64::from(found) - exact).abs() / ulp;
        if error > worst.0 || error.is_nan() {
            worst = (error, x);
        }
        if error.is_nan() {
            break;
        }
    }
    worst
}

/// GELU of minus infinity is NaN, as it comes of damaged weights; for what follows it is the limit, 0.
fn take_damaged(x: &[f32], y: &mut [f32]) {
    let damaged = x.iter().position(|x| *x == f32::NEG_INFINITY).unwrap();
    assert!(y[damaged].is_nan(), "{}", y[damaged]);
    y[damaged] = 0.0;
}

#[test]
fn functions_are_within_a_few_units_in_the_last_place() {
    let x = many_numbers();
    for_each_kernel(|kernel| {
        for function in [Function::Exp, Function::ExpOrZero, Function::Tanh, Function::Gelu] {
            let mut y = x.clone();
            kernel.run(Apply { function, x: &mut y });
            let (ulps, at) = match function {
                Function::Exp => worst_ulps(&x, &y, f64::exp),
                Function::ExpOrZero => worst_ulps(&x, &y, |x| if x < -87.0 { 0.0 } else { x.exp() }),
                Function::Tanh => worst_ulps(&x, &y, f64::tanh),
                Function::Gelu => {
                    take_damaged(&x, &mut y);
                    worst_ulps(&x, &y, |x| reference::activate(x.max(-1e3), Activation::Gelu))
                }
                Function::CoarseGelu => unreachable!("not to a few units in the last place"),
            };
            let allowed = match (function, kernel.setting()) {
                (Function::Gelu, "portable" | "neon") => tolerance::GELU_UNFUSED_ULPS,
                (Function::Gelu, _) => tolerance::GELU_ULPS,
                _ => tolerance::FUNCTION_ULPS,
            };
            eprintln!(
                "{}: {function:?} is within {ulps:.2} ulps (at {at})",
                kernel.name(Precision::F32)
            );
            assert!(
                ulps <= allowed,
                "{}: {function:?}({at}) is {ulps} ulps off",
                kernel.name(Precision::F32)
            );
        }
    });
}

#[test]
fn gelu_before_bf16_or_bytes_is_off_by_less_than_their_rounding() {
    let x = many_numbers();
    for_each_kernel(|kernel| {
        let name = kernel.name(Precision::Bf16);
        let mut y = x.clone();
        let function = Function::CoarseGelu;
        kernel.run(Apply { function, x: &mut y });
        take_damaged(&x, &mut y);
        let (mut worst, mut worst_relative) = ((0.0, 0.0), (0.0, 0.0));
        for (&x, &y) in x.iter().zip(&y) {
            let exact = reference::activate(f64::from(x).max(-1e3), Activation::Gelu);
            // Infinity less itself is none.
            let error = if f64::from(y) == exact {
                0.0
            } else {
                (f64::from(y) - exact).abs()
            };
            let relative = error / exact.abs().max(f64::from(f32::MIN_POSITIVE));
            assert!(!error.is_nan(), "{name}: at {x} found {y}");
            // Of large numbers the last bit is more.
            if x < 16.0 && error > worst.0 {
                worst = (error, x);
            }
            if x >= -2.5 && relative > worst_relative.0 {
                worst_relative = (relative, x);
            }
        }
        eprintln!("{name}: within {worst:?}, relatively {worst_relative:?}");
        assert!(worst.0 <= tolerance::COARSE_GELU, "{name}: {worst:?}");
        assert!(
            worst_relative.0 <= tolerance::COARSE_GELU_RELATIVE,
            "{name}: {worst_relative:?}"
        );
        let mut unknown = [f32::NAN];
        kernel.run(Apply {
            function,
            x: &mut unknown,
        });
        assert!(unknown[0].is_nan(), "{name}: NaN stays NaN");
    });
}

#[test]
fn the_tanh_form_of_gelu_is_what_it_says() {
    let x = many_numbers();
    for_each_kernel(|kernel| {
        let mut y = x.clone();
        kernel.run(Activate(Activation::GeluTanh, &mut y));
        take_damaged(&x, &mut y);
        // Below 1e-37 in magnitude e^(-2 y) overflows and the result is 0.
        // 1 + tanh loses its digits below -3, so the reference here is the equal form without them lost.
        let exact = |x: f64| {
            let x = x.max(-1e3);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            let y = x / (1.0 + (-2.0 * inner).exp());
            if (-1e-37..0.0).contains(&y) && x < -1.0 { 0.0 } else { y }
        };
        for (y, &x) in y.iter_mut().zip(&x) {
            *y = if x < -1.0 && *y > -1e-37 { 0.0 } else { *y };
        }
        let (ulps, at) = worst_ulps(&x, &y, exact);
        eprintln!("{}: within {ulps:.2} ulps (at {at})", kernel.name(Precision::F32));
        assert!(
            ulps <= tolerance::GELU_TANH_ULPS,
            "{}: at {at} {ulps} ulps off",
            kernel.name(Precision::F32)
        );
    });
}

struct Activate<'a>(Activation, &'a mut [f32]);

impl Task for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        vector_math::with_activation(self.0, ActivateAll { simd, x: self.1 });
    }
}

struct ActivateAll<'a, S> {
    simd: S,
    x: &'a mut [f32],
}

impl<S: Simd> vector_math::WithElementwise for ActivateAll<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<F: vector_math::Elementwise>(self, f: F) {
        for piece in self.x.chunks_mut(S::LANES) {
            let y = f.apply(self.simd, self.simd.load_or(piece, 0.0));
            self.simd.store_some(y, piece);
        }
    }
}

#[test]
fn nan_comes_through_every_activation() {
    for_each_kernel(|kernel| {
        for activation in ACTIVATIONS {
            let mut x = [f32::NAN; MAX_LANES];
            kernel.run(Activate(activation, &mut x));
            assert!(
                x.iter().all(|y| y.is_nan()),
                "{}: {activation:?}",
                kernel.name(Precision::F32)
            );
        }
    });
}

#[test]
fn a_kernel_is_selected_by_its_setting() {
    assert_eq!(select(Some("portable")).unwrap().setting(), "portable");
    assert_eq!(select(None).unwrap(), Kernel::available()[0]);
    for kernel in Kernel::available() {
        assert_eq!(select(Some(kernel.setting())), Ok(kernel));
    }
    let error = select(Some("sse")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "CRAG_KERNEL=sse: expected portable, neon, avx2, avx512 or amx; unset it to take the fastest"
    );
}

#[test]
fn a_kernel_the_machine_lacks_is_an_error_that_names_those_it_has() {
    let missing = SETTINGS.into_iter().find(|s| Kernel::find(s).is_none());
    let Some(missing) = missing else {
        eprintln!("skipped: this machine has every kernel");
        return;
    };
    match select(Some(missing)) {
        Err(KernelError::Unavailable { name, available }) => {
            assert_eq!(name, missing);
            assert!(available.contains("portable"));
        }
        other => panic!("expected an error, found {other:?}"),
    }
}
