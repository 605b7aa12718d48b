//! What every run does first, and `repl-sync --replay DST` alone: whatever a kill or a power cut left of a journal and
//! its marker is brought to an end.
//!
//! | marker | no committed journal | a committed journal |
//! |---|---|---|
//! | none | nothing was begun; litter goes | not from a crash: another directory, or a marker that somebody removed: 5 |
//! | prepared | nothing was written: the marker goes | it is replayed |
//! | replaying | torn, and nothing can complete it: 6 | it is replayed |
//! | done | all was done: the marker goes | all was done: the journal goes, then the marker |
//!
//! A journal that was not committed stays, for the next run to go on with.

use std::path::Path;

use anyhow::Result;

use super::replay::{Committed, Replayed, finish, give_up};
use super::{COMMITTED, tidy};
use crate::edge::dir::{Dir, shown};
use crate::edge::tree::Tree;
use crate::engine::sync::marker::{MARKER, Marker, Step, quoted};
use crate::engine::sync::profile::Profile;
use crate::engine::sync::state::State;
use crate::engine::sync::streams;
use crate::value::exit::{Code, Failure};

/// Brings a destination to its old or its new state, whole; says what was written, if anything was. Without a master,
/// without a link. Busy (7) while another process has the destination.
pub fn recover(destination: &Path) -> Result<Option<Replayed>> {
    let state = State::find(destination)?;
    let root = if destination.is_dir() { Some(Dir::open(destination)?) } else { None };
    let marker = root.as_ref().map(Marker::read).transpose()?.flatten();
    let is_committed = match &state {
        Some(state) => state.dir().identity(COMMITTED)?.is_some(),
        None => false,
    };
    let place = shown(destination);
    let refuse =
        |code: Code, why: &str, hint: String| Err(Failure::new(code, format!("{place}: {why}")).hint(hint).into());
    match (marker.map(|marker| (marker.step, marker.journal)), state, root) {
        (Some((Step::Done, _)), Some(state), Some(root)) => finish(state.dir(), &root).map(|()| None),
        (Some((step, journal)), Some(state), Some(root)) if is_committed => {
            let tree = Tree::open(destination)?;
            match Committed::find(&state, &tree)? {
                Some(committed) if committed.id() == journal => {
                    let _streams = streams::hold(Profile::detect(&root)?, &tree)?;
                    committed.replay(&tree).map(Some)
                }
                _ => {
                    let why = format!("{MARKER} ({step:?}) is of another journal than {}", shown(state.path()));
                    refuse(Code::Fenced, &why, give_up(destination, Some(state.path())))
                }
            }
        }
        (Some((Step::Replaying, _)), ..) => refuse(
            Code::Corrupt,
            "a sync was interrupted while it wrote here, and its journal is gone",
            give_up(destination, None),
        ),
        (None, Some(state), _) if is_committed => {
            let journal = state.dir().shown(COMMITTED);
            let why = format!("{journal} waits to be replayed, but nothing here says so: is this another directory?");
            refuse(Code::Fenced, &why, format!("if it is whole without that: rm -r {}", quoted(state.path())))
        }
        (_, state, root) => {
            state.map_or(Ok(()), |state| tidy(state.dir()))?;
            root.map_or(Ok(()), |root| Marker::remove(&root)).map(|()| None)
        }
    }
}
