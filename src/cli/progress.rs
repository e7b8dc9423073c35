//! How far a run is: a bar on a terminal, a line now and then elsewhere, and an honest guess at what is left.
//!
//! What is left is told from the work and not from the lines: bytes of input not yet answered, times the tokens
//! that a byte has meant so far, over the tokens encoded each second of late. So long lines count for what they
//! take, and texts that were reused or cached do not count as work that went fast.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::console;
use super::time_left::TimeLeft;
use super::values::parse_pause;
use crate::files::{Compression, Gauge};
use crate::scoring::{Counts, LineError, Position, Progress, Sink};

/// How progress is shown.
#[derive(Clone, Debug, clap::Args)]
pub struct ProgressArgs {
    /// How to show progress on stderr: a bar, a line now and then, or not at all; auto is a bar on a terminal, unless
    /// the records go there, too, else lines
    #[arg(
        help_heading = "Reports",
        long,
        value_name = "HOW",
        value_enum,
        default_value = "auto"
    )]
    progress: ProgressChoice,

    /// Seconds between two lines of progress
    #[arg(help_heading = "Reports", long, value_name = "SECONDS", default_value = "60", value_parser = parse_pause)]
    progress_every: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ProgressChoice {
    Auto,
    Bar,
    Log,
    None,
}

/// Draws a bar this often.
const DRAW_EVERY: Duration = Duration::from_millis(200);

impl ProgressArgs {
    /// Whether bars of any kind (of a download, too) are wanted.
    pub fn wants_bars(&self) -> bool {
        matches!(self.progress, ProgressChoice::Auto | ProgressChoice::Bar)
    }

    /// How to show progress, if at all. `shared`: whether records go to the terminal that a bar would be on.
    pub fn shown(&self, shared: bool) -> Option<Shown> {
        let bar = match self.progress {
            ProgressChoice::None => None,
            _ if console::is_quiet() => None,
            ProgressChoice::Auto => Some(console::can_draw() && !shared),
            // A bar needs a terminal to be drawn on.
            ProgressChoice::Bar => Some(console::can_draw()),
            ProgressChoice::Log => Some(false),
        };
        bar.map(|bar| match bar {
            true => Shown::Bar,
            false => Shown::Lines(self.progress_every),
        })
    }

    /// Begins to show the progress of a run over inputs of these sizes, if they are known, that `gauge` watches.
    /// `to_stdout`: whether that is where records go.
    pub fn start(&self, sizes: Option<InputSizes>, gauge: &Arc<Gauge>, to_stdout: bool) -> Meter {
        let shown = self.shown(to_stdout && io::stdout().is_terminal());
        let work = Work {
            sizes,
            gauge: Arc::clone(gauge),
        };
        Meter::start(work, shown)
    }
}

/// A form of progress on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Bar,
    /// Lines with this much time between two.
    Lines(Duration),
}

/// Bytes of inputs, as they lie in files.
#[derive(Clone, Copy, Debug, Default)]
pub struct InputSizes {
    plain: u64,
    compressed: u64,
}

impl InputSizes {
    /// None if some are no files: nobody knows how much a pipe will give.
    pub fn of(files: &[PathBuf]) -> Option<Self> {
        let mut sizes = Self::default();
        for path in files {
            let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
            match Compression::of_file(path).ok()? {
                Some(_) => sizes.compressed += metadata.len(),
                None => sizes.plain += metadata.len(),
            }
        }
        (!files.is_empty()).then_some(sizes)
    }
}

/// What there is to do.
#[derive(Default)]
struct Work {
    sizes: Option<InputSizes>,
    gauge: Arc<Gauge>,
}

impl Work {
    /// Bytes of all lines; of compressed inputs by how those read so far have grown.
    fn total_bytes(&self) -> Option<u64> {
        match self.sizes? {
            InputSizes { plain, compressed: 0 } => Some(plain),
            InputSizes { plain, compressed } => Some(plain + self.gauge.unpacked(compressed)?),
        }
    }

    fn is_estimated(&self) -> bool {
        self.sizes.is_some_and(|sizes| sizes.compressed > 0)
    }
}

/// How far the run is.
#[derive(Default)]
struct State {
    counts: Counts,
    /// What earlier runs had done, if this one goes on; their work says nothing of this one's speed.
    earlier: Option<Counts>,
}

impl State {
    fn counts(&self, elapsed: Duration) -> Counts {
        let mut counts = self.counts.clone();
        counts.elapsed = elapsed + self.earlier.as_ref().map_or(Duration::ZERO, |earlier| earlier.elapsed);
        counts
    }
}

/// Follows a run, and shows it from a thread of its own.
pub struct Meter {
    state: Arc<Mutex<State>>,
    started: Instant,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    /// Follows without showing.
    pub fn silent() -> Self {
        Self::start(Work::default(), None)
    }

    fn start(work: Work, shown: Option<Shown>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let started = Instant::now();
        let (stop, stopped) = sync_channel(0);
        let thread = shown.and_then(|shown| {
            let view = View {
                state: Arc::clone(&state),
                started,
                time_left: TimeLeft::new(work.total_bytes()),
                work,
            };
            let run = move || match shown {
                Shown::Bar => view.draw(&stopped),
                Shown::Lines(every) => view.log(&stopped, every),
            };
            // Without a thread there is no progress to see, which is no reason not to run.
            std::thread::Builder::new()
                .name("crag-progress".to_owned())
                .spawn(run)
                .ok()
        });
        Self {
            state,
            started,
            stop: Some(stop),
            thread,
        }
    }

    /// What has been answered so far.
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts(self.started.elapsed())
    }

    /// The run goes on where an earlier one had done this much.
    pub fn goes_on_from(&self, earlier: &Counts) {
        let mut state = lock(&self.state);
        state.counts = earlier.clone();
        state.earlier = Some(earlier.clone());
    }
}

impl Drop for Meter {
    /// Takes the bar away.
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A panic elsewhere leaves the counts whole: they are replaced at once.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sink whose progress a meter follows.
pub struct Watched<'s> {
    pub inner: &'s mut dyn Sink,
    pub meter: &'s Meter,
}

impl Sink for Watched<'_> {
    fn answer(&mut self, answer: &[u8], progress: Progress<'_>) -> io::Result<()> {
        lock(&self.meter.state).counts.clone_from(progress.counts);
        self.inner.answer(answer, progress)
    }

    fn rejected(&mut self, line: &Position, error: &LineError) -> io::Result<()> {
        self.inner.rejected(line, error)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    fn suspend(&mut self) -> io::Result<()> {
        self.inner.suspend()
    }
}

/// What the showing thread looks at.
struct View {
    state: Arc<Mutex<State>>,
    started: Instant,
    work: Work,
    time_left: TimeLeft,
}

impl View {
    fn look(&mut self) -> Counts {
        let elapsed = self.started.elapsed();
        let (counts, earlier) = {
            let state = lock(&self.state);
            let earlier = state.earlier.as_ref().map(|earlier| (earlier.tokens, earlier.bytes));
            (state.counts(elapsed), earlier)
        };
        if let Some((tokens, bytes)) = earlier {
            self.time_left.begin_at(tokens, bytes);
        }
        self.time_left.total_bytes = self.work.total_bytes();
        self.time_left.add(elapsed, counts.tokens, counts.bytes);
        counts
    }

    /// A bar, until told to stop.
    fn draw(mut self, stopped: &Receiver<()>) {
        let bar =
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style("{spinner} {msg}"));
        let mut has_length = false;
        console::set_bar(bar.clone());
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(DRAW_EVERY) {
            let counts = self.look();
            let mut message = told(&counts);
            if let Some(left) = self.time_left.left() {
                message += &format!(", {} left", duration(left));
            }
            bar.set_message(message);
            match self.time_left.total_bytes {
                Some(total) => {
                    if !has_length {
                        bar.set_style(style("{bar:24} {percent:>3}% {msg}"));
                        has_length = true;
                    }
                    bar.set_length(total);
                    bar.set_position(counts.bytes.min(total));
                }
                None => bar.tick(),
            }
        }
        console::remove_bar();
    }

    /// A line every while, until told to stop.
    fn log(mut self, stopped: &Receiver<()>, every: Duration) {
        let mut next = self.started + every;
        // Looks are more frequent than lines: the estimate lives on them.
        let look_every = every.min(Duration::from_secs(5));
        loop {
            let wait = look_every.min(next.saturating_duration_since(Instant::now()));
            let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) else {
                return;
            };
            let counts = self.look();
            if Instant::now() < next {
                continue;
            }
            // Not as many at once as a pause of the process has left out.
            next = Instant::now() + every;
            let mut text = told(&counts);
            let share = self.time_left.share();
            if let (Some(share), Some(total)) = (share, self.time_left.total_bytes) {
                let about = if self.work.is_estimated() { "about " } else { "" };
                text += &format!(", {:.1}% of {about}{}", 100.0 * share, HumanBytes(total));
            }
            let left = self.time_left.left();
            if let Some(left) = left {
                text += &format!(", {} left", duration(left));
            }
            let fields = json!({
                "scored": counts.scored, "errors": counts.errors(), "seconds": counts.elapsed.as_secs_f64(),
                "pairs_per_second": counts.pairs_per_second(), "bytes": counts.bytes,
                "total_bytes": self.time_left.total_bytes, "share": share,
                "seconds_left": left.map(|left| left.as_secs_f64().round()),
            });
            console::report("progress", &text, fields);
        }
    }
}

pub(super) fn style(template: &str) -> ProgressStyle {
    // The templates are constants that parse; the default is a bar as well.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn told(counts: &Counts) -> String {
    let mut text = format!("{} pairs, {:.1} pairs/s", counts.scored, counts.pairs_per_second());
    if counts.errors() > 0 {
        text += &format!(", {} errors", counts.errors());
    }
    text
}

/// `1 h 05 min`, `4 min 10 s`, `7 s`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_when_it_is_read_is_told_as_the_reader_tells_it() {
        let folder = tempfile::tempdir().unwrap();
        // Parallel compressors begin with a frame to skip; a text may begin with bzip2's letters.
        let files = [
            ("a.zst", b"\x50\x2a\x4d\x18\x04\0\0\0abcd".as_slice(), true),
            ("b.gz", b"\x1f\x8b\x08", true),
            ("c.csv", b"BZh,drug,adr,text", false),
            ("d", b"", false),
        ];
        for (name, bytes, is_compressed) in files {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let sizes = InputSizes::of(&[path]).unwrap();
            let length = bytes.len() as u64;
            let expected = if is_compressed { (0, length) } else { (length, 0) };
            assert_eq!((sizes.plain, sizes.compressed), expected, "{name}");
        }
    }

    #[test]
    fn durations_read_as_people_say_them() {
        assert_eq!(duration(Duration::from_secs(7)), "7 s");
        assert_eq!(duration(Duration::from_secs(250)), "4 min 10 s");
        assert_eq!(duration(Duration::from_secs(3_900)), "1 h 05 min");
    }
}
