//! An orderly switchover, run at the master: its server stops, the last byte is shipped, both logs are proven equal, the
//! other site becomes the master of a new epoch, and this one receives.
//!
//! Until this site's own role says *receiver* all of it can be undone: whatever fails, the server is started again on a
//! directory that nobody has touched. From then on it is only completed, by running it again. So at no instant are there
//! two masters; if it is killed between the two roles, there is none until it is run again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::database::Database;
use super::far::{Answer, Far};
use super::journal::{Journal, Step};
use super::promote::{alone, end};
use super::record::{self, Record, Role};
use super::{LOCK, Place, instance, pause};
use crate::edge::dir::{Dir, shown};
use crate::edge::hook::Hook;
use crate::edge::lock::Lock;
use crate::edge::signal::{self, Stop};
use crate::engine::log;
use crate::engine::note::{Monitor, Note};
use crate::engine::site::{self, Holding, Origin, STATE};
use crate::rule::scheme::Scheme;
use crate::rule::stream::hello::EPOCH_MOST;
use crate::value::exit::{Code, Failure, code_of, fail};
use crate::value::position::{Bookmark, Position, Start};

/// Between two looks at the other site.
const LOOK: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The site that becomes the master.
    pub to: Far<'a>,
    /// A command line that ships what is complete to it, and ends.
    pub ship: String,
    /// How long the last byte may take, and the other site's receiver to end.
    pub patience: Duration,
    /// Asked for an end: before the point of no return all is undone, behind it all is done.
    pub stop: Stop,
    /// Why.
    pub reason: Option<String>,
}

/// The site that is the master.
pub struct Switchover<'a> {
    /// Its directories.
    pub dir: &'a Dir,
    /// What its sender keeps.
    pub state: &'a Dir,
    /// What its log is of.
    pub scheme: &'a Scheme,
    /// Its database.
    pub database: &'a Database,
    /// What is to be done.
    pub order: &'a Order<'a>,
    /// Where notes go.
    pub monitor: &'a Monitor,
}

impl Switchover<'_> {
    /// Proves what can be proven without touching anything; returns what would be done.
    pub fn plan(&self) -> Result<Vec<String>> {
        let epoch = self.epoch()?;
        let (name, place) = (&self.order.to.site.name, shown(&self.database.dir));
        let behind = self.check(epoch)?;
        Ok(vec![
            format!("{name} can be reached and holds this master's log{behind}"),
            format!("would stop the server of {place}"),
            format!("would ship the last byte to {name} and prove both ends equal"),
            format!("would make this site a receiver of epoch {epoch}: the point of no return"),
            format!("would make {name} the master of epoch {epoch}"),
            format!("would make {place} follow"),
        ])
    }

    /// Does it, or what is left of it.
    pub fn run(&self) -> Result<()> {
        let _lock = Lock::take(self.state, LOCK)?;
        let name = self.order.to.site.name.clone();
        let begun = Journal::read(self.state)?;
        let told = record::read(self.state)?;
        let is_past = |journal: &Journal| {
            told.as_ref().is_some_and(|told| told.role == Role::Receiver && told.epoch == journal.epoch)
        };
        let begun_before = begun.as_ref().is_some_and(|journal| journal.step == Step::Begun);
        let is_ours = |journal: &Journal| journal.step < Step::Done || journal.to == name;
        if let Some(journal) = begun.filter(|journal| is_past(journal) && is_ours(journal)) {
            if journal.to != name {
                let text = format!("a switchover to {} has passed the point of no return", journal.to);
                let hint = format!("repl-role switchover --to {}", journal.to);
                return Err(Failure::new(Code::Fenced, text).hint(hint).into());
            }
            return self.complete(journal);
        }
        let epoch = self.epoch()?;
        let journal = Journal { step: Step::Begun, to: name, epoch, end: None };
        let checked = self.check(epoch);
        // An earlier run may have been killed with the server stopped.
        if begun_before && let Err(error) = checked {
            return Err(self.undo(error));
        }
        checked?;
        journal.write(self.state)?;
        let journal = match self.prepare(journal) {
            Ok(journal) => journal,
            Err(error) => return Err(self.undo(error)),
        };
        let site = told.map(|told| told.site).unwrap_or_default();
        if let Err(error) = (Record { role: Role::Receiver, site, epoch }).write(self.state) {
            return Err(self.halt(error));
        }
        self.complete(journal)
    }

    /// The epoch of the new master.
    fn epoch(&self) -> Result<u64> {
        let place = Place { dir: self.dir, state: Some(self.state), scheme: Some(self.scheme) };
        match super::told(&place)? {
            Some(told) if told.role == Role::Master => match super::known_epoch(&place)? {
                known @ ..EPOCH_MOST => Ok(known + 1),
                _ => fail(Code::Fenced, format!("there is no epoch after {EPOCH_MOST}")),
            },
            Some(told) => {
                let text = format!("this site is a receiver since epoch {}: it has nothing to hand over", told.epoch);
                Err(Failure::new(Code::Fenced, text).hint("repl-role where says who is the master").into())
            }
            None => Err(not_told().into()),
        }
    }

    /// Whether the other site fits, by what it says, and can be promoted; how far it is behind.
    fn check(&self, epoch: u64) -> Result<String> {
        self.database.can_stop()?;
        if let Some(paused) = pause::read(self.state, pause::Direction::Ship)? {
            return Err(paused.refusal(Code::Guarded, pause::Direction::Ship, self.dir).into());
        }
        let (far, name) = (&self.order.to, &self.order.to.site.name);
        if far.site.priority == 0 {
            let text = format!("{name} has priority 0: it never becomes the master");
            return Err(Failure::new(Code::Guarded, text).hint("priority in its [[site]]").into());
        }
        let answer = far.show()?;
        if answer.role == Some(Role::Master) || answer.epoch >= epoch {
            let text = format!("{name} has seen epoch {}, which is not older than this master's", answer.epoch);
            return fail(Code::Fenced, text);
        }
        self.check_log(&answer)?;
        self.check_sender(&answer)?;
        if let Some(since) = answer.paused {
            let text = format!("apply is paused at {name} since {since}");
            return Err(Failure::new(Code::Guarded, text).hint(format!("repl-role resume apply, at {name}")).into());
        }
        far.role(&["become", "-n", "--epoch", &epoch.to_string()])?;
        let end = log::last_byte(self.dir, self.scheme)?.map(|(at, _)| at);
        Ok(match (answer.held, end) {
            (Some(Start::At(mark)), Some(end)) if mark.position == end => ", all of it".to_owned(),
            (Some(Start::At(mark)), Some(end)) => format!(" to {}; it ends at {end}", mark.position),
            _ => String::new(),
        })
    }

    /// Refuses (13) where the other site is fed, and not by a sender of this state: that would not find the role that is
    /// written here, nor be ended, and would keep the other site's receiver at work behind the point of no return.
    fn check_sender(&self, answer: &Answer) -> Result<()> {
        if !answer.is_fed || Lock::is_held(self.state, "lock")? {
            return Ok(());
        }
        let name = &self.order.to.site.name;
        let text = format!("a receiver is at work at {name}, and no sender by {}", shown(self.state.path()));
        let hint = "name the directory of the sender that runs: --state DIR, or state in the configuration";
        Err(Failure::new(Code::Guarded, text).hint(hint).into())
    }

    /// Refuses a site that holds another log.
    fn check_log(&self, answer: &Answer) -> Result<()> {
        let name = &self.order.to.site.name;
        let engine = self.scheme.engine().to_string();
        if answer.engine.as_deref().is_some_and(|there| there != engine) {
            let there = answer.engine.clone().unwrap_or_default();
            return fail(Code::Fenced, format!("{name} holds log of {there}, this is {engine}"));
        }
        let set = self.order.to.set;
        if let Some(there) = answer.set.as_ref().filter(|there| !set.is_empty() && *there != set) {
            return fail(Code::Fenced, format!("{name} holds set '{there}', this is '{set}'"));
        }
        let own = instance::peek(self.dir, self.state)?;
        if let (Some(own), Some(there)) = (own, &answer.instance)
            && !own.is(there)
        {
            return fail(Code::Fenced, format!("{name} holds the log of another instance than this master"));
        }
        let Some(Start::At(mark)) = answer.held else {
            return fail(Code::Gap, format!("{name} holds nothing of this master's log: ship to it first"));
        };
        match log::digest(self.dir, self.scheme, mark.position)? {
            Some(digest) if mark.proof.is_some_and(|proof| proof != digest.proof()) => {
                fail(Code::Diverged, format!("{name} holds other log up to {mark}"))
            }
            _ => Ok(()),
        }
    }

    /// Stops the server, ships, and proves both ends equal, which is kept. Nothing here is touched.
    fn prepare(&self, journal: Journal) -> Result<Journal> {
        let mut server = self.database.server(self.state)?;
        self.say("stopping the server");
        server.stop().context("cannot stop the master's server")?;
        self.check_stop()?;
        let end = self.end()?.bookmark();
        self.say(&format!("the log ends at {}; shipping", end.position));
        self.ship(end)?;
        self.check_stop()?;
        server.confirm_down()?;
        if self.end()?.bookmark() != end {
            return fail(Code::Guarded, "the log has grown though the server is stopped: who writes to it?");
        }
        let journal = Journal { end: Some(end), ..journal };
        journal.write(self.state)?;
        Ok(journal)
    }

    /// Whether an end was asked for.
    fn check_stop(&self) -> Result<()> {
        if self.order.stop.is_asked() { fail(Code::Failed, "stopped by a signal") } else { Ok(()) }
    }

    fn end(&self) -> Result<Holding> {
        let found = end(self.dir, self.scheme)?;
        found.map_or_else(|| fail(Code::Failed, "there is no log here to hand over"), Ok)
    }

    /// Ships until the other site holds all. A sender that runs may be doing that already: then it is waited for.
    fn ship(&self, end: Bookmark) -> Result<()> {
        let deadline = Instant::now() + self.order.patience;
        let mut last = None;
        loop {
            if self.order.to.show()?.held == Some(Start::At(end)) {
                return Ok(());
            }
            self.check_stop()?;
            if Instant::now() >= deadline {
                let text = format!("{} does not come to {end}", self.order.to.site.name);
                let failure = Failure::new(Code::Unconfirmed, text);
                return Err(match last {
                    Some(error) => anyhow::Error::from(error).context(failure),
                    None => failure.into(),
                });
            }
            let hook = Hook { name: "ship", command: self.order.ship.clone(), timeout: Some(self.order.patience) };
            let answer = hook.listen_until(&[], 1 << 16, Some(&self.order.stop))?;
            let code = answer.status.and_then(|status| u8::try_from(status).ok()).and_then(Code::from_number);
            let Some(words) = answer.words else {
                continue;
            };
            // One that took too long says only that the other end does not take it.
            let code = if answer.status.is_none() { Code::Link } else { code.unwrap_or(Code::Hook) };
            let error = Failure::new(code, words);
            if !error.code.is_transient() {
                return Err(error.into());
            }
            last = Some(error);
            std::thread::sleep(LOOK);
        }
    }

    /// Before the point of no return: the server is started again, and all is as it was.
    fn undo(&self, error: anyhow::Error) -> anyhow::Error {
        let guard = || crate::engine::sync::marker::guard(&self.database.dir);
        let back = self.database.server(self.state).and_then(|mut server| server.bring_back(&guard));
        let undone = back.and_then(|()| Journal::forget(self.state));
        let words = match &undone {
            Ok(()) => "nothing was switched, the master goes on".to_owned(),
            Err(undo) => format!("the master's server could not be started again: {undo:#}"),
        };
        let failure = Failure::new(if undone.is_ok() { code_of(&error) } else { Code::Hook }, words);
        error.context(failure)
    }

    /// The point of no return could not be passed, or it is passed and not known to be durable: the role that is there
    /// tells. Where even that cannot be read, nothing is started.
    fn halt(&self, error: anyhow::Error) -> anyhow::Error {
        let words = match record::read(self.state) {
            Ok(told) if told.as_ref().is_none_or(|told| told.role != Role::Receiver) => return self.undo(error),
            Ok(_) => "the point of no return is passed: run this again",
            Err(_) => "nobody can tell whether the point of no return is passed: mend the state, and run this again",
        };
        let code = code_of(&error);
        error.context(Failure::new(code, words))
    }

    /// Behind the point of no return.
    fn complete(&self, journal: Journal) -> Result<()> {
        let Journal { epoch, to, end, .. } = &journal;
        let values = [("REPL_EPOCH", epoch.to_string()), ("REPL_MASTER", to.clone())];
        if journal.step < Step::Handed {
            self.check_still(*end)?;
            // Whatever starts the server from now on finds one that follows.
            self.database.demote(&values).map_err(|error| headless(error, "this one could not be demoted"))?;
            self.end_sender()?;
            self.say(&format!("making {to} the master of epoch {epoch}"));
            let handed = self.hand_over(*epoch, *end);
            handed.map_err(|error| headless(error, &format!("{to} could not be made it")))?;
            Journal { step: Step::Handed, ..journal.clone() }.write(self.state)?;
        }
        if journal.step < Step::Done {
            self.say("making this site follow");
            self.receive(*epoch, *end)?;
            self.database.follow(self.state)?;
            let detail = format!("{to} is the master of epoch {epoch}");
            site::record(self.state, "switchover", &detail, self.order.reason.as_deref())?;
            Journal { step: Step::Done, ..journal.clone() }.write(self.state)?;
        }
        Ok(())
    }

    /// A run that was interrupted behind the point of no return is completed later, and the machine may have been started
    /// again meanwhile, with its server: then there is log here that the new master has not, and must not be touched.
    fn check_still(&self, proven: Option<Bookmark>) -> Result<()> {
        let server = self.database.server(self.state)?;
        server.confirm_down().map_err(|error| match code_of(&error) {
            Code::Guarded => error.context(self.awake()),
            _ => error,
        })?;
        let end = self.end()?.bookmark();
        match proven.filter(|proven| *proven != end) {
            Some(proven) => Err(self.astray(end, proven).into()),
            None => Ok(()),
        }
    }

    fn awake(&self) -> Failure {
        let to = &self.order.to.site.name;
        let text = format!("behind the point of no return to {to} this site's server runs again; nothing was touched");
        Failure::new(Code::Guarded, text).hint("stop it and keep it down; then run this again")
    }

    fn astray(&self, end: Bookmark, proven: Bookmark) -> Failure {
        let to = &self.order.to.site.name;
        let text = format!("this log was proven to end at {proven} and ends at {end}: the server has run since");
        let hint = format!(
            "where {to} is the master by now, repl-sync from there; else repl-role become makes this site it again"
        );
        Failure::new(Code::Diverged, text).hint(hint)
    }

    /// A sender that runs keeps the other site's receiver at work, which has to end before that can become the master. One
    /// that is started again finds the role, and refuses. Each is asked once, since a second signal ends it where it
    /// stands: that comes only when there is hardly time left.
    fn end_sender(&self) -> Result<()> {
        let deadline = Instant::now() + self.order.patience;
        let late = Instant::now() + self.order.patience / 8 * 7;
        let mut asked = None;
        while Lock::is_held(self.state, "lock")? {
            let text = self.state.read_small("lock", 200)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            let pid = text.strip_prefix("process ").and_then(|pid| pid.parse().ok());
            let ask = pid.map(|pid| (pid, Instant::now() >= late));
            if let Some((pid, _)) = ask.filter(|_| ask != asked) {
                signal::end(pid, "repl-ship");
                asked = ask;
            }
            if Instant::now() >= deadline {
                return fail(Code::Busy, format!("{} is held by {text}, which does not end", self.state.shown("lock")));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn hand_over(&self, epoch: u64, end: Option<Bookmark>) -> Result<()> {
        let end = end.map_or_else(|| self.end().map(|end| end.bookmark()), Ok)?;
        let (epoch, held) = (epoch.to_string(), end.to_string());
        let mut words = vec!["become", "--epoch", &epoch, "--held", &held];
        if let Some(reason) = &self.order.reason {
            words.extend(["--reason", reason]);
        }
        self.order.to.role(&words).map(drop)
    }

    /// The log here is equal to the new master's up to its end: from now on it is what is held.
    fn receive(&self, epoch: u64, proven: Option<Bookmark>) -> Result<()> {
        let replica = self.dir.subdir(STATE)?;
        let _receivers = alone(self.dir, &replica, self.order.patience)?;
        // The epoch is written last: with it, log of the new master may have come already.
        if site::epoch(&replica)? >= epoch {
            return Ok(());
        }
        self.check_still(proven)?;
        let end = self.end()?;
        self.blank(end.held.position)?;
        let start = end.held.position.segment.at(0);
        let origin = Origin { set: self.order.to.set.to_owned(), scheme: self.scheme.clone(), start };
        site::take_up(&replica, &origin, &end)?;
        let (mut site, ..) = site::Site::open(replica)?;
        site.record(
            "demote",
            &format!("receives from {end}, epoch {epoch}", end = end.held.position),
            self.order.reason.as_deref(),
        )?;
        site.set_epoch(epoch)
    }

    /// A server that uses its files again has old log behind the end, under the same name: a receiver would take it for
    /// what it has, and the new master's for another history.
    fn blank(&self, end: Position) -> Result<()> {
        let size = self.scheme.segment_size();
        if !self.scheme.recycles() || end.offset >= size {
            return Ok(());
        }
        let name = self.scheme.name(end.segment);
        let Some(file) = self.dir.open_write(&name)? else {
            return Ok(());
        };
        let cut = || -> std::io::Result<()> {
            file.set_len(end.offset)?;
            file.set_len(size)?;
            file.sync_all()
        };
        cut().with_context(|| format!("cannot blank {} behind {end}", self.dir.shown(&name)))
    }

    fn say(&self, text: &str) {
        (self.monitor)(Note::Detail(text.to_owned()));
    }
}

/// A site of which nobody has said what it is has nothing to hand over.
pub fn not_told() -> Failure {
    Failure::new(Code::Fenced, "nobody has said that this site is the master").hint("repl-role init --master")
}

/// Behind the point of no return, before there is another master.
fn headless(error: anyhow::Error, why: &str) -> anyhow::Error {
    let text = format!("no site is the master until this is run again: {why}");
    let code = code_of(&error);
    error.context(Failure::new(code, text))
}
