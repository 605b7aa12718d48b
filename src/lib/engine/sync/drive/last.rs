//! The last pass: the source holds still, or its backup procedure is on, the destination's server is stopped, and what
//! changed since the hot passes is read.

use std::time::Instant;

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
    pub(super) began: Instant,
    pub(super) was_running: bool,
    /// Receivers of log that are kept out.
    pub(super) streams: Vec<Lock>,
}

impl Drive<'_> {
    /// The source holds still, the server is stopped, and what changed since is read.
    pub(super) fn last(
        &mut self,
        state: &State,
        server: &mut Server,
        ground: &Ground,
        mut stopped: Stopped,
        trusts: bool,
    ) -> Result<(Stopped, String)> {
        let mut tries = 1;
        let source = loop {
            let begun = self.desk().errand(Errand::Begin, &[])?;
            let has = |key: &str| begun.iter().any(|(name, _)| name.bytes() == key.as_bytes());
            (self.may_change, self.needs_recovery) = (has("may-change"), has("needs-recovery"));
            if tries == 1 {
                self.hook("before-stop")?;
                stopped.began = Instant::now();
                stopped.streams = self.hold_streams()?;
                server.stop()?;
                stopped.was_running = server.was_stopped_by_us();
                self.hook("after-stop")?;
            }
            let (laid, source) = self.read(state, ground, trusts || tries > 1)?;
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
        Ok((stopped, source))
    }

    /// What changed since the hot passes, in the order that the engine wants.
    fn read(&mut self, state: &State, ground: &Ground, trusts: bool) -> Result<(Laid, String)> {
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
            source = self.settle(state, ground, &turnout, trusts || phase > 0)?;
        }
        Ok((laid, source))
    }

    /// Passes until everything of some names is settled.
    fn settle(
        &mut self,
        state: &State,
        ground: &Ground,
        turnout: &(dyn Fn(&Name) -> bool + Sync),
        trusts: bool,
    ) -> Result<String> {
        let mut trusts = trusts;
        let mut tries = 1;
        loop {
            let mut passes = self.passes(Some(state.dir()))?;
            passes.manner.trusts_pending = trusts;
            let Passed { counts, unsettled, others, source, .. } = passes.run(ground.target(), turnout)?;
            trusts = true;
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
