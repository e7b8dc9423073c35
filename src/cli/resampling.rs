//! How far the resampling of `crag eval` and `crag calibrate` is, once it takes longer than a glance.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;

use super::console;
use super::progress::{Shown, duration, style};

/// Told of each resample, by whichever thread has made it.
pub struct Resampling {
    resamples: usize,
    shown: Option<Shown>,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    made: usize,
    bar: Option<ProgressBar>,
    said: Instant,
}

/// What is over before that needs no bar.
const DRAWN_AFTER: Duration = Duration::from_millis(500);

impl Resampling {
    pub fn new(resamples: usize, shown: Option<Shown>) -> Self {
        let started = Instant::now();
        Self {
            resamples,
            shown,
            started,
            state: Mutex::new(State {
                made: 0,
                bar: None,
                said: started,
            }),
        }
    }

    pub fn tell(&self) {
        let mut state = self.state();
        state.made += 1;
        let State { made, ref bar, said } = *state;
        match (self.shown, bar) {
            (Some(Shown::Bar), None) if self.started.elapsed() >= DRAWN_AFTER => state.bar = Some(self.begin_bar(made)),
            (Some(Shown::Bar), Some(bar)) => bar.set_position(made as u64),
            (Some(Shown::Lines(every)), _) if said.elapsed() >= every => {
                state.said = Instant::now();
                self.say(made);
            }
            _ => {}
        }
    }

    fn begin_bar(&self, made: usize) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(self.resamples as u64), ProgressDrawTarget::stderr())
            .with_style(style("{bar:24} {percent:>3}% {pos} of {len} resamples, {eta} left"))
            .with_elapsed(self.started.elapsed())
            .with_position(made as u64);
        console::set_bar(bar.clone());
        bar
    }

    fn say(&self, made: usize) {
        let elapsed = self.started.elapsed();
        let left = elapsed.mul_f64(self.resamples.saturating_sub(made) as f64 / made as f64);
        let text = format!("{made} of {} resamples, {} left", self.resamples, duration(left));
        let fields = json!({
            "made": made, "resamples": self.resamples, "seconds": elapsed.as_secs_f64(),
            "seconds_left": left.as_secs_f64().round(),
        });
        console::report("resampling", &text, fields);
    }

    /// A panic elsewhere leaves the count whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Resampling {
    /// Takes the bar away.
    fn drop(&mut self) {
        if self.state().bar.is_some() {
            console::remove_bar();
        }
    }
}
