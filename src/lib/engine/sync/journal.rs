//! The redo journal of a destination that is synced in place: everything that is to change in it, whole and on stable
//! storage before the first byte there is written.
//!
//! While the destination's server runs, passes add to the journal and nothing else is touched. Then, with the server
//! stopped, the last pass adds what changed since, and [`Journal::commit`] makes it the truth. What must hold is that
//! after any kill and any power cut the destination is the old one, whole, or can be made the new one, whole, from what
//! is on this machine alone. In order, each step durable before the next begins:
//!
//! 1. Data: the blob and the staged files are synced. Nothing refers to them yet that is believed.
//! 2. The list of what is to be done is written beside them, synced, read back, and held against the destination: a
//!    journal that could not be replayed is found out here, while all is as it was. The space it takes is reserved.
//! 3. The destination's marker says *prepared*. It comes before the journal is committed, so that there is no instant at
//!    which a committed journal could be overlooked by one who starts the server; that it is there without one is
//!    harmless, since the guard looks.
//! 4. The list is renamed to `committed`, and the directory is synced. This is the **point of no return**: a rename is
//!    done or not done, and from here on every run completes the replay (see [`replay`]).
//!
//! A kill before 4 leaves an uncommitted journal: [`Journal::open`] takes from it what proves to be whole, so that
//! nothing is transferred twice. Without a sync a power cut may have taken any part of it, also the middle; so each
//! record, each extent and each staged file is checked against its checksum before it is offered again.
//!
//! After an error of a sync nothing that was written is trusted (a second sync would succeed and prove nothing): the log
//! is removed, and the next run begins anew.
//!
//! # Files in the state directory
//!
//! ```text
//! journal     the log, while a sync runs                         see [`record`]
//! blob        changed bytes                                      see [`blob`]
//! new/N       whole new files
//! committed   the list that is being replayed; `committed.new` while it is written
//! ballast     as much space as the replay needs, given back when it begins
//! ```

pub mod blob;
mod check;
mod list;
mod log;
pub mod op;
pub mod record;
pub mod recover;
pub mod replay;

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;

use self::blob::Blob;
use self::list::List;
use self::log::{Log, Slot};
use self::op::{Extent, Op};
use self::replay::Committed;
use super::marker::{Marker, Step};
use super::state::State;
use crate::edge::dir::Dir;
use crate::edge::tree::{Dress, Tree};
use crate::value::exit::{Code, fail};
use crate::value::name::Name;

/// The list of a journal that is committed.
pub const COMMITTED: &str = "committed";
/// The same while it is written.
const DRAFT: &str = "committed.new";
const LOG: &str = "journal";
const BLOB: &str = "blob";
const NEW: &str = "new";
const BALLAST: &str = "ballast";

/// So many staged files are synced one by one; more are synced with their whole file system.
const FEW: usize = 256;

/// A journal that is being made. Many threads may use it at once.
#[derive(Debug)]
pub struct Journal {
    dir: Dir,
    new: Dir,
    blob: Blob,
    next: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    /// Staged files that an op needs and no sync has seen.
    unsynced: Vec<u64>,
    /// A sync has failed.
    is_lost: bool,
}

impl Journal {
    /// Opens the journal, with what an interrupted run left in it that proves to be whole. A committed one must have
    /// been replayed before.
    pub fn open(state: &State) -> Result<Journal> {
        let dir = state.dir().try_clone()?;
        if dir.identity(COMMITTED)?.is_some() {
            bail!("{} waits to be replayed", dir.shown(COMMITTED));
        }
        tidy(&dir)?;
        let log = match Log::open(&dir, LOG)? {
            Some(log) => log,
            None => {
                clear(&dir)?;
                Log::create(&dir, LOG)?
            }
        };
        let (new, blob) = (dir.make_private(NEW.as_ref())?, Blob::open(&dir, BLOB)?);
        let inner = Mutex::new(Inner { log, unsynced: Vec::new(), is_lost: false });
        let mut journal = Journal { dir, new, blob, next: 0.into(), inner };
        journal.keep_whole()?;
        Ok(journal)
    }

    /// Drops what is not whole: ops whose bytes are damaged or not there, and staged files that no op needs.
    fn keep_whole(&mut self) -> Result<()> {
        let Inner { log, unsynced, .. } = self.inner.get_mut();
        let (mut kept, mut dropped) = (BTreeSet::new(), Vec::new());
        for (name, slot) in log.slots() {
            if check::is_whole(&log.op(slot)?, &self.new, &self.blob)? {
                kept.extend(slot.staged);
            } else {
                dropped.push(name.clone());
            }
        }
        for name in dropped {
            log.forget(&name)?;
        }
        unsynced.extend(&kept);
        for name in self.new.names()? {
            let Some(name) = name.to_str() else { continue };
            let number = name.parse().ok();
            if !number.is_some_and(|number| kept.contains(&number)) {
                self.new.remove(name)?;
            }
        }
        self.next = kept.last().map_or(0, |last| last + 1).into();
        Ok(())
    }

    /// The newest op of a name. One that cannot be read back is none.
    pub fn pending(&self, name: &Name) -> Option<Arc<Op>> {
        let inner = self.inner.lock();
        let slot = inner.log.slots().get(name)?;
        inner.log.op(slot).ok().map(Arc::new)
    }

    /// Whether a name gets a staged file.
    pub fn is_staged(&self, name: &Name) -> bool {
        self.inner.lock().log.slots().get(name).is_some_and(|slot| slot.staged.is_some())
    }

    /// Adds changed bytes, at most [`op::EXTENT_MAX`]: where they are in the blob, and their CRC32C.
    pub fn store(&self, bytes: &[u8]) -> Result<(u64, u32)> {
        self.blob.store(bytes)
    }

    /// Reads an extent, which is no hole, into the beginning of a buffer, and checks it (6).
    pub fn load(&self, extent: &Extent, buffer: &mut [u8]) -> Result<()> {
        self.blob.load(extent, buffer)
    }

    /// Makes a new file and the number to name it by. It is removed at the next start unless an op needs it by then.
    pub fn stage(&self) -> Result<(u64, File)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok((number, self.new.create_new(&number.to_string())?))
    }

    /// Opens a staged file for reading and writing.
    pub fn open_staged(&self, number: u64) -> Result<File> {
        match self.new.open_write(&number.to_string())? {
            Some(file) => Ok(file),
            None => fail(Code::Corrupt, format!("{} is not there", self.new.shown(&number.to_string()))),
        }
    }

    /// Adds an op, in the place of an earlier one for the same name. What it refers to must be written by now, and not
    /// change any more.
    pub fn add(&self, op: Op) -> Result<()> {
        let staged = if let Op::Place { staged, .. } = &op { Some(*staged) } else { None };
        let mut inner = self.inner.lock();
        let earlier = inner.log.add(op)?;
        inner.unsynced.extend(staged);
        drop(inner);
        self.unstage(earlier, staged)
    }

    /// No op is needed for this name any more.
    pub fn forget(&self, name: &Name) -> Result<()> {
        let earlier = self.inner.lock().log.forget(name)?;
        self.unstage(earlier, None)
    }

    /// Removes the staged file of an op that counts no more, unless it is this one.
    fn unstage(&self, earlier: Option<Slot>, kept: Option<u64>) -> Result<()> {
        match earlier.and_then(|slot| slot.staged) {
            Some(number) if Some(number) != kept => self.new.remove_if_there(&number.to_string()).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// All names with an op, in order: of those behind the last that was taken, as they are when the next is.
    pub fn names(&self) -> impl Iterator<Item = Name> + '_ {
        let mut last: Option<Name> = None;
        std::iter::from_fn(move || {
            let behind = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            last = self.inner.lock().log.slots().range((behind, Bound::Unbounded)).next().map(|(name, _)| name.clone());
            last.clone()
        })
        .fuse()
    }

    /// How many names have an op.
    pub fn len(&self) -> usize {
        self.inner.lock().log.slots().len()
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the log and the blob.
    pub fn bytes(&self) -> u64 {
        self.blob.length() + self.inner.lock().log.length()
    }

    /// Makes everything so far durable, while the server still runs, so that a commit has little left to do.
    pub fn prepare(&self) -> Result<()> {
        let unsynced = {
            let mut inner = self.inner.lock();
            if inner.is_lost {
                bail!("{} is lost: a sync has failed", self.dir.shown(LOG));
            }
            std::mem::take(&mut inner.unsynced)
        };
        let synced = self.sync(&unsynced);
        if synced.is_err() {
            // What a failed sync was of may be lost, and nothing will say so again.
            self.inner.lock().is_lost = true;
            let _ = self.dir.remove_if_there(LOG);
        }
        synced
    }

    fn sync(&self, staged: &[u64]) -> Result<()> {
        self.blob.sync()?;
        self.inner.lock().log.sync()?;
        if staged.len() > FEW {
            return self.dir.sync_file_system();
        }
        for number in staged.iter().map(u64::to_string) {
            // One that was superseded since is not needed.
            if let Some(file) = self.new.open_read(&number)? {
                file.sync_all().with_context(|| format!("cannot sync {}", self.new.shown(&number)))?;
            }
        }
        self.new.sync()
    }

    /// Makes the journal the truth; see the module. The destination's server must be stopped, and nothing may write there
    /// from now on. `dress` is what the replay may put on, whoever runs it.
    ///
    /// After an error the destination is as it was. But when it is the last sync that failed, a committed journal may be
    /// there: [`super::marker::guard`] knows, and must be asked before the server is started.
    pub fn commit(self, destination: &Tree, dress: Dress) -> Result<Committed> {
        let committed = self.draft(destination, dress);
        if committed.is_err() {
            let _ = tidy(&self.dir);
        }
        let committed = committed?;
        let root = &committed.root;
        let marked = Marker::now(Step::Prepared, committed.id(), self.dir.path()).write(root);
        if let Err(error) = marked.and_then(|()| self.dir.rename_over(DRAFT, COMMITTED)) {
            if self.dir.identity(COMMITTED)?.is_none() {
                let _ = Marker::remove(root);
                let _ = tidy(&self.dir);
            }
            return Err(error);
        }
        // Everything is in the list now. A log that is left is removed with the rest.
        let _ = self.dir.remove_if_there(LOG);
        Ok(committed)
    }

    /// Steps 1 and 2: everything but the marker and the name.
    fn draft(&self, destination: &Tree, dress: Dress) -> Result<Committed> {
        let root = replay::root_of(destination)?;
        if Marker::read(&root)?.is_some() {
            bail!("{} says that another sync is to be completed first", root.shown(super::marker::MARKER));
        }
        self.prepare()?;
        List::write(&self.inner.lock().log, &self.dir, DRAFT, root.own_identity()?.1, dress)?;
        let Some(list) = List::open(&self.dir, DRAFT)? else {
            bail!("{} is not there", self.dir.shown(DRAFT));
        };
        let blob = Blob::open(&self.dir, BLOB)?;
        let found = check::Check { list: &list, destination, new: &self.new, blob: &blob, was_begun: false }.run()?;
        self.dir.reserve(BALLAST, found.space)?;
        Ok(Committed { dir: self.dir.try_clone()?, new: self.new.try_clone()?, root, blob, list, found: Some(found) })
    }

    /// Throws an uncommitted journal away.
    pub fn discard(state: &State) -> Result<()> {
        if state.dir().identity(COMMITTED)?.is_some() {
            bail!("{} waits to be replayed", state.dir().shown(COMMITTED));
        }
        clear(state.dir())
    }
}

/// Removes what is of no use in a state directory without a committed journal.
fn tidy(dir: &Dir) -> Result<()> {
    dir.remove_if_there(DRAFT)?;
    dir.remove_if_there(BALLAST).map(|_| ())
}

/// Removes a journal. The log goes first: what a crash leaves of the rest belongs to nothing. A committed list goes when
/// the log is gone for good, so that none that was replayed is ever taken for one that was not committed.
fn clear(dir: &Dir) -> Result<()> {
    for name in [LOG, COMMITTED] {
        if dir.remove_if_there(name)? {
            dir.sync()?;
        }
    }
    tidy(dir)?;
    dir.remove_if_there(BLOB)?;
    if let Some(new) = dir.open_private(NEW.as_ref())? {
        for name in new.names()? {
            if let Some(name) = name.to_str() {
                new.remove(name)?;
            }
        }
        dir.remove_directory(NEW.as_ref())?;
    }
    Ok(())
}
