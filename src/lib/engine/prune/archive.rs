//! Prunes an archive, while log may be landing in it, bases be copied into it and recoveries read from it.
//!
//! In this order, so that a kill at any instant leaves an archive that is whole:
//!
//! 1. Leases are looked at, and none can be taken until 4 (see [`crate::engine::archive::lease`]).
//! 2. Bases that go lose their names, durably. From here on nothing needs the log that they needed; were it the other
//!    way round, a base could be there of which the log is gone.
//! 3. The horizon is written, durably. What lies before it is not there any more, for any reader.
//! 4. Leases can be taken again.
//! 5. Lines before the horizon are taken out, then the files removed, oldest first: no line is ever of a file that is
//!    gone, and what is left is never behind a hole.
//! 6. The files of the bases are removed.
//!
//! Each run does 5 and 6 again for what an earlier one has left.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::consumers::{self, Sender};
use super::plan::{File, Plan};
use super::{LOCK, Options, standby};
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::lock::Lock;
use crate::edge::read::prefix;
use crate::engine::archive::base::{self, Base};
use crate::engine::archive::lease::{Held, Look};
use crate::engine::archive::{Archive, BASES, gone};
use crate::engine::site::{self, horizon};
use crate::rule::retention::{self, Need, Stand, Who};
use crate::rule::scheme::Scheme;
use crate::value::digest::Running;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Position, Segment};

/// Whether a directory is an archive, or another site that receives: not a master's.
pub fn is_one(dir: &Dir, state: Option<&Path>) -> Result<bool> {
    let Some(state) = site::peek(dir, state)? else {
        return Ok(false);
    };
    Ok(state.identity(site::ORIGIN)?.is_some() || state.identity(site::POSITION)?.is_some())
}

/// Prunes an archive with its state in `state` instead of `.repl`, from which `senders` may ship on.
pub fn run(dir: &Dir, state: Option<&Path>, senders: &[Sender], options: &Options) -> Result<Plan> {
    let archive = Archive::open(dir, state)?;
    check_owner(dir, &archive.origin.scheme)?;
    let _lock = if options.is_dry { None } else { Some(Lock::take(&archive.state, LOCK)?) };
    let look = Look::begin(&archive.state)?;
    // What is held is read anew, behind the lock.
    let archive = Archive::open(dir, state)?;
    let plan = plan(&archive, &look.held()?, senders, options)?;
    if options.is_dry {
        return Ok(plan);
    }
    // What an earlier run has left could have the name that is needed now.
    gone::finish(dir)?;
    gone::hide(dir, &plan.going_bases())?;
    if let Some(before) = plan.horizon.filter(|before| Some(*before) > plan.pruned) {
        horizon::write(&archive.state, before)?;
    }
    look.sweep()?;
    drop(look);
    sweep(&archive, &plan)?;
    gone::finish(dir)?;
    record(&archive.state, &plan, options.reason.as_deref())?;
    Ok(plan)
}

/// A live server removes its own log, by its own rules.
fn check_owner(dir: &Dir, scheme: &Scheme) -> Result<()> {
    if let Some(mark) = scheme.servers_mark().filter(|mark| matches!(dir.identity(mark), Ok(Some(_)))) {
        let text = format!("{} is a server's own log directory ({mark} is in it)", dir.shown(""));
        return Err(Failure::new(Code::Guarded, text).hint("the server removes its log by itself").into());
    }
    Ok(())
}

fn plan(archive: &Archive<'_>, leases: &[Held], senders: &[Sender], options: &Options) -> Result<Plan> {
    let (dir, scheme) = (archive.dir, &archive.origin.scheme);
    let bases = base::list(dir)?;
    let files = files(dir, scheme)?;
    let mut plan = Plan {
        scheme: scheme.clone(),
        is_master: false,
        horizon: None,
        pruned: archive.horizon,
        bases: Vec::new(),
        needs: Vec::new(),
        kept: Vec::new(),
        going: Vec::new(),
    };
    let end = archive.holding.map(|holding| holding.held.position);
    let leased = |base: &Base| leases.iter().any(|lease| lease.base.as_ref() == Some(&base.name));
    let stands: Vec<_> = bases.iter().map(|base| stand(base, leased(base))).collect();
    let origin = Segment::new(0, 0).at(0);
    let said = retention::bases(&stands, options.keep, end.unwrap_or(origin), clock::now());
    plan.bases = stands.iter().map(|stand| stand.name.clone()).zip(said).collect();
    plan.needs = needs(archive, &plan, &stands, leases, senders, options)?;
    consumers::check(&plan.needs, end.unwrap_or(origin))?;
    plan.horizon = retention::horizon(&plan.needs).max(archive.horizon);
    (plan.going, plan.kept) = files.into_iter().partition(|file| Some(file.segment) < plan.horizon);
    if !plan.going_bases().is_empty() || plan.horizon > plan.pruned {
        check_rest(archive, &bases, &plan)?;
    }
    Ok(plan)
}

fn stand(base: &Base, is_leased: bool) -> Stand {
    let Base { name, record } = base;
    Stand { name: name.clone(), ended: record.ended, position: record.position, is_leased }
}

/// Who needs what of the log.
fn needs(
    archive: &Archive<'_>,
    plan: &Plan,
    stands: &[Stand],
    leases: &[Held],
    senders: &[Sender],
    options: &Options,
) -> Result<Vec<Need>> {
    let Some(holding) = archive.holding else {
        return Ok(vec![Need { who: Who::Nobody("nothing is held yet"), from: None }]);
    };
    let (dir, state, scheme, held) = (archive.dir, &archive.state, &plan.scheme, holding.held.position);
    let applied = site::applied(state)?;
    let mut needs: Vec<Need> = stands
        .iter()
        .zip(&plan.bases)
        .filter(|(_, (_, why))| why.is_some())
        .map(|(stand, _)| Need { who: Who::Base(stand.name.clone()), from: stand.position })
        .collect();
    let mut others = consumers::needs(state)?;
    if options.with_receivers {
        others.extend(consumers::receivers(dir, senders)?);
    }
    if options.is_standby {
        needs.push(standby::need(dir, scheme, held, applied)?);
    } else if needs.is_empty() {
        needs.extend(unsaid(archive, !others.is_empty())?);
    }
    needs.append(&mut others);
    let lease = |lease: &Held| Need { who: Who::Lease(lease.name.clone()), from: lease.from };
    needs.extend(leases.iter().map(lease));
    needs.extend(applied.map(|applied| Need { who: Who::Feed, from: Some(applied) }));
    needs.push(Need { who: Who::End, from: Some(held) });
    Ok(needs)
}

/// Why nothing can go though there is no base.
fn unsaid(archive: &Archive<'_>, has_consumers: bool) -> Result<Option<Need>> {
    let scheme = &archive.origin.scheme;
    let first = files(archive.dir, scheme)?.first().map(|file| file.segment);
    let is_self_contained = archive.horizon.is_none() && first.is_some_and(|first| scheme.is_first(first));
    let why = match (is_self_contained, has_consumers) {
        (true, _) => "whoever recovers: there is no base, and only all of the log rebuilds the database",
        (false, false) => "whoever comes: there is no base and no consumer, so nobody has said what is needed",
        (false, true) => return Ok(None),
    };
    Ok(Some(Need { who: Who::Nobody(why), from: None }))
}

/// All files of log, oldest first, those too that the engine keeps under another name.
pub(super) fn files(dir: &Dir, scheme: &Scheme) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for name in dir.names()? {
        let Some(name) = name.to_str() else {
            continue;
        };
        if let Some(segment) = scheme.segment(name).or_else(|| scheme.segment_aside(name)) {
            let bytes = dir.open_read(name)?.map(|file| file.metadata()).transpose()?.map(|file| file.blocks() * 512);
            files.push(File { segment, name: name.to_owned(), bytes: bytes.unwrap_or_default() });
        }
    }
    files.sort_by(|one, other| (one.segment, &one.name).cmp(&(other.segment, &other.name)));
    Ok(files)
}

/// Before anything goes: what is to stay must be there. Its bytes are for `repl-verify` to prove.
fn check_rest(archive: &Archive<'_>, bases: &[Base], plan: &Plan) -> Result<()> {
    for Base { name, record } in
        bases.iter().filter(|base| plan.bases.iter().any(|(name, why)| *name == base.name && why.is_some()))
    {
        let dir = archive.dir.open_subdir(BASES)?.open_subdir(name)?;
        let sums = dir.open_read(base::SUMS)?.map(|sums| prefix(&sums, Running::new(), u64::MAX)).transpose()?;
        let sums = sums.map(|sums| sums.digest());
        if dir.identity(base::DATA)?.is_none() || sums != Some(record.sums) {
            let failure = Failure::new(Code::Corrupt, format!("{} is damaged: nothing is removed", dir.shown("")));
            return Err(failure.hint("look at it; move it away if another one is to be kept instead").into());
        }
    }
    let there: BTreeSet<Segment> = plan.kept.iter().map(|file| file.segment).collect();
    site::closed_segments(&archive.state, |closed| {
        let is_held = archive.holding.is_some_and(|holding| holding.holds(closed.segment));
        if is_held && Some(closed.segment) >= plan.horizon && !there.contains(&closed.segment) {
            let name = archive.dir.shown(&plan.scheme.name(closed.segment));
            let failure =
                Failure::new(Code::Gap, format!("{name} is missing, and recorded as held: nothing is removed"));
            return Err(failure.hint("see what else is missing with repl-verify").into());
        }
        Ok(())
    })
}

/// Takes away what lies before the horizon: lines, then files.
fn sweep(archive: &Archive<'_>, plan: &Plan) -> Result<()> {
    let Some(before) = plan.horizon else {
        return Ok(());
    };
    horizon::take_out_lines(&archive.state, &plan.scheme, before)?;
    for file in &plan.going {
        archive.dir.remove_if_there(&file.name)?;
    }
    if plan.going.is_empty() { Ok(()) } else { archive.dir.sync() }
}

fn record(state: &Dir, plan: &Plan, reason: Option<&str>) -> Result<()> {
    let bases = plan.going_bases();
    if bases.is_empty() && plan.going.is_empty() {
        return Ok(());
    }
    let before = plan.horizon.map(|before| format!(", log is kept from {before} on")).unwrap_or_default();
    let bases = if bases.is_empty() { String::new() } else { format!(", bases {}", bases.join(" ")) };
    let detail = format!("{} segments, {} bytes{bases}{before}", plan.going.len(), plan.bytes());
    site::record(state, "prune", &detail, reason).context("cannot keep what was pruned")
}

/// Where a consumer may stand: in log that is here.
pub(super) fn check_place(dir: &Dir, state: Option<&Path>, at: Position) -> Result<()> {
    let archive = Archive::open(dir, state)?;
    let first = files(dir, &archive.origin.scheme)?.first().map(|file| file.segment).max(archive.horizon);
    match (first, archive.holding.map(|holding| holding.held.position)) {
        (Some(first), Some(end)) => super::check_range(at, first, end),
        _ => fail(Code::Usage, "nothing is held yet, so no consumer can have it"),
    }
}
