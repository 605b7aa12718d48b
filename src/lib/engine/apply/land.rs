//! Lands a stream's segments: proves its beginning, writes bytes that are new, compares bytes that are there.
//!
//! What is held is what `position` says. Behind it files may have bytes that a crash left or that a base copy brought:
//! they are compared as they arrive again. A byte that is there and differs is a divergence, unless it lies beyond what is
//! held and is zero, which is how a file system or an engine leaves space that was never written.

mod bytes;
mod diverge;

use std::fs::File;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

pub(super) use self::diverge::SET_ASIDE_HINT;
use super::commit::Commit;
use crate::edge::dir::Dir;
use crate::edge::read::prefix;
use crate::engine::log;
use crate::engine::note::Monitor;
use crate::engine::site::{self, Closed, Holding, Site};
use crate::rule::scheme::{Scheme, Step};
use crate::rule::stream::message::Begin;
use crate::rule::verdict::{Held, Verdict, judge};
use crate::value::digest::{Digest, Running};
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Position, Segment};
use crate::value::time::Time;

/// When landed bytes are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// After each frame, before the next is read.
    Each,
    /// As soon as possible, all that arrived meanwhile at once.
    Batch,
    /// When a segment is closed, and at the end.
    Segment,
}

/// What may happen to bytes of ours that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differing {
    /// The stream is refused.
    Refused,
    /// They are moved to `.repl/set-aside/`.
    SetAside,
}

/// The receiver's side of a stream.
pub(super) struct Landing<'a> {
    pub(super) dir: &'a Dir,
    pub(super) scheme: Scheme,
    pub(super) site: &'a Mutex<Site>,
    pub(super) commit: &'a Commit,
    pub(super) monitor: Monitor,
    pub(super) sync: Sync,
    pub(super) differing: Differing,
    pub(super) reason: Option<String>,
    /// Where the first stream began here; segments before it are not kept.
    pub(super) start: Option<Position>,
    pub(super) held: Option<Holding>,
    current: Option<Current>,
    ended: Option<Segment>,
    compared: u64,
    scratch: Vec<u8>,
}

/// The segment that the stream is in.
struct Current {
    segment: Segment,
    /// `None` where the segment is not kept here (any more): its bytes are only counted into the digest.
    file: Option<Arc<File>>,
    /// The next byte of the stream.
    offset: u64,
    /// The file's length, or less where nothing but zeros is behind it.
    length: u64,
    /// Whether its directory entry may not be durable yet.
    entry: bool,
    running: Running,
}

impl<'a> Landing<'a> {
    pub(super) fn new(
        dir: &'a Dir,
        scheme: Scheme,
        site: &'a Mutex<Site>,
        commit: &'a Commit,
        monitor: Monitor,
    ) -> Landing<'a> {
        let held = commit.durable().holding;
        Landing {
            dir,
            scheme,
            site,
            commit,
            monitor,
            sync: Sync::Batch,
            differing: Differing::Refused,
            reason: None,
            start: None,
            held,
            current: None,
            ended: None,
            compared: 0,
            scratch: Vec::new(),
        }
    }

    /// Bytes that were there already and equal.
    pub(super) fn compared(&self) -> u64 {
        self.compared
    }

    /// Where the stream is, for messages.
    pub(super) fn place(&self) -> Option<Position> {
        self.current.as_ref().map(|current| current.segment.at(current.offset))
    }

    /// Proves the beginning of the first segment of a stream. Nothing is changed unless the verdict is *resume*, or
    /// differing bytes may be set aside.
    pub(super) fn attach(&mut self, begin: &Begin) -> Result<()> {
        let at = begin.position;
        self.nameable(at.segment)?;
        self.still_there()?;
        let (own, running) = self.own_digest(at)?;
        let held = self.held.map(|holding| holding.held);
        match judge(&self.scheme, held.as_ref(), begin, own) {
            Verdict::Resume => {}
            Verdict::Gap(why) => {
                return Err(Failure::new(Code::Gap, format!("gap: {why}"))
                    .hint("resync this replica with repl-sync, or ship from an archive that still has the log")
                    .into());
            }
            Verdict::Diverged(why) => {
                // A later segment is refused for what is held of the one before it.
                let segment = held.map_or(at.segment, |held| held.position.segment.min(at.segment));
                self.diverged(segment.at(0), &why)?;
                return fail(Code::Link, format!("segment {segment} starts over: connect again"));
            }
            Verdict::Ahead => self.ahead(begin.end)?,
        }
        self.enter(at, running)
    }

    /// Goes on with the segment after the one that ended.
    pub(super) fn follow(&mut self, begin: &Begin) -> Result<()> {
        let at = begin.position;
        if let Some(current) = &self.current {
            return fail(Code::Corrupt, format!("segment {at} begins before {} has ended", current.segment));
        }
        let Some(ended) = self.ended else {
            return self.attach(begin);
        };
        if at.offset != 0 || self.scheme.step(ended, at.segment) == Step::Gap {
            return fail(Code::Gap, format!("gap: the stream goes on at {at} after segment {ended}"));
        }
        self.nameable(at.segment)?;
        let held = self.held.map(|holding| holding.held.position);
        if let Some(held) = held.filter(|held| ended < held.segment && held.segment < at.segment) {
            let first = Segment::new(ended.generation, ended.sequence.saturating_add(1));
            let why =
                format!("the master's log goes on at {at} after segment {ended}, here segment {first} does, to {held}");
            self.diverged(first.at(0), &why)?;
            let is_next =
                self.held.is_some_and(|holding| holding.held.closed && holding.held.position.segment == ended);
            if !is_next {
                // More was of another history than what lies between the two.
                return fail(Code::Link, format!("segment {ended} starts over: connect again"));
            }
        }
        self.enter(at, self.scheme.running())
    }

    /// A database that was promoted here is a master: what another ships is not for it.
    pub(super) fn check_role(&self, generation: u64) -> Result<()> {
        match log::promoted(self.dir, self.site.lock().dir(), &self.scheme, generation)? {
            None => Ok(()),
            Some(later) => Err(Failure::new(
                Code::Fenced,
                format!("the database here was promoted to timeline {later}; it takes no log of timeline {generation}"),
            )
            .hint("to make it a replica again, resync it from its master")
            .into()),
        }
    }

    /// Two segments must never share a file.
    fn nameable(&self, segment: Segment) -> Result<()> {
        if self.scheme.is_nameable(segment) {
            return Ok(());
        }
        fail(Code::Corrupt, format!("segment {segment} has no file name of its own in this scheme"))
    }

    /// What was acknowledged of the open segment must be there, wherever the stream begins: it may end before it comes
    /// to these bytes, and would be acknowledged all the same.
    fn still_there(&self) -> Result<()> {
        let Some(held) = self.held.map(|holding| holding.held).filter(|held| !held.closed) else {
            return Ok(());
        };
        let name = self.scheme.name(held.position.segment);
        let length = match self.dir.open_read(&name)? {
            Some(file) => file.metadata()?.len(),
            None => 0,
        };
        if length >= held.position.offset {
            return Ok(());
        }
        let (shown, at) = (self.dir.shown(&name), held.position);
        fail(Code::Corrupt, format!("{shown} no longer has its {} bytes up to {at}", at.offset))
    }

    /// The digest of our own bytes before a position, where we have them.
    fn own_digest(&self, at: Position) -> Result<(Option<Digest>, Running)> {
        let held = self.held.map(|holding| holding.held).filter(|held| held.position == at);
        let name = self.scheme.name(at.segment);
        let file = self.dir.open_read(&name)?;
        let running = match &file {
            Some(file) => prefix(file, self.scheme.running(), at.offset)
                .with_context(|| format!("cannot read {}", self.dir.shown(&name)))?,
            None => self.scheme.running(),
        };
        // No bytes are always there, with or without a file.
        let own = ((file.is_some() || at.offset == 0) && running.length() == at.offset).then(|| running.digest());
        let Some(held) = held else {
            return Ok((own, running));
        };
        // What was acknowledged must still be there; a closed segment may have been taken away by its owner.
        match own {
            Some(own) if own != held.digest => {
                let shown = self.dir.shown(&name);
                fail(
                    Code::Corrupt,
                    format!("{shown} was changed: up to {at} its digest is {own}, it was {}", held.digest),
                )
            }
            None if file.is_some() || !held.closed => fail(
                Code::Corrupt,
                format!("{} no longer has its {} bytes up to {at}", self.dir.shown(&name), at.offset),
            ),
            _ => Ok((Some(held.digest), running)),
        }
    }

    /// Takes up a segment at a proven place.
    fn enter(&mut self, at: Position, running: Running) -> Result<()> {
        let name = self.scheme.name(at.segment);
        let is_kept = self.start.is_none_or(|start| at.segment >= start.segment);
        let is_behind = self.held.is_some_and(|holding| holding.held.position.segment > at.segment);
        let is_gone = running.length() != at.offset;
        let mut entry = false;
        let size = self.scheme.segment_size();
        // What a live server has left under the name of a segment to come is nobody's.
        let is_ours = self.held.is_some_and(|holding| holding.held.position.segment >= at.segment);
        // (Nor is it opened for writing: a server that crashed may have left an old segment under both of its names.)
        let is_begun = is_ours || self.is_begun(at.segment, &name)?;
        let found = if is_begun { self.dir.open_write(&name)? } else { None };
        let (mut length, mut fresh) = (0, false);
        let file = match found {
            Some(file) => {
                length = file.metadata()?.len();
                Some(file)
            }
            None if !is_kept || is_behind || is_gone => None,
            None => {
                (entry, fresh) = (true, true);
                Some(self.create(&name)?)
            }
        };
        if let Some(file) = file.as_ref().filter(|_| !fresh && length < size) {
            // A crash came before its first sync, or a copy was cut.
            file.set_len(size).with_context(|| format!("cannot extend {}", self.dir.shown(&name)))?;
        }
        // A file that was there may be one that a crash kept from becoming a durable entry.
        entry |= self.held.is_none_or(|holding| holding.held.position.segment < at.segment);
        let file = file.map(Arc::new);
        self.current = Some(Current { segment: at.segment, file, offset: at.offset, length, entry, running });
        Ok(())
    }

    /// Whether a segment's file, if there is one, has begun to be it.
    fn is_begun(&self, segment: Segment, name: &str) -> Result<bool> {
        match self.dir.open_read(name)?.filter(|_| self.scheme.recycles()) {
            Some(file) => Ok(self.scheme.is_begun(segment, &log::head(&file)?)),
            None => Ok(true),
        }
    }

    /// Makes a segment's file, of its full size where the engine has one.
    fn create(&self, name: &str) -> Result<File> {
        match self.scheme.segment_size() {
            0 => self.dir.create_new(name),
            size => self.dir.create_filled(name, size),
        }
    }

    /// All up to here is whole transactions.
    pub(super) fn mark(&mut self, offset: u64, time: Option<Time>, digest: Digest) -> Result<()> {
        self.prove(offset, digest)?;
        let Some(at) = self.place() else {
            return out_of_segment();
        };
        if let Some(holding) = &mut self.held
            && holding.held.position == at
            && holding.boundary.is_none_or(|(mark, _)| mark <= at)
        {
            holding.boundary = Some((at, time));
            let holding = *holding;
            if self.sync != Sync::Segment {
                self.commit.hold(holding, None);
            }
        }
        Ok(())
    }

    /// Checks that the master's digest of the segment so far is ours.
    fn prove(&self, offset: u64, digest: Digest) -> Result<()> {
        let Some(current) = &self.current else {
            return out_of_segment();
        };
        let at = current.segment.at(current.offset);
        if offset != current.offset {
            return fail(Code::Corrupt, format!("the stream is at {at} and speaks of {offset}"));
        }
        let own = match self.held.map(|holding| holding.held) {
            // Not kept here any more: only what position says is known.
            Some(held) if current.running.length() != current.offset && held.position == at => held.digest,
            _ => current.running.digest(),
        };
        if own != digest {
            return fail(
                Code::Corrupt,
                format!("the stream is damaged: up to {at} its digest is {own}, the master's is {digest}"),
            );
        }
        Ok(())
    }

    /// The segment is complete.
    pub(super) fn end(&mut self, length: u64, digest: Digest) -> Result<()> {
        self.prove(length, digest)?;
        let size = self.scheme.segment_size();
        if size > 0 && length != size {
            return fail(Code::Corrupt, format!("the stream ends a segment at {length}, all have {size} bytes"));
        }
        let Some(segment) = self.current.as_ref().map(|current| current.segment) else {
            return out_of_segment();
        };
        if let Some(held) = self
            .held
            .map(|holding| holding.held)
            .filter(|held| held.position.segment == segment && held.position.offset > length)
        {
            self.diverged(
                segment.at(length),
                &format!("the master's segment ends at {length}, ours holds {}", held.position),
            )?;
        }
        self.cut_tail(segment, length)?;
        // Asked again: what was held may have been set aside.
        let held = self.held.map(|holding| holding.held);
        if held.is_some_and(|held| held.position.segment > segment) {
            self.compare_closed(segment, digest)?;
        } else if held.is_none_or(|held| held.position.segment < segment || !held.closed) {
            let boundary = self.held.and_then(|holding| holding.boundary);
            let own = boundary.filter(|(mark, _)| mark.segment == segment);
            let closed = Closed {
                segment,
                length,
                digest,
                of_file: self.digest_of_file(length)?,
                boundary: own.map(|(mark, _)| mark),
                time: own.and_then(|(_, time)| time),
            };
            self.held = Some(Holding { held: Held { position: segment.at(length), digest, closed: true }, boundary });
            self.advanced(Some(closed))?;
        }
        self.current = None;
        self.ended = Some(segment);
        Ok(())
    }

    /// A segment that came again whole must be the one that was closed.
    fn compare_closed(&self, segment: Segment, digest: Digest) -> Result<()> {
        site::closed_segments(self.site.lock().dir(), |closed| {
            let ours = closed.digest;
            if closed.segment == segment && ours != digest {
                return fail(
                    Code::Diverged,
                    format!("diverged: segment {segment} is {ours} here and {digest} at the master"),
                );
            }
            Ok(())
        })
    }

    /// The master's end, as a heartbeat or the end of the stream tells it: more than that must not be held here. It is
    /// judged in an open segment only: a closed one may be shipped alone, and what follows it is then not told.
    pub(super) fn master_end(&mut self, end: Position) -> Result<()> {
        let held = self.held.map(|holding| holding.held.position);
        if self.place() == Some(end) && held.is_some_and(|held| held > end) {
            self.ahead(end)?;
        }
        Ok(())
    }

    /// Tells the commit thread, when the stream has come beyond what was held.
    fn advanced(&mut self, closed: Option<Closed>) -> Result<()> {
        let Some(current) = &mut self.current else {
            return out_of_segment();
        };
        let at = current.segment.at(current.offset);
        if closed.is_none() && self.held.is_some_and(|holding| holding.held.position >= at) {
            return Ok(());
        }
        if closed.is_none() {
            let boundary = self.held.and_then(|holding| holding.boundary);
            let held = Held { position: at, digest: current.running.digest(), closed: false };
            self.held = Some(Holding { held, boundary });
        }
        if let Some(file) = &current.file {
            let name = || self.scheme.name(at.segment);
            self.commit.landed(at, file, name, std::mem::take(&mut current.entry));
        }
        if let Some(holding) = self.held
            && (self.sync != Sync::Segment || closed.is_some())
        {
            self.commit.hold(holding, closed);
        }
        if self.sync == Sync::Each {
            self.commit.settle();
        }
        Ok(())
    }

    /// Before the end: everything held is to be made durable, whatever `--sync` says.
    pub(super) fn finish(&mut self) {
        if let Some(holding) = self.held
            && self.commit.durable().holding != Some(holding)
        {
            self.commit.hold(holding, None);
        }
    }
}

fn out_of_segment<T>() -> Result<T> {
    fail(Code::Corrupt, "the stream has log bytes before any segment begins")
}
