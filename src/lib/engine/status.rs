//! Finds what `repl-status` tells: senders' state directories, receiving directories, and what other machines answer.
//!
//! All of it is only read, without a lock, beside whoever writes it. What cannot be read is a part of the report as well,
//! with its error: one damaged file must not hide the rest.

mod receiver;
mod remote;
mod role;
mod sender;

use std::fs::DirEntry;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use self::remote::{Remote, parse_remote};
use super::site;
use crate::edge::clock;
use crate::edge::dir::{Dir, shown};
use crate::edge::journal;
use crate::rule::status::judge::{Alarm, Limits};
use crate::rule::status::past::{Event, Sample};
use crate::rule::status::{Part, Report, Silent, What};
use crate::value::exit::{Code, Failure, code_of, hint_of};
use crate::value::time::Time;

/// How far behind sites were, a line for each minute, in a sender's state directory.
const LAG: &str = "lag.jsonl";
/// Bytes of it that are read: more than a sender keeps.
const LAG_MOST: u64 = 16 << 20;
/// Bytes of a history that are read.
const HISTORY_MOST: u64 = 256 << 10;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// State directories, of senders or of receivers.
    pub states: Vec<PathBuf>,
    /// The same of a configuration: a site that receives has one for the day on which it ships, and nothing there before.
    pub planned: Vec<PathBuf>,
    /// Log directories; or state directories.
    pub dirs: Vec<Place>,
    /// Where senders keep their states by default, when those are asked for.
    pub home: Option<Home>,
    /// Other machines.
    pub remotes: Vec<Remote>,
    /// How long each of those may take.
    pub ask_timeout: Duration,
    /// What is too old or too far behind.
    pub limits: Limits,
    /// How much of the past is wanted; `None` for nothing of it.
    pub past: Option<Duration>,
}

/// Where senders keep their states by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// All of them, a directory each in this one.
    All(PathBuf),
    /// The one of a set.
    One(PathBuf),
}

/// A directory that was named.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its path.
    pub path: PathBuf,
    /// Where a sender of it keeps its state by default.
    pub sender: Option<PathBuf>,
}

/// Looks at everything.
pub fn look(options: &Options) -> Report {
    // They take their time while we look here.
    let mut parts = Vec::new();
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| remote::ask(&options.remotes, options.ask_timeout));
        for path in &options.states {
            parts.push(of_state(path).unwrap_or_else(|error| silent(path, &error)));
        }
        let own: Vec<_> = options.states.iter().chain(&options.planned).cloned().collect();
        let of_dir = |place| of_dir(place, &own).unwrap_or_else(|error| vec![silent(&place.path, &error)]);
        let here: Vec<Part> = options.dirs.iter().flat_map(of_dir).collect();
        let receives = here.iter().any(|part| matches!(part.what, What::Receiver(_)));
        for path in options.planned.iter().filter(|path| !(receives && is_unused(path))) {
            parts.push(of_state(path).unwrap_or_else(|error| silent(path, &error)));
        }
        parts.extend(here);
        parts.extend(options.home.iter().flat_map(of_home));
        asked.join().unwrap_or_default()
    });
    if let Some(past) = options.past {
        for part in &mut parts {
            remember(part, past);
        }
    }
    parts.extend(asked);
    parts.iter_mut().for_each(Part::mask);
    Report { time: clock::now(), limits: options.limits, parts }
}

/// A part for what could not be read.
fn silent(path: &Path, error: &anyhow::Error) -> Part {
    let code = code_of(error);
    let alarm = if matches!(code, Code::Failed | Code::Link) { Alarm::Unknown } else { Alarm::Critical };
    let hint = hint_of(error).map(|hint| format!(" ({hint})")).unwrap_or_default();
    Part::new(clock::now(), What::Silent(Silent { name: shown(path), error: format!("{error:#}{hint}"), code, alarm }))
}

/// A state directory says by itself whose it is: only receivers pin what they take.
fn of_state(path: &Path) -> Result<Part> {
    let state = Dir::open(path)?;
    if is_receivers(&state)? {
        return receiver::read(None, &state);
    }
    match sender::read(&state)? {
        Some(part) => Ok(part),
        None => Err(absent(path)),
    }
}

/// Whether no sender has ever begun to keep its state there.
fn is_unused(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path.join(sender::FILE));
    found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// What senders keep where they do by default.
fn of_home(home: &Home) -> Vec<Part> {
    let (path, found) = match home {
        Home::All(path) => (path, senders_in(path)),
        Home::One(path) => (path, Ok(Some(path.clone()).filter(|path| may_be_sender(path)).into_iter().collect())),
    };
    match found {
        Ok(found) if found.is_empty() => vec![silent(path, &absent(path))],
        Ok(found) => found.iter().map(|path| of_state(path).unwrap_or_else(|error| silent(path, &error))).collect(),
        Err(error) => vec![silent(path, &error)],
    }
}

fn is_receivers(state: &Dir) -> Result<bool> {
    Ok(state.identity(site::ORIGIN)?.is_some() || state.identity(site::POSITION)?.is_some())
}

fn absent(path: &Path) -> anyhow::Error {
    let text = format!("no repl-ship has left word in {}", shown(path));
    Failure::new(Code::Link, text).hint("is it running? name its state directory with --state").into()
}

/// A directory may be received in, shipped from, both (a cascade), or be a state directory itself.
fn of_dir(place: &Place, states: &[PathBuf]) -> Result<Vec<Part>> {
    let dir = Dir::open(&place.path)?;
    let mut parts = Vec::new();
    if let Some(state) = site::peek(&dir, None)?
        && is_receivers(&state)?
    {
        let mut part = receiver::read(Some(&dir), &state)?;
        role::tell(&mut part, &dir, states, place.sender.as_deref());
        parts.push(part);
    } else if is_receivers(&dir)? || dir.identity(sender::FILE)?.is_some() {
        return Ok(vec![of_state(&place.path)?]);
    }
    let senders = senders_of(place);
    for path in senders.as_ref().into_iter().flatten() {
        parts.push(of_state(path).unwrap_or_else(|error| silent(path, &error)));
    }
    if parts.is_empty() {
        // One who receives need not ship; of one who does neither it matters why nothing is known.
        senders?;
        return Err(absent(place.sender.as_ref().unwrap_or(&place.path)));
    }
    Ok(parts)
}

/// The state directories of senders that ship from a directory: where it is by default, and wherever beside that one says
/// so, since a sender that was told a set's name keeps its state under that.
fn senders_of(place: &Place) -> Result<Vec<PathBuf>> {
    let Some(default) = &place.sender else {
        return Ok(Vec::new());
    };
    let own = std::fs::canonicalize(&place.path).ok();
    // One of before, which does not say it in full, is taken by its place.
    let is_of_it = |path: &PathBuf| match sender::log_of(path) {
        Some(log) => own.as_ref() == Some(&log),
        None => path == default,
    };
    let beside = default.parent().map(senders_in).transpose()?.unwrap_or_default();
    Ok(beside.into_iter().filter(is_of_it).collect())
}

/// The directories in another one in which a sender has left word, or of which nobody can tell, in order.
fn senders_in(home: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(home) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<Result<Vec<_>, _>>),
    };
    let entries = entries.with_context(|| format!("cannot list {}", shown(home)))?;
    let mut found: Vec<_> = entries.iter().map(DirEntry::path).filter(|path| may_be_sender(path)).collect();
    found.sort();
    Ok(found)
}

/// Whether a sender has left word in a directory, or may have: of one that cannot be looked into nobody knows, and to say
/// nothing of it would be to say that all is well.
fn may_be_sender(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path.join(sender::FILE));
    match found.map_err(|error| error.kind()) {
        Err(ErrorKind::NotFound) => path.is_symlink() && !path.exists(),
        Err(ErrorKind::NotADirectory) => false,
        _ => true,
    }
}

/// Adds what was done and how far sites were behind. A past that cannot be read is left out: it only adds to the report.
fn remember(part: &mut Part, past: Duration) {
    let path = match &part.what {
        What::Sender(sender) => &sender.state_dir,
        What::Receiver(receiver) => &receiver.state_dir,
        What::Silent(_) => return,
    };
    let Ok(state) = Dir::open(Path::new(path)) else {
        return;
    };
    let since = Time(part.time.0.saturating_sub(i64::try_from(past.as_micros()).unwrap_or(i64::MAX)));
    let lines = |name, most| journal::tail(&state, name, most).unwrap_or_default();
    part.events = lines(site::HISTORY, HISTORY_MOST).iter().filter_map(|line| Event::parse(line)).collect();
    let samples = lines(LAG, LAG_MOST);
    part.samples =
        samples.iter().filter_map(|line| Sample::parse(line)).filter(|sample| sample.time >= since).collect();
}
