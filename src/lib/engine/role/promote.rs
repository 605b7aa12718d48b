//! A receiver becomes the master: at the end of a switchover, told by the master that was, or by an operator whose master
//! is lost.
//!
//! The fences come first. From then on nobody's log of an older epoch is landed here, nor any other's of the new one, so
//! what the database is made a master on cannot change behind it. Whoever is killed in between and runs again does the
//! rest: each step is one that can be done twice.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::database::Database;
use super::record::{Record, Role};
use super::{LOCK, Place, instance};
use crate::edge::dir::{Dir, shown};
use crate::edge::lock::Lock;
use crate::engine::site::{self, Holding};
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure, code_of, fail};
use crate::value::position::Bookmark;

/// How often a receiver is looked for that still lands log.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Order {
    /// Of which epoch the new master is.
    pub epoch: u64,
    /// What must be held; else whatever is.
    pub held: Option<Bookmark>,
    /// This site's name.
    pub site: String,
    /// How long a receiver that is at work is waited for.
    pub patience: Duration,
    /// Change nothing.
    pub is_dry: bool,
    /// Why.
    pub reason: Option<String>,
}

/// Makes the site the master; returns what was done, or would be. The place has a state directory unless it is a dry run.
pub fn run(place: &Place<'_>, database: &Database, order: &Order) -> Result<Vec<String>> {
    // One whose switchover was killed may still be at it.
    let lock = |state| once_free(order.patience, || Lock::take(state, LOCK));
    let _lock = place.state.filter(|_| !order.is_dry).map(lock).transpose()?;
    let told = super::told(place)?;
    // It has handed its role over, and nothing was received since.
    let was_master = told.as_ref().is_some_and(|told| told.role == Role::Receiver);
    let is_told = told.is_some_and(|told| told.role == Role::Master && told.epoch == order.epoch);
    let known = super::known_epoch(place)?;
    // One that is pinned here as this very database was brought here by us, and we were interrupted.
    if known > order.epoch || (known == order.epoch && !is_told && !super::is_pinned(place, order.epoch)?) {
        return fail(Code::Fenced, format!("epoch {known} is known here: {} is not a new one", order.epoch));
    }
    if is_told {
        give_up(place, order)?;
        return Ok(vec![format!("{} is the master of epoch {} already", order.site, order.epoch)]);
    }
    let Some(replica) = site::peek_receiver(place.dir)? else {
        if was_master {
            return take_back(place, database, order);
        }
        let text = format!("{} is not a receiver's directory", shown(place.dir.path()));
        return Err(Failure::new(Code::Fenced, text).hint("repl-role init --master makes a first master").into());
    };
    // Behind the fence an earlier run may have begun to change what is asked for here.
    if known < order.epoch {
        database.can_lead()?;
    }
    if order.is_dry {
        return Ok(vec![would_make(database, order)]);
    }
    let receivers = alone(place.dir, &replica, order.patience)?;
    let held = site::holding(&replica)?;
    check_held(held, order)?;
    let state = place.state.map_or_else(|| fail(Code::Usage, "no state directory"), Ok)?;
    fence(place.dir, &replica, state, order)?;
    database.lead(state, held.map(|held| held.held.position), &values(order, held))?;
    tell(state, order)?;
    drop(receivers);
    give_up(place, order)?;
    Ok(vec![format!("{} is the master, epoch {}", order.site, order.epoch)])
}

fn would_make(database: &Database, order: &Order) -> String {
    format!("would make {} the master of epoch {}", shown(&database.dir), order.epoch)
}

fn tell(state: &Dir, order: &Order) -> Result<()> {
    site::record(state, "become", &format!("the master of epoch {}", order.epoch), order.reason.as_deref())?;
    Record { role: Role::Master, site: order.site.clone(), epoch: order.epoch }.write(state)
}

/// A master whose switchover passed the point of no return, and whose heir was lost before it was told: its own log is
/// still the newest there is.
fn take_back(place: &Place<'_>, database: &Database, order: &Order) -> Result<Vec<String>> {
    let Some(state) = place.state.filter(|_| !order.is_dry) else {
        return Ok(vec![would_make(database, order)]);
    };
    database.lead_again(state, &values(order, None))?;
    tell(state, order)?;
    Ok(vec![format!("{} is the master again, epoch {}", order.site, order.epoch)])
}

/// What the directory held as a receiver is no word about its log any more. What a database that forks writes is of
/// another generation, and is known by that.
fn give_up(place: &Place<'_>, order: &Order) -> Result<()> {
    let forks = place.scheme.is_some_and(Scheme::forks);
    let Some(replica) = site::peek_receiver(place.dir)?.filter(|_| !forks && !order.is_dry) else {
        return Ok(());
    };
    let _receivers = alone(place.dir, &replica, order.patience)?;
    site::give_up(&replica)
}

/// Waits until no receiver is at work here, and keeps others out.
pub(super) fn alone(dir: &Dir, replica: &Dir, patience: Duration) -> Result<(Lock, Lock)> {
    once_free(patience, || Ok((Lock::take(replica, "lock")?, Lock::take_directory(dir)?)))
}

/// Takes what another may have, until that has taken too long.
fn once_free<T>(patience: Duration, take: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match take() {
            Err(error) if code_of(&error) == Code::Busy && Instant::now() < deadline => std::thread::sleep(LOOK),
            taken => return taken,
        }
    }
}

fn check_held(held: Option<Holding>, order: &Order) -> Result<()> {
    let (Some(wanted), held) = (order.held, held.map(|held| held.bookmark())) else {
        return Ok(());
    };
    if held == Some(wanted) {
        return Ok(());
    }
    let held = held.map_or_else(|| "nothing".to_owned(), |held| held.to_string());
    fail(Code::Diverged, format!("this site holds {held}, the master ends at {wanted}"))
}

/// The instance before the epoch, as a receiver pins them: a crash in between must not leave the new epoch to anybody.
fn fence(dir: &Dir, replica: &Dir, state: &Dir, order: &Order) -> Result<()> {
    let own = instance::own(dir, state)?;
    let (mut site, ..) = site::Site::open(replica.try_clone()?)?;
    site.set_master(&site::master::Master { instance: own, epoch: order.epoch }, order.reason.as_deref())?;
    site.set_epoch(order.epoch)
}

fn values(order: &Order, held: Option<Holding>) -> Vec<(&'static str, String)> {
    let held = held.map(|held| held.held.position.to_string()).unwrap_or_default();
    vec![
        ("REPL_EPOCH", order.epoch.to_string()),
        ("REPL_POSITION", held),
        ("REPL_REASON", order.reason.clone().unwrap_or_default()),
    ]
}

/// What a directory's log ends with, as a receiver of it would hold it.
pub(super) fn end(dir: &Dir, scheme: &Scheme) -> Result<Option<Holding>> {
    let found = crate::engine::log::last_byte(dir, scheme)?;
    Ok(found.map(|(position, digest)| Holding {
        held: crate::rule::verdict::Held { position, digest, closed: false },
        boundary: None,
    }))
}
