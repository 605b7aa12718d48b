//! A file that appears in its place whole and durable, or not at all.
//!
//! It is written beside its place under a hidden name, synced, and renamed over whatever is there. A kill at any instant
//! leaves the place as it was, and at most the draft, which the next one for that place takes up and empties.
//!
//! Two may write for one place: a server that was killed leaves its command running and starts it again. Each would
//! cut into the other's draft, or rename it half written. So a draft is locked from before its first byte until it has
//! been renamed, a second one waits, and what it has locked must still be the draft. The one that began last wins: what
//! the newer server asked for is not replaced by what the older one did.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{self, AtFlags, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Dir, FILE_FLAGS, shown};
use crate::edge::lock;
use crate::value::exit::{Code, fail};
use crate::value::octets;

/// Less what the umask takes away: a server whose group may read its files says so by it.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);
/// The same of what is made for everybody to read, such as a page.
const PUBLIC: Mode = Mode::from_raw_mode(0o666);

/// Zeros of this length are left out.
const PIECE: usize = 1 << 16;

/// Where a file is to be: a directory held open, and a name in it.
#[derive(Debug)]
pub struct Place {
    dir: Dir,
    name: OsString,
    shown: String,
    mode: Mode,
}

/// A file that is being written. Dropped before [`Draft::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    place: Place,
    temporary: OsString,
    file: File,
    length: u64,
    is_placed: bool,
}

impl Place {
    /// The place that a path names; its directory must be there.
    pub fn of(path: &Path) -> Result<Place> {
        let name = path.file_name().filter(|name| path.as_os_str().as_bytes().ends_with(name.as_bytes()));
        let Some(name) = name else {
            return fail(Code::Usage, format!("'{}' does not name a file", shown(path)));
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let dir = Dir::open(parent.unwrap_or(Path::new(".")))?;
        Ok(Place { dir, name: name.to_owned(), shown: shown(path), mode: MODE })
    }

    /// The same for a file that is made for others: who may read it is left to the umask.
    pub fn public(path: &Path) -> Result<Place> {
        Ok(Place { mode: PUBLIC, ..Place::of(path)? })
    }

    /// Whether it is in this directory, by whatever path.
    pub fn is_in(&self, dir: &Dir) -> Result<bool> {
        let identity = |dir: &Dir| fs::fstat(&dir.fd).map(|stat| (stat.st_dev, stat.st_ino));
        let same = || Ok(identity(&self.dir)? == identity(dir)?);
        same().map_err(|error: Errno| io::Error::from(error)).context("cannot compare directories")
    }

    /// Its path, for messages.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Begins a file for this place. Waits while another process writes one.
    pub fn begin(self) -> Result<Draft> {
        let mut temporary = OsString::from(".");
        temporary.push(&self.name);
        temporary.push(".draft");
        let file =
            locked(&self.dir, &temporary, self.mode).with_context(|| format!("cannot write {}", self.shown()))?;
        Ok(Draft { place: self, temporary, file, length: 0, is_placed: false })
    }
}

/// The draft, ours alone and empty.
fn locked(dir: &Dir, name: &OsStr, mode: Mode) -> Result<File> {
    loop {
        let fd =
            fs::openat(&dir.fd, name, FILE_FLAGS | OFlags::RDWR | OFlags::CREATE, mode).map_err(io::Error::from)?;
        let file = File::from(fd);
        lock::wait(&file)?;
        let opened = fs::fstat(&file).map_err(io::Error::from)?;
        let found = match fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        if (opened.st_dev, opened.st_ino) != (found.st_dev, found.st_ino) {
            continue;
        }
        if FileType::from_raw_mode(opened.st_mode) != FileType::RegularFile || opened.st_nlink > 1 {
            return fail(Code::Fenced, format!("{} is not a file of its own", shown(&dir.path.join(name))));
        }
        file.set_len(0)?;
        return Ok(file);
    }
}

impl Draft {
    /// Takes the space of this many bytes, where the file system can: no disk that is full later, and no zeros to write.
    pub fn reserve(&mut self, length: u64) -> Result<()> {
        match fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(io::Error::from(error)).with_context(|| format!("cannot write {}", self.place.shown())),
        }
    }

    /// Adds bytes. Long runs of zeros are left out: they are what is read where nothing was written.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(PIECE) {
            if !octets::is_zero(piece) {
                let write = self.file.write_all_at(piece, self.length);
                write.with_context(|| format!("cannot write {}", self.place.shown()))?;
            }
            self.length += piece.len() as u64;
        }
        Ok(())
    }

    /// Puts it in its place with this length, zeros behind what was added, durably.
    pub fn finish(mut self, length: u64) -> Result<()> {
        let Place { dir, name, .. } = &self.place;
        let mut write = || -> Result<()> {
            self.file.set_len(length)?;
            self.file.sync_all()?;
            fs::renameat(&dir.fd, &self.temporary, &dir.fd, name).map_err(io::Error::from)?;
            self.is_placed = true;
            dir.sync()
        };
        write().with_context(|| format!("cannot write {}", self.place.shown()))
    }
}

impl Drop for Draft {
    /// Still locked, so the name is ours; once the draft has left it, it may be another's.
    fn drop(&mut self) {
        if !self.is_placed {
            let _ = fs::unlinkat(&self.place.dir.fd, &self.temporary, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn begin(path: &Path) -> Draft {
        Place::of(path).unwrap().begin().unwrap()
    }

    fn names(root: &Path) -> Vec<PathBuf> {
        let mut names: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_appears_whole_or_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        let mut draft = begin(&path);
        draft.put(b"abc").unwrap();
        assert!(!path.exists());
        drop(draft);
        assert!(names(root.path()).is_empty());

        let mut draft = begin(&path);
        draft.put(b"abc").unwrap();
        draft.finish(5).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc\0\0");
        assert_eq!(names(root.path()), [path]);
    }

    #[test]
    fn a_draft_that_a_kill_left_is_emptied_and_what_is_no_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (path, left) = (root.path().join("x"), root.path().join(".x.draft"));
        std::fs::write(&left, "longer than what comes").unwrap();
        let mut draft = begin(&path);
        draft.put(b"abc").unwrap();
        draft.finish(3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");

        std::fs::hard_link(&path, &left).unwrap();
        assert!(Place::of(&path).unwrap().begin().is_err());
        std::fs::remove_file(&left).unwrap();
        std::os::unix::fs::symlink(&path, &left).unwrap();
        assert!(Place::of(&path).unwrap().begin().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    }

    #[test]
    fn zeros_are_read_back_whether_or_not_they_were_written() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        let mut bytes = vec![0; 5 * PIECE + 7];
        bytes[3 * PIECE + 1] = 1;
        for reserved in [0, bytes.len() as u64 + 100] {
            let mut draft = begin(&path);
            if reserved > 0 {
                draft.reserve(reserved).unwrap();
            }
            bytes.chunks(100_000).for_each(|piece| draft.put(piece).unwrap());
            draft.finish(bytes.len() as u64).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes);
        }
    }

    #[test]
    fn the_one_that_began_last_wins_and_waits_for_the_first() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        let mut first = begin(&path);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let mut second = begin(&path);
                assert_eq!(std::fs::read(&path).unwrap(), b"first");
                second.put(b"second").unwrap();
                second.finish(6).unwrap();
            });
            first.put(b"first").unwrap();
            first.finish(5).unwrap();
            second.join().unwrap();
        });
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(names(root.path()), [path]);
    }

    #[test]
    fn a_path_that_names_no_file_is_refused() {
        for bad in ["", "/", "..", "a/..", "a/"] {
            assert!(Place::of(Path::new(bad)).is_err(), "{bad}");
        }
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        assert!(Place::of(&root.path().join("./x")).unwrap().is_in(&dir).unwrap());
        assert!(!Place::of(Path::new("x")).unwrap().is_in(&dir).unwrap());
    }
}
