//! A directory in which log is received, by what lies in its `.repl`.

use anyhow::Result;

use super::sender::{gaps, is_running};
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::engine::archive::base;
use crate::engine::role::pause::{self, Direction};
use crate::engine::site::{self, horizon};
use crate::rule::status::receiver::{Base, FILE, Receiver, Session};
use crate::rule::status::sender::Paused;
use crate::rule::status::{Part, What};
use crate::value::escape::show_bytes;
use crate::value::exit::{Code, code_of};
use crate::value::time::Time;

/// Longest status file that is read.
const MOST: u64 = 1 << 16;
/// Where tails are that were set aside.
const ASIDE: &str = "set-aside";
/// How many of those are told of by name.
const ASIDE_MOST: usize = 100;
/// The name of a receiver's process.
const COMMAND: &str = "repl-apply";

/// What is held, and what was heard.
pub(super) fn read(dir: Option<&Dir>, state: &Dir) -> Result<Part> {
    // First, so that it never says more than what is read after it.
    let session = session(state);
    let mut found = Receiver {
        dir: dir.map(|dir| dir.path().to_string_lossy().into_owned()).unwrap_or_default(),
        state_dir: state.path().to_string_lossy().into_owned(),
        epoch: site::epoch(state)?,
        applied: site::applied(state)?,
        astray: site::astray(state)?,
        ..Receiver::default()
    };
    if let Some(origin) = site::origin(state)? {
        found.engine = origin.scheme.engine().to_string();
        found.begins = Some(origin.start).max(horizon::read(state)?.map(|segment| segment.at(0)));
        found.set = origin.set;
    }
    if let Some(holding) = site::holding(state)? {
        found.held = Some(holding.held.position);
        found.boundary = holding.boundary.map(|(at, _)| at);
        found.boundary_time = holding.boundary.and_then(|(_, time)| time);
    }
    (found.dropped, found.fault) = gaps(state);
    match session {
        Ok(session) => found.session = session,
        Err(why) => (found.fault, found.fault_code) = (Some(why), Some(Code::Corrupt as u8)),
    }
    for (direction, stopped) in [(Direction::Apply, &mut found.paused_apply), (Direction::Feed, &mut found.paused_feed)]
    {
        match paused(state, direction) {
            Ok(paused) => *stopped = paused,
            Err(error) => (found.fault, found.fault_code) = (Some(format!("{error:#}")), Some(code_of(&error) as u8)),
        }
    }
    found.running = found.session.as_ref().and_then(|session| session.pid).map(|pid| is_running(pid, COMMAND));
    found.aside = aside(state)?;
    match dir.map(base::list).transpose() {
        Ok(bases) => found.bases = bases.unwrap_or_default().into_iter().map(told).collect(),
        Err(error) => (found.fault, found.fault_code) = (Some(format!("{error:#}")), Some(code_of(&error) as u8)),
    }
    Ok(Part::new(clock::now(), What::Receiver(Box::new(found))))
}

fn paused(state: &Dir, direction: Direction) -> Result<Option<Paused>> {
    let told = |paused: pause::Paused| Paused { since: Time::parse(&paused.since), reason: Some(paused.reason) };
    Ok(pause::read(state, direction)?.map(told))
}

/// What a `repl-apply` has said, or why that cannot be read. Older ones have said nothing.
fn session(state: &Dir) -> Result<Option<Session>, String> {
    let bytes = state.read_small(FILE, MOST).map_err(|error| format!("{error:#}"))?;
    // A power cut may have left nothing of it.
    let parsed = bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| Session::parse(&bytes)).transpose();
    parsed.map_err(|why| format!("{} is damaged: {why}", state.shown(FILE)))
}

/// The names of tails that were set aside, oldest first.
fn aside(state: &Dir) -> Result<Vec<String>> {
    if state.identity(ASIDE)?.is_none() {
        return Ok(Vec::new());
    }
    let names = state.open_subdir(ASIDE)?.names()?;
    let mut names: Vec<_> = names.iter().map(|name| show_bytes(name.as_encoded_bytes())).collect();
    names.sort();
    names.truncate(ASIDE_MOST);
    Ok(names)
}

fn told(base: base::Base) -> Base {
    let base::Base { name, record } = base;
    Base { name, position: record.position, ended: Some(record.ended), bytes: record.bytes }
}
