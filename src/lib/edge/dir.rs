//! A directory held open. Everything in it is reached relative to the descriptor and by one name, never through a
//! symbolic link, so no flip of a path component and no name can lead outside.

pub mod draft;
mod private;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::value::escape::show_bytes;
use crate::value::exit::{Code, Failure, fail};

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

const PRIVATE_DIR: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// `NONBLOCK` so that a fifo in a segment's place does not hang the open.
const FILE_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// A file that has no name of its own yet; whoever holds the directory's lock makes it.
pub const UNNAMED: &str = ".repl-new";

/// Below which this process opens directories, once it was confined.
static CONFINED: OnceLock<Dir> = OnceLock::new();

/// From now on [`Dir::open`] opens only what is in this directory, and through no link. For a process that does what a
/// peer asks: it may make a link of any component of a path at the very moment when that is looked at.
pub fn confine(root: &Path) -> Result<()> {
    let root = Dir::open_freely(root)?;
    CONFINED.set(root).map_err(|_| Failure::new(Code::Failed, "this process is confined already").into())
}

impl Dir {
    /// Opens a directory. The path itself may lead through links, since the operator gave it, unless this process is
    /// [confined](confine).
    pub fn open(path: &Path) -> Result<Dir> {
        let Some(root) = CONFINED.get() else {
            return Dir::open_freely(path);
        };
        match path.strip_prefix(&root.path) {
            Ok(below) => root.open_beneath(below, false),
            Err(_) => fail(Code::Fenced, format!("{} is outside of what this key may use", shown(path))),
        }
    }

    /// Opens a directory of which no peer has said where it is.
    pub fn open_freely(path: &Path) -> Result<Dir> {
        let fd = fs::open(path, DIR_FLAGS, Mode::empty()).map_err(io::Error::from);
        Ok(Dir { fd: fd.with_context(|| format!("cannot open {}", shown(path)))?, path: path.to_owned() })
    }

    /// Opens a directory, made with mode 0700 (and its parents) if it is missing, durably.
    pub fn create(path: &Path) -> Result<Dir> {
        if matches!(fs::stat(path), Err(Errno::NOENT)) {
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let parent = Dir::create(parent)?;
            if let Some(name) = path.file_name() {
                parent.make(name)?;
            }
        }
        Dir::open(path)
    }

    /// Opens a directory below this one, made if `create`; no component may be a link or lead out.
    pub fn open_beneath(&self, path: &Path, create: bool) -> Result<Dir> {
        let shown_path = shown(path);
        let mut at = Dir { fd: self.fd.try_clone()?, path: self.path.clone() };
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::CurDir => continue,
                _ => return fail(Code::Fenced, format!("{shown_path} leads out of {}", shown(&self.path))),
            };
            if create {
                at.make(name)?;
            }
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let fd = match fs::openat2(&at.fd, name, DIR_FLAGS, Mode::empty(), resolve) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    return Err(io::Error::from(Errno::NOENT)).context(format!("cannot open {shown_path}"));
                }
                // Kernels before 5.6: one component without following it is the same.
                Err(Errno::NOSYS | Errno::PERM) => {
                    fs::openat(&at.fd, name, DIR_FLAGS | OFlags::NOFOLLOW, Mode::empty())
                        .map_err(|_| out_of(&shown_path))?
                }
                Err(_) => return Err(out_of(&shown_path).into()),
            };
            at = Dir { fd, path: at.path.join(name) };
        }
        Ok(at)
    }

    /// A directory in this one, made with mode 0700 if it is missing.
    pub fn subdir(&self, name: &str) -> Result<Dir> {
        self.make(name.as_ref())?;
        self.open_subdir(name)
    }

    /// A directory in this one.
    pub fn open_subdir(&self, name: &str) -> Result<Dir> {
        let path = self.path.join(name);
        match fs::openat(&self.fd, name, DIR_FLAGS | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Dir { fd, path }),
            Err(Errno::LOOP | Errno::NOTDIR) => fail(Code::Fenced, format!("{} is not a directory", shown(&path))),
            Err(error) => Err(io::Error::from(error)).with_context(|| format!("cannot open {}", shown(&path))),
        }
    }

    fn make(&self, name: &OsStr) -> Result<()> {
        match fs::mkdirat(&self.fd, name, PRIVATE_DIR) {
            Ok(()) => {
                // The umask may have taken bits away; the mode is part of the contract.
                fs::chmodat(&self.fd, name, PRIVATE_DIR, AtFlags::empty()).map_err(io::Error::from)?;
                self.give_directory(name)?;
                self.sync()
            }
            Err(Errno::EXIST) => Ok(()),
            Err(error) => {
                Err(io::Error::from(error)).with_context(|| format!("cannot make {}", shown(&self.path.join(name))))
            }
        }
    }

    /// The path it was opened by: for messages and for hooks, never opened again.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another handle of the same directory.
    pub fn try_clone(&self) -> Result<Dir> {
        Ok(Dir { fd: self.fd.try_clone()?, path: self.path.clone() })
    }

    /// A descriptor of its own open file description, for a lock.
    pub(super) fn reopen(&self) -> Result<OwnedFd> {
        let fd = fs::openat(&self.fd, ".", DIR_FLAGS, Mode::empty()).map_err(io::Error::from);
        fd.with_context(|| format!("cannot open {}", shown(&self.path)))
    }

    /// A file's path for a message.
    pub fn shown(&self, name: &str) -> String {
        shown(&self.path.join(name))
    }

    /// All names in it but `.` and `..`, in no order.
    pub fn names(&self) -> Result<Vec<OsString>> {
        let read = || -> io::Result<Vec<OsString>> {
            let mut names = Vec::new();
            for entry in fs::Dir::read_from(&self.fd)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.push(OsString::from_vec(name));
                }
            }
            Ok(names)
        };
        read().with_context(|| format!("cannot list {}", shown(&self.path)))
    }

    /// Opens a regular file for reading; `None` when there is none of this name.
    pub fn open_read(&self, name: &str) -> Result<Option<File>> {
        self.open_file(name, OFlags::RDONLY)
    }

    /// Opens a regular file that has no other name for reading and writing; `None` when there is none.
    pub fn open_write(&self, name: &str) -> Result<Option<File>> {
        let Some(file) = self.open_file(name, OFlags::RDWR)? else {
            return Ok(None);
        };
        let links = fs::fstat(&file).map_err(io::Error::from)?.st_nlink;
        if links > 1 {
            return fail(Code::Fenced, format!("{} has {links} names (hard links)", self.shown(name)));
        }
        Ok(Some(file))
    }

    /// Makes a new regular file, mode 0600.
    pub fn create_new(&self, name: &str) -> Result<File> {
        let flags = FILE_FLAGS | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = fs::openat(&self.fd, name, flags, PRIVATE_FILE).map_err(io::Error::from);
        fd.map(File::from).with_context(|| format!("cannot make {}", self.shown(name)))
    }

    /// Makes a file for reading and writing that has no name and is gone with its last descriptor.
    pub fn create_unnamed(&self) -> Result<File> {
        let make = || -> io::Result<File> {
            // By a name for an instant: not every file system can make a file without one.
            let flags = FILE_FLAGS | OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
            let file = File::from(fs::openat(&self.fd, UNNAMED, flags, PRIVATE_FILE)?);
            fs::unlinkat(&self.fd, UNNAMED, AtFlags::empty())?;
            Ok(file)
        };
        make().with_context(|| format!("cannot make a file in {}", shown(&self.path)))
    }

    /// Makes a file of `length` zeros, mode 0600, in the place of whatever has this name: nobody ever sees it shorter.
    pub fn create_filled(&self, name: &str, length: u64) -> Result<File> {
        let make = || -> io::Result<File> {
            let flags = FILE_FLAGS | OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
            let file = File::from(fs::openat(&self.fd, UNNAMED, flags, PRIVATE_FILE)?);
            file.set_len(length)?;
            self.give(&file)?;
            fs::renameat(&self.fd, UNNAMED, &self.fd, name)?;
            Ok(file)
        };
        make().with_context(|| format!("cannot make {}", self.shown(name)))
    }

    /// What root makes in a directory of somebody else's is for them to read: a database's server, as a rule.
    pub(super) fn give(&self, file: &File) -> io::Result<()> {
        if rustix::process::geteuid().is_root() {
            let own = fs::fstat(&self.fd)?;
            let (user, group) = (fs::Uid::from_raw(own.st_uid), fs::Gid::from_raw(own.st_gid));
            fs::fchown(file, Some(user), Some(group))?;
        }
        Ok(())
    }

    fn give_directory(&self, name: &OsStr) -> io::Result<()> {
        if rustix::process::geteuid().is_root() {
            let own = fs::fstat(&self.fd)?;
            let (user, group) = (fs::Uid::from_raw(own.st_uid), fs::Gid::from_raw(own.st_gid));
            fs::chownat(&self.fd, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<Option<File>> {
        // The kind is asked before the open: opening a device can act on it, and write access to a file is not needed
        // to refuse it. The open itself follows no link, and the kind is asked again of what was opened.
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.regular(name, stat.st_mode)?,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => {
                return Err(io::Error::from(error)).with_context(|| format!("cannot open {}", self.shown(name)));
            }
        }
        let fd = match fs::openat(&self.fd, name, FILE_FLAGS | flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return fail(Code::Fenced, format!("{} is a symbolic link", self.shown(name))),
            Err(error) => {
                return Err(io::Error::from(error)).with_context(|| format!("cannot open {}", self.shown(name)));
            }
        };
        self.regular(name, fs::fstat(&fd).map_err(io::Error::from)?.st_mode)?;
        Ok(Some(File::from(fd)))
    }

    fn regular(&self, name: &str, mode: u32) -> Result<()> {
        let kind = match FileType::from_raw_mode(mode) {
            FileType::RegularFile => return Ok(()),
            FileType::Symlink => "a symbolic link",
            FileType::Directory => "a directory",
            FileType::Fifo => "a fifo",
            FileType::Socket => "a socket",
            _ => "a device",
        };
        fail(Code::Fenced, format!("{} is {kind}, not a regular file", self.shown(name)))
    }

    /// Device and inode of what a name stands for now; `None` when there is nothing.
    pub fn identity(&self, name: &str) -> Result<Option<(u64, u64)>> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(io::Error::from(error)).with_context(|| format!("cannot look at {}", self.shown(name))),
        }
    }

    /// Makes names in it durable.
    pub fn sync(&self) -> Result<()> {
        fs::fsync(&self.fd).map_err(io::Error::from).with_context(|| format!("cannot sync {}", shown(&self.path)))
    }

    /// Moves a file within or between directories of one file system, not over another.
    pub fn rename(&self, name: &str, to: &Dir, to_name: &str) -> Result<()> {
        fs::renameat_with(&self.fd, name, &to.fd, to_name, fs::RenameFlags::NOREPLACE)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot move {} to {}", self.shown(name), to.shown(to_name)))
    }

    /// Puts a file of this directory in the place of another of it, whose content need not outlive a power cut.
    pub fn supersede(&self, name: &str, old: &str) -> Result<()> {
        fs::renameat(&self.fd, name, &self.fd, old)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot move {} to {}", self.shown(name), self.shown(old)))
    }

    /// Removes a file's name. It is gone for good after [`Dir::sync`].
    pub fn remove(&self, name: &str) -> Result<()> {
        fs::unlinkat(&self.fd, name, AtFlags::empty())
            .map_err(io::Error::from)
            .with_context(|| format!("cannot remove {}", self.shown(name)))
    }

    /// Reads a whole small file; `None` when there is none. More than `limit` bytes is an error.
    pub fn read_small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_read(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = io::Read::read_to_end(&mut io::Read::take(&file, limit + 1), &mut bytes);
        read.with_context(|| format!("cannot read {}", self.shown(name)))?;
        if bytes.len() as u64 > limit {
            return fail(Code::Corrupt, format!("{} is longer than {limit} bytes", self.shown(name)));
        }
        Ok(Some(bytes))
    }

    /// Replaces a small file: at every instant, and after a power cut, the old or the new content is there, whole.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = format!("{name}.new");
        let write = || -> Result<()> {
            let flags = FILE_FLAGS | OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
            let fd = fs::openat(&self.fd, &temporary, flags, PRIVATE_FILE).map_err(io::Error::from)?;
            let mut file = File::from(fd);
            file.write_all(bytes)?;
            self.give(&file)?;
            file.sync_all()?;
            fs::renameat(&self.fd, &temporary, &self.fd, name).map_err(io::Error::from)?;
            self.sync()
        };
        write().with_context(|| format!("cannot write {}", self.shown(name)))
    }

    /// Replaces a small file that only reports: at every instant the old or the new content is there, whole; after a power
    /// cut it may be empty. Nothing is synced, since the kernel tells an error of a sync once: whoever promises something
    /// by one must be the one who is told.
    pub fn report(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = format!("{name}.new");
        let write = || -> io::Result<()> {
            let flags = FILE_FLAGS | OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
            let mut file = File::from(fs::openat(&self.fd, &temporary, flags, PRIVATE_FILE)?);
            file.write_all(bytes)?;
            self.give(&file)?;
            Ok(fs::renameat(&self.fd, &temporary, &self.fd, name)?)
        };
        let written = write();
        if written.is_err() {
            // Perhaps nobody comes after us who would take it up.
            let _ = fs::unlinkat(&self.fd, &temporary, AtFlags::empty());
        }
        written.with_context(|| format!("cannot write {}", self.shown(name)))
    }
}

fn out_of(path: &str) -> Failure {
    Failure::new(
        Code::Fenced,
        format!("{path} leads through something that is not a directory of its own (a symbolic link?)"),
    )
}

/// A path for a message: foreign bytes escaped.
pub fn shown(path: &Path) -> String {
    show_bytes(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_missing_directory_is_made_private_whatever_the_umask() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::create(&root.path().join("a/b")).unwrap();
        let mode = std::fs::metadata(root.path().join("a/b")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700);
        dir.replace("x", b"1").unwrap();
        dir.replace("x", b"2").unwrap();
        assert_eq!(dir.read_small("x", 10).unwrap().unwrap(), b"2");
        dir.report("x", b"3").unwrap();
        assert_eq!(dir.read_small("x", 10).unwrap().unwrap(), b"3");
        assert_eq!(dir.names().unwrap(), ["x"]);
        assert_eq!(std::fs::metadata(root.path().join("a/b/x")).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn what_is_not_a_file_of_its_own_is_refused_unopened() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let dir = Dir::open(root.path()).unwrap();
        std::fs::write(path("real"), b"x").unwrap();
        symlink(path("real"), path("link")).unwrap();
        std::fs::hard_link(path("real"), path("second")).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        rustix::fs::mkfifoat(&dir.fd, "fifo", PRIVATE_FILE).unwrap();
        for name in ["link", "second", "directory", "fifo"] {
            assert_eq!(code_of(&dir.open_write(name).unwrap_err()), Code::Fenced, "{name}");
        }
        assert!(dir.open_write("none").unwrap().is_none());
        assert!(dir.open_read("real").unwrap().is_some());
    }

    #[test]
    fn nothing_leads_out_of_a_restricted_root() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("link")).unwrap();
        let dir = Dir::open(root.path()).unwrap();
        for bad in ["..", "a/../..", "/etc", "link", "link/x"] {
            let error = dir.open_beneath(Path::new(bad), true).unwrap_err();
            assert_eq!(code_of(&error), Code::Fenced, "{bad}");
        }
        assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
        dir.open_beneath(Path::new("a/./b"), true).unwrap();
        assert!(root.path().join("a/b").is_dir());
    }
}
