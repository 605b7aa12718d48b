//! A directory tree held open by its root: everything in it is reached from there, never through a symbolic link.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::dir::{self, Dir};
use crate::value::entry::{Entry, Stamp};
use crate::value::name::Name;

/// A directory tree, open. Handles made by [`Tree::try_clone`] are of the same tree.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
}

/// What [`Tree::dress`] may put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dress {
    /// Owner and group, set-id bits and capabilities; as anybody but root only a group that one is in.
    pub owner: bool,
    /// Device nodes are made.
    pub devices: bool,
}

/// What could not be looked at, or a directory (after its own entry) that could not be listed.
#[derive(Debug)]
pub struct Unread {
    /// Where.
    pub name: Name,
    /// Why.
    pub error: io::Error,
}

/// All of a tree, in the order of names, the root first. See [`Tree::walk`].
pub struct Walk {}

impl Iterator for Walk {
    type Item = Result<Entry, Unread>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

/// The stamp of an open file.
pub fn stamp(_file: &File) -> io::Result<Stamp> {
    Err(io::ErrorKind::Unsupported.into())
}

#[allow(clippy::missing_panics_doc, clippy::unused_self)]
impl Tree {
    /// Opens a tree; the path itself may lead through links, since the operator gave it.
    pub fn open(path: &Path) -> Result<Tree> {
        Ok(Tree { path: path.to_owned() })
    }

    /// The tree of an open directory.
    pub fn of(dir: &Dir) -> Result<Tree> {
        Ok(Tree { path: dir.path().to_owned() })
    }

    /// Another handle of the same tree.
    pub fn try_clone(&self) -> Result<Tree> {
        bail!("not yet")
    }

    /// The path it was opened by: for messages, never opened again.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name's path for a message.
    pub fn shown(&self, _name: &Name) -> String {
        dir::shown(&self.path)
    }

    /// The device of the root's file system.
    pub fn device(&self) -> Result<u64> {
        bail!("not yet")
    }

    /// Lists the tree, but for what `skip` says (with whether it is a directory), and all below that; sockets are left
    /// out.
    pub fn walk(&self, _skip: impl Fn(&Name, bool) -> bool + Send + 'static) -> Walk {
        Walk {}
    }

    /// What is there now; `None` when there is nothing, or a socket, or when the name leads through what is no directory.
    pub fn look(&self, _name: &Name) -> Result<Option<Entry>> {
        bail!("not yet")
    }

    /// Opens a regular file for reading; `None` when there is none of this name now, whatever else there may be.
    pub fn open_read(&self, _name: &Name) -> Result<Option<File>> {
        bail!("not yet")
    }

    /// Opens a regular file for reading and writing; `None` when there is none of this name now.
    pub fn open_write(&self, _name: &Name) -> Result<Option<File>> {
        bail!("not yet")
    }

    /// Makes a new file, mode 0600, for reading and writing.
    pub fn create(&self, _name: &Name) -> Result<File> {
        bail!("not yet")
    }

    /// Makes a new file that already has the permissions of its entry, as far as the umask lets it: for what is written
    /// and dressed at once.
    pub fn create_as(&self, _entry: &Entry) -> Result<File> {
        bail!("not yet")
    }

    /// Makes a directory, link, fifo or device where it is missing or something else is there; undressed.
    pub fn make(&self, _entry: &Entry) -> Result<()> {
        bail!("not yet")
    }

    /// Gives what is there the owner, mode, extended attributes and time of its entry.
    pub fn dress(&self, _entry: &Entry, _dress: Dress) -> Result<()> {
        bail!("not yet")
    }

    /// [`Tree::dress`] for a file that is open.
    pub fn dress_file(&self, _file: &File, _entry: &Entry, _dress: Dress) -> Result<()> {
        bail!("not yet")
    }

    /// Makes `name` a hard link to what `to` is.
    pub fn link(&self, _to: &Name, _name: &Name) -> Result<()> {
        bail!("not yet")
    }

    /// Moves something from a tree to this one.
    pub fn place(&self, _from: &Tree, _from_name: &Name, _name: &Name) -> Result<()> {
        bail!("not yet")
    }

    /// Removes a name, or an empty directory; one that is missing is fine.
    pub fn remove(&self, _name: &Name, _is_directory: bool) -> Result<()> {
        bail!("not yet")
    }

    /// Removes a name with all below it.
    pub fn remove_all(&self, _name: &Name) -> Result<()> {
        bail!("not yet")
    }

    /// Makes all of its file system durable.
    pub fn sync(&self) -> Result<()> {
        bail!("not yet")
    }

    /// Makes the names in one directory durable.
    pub fn sync_directory(&self, _name: &Name) -> Result<()> {
        bail!("not yet")
    }
}
