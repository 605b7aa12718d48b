//! The end that holds the source: it lists, digests, reads and runs what it is asked to, and changes nothing.
//!
//! One thread reads questions and never waits on an answer; workers take them from a queue that the lines bound. Each
//! answer carries the file's stamp from behind the reading: the other end holds it against the one in the list, and so
//! sees what changed in between. Extended attributes of files come with it, too, and not with the list: of most files
//! nobody asks.

mod moved;

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

use super::channel::{Inbox, Sender, outbox};
use super::groups;
use crate::edge::clock;
use crate::edge::pace::Pace;
use crate::edge::read::read_at;
use crate::edge::tree::{self, Tree, Walk};
use crate::rule::sync::filter::Filter;
use crate::rule::sync::merkle::{self, GROUP, RANGE, SHORT};
use crate::rule::sync::wire::ask::{Ask, Errand, Pages, Part, Say};
use crate::rule::sync::wire::tell::{Cause, Matter, Patch, Small, Tell};
use crate::rule::sync::wire::{LAID_MAX, LINES_MAX, corrupt, packed};
use crate::value::entry::{Attribute, Moment};
use crate::value::exit::{Code, Failure, fail};
use crate::value::name::Name;

/// Bytes of an answer that make it a frame.
const FRAME: usize = 256 << 10;
/// Entries in one frame of the list.
const ENTRIES: usize = 512;
/// Of a frame's bytes, this many are tried before all of them are compressed.
const SAMPLE: usize = 8 << 10;

/// Questions that may be open at once.
const OPEN: usize = LINES_MAX as usize;

/// What an errand makes: files to lay at the destination.
pub type Laid = Vec<(Name, Vec<u8>)>;

/// Runs an errand with its values.
pub type Run<'a> = dyn FnMut(Errand, Vec<(String, String)>) -> Result<Laid> + Send + 'a;

/// Shows the operator something.
pub type Show<'a> = dyn Fn(Say, &[u8]) + Send + Sync + 'a;

/// What stands on this side of the link.
pub struct Source<'a> {
    /// What is read.
    pub tree: Tree,
    /// Which tree of which machine it is, for whoever keeps what was proven of it: lines of text.
    pub identity: String,
    /// What takes part.
    pub filter: Arc<Filter>,
    /// A zstd level for bytes of files that get smaller by it.
    pub pack: Option<i32>,
    /// Bytes per second at most.
    pub rate: Option<u64>,
    /// Runs an errand.
    pub errand: Mutex<Box<Run<'a>>>,
    /// Shows the operator something.
    pub say: Box<Show<'a>>,
    /// Bytes on the wire.
    pub traffic: Arc<Traffic>,
}

/// Bytes on the wire.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes that were written.
    pub sent: AtomicU64,
    /// Bytes that were read.
    pub received: Arc<AtomicU64>,
}

impl Source<'_> {
    /// A file that takes part: whoever asks need not have it from our list.
    fn open(&self, name: &Name) -> Result<File> {
        let mut at = name.clone();
        let mut is_directory = false;
        while !at.is_root() {
            if self.filter.leaves_out(&at, is_directory) {
                return Err(Change(Matter::Changed, "it takes no part").into());
            }
            (at, is_directory) = (at.parent(), true);
        }
        self.tree.open_read(name)?.context(Change(Matter::Vanished, "it vanished"))
    }
}

/// A question that a worker answers.
type Job = (u16, Ask);

/// Answers until the other end says that it was all.
pub fn serve(source: &Source<'_>, input: impl Read, output: impl Write + Send) -> Result<()> {
    let (sender, outbox) = outbox();
    // An honest end has no more questions open than there are lines; another one has to wait until it reads our answers.
    let (jobs, taken) = mpsc::sync_channel::<Job>(OPEN);
    let (lists, listed) = mpsc::sync_channel::<Job>(OPEN);
    let (errands, run) = mpsc::sync_channel::<Job>(OPEN);
    let (taken, pass) = (Mutex::new(taken), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let pace = source.rate.map(Pace::new);
        let writer = scope.spawn(|| outbox.write(output, &source.traffic.sent, pace));
        for _ in 0..workers() {
            let sender = sender.clone();
            let (taken, pass) = (&taken, &pass);
            scope.spawn(move || Worker { source, sender, open: None, pass }.work(taken));
        }
        let (lister, runner) = (sender.clone(), sender.clone());
        scope.spawn(move || list(source, &listed, &lister));
        scope.spawn(move || run_errands(source, &run, &runner));
        let mut inbox = Inbox::new(input, Arc::clone(&source.traffic.received));
        let read = read_questions(source, &mut inbox, &pass, |line, ask| {
            let queue = match ask {
                Ask::Pass | Ask::List => &lists,
                Ask::Run(..) => &errands,
                _ => &jobs,
            };
            // Their takers end with this function.
            let _ = queue.send((line, ask));
        });
        drop((jobs, lists, errands, sender));
        let written = writer.join().unwrap_or(Ok(()));
        read.and(written)
    })
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn read_questions<R: Read>(
    source: &Source<'_>,
    inbox: &mut Inbox<R>,
    pass: &AtomicU64,
    mut hand: impl FnMut(u16, Ask),
) -> Result<()> {
    loop {
        let Some(frame) = inbox.next()? else {
            return fail(Code::Link, "the other end is gone");
        };
        match Ask::parse(&frame)? {
            Ask::Bye => return Ok(()),
            Ask::Fail(code, why, hint) => return Err(Failure::told(code, why, hint).into()),
            Ask::Say(what, bytes) => (source.say)(what, &bytes),
            ask => {
                if ask == Ask::Pass {
                    pass.fetch_add(1, Ordering::AcqRel);
                }
                hand(frame.line, ask);
            }
        }
    }
}

fn run_errands(source: &Source<'_>, errands: &mpsc::Receiver<Job>, sender: &Sender) {
    for (line, ask) in errands {
        let Ask::Run(errand, values) = ask else { continue };
        let tell = match (source.errand.lock())(errand, values) {
            Ok(files) if files.iter().all(|(_, bytes)| bytes.len() <= LAID_MAX) => Tell::Ran(files),
            Ok(_) => Tell::failed(&anyhow::anyhow!("a procedure made a file that is too long")),
            Err(error) => Tell::failed(&error),
        };
        if sender.send(tell.seal(line, None)).is_err() {
            return;
        }
    }
}

/// Walks the tree, a frame at a time as it is asked for.
fn list(source: &Source<'_>, questions: &mpsc::Receiver<Job>, sender: &Sender) {
    let mut walk: Option<Walk> = None;
    for (line, ask) in questions {
        let tell = match (ask, &mut walk) {
            (Ask::Pass, _) => begin_pass(source).map(|begun| {
                walk = Some(begun);
                Tell::Ran(vec![(Name::root(), source.identity.clone().into_bytes())])
            }),
            (_, Some(walk)) => Ok(next_entries(walk)),
            (_, None) => Err(corrupt("a list that was not begun")),
        };
        let tell = tell.unwrap_or_else(|error| Tell::failed(&error));
        if sender.send(tell.seal(line, source.pack)).is_err() {
            return;
        }
    }
}

fn begin_pass(source: &Source<'_>) -> Result<Walk> {
    // What was written through a mapping changes a stamp only when the page is next made dirty: after this, it will.
    source.tree.sync()?;
    let filter = Arc::clone(&source.filter);
    Ok(source.tree.walk(move |name, is_directory| filter.leaves_out(name, is_directory)).bare())
}

fn next_entries(walk: &mut Walk) -> Tell {
    let (mut entries, mut unread, mut size) = (Vec::new(), Vec::new(), 0);
    let now = clock::coarse_now();
    while entries.len() + unread.len() < ENTRIES && size < FRAME {
        match walk.next() {
            Some(Ok(mut entry)) => {
                if entry.is_file() && entry.stamp.ctime >= now {
                    // A later change can have this ctime, too: the stamp must not be one that is seen again.
                    entry.stamp.ctime = Moment::default();
                }
                size += entry.name.bytes().len() + length_of(&entry.xattrs);
                entries.push(entry);
            }
            Some(Err(error)) => unread.push((error.name, error.error.to_string())),
            None => return Tell::Entries { entries, unread, is_end: true },
        }
    }
    Tell::Entries { entries, unread, is_end: false }
}

fn length_of(xattrs: &[Attribute]) -> usize {
    xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

struct Worker<'a, 's> {
    source: &'a Source<'s>,
    sender: Sender,
    /// The file that was read last, in that pass: a large file is asked for in many parts.
    open: Option<(u64, Name, File)>,
    pass: &'a AtomicU64,
}

impl Worker<'_, '_> {
    fn work(mut self, jobs: &Mutex<mpsc::Receiver<Job>>) {
        loop {
            let job = jobs.lock().recv();
            let Ok((line, ask)) = job else { return };
            let done = match ask {
                Ask::Small(files) => self.small(line, files),
                Ask::Digests(part) => self.digests(line, &part),
                Ask::Bytes(part) => self.bytes(line, &part),
                Ask::Pages(part, size, groups) => self.pages(line, &part, size as usize, &groups),
                Ask::Moved(part, block, entries) => self.moved(line, &part, block, &entries),
                _ => Ok(()),
            };
            // A link that is gone is told by the thread that writes it.
            let sent = done.or_else(|error| self.tell(line, &Tell::Gone(cause(&error))));
            if sent.is_err() {
                return;
            }
        }
    }

    fn tell(&self, line: u16, tell: &Tell) -> Result<()> {
        self.sender.send(tell.seal(line, None))
    }

    /// The level for bytes of which compression pays: a part of them is tried first.
    fn pack(&self, bytes: &[u8]) -> Option<i32> {
        let sample = &bytes[..bytes.len().min(SAMPLE)];
        let pays = |level: &i32| packed(sample, *level).is_some_and(|packed| packed.len() < sample.len() / 4 * 3);
        self.source.pack.filter(pays)
    }

    fn tell_data(&self, line: u16, offset: u64, bytes: &[u8]) -> Result<()> {
        self.sender.send(Tell::seal_data(line, offset, bytes, self.pack(bytes)))
    }

    fn file(&mut self, name: &Name) -> Result<&File> {
        let pass = self.pass.load(Ordering::Acquire);
        if !self.open.as_ref().is_some_and(|(of, opened, _)| *of == pass && opened == name) {
            let file = self.source.open(name)?;
            self.open = Some((pass, name.clone(), file));
        }
        self.open.as_ref().map(|(.., file)| file).context("it vanished")
    }

    fn small(&mut self, line: u16, files: Vec<(Name, Option<[u8; 32]>)>) -> Result<()> {
        let (mut answers, mut size, last) = (Vec::new(), 0, files.len());
        let (mut sample, mut buffer) = (Vec::new(), vec![0; GROUP as usize + 1]);
        for (number, (name, digest)) in files.into_iter().enumerate() {
            let answer = self.one_small(&name, digest, &mut buffer).unwrap_or_else(|error| Small::Gone(cause(&error)));
            if let Small::Same(seen) | Small::Whole(seen, ..) = &answer {
                size += length_of(&seen.xattrs);
            }
            if let Small::Whole(.., bytes) = &answer {
                size += bytes.len();
                if sample.len() < SAMPLE {
                    sample.extend(&bytes[..bytes.len().min(SAMPLE)]);
                }
            }
            answers.push(answer);
            if size >= FRAME || number + 1 == last {
                self.sender.send(Tell::Smalls(std::mem::take(&mut answers)).seal(line, self.pack(&sample)))?;
                size = 0;
                sample.clear();
            }
        }
        Ok(())
    }

    fn one_small(&self, name: &Name, known: Option<[u8; 32]>, buffer: &mut [u8]) -> Result<Small> {
        let file = self.source.open(name)?;
        let count = read_at(&file, buffer, 0)?;
        let seen = tree::seen(&file)?;
        if count as u64 > GROUP {
            return Ok(Small::Gone(Cause::new(Matter::Changed, "it grew")));
        }
        let bytes = &buffer[..count];
        let digest = merkle::whole(bytes);
        Ok(if known == Some(digest) { Small::Same(seen) } else { Small::Whole(seen, digest, bytes.to_vec()) })
    }

    fn digests(&mut self, line: u16, part: &Part) -> Result<()> {
        let file = self.file(&part.name)?;
        let cvs =
            groups::digests(file, part.offset, part.length)?.context(Change(Matter::Changed, "it became shorter"))?;
        let seen = tree::seen(file)?;
        let short = cvs.iter().map(|cv| cv.first_chunk::<SHORT>().copied().unwrap_or_default()).collect();
        self.tell(line, &Tell::Digests(seen, merkle::fold(&cvs, part.size <= RANGE), short))
    }

    fn bytes(&mut self, line: u16, part: &Part) -> Result<()> {
        self.file(&part.name)?;
        let Some((.., file)) = &self.open else { return Ok(()) };
        let (mut cvs, mut hole) = (Vec::new(), part.offset..part.offset);
        let is_whole = groups::read(file, part.offset, part.length, |stretch| {
            cvs.extend(merkle::groups(stretch.offset, stretch.bytes));
            if stretch.is_hole {
                hole.end += stretch.bytes.len() as u64;
                return Ok(());
            }
            self.tell_hole(line, &hole)?;
            hole.start = stretch.offset + stretch.bytes.len() as u64;
            hole.end = hole.start;
            self.tell_data(line, stretch.offset, stretch.bytes)
        })?;
        if !is_whole {
            return Err(Change(Matter::Changed, "it became shorter").into());
        }
        self.tell_hole(line, &hole)?;
        self.tell(line, &Tell::Done(tree::seen(file)?, merkle::fold(&cvs, part.size <= RANGE)))
    }

    fn tell_hole(&self, line: u16, hole: &Range<u64>) -> Result<()> {
        let length = hole.end - hole.start;
        if length == 0 { Ok(()) } else { self.tell(line, &Tell::Hole(hole.start, length)) }
    }

    /// Of each group, the pages that differ from those that the other end has.
    fn pages(&mut self, line: u16, part: &Part, page: usize, asked: &[Pages]) -> Result<()> {
        let file = self.file(&part.name)?.try_clone()?;
        let (mut patches, mut size) = (Vec::new(), 0);
        for pages in asked {
            let length = GROUP.min(part.offset + part.length - pages.offset);
            let mut patch = None;
            let is_whole = groups::read(&file, pages.offset, length, |group| {
                patch = Some(differing(&group, page, &pages.digests));
                Ok::<_, io::Error>(())
            })?;
            let patch = patch.filter(|_| is_whole).context(Change(Matter::Changed, "it became shorter"))?;
            size += patch.bytes.len();
            patches.push(patch);
            if size >= FRAME {
                self.tell_patches(line, &mut patches)?;
                size = 0;
            }
        }
        self.tell_patches(line, &mut patches)?;
        self.tell(line, &Tell::Done(tree::seen(&file)?, [0; 32]))
    }

    fn tell_patches(&self, line: u16, patches: &mut Vec<Patch>) -> Result<()> {
        let tell = Tell::Patches(std::mem::take(patches));
        let Tell::Patches(told) = &tell else { return Ok(()) };
        let sample = told.first().map(|patch| patch.bytes.as_slice()).unwrap_or_default();
        self.sender.send(tell.seal(line, self.pack(sample)))
    }
}

/// A file is not what it was when it was listed.
#[derive(Debug)]
struct Change(Matter, &'static str);

impl std::fmt::Display for Change {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.1)
    }
}

impl std::error::Error for Change {}

/// Why there are no bytes of a file.
fn cause(error: &anyhow::Error) -> Cause {
    let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let matter = match (error.downcast_ref::<Change>(), error.downcast_ref()) {
        (Some(Change(matter, _)), _) => *matter,
        (None, Some(error)) if is_missing(error) => Matter::Vanished,
        _ => Matter::Unreadable,
    };
    Cause::new(matter, &format!("{error:#}"))
}

fn differing(group: &groups::Stretch<'_>, page: usize, known: &[[u8; 8]]) -> Patch {
    let cvs = merkle::pages(group.offset, group.bytes, page);
    let mut patch = Patch { offset: group.offset, cv: merkle::fold(&cvs, false), pages: 0, bytes: Vec::new() };
    for (number, bytes) in group.bytes.chunks(page).enumerate() {
        let is_known = known.get(number).is_some_and(|digest| *digest == merkle::short(&cvs[number]));
        if !is_known {
            patch.pages |= 1 << number;
            patch.bytes.extend(bytes);
        }
    }
    if group.is_hole {
        patch.bytes.clear();
    }
    patch
}
