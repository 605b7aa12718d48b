//! Reads a log directory in order and hands out pieces that may be shipped: complete, checked records that are on the
//! master's own disk. It only reads; it never writes, renames or locks anything there.
//!
//! A file's size says nothing here. In the segment that is being written, bytes count as far as the scanner has checked
//! them; a segment is finished when the beginning of the next one says so, and only after one more look at it, since its
//! last bytes may have been written between the two. Segments that lie ahead are opened as soon as they are seen, so
//! that an engine which removes its logs cannot take away what we have not read yet.

mod closing;
pub(super) mod gauge;
pub(super) mod locate;
mod reading;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use anyhow::{Context as _, Result};

use self::reading::{Buffer, LOOK_LEAST, LOOK_MOST, Open, next_data, safe_extent};
use super::ledger::Ledger;
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::read::prefix_with;
use crate::engine::{log, site};
use crate::rule::scheme::{Mark, Scanner, Scheme, Step};
use crate::rule::stream::message::{Begin, Previous};
use crate::value::digest::Digest;
use crate::value::exit::{Code, Failure, fail};
use crate::value::octets;
use crate::value::position::{Position, Segment};
use crate::value::time::{Time, Until};

/// What to read, and how far.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Sync the source file before its bytes are handed out.
    pub(super) sync: bool,
    /// Only up to the last boundary.
    pub(super) commit_only: bool,
    /// Only up to here.
    pub(super) until: Option<Until>,
    /// Only this segment, which is finished.
    pub(super) only: Option<Segment>,
    /// Most bytes of one piece.
    pub(super) piece: usize,
}

/// Something to ship.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// A segment begins.
    Begin(Begin),
    /// Bytes.
    Data { offset: u64, bytes: &'a [u8] },
    /// Zero bytes.
    Hole { offset: u64, length: u64 },
    /// All up to here is whole transactions.
    Mark { offset: u64, time: Option<Time>, digest: Digest },
    /// A byte in which bits were rewritten.
    Patch { offset: u64, byte: u8 },
    /// The segment is complete.
    End(Previous),
    /// Nothing new is there now.
    Idle,
    /// The limit was reached: nothing will come any more.
    Done,
}

/// Files that are opened ahead of the one being read.
const AHEAD: usize = 64;
/// First bytes of a segment by which a rewritten one is known.
const FIRST: usize = 64;

/// A log directory being read.
pub(super) struct Source {
    dir: Dir,
    scheme: Scheme,
    options: Options,
    /// The state of a replica whose directory this is: only what it holds is there.
    replica: Option<Dir>,
    cap: Option<Position>,
    known: BTreeMap<Segment, Option<File>>,
    /// The newest of the directory, whether or not it is to be shipped.
    newest: Option<Segment>,
    open: Option<Open>,
    previous: Option<Previous>,
    end: Option<Position>,
    buffer: Buffer,
}

impl Source {
    /// A directory, of which only what it holds counts when it is a replica's.
    pub(super) fn new(dir: Dir, scheme: Scheme, options: Options) -> Result<Source> {
        let buffer = Buffer { bytes: Vec::new(), at: 0, length: 0 };
        let mut source = Source {
            dir,
            scheme,
            options,
            replica: None,
            cap: None,
            known: BTreeMap::new(),
            newest: None,
            open: None,
            previous: None,
            end: None,
            buffer,
        };
        source.list()?;
        Ok(source)
    }

    /// Where reading is: the end of what was handed out.
    pub(super) fn position(&self) -> Option<Position> {
        self.open.as_ref().map(|open| open.segment.at(open.sent))
    }

    /// The end of the last byte that was handed out: of the segment before while the open one has none, since nobody
    /// can acknowledge the beginning of a segment.
    pub(super) fn last_byte(&self) -> Option<Position> {
        let before = self.previous.map(|previous| previous.segment.at(previous.length));
        self.position().filter(|at| at.offset > 0).or(before)
    }

    /// Where reading stands in a segment that is not finished, with nothing owed before what comes next: another reader
    /// may go on from there.
    pub(super) fn crossing(&self) -> Option<Position> {
        let open = self.open.as_ref().filter(|open| open.closed.is_none())?;
        let owes = open.scanner.boundary().is_some_and(|mark| mark.offset == open.sent && mark.offset > open.marked);
        (!owes).then_some(open.segment.at(open.sent))
    }

    /// What an operator should know of the open segment.
    pub(super) fn remark(&self) -> Option<String> {
        let open = self.open.as_ref()?;
        open.scanner.remark(&self.dir.shown(&open.name))
    }

    /// Bytes that lie ahead, as far as file sizes tell.
    pub(super) fn left(&self) -> u64 {
        let Some(open) = &self.open else {
            return 0;
        };
        let size = |file: &File| file.metadata().map_or(0, |meta| meta.len());
        // Those further ahead are not open; asking for the size of each would cost more than it tells.
        let later =
            self.known.range(open.segment..).skip(1).take(AHEAD).filter_map(|(_, file)| file.as_ref()).map(size);
        size(&open.file).saturating_sub(open.sent) + later.sum::<u64>()
    }

    /// Reads the directory: what is there, what has gone.
    pub(super) fn list(&mut self) -> Result<()> {
        let mut horizon = None;
        if self.replica.is_none() {
            // A receiver may take this directory up while it is shipped on.
            self.replica = site::peek_receiver(&self.dir)?;
        }
        if let Some(state) = &self.replica {
            let held = site::holding(state)?.map_or(Segment::new(0, 0).at(0), |holding| holding.held.position);
            // The log of a database that was promoted is its own.
            let promoted = log::promoted(&self.dir, state, &self.scheme, held.segment.generation)?;
            self.cap = promoted.is_none().then_some(held);
            horizon = site::horizon::read(state)?;
        }
        let (mut found, mut newest) = (BTreeMap::new(), None);
        for segment in log::segments(&self.dir, &self.scheme, |segment| self.known.contains_key(&segment))?.into_keys()
        {
            if self.cap.is_some_and(|cap| segment > cap.segment) || Some(segment) < horizon {
                continue;
            }
            newest = newest.max(Some(segment));
            if self.options.only.is_none_or(|only| only == segment) {
                found.insert(segment, self.known.remove(&segment).flatten());
            }
        }
        // A segment that has gone but is open here can still be read.
        let kept = std::mem::take(&mut self.known).into_iter().filter(|(_, file)| file.is_some());
        found.extend(kept);
        self.newest = newest.max(found.last_key_value().map(|(segment, _)| *segment));
        self.known = found;
        self.open_ahead()
    }

    /// Small files beside the log, in the order of their names.
    pub(super) fn aux(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut found = BTreeMap::new();
        for name in self.dir.names()? {
            let Some(name) = name.to_str().filter(|name| self.scheme.is_aux(name)) else {
                continue;
            };
            if let Some(bytes) = self.dir.read_small(name, 1 << 16)? {
                found.insert(name.to_owned(), bytes);
            }
        }
        Ok(found)
    }

    /// Looks for the next segments by name, without reading the directory.
    fn probe(&mut self) -> Result<()> {
        let Some((&last, _)) = self.known.last_key_value() else {
            return self.list();
        };
        let next = Segment::new(last.generation, last.sequence.saturating_add(1));
        if self.options.only.is_none() && self.is_there(next)? {
            self.list()?;
        }
        Ok(())
    }

    fn is_there(&self, segment: Segment) -> Result<bool> {
        let name = self.scheme.name(segment);
        Ok(self.dir.identity(&name)?.is_some() && log::is_begun(&self.dir, &self.scheme, segment, &name)?)
    }

    /// A scanner at the beginning of a segment, which knows what the segment before left unfinished.
    fn scanner(&self, segment: Segment, until: Option<Time>) -> Result<Scanner> {
        let mut scanner = self.scheme.scanner(segment, until);
        // Of one that is shipped alone, the file before may be gone or used again at any time: it is not asked for.
        let is_wanted = self.scheme.spans() && self.options.only.is_none();
        let Some(before) = self.before(segment)?.filter(|_| is_wanted) else {
            return Ok(scanner);
        };
        match &self.open {
            Some(open) if open.segment == before && open.closed.is_some() => scanner.follow(&open.scanner),
            _ => {
                if let Some((file, _)) = log::open(&self.dir, &self.scheme, before)? {
                    let mut earlier = self.scheme.scanner(before, None);
                    prefix_with(&file, self.scheme.running(), u64::MAX, |bytes| earlier.take(bytes))?;
                    scanner.follow(&earlier);
                }
            }
        }
        Ok(scanner)
    }

    /// The segment before another.
    fn before(&self, segment: Segment) -> Result<Option<Segment>> {
        let known = self.known.range(..segment).next_back().map(|(known, _)| *known);
        if let Some(known) = known.filter(|before| self.scheme.step(*before, segment) != Step::Gap) {
            return Ok(Some(known));
        }
        let same = segment.sequence.checked_sub(1).map(|before| Segment::new(segment.generation, before));
        let is_there = same.map(|same| self.is_there(same)).transpose()?.unwrap_or_default();
        if !is_there && let Some(past) = log::lineage(&self.dir, &self.scheme, segment.generation)? {
            let parent = past.last().filter(|before| self.scheme.step(**before, segment) != Step::Gap);
            return Ok(parent.copied().or(same));
        }
        Ok(same)
    }

    fn open_ahead(&mut self) -> Result<()> {
        let from = self.open.as_ref().map(|open| open.segment);
        let Source { known, dir, scheme, .. } = self;
        let later = known.iter_mut().filter(|(segment, _)| from.is_none_or(|from| **segment > from));
        for (segment, file) in later.take(AHEAD) {
            if file.is_none() {
                *file = log::open(dir, scheme, *segment)?.map(|(file, _)| file);
            }
        }
        Ok(())
    }

    /// The end of the log: of what is complete and checked in the newest segment.
    pub(super) fn end(&mut self) -> Result<Option<Position>> {
        self.list()?;
        let Some(newest) = self.newest else {
            return Ok(None);
        };
        let end = match &self.open {
            // One that is shipped alone is finished; of a later one it is enough to know that it is there.
            _ if self.options.only.is_some() => match log::open(&self.dir, &self.scheme, newest)? {
                Some((file, _)) => file.metadata()?.len(),
                None => 0,
            },
            Some(open) if open.segment == newest => safe_extent(&open.file, open.scanner.clone())?.max(open.sent),
            _ => match log::open(&self.dir, &self.scheme, newest)? {
                Some((file, _)) => safe_extent(&file, self.scanner(newest, None)?)?,
                None => 0,
            },
        };
        let end = self.cap.filter(|cap| cap.segment == newest).unwrap_or(newest.at(end));
        self.end = self.end.max(Some(end));
        Ok(self.end)
    }

    /// The next piece.
    pub(super) fn next(&mut self, ledger: &Ledger) -> Result<Piece<'_>> {
        loop {
            let Some(open) = &self.open else {
                return Ok(Piece::Idle);
            };
            if self.is_reached(open) {
                return Ok(Piece::Done);
            }
            let limit = self.limit(open);
            let mark = open.scanner.boundary().filter(|mark| mark.offset > open.marked);
            if let Some(mark) = mark.filter(|mark| mark.offset == open.sent) {
                return Ok(self.mark(mark));
            }
            if open.sent < limit {
                // A piece ends at a boundary, so that the digest there can be told.
                let stop =
                    mark.map_or(limit, |mark| if mark.offset > open.sent { mark.offset.min(limit) } else { limit });
                return self.bytes(stop, limit);
            }
            if open.closed.is_some() {
                return self.end_segment(ledger);
            }
            if open.scanner.is_past_limit() {
                return Ok(Piece::Done);
            }
            if !self.look()? && !self.finish_segment()? {
                return Ok(Piece::Idle);
            }
        }
    }

    /// Whether a boundary that was seen is still to be handed out; no more needs to be read for that.
    pub(super) fn owes_mark(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let due = open.marked + 1..=self.limit(open);
            open.scanner.boundary().is_some_and(|mark| due.contains(&mark.offset) && mark.offset >= open.sent)
        })
    }

    /// Whether `--until POSITION` was reached.
    fn is_reached(&self, open: &Open) -> bool {
        matches!(self.options.until, Some(Until::Position(until)) if open.segment.at(open.sent) >= until)
    }

    /// Up to which offset of the open segment bytes may be handed out now.
    fn limit(&self, open: &Open) -> u64 {
        let mut limit = match open.closed {
            Some(length) => length,
            None if self.options.commit_only || matches!(self.options.until, Some(Until::Time(_))) => {
                open.scanner.boundary().map_or(0, |mark| mark.offset)
            }
            None => open.scanner.safe(),
        };
        if let Some(Until::Position(until)) = self.options.until
            && until.segment == open.segment
        {
            limit = limit.min(until.offset);
        }
        match self.cap.filter(|cap| cap.segment == open.segment) {
            Some(cap) => limit.min(cap.offset),
            None => limit,
        }
    }

    fn mark(&mut self, mark: Mark) -> Piece<'_> {
        let Some(open) = &mut self.open else {
            return Piece::Idle;
        };
        open.marked = mark.offset;
        Piece::Mark { offset: mark.offset, time: mark.time, digest: open.running.digest() }
    }

    /// Bytes from `sent` to `stop` or less; all up to `limit` may be synced at once.
    fn bytes(&mut self, stop: u64, limit: u64) -> Result<Piece<'_>> {
        let Source { open: Some(open), buffer, options, dir, scheme, known, .. } = self else {
            return Ok(Piece::Idle);
        };
        let shown_name = dir.shown(&open.name);
        let shown = || format!("cannot read {shown_name}");
        let offset = open.sent;
        let hole = if open.sparse { next_data(&open.file, offset, stop) } else { None };
        let stop = hole.unwrap_or(stop);
        let want = (stop - offset).min(options.piece as u64) as usize;
        let from = buffer.hold(&open.file, offset, want).with_context(shown)?;
        let bytes = buffer.bytes.get(from..from + want).unwrap_or_default();
        if bytes.len() < want {
            return fail(Code::Corrupt, format!("{} shrank below {stop} while it was read", dir.shown(&open.name)));
        }
        if scheme.recycles() && !scheme.is_begun(open.segment, &log::head(&open.file)?) {
            return Err(recycled(&shown_name));
        }
        // A PostgreSQL server syncs a segment before it begins the next one.
        let is_written = options.only.is_some()
            || scheme.recycles() && known.last_key_value().is_some_and(|(last, _)| *last > open.segment);
        if options.sync && open.synced < offset + want as u64 {
            // What was checked so far was read before this sync, so all of it is on disk after it.
            open.file.sync_data().with_context(|| format!("cannot sync {}", dir.shown(&open.name)))?;
            // Of a file that nobody writes any more, one sync is enough.
            open.synced = if is_written { u64::MAX } else { limit };
        }
        open.running.update(bytes);
        open.sent += want as u64;
        if offset == 0 {
            open.head = bytes[..want.min(FIRST)].to_vec();
            if let Some(mask) = scheme.mask() {
                mask.clear(0, &mut open.head);
            }
        }
        // File systems have been wrong about holes; the bytes that were read are not.
        if hole.is_some() && octets::is_zero(bytes) {
            return Ok(Piece::Hole { offset, length: want as u64 });
        }
        Ok(Piece::Data { offset, bytes })
    }

    /// Reads more of the open segment; false when there is nothing new that counts.
    fn look(&mut self) -> Result<bool> {
        let Source { open: Some(open), buffer, dir, .. } = self else {
            return Ok(false);
        };
        let meta = open.file.metadata()?;
        if meta.len() < open.sent {
            let (name, size, sent) = (dir.shown(&open.name), meta.len(), open.sent);
            return fail(Code::Corrupt, format!("{name} shrank to {size} bytes, {sent} were shipped"));
        }
        open.sparse = meta.blocks() * 512 < meta.len();
        let before = (open.scanner.safe(), open.scanner.boundary());
        // What has grown is news, all of it, and is synced at once.
        let want = if meta.len() > open.looked { LOOK_MOST } else { LOOK_LEAST };
        open.scanner.rewind();
        loop {
            let bytes = buffer
                .read(&open.file, open.scanner.at(), want)
                .with_context(|| format!("cannot read {}", dir.shown(&open.name)))?;
            if bytes.is_empty() {
                break;
            }
            // Asked after the read: none of these bytes was written later than that.
            open.scanner.written(clock::written(&open.file.metadata()?));
            open.scanner.take(bytes);
            // As soon as there is something to hand out; but a record longer than the buffer needs more than one read.
            if open.scanner.safe() > before.0 || !open.scanner.is_hungry() {
                break;
            }
        }
        let more = open.scanner.safe() > before.0;
        let goes_on = more && open.scanner.is_hungry() && buffer.length == want;
        open.looked = if goes_on { 0 } else { meta.len() };
        Ok(more || (self.limit_depends_on_boundary() && self.boundary() != before.1))
    }

    fn limit_depends_on_boundary(&self) -> bool {
        self.options.commit_only || self.options.until.is_some()
    }

    fn boundary(&self) -> Option<Mark> {
        self.open.as_ref().and_then(|open| open.scanner.boundary())
    }

    fn end_segment(&mut self, ledger: &Ledger) -> Result<Piece<'_>> {
        let Some(open) = &mut self.open else {
            return Ok(Piece::Idle);
        };
        let ended = Previous { segment: open.segment, length: open.sent, digest: open.running.digest() };
        if self.previous == Some(ended) {
            // Its end was told; go on with the next.
            if self.options.only.is_some() {
                return Ok(Piece::Done);
            }
            let Some((next, _)) = self.next_segment(ended.segment) else {
                return Ok(Piece::Idle);
            };
            if matches!(self.options.until, Some(Until::Position(until)) if next.at(0) >= until) {
                return Ok(Piece::Done);
            }
            self.known = self.known.split_off(&next);
            return self.enter(next, 0, ledger, &mut |_| Ok(())).map(Piece::Begin);
        }
        if let Some(mask) = self.scheme.mask().filter(|mask| mask.offset < open.sent)
            && !std::mem::replace(&mut open.patched, true)
        {
            let mut byte = [0];
            open.file.read_exact_at(&mut byte, mask.offset)?;
            return Ok(Piece::Patch { offset: mask.offset, byte: byte[0] });
        }
        self.previous = Some(ended);
        Ok(Piece::End(ended))
    }
}

fn recycled(name: &str) -> anyhow::Error {
    gap(format!("gap: {name} was used again by the server before it was shipped"))
}

fn gap(text: String) -> anyhow::Error {
    Failure::new(Code::Gap, text)
        .hint("resync the replica with repl-sync, or restore from an archive that has it")
        .into()
}
