//! Bilinear fusion against the plain reference, and that no cut of the pairs changes a bit.

use candle_core::{Device, Tensor};

use super::*;
use crate::{Bilinear, Linear};

/// Weight and bias on `[O, F1, F2]` with the layer of them for `kernel`.
fn layer(kernel: Kernel, precision: Precision, [outputs, f1, f2]: [usize; 3]) -> (PackedLinear, Vec<f32>, Vec<f32>) {
    let weight = matrix(outputs * f1, f2, 1);
    let layer = PackedLinear::for_kernel(kernel, &weight, None, precision).unwrap();
    (layer, values(&weight), random(outputs, 2))
}

/// What the product in `precision` sees of its operands.
fn seen(values: &[f32], precision: Precision) -> Vec<f32> {
    let round = |&x: &f32| match precision {
        Precision::Bf16 => half::bf16::from_f32(x).to_f32(),
        _ => x,
    };
    values.iter().map(round).collect()
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

#[test]
fn bilinear_agrees_with_the_reference_on_ragged_sizes() {
    for_each_kernel(|kernel| {
        for sizes in [
            [1, 1, 1],
            [3, 5, 7],
            [2, 31, 33],
            [7, 16, 16],
            [5, 33, 20],
            [4, 64, 64],
            [3, 96, 257],
            [9, 3, 300],
        ] {
            for precision in PRECISIONS {
                let (layer, weight, bias) = layer(kernel, precision, sizes);
                let [_, f1, f2] = sizes;
                for rows in [0, 1, 2, 5, 6, 7, 13, 40] {
                    let (x1, x2) = (random(rows * f1, 3), random(rows * f2, 4));
                    let found = layer.bilinear(&x1, &x2, rows, &bias);
                    let (weight, x2) = (seen(&weight, precision), seen(&x2, precision));
                    let expected = reference::bilinear(&x1, &x2, &weight, &bias, [f1, f2]);
                    let what = format!("{}: {rows} pairs, {sizes:?}", kernel.name(precision));
                    let terms = (f1 * f2) as f32;
                    assert_close(&found, &expected, tolerance::PRODUCT * (terms / 8.0 + 1.0), &what);
                }
            }
        }
    });
}

#[test]
fn a_pairs_bits_do_not_depend_on_the_group_it_is_fused_in() {
    for_each_kernel(|kernel| {
        // So wide that a block holds few rows, and more rows than a block.
        let cases = [[3, 40, 3000], [5, 33, 20]].map(|sizes| PRECISIONS.map(|precision| (sizes, precision)));
        for (sizes, precision) in cases.into_iter().flatten() {
            let (layer, _, bias) = layer(kernel, precision, sizes);
            let [_, f1, f2] = sizes;
            let rows = 77;
            let (x1, x2) = (random(rows * f1, 3), random(rows * f2, 4));
            let whole = layer.bilinear(&x1, &x2, rows, &bias);
            for group in [1, 2, 5, 6, 7, 12, 50, 76] {
                let pieces = x1.chunks(group * f1).zip(x2.chunks(group * f2));
                let found: Vec<f32> = pieces
                    .flat_map(|(x1, x2)| layer.bilinear(x1, x2, x1.len() / f1, &bias))
                    .collect();
                let what = format!("{}: groups of {group}, {sizes:?}", kernel.name(precision));
                assert_same_bits(&found, &whole, &what);
            }
        }
    });
}

#[test]
fn the_operation_is_that_of_its_kernel_with_and_without_a_bias() {
    let [outputs, f1, f2] = [4, 6, 9];
    let (weight, bias) = (matrix(outputs * f1, f2, 1), random(outputs, 2));
    let (x1, x2) = (matrix(5, f1, 3), matrix(5, f2, 4));
    let bias_tensor = Tensor::from_slice(&bias, outputs, &Device::Cpu).unwrap();
    for (given, bias) in [(Some(&bias_tensor), bias), (None, vec![0.0; outputs])] {
        let linear = Linear::new(&weight, None, Precision::F32, &Device::Cpu).unwrap();
        let fusion = Bilinear::new(linear, given, outputs, &Device::Cpu).unwrap();
        let expected = reference::bilinear(&values(&x1), &values(&x2), &values(&weight), &bias, [f1, f2]);
        let found = fusion.forward(&x1, &x2).unwrap();
        assert_eq!(found.dims(), [5, outputs]);
        assert_close(&values(&found), &expected, tolerance::PRODUCT * 8.0, "bilinear");
        let wrong = fusion.forward(&x2, &x1).unwrap_err().to_string();
        assert!(wrong.contains("expected [N, 6] and [N, 9], found [5, 9]"), "{wrong}");
    }
}

#[test]
fn a_bilinear_whose_sizes_do_not_agree_is_an_error() {
    let linear = || Linear::new(&matrix(12, 3, 1), None, Precision::F32, &Device::Cpu).unwrap();
    assert!(Bilinear::new(linear(), None, 5, &Device::Cpu).is_err());
    assert!(Bilinear::new(linear(), None, 0, &Device::Cpu).is_err());
    assert!(Bilinear::new(linear(), Some(&matrix(1, 4, 2)), 4, &Device::Cpu).is_err());
}

#[test]
fn weights_in_int8_are_refused() {
    let weight = matrix(4 * 6, 9, 1);
    let linear = Linear::new(&weight, None, Precision::Int8, &Device::Cpu).unwrap();
    let message = Bilinear::new(linear, None, 4, &Device::Cpu).unwrap_err().to_string();
    assert!(
        message.contains("expected weights in f32 or bf16, found int8"),
        "{message}"
    );
}
