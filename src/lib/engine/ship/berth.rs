//! One receiver's side of shipping: a pipe, or a command that is kept running, and all that its lane works with.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::board::{Board, Facts, Id};
use super::fleet::Goal;
use super::lane::Lane;
use super::ledger::Ledger;
use super::orders::Orders;
use super::outlet::Outlet;
use super::reader::Reader;
use super::release::Releasing;
use super::source::{self, Source};
use super::tap::Tap;
use super::tracker::Tracker;
use super::{Only, Options, To};
use crate::edge::dir::Dir;
use crate::edge::link::{Inlet, Outgoing};
use crate::engine::log;
use crate::engine::note::{Monitor, Note};
use crate::rule::quorum::Policy;
use crate::rule::stream::back::{Line, Welcome};
use crate::rule::stream::hello::Hello;
use crate::rule::stream::message::Message;
use crate::value::exit::{Code, code_of};
use crate::value::position::Start;

const PIECE: usize = 1 << 18;
/// How long a receiver may take to end after its input has.
pub(super) const PARTING: Duration = Duration::from_secs(30);

/// What a lane works with, and which receiver it is for.
pub(super) struct Berth<'a> {
    pub(super) dir: &'a Dir,
    pub(super) options: &'a Options,
    pub(super) ledger: &'a Ledger,
    pub(super) board: &'a Arc<Board>,
    pub(super) id: Id,
    /// The shared reader, where there can be others.
    pub(super) tap: Option<&'a Tap>,
    pub(super) goal: &'a Goal,
    pub(super) releasing: Option<&'a Releasing>,
    pub(super) orders: &'a Orders,
    pub(super) monitor: &'a Monitor,
}

impl Berth<'_> {
    /// Ships to this receiver until the end.
    pub(super) fn ship_to(&self, to: To) -> Result<()> {
        match to {
            To::Output(out) => self.ship(out, Box::new(|| false), None, self.options.from),
            To::OutputWithAcks(out, acks) => self.pipe(out, acks),
            To::Via(far) => self.keep_up(&far),
        }
    }

    /// Ships over one connection. `give_up` is asked while the receiver takes nothing.
    pub(super) fn ship(
        &self,
        out: impl AsFd,
        give_up: Box<dyn Fn() -> bool + Send>,
        tracker: Option<&Tracker>,
        start: Start,
    ) -> Result<()> {
        let options = self.options;
        let rate = options.bwlimit;
        let piece = rate.map_or(PIECE, |rate| (rate / 4).clamp(256, PIECE as u64) as usize);
        let open = || self.source(piece);
        let joining = self.tap.map(Tap::lane);
        let reader = Reader::new(&open, joining.as_ref())?;
        let mut outlet = Outlet::open(Outgoing::new(out, give_up), options.compress, rate)?;
        outlet.send(&Message::Hello(self.hello()?.print().as_bytes()))?;
        Lane::new(reader, outlet, tracker, self).run(start)
    }

    fn source(&self, piece: usize) -> Result<Source> {
        source(self.dir, self.options, piece)
    }

    fn hello(&self) -> Result<Hello> {
        let options = self.options;
        let segments = log::segments(self.dir, &options.scheme, |_| false)?;
        let fingerprint = match segments.values().next().map(|name| self.dir.open_read(name)).transpose()?.flatten() {
            Some(oldest) => options.scheme.fingerprint(&log::head(&oldest)?),
            None => String::new(),
        };
        Ok(Hello {
            set: options.set.clone(),
            scheme: options.scheme.clone(),
            epoch: options.epoch,
            fingerprint,
            site: options.site.clone(),
            instance: options.instance.clone(),
        })
    }

    /// Lets the master give up what all receivers have. An error means that it has given up more by itself.
    pub(super) fn release(&self) -> Result<()> {
        self.releasing.map_or(Ok(()), |releasing| releasing.flushed(self.board.look(Facts::least)))
    }

    /// A pipeline that the shell built, with a fifo for the way back.
    fn pipe(&self, out: File, acks: File) -> Result<()> {
        let tracker = Tracker::default();
        let (heard, bell) = (tracker.clone(), self.orders.bell.clone());
        let inlet = Inlet::new(acks, self.options.timeout, None);
        let news = self.news();
        // Not joined: it ends with the fifo's writer, which may outlive us.
        std::thread::Builder::new().name("acks".into()).spawn(move || heard.listen(inlet, &bell, &|| {}, &news))?;
        let start = match self.greeting(&tracker)? {
            Some(welcome) => self.start(&welcome),
            None => return Ok(()),
        };
        let lost = tracker.clone();
        let shipped = self.ship(out, Box::new(move || lost.ended().is_some()), Some(&tracker), start);
        self.part(&tracker, shipped.is_ok() && self.options.ack != Policy::None);
        match tracker.ended().filter(|ended| ended.said) {
            Some(ended) => shipped.and_then(|()| ended.clone().error()).or_else(|error| said(&tracker, error)),
            None => shipped,
        }
    }

    /// What is done with each line that the receiver says.
    pub(super) fn news(&self) -> impl Fn(&Line) + Send + use<> {
        let (board, id) = (Arc::clone(self.board), self.id);
        move |line| match line {
            Line::Welcome(welcome) => board.greeted(id, welcome),
            Line::Ack(ack) => board.heard(id, *ack),
            Line::Refuse(..) => {}
        }
    }

    /// Waits for the receiver's last word. One that has been told good-bye may still be feeding its database; it shows
    /// that it lives, and its silence ends the waiting. A broken link's last word comes at once, if it comes.
    pub(super) fn part(&self, tracker: &Tracker, is_orderly: bool) {
        let began = Instant::now();
        while tracker.ended().is_none() {
            let patience = match (is_orderly, self.orders.is_ending()) {
                (true, false) => Duration::MAX,
                (true, true) => PARTING,
                (false, _) => super::SIGN_OF_LIFE,
            };
            if began.elapsed() >= patience || self.orders.is_abandoned() {
                return;
            }
            self.wait_alive();
        }
    }

    /// Where a stream to this receiver begins: where it stands, or with the one segment that was named.
    pub(super) fn start(&self, welcome: &Welcome) -> Start {
        if self.options.only.is_some() { self.options.from } else { welcome.at }
    }

    /// Waits for the greeting, as long as a silence may last; `None` when an end was asked for meanwhile.
    pub(super) fn greeting(&self, tracker: &Tracker) -> Result<Option<Welcome>> {
        loop {
            if let Some(welcome) = tracker.welcome() {
                return Ok(Some(welcome));
            }
            if let Some(ended) = tracker.ended() {
                return ended.error();
            }
            if self.orders.is_ending() {
                return Ok(None);
            }
            self.wait_alive();
        }
    }

    /// Waits for a ring, not for long: a receiver that is away must not look like a sender that hangs.
    fn wait_alive(&self) {
        (self.monitor)(Note::Alive);
        self.orders.bell.wait_until(Instant::now() + super::SIGN_OF_LIFE);
    }
}

/// A reader of the log, which hands out pieces of this size at most.
pub(super) fn source(dir: &Dir, options: &Options, piece: usize) -> Result<Source> {
    let reading = source::Options {
        sync: options.sync_source,
        commit_only: options.commit_only,
        until: options.until,
        only: match options.only {
            Some(Only::Segment(segment)) => Some(segment),
            _ => None,
        },
        piece,
    };
    Source::new(dir.try_clone()?, options.scheme.clone(), reading)
}

/// Prefers what the receiver said over the broken pipe that followed from it, and our own verdict over what the receiver
/// says of a stream that ended because of it.
fn said<T>(tracker: &Tracker, error: anyhow::Error) -> Result<T> {
    match tracker.ended() {
        Some(ended) if ended.said && !is_own_verdict(&error) => ended.error(),
        _ => Err(error),
    }
}

/// Whether an error is about our own log, so that whatever the receiver says after it only follows from it.
pub(super) fn is_own_verdict(error: &anyhow::Error) -> bool {
    let code = code_of(error);
    // A full disk here cuts the stream, which is all that the receiver can know of it.
    code == Code::Full || (!code.is_transient() && code != Code::Unconfirmed)
}
