//! Copies of files and of trees on one machine, and what there is to know of the place beforehand.
//!
//! A copied tree can be gone on with: what has its size and its time was copied whole, since the time is set last. That
//! holds for a process that was killed. Of a machine that was, it holds only with a [`Tree::sync`] since: a file's time
//! may reach the disk before what is in it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::iter::Peekable;
use std::ops::Range;

use anyhow::{Context as _, Result};
use rustix::fs::{self, AtFlags, RenameFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::blocks;
use super::dir::{self, Dir};
use super::read::read_at;
use super::tree::{Dress, Tree, Unread, Walk};
use crate::value::entry::{Entry, Kind};
use crate::value::exit::{Code, Failure, fail};
use crate::value::name::Name;

/// Files on which reflinks are tried out.
const SCRATCH: [&str; 2] = [".repl-sync-scratch-1", ".repl-sync-scratch-2"];
/// Bytes that are copied at once where the kernel does not do it.
const PIECE: usize = 1 << 20;
/// Bytes that the kernel is asked to copy at once, so that a signal is seen in time.
const KERNEL_PIECE: usize = 1 << 26;

/// Whether files in this directory can share blocks (reflinks): tried out on two files, which are removed again.
pub fn has_reflinks(dir: &Dir) -> bool {
    let clear = || SCRATCH.iter().for_each(|name| drop(dir.remove(name)));
    let try_out = || -> Result<()> {
        let (from, to) = (dir.create_new(SCRATCH[0])?, dir.create_new(SCRATCH[1])?);
        blocks::write_all_at(&from, &[1; 1 << 12], 0)?;
        Ok(fs::ioctl_ficlone(&to, &from)?)
    };
    clear();
    let can = try_out().is_ok();
    clear();
    can
}

/// Makes one open file what another is, sharing blocks where the file system can; holes stay holes. A file that changes
/// meanwhile is copied as it is read, and has the length it had at the beginning.
pub fn clone_file(from: &File, to: &File) -> Result<()> {
    copy(from, to).context("cannot copy")
}

fn copy(from: &File, to: &File) -> io::Result<()> {
    if to.metadata()?.len() > 0 {
        to.set_len(0)?;
    }
    let length = from.metadata()?.len();
    // To share the blocks of nothing is no gain, and every file system that cannot says so in its own way.
    if length == 0 || fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    copy_range(from, to, 0..length)?;
    if to.metadata()?.len() < length {
        to.set_len(length)?;
    }
    Ok(())
}

/// Copies a range of one open file to the same place in another, where there must be nothing yet: holes stay what is
/// there. Blocks are shared where the file system can.
pub fn copy_range(from: &File, to: &File, range: Range<u64>) -> io::Result<()> {
    let mut by_kernel = true;
    for range in blocks::data(from, range.start, range.end)? {
        let range = range?;
        let mut at = range.start;
        if by_kernel {
            at = copy_by_kernel(from, to, at, range.end);
            // Not all that it can list can a kernel copy: the rest is tried by hand, and errors are its.
            by_kernel = at == range.end;
        }
        copy_by_hand(from, to, at, range.end)?;
    }
    Ok(())
}

/// Copies as far as the kernel can; says how far.
fn copy_by_kernel(from: &File, to: &File, begin: u64, end: u64) -> u64 {
    let (mut input, mut output) = (begin, begin);
    while input < end {
        let most = usize::try_from(end - input).unwrap_or(usize::MAX).min(KERNEL_PIECE);
        match fs::copy_file_range(from, Some(&mut input), to, Some(&mut output), most) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    output
}

fn copy_by_hand(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(end - begin).unwrap_or(usize::MAX).min(PIECE)];
    let mut at = begin;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let count = read_at(from, &mut buffer[..most], at)?;
        if count == 0 {
            break;
        }
        blocks::write_all_at(to, &buffer[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

/// How a file of a tree becomes one of its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is copied; blocks are shared where the file system can.
    Copy,
    /// It gets another name, where that can be: nothing must ever be written to either then.
    Link,
}

/// Makes one tree a copy of another, but for what is skipped, on both sides: everything, with hard links among what is
/// copied; what is only in the copy is removed. What is there with the same size and mtime is kept. What vanishes in the
/// meantime is left out.
pub fn clone_tree(
    from: &Tree,
    to: &Tree,
    skip: impl Fn(&Name, bool) -> bool + Clone + Send + 'static,
    dress: Dress,
    way: Way,
) -> Result<()> {
    let there = to.walk(skip.clone()).peekable();
    let mut cloning =
        Cloning { from, to, dress, way, there, linked: HashMap::new(), taken: HashSet::new(), open: Vec::new() };
    for found in from.walk(skip) {
        let entry = match found {
            Ok(entry) => entry,
            Err(unread) if unread.is_change() => continue,
            Err(unread) => return Err(told(from, unread)),
        };
        let there = cloning.there(&entry.name)?;
        cloning.leave(&entry.name)?;
        cloning.copy(entry, there)?;
    }
    cloning.rest()
}

fn told(tree: &Tree, unread: Unread) -> anyhow::Error {
    anyhow::Error::new(unread.error).context(format!("cannot read {}", tree.shown(&unread.name)))
}

struct Cloning<'a> {
    from: &'a Tree,
    to: &'a Tree,
    dress: Dress,
    way: Way,
    there: Peekable<Walk>,
    /// Of files with several names: device and inode here, and the first name it was copied under.
    linked: HashMap<(u64, u64), Name>,
    /// Files with several names that were kept, by device and inode there: each for one of ours.
    taken: HashSet<(u64, u64)>,
    /// Directories on the way down, to be dressed when all in them is there.
    open: Vec<Entry>,
}

impl Cloning<'_> {
    /// Dresses the directories that a name is not below.
    fn leave(&mut self, name: &Name) -> Result<()> {
        while let Some(done) = self.open.pop_if(|open| !name.is_below(&open.name)) {
            self.to.dress(&done, self.dress)?;
        }
        Ok(())
    }

    /// What is there under a name; what is only there before it is removed.
    fn there(&mut self, name: &Name) -> Result<Option<Entry>> {
        loop {
            match self.there.next_if(|there| name_of(there) <= name) {
                None => return Ok(None),
                Some(Ok(there)) if there.name == *name => return Ok(Some(there)),
                Some(Ok(there)) => self.to.remove_all(&there.name)?,
                // What was removed or replaced by us.
                Some(Err(unread)) if unread.is_change() => {}
                Some(Err(unread)) => return Err(told(self.to, unread)),
            }
        }
    }

    fn copy(&mut self, entry: Entry, there: Option<Entry>) -> Result<()> {
        match entry.kind {
            Kind::Directory => {
                self.clear(&entry, there)?;
                self.to.make(&entry)?;
                self.open.push(entry);
                Ok(())
            }
            Kind::Character(..) | Kind::Block(..) if !self.dress.devices => fail(
                Code::Guarded,
                format!("{} is {}, and none are to be made", self.from.shown(&entry.name), entry.kind),
            ),
            _ => self.copy_linked(&entry, there),
        }
    }

    /// Something that may have several names.
    fn copy_linked(&mut self, entry: &Entry, there: Option<Entry>) -> Result<()> {
        let identity = (entry.stamp.device, entry.stamp.inode);
        if let Some(first) = self.linked.get(&identity) {
            self.clear(entry, there)?;
            return self.to.link(&first.clone(), &entry.name);
        }
        let kept = there.as_ref().is_some_and(|there| self.may_keep(entry, there));
        let is_made = match (&entry.kind, kept, there) {
            (Kind::File, true, Some(there)) => {
                if !is_dressed(entry, &there) {
                    self.to.dress(entry, self.dress)?;
                }
                true
            }
            (Kind::File, _, there) => {
                if there.is_some() {
                    self.to.remove_all(&entry.name)?;
                }
                self.copy_file(entry)?
            }
            (_, kept, there) => {
                if there.is_some() && !kept {
                    self.to.remove_all(&entry.name)?;
                }
                self.to.make(entry)?;
                self.to.dress(entry, self.dress)?;
                true
            }
        };
        if is_made && entry.links > 1 {
            self.linked.insert(identity, entry.name.clone());
        }
        Ok(())
    }

    /// Whether what is there is what it would be copied to, and not another name of something else.
    fn may_keep(&mut self, entry: &Entry, there: &Entry) -> bool {
        let is_same = match entry.kind {
            Kind::File => (entry.stamp.size, entry.stamp.mtime) == (there.stamp.size, there.stamp.mtime),
            _ => true,
        };
        is_same
            && entry.kind == there.kind
            && (there.links == 1 || (entry.links > 1 && self.taken.insert((there.stamp.device, there.stamp.inode))))
    }

    /// Copies one file; says whether it was still there.
    fn copy_file(&self, entry: &Entry) -> Result<bool> {
        // Another file system, or as many names as a file can have: copied, then.
        if self.way == Way::Link && self.to.link_from(self.from, &entry.name, &entry.name).is_ok() {
            return Ok(true);
        }
        let Some(from) = self.from.open_read(&entry.name)? else {
            return Ok(false);
        };
        let to = self.to.create_as(entry)?;
        clone_file(&from, &to).with_context(|| self.to.shown(&entry.name))?;
        self.to.dress_file(&to, entry, self.dress)?;
        Ok(true)
    }

    /// Makes room for what is no file.
    fn clear(&self, entry: &Entry, there: Option<Entry>) -> Result<()> {
        match there {
            Some(there) if there.is_directory() != entry.is_directory() => self.to.remove_all(&entry.name),
            _ => Ok(()),
        }
    }

    /// Removes what is only there behind the last of ours, and dresses the last directories.
    fn rest(mut self) -> Result<()> {
        for there in self.there.by_ref() {
            match there {
                Ok(there) => self.to.remove_all(&there.name)?,
                Err(unread) if unread.is_change() => {}
                Err(unread) => return Err(told(self.to, unread)),
            }
        }
        while let Some(done) = self.open.pop() {
            self.to.dress(&done, self.dress)?;
        }
        Ok(())
    }
}

fn name_of(found: &Result<Entry, Unread>) -> &Name {
    match found {
        Ok(entry) => &entry.name,
        Err(unread) => &unread.name,
    }
}

/// Whether what is there needs no dressing.
fn is_dressed(entry: &Entry, there: &Entry) -> bool {
    let worn = |entry: &Entry| (entry.mode, entry.uid, entry.gid);
    worn(entry) == worn(there) && entry.xattrs == there.xattrs
}

/// Exchanges what two names stand for, in one step; durable after [`Dir::sync`] of both directories.
pub fn exchange(one: &Dir, a: &str, other: &Dir, b: &str) -> Result<()> {
    match fs::renameat_with(one.reopen()?, a, other.reopen()?, b, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS) => {
            let text = format!("{} is on a file system that cannot exchange two names", other.shown(b));
            Err(Failure::new(Code::Failed, text).hint("repl-sync --inplace").into())
        }
        Err(error) => {
            let shown = format!("cannot exchange {} and {}", one.shown(a), other.shown(b));
            Err(io::Error::from(error)).context(shown)
        }
    }
}

/// How many bytes and how many inodes are free for us where this directory is; as many as can be where a file system
/// makes inodes as it needs them.
pub fn free_space(dir: &Dir) -> Result<(u64, u64)> {
    let stat = fs::fstatvfs(dir.reopen()?).map_err(io::Error::from);
    let stat = stat.with_context(|| format!("cannot look at {}", dir::shown(dir.path())))?;
    let inodes = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), inodes))
}

/// How many bytes the file system of a directory has, free or not.
pub fn whole_space(dir: &Dir) -> Result<u64> {
    let stat = fs::fstatvfs(dir.reopen()?).map_err(io::Error::from);
    let stat = stat.with_context(|| format!("cannot look at {}", dir::shown(dir.path())))?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// Whether a file system, or another part of the same one, is mounted here.
pub fn is_mount_point(dir: &Dir) -> Result<bool> {
    let fd = dir.reopen()?;
    let look = || -> Result<bool, Errno> {
        match fs::statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS) {
            Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
                return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
            }
            Ok(_) | Err(Errno::NOSYS | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        // Kernels before 5.8: another device than the directory above, or the root of all.
        let (own, above) = (fs::fstat(&fd)?, fs::statat(&fd, "..", AtFlags::empty())?);
        Ok(own.st_dev != above.st_dev || own.st_ino == above.st_ino)
    };
    look().map_err(io::Error::from).with_context(|| format!("cannot look at {}", dir::shown(dir.path())))
}
