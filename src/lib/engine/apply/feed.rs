//! Gives what is durable to the database: one command, in order, at least once, per closed segment, per boundary or per
//! interval. It runs beside the landing and never holds it up; a failing command stops feeding, not receiving.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;

use super::commit::Commit;
use super::heard::Heard;
use super::mariadb::{Mariadb, Part};
use crate::edge::bell::Bell;
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::hook::Hook;
use crate::edge::journal::Follow;
use crate::edge::signal::Stop;
use crate::engine::mariadb::Server;
use crate::engine::note::{Monitor, Note};
use crate::engine::role::{self, pause::Direction};
use crate::engine::site::{self, Closed, Origin};
use crate::rule::pattern::Pattern;
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::Position;
use crate::value::time::Time;

/// When to feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Each {
    /// Each closed segment.
    Segment,
    /// Each boundary that is durable.
    Boundary,
    /// What has come since, this often.
    Interval(Duration),
}

/// The database's own apply.
#[derive(Clone, Debug)]
pub enum Command {
    /// What the operator wrote.
    Hook(Hook),
    /// What the engine has for it.
    Default {
        /// How its server is reached.
        dsn: Option<PathBuf>,
        /// After this long a portion has failed.
        timeout: Duration,
    },
}

impl Command {
    /// Refuses an engine that has no feed of its own.
    pub(super) fn check(&self, scheme: &Scheme) -> Result<()> {
        match self {
            Command::Default { .. } if !matches!(scheme, Scheme::Mariadb(_)) => no_default(scheme),
            _ => Ok(()),
        }
    }
}

fn no_default<T>(scheme: &Scheme) -> Result<T> {
    fail(Code::Usage, format!("engine {} has no default feed; name a command", scheme.engine()))
}

/// How to feed.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to run.
    pub command: Command,
    /// When to run it; by default each segment for a hook, each boundary for the engine's own feed.
    pub each: Option<Each>,
    /// How late: bytes are fed when their boundary is this old.
    pub delay: Duration,
    /// While this fails, feeding waits.
    pub gate: Option<Hook>,
}

const GATE_RETRY: Duration = Duration::from_secs(1);
const RETRY_LEAST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// Boundaries that wait for `--delay`, at most: beyond it, near ones are merged.
const WAITING_MOST: u32 = 4096;

/// What to give to the command next.
struct Portion {
    from: Position,
    to: Position,
    /// The last boundary in it. What a crashed master left behind it is part of no transaction.
    whole: Option<Position>,
    time: Option<Time>,
}

/// What runs.
enum Runner<'a> {
    Hook(&'a Hook),
    Mariadb(Mariadb, Pattern),
}

/// The feeding thread's state.
pub(super) struct Feed<'a> {
    options: &'a Options,
    runner: Runner<'a>,
    each: Each,
    dir: &'a Dir,
    state: Dir,
    origin: Origin,
    commit: &'a Commit,
    heard: &'a Mutex<Heard>,
    monitor: Monitor,
    follow: Follow,
    closed: Option<Closed>,
    waiting: VecDeque<(Position, Option<Time>)>,
    applied: Position,
    astray: Option<Position>,
    turn: u64,
    due: Instant,
}

/// Why feeding pauses.
enum Pause {
    /// Nothing is there to be fed yet.
    Nothing,
    /// Something will be, then.
    Until(Instant),
    /// The gate is shut, or an operator has paused it.
    Gate,
    /// The command failed.
    Failed(anyhow::Error),
}

impl<'a> Feed<'a> {
    pub(super) fn new(
        options: &'a Options,
        dir: &'a Dir,
        state: Dir,
        origin: Origin,
        commit: &'a Commit,
        heard: &'a Mutex<Heard>,
        monitor: Monitor,
    ) -> Result<Feed<'a>> {
        let applied = site::applied(&state)?.unwrap_or(origin.start);
        let astray = site::astray(&state)?;
        let follow = Follow::new(state.try_clone()?, site::SEGMENTS);
        let (closed, waiting, due) = (None, VecDeque::new(), Instant::now());
        let turn = commit.durable().turn;
        let (runner, each) = match &options.command {
            Command::Hook(hook) => (Runner::Hook(hook), Each::Segment),
            Command::Default { dsn, timeout } => {
                let Scheme::Mariadb(pattern) = &origin.scheme else {
                    return no_default(&origin.scheme);
                };
                let server = Server { options: dsn.clone() };
                (Runner::Mariadb(Mariadb::new(server, *timeout), pattern.clone()), Each::Boundary)
            }
        };
        let each = options.each.unwrap_or(each);
        Ok(Feed {
            options,
            runner,
            each,
            dir,
            state,
            origin,
            commit,
            heard,
            monitor,
            follow,
            closed,
            waiting,
            applied,
            astray,
            turn,
            due,
        })
    }

    /// Feeds until `ending` says that nothing more will come; then feeds what is due, once more.
    pub(super) fn run(&mut self, bell: &Bell, stop: &Stop, ending: &dyn Fn() -> bool) -> Result<()> {
        // Whatever ends it while log still lands: nobody would hear of it before the stream's end.
        self.go_on(bell, stop, ending).inspect_err(|error| self.heard.lock().starved(error))
    }

    fn go_on(&mut self, bell: &Bell, stop: &Stop, ending: &dyn Fn() -> bool) -> Result<()> {
        let mut retry = RETRY_LEAST;
        loop {
            let last = ending();
            if last {
                // What came since the last interval does not wait for another.
                self.due = Instant::now();
            }
            let pause = loop {
                match self.step()? {
                    None if stop.is_asked() => return Ok(()),
                    None => {
                        self.heard.lock().fed();
                        retry = RETRY_LEAST;
                    }
                    Some(pause) => break pause,
                }
            };
            match &pause {
                Pause::Failed(error) => self.heard.lock().starved(error),
                Pause::Nothing => self.heard.lock().fed(),
                Pause::Until(_) | Pause::Gate => {}
            }
            match pause {
                Pause::Failed(error) if last => return Err(error),
                _ if last || stop.is_asked() => return Ok(()),
                Pause::Nothing => bell.wait_until(Instant::now() + Duration::from_secs(60)),
                Pause::Until(when) => bell.wait_until(when),
                Pause::Gate => Self::rest(GATE_RETRY, bell, stop, ending),
                Pause::Failed(error) => {
                    let next = format!("feeding is tried again in {} s, receiving goes on", retry.as_secs());
                    (self.monitor)(Note::trouble(&error, next));
                    Self::rest(retry, bell, stop, ending);
                    retry = (retry * 2).min(RETRY_MOST);
                }
            }
        }
    }

    /// Waits for a time, through rings, unless the end comes.
    fn rest(time: Duration, bell: &Bell, stop: &Stop, ending: &dyn Fn() -> bool) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline && !stop.is_asked() && !ending() {
            bell.wait_until(deadline);
        }
    }

    /// Feeds one portion; `Some` when there is none to feed now.
    fn step(&mut self) -> Result<Option<Pause>> {
        let portion = match self.plan()? {
            Ok(portion) => portion,
            Err(pause) => return Ok(Some(pause)),
        };
        if role::paused(&self.state, Direction::Feed)?.is_some() {
            return Ok(Some(Pause::Gate));
        }
        if let Some(gate) = &self.options.gate
            && gate.run(&self.values(&portion)).is_err()
        {
            return Ok(Some(Pause::Gate));
        }
        let values = self.values(&portion);
        let fed = match &mut self.runner {
            Runner::Hook(hook) => hook.run(&values),
            Runner::Mariadb(..) if self.astray.is_some() => return Ok(Some(Pause::Failed(self.is_astray()))),
            Runner::Mariadb(mariadb, pattern) => {
                let name = self.origin.scheme.name(portion.to.segment);
                let to = portion.whole.map_or(0, |whole| whole.offset);
                mariadb.run(Part { pattern, dir: self.dir, name: &name, from: portion.from.offset, to }, &self.state)
            }
        };
        if let Err(error) = fed {
            return Ok(Some(Pause::Failed(error)));
        }
        let durable = self.commit.durable();
        let held = durable.holding.map(|holding| holding.held.position);
        if durable.turn != self.turn
            && let (Runner::Mariadb(..), Some(held)) = (&self.runner, held.filter(|held| *held < portion.to))
        {
            // It was set aside while it was fed.
            site::set_astray(&self.state, held, portion.to)?;
        }
        self.applied = portion.to;
        self.commit.applied(self.turn, portion.to, || site::set_applied(&self.state, portion.to))?;
        Ok(None)
    }

    /// A database that goes by its own identifiers would take what replaces a tail for what it has: they are the same.
    fn is_astray(&self) -> anyhow::Error {
        let fed = self.astray.map(|fed| fed.to_string()).unwrap_or_default();
        let text = format!(
            "the database executed log up to {fed} that is set aside now: make it anew from a base copy of the master, \
             then remove {}",
            self.state.shown(site::APPLIED)
        );
        Failure::new(Code::Hook, text).into()
    }

    fn values(&self, portion: &Portion) -> Vec<(&'static str, String)> {
        let name = self.origin.scheme.name(portion.to.segment);
        vec![
            ("REPL_SET", self.origin.set.clone()),
            ("REPL_DIR", self.dir.path().display().to_string()),
            ("REPL_PATH", self.dir.path().join(&name).display().to_string()),
            ("REPL_SEGMENT", name),
            ("REPL_FROM", portion.from.to_string()),
            ("REPL_TO", portion.to.to_string()),
            ("REPL_TIME", portion.time.map(|time| time.to_string()).unwrap_or_default()),
        ]
    }

    /// What to feed next, of what is durable.
    fn plan(&mut self) -> Result<Result<Portion, Pause>> {
        let durable = self.commit.durable();
        if durable.turn != self.turn {
            // A tail was set aside: closed segments and boundaries that were seen may have been part of it.
            self.turn = durable.turn;
            self.applied = self.commit.fed().unwrap_or(self.origin.start);
            self.astray = site::astray(&self.state)?;
            self.follow = Follow::new(self.state.try_clone()?, site::SEGMENTS);
            self.closed = None;
            self.waiting.clear();
        }
        let Some(holding) = durable.holding else {
            return Ok(Err(Pause::Nothing));
        };
        self.remember(holding.boundary);
        if let Each::Interval(_) = self.each
            && Instant::now() < self.due
        {
            return Ok(Err(Pause::Until(self.due)));
        }
        if let Some(portion) = self.closed_portion(holding.held.position)? {
            return Ok(portion);
        }
        if self.each == Each::Segment {
            return Ok(Err(Pause::Nothing));
        }
        Ok(self.open_portion())
    }

    /// The rest of the next closed segment.
    fn closed_portion(&mut self, held: Position) -> Result<Option<Result<Portion, Pause>>> {
        loop {
            if self.closed.as_ref().is_none_or(|closed| closed.segment.at(closed.length) <= self.applied) {
                let Some(line) = self.follow.next_line()? else {
                    self.closed = None;
                    return Ok(None);
                };
                self.closed = Closed::parse(&line);
                continue;
            }
            let Some(closed) = self.closed.as_ref().filter(|closed| closed.segment.at(closed.length) <= held) else {
                // Recorded, but its position is not durable yet.
                return Ok(Some(Err(Pause::Nothing)));
            };
            let portion = Portion {
                from: self.applied.max(closed.segment.at(0)),
                to: closed.segment.at(closed.length),
                whole: closed.boundary,
                time: closed.time,
            };
            return Ok(Some(self.delayed(portion)));
        }
    }

    /// What a boundary in the open segment allows.
    fn open_portion(&mut self) -> Result<Portion, Pause> {
        while self.waiting.front().is_some_and(|(at, _)| *at <= self.applied) {
            self.waiting.pop_front();
        }
        let Some((first, time)) = self.waiting.front().copied() else {
            if let Each::Interval(interval) = self.each {
                self.due = Instant::now() + interval;
            }
            return Err(Pause::Nothing);
        };
        let from = self.applied.max(first.segment.at(0));
        let mut portion = self.delayed(Portion { from, to: first, whole: Some(first), time })?;
        // All that are old enough go in one portion.
        for (at, time) in self.waiting.iter().skip(1) {
            if at.segment != first.segment || self.wait_for(*time).is_some() {
                break;
            }
            (portion.to, portion.whole, portion.time) = (*at, Some(*at), *time);
        }
        Ok(portion)
    }

    fn remember(&mut self, boundary: Option<(Position, Option<Time>)>) {
        let Some((at, time)) = boundary.filter(|(at, _)| *at > self.applied) else {
            return;
        };
        if let Some((last, last_time)) = self.waiting.back_mut() {
            if *last >= at {
                return;
            }
            let grain = self.options.delay.as_micros() as i64 / i64::from(WAITING_MOST);
            let is_near = matches!((time, *last_time), (Some(new), Some(old)) if new.0 - old.0 <= grain);
            if self.waiting.len() > 1 && is_near || self.options.delay.is_zero() {
                let _ = self.waiting.pop_back();
            }
        }
        self.waiting.push_back((at, Some(time.unwrap_or_else(clock::now))));
    }

    /// Holds a portion back until it is old enough.
    fn delayed(&self, portion: Portion) -> Result<Portion, Pause> {
        match self.wait_for(portion.time) {
            Some(wait) => Err(Pause::Until(Instant::now() + wait)),
            None => Ok(portion),
        }
    }

    /// How long something of this time must wait yet; looked at again each minute, in case the clock was set.
    fn wait_for(&self, time: Option<Time>) -> Option<Duration> {
        if self.options.delay.is_zero() {
            return None;
        }
        let age = Duration::from_micros(u64::try_from(clock::now().0 - time?.0).unwrap_or(0));
        let left = self.options.delay.saturating_sub(age);
        (!left.is_zero()).then(|| left.min(Duration::from_secs(60)))
    }
}
