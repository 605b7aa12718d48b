//! `status.json` in the sender's state directory: where the receiver is, for `repl-status` and for people. Replaced whole
//! at each heartbeat and at each change of the link.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::rule::stream::back::Ack;
use crate::value::position::Position;

/// Its name.
const FILE: &str = "status.json";
/// Longest that is read.
const MOST: u64 = 1 << 20;

/// How much of this very log a receiver has on its disk. Before its place was found here by a digest, what it says may be
/// of another history, and so may be what it has beyond the place where we are: nothing.
pub(super) fn proven(at: Option<Position>, ack: Option<Ack>) -> Option<Position> {
    ack?.flushed.filter(|flushed| at.is_some_and(|at| *flushed <= at))
}

/// A receiver, as a sender's status file tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// What it is called.
    pub receiver: String,
    /// The log directory that is shipped to it.
    pub log: String,
    /// How much of that log is known to be on its disk.
    pub proven: Option<Position>,
}

/// The receivers that a sender's status tells of; none when there is no status.
pub fn read(state: &Dir) -> Result<Vec<Site>> {
    let Some(bytes) = state.read_small(FILE, MOST)? else {
        return Ok(Vec::new());
    };
    let status: Value = serde_json::from_slice(&bytes).with_context(|| format!("cannot read {}", state.shown(FILE)))?;
    let log = status["logdir"].as_str().unwrap_or_default();
    let site = |site: &Value| Site {
        receiver: site["receiver"].as_str().unwrap_or_default().to_owned(),
        log: log.to_owned(),
        proven: site["proven"].as_str().and_then(|at| at.parse().ok()),
    };
    Ok(status["sites"].as_array().map(|sites| sites.iter().map(site).collect()).unwrap_or_default())
}

/// The sender's status file.
pub struct Status {
    state: Dir,
    fixed: Value,
    receiver: String,
    reconnects: u64,
    error: Option<String>,
    proven: Option<Position>,
}

impl Status {
    /// For a log directory and a receiver, as messages name them.
    pub fn new(state: Dir, log: &str, engine: &str, set: &str, receiver: &str) -> Status {
        let fixed = json!({"v": 1, "logdir": log, "engine": engine, "set": set, "pid": std::process::id()});
        // What an earlier process has proven of the same receiver stays true while this one has not come so far.
        let known = read(&state).unwrap_or_default();
        let is_same = |site: &Site| site.receiver == receiver && site.log == log;
        let proven = known.into_iter().find(is_same).and_then(|site| site.proven);
        Status { state, fixed, receiver: receiver.to_owned(), reconnects: 0, error: None, proven }
    }

    /// The link failed.
    pub(super) fn lost(&mut self, error: &str) {
        self.reconnects += 1;
        self.error = Some(error.to_owned());
        self.write(None, None, None);
    }

    /// Where shipping is, the log's end, and what the receiver has said.
    pub(super) fn pulse(&mut self, at: Option<Position>, end: Option<Position>, ack: Option<Ack>) {
        if at.is_some() {
            self.proven = proven(at, ack);
        }
        if ack.is_some_and(|ack| ack.received.is_some()) {
            self.error = None;
        }
        self.write(at, end, ack);
    }

    fn write(&self, at: Option<Position>, end: Option<Position>, ack: Option<Ack>) {
        let text = |position: Option<Position>| position.map(|position| position.to_string());
        let ack = ack.unwrap_or_default();
        let mut status = self.fixed.clone();
        status["updated"] = clock::now().to_string().into();
        status["end"] = text(end).into();
        status["sites"] = json!([{
            "receiver": self.receiver,
            "sent": text(at),
            "received": text(ack.received),
            "flushed": text(ack.flushed),
            "applied": text(ack.applied),
            "proven": text(self.proven),
            "reconnects": self.reconnects,
            "error": self.error,
        }]);
        // Shipping must not depend on a file that only reports on it.
        let _ = self.state.replace(FILE, format!("{status:#}\n").as_bytes());
    }
}
