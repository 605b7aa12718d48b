//! A pause that outlives whoever made it: a file for each direction, with since when and why. Shipping is paused where the
//! sender keeps its state, applying and feeding where the receiver does.
//!
//! It is a word to those who run, not a lock: a running sender or receiver sees it when it looks next.

use std::fmt;

use anyhow::Result;

use crate::edge::clock;
use crate::edge::dir::{Dir, shown};
use crate::engine::site;
use crate::value::escape::word;
use crate::value::exit::{Code, Failure};
use crate::value::pairs;

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nothing leaves the sender.
    Ship,
    /// Nothing is landed at the receiver.
    Apply,
    /// Nothing is given to the receiver's database; log lands.
    Feed,
}

impl Direction {
    /// All of them.
    pub const ALL: [Direction; 3] = [Direction::Ship, Direction::Apply, Direction::Feed];

    /// Reads its name.
    pub fn parse(text: &str) -> Result<Direction, String> {
        let found = Direction::ALL.into_iter().find(|direction| direction.to_string() == text);
        found.ok_or_else(|| "expected ship, apply or feed".to_owned())
    }

    fn file(self) -> String {
        format!("paused-{self}")
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Direction::Ship => "ship",
            Direction::Apply => "apply",
            Direction::Feed => "feed",
        })
    }
}

/// Since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paused {
    /// RFC 3339.
    pub since: String,
    /// In the operator's words; may be empty.
    pub reason: String,
}

impl Paused {
    fn print(&self) -> String {
        format!("v=1 since={} reason={}\n", word(&self.since), word(&self.reason))
    }

    fn parse(text: &str) -> Option<Paused> {
        (pairs::get(text, "v")? == "1").then_some(())?;
        Some(Paused { since: pairs::get(text, "since")?, reason: pairs::get(text, "reason")? })
    }

    /// That a direction is paused, as an error with this code; the hint says how to go on in a log directory.
    pub fn refusal(&self, code: Code, direction: Direction, dir: &Dir) -> Failure {
        let reason = if self.reason.is_empty() { "without a reason" } else { &self.reason };
        Failure::new(code, format!("{direction} is paused since {}: {reason}", self.since))
            .hint(format!("repl-role resume {direction} --reason TEXT {}", shown(dir.path())))
    }
}

/// Whether a direction is paused, by the state directory that it is kept in.
pub fn read(state: &Dir, direction: Direction) -> Result<Option<Paused>> {
    let name = direction.file();
    let Some(bytes) = state.read_small(&name, 1 << 14)? else {
        return Ok(None);
    };
    let parsed = std::str::from_utf8(&bytes).ok().and_then(Paused::parse);
    parsed.map(Some).ok_or_else(|| {
        let text = format!("{direction} is paused, and {} is damaged", state.shown(&name));
        Failure::new(Code::Corrupt, text).into()
    })
}

/// Pauses a direction; what it is paused by already is returned, and stays.
pub fn pause(state: &Dir, direction: Direction, reason: Option<&str>) -> Result<Option<Paused>> {
    if let Some(paused) = read(state, direction)? {
        return Ok(Some(paused));
    }
    let paused = Paused { since: clock::now().to_string(), reason: reason.unwrap_or_default().to_owned() };
    state.replace(&direction.file(), paused.print().as_bytes())?;
    site::record(state, "pause", &direction.to_string(), reason)?;
    Ok(None)
}

/// Goes on with a direction; returns what it was paused by.
pub fn resume(state: &Dir, direction: Direction, reason: Option<&str>) -> Result<Option<Paused>> {
    let name = direction.file();
    if state.identity(&name)?.is_none() {
        return Ok(None);
    }
    // Also where it is damaged: this is how to be rid of it.
    let was = read(state, direction).ok().flatten();
    site::record(state, "resume", &direction.to_string(), reason)?;
    state.remove(&name)?;
    state.sync()?;
    Ok(Some(was.unwrap_or(Paused { since: "nobody knows when".into(), reason: String::new() })))
}
