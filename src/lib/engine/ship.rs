//! Ships a log: reads it in order, sends it to one receiver or to many, and keeps the links up.
//!
//! A receiver is a pipe (one-way, with or without acknowledgements by a fifo) or a command that is started for it. A
//! command whose link fails is started again, with back-off, for ever when following; what the receiver itself refuses
//! is final. Of many each has a lane of its own, and goes at its own pace; those that are up to date are read for once
//! ([`tap`]). What all of them have and say stands on the [`board`]. The log directory is never written to.

mod berth;
mod board;
mod choice;
pub mod earlier;
mod fleet;
mod lane;
pub mod ledger;
mod orders;
pub mod outlet;
mod reader;
mod release;
mod source;
pub mod status;
mod tap;
mod tracker;
mod via;
pub mod wait;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use self::board::Board;
use self::fleet::{Fleet, Goal};
use self::ledger::Ledger;
use self::outlet::Compress;
use self::release::Releasing;
pub use self::status::Status;
use self::tap::{Tap, WINDOW};
use self::wait::Desk;
use super::note::{Monitor, Note};
use super::release::Release;
use super::site;
use crate::edge::bell::Bell;
use crate::edge::dir::Dir;
use crate::edge::link::Far;
use crate::edge::signal::{Stop, Wish};
use crate::edge::watch::Watch;
use crate::rule::instance::Instance;
use crate::rule::quorum::Policy;
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure};
use crate::value::position::{Segment, Start};
use crate::value::time::Until;

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
    /// Which of its databases this is.
    pub instance: Option<Instance>,
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
    /// Whose acknowledgements make log durable enough.
    pub ack: Policy,
    /// How long that may take.
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

/// One receiver, and what its word counts for.
pub struct Receiver {
    /// What it is called: in messages, in the status, and for operators. No secret is in it.
    pub name: String,
    /// How it is reached, as state files have it.
    pub shown: String,
    /// How it is reached.
    pub to: To,
    /// Whether its acknowledgements count.
    pub acks: bool,
    /// Its votes in an election.
    pub votes: u32,
    /// Whether and how gladly it becomes the master: 0 is never.
    pub priority: u32,
}

impl Receiver {
    /// One that only this command line knows of.
    pub fn new(name: &str, shown: &str, to: To) -> Receiver {
        Receiver { name: name.to_owned(), shown: shown.to_owned(), to, acks: true, votes: 1, priority: 1 }
    }

    /// The same once more, where it can be started again.
    fn again(&self) -> Option<Receiver> {
        let To::Via(far) = &self.to else {
            return None;
        };
        let Receiver { name, shown, acks, votes, priority, .. } = self;
        let (name, shown, to) = (name.clone(), shown.clone(), To::Via(far.clone()));
        Some(Receiver { name, shown, to, acks: *acks, votes: *votes, priority: *priority })
    }

    /// What makes it another receiver when it changes.
    fn key(&self) -> String {
        let Receiver { name, shown, acks, votes, priority, .. } = self;
        format!("{acks} {votes} {priority} {name}\n{shown}")
    }

    #[cfg(test)]
    fn command(name: &str) -> Receiver {
        Receiver::new(name, name, To::Via(Far::Command(String::new())))
    }
}

/// Longest wait that the service manager's watchdog is not told of.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// Ships until the end that the options set, the receivers refuse, or their links are given up.
pub fn run(dir: &Dir, receivers: Vec<Receiver>, options: &Options, ship: Shipping<'_>) -> Result<()> {
    let Shipping { ledger, mut status, release, state, calls, monitor } = ship;
    check_taken_up(dir, options, monitor)?;
    // Log is the lanes' business: whoever waits by the bell of the calls sleeps on.
    let news = calls.bell.follower();
    let _watch = start_watch(dir, options, &news, monitor);
    let releasing = release.as_ref().map(|_| Releasing::default());
    let releasing = releasing.as_ref();
    if let Some(release) = &release {
        release.prepare()?;
    }
    let board = Arc::new(Board::new(options.ack, options.ack_timeout));
    let open = || berth::source(dir, options, LOOK);
    let desk = Desk::new(&board, dir, &options.scheme, &open);
    let (tap, goal) = (Tap::new(WINDOW), Goal::default());
    let fleet = Fleet {
        dir,
        options,
        ledger: &ledger,
        board: &board,
        tap: &tap,
        goal: &goal,
        desk: &desk,
        releasing,
        // Only the one that keeps the state is paused by it.
        state: state.filter(|_| status.is_some() && !options.once),
        calls: &calls,
        news: &news,
        monitor,
    };
    let crew = fleet.gather(receivers, &mut status);
    std::thread::scope(|scope| {
        if let (Some(release), Some(releasing)) = (&release, releasing) {
            scope.spawn(|| releasing.run(release, dir, &options.scheme, state, monitor));
        }
        if let (Some(state), Some(_)) = (state, &status) {
            scope.spawn(|| desk.run(state, monitor));
        }
        let shipped = fleet.run(crew, &mut status);
        board.end();
        releasing.inspect(|releasing| releasing.end());
        shipped
    })
}

/// What `run` works with beside its options.
pub struct Shipping<'a> {
    /// Memory of shipped segments.
    pub ledger: Ledger,
    /// Where progress is kept for others to read; only by the one sender that keeps the state directory.
    pub status: Option<Status>,
    /// How the master gives up log that is flushed at all receivers.
    pub release: Option<Release>,
    /// The state directory: consumers that are named there need log, too.
    pub state: Option<&'a Dir>,
    /// What may come from outside.
    pub calls: Calls<'a>,
    /// Where notes go.
    pub monitor: &'a Monitor,
}

/// What may come from outside while it ships.
pub struct Calls<'a> {
    /// Rung by signals.
    pub bell: Bell,
    /// Whether an end was asked for.
    pub stop: &'a Stop,
    /// Whether an immediate look was.
    pub look: Wish,
    /// Whether to read the receivers again, and from where.
    pub reload: Option<(Wish, &'a Read<'a>)>,
}

/// Reads who the receivers are.
pub type Read<'a> = dyn Fn() -> Result<Vec<Receiver>> + 'a;

/// Bytes of a look at the log's end.
const LOOK: usize = 1 << 16;

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
