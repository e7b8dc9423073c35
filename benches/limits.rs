//! What this machine can do in matrix products, and how near this crate's kernels come to it. Prints JSON.
//!
//! ```text
//! cargo bench --bench limits -- [--threads N] [--seconds S] [--rows M,M,…]
//! ```
//!
//! For each precision, in GFLOP/s (two for each multiply-add), the best of many short repetitions on
//! `threads` threads at once, each with its own operands:
//!
//! - `registers`: multiply-adds between registers alone, with the widest instruction that this machine has
//!   for the precision (AMX where `CRAG_KERNEL` is; f32 takes six of its bf16 products). Nothing reads memory, so
//!   no product can be faster.
//! - `products`: the largest rate of this crate's linear layers over the shapes of a BERT-base layer,
//!   packing of rows and bias included; `by_shape` has each. `CRAG_KERNEL` picks the kernel.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use candle_core::{Device, Tensor};
use crag::kernels::cpu::{self, PackedLinear};
use crag::kernels::{Activation, Precision};
use serde_json::json;

/// K and N of the linear layers of a BERT-base layer.
const LAYERS: [(usize, usize); 4] = [(768, 2304), (768, 768), (768, 3072), (3072, 768)];
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

fn main() {
    // As the program does: results would else lie in fresh pages each time.
    // SAFETY: this is the only thread so far.
    unsafe { crag::kernels::memory::keep_freed_buffers() };
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str, default: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1).cloned())
            .unwrap_or(default.into())
    };
    let threads: usize = value("--threads", "1").parse().expect("--threads takes a number");
    let seconds: f64 = value("--seconds", "0.3").parse().expect("--seconds takes a number");
    let rows = value("--rows", "48,512");
    let rows: Vec<usize> = rows
        .split(',')
        .map(|m| m.parse().expect("--rows takes numbers"))
        .collect();
    let mut report = BTreeMap::new();
    for precision in PRECISIONS {
        let registers = registers::best_rate(precision, threads, seconds);
        let mut by_shape = BTreeMap::new();
        for (k, n) in LAYERS {
            let layer = layer(k, n, precision);
            for &m in &rows {
                let x = random(m * k, 3);
                let flops = (2 * m * k * n) as f64;
                let rate = best(threads, seconds, flops, || {
                    black_box(layer.forward(black_box(&x), m, Activation::Identity));
                });
                by_shape.insert(format!("{m} x {k} x {n}"), rate);
            }
        }
        let products = by_shape.values().copied().fold(0.0, f64::max);
        let kernel = cpu::selected().name(precision);
        let found = json!({"registers": registers, "products": products, "by_shape": by_shape, "kernel": kernel});
        report.insert(precision.name(), found);
    }
    println!("{}", json!({"threads": threads, "precisions": report}));
}

/// The largest rate, in GFLOP/s over all threads, of repetitions of `work` that begin together.
fn best(threads: usize, seconds: f64, flops: f64, work: impl Fn() + Sync) -> f64 {
    work();
    let begin = Instant::now();
    work();
    let rounds = (seconds / begin.elapsed().as_secs_f64()).clamp(5.0, 1e6) as usize;
    let barrier = Barrier::new(threads);
    let rounds_of_a_thread = || -> Vec<(Instant, Instant)> {
        let round = |_| {
            barrier.wait();
            let begin = Instant::now();
            work();
            (begin, Instant::now())
        };
        (0..rounds).map(round).collect()
    };
    let times: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(rounds_of_a_thread)).collect();
        let joined = handles.into_iter().map(|handle| handle.join());
        joined.map(|times| times.expect("a thread that measures")).collect()
    });
    // From the first beginning to the last end.
    let fastest = (0..rounds).map(|round| {
        let begin = times.iter().map(|times| times[round].0).min().expect("a thread");
        let end = times.iter().map(|times| times[round].1).max().expect("a thread");
        (end - begin).as_secs_f64()
    });
    threads as f64 * flops / fastest.fold(f64::INFINITY, f64::min) / 1e9
}

fn layer(k: usize, n: usize, precision: Precision) -> PackedLinear {
    let weight = Tensor::from_vec(random(n * k, 1), (n, k), &Device::Cpu).expect("a weight of that shape");
    PackedLinear::new(&weight, None, precision).expect("a layer of that shape")
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

/// Multiply-adds between registers: 12 independent sums, enough for 4 cycles of latency at 2 a cycle and more.
mod registers {
    use super::{Precision, best};

    /// In GFLOP/s; nothing where this machine has no instruction for the precision.
    pub fn best_rate(precision: Precision, threads: usize, seconds: f64) -> Option<f64> {
        let (work, flops) = loop_of(precision)?;
        Some(best(threads, seconds, STEPS as f64 * SUMS as f64 * flops, work))
    }

    const SUMS: usize = 12;
    const STEPS: usize = 20_000;

    /// A loop of `STEPS` times `SUMS` multiply-adds, and the flops of one.
    #[cfg(target_arch = "x86_64")]
    fn loop_of(precision: Precision) -> Option<(fn(), f64)> {
        let avx512 = is_x86_feature_detected!("avx512f");
        let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        // Where the kernel is found, the process may use the tiles.
        let tiles = crag::kernels::cpu::selected().setting() == "amx";
        let found: (fn(), f64) = match precision {
            // SAFETY: the process may use the tiles.
            Precision::F32 if tiles => (|| unsafe { x86::tiles_bf16() }, 16_384.0 / 6.0),
            // SAFETY: the process may use the tiles.
            Precision::Bf16 if tiles => (|| unsafe { x86::tiles_bf16() }, 16_384.0),
            // SAFETY: the process may use the tiles.
            Precision::Int8 if tiles => (|| unsafe { x86::tiles_int8() }, 32_768.0),
            // SAFETY: the machine has just been seen to have the instructions.
            Precision::F32 if avx512 => (|| unsafe { x86::f32_512() }, 32.0),
            // SAFETY: the machine has just been seen to have the instructions.
            Precision::F32 if fma => (|| unsafe { x86::f32_256() }, 16.0),
            // SAFETY: the machine has just been seen to have the instructions.
            Precision::Bf16 if is_x86_feature_detected!("avx512bf16") => (|| unsafe { x86::bf16_512() }, 64.0),
            // SAFETY: the machine has just been seen to have the instructions.
            Precision::Int8 if is_x86_feature_detected!("avx512vnni") => (|| unsafe { x86::int8_512() }, 128.0),
            _ => return None,
        };
        Some(found)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn loop_of(_: Precision) -> Option<(fn(), f64)> {
        None
    }

    #[cfg(target_arch = "x86_64")]
    mod x86 {
        use std::arch::asm;
        use std::arch::x86_64::*;
        use std::hint::black_box;

        use super::{STEPS, SUMS};

        macro_rules! tiles {
            ($($name:ident, $multiply:literal;)*) => {
                $(
                    /// # Safety
                    /// The machine must have AMX, and the process leave to use it.
                    pub unsafe fn $name() {
                        #[repr(align(64))]
                        struct Configuration([u8; 64]);
                        let mut configuration = Configuration([0; 64]);
                        configuration.0[0] = 1;
                        for tile in 0..8 {
                            configuration.0[16 + 2 * tile] = 64;
                            configuration.0[48 + tile] = 16;
                        }
                        // SAFETY: the caller's; four sums are as many products as it takes until the first is ready.
                        unsafe {
                            asm!(
                                "ldtilecfg [{configuration}]",
                                "2:",
                                concat!($multiply, " tmm0, tmm4, tmm6"),
                                concat!($multiply, " tmm1, tmm4, tmm7"),
                                concat!($multiply, " tmm2, tmm5, tmm6"),
                                concat!($multiply, " tmm3, tmm5, tmm7"),
                                "dec {steps}",
                                "jnz 2b",
                                "tilerelease",
                                configuration = in(reg) &configuration,
                                steps = inout(reg) STEPS * SUMS / 4 => _,
                                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                                options(nostack),
                            );
                        }
                    }
                )*
            };
        }

        tiles! {
            tiles_bf16, "tdpbf16ps";
            tiles_int8, "tdpbusd";
        }

        macro_rules! loops {
            ($($name:ident, $features:literal, $vector:ty, $zero:expr, |$sum:ident, $a:ident, $b:ident| $step:expr;)*) => {
                $(
                    /// # Safety
                    /// The machine must have the instructions.
                    #[target_feature(enable = $features)]
                    pub unsafe fn $name() {
                        let ($a, $b): ($vector, $vector) = black_box(($zero, $zero));
                        let mut sums: [$vector; SUMS] = black_box([$zero; SUMS]);
                        for _ in 0..STEPS {
                            for $sum in &mut sums {
                                *$sum = $step;
                            }
                        }
                        black_box(sums);
                    }
                )*
            };
        }

        loops! {
            f32_512, "avx512f", __m512, _mm512_setzero_ps(), |sum, a, b| _mm512_fmadd_ps(a, b, *sum);
            f32_256, "avx2,fma", __m256, _mm256_setzero_ps(), |sum, a, b| _mm256_fmadd_ps(a, b, *sum);
            bf16_512, "avx512f,avx512bf16", __m512i, _mm512_setzero_si512(), |sum, a, b| {
                // SAFETY: all are 64 bytes of which any pattern is a value.
                unsafe {
                    let words = |v| std::mem::transmute::<__m512i, __m512bh>(v);
                    _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(*sum), words(a), words(b)))
                }
            };
            int8_512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), |sum, a, b| _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
}
