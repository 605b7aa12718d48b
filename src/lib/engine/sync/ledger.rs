//! What comes of each file of a pass: counts, the pairs in the order of names though files are done in any, what the
//! operator is told, and the names that are not settled.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::{Condvar, Mutex};

use super::line::Work;
use super::pairs::{New, Pair};
use super::profile::Profile;
use super::target::Target;
use crate::rule::sync::item::{self, Act};
use crate::rule::sync::merkle::Cv;
use crate::rule::sync::wire::tell::{Cause, Matter};
use crate::value::entry::{Entry, Moment, Stamp};
use crate::value::name::Name;

/// Files whose pairs may wait for the pair of one before them.
const AHEAD: u64 = 1 << 16;
/// Names of files that are not settled which are kept; of more, only the number.
const NAMES: usize = 1000;
/// How often it is told how far it is.
const OFTEN: Duration = Duration::from_millis(200);

/// What was done, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Names at the source that take part.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Names that were new here.
    pub created: u64,
    /// Files whose content changed.
    pub updated: u64,
    /// Names of which only what they wear changed, or what they are another name of.
    pub dressed: u64,
    /// Names that went.
    pub deleted: u64,
    /// Bytes of files that were sent.
    pub literal: u64,
    /// Bytes of files that were read and found equal.
    pub matched: u64,
    /// Bytes of files that needed no reading.
    pub trusted: u64,
}

/// What came of a file.
pub enum Outcome {
    /// It is equal.
    Equal {
        /// Its stamp here.
        here: Stamp,
        /// Of its content.
        digest: Cv,
        /// Whether its content was changed.
        is_changed: bool,
        /// Bytes that were sent.
        literal: u64,
    },
    /// It was changing: what is here may be a mixture.
    Fuzzy {
        /// Its stamp here.
        here: Stamp,
        /// What was seen.
        why: Cause,
        /// Whether its content was changed.
        is_changed: bool,
        /// Bytes that were sent.
        literal: u64,
    },
    /// Nothing could be said of it.
    Unsettled(Cause),
}

/// Names that are not settled, with the cause.
#[derive(Clone, Debug, Default)]
pub struct Unsettled {
    /// The first of them.
    pub names: Vec<(Name, String)>,
    /// All of them.
    pub count: u64,
}

/// What is told of a name.
pub type Tell<'a> = Box<dyn Fn(&[u8]) + Sync + 'a>;

/// See the module.
pub struct Ledger<'a> {
    state: Mutex<Book<'a>>,
    moved: Condvar,
    target: Target<'a>,
    /// When the pass began, by the clock of inodes: a ctime that is not before it may be given to a later change, too.
    began: Moment,
    item: Option<Tell<'a>>,
    /// Whose source makes up for files that change while they are read.
    covering: Option<Profile>,
    progress: Option<Tell<'a>>,
}

struct Book<'a> {
    counts: Counts,
    pairs: Option<New<'a>>,
    next: u64,
    waiting: BTreeMap<u64, Option<Pair>>,
    unsettled: Unsettled,
    distrusted: HashSet<Name>,
    done: u64,
    told: Option<Instant>,
    /// Names that got an inode of their own.
    replaced: HashSet<Name>,
}

impl<'a> Ledger<'a> {
    /// Of a pass that begins now; `item` is told each change.
    pub fn new(target: Target<'a>, pairs: Option<New<'a>>, began: Moment, item: Option<Tell<'a>>) -> Ledger<'a> {
        let book = Book {
            counts: Counts::default(),
            pairs,
            next: 0,
            waiting: BTreeMap::new(),
            unsettled: Unsettled::default(),
            distrusted: HashSet::new(),
            done: 0,
            told: None,
            replaced: HashSet::new(),
        };
        Ledger { state: Mutex::new(book), moved: Condvar::new(), target, began, item, covering: None, progress: None }
    }

    /// With what an earlier pass found out, and what the source's procedure makes up for.
    #[must_use]
    pub fn knowing(mut self, distrusted: HashSet<Name>, covering: Option<Profile>) -> Ledger<'a> {
        self.state.get_mut().distrusted = distrusted;
        self.covering = covering;
        self
    }

    /// With somebody who is told how far it is, now and then.
    #[must_use]
    pub fn telling(mut self, progress: Option<Tell<'a>>) -> Ledger<'a> {
        self.progress = progress;
        self
    }

    /// Bytes of files were compared or written.
    pub fn advance(&self, bytes: u64) {
        let Some(progress) = &self.progress else { return };
        let mut book = self.state.lock();
        book.done += bytes;
        if book.told.is_none_or(|told| told.elapsed() >= OFTEN) {
            book.told = Some(Instant::now());
            let (done, known) = (book.done, book.counts.bytes);
            drop(book);
            progress(format!("{done} {known}").as_bytes());
        }
    }

    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state.lock().counts);
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// Tells what happens to a name.
    pub fn tell(&self, act: Act<'_>, new: &Entry, old: Option<&Entry>) {
        if let Some(item) = &self.item {
            item(&item::line(act, new, old));
        }
    }

    /// Whether nothing was told of a name in an earlier pass: what a journal has is not done yet, and found again.
    pub fn is_news(&self, name: &Name) -> bool {
        self.target.pending(name).is_none()
    }

    /// Only what a name wears changes.
    pub fn dressed(&self, new: &Entry, old: Option<&Entry>) {
        if self.is_news(&new.name) {
            self.count(|counts| counts.dressed += 1);
            self.tell(Act::Dress, new, old);
        }
    }

    /// A name is not settled.
    pub fn unsettle(&self, name: &Name, why: Cause) {
        if self.forgives(name, &why) {
            return;
        }
        let mut book = self.state.lock();
        book.unsettled.count += 1;
        if book.unsettled.names.len() < NAMES {
            book.unsettled.names.push((name.clone(), why.text));
        }
    }

    /// Whether the source's procedure makes up for that: for changes while all of a file is read, and for its removal.
    /// What was not read, it brings back only where it changed.
    pub fn forgives(&self, name: &Name, why: &Cause) -> bool {
        why.matter <= Matter::Vanished && self.covers(name)
    }

    /// Whether the source's procedure is on, and its log has what has changed in this file since.
    pub fn covers(&self, name: &Name) -> bool {
        self.covering.is_some_and(|profile| profile.may_change(name))
    }

    /// The file is to be fetched whole the next time.
    pub fn distrust(&self, name: &Name) {
        self.state.lock().distrusted.insert(name.clone());
    }

    /// Whether it is to be fetched whole.
    pub fn is_distrusted(&self, name: &Name) -> bool {
        self.state.lock().distrusted.contains(name)
    }

    /// A name got an inode of its own in this pass.
    pub fn replace(&self, name: &Name) {
        self.state.lock().replaced.insert(name.clone());
    }

    /// Whether a name got an inode of its own in this pass.
    pub fn is_replaced(&self, name: &Name) -> bool {
        self.state.lock().replaced.contains(name)
    }

    /// A file is done, which is this at the source.
    pub fn settle(&self, work: &Work, new: &Entry, outcome: Outcome) -> Result<()> {
        let (is_changed, literal) = match &outcome {
            Outcome::Equal { is_changed, literal, .. } | Outcome::Fuzzy { is_changed, literal, .. } => {
                (*is_changed, *literal)
            }
            Outcome::Unsettled(_) => (false, 0),
        };
        let old = work.old.as_ref();
        if is_changed {
            self.tell(if old.is_some() { Act::Update } else { Act::Create }, new, old);
        }
        {
            let counts = &mut self.state.lock().counts;
            counts.literal += literal;
            counts.matched = counts.matched.saturating_add(new.stamp.size.saturating_sub(literal));
            match (is_changed, old) {
                (true, Some(_)) => counts.updated += 1,
                (true, None) => counts.created += 1,
                _ => {}
            }
        }
        if is_changed && old.is_some_and(|old| old.links > 1) {
            self.replace(&new.name);
        }
        let pair = match outcome {
            Outcome::Equal { here, digest, .. } => self.pair(new, here, digest, work.region),
            Outcome::Fuzzy { here, why, .. } if self.forgives(&new.name, &why) => {
                // For this procedure it is as good as equal, and for no other: no file has such a stamp.
                let new = Entry { stamp: Stamp::default(), ..new.clone() };
                self.pair(&new, here, [0; 32], None)
            }
            Outcome::Fuzzy { why, .. } | Outcome::Unsettled(why) => {
                self.unsettle(&new.name, why);
                None
            }
        };
        self.turn(work.turn, pair)
    }

    /// A pair, where its stamps can be trusted.
    fn pair(&self, new: &Entry, here: Stamp, digest: Cv, region: Option<u64>) -> Option<Pair> {
        let is_pending = self.target.pending(&new.name).is_some();
        // Of a tree that only we write to, every stamp can be.
        let is_settled = matches!(self.target, Target::Direct(_)) || here.ctime < self.began;
        is_settled.then(|| Pair { name: new.name.clone(), source: new.stamp, here, digest, is_pending, region })
    }

    /// The turn of a file has come to its end, with a pair or without.
    pub fn turn(&self, turn: u64, pair: Option<Pair>) -> Result<()> {
        let mut book = self.state.lock();
        book.waiting.insert(turn, pair);
        loop {
            let next = book.next;
            let Some(pair) = book.waiting.remove(&next) else { break };
            book.next += 1;
            if let (Some(pairs), Some(pair)) = (&mut book.pairs, pair) {
                pairs.add(&pair)?;
            }
        }
        drop(book);
        self.moved.notify_all();
        Ok(())
    }

    /// Waits until a turn is not too far ahead of the first that is not done; false when `is_over` says so.
    pub fn wait_for(&self, turn: u64, is_over: impl Fn() -> bool) -> bool {
        let mut book = self.state.lock();
        while turn > book.next + AHEAD {
            if is_over() {
                return false;
            }
            self.moved.wait_for(&mut book, Duration::from_millis(250));
        }
        true
    }

    /// The end of a pass: its pairs are put in place, unless there are to be none.
    pub fn finish(self) -> Result<(Counts, Unsettled, HashSet<Name>)> {
        let book = self.state.into_inner();
        if let Some(pairs) = book.pairs {
            pairs.finish()?;
        }
        Ok((book.counts, book.unsettled, book.distrusted))
    }
}

impl Counts {
    /// Adds what another pass did; what there is at the source is what the last one saw.
    pub fn add(&mut self, pass: &Counts) {
        (self.entries, self.files, self.bytes) = (pass.entries, pass.files, pass.bytes);
        self.created += pass.created;
        self.updated += pass.updated;
        self.dressed += pass.dressed;
        self.deleted += pass.deleted;
        self.literal += pass.literal;
        self.matched += pass.matched;
        self.trusted += pass.trusted;
    }
}
