//! What a sync works on until the switch, and the switch: a stage, or a journal.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;

use super::drive::Mode;
use super::journal::Journal;
use super::journal::op::Op;
use super::profile::Profile;
use super::receiver::refresh_pairs;
use super::stage::{self, Carried, Stage};
use super::state::State;
use super::streams;
use super::target::{Basis, Target};
use crate::edge::dir::Dir;
use crate::edge::tree::{Dress, Tree};
use crate::edge::{clock, clone};
use crate::rule::sync::filter::Filter;
use crate::rule::sync::merkle;
use crate::value::entry::{Entry, Kind, Stamp};
use crate::value::name::Name;

/// See the module.
pub enum Ground<'a> {
    /// A tree beside the destination.
    Stage(Stage<'a>),
    /// The destination, and the journal of what is to change in it.
    Journal(Tree, Journal, Dress),
}

impl Ground<'_> {
    /// For a destination; with what an interrupted run left. See [`Stage::prepare`].
    pub fn prepare<'a>(
        mode: Mode,
        state: &'a State,
        destination: &Path,
        like: Option<&Path>,
        filter: &Filter,
        dress: Dress,
    ) -> Result<Ground<'a>> {
        Ok(match mode {
            Mode::Stage => {
                Journal::discard(state)?;
                Ground::Stage(Stage::prepare(state, destination, like, filter, dress)?)
            }
            Mode::InPlace => {
                stage::discard(state)?;
                Ground::Journal(stage::open_or_make(destination)?, Journal::open(state)?, dress)
            }
        })
    }

    /// Where changes go.
    pub fn target(&self) -> Target<'_> {
        match self {
            Ground::Stage(stage) => Target::Direct(stage.tree()),
            Ground::Journal(tree, journal, _) => Target::Journal(tree, journal),
        }
    }

    /// Whether no earlier run left anything that was not compared yet.
    pub fn is_fresh(&self) -> bool {
        match self {
            Ground::Stage(_) => true,
            Ground::Journal(_, journal, _) => journal.is_empty(),
        }
    }

    /// Has little left to write while the server is down, where half of the space that is free suffices for that.
    pub fn relieve(&self, enough: Duration) -> Result<()> {
        let target = self.target();
        target.relieve(enough, clone::free_space(&Dir::open(target.tree().path())?)?.0 / 2)
    }

    /// Makes durable what there is, so that little is left for when the server is down.
    pub fn settle(&self) -> Result<()> {
        match self {
            Ground::Stage(stage) => stage.tree().sync(),
            Ground::Journal(_, journal, _) => journal.prepare(),
        }
    }

    /// Lays a file that belongs to the copy and that the source's tree does not have.
    pub fn lay(&self, name: &Name, bytes: &[u8], dress: Dress) -> Result<()> {
        let target = self.target();
        let root = target.tree().look(&name.parent())?;
        let (uid, gid) = root.map_or((0, 0), |root| (root.uid, root.gid));
        let stamp = Stamp { size: bytes.len() as u64, mtime: clock::coarse_now(), ..Stamp::default() };
        let entry = Entry {
            name: name.clone(),
            kind: Kind::File,
            mode: 0o600,
            uid,
            gid,
            links: 1,
            xattrs: Vec::new(),
            allocated: 0,
            stamp,
        };
        let old = target.tree().look(name)?;
        let (sink, basis) = (target.sink(&entry, old.as_ref())?, Basis::default());
        for (number, piece) in bytes.chunks(merkle::GROUP as usize).enumerate() {
            target.write(&sink, &basis, number as u64 * merkle::GROUP, piece)?;
        }
        target.finish(&sink, &basis, &entry, old.as_ref(), *blake3::hash(bytes).as_bytes(), dress).map(drop)
    }

    /// Names that would mislead a server, or a receiver of log, on the new content go with the switch.
    pub fn drop_names(&self, dropped: &Filter, profile: Profile) -> Result<()> {
        let Ground::Journal(tree, journal, _) = self else {
            // A stage does not get them.
            return Ok(());
        };
        for name in streams::stale(profile, tree)? {
            journal.add(Op::Remove { name, is_directory: false })?;
        }
        if dropped.is_empty() {
            return Ok(());
        }
        let found = left_out(tree, dropped)?;
        for (name, is_directory) in found {
            if is_directory {
                for entry in tree.subtree(&name)?.walk(|_, _| false).flatten() {
                    let below = entry.name.components().fold(name.clone(), |name, part| name.join(part));
                    journal.add(Op::Remove { name: below, is_directory: entry.is_directory() })?;
                }
            }
            journal.add(Op::Remove { name, is_directory })?;
        }
        Ok(())
    }

    /// Puts the new content in its place; a stage has carried into it what takes no part, but for what is dropped.
    pub fn switch(self, state: &State, carried: &Carried<'_>, profile: Profile, source: &str) -> Result<()> {
        match self {
            Ground::Stage(stage) => {
                stage.carry(carried)?;
                for name in streams::stale(profile, stage.tree())? {
                    stage.tree().remove(&name, false)?;
                }
                stage.tree().sync()?;
                stage.switch()
            }
            Ground::Journal(_, journal, _) if journal.is_empty() => {
                drop(journal);
                Journal::discard(state)
            }
            Ground::Journal(tree, journal, dress) => {
                journal.commit(&tree, dress)?.replay(&tree)?;
                refresh_pairs(state.dir(), source, &tree, dress)
            }
        }
    }
}

/// The names in a tree that a filter leaves out, the highest of each branch; our own files apart.
pub fn left_out(tree: &Tree, filter: &Filter) -> Result<Vec<(Name, bool)>> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let (seen, rule) = (Arc::clone(&found), filter.clone());
    let walk = tree.walk(move |name, is_directory| {
        let is_out = rule.leaves_out(name, is_directory);
        if is_out && !name.last().starts_with(b".repl-sync") {
            seen.lock().push((name.clone(), is_directory));
        }
        is_out
    });
    for entry in walk {
        entry.map_err(|error| anyhow::Error::from(error.error).context(format!("cannot read {}", error.name)))?;
    }
    let found = std::mem::take(&mut *found.lock());
    Ok(found)
}
