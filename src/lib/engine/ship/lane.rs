//! One connection: ships what the source hands out, until there is no more to ship.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Only;
use super::berth::Berth;
use super::outlet::Outlet;
use super::reader::Reader;
use super::source::Piece;
use super::source::locate::Located;
use super::tracker::Tracker;
use crate::edge::clock;
use crate::engine::note::Note;
use crate::rule::quorum::Policy;
use crate::rule::stream::message::{Begin, Message, Previous};
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Position, Segment, Start};
use crate::value::time::Time;

/// Everything that one connection works with.
pub(super) struct Lane<'a, W> {
    pub(super) reader: Reader<'a>,
    pub(super) outlet: Outlet<W>,
    pub(super) tracker: Option<&'a Tracker>,
    pub(super) berth: &'a Berth<'a>,
    sent: u64,
    beat: Instant,
    listed: Instant,
    time: Option<Time>,
    is_current: bool,
    /// Whether the receiver's place was proven.
    is_placed: bool,
    /// Aux files that were sent, and remarks that were made.
    told: BTreeSet<String>,
}

/// The end of a log that has not begun.
const NOTHING: Position = Position { segment: Segment { generation: 0, sequence: 0 }, offset: 0 };

/// A piece as an order to the outlet; the source's bytes have been written already.
enum Next {
    More,
    Wait,
    Finish,
}

impl<'a, W: Write> Lane<'a, W> {
    pub(super) fn new(
        reader: Reader<'a>,
        outlet: Outlet<W>,
        tracker: Option<&'a Tracker>,
        berth: &'a Berth<'a>,
    ) -> Lane<'a, W> {
        let now = Instant::now();
        Lane {
            reader,
            outlet,
            tracker,
            berth,
            sent: 0,
            beat: now,
            listed: now,
            time: None,
            is_current: false,
            is_placed: false,
            told: BTreeSet::new(),
        }
    }

    /// Ships from where the receiver stands to the end: of what is there (`-S`), of the limit, or of this process.
    pub(super) fn run(mut self, start: Start) -> Result<()> {
        if let Some(Only::Aux(_)) = self.berth.options.only {
            self.send_aux()?;
            return self.finish();
        }
        if !self.begin(start)? {
            return self.finish();
        }
        (self.berth.monitor)(Note::Ready);
        // A writer that is never idle must not keep us from ending: what comes after the end was asked for is not ours.
        let mut last = None;
        loop {
            self.check_receiver()?;
            (self.berth.monitor)(Note::Alive);
            let is_ending = self.berth.options.once || self.berth.orders.is_ending();
            // The one segment that is shipped alone is finished: all of its file counts.
            if last.is_none() && is_ending && self.berth.options.only.is_none() {
                last = self.goal()?;
            }
            // But a boundary is told with the bytes before it: without it they would not be fed.
            if last.is_some() && self.reader.position() > last && !self.reader.owes_mark() {
                return self.finish();
            }
            let next = self.ship_one();
            if let Some(text) = self.reader.remark().filter(|text| !self.told.contains(text)) {
                self.told.insert(text.clone());
                (self.berth.monitor)(Note::Warning(text));
            }
            if next.is_err() {
                // What comes before a gap or damage is good; the verdict matters more than a link that is gone, too.
                let _ = self.outlet.flush();
            }
            match next? {
                Next::More => {}
                Next::Finish => return self.finish(),
                Next::Wait => {
                    self.berth.ledger.sync()?;
                    self.report_current();
                    if self.berth.options.once || self.berth.orders.is_ending() {
                        return self.finish();
                    }
                    self.reader.rest();
                    self.wait()?;
                }
            }
            if self.beat.elapsed() >= self.berth.options.heartbeat {
                self.heartbeat()?;
            }
        }
    }

    /// Where to end: where the log ended when the end was asked for. With `-S` all lanes end at the same place.
    fn goal(&mut self) -> Result<Option<Position>> {
        let goal = &self.berth.goal.end;
        // Who is called off goes at once, however much there is.
        if self.berth.orders.is_retired() {
            return Ok(self.reader.position());
        }
        if !self.berth.options.once {
            return self.reader.end();
        }
        if let (None, Some(end)) = (goal.get(), self.reader.end()?) {
            // Another lane may have been faster: then that is the end for all.
            let _ = goal.set(end);
        }
        Ok(goal.get().copied())
    }

    /// Finds the receiver's place; false when there is no log and none is waited for.
    fn begin(&mut self, start: Start) -> Result<bool> {
        let located = loop {
            if let Some(located) = self.locate(start)? {
                break located;
            }
            if let Start::At(mark) = start {
                return fail(Code::Gap, format!("gap: the receiver holds {mark}, and there is no log here at all"));
            }
            if self.berth.options.once || self.berth.orders.is_ending() {
                return Ok(false);
            }
            self.check_receiver()?;
            (self.berth.monitor)(Note::Alive);
            self.wait()?;
            if self.beat.elapsed() >= self.berth.options.heartbeat {
                self.heartbeat()?;
            }
        };
        self.send_aux()?;
        match located {
            Located::Here(begin) => {
                (self.berth.monitor)(Note::FoundPosition(begin.position));
                self.send_begin(begin)?;
                self.place();
                Ok(true)
            }
            // The receiver judges by its own bytes, and may be told to set them aside.
            Located::Differs(begin, why) => {
                self.send_begin(begin)?;
                self.refused(why)
            }
        }
    }

    /// The receiver's place is proven: from now on its word counts.
    fn place(&mut self) {
        self.is_placed = true;
        if let Some(at) = self.reader.position() {
            self.berth.board.placed(self.berth.id, at);
        }
    }

    /// Looks for the receiver's place. Proving it may mean to read much: heartbeats go out meanwhile.
    fn locate(&mut self, start: Start) -> Result<Option<Located>> {
        let Lane { reader, outlet, berth, beat, .. } = self;
        reader.locate(start, berth.ledger, &mut |end| sign(berth, outlet, beat, end))
    }

    /// Waits for the receiver's own verdict, where it can tell it.
    fn refused(&mut self, why: String) -> Result<bool> {
        self.outlet.flush()?;
        let deadline = Instant::now() + self.berth.options.timeout;
        while let Some(tracker) = self.tracker
            && Instant::now() < deadline
        {
            if let Some(ended) = tracker.ended() {
                return ended.error();
            }
            if tracker.has_gone_back() {
                self.place();
                return Ok(true);
            }
            if self.berth.orders.is_ending() {
                break;
            }
            self.berth.orders.bell.wait_until(deadline.min(Instant::now() + Duration::from_millis(500)));
        }
        Err(Failure::new(Code::Diverged, why)
            .hint("look at both; then repl-apply --set-aside keeps the replica's tail under .repl/set-aside, or resync")
            .into())
    }

    /// Small files beside the log come before the segments that need them.
    fn send_aux(&mut self) -> Result<()> {
        for (name, bytes) in self.reader.aux()? {
            let is_wanted = match &self.berth.options.only {
                Some(Only::Aux(only)) => *only == name,
                _ => true,
            };
            if is_wanted && self.told.insert(name.clone()) {
                self.outlet.send(&Message::Aux { name: &name, bytes: &bytes })?;
            }
        }
        Ok(())
    }

    fn send_begin(&mut self, begin: Begin) -> Result<()> {
        (self.berth.monitor)(Note::Processing(begin.position.segment));
        self.outlet.send(&Message::Begin(begin))
    }

    fn check_receiver(&self) -> Result<()> {
        match self.tracker.and_then(Tracker::ended) {
            Some(ended) => ended.error(),
            None => Ok(()),
        }
    }

    /// Ships the next piece.
    fn ship_one(&mut self) -> Result<Next> {
        let Lane { reader, outlet, berth, beat, .. } = self;
        let before = reader.position();
        match reader.next(berth.ledger, &mut |end| sign(berth, outlet, beat, end))? {
            Piece::Data { offset, bytes } => {
                outlet.data(offset, bytes)?;
                self.sent += bytes.len() as u64;
                self.is_current = false;
            }
            Piece::Hole { offset, length } => {
                outlet.send(&Message::Hole { offset, length })?;
                self.sent += length;
            }
            Piece::Mark { offset, time, digest } => {
                outlet.send(&Message::Mark { offset, time, digest })?;
                self.time = time.or(self.time);
                if let Some(before) = before {
                    berth.board.mark(before.segment.at(offset));
                }
            }
            Piece::Begin(begin) => {
                if let Some(before) = begin.previous
                    && before.segment.generation != begin.position.segment.generation
                {
                    let (left, next) = (before.segment, begin.position.segment);
                    let text =
                        format!("generation {} ends with segment {left}, the log goes on with {next}", left.generation);
                    (self.berth.monitor)(Note::Warning(text));
                    self.berth.board.left(self.berth.id, left.at(before.length));
                    self.send_aux()?;
                }
                (self.berth.monitor)(Note::Progress { sent: self.sent, left: self.reader.left() });
                self.send_begin(begin)?;
            }
            Piece::Patch { offset, byte } => outlet.send(&Message::Patch { offset, bytes: &[byte] })?,
            Piece::End(Previous { segment, length, digest }) => {
                outlet.send(&Message::End { length, digest })?;
                berth.ledger.remember(Previous { segment, length, digest })?;
            }
            Piece::Idle => {
                berth.board.reached(before);
                return Ok(Next::Wait);
            }
            Piece::Done => return Ok(Next::Finish),
        }
        self.berth.board.sent(self.berth.id, self.reader.position().filter(|_| self.is_placed));
        Ok(Next::More)
    }

    fn report_current(&mut self) {
        if !std::mem::replace(&mut self.is_current, true) {
            (self.berth.monitor)(Note::UpToDate(self.time));
            (self.berth.monitor)(Note::Progress { sent: self.sent, left: 0 });
        }
    }

    /// Waits for news, at most until the next look is due.
    fn wait(&mut self) -> Result<()> {
        self.outlet.flush()?;
        let now = Instant::now();
        let look = now + self.berth.options.poll;
        self.berth.orders.bell.wait_until(look.min(self.beat + self.berth.options.heartbeat));
        let age = self.berth.options.poll.max(Duration::from_secs(1));
        let is_kicked = self.berth.orders.take_kick();
        if is_kicked || self.listed.elapsed() >= age {
            self.listed = Instant::now();
            self.reader.list(if is_kicked { Duration::ZERO } else { age })?;
        }
        Ok(())
    }

    fn heartbeat(&mut self) -> Result<()> {
        self.beat = Instant::now();
        self.berth.ledger.sync()?;
        let end = self.reader.end()?;
        self.outlet.send(&Message::Heartbeat { end: end.unwrap_or(NOTHING), clock: clock::now() })?;
        self.outlet.flush()?;
        (self.berth.monitor)(Note::Progress { sent: self.sent, left: self.reader.left() });
        self.berth.board.reached(end);
        self.berth.release()
    }

    /// Says good-bye, then waits for the receiver's word that it has all.
    fn finish(mut self) -> Result<()> {
        let berth = self.berth;
        berth.ledger.sync()?;
        let at = self.reader.position();
        let end = self.reader.end()?.or(at);
        self.outlet.send(&Message::Bye { end: end.unwrap_or(NOTHING) })?;
        self.outlet.flush()?;
        (berth.monitor)(Note::Detail(format!("{} bytes of log, {} bytes of stream", self.sent, self.outlet.written())));
        let last = self.reader.last_byte();
        let Lane { reader, outlet, tracker, .. } = self;
        // The end of the stream is the receiver's to see, too; and nobody reads for this lane any more.
        drop((reader, outlet));
        berth.board.reached(end);
        let (Some(tracker), Some(last)) = (tracker, last) else {
            return berth.release();
        };
        // Of all lanes the first says what was to be shipped; the others end there, too.
        let _ = berth.goal.last.set(last);
        let deadline = Instant::now() + berth.options.ack_timeout;
        while berth.options.ack != Policy::None && !tracker.has_flushed(last) {
            if let Some(ended) = tracker.ended() {
                return ended.error();
            }
            if Instant::now() >= deadline || berth.orders.is_abandoned() {
                return fail(
                    Code::Unconfirmed,
                    format!("not acknowledged in time: {last} is not known to be on the receiver's disk"),
                );
            }
            berth.orders.bell.wait_until(deadline);
        }
        berth.release()
    }
}

/// A sign of life while much is read and nothing is sent: heartbeats, when they are due.
fn sign(berth: &Berth<'_>, outlet: &mut Outlet<impl Write>, beat: &mut Instant, end: Position) -> Result<()> {
    (berth.monitor)(Note::Alive);
    if beat.elapsed() < berth.options.heartbeat {
        return Ok(());
    }
    *beat = Instant::now();
    outlet.send(&Message::Heartbeat { end, clock: clock::now() })?;
    outlet.flush()
}
