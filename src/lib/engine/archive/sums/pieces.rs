//! The work on the files of a tree, on all cores.
//!
//! One file is one piece of it, a large one several: it is hashed in ranges, whose cvs make its digest. Files are read,
//! never mapped: one that becomes shorter meanwhile is an error, not the end of this process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

use super::{Sums, Taken};
use crate::edge::read::read_at;
use crate::edge::tree::Tree;
use crate::engine::sync::groups;
use crate::rule::sync::merkle::{self, Cv, GROUP, RANGE};
use crate::value::digest::Digest;
use crate::value::entry::{Entry, Kind};
use crate::value::name::Name;

/// Pieces of work that wait for each core: few, since those of large files hold them open.
const WAITING: usize = 4;

/// See [`super::of`].
pub(super) fn all(tree: &Tree, known: &dyn Fn(&Entry) -> Option<Digest>) -> Result<Taken> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (put, pieces) = sync_channel(WAITING * workers);
    let work = Work { tree, pieces: Mutex::new(Some(pieces)), done: Mutex::default() };
    let bytes = std::thread::scope(|scope| -> Result<u64> {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(|| work.run())).collect();
        let listed = list(tree, known, put, &work.done);
        // What went wrong with a piece tells more than that nobody took the next.
        for thread in threads {
            thread.join().unwrap_or_else(|_| anyhow::bail!("a thread that reads files has panicked"))?;
        }
        listed
    })?;
    Ok(Taken { sums: work.done.into_inner(), bytes })
}

/// Puts the work on each file of a tree; returns how many bytes they have.
fn list(
    tree: &Tree,
    known: &dyn Fn(&Entry) -> Option<Digest>,
    put: SyncSender<Piece>,
    done: &Mutex<Sums>,
) -> Result<u64> {
    let mut bytes = 0;
    for entry in tree.walk(|_, _| false).bare() {
        let entry = entry.map_err(|unread| {
            let shown = tree.shown(&unread.name);
            anyhow::Error::from(unread.error).context(format!("cannot read {shown}"))
        })?;
        if entry.kind != Kind::File {
            continue;
        }
        bytes += entry.stamp.size;
        if let Some(digest) = known(&entry) {
            done.lock().insert(&entry.name, digest);
            continue;
        }
        let size = entry.stamp.size;
        let ranges = Arc::new(Ranged { name: entry.name, size, file: OnceLock::new(), cvs: Mutex::default() });
        for offset in (0..size.max(1)).step_by(RANGE as usize) {
            if put.send(Piece { of: Arc::clone(&ranges), offset }).is_err() {
                return Ok(bytes);
            }
        }
    }
    Ok(bytes)
}

/// A range of a file.
struct Piece {
    of: Arc<Ranged>,
    offset: u64,
}

/// A file whose ranges are hashed, opened by whoever comes first.
struct Ranged {
    name: Name,
    size: u64,
    file: OnceLock<File>,
    /// Of the ranges that are done, by their offsets.
    cvs: Mutex<BTreeMap<u64, Cv>>,
}

/// What the threads share.
struct Work<'a> {
    tree: &'a Tree,
    /// Taken away by whoever fails, so that nothing more is put or taken.
    pieces: Mutex<Option<Receiver<Piece>>>,
    done: Mutex<Sums>,
}

impl Work<'_> {
    fn run(&self) -> Result<()> {
        while let Some(piece) = self.next() {
            let shown = || format!("cannot read {}", self.tree.shown(&piece.of.name));
            match piece.hash(self.tree).with_context(shown) {
                Ok(Some(digest)) => self.done.lock().insert(&piece.of.name, digest),
                Ok(None) => {}
                Err(error) => {
                    *self.pieces.lock() = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn next(&self) -> Option<Piece> {
        self.pieces.lock().as_ref()?.recv().ok()
    }
}

impl Piece {
    /// Hashes it; the digest of the whole file from whoever does the last of it.
    fn hash(&self, tree: &Tree) -> Result<Option<Digest>> {
        let file = self.of.open(tree)?;
        let size = self.of.size;
        let length = RANGE.min(size - self.offset);
        let cv = if size <= GROUP { small(file, size)? } else { range(file, self.offset, length, size)? };
        let cvs = {
            let mut cvs = self.of.cvs.lock();
            cvs.insert(self.offset, cv);
            if cvs.len() < merkle::parts(size, RANGE) {
                return Ok(None);
            }
            std::mem::take(&mut *cvs)
        };
        if file.metadata()?.len() != size {
            return Err(changed().into());
        }
        let cvs: Vec<Cv> = cvs.into_values().collect();
        Ok(Some(Digest(merkle::fold(&cvs, true))))
    }
}

impl Ranged {
    fn open(&self, tree: &Tree) -> Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = tree.open_read(&self.name)?.ok_or_else(changed)?;
        // Two may have opened it: then it is the same file, or its digest is not.
        Ok(self.file.get_or_init(|| file))
    }
}

/// The digest of a file of one group at most.
fn small(file: &File, size: u64) -> io::Result<Cv> {
    let mut bytes = vec![0; size as usize];
    if read_at(file, &mut bytes, 0)? < bytes.len() {
        return Err(changed());
    }
    Ok(merkle::whole(&bytes))
}

/// The cv of a range of a larger one; the digest, where that is all of it.
fn range(file: &File, offset: u64, length: u64, size: u64) -> io::Result<Cv> {
    let cvs = groups::digests(file, offset, length)?.ok_or_else(changed)?;
    Ok(merkle::fold(&cvs, length == size))
}

fn changed() -> io::Error {
    io::Error::other("it has changed meanwhile")
}
