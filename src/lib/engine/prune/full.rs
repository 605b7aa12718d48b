//! What is done when a master's disk is nearly full though all that could go has gone: nothing, an orderly end of the
//! database before the disk ends it, or log is given up that somebody still needs.

use std::collections::BTreeSet;

use anyhow::Result;

use super::dropped::{self, Dropped};
use super::master::{Master, give_up};
use super::plan::Plan;
use crate::edge::clone::{free_space, whole_space};
use crate::edge::dir::Dir;
use crate::edge::hook::Hook;
use crate::engine::note::{Monitor, Note};
use crate::engine::release::Release;
use crate::rule::retention;
use crate::value::exit::{Code, Failure};
use crate::value::position::Segment;

/// What is done then.
#[derive(Clone, Debug)]
pub enum Policy {
    /// Nothing more is removed.
    Keep,
    /// This ends the database.
    Stop(Hook),
    /// Closed segments go, oldest first, until there is enough space.
    Drop,
}

/// When that is, and what is done.
#[derive(Clone, Debug)]
pub struct Full {
    /// See [`Policy`].
    pub policy: Policy,
    /// Bytes that must be free; `None` for a twentieth of the file system.
    pub least: Option<u64>,
}

/// Looks at the disk, and does what was told when it is too full; what is to be said then.
pub(super) fn look(
    master: Master<'_>,
    state: &Dir,
    full: &Full,
    plan: &mut Plan,
    monitor: &Monitor,
) -> Result<Option<Failure>> {
    let least = match full.least {
        Some(least) => least,
        None => whole_space(master.dir)? / 20,
    };
    let mut free = free_space(master.dir)?.0;
    if free >= least {
        return Ok(None);
    }
    match &full.policy {
        Policy::Keep => {}
        Policy::Stop(hook) => hook.run(&[
            ("REPL_DIR", master.dir.path().display().to_string()),
            ("REPL_FREE", free.to_string()),
            ("REPL_MIN_FREE", least.to_string()),
        ])?,
        Policy::Drop => {
            while free < least && drop_some(master, state, least - free, plan, monitor)? {
                free = free_space(master.dir)?.0;
                if let Release::Slot(_) = master.release {
                    // The server removes it at its next checkpoint.
                    break;
                }
            }
        }
    }
    let text = format!("{} has {free} bytes free, {least} are wanted", master.dir.shown(""));
    let hint = "see who keeps log with repl-prune --explain NAME DIR";
    Ok((free < least).then(|| Failure::new(Code::Full, text).hint(hint)))
}

/// Gives up the oldest closed segments that make so many bytes free; false when none went.
fn drop_some(master: Master<'_>, state: &Dir, bytes: u64, plan: &mut Plan, monitor: &Monitor) -> Result<bool> {
    let Some(last) = plan.kept.last().map(|file| file.segment) else {
        return Ok(false);
    };
    let can_go = match master.release {
        Release::Slot(_) => plan.kept.iter().map(|file| file.segment).filter(|segment| *segment < last).collect(),
        release => release.candidates(master.dir, master.scheme, last)?,
    };
    let Some(to) = end_of(&can_go, plan, bytes) else {
        return Ok(false);
    };
    let oldest = plan.kept.first().map_or(to, |file| file.segment);
    if let Some(dropped) = Dropped::of(&plan.needs, oldest, to) {
        dropped::add(state, &dropped, &format!("the disk had {bytes} bytes too few"))?;
        let text = format!("log from {} to {} is given up: the disk is full", dropped.from, dropped.to);
        (monitor)(Note::Warning(text));
    }
    let before = plan.kept.len();
    give_up(master, plan, to.at(0))?;
    Ok(plan.kept.len() < before)
}

/// The first segment that stays when the oldest of these go.
fn end_of(can_go: &BTreeSet<Segment>, plan: &Plan, bytes: u64) -> Option<Segment> {
    let files: Vec<_> = plan.kept.iter().take_while(|file| can_go.contains(&file.segment)).collect();
    let count = retention::to_free(files.iter().map(|file| file.bytes), bytes);
    if count == 0 { None } else { plan.kept.get(count).map(|file| file.segment) }
}
