//! What the merge leaves for its end: until all of the list has come, nobody knows what goes, and what can be linked.

use std::collections::{HashMap, HashSet};

use anyhow::Result;

use crate::engine::sync::journal::Journal;
use crate::engine::sync::journal::op::Op;
use crate::value::entry::Entry;
use crate::value::exit::{Code, Failure};
use crate::value::name::Name;

/// See the module.
#[derive(Default)]
pub(super) struct Rest {
    /// In the order of names.
    pub(super) removals: Vec<(Name, bool)>,
    /// What a journal was to remove anyway.
    pub(super) removed: HashSet<Name>,
    /// What takes the place of a directory here, once that is empty.
    pub(super) late: Vec<(Entry, Option<Entry>)>,
    /// Further names of what has several: the entry, the first name, whether they are one file here already.
    pub(super) links: Vec<(Entry, Name, bool, Option<Entry>)>,
    pub(super) directories: Vec<(Entry, Option<Entry>)>,
    pub(super) leaders: HashMap<(u64, u64), (Name, Option<u64>)>,
    /// Files here that have several names, and which file of the source each is.
    pub(super) taken: HashMap<(u64, u64), (u64, u64)>,
    pub(super) turn: u64,
    /// Bytes that new files take.
    pub(super) needed: u64,
}

impl Rest {
    /// Takes a name out of a journal: that the source still does not have it is found again.
    pub(super) fn forget(&mut self, journal: &Journal, name: Name) -> Result<()> {
        let is_removal = matches!(journal.pending(&name).as_deref(), Some(Op::Remove { .. }));
        journal.forget(&name)?;
        if is_removal {
            self.removed.insert(name);
        }
        Ok(())
    }

    /// Whether what is here is a name of a file that another file of the source has: it must get a file of its own.
    pub(super) fn is_taken(&mut self, new: &Entry, old: &Entry) -> bool {
        let identity = |entry: &Entry| (entry.stamp.device, entry.stamp.inode);
        let is_shared = new.is_file() && old.is_file() && old.links > 1;
        is_shared && *self.taken.entry(identity(old)).or_insert(identity(new)) != identity(new)
    }

    /// What is a directory here and something else at the source.
    fn in_place_of_directories(&self) -> impl Iterator<Item = &Entry> {
        let linked = self.links.iter().filter(|(.., old)| old.as_ref().is_some_and(Entry::is_directory));
        self.late.iter().map(|(new, _)| new).chain(linked.map(|(new, ..)| new))
    }

    /// Without leave to remove, a directory with something in it stays one.
    pub(super) fn refuse_late(&self) -> Result<()> {
        let is_full = |new: &&Entry| self.removals.iter().any(|(name, _)| name.is_below(&new.name));
        self.in_place_of_directories().find(is_full).map_or(Ok(()), |new| {
            let text = format!("{} is {} at the source and a directory with something in it here", new.name, new.kind);
            Err(Failure::new(Code::Guarded, text).hint("let it go by --delete").into())
        })
    }

    /// So does one with something in it that takes no part.
    pub(super) fn refuse_held(&self, held: &HashSet<Name>) -> Result<()> {
        self.in_place_of_directories().find(|new| held.contains(&new.name)).map_or(Ok(()), |new| {
            let text = format!(
                "{} is {} at the source and a directory with something in it here that is left out",
                new.name, new.kind
            );
            Err(Failure::new(Code::Guarded, text).hint("move the directory away, or --exclude its name").into())
        })
    }
}
