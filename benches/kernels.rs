//! The CPU's kernels at the shapes of a BERT-base layer, on one thread unless the name says two.
//!
//! Rates of products are flops (two for each multiply-add), so criterion's `Gelem/s` reads GFLOP/s;
//! those of other operations are values or tokens. `CRAG_KERNEL` picks the kernel, whose name is
//! part of each id. What to expect and what came out is in `NOTES.md`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use crag::kernels::cpu::{self, PackedLinear};
use crag::kernels::{Activation, Precision};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const HIDDEN: usize = 768;
const HEADS: usize = 12;

/// Name, K and N of the linear layers of a BERT-base layer.
const LAYERS: [(&str, usize, usize); 4] = [
    ("qkv", HIDDEN, 3 * HIDDEN),
    ("attention-output", HIDDEN, HIDDEN),
    ("intermediate", HIDDEN, 4 * HIDDEN),
    ("output", 4 * HIDDEN, HIDDEN),
];

/// Tokens in a batch.
const TOKENS: [usize; 3] = [48, 512, 1024];

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

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

fn layer(k: usize, n: usize, precision: Precision) -> PackedLinear {
    let weight = Tensor::from_vec(random(n * k, 1), (n, k), &Device::Cpu).expect("a weight of that shape");
    let bias = Tensor::from_vec(random(n, 2), n, &Device::Cpu).expect("a bias of that shape");
    PackedLinear::new(&weight, Some(&bias), precision).expect("a layer of that shape")
}

fn norm<'a>(weight: &'a [f32], bias: &'a [f32]) -> cpu::Norm<'a> {
    let eps = 1e-12;
    cpu::Norm { weight, bias, eps }
}

fn flops(rows: usize, k: usize, n: usize) -> Throughput {
    Throughput::Elements((2 * rows * k * n) as u64)
}

fn id(operation: &str, size: usize) -> BenchmarkId {
    id_of(operation, Precision::F32, size)
}

fn id_of(operation: &str, precision: Precision, size: usize) -> BenchmarkId {
    BenchmarkId::new(format!("{operation}/{}", cpu::selected().name(precision)), size)
}

fn linear(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear");
    for precision in PRECISIONS {
        for (name, k, n) in LAYERS {
            let layer = layer(k, n, precision);
            for rows in TOKENS {
                let x = random(rows * k, 3);
                group.throughput(flops(rows, k, n));
                group.bench_function(id_of(name, precision, rows), |b| {
                    b.iter(|| layer.forward(black_box(&x), rows, Activation::Identity))
                });
            }
        }
    }
    group.finish();
}

/// What rides along: the differences to `linear` are its price.
fn fused(c: &mut Criterion) {
    let mut group = c.benchmark_group("fused");
    let rows = 1024;
    for precision in PRECISIONS {
        let (_, k, n) = LAYERS[2];
        let (intermediate, x) = (layer(k, n, precision), random(rows * k, 3));
        group.throughput(flops(rows, k, n));
        group.bench_function(id_of("intermediate-gelu", precision, rows), |b| {
            b.iter(|| intermediate.forward(black_box(&x), rows, Activation::Gelu))
        });
        let (_, k, n) = LAYERS[3];
        let (output, x) = (layer(k, n, precision), random(rows * k, 3));
        let (residual, weight, bias) = (random(rows * n, 4), random(n, 5), random(n, 6));
        let norm = norm(&weight, &bias);
        group.throughput(flops(rows, k, n));
        group.bench_function(id_of("output-residual-norm", precision, rows), |b| {
            b.iter(|| output.forward_add_norm(black_box(&x), rows, &residual, norm))
        });
        group.throughput(flops(rows, n, 2 * k));
        group.bench_function(id_of("feed-forward", precision, rows), |b| {
            b.iter(|| {
                cpu::feed_forward(
                    black_box(&residual),
                    rows,
                    &intermediate,
                    Activation::Gelu,
                    &output,
                    norm,
                )
            })
        });
    }
    group.finish();
}

/// Two threads at once, each with a batch of its own and the same weights.
fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear-2-threads");
    let rows = 512;
    let layers = PRECISIONS.map(|precision| LAYERS.map(|(name, k, n)| (precision, name, k, n)));
    for (precision, name, k, n) in layers.into_iter().flatten() {
        let layer = layer(k, n, precision);
        let x = random(rows * k, 3);
        group.throughput(flops(2 * rows, k, n));
        group.bench_function(id_of(name, precision, rows), |b| {
            b.iter_custom(|times| {
                let start = Instant::now();
                std::thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| {
                            for _ in 0..times {
                                black_box(layer.forward(black_box(&x), rows, Activation::Identity));
                            }
                        });
                    }
                });
                start.elapsed()
            })
        });
    }
    group.finish();
}

/// Bilinear fusion of representations of width 256, from 256 to 65,536 and back: few rows, so it waits for memory.
fn bilinear(c: &mut Criterion) {
    let mut group = c.benchmark_group("bilinear");
    let (k, n) = (256, 256 * 256);
    let bias = random(256, 5);
    for precision in [Precision::F32, Precision::Bf16] {
        let layer = layer(k, n, precision);
        for rows in [1, 16, 64] {
            let (x1, x2) = (random(rows * k, 3), random(rows * k, 4));
            group.throughput(flops(rows, k, n));
            group.bench_function(id_of("fusion", precision, rows), |b| {
                b.iter(|| layer.bilinear(black_box(&x1), &x2, rows, &bias))
            });
        }
    }
    group.finish();
}

/// About 1,024 tokens in sequences of equal length; the rate is tokens.
fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    for len in [16, 41, 128, 512] {
        let count = 1024 / len;
        let offsets: Vec<u32> = (0..=count).map(|i| (i * len) as u32).collect();
        let qkv = random(count * len * 3 * HIDDEN, 1);
        group.throughput(Throughput::Elements((count * len) as u64));
        group.bench_function(id("self", len), |b| {
            b.iter(|| cpu::attention(black_box(&qkv), &offsets, HIDDEN, HEADS))
        });
        let x = random(count * len * HIDDEN, 4);
        for precision in PRECISIONS {
            let projection = layer(HIDDEN, 3 * HIDDEN, precision);
            group.bench_function(id_of("projection-and-self", precision, len), |b| {
                b.iter(|| cpu::self_attention(black_box(&x), &projection, &offsets, HEADS))
            });
        }
        let (hidden, keys) = (random(count * len * HIDDEN, 2), random(4 * HIDDEN, 3));
        group.bench_function(id("pool", len), |b| {
            b.iter(|| cpu::attention_pool(black_box(&hidden), &keys, &offsets, 4, HIDDEN))
        });
    }
    group.finish();
}

/// The rate is values.
fn layer_norm(c: &mut Criterion) {
    let mut group = c.benchmark_group("layer-norm");
    let rows = 1024;
    let (x, weight, bias) = (random(rows * HIDDEN, 1), random(HIDDEN, 2), random(HIDDEN, 3));
    group.throughput(Throughput::Elements(x.len() as u64));
    for activation in [Activation::Identity, Activation::Gelu, Activation::Tanh] {
        group.bench_function(id(&format!("{activation:?}").to_lowercase(), rows), |b| {
            b.iter(|| cpu::layer_norm(black_box(&x), norm(&weight, &bias), activation))
        });
    }
    group.finish();
}

/// From the checkpoint's layout to panels; the rate is bytes of f32.
fn packing(c: &mut Criterion) {
    let mut group = c.benchmark_group("packing");
    for (name, k, n) in LAYERS {
        let weight = Tensor::from_vec(random(n * k, 1), (n, k), &Device::Cpu).expect("a weight of that shape");
        group.throughput(Throughput::Bytes((4 * n * k) as u64));
        group.bench_function(id(name, n), |b| {
            b.iter(|| PackedLinear::new(black_box(&weight), None, Precision::F32))
        });
    }
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = linear, fused, two_threads, bilinear, attention, layer_norm, packing
}
criterion_main!(kernels);
