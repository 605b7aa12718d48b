//! Lets the master give up log that the receiver has on its disk (see [`crate::engine::release`]). A thread of its own
//! does it: a server that answers slowly, or not at all, holds up no byte of log.

use std::time::Duration;

use anyhow::Result;
use parking_lot::{Condvar, Mutex};

use super::earlier;
use crate::edge::dir::Dir;
use crate::engine::note::{Monitor, Note};
use crate::engine::postgres::Slot;
use crate::engine::prune::consumers;
use crate::engine::release::Release;
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure, code_of};
use crate::value::position::Position;

/// A failure is tried again this long after, at the earliest.
const RETRY: Duration = Duration::from_secs(10);

/// What the receiver has, and all that are named in the sender's state: consumers, and receivers of earlier runs.
fn least(flushed: Position, others: Option<&Dir>) -> Result<Position> {
    let Some(state) = others else {
        return Ok(flushed);
    };
    let others = [consumers::least(state)?, earlier::least(state)?];
    Ok(others.into_iter().flatten().fold(flushed, Position::min))
}

/// What the thread and its owner share.
#[derive(Default)]
struct State {
    flushed: Option<Position>,
    is_ended: bool,
    /// The verdict that ends shipping.
    verdict: Option<String>,
}

/// The thread that follows what is flushed.
#[derive(Default)]
pub(super) struct Releasing {
    state: Mutex<State>,
    wake: Condvar,
}

impl Releasing {
    /// All receivers have all before this on their disks, or not any more: what counts is the latest word. An error means that the master has given up log on its own.
    pub(super) fn flushed(&self, flushed: Option<Position>) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(text) = &state.verdict {
            return Err(Failure::new(Code::Gap, text.clone()).hint(Slot::LOST_HINT).into());
        }
        if std::mem::replace(&mut state.flushed, flushed) < flushed {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// No more will come: the thread does what is left, once, and ends.
    pub(super) fn end(&self) {
        self.state.lock().is_ended = true;
        self.wake.notify_one();
    }

    /// The thread.
    pub(super) fn run(&self, release: &Release, dir: &Dir, scheme: &Scheme, others: Option<&Dir>, monitor: &Monitor) {
        let mut done = None;
        let due = |state: &State, done| state.flushed.filter(|flushed| release.is_due(done, *flushed));
        let mut state = self.state.lock();
        loop {
            while due(&state, done).is_none() && !state.is_ended {
                self.wake.wait(&mut state);
            }
            let (Some(flushed), is_ended) = (due(&state, done), state.is_ended) else {
                return;
            };
            drop(state);
            let result = least(flushed, others).and_then(|least| release.up_to(dir, scheme, least));
            state = self.state.lock();
            match result {
                Ok(()) => done = Some(flushed),
                Err(error) if code_of(&error) == Code::Gap => {
                    state.verdict = Some(format!("{error:#}"));
                    return;
                }
                Err(error) => {
                    (monitor)(Note::trouble(&error, "log is kept at the master until this works".to_owned()));
                    if is_ended {
                        return;
                    }
                    self.wake.wait_for(&mut state, RETRY);
                }
            }
        }
    }
}
