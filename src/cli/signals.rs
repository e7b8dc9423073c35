//! SIGINT, SIGTERM and SIGHUP: the first ends the run in order, the second at once.
//!
//! While a run is under way, the first signal asks it to stop: it finishes what it is at, keeps its progress and
//! exits with 128 and the signal's number. Where that takes longer than [`PATIENCE`] (a batch of minutes, a reader
//! of the output that does not read), the process ends as it is; what a `--resume` needs was kept as it went. Before
//! a run is under way there is nothing to finish, and the first signal ends the process.
//!
//! A signal that was ignored when the process started stays ignored: that is how `nohup` and a shell's
//! background jobs work. SIGXFSZ is ignored always, and SIGBUS explained.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{exit, signal_name};

use super::console::prepared_error;
use super::{Outcome, note};

/// How long a run has to stop: less than the 5 s that are promised, for a machine that is busy.
const PATIENCE: Duration = Duration::from_millis(4000);

/// How long what is done before the process ends as it is may take: a disk may be as stuck as what has to be ended.
const LAST_ACTS: Duration = Duration::from_millis(300);

/// What signals have come, and what they are to do.
pub struct SignalWatch {
    /// To be looked at by the run.
    stop: Arc<AtomicBool>,
    is_running: AtomicBool,
    caught: AtomicI32,
    /// What to do where a signal ends the process as it is, given the signal.
    at_end: Mutex<Vec<AtEnd>>,
}

type AtEnd = Box<dyn FnOnce(i32) + Send>;

impl SignalWatch {
    /// Watches from now on.
    pub fn start() -> anyhow::Result<Arc<Self>> {
        let watch = Arc::new(Self {
            stop: Arc::default(),
            is_running: AtomicBool::new(false),
            caught: AtomicI32::new(0),
            at_end: Mutex::default(),
        });
        let signals = [SIGINT, SIGTERM, SIGHUP]
            .into_iter()
            .filter(|&signal| !is_ignored(signal));
        let mut signals = Signals::new(signals).context("cannot watch for signals")?;
        let thread = Arc::clone(&watch);
        std::thread::Builder::new()
            .name("crag-signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    thread.take(signal);
                }
            })
            .context("cannot watch for signals")?;
        Ok(watch)
    }

    /// The run is under way: the first signal lets it end in order. Returns what it has to look at.
    pub fn run_begins(&self) -> Arc<AtomicBool> {
        self.is_running.store(true, Ordering::SeqCst);
        Arc::clone(&self.stop)
    }

    /// Where a signal ends the process as it is, `act` is given the signal before, after what has been asked for earlier. It
    /// must not say anything, and is not waited for where it takes long.
    pub fn before_end(&self, act: impl FnOnce(i32) + Send + 'static) {
        let mut acts = self.at_end.lock().unwrap_or_else(PoisonError::into_inner);
        acts.push(Box::new(act));
    }

    /// How a run ended that was interrupted.
    pub fn outcome(&self) -> Outcome {
        match self.caught.load(Ordering::SeqCst) {
            // Nothing else interrupts a run.
            0 => Outcome::Interrupted(SIGINT),
            signal => Outcome::Interrupted(signal),
        }
    }

    /// Ends the process as it is.
    fn end(&self, signal: i32) -> ! {
        let acts = std::mem::take(&mut *self.at_end.lock().unwrap_or_else(PoisonError::into_inner));
        let (done, wait) = mpsc::channel::<()>();
        let acting = std::thread::Builder::new().spawn(move || {
            acts.into_iter().for_each(|act| act(signal));
            drop(done);
        });
        if acting.is_ok() {
            let _ = wait.recv_timeout(LAST_ACTS);
        }
        exit(128 + signal)
    }

    fn take(self: &Arc<Self>, signal: i32) {
        let is_first = self.caught.swap(signal, Ordering::SeqCst) == 0;
        if !is_first || !self.is_running.load(Ordering::SeqCst) {
            self.end(signal);
        }
        self.stop.store(true, Ordering::SeqCst);
        let name = signal_name(signal).unwrap_or("signal");
        // Before anything is said: stderr may be as stuck as what has to be ended.
        let watch = Arc::clone(self);
        let patience = std::thread::Builder::new()
            .name("crag-patience".to_owned())
            .spawn(move || {
                std::thread::sleep(PATIENCE);
                let last_words = std::thread::Builder::new().spawn(move || {
                    note(&format!("{name}: what is being done takes too long, ending as it is"));
                });
                // A moment for the words, if they find their way.
                if last_words.is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
                watch.end(signal);
            });
        if patience.is_err() {
            self.end(signal);
        }
        note(&format!(
            "{name}: finishing what is under way; once more ends it at once"
        ));
    }
}

/// The first process of a container is not ended by a signal that it does not watch for: from now on it is, at once. Others are
/// as they are, so that a shell sees what ended them.
pub fn end_as_first_process() -> anyhow::Result<()> {
    if std::process::id() == 1 {
        SignalWatch::start()?;
    }
    Ok(())
}

/// From now on a write beyond the limit of `ulimit -f` fails as one on a full disk does, with a message and what was
/// finished kept; SIGXFSZ would end the process without a word. A program that is started inherits it, and none is.
pub fn outlive_file_size_limit() {
    // SAFETY: there is no handler that could be called.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// What SIGBUS means here.
const PAGES_LOST: &str = "another program has cut a file short that this one was reading, most likely a model's weights (SIGBUS); replace \
    such a file by a whole new one (mv), and run again";

/// The line that says so, made while one can be made.
static LAST_WORDS: OnceLock<String> = OnceLock::new();

/// From now on SIGBUS, which is what reading a mapped file gives that another program has cut short, and would end the process
/// without a word, does so with a line on stderr and exit code 1. On Linux: elsewhere it is also what a stack that overflows
/// gives, which the standard library explains.
pub fn explain_lost_pages() {
    const EXIT_CODE: u8 = 1;
    LAST_WORDS.get_or_init(|| prepared_error(PAGES_LOST, EXIT_CODE));
    #[cfg(target_os = "linux")]
    {
        extern "C" fn explain(_: libc::c_int) {
            static IS_SAID: AtomicBool = AtomicBool::new(false);
            if !IS_SAID.swap(true, Ordering::SeqCst)
                && let Some(line) = LAST_WORDS.get()
            {
                // SAFETY: the bytes live as long as the process, and both functions may be called wherever a signal comes.
                unsafe {
                    libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
                    libc::_exit(EXIT_CODE.into());
                }
            }
            // Another thread, which has read such a page at the same time, is about to end the process.
            loop {
                // SAFETY: may be called wherever a signal comes.
                unsafe { libc::pause() };
            }
        }
        // SAFETY: all zeros are an action without flags, to which the handler is added. It takes no lock and no memory. What it
        // replaces, the standard library's, is for stacks that overflow, which is SIGSEGV on Linux.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = explain as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Whether the process was started with the signal ignored.
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action only asks for the present one, which is written to `action`, a place for one; it is
    // read only if the call says that it was written.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
