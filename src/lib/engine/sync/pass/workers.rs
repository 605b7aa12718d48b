//! The workers of a pass: started for a round, fed, and waited for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;

use super::Pass;
use crate::engine::sync::channel::Sender;
use crate::engine::sync::door::Ear;
use crate::engine::sync::line::{Line, Task, Work};
use crate::rule::sync::merkle::RANGE;
use crate::value::exit::{Code, fail};

/// Small files in one question, and how many bytes they may have together.
const BATCH: usize = 512;
/// So many are enough where the next is in another directory: two workers that make files in one wait for each other.
const ENOUGH: usize = 64;
const BATCH_BYTES: u64 = 2 << 20;
/// Tasks that may wait for a worker; one may be a whole batch, which takes memory.
const WAITING: usize = 8;

/// The lines to the other end. The first is for the list and for errands, the others have a worker each.
pub struct Lines {
    /// To the other end.
    pub sender: Sender,
    /// From the other end, by line.
    pub ears: Vec<Ear>,
}

/// Small files that wait to be asked for together.
pub(super) struct Batch<'a> {
    tasks: &'a SyncSender<Task>,
    small: Vec<Arc<Work>>,
    size: u64,
}

impl Batch<'_> {
    /// False when no worker is left.
    pub(super) fn add(&mut self, work: Work) -> bool {
        let work = Arc::new(work);
        let size = work.new.stamp.size;
        if !work.is_small() {
            return self.add_ranges(&work);
        }
        let is_elsewhere = self.small.last().is_some_and(|last| last.new.name.parent() != work.new.name.parent());
        if is_elsewhere && self.small.len() >= ENOUGH && !self.flush() {
            return false;
        }
        self.size += size;
        self.small.push(work);
        self.small.len() < BATCH && self.size < BATCH_BYTES || self.flush()
    }

    /// Of a file of which nothing more is to be had, the ranges that are left are one task: what its length is, a peer
    /// says.
    fn add_ranges(&self, work: &Arc<Work>) -> bool {
        let mut ranges = (0..work.new.stamp.size).step_by(RANGE as usize);
        while let Some(offset) = ranges.next() {
            let task = if work.is_given_up() {
                Task::Rest(Arc::clone(work), 1 + ranges.by_ref().count())
            } else {
                Task::Range(Arc::clone(work), offset)
            };
            if self.tasks.send(task).is_err() {
                return false;
            }
        }
        true
    }

    pub(super) fn flush(&mut self) -> bool {
        self.size = 0;
        let small = std::mem::take(&mut self.small);
        small.is_empty() || self.tasks.send(Task::Small(small)).is_ok()
    }
}

impl Pass<'_, '_> {
    /// Starts the workers, feeds them, and waits until they are done.
    pub(super) fn round(
        &self,
        lines: &mut Lines,
        feed: impl FnOnce(&mut Batch<'_>, &AtomicBool) -> Result<bool>,
    ) -> Result<bool> {
        let (tasks, waiting) = sync_channel(WAITING);
        let (waiting, over, written) = (Mutex::new(waiting), AtomicBool::new(false), AtomicU64::new(0));
        let sender = &lines.sender;
        std::thread::scope(|scope| {
            let mut workers = Vec::new();
            for (number, ear) in (1..).zip(&mut lines.ears) {
                let (waiting, over, written) = (&waiting, &over, &written);
                let line = Line {
                    number,
                    sender: sender.clone(),
                    ear,
                    target: self.target,
                    ledger: self.ledger,
                    page: self.manner.page,
                    dress: self.manner.dress,
                    spares: self.manner.spares,
                    is_dry: self.manner.is_dry,
                    digests: self.digests.as_deref(),
                    written,
                };
                workers.push(scope.spawn(move || {
                    // Whoever feeds waits for workers: one that ends must be seen to.
                    let done = catch_unwind(AssertUnwindSafe(|| line.work(waiting, over)))
                        .unwrap_or_else(|_| fail(Code::Failed, "a worker ended abruptly"));
                    if done.is_err() {
                        over.store(true, Ordering::Release);
                        drain(&line, waiting);
                    }
                    done
                }));
            }
            let mut batch = Batch { tasks: &tasks, small: Vec::new(), size: 0 };
            let fed = feed(&mut batch, &over).map(|is_whole| batch.flush() && is_whole);
            if fed.is_err() {
                over.store(true, Ordering::Release);
            }
            drop(tasks);
            let mut first = Ok(());
            for worker in workers {
                let done = worker.join().unwrap_or_else(|_| fail(Code::Failed, "a worker ended abruptly"));
                first = first.and(done);
            }
            first.and(fed)
        })
    }
}

/// After a failure: what still comes on a line is let go, so that the others can come to their end.
fn drain(line: &Line<'_, '_>, tasks: &Mutex<Receiver<Task>>) {
    // The tasks' end is the end of the round, too.
    loop {
        let ended = match tasks.try_lock() {
            Some(tasks) => matches!(tasks.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Disconnected)),
            None => {
                std::thread::yield_now();
                false
            }
        };
        line.ear.close();
        if ended {
            return;
        }
    }
}
