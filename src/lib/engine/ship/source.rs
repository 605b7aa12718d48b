//! Reads a log directory in order and hands out pieces that may be shipped: complete, checked records that are on the
//! master's own disk. It only reads; it never writes, renames or locks anything there.
//!
//! A file's size says nothing here. In the segment that is being written, bytes count as far as the scanner has checked
//! them; a segment is finished when the beginning of the next one says so, and only after one more look at it, since its
//! last bytes may have been written between the two. Segments that lie ahead are opened as soon as they are seen, so
//! that an engine which removes its logs cannot take away what we have not read yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use anyhow::{Context as _, Result};
use rustix::fs::SeekFrom;

use super::ledger::Ledger;
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::engine::apply::land::prefix;
use crate::engine::site;
use crate::rule::scheme::{Closure, HEAD, Mark, Scanner, Scheme, Step};
use crate::rule::stream::message::{Begin, HOLE_MAX, Previous};
use crate::value::digest::{Digest, Running};
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Bookmark, Position, Segment, Start};
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

/// Where a stream can begin.
#[derive(Debug)]
pub(super) enum Located {
    /// Here; the receiver's proof was right.
    Here(Begin),
    /// Here our log is not what the receiver says it holds: why.
    Differs(Begin, String),
}

/// Files that are opened ahead of the one being read.
const AHEAD: usize = 64;
/// First and largest read of a look. A segment that is being written has little news, often.
const LOOK_LEAST: usize = 1 << 14;
const LOOK_MOST: usize = 1 << 18;

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

/// The segment being read.
struct Open {
    segment: Segment,
    name: String,
    file: File,
    identity: (u64, u64),
    head: Vec<u8>,
    scanner: Scanner,
    /// Next byte to hand out, and the digest of those before it.
    sent: u64,
    running: Running,
    marked: u64,
    /// Bytes that are known to be on disk.
    synced: u64,
    sparse: bool,
    /// The final length, once it is finished.
    closed: Option<u64>,
}

/// Bytes of the open segment that were read last.
struct Buffer {
    bytes: Vec<u8>,
    at: u64,
    length: usize,
    look: usize,
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
            Some(open) if open.segment == newest => open.scanner.safe().max(open.sent),
            _ => match self.dir.open_read(&self.scheme.name(newest))? {
                Some(file) => safe_extent(&file, self.scheme.scanner(None))?,
                None => 0,
            },
        };
        let end = self.cap.filter(|cap| cap.segment == newest).unwrap_or(newest.at(end));
        self.end = self.end.max(Some(end));
        Ok(self.end)
    }

    /// How far the log is complete and checked as of now, whether or not it was read yet.
    pub(super) fn extent(&mut self) -> Result<Option<Position>> {
        let end = self.end()?;
        let Some(newest) = end.map(|end| end.segment).filter(|_| self.cap.is_none()) else {
            return Ok(end);
        };
        let Some(file) = self.dir.open_read(&self.scheme.name(newest))? else {
            return Ok(end);
        };
        Ok(end.max(Some(newest.at(safe_extent(&file, self.scheme.scanner(None))?))))
    }

    /// Opens the log where a receiver stands. `None` while there is no log at all.
    pub(super) fn locate(&mut self, start: Start, ledger: &Ledger) -> Result<Option<Located>> {
        let Some(end) = self.end()? else {
            return Ok(None);
        };
        let (Some((&oldest, _)), Some((&newest, _))) = (self.known.first_key_value(), self.known.last_key_value())
        else {
            return Ok(None);
        };
        let mark = match start {
            Start::Oldest => return self.begin_at(oldest, ledger).map(|begin| Some(Located::Here(begin))),
            Start::Latest => return self.begin_at(newest, ledger).map(|begin| Some(Located::Here(begin))),
            Start::At(mark) => mark,
        };
        let at = mark.position;
        if self.known.contains_key(&at.segment) {
            return self.locate_in(mark, ledger).map(Some);
        }
        if at > end {
            let begin = self.enter(newest, end.offset, ledger)?;
            return Ok(Some(Located::Differs(begin, format!("ahead: {at} lies beyond the end of this log, {end}"))));
        }
        if at.segment < oldest && self.scheme.step(at.segment, oldest) != Step::Gap && ledger.proves(mark) {
            return self.begin_at(oldest, ledger).map(|begin| Some(Located::Here(begin)));
        }
        Err(gap(format!("gap: segment {} is needed and no longer here; the oldest is {oldest}", at.segment)))
    }

    fn locate_in(&mut self, mark: Bookmark, ledger: &Ledger) -> Result<Located> {
        let at = mark.position;
        let begin = self.enter(at.segment, at.offset, ledger)?;
        if begin.position < at {
            let why = format!("ahead: {at} lies beyond the end of this log, {}", begin.position);
            return Ok(Located::Differs(begin, why));
        }
        match mark.proof {
            Some(proof) if proof != begin.digest.proof() => {
                let ours = begin.digest.proof();
                let why = format!("diverged: up to {at} the receiver's proof is {proof}, this log's is {ours}");
                Ok(Located::Differs(begin, why))
            }
            _ => Ok(Located::Here(begin)),
        }
    }

    fn begin_at(&mut self, segment: Segment, ledger: &Ledger) -> Result<Begin> {
        self.enter(segment, 0, ledger)
    }

    /// Takes up a segment at an offset, or at its end when that comes before.
    fn enter(&mut self, segment: Segment, offset: u64, ledger: &Ledger) -> Result<Begin> {
        let name = self.scheme.name(segment);
        let file = match self.known.get_mut(&segment).and_then(Option::take) {
            Some(file) => Some(file),
            None => self.dir.open_read(&name)?,
        };
        let Some(file) = file else {
            return Err(gap(format!("gap: {} vanished before it was shipped", self.dir.shown(&name))));
        };
        let meta = file.metadata()?;
        let until = match self.options.until {
            Some(Until::Time(time)) => Some(time),
            _ => None,
        };
        let mut open = Open {
            segment,
            name,
            identity: (meta.dev(), meta.ino()),
            head: Vec::new(),
            scanner: self.scheme.scanner(until),
            sent: 0,
            running: Running::new(),
            marked: 0,
            synced: 0,
            sparse: meta.blocks() * 512 < meta.len(),
            closed: None,
            file,
        };
        open.skip_to(offset, &mut self.buffer)
            .with_context(|| format!("cannot read {}", self.dir.shown(&open.name)))?;
        self.open = Some(open);
        self.open_ahead()?;
        // Bytes beyond the safe extent count only in a segment that is finished.
        let safe = self.open.as_ref().map_or(0, |open| open.scanner.safe());
        if offset > safe {
            self.finish_segment()?;
        }
        let Some(open) = &mut self.open else {
            return fail(Code::Failed, "no segment is open");
        };
        let limit = open.closed.unwrap_or(open.scanner.safe());
        let limit = self.cap.filter(|cap| cap.segment == segment).map_or(limit, |cap| cap.offset.min(limit));
        if open.sent > limit {
            open.sent = limit;
            open.running = prefix(&open.file, limit)?;
        }
        let position = segment.at(open.sent);
        let digest = open.running.digest();
        let previous = if position.offset == 0 { self.predecessor(segment, ledger)? } else { None };
        let end = self.end.unwrap_or(position).max(position);
        Ok(Begin { position, end, digest, previous })
    }

    /// What is known of the closed segment before one: shipped in this stream, shipped earlier, or still there.
    fn predecessor(&self, segment: Segment, ledger: &Ledger) -> Result<Option<Previous>> {
        let fits = |previous: &Previous| self.scheme.step(previous.segment, segment) != Step::Gap;
        if let Some(previous) = self.previous.filter(fits).or_else(|| ledger.last_before(segment).filter(fits)) {
            return Ok(Some(previous));
        }
        let before = Segment::new(segment.generation, segment.sequence.saturating_sub(1));
        let file = self.dir.open_read(&self.scheme.name(before))?;
        let Some(file) = file.filter(|_| before != segment) else {
            return Ok(None);
        };
        let running = prefix(&file, file.metadata()?.len())?;
        Ok(Some(Previous { segment: before, length: running.length(), digest: running.digest() }))
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
        if open.sparse
            && let Some(data) = next_data(&open.file, offset, stop).with_context(shown)?
        {
            let length = (data - offset).min(HOLE_MAX);
            open.running.zeros(length);
            open.sent += length;
            return Ok(Piece::Hole { offset, length });
        }
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
        open.scanner.written(clock::written(&meta));
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
            return self.close(Closure::Closed);
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

    fn next_segment(&self, segment: Segment) -> Option<(Segment, Step)> {
        let (next, _) = self.known.range(segment..).find(|(other, _)| **other > segment)?;
        Some((*next, self.scheme.step(segment, *next)))
    }

    fn head_of(&mut self, segment: Segment) -> Result<Option<Vec<u8>>> {
        self.open_ahead()?;
        let Some(Some(file)) = self.known.get(&segment) else {
            return Ok(None);
        };
        let mut head = vec![0; HEAD];
        let count = read_at(file, &mut head, 0)?;
        head.truncate(count);
        Ok(Some(head))
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
        let mut head = [0; 64];
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
            return self.enter(next, 0, ledger).map(Piece::Begin);
        }
        self.previous = Some(ended);
        Ok(Piece::End(ended))
    }
}

impl Open {
    /// Reads, checks and hashes what lies before an offset, or before the end of the file when that comes first.
    fn skip_to(&mut self, offset: u64, buffer: &mut Buffer) -> io::Result<()> {
        self.scanner.written(clock::written(&self.file.metadata()?));
        while self.sent < offset {
            let want = (offset - self.sent).min(LOOK_MOST as u64) as usize;
            let bytes = buffer.read(&self.file, self.sent, want)?;
            if bytes.is_empty() {
                break;
            }
            self.scanner.take(bytes);
            self.running.update(bytes);
            self.sent += bytes.len() as u64;
        }
        self.marked = self.scanner.boundary().map_or(0, |mark| mark.offset);
        Ok(())
    }
}

impl Buffer {
    /// Reads up to `want` bytes at an offset.
    fn read(&mut self, file: &File, offset: u64, want: usize) -> io::Result<&[u8]> {
        if self.bytes.len() < want {
            self.bytes.resize(want, 0);
        }
        self.length = 0;
        self.length = read_at(file, &mut self.bytes[..want], offset)?;
        self.at = offset;
        Ok(&self.bytes[..self.length])
    }

    /// Makes sure that `want` bytes at an offset are in the buffer, as they were when they were checked if they still
    /// are; returns where they begin. Fewer are there when the file is shorter.
    fn hold(&mut self, file: &File, offset: u64, want: usize) -> io::Result<usize> {
        if offset >= self.at && offset + want as u64 <= self.at + self.length as u64 {
            return Ok((offset - self.at) as usize);
        }
        if self.read(file, offset, want)?.len() < want {
            self.bytes.truncate(self.length);
        }
        Ok(0)
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match file.read_at(&mut buffer[count..], offset + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// How far a whole file is complete, checked records.
fn safe_extent(file: &File, mut scanner: Scanner) -> io::Result<u64> {
    if let Scanner::Raw(_) = scanner {
        return Ok(file.metadata()?.len());
    }
    let mut buffer = vec![0; LOOK_MOST];
    while scanner.is_hungry() {
        match read_at(file, &mut buffer, scanner.at())? {
            0 => break,
            count => scanner.take(&buffer[..count]),
        }
    }
    Ok(scanner.safe())
}

/// The end of a hole that begins at an offset and is worth a frame of its own; `None` when data is there.
fn next_data(file: &File, offset: u64, stop: u64) -> io::Result<Option<u64>> {
    const WORTH: u64 = 4096;
    let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data.min(stop),
        Err(rustix::io::Errno::NXIO) => stop,
        // The file system cannot tell.
        Err(_) => return Ok(None),
    };
    Ok((data >= offset + WORTH).then_some(data))
}

fn gap(text: String) -> anyhow::Error {
    Failure::new(Code::Gap, text)
        .hint("resync the replica with repl-sync, or restore from an archive that has it")
        .into()
}
