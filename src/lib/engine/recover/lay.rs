//! Lays a base and the log behind it in the target. Each file is hashed as it is copied, and what is not what was recorded
//! ends it; what is there already, whole, is not copied again; what does not belong there goes. So it can be done again
//! from any state, and does the same.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use rustix::process::geteuid;

use super::place::MARKER;
use super::plan::{Log, Plan};
use crate::edge::blocks::write_all_at;
use crate::edge::dir::Dir;
use crate::edge::read::{prefix, prefix_with};
use crate::edge::tree::{Dress, Tree};
use crate::engine::archive::sums::Sums;
use crate::value::digest::{Digest, Running};
use crate::value::entry::{Entry, Kind, Stamp};
use crate::value::exit::{Code, fail};
use crate::value::name::Name;
use crate::value::octets;

/// The base's directory and what its files are.
pub(super) struct Origin {
    /// Its `data`.
    pub(super) tree: Tree,
    /// Their digests.
    pub(super) sums: Sums,
}

/// A file to be copied.
struct Piece<'a> {
    entry: Entry,
    from: From<'a>,
    /// So much of it is hashed, and must have this digest.
    hashed: u64,
    digest: Digest,
    running: Running,
    /// So much is laid.
    laid: u64,
}

/// Where it comes from.
enum From<'a> {
    Base(&'a Tree),
    Archive(&'a Dir, &'a str),
}

/// See the module.
pub(super) struct Laying<'a> {
    /// What is laid.
    pub(super) plan: &'a Plan,
    /// Its base.
    pub(super) base: Option<&'a Origin>,
    /// The log.
    pub(super) archive: &'a Dir,
    /// Where to.
    pub(super) target: &'a Tree,
    /// Whose all of it becomes, instead of who has it in the base.
    pub(super) owner: Option<(u32, u32)>,
}

impl Laying<'_> {
    /// Does it; all is on stable storage then. Returns how many bytes were copied.
    pub(super) fn run(&self) -> Result<u64> {
        let dress = Dress { owner: geteuid().is_root(), devices: geteuid().is_root() };
        let (mut entries, logs) = (self.entries()?, self.logs());
        for log in &logs {
            entries.insert(log.entry.name.clone(), log.entry.clone());
        }
        self.tidy(&entries)?;
        for entry in entries.values().filter(|entry| !entry.is_file()) {
            self.target.make(entry)?;
            if !entry.is_directory() {
                self.target.dress(entry, dress)?;
            }
        }
        let (mut pieces, mut linked) = (logs, HashMap::new());
        let mut links = Vec::new();
        let log: HashSet<Name> = pieces.iter().map(|piece| piece.entry.name.clone()).collect();
        for entry in entries.values().filter(|entry| entry.is_file() && !log.contains(&entry.name)) {
            let first = linked.entry((entry.stamp.device, entry.stamp.inode)).or_insert_with(|| entry.name.clone());
            if *first == entry.name {
                pieces.extend(self.of_base(entry)?);
            } else {
                links.push((first.clone(), entry.name.clone()));
            }
        }
        let copied = self.copy(&pieces, dress)?;
        for (first, name) in &links {
            self.target.link(first, name)?;
        }
        for entry in entries.values().rev().filter(|entry| entry.is_directory()) {
            self.target.dress(entry, dress)?;
        }
        self.target.sync()?;
        Ok(copied)
    }

    /// What the base has, and the directory of the log.
    fn entries(&self) -> Result<BTreeMap<Name, Entry>> {
        let mut entries = BTreeMap::new();
        for found in self.base.iter().flat_map(|base| base.tree.walk(|_, _| false)) {
            let mut entry = found.map_err(|unread| anyhow::Error::new(unread.error).context("cannot read the base"))?;
            if let Some((uid, gid)) = self.owner {
                (entry.uid, entry.gid) = (uid, gid);
            }
            entries.insert(entry.name.clone(), entry);
        }
        if let Some(base) = self.base
            && let Some(mut root) = base.tree.look(&Name::root())?
        {
            if let Some((uid, gid)) = self.owner {
                (root.uid, root.gid) = (uid, gid);
            }
            entries.insert(Name::root(), root);
        }
        Ok(entries)
    }

    /// The log that is laid.
    fn logs(&self) -> Vec<Piece<'_>> {
        let place = self.plan.log_place();
        let piece = |log: &'_ Log| {
            let name = place.join(log.name.as_bytes());
            let (uid, gid) = self.owner.unwrap_or_else(|| self.owner_of_base());
            let stamp = Stamp { size: log.laid, ..Stamp::default() };
            let (mode, xattrs) = (0o600, Vec::new());
            let entry = Entry { name, kind: Kind::File, mode, uid, gid, links: 1, xattrs, allocated: 0, stamp };
            (entry, log.hashed, log.digest, log.running.clone(), log.laid)
        };
        let laid = self.plan.logs.iter().filter(|_| self.plan.lays_log());
        laid.map(|log| {
            let (entry, hashed, digest, running, laid) = piece(log);
            Piece { entry, from: From::Archive(self.archive, &log.name), hashed, digest, running, laid }
        })
        .collect()
    }

    fn owner_of_base(&self) -> (u32, u32) {
        let root = self.base.and_then(|base| base.tree.look(&Name::root()).ok().flatten());
        root.map_or((geteuid().as_raw(), rustix::process::getegid().as_raw()), |root| (root.uid, root.gid))
    }

    fn of_base(&self, entry: &Entry) -> Result<Option<Piece<'_>>> {
        let Some(base) = self.base else {
            return Ok(None);
        };
        let Some(digest) = base.sums.get(entry.name.bytes()).copied() else {
            return fail(Code::Corrupt, format!("{} is in no list of the base", base.tree.shown(&entry.name)));
        };
        let (hashed, laid) = (u64::MAX, u64::MAX);
        let from = From::Base(&base.tree);
        Ok(Some(Piece { entry: entry.clone(), from, hashed, digest, running: Running::new(), laid }))
    }

    /// Removes what does not belong there.
    fn tidy(&self, entries: &BTreeMap<Name, Entry>) -> Result<()> {
        let walk = self.target.walk(|name, _| name.parent().is_root() && name.last() == MARKER.as_bytes());
        for found in walk.bare() {
            let Ok(there) = found else { continue };
            let is_kept = there.name.is_root()
                || entries.get(&there.name).is_some_and(|entry| entry.kind == there.kind && there.links == 1)
                || (there.is_directory() && entries.get(&there.name).is_some_and(Entry::is_directory))
                || (there.name.parent().is_root() && there.name.last() == b"lost+found");
            if !is_kept {
                self.target.remove_all(&there.name)?;
            }
        }
        Ok(())
    }

    /// Copies files, on all cores.
    fn copy(&self, pieces: &[Piece<'_>], dress: Dress) -> Result<u64> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<u64> {
            let mut copied = 0;
            while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                copied += self.copy_one(piece, dress)?;
            }
            Ok(copied)
        };
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let ended = |_| fail(Code::Failed, "a thread that copies has ended abruptly");
            let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(ended));
            joined.sum::<Result<u64>>()
        })
    }

    fn copy_one(&self, piece: &Piece<'_>, dress: Dress) -> Result<u64> {
        let Piece { entry, from, hashed, digest, running, laid } = piece;
        if self.is_there(piece)? {
            self.target.dress(entry, dress)?;
            return Ok(0);
        }
        let (source, shown) = match from {
            From::Base(tree) => (tree.open_read(&entry.name)?, tree.shown(&entry.name)),
            From::Archive(dir, name) => (dir.open_read(name)?, dir.shown(name)),
        };
        let Some(source) = source else {
            return fail(Code::Gap, format!("{shown} is gone"));
        };
        self.target.remove_all(&entry.name)?;
        let file = self.target.create(&entry.name)?;
        let (mut at, mut written) = (0, Ok(()));
        let running = prefix_with(&source, running.clone(), *hashed, |bytes| {
            let wanted = laid.saturating_sub(at).min(bytes.len() as u64) as usize;
            if written.is_ok() {
                written = put(&file, &bytes[..wanted], at);
            }
            at += wanted as u64;
        });
        let running = running.with_context(|| format!("cannot read {shown}"))?;
        written.with_context(|| format!("cannot write {}", self.target.shown(&entry.name)))?;
        if running.digest() != *digest {
            return fail(Code::Corrupt, format!("{shown} has digest {}, its record says {digest}", running.digest()));
        }
        file.set_len(at).with_context(|| format!("cannot write {}", self.target.shown(&entry.name)))?;
        self.target.dress_file(&file, entry, dress)?;
        Ok(at)
    }

    /// Whether an earlier run has laid it, whole.
    fn is_there(&self, piece: &Piece<'_>) -> Result<bool> {
        // Of what is cut off there is no digest; and all of it may be there, from a run that went further.
        if piece.laid < piece.hashed {
            return Ok(false);
        }
        let Some(file) = self.target.open_read(&piece.entry.name)? else {
            return Ok(false);
        };
        let running = prefix(&file, piece.running.clone(), u64::MAX);
        Ok(running.is_ok_and(|running| running.digest() == piece.digest))
    }
}

/// Writes bytes that are not all zeros: what is not written is a hole.
fn put(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    if octets::is_zero(bytes) { Ok(()) } else { write_all_at(file, bytes, at) }
}
