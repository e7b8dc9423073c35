//! Which algorithms are to multiply, which did, and where none of cublasLt's would: for profiles and `-v`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::cudarc::cublaslt::result::CublasError as LtError;

use super::cublas_lt::{Sizes, Sums};
use crate::CUDA_LT_VARIABLE;

/// What [`CUDA_LT_VARIABLE`] asks for.
#[derive(Clone, Copy, PartialEq)]
pub enum Wanted {
    /// The fastest that takes any number of rows.
    Suitable,
    /// By its place among cublasLt's, from 1.
    Algorithm(usize),
    CublasAlone,
}

pub fn wanted() -> Wanted {
    static WANTED: OnceLock<Wanted> = OnceLock::new();
    *WANTED.get_or_init(|| {
        let value = std::env::var(CUDA_LT_VARIABLE).ok();
        match value.and_then(|value| value.parse().ok()) {
            None => Wanted::Suitable,
            Some(0) => Wanted::CublasAlone,
            Some(place) => Wanted::Algorithm(place),
        }
    })
}

/// What multiplies, where that is not as usual: other algorithms give other last digits.
pub fn unusual_products() -> Option<String> {
    match wanted() {
        Wanted::Suitable => None,
        Wanted::Algorithm(place) => Some(format!("cublasLt's algorithm {place}")),
        Wanted::CublasAlone => Some("cuBLAS alone".to_owned()),
    }
}

/// Times that cublasLt had no algorithm for a layer or its algorithm did not take a batch, by layer and reason, with the
/// fewest and the most rows.
static REFUSED: Mutex<BTreeMap<String, (u64, usize, usize)>> = Mutex::new(BTreeMap::new());

/// `rows`: 0 where there was no algorithm at all.
pub fn refused(sizes: Sizes, rows: usize, error: &LtError) {
    let what = format!("{} x {}: {:?}", sizes.out_features, sizes.in_features, error.0);
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    let (times, least, most) = refused.entry(what).or_insert((0, rows, rows));
    *times += 1;
    *least = rows.min(*least);
    *most = rows.max(*most);
}

/// What was chosen for each kind of layer.
static CHOSEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// `found`: the place of the chosen one among `candidates` algorithms; none where the fastest was taken though the library does not
/// say that it takes any number of rows.
pub fn chosen(sizes: Sizes, products: &str, rows: u64, found: Option<usize>, candidates: usize, sums: Sums) {
    let which = match found {
        Some(place) => format!("algorithm {} of {candidates}", place + 1),
        None => format!("algorithm 1 of {candidates}, none of which takes any number of rows"),
    };
    let splits = match sums {
        Sums::Whole => "",
        Sums::Any => "; sums may be split",
    };
    let what = format!(
        "{products}, {} x {} x {rows} rows: {which}{splits}",
        sizes.out_features, sizes.in_features
    );
    CHOSEN.lock().unwrap_or_else(PoisonError::into_inner).insert(what);
}

/// A line for each kind of layer: which of cublasLt's algorithms, the fastest first, it is multiplied by. Where that is not the
/// first, those before it do not take every number of rows, or [`CUDA_LT_VARIABLE`] asked for it.
pub fn chosen_algorithms() -> Vec<String> {
    let chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    chosen.iter().cloned().collect()
}

/// A line for each kind of product that cublasLt left to cuBLAS in this process. Where some batches of a layer went the
/// one way and some the other, a text's last digits hang on its batch.
pub fn refused_products() -> Vec<String> {
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    let line = |(what, (times, least, most)): (&String, &(u64, usize, usize))| match most {
        0 => format!("cublasLt has no algorithm for {what}; cuBLAS multiplied"),
        _ => format!("cublasLt did not take {least} to {most} rows of {what}, {times} times; cuBLAS multiplied"),
    };
    refused.iter().map(line).collect()
}
