//! The receiving end's workers. Each has a line to the other end: one question is open on it at a time, and while one
//! worker waits the others go on, so that no file costs a round trip of its own.

mod moved;
mod pages;
mod small;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;

use anyhow::Result;
use parking_lot::Mutex;

use moved::Moves;

use super::channel::Sender;
use super::digests::Digests;
use super::door::{ANY, Ear};
use super::ledger::{Ledger, Outcome};
use super::target::{Basis, Sink, Target, is_dressed};
use crate::edge::tree::Dress;
use crate::rule::sync::merkle::{self, Cv, GROUP, RANGE, SHORT};
use crate::rule::sync::wire::ask::{Ask, Part};
use crate::rule::sync::wire::corrupt;
use crate::rule::sync::wire::tell::{Cause, Matter, Tell};
use crate::value::entry::{Attribute, Entry, Seen, Stamp};

/// A file whose content may differ.
pub struct Work {
    /// Its turn among the files of this pass.
    pub turn: u64,
    /// As the source has it.
    pub new: Entry,
    /// As it is here.
    pub old: Option<Entry>,
    /// Where the digests of its groups are kept.
    pub region: Option<u64>,
    basis: Basis,
    sink: Mutex<Option<Arc<Sink>>>,
    left: AtomicUsize,
    /// By range; it grows with what has come, not with what a peer says of its length.
    cvs: Mutex<Vec<Cv>>,
    /// The source has none of it any more.
    is_given_up: AtomicBool,
    trouble: Mutex<Option<Cause>>,
    /// As the source has them.
    xattrs: Mutex<Option<Vec<Attribute>>>,
    literal: AtomicU64,
    /// Whether bytes here are other ones, written or not.
    differs: AtomicBool,
    moves: Moves,
}

/// A group that is not what the source has, and where what is like it may be in the old content: at its own offset unless
/// bytes moved.
#[derive(Clone, Copy)]
struct Lack {
    number: usize,
    from: u64,
}

/// What a worker does next.
pub enum Task {
    /// Files that are no longer than a group at the source.
    Small(Vec<Arc<Work>>),
    /// A range of a longer file.
    Range(Arc<Work>, u64),
    /// So many ranges of one of which nothing more is to be had.
    Rest(Arc<Work>, usize),
}

impl Work {
    /// A file to compare or to fetch.
    pub fn new(turn: u64, new: Entry, old: Option<Entry>, basis: Basis) -> Work {
        let ranges = merkle::parts(new.stamp.size, RANGE);
        Work {
            moves: Moves::new(basis.size(), new.stamp.size),
            turn,
            region: None,
            basis,
            sink: Mutex::default(),
            left: AtomicUsize::new(ranges),
            cvs: Mutex::default(),
            is_given_up: AtomicBool::new(false),
            trouble: Mutex::default(),
            xattrs: Mutex::default(),
            literal: AtomicU64::new(0),
            differs: AtomicBool::new(false),
            new,
            old,
        }
    }

    /// Its bytes are not searched for elsewhere in it.
    pub fn stays(&mut self) {
        self.moves = Moves::none();
    }

    /// Whether it goes with others in one question.
    pub fn is_small(&self) -> bool {
        is_small(&self.new)
    }

    fn part(&self, offset: u64) -> Part {
        let size = self.new.stamp.size;
        Part { name: self.new.name.clone(), offset, length: RANGE.min(size - offset), size }
    }

    /// Whether there is nothing more to ask for.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    fn give_up(&self, why: Cause) {
        self.is_given_up.store(true, Ordering::Release);
        self.trouble(why);
    }

    /// Notes why what is here may not be what is there; the first of the worst stays.
    fn trouble(&self, why: Cause) {
        let mut trouble = self.trouble.lock();
        if trouble.as_ref().is_none_or(|known| known.matter < why.matter) {
            *trouble = Some(why);
        }
    }

    fn changed(&self) {
        self.trouble(Cause::new(Matter::Mixed, "it changed while it was read"));
    }

    /// Holds what was seen behind a reading against the list, which has no extended attributes.
    fn hold(&self, seen: Seen) {
        if seen.stamp != self.new.stamp {
            self.changed();
        }
        *self.xattrs.lock() = Some(seen.xattrs);
    }

    /// What it wears at the source; where nothing was read of it, no other extended attributes than here are known.
    fn seen(&self) -> Entry {
        let own = || self.old.as_ref().map(|old| old.xattrs.clone()).unwrap_or_default();
        Entry { xattrs: self.xattrs.lock().take().unwrap_or_else(own), ..self.new.clone() }
    }
}

/// Whether a file is compared as a whole.
pub fn is_small(new: &Entry) -> bool {
    new.stamp.size <= GROUP
}

/// One worker.
pub struct Line<'a, 'l> {
    /// Its number, which every frame of it carries.
    pub number: u16,
    /// To the other end.
    pub sender: Sender,
    /// From the other end.
    pub ear: &'a mut Ear,
    /// Where changes go.
    pub target: Target<'a>,
    /// What comes of the files.
    pub ledger: &'a Ledger<'l>,
    /// Bytes of a page.
    pub page: usize,
    /// What files wear.
    pub dress: Dress,
    /// Whether files with several names are not dressed.
    pub spares: bool,
    /// Whether nothing is to be changed.
    pub is_dry: bool,
    /// Where digests are kept.
    pub digests: Option<&'a Digests>,
    /// Bytes of small files that all workers have written.
    pub written: &'a AtomicU64,
}

impl Line<'_, '_> {
    /// Sends a question.
    fn ask(&self, ask: &Ask) -> Result<()> {
        self.ear.expect(ANY);
        self.sender.send(ask.seal(self.number))
    }

    /// Waits for an answer.
    fn hear(&self) -> Result<Tell> {
        self.ear.hear_soon()
    }

    /// Does what comes until nothing comes any more.
    pub fn work(&self, tasks: &Mutex<Receiver<Task>>, over: &AtomicBool) -> Result<()> {
        loop {
            let task = tasks.lock().recv();
            match task {
                // Another worker failed: nothing of this pass counts any more.
                Ok(_) if over.load(Ordering::Acquire) => {}
                Ok(Task::Small(works)) => self.small(&works)?,
                Ok(Task::Range(work, offset)) => {
                    self.range(&work, offset)?;
                    self.done(&work, 1)?;
                }
                Ok(Task::Rest(work, count)) => self.done(&work, count)?,
                Err(_) => return Ok(()),
            }
            self.ear.close();
        }
    }

    fn sink(&self, work: &Work) -> Result<Arc<Sink>> {
        let mut sink = work.sink.lock();
        if let Some(sink) = &*sink {
            return Ok(Arc::clone(sink));
        }
        let made = Arc::new(self.target.sink(&work.new, work.old.as_ref())?);
        *sink = Some(Arc::clone(&made));
        Ok(made)
    }

    /// One range of a file: its digests are compared, what differs is asked for, and what is then here is proven by the
    /// cv of the range.
    fn range(&self, work: &Work, offset: u64) -> Result<()> {
        if work.is_given_up() {
            return Ok(());
        }
        let part = work.part(offset);
        let is_all_new = work.basis.size() <= offset && !work.moves.are_known();
        let done = if is_all_new { self.fetch(work, &part) } else { self.compare(work, &part) };
        let cv = done?;
        self.ledger.advance(part.length);
        if let Some(cv) = cv {
            let (mut cvs, number) = (work.cvs.lock(), (offset / RANGE) as usize);
            if cvs.len() <= number {
                cvs.resize(number + 1, [0; 32]);
            }
            cvs[number] = cv;
        }
        Ok(())
    }

    fn compare(&self, work: &Work, part: &Part) -> Result<Option<Cv>> {
        self.ask(&Ask::Digests(part.clone()))?;
        let mut own = work.basis.digests(&self.target, part.offset, part.length)?;
        let (seen, proof, theirs) = match self.hear()? {
            Tell::Digests(seen, proof, theirs) => (seen, proof, theirs),
            Tell::Gone(why) => {
                work.give_up(why);
                return Ok(None);
            }
            _ => return Err(corrupt("not the digests of a range")),
        };
        if theirs.len() != merkle::parts(part.length, GROUP) {
            return Err(corrupt("digests of another range"));
        }
        work.hold(seen);
        own.resize(theirs.len(), [0; 32]);
        let differs = |(number, short): (usize, &[u8; SHORT])| {
            (own[number][..SHORT] != short[..]).then_some(Lack { number, from: part.offset + number as u64 * GROUP })
        };
        let mut lacking: Vec<Lack> = theirs.iter().enumerate().filter_map(differs).collect();
        let was_moved = self.seek(work, part, &theirs, &mut lacking, &mut own)?;
        if Self::is_searched(work, part, &lacking) {
            return self.search(work, part, &mut own);
        }
        let mut is_laid = true;
        if !lacking.is_empty() {
            match self.patch(work, part, &lacking, &mut own)? {
                Some(is_right) => is_laid = is_right,
                None => return Ok(None),
            }
        }
        let cv = merkle::fold(&own, part.size <= RANGE);
        if was_moved && (!is_laid || cv != proof) && !self.is_dry {
            return self.fetch_again(work, part);
        }
        if !is_laid {
            self.distrust(work);
            return Ok(None);
        }
        Ok(self.prove(work, part, &own, &proof))
    }

    /// What is here of a range must have the source's cv; where the source was changing, it need not.
    fn prove(&self, work: &Work, part: &Part, own: &[Cv], proof: &Cv) -> Option<Cv> {
        let cv = merkle::fold(own, part.size <= RANGE);
        if cv == *proof || self.is_dry {
            self.keep(work, part, own);
            return Some(cv);
        }
        self.distrust(work);
        None
    }

    /// The digests of a range that is proven are kept.
    fn keep(&self, work: &Work, part: &Part, own: &[Cv]) {
        if let (Some(digests), Some(region)) = (self.digests, work.region) {
            digests.keep(region, part.offset, own);
        }
    }

    /// What is here now is not what the source has, though short digests said so. Where the source did not change, two
    /// contents have the same short digest: the file is fetched whole the next time.
    fn distrust(&self, work: &Work) {
        let has_changed = work.trouble.lock().is_some();
        if has_changed {
            return work.changed();
        }
        self.ledger.distrust(&work.new.name);
        work.trouble(Cause::new(Matter::Changed, "its short digests are those of another content"));
    }

    /// A range of which nothing is here.
    fn fetch(&self, work: &Work, part: &Part) -> Result<Option<Cv>> {
        if self.is_dry {
            work.literal.fetch_add(part.length, Ordering::Relaxed);
            return Ok(Some([0; 32]));
        }
        self.ask(&Ask::Bytes(part.clone()))?;
        let sink = self.sink(work)?;
        let (mut own, mut at, end) = (Vec::new(), part.offset, part.offset + part.length);
        loop {
            match self.hear()? {
                Tell::Data(offset, bytes)
                    if offset == at && (1..=end - at).contains(&(bytes.len() as u64)) && offset % GROUP == 0 =>
                {
                    own.extend(merkle::groups(offset, &bytes));
                    self.target.write(&sink, &work.basis, offset, &bytes)?;
                    at += bytes.len() as u64;
                    work.literal.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                Tell::Hole(offset, length)
                    if offset == at && (1..=end - at).contains(&length) && offset % GROUP == 0 =>
                {
                    own.extend(merkle::hole(at, length));
                    self.target.hole(&sink, &work.basis, at, length)?;
                    at += length;
                }
                Tell::Done(seen, proof) if at == end => {
                    work.hold(seen);
                    self.target.begin_writeback(&sink, part.offset, part.length);
                    return Ok(self.prove(work, part, &own, &proof));
                }
                Tell::Gone(why) => {
                    work.give_up(why);
                    return Ok(None);
                }
                _ => return Err(corrupt("not the bytes of a range")),
            }
        }
    }

    fn done(&self, work: &Work, ranges: usize) -> Result<()> {
        if work.left.fetch_sub(ranges, Ordering::AcqRel) == ranges { self.finish(work) } else { Ok(()) }
    }

    /// All ranges of a file are done.
    fn finish(&self, work: &Work) -> Result<()> {
        let mut cvs = std::mem::take(&mut *work.cvs.lock());
        if !work.is_given_up() {
            cvs.resize(merkle::parts(work.new.stamp.size, RANGE), [0; 32]);
        }
        let digest = merkle::fold(&cvs, true);
        self.settle(work, digest, Some(work.new.stamp.size))
    }

    /// Whether what is here has names of which the source's file has none in the tree. How many names that has elsewhere
    /// is not known.
    fn is_shared(&self, new: &Entry, old: &Entry) -> bool {
        old.links > if self.spares { 1 } else { new.links }
    }

    /// A file is done: its length and what it wears are set where anything differs.
    fn settle(&self, work: &Work, digest: Cv, length: Option<u64>) -> Result<()> {
        let trouble = work.trouble.lock().clone();
        let sink = work.sink.lock().take();
        let Some(length) = length else {
            return self.ledger.settle(
                work,
                &work.new,
                Outcome::Unsettled(trouble.unwrap_or(Cause::new(Matter::Vanished, "it vanished"))),
            );
        };
        let mut new = work.seen();
        new.stamp.size = length;
        let old = work.old.as_ref();
        let differs = sink.is_some() || work.differs.load(Ordering::Relaxed);
        let is_changed = differs || old.is_none_or(|old| !old.is_file()) || work.basis.size() != length;
        let literal = work.literal.load(Ordering::Relaxed);
        let dressed = old.filter(|old| !is_changed && !is_dressed(&new, old, self.dress));
        let is_parted = dressed.is_some_and(|old| self.is_shared(&new, old));
        if let Some(old) = dressed {
            self.ledger.dressed(&new, Some(old));
        }
        if is_parted {
            self.ledger.replace(&new.name);
        }
        let here = match (is_changed, self.is_dry) {
            (true, false) => {
                let sink = sink.map_or_else(|| self.target.sink(&new, old).map(Arc::new), Ok)?;
                self.target.finish(&sink, &work.basis, &new, old, digest, self.dress)?
            }
            (false, false) if is_parted => self.target.part(&new, old, digest, self.dress)?,
            (false, false) => self.target.keep(&new, old, digest, self.dress)?,
            (_, true) => Stamp::default(),
        };
        if trouble.as_ref().is_some_and(|why| self.ledger.forgives(&new.name, why)) && !self.is_dry {
            self.target.prove_mixture(&new, old, self.dress)?;
        }
        match trouble {
            None => self.ledger.settle(work, &new, Outcome::Equal { here, digest, is_changed, literal }),
            Some(why) => self.ledger.settle(work, &new, Outcome::Fuzzy { here, why, is_changed, literal }),
        }
    }
}
