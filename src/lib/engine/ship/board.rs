//! Where every receiver is: what the lanes and the readers of acknowledgements write down, and what status, waiting and
//! the giving up of log go by. One lock, held for moments only, and nobody does I/O under it.
//!
//! What a receiver says counts only as far as it is about this very log: up to the place that its lane has reached since
//! the beginning was proven there. Before that it may be of another history, and so may be what lies beyond.

mod marks;
mod trail;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use self::marks::Marks;
use self::trail::Trail;
use super::Receiver;
use crate::edge::clock;
use crate::rule::quorum::{Confirmed, Level, Policy, Voter};
use crate::rule::stream::back::{Ack, Welcome};
use crate::value::exit::Code;
use crate::value::position::{Position, Segment, Start};
use crate::value::time::Time;

/// Which receiver: never used again in one process.
pub(super) type Id = usize;

/// The link to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Not there yet.
    Connecting,
    /// Its place was found and proven.
    Connected,
    /// Failed, and tried again.
    Retrying,
    /// Failed for good.
    Refused,
    /// Ended as it should.
    Done,
}

impl Link {
    /// As status files have it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Link::Connecting => "connecting",
            Link::Connected => "connected",
            Link::Retrying => "retrying",
            Link::Refused => "refused",
            Link::Done => "done",
        }
    }
}

/// One receiver.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) receiver: String,
    pub(super) acks: bool,
    pub(super) votes: u32,
    pub(super) priority: u32,
    pub(super) link: Link,
    /// Whether it feeds a database, as its greeting said.
    pub(super) feeds: Option<bool>,
    /// How far its lane has come on this connection, once its place was proven.
    pub(super) sent: Option<Position>,
    /// Where the lane left the generation before that one.
    left: Option<Position>,
    /// What it says.
    pub(super) said: Ack,
    /// What of that is about this log.
    pub(super) proven: Ack,
    /// What an earlier process knew to be on its disk: log is kept by it, and nothing is confirmed by it, since nobody
    /// has compared the two histories since.
    pub(super) known: Option<Position>,
    pub(super) last_ack: Option<Time>,
    pub(super) connected: Option<Time>,
    pub(super) reconnects: u64,
    pub(super) error: Option<(Code, String)>,
}

impl Site {
    /// Takes over what it says as far as the lane has come; a level that is beyond, or in an earlier generation behind the
    /// place where the lane has left that, stays what it was.
    fn settle(&mut self) {
        let Some(sent) = self.sent else {
            return;
        };
        let is_on_the_way = |said: &Position| {
            *said <= sent
                && (said.segment.generation == sent.segment.generation || self.left.is_none_or(|left| *said <= left))
        };
        let (said, mut proven) = (self.said, self.proven);
        for (said, proven) in [
            (said.received, &mut proven.received),
            (said.flushed, &mut proven.flushed),
            (said.applied, &mut proven.applied),
        ] {
            if said.as_ref().is_none_or(is_on_the_way) {
                *proven = said;
            }
        }
        self.proven = proven;
    }

    /// What it has itself said to hold is the most that it has.
    fn held(&mut self, held: Option<Position>) {
        let proven = &mut self.proven;
        for level in [&mut proven.received, &mut proven.flushed, &mut proven.applied] {
            *level = (*level).min(held);
        }
    }

    /// What is known to be on its disk.
    pub(super) fn flushed(&self) -> Option<Position> {
        self.proven.flushed.or(self.known)
    }

    fn at(&self, level: Level) -> Option<Position> {
        match level {
            Level::Received => self.proven.received,
            Level::Flushed => self.proven.flushed,
            Level::Applied => self.proven.applied,
        }
    }

    fn voter(&self, level: Level) -> Voter {
        Voter { is_peer: self.priority > 0, is_connected: self.link == Link::Connected, at: self.at(level) }
    }
}

/// All receivers, and the log's end.
pub(super) struct Board {
    facts: Mutex<Facts>,
    /// Notified when somebody has come farther, or has left.
    changed: Condvar,
}

/// What the board knows.
pub(super) struct Facts {
    pub(super) policy: Policy,
    pub(super) sites: BTreeMap<Id, Site>,
    /// The log's end, as it was seen last.
    pub(super) end: Option<Position>,
    /// When it was seen to move.
    pub(super) grown: Option<Time>,
    /// How many links have changed.
    pub(super) turns: u64,
    /// Whether shipping has ended.
    pub(super) is_over: bool,
    pub(super) marks: Marks,
    trail: Trail,
    next: Id,
}

impl Facts {
    /// How far a policy is met at a level.
    pub(super) fn confirmed(&self, policy: Policy, level: Level) -> Confirmed {
        let voters: Vec<_> = self.sites.values().filter(|site| site.acks).map(|site| site.voter(level)).collect();
        policy.confirmed(&voters)
    }

    /// Why these sites never meet a policy, however far they come.
    pub(super) fn never(&self, policy: Policy) -> Option<String> {
        let mut acking = self.sites.values().filter(|site| site.acks).peekable();
        let why = match policy {
            Policy::None => return None,
            _ if acking.peek().is_none() => "no site acknowledges",
            Policy::OnePeer | Policy::AllPeers if !acking.any(|site| site.priority > 0) => {
                "no site that acknowledges has a priority above 0"
            }
            _ => return None,
        };
        Some(format!("{why}, so policy {policy} is never met"))
    }

    /// Whether all that was to be shipped is acknowledged as a policy asks: up to `last`, where that is known. A receiver
    /// whose lane has ended as it should has it, whatever it was: a small file has no position.
    pub(super) fn is_met(&self, policy: Policy, last: Option<Position>) -> bool {
        const ALL: Position =
            Position { segment: Segment { generation: u64::MAX, sequence: u64::MAX }, offset: u64::MAX };
        let voter = |site: &Site| {
            let has_all = site.link == Link::Done && site.error.is_none();
            let voter = site.voter(Level::Flushed);
            Voter { at: if has_all { Some(ALL) } else { voter.at }, ..voter }
        };
        let voters: Vec<_> = self.sites.values().filter(|site| site.acks).map(voter).collect();
        policy.confirmed(&voters).has(last.unwrap_or(ALL))
    }

    /// For how long a site has not had what comes after a position; nothing while that is the log's end.
    pub(super) fn behind_for(&self, position: Option<Position>) -> Duration {
        if position >= self.end { Duration::ZERO } else { self.trail.age(position, Instant::now()) }
    }

    /// What all sites have on their disks: log before that is needed by none.
    pub(super) fn least(&self) -> Option<Position> {
        self.sites.values().map(Site::flushed).min().flatten()
    }

    /// Whether all boundaries so far are confirmed.
    pub(super) fn is_confirmed(&self) -> bool {
        let confirmed = self.confirmed(self.policy, Level::Flushed);
        self.marks.last().is_none_or(|last| confirmed.has(last))
    }

    /// Whether it can be that some site applies log: one does, or one has not told yet.
    pub(super) fn may_apply(&self) -> bool {
        let mut acking = self.sites.values().filter(|site| site.acks);
        acking.any(|site| site.feeds != Some(false) || site.proven.applied.is_some())
    }

    fn turn(&mut self, id: Id, link: Link) -> Option<&mut Site> {
        self.turns += 1;
        let site = self.sites.get_mut(&id)?;
        site.link = link;
        Some(site)
    }

    /// Takes up news of a site, and counts what is confirmed by it.
    fn settle(&mut self, id: Id) {
        if let Some(site) = self.sites.get_mut(&id) {
            site.settle();
        }
        let confirmed = self.confirmed(self.policy, Level::Flushed);
        self.marks.confirm(confirmed);
    }
}

impl Board {
    /// No receivers yet. A boundary that `policy` has not confirmed after `patience` counts as unconfirmed.
    pub(super) fn new(policy: Policy, patience: Duration) -> Board {
        let facts = Facts {
            policy,
            sites: BTreeMap::new(),
            end: None,
            grown: None,
            turns: 0,
            marks: Marks::new(patience),
            trail: Trail::new(Instant::now()),
            next: 0,
            is_over: false,
        };
        Board { facts: Mutex::new(facts), changed: Condvar::new() }
    }

    /// Receivers leave and others join, all at once: nobody is counted without the others. Each that joins comes with what
    /// an earlier process knew to be on its disk; one that leaves and joins again with what this one knows.
    pub(super) fn change(&self, gone: &[Id], come: &[(&Receiver, Option<Position>)]) -> Vec<Id> {
        let mut facts = self.facts.lock();
        let left: Vec<_> = gone.iter().filter_map(|id| facts.sites.remove(id)).collect();
        let join = |(receiver, known): &(&Receiver, Option<Position>)| {
            let before = left.iter().find(|site| site.receiver == receiver.shown);
            let site = Site {
                name: receiver.name.clone(),
                receiver: receiver.shown.clone(),
                acks: receiver.acks,
                votes: receiver.votes,
                priority: receiver.priority,
                link: Link::Connecting,
                feeds: before.and_then(|site| site.feeds),
                sent: None,
                left: None,
                said: Ack::default(),
                proven: before.map(|site| site.proven).unwrap_or_default(),
                known: before.map_or(*known, |site| site.known),
                last_ack: None,
                connected: None,
                reconnects: 0,
                error: None,
            };
            let id = facts.next;
            facts.next += 1;
            facts.sites.insert(id, site);
            id
        };
        let ids = come.iter().map(join).collect();
        facts.turns += 1;
        self.changed.notify_all();
        ids
    }

    /// The lane has left a generation of the log for the next one.
    pub(super) fn left(&self, id: Id, at: Position) {
        if let Some(site) = self.facts.lock().sites.get_mut(&id) {
            site.left = Some(at);
        }
    }

    /// A new connection: nothing is proven on it yet, what was stays known.
    pub(super) fn greeted(&self, id: Id, welcome: &Welcome) {
        let mut facts = self.facts.lock();
        let Some(site) = facts.sites.get_mut(&id) else {
            return;
        };
        let held = match welcome.at {
            Start::At(mark) => Some(mark.position),
            _ => None,
        };
        (site.sent, site.left) = (None, None);
        site.feeds = Some(welcome.feeds);
        site.said = Ack { received: held, flushed: held, applied: None };
        // What it had beyond that is gone, whoever took it.
        site.held(held);
        site.known = site.known.min(held);
    }

    /// The receiver's place was proven, and its lane has come so far.
    pub(super) fn placed(&self, id: Id, at: Position) {
        let mut facts = self.facts.lock();
        if let Some(site) = facts.turn(id, Link::Connected) {
            site.sent = Some(at);
            site.connected = Some(clock::now());
            site.error = None;
        }
        facts.settle(id);
        self.changed.notify_all();
    }

    /// The lane has come so far.
    pub(super) fn sent(&self, id: Id, at: Option<Position>) {
        let mut facts = self.facts.lock();
        let Some(site) = facts.sites.get_mut(&id).filter(|site| site.sent != at && at.is_some()) else {
            return;
        };
        // Only an acknowledgement that overtook this is news.
        let is_overtaken = site.said.received > site.sent;
        site.sent = at;
        if is_overtaken {
            facts.settle(id);
            self.changed.notify_all();
        }
    }

    /// The receiver acknowledges.
    pub(super) fn heard(&self, id: Id, ack: Ack) {
        let mut facts = self.facts.lock();
        if let Some(site) = facts.sites.get_mut(&id) {
            site.said = ack;
            site.last_ack = Some(clock::now());
        }
        facts.settle(id);
        self.changed.notify_all();
    }

    /// The link failed; it is tried again, or not.
    pub(super) fn lost(&self, id: Id, link: Link, error: Option<(Code, String)>) {
        let mut facts = self.facts.lock();
        if let Some(site) = facts.turn(id, link) {
            site.reconnects += u64::from(link == Link::Retrying);
            site.connected = None;
            // What is there is another log, or a damaged one.
            let is_other = |(code, _): &(Code, String)| matches!(code, Code::Diverged | Code::Fenced | Code::Corrupt);
            if link == Link::Refused && error.as_ref().is_some_and(is_other) {
                (site.said, site.proven, site.known) = (Ack::default(), Ack::default(), None);
            }
            site.error = error;
        }
        // One policy asks those that are connected.
        facts.settle(id);
        self.changed.notify_all();
    }

    /// The log was seen to end here.
    pub(super) fn reached(&self, end: Option<Position>) {
        let mut facts = self.facts.lock();
        if let Some(end) = end.filter(|end| facts.end < Some(*end)) {
            facts.trail.reached(end, Instant::now());
            facts.grown = facts.end.map(|_| clock::now());
            facts.end = Some(end);
        }
    }

    /// A boundary was read.
    pub(super) fn mark(&self, at: Position) {
        let mut facts = self.facts.lock();
        facts.marks.add(at, Instant::now());
        if facts.policy == Policy::None {
            facts.marks.confirm(Confirmed::Everything);
        }
    }

    /// Counts boundaries that are out of time; returns the first of them.
    pub(super) fn expire(&self) -> Option<Position> {
        let mut facts = self.facts.lock();
        let confirmed = facts.confirmed(facts.policy, Level::Flushed);
        facts.marks.confirm(confirmed);
        facts.marks.expire(Instant::now())
    }

    /// Looks at what is known.
    pub(super) fn look<T>(&self, at: impl FnOnce(&Facts) -> T) -> T {
        at(&self.facts.lock())
    }

    /// Nobody needs to wait any more.
    pub(super) fn end(&self) {
        self.facts.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Waits until `is_so`, or the deadline; `None` once shipping has ended.
    pub(super) fn wait<T>(&self, deadline: Instant, is_so: impl Fn(&Facts) -> Option<T>) -> Waited<T> {
        let mut facts = self.facts.lock();
        loop {
            if let Some(found) = is_so(&facts) {
                return Waited::So(found);
            }
            if facts.is_over {
                return Waited::Over;
            }
            if self.changed.wait_until(&mut facts, deadline).timed_out() {
                return Waited::Not;
            }
        }
    }
}

/// How waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited<T> {
    /// It is so.
    So(T),
    /// Not in time.
    Not,
    /// Shipping has ended.
    Over,
}

#[cfg(test)]
mod tests;
