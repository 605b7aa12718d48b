//! Names in a tree: made, moved, linked and removed.
//!
//! What takes the place of something else is made under a temporary name and renamed over it, so that at every instant
//! one or the other is there. The temporary name is at the tree's root, where whatever a killed process has left there is
//! replaced by the next one that needs it; beside the thing itself where the root is on another file system.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::clone::clone_file;
use super::dress::{Dress, with_bits, writing};
use super::{DIR_FLAGS, FILE_FLAGS, Tree, last, look};
use crate::value::entry::{Entry, Kind};
use crate::value::name::Name;

/// What is not yet in its place.
const TEMPORARY: &[u8] = b".repl-sync-new";
/// How deep [`Tree::remove_all`] goes before it moves what is below up to where it began.
const DEEPEST: usize = 64;
/// Bytes of a directory that one call lists.
const LISTED: usize = 1 << 16;

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

impl Tree {
    /// Makes a directory, link, fifo or device where it is missing or something else is; undressed, and only for us to
    /// use until it is dressed. A directory that is there is fine; one that is in the way must be empty. A device as
    /// anybody but root is an error.
    pub fn make(&self, entry: &Entry) -> Result<()> {
        if entry.is_file() {
            bail!("{} is a file: it is created", self.shown(&entry.name));
        }
        let dir = self.parent(&entry.name)?;
        let make = || match &entry.kind {
            Kind::Directory => self.make_directory(&dir, &entry.name),
            _ => self.make_other(&dir, entry),
        };
        make().with_context(|| self.cannot("make", &entry.name))
    }

    fn make_directory(&self, dir: &OwnedFd, name: &Name) -> io::Result<()> {
        if name.is_root() {
            return Ok(());
        }
        let make = || {
            writing(dir, || fs::mkdirat(dir, last(name), Mode::RWXU))?;
            self.root.forget(name);
            Ok(())
        };
        match make() {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        if is_directory(dir, last(name))? {
            return Ok(());
        }
        unlink(dir, last(name))?;
        Ok(make()?)
    }

    fn make_other(&self, dir: &OwnedFd, entry: &Entry) -> io::Result<()> {
        let make = |dir: &OwnedFd, component: &[u8]| match &entry.kind {
            Kind::Link(target) => fs::symlinkat(&**target, dir, component),
            Kind::Character(major, minor) => {
                fs::mknodat(dir, component, FileType::CharacterDevice, PRIVATE, fs::makedev(*major, *minor))
            }
            Kind::Block(major, minor) => {
                fs::mknodat(dir, component, FileType::BlockDevice, PRIVATE, fs::makedev(*major, *minor))
            }
            _ => fs::mknodat(dir, component, FileType::Fifo, PRIVATE, 0),
        };
        match writing(dir, || make(dir, last(&entry.name))) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        let there = look::entry(dir, last(&entry.name), &entry.name)?;
        if there.is_some_and(|there| there.kind == entry.kind) {
            return Ok(());
        }
        self.replace(dir, &entry.name, make)
    }

    /// Makes `name` a hard link to what `to` is; what else has that name is replaced, a directory only when empty.
    pub fn link(&self, to: &Name, name: &Name) -> Result<()> {
        self.link_from(self, to, name)
    }

    /// The same, to what `to` is in another tree of the same file system.
    pub fn link_from(&self, tree: &Tree, to: &Name, name: &Name) -> Result<()> {
        let from = tree.parent(to)?;
        let dir = self.parent(name)?;
        let link = || -> io::Result<()> {
            let link = |dir: &OwnedFd, component: &[u8]| fs::linkat(&from, last(to), dir, component, AtFlags::empty());
            match writing(&dir, || link(&dir, last(name))) {
                Err(Errno::EXIST) => {}
                other => return Ok(other?),
            }
            let identity = |dir: &OwnedFd, component| -> Result<_, Errno> {
                let stat = fs::statat(dir, component, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok((stat.st_dev, stat.st_ino))
            };
            if identity(&from, last(to))? == identity(&dir, last(name))? {
                return Ok(());
            }
            self.replace(&dir, name, link)
        };
        link().with_context(|| format!("cannot link {} to {}", self.shown(name), tree.shown(to)))
    }

    /// Makes something under the temporary name and renames it over what is there.
    fn replace(
        &self,
        dir: &OwnedFd,
        name: &Name,
        make: impl Fn(&OwnedFd, &[u8]) -> Result<(), Errno>,
    ) -> io::Result<()> {
        if is_directory(dir, last(name))? {
            self.root.forget(name);
            writing(dir, || fs::unlinkat(dir, last(name), AtFlags::REMOVEDIR))?;
        }
        let _alone = self.root.temporary();
        let through = |home: &OwnedFd| -> io::Result<()> {
            unlink(home, TEMPORARY)?;
            writing(home, || make(home, TEMPORARY))?;
            let renamed = writing(dir, || fs::renameat(home, TEMPORARY, dir, last(name)));
            // Gone already, but where both were the same file (then nothing is renamed) or it failed.
            unlink(home, TEMPORARY)?;
            Ok(renamed?)
        };
        // The root may be another file system, or not ours to write in.
        through(self.root.descriptor()).or_else(|_| through(dir))
    }

    /// Moves something from a tree to this one, over what has its name here; a directory only when empty. From another
    /// file system (no directories) it is copied beside, made durable, renamed, and removed there.
    pub fn place(&self, from: &Tree, from_name: &Name, name: &Name) -> Result<()> {
        if name.is_root() || from_name.is_root() {
            bail!("cannot move {} to {}: the root of a tree stays", from.shown(from_name), self.shown(name));
        }
        let (source, dir) = (from.parent(from_name)?, self.parent(name)?);
        let rename = || writing(&dir, || fs::renameat(&source, from_name.last(), &dir, name.last()));
        let place = || -> Result<()> {
            let moved = match rename() {
                Err(Errno::ISDIR) => {
                    writing(&dir, || fs::unlinkat(&dir, name.last(), AtFlags::REMOVEDIR)).map_err(io::Error::from)?;
                    rename()
                }
                Err(Errno::NOTDIR) => {
                    unlink(&dir, name.last())?;
                    rename()
                }
                other => other,
            };
            match moved {
                Err(Errno::XDEV) => self.place_copy(from, from_name, &dir, name),
                other => Ok(other.map_err(io::Error::from)?),
            }
        };
        from.root.forget(from_name);
        self.root.forget(name);
        place().with_context(|| format!("cannot move {} to {}", from.shown(from_name), self.shown(name)))
    }

    fn place_copy(&self, from: &Tree, from_name: &Name, dir: &OwnedFd, name: &Name) -> Result<()> {
        const ALL: Dress = Dress { owner: true, devices: true };
        let Some(mut entry) = from.look(from_name)? else {
            return Err(io::Error::from(Errno::NOENT).into());
        };
        entry.name = name.clone();
        match &entry.kind {
            Kind::File => {
                let Some(file) = from.open_read(from_name)? else {
                    return Err(io::Error::from(Errno::NOENT).into());
                };
                self.copy_over(&file, &entry, dir, ALL)?;
            }
            Kind::Directory => bail!("a directory on another file system"),
            _ => {
                self.make(&entry)?;
                self.dress(&entry, ALL)?;
            }
        }
        self.sync_directory(&name.parent())?;
        from.remove(from_name, false)
    }

    fn copy_over(&self, from: &File, entry: &Entry, dir: &OwnedFd, dress: Dress) -> Result<()> {
        let _alone = self.root.temporary();
        unlink(dir, TEMPORARY)?;
        let flags = FILE_FLAGS | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = writing(dir, || fs::openat(dir, TEMPORARY, flags, PRIVATE)).map_err(io::Error::from)?;
        let file = File::from(fd);
        clone_file(from, &file)?;
        self.dress_file(&file, entry, dress)?;
        file.sync_all()?;
        if is_directory(dir, entry.name.last())? {
            writing(dir, || fs::unlinkat(dir, entry.name.last(), AtFlags::REMOVEDIR)).map_err(io::Error::from)?;
        }
        Ok(writing(dir, || fs::renameat(dir, TEMPORARY, dir, entry.name.last())).map_err(io::Error::from)?)
    }

    /// Removes a name, or a directory that is empty. One that is missing is fine.
    pub fn remove(&self, name: &Name, is_directory: bool) -> Result<()> {
        let Some(dir) = self.parent_if_any(name)? else {
            return Ok(());
        };
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        self.root.forget(name);
        match writing(&dir, || fs::unlinkat(&dir, last(name), flags)) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io::Error::from(error)).with_context(|| self.cannot("remove", name)),
        }
    }

    /// Removes a name with all below it, but nothing on another file system that is mounted there: that is an error. One
    /// that is missing is fine.
    pub fn remove_all(&self, name: &Name) -> Result<()> {
        if name.is_root() {
            bail!("cannot remove {}: the root of a tree stays", self.shown(name));
        }
        let Some(dir) = self.parent_if_any(name)? else {
            return Ok(());
        };
        self.root.forget(name);
        remove_below(&dir, name.last()).with_context(|| self.cannot("remove", name))
    }
}

/// Removes what is no directory, if it is there.
fn unlink(dir: &OwnedFd, component: &[u8]) -> io::Result<()> {
    match writing(dir, || fs::unlinkat(dir, component, AtFlags::empty())) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether that is a directory now.
fn is_directory(dir: &OwnedFd, component: &[u8]) -> io::Result<bool> {
    match fs::statat(dir, component, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes a component with all below it. It may be deeper than descriptors last: what is deep is moved up, and so it
/// takes several rounds.
fn remove_below(dir: &OwnedFd, component: &[u8]) -> io::Result<()> {
    if is_unlinked(dir, component)? {
        return Ok(());
    }
    let top = match open_to_empty(dir, component) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut moved = 0;
    loop {
        let before = moved;
        empty(&top, &top, 0, &mut moved)?;
        match writing(dir, || fs::unlinkat(dir, component, AtFlags::REMOVEDIR)) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if moved > before => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a component is no more; a directory stays.
fn is_unlinked(dir: &OwnedFd, component: &[u8]) -> io::Result<bool> {
    match writing(dir, || fs::unlinkat(dir, component, AtFlags::empty())) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        // What POSIX would have for a directory; or it may really not be removed.
        Err(Errno::PERM) if is_directory(dir, component)? => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory that goes with all that is in it, so that its owner may do anything in it.
fn open_to_empty(dir: &OwnedFd, component: &[u8]) -> Result<OwnedFd, Errno> {
    let open = || fs::openat(dir, component, DIR_FLAGS, Mode::empty());
    let fd = match open() {
        Err(Errno::ACCESS) => with_bits(dir, component, Mode::RWXU, open),
        other => other,
    }?;
    let mode = Mode::from_raw_mode(fs::fstat(&fd)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        // Where that does not help, the error is that of what comes next.
        let _ = fs::fchmod(&fd, mode | Mode::RWXU);
    }
    Ok(fd)
}

fn empty(top: &OwnedFd, dir: &OwnedFd, depth: usize, moved: &mut u64) -> io::Result<()> {
    let device = fs::fstat(dir)?.st_dev;
    for component in names(dir)? {
        if is_unlinked(dir, &component)? {
            continue;
        }
        if depth == DEEPEST {
            move_up(dir, &component, top, moved)?;
            continue;
        }
        let below = match open_to_empty(dir, &component) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if fs::fstat(&below)?.st_dev != device {
            return Err(Errno::BUSY.into());
        }
        empty(top, &below, depth + 1, moved)?;
        match writing(dir, || fs::unlinkat(dir, &*component, AtFlags::REMOVEDIR)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn move_up(dir: &OwnedFd, component: &[u8], top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let free = format!(".repl-sync-deep-{moved}");
        match fs::renameat_with(dir, component, top, &free, fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
    }
}

fn names(dir: &OwnedFd) -> io::Result<Vec<Box<[u8]>>> {
    // A second round begins anew.
    fs::seek(dir, fs::SeekFrom::Start(0))?;
    let mut buffer = Vec::with_capacity(LISTED);
    let mut listing = fs::RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(found) = listing.next() {
        let found = found?;
        let component = found.file_name().to_bytes();
        if !matches!(component, b"." | b"..") {
            names.push(component.into());
        }
    }
    Ok(names)
}
