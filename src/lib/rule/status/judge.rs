//! What a state means: a word, how loud the alarm is, the exit code, and why.
//!
//! A quiet log that everyone has is *idle*, however long ago anything came. A sender or receiver that says nothing, though
//! it should at each heartbeat, is *stale*: whatever its file says of lag is then no longer true, so that comes first. Only
//! log that was given up is worse, since no news makes that good.

mod receiving;
mod sending;

pub use self::receiving::receiver;
pub use self::sending::{lag, sender, site};
use super::Silent;
use super::sender::{Dropped, Lag, Told};
use crate::value::escape::show;
use crate::value::exit::Code;
use crate::value::position::Position;
use crate::value::time::Time;
use crate::value::units::{tell_seconds, tell_size};

/// What is too old or too far behind; each is exceeded by more than it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Seconds of lag, or of silence, after which a warning is given.
    pub warn_age: f64,
    /// The same for an alarm.
    pub crit_age: f64,
    /// Bytes of lag after which a warning is given.
    pub warn_bytes: Option<u64>,
    /// The same for an alarm.
    pub crit_bytes: Option<u64>,
    /// Seconds in which a receiver must have heard of its master.
    pub stale: f64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { warn_age: 60.0, crit_age: 600.0, warn_bytes: None, crit_bytes: None, stale: 30.0 }
    }
}

/// What a sender, a site or a receiver is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The log is quiet, and all of it is there.
    Idle,
    /// What is written arrives.
    Current,
    /// It is behind by more than a limit.
    Lagging,
    /// The link is being set up.
    Connecting,
    /// The link is down, and is tried again.
    Retrying,
    /// It does not take this log.
    Refused,
    /// It was stopped on purpose.
    Paused,
    /// It has come to an orderly end.
    Ended,
    /// It ended by an error of its own, or feeding its database fails.
    Failed,
    /// There is no news though there should be.
    Stale,
    /// It lacks log that was given up.
    Dropped,
    /// Nothing is known.
    Unknown,
}

/// All of them, each with its word.
pub const STATES: [(State, &str); 12] = [
    (State::Idle, "idle"),
    (State::Current, "current"),
    (State::Lagging, "lagging"),
    (State::Connecting, "connecting"),
    (State::Retrying, "retrying"),
    (State::Refused, "refused"),
    (State::Paused, "paused"),
    (State::Ended, "ended"),
    (State::Failed, "failed"),
    (State::Stale, "stale"),
    (State::Dropped, "dropped"),
    (State::Unknown, "unknown"),
];

impl State {
    /// Its word.
    pub fn word(self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self).map_or("unknown", |(_, word)| word)
    }
}

/// How loud it is. An unknown state is worse than a warning, and hides no alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// All is well.
    Ok,
    /// Somebody should look.
    Warning,
    /// Nothing can be told.
    Unknown,
    /// Somebody must look.
    Critical,
}

impl Alarm {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Alarm::Ok => "ok",
            Alarm::Warning => "warning",
            Alarm::Unknown => "unknown",
            Alarm::Critical => "critical",
        }
    }
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What it is doing.
    pub state: State,
    /// How loud that is.
    pub alarm: Alarm,
    /// What to do next.
    pub code: Code,
    /// Why, in words that may be shown; empty when the state says it all.
    pub why: String,
}

impl Judged {
    fn new(state: State, alarm: Alarm, code: Code, why: impl Into<String>) -> Judged {
        Judged { state, alarm, code, why: why.into() }
    }

    fn well(state: State) -> Judged {
        Judged::new(state, Alarm::Ok, Code::Done, "")
    }

    /// Which of several decides the exit code: what a person must see to comes before what may mend itself.
    pub(super) fn rank(&self) -> (u8, Alarm) {
        let rank = match self.code {
            Code::Done => 0,
            Code::Unconfirmed => 1,
            Code::Link => 2,
            Code::Failed | Code::Usage | Code::Busy | Code::Hook | Code::Full | Code::Guarded => 3,
            Code::Dropped => 4,
            Code::Gap => 5,
            Code::Fenced => 6,
            Code::Diverged => 7,
            Code::Corrupt => 8,
        };
        (rank, self.alarm)
    }
}

/// Seconds from one time to a later one; none when a clock was set back in between.
pub fn age(since: Time, now: Time) -> f64 {
    now.0.saturating_sub(since.0).max(0) as f64 / 1e6
}

/// Seconds between two times, whichever is later: a file from the future was written before a clock was set back, and
/// whoever is alive has written another one by now.
fn distance(since: Time, now: Time) -> f64 {
    now.0.abs_diff(since.0) as f64 / 1e6
}

/// How loud a number of seconds is.
fn by_age(seconds: f64, limits: &Limits) -> Alarm {
    match seconds {
        _ if seconds > limits.crit_age => Alarm::Critical,
        _ if seconds > limits.warn_age => Alarm::Warning,
        _ => Alarm::Ok,
    }
}

fn by_bytes(bytes: u64, limits: &Limits) -> Alarm {
    let is_over = |limit: Option<u64>| limit.is_some_and(|limit| bytes > limit);
    match bytes {
        _ if is_over(limits.crit_bytes) => Alarm::Critical,
        _ if is_over(limits.warn_bytes) => Alarm::Warning,
        _ => Alarm::Ok,
    }
}

/// How loud it is to be behind, with words; silent where nothing is known.
fn by_lag(lag: Lag, limits: &Limits) -> (Alarm, String) {
    let alarm = lag.seconds.map(|seconds| by_age(seconds, limits)).max(lag.bytes.map(|bytes| by_bytes(bytes, limits)));
    let words = [lag.bytes.map(tell_size), lag.seconds.map(tell_seconds)];
    let words: Vec<_> = words.into_iter().flatten().collect();
    (alarm.unwrap_or(Alarm::Ok), format!("{} behind", words.join(" and ")))
}

/// An alarm of lag asks to wait for what is not confirmed; a warning asks nothing of a script.
fn waiting(alarm: Alarm) -> Code {
    if alarm == Alarm::Critical { Code::Unconfirmed } else { Code::Done }
}

/// The same of somebody silent: an alarm asks to try again.
fn trying(alarm: Alarm) -> Code {
    if alarm == Alarm::Critical { Code::Link } else { Code::Done }
}

fn dropped(dropped: &Dropped) -> Judged {
    let place = |at: Option<_>| at.map_or_else(|| "?".to_owned(), |at: Position| at.to_string());
    let who = show(&dropped.who.join(", "));
    let why =
        format!("log from {} to {} was given up, and {who} needs a new base", place(dropped.from), place(dropped.to));
    Judged::new(State::Dropped, Alarm::Critical, Code::Dropped, why)
}

/// Whether a log has not grown for a while. One that was never seen to grow is quiet.
fn is_quiet(grown: Option<Time>, updated: Option<Time>, patience: f64) -> bool {
    grown.zip(updated).is_none_or(|(grown, updated)| age(grown, updated) > patience)
}

/// One who came to an orderly end should come again some time: a job of each few minutes.
fn ended(updated: Option<Time>, now: Time, limits: &Limits) -> Judged {
    let seconds = updated.map_or(f64::INFINITY, |updated| distance(updated, now));
    let alarm = by_age(seconds, limits);
    Judged::new(State::Ended, alarm, trying(alarm), format!("ended {} ago", tell_seconds(seconds)))
}

/// What ended since its site was told to be something else is history, however old: nobody waits for it to come again.
fn past(told: Option<&Told>) -> Judged {
    let Told { role, epoch, .. } = told.cloned().unwrap_or_default();
    let article = if role == "master" { "the" } else { "a" };
    let why = format!("this site is {article} {} since epoch {epoch}", show(&role));
    Judged::new(State::Ended, Alarm::Ok, Code::Done, why)
}

/// One of which nothing could be told.
pub fn silent(silent: &Silent) -> Judged {
    Judged::new(State::Unknown, silent.alarm, silent.code, show(&silent.error))
}
