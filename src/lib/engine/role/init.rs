//! The first word on what a site is: its database is the master. It is said once, of a database that is there; nothing in
//! its directory is touched, least of all emptied.

use anyhow::Result;

use super::Place;
use super::record::{Record, Role};
use crate::edge::dir::shown;
use crate::edge::lock::Lock;
use crate::engine::{log, site};
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure, fail};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Order {
    /// The site's name.
    pub site: String,
    /// Of which epoch it is; else of the first, or of the one that is known.
    pub epoch: Option<u64>,
    /// Take a directory without log: the database will be made there.
    pub allow_empty: bool,
    /// Change nothing.
    pub is_dry: bool,
    /// Why.
    pub reason: Option<String>,
}

/// What has come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is the master from now on.
    Made(Record),
    /// It was before.
    Was(Record),
}

/// Makes a site the master of its set. Without `is_dry` the place must have a state directory.
pub fn run(place: &Place<'_>, order: &Order) -> Result<Outcome> {
    let _lock = place.state.filter(|_| !order.is_dry).map(|state| Lock::take(state, super::LOCK)).transpose()?;
    let known = super::known_epoch(place)?;
    if let Some(record) = super::told(place)? {
        match (record.role, order.epoch) {
            (Role::Receiver, _) => return Err(is_receiver(&record).into()),
            (Role::Master, Some(epoch)) if epoch > record.epoch => {}
            (Role::Master, Some(epoch)) if epoch < record.epoch => return Err(older(epoch, record.epoch).into()),
            (Role::Master, _) if record.site != order.site => {
                let text = format!("this site is the master already, by the name '{}'", record.site);
                return fail(Code::Fenced, text);
            }
            (Role::Master, _) => return Ok(Outcome::Was(record)),
        }
    }
    guard(place, order)?;
    let epoch = order.epoch.unwrap_or(known.max(1));
    if epoch < known {
        return Err(older(epoch, known).into());
    }
    let record = Record { role: Role::Master, site: order.site.clone(), epoch };
    if let Some(state) = place.state.filter(|_| !order.is_dry) {
        let detail = format!("site '{}' is the master, epoch {epoch}", record.site);
        site::record(state, "init", &detail, order.reason.as_deref())?;
        record.write(state)?;
    }
    Ok(Outcome::Made(record))
}

fn is_receiver(record: &Record) -> Failure {
    let Record { site, epoch, .. } = record;
    Failure::new(Code::Fenced, format!("this site is a receiver since epoch {epoch}: another is the master"))
        .hint(format!("repl-role switchover --to {site} at the master"))
}

fn older(told: u64, known: u64) -> Failure {
    Failure::new(Code::Fenced, format!("epoch {told} is older than {known}, which is known here"))
}

/// A directory that receives is no master's, and neither is one without log.
fn guard(place: &Place<'_>, order: &Order) -> Result<()> {
    let path = shown(place.dir.path());
    if site::peek_receiver(place.dir)?.is_some() && !super::is_promoted(place)? {
        let text = format!("{path} is a receiver's: what it holds is of another master");
        return Err(Failure::new(Code::Fenced, text).hint("repl-role show tells what it holds").into());
    }
    let has_log = |scheme: &Scheme| Ok::<_, anyhow::Error>(!log::segments(place.dir, scheme, |_| false)?.is_empty());
    if !order.allow_empty && !place.scheme.map_or(Ok(false), has_log)? {
        let text = match place.scheme {
            Some(scheme) => format!("{path} has no log of {}: no such database runs there", scheme.engine()),
            None => format!("{path} has no log that is known by its names"),
        };
        let hint = "name the log directory, or its kind by --engine or --pattern; or --allow-empty, where the database is \
                    still to be made";
        return Err(Failure::new(Code::Guarded, text).hint(hint).into());
    }
    Ok(())
}
