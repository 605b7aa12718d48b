//! One writer per directory. The lock is an flock: it dies with its process, whatever killed it, and no child inherits
//! it, since the descriptor is closed on exec. The file's text names the holder for the one who is refused.
//!
//! To look whether a lock is held is to take it for an instant, and whoever came at that instant to take it in earnest
//! would be refused. So who only looks shares the lock, and a taker who finds it only shared tries again.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::dir::Dir;
use crate::value::escape::show_bytes;
use crate::value::exit::{Code, fail};

/// A held lock; dropping it lets it go.
#[derive(Debug)]
pub struct Lock {
    fd: OwnedFd,
}

impl Lock {
    /// Takes the lock `name` in a directory or says who holds it (exit code 7). Never waits.
    pub fn take(dir: &Dir, name: &str) -> Result<Lock> {
        let file = open(dir, name)?;
        if !try_lock(&file).with_context(|| format!("cannot lock {}", dir.shown(name)))? {
            let mut holder = [0; 200];
            let length = file.read_at(&mut holder, 0).unwrap_or(0);
            let holder = show_bytes(holder[..length].trim_ascii());
            return fail(Code::Busy, format!("{} is held by {holder}", dir.shown(name)));
        }
        let holder = format!("process {}\n", std::process::id());
        let write = || -> io::Result<()> {
            file.write_all_at(holder.as_bytes(), 0)?;
            file.set_len(holder.len() as u64)
        };
        // Naming the holder is a courtesy: a full disk must not keep the lock from being taken.
        let _ = write();
        Ok(Lock { fd: file.into() })
    }

    /// Takes the lock `name` in a directory, once whoever has it is done: for what is held for moments only.
    pub fn wait(dir: &Dir, name: &str) -> Result<Lock> {
        let file = open(dir, name)?;
        wait(&file).with_context(|| format!("cannot lock {}", dir.shown(name)))?;
        Ok(Lock { fd: file.into() })
    }

    /// Locks a directory itself, once whoever has it is done: for what is held for moments only.
    pub fn wait_directory(dir: &Dir) -> Result<Lock> {
        let fd = dir.reopen()?;
        wait(&fd).with_context(|| format!("cannot lock {}", dir.shown("")))?;
        Ok(Lock { fd })
    }

    /// Makes a new file with this text, and holds its lock. The text tells of whoever holds it, and of nothing when
    /// nobody does, so it need not outlive a power cut.
    pub fn on_new(dir: &Dir, name: &str, text: &str) -> Result<Lock> {
        let file = dir.create_new(name)?;
        dir.give(&file).with_context(|| format!("cannot make {}", dir.shown(name)))?;
        wait(&file).with_context(|| format!("cannot lock {}", dir.shown(name)))?;
        file.write_all_at(text.as_bytes(), 0).with_context(|| format!("cannot write {}", dir.shown(name)))?;
        Ok(Lock { fd: file.into() })
    }

    /// Whether somebody holds the lock of a file that is there.
    pub fn is_held(dir: &Dir, name: &str) -> Result<bool> {
        let Some(file) = dir.open_read(name)? else {
            return Ok(false);
        };
        // It goes with the descriptor.
        look(&file).map(|is_free| !is_free).with_context(|| format!("cannot lock {}", dir.shown(name)))
    }

    /// Locks a directory itself, or says that another process has it (exit code 7).
    pub fn take_directory(dir: &Dir) -> Result<Lock> {
        let fd = dir.reopen()?;
        if !try_lock(&fd).with_context(|| format!("cannot lock {}", dir.shown("")))? {
            return fail(Code::Busy, format!("{} is held by another process", dir.shown("")));
        }
        Ok(Lock { fd })
    }
}

impl Drop for Lock {
    /// Said to the kernel: closing alone would leave the lock to a child that was forked meanwhile, until it execs.
    fn drop(&mut self) {
        let _ = flock(&self.fd, FlockOperation::Unlock);
    }
}

/// A lock's file, made if it is missing; its owner is the directory's, who may have to take it too.
fn open(dir: &Dir, name: &str) -> Result<File> {
    if let Some(file) = dir.open_write(name)? {
        return Ok(file);
    }
    match dir.create_new(name) {
        Ok(file) => {
            dir.give(&file).with_context(|| format!("cannot make {}", dir.shown(name)))?;
            Ok(file)
        }
        Err(error) => dir.open_write(name)?.ok_or(error),
    }
}

/// Takes the lock of an open file, once whoever has it is done.
pub(super) fn wait(fd: impl AsFd) -> io::Result<()> {
    loop {
        match flock(&fd, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            taken => return taken.map_err(io::Error::from),
        }
    }
}

/// Takes the lock; false when another open file has it.
fn try_lock(fd: impl AsFd) -> io::Result<bool> {
    loop {
        if attempt(&fd, FlockOperation::NonBlockingLockExclusive)? {
            return Ok(true);
        }
        if !look(&fd)? {
            return Ok(false);
        }
    }
}

/// Whether nobody has the lock, but perhaps others who look; it is shared with them from now on.
fn look(fd: impl AsFd) -> io::Result<bool> {
    attempt(fd, FlockOperation::NonBlockingLockShared)
}

fn attempt(fd: impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    match flock(fd, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    #[test]
    fn a_second_taker_is_told_the_holder_and_a_dropped_lock_is_free() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let held = Lock::take(&dir, "lock").unwrap();
        let error = Lock::take(&dir, "lock").unwrap_err();
        assert_eq!(code_of(&error), Code::Busy);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        let as_in_a_child_before_it_execs = held.fd.try_clone().unwrap();
        drop(held);
        Lock::take(&dir, "lock").unwrap();
        drop(as_in_a_child_before_it_execs);
    }

    #[test]
    fn a_lock_on_a_new_file_is_seen_while_it_is_held() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        assert!(!Lock::is_held(&dir, "one").unwrap());
        let held = Lock::on_new(&dir, "one", "text").unwrap();
        assert!(Lock::is_held(&dir, "one").unwrap());
        assert!(Lock::on_new(&dir, "one", "text").is_err());
        assert_eq!(dir.read_small("one", 9).unwrap().unwrap(), b"text");
        drop(held);
        assert!(!Lock::is_held(&dir, "one").unwrap());
    }

    #[test]
    fn who_only_looks_keeps_nobody_from_taking() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        drop(Lock::take(&dir, "lock").unwrap());
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        Lock::is_held(&dir, "lock").unwrap();
                    }
                });
            }
            let refused = (0..2000).filter(|_| Lock::take(&dir, "lock").is_err()).count();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(refused, 0);
        });
    }
}
