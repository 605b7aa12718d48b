//! Wakes one waiting thread from many: log was written, an acknowledgement arrived, a signal came. Rings while nobody
//! waits are remembered once, so no event falls between a look and a wait.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A shared bell; clones ring the same one.
#[derive(Clone, Default)]
pub struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    /// A silent bell.
    pub fn new() -> Bell {
        Bell::default()
    }

    /// Wakes the waiter, or the next one to wait.
    pub fn ring(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    /// Waits for a ring, at most until the deadline.
    pub fn wait_until(&self, deadline: Instant) {
        let mut rung = self.0.0.lock();
        while !*rung {
            if self.0.1.wait_until(&mut rung, deadline).timed_out() {
                break;
            }
        }
        *rung = false;
    }
}
