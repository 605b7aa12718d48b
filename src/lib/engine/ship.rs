//! Ships a log: reads it in order, sends it to one receiver, and keeps the link up.
//!
//! A receiver is a pipe (one-way, with or without acknowledgements by a fifo) or a command that is started for it. A
//! command whose link fails is started again, with back-off, for ever when following; what the receiver itself refuses
//! is final. The log directory is never written to.

mod choice;
mod lane;
pub mod ledger;
pub mod outlet;
mod release;
mod source;
pub mod status;
mod tracker;
mod via;

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::lane::Lane;
use self::ledger::Ledger;
use self::outlet::{Compress, Outlet};
use self::release::Releasing;
use self::source::Source;
pub use self::status::Status;
use self::tracker::Tracker;
use super::note::{Monitor, Note};
use super::release::Release;
use super::{log, site};
use crate::edge::bell::Bell;
use crate::edge::dir::Dir;
use crate::edge::link::{Far, Inlet, Outgoing};
use crate::edge::signal::Stop;
use crate::edge::watch::Watch;
use crate::rule::scheme::Scheme;
use crate::rule::stream::back::Welcome;
use crate::rule::stream::hello::Hello;
use crate::rule::stream::message::Message;
use crate::value::exit::{Code, Failure, code_of};
use crate::value::position::{Position, Segment, Start};
use crate::value::time::Until;

/// Which acknowledgements count as durable. With one receiver they differ only in whether one is waited for; the master
/// counts as one that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// None: sent is enough.
    None,
    /// One receiver has flushed.
    One,
    /// A majority of all sites, this one included, has flushed.
    Quorum,
    /// All receivers have flushed.
    All,
    /// All receivers that are connected have flushed.
    AllAvailable,
}

/// The one thing to ship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Only {
    /// A segment.
    Segment(Segment),
    /// A small file beside the log.
    Aux(String),
}

/// Everything that `repl-ship` can be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Engine and pattern.
    pub scheme: Scheme,
    /// Name of the set; empty for none.
    pub set: String,
    /// Name of this site, for messages; may be empty.
    pub site: String,
    /// Epoch of this master.
    pub epoch: u64,
    /// Where to start, in a pipe.
    pub from: Start,
    /// Ship what is complete, then end.
    pub once: bool,
    /// Only this, which is finished.
    pub only: Option<Only>,
    /// Where to end.
    pub until: Option<Until>,
    /// Only up to the last boundary.
    pub commit_only: bool,
    /// Sync the source before its bytes are sent.
    pub sync_source: bool,
    /// Compression.
    pub compress: Compress,
    /// Bytes per second.
    pub bwlimit: Option<u64>,
    /// Longest time between two looks.
    pub poll: Duration,
    /// Look when told of changes, too.
    pub watch: bool,
    /// What to wait for at the end.
    pub ack: Ack,
    /// How long.
    pub ack_timeout: Duration,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a peer counts as dead.
    pub timeout: Duration,
    /// How long a failing link is retried with `once`.
    pub retry_for: Duration,
}

/// Where the stream goes.
pub enum To {
    /// A descriptor, one-way.
    Output(File),
    /// A descriptor, with acknowledgements from a fifo.
    OutputWithAcks(File, File),
    /// A command that is started, and started again.
    Via(Far),
}

const PIECE: usize = 1 << 18;
/// Longest wait that the service manager's watchdog is not told of.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// How long a receiver may take to end after its input has.
const PARTING: Duration = Duration::from_secs(30);

/// Ships until the end that the options set, the receiver refuses, or the link is given up.
pub fn run(dir: &Dir, to: To, options: &Options, ship: Shipping<'_>) -> Result<()> {
    let Shipping { ledger, mut status, release, state, bell, stop, monitor } = ship;
    check_taken_up(dir, options, monitor)?;
    let _watch = start_watch(dir, options, &bell, monitor);
    let releasing = release.as_ref().map(|_| Releasing::default());
    let status = &mut status;
    let releasing = releasing.as_ref();
    let mut parts = Parts { dir, options, ledger, status, releasing, bell: &bell, stop, monitor, stands: None };
    if let Some(release) = &release {
        release.prepare()?;
    }
    std::thread::scope(|scope| {
        if let (Some(release), Some(releasing)) = (&release, releasing) {
            scope.spawn(|| releasing.run(release, dir, &options.scheme, state, monitor));
        }
        let shipped = match to {
            To::Output(out) => parts.ship(out, Box::new(|| false), None, options.from),
            To::OutputWithAcks(out, acks) => parts.pipe(out, acks),
            To::Via(far) => parts.keep_up(&far),
        };
        releasing.inspect(|releasing| releasing.end());
        shipped
    })
}

/// What `run` works with beside its options.
pub struct Shipping<'a> {
    /// Memory of shipped segments.
    pub ledger: &'a mut Ledger,
    /// Where progress is kept for others to read.
    pub status: Option<Status>,
    /// How the master gives up log that is flushed at the receiver.
    pub release: Option<Release>,
    /// The state directory: consumers that are named there need log, too.
    pub state: Option<&'a Dir>,
    /// Rung by signals and by changes in the directory.
    pub bell: Bell,
    /// Whether an end was asked for.
    pub stop: &'a Stop,
    /// Where notes go.
    pub monitor: &'a Monitor,
}

/// A receiver that was started here, and never attached, has proven nothing, so nothing is shipped on. That must not look
/// like a log in which all is shipped: it may be a master's directory that a receiver was given by mistake.
fn check_taken_up(dir: &Dir, options: &Options, monitor: &Monitor) -> Result<()> {
    let Some(state) = site::peek_receiver(dir)? else {
        return Ok(());
    };
    if site::origin(&state)?.is_some() || site::holding(&state)?.is_some() || !has_bytes(dir, options)? {
        return Ok(());
    }
    let text =
        format!("{}: a receiver was started here and holds nothing, so nothing is shipped", dir.path().display());
    if !options.once {
        (monitor)(Note::Warning(text));
        return Ok(());
    }
    let hint = "ship to this replica first; or, if this is a master's log, move its .repl away";
    Err(Failure::new(Code::Failed, text).hint(hint).into())
}

fn has_bytes(dir: &Dir, options: &Options) -> Result<bool> {
    for name in dir.names()? {
        let Some(segment) = name.to_str().and_then(|name| options.scheme.segment(name)) else {
            continue;
        };
        if let Some(file) = dir.open_read(&options.scheme.name(segment))?
            && file.metadata()?.len() > 0
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn start_watch(dir: &Dir, options: &Options, bell: &Bell, monitor: &Monitor) -> Option<Watch> {
    if !options.watch || options.once {
        return None;
    }
    match Watch::start(dir.path(), bell.clone()) {
        Ok(watch) => Some(watch),
        Err(error) => {
            let every = options.poll.as_millis();
            (monitor)(Note::Warning(format!("{error:#}; looking every {every} ms instead")));
            None
        }
    }
}

struct Parts<'a> {
    dir: &'a Dir,
    options: &'a Options,
    ledger: &'a mut Ledger,
    status: &'a mut Option<Status>,
    releasing: Option<&'a Releasing>,
    bell: &'a Bell,
    stop: &'a Stop,
    monitor: &'a Monitor,
    /// Where the receiver stood at its last greeting.
    stands: Option<Position>,
}

impl Parts<'_> {
    /// Ships over one connection. `give_up` is asked while the receiver takes nothing.
    fn ship(
        &mut self,
        out: impl AsFd,
        give_up: Box<dyn Fn() -> bool + Send>,
        tracker: Option<&Tracker>,
        start: Start,
    ) -> Result<()> {
        let options = self.options;
        let rate = options.bwlimit;
        let piece = rate.map_or(PIECE, |rate| (rate / 4).clamp(256, PIECE as u64) as usize);
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
        let source = Source::new(self.dir.try_clone()?, options.scheme.clone(), reading)?;
        let mut outlet = Outlet::open(Outgoing::new(out, give_up), options.compress, rate)?;
        outlet.send(&Message::Hello(self.hello()?.print().as_bytes()))?;
        let status = &mut *self.status;
        let releasing = self.releasing;
        let mut pulse = |at: Option<Position>, end: Option<Position>| {
            let ack = tracker.map(Tracker::ack);
            if let Some(status) = status {
                status.pulse(at, end, ack);
            }
            releasing.map_or(Ok(()), |releasing| releasing.flushed(status::proven(at, ack)))
        };
        pulse(None, None)?;
        let lane =
            Lane::new(source, outlet, tracker, self.ledger, options, self.bell, self.stop, self.monitor, &mut pulse);
        lane.run(start)
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
        })
    }

    /// A pipeline that the shell built, with a fifo for the way back.
    fn pipe(&mut self, out: File, acks: File) -> Result<()> {
        let tracker = Tracker::default();
        let (heard, bell) = (tracker.clone(), self.bell.clone());
        let inlet = Inlet::new(acks, self.options.timeout, None);
        // Not joined: it ends with the fifo's writer, which may outlive us.
        std::thread::Builder::new().name("acks".into()).spawn(move || heard.listen(inlet, &bell, &|| {}))?;
        let start = match self.greeting(&tracker)? {
            Some(welcome) => self.start(&welcome),
            None => return Ok(()),
        };
        let lost = tracker.clone();
        let shipped = self.ship(out, Box::new(move || lost.ended().is_some()), Some(&tracker), start);
        self.part(&tracker, shipped.is_ok() && self.options.ack != Ack::None);
        match tracker.ended().filter(|ended| ended.said) {
            Some(ended) => shipped.and_then(|()| ended.clone().error()).or_else(|error| Self::said(&tracker, error)),
            None => shipped,
        }
    }

    /// Waits for the receiver's last word. One that has been told good-bye may still be feeding its database; it shows
    /// that it lives, and its silence ends the waiting. A broken link's last word comes at once, if it comes.
    fn part(&self, tracker: &Tracker, is_orderly: bool) {
        let began = Instant::now();
        while tracker.ended().is_none() {
            let patience = match (is_orderly, self.stop.is_asked()) {
                (true, false) => Duration::MAX,
                (true, true) => PARTING,
                (false, _) => SIGN_OF_LIFE,
            };
            if began.elapsed() >= patience {
                return;
            }
            self.wait_alive(Instant::now() + SIGN_OF_LIFE);
        }
    }

    /// Prefers what the receiver said over the broken pipe that followed from it, and our own verdict over what the
    /// receiver says of a stream that ended because of it.
    fn said<T>(tracker: &Tracker, error: anyhow::Error) -> Result<T> {
        match tracker.ended() {
            Some(ended) if ended.said && !is_own_verdict(&error) => ended.error(),
            _ => Err(error),
        }
    }

    /// Where a stream to this receiver begins: where it stands, or with the one segment that was named.
    fn start(&self, welcome: &Welcome) -> Start {
        if self.options.only.is_some() { self.options.from } else { welcome.at }
    }

    /// Waits for the greeting, as long as a silence may last; `None` when an end was asked for meanwhile.
    fn greeting(&self, tracker: &Tracker) -> Result<Option<Welcome>> {
        loop {
            if let Some(welcome) = tracker.welcome() {
                return Ok(Some(welcome));
            }
            if let Some(ended) = tracker.ended() {
                return ended.error();
            }
            if self.stop.is_asked() {
                return Ok(None);
            }
            self.wait_alive(Instant::now() + SIGN_OF_LIFE);
        }
    }

    /// Waits for a time, through rings, unless an end is asked for.
    fn rest(&self, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline && !self.stop.is_asked() {
            self.wait_alive(deadline);
        }
    }

    /// Waits for a ring, not for long: a receiver that is away must not look like a sender that hangs.
    fn wait_alive(&self, deadline: Instant) {
        (self.monitor)(Note::Alive);
        self.bell.wait_until(deadline.min(Instant::now() + SIGN_OF_LIFE));
    }
}

/// Whether an error is about our own log, so that whatever the receiver says after it only follows from it.
fn is_own_verdict(error: &anyhow::Error) -> bool {
    let code = code_of(error);
    // A full disk here cuts the stream, which is all that the receiver can know of it.
    code == Code::Full || (!code.is_transient() && code != Code::Unconfirmed)
}
