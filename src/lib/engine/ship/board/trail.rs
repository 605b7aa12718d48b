//! When the log was seen to end where: how old the oldest byte is that somebody has not. Bounded; where places are joined,
//! a byte counts as older than it is, never as younger.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::value::position::Position;

/// Places closer than this in time are one.
const APART: Duration = Duration::from_millis(20);
/// Places that are remembered.
const MOST: usize = 4096;

/// Where the log ended, and since when it went beyond the place before.
#[derive(Debug)]
pub(super) struct Trail {
    began: Instant,
    places: VecDeque<(Position, Instant)>,
}

impl Trail {
    /// What is there when this begins counts as written now: nobody knows better.
    pub(super) fn new(now: Instant) -> Trail {
        Trail { began: now, places: VecDeque::new() }
    }

    /// The log ends here now, farther than before.
    pub(super) fn reached(&mut self, end: Position, now: Instant) {
        if let Some((last, since)) = self.places.back_mut()
            && now.saturating_duration_since(*since) < APART
        {
            *last = end;
            return;
        }
        self.places.push_back((end, now));
        if self.places.len() > MOST {
            // Of two neighbours the later place with the earlier time stays.
            let pairs: Vec<_> = self.places.drain(..).collect();
            let join = |pair: &[(Position, Instant)]| (pair[pair.len() - 1].0, pair[0].1);
            self.places = pairs.chunks(2).map(join).collect();
        }
    }

    /// How long ago the log went beyond a position.
    pub(super) fn age(&self, position: Option<Position>, now: Instant) -> Duration {
        let beyond = self.places.partition_point(|(place, _)| Some(*place) <= position);
        now.saturating_duration_since(self.places.get(beyond).map_or(self.began, |(_, since)| *since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::position::Segment;

    #[test]
    fn a_byte_is_as_old_as_its_place_and_never_younger() {
        let began = Instant::now();
        let now = began + Duration::from_secs(20_000);
        let mut trail = Trail::new(began);
        let at = |second: u64| Segment::new(1, 1).at(second * 10);
        for second in 1..=10_000 {
            trail.reached(at(second), began + Duration::from_secs(second));
        }
        assert!(trail.places.len() <= MOST);
        for second in [0, 1, 2, 77, 5000, 9998, 9999] {
            // What comes after the place of this second was written a second later.
            let age = trail.age(Some(at(second)), now).as_secs();
            let true_age = 20_000 - second - 1;
            assert!((true_age..true_age + 8).contains(&age), "{second}: {age}, not {true_age}");
        }
        assert!(trail.age(None, now).as_secs() >= 19_999);
    }
}
