//! Lands a stream's segments: proves its beginning, writes bytes that are new, compares bytes that are there.
//!
//! What is held is what `position` says. Behind it files may have bytes that a crash left or that a base copy brought:
//! they are compared as they arrive again. A byte that is there and differs is a divergence, unless it lies beyond what is
//! held and is zero, which is how a file system or an engine leaves space that was never written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

use super::commit::Commit;
use crate::edge::dir::Dir;
use crate::engine::note::{Monitor, Note};
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
    pub(super) segment_size: u64,
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
    /// The file's length.
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
            segment_size: 0,
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
        self.enter(at, Running::new())
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
            Some(file) => prefix(file, at.offset).with_context(|| format!("cannot read {}", self.dir.shown(&name)))?,
            None => Running::new(),
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
        let file = match self.dir.open_write(&name)? {
            Some(file) => Some(file),
            None if !is_kept || is_behind || is_gone => None,
            None => {
                entry = true;
                Some(self.dir.create_new(&name)?)
            }
        };
        let length = match &file {
            Some(file) => file.metadata()?.len(),
            None => 0,
        };
        // A file that was there may be one that a crash kept from becoming a durable entry.
        entry |= self.held.is_none_or(|holding| holding.held.position.segment < at.segment);
        let file = file.map(Arc::new);
        self.current = Some(Current { segment: at.segment, file, offset: at.offset, length, entry, running });
        Ok(())
    }

    /// Lands bytes.
    pub(super) fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.expect(offset, bytes.len() as u64)?;
        let mut rest = bytes;
        while let Some(same) = self.put(rest)? {
            let at = self.advance_by(same)?;
            rest = &rest[same..];
            self.diverged_at(at, rest[0])?;
        }
        self.advanced(None)
    }

    /// Lands zero bytes without writing them.
    pub(super) fn hole(&mut self, offset: u64, length: u64) -> Result<()> {
        self.expect(offset, length)?;
        while let Some(at) = self.first_nonzero(length)?.or_else(|| self.closed_within(length)) {
            self.diverged_at(at, 0)?;
        }
        let Some(current) = &mut self.current else {
            return out_of_segment();
        };
        let end = offset + length;
        self.compared += length.min(current.length.saturating_sub(offset));
        if let Some(file) = &current.file
            && current.length < end
        {
            file.set_len(end).with_context(|| format!("cannot extend segment {}", current.segment))?;
            current.length = end;
        }
        current.running.zeros(length);
        current.offset = end;
        self.advanced(None)
    }

    /// Checks that bytes continue the segment.
    fn expect(&self, offset: u64, length: u64) -> Result<()> {
        let Some(current) = &self.current else {
            return out_of_segment();
        };
        let at = current.segment.at(current.offset);
        if offset > current.offset {
            return fail(Code::Gap, format!("gap: the stream goes on at {offset} after {at}"));
        }
        if offset < current.offset {
            return fail(Code::Corrupt, format!("the stream goes back to {offset} after {at}"));
        }
        if self.segment_size > 0 && offset + length > self.segment_size {
            return fail(
                Code::Corrupt,
                format!("{length} bytes at {at} are beyond the segment size {}", self.segment_size),
            );
        }
        Ok(())
    }

    /// Up to which offset of the current segment our bytes are held, so that none of them may differ.
    fn held_end(&self, segment: Segment) -> u64 {
        match self.held.map(|holding| holding.held) {
            Some(held) if held.position.segment > segment || (held.position.segment == segment && held.closed) => {
                u64::MAX
            }
            Some(held) if held.position.segment == segment => held.position.offset,
            _ => 0,
        }
    }

    /// Whether the stream is in a segment that is closed and kept here: nothing is ever added to it or cut from it.
    fn is_in_closed(&self) -> bool {
        self.current.as_ref().is_some_and(|Current { segment, file, .. }| {
            let is_kept = file.is_some() && self.start.is_none_or(|start| *segment >= start.segment);
            is_kept && self.held_end(*segment) == u64::MAX
        })
    }

    /// Where a closed segment of ours ends, if that is within the next `length` bytes.
    fn closed_within(&self, length: u64) -> Option<Position> {
        let Current { segment, offset, length: end, .. } = self.current.as_ref()?;
        (self.is_in_closed() && offset + length > *end).then(|| segment.at((*offset).max(*end)))
    }

    /// Writes what is new of `bytes` at the current offset; `Some(n)` when byte `n` is there and differs, and then
    /// nothing was written. Otherwise the offset has moved behind them.
    fn put(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let Some(segment) = self.current.as_ref().map(|current| current.segment) else {
            return out_of_segment();
        };
        let held_end = self.held_end(segment);
        let closed = self.closed_within(bytes.len() as u64);
        let Some(current) = &mut self.current else {
            return out_of_segment();
        };
        if let Some(file) = &current.file {
            let mut fresh = 0;
            if current.length > current.offset {
                let have = (current.length - current.offset).min(bytes.len() as u64) as usize;
                self.scratch.resize(have, 0);
                read_exact(file, &mut self.scratch, current.offset)
                    .with_context(|| format!("cannot read segment {segment}"))?;
                fresh = have;
                if let Some(first) = first_difference(&self.scratch, &bytes[..have]) {
                    let blank_from = held_end.saturating_sub(current.offset).min(have as u64) as usize;
                    let really = (first..have)
                        .find(|at| self.scratch[*at] != bytes[*at] && (*at < blank_from || self.scratch[*at] != 0));
                    if really.is_some() {
                        return Ok(really);
                    }
                    fresh = first;
                }
                self.compared += fresh as u64;
            }
            if let Some(closed) = closed {
                return Ok(Some((closed.offset - current.offset) as usize));
            }
            if fresh < bytes.len() {
                write(file, &bytes[fresh..], current.offset + fresh as u64, current.length)
                    .with_context(|| format!("cannot append to segment {segment} ({})", self.scheme.name(segment)))?;
            }
        }
        current.running.update(bytes);
        current.offset += bytes.len() as u64;
        current.length = current.length.max(current.offset);
        Ok(None)
    }

    /// Counts bytes that are there and equal, up to one that differs; returns the place of that one.
    fn advance_by(&mut self, same: usize) -> Result<Position> {
        let Some(current) = &mut self.current else {
            return out_of_segment();
        };
        if let Some(file) = &current.file {
            self.scratch.truncate(same);
            read_exact(file, &mut self.scratch, current.offset).context("cannot read back")?;
            current.running.update(&self.scratch);
        }
        current.offset += same as u64;
        Ok(current.segment.at(current.offset))
    }

    /// The first byte of ours that is not zero in the next `length` bytes, with all before it counted.
    fn first_nonzero(&mut self, length: u64) -> Result<Option<Position>> {
        let Some(Current { segment, file: Some(file), offset, length: end, .. }) = &self.current else {
            return Ok(None);
        };
        let (mut at, stop) = (*offset, (*offset + length).min(*end));
        while at < stop {
            self.scratch.resize((stop - at).min(1 << 18) as usize, 0);
            read_exact(file, &mut self.scratch, at).with_context(|| format!("cannot read segment {segment}"))?;
            if let Some(first) = self.scratch.iter().position(|byte| *byte != 0) {
                return Ok(Some(segment.at(at + first as u64)));
            }
            at += self.scratch.len() as u64;
        }
        Ok(None)
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
            self.compare_manifest(segment, digest)?;
        } else if held.is_none_or(|held| held.position.segment < segment || !held.closed) {
            let boundary = self.held.and_then(|holding| holding.boundary);
            let own = boundary.filter(|(mark, _)| mark.segment == segment);
            let closed = Closed {
                segment,
                length,
                digest,
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

    /// A segment's file may be longer than the segment: zeros are cut away, anything else is a divergence.
    fn cut_tail(&mut self, segment: Segment, length: u64) -> Result<()> {
        let Some(current) = &self.current else {
            return out_of_segment();
        };
        let Some(file) = current.file.clone().filter(|_| current.length > length) else {
            return Ok(());
        };
        let excess = current.length - length;
        let differing = if self.is_in_closed() { Some(segment.at(length)) } else { self.first_nonzero(excess)? };
        if let Some(at) = differing {
            self.diverged(at, &format!("segment {segment} ends at {length} at the master and goes on here"))?;
        }
        file.set_len(length).with_context(|| format!("cannot cut segment {segment}"))?;
        if let Some(current) = &mut self.current {
            current.length = length;
        }
        Ok(())
    }

    /// A segment that came again whole must be the one in the manifest.
    fn compare_manifest(&self, segment: Segment, digest: Digest) -> Result<()> {
        let name = self.scheme.name(segment);
        site::manifest(self.site.lock().dir(), |ours, of| {
            if of == name && ours != digest {
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

    fn ahead(&mut self, end: Position) -> Result<()> {
        let held = self.held.map_or(end, |holding| holding.held.position);
        self.diverged(end, &format!("ahead: this replica holds {held}, the master ends at {end} (it lost its tail?)"))
    }

    /// A byte of ours is not the master's, or our segment has ended before it.
    fn diverged_at(&mut self, at: Position, byte: u8) -> Result<()> {
        let Some(current) = &self.current else {
            return out_of_segment();
        };
        // Up to here all is equal; what was skipped to find the byte are zeros.
        let mut ours = current.running.clone();
        ours.zeros(at.offset.saturating_sub(current.offset));
        let mut theirs = ours.clone();
        theirs.update(&[byte]);
        let mut own = [0];
        if let Some(file) = current.file.as_ref().filter(|_| at.offset < current.length) {
            read_exact(file, &mut own, at.offset).context("cannot read back")?;
            ours.update(&own);
        }
        let (behind, ended) = (at.segment.at(at.offset + 1), at.segment.at(ours.length()));
        let (ours, theirs) = (ours.digest(), theirs.digest());
        self.diverged(
            at,
            &format!(
                "the byte at {at} differs: up to {behind} the master's digest is {theirs}, ours up to {ended} is {ours}"
            ),
        )
    }

    /// Our bytes from here on are not the master's: refuses the stream, or moves them away.
    fn diverged(&mut self, from: Position, why: &str) -> Result<()> {
        if self.differing == Differing::Refused {
            let why = if why.starts_with("ahead") { why.to_owned() } else { format!("diverged: {why}") };
            return Err(Failure::new(Code::Diverged, why)
                .hint(
                    "look at both; then repl-apply --set-aside keeps this side's tail under .repl/set-aside, or resync",
                )
                .into());
        }
        self.set_aside(from, why)
    }

    fn set_aside(&mut self, from: Position, why: &str) -> Result<()> {
        self.finish();
        self.commit.settle();
        if self.commit.is_failed() {
            return fail(Code::Failed, "what was received could not be made durable");
        }
        let back = self.back_to(from)?;
        let moved = {
            let mut site = self.site.lock();
            let target = super::aside::prepare(self.dir, site.dir(), &self.scheme, from)?;
            if let Some(back) = &back {
                site.go_back(back)?;
            }
            let moved = super::aside::take(self.dir, &target, &self.scheme, from)?;
            site.record("set-aside", &format!("{moved}: {why}"), self.reason.as_deref())?;
            moved
        };
        (self.monitor)(Note::Warning(format!("{why}: our bytes from {from} on are now in {moved}")));
        if let Some(fed) = self.commit.go_back(back, |at| site::set_applied(self.site.lock().dir(), at))? {
            let text = format!("the database was fed up to {fed}: it has what the master has not; resync it");
            (self.monitor)(Note::Warning(text));
        }
        // The sender waits to hear whether it may go on.
        self.commit.ask();
        self.held = back;
        // A sender that was told of more waits to hear where we stand now.
        self.commit.ask();
        if let Some(current) = &mut self.current
            && current.segment == from.segment
        {
            current.length = from.offset;
            if from.offset == 0 {
                // The file that was open here has been moved away.
                current.file = Some(Arc::new(self.dir.create_new(&self.scheme.name(from.segment))?));
                current.entry = true;
            }
        }
        Ok(())
    }

    /// What is still held when everything from here on is taken away; `None` for nothing that a position can say.
    fn back_to(&self, from: Position) -> Result<Option<Holding>> {
        let is_beyond = |held: Held| held.position > from || (held.position == from && held.closed);
        let Some(holding) = self.held.filter(|holding| is_beyond(holding.held)) else {
            return Ok(self.held);
        };
        let boundary = holding.boundary.filter(|(mark, _)| *mark <= from);
        if from.offset > 0 || self.start.is_some_and(|start| start.segment >= from.segment) {
            let name = self.scheme.name(from.segment);
            let digest = match self.dir.open_read(&name)? {
                Some(file) => prefix(&file, from.offset)?.digest(),
                None => Digest::of(b""),
            };
            return Ok(Some(Holding { held: Held { position: from, digest, closed: false }, boundary }));
        }
        // The whole segment goes: what is held ends with the one before.
        let mut last = None;
        site::closed_segments(self.site.lock().dir(), |closed| {
            if closed.segment < from.segment {
                last = Some(closed);
            }
            Ok(())
        })?;
        let Some(last) = last else {
            return fail(Code::Corrupt, format!("no closed segment before {from} is recorded"));
        };
        let held = Held { position: last.segment.at(last.length), digest: last.digest, closed: true };
        Ok(Some(Holding { held, boundary }))
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
            self.commit.landed(at, file, std::mem::take(&mut current.entry));
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

/// Index of the first byte that differs.
fn first_difference(ours: &[u8], theirs: &[u8]) -> Option<usize> {
    if ours == theirs {
        return None;
    }
    ours.iter().zip(theirs).position(|(one, other)| one != other)
}

/// Hashes up to `length` bytes from the beginning of a file.
pub(in crate::engine) fn prefix(file: &File, length: u64) -> io::Result<Running> {
    let mut running = Running::new();
    let mut buffer = vec![0; (1 << 18).min(length as usize)];
    while running.length() < length {
        let want = (length - running.length()).min(buffer.len() as u64) as usize;
        match file.read_at(&mut buffer[..want], running.length()) {
            Ok(0) => break,
            Ok(count) => running.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(running)
}

fn read_exact(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
}

/// Writes all bytes or leaves the file as long as it was: at rest there is no part of a frame.
fn write(file: &File, bytes: &[u8], offset: u64, length: u64) -> io::Result<()> {
    let written = file.write_all_at(bytes, offset);
    if written.is_err() {
        // Shortening needs no space; if even that fails, the next start compares these bytes like any others.
        let _ = file.set_len(length);
    }
    written
}
