//! Boundaries that wait to be confirmed. Berkeley DB tells of each that was not in time (`perm_failed`); here they are
//! counted, each once: as confirmed when the policy is met within its time, else as unconfirmed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::rule::quorum::Confirmed;
use crate::value::position::Position;

/// Boundaries that are waited for one by one; beyond that, neighbours are confirmed together.
const MOST: usize = 1 << 14;

/// The boundaries of one sender.
#[derive(Debug)]
pub(in crate::engine::ship) struct Marks {
    patience: Duration,
    waiting: VecDeque<Waiting>,
    last: Option<Position>,
    /// Confirmed in time.
    pub(in crate::engine::ship) confirmed: u64,
    /// Not confirmed in time.
    pub(in crate::engine::ship) unconfirmed: u64,
    /// The last that was confirmed.
    pub(in crate::engine::ship) confirmed_to: Option<Position>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    at: Position,
    since: Instant,
    count: u64,
}

impl Marks {
    pub(super) fn new(patience: Duration) -> Marks {
        let waiting = VecDeque::new();
        Marks { patience, waiting, last: None, confirmed: 0, unconfirmed: 0, confirmed_to: None }
    }

    /// The last one that was read.
    pub(super) fn last(&self) -> Option<Position> {
        self.last
    }

    /// A boundary was read, by whichever lane came there first.
    pub(super) fn add(&mut self, at: Position, now: Instant) {
        if self.last >= Some(at) {
            return;
        }
        self.last = Some(at);
        let is_full = self.waiting.len() >= MOST;
        match self.waiting.back_mut().filter(|_| is_full) {
            Some(last) => {
                last.at = at;
                last.count += 1;
            }
            None => self.waiting.push_back(Waiting { at, since: now, count: 1 }),
        }
    }

    /// The policy is met so far.
    pub(super) fn confirm(&mut self, confirmed: Confirmed) {
        while let Some(first) = self.waiting.front().filter(|first| confirmed.has(first.at)) {
            self.confirmed += first.count;
            self.confirmed_to = Some(first.at);
            self.waiting.pop_front();
        }
    }

    /// Counts those that have waited too long; returns the first of them.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Position> {
        let mut expired = None;
        while let Some(first) = self.waiting.front()
            && now.saturating_duration_since(first.since) >= self.patience
        {
            self.unconfirmed += first.count;
            expired = expired.or(Some(first.at));
            self.waiting.pop_front();
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::position::Segment;

    #[test]
    fn each_boundary_is_counted_once_and_in_time_or_not() {
        let began = Instant::now();
        let mut marks = Marks::new(Duration::from_secs(10));
        let at = |offset| Segment::new(1, 1).at(offset);
        let second = |second| began + Duration::from_secs(second);
        for (offset, when) in [(1, 0), (2, 1), (2, 1), (1, 1), (3, 5)] {
            marks.add(at(offset), second(when));
        }
        marks.confirm(Confirmed::Nothing);
        assert_eq!(marks.expire(second(9)), None);
        marks.confirm(Confirmed::To(at(1)));
        assert_eq!((marks.confirmed, marks.unconfirmed, marks.confirmed_to), (1, 0, Some(at(1))));
        assert_eq!(marks.expire(second(11)), Some(at(2)));
        // It comes after all, but not in time.
        marks.confirm(Confirmed::To(at(3)));
        assert_eq!((marks.confirmed, marks.unconfirmed, marks.confirmed_to), (2, 1, Some(at(3))));
    }

    #[test]
    fn however_many_wait_memory_is_bounded_and_none_is_lost() {
        let now = Instant::now();
        let mut marks = Marks::new(Duration::from_secs(1));
        let all = 2 * MOST as u64;
        for offset in 1..=all {
            marks.add(Segment::new(1, 1).at(offset), now);
        }
        assert_eq!(marks.waiting.len(), MOST);
        marks.confirm(Confirmed::To(Segment::new(1, 1).at(all - 1)));
        marks.expire(now + Duration::from_secs(2));
        assert_eq!(marks.confirmed + marks.unconfirmed, all);
    }
}
