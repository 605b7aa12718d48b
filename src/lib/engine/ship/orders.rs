//! What one lane is told from outside while it works: to look now, to end in order, or to give up at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::edge::bell::Bell;
use crate::edge::link::Peer;
use crate::edge::signal::Stop;

/// The orders of one lane.
pub(super) struct Orders {
    /// What the lane waits by.
    pub(super) bell: Bell,
    stop: Stop,
    is_kicked: AtomicBool,
    is_retired: AtomicBool,
    is_abandoned: AtomicBool,
    /// The receiver that the lane may be stuck with.
    peer: Mutex<Option<Peer>>,
}

impl Orders {
    /// Rung by `bell`, ended by `stop`.
    pub(super) fn new(bell: &Bell, stop: &Stop) -> Orders {
        let no = || AtomicBool::new(false);
        Orders {
            bell: bell.follower(),
            stop: stop.clone(),
            is_kicked: no(),
            is_retired: no(),
            is_abandoned: no(),
            peer: Mutex::new(None),
        }
    }

    /// Look now, whatever is waited for.
    pub(super) fn kick(&self) {
        self.is_kicked.store(true, Ordering::SeqCst);
        self.bell.ring();
    }

    /// End in order.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
        self.bell.ring();
    }

    /// Nobody waits for this lane any more.
    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::SeqCst);
        if let Some(peer) = &*self.peer.lock() {
            peer.kill();
        }
        self.bell.ring();
    }

    /// Whether it is to look now; asked once for each kick.
    pub(super) fn take_kick(&self) -> bool {
        self.is_kicked.swap(false, Ordering::SeqCst)
    }

    /// Whether it is to end.
    pub(super) fn is_ending(&self) -> bool {
        self.stop.is_asked() || self.is_retired() || self.is_abandoned()
    }

    /// Whether it alone was called off.
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }

    /// Whether it is to give up.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::SeqCst)
    }

    /// The receiver that it works with now.
    pub(super) fn meet(&self, peer: Peer) {
        let mut met = self.peer.lock();
        if self.is_abandoned() {
            peer.kill();
        }
        *met = Some(peer);
    }

    /// It works with none.
    pub(super) fn part(&self) {
        *self.peer.lock() = None;
    }

    /// Waits for a time, through rings, unless there is an order.
    pub(super) fn rest(&self, until: Instant, alive: &dyn Fn()) {
        while Instant::now() < until && !self.is_ending() && !self.take_kick() {
            alive();
            self.bell.wait_until(until.min(Instant::now() + super::SIGN_OF_LIFE));
        }
    }
}
