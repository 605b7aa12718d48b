//! Owner, mode, extended attributes and time of what is in a tree.
//!
//! All by a descriptor of the very thing, opened without following and without acting on it (`O_PATH`), so that what was
//! put in its place meanwhile, a link above all, stays as it is. In this order, since each undoes something of what
//! would come before it: a new owner takes away set-id bits and capabilities, an ACL sets the mode, and a mode may
//! forbid attributes to be set.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use rustix::fs::{
    self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::resolve::path_of;
use super::{Tree, last, look};
use crate::value::entry::{Entry, Kind, Moment};
use crate::value::exit::{Code, Failure};

/// What is put on, and what may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dress {
    /// Owner and group, set-id bits and capabilities: as root. Anybody else sets only a group of their own, and the rest
    /// is passed over.
    pub owner: bool,
    /// Device nodes are made, which only root can. Who calls [`Tree::make`] asks this before.
    pub devices: bool,
}

/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

impl Tree {
    /// Gives what is there the owner, mode, extended attributes (others are removed) and mtime of its entry, so far as
    /// they differ. It must be of the entry's kind. A link is dressed itself, never what it leads to.
    pub fn dress(&self, entry: &Entry, dress: Dress) -> Result<()> {
        let dir = self.parent(&entry.name)?;
        let open = || -> io::Result<(OwnedFd, Stat)> {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = fs::openat(&dir, last(&entry.name), flags, Mode::empty())?;
            let stat = fs::fstat(&fd)?;
            Ok((fd, stat))
        };
        let (fd, stat) = open().with_context(|| self.cannot("dress", &entry.name))?;
        if !is_of_kind(&stat, &entry.kind) {
            let text = format!("{} is not {} any more", self.shown(&entry.name), entry.kind);
            return Err(Failure::new(Code::Fenced, text).into());
        }
        put_on(Hold::Path(&fd), &stat, entry, dress).with_context(|| self.cannot("dress", &entry.name))
    }

    /// [`Tree::dress`] for a file that is open. Nothing may be written to it afterwards: that would undo some of it.
    pub fn dress_file(&self, file: &File, entry: &Entry, dress: Dress) -> Result<()> {
        let put = || put_on(Hold::File(file), &fs::fstat(file)?, entry, dress);
        put().with_context(|| self.cannot("dress", &entry.name))
    }
}

fn is_of_kind(stat: &Stat, kind: &Kind) -> bool {
    let expected = match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Link(_) => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::Character(..) => FileType::CharacterDevice,
        Kind::Block(..) => FileType::BlockDevice,
    };
    FileType::from_raw_mode(stat.st_mode) == expected
}

/// By what something is held: for what a descriptor without access cannot do, it has a path among the kernel's own.
#[derive(Clone, Copy)]
enum Hold<'a> {
    Path(&'a OwnedFd),
    File(&'a File),
}

impl AsFd for Hold<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Hold::Path(fd) => fd.as_fd(),
            Hold::File(file) => file.as_fd(),
        }
    }
}

fn put_on(hold: Hold<'_>, stat: &Stat, entry: &Entry, dress: Dress) -> io::Result<()> {
    let path = path_of(hold);
    let is_root = rustix::process::geteuid().is_root();
    let is_link = matches!(entry.kind, Kind::Link(_));
    let mut is_changed = false;
    if dress.owner {
        is_changed |= own(hold, stat, entry, is_root)?;
    }
    // Capabilities go with the owner: who may not set one leaves them as they are.
    is_changed |= attribute(hold, &path, stat, entry, is_root && dress.owner)?;
    let mode = if is_root && dress.owner { entry.mode } else { entry.mode & !SET_ID };
    if !is_link && (is_changed || stat.st_mode & 0o7777 != mode) {
        fs::chmodat(CWD, &path, Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    let mtime = entry.stamp.mtime;
    if look::stamp(stat).mtime != mtime {
        match hold {
            Hold::Path(_) => fs::utimensat(CWD, &path, &only(mtime), AtFlags::empty())?,
            Hold::File(file) => fs::futimens(file, &only(mtime))?,
        }
    }
    Ok(())
}

fn only(mtime: Moment) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) as _ },
    }
}

/// Sets owner and group; says whether that has changed anything.
fn own(fd: impl AsFd, stat: &Stat, entry: &Entry, is_root: bool) -> io::Result<bool> {
    if entry.uid == u32::MAX || entry.gid == u32::MAX {
        // To the kernel that is nobody's number, but "leave it".
        return Err(Errno::INVAL.into());
    }
    let user = (is_root && stat.st_uid != entry.uid).then(|| Uid::from_raw(entry.uid));
    let group = (stat.st_gid != entry.gid).then(|| Gid::from_raw(entry.gid));
    if user.is_none() && group.is_none() {
        return Ok(false);
    }
    match fs::chownat(fd, "", user, group, AtFlags::EMPTY_PATH) {
        Ok(()) => Ok(true),
        Err(Errno::PERM) if !is_root => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sets and removes extended attributes; says whether that has changed any.
fn attribute(hold: Hold<'_>, path: &str, stat: &Stat, entry: &Entry, with_capabilities: bool) -> io::Result<bool> {
    let is_ours = |name: &[u8]| look::is_taken(name, with_capabilities);
    let mut is_changed = false;
    let there = with_access(path, stat, || match hold {
        Hold::Path(_) => look::attributes_at(path),
        Hold::File(file) => look::attributes_of(file),
    })?;
    let is_wanted = |name: &[u8]| entry.xattrs.iter().any(|(wanted, _)| **wanted == *name);
    for (name, _) in there.iter().filter(|(name, _)| is_ours(name) && !is_wanted(name)) {
        with_access(path, stat, || match fs::removexattr(path, &**name) {
            Err(Errno::NODATA) => Ok(()),
            other => other,
        })?;
        is_changed = true;
    }
    // An ACL may take the right to set others away, so it comes last.
    let is_acl = |name: &[u8]| matches!(name, ACCESS_ACL | DEFAULT_ACL);
    let (first, then): (Vec<_>, Vec<_>) = entry.xattrs.iter().partition(|(name, _)| !is_acl(name));
    for attribute in first.into_iter().chain(then) {
        if is_ours(&attribute.0) && !there.contains(attribute) {
            let set = || fs::setxattr(path, &*attribute.0, &attribute.1, XattrFlags::empty());
            with_access(path, stat, set)?;
            is_changed = true;
        }
    }
    Ok(is_changed)
}

/// Does what needs permission to read or write a thing of ours, which it may not give its owner.
fn with_access<T>(path: &str, stat: &Stat, act: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match act() {
        Err(Errno::ACCESS) => lifted(path, stat, Mode::RUSR | Mode::WUSR, act),
        other => other,
    }
}

/// Acts with more permissions for the owner, which are then taken back.
fn lifted<T>(path: &str, stat: &Stat, more: Mode, act: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if mode.contains(more) || fs::chmodat(CWD, path, mode | more, AtFlags::empty()).is_err() {
        return Err(Errno::ACCESS);
    }
    let done = act();
    fs::chmodat(CWD, path, mode, AtFlags::empty())?;
    done
}

/// Acts on a component of a directory with more permissions for its owner.
pub(super) fn with_bits<T>(
    dir: &OwnedFd,
    component: &[u8],
    more: Mode,
    act: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let fd = fs::openat(dir, component, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err(Errno::ACCESS);
    }
    lifted(&path_of(&fd), &stat, more, act)
}

/// Changes names in a directory of ours, also one that its owner may not write in.
pub(super) fn writing<T>(dir: &OwnedFd, act: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match act() {
        Err(Errno::ACCESS) => lifted(&path_of(dir), &fs::fstat(dir)?, Mode::RWXU, act),
        other => other,
    }
}
