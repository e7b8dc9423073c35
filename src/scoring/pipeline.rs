//! The stages from lines to answers, and the order they keep.
//!
//! ```text
//! reader -> queue -> preparer -> batches -> workers -> collector (the calling thread)
//! ```
//!
//! The reader splits inputs into lines. The preparer takes whatever lines are there, a *window*: parses,
//! marks and tokenizes them in parallel, finds equal sequences and cuts the others into batches. Workers
//! encode batches. The collector classifies and writes the longest prefix of lines whose two
//! representations are there, and flushes whenever nothing further is ready. At most
//! [`WINDOWS_IN_FLIGHT`] windows are between reader and output, so memory is bounded, and one window's
//! lines are prepared and encoded while those of the one before still are: a window is no barrier.
//!
//! With a cache the preparer finds representations there, and workers leave what they compute.
//!
//! A run may begin after lines that an earlier one has answered ([`super::resume`]), and may be asked to stop: then
//! nothing more is begun, what is being encoded is awaited for a moment, and what is ready is written.
//!
//! Nothing here changes a result: the network gives each sequence the same representation in any batch.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rayon::ThreadPool;

use super::collector::{Collector, Pair};
use super::counts::Counts;
use super::error::ScoreError;
use super::formats::record_format;
use super::member::{Member, PairModel, error_of};
use super::messages::{Job, Message};
use super::options::Options;
use super::prepare::Prepare;
use super::queue::Queue;
use super::reader::{Incoming, Reader};
use super::record_format::RecordFormat;
use super::sink::{Sink, Stream};
use super::stage::Stage;
use crate::files::Input;
use crate::kernels::memory;

/// One prepared and encoded, one being encoded, one being prepared: the workers never wait for the preparer.
const WINDOWS_IN_FLIGHT: usize = 3;

/// [`run_into`] a plain stream of bytes, with one model and no cache.
pub fn run(
    inputs: Vec<Input>,
    output: &mut dyn Write,
    model: &dyn PairModel,
    prepare: &dyn Prepare,
    options: &Options,
) -> Result<Counts, ScoreError> {
    let members = [Member::only(model, prepare)];
    run_into(inputs, &mut Stream::new(output), &members, options)
}

/// Scores all lines of all inputs and hands their answers to `sink`, in order.
///
/// `members`: the model, or several for an ensemble; at least one.
///
/// Errors end the run, after the answers to all lines before the error. A thread that reads an input
/// which gives nothing and does not end outlives an early return.
pub fn run_into(
    inputs: Vec<Input>,
    sink: &mut dyn Sink,
    members: &[Member<'_>],
    options: &Options,
) -> Result<Counts, ScoreError> {
    let started = Instant::now();
    let calibrated = members.iter().all(|member| member.calibration.is_some());
    let output = options.output.clone().of_members(members.len());
    let options = &Options {
        output: output.with_calibrated(calibrated),
        ..options.clone()
    };
    let threads = options.threads.max(1);
    let pool = compute_pool(threads)?;
    let workers = workers(members, threads);
    let names: Vec<String> = inputs.iter().map(Input::name).collect();

    let incoming = Arc::new(Queue::new(2 * options.window_lines, 2 * options.window_bytes));
    let permits = Queue::new(WINDOWS_IN_FLIGHT, usize::MAX);
    for _ in 0..WINDOWS_IN_FLIGHT {
        permits.push((), 0);
    }
    // Bounded by the permits.
    let jobs = Queue::new(usize::MAX, usize::MAX);
    let stopped = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();

    let format: Arc<dyn RecordFormat> = record_format(options.format, &options.fields, &options.output).into();
    let reader = Reader::new(Arc::clone(&format), options, Arc::clone(&incoming));
    let reports = reader.reports();
    spawn_reader(reader, inputs, Arc::clone(&incoming))?;

    std::thread::scope(|scope| {
        // Whatever ends the collector ends the stages before it.
        let _aborting = (Aborting(&*incoming), Aborting(&permits), Aborting(&jobs));
        let stage = Stage {
            members,
            options,
            format: &*format,
            pool: &pool,
            workers,
            jobs: &jobs,
            stopped: &stopped,
        };
        let (queue, preparer_sender, permits_left) = (&incoming, sender.clone(), &permits);
        let no_thread = |error: std::io::Error| ScoreError::Threads {
            count: workers + 1,
            message: error.to_string(),
        };
        let spawn = || std::thread::Builder::new().name("crag-stage".to_owned());
        spawn()
            .spawn_scoped(scope, move || {
                let _closing = Closing(stage.jobs);
                stage.prepare_windows(queue, permits_left, &preparer_sender);
            })
            .map_err(no_thread)?;
        for _ in 0..workers {
            let (sender, jobs, pool) = (sender.clone(), &jobs, &pool);
            spawn()
                .spawn_scoped(scope, move || encode_jobs(members, pool, jobs, &sender))
                .map_err(no_thread)?;
        }
        drop(sender);
        let classify = |member: usize, pairs: &[Pair<'_>]| {
            let model = members[member].model;
            on_pool(&pool, model.on_host(), || model.probabilities(pairs))
        };
        let mut collector = Collector::new(sink, options, &*format, &names, members, &classify);
        let stages = Stages {
            stop: options.stop.as_deref(),
            receiver: &receiver,
            permits: &permits,
            abort: &|| {
                stopped.store(true, Ordering::Relaxed);
                incoming.abort();
                permits.abort();
                jobs.abort();
            },
        };
        let result = collect(&mut collector, &stages);
        stopped.store(true, Ordering::Relaxed);
        // Answers before an error are owed; a broken output outweighs the error.
        let flushed = match &result {
            Ok(()) => collector.flush(),
            Err(_) => collector.suspend(),
        };
        flushed.and(result).map(|()| {
            let inputs = std::mem::take(&mut *reports.lock().unwrap_or_else(PoisonError::into_inner));
            Counts {
                inputs,
                ..collector.into_counts(started.elapsed())
            }
        })
    })
}

/// What batches are computed on.
fn compute_pool(threads: usize) -> Result<ThreadPool, ScoreError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("crag-compute-{i}"));
    pool.build().map_err(|error| ScoreError::Threads {
        count: threads,
        message: error.to_string(),
    })
}

/// How many batches are under way at a time: as many as all members allow, since they share the device.
fn workers(members: &[Member<'_>], threads: usize) -> usize {
    let allowed = |member: &Member<'_>| match member.model.on_host() {
        true => member.model.concurrency().min(threads),
        false => member.model.concurrency(),
    };
    members.iter().map(allowed).min().unwrap_or(1).max(1)
}

/// Reads on a thread of its own, which is not scoped: a read from a terminal or a pipe cannot be interrupted when the run ends
/// early.
fn spawn_reader(reader: Reader, inputs: Vec<Input>, queue: Arc<Queue<Incoming>>) -> Result<(), ScoreError> {
    let read = move || {
        let _closing = Closing(&*queue);
        // A panic (of a decompressor, say) must not look like the end of the inputs.
        let read = catch_unwind(AssertUnwindSafe(|| reader.read(inputs)));
        if let Err(error) = read.unwrap_or(Err(ScoreError::ReaderPanicked)) {
            queue.push(Incoming::End(error), 0);
        }
    };
    let spawned = std::thread::Builder::new().name("crag-reader".to_owned()).spawn(read);
    spawned.map(drop).map_err(|error| ScoreError::Threads {
        count: 1,
        message: error.to_string(),
    })
}

/// Closes a queue when its producer ends, however it ends.
struct Closing<'q, T>(&'q Queue<T>);

impl<T> Drop for Closing<'_, T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Empties and closes a queue when its last consumer ends, however it ends.
struct Aborting<'q, T>(&'q Queue<T>);

impl<T> Drop for Aborting<'_, T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn on_pool<R: Send>(pool: &ThreadPool, on_host: bool, work: impl FnOnce() -> R + Send) -> R {
    if on_host { pool.install(work) } else { work() }
}

fn encode_jobs(members: &[Member<'_>], pool: &ThreadPool, jobs: &Queue<Job>, sender: &Sender<Message>) {
    while let Some(Job {
        window,
        sequences,
        batch,
    }) = jobs.pop()
    {
        let token_ids: Vec<&[u32]> = batch
            .numbers
            .iter()
            .map(|&number| sequences.token_ids(number))
            .collect();
        let tokens = token_ids.iter().map(|ids| ids.len() as u64).sum();
        let (member, side) = (&members[batch.encoder.member], batch.encoder.side);
        // A panic must not leave the collector waiting for this batch.
        let encode = || on_pool(pool, member.model.on_host(), || member.model.encode(side, &token_ids));
        let result = catch_unwind(AssertUnwindSafe(encode))
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the {} encoder panicked", side.name())))
            .and_then(|representations| {
                let (expected, found) = (token_ids.len(), representations.len());
                anyhow::ensure!(expected == found, "expected {expected} representations, found {found}");
                Ok(representations)
            })
            .map_err(|error| error_of(members, batch.encoder.member, error));
        if let (Some(cache), Ok(representations)) = (&member.cache, &result) {
            for (token_ids, representation) in token_ids.iter().zip(representations) {
                cache.store(side, token_ids, representation);
            }
        }
        if sender
            .send(Message::Encoded {
                window,
                numbers: batch.numbers,
                tokens,
                result,
            })
            .is_err()
        {
            return;
        }
    }
}

/// The stages as the collector sees them.
struct Stages<'s> {
    stop: Option<&'s AtomicBool>,
    receiver: &'s Receiver<Message>,
    permits: &'s Queue<()>,
    /// Lets the stages finish what they are at, and begin nothing more.
    abort: &'s dyn Fn(),
}

/// How long the collector waits for a message before it looks whether it should stop.
const POLL: Duration = Duration::from_millis(50);
/// How long it waits, once it should stop, for what is being encoded.
const GRACE: Duration = Duration::from_millis(2500);
/// How long freed memory is kept at least. Seldom enough to cost nothing, often enough for a flat hour.
const MEMORY_KEPT: Duration = Duration::from_secs(10);

/// Takes messages until all stages are done; flushes before each wait.
fn collect(collector: &mut Collector<'_>, stages: &Stages<'_>) -> Result<(), ScoreError> {
    let mut stopping: Option<Instant> = None;
    let mut memory_kept_since = Instant::now();
    loop {
        if stopping.is_none() && stages.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            stopping = Some(Instant::now());
            (stages.abort)();
        }
        let mut received = false;
        while let Ok(message) = stages.receiver.try_recv() {
            collector.take(message);
            received = true;
        }
        if !received {
            collector.flush()?;
            match stages.receiver.recv_timeout(POLL) {
                Ok(message) => collector.take(message),
                Err(RecvTimeoutError::Disconnected) if stopping.is_some() => return Err(ScoreError::Interrupted),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if stopping.is_some_and(|since| since.elapsed() >= GRACE) => {
                    return Err(ScoreError::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) => continue,
            }
        }
        let completed = collector.advance()?;
        if completed > 0 && memory_kept_since.elapsed() >= MEMORY_KEPT {
            memory::give_back_freed();
            memory_kept_since = Instant::now();
        }
        for _ in 0..completed {
            stages.permits.push((), 0);
        }
    }
}
