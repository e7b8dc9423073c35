//! The network alone, on one thread: tokens a second through one encoder, pairs a second through the
//! head. `CRAG_BENCH_MODEL=DIR` names the model, else it is the demo.

mod common;

use crag::{Side, kernels::Precision};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// As long as the sentences of the ADE corpus are on average.
const TOKENS_A_TEXT: usize = 41;

fn texts(count: usize, vocabulary: u32) -> Vec<Vec<u32>> {
    (0..count as u32)
        .map(|text| {
            (0..TOKENS_A_TEXT as u32)
                .map(|i| (text * 7919 + i * 104_729) % vocabulary)
                .collect()
        })
        .collect()
}

fn model(criterion: &mut Criterion) {
    let model = common::Model::describe();
    let vocabulary = model.tokenizer.vocab_size() as u32;
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let network = model.load(precision);
        let mut group = criterion.benchmark_group(format!("{} {}", model.name, precision.name()));
        group.sample_size(10);
        for count in [1, 12, 24] {
            let texts = texts(count, vocabulary);
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            group.throughput(Throughput::Elements((count * TOKENS_A_TEXT) as u64));
            group.bench_function(format!("encode {count} texts of {TOKENS_A_TEXT} tokens"), |b| {
                b.iter(|| network.encode(Side::Drug, &texts).expect("representations"));
            });
        }
        let texts = texts(64, vocabulary);
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let drug = network.encode(Side::Drug, &texts).expect("representations");
        let adr = network.encode(Side::Adr, &texts).expect("representations");
        group.throughput(Throughput::Elements(64));
        group.bench_function("fuse and classify 64 pairs", |b| {
            b.iter(|| network.logits(&drug, &adr).expect("logits"));
        });
        group.finish();
    }
}

criterion_group!(benches, model);
criterion_main!(benches);
