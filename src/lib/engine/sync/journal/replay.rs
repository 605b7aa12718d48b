//! What is done after the point of no return: a committed journal is written into its destination.
//!
//! Everything here can be killed at any instant and run again, and gives the same: a removal of what is gone is done; a
//! staged file that is gone has its name already; bytes are written to the same place once more. So no record is kept of
//! how far it has come. There is one order that matters, each step durable before the next:
//!
//! 1. All that is needed is checked, and the journal is given up on (6) before anything is written, not in the middle.
//! 2. The marker says *replaying*. From here on nobody may start a server on the destination.
//! 3. The destination is written, and its file system synced once (and any other that is mounted in it): within it nothing needs an order, since after a crash
//!    all of it is written again. The changed bytes go straight into the files, which is safe for the same reason.
//! 4. The marker says *done*. Only now may the journal go, and it goes before the marker does: as long as there is a
//!    journal, the marker says what it is worth.
//! 5. The journal is removed, then the marker.
//!
//! In 3, removals come first, the deepest first, so that what is replaced by another kind is empty; then what is new, by
//! names, so that a directory is there before what is in it; then changed bytes, by several threads, in the order in
//! which the blob has them; then hard links, whose targets are all there; and directories are dressed last, the deepest
//! first, since everything before changes their times and needs to write to them.
//!
//! A replay that was interrupted proves each patched file by its digest when it is done: there were other hands between.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context as _, Result};

use super::blob::{Blob, Window};
use super::check::{Check, Found, is_content};
use super::list::{At, List};
use super::op::Op;
use super::record::Id;
use super::{BALLAST, BLOB, COMMITTED, NEW, clear};
use crate::edge::blocks;
use crate::edge::dir::Dir;
use crate::edge::tree::Tree;
use crate::engine::sync::marker::{Marker, Step, quoted};
use crate::engine::sync::state::State;
use crate::value::entry::Entry;
use crate::value::exit::{Code, Failure, code_of, fail, hint_of};
use crate::value::name::Name;

/// What a killed run may leave of something that was to replace something else (see [`Tree`]).
const TEMPORARY: &str = ".repl-sync-new";
/// Most threads that write changed bytes.
const THREADS: usize = 4;

/// A journal that is committed and not replayed.
#[derive(Debug)]
pub struct Committed {
    pub(super) dir: Dir,
    pub(super) new: Dir,
    /// The destination.
    pub(super) root: Dir,
    pub(super) blob: Blob,
    pub(super) list: List,
    /// What was found when it was held against the destination, where this process has made it.
    pub(super) found: Option<Found>,
}

/// What a replay has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Names that were changed.
    pub names: u64,
    /// Bytes that were written into files that were there.
    pub bytes: u64,
}

/// The root of a tree for the marker, by the tree's path, and surely the same directory.
pub(super) fn root_of(tree: &Tree) -> Result<Dir> {
    let root = Dir::open(tree.path())?;
    let now = tree.look(&Name::root())?.map(|entry| entry.stamp.inode);
    if now != Some(root.own_identity()?.1) {
        return fail(Code::Fenced, format!("{} is another directory now", tree.shown(&Name::root())));
    }
    Ok(root)
}

/// What to do about a destination that no replay can complete any more.
pub(super) fn give_up(place: &Path, state: Option<&Path>) -> String {
    let mut torn = place.components().as_path().as_os_str().to_owned();
    torn.push(".torn");
    let drop = state.map(|state| format!("rm -r {} && ", quoted(state))).unwrap_or_default();
    format!("sync anew after: {drop}mv {} {}", quoted(place), quoted(Path::new(&torn)))
}

impl Committed {
    /// The committed journal of a state directory, read and checked by itself (6).
    pub fn find(state: &State, destination: &Tree) -> Result<Option<Committed>> {
        let dir = state.dir().try_clone()?;
        let Some(list) = List::open(&dir, COMMITTED)? else {
            return Ok(None);
        };
        let (new, blob) = (dir.make_private(NEW.as_ref())?, Blob::open(&dir, BLOB)?);
        Ok(Some(Committed { new, root: root_of(destination)?, blob, list, found: None, dir }))
    }

    /// Which journal it is.
    pub fn id(&self) -> Id {
        self.list.header.id
    }

    /// Writes it into its destination, and removes it; see the module. After an error it can be done again, by any run.
    pub fn replay(mut self, destination: &Tree) -> Result<Replayed> {
        let was_begun = Marker::read(&self.root)?.is_some_and(|marker| marker.step != Step::Prepared);
        let check = Check { list: &self.list, destination, new: &self.new, blob: &self.blob, was_begun };
        let found = match self.found.take().filter(|_| !was_begun) {
            Some(found) => Ok(found),
            None => check.bytes().and_then(|()| check.run()),
        };
        let found = found.map_err(|error| hinted(error, "cannot be replayed", || self.way_out(was_begun)))?;
        // Open before anything is written: a sync tells of errors since then.
        let mounts =
            found.mounts.values().map(|name| self.root.open_beneath(Path::new(OsStr::from_bytes(name.bytes())), false));
        let mounts = mounts.collect::<Result<Vec<_>>>()?;
        self.mark(Step::Replaying)?;
        let written = self.write(destination, was_begun, &mounts);
        let bytes = written.map_err(|error| {
            hinted(error, "is incomplete", || format!("repl-sync --replay {}", quoted(destination.path())))
        })?;
        self.mark(Step::Done)?;
        finish(&self.dir, &self.root)?;
        Ok(Replayed { names: (self.list.removals.len() + self.list.changes.len()) as u64, bytes })
    }

    fn mark(&self, step: Step) -> Result<()> {
        Marker::now(step, self.id(), self.dir.path()).write(&self.root)
    }

    fn write(&self, destination: &Tree, was_begun: bool, mounts: &[Dir]) -> Result<u64> {
        self.dir.remove_if_there(BALLAST)?;
        let writing = Writing { journal: self, destination, was_begun, bytes: AtomicU64::new(0) };
        writing.run()?;
        destination.sync()?;
        mounts.iter().try_for_each(Dir::sync_file_system)?;
        Ok(writing.bytes.into_inner())
    }

    /// What to do when the journal is of no use: before anything was written, the destination is good as it is.
    fn way_out(&self, was_begun: bool) -> String {
        if was_begun {
            return give_up(self.root.path(), Some(self.dir.path()));
        }
        format!("to keep what is there: rm {}", quoted(&self.dir.path().join(COMMITTED)))
    }
}

/// Adds what happened to the replay and, where nothing was said yet, what to do.
fn hinted(error: anyhow::Error, what: &str, hint: impl FnOnce() -> String) -> anyhow::Error {
    let failure = Failure::new(code_of(&error), format!("the sync's journal {what}"));
    if hint_of(&error).is_some() { error } else { error.context(failure.hint(hint())) }
}

/// Removes a journal that was replayed, then the marker.
pub(super) fn finish(state: &Dir, root: &Dir) -> Result<()> {
    clear(state)?;
    root.remove_if_there(TEMPORARY)?;
    Marker::remove(root)
}

/// A replay that writes.
struct Writing<'a> {
    journal: &'a Committed,
    destination: &'a Tree,
    was_begun: bool,
    bytes: AtomicU64,
}

impl Writing<'_> {
    fn run(&self) -> Result<()> {
        let list = &self.journal.list;
        let staged = Tree::of(&self.journal.new)?;
        for at in &list.removals {
            self.remove(list.get(*at)?)?;
        }
        for at in &list.changes {
            self.renew(list.get(*at)?, &staged)?;
        }
        self.patches()?;
        for at in &list.links {
            if let Op::Link { name, to } = list.get(*at)? {
                self.destination.link(&to, &name)?;
            }
        }
        for at in list.directories.iter().rev() {
            if let Op::Make(entry) | Op::Dress(entry) = list.get(*at)? {
                self.dress(&entry)?;
            }
        }
        Ok(())
    }

    fn dress(&self, entry: &Entry) -> Result<()> {
        self.destination.dress(entry, self.journal.list.dress())
    }

    fn remove(&self, op: Op) -> Result<()> {
        let Op::Remove { name, is_directory } = op else { return Ok(()) };
        match self.destination.remove(&name, is_directory) {
            // What was left out of the sync is in it, and stays there with it.
            Err(error) if is_directory && is_not_empty(&error) => Ok(()),
            removed => removed,
        }
    }

    /// What takes a name as a whole, and what is only dressed.
    fn renew(&self, op: Op, staged: &Tree) -> Result<()> {
        match op {
            Op::Make(entry) => {
                self.destination.make(&entry)?;
                if entry.is_directory() { Ok(()) } else { self.dress(&entry) }
            }
            Op::Place { entry, staged: number, .. } => {
                let number = Name::root().join(number.to_string().as_bytes());
                if staged.look(&number)?.is_some() {
                    self.destination.place(staged, &number, &entry.name)?;
                }
                self.dress(&entry)
            }
            Op::Dress(entry) if !entry.is_directory() => self.dress(&entry),
            _ => Ok(()),
        }
    }

    /// Changed bytes, by several threads; the first error ends all of them.
    fn patches(&self) -> Result<()> {
        let patches = &self.journal.list.patches;
        let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || -> Result<()> {
            let mut window = Window::new(&self.journal.blob);
            while let Some(at) = patches.get(next.fetch_add(1, Ordering::Relaxed)) {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let patched = self.patch(*at, &mut window);
                is_over.fetch_or(patched.is_err(), Ordering::Relaxed);
                patched?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..THREADS.min(patches.len())).map(|_| scope.spawn(work)).collect();
            let own = work();
            let others =
                others.into_iter().map(|other| other.join().unwrap_or_else(|_| fail(Code::Failed, "panicked")));
            others.fold(own, Result::and)
        })
    }

    fn patch(&self, at: At, window: &mut Window<'_>) -> Result<()> {
        let Op::Patch { entry, extents, digest, .. } = self.journal.list.get(at)? else { return Ok(()) };
        let shown = || self.destination.shown(&entry.name);
        let Some(file) = self.destination.open_write(&entry.name)? else {
            return fail(Code::Corrupt, format!("{} went away while it was patched", shown()));
        };
        let mut write = || -> Result<()> {
            for extent in &extents {
                if extent.is_hole {
                    blocks::punch(&file, extent.offset, extent.length)?;
                } else {
                    blocks::write_all_at(&file, window.get(extent)?, extent.offset)?;
                }
                self.bytes.fetch_add(extent.length, Ordering::Relaxed);
            }
            Ok(file.set_len(entry.stamp.size)?)
        };
        write().with_context(|| format!("cannot write {}", shown()))?;
        if self.was_begun {
            self.prove(&file, &entry, &digest)?;
        }
        self.destination.dress_file(&file, &entry, self.journal.list.dress())
    }

    fn prove(&self, file: &File, entry: &Entry, digest: &[u8; 32]) -> Result<()> {
        // Reading begins at its own offset, which is 0: nothing here goes by it.
        if is_content(file, entry.stamp.size, digest)? {
            return Ok(());
        }
        let why = format!(
            "{} is not what it was to become: it was changed by somebody else",
            self.destination.shown(&entry.name)
        );
        Err(Failure::new(Code::Corrupt, why).hint(self.journal.way_out(true)).into())
    }
}

fn is_not_empty(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::DirectoryNotEmpty)
}
