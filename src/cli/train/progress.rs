//! How far the run is: a bar on a terminal, else a line an epoch and one a minute.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{cli::note, training::Event};

pub(super) struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
    said: Instant,
}

const BETWEEN_LINES: Duration = Duration::from_secs(60);

impl Progress {
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            // The template is this constant; the default would do as well.
            if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} steps, {eta} left") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            quiet,
            bar,
            said: Instant::now(),
        }
    }

    pub fn tell(&mut self, event: &Event) {
        if self.quiet {
            return;
        }
        match event {
            Event::Epoch {
                phase,
                epoch,
                epochs,
                steps,
                items,
                negatives,
                hard_negatives,
            } => {
                if let Some(bar) = &self.bar {
                    bar.reset();
                    bar.set_length(*steps as u64);
                    bar.set_message(format!("{phase} {epoch}/{epochs}"));
                }
                self.line(&format!(
                    "{phase} epoch {epoch} of {epochs}: {items} items in {steps} steps, {negatives} mined negatives \
                     ({hard_negatives} hard)"
                ));
            }
            Event::Step {
                phase,
                epoch,
                step,
                steps,
                loss,
                tokens,
                seconds,
                ..
            } => {
                let speed = *tokens as f64 / seconds.max(1e-9);
                match &self.bar {
                    Some(bar) => {
                        bar.set_position(*step as u64);
                        bar.set_message(format!("{phase} {epoch}, loss {loss:.4}, {speed:.0} tokens/s"));
                    }
                    None if self.said.elapsed() >= BETWEEN_LINES => self.line(&format!(
                        "{phase} epoch {epoch}: step {step} of {steps}, loss {loss:.4}, {speed:.0} tokens/s"
                    )),
                    None => {}
                }
            }
            Event::EpochEnd {
                phase,
                epoch,
                loss,
                validation,
                best,
                ..
            } => {
                let figures = validation.map_or(String::new(), |v| {
                    let best = if *best { ", the best so far" } else { "" };
                    format!(", validation F1 {:.4}, ROC-AUC {:.4}{best}", v.f1, v.roc_auc)
                });
                self.line(&format!("{phase} epoch {epoch}: loss {loss:.4}{figures}"));
            }
        }
    }

    fn line(&mut self, text: &str) {
        self.said = Instant::now();
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
