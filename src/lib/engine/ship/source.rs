//! Reads a log directory in order and hands out pieces that may be shipped: complete, checked records that are on the
//! master's own disk. It only reads; it never writes, renames or locks anything there.
//!
//! A file's size says nothing here. In the segment that is being written, bytes count as far as the scanner has checked
//! them; a segment is finished when the beginning of the next one says so, and only after one more look at it, since its
//! last bytes may have been written between the two. Segments that lie ahead are opened as soon as they are seen, so
//! that an engine which removes its logs cannot take away what we have not read yet.

pub(super) mod locate;
mod reading;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};

use self::reading::{Buffer, LOOK_LEAST, LOOK_MOST, Open, next_data, safe_extent};
use super::ledger::Ledger;
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::read::read_at;
use crate::engine::site;
use crate::rule::scheme::{Closure, HEAD, Mark, Scheme, Step};
use crate::rule::stream::message::{Begin, Previous};
use crate::value::digest::Digest;
use crate::value::exit::{Code, Failure, fail};
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
    open: Option<Open>,
    previous: Option<Previous>,
    end: Option<Position>,
    buffer: Buffer,
}

impl Source {
    /// A directory, of which only what it holds counts when it is a replica's.
    pub(super) fn new(dir: Dir, scheme: Scheme, options: Options) -> Result<Source> {
        let buffer = Buffer { bytes: Vec::new(), at: 0, length: 0, look: LOOK_LEAST };
        let mut source = Source {
            dir,
            scheme,
            options,
            replica: None,
            cap: None,
            known: BTreeMap::new(),
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
        if self.replica.is_none() {
            // A receiver may take this directory up while it is shipped on.
            self.replica = site::peek_receiver(&self.dir)?;
        }
        if let Some(state) = &self.replica {
            let nothing = Segment::new(0, 0).at(0);
            self.cap = Some(site::holding(state)?.map_or(nothing, |holding| holding.held.position));
        }
        let mut found = BTreeMap::new();
        for name in self.dir.names()? {
            let Some(segment) = name.to_str().and_then(|name| self.scheme.segment(name)) else {
                continue;
            };
            let is_wanted = self.options.only.is_none_or(|only| only == segment)
                && self.cap.is_none_or(|cap| segment <= cap.segment);
            if is_wanted {
                found.insert(segment, self.known.remove(&segment).flatten());
            }
        }
        // A segment that has gone but is open here can still be read.
        let kept = std::mem::take(&mut self.known).into_iter().filter(|(_, file)| file.is_some());
        found.extend(kept);
        self.known = found;
        self.open_ahead()
    }

    /// Looks for the next segments by name, without reading the directory.
    fn probe(&mut self) -> Result<()> {
        let Some((&last, _)) = self.known.last_key_value() else {
            return self.list();
        };
        let next = Segment::new(last.generation, last.sequence.saturating_add(1));
        if self.options.only.is_none() && self.dir.identity(&self.scheme.name(next))?.is_some() {
            self.list()?;
        }
        Ok(())
    }

    fn open_ahead(&mut self) -> Result<()> {
        let from = self.open.as_ref().map(|open| open.segment);
        let Source { known, dir, scheme, .. } = self;
        let later = known.iter_mut().filter(|(segment, _)| from.is_none_or(|from| **segment > from));
        for (segment, file) in later.take(AHEAD) {
            if file.is_none() {
                *file = dir.open_read(&scheme.name(*segment))?;
            }
        }
        Ok(())
    }

    /// The end of the log: of what is complete and checked in the newest segment.
    pub(super) fn end(&mut self) -> Result<Option<Position>> {
        self.list()?;
        let Some((&newest, _)) = self.known.last_key_value() else {
            return Ok(None);
        };
        let end = match &self.open {
            Some(open) if open.segment == newest => safe_extent(&open.file, open.scanner.clone())?.max(open.sent),
            _ => match self.dir.open_read(&self.scheme.name(newest))? {
                Some(file) => safe_extent(&file, self.scheme.scanner(None))?,
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
        let Source { open: Some(open), buffer, options, dir, .. } = self else {
            return Ok(Piece::Idle);
        };
        let shown = || format!("cannot read {}", dir.shown(&open.name));
        let offset = open.sent;
        let hole = if open.sparse { next_data(&open.file, offset, stop) } else { None };
        let stop = hole.unwrap_or(stop);
        let want = (stop - offset).min(options.piece as u64) as usize;
        let from = buffer.hold(&open.file, offset, want).with_context(shown)?;
        let bytes = buffer.bytes.get(from..from + want).unwrap_or_default();
        if bytes.len() < want {
            return fail(Code::Corrupt, format!("{} shrank below {stop} while it was read", dir.shown(&open.name)));
        }
        if options.sync && open.synced < offset + want as u64 {
            // What was checked so far was read before this sync, so all of it is on disk after it.
            open.file.sync_data().with_context(|| format!("cannot sync {}", dir.shown(&open.name)))?;
            open.synced = limit;
        }
        open.running.update(bytes);
        open.sent += want as u64;
        if offset == 0 {
            open.head = bytes[..want.min(FIRST)].to_vec();
        }
        // File systems have been wrong about holes; the bytes that were read are not.
        if hole.is_some() && bytes.iter().all(|byte| *byte == 0) {
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
        open.scanner.rewind();
        loop {
            let bytes = buffer
                .read(&open.file, open.scanner.at(), buffer.look)
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
        let goes_on = more && open.scanner.is_hungry() && buffer.length == buffer.look;
        buffer.look = if goes_on { (buffer.look * 2).min(LOOK_MOST) } else { LOOK_LEAST };
        Ok(more || (self.limit_depends_on_boundary() && self.boundary() != before.1))
    }

    fn limit_depends_on_boundary(&self) -> bool {
        self.options.commit_only || self.options.until.is_some()
    }

    fn boundary(&self) -> Option<Mark> {
        self.open.as_ref().and_then(|open| open.scanner.boundary())
    }

    /// Looks whether the open segment is finished; true when it is, or when one more look found more in it.
    fn finish_segment(&mut self) -> Result<bool> {
        let Some(segment) = self.open.as_ref().map(|open| open.segment) else {
            return Ok(false);
        };
        if self.options.only == Some(segment) {
            let closure = self.closure_of_one(segment)?;
            return self.close(closure);
        }
        self.probe()?;
        let Some((next, step)) = self.next_segment(segment) else {
            return self.still_there(segment);
        };
        if step != Step::Next && self.is_overlooked(segment)? {
            return Ok(true);
        }
        // The next one exists, so all of this one has been written: what a look finds now is all.
        if self.look()? {
            return Ok(true);
        }
        let closure = match (step, self.head_of(next)?) {
            // The chain across a hole proves nothing; what is whole here can be shipped before the hole is reported.
            (Step::Gap, _) => {
                return Err(gap(format!("gap: segment {next} comes after {segment}, what lies between is not here")));
            }
            (_, None) => return Err(gap(format!("gap: segment {next} vanished before it was shipped"))),
            (_, Some(head)) => match &self.open {
                Some(open) => open.scanner.closure(&head),
                None => Closure::Open,
            },
        };
        self.close(closure)
    }

    /// Reading a directory may pass over a file that is made meanwhile though it shows a later one: what a listing shows
    /// behind a hole counts only when the name in the hole is not there.
    fn is_overlooked(&mut self, segment: Segment) -> Result<bool> {
        let next = Segment::new(segment.generation, segment.sequence.saturating_add(1));
        if next == segment || self.dir.identity(&self.scheme.name(next))?.is_none() {
            return Ok(false);
        }
        self.list()?;
        Ok(true)
    }

    /// The one segment that is to be shipped is finished by its owner's word, but not when the one after it knows better.
    fn closure_of_one(&self, segment: Segment) -> Result<Closure> {
        let next = Segment::new(segment.generation, segment.sequence.saturating_add(1));
        let file = self.dir.open_read(&self.scheme.name(next))?;
        let (Some(file), Some(open)) = (file.filter(|_| next != segment), &self.open) else {
            return Ok(Closure::Closed);
        };
        Ok(match open.scanner.closure(&head(&file)?) {
            Closure::Open => Closure::Closed,
            judged => judged,
        })
    }

    fn next_segment(&self, segment: Segment) -> Option<(Segment, Step)> {
        let (next, _) = self.known.range(segment..).find(|(other, _)| **other > segment)?;
        Some((*next, self.scheme.step(segment, *next)))
    }

    fn head_of(&mut self, segment: Segment) -> Result<Option<Vec<u8>>> {
        self.open_ahead()?;
        let Some(Some(file)) = self.known.get(&segment) else {
            return Ok(None);
        };
        head(file).map(Some)
    }

    fn close(&mut self, closure: Closure) -> Result<bool> {
        let Source { open: Some(open), dir, .. } = self else {
            return Ok(false);
        };
        match closure {
            Closure::Open => Ok(false),
            Closure::Damaged(why) => {
                let (name, at) = (dir.shown(&open.name), open.scanner.safe());
                fail(Code::Corrupt, format!("{name} is damaged at {at} (segment {}): {why}", open.segment))
            }
            Closure::Closed => {
                open.closed = Some(open.file.metadata()?.len());
                Ok(true)
            }
        }
    }

    /// An idle segment must still be the file of its name, with the beginning it had. True when it was removed because
    /// the next one has come.
    fn still_there(&mut self, segment: Segment) -> Result<bool> {
        let Some(open) = &self.open else {
            return Ok(false);
        };
        if self.dir.identity(&open.name)?.is_none() {
            self.list()?;
            if self.next_segment(segment).is_some() {
                return Ok(true);
            }
        }
        let Some(open) = self.open.as_mut() else {
            return Ok(false);
        };
        let shown = self.dir.shown(&open.name);
        match self.dir.identity(&open.name)? {
            Some(identity) if identity == open.identity => {}
            Some(_) => {
                return fail(Code::Corrupt, format!("{shown} was replaced by another file while it was shipped"));
            }
            None => return Err(gap(format!("gap: {shown} was removed while it was shipped"))),
        }
        let mut head = [0; FIRST];
        let count = read_at(&open.file, &mut head, 0)?.min(open.sent as usize);
        let head = &head[..count];
        if !head.starts_with(&open.head) {
            return fail(
                Code::Corrupt,
                format!("{shown} was rewritten: its first bytes are not those that were shipped"),
            );
        }
        open.head = head.to_vec();
        Ok(false)
    }

    fn end_segment(&mut self, ledger: &Ledger) -> Result<Piece<'_>> {
        let Some(open) = &self.open else {
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
        self.previous = Some(ended);
        Ok(Piece::End(ended))
    }
}

/// The beginning of a file, up to [`HEAD`] bytes.
fn head(file: &File) -> Result<Vec<u8>> {
    let mut head = vec![0; HEAD];
    let count = read_at(file, &mut head, 0)?;
    head.truncate(count);
    Ok(head)
}

fn gap(text: String) -> anyhow::Error {
    Failure::new(Code::Gap, text)
        .hint("resync the replica with repl-sync, or restore from an archive that has it")
        .into()
}
