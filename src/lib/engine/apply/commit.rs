//! Group commit: one thread makes durable what the other landed meanwhile, and only then acknowledges it.
//!
//! The order is the promise: data, directory entries, lines of closed segments, position, acknowledgement. A crash
//! between any two leaves a position that says too little, never too much. After any error of these steps nothing is
//! acknowledged again in this process: a second fsync can succeed though the data of the first is gone.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use parking_lot::{Condvar, Mutex};

use crate::edge::dir::Dir;
use crate::engine::site::{Closed, Holding, Site};
use crate::rule::stream::back::Ack;
use crate::value::exit::{Code, fail};
use crate::value::position::{Position, Segment};

/// An acknowledgement goes out at least this often: a long digest of what is held must not look like a dead site.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What was landed and is not durable yet.
#[derive(Default)]
struct Pending {
    received: Option<Position>,
    /// What is held when all that is pending is durable.
    latest: Option<Holding>,
    holding: Option<Holding>,
    dirty: BTreeMap<Segment, (Arc<File>, String)>,
    entries: bool,
    closed: Vec<Closed>,
    asked: bool,
    ended: bool,
}

/// What is durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    /// As `position` says.
    pub(super) holding: Option<Holding>,
    /// How often it went back: what was known of closed segments before is void.
    pub(super) turn: u64,
    /// Set once; the commit thread has ended then.
    pub(super) failed: bool,
}

/// Shared by the landing thread, the commit thread and the feed.
pub(super) struct Commit {
    pending: Mutex<Pending>,
    wake: Condvar,
    durable: Mutex<Durable>,
    settled: Condvar,
    applied: Mutex<Option<Position>>,
}

/// Where acknowledgements go; an error means that the sender is gone.
pub(super) type Acks = Box<dyn FnMut(Ack) -> std::io::Result<()> + Send>;

impl Commit {
    pub(super) fn new(holding: Option<Holding>, applied: Option<Position>) -> Commit {
        let received = holding.map(|holding| holding.held.position);
        Commit {
            pending: Mutex::new(Pending { received, latest: holding, ..Pending::default() }),
            wake: Condvar::new(),
            durable: Mutex::new(Durable { holding, turn: 0, failed: false }),
            settled: Condvar::new(),
            applied: Mutex::new(applied),
        }
    }

    /// A frame was landed in `file`, up to here; `entry` when the file is new in its directory.
    pub(super) fn landed(&self, at: Position, file: &Arc<File>, name: impl FnOnce() -> String, entry: bool) {
        let mut pending = self.pending.lock();
        pending.received = Some(at);
        pending.entries |= entry;
        pending.dirty.entry(at.segment).or_insert_with(|| (Arc::clone(file), name()));
    }

    /// What is held now, once durable; `closed` when that closed a segment. Call [`Commit::nudge`] when no more is at
    /// hand.
    pub(super) fn hold(&self, holding: Holding, closed: Option<Closed>) {
        let mut pending = self.pending.lock();
        pending.received = Some(holding.held.position);
        pending.latest = Some(holding);
        pending.holding = Some(holding);
        pending.closed.extend(closed);
    }

    /// Nothing more is at hand now: what is pending is worth a sync.
    pub(super) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// An acknowledgement is due though nothing may be new.
    pub(super) fn ask(&self) {
        self.pending.lock().asked = true;
        self.wake.notify_one();
    }

    /// The feed has got this far, since the last turn it saw; `keep` makes that durable. A turn in between voids it.
    pub(super) fn applied(&self, turn: u64, at: Position, keep: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut applied = self.applied.lock();
        if self.durable.lock().turn != turn {
            return Ok(());
        }
        keep()?;
        *applied = Some(at);
        drop(applied);
        self.ask();
        Ok(())
    }

    /// How far the feed is.
    pub(super) fn fed(&self) -> Option<Position> {
        *self.applied.lock()
    }

    /// What is received, durable and fed now.
    pub(super) fn standing(&self) -> Ack {
        let received = self.pending.lock().received;
        let flushed = self.durable.lock().holding.map(|holding| holding.held.position);
        Ack { received, flushed, applied: self.fed() }
    }

    /// Nothing more will be landed: what is pending is made durable, then the thread ends.
    pub(super) fn end(&self) {
        self.pending.lock().ended = true;
        self.wake.notify_one();
    }

    /// What is durable.
    pub(super) fn durable(&self) -> Durable {
        self.durable.lock().clone()
    }

    /// Whether the commit thread gave up.
    pub(super) fn is_failed(&self) -> bool {
        self.durable.lock().failed
    }

    /// Waits until all that was held is durable, its boundary too, or the thread gave up.
    pub(super) fn settle(&self) {
        self.nudge();
        let target = { self.pending.lock().latest };
        let mut durable = self.durable.lock();
        while !durable.failed && durable.holding != target {
            self.settled.wait(&mut durable);
        }
    }

    /// Starts over from an earlier holding, which is durable already. What was fed beyond it is to be fed again from
    /// there, and `keep` makes that durable; returned is how far that was.
    pub(super) fn go_back(
        &self,
        holding: Option<Holding>,
        keep: impl FnOnce(Position, Position) -> Result<()>,
    ) -> Result<Option<Position>> {
        let at = holding.map(|holding| holding.held.position);
        let mut pending = self.pending.lock();
        (pending.received, pending.latest, pending.holding) = (at, holding, None);
        pending.closed.clear();
        pending.dirty.clear();
        drop(pending);
        let mut applied = self.applied.lock();
        let mut durable = self.durable.lock();
        durable.holding = holding;
        durable.turn += 1;
        drop(durable);
        match (*applied, at) {
            (Some(fed), Some(at)) if fed > at => {
                keep(at, fed)?;
                *applied = Some(at);
                Ok(Some(fed))
            }
            _ => Ok(None),
        }
    }

    /// The commit thread: until the end or the first error. `notify` is called when more is durable.
    pub(super) fn run(&self, dir: &Dir, site: &Mutex<Site>, acks: Option<Acks>, notify: &dyn Fn()) -> Result<()> {
        let result = self.cycle(dir, site, acks, notify);
        if result.is_err() {
            self.durable.lock().failed = true;
        }
        self.settled.notify_all();
        notify();
        result
    }

    fn cycle(&self, dir: &Dir, site: &Mutex<Site>, mut acks: Option<Acks>, notify: &dyn Fn()) -> Result<()> {
        loop {
            let batch = self.wait();
            let ended = batch.ended;
            let news = batch.holding.is_some();
            let is_due = news || batch.asked;
            let received = batch.received;
            self.make_durable(&batch, dir, site)?;
            if let Some(acks) = &mut acks
                && is_due
            {
                let flushed = self.durable.lock().holding.map(|holding| holding.held.position);
                let ack = Ack { received, flushed, applied: *self.applied.lock() };
                acks(ack).context("cannot acknowledge")?;
            }
            if news {
                self.settled.notify_all();
                notify();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Waits for something to do and takes it.
    fn wait(&self) -> Pending {
        let mut pending = self.pending.lock();
        let deadline = Instant::now() + SIGN_OF_LIFE;
        while pending.holding.is_none() && !pending.asked && !pending.ended {
            if self.wake.wait_until(&mut pending, deadline).timed_out() {
                pending.asked = true;
            }
        }
        let Pending { received, latest, ended, .. } = *pending;
        std::mem::replace(&mut *pending, Pending { received, latest, ended, ..Pending::default() })
    }

    fn make_durable(&self, batch: &Pending, dir: &Dir, site: &Mutex<Site>) -> Result<()> {
        let Some(holding) = batch.holding else {
            return Ok(());
        };
        for (segment, (file, _)) in &batch.dirty {
            file.sync_data().with_context(|| format!("cannot sync segment {segment} in {}", dir.shown("")))?;
        }
        if batch.entries {
            dir.sync()?;
        }
        for (segment, (file, name)) in &batch.dirty {
            let is_open = holding.held.position.segment == *segment && !holding.held.closed;
            check_name(dir, file, name, is_open)?;
        }
        let mut site = site.lock();
        site.close(&batch.closed)?;
        site.hold(&holding)?;
        self.durable.lock().holding = Some(holding);
        Ok(())
    }
}

/// A file that has lost its name is no part of the log, whatever was written to it. A live server gives old files the
/// names of segments to come, and may do that over one that was made here meanwhile. (It may also have taken a complete
/// segment away already.)
fn check_name(dir: &Dir, file: &File, name: &str, is_open: bool) -> Result<()> {
    let meta = file.metadata()?;
    match dir.identity(name)? {
        Some(identity) if identity == (meta.dev(), meta.ino()) => Ok(()),
        None if !is_open => Ok(()),
        _ => fail(
            Code::Link,
            format!("{} is another file than the one that was written: connect again", dir.shown(name)),
        ),
    }
}
