//! JSONL to JSONL: records a second through the whole pipeline, with the demo model (or the one that
//! `CRAG_BENCH_MODEL` names) and with a network that costs nothing, which shows what reading, parsing,
//! tokenizing and writing allow.

mod common;

use std::fmt::Write as _;

use crag::{
    Side,
    files::Input,
    kernels::Precision,
    scoring::{self, MissingEntity, Options, PairModel, Preparer},
    text::Truncation,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const RECORDS: usize = 2000;

/// Answers at once.
struct Nothing;

impl PairModel for Nothing {
    fn encode(&self, _: Side, token_ids: &[&[u32]]) -> anyhow::Result<Vec<Box<[f32]>>> {
        Ok(token_ids.iter().map(|ids| Box::from([ids.len() as f32])).collect())
    }

    fn probabilities(&self, pairs: &[(&[f32], &[f32])]) -> anyhow::Result<Vec<f32>> {
        Ok(vec![0.5; pairs.len()])
    }

    fn concurrency(&self) -> usize {
        usize::MAX
    }
}

fn records() -> String {
    let words = [
        "severe",
        "acute",
        "persistent",
        "reversible",
        "dose-related",
        "delayed",
        "mild",
        "recurrent",
    ];
    (0..RECORDS).fold(String::new(), |mut all, i| {
        let (a, b) = (words[i % 8], words[i / 8 % 8]);
        let text = format!(
            "A {}-year-old patient developed {a} thrombocytopenia with {b} bleeding {i} hours after ibuprofen had been \
             given for low back pain; it resolved when the drug was withdrawn.",
            20 + i % 60
        );
        let _ = writeln!(
            all,
            r#"{{"id":{i},"text":"{text}","drug":"ibuprofen","adr":"thrombocytopenia"}}"#
        );
        all
    })
}

fn pipeline(criterion: &mut Criterion) {
    let model = common::Model::describe();
    let network = model.load(Precision::F32);
    let records = records();
    let preparer = Preparer {
        tokenizer: &model.tokenizer,
        markers: *model.config.markers,
        max_length: *model.config.max_length,
        truncation: Truncation::Start,
        missing_entity: MissingEntity::Error,
    };
    let score = |network: &dyn PairModel, threads: usize| {
        let inputs = vec![Input::Reader(
            "bench".into(),
            Box::new(std::io::Cursor::new(records.clone().into_bytes())),
        )];
        let options = Options {
            threads,
            reuse: false,
            ..Options::default()
        };
        let mut output = Vec::new();
        scoring::run(inputs, &mut output, network, &preparer, &options).expect("all scored");
        output
    };
    let mut group = criterion.benchmark_group(format!("{RECORDS} records"));
    group.sample_size(10).throughput(Throughput::Elements(RECORDS as u64));
    for threads in [1, 2] {
        group.bench_function(format!("no network, {threads} threads"), |b| {
            b.iter(|| score(&Nothing, threads))
        });
        group.bench_function(format!("{}, {threads} threads", model.name), |b| {
            b.iter(|| score(&network, threads))
        });
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
