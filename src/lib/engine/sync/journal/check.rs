//! Whether a journal can be replayed, found out before anything is written: all that it needs is there, and the
//! destination is what it was made for. After that only the machine itself can stop a replay, and another run goes on.
//!
//! The first replay begins in a destination that nobody has touched since the journal was made, so the stamp of each
//! file that is patched must be the very one. One that was interrupted has changed stamps itself; there the same inode
//! must still be in place: a database that somebody has meanwhile restored into the directory is not written into.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};

use super::blob::{Blob, Window};
use super::list::List;
use super::op::{Extent, Op};
use crate::edge::dir::Dir;
use crate::edge::tree::Tree;
use crate::value::entry::{Entry, Kind, Stamp};
use crate::value::exit::{Code, code_of, fail};
use crate::value::name::Name;

/// Space is counted in such pieces, and each new name may take one in its directory.
const BLOCK: u64 = 4096;

/// What is checked, and how.
pub(super) struct Check<'a> {
    /// What is to be done.
    pub(super) list: &'a List,
    /// Where.
    pub(super) destination: &'a Tree,
    /// Staged files.
    pub(super) new: &'a Dir,
    /// Changed bytes.
    pub(super) blob: &'a Blob,
    /// Whether a replay has begun to write.
    pub(super) was_begun: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Bytes of space that the replay will take, at most.
    pub(super) space: u64,
    /// A directory on each other file system below the destination in which something changes.
    pub(super) mounts: BTreeMap<u64, Name>,
}

/// Names that were come by.
#[derive(Default)]
struct Seen {
    /// Removed ones.
    removed: HashSet<Name>,
    /// Directories above the last name, and what has a name of its own without being one.
    above: Vec<(Name, bool)>,
    /// Targets of hard links, and how many there are of each.
    targets: BTreeMap<Name, u32>,
    /// Those of them that the journal itself places.
    placed: HashSet<Name>,
    /// Directories that give way to something else.
    cleared: Vec<Name>,
    /// Devices, and a directory on each.
    devices: BTreeMap<u64, Name>,
}

impl Seen {
    /// Takes note of the file system that something is on.
    fn device(&mut self, entry: Option<&Entry>) {
        let Some(entry) = entry else { return };
        let directory = || if entry.is_directory() { entry.name.clone() } else { entry.name.parent() };
        self.devices.entry(entry.stamp.device).or_insert_with(directory);
    }
}

/// Whether the bytes that an op needs are there and right.
pub(super) fn is_whole(op: &Op, new: &Dir, blob: &Blob) -> Result<bool> {
    match op {
        Op::Place { entry, staged, digest } => match new.open_read(&staged.to_string())? {
            Some(file) => is_content(&file, entry.stamp.size, digest),
            None => Ok(false),
        },
        Op::Patch { extents, .. } => match bytes_of(extents, blob) {
            Err(error) if code_of(&error) == Code::Corrupt => Ok(false),
            read => read.map(|()| true),
        },
        _ => Ok(true),
    }
}

/// Whether a file has this length and BLAKE3.
pub(super) fn is_content(file: &File, size: u64, digest: &[u8; 32]) -> Result<bool> {
    if file.metadata()?.len() != size {
        return Ok(false);
    }
    let mut sum = blake3::Hasher::new();
    sum.update_reader(file).context("cannot read a file to compare it")?;
    Ok(sum.finalize().as_bytes() == digest)
}

/// Reads and checks all bytes of some extents.
fn bytes_of(extents: &[Extent], blob: &Blob) -> Result<()> {
    let mut window = Window::new(blob);
    extents.iter().filter(|extent| !extent.is_hole).try_for_each(|extent| window.get(extent).map(|_| ()))
}

impl Check<'_> {
    /// Corrupt (6) with the name of what is wrong. Nothing is changed.
    pub(super) fn run(&self) -> Result<Found> {
        let (mut seen, mut found) = (Seen::default(), Found::default());
        let device = self.destination.device()?;
        for at in &self.list.links {
            if let Op::Link { to, .. } = self.list.get(*at)? {
                *seen.targets.entry(to).or_default() += 1;
            }
        }
        for at in &self.list.removals {
            self.removal(self.list.get(*at)?, &mut seen)?;
        }
        for at in &self.list.changes {
            let op = self.list.get(*at)?;
            found.space = found.space.saturating_add(self.change(&op, &mut seen)?);
        }
        self.link_targets(&seen)?;
        self.cleared(&seen)?;
        found.mounts = seen.devices;
        found.mounts.remove(&device);
        Ok(found)
    }

    fn refuse<T>(&self, name: &Name, why: &str) -> Result<T> {
        fail(Code::Corrupt, format!("{} {why}", self.destination.shown(name)))
    }

    fn removal(&self, op: Op, seen: &mut Seen) -> Result<()> {
        let Op::Remove { name, is_directory } = op else { return Ok(()) };
        if let Some(entry) = self.destination.look(&name)? {
            if entry.is_directory() != is_directory {
                return self.refuse(&name, "is not what is to be removed");
            }
            seen.device(Some(&Entry { kind: Kind::File, ..entry }));
        }
        seen.removed.insert(name);
        Ok(())
    }

    /// Checks an op that is no removal; returns the space it takes.
    fn change(&self, op: &Op, seen: &mut Seen) -> Result<u64> {
        let name = op.name();
        let entry = self.destination.look(name)?;
        seen.device(entry.as_ref());
        if matches!(op, Op::Make(_) | Op::Place { .. } | Op::Link { .. }) {
            self.parent(name, seen)?;
            if entry.as_ref().is_some_and(Entry::is_directory) && !op.is_directory() {
                seen.cleared.push(name.clone());
            }
        }
        seen.above.push((name.clone(), op.is_directory()));
        match op {
            Op::Make(_) if !op.is_directory() => {
                seen.placed.insert(name.clone());
                Ok(BLOCK)
            }
            Op::Make(_) | Op::Link { .. } => Ok(BLOCK),
            Op::Dress(wanted) => match entry {
                Some(entry) if std::mem::discriminant(&entry.kind) == std::mem::discriminant(&wanted.kind) => Ok(0),
                _ => self.refuse(name, &format!("is no more {}", wanted.kind)),
            },
            Op::Place { entry, staged, digest } => {
                if seen.targets.contains_key(name) {
                    seen.placed.insert(name.clone());
                }
                self.staged(entry, *staged, digest)?;
                Ok(BLOCK)
            }
            Op::Patch { base, extents, .. } => self.patch(name, entry, base, extents, seen),
            Op::Remove { .. } => self.refuse(name, "is to be removed after all else"),
        }
    }

    /// The directory of a name that will be there must be there by then.
    fn parent(&self, name: &Name, seen: &mut Seen) -> Result<()> {
        while seen.above.last().is_some_and(|(above, _)| !name.is_below(above)) {
            seen.above.pop();
        }
        let parent = name.parent();
        let is_there = match seen.above.last() {
            Some((_, false)) => false,
            Some((above, true)) if *above == parent => true,
            _ => {
                let entry = self.destination.look(&parent)?.filter(Entry::is_directory);
                seen.device(entry.as_ref());
                entry.is_some() && !seen.removed.contains(&parent)
            }
        };
        if !is_there {
            return self.refuse(name, "has no directory to be in");
        }
        seen.above.push((parent, true));
        Ok(())
    }

    fn staged(&self, entry: &Entry, staged: u64, digest: &[u8; 32]) -> Result<()> {
        let file = staged.to_string();
        if let Some(open) = self.new.open_read(&file)? {
            let length = open.metadata()?.len();
            if length == entry.stamp.size {
                return Ok(());
            }
            return fail(Code::Corrupt, format!("{} has {length} bytes", self.new.shown(&file)));
        }
        // It may have taken its name before a replay was interrupted.
        let placed = if self.was_begun { self.destination.open_read(&entry.name)? } else { None };
        match placed {
            Some(placed) if is_content(&placed, entry.stamp.size, digest)? => Ok(()),
            _ => self.refuse(&entry.name, &format!("is lost: {} is not there", self.new.shown(&file))),
        }
    }

    /// A patch needs its base, its bytes, and space where the file grows or has holes.
    fn patch(&self, name: &Name, now: Option<Entry>, base: &Stamp, extents: &[Extent], seen: &Seen) -> Result<u64> {
        let Some(now) = now.filter(Entry::is_file) else {
            return self.refuse(name, "is to be patched and is no more a file");
        };
        // The number of a device may change when the machine starts anew.
        let base = Stamp { device: now.stamp.device, ..*base };
        let is_same = if self.was_begun { now.stamp.inode == base.inode } else { now.stamp == base };
        if !is_same {
            return self.refuse(name, "is to be patched and was changed by somebody else");
        }
        let own = if self.was_begun { seen.targets.get(name).copied().unwrap_or(0) } else { 0 };
        if now.links > 1 + own {
            return self.refuse(name, "is to be patched and has other names (hard links)");
        }
        let Some(file) = self.destination.open_read(name)? else {
            return self.refuse(name, "is to be patched and is no more a file");
        };
        let bytes = extents.iter().filter(|extent| !extent.is_hole);
        if bytes.clone().any(|extent| extent.blob.saturating_add(extent.length) > self.blob.length()) {
            return fail(Code::Corrupt, format!("the blob ends before the last changed bytes of {name}"));
        }
        let has_holes = file.metadata()?.blocks().saturating_mul(512) < now.stamp.size;
        let end = if has_holes { 0 } else { now.stamp.size };
        let grown = bytes.map(|extent| extent.end().saturating_sub(extent.offset.max(end)));
        Ok(grown.map(|count| count.next_multiple_of(BLOCK)).sum())
    }

    /// What is linked to is a file by then.
    fn link_targets(&self, seen: &Seen) -> Result<()> {
        for to in seen.targets.keys().filter(|to| !seen.placed.contains(to)) {
            let is_there = self.destination.look(to)?.is_some_and(|entry| !entry.is_directory());
            if !is_there || seen.removed.contains(to) {
                return self.refuse(to, "is to be linked to and is not there");
            }
        }
        Ok(())
    }

    /// A directory that gives way to a file must hold nothing but what is removed.
    fn cleared(&self, seen: &Seen) -> Result<()> {
        if seen.cleared.is_empty() {
            return Ok(());
        }
        let cleared = seen.cleared.clone();
        let is_near = move |name: &Name| {
            cleared.iter().any(|directory| name == directory || name.is_below(directory) || directory.is_below(name))
        };
        for entry in self.destination.walk(move |name, _| !name.is_root() && !is_near(name)) {
            let entry = entry.map_err(|unread| unread.error).context("cannot list a directory that is replaced")?;
            let is_in_the_way = seen.cleared.iter().any(|directory| entry.name.is_below(directory));
            if is_in_the_way && !seen.removed.contains(&entry.name) {
                return self.refuse(&entry.name, "is in a directory that gives way to something else");
            }
        }
        Ok(())
    }

    /// Reads all bytes in the blob that the list needs: not necessary in the run that wrote them.
    pub(super) fn bytes(&self) -> Result<()> {
        let mut window = Window::new(self.blob);
        for at in &self.list.patches {
            if let Op::Patch { extents, .. } = self.list.get(*at)? {
                for extent in extents.iter().filter(|extent| !extent.is_hole) {
                    window.get(extent)?;
                }
            }
        }
        Ok(())
    }
}
