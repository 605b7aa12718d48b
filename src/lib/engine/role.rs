//! What a site is in its set: master or receiver, of which epoch, which instance, and whether it stands still.
//!
//! A sender's words on that are in its state directory, and both epoch and instance are fences: a receiver takes no log of
//! an older epoch, nor of another instance in the same one. The directory of a replica that is shipped on speaks for its
//! master, not for itself.
//!
//! - `role`: what the site was told to be. Replaced whole; see [`record`].
//! - `instance`: a random number, bound to machine and log directory.
//! - `paused-ship` (and, in a receiver's `.repl`, `paused-apply` and `paused-feed`): see [`pause`].

pub mod database;
pub mod far;
pub mod init;
mod instance;
mod journal;
pub mod pause;
pub mod promote;
pub mod record;
pub mod show;
pub mod switchover;

use anyhow::Result;

use self::record::Role;
use super::{log, site};
use crate::edge::dir::Dir;
use crate::rule::instance::Instance;
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure};

/// Held while a role is changed.
const LOCK: &str = "role.lock";

/// A site's two directories, and what its log is of, where that is known.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Its log.
    pub dir: &'a Dir,
    /// What its sender keeps; `None` where nothing was ever kept.
    pub state: Option<&'a Dir>,
    /// Engine and pattern.
    pub scheme: Option<&'a Scheme>,
}

/// What a sender says of who it is.
#[derive(Clone, Debug)]
pub struct Sender {
    /// How many masters the set has had.
    pub epoch: u64,
    /// Which of them this is, where that can be told.
    pub instance: Option<Instance>,
}

/// Finds out who ships from a log directory, or refuses (5) one that was told to be a receiver. An instance that is new,
/// or has moved as it may, is recorded in the state directory.
pub fn sender(dir: &Dir, scheme: &Scheme, state: Option<&Dir>) -> Result<Sender> {
    let Some(state) = state else {
        return Ok(Sender { epoch: epoch_here(dir, scheme)?, instance: relayed(dir, scheme)? });
    };
    if let Some(record) = record::read(state)?.filter(|record| record.role == Role::Receiver) {
        let text = format!("this site is a receiver since epoch {}: another is the master, and ships", record.epoch);
        return Err(Failure::new(Code::Fenced, text).hint("repl-role where says who is the master").into());
    }
    let epoch = known_epoch(&Place { dir, state: Some(state), scheme: Some(scheme) })?;
    let instance = if is_relay(dir, scheme)? { relayed(dir, scheme)? } else { Some(instance::own(dir, state)?) };
    Ok(Sender { epoch, instance })
}

/// Whether a direction is paused, by the state directory that it is kept in.
pub fn paused(state: &Dir, direction: pause::Direction) -> Result<Option<pause::Paused>> {
    pause::read(state, direction)
}

/// The epoch of a site: what it was told, what its sender has kept, and what its log directory shows.
fn known_epoch(place: &Place<'_>) -> Result<u64> {
    let kept = place.state.map_or(Ok(0), site::epoch)?;
    let told = place.state.map(record::read).transpose()?.flatten();
    if let Some(told) = told.as_ref().filter(|told| told.role == Role::Master) {
        // Whoever told it knew of the promotion.
        return Ok(told.epoch.max(kept).max(seen(place.dir)?));
    }
    let here = place.scheme.map_or_else(|| seen(place.dir), |scheme| epoch_here(place.dir, scheme))?;
    Ok(here.max(kept).max(told.map_or(0, |told| told.epoch)))
}

/// The highest epoch that has come to a log directory.
fn seen(dir: &Dir) -> Result<u64> {
    site::peek(dir, None)?.map_or(Ok(0), |replica| site::epoch(&replica))
}

/// The same, with its own promotion: epochs count masters, and that is one more than those who have shipped here.
fn epoch_here(dir: &Dir, scheme: &Scheme) -> Result<u64> {
    let promoted = site::peek_receiver(dir)?.is_some() && !is_relay(dir, scheme)?;
    Ok(seen(dir)? + u64::from(promoted))
}

/// Whether a log directory is a replica's, and not that of a database that was promoted.
fn is_relay(dir: &Dir, scheme: &Scheme) -> Result<bool> {
    let Some(replica) = site::peek_receiver(dir)? else {
        return Ok(false);
    };
    let generation = site::holding(&replica)?.map_or(0, |holding| holding.held.position.segment.generation);
    Ok(log::promoted(dir, &replica, scheme, generation)?.is_none())
}

fn is_promoted(place: &Place<'_>) -> Result<bool> {
    let is_receiver = site::peek_receiver(place.dir)?.is_some();
    Ok(is_receiver && place.scheme.map_or(Ok(false), |scheme| is_relay(place.dir, scheme).map(|is_relay| !is_relay))?)
}

/// The instance for which a replica speaks: the one that ships to it, in the newest epoch that it has seen.
fn relayed(dir: &Dir, scheme: &Scheme) -> Result<Option<Instance>> {
    if !is_relay(dir, scheme)? {
        return Ok(None);
    }
    let Some(replica) = site::peek_receiver(dir)? else {
        return Ok(None);
    };
    let (seen, master) = (site::epoch(&replica)?, site::master::read(&replica)?);
    Ok(master.filter(|master| master.epoch >= seen).map(|master| master.instance))
}
