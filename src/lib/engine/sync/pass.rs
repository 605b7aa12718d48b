//! One pass: the source's list, the walk of what is here and the pairs of the pass before, all in the order of names, are
//! gone through together, so that no tree has to fit into memory; what may differ is handed to the workers.
//!
//! Nothing is removed before all of the list has come without an error, and nothing at all unless asked for.

mod rest;
pub mod workers;

use std::collections::{BTreeSet, HashSet};
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use parking_lot::Mutex;

use self::rest::Rest;
use self::workers::{Batch, Lines};
use super::digests::Digests;
use super::journal::op::Op;
use super::ledger::Ledger;
use super::line::{self, Work};
use super::listing::Listing;
use super::pairs::{Old, Pair};
use super::profile::Profile;
use super::target::{Basis, Target, is_dressed};
use crate::edge::tree::{Dress, Unread, Walk};
use crate::rule::sync::filter::Filter;
use crate::rule::sync::item::Act;
use crate::value::entry::{Entry, Kind, Stamp};
use crate::value::exit::{Code, Failure, fail};
use crate::value::name::Name;

/// How a pass goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Names that are not at the source are removed.
    pub is_deleting: bool,
    /// More removals than this are refused.
    pub max_delete: Option<u64>,
    /// No stamp is trusted.
    pub is_distrustful: bool,
    /// Whether what the journal of an earlier run has may be trusted: not before it was compared once.
    pub trusts_pending: bool,
    /// The pass before was made under the source's procedure, too: what that makes up for and did not change here since
    /// need not be read again.
    pub is_covered: bool,
    /// Nothing is changed.
    pub is_dry: bool,
    /// What is not as it must be in the end is no error yet.
    pub is_tolerant: bool,
    /// A file with several names is replaced where it would only be dressed: they may all be of other copies.
    pub spares: bool,
    /// What files wear.
    pub dress: Dress,
    /// Bytes of a page.
    pub page: usize,
}

/// Which names a pass is for: databases want some files copied after all others.
pub type Turnout<'a> = &'a (dyn Fn(&Name) -> bool + Sync);

/// What a pass works with.
pub struct Pass<'a, 'l> {
    /// Where changes go.
    pub target: Target<'a>,
    /// What comes of it.
    pub ledger: &'a Ledger<'l>,
    /// How.
    pub manner: Manner,
    /// For which names.
    pub turnout: Turnout<'a>,
    /// Bytes that the destination's file system still has for new files.
    pub room: u64,
    /// Names of which those that are here stay.
    pub kept: &'a Filter,
    /// The kind of database.
    pub profile: Profile,
    /// The digests of files that are known.
    pub digests: Option<Arc<Digests>>,
    /// Directories here in which something takes no part, as far as the walk has come.
    pub held: &'a Mutex<HashSet<Name>>,
}

impl Pass<'_, '_> {
    /// Goes through it all; returns the names that are here, are not at the source, and stay.
    pub fn run(&self, lines: &mut Lines, listing: &mut Listing<'_, '_>, walk: Walk, old: Old) -> Result<Vec<Name>> {
        let mut rest = Rest::default();
        let is_whole = self.round(lines, |batch, over| self.merge(listing, walk, old, &mut rest, batch, over))?;
        self.remove(&mut rest, is_whole)?;
        let late = std::mem::take(&mut rest.late);
        self.round(lines, |batch, _| {
            for (new, old) in late {
                self.put(new, old.filter(|old| !old.is_directory()), None, &mut rest, batch)?;
            }
            Ok(true)
        })?;
        self.link(&rest)?;
        self.dress(&rest)?;
        let stay = if self.manner.is_deleting { Vec::new() } else { rest.removals };
        Ok(stay.into_iter().map(|(name, _)| name).collect())
    }

    /// Whether all of the list came.
    fn merge(
        &self,
        listing: &mut Listing<'_, '_>,
        walk: Walk,
        mut old: Old,
        rest: &mut Rest,
        batch: &mut Batch<'_>,
        over: &AtomicBool,
    ) -> Result<bool> {
        let mut here = walk.peekable();
        let mut planned = match self.target {
            Target::Direct(_) => None,
            Target::Journal(_, journal) => Some(journal.names()),
        }
        .into_iter()
        .flatten()
        .peekable();
        while let Some(new) = listing.next()? {
            if over.load(Ordering::Acquire) || !self.ledger.wait_for(rest.turn, || over.load(Ordering::Acquire)) {
                return Ok(false);
            }
            while let Some(gone) = next_before(&mut here, &new.name)? {
                self.absent(gone, rest);
            }
            while let Some(name) = planned.next_if(|name| *name <= new.name) {
                if let (Target::Journal(_, journal), true) = (self.target, name != new.name && (self.turnout)(&name)) {
                    rest.forget(journal, name)?;
                }
            }
            let entry = match here.next_if(|entry| matches!(entry, Ok(entry) if entry.name == new.name)) {
                Some(entry) => entry.ok(),
                None => None,
            };
            let pair = old.find(&new.name);
            self.meet(new, entry, pair, rest, batch)?;
        }
        for gone in here {
            self.absent(gone.map_err(unread)?, rest);
        }
        if let Target::Journal(_, journal) = self.target {
            planned.filter(|name| (self.turnout)(name)).try_for_each(|name| rest.forget(journal, name))?;
        }
        Ok(listing.is_whole())
    }

    /// A name that is here and not at the source.
    fn absent(&self, gone: Entry, rest: &mut Rest) {
        if (self.turnout)(&gone.name) {
            // Ours while it stays, where the source has none.
            if self.kept.leaves_out(&gone.name, gone.is_directory()) {
                return;
            }
            let is_directory = gone.is_directory();
            rest.removals.push((gone.name, is_directory));
        }
    }

    /// A name that is at the source.
    fn meet(
        &self,
        new: Entry,
        old: Option<Entry>,
        pair: Option<Pair>,
        rest: &mut Rest,
        batch: &mut Batch<'_>,
    ) -> Result<()> {
        let is_file = new.is_file();
        self.ledger.count(|counts| {
            counts.entries += 1;
            if is_file {
                counts.files += 1;
                counts.bytes = counts.bytes.saturating_add(new.stamp.size);
            }
        });
        if new.is_directory() {
            self.make_directory(&new, old.as_ref())?;
            rest.directories.push((new, old));
            return Ok(());
        }
        if !(self.turnout)(&new.name) {
            // It has its pass before or after this one; what is known of it stays known.
            if pair.is_some() {
                self.ledger.turn(rest.turn, pair)?;
                rest.turn += 1;
            }
            return Ok(());
        }
        if old.is_some() && self.kept.leaves_out(&new.name, false) {
            return Ok(());
        }
        if matches!(new.kind, Kind::Character(..) | Kind::Block(..)) && !self.manner.dress.devices {
            return Ok(());
        }
        if let Kind::Link(_) = &new.kind {
            self.profile.refuse_link(&new.name)?;
        }
        let old = old.filter(|old| !rest.is_taken(&new, old));
        if new.links > 1 {
            let inode = old.as_ref().filter(|old| old.kind == new.kind).map(|old| old.stamp.inode);
            if let Some((leader, leader_inode)) = rest.leaders.get(&(new.stamp.device, new.stamp.inode)) {
                let is_one = inode.is_some() && inode == *leader_inode;
                if is_file {
                    self.ledger.count(|counts| counts.bytes = counts.bytes.saturating_sub(new.stamp.size));
                }
                rest.links.push((new, leader.clone(), is_one, old));
                return Ok(());
            }
            rest.leaders.insert((new.stamp.device, new.stamp.inode), (new.name.clone(), inode));
        }
        if old.as_ref().is_some_and(Entry::is_directory) {
            rest.late.push((new, old));
            return Ok(());
        }
        let is_covered = self.manner.is_covered && self.ledger.covers(&new.name);
        let is_trusted = |pair: &Pair| {
            new.is_file() && (is_covered || pair.source == new.stamp) && self.is_known(pair, old.as_ref())
        };
        match pair {
            Some(pair) if is_trusted(&pair) => self.trust(pair, &new, rest),
            pair => {
                let old = self.whole(old)?;
                let pair = pair.filter(|pair| self.is_known(pair, old.as_ref()));
                self.put(new, old, pair.as_ref(), rest, batch)
            }
        }
    }

    /// An entry with its extended attributes, which the walk leaves out of those of files.
    fn whole(&self, old: Option<Entry>) -> Result<Option<Entry>> {
        match old {
            Some(old) if old.is_file() => self.target.tree().look(&old.name),
            old => Ok(old),
        }
    }

    /// Whether what is here is still what a pair says: there is nothing to read.
    fn is_known(&self, pair: &Pair, old: Option<&Entry>) -> bool {
        let here = old.filter(|old| old.is_file()).map(|old| old.stamp).unwrap_or_default();
        let is_pending = self.target.pending(&pair.name).is_some();
        pair.here == here
            && pair.is_pending == is_pending
            && !self.manner.is_distrustful
            && (self.manner.trusts_pending || !is_pending)
            && (is_pending || old.is_some())
    }

    fn trust(&self, pair: Pair, new: &Entry, rest: &mut Rest) -> Result<()> {
        self.ledger.count(|counts| counts.trusted += new.stamp.size);
        self.ledger.advance(new.stamp.size);
        // Neither side has changed since it was dressed as the other: that changes a ctime.
        self.ledger.turn(rest.turn, Some(pair))?;
        rest.turn += 1;
        Ok(())
    }

    /// Something other than a directory; what is here may be known by a pair.
    fn put(
        &self,
        new: Entry,
        old: Option<Entry>,
        pair: Option<&Pair>,
        rest: &mut Rest,
        batch: &mut Batch<'_>,
    ) -> Result<()> {
        if new.is_file() {
            self.reserve(&new, old.as_ref(), rest)?;
            let basis = if self.ledger.is_distrusted(&new.name) {
                Basis::default()
            } else if line::is_small(&new) {
                self.target.outline(&new.name, old.as_ref())
            } else {
                let basis = self.target.basis(&new.name, old.as_ref())?;
                match (&self.digests, pair) {
                    (Some(digests), Some(pair)) => basis.knowing(digests, pair),
                    _ => basis,
                }
            };
            let turn = rest.turn;
            rest.turn += 1;
            let mut work = Work::new(turn, new, old, basis);
            if let Some(digests) = self.digests.as_ref().filter(|_| !self.manner.is_dry && !work.is_small()) {
                work.region = digests.reserve(work.new.stamp.size);
            }
            if self.profile.must_mirror() {
                // Pages of a database do not move; to search for them would be down time.
                work.stays();
            }
            return if batch.add(work) { Ok(()) } else { fail(Code::Failed, "the workers ended early") };
        }
        let is_equal = old.as_ref().is_some_and(|old| old.kind == new.kind);
        let is_dressed = old.as_ref().is_some_and(|old| is_dressed(&new, old, self.manner.dress));
        match (is_equal, is_dressed) {
            (true, true) => return self.settle_journal(&new.name),
            (true, false) => self.ledger.dressed(&new, old.as_ref()),
            (false, _) => self.made(&new, old.as_ref()),
        }
        if !is_equal && new.links > 1 {
            // Whatever had this name, it has another inode now.
            self.ledger.replace(&new.name);
        }
        match (self.target, is_equal) {
            _ if self.manner.is_dry => Ok(()),
            (Target::Direct(tree), true) => tree.dress(&new, self.manner.dress),
            (Target::Direct(tree), false) => tree.make(&new).and_then(|()| tree.dress(&new, self.manner.dress)),
            (Target::Journal(_, journal), true) => journal.add(Op::Dress(new)),
            (Target::Journal(_, journal), false) => journal.add(Op::Make(new)),
        }
    }

    /// What cannot fit is refused before it has filled the disk.
    fn reserve(&self, new: &Entry, old: Option<&Entry>, rest: &mut Rest) -> Result<()> {
        if self.manner.is_dry || self.target.pending(&new.name).is_some() {
            return Ok(());
        }
        rest.needed = rest.needed.saturating_add(new.allocated.saturating_sub(old.map_or(0, |old| old.allocated)));
        if rest.needed > self.room {
            let text =
                format!("the destination needs {} bytes more, and its file system has {}", rest.needed, self.room);
            return fail(Code::Full, text);
        }
        Ok(())
    }

    /// Nothing is to be done with a name any more.
    fn settle_journal(&self, name: &Name) -> Result<()> {
        match self.target {
            Target::Journal(_, journal) if !self.manner.is_dry => journal.forget(name),
            _ => Ok(()),
        }
    }

    fn made(&self, new: &Entry, old: Option<&Entry>) {
        if self.ledger.is_news(&new.name) {
            self.ledger.count(|counts| counts.created += 1);
            self.ledger.tell(Act::Create, new, old);
        }
    }

    fn make_directory(&self, new: &Entry, old: Option<&Entry>) -> Result<()> {
        let is_there = old.is_some_and(Entry::is_directory);
        if is_there {
            return Ok(());
        }
        self.made(new, old);
        match self.target {
            _ if self.manner.is_dry => Ok(()),
            Target::Direct(tree) => tree.make(new),
            Target::Journal(_, journal) => journal.add(Op::Make(new.clone())),
        }
    }

    /// What is not at the source goes, the deepest first.
    fn remove(&self, rest: &mut Rest, is_whole: bool) -> Result<()> {
        let held = std::mem::take(&mut *self.held.lock());
        rest.refuse_held(&held)?;
        rest.removals.retain(|(name, _)| !held.contains(name));
        if !self.manner.is_deleting {
            self.refuse_others(rest)?;
            return rest.refuse_late();
        }
        if !is_whole {
            return Ok(());
        }
        let count = rest.removals.len() as u64;
        if let Some(most) = self.manner.max_delete.filter(|most| count > *most) {
            let failure =
                Failure::new(Code::Guarded, format!("{count} names would be removed, more than --max-delete {most}"));
            return Err(failure.hint("look at what goes by -n --itemize, then use a higher --max-delete").into());
        }
        for (name, is_directory) in rest.removals.iter().rev() {
            if !rest.removed.contains(name) {
                self.ledger.count(|counts| counts.deleted += 1);
                self.ledger.tell(Act::Delete, &removed(name, *is_directory), None);
            }
            match self.target {
                _ if self.manner.is_dry => {}
                Target::Direct(tree) => tree.remove(name, *is_directory)?,
                Target::Journal(_, journal) => {
                    journal.add(Op::Remove { name: name.clone(), is_directory: *is_directory })?;
                }
            }
        }
        Ok(())
    }

    /// A database with files of another time among its own is none.
    fn refuse_others(&self, rest: &Rest) -> Result<()> {
        match rest.removals.first() {
            Some((name, _)) if self.profile.must_mirror() && !self.manner.is_tolerant => {
                let text = format!(
                    "{name} is not at the source: with it, this would be no copy of a {} database",
                    self.profile
                );
                Err(Failure::new(Code::Guarded, text).hint("let it go by --delete, or --exclude it").into())
            }
            _ => Ok(()),
        }
    }

    /// Further names of what has several.
    fn link(&self, rest: &Rest) -> Result<()> {
        for (new, leader, is_one, old) in &rest.links {
            if *is_one && !self.ledger.is_replaced(leader) {
                self.settle_journal(&new.name)?;
                continue;
            }
            if self.ledger.is_news(&new.name) {
                self.ledger.count(|counts| counts.dressed += 1);
                self.ledger.tell(Act::Link(leader), new, old.as_ref());
            }
            match self.target {
                _ if self.manner.is_dry => {}
                Target::Direct(tree) => tree.link(leader, &new.name)?,
                Target::Journal(_, journal) => journal.add(Op::Link { name: new.name.clone(), to: leader.clone() })?,
            }
        }
        Ok(())
    }

    /// Directories last, the deepest first: each change in one changes what it wears.
    fn dress(&self, rest: &Rest) -> Result<()> {
        let touched: BTreeSet<Name> = match self.target {
            Target::Direct(_) => BTreeSet::new(),
            Target::Journal(_, journal) => {
                let shallow = |name: &Name| {
                    !matches!(journal.pending(name).as_deref(), Some(Op::Dress(_) | Op::Patch { .. }) | None)
                };
                journal.names().filter(shallow).map(|name| name.parent()).collect()
            }
        };
        for (new, old) in rest.directories.iter().rev() {
            let was_dressed = old.as_ref().is_some_and(|old| is_dressed(new, old, self.manner.dress));
            if !was_dressed && old.as_ref().is_some_and(Entry::is_directory) {
                self.ledger.dressed(new, old.as_ref());
            }
            match self.target {
                _ if self.manner.is_dry => {}
                Target::Direct(tree) => {
                    let now = tree.look(&new.name)?;
                    if !now.is_some_and(|now| is_dressed(new, &now, self.manner.dress)) {
                        tree.dress(new, self.manner.dress)?;
                    }
                }
                Target::Journal(_, journal) => match journal.pending(&new.name).as_deref() {
                    Some(Op::Make(_)) => journal.add(Op::Make(new.clone()))?,
                    _ if !was_dressed || touched.contains(&new.name) => journal.add(Op::Dress(new.clone()))?,
                    Some(_) => journal.forget(&new.name)?,
                    None => {}
                },
            }
        }
        Ok(())
    }
}

/// What a removal is told as.
fn removed(name: &Name, is_directory: bool) -> Entry {
    let kind = if is_directory { Kind::Directory } else { Kind::File };
    Entry {
        name: name.clone(),
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        links: 1,
        xattrs: Vec::new(),
        allocated: 0,
        stamp: Stamp::default(),
    }
}

fn unread(error: Unread) -> anyhow::Error {
    anyhow::Error::from(error.error).context(format!("cannot read {} at the destination", error.name))
}

/// The next entry that is here, when it comes before a name.
fn next_before(here: &mut Peekable<Walk>, name: &Name) -> Result<Option<Entry>> {
    match here.next_if(|entry| entry.as_ref().map_or(true, |entry| entry.name < *name)) {
        Some(entry) => entry.map(Some).map_err(unread),
        None => Ok(None),
    }
}
