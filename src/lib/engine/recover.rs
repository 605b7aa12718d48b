//! Brings a database back from an archive: proves that it can be done, plans it, lays a base and log in an empty directory
//! and has the database's own recovery run there, up to a position that is known before and looked at afterwards.
//!
//! The archive is only read. The target is marked as not to be used from the first write until it is whole; an interrupted
//! recovery that is run again does from the beginning whatever the database's own may have changed, and so ends the same.

mod bdb;
mod keeper;
mod lay;
mod mariadb;
pub mod place;
pub mod plan;
mod postgres;
mod prove;
mod scratch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use self::lay::{Laying, Origin};
use self::place::{Place, Step};
use self::plan::Plan;
use super::archive::base::{Base, DATA, SUMS};
use super::archive::lease::Lease;
use super::archive::sums::Sums;
use super::archive::{Archive, BASES};
use super::sync::profile::Profile;
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::hook::Hook;
use crate::edge::tree::Tree;
use crate::edge::user::User;
use crate::value::exit::{Code, Failure, fail};
use crate::value::name::Name;
use crate::value::position::Position;
use crate::value::time::Until;

/// Where log is laid of which it is not known where it belongs, in the marker.
const LOG: &str = "log";

/// Which base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The newest that is not later than the end; none where there is none and the log begins with the set.
    Latest,
    /// None.
    None,
    /// The one of this name.
    Named(String),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Order {
    /// Where the log is.
    pub archive: PathBuf,
    /// Where its state is instead of `.repl`.
    pub state: Option<PathBuf>,
    /// Where the database is to be.
    pub target: PathBuf,
    /// From which base.
    pub base: Choice,
    /// Up to where; else to the end of what is held.
    pub until: Option<Until>,
    /// The kind of database; else as the base, or the log, says.
    pub engine: Option<Profile>,
    /// The operator's own recovery.
    pub recover: Option<String>,
    /// Whether the database is right.
    pub check: Option<String>,
    /// Starts it, once it is whole.
    pub start: Option<String>,
    /// A PostgreSQL server stays in recovery, so that it can follow more log.
    pub stays: bool,
    /// Whom the engine's programs run as, and whose the target becomes, when we are root.
    pub run_as: Option<String>,
    /// Options of the database's server for its recovery, in a file: MariaDB's.
    pub dsn: Option<String>,
    /// How long a command of the operator's may take.
    pub timeout: Duration,
    /// Why.
    pub reason: Option<String>,
}

/// What a recovery did.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was planned.
    pub plan: Plan,
    /// Bytes that were copied; none of them twice, however often it was interrupted.
    pub copied: u64,
}

/// A recovery under way.
struct Work<'a> {
    order: &'a Order,
    archive: &'a Archive<'a>,
    plan: &'a Plan,
    place: &'a Place,
    user: Option<User>,
}

/// Proves that it can be done, and how. Nothing is touched.
pub fn plan(order: &Order) -> Result<Plan> {
    let dir = Dir::open(&order.archive)?;
    prove(order, &Archive::open(&dir, order.state.as_deref())?)
}

/// Proves that a database can be brought back from what the archive has, wherever that may be.
pub fn possible(order: &Order) -> Result<()> {
    let dir = Dir::open(&order.archive)?;
    prove::run(order, &Archive::open(&dir, order.state.as_deref())?).map(drop)
}

/// Refuses (12) a target without room for what is laid; one that was begun has some of it.
pub fn has_room(order: &Order, plan: &Plan) -> Result<()> {
    if place::is_begun(&order.target) { Ok(()) } else { place::room(&order.target, plan.bytes()) }
}

fn prove(order: &Order, archive: &Archive<'_>) -> Result<Plan> {
    // What is in the way of the target is cheap to see.
    place::guard(&order.target, archive.dir, order.engine.unwrap_or(Profile::Plain))?;
    let plan = prove::run(order, archive)?;
    place::guard(&order.target, archive.dir, plan.engine)?;
    applies(order, &plan)?;
    Ok(plan)
}

/// Refuses log that nothing would bring into the database: it would only be laid, and thrown away.
fn applies(order: &Order, plan: &Plan) -> Result<()> {
    let is_unknown = plan.base.as_ref().is_some_and(|base| base.record.log.is_none());
    if !is_unknown || plan.logs.is_empty() || order.recover.is_some() {
        return Ok(());
    }
    let text = format!("nothing is known of how a {} database takes log", plan.engine);
    Err(Failure::new(Code::Guarded, text).hint("--recover CMD does that; the log is in $REPL_LOGS").into())
}

/// Does it.
pub fn run(order: &Order) -> Result<Report> {
    let dir = Dir::open(&order.archive)?;
    let archive = Archive::open(&dir, order.state.as_deref())?;
    let named = order.run_as.as_deref().map(User::named).transpose()?.flatten();
    let plan = prove(order, &archive)?;
    let base = plan.base.as_ref();
    let _lease = lease(&archive, base.and_then(|base| base.record.position), base)?;
    still_there(order, &plan)?;
    if plan.engine == Profile::Postgres && order.recover.is_none() {
        let owner =
            || base.map_or(Ok(None), |base| User::owner(&archive.dir.path().join(BASES).join(&base.name).join(DATA)));
        postgres::readable(order, &plan, named.clone().map_or_else(owner, |user| Ok(Some(user)))?.as_ref())?;
    }
    let words = format!("{}{}{:?}{:?}", dir.path().display(), plan.print(), order.recover, order.stays);
    has_room(order, &plan)?;
    let place = Place::take(&order.target, &words, plan.engine)?;
    let mut copied = 0;
    let step = place.step()?;
    if step < Some(Step::Recovered) {
        place.reach(Step::Begun)?;
        copied = lay(&plan, &archive, &place, named.as_ref())?;
        place.reach(Step::Laid)?;
    }
    let user = match named {
        Some(user) => Some(user),
        None => User::owner(place.dir.path())?,
    };
    let work = Work { order, archive: &archive, plan: &plan, place: &place, user };
    work.recover(step == Some(Step::Recovered))?;
    let record = work.record()?;
    place.finish(&record)?;
    start_server(order, &plan)?;
    Ok(Report { plan, copied })
}

/// Keeps what is needed from being pruned, as long as we live; in an archive that only can be read, nobody prunes as us.
fn lease(archive: &Archive<'_>, from: Option<Position>, base: Option<&Base>) -> Result<Option<Lease>> {
    match Lease::take(&archive.state, from, base.map(|base| base.name.as_str())) {
        Err(error) if is_read_only(&error) => Ok(None),
        taken => taken.map(Some),
    }
}

/// What was proven may have been pruned before the lease was taken; from now on it is not.
fn still_there(order: &Order, plan: &Plan) -> Result<()> {
    let dir = Dir::open(&order.archive)?;
    let horizon = Archive::open(&dir, order.state.as_deref())?.horizon;
    let is_pruned = plan.logs.first().is_some_and(|log| Some(log.segment) < horizon);
    let is_gone = match &plan.base {
        Some(base) => dir.open_subdir(BASES)?.identity(&base.name)?.is_none(),
        None => false,
    };
    if is_pruned || is_gone {
        return fail(Code::Failed, "what was proven has been pruned meanwhile: run it again");
    }
    Ok(())
}

fn is_read_only(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.into_iter().any(|kind| matches!(kind, PermissionDenied | ReadOnlyFilesystem))
}

fn lay(plan: &Plan, archive: &Archive<'_>, place: &Place, user: Option<&User>) -> Result<u64> {
    let base = plan.base.as_ref().map(|base| origin(archive, &base.name)).transpose()?;
    if plan.base.as_ref().is_some_and(|base| base.record.log.is_none()) {
        let logs = place.scratch().subdir(LOG)?;
        for name in logs.names()? {
            // Laid for another plan.
            if !plan.logs.iter().any(|log| *log.name == *name) {
                Tree::of(&logs)?.remove_all(&Name::root().join(name.as_encoded_bytes()))?;
            }
        }
    }
    let target = Tree::of(&place.dir)?;
    let owner = user.map(User::numbers);
    Laying { plan, base: base.as_ref(), archive: archive.dir, target: &target, owner }.run()
}

/// A base's files, with their digests: proven a moment ago.
fn origin(archive: &Archive<'_>, name: &str) -> Result<Origin> {
    let dir = archive.dir.open_subdir(BASES)?.open_subdir(name)?;
    let sums = dir.read_small(SUMS, u64::MAX - 1)?.and_then(|bytes| Sums::parse(&bytes));
    let sums = sums.with_context(|| Failure::new(Code::Corrupt, format!("{} is damaged", dir.shown(SUMS))))?;
    Ok(Origin { tree: Tree::of(&dir.open_subdir(DATA)?)?, sums })
}

/// Starts the server, by the operator's command.
fn start_server(order: &Order, plan: &Plan) -> Result<()> {
    let Some(command) = &order.start else {
        return Ok(());
    };
    let hook = Hook { name: "start", command: command.clone(), timeout: Some(order.timeout) };
    let values = values(order, plan)?;
    let user = order.run_as.as_deref().map(User::named).transpose()?.flatten();
    let output = Dir::open(&order.target)?.create_unnamed()?;
    hook.launch(user.as_ref(), &values, &output)
}

/// What commands are told.
fn values(order: &Order, plan: &Plan) -> Result<Vec<(&'static str, String)>> {
    let path = |path: &PathBuf| -> Result<String> { Ok(std::path::absolute(path)?.to_string_lossy().into_owned()) };
    let target = path(&order.target)?;
    let logs = plan.log_place();
    let logs = if logs.is_root() { target.clone() } else { format!("{target}/{logs}") };
    Ok(vec![
        ("REPL_TARGET", target.clone()),
        ("REPL_DIR", target),
        ("REPL_ARCHIVE", path(&order.archive)?),
        ("REPL_LOGS", logs),
        ("REPL_ENGINE", plan.engine.to_string()),
        ("REPL_POSITION", plan.end.map(|end| end.to_string()).unwrap_or_default()),
        ("REPL_TIME", plan.time.map(|time| time.to_string()).unwrap_or_default()),
    ])
}

impl Work<'_> {
    /// The database's own recovery, if it is still to be run, and the check.
    fn recover(&self, is_recovered: bool) -> Result<()> {
        if let (Some(command), false) = (&self.order.recover, is_recovered) {
            self.hook("recover", command, &[])?;
            self.recovered()?;
            return self.check(&[]);
        }
        match self.plan.engine {
            // They were checked before they were whole, while their server ran.
            Profile::Postgres | Profile::Mariadb if is_recovered && self.order.recover.is_none() => Ok(()),
            _ if is_recovered => self.check(&[]),
            Profile::Bdb => {
                bdb::recover(self)?;
                self.recovered()?;
                self.check(&[])
            }
            Profile::Postgres => postgres::recover(self),
            Profile::Mariadb => mariadb::recover(self),
            _ => {
                self.recovered()?;
                self.check(&[])
            }
        }
    }

    /// The database is whole: all of it on stable storage.
    fn recovered(&self) -> Result<()> {
        Tree::of(&self.place.dir)?.sync()?;
        self.place.reach(Step::Recovered)
    }

    fn check(&self, more: &[(&'static str, String)]) -> Result<()> {
        self.order.check.as_ref().map_or(Ok(()), |command| self.hook("check", command, more))
    }

    fn hook(&self, name: &'static str, command: &str, more: &[(&'static str, String)]) -> Result<()> {
        let hook = Hook { name, command: command.to_owned(), timeout: Some(self.order.timeout) };
        let mut values = values(self.order, self.plan)?;
        values.extend_from_slice(more);
        hook.run_as(self.user.as_ref(), &values)
    }

    /// What was recovered, for those who find it.
    fn record(&self) -> Result<String> {
        let line = json!({
            "v": 1,
            "time": clock::now().to_string(),
            "archive": std::path::absolute(&self.order.archive)?.to_string_lossy(),
            "engine": self.plan.engine.to_string(),
            "base": self.plan.base.as_ref().map(|base| &base.name),
            "position": self.plan.end.map(|end| end.to_string()),
            "last_transaction": self.plan.time.map(|time| time.to_string()),
            "reason": self.order.reason,
        });
        Ok(format!("{line}\n"))
    }
}
