//! How long a run still takes, from what it has done.

use std::collections::VecDeque;
use std::time::Duration;

/// What is left of a run, from what it has done.
pub struct TimeLeft {
    /// Of all inputs, if that is known.
    pub total_bytes: Option<u64>,
    /// When, tokens encoded and bytes answered by then; the last of them now.
    history: VecDeque<(Duration, u64, u64)>,
}

/// How far back the present speed looks.
const RECENT: Duration = Duration::from_secs(60);
/// Before this much time nothing can be said.
const SETTLED: Duration = Duration::from_secs(2);

impl TimeLeft {
    pub fn new(total_bytes: Option<u64>) -> Self {
        let history = VecDeque::from([(Duration::ZERO, 0, 0)]);
        Self { total_bytes, history }
    }

    /// The run began when this much had been done by others.
    pub fn begin_at(&mut self, tokens: u64, bytes: u64) {
        for (_, then_tokens, then_bytes) in &mut self.history {
            *then_tokens = tokens.max(*then_tokens);
            *then_bytes = bytes.max(*then_bytes);
        }
    }

    pub fn add(&mut self, elapsed: Duration, tokens: u64, bytes: u64) {
        self.history.push_back((elapsed, tokens, bytes));
        // One at or before the beginning of what is recent stays.
        while self.history.get(1).is_some_and(|&(at, ..)| at + RECENT <= elapsed) {
            self.history.pop_front();
        }
    }

    /// Of the bytes, those answered.
    pub fn share(&self) -> Option<f64> {
        let (total, (_, _, bytes)) = (self.total_bytes?, *self.history.back()?);
        Some(bytes.min(total) as f64 / total.max(1) as f64)
    }

    /// How long the rest takes, by tokens where some have been encoded lately, else by bytes.
    pub fn left(&self) -> Option<Duration> {
        let (&(now, tokens, bytes), &(then, tokens_then, bytes_then)) = (self.history.back()?, self.history.front()?);
        let left_bytes = self.total_bytes?.saturating_sub(bytes) as f64;
        let seconds = (now - then).as_secs_f64();
        if now < SETTLED || bytes == 0 || seconds <= 0.0 {
            return None;
        }
        let seconds_left = if tokens > tokens_then {
            let left_tokens = left_bytes * tokens as f64 / bytes as f64;
            left_tokens / ((tokens - tokens_then) as f64 / seconds)
        } else if bytes > bytes_then {
            // Nothing had to be encoded: all is cached, or an error.
            left_bytes / ((bytes - bytes_then) as f64 / seconds)
        } else {
            return None;
        };
        Duration::try_from_secs_f64(seconds_left).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_left_is_told_from_tokens_and_not_from_lines() {
        let mut time_left = TimeLeft::new(Some(10_000));
        for second in 1..=10 {
            time_left.add(seconds(second), 100 * second, 200 * second);
        }
        // 2,000 bytes were 1,000 tokens at 100 a second; 8,000 bytes are 4,000 tokens.
        assert_eq!(time_left.left(), Some(seconds(40)));
        assert_eq!(time_left.share(), Some(0.2));
        // Ten seconds in which a stretch of reused texts flies by do not make the rest look quick.
        for second in 11..=20 {
            time_left.add(seconds(second), 100 * second, 200 * second + 100 * (second - 10));
        }
        let left = time_left.left().unwrap();
        assert_eq!(left, Duration::from_secs_f64(5_000.0 * 2_000.0 / 5_000.0 / 100.0));
    }

    #[test]
    fn the_present_speed_counts() {
        let mut time_left = TimeLeft::new(Some(100_000));
        for second in 1..=100 {
            time_left.add(seconds(second), 100 * second, 100 * second);
        }
        for second in 101..=200 {
            time_left.add(
                seconds(second),
                10_000 + 10 * (second - 100),
                10_000 + 10 * (second - 100),
            );
        }
        // 89,000 left at the 10 a second of the last minute.
        assert_eq!(time_left.left().unwrap().as_secs(), 8_900);
        assert!(time_left.history.len() < 70);
    }

    #[test]
    fn what_earlier_runs_did_is_no_speed_of_this_one() {
        let mut time_left = TimeLeft::new(Some(2_000));
        time_left.add(seconds(1), 0, 0);
        time_left.begin_at(1_000, 1_000);
        time_left.add(seconds(10), 1_100, 1_100);
        // 900 left at 100 in 10 seconds.
        assert_eq!(time_left.left(), Some(seconds(90)));
        assert_eq!(time_left.share(), Some(0.55));
    }

    #[test]
    fn nothing_is_said_that_is_not_known() {
        let mut unknown = TimeLeft::new(None);
        unknown.add(seconds(10), 100, 100);
        assert_eq!((unknown.left(), unknown.share()), (None, None));
        let mut early = TimeLeft::new(Some(100));
        assert_eq!(early.left(), None);
        early.add(seconds(1), 10, 10);
        assert_eq!(early.left(), None);
        let mut stalled = TimeLeft::new(Some(100));
        stalled.add(seconds(10), 0, 0);
        assert_eq!(stalled.left(), None);
        // All from the cache: bytes tell.
        let mut cached = TimeLeft::new(Some(100));
        cached.add(seconds(10), 0, 50);
        assert_eq!(cached.left(), Some(seconds(10)));
        // A file that grew while it was read.
        cached.add(seconds(20), 0, 150);
        assert_eq!((cached.left(), cached.share()), (Some(Duration::ZERO), Some(1.0)));
    }
}
