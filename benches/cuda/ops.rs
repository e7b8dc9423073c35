//! Time of each GPU operation at the model's shapes, next to what the card can do.
//!
//! `ops [TOKENS] [products]`: a batch of about that many tokens (default 16384) in sequences as long as ADE
//! sentences are, bf16. Prints one line an operation, a whole encoder, and the pairs per second
//! that two encoders in turn would give; nothing here reads text. `products`: the encoder's products alone, and by which of
//! cublasLt's algorithms. Exits with 3 where there is no GPU.

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use crag::kernels::cuda::{chosen_algorithms, device, refused_products};
use crag::kernels::{
    Activation, Embedding, LayerNorm, Linear, Precision, Sequences, attention, attention_pool, download, upload,
};

const HIDDEN: usize = 768;
const INTERMEDIATE: usize = 3072;
const HEADS: usize = 12;
const LAYERS: usize = 12;
const TOKENS_A_PAIR: f64 = 82.0; // ADE sentences, both sides

struct Bench {
    device: Device,
    gemm_tflops: f64,
    copy_tbs: f64,
}

impl Bench {
    /// Seconds a call, over enough calls to fill 60 ms, after as many to warm up.
    fn time(&self, mut f: impl FnMut() -> Result<Tensor>) -> Result<f64> {
        let mut repeat = |n: usize| -> Result<f64> {
            self.device.synchronize()?;
            let start = Instant::now();
            for _ in 0..n {
                f()?;
            }
            self.device.synchronize()?;
            Ok(start.elapsed().as_secs_f64() / n as f64)
        };
        repeat(3)?;
        let n = ((0.06 / repeat(3)?) as usize).clamp(3, 500);
        let mut times = [repeat(n)?, repeat(n)?, repeat(n)?];
        times.sort_by(f64::total_cmp);
        Ok(times[1])
    }

    fn product(&self, what: &str, seconds: f64, m: usize, k: usize, n: usize) {
        let tflops = 2.0 * m as f64 * k as f64 * n as f64 / seconds / 1e12;
        let share = 100.0 * tflops / self.gemm_tflops;
        println!(
            "{what:<46} {:>9.1} us {tflops:>7.1} TFLOP/s {share:>5.1}% of the ceiling",
            seconds * 1e6
        );
    }

    fn pass(&self, what: &str, seconds: f64, bytes: usize) {
        let tbs = bytes as f64 / seconds / 1e12;
        let share = 100.0 * tbs / self.copy_tbs;
        println!(
            "{what:<46} {:>9.1} us {tbs:>7.2} TB/s    {share:>5.1}% of the ceiling",
            seconds * 1e6
        );
    }
}

fn main() {
    let tokens = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(16_384);
    let gpu = match device::open(0) {
        Ok(gpu) => gpu,
        Err(error) => {
            eprintln!("no GPU: {error}");
            std::process::exit(3);
        }
    };
    let products_alone = std::env::args().any(|a| a == "products");
    if let Err(error) = run(gpu, tokens, products_alone) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run(gpu: Device, tokens: usize, products_alone: bool) -> Result<()> {
    let dtype = DType::BF16;
    let random = |shape: &[usize], deviation: f32| Tensor::randn(0f32, deviation, shape, &gpu)?.to_dtype(dtype);
    let linear = |n: usize, k: usize| -> Result<Linear> {
        let bias = Tensor::randn(0f32, 0.1f32, n, &gpu)?;
        Linear::new(
            &random(&[n, k], 1.0 / (k as f32).sqrt())?,
            Some(&bias),
            Precision::Bf16,
            &gpu,
        )
    };
    let mut bench = Bench {
        device: gpu.clone(),
        gemm_tflops: 1.0,
        copy_tbs: 1.0,
    };

    let side = 8192;
    let (x, square) = (
        random(&[side, side], 1.0)?,
        Linear::new(&random(&[side, side], 0.01)?, None, Precision::Bf16, &gpu)?,
    );
    let seconds = bench.time(|| square.forward(&x, Activation::Identity))?;
    bench.gemm_tflops = 2.0 * (side as f64).powi(3) / seconds / 1e12;
    bench.product("ceiling: product 8192 x 8192 x 8192", seconds, side, side, side);
    drop((x, square));
    let big = Tensor::zeros(1 << 28, DType::F32, &gpu)?;
    let seconds = bench.time(|| big.copy())?;
    bench.copy_tbs = (2 * 4 * (1usize << 28)) as f64 / seconds / 1e12;
    bench.pass("ceiling: copy of 1 GiB", seconds, 2 * 4 * (1 << 28));
    drop(big);
    let products = || -> Result<()> {
        for (n, k) in [
            (3 * HIDDEN, HIDDEN),
            (HIDDEN, HIDDEN),
            (INTERMEDIATE, HIDDEN),
            (HIDDEN, INTERMEDIATE),
        ] {
            let layer = Linear::new(&random(&[n, k], 0.03)?, None, Precision::Bf16, &gpu)?;
            let input = random(&[tokens, k], 1.0)?;
            let seconds = bench.time(|| layer.forward(&input, Activation::Identity))?;
            bench.product(&format!("product [{tokens}, {k}] x [{k}, {n}]"), seconds, tokens, k, n);
        }
        Ok(())
    };
    if products_alone {
        products()?;
        for line in chosen_algorithms().iter().chain(&refused_products()) {
            println!("{line}");
        }
        return Ok(());
    }

    // lengths of ADE sentences: mean 41, most between 15 and 75
    let mut lengths = Vec::new();
    let mut total = 0;
    while total < tokens {
        let n = lengths.len();
        let length = 15 + (n * 7919 % 53).min(n * 104_729 % 61);
        lengths.push(length.min(tokens - total));
        total += lengths[n];
    }
    let sequences = Sequences::new(&lengths, &gpu)?;
    println!(
        "{tokens} tokens in {} sequences, longest {}, bf16",
        lengths.len(),
        sequences.max_len()
    );

    let ones = Tensor::ones(HIDDEN, DType::F32, &gpu)?;
    let norm = LayerNorm::new(&ones, &ones, 1e-12, &gpu)?;
    let word = random(&[28_899, HIDDEN], 1.0)?;
    let embedding = Embedding::new(
        &word,
        &random(&[512, HIDDEN], 1.0)?,
        &random(&[2, HIDDEN], 1.0)?,
        norm.clone(),
        dtype,
        &gpu,
    )?;
    let ids: Vec<u32> = (0..tokens as u32)
        .map(|i| i.wrapping_mul(2_654_435_761) % 28_899)
        .collect();
    let ids = upload(&ids, &gpu)?;
    let (qkv, out) = (linear(3 * HIDDEN, HIDDEN)?, linear(HIDDEN, HIDDEN)?);
    let (up, down) = (linear(INTERMEDIATE, HIDDEN)?, linear(HIDDEN, INTERMEDIATE)?);
    let keys = Tensor::randn(0f32, 0.05f32, (4, HIDDEN), &gpu)?;

    let hidden = embedding.forward(&ids, &sequences)?;
    let mixed_input = qkv.forward(&hidden, Activation::Identity)?;
    let wide = up.forward(&hidden, Activation::Gelu)?;
    let row = 2 * HIDDEN * tokens; // bytes of hidden states

    bench.pass(
        "embeddings + norm",
        bench.time(|| embedding.forward(&ids, &sequences))?,
        2 * row,
    );
    products()?;
    let seconds = bench.time(|| qkv.forward(&hidden, Activation::Identity))?;
    bench.product("query, key, value + bias", seconds, tokens, HIDDEN, 3 * HIDDEN);
    bench.pass(
        "attention",
        bench.time(|| attention(&mixed_input, &sequences, HEADS))?,
        4 * row,
    );
    let seconds = bench.time(|| out.forward_add_norm(&hidden, &hidden, &norm))?;
    bench.product(
        "attention output + bias + residual + norm",
        seconds,
        tokens,
        HIDDEN,
        HIDDEN,
    );
    let seconds = bench.time(|| up.forward(&hidden, Activation::Gelu))?;
    bench.product("intermediate + bias + GELU", seconds, tokens, HIDDEN, INTERMEDIATE);
    let seconds = bench.time(|| down.forward_add_norm(&wide, &hidden, &norm))?;
    bench.product("output + bias + residual + norm", seconds, tokens, INTERMEDIATE, HIDDEN);
    bench.pass(
        "layer norm",
        bench.time(|| norm.forward(&hidden, Activation::Identity))?,
        2 * row,
    );
    bench.pass(
        "attention pooling, 4 heads",
        bench.time(|| attention_pool(&hidden, &keys, &sequences))?,
        row,
    );

    let encoder = || -> Result<Tensor> {
        let mut hidden = embedding.forward(&ids, &sequences)?;
        for _ in 0..LAYERS {
            let mixed = attention(&qkv.forward(&hidden, Activation::Identity)?, &sequences, HEADS)?;
            hidden = out.forward_add_norm(&mixed, &hidden, &norm)?;
            let wide = up.forward(&hidden, Activation::Gelu)?;
            hidden = down.forward_add_norm(&wide, &hidden, &norm)?;
        }
        attention_pool(&hidden, &keys, &sequences)
    };
    let seconds = bench.time(encoder)?;
    let flops = 2.0 * (LAYERS * tokens * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INTERMEDIATE)) as f64;
    let submitted = {
        gpu.synchronize()?;
        let start = Instant::now();
        let result = encoder()?;
        let host = start.elapsed().as_secs_f64();
        assert!(
            download(&result)?.iter().all(|v| v.is_finite()),
            "the encoder's result is not finite"
        );
        host
    };
    println!(
        "{:<46} {:>9.1} us {:>7.1} TFLOP/s {:>5.1}% of the ceiling (host: {:.0} us to submit)",
        "encoder of 12 layers, with pooling",
        seconds * 1e6,
        flops / seconds / 1e12,
        100.0 * flops / seconds / 1e12 / bench.gemm_tflops,
        submitted * 1e6
    );
    println!(
        "pairs/s of such encoders, {TOKENS_A_PAIR} tokens a pair: {:.0}",
        tokens as f64 / seconds / TOKENS_A_PAIR
    );
    Ok(())
}
