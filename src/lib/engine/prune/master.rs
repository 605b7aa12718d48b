//! Prunes a master's log directory: what all that need it have flushed, by the engine's own removal. Consumers are kept in
//! the sender's state directory; into the log directory nothing is written.
//!
//! At a master nobody knows but them what is needed. So at least one must be known, and none of whom too much is said.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::consumers::{self, Sender};
use super::dropped;
use super::full::{self, Full};
use super::plan::{File, Plan};
use super::{LOCK, Options};
use crate::edge::dir::Dir;
use crate::edge::lock::Lock;
use crate::engine::note::Monitor;
use crate::engine::release::Release;
use crate::engine::{log, site};
use crate::rule::retention::{self, Need, Who};
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Position, Segment};

/// A master's log.
#[derive(Clone, Copy, Debug)]
pub struct Master<'a> {
    /// Its directory.
    pub dir: &'a Dir,
    /// Its rules.
    pub scheme: &'a Scheme,
    /// The state of its sender.
    pub state: &'a Path,
    /// Other senders of it, each with a receiver of its own.
    pub senders: &'a [Sender],
    /// How log is removed there.
    pub release: &'a Release,
}

impl Master<'_> {
    /// What the receivers of all senders need.
    fn receivers(&self) -> Result<Vec<Need>> {
        let own = Sender { state: self.state.to_owned(), is_told: false };
        let mut needs = consumers::receivers(self.dir, &[own])?;
        needs.extend(consumers::receivers(self.dir, self.senders)?);
        Ok(needs)
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What went.
    pub plan: Plan,
    /// What is not as it should be though all was done: log that was dropped (11), or a disk that is full (12).
    pub verdict: Option<Failure>,
}

/// Prunes a master's log; then looks at the disk.
pub fn run(master: Master<'_>, full: &Full, options: &Options, monitor: &Monitor) -> Result<Outcome> {
    if !master.state.exists() && master.senders.is_empty() {
        return nobody();
    }
    let state = if options.is_dry { Dir::open(master.state)? } else { Dir::create(master.state)? };
    let _lock = if options.is_dry { None } else { Some(Lock::take(&state, LOCK)?) };
    let mut needs = consumers::needs(&state)?;
    let receivers = master.receivers()?;
    let open = dropped::settle(&state, &[needs.as_slice(), receivers.as_slice()].concat(), options.is_dry)?;
    if options.with_receivers {
        needs.extend(receivers);
    }
    if needs.is_empty() {
        return nobody();
    }
    let mut plan = plan(master, needs)?;
    if options.is_dry {
        return Ok(Outcome { plan, verdict: dropped::verdict(&open) });
    }
    carry_out(master, &mut plan)?;
    let low = full::look(master, &state, full, &mut plan, monitor)?;
    record(&state, &plan, options)?;
    Ok(Outcome { plan, verdict: dropped::verdict(&dropped::open(&state)?).or(low) })
}

/// Says what is open still of log that was dropped, by what those who needed it have now.
pub fn open(master: Master<'_>) -> Result<Option<Failure>> {
    let state = Dir::open(master.state)?;
    let _lock = Lock::take(&state, LOCK)?;
    let mut needs = consumers::needs(&state)?;
    needs.extend(master.receivers()?);
    Ok(dropped::verdict(&dropped::settle(&state, &needs, false)?))
}

fn nobody() -> Result<Outcome> {
    let text = "no consumer is known, so nobody has said what is needed";
    let hint = "name each one: repl-prune --consumer NAME=POSITION DIR; or ship with the same --state";
    Err(Failure::new(Code::Guarded, text).hint(hint).into())
}

fn plan(master: Master<'_>, mut needs: Vec<Need>) -> Result<Plan> {
    let Master { dir, scheme, release, .. } = master;
    let files = files(dir, scheme)?;
    if let Some(last) = files.last() {
        consumers::check(&needs, last.segment.at(u64::MAX))?;
        needs.push(Need { who: Who::End, from: Some(last.segment.at(0)) });
    }
    let horizon = retention::horizon(&needs);
    let going = match horizon {
        Some(horizon) => release.candidates(dir, scheme, horizon)?,
        None => BTreeSet::new(),
    };
    let (going, kept) = files.into_iter().partition(|file| going.contains(&file.segment));
    Ok(Plan { scheme: scheme.clone(), is_master: true, horizon, pruned: None, bases: Vec::new(), needs, kept, going })
}

/// The segments that are there, in order.
pub(super) fn files(dir: &Dir, scheme: &Scheme) -> Result<Vec<File>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut files = Vec::new();
    for (segment, name) in log::segments(dir, scheme, |_| false)? {
        let bytes = dir.open_read(&name)?.map(|file| file.metadata()).transpose()?.map(|file| file.blocks() * 512);
        files.push(File { segment, name, bytes: bytes.unwrap_or_default() });
    }
    Ok(files)
}

/// Gives up what was planned.
fn carry_out(master: Master<'_>, plan: &mut Plan) -> Result<()> {
    // Of those who need it, not of the log's end: a slot stands where they are, in the middle of a segment too.
    let froms = plan.needs.iter().filter(|need| need.who != Who::End).map(|need| need.from);
    match (froms.min().flatten(), master.release) {
        (Some(from), Release::Slot(_)) => give_up(master, plan, from),
        (Some(from), _) if !plan.going.is_empty() => give_up(master, plan, from),
        _ => Ok(()),
    }
}

/// Gives up what lies before a position, and sees what went: an engine may keep some of it for itself.
pub(super) fn give_up(master: Master<'_>, plan: &mut Plan, before: Position) -> Result<()> {
    master.release.up_to(master.dir, master.scheme, before)?;
    let there: BTreeSet<Segment> = files(master.dir, master.scheme)?.into_iter().map(|file| file.segment).collect();
    let mut all = std::mem::take(&mut plan.going);
    all.append(&mut plan.kept);
    all.sort_by_key(|file| file.segment);
    (plan.kept, plan.going) = all.into_iter().partition(|file| there.contains(&file.segment));
    Ok(())
}

fn record(state: &Dir, plan: &Plan, options: &Options) -> Result<()> {
    if options.is_dry || plan.going.is_empty() {
        return Ok(());
    }
    let detail = format!("{} segments, {} bytes", plan.going.len(), plan.bytes());
    site::record(state, "prune", &detail, options.reason.as_deref())
}

/// Where a consumer may stand: in log that is here.
pub(super) fn check_place(dir: &Dir, scheme: &Scheme, at: Position) -> Result<()> {
    let files = files(dir, scheme)?;
    match (files.first(), files.last()) {
        (Some(first), Some(last)) => super::check_range(at, first.segment, last.segment.at(u64::MAX)),
        _ => fail(Code::Usage, "there is no log here yet, so no consumer can have it"),
    }
}
