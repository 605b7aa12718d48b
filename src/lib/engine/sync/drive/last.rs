//! The last pass: the source holds still, or its backup procedure is on, what changed since the hot passes is read, the
//! destination's server is stopped, and what changed in between is read.
//!
//! The server is down for what the stop and the start take, a look at both trees, and what is left to read: what its stop
//! has changed, and the end of the log. What the source's log makes up for needs no reading again: it was read when the
//! procedure was on already.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Drive, matching, settled};
use crate::edge::lock::Lock;
use crate::edge::tree::Tree;
use crate::engine::sync::ground::Ground;
use crate::engine::sync::receiver::Passed;
use crate::engine::sync::server::Server;
use crate::engine::sync::source::Laid;
use crate::engine::sync::state::State;
use crate::engine::sync::streams;
use crate::rule::sync::filter::Filter;
use crate::rule::sync::wire::ask::Errand;
use crate::rule::sync::wire::corrupt;
use crate::value::exit::{Code, code_of};
use crate::value::name::Name;

/// Passes that try to settle what changes while it is read, before that is an error.
const TRIES: usize = 4;
/// Last passes until the source has held still from the beginning of one to its end, before that is an error.
const RELEASES: usize = 3;

/// Since when the server was down.
pub(super) struct Stopped {
    began: Instant,
    pub(super) was_running: bool,
    /// Receivers of log that are kept out.
    pub(super) streams: Vec<Lock>,
    /// What was done since, and when that was done.
    steps: Vec<(&'static str, Instant)>,
}

impl Stopped {
    /// It is about to be stopped.
    pub(super) fn now() -> Stopped {
        Stopped { began: Instant::now(), was_running: false, streams: Vec::new(), steps: Vec::new() }
    }

    /// Something is done.
    pub(super) fn did(&mut self, what: &'static str) {
        self.steps.push((what, Instant::now()));
    }

    /// How long it was down: until the last step was done.
    pub(super) fn took(&self) -> Duration {
        self.steps.last().map_or(Duration::ZERO, |(_, at)| *at - self.began)
    }

    /// What took how long.
    pub(super) fn shown(&self) -> String {
        let mut before = self.began;
        let parts = self.steps.iter().map(|(what, at)| {
            let part = format!("{what} {:.3} s", (*at - before).as_secs_f64());
            before = *at;
            part
        });
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// What a pass may take for known without reading it.
#[derive(Clone, Copy)]
struct Trust {
    /// What the journal has: it was compared in this run.
    pending: bool,
    /// What was read since the source's procedure began, and that makes up for.
    covered: bool,
}

impl Drive<'_> {
    /// The source holds still, the server is stopped, and what changed since is read.
    pub(super) fn last(
        &mut self,
        state: &State,
        server: &mut Server,
        ground: &Ground,
        trusts: bool,
    ) -> Result<(Stopped, String)> {
        let (mut tries, mut stopped) = (1, Stopped::now());
        let source = loop {
            let begun = self.desk().errand(Errand::Begin, &[])?;
            let has = |key: &str| begun.iter().any(|(name, _)| name.bytes() == key.as_bytes());
            (self.may_change, self.needs_recovery) = (has("may-change"), has("needs-recovery"));
            let mut trust = Trust { pending: trusts || tries > 1, covered: false };
            if tries == 1 {
                if has("is-held") {
                    // Most of what the last pass would have to read is read while the server still runs. No hook is run
                    // behind it: the source's writers may be waiting.
                    self.hot_pass(state, ground, trusts)?;
                    ground.settle()?;
                    trust = Trust { pending: true, covered: true };
                }
                self.hook("before-stop")?;
                stopped = Stopped::now();
                stopped.streams = self.hold_streams()?;
                server.stop()?;
                stopped.was_running = server.was_stopped_by_us();
                stopped.did("stop");
                self.hook("after-stop")?;
            }
            let (laid, source) = self.read(state, ground, trust)?;
            match self.desk().errand(Errand::Release, &[]) {
                Ok(_) => {
                    for (name, bytes) in &laid {
                        if !self.profile.lays(name) {
                            return Err(corrupt(format!("{name} belongs to no copy of a {} database", self.profile)));
                        }
                        ground.lay(name, bytes, self.options.manner.dress)?;
                    }
                    break source;
                }
                // What was read does not count; most of what it is compared with the next time is right.
                Err(error) if tries < RELEASES && matches!(code_of(&error), Code::Guarded | Code::Failed) => {
                    self.verbose(&format!("the last pass begins again: {error:#}"));
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        };
        ground.drop_names(&matching(self.profile.names().dropped)?, self.profile)?;
        stopped.did("last pass");
        Ok((stopped, source))
    }

    /// What changed since the hot passes, in the order that the engine wants.
    fn read(&mut self, state: &State, ground: &Ground, mut trust: Trust) -> Result<(Laid, String)> {
        let late = self.profile.names().late;
        let phases: Vec<Filter> = late.iter().map(|pattern| matching(&[pattern])).collect::<Result<_>>()?;
        let phase_of =
            |name: &Name| phases.iter().position(|phase| phase.leaves_out(name, false) || phase.leaves_out(name, true));
        let (mut laid, mut source) = (Laid::new(), String::new());
        for phase in 0..=phases.len() {
            if phase == 1 || phases.is_empty() {
                laid = self.desk().errand(Errand::Stop, &[])?;
            }
            let turnout = |name: &Name| phase_of(name).map_or(0, |at| at + 1) == phase;
            source = self.settle(state, ground, &turnout, trust, phase > 0)?;
            // What is copied late is the log that makes up for the others: it must be there to its end.
            trust = Trust { pending: true, covered: false };
        }
        Ok((laid, source))
    }

    /// Passes until everything of some names is settled.
    fn settle(
        &mut self,
        state: &State,
        ground: &Ground,
        turnout: &(dyn Fn(&Name) -> bool + Sync),
        mut trust: Trust,
        is_late: bool,
    ) -> Result<String> {
        let mut tries = 1;
        loop {
            let mut passes = self.passes(Some(state.dir()))?;
            (passes.manner.trusts_pending, passes.manner.is_covered) = (trust.pending, trust.covered);
            let Passed { counts, unsettled, others, source, .. } = passes.run(ground.target(), turnout)?;
            trust = Trust { pending: true, covered: !is_late };
            self.others = others;
            self.report.passes += 1;
            self.report.last_literal += counts.literal;
            self.report.counts.add(&counts);
            if unsettled.count == 0 || tries == TRIES {
                return settled(&unsettled).map(|()| source);
            }
            tries += 1;
        }
    }

    /// No log is landed in the destination from now on.
    fn hold_streams(&self) -> Result<Vec<Lock>> {
        if self.destination.exists() {
            streams::hold(self.profile, &Tree::open(&self.destination)?)
        } else {
            Ok(Vec::new())
        }
    }
}
