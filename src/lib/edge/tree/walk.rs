//! All of a tree in the order of names: each directory opened from the one above it, listed whole, its names sorted.
//!
//! In memory are the names of the directories on the way down, and a descriptor of each of the last few. One that was
//! closed on the way down is opened anew by its name on the way up, and must then be the same directory.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{self, Mode, RawDir};

use super::resolve::Root;
use super::{DIR_FLAGS, last, look};
use crate::value::entry::Entry;
use crate::value::name::{NAME_MAX, Name, is_component};

/// Directories on the way down that are open at once: far fewer than a process may have.
const OPEN: usize = 64;
/// Bytes of a directory that one call lists.
const LISTED: usize = 1 << 16;

/// What could not be looked at, or a directory (after its own entry) that could not be listed whole: what is below it is
/// not known, and not all of it need have been told.
#[derive(Debug)]
pub struct Unread {
    /// Where.
    pub name: Name,
    /// Why.
    pub error: io::Error,
}

impl Unread {
    /// Whether it is only that the tree has changed meanwhile: what was there is gone, or is something else.
    pub fn is_change(&self) -> bool {
        use io::ErrorKind::{NotADirectory, NotFound, StaleNetworkFileHandle};
        matches!(self.error.kind(), NotFound | NotADirectory | StaleNetworkFileHandle)
    }
}

/// The error that [`Unread::is_change`] knows.
pub(super) fn changed(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::StaleNetworkFileHandle, text)
}

/// All of a tree, in the order of names, the root first; made by [`super::Tree::walk`]. Ends after its last entry, never
/// with an error alone: what cannot be read is told, and left out.
pub struct Walk {
    root: Arc<Root>,
    skip: Skip,
    begun: bool,
    is_bare: bool,
    /// A directory that was told and is to be listed next, with its device and inode.
    told: Option<(Name, Identity)>,
    levels: Vec<Level>,
    buffer: Vec<u8>,
}

/// Whether a name, which is a directory or not, is left out.
pub(super) type Skip = Box<dyn Fn(&Name, bool) -> bool + Send>;

/// Device and inode.
type Identity = (u64, u64);

/// An open directory, all names in it one after the other, and where each begins and how long it is, in reverse order.
type Listing = (OwnedFd, Vec<u8>, Vec<(usize, u16)>);

/// A directory on the way down.
struct Level {
    name: Name,
    identity: Identity,
    fd: Option<OwnedFd>,
    /// See [`Listing`].
    names: Vec<u8>,
    left: Vec<(usize, u16)>,
}

impl Walk {
    pub(super) fn new(root: Arc<Root>, skip: Skip) -> Walk {
        let buffer = Vec::with_capacity(LISTED);
        Walk { root, skip, begun: false, is_bare: false, told: None, levels: Vec::new(), buffer }
    }

    /// Leaves extended attributes out of entries of files: for whoever may not need them, they cost as much as all else.
    #[must_use]
    pub fn bare(mut self) -> Walk {
        self.is_bare = true;
        self
    }

    /// Lists the directory that was told last and goes down into it.
    fn enter(&mut self, name: Name, identity: Identity) -> Result<(), Unread> {
        match self.list(&name, identity) {
            Ok((fd, names, left)) => {
                if let Some(far) = self.levels.len().checked_sub(OPEN) {
                    self.levels[far].fd = None;
                }
                self.levels.push(Level { name, identity, fd: Some(fd), names, left });
                Ok(())
            }
            Err(error) => Err(Unread { name, error }),
        }
    }

    fn list(&mut self, name: &Name, identity: Identity) -> io::Result<Listing> {
        let above = self.levels.last().and_then(|level| level.fd.as_ref());
        let fd = fs::openat(above.unwrap_or(self.root.descriptor()), last(name), DIR_FLAGS, Mode::empty())?;
        check(&fd, identity)?;
        let (mut names, mut left) = (Vec::new(), Vec::new());
        let mut listing = RawDir::new(&fd, self.buffer.spare_capacity_mut());
        while let Some(found) = listing.next() {
            let found = found?;
            let component = found.file_name().to_bytes();
            if matches!(component, b"." | b"..") {
                continue;
            }
            // Some file systems of other machines have them; no name could be made of it.
            if !is_component(component) || name.bytes().len() + 1 + component.len() > NAME_MAX {
                return Err(io::ErrorKind::InvalidFilename.into());
            }
            left.push((names.len(), component.len() as u16));
            names.extend_from_slice(component);
        }
        let part = |&(begin, length): &(usize, u16)| &names[begin..begin + usize::from(length)];
        left.sort_unstable_by(|one, other| part(other).cmp(part(one)));
        Ok((fd, names, left))
    }

    /// What comes next in the directories that are listed already.
    fn further(&mut self) -> Option<Result<Entry, Unread>> {
        loop {
            let level = self.levels.last_mut()?;
            let Some((begin, length)) = level.left.pop() else {
                self.levels.pop();
                continue;
            };
            let fd = match reopened(&mut level.fd, &self.root, &level.name, level.identity) {
                Ok(fd) => fd,
                Err(error) => {
                    let name = mem::take(&mut level.name);
                    self.levels.pop();
                    return Some(Err(Unread { name, error }));
                }
            };
            let component = &level.names[begin..begin + usize::from(length)];
            let name = level.name.join(component);
            let looked =
                if self.is_bare { look::bare(fd, component, &name) } else { look::entry(fd, component, &name) };
            match looked {
                Ok(Some(entry)) if !(self.skip)(&name, entry.is_directory()) => return Some(Ok(self.tell(entry))),
                Err(error) if !(self.skip)(&name, false) && !(self.skip)(&name, true) => {
                    return Some(Err(Unread { name, error }));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn tell(&mut self, entry: Entry) -> Entry {
        if entry.is_directory() {
            self.told = Some((entry.name.clone(), (entry.stamp.device, entry.stamp.inode)));
        }
        entry
    }

    fn begin(&mut self) -> Result<Entry, Unread> {
        let name = Name::root();
        match look::entry(self.root.descriptor(), last(&name), &name) {
            Ok(Some(entry)) => Ok(self.tell(entry)),
            Ok(None) => Err(Unread { name, error: io::ErrorKind::NotFound.into() }),
            Err(error) => Err(Unread { name, error }),
        }
    }
}

impl Iterator for Walk {
    type Item = Result<Entry, Unread>;

    fn next(&mut self) -> Option<Self::Item> {
        if !mem::replace(&mut self.begun, true) {
            return Some(self.begin());
        }
        if let Some((name, identity)) = self.told.take()
            && let Err(unread) = self.enter(name, identity)
        {
            return Some(Err(unread));
        }
        self.further()
    }
}

/// The descriptor of a directory on the way down.
fn reopened<'a>(fd: &'a mut Option<OwnedFd>, root: &Root, name: &Name, identity: Identity) -> io::Result<&'a OwnedFd> {
    let open = match fd.take() {
        Some(open) => open,
        None => {
            let open = root.directory_anew(name)?;
            check(&open, identity)?;
            open
        }
    };
    Ok(fd.insert(open))
}

fn check(fd: &OwnedFd, identity: Identity) -> io::Result<()> {
    let stat = fs::fstat(fd)?;
    if (stat.st_dev, stat.st_ino) == identity {
        return Ok(());
    }
    Err(changed("another directory has taken its place"))
}

impl fmt::Debug for Walk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Walk").field("below", &self.levels.last().map(|level| &level.name)).finish_non_exhaustive()
    }
}
