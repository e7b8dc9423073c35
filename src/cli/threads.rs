//! The pool of threads on which checkpoints load, models train, and calibrations and figures are computed: rayon's global one.

use crate::scoring::ScoreError;

/// Starts it with `count` threads, by default one for each core, unless it has been started before: it can only be
/// once. Whoever uses it without this ends in a panic where threads are scarce.
pub fn start_pool(count: Option<usize>) -> Result<(), ScoreError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(count.unwrap_or(0))
        .thread_name(|i| format!("crag-load-{i}"));
    match pool.build_global() {
        Err(error) if std::error::Error::source(&error).is_some() => Err(ScoreError::Threads {
            count: count.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())),
            message: error.to_string(),
        }),
        // It has been started.
        _ => Ok(()),
    }
}
