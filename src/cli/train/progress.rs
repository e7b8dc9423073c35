//! How far the run is: a bar on a terminal, else a line an epoch and one now and then.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::cli::console;
use crate::cli::progress::{ProgressArgs, Shown, style};
use crate::training::Event;

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// Time between two lines within an epoch; none for no such lines.
    between: Option<Duration>,
    said: Instant,
}

impl Progress {
    pub fn new(args: &ProgressArgs) -> Self {
        // Nothing else is written while training runs.
        let shown = args.shown(false);
        let bar = (shown == Some(Shown::Bar)).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr())
                .with_style(style("{msg} {wide_bar} {pos}/{len} steps, {eta} left"));
            console::set_bar(bar.clone());
            bar
        });
        let between = match shown {
            Some(Shown::Lines(between)) => Some(between),
            _ => None,
        };
        Self {
            bar,
            between,
            said: Instant::now(),
        }
    }

    pub fn tell(&mut self, event: &Event) {
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
                let text = format!(
                    "{phase} epoch {epoch} of {epochs}: {items} items in {steps} steps, {negatives} mined negatives \
                     ({hard_negatives} hard)"
                );
                self.say("epoch", &text, event);
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
                if let Some(bar) = &self.bar {
                    bar.set_position(*step as u64);
                    bar.set_message(format!("{phase} {epoch}, loss {loss:.4}, {speed:.0} tokens/s"));
                }
                if self.between.is_some_and(|between| self.said.elapsed() >= between) {
                    let text =
                        format!("{phase} epoch {epoch}: step {step} of {steps}, loss {loss:.4}, {speed:.0} tokens/s");
                    self.say("step", &text, event);
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
                let text = format!("{phase} epoch {epoch}: loss {loss:.4}{figures}");
                self.say("epoch_end", &text, event);
            }
        }
    }

    fn say(&mut self, name: &str, text: &str, event: &Event) {
        self.said = Instant::now();
        console::report(name, text, serde_json::to_value(event).unwrap_or_default());
    }
}

impl Drop for Progress {
    /// Takes the bar away.
    fn drop(&mut self) {
        if self.bar.is_some() {
            console::remove_bar();
        }
    }
}
