//! A directory of our own in a place where others may write, and small durable files in a directory of somebody else's.
//!
//! What is read from such a directory is acted upon, by root as a rule. So it counts as ours only when nobody else can
//! have put anything into it: a real directory, owned by us or by root, with write access for the owner alone. Its owner
//! is asked of the descriptor that is used from then on, so there is no instant for an exchange in between.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::{DIR_FLAGS, Dir, FILE_FLAGS, PRIVATE_DIR, shown};
use crate::value::exit::{Code, Failure};

impl Dir {
    /// Opens a directory of ours in this one; `None` when there is nothing of this name. Anything else there, or a
    /// directory that others can write to, is refused (exit code 5).
    pub fn open_private(&self, name: &OsStr) -> Result<Option<Dir>> {
        let path = self.path.join(name);
        let fd = match fs::openat(&self.fd, name, DIR_FLAGS | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(not_ours(&path, "it is not a directory")),
            Err(error) => return Err(io::Error::from(error)).context(format!("cannot open {}", shown(&path))),
        };
        let stat = fs::fstat(&fd).map_err(io::Error::from)?;
        if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(not_ours(&path, &format!("user {} owns it", stat.st_uid)));
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(not_ours(&path, "others can write to it"));
        }
        Ok(Some(Dir { fd, path }))
    }

    /// The same, made with mode 0700 if there is nothing.
    pub fn make_private(&self, name: &OsStr) -> Result<Dir> {
        if let Some(dir) = self.open_private(name)? {
            return Ok(dir);
        }
        let path = self.path.join(name);
        match fs::mkdirat(&self.fd, name, PRIVATE_DIR) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(io::Error::from(error)).context(format!("cannot make {}", shown(&path))),
        }
        let made = self.open_private(name)?.with_context(|| format!("{} went away", shown(&path)))?;
        // The umask may have taken bits away; the mode is part of the contract.
        fs::fchmod(&made.fd, PRIVATE_DIR).map_err(io::Error::from)?;
        Ok(made)
    }

    /// Its own device and inode.
    pub fn own_identity(&self) -> Result<(u64, u64)> {
        let stat = fs::fstat(&self.fd).map_err(io::Error::from);
        let stat = stat.with_context(|| format!("cannot look at {}", shown(&self.path)))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Like [`Dir::replace`], where others may write to the directory: what they put in the new file's way is removed
    /// and never written through.
    pub fn replace_exclusively(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = format!("{name}.new");
        self.remove_if_there(&temporary)?;
        let write = || -> Result<()> {
            let mut file = self.create_new(&temporary)?;
            file.write_all(bytes)?;
            self.give(&file)?;
            file.sync_all()?;
            self.rename_over(&temporary, name)
        };
        let written = write();
        if written.is_err() {
            let _ = self.remove_if_there(&temporary);
        }
        written.with_context(|| format!("cannot write {}", self.shown(name)))
    }

    /// Acts on names in it and sets its mtime back: what a directory shows of itself stays the same, where we may do
    /// that and are not killed before.
    pub fn keeping_time<T>(&self, act: impl FnOnce() -> T) -> T {
        let before = fs::fstat(&self.fd);
        let done = act();
        if let Ok(stat) = before {
            let last_modification = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
            let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let _ = fs::futimens(&self.fd, &Timestamps { last_access, last_modification });
        }
        done
    }

    /// Puts a file in the place of whatever file has the new name, durably.
    pub fn rename_over(&self, name: &str, new_name: &str) -> Result<()> {
        let renamed = fs::renameat(&self.fd, name, &self.fd, new_name).map_err(io::Error::from);
        renamed.with_context(|| format!("cannot rename {} to {new_name}", self.shown(name)))?;
        self.sync()
    }

    /// Removes a file's name; whether there was one. It is gone for good after [`Dir::sync`].
    pub fn remove_if_there(&self, name: &str) -> Result<bool> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(io::Error::from(error)).with_context(|| format!("cannot remove {}", self.shown(name))),
        }
    }

    /// Removes an empty directory in it.
    pub fn remove_directory(&self, name: &OsStr) -> Result<()> {
        let removed = fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).map_err(io::Error::from);
        removed.with_context(|| format!("cannot remove {}", shown(&self.path.join(name))))
    }

    /// A number of its file system: the one that the file system gives itself, where it has one, since a device may be
    /// numbered anew whenever it is mounted.
    pub fn file_system(&self) -> Result<u64> {
        let own = fs::fstatvfs(&self.fd).map_err(io::Error::from);
        let own = own.with_context(|| format!("cannot look at the file system of {}", shown(&self.path)))?;
        if own.f_fsid != 0 { Ok(own.f_fsid) } else { Ok(self.own_identity()?.0) }
    }

    /// Makes all that was written to its file system durable, by whomever. From Linux 5.8 on this fails when a write
    /// since the directory was opened could not be done.
    pub fn sync_file_system(&self) -> Result<()> {
        let synced = fs::syncfs(&self.fd).map_err(io::Error::from);
        synced.with_context(|| format!("cannot sync the file system of {}", shown(&self.path)))
    }

    /// Makes a file, in the place of one of this name, that takes so much space and holds nothing. Where the file system
    /// cannot reserve, the space that is free is compared.
    pub fn reserve(&self, name: &str, length: u64) -> Result<File> {
        self.remove_if_there(name)?;
        let flags = FILE_FLAGS | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let make = || -> io::Result<File> {
            let file = File::from(fs::openat(&self.fd, name, flags, super::PRIVATE_FILE)?);
            if length == 0 {
                return Ok(file);
            }
            match fs::fallocate(&file, FallocateFlags::empty(), 0, length) {
                Ok(()) => Ok(file),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    let space = fs::fstatvfs(&self.fd)?;
                    let is_enough = space.f_bavail.saturating_mul(space.f_frsize) >= length;
                    if is_enough { Ok(file) } else { Err(Errno::NOSPC.into()) }
                }
                Err(error) => Err(error.into()),
            }
        };
        make().with_context(|| format!("cannot take {length} bytes of space in {}", shown(&self.path)))
    }
}

fn not_ours(path: &Path, why: &str) -> anyhow::Error {
    let failure = Failure::new(Code::Fenced, format!("{} is not ours: {why}", shown(path)));
    failure.hint("look who made it; run as its owner, or remove it").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

    #[test]
    fn a_directory_that_others_can_write_to_or_that_is_none_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let own = |name: &str| dir.open_private(OsStr::new(name));
        assert!(own("none").unwrap().is_none());
        dir.make_private(OsStr::new("own")).unwrap();
        assert_eq!(std::fs::metadata(root.path().join("own")).unwrap().mode() & 0o7777, 0o700);
        assert!(own("own").unwrap().is_some());

        symlink("own", root.path().join("link")).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        std::fs::create_dir(root.path().join("open")).unwrap();
        std::fs::set_permissions(root.path().join("open"), PermissionsExt::from_mode(0o720)).unwrap();
        for bad in ["link", "file", "open"] {
            assert_eq!(code_of(&own(bad).unwrap_err()), Code::Fenced, "{bad}");
            assert_eq!(code_of(&dir.make_private(OsStr::new(bad)).unwrap_err()), Code::Fenced, "{bad}");
        }
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir(root.path().join("theirs")).unwrap();
            std::os::unix::fs::chown(root.path().join("theirs"), Some(4711), None).unwrap();
            assert_eq!(code_of(&own("theirs").unwrap_err()), Code::Fenced);
        }
    }

    #[test]
    fn what_was_put_in_a_new_files_way_is_not_written_through() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        std::fs::write(root.path().join("precious"), "precious").unwrap();
        std::fs::hard_link(root.path().join("precious"), root.path().join("x.new")).unwrap();
        dir.replace_exclusively("x", b"1").unwrap();
        dir.replace_exclusively("x", b"2").unwrap();
        assert_eq!(std::fs::read(root.path().join("x")).unwrap(), b"2");
        assert_eq!(std::fs::read(root.path().join("precious")).unwrap(), b"precious");
        assert!(!root.path().join("x.new").exists());
    }

    #[test]
    fn space_that_is_not_there_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        assert!(dir.reserve("ballast", 1 << 60).is_err());
        dir.reserve("ballast", 1 << 20).unwrap();
        assert_eq!(dir.names().unwrap(), ["ballast"]);
    }
}
