//! `status.json` in a receiver's state directory: what it has heard of its master, for `repl-status` and for people.
//! Replaced whole at the attach, at each heartbeat, when the feed begins to fail, fails otherwise and goes on again, and at
//! the end, which it gives the reason of. What an earlier stream had heard stays until this one has heard more.

use anyhow::Result;

use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::rule::status::receiver::{FILE, Session};
use crate::rule::stream::back::Ack;
use crate::rule::stream::hello::Hello;
use crate::value::exit::code_of;
use crate::value::position::Position;
use crate::value::time::Time;

/// Longest that is read.
const MOST: u64 = 1 << 16;

/// The receiver's status file.
pub(super) struct Heard {
    state: Dir,
    session: Session,
}

impl Heard {
    /// Of a stream that is about to come. Nothing is written yet.
    pub(super) fn new(state: Dir, site: &str) -> Heard {
        let last = state.read_small(FILE, MOST).ok().flatten().and_then(|bytes| Session::parse(&bytes).ok());
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        Heard { state, session: Session::begin(last.unwrap_or_default(), site, pid, clock::now()) }
    }

    /// The stream's beginning is proven, and log comes.
    pub(super) fn attached(&mut self, hello: &Hello, epoch: u64, end: Position, standing: Ack) {
        self.session.set.clone_from(&hello.set);
        self.session.engine = hello.scheme.engine().to_string();
        (self.session.connected, self.session.epoch) = (true, epoch);
        self.told(end, None, standing);
    }

    /// The master has said where its log ends, perhaps with its clock.
    pub(super) fn told(&mut self, end: Position, clock: Option<Time>, standing: Ack) {
        self.session.stand(standing.received, standing.flushed, standing.applied);
        self.session.hear(end, clock, clock::now());
        self.write();
    }

    /// The feed has failed.
    pub(super) fn starved(&mut self, error: &anyhow::Error) {
        self.session.starve(format!("{error:#}"), clock::now());
        self.write();
    }

    /// The feed goes on, or has nothing to do.
    pub(super) fn fed(&mut self) {
        if self.session.feed() {
            self.write();
        }
    }

    /// No more comes.
    pub(super) fn ended(&mut self, result: &Result<()>, standing: Ack) {
        self.session.stand(standing.received, standing.flushed, standing.applied);
        self.session.connected = false;
        self.session.error = result.as_ref().err().map(|error| format!("{error:#}"));
        self.session.code = result.as_ref().err().map(|error| code_of(error) as u8);
        self.write();
    }

    fn write(&mut self) {
        self.session.updated = Some(clock::now());
        // Receiving must not depend on a file that only reports on it.
        let _ = self.state.report(FILE, self.session.print().as_bytes());
    }
}
