//! All that goes to stderr: remarks, warnings, errors and the bar, as text or as JSON, never through each other.
//!
//! One place for the process, since stderr is one: the bar has to step aside for every line, whoever writes it,
//! and for records where both go to the same terminal.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::{Map, Value, json};

use super::config::SettingRow;
use super::stdout::{self, Stdout};
use crate::files::Waiting;
use crate::words::{shortened, visible};

/// How a line on stderr looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: time, level, event and message, and what else the event has.
    Json,
}

/// What a subcommand says on stderr, the same for all of them.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConsoleArgs {
    /// Say nothing on stderr unless something is wrong
    #[arg(
        help_heading = "Reports",
        long,
        short,
        global = true,
        conflicts_with = "verbose",
        overrides_with = "quiet"
    )]
    pub quiet: bool,

    /// Say more on stderr: model, kernels, cache, settings and where each came from
    #[arg(help_heading = "Reports", long, short, global = true, overrides_with = "verbose")]
    pub verbose: bool,

    /// Form of what is said on stderr
    #[arg(
        help_heading = "Reports",
        long,
        global = true,
        value_name = "FORM",
        value_enum,
        default_value_t
    )]
    pub log_format: LogFormat,
}

impl ConsoleArgs {
    /// Where one place asks for less and another for more, which a command line cannot, the nearer one to it counts.
    pub fn settle(&mut self, settings: &[SettingRow]) {
        if !(self.quiet && self.verbose) {
            return;
        }
        let distance = |name: &str| {
            let row = settings.iter().find(|row| row.setting == name);
            row.map_or(u8::MAX, SettingRow::distance)
        };
        match distance("verbose") < distance("quiet") {
            true => self.quiet = false,
            false => self.verbose = false,
        }
    }
}

struct Console {
    format: LogFormat,
    quiet: bool,
    verbose: bool,
    bars: bool,
    bar: Option<ProgressBar>,
}

static CONSOLE: Mutex<Console> = Mutex::new(Console {
    format: LogFormat::Text,
    quiet: false,
    verbose: false,
    bars: true,
    bar: None,
});

/// What is behind the lock is consistent after any panic: no invariant spans two statements.
fn console() -> MutexGuard<'static, Console> {
    CONSOLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes effect for all that is said from now on.
pub fn configure(args: &ConsoleArgs) {
    let mut console = console();
    console.format = args.log_format;
    console.quiet = args.quiet;
    console.verbose = args.verbose && !args.quiet;
}

/// From now on lines are JSON, whatever else is configured.
pub fn speak_json() {
    console().format = LogFormat::Json;
}

pub fn is_quiet() -> bool {
    console().quiet
}

pub fn is_verbose() -> bool {
    console().verbose
}

/// Whether bars of any kind are wanted.
pub fn allow_bars(bars: bool) {
    console().bars = bars;
}

/// Whether bars may be drawn on stderr.
pub fn can_draw() -> bool {
    let console = console();
    let wanted = console.bars && !console.quiet && console.format == LogFormat::Text;
    // Not where the terminal cannot move its cursor (TERM=dumb).
    wanted && io::stderr().is_terminal() && !ProgressDrawTarget::stderr().is_hidden()
}

/// Lines make `bar` step aside until [`remove_bar`].
pub fn set_bar(bar: ProgressBar) {
    console().bar = Some(bar);
}

pub fn remove_bar() {
    if let Some(bar) = console().bar.take() {
        bar.finish_and_clear();
    }
}

/// Something worth knowing.
pub fn note(text: &str) {
    event("info", "note", text, Map::new());
}

/// Something that may be wrong; said with `--quiet` too.
pub fn warn(text: &str) {
    event("warning", "warning", text, Map::new());
}

/// As [`warn`], with its particulars for whoever reads JSON.
pub fn problem(name: &str, text: &str, particulars: Value) {
    event("warning", name, text, fields(particulars));
}

/// What only `--verbose` asks for.
pub fn detail(text: &str) {
    event("debug", "detail", text, Map::new());
}

/// A stage of a run, with its numbers for whoever reads JSON.
pub fn report(name: &str, text: &str, numbers: Value) {
    event("info", name, text, fields(numbers));
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Why the process ends.
pub fn error(text: &str, exit_code: u8) {
    let mut fields = Map::new();
    fields.insert("exit_code".to_owned(), exit_code.into());
    event("error", "error", text, fields);
}

/// The line of [`error`] for a moment in which no line can be made. As JSON it has no time.
pub fn prepared_error(text: &str, exit_code: u8) -> String {
    match is_json() {
        false => format!("crag: {text}\n"),
        true => format!(
            "{}\n",
            json!({"level": "error", "event": "error", "message": text, "exit_code": exit_code})
        ),
    }
}

/// Whether lines are JSON objects.
pub fn is_json() -> bool {
    console().format == LogFormat::Json
}

/// Characters of a message, which may hold names and words from files; nobody reads more.
const LONGEST_LINE: usize = 16 << 10;

/// A closed stderr is no reason to stop.
fn event(level: &str, name: &str, text: &str, fields: Map<String, Value>) {
    let console = console();
    let wanted = match level {
        "info" => !console.quiet,
        "debug" => console.verbose,
        _ => true,
    };
    if !wanted {
        return;
    }
    let line = match console.format {
        LogFormat::Text => format!("crag: {}\n", visible(&shortened(text, LONGEST_LINE))),
        LogFormat::Json => {
            let time = jiff::Timestamp::now().to_string();
            let mut object = json!({"time": time, "level": level, "event": name, "message": text});
            if let Value::Object(object) = &mut object {
                object.extend(fields);
            }
            format!("{object}\n")
        }
    };
    // In one write, so that lines of two processes on one terminal do not mix.
    let write = || {
        let _ = Waiting(io::stderr()).write_all(line.as_bytes());
    };
    match &console.bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Stdout for records: where it is the terminal that the bar is on, the bar steps aside for each write.
pub struct Records {
    stdout: Stdout,
    shares_terminal: bool,
}

impl Records {
    pub fn lock() -> Self {
        let shares_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        let stdout = stdout::lock();
        Self {
            stdout,
            shares_terminal,
        }
    }
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bar = console().bar.clone().filter(|_| self.shares_terminal);
        match bar {
            // Whole and flushed before the bar is back.
            Some(bar) => bar.suspend(|| {
                self.stdout.write_all(bytes)?;
                self.stdout.flush()?;
                Ok(bytes.len())
            }),
            None => self.stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}
