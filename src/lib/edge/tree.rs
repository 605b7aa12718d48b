//! A directory tree held open by its root, for reading it whole and for making it what another one is.
//!
//! # Nothing leads out
//!
//! Whoever can write in a tree can put a symbolic link in the place of a directory between any two calls of ours. So no
//! path is ever opened: the directory that a name is in is reached from the root's descriptor without a link on the way
//! (`resolve`), and what is in it by its last component and calls that follow none. A walk opens each directory from the
//! one above it, in the same way. What is found is asked again of the descriptor, where it matters what it is. The only
//! paths are those of `/proc/self/fd`, by which the kernel takes a descriptor where it has no call for one.
//!
//! The last directories that names were in are kept open. One that somebody else moves away would still be written in,
//! so nobody but the holder of the tree's lock may do that while it is written; a walk forgets them all, so that a pass
//! that begins with one reads what is there then.

mod dress;
mod look;
mod make;
mod resolve;
mod walk;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

pub use self::dress::Dress;
pub use self::walk::{Unread, Walk};

use self::resolve::Root;
use super::dir::{self, Dir};
use crate::value::entry::{Entry, Seen, Stamp};
use crate::value::exit::{Code, Failure};
use crate::value::name::Name;

/// `NONBLOCK` so that a fifo in a file's place does not hang the open.
const FILE_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);
const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// A directory tree, open. Handles made by [`Tree::try_clone`] are of the same tree.
#[derive(Debug)]
pub struct Tree {
    root: Arc<Root>,
    path: PathBuf,
}

/// The stamp of an open file.
pub fn stamp(file: &File) -> io::Result<Stamp> {
    Ok(look::stamp(&fs::fstat(file)?))
}

/// What is to be seen of an open file. Attributes first: a change of them changes the stamp.
pub fn seen(file: &File) -> io::Result<Seen> {
    let xattrs = look::attributes_of(file)?;
    Ok(Seen { stamp: stamp(file)?, xattrs })
}

/// The last component of a name in its directory; the root is `.` in itself.
fn last(name: &Name) -> &[u8] {
    if name.is_root() { b"." } else { name.last() }
}

/// Whether an error says that a name leads through something that is no directory.
fn is_astray(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(code, Some(Errno::NOTDIR | Errno::LOOP | Errno::XDEV))
}

fn is_missing(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NOENT)
}

impl Tree {
    /// Opens a tree; the path itself may lead through links, since the operator gave it.
    pub fn open(path: &Path) -> Result<Tree> {
        Tree::of(&Dir::open(path)?)
    }

    /// The tree of an open directory.
    pub fn of(dir: &Dir) -> Result<Tree> {
        fs::access(resolve::DESCRIPTORS, fs::Access::EXISTS)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot use {}", resolve::DESCRIPTORS))?;
        Ok(Tree { root: Arc::new(Root::new(dir.reopen()?)), path: dir.path().to_owned() })
    }

    /// The tree below a directory in this one.
    pub fn subtree(&self, name: &Name) -> Result<Tree> {
        let fd = self.root.directory_anew(name).with_context(|| self.cannot("open", name))?;
        let path = name.components().fold(self.path.clone(), |path, part| path.join(OsStr::from_bytes(part)));
        Ok(Tree { root: Arc::new(Root::new(fd)), path })
    }

    /// Another handle of the same tree.
    pub fn try_clone(&self) -> Result<Tree> {
        Ok(Tree { root: Arc::clone(&self.root), path: self.path.clone() })
    }

    /// The path it was opened by: for messages, never opened again.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name's path for a message.
    pub fn shown(&self, name: &Name) -> String {
        let path = dir::shown(&self.path);
        if name.is_root() { path } else { format!("{}/{name}", path.trim_end_matches('/')) }
    }

    /// The device of the root's file system.
    pub fn device(&self) -> Result<u64> {
        let stat = fs::fstat(self.root.descriptor()).map_err(io::Error::from);
        Ok(stat.with_context(|| self.cannot("look at", &Name::root()))?.st_dev)
    }

    /// Lists the tree, but for what `skip` says (with whether it is a directory), and all below that. Sockets and what
    /// vanishes meanwhile are left out.
    pub fn walk(&self, skip: impl Fn(&Name, bool) -> bool + Send + 'static) -> Walk {
        self.root.forget(&Name::root());
        Walk::new(Arc::clone(&self.root), Box::new(skip))
    }

    /// What is there now; `None` when there is nothing, or a socket, or when the name leads through what is no directory.
    pub fn look(&self, name: &Name) -> Result<Option<Entry>> {
        match self.parent_if_any(name)? {
            Some(dir) => look::entry(&dir, last(name), name).with_context(|| self.cannot("look at", name)),
            None => Ok(None),
        }
    }

    /// Opens a regular file for reading; `None` when there is none of this name now, whatever else there may be. The
    /// file's time of access stays, where we may leave it.
    pub fn open_read(&self, name: &Name) -> Result<Option<File>> {
        self.open_file(name, |dir, last| {
            match fs::openat(dir, last, FILE_FLAGS | OFlags::RDONLY | OFlags::NOATIME, Mode::empty()) {
                // Not its owner.
                Err(Errno::PERM) => fs::openat(dir, last, FILE_FLAGS | OFlags::RDONLY, Mode::empty()),
                other => other,
            }
        })
    }

    /// Opens a regular file for reading and writing, also one of ours that is read-only; `None` when there is none of
    /// this name now. It may have other names (hard links).
    pub fn open_write(&self, name: &Name) -> Result<Option<File>> {
        self.open_file(name, |dir, last| {
            let open = || fs::openat(dir, last, FILE_FLAGS | OFlags::RDWR, Mode::empty());
            match open() {
                Err(Errno::ACCESS) => dress::with_bits(dir, last, Mode::RUSR | Mode::WUSR, open),
                other => other,
            }
        })
    }

    fn open_file(&self, name: &Name, open: impl Fn(&OwnedFd, &[u8]) -> Result<OwnedFd, Errno>) -> Result<Option<File>> {
        let Some(dir) = self.parent_if_any(name)? else {
            return Ok(None);
        };
        // The kind is asked before the open, since opening a device can act on it, and again of what was opened.
        let is_regular = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
        let opened = match fs::statat(&dir, last(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_regular(stat.st_mode) => open(&dir, last(name)),
            Ok(_) => return Ok(None),
            Err(error) => Err(error),
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(io::Error::from(error)).with_context(|| self.cannot("open", name)),
        };
        let stat = fs::fstat(&fd).map_err(io::Error::from).with_context(|| self.cannot("look at", name))?;
        Ok(is_regular(stat.st_mode).then(|| File::from(fd)))
    }

    /// Makes a new file, mode 0600, for reading and writing.
    pub fn create(&self, name: &Name) -> Result<File> {
        self.create_with(name, Mode::RUSR | Mode::WUSR)
    }

    /// Makes a new file that already has the permissions of its entry, as far as the umask lets it: for what is written
    /// and dressed at once.
    pub fn create_as(&self, entry: &Entry) -> Result<File> {
        self.create_with(&entry.name, Mode::from_raw_mode(entry.mode & 0o777))
    }

    fn create_with(&self, name: &Name, mode: Mode) -> Result<File> {
        let dir = self.parent(name)?;
        let flags = FILE_FLAGS | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let made = dress::writing(&dir, || fs::openat(&dir, last(name), flags, mode));
        made.map(File::from).map_err(io::Error::from).with_context(|| self.cannot("make", name))
    }

    /// Makes all of its file system durable.
    pub fn sync(&self) -> Result<()> {
        let synced = fs::syncfs(self.root.descriptor()).map_err(io::Error::from);
        synced.with_context(|| self.cannot("sync", &Name::root()))
    }

    /// Makes the names in one directory durable.
    pub fn sync_directory(&self, name: &Name) -> Result<()> {
        let sync = || -> io::Result<()> {
            let directory = self.root.directory(name)?;
            Ok(fs::fsync(fs::openat(&directory, ".", DIR_FLAGS, Mode::empty())?)?)
        };
        sync().with_context(|| self.cannot("sync", name))
    }

    /// The directory that a name is in.
    fn parent(&self, name: &Name) -> Result<Arc<OwnedFd>> {
        match self.root.directory(&name.parent()) {
            Ok(dir) => Ok(dir),
            Err(error) if is_astray(&error) => {
                let text =
                    format!("{} leads through something that is no directory (a symbolic link?)", self.shown(name));
                Err(Failure::new(Code::Fenced, text).into())
            }
            Err(error) => Err(error).with_context(|| self.cannot("open", &name.parent())),
        }
    }

    /// The same where it is no fault that there is none.
    fn parent_if_any(&self, name: &Name) -> Result<Option<Arc<OwnedFd>>> {
        match self.root.directory(&name.parent()) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if is_astray(&error) || is_missing(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| self.cannot("open", &name.parent())),
        }
    }

    fn cannot(&self, verb: &str, name: &Name) -> String {
        format!("cannot {verb} {}", self.shown(name))
    }
}
