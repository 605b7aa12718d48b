//! How a master keeps log that others need, and gives up what they need no more: by the engine's own way, where it has
//! one. In PostgreSQL's own `pg_wal` nothing is ever removed by us.

use std::collections::BTreeSet;

use anyhow::Result;

use super::bdb::Environment;
use super::log;
use super::mariadb::Server;
use super::postgres::Slot;
use crate::edge::dir::Dir;
use crate::rule::scheme::Scheme;
use crate::value::position::{Position, Segment};

/// How log is kept, and given up, at the master.
#[derive(Clone, Debug)]
pub enum Release {
    /// A replication slot that is moved on.
    Slot(Slot),
    /// A MariaDB server that is told to purge.
    Purge(Server),
    /// A Berkeley DB environment: segments that it needs no more are removed.
    Archive(Environment),
    /// A directory of which nobody but us removes anything: closed segments are removed.
    Files,
}

impl Release {
    /// Makes sure that log is kept from here on.
    pub(in crate::engine) fn prepare(&self) -> Result<()> {
        match self {
            Release::Slot(slot) => slot.prepare(),
            Release::Purge(_) | Release::Archive(_) | Release::Files => Ok(()),
        }
    }

    /// Whether more can be given up than when `done` was flushed: a place in a segment, or whole segments.
    pub(in crate::engine) fn is_due(&self, done: Option<Position>, flushed: Position) -> bool {
        match self {
            Release::Slot(_) => Some(flushed) > done,
            Release::Purge(_) | Release::Archive(_) | Release::Files => {
                done.is_none_or(|done| flushed.segment > done.segment)
            }
        }
    }

    /// Gives up what lies before this: nobody needs it any more.
    pub(in crate::engine) fn up_to(&self, dir: &Dir, scheme: &Scheme, flushed: Position) -> Result<()> {
        match self {
            Release::Slot(slot) => match in_newest(dir, scheme, flushed)? {
                Some(flushed) => slot.advance(scheme, flushed),
                None => Ok(()),
            },
            Release::Purge(server) => server.purge(dir, scheme, flushed.segment),
            Release::Archive(environment) => environment.remove(dir, scheme, flushed.segment),
            Release::Files => remove(dir, scheme, flushed.segment),
        }
    }

    /// The segments that go when what lies before this one is given up, as far as that can be known: in PostgreSQL's
    /// log the server alone removes, and a MariaDB server may keep some for itself.
    pub(in crate::engine) fn candidates(
        &self,
        dir: &Dir,
        scheme: &Scheme,
        up_to: Segment,
    ) -> Result<BTreeSet<Segment>> {
        let mut segments: BTreeSet<Segment> = log::segments(dir, scheme, |_| false)?.into_keys().collect();
        // The last one is open.
        segments.pop_last();
        segments.retain(|segment| *segment < up_to);
        match self {
            Release::Slot(_) => Ok(BTreeSet::new()),
            Release::Purge(_) | Release::Files => Ok(segments),
            Release::Archive(environment) => {
                let unneeded = environment.unneeded(scheme, None)?;
                Ok(segments.into_iter().take_while(|segment| unneeded.contains(segment)).collect())
            }
        }
    }
}

/// A slot knows places and no timelines: who stands on one that was left has of this one what is before the fork.
fn in_newest(dir: &Dir, scheme: &Scheme, flushed: Position) -> Result<Option<Position>> {
    match log::segments(dir, scheme, |_| false)?.pop_last() {
        Some((newest, _)) => log::before_fork(dir, scheme, flushed, newest.generation),
        None => Ok(Some(flushed)),
    }
}

/// Removes segments before this one, oldest first, so that no crash leaves a hole. The last one is open, and stays.
fn remove(dir: &Dir, scheme: &Scheme, up_to: Segment) -> Result<()> {
    let segments = log::segments(dir, scheme, |_| true)?;
    let last = segments.last_key_value().map(|(segment, _)| *segment);
    let going = segments.into_iter().take_while(|(segment, _)| *segment < up_to && Some(*segment) < last);
    for (_, name) in going {
        dir.remove(&name)?;
    }
    dir.sync()
}
