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

use self::record::{Record, Role};
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
        let place = Place { dir, state: None, scheme: Some(scheme) };
        let instance = if is_relay(dir, scheme)? { relayed(dir, scheme)? } else { instance::by_place(dir)? };
        return Ok(Sender { epoch: epoch_here(&place)?, instance });
    };
    let place = Place { dir, state: Some(state), scheme: Some(scheme) };
    if let Some(record) = told(&place)?.filter(|record| record.role == Role::Receiver) {
        let text = format!("this site is a receiver since epoch {}: another is the master, and ships", record.epoch);
        return Err(Failure::new(Code::Fenced, text).hint("repl-role where says who is the master").into());
    }
    let epoch = known_epoch(&place)?;
    let instance = if is_relay(dir, scheme)? { relayed(dir, scheme)? } else { Some(instance::own(dir, state)?) };
    Ok(Sender { epoch, instance })
}

/// Whether a direction is paused, by the state directory that it is kept in.
pub fn paused(state: &Dir, direction: pause::Direction) -> Result<Option<pause::Paused>> {
    pause::read(state, direction)
}

/// What a site was told to be. A master that another has shipped to since, in a newer epoch, was replaced, by a `become`
/// that did not reach it: it is a receiver, whatever it was told.
pub(super) fn told(place: &Place<'_>) -> Result<Option<Record>> {
    let Some(record) = place.state.map(record::read).transpose()?.flatten() else {
        return Ok(None);
    };
    if record.role == Role::Receiver {
        return Ok(Some(record));
    }
    let seen = seen(place.dir)?;
    let (role, epoch) = if seen > record.epoch { (Role::Receiver, seen) } else { (Role::Master, record.epoch) };
    Ok(Some(Record { role, epoch, ..record }))
}

/// The same, if the state directory is that of this log directory's sender.
pub(super) fn told_of(dir: &Dir, state: &Dir) -> Result<Option<Record>> {
    match instance::peek(dir, state)? {
        Some(_) => told(&Place { dir, state: Some(state), scheme: None }),
        None => Ok(None),
    }
}

/// The epoch of a site: what it was told, what its sender has kept, and what its log directory shows.
fn known_epoch(place: &Place<'_>) -> Result<u64> {
    let kept = place.state.map_or(Ok(0), site::epoch)?;
    let told = told(place)?;
    if let Some(told) = told.as_ref().filter(|told| told.role == Role::Master) {
        // Whoever told it knew of the promotion.
        return Ok(told.epoch.max(kept));
    }
    Ok(epoch_here(place)?.max(kept).max(told.map_or(0, |told| told.epoch)))
}

/// The highest epoch that has come to a log directory.
fn seen(dir: &Dir) -> Result<u64> {
    site::peek(dir, None)?.map_or(Ok(0), |replica| site::epoch(&replica))
}

/// The same, with its own promotion: epochs count masters, and that is one more than those who have shipped here. But one
/// that `become` makes has pinned its epoch, and itself, before it promotes; the role is written only behind that, when
/// there is a master. A sender that starts in between must not count the same promotion twice: its receivers would take
/// the epoch that it made up, and refuse the right one for ever.
fn epoch_here(place: &Place<'_>) -> Result<u64> {
    let seen = seen(place.dir)?;
    let is_counted = !is_promoted(place)? || is_pinned(place, seen)?;
    Ok(if is_counted { seen } else { seen + 1 })
}

/// Whether the master of an epoch, as it is pinned in a log directory, is the database that is here.
fn is_pinned(place: &Place<'_>, epoch: u64) -> Result<bool> {
    let master = site::peek(place.dir, None)?.map(|replica| site::master::read(&replica)).transpose()?.flatten();
    let own = instance::known(place.dir, place.state)?;
    Ok(master.zip(own).is_some_and(|(master, own)| master.epoch == epoch && master.instance.is(&own)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::site::{Holding, Origin, Site};
    use crate::rule::scheme::{Engine, Kind};
    use crate::rule::verdict::Held;
    use crate::value::digest::Digest;

    /// The log directory of a standby that was promoted by `become`, to epoch 2, without a role as yet.
    fn promoted(root: &tempfile::TempDir) -> (Dir, Dir, Scheme) {
        let path = |name: &str| Dir::create(&root.path().join(name)).unwrap();
        let (dir, state) = (path("log"), path("state"));
        let replica = dir.subdir(site::STATE).unwrap();
        let scheme = Scheme::new(&Kind { engine: Engine::Postgres, pattern: None }, "7", 1 << 24).unwrap();
        let (mut kept, ..) = Site::open(replica).unwrap();
        let start = "1-1:0".parse().unwrap();
        kept.pin(&Origin { set: String::new(), scheme: scheme.clone(), start }).unwrap();
        let held = Held { position: "1-1:8".parse().unwrap(), digest: Digest::of(b"x"), closed: false };
        kept.hold(&Holding { held, boundary: None }).unwrap();
        kept.set_epoch(1).unwrap();
        std::fs::write(root.path().join("log/00000002.history"), "1\t0/1000000\tno recovery target\n").unwrap();
        (dir, state, scheme)
    }

    #[test]
    fn a_sender_that_starts_between_a_promotion_and_its_role_does_not_count_it_twice() {
        let root = tempfile::tempdir().unwrap();
        let (dir, state, scheme) = promoted(&root);
        let other = Dir::create(&root.path().join("other")).unwrap();
        let epochs = || [None, Some(&state), Some(&other)].map(|state| sender(&dir, &scheme, state).unwrap().epoch);
        // By hand: nobody has said of which epoch that is.
        assert_eq!(epochs(), [2; 3]);
        // As `become` pins it, before it promotes.
        let (mut kept, ..) = Site::open(dir.subdir(site::STATE).unwrap()).unwrap();
        let own = instance::own(&dir, &state).unwrap();
        kept.set_master(&site::master::Master { instance: own, epoch: 2 }, None).unwrap();
        kept.set_epoch(2).unwrap();
        assert_eq!(epochs()[1], 2);
        if crate::edge::host::machine().is_some() {
            assert_eq!(epochs(), [2; 3]);
        }
        // Another has shipped here since, and this is its heir.
        let other = Instance::parse(&format!("{}.{}", "a".repeat(32), "b".repeat(16))).unwrap();
        kept.set_master(&site::master::Master { instance: other, epoch: 2 }, Some("a test")).unwrap();
        assert_eq!(epochs(), [3; 3]);
    }

    #[test]
    fn a_sender_without_state_is_its_masters_instance_by_place_and_a_copys_is_not() {
        let root = tempfile::tempdir().unwrap();
        let [log, copy, state] = ["log", "copy", "state"].map(|name| Dir::create(&root.path().join(name)).unwrap());
        let scheme = Scheme::new(&Kind { engine: Engine::Bdb, pattern: None }, "", 0).unwrap();
        let says = |dir: &Dir, state: Option<&Dir>| sender(dir, &scheme, state).unwrap().instance;
        let own = says(&log, Some(&state)).unwrap();
        let is_own = |dir: &Dir| says(dir, None).map(|instance| instance.is(&own));
        let told = crate::edge::host::machine().is_some();
        assert_eq!([is_own(&log), is_own(&copy)], if told { [Some(true), Some(false)] } else { [None; 2] });
    }
}
