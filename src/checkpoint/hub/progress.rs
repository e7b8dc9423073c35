//! What is shown of downloads: bars on a terminal, lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::request::Client;

/// Between two lines.
const MINUTE: Duration = Duration::from_secs(60);
/// Of smaller files nothing is said until a minute has gone by.
const LARGE: u64 = 10 << 20;

impl Client {
    /// Shown while another process downloads the file.
    pub(super) fn waiting(&self, name: &str) -> ProgressBar {
        if !self.progress {
            self.say(&format!("waiting for another process, which is downloading {name}"));
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner().with_message(format!("another process is downloading {name}"));
        spinner.enable_steady_tick(Duration::from_millis(200));
        spinner
    }

    /// Shown while the file arrives, of which `start` bytes are there already.
    pub(super) fn arriving<'c>(&'c self, name: &'c str, size: Option<u64>, start: u64) -> Arriving<'c> {
        let bar = match self.progress {
            true => bar(name, size, start),
            false => ProgressBar::hidden(),
        };
        if let Some(size) = size.filter(|size| *size >= LARGE) {
            self.say(&format!("downloading {name} ({})", megabytes(size)));
        }
        Arriving {
            client: self,
            name,
            size,
            bar,
            last: Instant::now(),
        }
    }

    /// In a line, where no bar is drawn.
    fn say(&self, what: &str) {
        if let Some(tell) = self.tell.filter(|_| !self.progress) {
            tell(&format!("{}: {what}", self.id));
        }
    }
}

/// A file that arrives.
pub(super) struct Arriving<'c> {
    client: &'c Client,
    name: &'c str,
    size: Option<u64>,
    bar: ProgressBar,
    /// When the last line was said.
    last: Instant,
}

impl Arriving<'_> {
    /// `reached`: how many of its bytes are there by now.
    pub(super) fn go_on(&mut self, reached: u64) {
        self.bar.set_position(reached);
        if self.last.elapsed() >= MINUTE {
            self.last = Instant::now();
            let of = self
                .size
                .map_or(String::new(), |size| format!(" of {}", megabytes(size)));
            let line = format!("{}: {}{of} have arrived", self.name, megabytes(reached));
            self.client.say(&line);
        }
    }

    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

fn bar(name: &str, size: Option<u64>, start: u64) -> ProgressBar {
    let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let template = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ({eta})";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(name.to_string());
    bar.set_position(start);
    bar
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
