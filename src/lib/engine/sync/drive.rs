//! From the first look to the report.
//!
//! In order: hot passes while the destination's server runs; the source is made to hold still (or its backup procedure
//! begins), and one more pass reads what changed until then; the server is stopped; the last pass reads what changed
//! since; the new content is switched in; the server is started. Until the switch the destination is the old one, whole,
//! and whatever fails starts its server on it again, which needs nobody but this end. Behind the switch the new one is
//! whole: a server that does not start on it, or fails its check, stays down, and the operator decides.

mod guard;
mod last;
mod options;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

pub use self::guard::apart;

use self::last::Stopped;
pub use self::options::{Mode, Options, Report};
use super::ground::Ground;
use super::history;
use super::journal::recover::recover;
use super::ledger::Unsettled;
use super::marker;
use super::profile::Profile;
use super::purpose::Purpose;
use super::receiver::{Desk, Link, Operator, Passes, wait_for_tick};
use super::server::Server;
use super::stage::{self, Carried};
use super::state::State;
use super::target::Target;
use crate::edge::clock;
use crate::edge::dir::{Dir, shown};
use crate::edge::tree::Tree;
use crate::edge::user::User;
use crate::rule::sync::filter::{Filter, Verdict};
use crate::rule::sync::wire::ask::Say;
use crate::value::exit::{Code, Failure, code_of};
use crate::value::name::Name;

/// Hot passes at most.
const HOT_MAX: u64 = 8;
/// A hot pass that takes more than this part of the one before it does not shrink any more.
const SHRINKS: f64 = 0.7;
/// A last pass that is shorter than this is short enough, unless something else was said.
const SHORT: Duration = Duration::from_secs(1);

/// A sync under way.
struct Drive<'a> {
    options: &'a Options,
    operator: &'a Operator<'a>,
    link: &'a mut Link,
    report: Report,
    destination: PathBuf,
    profile: Profile,
    filter: Arc<Filter>,
    /// What the source's procedure makes up for.
    may_change: bool,
    needs_recovery: bool,
    /// Files to fetch whole.
    distrusted: HashSet<Name>,
    /// What only the destination has, and keeps.
    others: Vec<Name>,
}

/// Makes a destination what the source at the other end of the link is.
pub fn run(link: &mut Link, destination: &Path, options: &Options, operator: &Operator<'_>) -> Result<Report> {
    let began = Instant::now();
    let mut drive = Drive {
        options,
        operator,
        link,
        report: Report::default(),
        destination: destination.to_owned(),
        profile: Profile::Plain,
        filter: Arc::new(options.filter.clone()),
        may_change: false,
        needs_recovery: false,
        distrusted: HashSet::new(),
        others: Vec::new(),
    };
    let done = drive.run().map_err(|error| drive.link.blame(error));
    if let Err(error) = &done {
        drive.on_error(error);
    }
    done?;
    let mut report = drive.report;
    report.took = began.elapsed();
    report.wire = (link.traffic.sent.load(Relaxed), link.traffic.received.load(Relaxed));
    Ok(report)
}

/// The filter of both ends: what the operator says first, then what the engine knows.
pub fn filter_of(filter: &Filter, profile: Profile) -> Result<Filter> {
    let mut filter = filter.clone();
    let names = profile.names();
    for pattern in names.dropped.iter().chain(names.own) {
        filter.add(Verdict::Exclude, pattern).map_err(|why| Failure::new(Code::Failed, why))?;
    }
    Ok(filter)
}

/// A filter that leaves out what one of these patterns matches.
fn matching(patterns: &[&str]) -> Result<Filter> {
    let mut filter = Filter::default();
    for pattern in patterns {
        filter.add(Verdict::Exclude, pattern).map_err(|why| Failure::new(Code::Failed, why))?;
    }
    Ok(filter)
}

impl Drive<'_> {
    fn run(&mut self) -> Result<()> {
        self.destination = self.place()?;
        let look = self.desk().look()?;
        self.profile = look.profile;
        self.report.engine = look.profile.to_string();
        self.filter = Arc::new(filter_of(&self.options.filter, look.profile)?);
        apart(&look, &self.destination)?;
        if self.options.manner.is_dry {
            self.guard_database(&look)?;
            return self.rehearse();
        }
        if let Some(name) = &self.options.commands.run_as {
            // An error now, and not when the server is down.
            User::named(name)?;
        }
        recover(&self.destination)?;
        let state = State::open(&self.destination)?;
        let run = format!("{:016x}", fastrand::u64(..));
        let mut server =
            Server::new(self.profile, self.options.commands.clone(), state.dir(), &self.destination, &run)?;
        let warmed = self
            .guard_database(&look)
            .and_then(|()| server.guard_role())
            .and_then(|()| self.hook("before-sync"))
            .and_then(|()| self.warm(&state, server.will_stop()?));
        // A run that was killed may have left the server down.
        let (ground, trusts) = warmed.map_err(|error| brought_back(&mut server, &self.may_start(), error))?;
        self.sync(&state, &mut server, ground, trusts)?;
        self.hook("after-sync").map_err(done_already)
    }

    fn desk(&self) -> Desk<'_> {
        Desk::new(&self.link.control, self.operator)
    }

    fn hook(&self, point: &str) -> Result<()> {
        self.desk().hook(point, &self.values())
    }

    fn verbose(&self, text: &str) {
        self.desk().say(Say::Verbose, text.as_bytes());
    }

    fn values(&self) -> Vec<(String, String)> {
        vec![
            ("REPL_DIR".to_owned(), self.destination.to_string_lossy().into_owned()),
            ("REPL_ENGINE".to_owned(), self.profile.to_string()),
        ]
    }

    fn on_error(&self, error: &anyhow::Error) {
        let mut values = self.values();
        values.push(("REPL_ERROR".to_owned(), format!("{error:#}")));
        values.push(("REPL_CODE".to_owned(), (code_of(error) as u8).to_string()));
        if let Err(failed) = self.desk().hook("on-error", &values) {
            self.desk().say(Say::Warning, format!("{failed:#}").as_bytes());
        }
    }

    fn passes<'p>(&'p mut self, state: Option<&'p Dir>) -> Result<Passes<'p>> {
        let covering = self.may_change.then_some(self.profile);
        let mut manner = self.options.manner;
        manner.page = self.options.page.unwrap_or(self.profile.block_size() as usize);
        manner.spares = self.options.purpose != Purpose::Replica;
        // An archive has nothing of its own.
        let kept = if manner.spares { &[] } else { self.profile.names().kept };
        Ok(Passes {
            link: self.link,
            operator: self.operator,
            state,
            filter: Arc::clone(&self.filter),
            kept: matching(kept)?,
            dropped: matching(self.profile.names().dropped)?,
            profile: self.profile,
            covering,
            manner,
            is_itemized: self.options.is_itemized,
            shows_progress: self.options.shows_progress,
            allows_empty: self.options.allows_empty,
            distrusted: &mut self.distrusted,
        })
    }

    /// What would be done.
    fn rehearse(&mut self) -> Result<()> {
        let state = State::find(&self.destination)?;
        let nothing = tempdir()?;
        let place = if self.destination.exists() { Dir::open(&self.destination) } else { Dir::open_freely(&nothing) };
        let tree = Tree::of(&place?)?;
        let mut passes = self.passes(state.as_ref().map(State::dir))?;
        let passed = passes.run(Target::Direct(&tree), &|_| true);
        // It was made a moment ago; nobody else knows it.
        let _ = std::fs::remove_dir(&nothing);
        let passed = passed?;
        settled(&passed.unsettled)?;
        self.report.counts = passed.counts;
        self.report.passes = 1;
        Ok(())
    }

    /// All that is done while the destination's server runs.
    fn warm<'s>(&mut self, state: &'s State, will_stop: bool) -> Result<(Ground<'s>, bool)> {
        let mode = self.mode(state)?;
        self.report.mode = Some(if mode == Mode::Stage { "stage" } else { "inplace" });
        let (like, dress) = (self.options.purpose.like(), self.options.manner.dress);
        let ground = Ground::prepare(mode, state, &self.destination, like, &self.filter, dress)?;
        let has_server = self.options.commands.stop.is_some() || self.options.commands.start.is_some();
        let is_hot = has_server || self.options.freezes || self.profile.must_mirror();
        let mut trusts = ground.is_fresh();
        if is_hot {
            self.hot(state, &ground, &mut trusts, will_stop)?;
            ground.settle()?;
        }
        Ok((ground, trusts))
    }

    /// Whether a server may be started on the destination.
    fn may_start(&self) -> impl Fn() -> Result<()> + use<> {
        let place = self.destination.clone();
        move || marker::guard(&place)
    }

    fn sync(&mut self, state: &State, server: &mut Server, ground: Ground, trusts: bool) -> Result<()> {
        let may_start = self.may_start();
        let last = self.last(state, server, &ground, trusts);
        let (mut stopped, source) = match last {
            Ok(done) => done,
            Err(error) => return Err(brought_back(server, &may_start, error)),
        };
        let dropped = matching(self.profile.names().dropped)?;
        // The point of no return is in here.
        let switched = self.hook("before-switch").and_then(|()| server.confirm_down()).and_then(|()| {
            // Of a database, what came up since the stage was made is of the old copy.
            let keeps_others = !self.options.manner.is_deleting && !self.profile.must_mirror();
            let others = keeps_others.then_some(self.others.as_slice());
            ground.switch(state, &Carried { filter: &self.filter, dropped: &dropped, others }, self.profile, &source)
        });
        if let Err(error) = switched {
            return Err(brought_back(server, &may_start, error));
        }
        stopped.streams.clear();
        stopped.did("switch");
        // What cannot be written down keeps no server down.
        let remembered = self.remember(state, &source);
        let woken = self.wake(server, &may_start, stopped);
        // Behind a failure the old tree may be wanted after all.
        woken.and(remembered).and_then(|()| stage::clean(state, self.options.keeps_old))
    }

    /// Passes while the destination's server runs, until they do not get shorter.
    fn hot(&mut self, state: &State, ground: &Ground, trusts: &mut bool, will_stop: bool) -> Result<()> {
        let enough = self.options.max_downtime.unwrap_or(SHORT);
        let mut before: Option<Duration> = None;
        for _ in 0..HOT_MAX {
            let mut took = self.hot_pass(state, ground, *trusts)?;
            *trusts = true;
            self.hook("after-hot-pass")?;
            if will_stop {
                // What takes long lets the source go on meanwhile.
                let began = Instant::now();
                ground.relieve(enough / 4)?;
                took += began.elapsed();
            }
            // The first pass reads all there is: the second tells how long the last one is going to take.
            let has_shrunk = before.is_none_or(|before| took.as_secs_f64() < before.as_secs_f64() * SHRINKS);
            if !has_shrunk || (took < enough && before.is_some()) || took < enough / 4 {
                break;
            }
            before = Some(took);
        }
        Ok(())
    }

    /// One pass while the destination's server runs; returns how long it took.
    fn hot_pass(&mut self, state: &State, ground: &Ground, trusts: bool) -> Result<Duration> {
        let mut passes = self.passes(Some(state.dir()))?;
        passes.manner.trusts_pending = trusts;
        // What must go is only known when the last list has come.
        passes.manner.is_tolerant = true;
        let passed = passes.run(ground.target(), &|_| true)?;
        self.report.passes += 1;
        self.report.counts.add(&passed.counts);
        self.verbose(&format!(
            "hot pass {}: {} bytes sent, {} names to come back to, {:.3} s",
            self.report.passes,
            passed.counts.literal,
            passed.unsettled.count,
            passed.took.as_secs_f64()
        ));
        Ok(passed.took)
    }

    /// What was done, when and why, stays in the state directory.
    fn remember(&self, state: &State, source: &str) -> Result<()> {
        history::add(
            state.dir(),
            &json!({
                "v": 1,
                "time": clock::now().to_string(),
                "did": "sync",
                "engine": self.report.engine,
                "mode": self.report.mode,
                "source": guard::parts(source).2,
                "reason": self.options.reason,
            }),
        )
    }

    /// The new directory is in its place: its server is started on it.
    fn wake(&mut self, server: &mut Server, may_start: &dyn Fn() -> Result<()>, mut stopped: Stopped) -> Result<()> {
        wait_for_tick();
        let dir = Dir::open(&self.destination)?;
        if self.needs_recovery && self.options.purpose == Purpose::Replica {
            server.recover(&self.destination).map_err(|error| self.stays(error))?;
        }
        let position = self.profile.position(&dir);
        // A hook that fails, or a link that is gone, keeps no server down.
        let hooked = self.hook("after-switch").map_err(done_already);
        let started = server.start(may_start).map_err(|error| self.stays(error))?;
        if stopped.was_running || started {
            stopped.did("start");
            self.report.downtime = Some(stopped.took());
            self.verbose(&format!("down for {:.3} s: {}", stopped.took().as_secs_f64(), stopped.shown()));
        }
        self.report.position = position?.map(|position| position.to_string());
        hooked?;
        if started {
            self.hook("after-start").map_err(done_already)?;
            server.check().map_err(|error| self.stays(put_down(server, error)))?;
        }
        Ok(())
    }

    /// What fails behind the switch leaves the new directory, whole.
    fn stays(&self, error: anyhow::Error) -> anyhow::Error {
        let place = shown(&self.destination);
        let failure =
            Failure::new(Code::Hook, format!("{place} is the new one, whole, but its server does not work on it"));
        let failure = if self.report.mode == Some("stage") {
            failure.hint(format!("repl-sync --rollback {place} takes the old one back"))
        } else {
            failure
        };
        error.context(failure)
    }
}

/// Before the switch: the server runs on the old directory again.
fn brought_back(server: &mut Server, may_start: &dyn Fn() -> Result<()>, error: anyhow::Error) -> anyhow::Error {
    match server.bring_back(may_start) {
        Ok(()) => error,
        Err(failed) => error.context(format!("the server was not started again: {failed:#}")),
    }
}

/// A server that does not do its work on the new directory is better down than believed.
fn put_down(server: &mut Server, error: anyhow::Error) -> anyhow::Error {
    match server.stop() {
        Ok(()) => error,
        Err(failed) => error.context(format!("the server was not stopped again: {failed:#}")),
    }
}

/// A hook that fails when the work is done.
fn done_already(error: anyhow::Error) -> anyhow::Error {
    error.context(Failure::new(Code::Hook, "the destination is the new one; a hook behind that failed"))
}

/// What could not be settled is an error.
fn settled(unsettled: &Unsettled) -> Result<()> {
    let Some((name, why)) = unsettled.names.first() else { return Ok(()) };
    let more = match unsettled.count - 1 {
        0 => String::new(),
        more => format!(" (and {more} more names)"),
    };
    let failure = Failure::new(Code::Failed, format!("{name}: {why}{more}"));
    Err(failure.hint("have the source hold still for the last pass: --freeze CMD and --thaw CMD").into())
}

fn tempdir() -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!(".repl-sync-nothing-{}", std::process::id()));
    std::fs::create_dir(&path).with_context(|| format!("cannot make {}", shown(&path)))?;
    Ok(path)
}
