//! What a sync writes to: a tree that nobody uses yet, or the redo journal of one that is in use.
//!
//! Both give the same view: what is there already (the *basis*), as it will be once all that was done so far is in place;
//! and a place for what changes (the *sink*).

mod anew;
mod extents;
mod whole;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

use anew::Anew;

use super::digests::Digests;
use super::groups;
use super::journal::Journal;
use super::journal::op::{Extent, Op};
use super::pairs::Pair;
use crate::edge::blocks::{begin_writeback, punch, write_all_at};
use crate::edge::clone::clone_file;
use crate::edge::read::read_at;
use crate::edge::tree::{self, Dress, Tree};
use crate::rule::sync::merkle::{self, Cv, GROUP, RANGE};
use crate::value::entry::{Entry, Stamp};
use crate::value::name::Name;

/// Where changes go.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// Into the tree itself.
    Direct(&'a Tree),
    /// Into a journal beside it.
    Journal(&'a Tree, &'a Journal),
}

/// The content that a file has here, as it will be.
#[derive(Default)]
pub struct Basis {
    file: Option<File>,
    size: u64,
    /// What the file does not reach to is zeros: it is going to be made longer.
    is_padded: bool,
    /// Changed bytes that a journal has for it, in their order; none overlap.
    overlay: Vec<Extent>,
    /// Where the digests of its groups are, when they are known.
    known: Option<(Arc<Digests>, u64)>,
}

/// Where a file's new bytes go.
pub enum Sink {
    /// Into the file.
    InPlace(File),
    /// Into a new file with this name, which takes the place of what is there when it is whole.
    Fresh(File, Name),
    /// Into a new file that the journal has.
    Staged(File, u64),
    /// Into the journal.
    Extents(Mutex<Vec<Extent>>),
    /// Into a new file, since bytes moved.
    Anew(Box<Anew>),
}

impl<'a> Target<'a> {
    /// The tree that is looked at.
    pub fn tree(&self) -> &'a Tree {
        match self {
            Target::Direct(tree) | Target::Journal(tree, _) => tree,
        }
    }

    /// What the journal is going to do with a name.
    pub fn pending(&self, name: &Name) -> Option<Arc<Op>> {
        match self {
            Target::Direct(_) => None,
            Target::Journal(_, journal) => journal.pending(name),
        }
    }

    /// The content that a name has, as it will be.
    pub fn basis(&self, name: &Name, old: Option<&Entry>) -> Result<Basis> {
        let own = || -> Result<Basis> {
            let Some(old) = old.filter(|old| old.is_file()) else {
                return Ok(Basis::default());
            };
            let file = self.tree().open_read(name)?;
            Ok(Basis { size: if file.is_some() { old.stamp.size } else { 0 }, file, ..Basis::default() })
        };
        let Target::Journal(_, journal) = self else {
            return own();
        };
        match self.pending(name).as_deref() {
            Some(Op::Place { entry, staged, .. }) => {
                let file = journal.open_staged(*staged)?;
                let size = entry.stamp.size.min(file.metadata()?.len());
                Ok(Basis { size, file: Some(file), ..Basis::default() })
            }
            Some(Op::Patch { entry, extents, .. }) if old.is_some_and(is_patched) => {
                let file = self.tree().open_read(name)?;
                Ok(Basis { size: entry.stamp.size, file, is_padded: true, overlay: extents.clone(), known: None })
            }
            _ => own(),
        }
    }

    /// The same without its bytes: only how long it is. Very many small files may wait for a worker, and none of them is
    /// open meanwhile.
    pub fn outline(&self, name: &Name, old: Option<&Entry>) -> Basis {
        let size = match self.pending(name).as_deref() {
            Some(Op::Place { entry, .. }) => entry.stamp.size,
            Some(Op::Patch { entry, .. }) if old.is_some_and(is_patched) => entry.stamp.size,
            _ => old.filter(|old| old.is_file()).map_or(0, |old| old.stamp.size),
        };
        Basis { size, ..Basis::default() }
    }

    /// A place for the bytes of a file that differ. A file with other names is replaced, never written through.
    pub fn sink(&self, new: &Entry, old: Option<&Entry>) -> Result<Sink> {
        let old = old.filter(|old| old.is_file());
        match self {
            Target::Direct(tree) => match old {
                Some(old) if is_patched(old) => Ok(Sink::InPlace(tree.open_write(&new.name)?.context("it vanished")?)),
                _ => self.fresh(tree, new, old),
            },
            Target::Journal(_, journal) => match journal.pending(&new.name).as_deref() {
                Some(Op::Place { entry, staged, .. }) => {
                    let file = journal.open_staged(*staged)?;
                    // What a pass that was given up on has written behind the end must not show in a later hole.
                    if file.metadata()?.len() > entry.stamp.size {
                        file.set_len(entry.stamp.size).context("cannot set the length of a staged file")?;
                    }
                    Ok(Sink::Staged(file, *staged))
                }
                _ if old.is_some_and(is_patched) && new.stamp.size > GROUP => Ok(Sink::Extents(Mutex::default())),
                _ => {
                    let (number, file) = journal.stage()?;
                    self.copy_old(new, old, &file)?;
                    Ok(Sink::Staged(file, number))
                }
            },
        }
    }

    /// A file that takes the place of what has this name now; it begins with the content of `old`, if that is compared.
    fn fresh(&self, tree: &Tree, new: &Entry, old: Option<&Entry>) -> Result<Sink> {
        match tree.create_as(new) {
            Err(error) if is_there(&error) => {}
            made => return made.map(Sink::InPlace),
        }
        let (file, name) = beside(tree)?;
        self.copy_old(new, old, &file)?;
        Ok(Sink::Fresh(file, name))
    }

    /// What differs goes over the old content; of a small file all of it comes.
    fn copy_old(&self, new: &Entry, old: Option<&Entry>, file: &File) -> Result<()> {
        if old.is_some() && new.stamp.size > GROUP { self.copy_whole(&new.name, file) } else { Ok(()) }
    }

    fn copy_whole(&self, name: &Name, file: &File) -> Result<()> {
        self.tree().open_read(name)?.map_or(Ok(()), |old| clone_file(&old, file))
    }

    /// The content is right already; what the file wears may not be. Returns its stamp.
    pub fn keep(&self, new: &Entry, old: Option<&Entry>, digest: Cv, dress: Dress) -> Result<Stamp> {
        let here = old.map(|old| old.stamp).unwrap_or_default();
        let is_dressed = old.is_some_and(|old| is_dressed(new, old, dress));
        match self {
            Target::Direct(_) if is_dressed => Ok(here),
            Target::Direct(tree) => {
                tree.dress(new, dress)?;
                Ok(tree.look(&new.name)?.map(|entry| entry.stamp).unwrap_or_default())
            }
            Target::Journal(_, journal) => {
                let entry = new.clone();
                match journal.pending(&new.name).as_deref() {
                    Some(Op::Place { staged, .. }) => journal.add(Op::Place { entry, staged: *staged, digest })?,
                    Some(Op::Patch { extents, .. }) => {
                        journal.add(Op::Patch { entry, base: here, extents: extents.clone(), digest })?;
                    }
                    Some(_) if is_dressed => journal.forget(&new.name)?,
                    None if is_dressed => {}
                    _ => journal.add(Op::Dress(entry))?,
                }
                Ok(here)
            }
        }
    }

    /// The same for a file with names that are nothing of ours: it is replaced, and what has those names wears what it did.
    pub fn part(&self, new: &Entry, old: Option<&Entry>, digest: Cv, dress: Dress) -> Result<Stamp> {
        match self {
            Target::Direct(tree) => {
                let (file, name) = beside(tree)?;
                self.copy_whole(&new.name, &file)?;
                tree.dress_file(&file, new, dress)?;
                tree.place(tree, &name, &new.name)?;
                Ok(tree::stamp(&file)?)
            }
            Target::Journal(_, journal) if journal.pending(&new.name).is_none() => {
                let (staged, file) = journal.stage()?;
                self.copy_whole(&new.name, &file)?;
                journal.add(Op::Place { entry: new.clone(), staged, digest })?;
                Ok(old.map(|old| old.stamp).unwrap_or_default())
            }
            Target::Journal(..) => self.keep(new, old, digest, dress),
        }
    }

    /// A file that changed while it was read is a mixture, of which no digest came. A journal that is committed with it
    /// must have the one of what is here: an interrupted replay is held against that.
    pub fn prove_mixture(&self, new: &Entry, old: Option<&Entry>, dress: Dress) -> Result<()> {
        if self.pending(&new.name).is_none() {
            return Ok(());
        }
        let digest = self.basis(&new.name, old)?.digest(self)?;
        self.keep(new, old, digest, dress).map(drop)
    }

    /// Puts bytes at their place: they are within one group, or are whole groups. The basis is the file's.
    pub fn write(&self, sink: &Sink, basis: &Basis, offset: u64, bytes: &[u8]) -> Result<()> {
        match (sink, self) {
            (Sink::InPlace(file) | Sink::Fresh(file, _) | Sink::Staged(file, _), _) => {
                Ok(write_all_at(file, bytes, offset)?)
            }
            (Sink::Extents(extents), Target::Journal(_, journal)) => {
                for (offset, bytes) in (offset..).step_by(GROUP as usize).zip(bytes.chunks(GROUP as usize)) {
                    let (blob, crc) = journal.store(bytes)?;
                    extents.lock().push(Extent { offset, length: bytes.len() as u64, blob, crc, is_hole: false });
                }
                Ok(())
            }
            (Sink::Extents(_), Target::Direct(_)) => anyhow::bail!("a tree that is written directly has no journal"),
            (Sink::Anew(anew), _) => {
                anew.prepare(self, basis, offset, bytes.len() as u64)?;
                self.write(anew.sink(), basis, offset, bytes)
            }
        }
    }

    /// Lets the disk begin with what was written to a part where nothing was, so that the last sync has less to wait for.
    pub fn begin_writeback(&self, sink: &Sink, offset: u64, length: u64) {
        if let Sink::InPlace(file) | Sink::Fresh(file, _) | Sink::Staged(file, _) = sink {
            begin_writeback(file, offset, length);
        }
    }

    /// Makes a hole of whole groups, whatever is there: also a file of which nothing was compared may have old content.
    pub fn hole(&self, sink: &Sink, basis: &Basis, offset: u64, length: u64) -> Result<()> {
        match sink {
            Sink::Anew(anew) => {
                anew.prepare(self, basis, offset, length)?;
                self.hole(anew.sink(), basis, offset, length)
            }
            Sink::InPlace(file) | Sink::Fresh(file, _) | Sink::Staged(file, _) => Ok(punch(file, offset, length)?),
            Sink::Extents(extents) => {
                extents.lock().push(Extent::hole(offset, length));
                Ok(())
            }
        }
    }

    /// The file is complete. Returns its stamp, which for a journal is still the old one's. The basis is the file's.
    pub fn finish(
        &self,
        sink: &Sink,
        basis: &Basis,
        new: &Entry,
        old: Option<&Entry>,
        digest: Cv,
        dress: Dress,
    ) -> Result<Stamp> {
        let here = old.map(|old| old.stamp).unwrap_or_default();
        match (sink, self) {
            (Sink::InPlace(file) | Sink::Fresh(file, _), Target::Direct(tree)) => {
                // Its length may be another one; a hole at the end has none until it is set.
                if file.metadata()?.len() != new.stamp.size {
                    file.set_len(new.stamp.size)
                        .with_context(|| format!("cannot set the length of {}", tree.shown(&new.name)))?;
                }
                tree.dress_file(file, new, dress)?;
                if let Sink::Fresh(_, name) = sink {
                    tree.place(tree, name, &new.name)?;
                }
                Ok(tree::stamp(file)?)
            }
            (Sink::Staged(file, number), Target::Journal(_, journal)) => {
                file.set_len(new.stamp.size).context("cannot set the length of a staged file")?;
                journal.add(Op::Place { entry: new.clone(), staged: *number, digest })?;
                Ok(here)
            }
            (Sink::Extents(extents), Target::Journal(_, journal)) => {
                let mut all = match journal.pending(&new.name).as_deref() {
                    Some(Op::Patch { extents, .. }) => extents.clone(),
                    _ => Vec::new(),
                };
                all.append(&mut extents.lock());
                let extents = extents::in_order(journal, all, new.stamp.size)?;
                journal.add(Op::Patch { entry: new.clone(), base: here, extents, digest })?;
                Ok(here)
            }
            (Sink::Anew(anew), _) => {
                anew.complete(self, basis)?;
                self.finish(anew.sink(), basis, new, old, digest, dress)
            }
            _ => anyhow::bail!("a sink of another target"),
        }
    }
}

fn is_there(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists)
}

/// A new file that is to take the place of another: at the root, where the next run looks for what a kill has left.
fn beside(tree: &Tree) -> Result<(File, Name)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = Name::root().join(format!(".repl-sync-{}-{number}", std::process::id()).as_bytes());
    Ok((tree.create(&name)?, name))
}

/// Whether changed bytes may go into the file itself.
fn is_patched(old: &Entry) -> bool {
    old.is_file() && old.links == 1
}

/// Whether what is here wears what it should.
pub fn is_dressed(new: &Entry, old: &Entry, dress: Dress) -> bool {
    let is_owned = !dress.owner || (new.uid, new.gid) == (old.uid, old.gid);
    new.kind == old.kind
        && is_owned
        && new.mode == old.mode
        && new.xattrs == old.xattrs
        && new.stamp.mtime == old.stamp.mtime
}

impl Basis {
    /// Of which a pair that still holds may have the digests.
    #[must_use]
    pub fn knowing(mut self, digests: &Arc<Digests>, pair: &Pair) -> Basis {
        let region = pair.region.filter(|region| digests.are_of(*region, self.size, &pair.digest));
        self.known = region.map(|region| (Arc::clone(digests), region));
        self
    }

    /// How long the content is.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads up to `buffer.len()` bytes from an offset on; returns how many there are.
    pub fn read(&self, target: &Target<'_>, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let length = self.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..length];
        let count = self.file.as_ref().map_or(Ok(0), |file| read_at(file, buffer, offset))?;
        let Target::Journal(_, journal) = target else { return Ok(count) };
        if !self.is_padded {
            return Ok(count);
        }
        buffer[count..].fill(0);
        let first = self.overlay.partition_point(|extent| extent.end() <= offset);
        let near = self.overlay[first..].iter().take_while(|extent| extent.offset < offset + length as u64);
        extents::lay(journal, near, offset, buffer)?;
        Ok(length)
    }

    /// The digest of all of it.
    fn digest(&self, target: &Target<'_>) -> Result<Cv> {
        if self.size <= GROUP {
            let mut bytes = vec![0; self.size as usize];
            let count = self.read(target, 0, &mut bytes)?;
            return Ok(merkle::whole(&bytes[..count]));
        }
        let mut ranges = Vec::new();
        for offset in (0..self.size).step_by(RANGE as usize) {
            ranges.push(merkle::fold(&self.digests(target, offset, RANGE)?, self.size <= RANGE));
        }
        Ok(merkle::fold(&ranges, true))
    }

    /// The cvs of the groups of a part, as far as the content reaches.
    pub fn digests(&self, target: &Target<'_>, offset: u64, length: u64) -> Result<Vec<Cv>> {
        let length = self.size.saturating_sub(offset).min(length);
        if length == 0 {
            return Ok(Vec::new());
        }
        if let Some(mut cvs) = self.known.as_ref().and_then(|(digests, region)| digests.range(*region, offset, length))
        {
            // Of a group that is wanted in part, the whole one's says nothing.
            let (end, cut) = (offset + length, length % GROUP);
            if let Some(last) = cvs.last_mut().filter(|_| cut > 0 && end < self.size) {
                let mut bytes = vec![0; cut as usize];
                let count = self.read(target, end - cut, &mut bytes)?;
                *last = merkle::group(end - cut, &bytes[..count]);
            }
            return Ok(cvs);
        }
        if let (Some(file), false) = (&self.file, self.is_padded)
            && let Some(cvs) = groups::digests(file, offset, length)?
        {
            return Ok(cvs);
        }
        let mut cvs = Vec::new();
        let mut buffer = vec![0; GROUP as usize];
        for at in (offset..offset + length).step_by(GROUP as usize) {
            let want = GROUP.min(offset + length - at) as usize;
            let count = self.read(target, at, &mut buffer[..want])?;
            cvs.push(merkle::group(at, &buffer[..count]));
        }
        Ok(cvs)
    }
}
