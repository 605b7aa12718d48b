//! One connection: ships what the source hands out, until there is no more to ship.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::ledger::Ledger;
use super::outlet::Outlet;
use super::source::locate::Located;
use super::source::{Piece, Source};
use super::tracker::Tracker;
use super::{Ack, Only, Options};
use crate::edge::bell::Bell;
use crate::edge::clock;
use crate::edge::signal::Stop;
use crate::engine::note::{Monitor, Note};
use crate::rule::stream::message::{Begin, Message, Previous};
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Position, Segment, Start};
use crate::value::time::Time;

/// Everything that one connection works with.
pub(super) struct Lane<'a, W> {
    pub(super) source: Source,
    pub(super) outlet: Outlet<W>,
    pub(super) tracker: Option<&'a Tracker>,
    pub(super) ledger: &'a mut Ledger,
    pub(super) options: &'a Options,
    pub(super) bell: &'a Bell,
    pub(super) stop: &'a Stop,
    pub(super) monitor: &'a Monitor,
    /// Called at each heartbeat, with where shipping is and the log's end.
    pub(super) pulse: &'a mut dyn FnMut(Option<Position>, Option<Position>) -> Result<()>,
    sent: u64,
    beat: Instant,
    listed: Instant,
    time: Option<Time>,
    is_current: bool,
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
    #[allow(clippy::too_many_arguments, reason = "the parts of a connection, named once, at its one construction")]
    pub(super) fn new(
        source: Source,
        outlet: Outlet<W>,
        tracker: Option<&'a Tracker>,
        ledger: &'a mut Ledger,
        options: &'a Options,
        bell: &'a Bell,
        stop: &'a Stop,
        monitor: &'a Monitor,
        pulse: &'a mut dyn FnMut(Option<Position>, Option<Position>) -> Result<()>,
    ) -> Lane<'a, W> {
        let now = Instant::now();
        let (sent, beat, listed, time, is_current) = (0, now, now, None, false);
        Lane {
            source,
            outlet,
            tracker,
            ledger,
            options,
            bell,
            stop,
            monitor,
            pulse,
            sent,
            beat,
            listed,
            time,
            is_current,
            told: BTreeSet::new(),
        }
    }

    /// Ships from where the receiver stands to the end: of what is there (`-S`), of the limit, or of this process.
    pub(super) fn run(mut self, start: Start) -> Result<()> {
        if let Some(Only::Aux(_)) = self.options.only {
            self.send_aux()?;
            return self.finish();
        }
        if !self.begin(start)? {
            return self.finish();
        }
        (self.monitor)(Note::Ready);
        // A writer that is never idle must not keep us from ending: what comes after the end was asked for is not ours.
        let mut last = None;
        loop {
            self.check_receiver()?;
            (self.monitor)(Note::Alive);
            let is_ending = self.options.once || self.stop.is_asked();
            // The one segment that is shipped alone is finished: all of its file counts.
            if last.is_none() && is_ending && self.options.only.is_none() {
                last = self.source.end()?;
            }
            // But a boundary is told with the bytes before it: without it they would not be fed.
            if last.is_some() && self.source.position() > last && !self.source.owes_mark() {
                return self.finish();
            }
            let next = self.ship_one();
            if let Some(text) = self.source.remark().filter(|text| !self.told.contains(text)) {
                self.told.insert(text.clone());
                (self.monitor)(Note::Warning(text));
            }
            if next.is_err() {
                // What comes before a gap or damage is good; the verdict matters more than a link that is gone, too.
                let _ = self.outlet.flush();
            }
            match next? {
                Next::More => {}
                Next::Finish => return self.finish(),
                Next::Wait => {
                    self.ledger.sync()?;
                    self.report_current();
                    if self.options.once || self.stop.is_asked() {
                        return self.finish();
                    }
                    self.wait()?;
                }
            }
            if self.beat.elapsed() >= self.options.heartbeat {
                self.heartbeat()?;
            }
        }
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
            if self.options.once || self.stop.is_asked() {
                return Ok(false);
            }
            self.check_receiver()?;
            (self.monitor)(Note::Alive);
            self.wait()?;
            if self.beat.elapsed() >= self.options.heartbeat {
                self.heartbeat()?;
            }
        };
        self.send_aux()?;
        match located {
            Located::Here(begin) => {
                (self.monitor)(Note::FoundPosition(begin.position));
                self.send_begin(begin)?;
                Ok(true)
            }
            // The receiver judges by its own bytes, and may be told to set them aside.
            Located::Differs(begin, why) => {
                self.send_begin(begin)?;
                self.refused(why)
            }
        }
    }

    /// Looks for the receiver's place. Proving it may mean to read much: heartbeats go out meanwhile.
    fn locate(&mut self, start: Start) -> Result<Option<Located>> {
        let Lane { source, outlet, ledger, options, beat, monitor, .. } = self;
        source.locate(start, ledger, &mut |end| {
            (monitor)(Note::Alive);
            if beat.elapsed() < options.heartbeat {
                return Ok(());
            }
            *beat = Instant::now();
            outlet.send(&Message::Heartbeat { end, clock: clock::now() })?;
            outlet.flush()
        })
    }

    /// Waits for the receiver's own verdict, where it can tell it.
    fn refused(&mut self, why: String) -> Result<bool> {
        self.outlet.flush()?;
        let deadline = Instant::now() + self.options.timeout;
        while let Some(tracker) = self.tracker
            && Instant::now() < deadline
        {
            if let Some(ended) = tracker.ended() {
                return ended.error();
            }
            if tracker.has_gone_back() {
                return Ok(true);
            }
            self.bell.wait_until(deadline.min(Instant::now() + Duration::from_millis(500)));
        }
        Err(Failure::new(Code::Diverged, why)
            .hint("look at both; then repl-apply --set-aside keeps the replica's tail under .repl/set-aside, or resync")
            .into())
    }

    /// Small files beside the log come before the segments that need them.
    fn send_aux(&mut self) -> Result<()> {
        for (name, bytes) in self.source.aux()? {
            let is_wanted = match &self.options.only {
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
        (self.monitor)(Note::Processing(begin.position.segment));
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
        let Lane { source, outlet, ledger, .. } = self;
        match source.next(ledger)? {
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
            }
            Piece::Begin(begin) => {
                if let Some(before) = begin.previous.map(|previous| previous.segment)
                    && before.generation != begin.position.segment.generation
                {
                    let next = begin.position.segment;
                    let text = format!(
                        "generation {} ends with segment {before}, the log goes on with {next}",
                        before.generation
                    );
                    (self.monitor)(Note::Warning(text));
                    self.send_aux()?;
                }
                (self.monitor)(Note::Progress { sent: self.sent, left: self.source.left() });
                self.send_begin(begin)?;
            }
            Piece::Patch { offset, byte } => outlet.send(&Message::Patch { offset, bytes: &[byte] })?,
            Piece::End(Previous { segment, length, digest }) => {
                outlet.send(&Message::End { length, digest })?;
                ledger.remember(Previous { segment, length, digest })?;
            }
            Piece::Idle => return Ok(Next::Wait),
            Piece::Done => return Ok(Next::Finish),
        }
        Ok(Next::More)
    }

    fn report_current(&mut self) {
        if !std::mem::replace(&mut self.is_current, true) {
            (self.monitor)(Note::UpToDate(self.time));
            (self.monitor)(Note::Progress { sent: self.sent, left: 0 });
        }
    }

    /// Waits for news, at most until the next look is due.
    fn wait(&mut self) -> Result<()> {
        self.outlet.flush()?;
        let now = Instant::now();
        let look = now + self.options.poll;
        self.bell.wait_until(look.min(self.beat + self.options.heartbeat));
        if self.listed.elapsed() >= self.options.poll.max(Duration::from_secs(1)) {
            self.listed = Instant::now();
            self.source.list()?;
        }
        Ok(())
    }

    fn heartbeat(&mut self) -> Result<()> {
        self.beat = Instant::now();
        self.ledger.sync()?;
        let end = self.source.end()?;
        self.outlet.send(&Message::Heartbeat { end: end.unwrap_or(NOTHING), clock: clock::now() })?;
        self.outlet.flush()?;
        (self.monitor)(Note::Progress { sent: self.sent, left: self.source.left() });
        (self.pulse)(self.source.position(), end)
    }

    /// Says good-bye, then waits for what the policy asks for.
    fn finish(mut self) -> Result<()> {
        self.ledger.sync()?;
        let at = self.source.position();
        let end = self.source.end()?.or(at);
        self.outlet.send(&Message::Bye { end: end.unwrap_or(NOTHING) })?;
        self.outlet.flush()?;
        (self.monitor)(Note::Detail(format!("{} bytes of log, {} bytes of stream", self.sent, self.outlet.written())));
        let last = self.source.last_byte();
        let Lane { outlet, tracker, options, bell, pulse, .. } = self;
        // The end of the stream is the receiver's to see, too.
        drop(outlet);
        pulse(at, end)?;
        let (Some(tracker), Some(last)) = (tracker, last) else {
            return Ok(());
        };
        let deadline = Instant::now() + options.ack_timeout;
        while options.ack != Ack::None && !tracker.has_flushed(last) {
            if let Some(ended) = tracker.ended() {
                return ended.error();
            }
            if Instant::now() >= deadline {
                return fail(
                    Code::Unconfirmed,
                    format!("not acknowledged in time: {last} is not known to be on the receiver's disk"),
                );
            }
            bell.wait_until(deadline);
        }
        pulse(at, end)
    }
}
