//! The state directory of a sender.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::role;
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::usage::Process;
use crate::engine::prune::dropped;
use crate::rule::status::sender::{Dropped, Sender};
use crate::rule::status::{Part, What};
use crate::value::exit::{Code, fail};

/// The status file's name.
pub(super) const FILE: &str = "status.json";
/// Longest that is read.
const MOST: u64 = 1 << 20;
/// The name of a sender's process.
const COMMAND: &str = "repl-ship";

/// What a sender has said; `None` when it has said nothing.
pub(super) fn read(state: &Dir) -> Result<Option<Part>> {
    let Some(bytes) = state.read_small(FILE, MOST)? else {
        return Ok(None);
    };
    let mut sender = match Sender::parse(&bytes) {
        Ok(sender) => sender,
        Err(why) => return fail(Code::Corrupt, format!("{} is damaged: {why}", state.shown(FILE))),
    };
    sender.state_dir = state.path().to_string_lossy().into_owned();
    sender.running = sender.pid.map(|pid| is_running(pid, COMMAND));
    (sender.dropped, sender.fault) = gaps(state);
    sender.told = role::of_sender(Path::new(&sender.logdir), state);
    // Now is after all that was read: no age is below zero.
    Ok(Some(Part::new(clock::now(), What::Sender(Box::new(sender)))))
}

/// Whether a process is there, and is a command of ours: its number may be another's by now.
pub(super) fn is_running(pid: i32, command: &str) -> bool {
    Process::living(pid).is_some_and(|process| process.name == command)
}

/// Log that was given up, or why that is not known.
pub(super) fn gaps(state: &Dir) -> (Vec<Dropped>, Option<String>) {
    match dropped::open(state) {
        Ok(open) => {
            let gap = |gap: dropped::Dropped| Dropped { from: Some(gap.from), to: Some(gap.to), who: gap.who };
            (open.into_iter().map(gap).collect(), None)
        }
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    }
}

/// The log directory that a sender's status names in full.
pub(super) fn log_of(path: &Path) -> Option<PathBuf> {
    let bytes = Dir::open(path).ok()?.read_small(FILE, MOST).ok()??;
    let log = PathBuf::from(Sender::parse(&bytes).ok()?.logdir);
    log.is_absolute().then(|| std::fs::canonicalize(&log).unwrap_or(log))
}
