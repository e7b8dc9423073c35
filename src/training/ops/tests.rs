//! The CPU's operations against the composed ones, and against finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::{composed, *};
use crate::training::random::Random;

fn random(shape: &[usize], seed: u64) -> Var {
    let mut random = Random::new(&[seed]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Results and gradients of both agree, relative to the largest number of each.
fn agree(inputs: &[&Var], own: impl Fn() -> Result<Tensor>, reference: impl Fn() -> Result<Tensor>) {
    let (own, reference) = (own().unwrap(), reference().unwrap());
    close("result", &own, &reference);
    let weights = random(own.dims(), 99);
    let gradients = |y: &Tensor| {
        (y * weights.as_detached_tensor())
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap()
    };
    let (own, reference) = (gradients(&own), gradients(&reference));
    for (i, input) in inputs.iter().enumerate() {
        let get = |store: &candle_core::backprop::GradStore| store.get(input.as_tensor()).unwrap().clone();
        close(&format!("gradient {i}"), &get(&own), &get(&reference));
    }
}

fn close(what: &str, own: &Tensor, reference: &Tensor) {
    assert_eq!(own.dims(), reference.dims(), "{what}");
    let (own, reference) = (values(own), values(reference));
    let largest = reference.iter().fold(1e-3f32, |a, x| a.max(x.abs()));
    for (i, (a, b)) in own.iter().zip(&reference).enumerate() {
        assert!((a - b).abs() <= 2e-5 * largest, "{what} {i}: {a} and {b}");
    }
}

fn lengths() -> Lengths {
    Lengths::new([7, 1, 19, 4])
}

#[test]
fn linear_is_the_composed_one() {
    let (x, w, b) = (random(&[131, 12], 1), random(&[9, 12], 2), random(&[9], 3));
    agree(
        &[&x, &w, &b],
        || linear(&x, &w, Some(&b)),
        || composed::linear(&x, &w, Some(&b)),
    );
    agree(&[&x, &w], || linear(&x, &w, None), || composed::linear(&x, &w, None));
}

#[test]
fn layer_norm_is_the_composed_one() {
    let (x, w, b) = (random(&[131, 24], 1), random(&[24], 2), random(&[24], 3));
    agree(
        &[&x, &w, &b],
        || layer_norm(&x, &w, &b, 1e-5),
        || composed::layer_norm(&x, &w, &b, 1e-5),
    );
}

#[test]
fn gelu_is_candles() {
    let x = random(&[50, 400], 1);
    agree(
        &[&x],
        || gelu(&(x.as_tensor() * 3.0)?),
        || (x.as_tensor() * 3.0)?.gelu_erf(),
    );
}

#[test]
fn embedding_is_the_composed_one() {
    let (w, p, t) = (random(&[11, 6], 1), random(&[20, 6], 2), random(&[2, 6], 3));
    let ids: Vec<u32> = (0..31).map(|i| (i * 7) % 11).collect();
    let lengths = lengths();
    let rows: Vec<[usize; 2]> = lengths
        .ranges()
        .flat_map(|range| {
            range
                .enumerate()
                .map(|(at, token)| [ids[token] as usize, at])
                .collect::<Vec<_>>()
        })
        .collect();
    agree(
        &[&w, &p, &t],
        || embed(&w, &p, &t, &ids, &lengths),
        || composed::embed(&w, &p, &t, &rows),
    );
    assert!(embed(&w, &p, &t, &[11; 31], &lengths).is_err());
}

#[test]
fn attention_is_the_composed_one_with_and_without_dropout() {
    let qkv = random(&[31, 24], 1);
    for rate in [0.0, 0.3] {
        let drop = || Dropout::new(rate, 5);
        agree(
            &[&qkv],
            || attention(&qkv, &lengths(), 2, Some(&drop())),
            || composed::attention(&qkv, &lengths(), 2, drop().mask().as_ref()),
        );
    }
}

#[test]
fn pooling_is_the_composed_one() {
    let (hidden, scores) = (random(&[31, 10], 1), random(&[31, 3], 2));
    agree(
        &[&hidden, &scores],
        || weighted_means(&hidden, &scores, &lengths()),
        || composed::weighted_means(&hidden, &scores, &lengths()),
    );
    assert!(weighted_means(&hidden, &scores, &Lengths::new([31, 0])).is_err());
}

#[test]
fn dropout_drops_its_share_and_its_backward_uses_the_same_mask() {
    let x = Var::from_tensor(&Tensor::ones(100_000, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let residual = Tensor::zeros(100_000, DType::F32, &Device::Cpu).unwrap();
    for add in [false, true] {
        let drop = Dropout::new(0.1, 7);
        let y = match add {
            true => dropout_add(&x, &residual, Some(&drop)).unwrap(),
            false => dropout(&x, Some(&drop)).unwrap(),
        };
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(values(gradients.get(&x).unwrap()), values(&y));
        let zeros = values(&y).iter().filter(|y| **y == 0.0).count();
        assert!((9_600..10_400).contains(&zeros), "{zeros}");
        assert!(values(&y).iter().all(|y| *y == 0.0 || (*y - 1.0 / 0.9).abs() < 1e-6));
    }
    let drop = Dropout::new(0.5, 7);
    let (first, second) = (dropout(&x, Some(&drop)).unwrap(), dropout(&x, Some(&drop)).unwrap());
    assert_ne!(values(&first), values(&second), "each use has a mask of its own");
}

#[test]
fn results_are_the_same_bits_for_any_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (x, w, b) = (random(&[700, 96], 1), random(&[288, 96], 2), random(&[288], 3));
            let (scale, shift) = (random(&[96], 4), random(&[96], 5));
            let y = layer_norm(&x, &scale, &shift, 1e-12).unwrap();
            let y = gelu(&linear(&y, &w, Some(&b)).unwrap()).unwrap();
            let lengths = Lengths::new(std::iter::repeat_n(28, 25));
            let y = attention(&y, &lengths, 4, Some(&Dropout::new(0.1, 3))).unwrap();
            let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let mut bits = values(&y);
            for variable in [&x, &w, &b, &scale, &shift] {
                bits.extend(values(gradients.get(variable.as_tensor()).unwrap()));
            }
            bits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(3));
}
