//! Finds the place in the log where a receiver stands, and proves it.

use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};

use super::reading::Open;
use super::{Source, gap, recycled};
use crate::edge::read::{prefix, prefix_with};
use crate::engine::log;
use crate::engine::ship::ledger::Ledger;
use crate::rule::scheme::Step;
use crate::rule::stream::message::{Begin, Previous};
use crate::value::digest::Digest;
use crate::value::exit::{Code, fail};
use crate::value::position::{Bookmark, Position, Segment, Start};
use crate::value::time::Until;

/// Where a stream can begin.
#[derive(Debug)]
pub(in crate::engine::ship) enum Located {
    /// Here; the receiver's proof was right.
    Here(Begin),
    /// Here our log is not what the receiver says it holds: why.
    Differs(Begin, String),
}

/// Called with the log's end while much is read.
pub(in crate::engine::ship) type Tick<'a> = &'a mut dyn FnMut(Position) -> Result<()>;

impl Source {
    /// Opens the log where a receiver stands. `None` while there is no log at all. `tick` is called with the log's end
    /// every now and then while much is read.
    pub(in crate::engine::ship) fn locate(
        &mut self,
        start: Start,
        ledger: &Ledger,
        tick: Tick<'_>,
    ) -> Result<Option<Located>> {
        let Some(end) = self.end()? else {
            return Ok(None);
        };
        let (Some((&oldest, _)), Some((&newest, _))) = (self.known.first_key_value(), self.known.last_key_value())
        else {
            return Ok(None);
        };
        let mark = match start {
            Start::Oldest => return self.enter(oldest, 0, ledger, tick).map(|begin| Some(Located::Here(begin))),
            Start::Latest => return self.enter(newest, 0, ledger, tick).map(|begin| Some(Located::Here(begin))),
            // The one segment that is to be shipped is sent whole, and the receiver judges: it may have it already, or
            // hold the one before it.
            Start::At(mark) if self.options.only.is_some_and(|only| only != mark.position.segment) => {
                return self.enter(oldest, 0, ledger, tick).map(|begin| Some(Located::Here(begin)));
            }
            Start::At(mark) => mark,
        };
        let at = mark.position;
        if self.known.contains_key(&at.segment) {
            return self.locate_in(mark, ledger, tick).map(Some);
        }
        if at > end {
            let begin = self.enter(newest, end.offset, ledger, tick)?;
            return Ok(Some(Located::Differs(begin, format!("ahead: {at} lies beyond the end of this log, {end}"))));
        }
        if at.segment < oldest && self.scheme.step(at.segment, oldest) != Step::Gap && ledger.proves(mark) {
            return self.enter(oldest, 0, ledger, tick).map(|begin| Some(Located::Here(begin)));
        }
        if let Some(last) = self.left_at(at.segment) {
            return self.enter(last, 0, ledger, tick).map(|begin| Some(Located::Here(begin)));
        }
        Err(gap(format!("gap: segment {} is needed and no longer here; the oldest is {oldest}", at.segment)))
    }

    /// Where our log left the generation of a segment, when that was before it: from there on the receiver finds what it
    /// alone has.
    fn left_at(&self, segment: Segment) -> Option<Segment> {
        let (last, _) = self.known.range(..segment).next_back()?;
        let is_left = self.next_segment(*last).is_some_and(|(next, step)| next > segment && step != Step::Gap);
        is_left.then_some(*last)
    }

    fn locate_in(&mut self, mark: Bookmark, ledger: &Ledger, tick: Tick<'_>) -> Result<Located> {
        let at = mark.position;
        let begin = self.enter(at.segment, at.offset, ledger, tick)?;
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

    /// Takes up what another reader has handed out to there; `ended` is the segment that it has handed out whole, when
    /// nothing of the next one came.
    pub(in crate::engine::ship) fn resume(
        &mut self,
        at: Position,
        ended: Option<Previous>,
        ledger: &Ledger,
        tick: Tick<'_>,
    ) -> Result<()> {
        self.end()?;
        let begin = self.enter(at.segment, at.offset, ledger, tick)?;
        if begin.position != at {
            return fail(
                Code::Corrupt,
                format!("segment {} shrank to {}, {at} was shipped", at.segment, begin.position),
            );
        }
        self.previous = ended;
        Ok(())
    }

    /// Takes up a segment at an offset, or at its end when that comes before, and says what lies before that.
    pub(super) fn enter(&mut self, segment: Segment, offset: u64, ledger: &Ledger, tick: Tick<'_>) -> Result<Begin> {
        let (position, digest) = self.take_up(segment, offset, tick)?;
        let previous = if position.offset == 0 { self.predecessor(segment, ledger, tick)? } else { None };
        let end = self.end.unwrap_or(position).max(position);
        Ok(Begin { position, end, digest, previous })
    }

    /// The same of that segment alone: its bytes up to there.
    pub(super) fn take_up(&mut self, segment: Segment, offset: u64, tick: Tick<'_>) -> Result<(Position, Digest)> {
        let Some((file, name)) = log::open(&self.dir, &self.scheme, segment)? else {
            let name = self.dir.shown(&self.scheme.name(segment));
            return Err(gap(format!("gap: {name} vanished before it was shipped")));
        };
        // The one that was opened ahead is the right one, whatever its name stands for by now.
        let file = self.known.get_mut(&segment).and_then(Option::take).unwrap_or(file);
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
            scanner: self.scanner(segment, until)?,
            sent: 0,
            running: self.scheme.running(),
            marked: 0,
            looked: 0,
            synced: 0,
            sparse: meta.blocks() * 512 < meta.len(),
            closed: None,
            patched: false,
            file,
        };
        let end = self.end.unwrap_or(segment.at(0));
        open.skip_to(offset, &mut self.buffer, &mut || tick(end))
            .with_context(|| format!("cannot read {}", self.dir.shown(&open.name)))?;
        if self.scheme.recycles() && !self.scheme.is_begun(segment, &log::head(&open.file)?) {
            return Err(recycled(&self.dir.shown(&open.name)));
        }
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
            open.running = prefix(&open.file, self.scheme.running(), limit)?;
        }
        Ok((segment.at(open.sent), open.running.digest()))
    }

    /// What is known of the closed segment before one: shipped in this stream, shipped earlier, or still there.
    fn predecessor(&self, segment: Segment, ledger: &Ledger, tick: Tick<'_>) -> Result<Option<Previous>> {
        let fits = |previous: &Previous| self.scheme.step(previous.segment, segment) != Step::Gap;
        if let Some(previous) = self.previous.filter(fits).or_else(|| ledger.last_before(segment).filter(fits)) {
            return Ok(Some(previous));
        }
        let Some(before) = self.before(segment)? else {
            return Ok(None);
        };
        let Some((file, name)) = log::open(&self.dir, &self.scheme, before)? else {
            return Ok(None);
        };
        if !log::is_begun(&self.dir, &self.scheme, before, &name)? {
            return Ok(None);
        }
        let (end, mut told) = (self.end.unwrap_or(segment.at(0)), Ok(()));
        let running = prefix_with(&file, self.scheme.running(), file.metadata()?.len(), |_| {
            if told.is_ok() {
                told = tick(end);
            }
        })?;
        told?;
        Ok(Some(Previous { segment: before, length: running.length(), digest: running.digest() }))
    }
}
