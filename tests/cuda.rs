//! The GPU's kernels against the plain reference: on a GPU where there is one, and everywhere by
//! running the same source on the CPU.
//!
//! A machine without a usable GPU skips the first kind with a message; `CRAG_REQUIRE_GPU=1` makes
//! that a failure. The test binary may be carried to a machine without a compiler.

use std::path::Path;
use std::process::Command;

#[test]
fn kernel_sources_run_on_the_cpu_agree_with_f64_arithmetic() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/src/cuda/emulation/check.cpp");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("check");
    let compiled = Command::new("g++")
        .args(["-std=c++17", "-O2", "-w", "-o"])
        .arg(&program)
        .arg(&source)
        .output();
    match compiled {
        Ok(output) if output.status.success() => {}
        Ok(output) if source.exists() => {
            // an old compiler, without _Float16, is no fault of the kernels
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(words.contains("_Float16") || words.contains("c++17"), "{words}");
            return eprintln!("skipped: this g++ cannot compile C++17 with _Float16");
        }
        _ => return eprintln!("skipped: needs g++ and the source tree"),
    }
    let run = Command::new(&program).output().unwrap();
    let words = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{words}");
    assert!(words.contains("all kernels agree"), "{words}");
}

#[cfg(feature = "cuda")]
mod gpu {
    use std::sync::OnceLock;

    use candle_core::cuda_backend::kernels;
    use candle_core::{DType, Device, Tensor};
    use crag::kernels::cuda::{device, refused_products};
    use crag::kernels::{
        Activation, Bilinear, Embedding, LayerNorm, Linear, Precision, RowKind, Sequences, abs_diff, attention,
        attention_pool, download, first_token_pool, mean_pool, product, reference, upload,
    };

    const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

    fn precision(dtype: DType) -> Precision {
        match dtype {
            DType::BF16 => Precision::Bf16,
            DType::F16 => Precision::F16,
            _ => Precision::F32,
        }
    }

    /// Largest error allowed, relative to the wanted value plus the root mean square of all: a few
    /// roundings of the type, and in f32 those of a sum over 3072 products.
    fn tolerance(dtype: DType) -> f32 {
        match dtype {
            DType::F32 => 2e-5,
            DType::F16 => 3e-3,
            _ => 2e-2,
        }
    }

    /// The GPU, or a message and none.
    fn gpu() -> Option<Device> {
        static GPU: OnceLock<Result<Device, String>> = OnceLock::new();
        match GPU.get_or_init(|| device::open(0).map_err(|e| e.to_string()).inspect(load_modules)) {
            Ok(device) => Some(device.clone()),
            Err(reason) if std::env::var_os("CRAG_REQUIRE_GPU").is_none() => {
                eprintln!("skipped: {reason}");
                None
            }
            Err(reason) => panic!("CRAG_REQUIRE_GPU is set: {reason}"),
        }
    }

    /// Loads what the tests use of candle besides what the program uses: asked for by two of them at once, a module would be
    /// loaded twice and one copy unloaded while it runs.
    fn load_modules(device: &Device) {
        let Device::Cuda(gpu) = device else { return };
        for (module, kernel) in [
            (&kernels::AFFINE, "affine_f32"),
            (&kernels::BINARY, "bmul_f32"),
            (&kernels::INDEXING, "is_u32_f32"),
            (&kernels::REDUCE, "fast_sum_f32"),
            (&kernels::UNARY, "ucopy_f32"),
        ] {
            gpu.get_or_load_func(kernel, module).unwrap();
        }
    }

    /// Whether the GPU is one that `cuda_emulated` starts these tests on: right, and a million times slower.
    fn is_emulated(gpu: &Device) -> bool {
        device::describe(gpu).unwrap().name == "emulated GPU"
    }

    /// Numbers with no pattern, about normal, the same in every run.
    fn random(n: usize, deviation: f32, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n)
            .map(|_| (uniform() + uniform() + uniform() + uniform()) * 1.73 * deviation)
            .collect()
    }

    /// Values rounded to `dtype`, so that only the arithmetic differs from the reference.
    fn rounded(values: Vec<f32>, dtype: DType) -> Vec<f32> {
        let n = values.len();
        let t = Tensor::from_vec(values, n, &Device::Cpu).unwrap();
        t.to_dtype(dtype)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap()
            .to_vec1()
            .unwrap()
    }

    fn tensor(values: &[f32], shape: &[usize], dtype: DType, device: &Device) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap()
            .to_device(device)
            .unwrap()
    }

    fn assert_close(what: &str, found: &Tensor, wanted: &[f32], limit: f32) {
        let found = download(found).unwrap();
        assert_eq!(found.len(), wanted.len(), "{what}");
        let rms = (wanted.iter().map(|w| f64::from(w * w)).sum::<f64>() / wanted.len() as f64).sqrt() as f32;
        let mut worst = 0f32;
        for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
            let error = (f - w).abs() / (w.abs() + rms + 1e-6);
            assert!(
                error <= limit,
                "{what}: element {i} is {f}, should be {w} (error {error:.1e}, limit {limit:.0e})"
            );
            worst = worst.max(error);
        }
        eprintln!("{what}: worst error {worst:.1e} (limit {limit:.0e})");
    }

    const ACTIVATIONS: [Activation; 5] = [
        Activation::Identity,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Tanh,
    ];

    #[test]
    fn linear_layers_agree_with_the_reference() {
        let Some(gpu) = gpu() else { return };
        // the model's shapes, and sizes that no 16-byte access and no tensor core fits
        for (m, k, n) in [
            (1, 768, 2304),
            (37, 768, 3072),
            (130, 3072, 768),
            (5, 24, 40),
            (3, 7, 5),
            (64, 256, 1),
            (9, 512, 129),
        ] {
            for dtype in DTYPES {
                let x = rounded(random(m * k, 1.0, 1), dtype);
                let w = rounded(random(n * k, 1.0 / (k as f32).sqrt(), 2), dtype);
                let b = rounded(random(n, 1.0, 3), dtype);
                let on_gpu = tensor(&x, &[m, k], dtype, &gpu);
                let (weight, bias) = (tensor(&w, &[n, k], dtype, &gpu), tensor(&b, &[n], dtype, &gpu));
                for with_bias in [true, false] {
                    let linear = Linear::new(&weight, with_bias.then_some(&bias), precision(dtype), &gpu).unwrap();
                    for activation in ACTIVATIONS {
                        let wanted = reference::linear(&x, &w, with_bias.then_some(&b[..]), k, activation);
                        let found = linear.forward(&on_gpu, activation).unwrap();
                        let what = format!("linear {dtype:?} [{m}, {k}] x [{k}, {n}] {activation:?} bias {with_bias}");
                        assert_close(&what, &found, &wanted, tolerance(dtype));
                    }
                }
            }
        }
    }

    #[test]
    fn linear_with_residual_and_layer_norm_agrees_with_the_reference() {
        let Some(gpu) = gpu() else { return };
        for (m, k, n) in [
            (1, 768, 768),
            (61, 3072, 768),
            (10, 128, 64),
            (6, 10, 30),
            (7, 64, 1024),
        ] {
            for dtype in DTYPES {
                let x = rounded(random(m * k, 1.0, 4), dtype);
                let w = rounded(random(n * k, 1.0 / (k as f32).sqrt(), 5), dtype);
                let r = rounded(random(m * n, 1.0, 6), dtype);
                let (b, g, h) = (random(n, 1.0, 7), random(n, 1.0, 8), random(n, 1.0, 9));
                let b = rounded(b, dtype);
                for with_bias in [true, false] {
                    let bias = tensor(&b, &[n], DType::F32, &gpu);
                    let weight = tensor(&w, &[n, k], dtype, &gpu);
                    let linear = Linear::new(&weight, with_bias.then_some(&bias), precision(dtype), &gpu).unwrap();
                    let f32s = |v: &[f32]| tensor(v, &[n], DType::F32, &gpu);
                    let norm = LayerNorm::new(&f32s(&g), &f32s(&h), 1e-12, &gpu).unwrap();
                    let mut sum = reference::linear(&x, &w, with_bias.then_some(&b[..]), k, Activation::Identity);
                    sum.iter_mut().zip(&r).for_each(|(s, r)| *s += r);
                    let wanted = reference::layer_norm(&sum, &g, &h, 1e-12, Activation::Identity);
                    let (x, r) = (tensor(&x, &[m, k], dtype, &gpu), tensor(&r, &[m, n], dtype, &gpu));
                    let found = linear.forward_add_norm(&x, &r, &norm).unwrap();
                    let what = format!("linear + residual + norm {dtype:?} [{m}, {k}] x [{k}, {n}] bias {with_bias}");
                    assert_close(&what, &found, &wanted, tolerance(dtype));
                }
            }
        }
    }

    #[test]
    fn bilinear_fusion_agrees_with_the_reference() {
        let Some(gpu) = gpu() else { return };
        // a group of pairs and a part of one; widths that 16-byte accesses do not fit
        for (pairs, outputs, left, right) in [(1, 7, 16, 24), (300, 3, 64, 32), (5, 4, 30, 9), (2, 64, 256, 256)] {
            let (x1, x2) = (random(pairs * left, 1.0, 90), random(pairs * right, 1.0, 91));
            let weight = random(outputs * left * right, 1.0 / (right as f32).sqrt(), 92);
            let bias = random(outputs, 1.0, 93);
            let wanted = reference::bilinear(&x1, &x2, &weight, &bias, [left, right]);
            let f32s = |values: &[f32], shape: &[usize]| tensor(values, shape, DType::F32, &gpu);
            let linear = Linear::new(&f32s(&weight, &[outputs * left, right]), None, Precision::F32, &gpu);
            let bias = f32s(&bias, &[outputs]);
            let bilinear = Bilinear::new(linear.unwrap(), Some(&bias), outputs, &gpu).unwrap();
            let found = bilinear
                .forward(&f32s(&x1, &[pairs, left]), &f32s(&x2, &[pairs, right]))
                .unwrap();
            assert_eq!(found.dims(), [pairs, outputs]);
            let what = format!("bilinear, {pairs} pairs, {outputs} outputs, {left} x {right}");
            assert_close(&what, &found, &wanted, tolerance(DType::F32) * 2.0);
        }
    }

    #[test]
    fn products_and_differences_are_the_cpu_s_to_the_bit() {
        let Some(gpu) = gpu() else { return };
        for (pairs, width) in [(1, 1), (3, 85), (400, 256)] {
            let [a, b] = [94, 95].map(|seed| random(pairs * width, 1.0, seed));
            let on = |device: &Device| [&a, &b].map(|values| tensor(values, &[pairs, width], DType::F32, device));
            for of in [product, abs_diff] {
                let [found, wanted] = [&gpu, &Device::Cpu].map(|device| {
                    let [a, b] = on(device);
                    download(&of(&a, &b).unwrap()).unwrap()
                });
                assert!(found == wanted, "{pairs} x {width}");
            }
        }
    }

    #[test]
    fn layer_norm_agrees_with_the_reference() {
        let Some(gpu) = gpu() else { return };
        for (rows, width) in [
            (1, 768),
            (83, 768),
            (33, 256),
            (5, 1024),
            (4, 2048),
            (7, 30),
            (3, 1),
            (70_001, 64),
        ] {
            for dtype in DTYPES {
                for activation in [Activation::Identity, Activation::Gelu] {
                    let x: Vec<f32> = random(rows * width, 2.0, 10).iter().map(|v| v + 3.0).collect();
                    let x = rounded(x, dtype);
                    let (g, h) = (random(width, 1.0, 11), random(width, 1.0, 12));
                    let f32s = |v: &[f32]| tensor(v, &[width], DType::F32, &gpu);
                    let norm = LayerNorm::new(&f32s(&g), &f32s(&h), 1e-5, &gpu).unwrap();
                    let wanted = reference::layer_norm(&x, &g, &h, 1e-5, activation);
                    let found = norm
                        .forward(&tensor(&x, &[rows, width], dtype, &gpu), activation)
                        .unwrap();
                    let limit = if width == 1 { f32::MAX } else { tolerance(dtype) * 2.0 };
                    assert_close(
                        &format!("layer norm {dtype:?} [{rows}, {width}] {activation:?}"),
                        &found,
                        &wanted,
                        limit,
                    );
                }
            }
        }
    }

    #[test]
    fn embeddings_agree_with_the_reference_and_an_unknown_id_gives_nan() {
        let Some(gpu) = gpu() else { return };
        for (vocabulary, positions, hidden) in [(1000, 512, 768), (50, 16, 64), (50, 16, 30)] {
            for dtype in DTYPES {
                let word = rounded(random(vocabulary * hidden, 1.0, 13), dtype);
                let position = rounded(random(positions * hidden, 1.0, 14), dtype);
                let (g, h) = (random(hidden, 1.0, 15), random(hidden, 1.0, 16));
                let f32s = |v: &[f32]| tensor(v, &[hidden], DType::F32, &gpu);
                let norm = LayerNorm::new(&f32s(&g), &f32s(&h), 1e-12, &gpu).unwrap();
                let zeros = Tensor::zeros((2, hidden), DType::F32, &gpu).unwrap();
                let embedding = Embedding::new(
                    &tensor(&word, &[vocabulary, hidden], dtype, &gpu),
                    &tensor(&position, &[positions, hidden], dtype, &gpu),
                    &zeros,
                    norm,
                    dtype,
                    &gpu,
                )
                .unwrap();
                let lengths = [1, positions, 3, 1, 7];
                let sequences = Sequences::new(&lengths, &gpu).unwrap();
                let mut ids: Vec<u32> = (0..sequences.total_tokens())
                    .map(|i| (i * 7919 % vocabulary) as u32)
                    .collect();
                let wanted = reference::embed(&ids, sequences.offsets(), &word, &position, hidden, &g, &h, 1e-12);
                let found = embedding.forward(&upload(&ids, &gpu).unwrap(), &sequences).unwrap();
                assert_eq!(found.dtype(), dtype);
                assert_close(
                    &format!("embeddings {dtype:?} {hidden}"),
                    &found,
                    &wanted,
                    tolerance(dtype) * 2.0,
                );
                ids[2] = vocabulary as u32;
                let found = download(&embedding.forward(&upload(&ids, &gpu).unwrap(), &sequences).unwrap()).unwrap();
                let is_nan = |row: usize| found[row * hidden..][..hidden].iter().all(|v| v.is_nan());
                assert!(is_nan(2) && !is_nan(1) && !is_nan(3));
            }
        }
    }

    #[test]
    fn attention_agrees_with_the_reference_on_ragged_sequences() {
        let Some(gpu) = gpu() else { return };
        let ragged: Vec<usize> = (0..40)
            .map(|i| 1 + i * 37 % 130)
            .chain([200, 64, 65, 63, 1, 512])
            .collect();
        let many = if is_emulated(&gpu) { 2 } else { 12 };
        for (heads, width, lengths) in [
            (many, 64, &ragged[..]),
            (1, 64, &[1]),
            (2, 32, &[17, 1, 40]),
            (3, 24, &[5, 70]),
            (1, 100, &[33]),
            (2, 200, &[9, 3]),
        ] {
            for dtype in DTYPES {
                for deviation in [1.5f32, 8.0] {
                    let hidden = heads * width;
                    let sequences = Sequences::new(lengths, &gpu).unwrap();
                    let tokens = sequences.total_tokens();
                    let qkv = rounded(random(tokens * 3 * hidden, deviation, 17), dtype);
                    let wanted = reference::attention(&qkv, sequences.offsets(), hidden, heads);
                    let qkv = tensor(&qkv, &[tokens, 3 * hidden], dtype, &gpu);
                    let found = attention(&qkv, &sequences, heads).unwrap();
                    let what = format!("attention {dtype:?} {heads} heads of {width}, deviation {deviation}");
                    // scores grow with the square of the deviation and with them what a rounding of
                    // theirs does to the weights
                    let limit = tolerance(dtype) * 2.0 + deviation * deviation * 3e-5;
                    assert_close(&what, &found, &wanted, limit);
                }
            }
        }
    }

    #[test]
    fn more_sequences_than_a_grid_is_deep_are_no_trouble() {
        let Some(gpu) = gpu() else { return };
        let lengths = vec![1; 70_000];
        let sequences = Sequences::new(&lengths, &gpu).unwrap();
        for dtype in DTYPES {
            let qkv = rounded(random(70_000 * 3 * 64, 1.0, 18), dtype);
            // one token sees itself alone
            let wanted: Vec<f32> = qkv.chunks_exact(192).flat_map(|row| row[128..].to_vec()).collect();
            let qkv = tensor(&qkv, &[70_000, 192], dtype, &gpu);
            let found = attention(&qkv, &sequences, 1).unwrap();
            assert_close(
                &format!("one-token attention {dtype:?}"),
                &found,
                &wanted,
                tolerance(dtype),
            );
            assert_close(
                "one-token mean",
                &mean_pool(&found, &sequences).unwrap(),
                &wanted,
                tolerance(dtype),
            );
        }
    }

    #[test]
    fn pooling_agrees_with_the_reference() {
        let Some(gpu) = gpu() else { return };
        let lengths = [1, 41, 128, 7, 1, 512, 64];
        let sequences = Sequences::new(&lengths, &gpu).unwrap();
        let tokens = sequences.total_tokens();
        for (heads, width) in [(4, 768), (1, 64), (3, 30), (2, 1032)] {
            for dtype in DTYPES {
                let hidden = rounded(random(tokens * width, 1.0, 19), dtype);
                let keys = random(heads * width, 0.2, 20);
                let on_gpu = tensor(&hidden, &[tokens, width], dtype, &gpu);
                let offsets = sequences.offsets();
                let keys_on_gpu = tensor(&keys, &[heads, width], DType::F32, &gpu);
                let found = attention_pool(&on_gpu, &keys_on_gpu, &sequences).unwrap();
                let wanted = reference::attention_pool(&hidden, &keys, offsets, heads, width);
                assert_close(
                    &format!("attention pooling {dtype:?} {heads} x {width}"),
                    &found,
                    &wanted,
                    1e-4,
                );
                let found = mean_pool(&on_gpu, &sequences).unwrap();
                assert_eq!(found.dtype(), DType::F32);
                assert_close(
                    "mean pooling",
                    &found,
                    &reference::mean_pool(&hidden, offsets, width),
                    2e-5,
                );
                let found = first_token_pool(&on_gpu, &sequences).unwrap();
                assert_close(
                    "first token",
                    &found,
                    &reference::first_token_pool(&hidden, offsets, width),
                    0.0,
                );
            }
        }
    }

    #[test]
    fn a_slice_that_starts_anywhere_is_read_where_it_starts() {
        let Some(gpu) = gpu() else { return };
        for dtype in DTYPES {
            let (rows, width) = (9, 36); // rows of 72 bytes: the third starts off a 16-byte boundary
            let x = rounded(random(rows * width, 1.0, 21), dtype);
            let w = rounded(random(40 * width, 0.2, 22), dtype);
            let ones = vec![1f32; width];
            let f32s = |v: &[f32]| tensor(v, &[v.len()], DType::F32, &gpu);
            let norm = LayerNorm::new(&f32s(&ones), &f32s(&ones), 1e-5, &gpu).unwrap();
            let linear = Linear::new(&tensor(&w, &[40, width], dtype, &gpu), None, precision(dtype), &gpu).unwrap();
            let tail = tensor(&x, &[rows, width], dtype, &gpu).narrow(0, 3, 5).unwrap();
            let values = &x[3 * width..8 * width];
            let wanted = reference::layer_norm(values, &ones, &ones, 1e-5, Activation::Identity);
            assert_close(
                "norm of a slice",
                &norm.forward(&tail, Activation::Identity).unwrap(),
                &wanted,
                tolerance(dtype) * 2.0,
            );
            let wanted = reference::linear(values, &w, None, width, Activation::Gelu);
            assert_close(
                "linear of a slice",
                &linear.forward(&tail, Activation::Gelu).unwrap(),
                &wanted,
                tolerance(dtype),
            );
        }
    }

    #[test]
    fn tensors_of_more_than_two_billion_elements_are_reached_to_their_end() {
        let Some(gpu) = gpu() else { return };
        let info = device::describe(&gpu).unwrap();
        if info.memory_free < 24 << 30 {
            return eprintln!(
                "skipped: needs 24 GB of free GPU memory, found {} GB",
                info.memory_free >> 30
            );
        }
        let dtype = DType::BF16;
        let (part, copies) = (1000, 950);
        let x = tensor(&random(part * 768, 1.0, 23), &[part, 768], dtype, &gpu);
        let last = |t: &Tensor| download(&t.narrow(0, part * (copies - 1), part).unwrap()).unwrap();
        let many = x.repeat((copies, 1)).unwrap();
        for n in [3072, 2304] {
            let weight = tensor(&random(n * 768, 0.036, 24), &[n, 768], dtype, &gpu);
            let bias = tensor(&random(n, 1.0, 25), &[n], DType::F32, &gpu);
            let linear = Linear::new(&weight, Some(&bias), precision(dtype), &gpu).unwrap();
            assert!(part * copies * n > 1 << 31);
            let small = linear.forward(&x, Activation::Gelu).unwrap();
            let large = linear.forward(&many, Activation::Gelu).unwrap();
            assert_close(
                "the end of a long product",
                &tensor(&last(&large), &[part, n], DType::F32, &gpu),
                &download(&small).unwrap(),
                2e-2,
            );
            if n == 2304 {
                let small = attention(&small, &Sequences::new(&[part], &gpu).unwrap(), 12).unwrap();
                let sequences = Sequences::new(&vec![part; copies], &gpu).unwrap();
                let large = attention(&large, &sequences, 12).unwrap();
                assert_close(
                    "the end of a long attention",
                    &tensor(&last(&large), &[part, 768], DType::F32, &gpu),
                    &download(&small).unwrap(),
                    2e-2,
                );
            }
        }
        drop(many);
        device::release_unused(&gpu).unwrap();
    }

    /// One encoder layer with the pooling after it, as the network runs them.
    struct Layer {
        qkv: Linear,
        out: Linear,
        up: Linear,
        down: Linear,
        norm: LayerNorm,
        keys: Tensor,
        heads: usize,
    }

    impl Layer {
        fn new(dtype: DType, gpu: &Device) -> Self {
            let heads = if is_emulated(gpu) { 2 } else { 12 };
            let width = 64 * heads;
            let linear = |n: usize, k: usize, seed| {
                let weight = tensor(&random(n * k, 1.0 / (k as f32).sqrt(), seed), &[n, k], dtype, gpu);
                Linear::new(
                    &weight,
                    Some(&tensor(&random(n, 0.5, seed + 1), &[n], DType::F32, gpu)),
                    precision(dtype),
                    gpu,
                )
                .unwrap()
            };
            let ones = Tensor::ones(width, DType::F32, gpu).unwrap();
            Self {
                heads,
                qkv: linear(3 * width, width, 30),
                out: linear(width, width, 40),
                up: linear(4 * width, width, 50),
                down: linear(width, 4 * width, 60),
                norm: LayerNorm::new(&ones, &ones, 1e-12, gpu).unwrap(),
                keys: tensor(&random(4 * width, 0.05, 70), &[4, width], DType::F32, gpu),
            }
        }

        fn forward(&self, hidden: &Tensor, sequences: &Sequences) -> Vec<f32> {
            let mut hidden = hidden.clone();
            for _ in 0..3 {
                let qkv = self.qkv.forward(&hidden, Activation::Identity).unwrap();
                let mixed = attention(&qkv, sequences, self.heads).unwrap();
                hidden = self.out.forward_add_norm(&mixed, &hidden, &self.norm).unwrap();
                let up = self.up.forward(&hidden, Activation::Gelu).unwrap();
                hidden = self.down.forward_add_norm(&up, &hidden, &self.norm).unwrap();
            }
            let means = attention_pool(&hidden, &self.keys, sequences).unwrap();
            // All of one sequence, then of the next.
            download(&means.transpose(0, 1).unwrap()).unwrap()
        }

        /// Of as many tokens as the sequences have.
        fn input(&self, sequences: &Sequences, dtype: DType, seed: u64, gpu: &Device) -> Tensor {
            let (tokens, width) = (sequences.total_tokens(), 64 * self.heads);
            tensor(&random(tokens * width, 1.0, seed), &[tokens, width], dtype, gpu)
        }
    }

    #[test]
    fn two_threads_on_one_device_get_what_one_gets_alone() {
        let Some(gpu) = gpu() else { return };
        let layer = Layer::new(DType::BF16, &gpu);
        let batch = |seed: u64| {
            let lengths: Vec<usize> = (0..60).map(|i| 1 + (i * 31 + seed as usize * 7) % 90).collect();
            let sequences = Sequences::new(&lengths, &gpu).unwrap();
            (layer.input(&sequences, DType::BF16, seed, &gpu), sequences)
        };
        let rounds = if is_emulated(&gpu) { 3 } else { 24 };
        let batches: Vec<_> = (0..8).map(batch).collect();
        let alone: Vec<_> = batches.iter().map(|(hidden, s)| layer.forward(hidden, s)).collect();
        assert!(alone.iter().flatten().all(|v| v.is_finite()));
        std::thread::scope(|scope| {
            for start in [0, 3, 5] {
                let (layer, batches, alone) = (&layer, &batches, &alone);
                scope.spawn(move || {
                    for round in 0..rounds {
                        let i = (start + round) % batches.len();
                        assert_eq!(layer.forward(&batches[i].0, &batches[i].1), alone[i], "batch {i}");
                    }
                });
            }
        });
    }

    #[test]
    fn a_row_of_a_batch_is_what_it_is_alone_to_the_bit() {
        let Some(gpu) = gpu() else { return };
        for dtype in DTYPES {
            let layer = Layer::new(dtype, &gpu);
            let lengths = [41, 1, 128, 17];
            let sequences = Sequences::new(&lengths, &gpu).unwrap();
            let hidden = layer.input(&sequences, dtype, 80, &gpu);
            let together = layer.forward(&hidden, &sequences);
            let mut alone = Vec::new();
            let mut first = 0;
            for length in lengths {
                let part = hidden.narrow(0, first, length).unwrap();
                alone.extend(layer.forward(&part, &Sequences::new(&[length], &gpu).unwrap()));
                first += length;
            }
            let different = together.iter().zip(&alone).filter(|(t, a)| t != a).count();
            let n = together.len();
            let refused = refused_products();
            assert_eq!(
                (different, alone.len()),
                (0, n),
                "{dtype:?}: of {n} elements; {refused:?}"
            );
        }
    }

    #[test]
    fn a_row_of_any_layer_is_what_it_is_alone_to_the_bit_in_batches_of_any_size() {
        let Some(gpu) = gpu() else { return };
        let batches: &[usize] = if is_emulated(&gpu) {
            &[7, 130]
        } else {
            &[7, 41, 128, 400, 2048]
        };
        let most = batches[batches.len() - 1];
        let layers = [
            (RowKind::Texts, 4 * 768, 192, DType::F32),
            (RowKind::Texts, 512, 256, DType::F32),
            (RowKind::Texts, 256, 128, DType::F32),
            (RowKind::Texts, 128, 1, DType::F32),
            (RowKind::Pairs, 256, 512, DType::F32),
            (RowKind::Tokens, 768, 2304, DType::BF16),
            (RowKind::Tokens, 768, 768, DType::F32),
        ];
        for (rows, k, n, dtype) in layers {
            let weight = tensor(&random(n * k, 1.0 / (k as f32).sqrt(), 90), &[n, k], dtype, &gpu);
            let bias = tensor(&random(n, 0.5, 91), &[n], DType::F32, &gpu);
            let layer = Linear::for_rows(rows, &weight, Some(&bias), precision(dtype), &gpu).unwrap();
            let x = tensor(&random(most * k, 1.0, 92), &[most, k], dtype, &gpu);
            let of = |first: usize, count: usize| {
                let out = layer
                    .forward(&x.narrow(0, first, count).unwrap(), Activation::Identity)
                    .unwrap();
                download(&out).unwrap()
            };
            for &batch in batches {
                let together = of(0, batch);
                // The first, one in the middle and the last.
                for row in [0, batch / 2, batch - 1] {
                    let what = format!("row {row} of {batch}, {k} to {n} as {rows:?} in {dtype:?}");
                    assert!(
                        together[row * n..][..n] == of(row, 1),
                        "{what}: {:?}",
                        refused_products()
                    );
                }
            }
        }
    }

    #[test]
    fn copies_arrive_whole() {
        let Some(gpu) = gpu() else { return };
        for n in [1, 8_192, 8_193, 16_385, 1_000_003] {
            let values: Vec<u32> = (0..n as u32).map(|i| i % 4093).collect();
            let there = upload(&values, &gpu).unwrap();
            assert_eq!(there.to_vec1::<u32>().unwrap(), values);
            let back = download(&there.to_dtype(DType::F32).unwrap()).unwrap();
            assert!(back.iter().zip(&values).all(|(b, v)| *b == *v as f32));
        }
    }

    #[test]
    fn running_out_of_memory_is_recognised_and_survived() {
        let Some(gpu) = gpu() else { return };
        let info = device::describe(&gpu).unwrap();
        let rows = info.memory_total as usize / 4096;
        let error = Tensor::zeros((rows, 4096), DType::BF16, &gpu).unwrap_err();
        assert!(device::is_out_of_memory(&error), "{error}");
        device::release_unused(&gpu).unwrap();
        assert_eq!(download(&Tensor::ones(3, DType::F32, &gpu).unwrap()).unwrap(), [1.0; 3]);
        let other = Tensor::zeros(3, DType::F32, &gpu)
            .unwrap()
            .matmul(&Tensor::zeros(3, DType::F32, &gpu).unwrap());
        assert!(!device::is_out_of_memory(&other.unwrap_err()));
    }

    #[test]
    fn the_gpu_says_what_it_is() {
        let Some(gpu) = gpu() else { return };
        let info = device::describe(&gpu).unwrap();
        eprintln!("{info:?}");
        assert!(!info.name.is_empty() && info.compute_capability >= (8, 0) && info.driver_version >= (12, 0));
        assert!(info.memory_free <= info.memory_total && info.memory_total > 1 << 30);
    }

    #[test]
    fn a_device_that_is_not_there_is_one_line_and_no_panic() {
        let error = device::open(99).unwrap_err().to_string();
        eprintln!("{error}");
        assert!(!error.contains('\n') && !error.ends_with('.'));
        assert!(error.contains("99") || device::open(0).is_err(), "{error}");
        assert!(device::describe(&Device::Cpu).is_err());
    }
}
