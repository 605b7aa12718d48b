//! From the root of a tree to a directory in it, never through a link and never out.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::value::name::Name;

/// Where the kernel shows our descriptors as paths.
pub(super) const DESCRIPTORS: &str = "/proc/self/fd";

/// Directories that are kept open.
const KEPT: usize = 8;
/// Most bytes that are resolved in one call: `PATH_MAX` with room.
const PIECE: usize = 4000;
/// How often a lookup is tried again that a rename elsewhere has disturbed.
const TRIES: usize = 16;

/// For looking things up in, not for listing: works with search permission alone.
const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// The root of a tree with the directories last used in it.
#[derive(Debug)]
pub(super) struct Root {
    fd: Arc<OwnedFd>,
    /// The last used first.
    kept: Mutex<VecDeque<(Name, Arc<OwnedFd>)>>,
    temporary: Mutex<()>,
}

impl Root {
    /// Of a descriptor that can be read and synced.
    pub(super) fn new(fd: OwnedFd) -> Root {
        Root { fd: Arc::new(fd), kept: Mutex::default(), temporary: Mutex::default() }
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.fd
    }

    /// While this is held, nobody else uses the tree's temporary name.
    pub(super) fn temporary(&self) -> MutexGuard<'_, ()> {
        self.temporary.lock()
    }

    /// A directory for looking things up in.
    pub(super) fn directory(&self, name: &Name) -> io::Result<Arc<OwnedFd>> {
        if name.is_root() {
            return Ok(Arc::clone(&self.fd));
        }
        let (start, length) = {
            let mut kept = self.kept.lock();
            let found = kept.iter().position(|(known, _)| known == name);
            if let Some(found) = found.and_then(|at| kept.remove(at)) {
                let fd = Arc::clone(&found.1);
                kept.push_front(found);
                return Ok(fd);
            }
            let above = kept.iter().filter(|(known, _)| name.is_below(known));
            match above.max_by_key(|(known, _)| known.bytes().len()) {
                Some((known, fd)) => (Arc::clone(fd), known.bytes().len() + 1),
                None => (Arc::clone(&self.fd), 0),
            }
        };
        let fd = Arc::new(resolve(&start, &name.bytes()[length..])?);
        let mut kept = self.kept.lock();
        kept.truncate(KEPT - 1);
        kept.push_front((name.clone(), Arc::clone(&fd)));
        Ok(fd)
    }

    /// The same from the root on, whatever is kept.
    pub(super) fn directory_anew(&self, name: &Name) -> io::Result<OwnedFd> {
        if name.is_root() { self.fd.try_clone() } else { resolve(&self.fd, name.bytes()) }
    }

    /// What has this name will not be what it was.
    pub(super) fn forget(&self, name: &Name) {
        self.kept.lock().retain(|(known, _)| known != name && !known.is_below(name));
    }
}

/// The path by which the kernel takes a descriptor.
pub(super) fn path_of(fd: impl AsFd) -> String {
    format!("{DESCRIPTORS}/{}", fd.as_fd().as_raw_fd())
}

/// The path of something in an open directory, of which the last component is all that can be a link.
pub(super) fn path_in(dir: impl AsFd, component: &[u8]) -> Vec<u8> {
    [path_of(dir).as_bytes(), b"/", component].concat()
}

fn resolve(start: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    let mut rest = path;
    while !rest.is_empty() {
        let piece = first_piece(rest);
        let from = at.as_ref().unwrap_or(start);
        let fd = beneath(from, piece)?;
        rest = rest.get(piece.len() + 1..).unwrap_or_default();
        at = Some(fd);
    }
    match at {
        Some(fd) => Ok(fd),
        None => start.try_clone(),
    }
}

/// As many whole components as one call takes.
fn first_piece(path: &[u8]) -> &[u8] {
    if path.len() <= PIECE {
        return path;
    }
    let end = path[..PIECE].iter().rposition(|byte| *byte == b'/').unwrap_or(path.len());
    &path[..end]
}

fn beneath(from: &OwnedFd, piece: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match fs::openat2(from, piece, FLAGS, Mode::empty(), flags) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Kernels before 5.6, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => break,
            other => return other,
        }
    }
    by_components(from, piece)
}

/// One component after the other without following it is the same.
fn by_components(from: &OwnedFd, piece: &[u8]) -> Result<OwnedFd, Errno> {
    let mut at: Option<OwnedFd> = None;
    for component in piece.split(|byte| *byte == b'/') {
        at = Some(fs::openat(at.as_ref().unwrap_or(from), component, FLAGS, Mode::empty())?);
    }
    at.ok_or(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn pieces_end_between_components() {
        assert_eq!(first_piece(b"a/b"), b"a/b");
        let long = [b"x".repeat(255), b"y".repeat(255)].join(&b'/').repeat(20);
        let piece = first_piece(&long);
        assert!(piece.len() <= PIECE && piece.len() > PIECE - 600);
        assert_eq!(long[piece.len()], b'/');
    }

    #[test]
    fn both_ways_reach_the_same_and_follow_no_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        std::fs::write(dir.path().join("a/file"), b"").unwrap();
        symlink("b", dir.path().join("a/link")).unwrap();
        symlink("/", dir.path().join("a/out")).unwrap();
        let root = fs::open(dir.path(), FLAGS, Mode::empty()).unwrap();
        let inode = |fd: OwnedFd| fs::fstat(&fd).unwrap().st_ino;
        for way in [beneath, by_components] {
            let expected = fs::stat(dir.path().join("a/b/c")).unwrap().st_ino;
            assert_eq!(inode(way(&root, b"a/b/c").unwrap()), expected);
            assert_eq!(way(&root, b"a/none/c").unwrap_err(), Errno::NOENT);
            for bad in ["a/link", "a/link/c", "a/out", "a/out/etc", "a/file", "a/file/x"] {
                let error = way(&root, bad.as_bytes()).unwrap_err();
                assert!(matches!(error, Errno::NOTDIR | Errno::LOOP), "{bad}: {error}");
            }
        }
    }

    #[test]
    fn only_the_last_directories_are_kept_and_forgotten_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(fs::open(dir.path(), FLAGS, Mode::empty()).unwrap());
        let name = |text: &str| Name::parse(text.as_bytes()).unwrap();
        for number in 0..2 * KEPT {
            std::fs::create_dir_all(dir.path().join(format!("{number}/x"))).unwrap();
            root.directory(&name(&format!("{number}"))).unwrap();
            root.directory(&name(&format!("{number}/x"))).unwrap();
        }
        assert_eq!(root.kept.lock().len(), KEPT);
        let last = 2 * KEPT - 1;
        root.forget(&name(&format!("{last}")));
        assert_eq!(root.kept.lock().len(), KEPT - 2);
        root.forget(&Name::root());
        assert!(root.kept.lock().is_empty());
    }
}
