//! A local socket in a directory: where a running command answers others on this machine. Who may enter the directory may
//! ask. Both sides reach it through the directory's descriptor, so that no path is too long for it.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::dir::Dir;

/// A socket that listens; its name goes with it.
pub struct Listener {
    socket: UnixListener,
    dir: Dir,
    name: &'static str,
}

impl Listener {
    /// Listens under a name. One that a killed process left there is replaced: the caller holds the directory's lock.
    pub fn bind(dir: &Dir, name: &'static str) -> Result<Listener> {
        let shown = dir.shown(name);
        dir.remove_if_there(name)?;
        let (fd, path) = place(dir, name)?;
        let listen = || -> io::Result<UnixListener> {
            let socket = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = listen().with_context(|| format!("cannot listen at {shown}"))?;
        drop(fd);
        Ok(Listener { socket, dir: dir.try_clone()?, name })
    }

    /// The next one who asks; `None` after a while without any.
    pub fn accept(&self, patience: Duration) -> io::Result<Option<UnixStream>> {
        if !is_ready(&self.socket, PollFlags::IN, patience)? {
            return Ok(None);
        }
        match self.socket.accept() {
            Ok((stream, _)) => stream.set_nonblocking(false).map(|()| Some(stream)),
            // Gone again before it was let in.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // What stays is replaced by the next one who listens, and answers nobody.
        let _ = self.dir.remove_if_there(self.name);
    }
}

/// Connects to a socket in a directory.
pub fn connect(dir: &Dir, name: &str) -> Result<UnixStream> {
    let (_fd, path) = place(dir, name)?;
    UnixStream::connect(path).with_context(|| format!("cannot connect to {}", dir.shown(name)))
}

/// Whether the other side has gone.
pub fn is_gone(stream: &UnixStream) -> bool {
    is_ready(stream, PollFlags::RDHUP, Duration::ZERO).unwrap_or(true)
}

/// A path by which the kernel finds a name in an open directory; good while the descriptor is.
fn place(dir: &Dir, name: &str) -> Result<(OwnedFd, PathBuf)> {
    let fd = dir.reopen()?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", fd.as_raw_fd()));
    Ok((fd, path))
}

fn is_ready(fd: impl AsFd, flags: PollFlags, patience: Duration) -> io::Result<bool> {
    let patience = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
    match poll(&mut [PollFd::new(&fd, flags)], Some(&patience)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn who_is_in_the_directory_is_heard_and_a_left_name_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        // Longer than an address may be.
        let deep = root.path().join("d".repeat(200));
        let dir = Dir::create(&deep).unwrap();
        assert!(connect(&dir, "wait").is_err());
        std::fs::write(deep.join("wait"), "left").unwrap();
        let listener = Listener::bind(&dir, "wait").unwrap();
        assert!(listener.accept(Duration::ZERO).unwrap().is_none());
        let mut asks = connect(&dir, "wait").unwrap();
        let mut answers = listener.accept(Duration::from_secs(60)).unwrap().unwrap();
        asks.write_all(b"x").unwrap();
        answers.read_exact(&mut [0]).unwrap();
        assert!(!is_gone(&answers));
        drop(asks);
        assert!(is_gone(&answers));
        drop(listener);
        assert!(!deep.join("wait").exists());
    }
}
