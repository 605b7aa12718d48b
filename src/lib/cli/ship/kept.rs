//! What `repl-ship` keeps on disk: a directory as told, or where it is by default if that can be had.

use std::path::Path;

use anyhow::Result;

use super::Args;
use crate::cli::args;
use crate::edge::dir::Dir;
use crate::engine::note::{Monitor, Note};
use crate::engine::role::{self, pause::Direction};
use crate::engine::ship::ledger::Ledger;
use crate::engine::ship::status::About;
use crate::engine::ship::{Options, Status};
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, code_of};

/// A state directory, and what is in it.
pub struct Kept {
    /// `None` where none can be had, and none was asked for.
    pub state: Option<Dir>,
    /// Memory of shipped segments.
    pub ledger: Ledger,
    /// Whether this is the one sender that writes there what it does: not one that ships a single segment beside it.
    is_keeper: bool,
}

impl Kept {
    /// Opens what is kept for a set, or for a log directory.
    pub fn open(args: &Args, scheme: &Scheme, set: &str, logdir: &Path, monitor: &Monitor) -> Result<Kept> {
        let state = directory(args, set, logdir, monitor)?;
        let ledger = match &state {
            Some(state) => Ledger::open(state, scheme),
            None => return Ok(Kept { state, ledger: Ledger::in_memory(), is_keeper: false }),
        };
        match ledger {
            Ok(ledger) => Ok(Kept { state, ledger, is_keeper: args.segment.is_none() }),
            // Another sender keeps this state; what it remembers is not needed to ship.
            Err(error) if code_of(&error) == Code::Busy && args.state.is_none() => {
                monitor(Note::Detail(format!("{error:#}")));
                Ok(Kept { state, ledger: Ledger::in_memory(), is_keeper: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses (13) what has an end while shipping is paused: there is nobody to wait until it goes on.
    pub fn check_pause(&self, options: &Options, logdir: &Dir) -> Result<()> {
        let state = self.state.as_ref().filter(|_| options.once);
        let paused = state.map(|state| role::paused(state, Direction::Ship)).transpose()?.flatten();
        paused.map_or(Ok(()), |paused| Err(paused.refusal(Code::Guarded, Direction::Ship, logdir).into()))
    }

    /// Where it is told what this sender does.
    pub fn status(&self, options: &Options, logdir: &Path) -> Result<Option<Status>> {
        let Some(state) = self.state.as_ref().filter(|_| self.is_keeper) else {
            return Ok(None);
        };
        let about = About {
            log: std::fs::canonicalize(logdir).unwrap_or_else(|_| logdir.to_owned()).display().to_string(),
            scheme: options.scheme.clone(),
            set: options.set.clone(),
            site: options.site.clone(),
            epoch: options.epoch,
            heartbeat: options.heartbeat,
            ack_timeout: options.ack_timeout,
        };
        Ok(Some(Status::open(state.try_clone()?, about)))
    }
}

fn directory(args: &Args, set: &str, logdir: &Path, monitor: &Monitor) -> Result<Option<Dir>> {
    if let Some(path) = &args.state {
        return Dir::create(path).map(Some);
    }
    let Some(path) = args::default_state(set, logdir) else {
        return Ok(None);
    };
    match Dir::create(&path) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) => {
            monitor(Note::Detail(format!("{error:#}; no state is kept")));
            Ok(None)
        }
    }
}
