//! `status.json` of a sender, version 1, as `repl-ship` keeps it in its state directory. Keys that are not known are
//! passed over, and older releases wrote fewer: whatever is not there is not known.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stamp;
use crate::value::position::Position;
use crate::value::time::Time;

/// Seconds between two words of a sender that does not say how many.
const HEARTBEAT: f64 = 10.0;
/// More than a day is no heartbeat: nothing can say that it is never to be taken for dead.
const HEARTBEAT_MOST: f64 = 86_400.0;
/// How many of those may pass in silence.
const PATIENCE: f64 = 3.0;

/// A sender.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sender {
    /// Where this was read.
    pub state_dir: String,
    /// The log directory that is shipped.
    pub logdir: String,
    /// Its kind of database.
    pub engine: String,
    /// The set's name, empty for none.
    pub set: String,
    /// The sender's own name in the set.
    pub site: String,
    /// Which master of the set this is.
    pub epoch: Option<u64>,
    /// The process that wrote this.
    pub pid: Option<i32>,
    /// Whether that process is there; `None` when it is not known.
    pub running: Option<bool>,
    /// When it started.
    #[serde(with = "stamp")]
    pub started: Option<Time>,
    /// When it wrote this.
    #[serde(with = "stamp")]
    pub updated: Option<Time>,
    /// Seconds between two of its signs of life.
    pub heartbeat: Option<f64>,
    /// The end of the log.
    #[serde(with = "stamp")]
    pub end: Option<Position>,
    /// When that end was last seen to move.
    #[serde(with = "stamp")]
    pub grown: Option<Time>,
    /// What counts as durable.
    pub policy: Option<String>,
    /// For how many seconds that is waited for.
    pub ack_timeout: Option<f64>,
    /// Boundaries that met the policy in time.
    pub confirmed: Option<u64>,
    /// Boundaries that did not.
    pub unconfirmed: Option<u64>,
    /// Up to where the policy is met.
    #[serde(with = "stamp")]
    pub confirmed_to: Option<Position>,
    /// Shipping was stopped on purpose.
    pub paused: Option<Paused>,
    /// What its site was told to be.
    pub told: Option<Told>,
    /// Its receivers.
    pub sites: Vec<Site>,
    /// Log that was given up though somebody needed it, and that nothing has made good for yet.
    pub dropped: Vec<Dropped>,
    /// Something beside the status that could not be read.
    pub fault: Option<String>,
}

/// See [`Sender::paused`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Paused {
    /// Since when.
    #[serde(with = "stamp")]
    pub since: Option<Time>,
    /// Why.
    pub reason: Option<String>,
}

/// What a site was told to be, by `repl-role`. Older releases do not tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// `master` or `receiver`.
    pub role: String,
    /// Its own name.
    pub site: String,
    /// Since which epoch.
    pub epoch: u64,
}

/// A gap that somebody has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// From where on log was needed.
    #[serde(with = "stamp")]
    pub from: Option<Position>,
    /// From where on it is there.
    #[serde(with = "stamp")]
    pub to: Option<Position>,
    /// Who needed it.
    pub who: Vec<String>,
}

/// A receiver, as its sender sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Site {
    /// Its name; older releases had none.
    pub name: String,
    /// How it is reached.
    pub receiver: String,
    /// What its link does: `connecting`, `connected`, `retrying`, `refused`, `done`.
    #[serde(rename = "state")]
    pub link: Option<String>,
    /// Whether it counts for what is durable.
    pub acks: Option<bool>,
    /// How much it counts for.
    pub votes: Option<u32>,
    /// Whether it may become the master, and how soon.
    pub priority: Option<u32>,
    /// Up to where log was sent.
    #[serde(with = "stamp")]
    pub sent: Option<Position>,
    /// Up to where it has got log.
    #[serde(with = "stamp")]
    pub received: Option<Position>,
    /// Up to where that is on its disk, as it says.
    #[serde(with = "stamp")]
    pub flushed: Option<Position>,
    /// Up to where its database has it.
    #[serde(with = "stamp")]
    pub applied: Option<Position>,
    /// Up to where it is known to have this very log on its disk.
    #[serde(with = "stamp")]
    pub proven: Option<Position>,
    /// What it lacks.
    pub lag: Lag,
    /// When it last acknowledged.
    #[serde(with = "stamp")]
    pub last_ack: Option<Time>,
    /// Since when the link is up.
    #[serde(with = "stamp")]
    pub connected: Option<Time>,
    /// How often the link was lost.
    pub reconnects: u64,
    /// Why it is not up.
    pub error: Option<String>,
    /// The same as the number of an exit code.
    pub code: Option<u8>,
}

/// What a site lacks; `None` where that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lag {
    /// In bytes of log.
    pub bytes: Option<u64>,
    /// In segments.
    pub segments: Option<u64>,
    /// In seconds: the age of the oldest byte that it lacks.
    pub seconds: Option<f64>,
}

impl Sender {
    /// Reads a status file; the error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Sender, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match value["v"].as_u64() {
            Some(1) => Sender::from_value(value),
            _ => Err("it is not of version 1".to_owned()),
        }
    }

    /// The same of what was parsed already. Numbers that cannot be are none.
    pub fn from_value(value: Value) -> Result<Sender, String> {
        let mut sender: Sender = serde_json::from_value(value).map_err(|error| error.to_string())?;
        sender.heartbeat = sender.heartbeat.filter(|seconds| *seconds > 0.0 && *seconds <= HEARTBEAT_MOST);
        for site in &mut sender.sites {
            site.lag.seconds = site.lag.seconds.map(|seconds| seconds.clamp(0.0, 1e12));
            let has_all = site.proven.is_some() && site.proven >= sender.end;
            // Older releases leave it to the reader.
            if site.lag == Lag::default() && has_all {
                site.lag = Lag { bytes: Some(0), segments: Some(0), seconds: Some(0.0) };
            }
        }
        Ok(sender)
    }

    /// Seconds without a word after which it is taken for dead.
    pub fn patience(&self) -> f64 {
        self.heartbeat.unwrap_or(HEARTBEAT) * PATIENCE
    }

    /// Whether each of its links is over: by an orderly end, or by a verdict, which that site tells of.
    pub fn has_ended(&self) -> bool {
        !self.sites.is_empty() && self.sites.iter().all(|site| matches!(site.link(), Link::Done | Link::Refused))
    }

    /// Whether it shipped before another became the master, and is gone.
    pub fn is_past(&self) -> bool {
        self.running == Some(false) && self.told.as_ref().is_some_and(|told| told.role == "receiver")
    }
}

/// What a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is being set up.
    Connecting,
    /// It is up.
    Connected,
    /// It was lost, and is tried again.
    Retrying,
    /// The receiver does not take this log, and is not tried again.
    Refused,
    /// It has come to an orderly end.
    Done,
}

impl Site {
    /// What its link does. Older releases do not say it.
    pub fn link(&self) -> Link {
        match self.link.as_deref() {
            Some("connecting") => Link::Connecting,
            Some("connected") => Link::Connected,
            Some("retrying") => Link::Retrying,
            Some("refused") => Link::Refused,
            Some("done") => Link::Done,
            _ if self.error.is_some() => Link::Retrying,
            _ if self.received.is_some() => Link::Connected,
            _ => Link::Connecting,
        }
    }

    /// What it is called: its name, or else how it is reached.
    pub fn title(&self) -> &str {
        super::first(&self.name, &self.receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_release_wrote_is_read() {
        let text = r#"{"v": 1, "logdir": "/srv/db", "engine": "bdb", "set": "", "pid": 7, "end": "1-2:40",
            "updated": "2026-11-23T04:10:00.000001Z", "sites": [{"receiver": "ssh a", "sent": "1-2:40", "received": "1-2:40",
            "flushed": "1-2:40", "applied": null, "proven": "1-2:40", "reconnects": 0, "error": null, "future": [1]}]}"#;
        let sender = Sender::parse(text.as_bytes()).unwrap();
        let site = &sender.sites[0];
        assert_eq!((site.title(), site.link(), site.lag.bytes), ("ssh a", Link::Connected, Some(0)));
        assert!((sender.patience() - 30.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_status_is_said_to_be_none() {
        let bad = [
            "",
            "{",
            "[]",
            "null",
            "{}",
            r#"{"v":2}"#,
            r#"{"v":1,"end":"1-"}"#,
            r#"{"v":1,"updated":"yesterday"}"#,
            r#"{"v":1,"sites":[7]}"#,
            r#"{"v":1,"sites":[{"lag":{"bytes":-1}}]}"#,
        ];
        for bad in bad {
            assert!(Sender::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(Sender::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn no_lag_is_negative_or_endless() {
        let text = r#"{"v":1,"heartbeat":-5,"sites":[{"lag":{"seconds":-3.5}},{"lag":{"seconds":1e300}}]}"#;
        let sender = Sender::parse(text.as_bytes()).unwrap();
        let seconds: Vec<_> = sender.sites.iter().map(|site| site.lag.seconds).collect();
        assert_eq!((seconds, sender.heartbeat), (vec![Some(0.0), Some(1e12)], None));
    }
}
