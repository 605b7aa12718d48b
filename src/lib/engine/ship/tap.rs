//! One reader for all receivers that are up to date: log is read, checked, hashed and synced once, however many there are.
//!
//! Each lane reads by itself until it has caught up. Then it takes what the *trunk*, the shared reader, hands out: the
//! lane that is at the head reads the next piece for all, and a window of pieces is kept for those that are a little
//! behind. A lane that falls behind the window reads by itself again, so that a slow receiver costs the others nothing,
//! neither time nor memory; and a receiver that is dead is not asked for.
//!
//! A lane joins only where nothing is owed: inside a segment that is not finished, at bytes that it has not had. Then the
//! trunk's digests, which are of the segment from its beginning, are its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;

use super::ledger::Ledger;
use super::source::{Piece, Source};
use crate::rule::stream::message::{Begin, Previous};
use crate::value::digest::Digest;
use crate::value::exit::{Code, Failure, code_of, hint_of};
use crate::value::position::Position;
use crate::value::time::Time;

/// Bytes of pieces that are kept for lanes that are a little behind.
pub(super) const WINDOW: usize = 16 << 20;
/// What a piece without bytes takes.
const LEAST: usize = 128;

/// The trunk and its window.
pub(super) struct Tap {
    window: usize,
    trunk: Mutex<Option<Trunk>>,
    ring: Mutex<Ring>,
    /// Lanes there are, whether or not they have joined.
    lanes: AtomicUsize,
}

/// The shared reader.
struct Trunk {
    source: Box<Source>,
    listed: Instant,
    told: BTreeSet<String>,
    /// What ended it: it is not asked again.
    failed: Option<Failure>,
}

/// The window: pieces in the order of the log, numbered from `first`.
#[derive(Debug, Default)]
struct Ring {
    pieces: VecDeque<Arc<Shared>>,
    first: u64,
    bytes: usize,
    /// Lanes that take from it.
    joined: usize,
    /// Where the trunk stands: the end of the last piece.
    place: Option<Position>,
}

/// A piece that all lanes may hand out.
#[derive(Debug)]
struct Shared {
    /// Of which segment, and from which offset on.
    from: Position,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Begin(Begin),
    Data(Vec<u8>),
    Hole(u64),
    Mark { time: Option<Time>, digest: Digest },
    Patch { offset: u64, byte: u8 },
    End(Previous),
}

impl Shared {
    /// A copy of what the trunk handed out when it stood at `place`.
    fn of(piece: Piece<'_>, place: Position) -> Option<Shared> {
        let (from, content) = match piece {
            Piece::Begin(begin) => (begin.position, Content::Begin(begin)),
            Piece::Data { bytes, .. } => (place, Content::Data(bytes.to_vec())),
            Piece::Hole { length, .. } => (place, Content::Hole(length)),
            Piece::Mark { time, digest, .. } => (place, Content::Mark { time, digest }),
            Piece::Patch { offset, byte } => (place, Content::Patch { offset, byte }),
            Piece::End(ended) => (place, Content::End(ended)),
            Piece::Idle | Piece::Done => return None,
        };
        Some(Shared { from, content })
    }

    /// How many bytes of log it is.
    fn length(&self) -> u64 {
        match &self.content {
            Content::Data(bytes) => bytes.len() as u64,
            Content::Hole(length) => *length,
            _ => 0,
        }
    }

    fn weight(&self) -> usize {
        match &self.content {
            Content::Data(bytes) => bytes.len() + LEAST,
            _ => LEAST,
        }
    }

    /// Where it ends.
    fn end(&self) -> Position {
        self.from.segment.at(self.from.offset + self.length())
    }

    /// As a lane hands it out that has had its first `skip` bytes.
    fn piece(&self, skip: u64) -> Piece<'_> {
        let offset = self.from.offset;
        match &self.content {
            Content::Begin(begin) => Piece::Begin(begin.clone()),
            Content::Data(bytes) => {
                Piece::Data { offset: offset + skip, bytes: bytes.get(skip as usize..).unwrap_or_default() }
            }
            Content::Hole(length) => Piece::Hole { offset: offset + skip, length: length - skip },
            Content::Mark { time, digest } => Piece::Mark { offset, time: *time, digest: *digest },
            Content::Patch { offset, byte } => Piece::Patch { offset: *offset, byte: *byte },
            Content::End(ended) => Piece::End(*ended),
        }
    }
}

impl Ring {
    fn head(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }

    fn get(&self, number: u64) -> Option<Arc<Shared>> {
        number.checked_sub(self.first).and_then(|index| self.pieces.get(index as usize)).cloned()
    }

    fn push(&mut self, piece: Shared, window: usize) {
        self.place = Some(piece.end());
        self.bytes += piece.weight();
        self.pieces.push_back(Arc::new(piece));
        while self.bytes > window && self.pieces.len() > 1 {
            self.bytes -= self.pieces.pop_front().map_or(0, |oldest| oldest.weight());
            self.first += 1;
        }
    }

    /// The number of the piece with which a lane goes on that stands at a [`Source::crossing`], and the bytes of it that
    /// it has had.
    fn join(&self, at: Position) -> Option<(u64, u64)> {
        let begins = self.pieces.partition_point(|piece| piece.from <= at);
        // The last piece that begins at or before this place: the place is in it, or it is the trunk's own.
        let before = begins.checked_sub(1).and_then(|index| Some((index, self.pieces.get(index)?)));
        match before {
            Some((index, piece)) if at < piece.end() && piece.length() > 0 => {
                Some((self.first + index as u64, at.offset - piece.from.offset))
            }
            Some((_, piece)) if matches!(piece.content, Content::End(_) | Content::Patch { .. }) => None,
            _ if begins == self.pieces.len() && self.place == Some(at) => Some((self.head(), 0)),
            // What comes next begins right here.
            Some((index, piece)) if piece.end() == at => Some((self.first + index as u64 + 1, 0)),
            _ => None,
        }
    }
}

impl Tap {
    /// Nobody reads yet; a window of so many bytes is kept.
    pub(super) fn new(window: usize) -> Tap {
        Tap { window, trunk: Mutex::new(None), ring: Mutex::new(Ring::default()), lanes: AtomicUsize::new(0) }
    }

    /// A lane that may join, until it is dropped.
    pub(super) fn lane(&self) -> Lane<'_> {
        self.lanes.fetch_add(1, Ordering::Relaxed);
        Lane(self)
    }
}

/// The place of a lane that may join.
pub(super) struct Lane<'a>(&'a Tap);

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.0.lanes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A lane that has joined.
pub(super) struct Cursor<'a> {
    tap: &'a Tap,
    next: u64,
    skip: u64,
    /// The end of what was handed out, and of its last byte.
    at: Position,
    last_byte: Option<Position>,
    ended: Option<Previous>,
    /// With the bytes of it that were handed out before.
    piece: Option<(Arc<Shared>, u64)>,
}

/// What comes next for a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A piece: see [`Cursor::piece`].
    Piece,
    /// Nothing new is there now.
    Idle,
    /// The limit was reached: nothing will come any more.
    Done,
    /// The window has gone on without it.
    Behind,
}

impl<'a> Lane<'a> {
    /// Whether there are others to read with.
    pub(super) fn is_shared(&self) -> bool {
        self.0.lanes.load(Ordering::Relaxed) > 1
    }

    /// Takes up the trunk where a reader stands: joins it, or becomes it where nobody uses it. Gives the reader back
    /// where neither is possible, or nobody else would gain by it.
    pub(super) fn join(&self, source: Box<Source>, is_idle: bool) -> Result<Cursor<'a>, Box<Source>> {
        let tap = self.0;
        let Some(at) = source.crossing() else {
            return Err(source);
        };
        let mut ring = tap.ring.lock();
        let (next, skip) = match ring.join(at) {
            Some(found) if ring.joined > 0 => found,
            None if ring.joined > 0 => return Err(source),
            _ if is_idle => {
                let last_byte = source.last_byte();
                drop(ring);
                return tap.lead(source, at, last_byte);
            }
            _ => return Err(source),
        };
        ring.joined += 1;
        Ok(Cursor { tap, next, skip, at, last_byte: source.last_byte(), ended: None, piece: None })
    }
}

impl Tap {
    /// Makes a reader the trunk, unless somebody was faster.
    fn lead(&self, source: Box<Source>, at: Position, last_byte: Option<Position>) -> Result<Cursor<'_>, Box<Source>> {
        let mut trunk = self.trunk.lock();
        let mut ring = self.ring.lock();
        if ring.joined > 0 {
            return Err(source);
        }
        *trunk = Some(Trunk { source, listed: Instant::now(), told: BTreeSet::new(), failed: None });
        *ring = Ring { pieces: VecDeque::new(), first: ring.head(), bytes: 0, joined: 1, place: Some(at) };
        Ok(Cursor { tap: self, next: ring.head(), skip: 0, at, last_byte, ended: None, piece: None })
    }

    /// Reads the next piece for all, unless somebody has done so meanwhile.
    fn read(&self, head: u64, ledger: &Ledger) -> Result<Next> {
        let mut trunk = self.trunk.lock();
        let Some(trunk) = trunk.as_mut().filter(|_| self.ring.lock().head() == head) else {
            return Ok(Next::Piece);
        };
        if let Some(failure) = &trunk.failed {
            return Err(failure.clone().into());
        }
        let place = trunk.source.position();
        let piece = match trunk.source.next(ledger) {
            Ok(Piece::Idle) => return Ok(Next::Idle),
            Ok(Piece::Done) => return Ok(Next::Done),
            Ok(piece) => place.and_then(|place| Shared::of(piece, place)),
            Err(error) => {
                let hint = hint_of(&error).unwrap_or_default().to_owned();
                trunk.failed = Some(Failure::told(code_of(&error), format!("{error:#}"), hint));
                return Err(error);
            }
        };
        if let Some(piece) = piece {
            self.ring.lock().push(piece, self.window);
        }
        Ok(Next::Piece)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Trunk) -> Result<T>) -> Result<T> {
        match &mut *self.trunk.lock() {
            Some(trunk) => look(trunk),
            None => Err(Failure::new(Code::Failed, "no log is open").into()),
        }
    }
}

impl Cursor<'_> {
    /// Goes on to the next piece: of the window, or read for all.
    pub(super) fn advance(&mut self, ledger: &Ledger) -> Result<Next> {
        self.piece = None;
        loop {
            let (head, found) = {
                let ring = self.tap.ring.lock();
                if self.next < ring.first {
                    return Ok(Next::Behind);
                }
                (ring.head(), ring.get(self.next))
            };
            if let Some(found) = found {
                self.account(&found);
                self.next += 1;
                self.piece = Some((found, std::mem::take(&mut self.skip)));
                return Ok(Next::Piece);
            }
            match self.tap.read(head, ledger)? {
                Next::Piece => {}
                rest => return Ok(rest),
            }
        }
    }

    /// The piece that it has come to.
    pub(super) fn piece(&self) -> Piece<'_> {
        self.piece.as_ref().map_or(Piece::Idle, |(piece, skip)| piece.piece(*skip))
    }

    fn account(&mut self, piece: &Shared) {
        match &piece.content {
            Content::End(ended) => self.ended = Some(*ended),
            Content::Begin(_) => self.ended = None,
            _ => {}
        }
        self.at = piece.end();
        if self.at.offset > 0 {
            self.last_byte = Some(self.at);
        }
    }

    /// The end of what was handed out.
    pub(super) fn position(&self) -> Position {
        self.at
    }

    /// The end of the last byte that was handed out.
    pub(super) fn last_byte(&self) -> Option<Position> {
        self.last_byte
    }

    /// From where another reader goes on: see [`Source::resume`].
    pub(super) fn place(&self) -> (Position, Option<Previous>) {
        (self.at, self.ended)
    }

    /// Whether a boundary at this very place is still to be handed out.
    pub(super) fn owes_mark(&self) -> bool {
        let (head, next) = {
            let ring = self.tap.ring.lock();
            (ring.head(), ring.get(self.next))
        };
        match next {
            Some(piece) => matches!(piece.content, Content::Mark { .. }),
            None => self.next == head && self.tap.with(|trunk| Ok(trunk.source.owes_mark())).unwrap_or_default(),
        }
    }

    /// See [`Source::end`].
    pub(super) fn end(&self) -> Result<Option<Position>> {
        self.tap.with(|trunk| trunk.source.end())
    }

    /// See [`Source::aux`].
    pub(super) fn aux(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        self.tap.with(|trunk| trunk.source.aux())
    }

    /// Reads the directory, unless some lane has done so since.
    pub(super) fn list(&self, age: Duration) -> Result<()> {
        self.tap.with(|trunk| {
            if trunk.listed.elapsed() < age {
                return Ok(());
            }
            trunk.listed = Instant::now();
            trunk.source.list()
        })
    }

    /// See [`Source::remark`]; each is told once, to one of the lanes.
    pub(super) fn remark(&self) -> Option<String> {
        // Not worth waiting for the one who reads.
        let mut trunk = self.tap.trunk.try_lock()?;
        let trunk = trunk.as_mut()?;
        trunk.source.remark().filter(|text| trunk.told.insert(text.clone()))
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        let mut ring = self.tap.ring.lock();
        ring.joined -= 1;
        if ring.joined == 0 {
            ring.first = ring.head();
            ring.pieces.clear();
            ring.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests;
