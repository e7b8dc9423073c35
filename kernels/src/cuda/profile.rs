//! Where the GPU's time goes, by CUDA events around each operation; off unless `CRAG_CUDA_PROFILE`
//! is set.
//!
//! Events cost about a microsecond a launch and nothing waits for them until [`report`].

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaEvent;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;

use crate::CUDA_PROFILE_VARIABLE;

struct Record {
    op: &'static str,
    flops: f64,
    bytes: f64,
    begin: CudaEvent,
    end: CudaEvent,
}

static RECORDS: Mutex<Vec<Record>> = Mutex::new(Vec::new());

/// Held while an operation is submitted, so that no other thread's work gets between its events.
static SUBMITTING: Mutex<()> = Mutex::new(());

/// Whether operations are timed in this process.
pub fn enabled() -> bool {
    static ENABLED: OnceLock<bool> = OnceLock::new();
    *ENABLED
        .get_or_init(|| std::env::var_os(CUDA_PROFILE_VARIABLE).is_some_and(|value| !value.is_empty() && value != "0"))
}

/// Times what is submitted to the device's stream until it is dropped.
pub(super) struct Span<'a> {
    device: &'a CudaDevice,
    op: &'static str,
    flops: f64,
    bytes: f64,
    begin: Option<CudaEvent>,
    _alone: Option<MutexGuard<'static, ()>>,
}

/// `flops`, `bytes`: what the operation has to compute and to move, at least. Spans do not nest.
pub(super) fn span<'a>(op: &'static str, device: &'a CudaDevice, flops: f64, bytes: f64) -> Span<'a> {
    let alone = enabled().then(|| SUBMITTING.lock().unwrap_or_else(PoisonError::into_inner));
    Span {
        device,
        op,
        flops,
        bytes,
        begin: alone.as_ref().and_then(|_| event(device)),
        _alone: alone,
    }
}

fn event(device: &CudaDevice) -> Option<CudaEvent> {
    // a lost measurement is no reason to stop scoring
    device
        .cuda_stream()
        .record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
        .ok()
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        let Some(begin) = self.begin.take() else { return };
        let Some(end) = event(self.device) else { return };
        RECORDS.lock().unwrap_or_else(PoisonError::into_inner).push(Record {
            op: self.op,
            flops: self.flops,
            bytes: self.bytes,
            begin,
            end,
        });
    }
}

/// One operation, summed over its calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Total {
    pub op: &'static str,
    pub calls: usize,
    pub milliseconds: f64,
    pub flops: f64,
    pub bytes: f64,
}

/// Sums per operation since the last call, the largest first, and forgets them. Waits for the GPU.
/// candle's own operations (concatenation) are not among them.
pub fn report() -> Vec<Total> {
    let records = std::mem::take(&mut *RECORDS.lock().unwrap_or_else(PoisonError::into_inner));
    let mut totals: Vec<Total> = Vec::new();
    for record in &records {
        let Ok(milliseconds) = record.begin.elapsed_ms(&record.end) else {
            continue;
        };
        let index = totals.iter().position(|t| t.op == record.op).unwrap_or_else(|| {
            totals.push(Total {
                op: record.op,
                calls: 0,
                milliseconds: 0.0,
                flops: 0.0,
                bytes: 0.0,
            });
            totals.len() - 1
        });
        let total = &mut totals[index];
        total.calls += 1;
        total.milliseconds += f64::from(milliseconds);
        total.flops += record.flops;
        total.bytes += record.bytes;
    }
    totals.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
    totals
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.milliseconds / 1e3;
        write!(
            f,
            "{:<32} {:>7} calls {:>10.2} ms {:>8.1} us each {:>7.1} TFLOP/s {:>7.2} TB/s",
            self.op,
            self.calls,
            self.milliseconds,
            self.milliseconds * 1e3 / self.calls.max(1) as f64,
            self.flops / seconds / 1e12,
            self.bytes / seconds / 1e12
        )
    }
}
