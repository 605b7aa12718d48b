//! Wakes one waiting thread from many: log was written, an acknowledgement arrived, a signal came. Rings while nobody
//! waits are remembered once, so no event falls between a look and a wait.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A shared bell; clones ring the same one.
#[derive(Clone, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Default)]
struct Inner {
    is_rung: Mutex<bool>,
    wake: Condvar,
    /// Bells of other threads that the same events are for, and perhaps others.
    followers: Mutex<Vec<Weak<Inner>>>,
}

impl Bell {
    /// A silent bell.
    pub fn new() -> Bell {
        Bell::default()
    }

    /// Another bell, for a thread of its own, that is rung with this one as long as somebody has it. Rung by itself it
    /// leaves this one silent.
    #[must_use]
    pub fn follower(&self) -> Bell {
        let bell = Bell::new();
        let mut followers = self.0.followers.lock();
        followers.retain(|follower| follower.strong_count() > 0);
        followers.push(Arc::downgrade(&bell.0));
        bell
    }

    /// Wakes the waiter, or the next one to wait.
    pub fn ring(&self) {
        self.0.ring();
    }

    /// Waits for a ring, at most until the deadline.
    pub fn wait_until(&self, deadline: Instant) {
        let mut is_rung = self.0.is_rung.lock();
        while !*is_rung {
            if self.0.wake.wait_until(&mut is_rung, deadline).timed_out() {
                break;
            }
        }
        *is_rung = false;
    }
}

impl Inner {
    fn ring(&self) {
        *self.is_rung.lock() = true;
        self.wake.notify_all();
        for follower in self.followers.lock().iter().filter_map(Weak::upgrade) {
            follower.ring();
        }
    }
}
