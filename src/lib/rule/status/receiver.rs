//! A directory in which log is received: what it holds, and `status.json` in its `.repl`, version 1, in which `repl-apply`
//! says what it has heard.

use serde::{Deserialize, Serialize};

use super::sender::{Dropped, Lag, Paused, Told};
use super::stamp;
use crate::value::position::Position;
use crate::value::time::Time;

/// The status file's name.
pub const FILE: &str = "status.json";

/// A receiving directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Receiver {
    /// The directory; empty when only its state was found.
    pub dir: String,
    /// Its state directory.
    pub state_dir: String,
    /// The set that is received, empty for no name.
    pub set: String,
    /// Its kind of database.
    pub engine: String,
    /// The newest master's number that was seen.
    pub epoch: u64,
    /// Up to where log is held, durably.
    #[serde(with = "stamp")]
    pub held: Option<Position>,
    /// The last end of a transaction in it.
    #[serde(with = "stamp")]
    pub boundary: Option<Position>,
    /// When that was.
    #[serde(with = "stamp")]
    pub boundary_time: Option<Time>,
    /// Up to where the database has it.
    #[serde(with = "stamp")]
    pub applied: Option<Position>,
    /// The database has log up to here that the master has not.
    #[serde(with = "stamp")]
    pub astray: Option<Position>,
    /// Where what is kept begins.
    #[serde(with = "stamp")]
    pub begins: Option<Position>,
    /// Landing was stopped on purpose.
    pub paused_apply: Option<Paused>,
    /// Feeding was stopped on purpose.
    pub paused_feed: Option<Paused>,
    /// What its site was told to be.
    pub told: Option<Told>,
    /// What `repl-apply` said last.
    pub session: Option<Session>,
    /// Whether that process is there; `None` when it is not known.
    pub running: Option<bool>,
    /// Tails that were set aside, by their names.
    pub aside: Vec<String>,
    /// Bases, oldest first.
    pub bases: Vec<Base>,
    /// Log that was given up though somebody needed it.
    pub dropped: Vec<Dropped>,
    /// Something here that could not be read.
    pub fault: Option<String>,
    /// The same as the number of an exit code.
    pub fault_code: Option<u8>,
}

/// A base of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Base {
    /// Its name.
    pub name: String,
    /// Log is needed from here on.
    #[serde(with = "stamp")]
    pub position: Option<Position>,
    /// When it was complete.
    #[serde(with = "stamp")]
    pub ended: Option<Time>,
    /// How many bytes it has.
    pub bytes: u64,
}

/// `status.json`: what a `repl-apply` has heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// Of this format.
    v: u64,
    /// This site's name.
    pub site: String,
    /// The set of the stream.
    pub set: String,
    /// Its kind of database.
    pub engine: String,
    /// The process that wrote this.
    pub pid: Option<i32>,
    /// When it started.
    #[serde(with = "stamp")]
    pub started: Option<Time>,
    /// When it wrote this.
    #[serde(with = "stamp")]
    pub updated: Option<Time>,
    /// When the master was last heard.
    #[serde(with = "stamp")]
    pub heard: Option<Time>,
    /// Where its log ended then.
    #[serde(with = "stamp")]
    pub master_end: Option<Position>,
    /// What its clock said then.
    #[serde(with = "stamp")]
    pub master_clock: Option<Time>,
    /// When that end was last seen to move.
    #[serde(with = "stamp")]
    pub grown: Option<Time>,
    /// Since when there is an end of the master's that is not held yet.
    #[serde(with = "stamp")]
    pub behind: Option<Time>,
    /// Up to where log has come.
    #[serde(with = "stamp")]
    pub received: Option<Position>,
    /// Up to where it is on the disk.
    #[serde(with = "stamp")]
    pub flushed: Option<Position>,
    /// Up to where the database has it.
    #[serde(with = "stamp")]
    pub applied: Option<Position>,
    /// The newest master's number.
    pub epoch: u64,
    /// Whether the stream is being received.
    pub connected: bool,
    /// Why it is not.
    pub error: Option<String>,
    /// The same as the number of an exit code.
    pub code: Option<u8>,
    /// Why the database's feed fails; `None` while it goes on, or when there is none.
    pub feed_error: Option<String>,
    /// Since when it does.
    #[serde(with = "stamp")]
    pub feed_failing: Option<Time>,
}

impl Session {
    /// One that begins now, and knows what the last one had heard.
    pub fn begin(last: Session, site: &str, pid: i32, now: Time) -> Session {
        let own = Session { v: 1, site: site.to_owned(), pid: Some(pid), started: Some(now), ..Session::default() };
        let Session { set, engine, heard, master_end, master_clock, grown, behind, epoch, .. } = last;
        // A feed fails until it is seen to go on: who starts again each minute must not make it younger.
        let Session { feed_error, feed_failing, .. } = last;
        Session { set, engine, heard, master_end, master_clock, grown, behind, epoch, feed_error, feed_failing, ..own }
    }

    /// The feed has failed now.
    pub fn starve(&mut self, why: String, now: Time) {
        self.feed_error = Some(why);
        self.feed_failing.get_or_insert(now);
    }

    /// The feed goes on; whether it had failed.
    pub fn feed(&mut self) -> bool {
        self.feed_failing = None;
        self.feed_error.take().is_some()
    }

    /// What is received, on the disk, and in the database.
    pub fn stand(&mut self, received: Option<Position>, flushed: Option<Position>, applied: Option<Position>) {
        (self.received, self.flushed, self.applied) = (received, flushed, applied);
    }

    /// The master's end, perhaps with its clock, as heard now.
    pub fn hear(&mut self, end: Position, clock: Option<Time>, now: Time) {
        if self.master_end != Some(end) {
            self.grown = Some(now);
        }
        // An end that was heard before and is held by now: what is lacking is younger.
        let has_last = self.flushed >= self.master_end;
        self.behind = match self.behind {
            _ if self.flushed >= Some(end) => None,
            Some(since) if !has_last => Some(since),
            _ => Some(now),
        };
        (self.heard, self.master_end, self.master_clock) = (Some(now), Some(end), clock.or(self.master_clock));
    }

    /// As the file has it.
    pub fn print(&self) -> String {
        // Nothing in it can fail to be written.
        serde_json::to_string_pretty(self).map(|text| text + "\n").unwrap_or_default()
    }

    /// Reads the file; the error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Session, String> {
        let session: Session = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if session.v == 1 { Ok(session) } else { Err("it is not of version 1".to_owned()) }
    }
}

impl Receiver {
    /// Whether it received before its site became the master, and no `repl-apply` is there any more.
    pub fn is_past(&self) -> bool {
        let is_gone = self.session.is_none() || self.running == Some(false);
        is_gone && self.told.as_ref().is_some_and(|told| told.role == "master")
    }

    /// What is lacking of the master's log, as far as it was heard of. A site that is the master by now lacks nothing of
    /// an older one's that could still come.
    pub fn lag(&self, now: Time) -> Lag {
        if self.is_past() {
            return Lag::default();
        }
        let Some((session, end)) = self.session.as_ref().and_then(|session| Some((session, session.master_end?)))
        else {
            return Lag::default();
        };
        let Some(held) = self.held else {
            return Lag::default();
        };
        if held >= end {
            return Lag { bytes: Some(0), segments: Some(0), seconds: Some(0.0) };
        }
        Lag { seconds: session.behind.map(|since| super::judge::age(since, now)), ..between(held, end) }
    }

    /// What is held and not in the database yet; `None` where none was ever fed.
    pub fn unfed(&self) -> Option<Lag> {
        let (applied, held) = self.applied.zip(self.held)?;
        let none = Lag { bytes: Some(0), segments: Some(0), seconds: None };
        Some(if applied >= held { none } else { between(applied, held) })
    }
}

/// From a position to a later one, as far as that can be said without the files.
fn between(from: Position, to: Position) -> Lag {
    let is_one_history = from.segment.generation == to.segment.generation;
    Lag {
        bytes: (from.segment == to.segment).then(|| to.offset - from.offset),
        segments: is_one_history.then(|| to.segment.sequence - from.segment.sequence),
        seconds: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Position {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_lacking_has_the_age_of_the_first_end_that_is_not_held() {
        let mut session = Session::begin(Session::default(), "venus", 7, Time(0));
        let second = Time::from_seconds;
        session.flushed = Some(at("1-1:10"));
        session.hear(at("1-1:10"), None, second(1));
        assert_eq!((session.behind, session.grown), (None, Some(second(1))));
        session.hear(at("1-1:20"), None, second(2));
        session.hear(at("1-1:30"), None, second(3));
        assert_eq!(session.behind, Some(second(2)));
        // Under load there is always something on its way: that is not the lag of a site that stands still.
        session.flushed = Some(at("1-1:30"));
        session.hear(at("1-1:40"), None, second(4));
        assert_eq!(session.behind, Some(second(4)));
        let held = Receiver { held: session.flushed, session: Some(session), ..Receiver::default() };
        let lag = Lag { bytes: Some(10), segments: Some(0), seconds: Some(6.0) };
        assert_eq!(held.lag(second(10)), lag);
        // The clock was set back.
        assert_eq!(held.lag(second(1)).seconds, Some(0.0));
    }

    #[test]
    fn a_session_is_read_back() {
        let mut session = Session::begin(Session::default(), "a\"\n", 7, Time(5));
        session.hear(at("1-2:3"), Some(Time(1)), Time(2));
        (session.error, session.code) = (Some("gap: …".into()), Some(3));
        assert_eq!(Session::parse(session.print().as_bytes()).as_ref(), Ok(&session));
        // The next one knows what was heard, and not how it ended.
        let next = Session::begin(session, "b", 8, Time(9));
        assert_eq!(
            (next.master_end, next.heard, next.error.as_ref(), next.pid),
            (Some(at("1-2:3")), Some(Time(2)), None, Some(8))
        );
        // A feed fails since it first did, over all who try it, until it goes on.
        let mut failing = next;
        failing.starve("one".into(), Time(3));
        let mut failing = Session::begin(failing, "b", 9, Time(9));
        failing.starve("two".into(), Time(10));
        assert_eq!((failing.feed_error.as_deref(), failing.feed_failing), (Some("two"), Some(Time(3))));
        assert!(failing.feed() && !failing.feed() && failing.feed_failing.is_none());
        for bad in ["", "{}", r#"{"v":1,"flushed":7}"#] {
            assert!(Session::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
