//! `status.json` in the sender's state directory: where the receiver is, for `repl-status` and for people. Replaced whole
//! at each heartbeat and at each change of the link.

use serde_json::{Value, json};

use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::rule::stream::back::Ack;
use crate::value::position::Position;

/// The sender's status file.
pub struct Status {
    state: Dir,
    fixed: Value,
    receiver: String,
    reconnects: u64,
    error: Option<String>,
}

impl Status {
    /// For a log directory and a receiver, as messages name them.
    pub fn new(state: Dir, log: &str, engine: &str, set: &str, receiver: &str) -> Status {
        let fixed = json!({"v": 1, "logdir": log, "engine": engine, "set": set, "pid": std::process::id()});
        Status { state, fixed, receiver: receiver.to_owned(), reconnects: 0, error: None }
    }

    /// The link failed.
    pub(super) fn lost(&mut self, error: &str) {
        self.reconnects += 1;
        self.error = Some(error.to_owned());
        self.write(None, None, None);
    }

    /// Where shipping is, the log's end, and what the receiver has said.
    pub(super) fn pulse(&mut self, at: Option<Position>, end: Option<Position>, ack: Option<Ack>) {
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
            "reconnects": self.reconnects,
            "error": self.error,
        }]);
        // Shipping must not depend on a file that only reports on it.
        let _ = self.state.replace("status.json", format!("{status:#}\n").as_bytes());
    }
}
