//! Deletes only what nobody needs: bases by number and age, and log that no kept base, no consumer, no receiver and no
//! running recovery needs. See repl-prune(1).
//!
//! It needs no trust: what is kept is decided by what lies here, durably. An [`archive`] is pruned by us; at a [`master`]
//! the engine removes its own log, where it has a way to.

pub mod archive;
pub mod consumers;
pub mod dropped;
pub mod full;
pub mod master;
pub mod plan;
mod standby;

use std::path::Path;

use anyhow::{Context as _, Result};

use self::consumers::Sender;
use super::ship::{earlier, status};
use super::site;
use crate::edge::dir::Dir;
use crate::edge::lock::Lock;
use crate::edge::read::prefix;
use crate::rule::retention::Keep;
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Bookmark, Position, Segment};

/// Held by whoever prunes, in the state directory.
const LOCK: &str = "prune.lock";

/// What can be told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which bases are kept.
    pub keep: Keep,
    /// The database that is fed here needs log from its last checkpoints on, and no base is needed for that.
    pub is_standby: bool,
    /// Receivers that `repl-ship` tells of count.
    pub with_receivers: bool,
    /// Nothing is changed.
    pub is_dry: bool,
    /// Kept in the history.
    pub reason: Option<String>,
}

/// Where consumers are kept.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In an archive's state.
    Archive(Option<&'a Path>),
    /// In a sender's state, of a master's log.
    Master(&'a Path),
}

/// Keeps durably what these consumers have, or forgets them. Nothing is pruned: the next one may have less.
pub fn set(
    dir: &Dir,
    scheme: &Scheme,
    place: Place<'_>,
    marks: &[(String, Option<Bookmark>)],
    reason: Option<&str>,
) -> Result<()> {
    let state = match place {
        Place::Archive(state) => site::peek(dir, state)?.context("the archive's state is gone")?,
        Place::Master(state) => Dir::create(state)?,
    };
    let _lock = Lock::take(&state, LOCK)?;
    for mark in marks.iter().filter_map(|(_, mark)| *mark) {
        match place {
            Place::Archive(state) => archive::check_place(dir, state, mark.position)?,
            Place::Master(_) => master::check_place(dir, scheme, mark.position)?,
        }
        check_proof(dir, scheme, mark)?;
    }
    for (name, mark) in marks {
        match mark {
            Some(mark) => consumers::set(&state, name, *mark)?,
            None if consumers::forget(&state, name)? => {}
            None => return fail(Code::Usage, format!("there is no consumer {name}")),
        }
        let mark = mark.map_or_else(|| "none".to_owned(), |mark| mark.to_string());
        site::record(&state, "consumer", &format!("{name}={mark}"), reason)?;
    }
    Ok(())
}

/// Lets go of receivers of earlier runs, in the states of these senders; those of the last run are not let go. `own` is
/// where that is recorded.
pub fn forget(own: &Dir, senders: &[Sender], receivers: &[String], reason: Option<&str>) -> Result<()> {
    let _lock = Lock::take(own, LOCK)?;
    for receiver in receivers {
        let mut was_there = false;
        for sender in senders.iter().filter(|sender| sender.is_told || sender.state.exists()) {
            let state = Dir::open(&sender.state)?;
            was_there |= earlier::forget(&state, receiver)?;
            if !was_there && status::told(&state)?.iter().any(|site| site.receiver == *receiver) {
                let text = format!("'{receiver}' is one of those that repl-ship ships to, or did when it ran last");
                let hint = "run repl-ship without it first; or count only consumers: --no-receivers";
                return Err(Failure::new(Code::Usage, text).hint(hint).into());
            }
        }
        if !was_there {
            return fail(Code::Usage, format!("there is no receiver '{receiver}' of an earlier run"));
        }
        site::record(own, "forget", receiver, reason)?;
    }
    Ok(())
}

/// A consumer can stand where log is, from its first segment to its end.
fn check_range(at: Position, first: Segment, end: Position) -> Result<()> {
    if at.segment < first {
        let failure = Failure::new(Code::Gap, format!("log at {at} is no longer here: it begins with {first}"));
        return Err(failure.hint("give this consumer a new base, and the position from which that needs log").into());
    }
    if at > end {
        return fail(Code::Usage, format!("{at} lies beyond the end of the log, {end}"));
    }
    Ok(())
}

/// A bookmark proves that it is of this log.
fn check_proof(dir: &Dir, scheme: &Scheme, mark: Bookmark) -> Result<()> {
    let Bookmark { position, proof: Some(proof) } = mark else {
        return Ok(());
    };
    let name = scheme.name(position.segment);
    let Some(file) = dir.open_read(&name)? else {
        return fail(Code::Gap, format!("{} is not here, so {mark} cannot be proven", dir.shown(&name)));
    };
    let running = prefix(&file, scheme.running(), position.offset)
        .with_context(|| format!("cannot read {}", dir.shown(&name)))?;
    if running.length() == position.offset && running.digest().proof() == proof {
        return Ok(());
    }
    let ours = running.digest().proof();
    fail(Code::Diverged, format!("diverged: up to {position} the proof is {proof}, of this log it is {ours}"))
}
