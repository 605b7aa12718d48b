//! Whether compression pays is not a property of the bytes alone: it depends on the link, on the cores that are free, and
//! on both together. So `auto` does not guess. It measures how fast log gets away each way, over windows of several
//! megabytes, keeps to the faster way, and tries the other again now and then, for at most a few hundredths of the time.

use std::time::Duration;

/// Bytes of log in one window: several times what pipes and sockets hold between the two ends.
const WINDOW: usize = 8 << 20;
/// The other way gets one part in this many of the time.
const SHARE: u32 = 32;

/// The two ways to send log bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Packed,
    Plain,
}

/// Measures both ways, and says which to go.
#[derive(Debug)]
pub(super) struct Choice {
    way: Way,
    /// Bytes sent and time spent in this window.
    bytes: usize,
    busy: Duration,
    /// Bytes per second that each way achieved last.
    packed: Option<f64>,
    plain: Option<f64>,
    /// Time that the other way has earned.
    earned: Duration,
    /// How long it took the last time.
    tried: Duration,
}

impl Choice {
    /// Begins with compression, which saves a slow link's time from the first byte.
    pub(super) fn new() -> Choice {
        let zero = Duration::ZERO;
        Choice { way: Way::Packed, bytes: 0, busy: zero, packed: None, plain: None, earned: zero, tried: zero }
    }

    /// The way to go now.
    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// `bytes` of log took `busy` to get away.
    pub(super) fn account(&mut self, bytes: usize, busy: Duration) {
        self.bytes += bytes;
        self.busy += busy;
        if self.bytes < WINDOW {
            return;
        }
        let rate = self.bytes as f64 / self.busy.as_secs_f64().max(1e-9);
        let took = std::mem::take(&mut self.busy);
        self.bytes = 0;
        match self.way {
            Way::Packed => self.packed = Some(rate),
            Way::Plain => self.plain = Some(rate),
        }
        let (Some(packed), Some(plain)) = (self.packed, self.plain) else {
            self.way = self.way.other();
            return;
        };
        let best = if packed >= plain { Way::Packed } else { Way::Plain };
        if self.way == best {
            self.earned += took / SHARE;
        } else {
            self.tried = took;
            self.earned = Duration::ZERO;
        }
        self.way = if self.earned > self.tried { best.other() } else { best };
    }
}

impl Way {
    fn other(self) -> Way {
        match self {
            Way::Packed => Way::Plain,
            Way::Plain => Way::Packed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends windows over a link where each way takes this long; returns how many went each way, packed first.
    fn send(choice: &mut Choice, windows: u32, packed_ms: u64, plain_ms: u64) -> (u32, u32) {
        let mut went = (0, 0);
        for _ in 0..windows {
            match choice.way() {
                Way::Packed => went.0 += 1,
                Way::Plain => went.1 += 1,
            }
            let took = if choice.way() == Way::Packed { packed_ms } else { plain_ms };
            choice.account(WINDOW, Duration::from_millis(took));
        }
        went
    }

    #[test]
    fn the_faster_way_is_kept_and_a_change_of_the_link_is_noticed() {
        let mut choice = Choice::new();
        let (packed, plain) = send(&mut choice, 500, 20, 80);
        assert!(plain <= 5 && packed >= 495, "{packed} {plain}");
        let (packed, plain) = send(&mut choice, 1000, 20, 5);
        assert!(plain > 800, "{packed} {plain}");
        let (packed, plain) = send(&mut choice, 1000, 20, 80);
        assert!(packed > 800, "{packed} {plain}");
    }
}
