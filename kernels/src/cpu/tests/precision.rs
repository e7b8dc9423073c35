//! Linear layers in bf16 and int8, and packed weights read from a file.

use std::io::Write as _;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{Kernel, assert_close, assert_same_bits, matrix, norm_of, random, tolerance, values};
use crate::cpu::detect::SETTINGS;
use crate::cpu::format::{Format, SplitF32};
use crate::cpu::simd::{LINE, Simd, Task};
use crate::cpu::{PackedLinear, selected};
use crate::{Activation, Precision, reference};

const ROUNDED: [Precision; 2] = [Precision::Bf16, Precision::Int8];

/// Every kernel, also those that emulate the instructions which this machine has.
fn for_each_variant(test: impl Fn(Kernel, Precision)) {
    for setting in SETTINGS {
        let variants = Kernel::variants(setting);
        if variants.is_empty() {
            eprintln!("skipped: this machine has no {setting}");
        }
        for kernel in variants {
            ROUNDED.into_iter().for_each(|precision| test(kernel, precision));
        }
    }
    for precision in ROUNDED {
        let mut variants = SETTINGS.into_iter().flat_map(Kernel::variants);
        if !variants.any(|kernel| kernel.is_native(precision)) {
            eprintln!("skipped: this machine has no instructions for {}", precision.name());
        }
    }
}

/// The values that the operands stand for once they are packed.
fn rounded(x: &[f32], weight: &[f32], k: usize, precision: Precision) -> (Vec<f32>, Vec<f32>) {
    match precision {
        Precision::Int8 => (
            reference::round_rows_to_int8(x, k),
            reference::round_weights_to_int8(weight, k),
        ),
        _ => (reference::round_to_bf16(x), reference::round_to_bf16(weight)),
    }
}

#[test]
fn short_formats_agree_with_the_reference_on_ragged_sizes() {
    for_each_variant(|kernel, precision| {
        for k in [1, 2, 3, 5, 31, 32, 33, 63, 64, 65, 129, 257, 1030] {
            for n in [1, 7, 31, 33, 70] {
                let (weight, bias) = (matrix(n, k, 1), random(n, 2));
                let bias_tensor = Tensor::from_slice(&bias, n, &Device::Cpu).unwrap();
                let layer = PackedLinear::for_kernel(kernel, &weight, Some(&bias_tensor), precision).unwrap();
                for rows in [1, 2, 5, 7, 12, 13, 40] {
                    let x = random(rows * k, 3);
                    let found = layer.forward(&x, rows, Activation::Identity);
                    let what = format!("{}: M {rows} N {n} K {k}", kernel.name(precision));
                    let (x_rounded, weight_rounded) = rounded(&x, &values(&weight), k, precision);
                    let of_rounded =
                        reference::linear(&x_rounded, &weight_rounded, Some(&bias), k, Activation::Identity);
                    let allowed = tolerance::ROUNDED_PRODUCT * (k as f32 / 4.0 + 1.0);
                    assert_close(&found, &of_rounded, allowed, &what);
                    let exact = reference::linear(&x, &values(&weight), Some(&bias), k, Activation::Identity);
                    let relative = match precision {
                        Precision::Int8 => tolerance::INT8,
                        _ => tolerance::BF16,
                    };
                    // Terms are products of two numbers between -1 and 1.
                    assert_close(&found, &exact, relative * (k as f32 / 9.0).sqrt().max(1.0), &what);
                }
            }
        }
    });
}

#[test]
fn what_rides_along_is_the_same_in_short_formats() {
    for_each_variant(|kernel, precision| {
        for (rows, n, k) in [(13, 45, 20), (40, 768, 64), (300, 65, 3072)] {
            let (weight, residual) = (matrix(n, k, 1), random(rows * n, 2));
            let (gain, shift) = (random(n, 3), random(n, 4));
            let layer = PackedLinear::for_kernel(kernel, &weight, None, precision).unwrap();
            // Distinct magnitudes of rows show a scale used for another row.
            let x: Vec<f32> = random(rows * k, 5)
                .iter()
                .enumerate()
                .map(|(i, x)| x * (1 + i / k % 5) as f32 / (k as f32).sqrt())
                .collect();
            let (x_rounded, weight_rounded) = rounded(&x, &values(&weight), k, precision);
            let what = format!("{}: M {rows} N {n} K {k}", kernel.name(precision));

            let found = layer.forward(&x, rows, Activation::Gelu);
            let expected = reference::linear(&x_rounded, &weight_rounded, None, k, Activation::Gelu);
            assert_close(
                &found,
                &expected,
                4.0 * tolerance::UNIT + tolerance::COARSE_GELU as f32,
                &what,
            );

            let found = layer.forward_add_norm(&x, rows, &residual, norm_of(&gain, &shift));
            let mut sum = reference::linear(&x_rounded, &weight_rounded, None, k, Activation::Identity);
            sum.iter_mut().zip(&residual).for_each(|(s, r)| *s += r);
            let expected = reference::layer_norm(&sum, &gain, &shift, 1e-12, Activation::Identity);
            assert_close(&found, &expected, 4.0 * tolerance::UNIT, &what);
        }
    });
}

#[test]
fn a_rows_bits_in_short_formats_do_not_depend_on_the_batch() {
    for_each_variant(|kernel, precision| {
        let (rows, n, k) = (61, 50, 1500);
        let layer = PackedLinear::for_kernel(kernel, &matrix(n, k, 1), None, precision).unwrap();
        let x = random(rows * k, 2);
        let all = layer.forward(&x, rows, Activation::Gelu);
        for first in 0..rows {
            for count in [1, 2, 12, 13, 40] {
                let end = rows.min(first + count);
                let part = layer.forward(&x[first * k..end * k], end - first, Activation::Gelu);
                let what = format!("{}: rows {first}..{end}", kernel.name(precision));
                assert_same_bits(&part, &all[first * n..end * n], &what);
            }
        }
    });
}

#[test]
fn sums_of_bytes_are_exact_at_their_largest() {
    for_each_variant(|kernel, _| {
        // All bytes 255 and all weights 127: pairs of such products overflow 16 bits.
        let k = 3072;
        let weight = Tensor::ones((3, k), candle_core::DType::F32, &Device::Cpu).unwrap();
        let layer = PackedLinear::for_kernel(kernel, &weight, None, Precision::Int8).unwrap();
        let mut x = vec![1.0; k];
        x[0] = 0.0;
        let found = layer.forward(&x, 1, Activation::Identity);
        assert_close(&found, &[3071.0; 3], 1e-3, &kernel.name(Precision::Int8));
    });
}

#[test]
fn bytes_of_all_signs_and_sizes_multiply_exactly() {
    // Groups of whole numbers from 0 to 255 and from -127 to 127 stand for themselves, and so do their sums below 2^24.
    let (rows, n, k) = (7, 40, 600);
    let whole = |count: usize, seed, range: f32| -> Vec<f32> {
        let values = random(count, seed).into_iter();
        values.map(|x| (x * range).round_ties_even()).collect()
    };
    let mut x: Vec<f32> = whole(rows * k, 1, 127.0).iter().map(|x| x + 128.0).collect();
    let mut weight = whole(n * k, 2, 127.0);
    for (values, extremes) in [(&mut x, [0.0, 255.0]), (&mut weight, [-127.0, 127.0])] {
        for row in values.chunks_mut(k) {
            for group in row.chunks_mut(256) {
                // Some pairs of neighbours are both extreme, of either sign.
                group[..4].copy_from_slice(&[extremes[0], extremes[1], extremes[1], extremes[0]]);
                group[20..22].fill(extremes[1]);
                group[24..26].fill(extremes[0]);
            }
        }
    }
    // Whole rows of extremes: the largest sums.
    for (values, extremes) in [(&mut x, [0.0, 255.0]), (&mut weight, [-127.0, 127.0])] {
        for (row, [even, odd]) in [[0, 1], [1, 0], [1, 1], [0, 0]].into_iter().enumerate() {
            for (i, value) in values[row * k..][4..k].iter_mut().enumerate() {
                *value = extremes[if i % 256 < 252 && i % 2 == 0 { even } else { odd }];
            }
        }
    }
    let expected: Vec<f32> = (x.chunks(k))
        .flat_map(|x| weight.chunks(k).map(move |w| (x, w)))
        .map(|(x, w)| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32)
        .collect();
    let weight = Tensor::from_vec(weight, (n, k), &Device::Cpu).unwrap();
    for_each_variant(|kernel, precision| {
        if precision == Precision::Int8 {
            let layer = PackedLinear::for_kernel(kernel, &weight, None, precision).unwrap();
            let found = layer.forward(&x, rows, Activation::Identity);
            assert_eq!(found, expected, "{}", kernel.name(precision));
        }
    });
}

#[test]
fn constant_rows_and_empty_weights_give_their_sums() {
    for_each_variant(|kernel, precision| {
        let weight = Tensor::new(&[[1f32, 1., 1., 1., 1.], [0., 0., 0., 0., 0.]], &Device::Cpu).unwrap();
        let layer = PackedLinear::for_kernel(kernel, &weight, None, precision).unwrap();
        let found = layer.forward(
            &[2.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            2,
            Activation::Identity,
        );
        assert_close(&found, &[10.0, 0.0, 0.0, 0.0], 1e-6, &kernel.name(precision));
    });
}

#[test]
fn what_is_too_small_for_a_scale_counts_as_the_least_of_its_group() {
    for_each_variant(|kernel, precision| {
        for (x, w) in [([5e-37, 1e-37], [1.0, 1.0]), ([1.0, 1.0], [-3e-37, 1e-37])] {
            let weight = Tensor::new(&[w], &Device::Cpu).unwrap();
            let layer = PackedLinear::for_kernel(kernel, &weight, None, precision).unwrap();
            let found = layer.forward(&x, 1, Activation::Identity)[0];
            let exact = x[0] * w[0] + x[1] * w[1];
            assert!((found - exact).abs() < 1e-36, "{}: {found:e}", kernel.name(precision));
        }
    });
}

#[test]
fn what_is_not_finite_comes_through_in_its_row_alone() {
    for_each_variant(|kernel, precision| {
        let k = 70;
        let layer = PackedLinear::for_kernel(kernel, &matrix(3, k, 1), None, precision).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = random(3 * k, 2);
            x[k + 41] = bad;
            let found = layer.forward(&x, 3, Activation::Identity);
            let what = kernel.name(precision);
            assert!(found[3..6].iter().all(|y| !y.is_finite()), "{what}: {found:?}");
            assert!(
                found[..3].iter().chain(&found[6..]).all(|y| y.is_finite()),
                "{what}: {found:?}"
            );
        }
        let mut weight = random(3 * k, 1);
        weight[k + 1] = f32::NAN;
        let weight = Tensor::from_vec(weight, (3, k), &Device::Cpu).unwrap();
        let layer = PackedLinear::for_kernel(kernel, &weight, None, precision).unwrap();
        let found = layer.forward(&random(k, 2), 1, Activation::Identity);
        assert!(
            found[0].is_finite() && found[1].is_nan() && found[2].is_finite(),
            "{found:?}"
        );
    });
}

#[test]
fn the_name_of_a_kernel_says_what_it_emulates() {
    let name = |setting, precision| Kernel::find(setting).map(|k| k.name(precision));
    let fma = if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        "-fma"
    } else {
        ""
    };
    assert_eq!(
        name("portable", Precision::Bf16).unwrap(),
        format!("portable{fma}-bf16-r2 (emulated in f32)")
    );
    // Unit tests have it on every target.
    let architecture = std::env::consts::ARCH;
    for kernel in Kernel::variants("neon") {
        let (bf16, int8) = match (kernel.is_native(Precision::Bf16), kernel.is_native(Precision::Int8)) {
            (true, _) => ("neon-r2", "neondot-r2"),
            (_, true) => ("neon-r2 (emulated in f32)", "neondot-r2 (bf16 emulated in f32)"),
            _ => ("neon-r2 (emulated in f32)", "neon-r2 (emulated in i16)"),
        };
        assert_eq!(kernel.name(Precision::Bf16), format!("{architecture}-bf16-{bf16}"));
        assert_eq!(kernel.name(Precision::Int8), format!("{architecture}-int8-{int8}"));
    }
    for kernel in Kernel::variants("avx2") {
        let int8 = match kernel.is_native(Precision::Int8) {
            true => "x86_64-int8-avx2vnni-r2 (bf16 emulated in f32)",
            false => "x86_64-int8-avx2-r2 (emulated in i16)",
        };
        assert_eq!(kernel.name(Precision::Int8), int8);
        assert_eq!(kernel.name(Precision::Bf16), "x86_64-bf16-avx2-r2 (emulated in f32)");
    }
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        if let Some(name) = name("amx", precision) {
            let revision = if precision == Precision::F32 { "" } else { "-r2" };
            assert_eq!(name, format!("x86_64-{}-amx{revision}", precision.name()));
        }
    }
    for kernel in Kernel::variants("avx512") {
        let (bf16, int8) = (kernel.name(Precision::Bf16), kernel.name(Precision::Int8));
        match (kernel.is_native(Precision::Bf16), kernel.is_native(Precision::Int8)) {
            (true, _) => assert_eq!((&*bf16, &*int8), ("x86_64-bf16-avx512-r2", "x86_64-int8-avx512vnni-r2")),
            (_, true) => assert_eq!(int8, "x86_64-int8-avx512vnni-r2 (bf16 emulated in f32)"),
            _ => assert_eq!(int8, "x86_64-int8-avx512-r2 (emulated in i16)"),
        }
    }
}

#[test]
fn packed_weights_are_used_from_a_file_as_they_are() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let (n, k) = (70, 100);
        let bias = Tensor::from_vec(random(n, 2), n, &Device::Cpu).unwrap();
        let layer = PackedLinear::for_kernel(selected(), &matrix(n, k, 1), Some(&bias), precision).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0; 64]).unwrap();
        file.write_all(layer.panel_bytes().unwrap()).unwrap();
        // SAFETY: nobody else has the file.
        let map = Arc::new(unsafe { memmap2::Mmap::map(&file) }.unwrap());
        let layout = layer.layout().unwrap();
        let read =
            |range, columns| PackedLinear::from_mapped(&layout, precision, map.clone(), range, columns, layer.bias());
        let columns = || layer.columns().to_vec();
        let mapped = read(64..map.len(), columns()).unwrap();
        let x = random(5 * k, 3);
        let (found, expected) = (
            mapped.forward(&x, 5, Activation::Gelu),
            layer.forward(&x, 5, Activation::Gelu),
        );
        assert_same_bits(&found, &expected, precision.name());

        assert!(read(62..map.len() - 2, columns()).is_err(), "not at a whole word");
        assert!(read(128..map.len() + 64, columns()).is_err(), "beyond the end");
        assert!(read(64..map.len() - 4, columns()).is_err(), "too short");
        assert!(read(64..map.len(), vec![0.0]).is_err(), "other column terms");
        let mut other = layout.clone();
        other.name.push('0');
        let range = 64..map.len();
        let error =
            PackedLinear::from_mapped(&other, precision, map.clone(), range, columns(), layer.bias()).unwrap_err();
        assert!(error.to_string().contains(&layout.name), "{error}");
    }
}

#[test]
fn f16_on_the_cpu_is_an_error() {
    assert!(PackedLinear::new(&matrix(4, 4, 1), None, Precision::F16).is_err());
}

/// Takes the three bf16 of each value apart again.
struct Split<'a> {
    values: &'a [f32; 2 * LINE],
}

impl Task for Split<'_> {
    type Output = [[f32; 2 * LINE]; 3];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let mut planes = [[0.0; LINE]; 3];
        SplitF32::pack(simd, self.values, &[], &mut planes, 1);
        planes.map(|plane| {
            let mut halves = [0.0; 2 * LINE];
            for (pair, word) in halves.as_chunks_mut::<2>().0.iter_mut().zip(plane) {
                *pair = [word.to_bits() << 16, word.to_bits() & 0xffff_0000].map(f32::from_bits);
            }
            halves
        })
    }
}

#[test]
fn three_bf16_hold_every_bit_of_an_f32() {
    for setting in SETTINGS {
        for kernel in Kernel::variants(setting) {
            for seed in 0..200 {
                // All magnitudes whose third part is not denormal.
                let values = random(2 * LINE, seed);
                let values: [f32; 2 * LINE] = std::array::from_fn(|i| values[i] * f32::powi(2.0, i as i32 * 5 - 85));
                let planes = kernel.run_with_bf16_dots(Split { values: &values });
                for (i, &x) in values.iter().enumerate() {
                    let sum: f64 = planes.iter().map(|plane| f64::from(plane[i])).sum();
                    assert_eq!(sum, f64::from(x), "{}: {x:e}", kernel.name(Precision::F32));
                }
            }
        }
    }
}

#[test]
fn products_in_three_bf16_are_as_exact_as_those_of_f32() {
    let Some(kernel) = Kernel::find("amx") else {
        eprintln!("skipped: this machine has no amx");
        return;
    };
    // Of one value each, so that nothing but the products is rounded: without any of the six, or with fewer bits, 2^-18
    // would be missing.
    for seed in 0..100 {
        let (x, weight) = (random(40, seed), random(1, seed + 1000));
        let layer = Tensor::from_vec(weight.clone(), (1, 1), &Device::Cpu).unwrap();
        let layer = PackedLinear::for_kernel(kernel, &layer, None, Precision::F32).unwrap();
        let found = layer.forward(&x, 40, Activation::Identity);
        for (x, found) in x.iter().zip(found) {
            let exact = f64::from(*x) * f64::from(weight[0]);
            let error = (f64::from(found) - exact).abs();
            // Two units in the last place.
            assert!(error <= 2.4e-7 * exact.abs(), "{x:e} {:e}: off by {error:e}", weight[0]);
        }
    }
}
