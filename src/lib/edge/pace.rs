//! A limit on bytes per second: after each write, sleeps until the average since the last pause is met. Idle time is
//! not saved up for a burst of more than a quarter second.

use std::time::{Duration, Instant};

/// Paces writes to a rate.
#[derive(Debug)]
pub struct Pace {
    rate: u64,
    due: Instant,
}

impl Pace {
    /// At this many bytes per second.
    pub fn new(rate: u64) -> Pace {
        Pace { rate, due: Instant::now() }
    }

    /// Largest piece that keeps the stream smooth: a quarter second's worth.
    pub fn piece(&self) -> usize {
        usize::try_from(self.rate / 4).unwrap_or(usize::MAX).max(256)
    }

    /// Waits as long as `bytes`, just written, take at the rate.
    pub fn spend(&mut self, bytes: usize) {
        let now = Instant::now();
        let earliest = now.checked_sub(Duration::from_millis(250)).unwrap_or(now);
        self.due = self.due.max(earliest) + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        std::thread::sleep(self.due.saturating_duration_since(now));
    }
}
