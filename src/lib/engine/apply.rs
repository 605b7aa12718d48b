//! Receives a stream: greets, proves its beginning, lands it, acknowledges what is durable, and feeds the database.
//!
//! Three threads, so that none waits for another: this one reads and lands, one makes durable and acknowledges
//! ([`commit`]), one feeds ([`feed`]). It never opens anything outside its directory and its state.

mod aside;
mod commit;
pub mod feed;
mod frames;
mod heard;
mod land;
pub(in crate::engine) mod mariadb;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

use self::commit::Commit;
use self::feed::Feed;
use self::frames::{Frames, refused};
use self::heard::Heard;
use self::land::Landing;
pub use self::land::{Differing, Sync};
use super::archive::BASES;
use super::note::{Monitor, Note};
use super::role::{self, pause::Direction};
use super::site::master::Master;
use super::site::{self, Holding, Origin, STATE, Site};
use crate::edge::bell::Bell;
use crate::edge::dir::{Dir, UNNAMED};
use crate::edge::lock::Lock;
use crate::edge::signal::Stop;
use crate::rule::scheme::{Kind, Scheme};
use crate::rule::stream::back::{Line, Welcome};
use crate::rule::stream::hello::Hello;
use crate::rule::stream::message::Message;
use crate::value::escape::{show, show_bytes};
use crate::value::exit::{Code, Failure, code_of, fail};
use crate::value::position::{Position, Start};

/// Everything that `repl-apply` can be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Refuse streams of another engine or pattern.
    pub kind: Option<Kind>,
    /// Refuse streams of another set.
    pub set: Option<String>,
    /// Name of this site, for the greeting.
    pub site: String,
    /// Where state is kept instead of `LOGDIR/.repl`.
    pub state: Option<PathBuf>,
    /// Nothing that exists may be changed.
    pub append_only: bool,
    /// What may happen to bytes of ours that differ.
    pub differing: Differing,
    /// Take a directory that has foreign files in it, and another instance than the one that has shipped here.
    pub adopt: bool,
    /// When to make durable.
    pub sync: Sync,
    /// How to feed a database.
    pub feed: Option<feed::Options>,
    /// Kept in the history with what was forced.
    pub reason: Option<String>,
}

/// Aux files that may come before the beginning is proven.
const AUX_EARLY: usize = 1024;
/// Bytes of log after which a sync is due though more is at hand.
const AT_HAND: usize = 1 << 20;

/// The back channel: writes one line, at once.
pub type Back = Box<dyn FnMut(&Line) -> io::Result<()> + Send>;

/// What `repl-apply --position` prints, without a lock or a change.
pub fn position(dir: &Dir, state: Option<&std::path::Path>) -> Result<Start> {
    let holding = match site::peek(dir, state)? {
        Some(state) => site::holding(&state)?,
        None => None,
    };
    Ok(holding.map_or(Start::Oldest, |holding| Start::At(holding.bookmark())))
}

/// Receives one stream to its end. A refusal is also told on the back channel.
pub fn run(
    dir: &Dir,
    input: impl Read,
    back: Option<Back>,
    options: &Options,
    stop: &Stop,
    monitor: &Monitor,
) -> Result<()> {
    let back = back.map(|back| Arc::new(Mutex::new(back)));
    let result = receive(dir, input, back.as_ref(), options, stop, monitor);
    if let (Err(error), Some(back)) = (&result, &back) {
        // A sender that is gone cannot be told; the exit code says it too.
        let _ = back.lock()(&Line::Refuse(code_of(error), format!("{error:#}")));
    }
    result
}

fn receive(
    dir: &Dir,
    input: impl Read,
    back: Option<&Arc<Mutex<Back>>>,
    options: &Options,
    stop: &Stop,
    monitor: &Monitor,
) -> Result<()> {
    let state = match &options.state {
        Some(path) => Dir::create(path)?,
        None => dir.subdir(STATE)?,
    };
    // The directory itself is locked too, so that two writers with different --state cannot meet.
    let _locks = (Lock::take(&state, "lock")?, Lock::take_directory(dir)?);
    let (site, origin, holding) = Site::open(state.try_clone()?)?;
    let applied = site::applied(&state)?;
    if let Some(back) = back {
        let welcome = welcome(&state, origin.as_ref(), holding, options)?;
        back.lock()(&Line::Welcome(welcome)).context("cannot greet")?;
    }
    let heard = Mutex::new(Heard::new(state.try_clone()?, &options.site));
    if options.feed.is_none() {
        heard.lock().fed();
    }
    let commit = Commit::new(holding, applied);
    let (site, bell, ending) = (Mutex::new(site), Bell::new(), AtomicBool::new(false));
    let acks = back.map(Arc::clone).map(|back| Box::new(move |ack| back.lock()(&Line::Ack(ack))) as commit::Acks);
    let result = std::thread::scope(|scope| {
        let committer = scope.spawn(|| commit.run(dir, &site, acks, &|| bell.ring()));
        let feeding = Mutex::new(None);
        let start_feed = |origin: &Origin| -> Result<()> {
            let mut feeding = feeding.lock();
            if let (Some(options), None) = (&options.feed, &*feeding) {
                let (state, origin, monitor) = (state.try_clone()?, origin.clone(), Arc::clone(monitor));
                let mut feed = Feed::new(options, dir, state, origin, &commit, &heard, monitor)?;
                let (bell, ending) = (&bell, &ending);
                *feeding = Some(scope.spawn(move || feed.run(bell, stop, &|| ending.load(Ordering::SeqCst))));
            }
            Ok(())
        };
        let session = Session { dir, site: &site, commit: &commit, heard: &heard, options, stop, monitor };
        let landed = session.land(input, origin, &start_feed);
        // The feed may still raise `applied`, so the commit thread is ended after it.
        commit.settle();
        ending.store(true, Ordering::SeqCst);
        bell.ring();
        let fed = match feeding.into_inner() {
            Some(thread) => thread.join().unwrap_or_else(|_| fail(Code::Failed, "the feeding thread failed")),
            None => Ok(()),
        };
        commit.end();
        let durable = committer.join().unwrap_or_else(|_| fail(Code::Failed, "the commit thread failed"));
        // What could not be made durable is the cause of whatever came after it.
        durable.and(landed).and(fed)
    });
    heard.into_inner().ended(&result, commit.standing());
    result
}

fn welcome(state: &Dir, origin: Option<&Origin>, holding: Option<Holding>, options: &Options) -> Result<Welcome> {
    Ok(Welcome {
        set: origin.map(|origin| origin.set.clone()).unwrap_or_default(),
        engine: origin.map(|origin| origin.scheme.engine().to_string()).unwrap_or_default(),
        site: options.site.clone(),
        epoch: site::epoch(state)?,
        at: holding.map_or(Start::Oldest, |holding| Start::At(holding.bookmark())),
        feeds: options.feed.is_some(),
    })
}

/// One stream.
struct Session<'a> {
    dir: &'a Dir,
    site: &'a Mutex<Site>,
    commit: &'a Commit,
    heard: &'a Mutex<Heard>,
    options: &'a Options,
    stop: &'a Stop,
    monitor: &'a Monitor,
}

impl Session<'_> {
    fn land(&self, input: impl Read, origin: Option<Origin>, start_feed: &dyn Fn(&Origin) -> Result<()>) -> Result<()> {
        if let Some(origin) = &origin {
            if let Some(feed) = &self.options.feed {
                feed.command.check(&origin.scheme)?;
            }
            start_feed(origin)?;
        }
        let mut frames = match Frames::open(input) {
            Err(_) if self.stop.is_asked() => return Ok(()),
            frames => frames?,
        };
        let hello = match frames.next() {
            Ok(Some(Message::Hello(payload))) => Hello::parse(payload).map_err(refused)?,
            Ok(Some(_)) => return fail(Code::Corrupt, "the stream does not begin with a hello"),
            Ok(None) | Err(_) if self.stop.is_asked() => return Ok(()),
            Ok(None) => return fail(Code::Link, "the stream ended before it said what it is"),
            Err(error) => return Err(error),
        };
        let origin = self.admit(&hello, origin)?;
        let mut landing =
            Landing::new(self.dir, hello.scheme.clone(), self.site, self.commit, Arc::clone(self.monitor));
        landing.sync = self.options.sync;
        landing.differing = self.options.differing;
        landing.reason.clone_from(&self.options.reason);
        landing.start = origin.as_ref().map(|origin| origin.start).max(self.horizon()?);
        let result = self.stream(&mut frames, &mut landing, &hello, origin, start_feed);
        let place = landing.place();
        landing.finish();
        if landing.compared() > 0 {
            (self.monitor)(Note::Detail(format!("{} bytes were there already and are equal", landing.compared())));
        }
        match result {
            Err(_) if self.stop.is_asked() => Ok(()),
            Err(error) if code_of(&error) == Code::Corrupt && place.is_some() => {
                let name = place.map(|at| format!("segment {} at {}", at.segment, at.offset)).unwrap_or_default();
                Err(error.context(format!("stream refused in {name}")))
            }
            result => result,
        }
    }

    /// A pause ends by itself one day, so a sender is told to come again, as by one that is busy.
    fn check_pause(&self) -> Result<()> {
        match role::paused(self.site.lock().dir(), Direction::Apply)? {
            Some(paused) => Err(paused.refusal(Code::Busy, Direction::Apply, self.dir).into()),
            None => Ok(()),
        }
    }

    /// Where what is kept begins, once something was pruned.
    fn horizon(&self) -> Result<Option<Position>> {
        Ok(site::horizon::read(self.site.lock().dir())?.map(|segment| segment.at(0)))
    }

    /// Checks who sends against what is pinned here, and this directory against foreign files.
    fn admit(&self, hello: &Hello, origin: Option<Origin>) -> Result<Option<Origin>> {
        if let Some(wanted) = self.options.kind.as_ref().filter(|wanted| !wanted.fits(&hello.scheme)) {
            let (ours, theirs) = (wanted.engine, hello.scheme.engine());
            return fail(
                Code::Fenced,
                format!("this site takes engine {ours} only (or another pattern), the stream is of {theirs}"),
            );
        }
        if let Some(set) = self.options.set.as_ref().filter(|set| **set != hello.set) {
            return fail(
                Code::Fenced,
                format!("this site takes set '{set}' only, the stream is of set '{}'", hello.set),
            );
        }
        let master = site::master::read(self.site.lock().dir())?;
        self.check_pause()?;
        let epoch = site::epoch(self.site.lock().dir())?.max(master.as_ref().map_or(0, |master| master.epoch));
        if hello.epoch < epoch {
            let text = format!(
                "the sender is of epoch {}, this site has seen epoch {epoch}: it is no longer the master",
                hello.epoch
            );
            return fail(Code::Fenced, text);
        }
        if let Some(feed) = &self.options.feed {
            feed.command.check(&hello.scheme)?;
        }
        if let Some(origin) = &origin {
            origin.admit(hello)?;
        }
        if let Some(master) = master.filter(|master| !self.options.adopt && master.is_another(hello)) {
            return Err(master.refusal().into());
        }
        let Some(origin) = origin else {
            self.guard(&hello.scheme)?;
            return Ok(None);
        };
        Ok(Some(origin))
    }

    /// Before the first attach: a directory that has files of something else in it is not ours to write into.
    fn guard(&self, scheme: &Scheme) -> Result<()> {
        if self.options.adopt {
            return self.site.lock().record("adopt", "foreign files were passed over", self.options.reason.as_deref());
        }
        for name in self.dir.names()? {
            let shown = show_bytes(name.as_encoded_bytes());
            let is_ours = match name.to_str() {
                Some(STATE | UNNAMED | "lost+found") => true,
                Some(BASES) => self.dir.open_subdir(BASES).is_ok(),
                Some(name) => scheme.segment(name).is_some() || self.is_side_file(scheme, name)?,
                None => false,
            };
            if !is_ours {
                return Err(Failure::new(
                    Code::Guarded,
                    format!("{} has a foreign file, {shown}", self.dir.path().display()),
                )
                .hint("use an empty directory, or repl-apply --adopt")
                .into());
            }
        }
        Ok(())
    }

    fn is_side_file(&self, scheme: &Scheme, name: &str) -> Result<bool> {
        let mut head = [0; 512];
        let count = match self.dir.open_read(name) {
            Ok(Some(file)) => io::Read::take(file, 512).read(&mut head).unwrap_or(0),
            Ok(None) => 0,
            // A directory, socket or link: only its name can speak for it.
            Err(error) if code_of(&error) == Code::Fenced => 0,
            Err(error) => return Err(error),
        };
        Ok(scheme.is_side_file(name, &head[..count]))
    }

    fn stream(
        &self,
        frames: &mut Frames<impl Read>,
        landing: &mut Landing<'_>,
        hello: &Hello,
        mut origin: Option<Origin>,
        start_feed: &dyn Fn(&Origin) -> Result<()>,
    ) -> Result<()> {
        let (mut attached, mut at_hand, mut until) = (false, 0, None);
        // What comes before the beginning is proven must wait: bounded, since few names are taken.
        let mut early: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        loop {
            if self.commit.is_failed() {
                return fail(Code::Failed, "what was received could not be made durable");
            }
            (self.monitor)(Note::Alive);
            // A frame that is at hand already is made durable by the same sync.
            let is_drained = frames.is_drained();
            if is_drained || at_hand > AT_HAND {
                self.commit.nudge();
                at_hand = 0;
            }
            let Some(message) = frames.next()? else {
                return fail(Code::Link, "the stream ended without an orderly end");
            };
            if is_drained {
                // It may have waited for this frame for long.
                self.check_pause()?;
            }
            match message {
                Message::Begin(begin) if !attached => {
                    if origin.is_some() {
                        // Before the master's history could pass for the one that was written here.
                        landing.check_role(begin.position.segment.generation)?;
                    }
                    landing.attach(&begin)?;
                    attached = true;
                    let pinned = self.pin(hello, origin.take(), begin.position)?;
                    landing.start = Some(pinned.start).max(self.horizon()?);
                    for (name, bytes) in std::mem::take(&mut early) {
                        self.aux(&hello.scheme, &name, &bytes)?;
                    }
                    landing.check_role(begin.position.segment.generation)?;
                    start_feed(&pinned)?;
                    let epoch = site::epoch(self.site.lock().dir())?;
                    self.heard.lock().attached(hello, epoch, begin.end, self.commit.standing());
                    (self.monitor)(Note::FoundPosition(begin.position));
                    (self.monitor)(Note::Ready);
                }
                Message::Begin(begin) => {
                    landing.check_role(begin.position.segment.generation)?;
                    landing.follow(&begin)?;
                    (self.monitor)(Note::Processing(begin.position.segment));
                }
                Message::Data { offset, bytes } => {
                    at_hand += bytes.len();
                    landing.data(offset, bytes)?;
                }
                Message::Hole { offset, length } => landing.hole(offset, length)?,
                Message::Mark { offset, time, digest } => {
                    landing.mark(offset, time, digest)?;
                    until = time;
                }
                Message::End { length, digest } => landing.end(length, digest)?,
                Message::Heartbeat { end, clock } => {
                    if let Some(at) = landing.place() {
                        landing.check_role(at.segment.generation)?;
                    }
                    landing.master_end(end)?;
                    self.commit.ask();
                    self.heard.lock().told(end, Some(clock), self.commit.standing());
                }
                Message::Bye { end } => {
                    landing.master_end(end)?;
                    for (name, bytes) in std::mem::take(&mut early) {
                        self.aux(&hello.scheme, &name, &bytes)?;
                    }
                    (self.monitor)(Note::UpToDate(until));
                    // A sender waits for this one, though everything may have been here before.
                    self.commit.ask();
                    self.heard.lock().told(end, None, self.commit.standing());
                    return Ok(());
                }
                Message::Aux { name, bytes } => {
                    if !hello.scheme.is_aux(name) {
                        return fail(Code::Corrupt, format!("aux file '{}' is not one of this engine's", show(name)));
                    }
                    if attached {
                        self.aux(&hello.scheme, name, bytes)?;
                    } else if early.len() < AUX_EARLY {
                        early.insert(name.to_owned(), bytes.to_vec());
                    } else {
                        return fail(Code::Corrupt, "too many aux files before the stream begins");
                    }
                }
                Message::Patch { offset, bytes } => landing.patch(offset, bytes)?,
                Message::Hello(_) => return fail(Code::Corrupt, "a second hello"),
                Message::Packed { .. } => return fail(Code::Corrupt, "compressed data was not unpacked"),
            }
        }
    }

    /// The first attach pins what the stream is of; who ships, a set's first name and a newer epoch are kept.
    fn pin(&self, hello: &Hello, origin: Option<Origin>, start: Position) -> Result<Origin> {
        let mut site = self.site.lock();
        if let Some(instance) = hello.instance.clone() {
            // Before the epoch: a crash in between must not leave a new epoch that is open to any instance.
            site.set_master(&Master { instance, epoch: hello.epoch }, self.options.reason.as_deref())?;
        }
        if hello.epoch > site::epoch(site.dir())? {
            site.set_epoch(hello.epoch)?;
        }
        if let Some(mut origin) = origin {
            if origin.set != hello.set {
                origin.set.clone_from(&hello.set);
                site.pin(&origin)?;
            }
            return Ok(origin);
        }
        let origin = Origin { set: hello.set.clone(), scheme: hello.scheme.clone(), start };
        site.pin(&origin)?;
        let detail = format!("set '{}', engine {}, from {start}", origin.set, origin.scheme.engine());
        site.record("attach", &detail, self.options.reason.as_deref())?;
        Ok(origin)
    }

    /// A small file beside the log. What the master has is kept in `.repl/aux/`; the file itself is replaced only while
    /// it is still what the master sent before, since a replica's configuration may have to differ.
    fn aux(&self, scheme: &Scheme, name: &str, bytes: &[u8]) -> Result<()> {
        let mut site = self.site.lock();
        let shipped = site.dir().subdir(site::AUX)?;
        let before = shipped.read_small(name, 1 << 16)?;
        let mut here = self.dir.read_small(name, 1 << 20)?;
        if here.as_deref() == Some(bytes) {
            return shipped.replace(name, bytes);
        }
        if here.is_some() && scheme.has_fixed_aux() {
            let text = format!("{name} here is not the master's: two histories have the same number");
            if self.options.differing == Differing::Refused {
                return Err(Failure::new(Code::Diverged, format!("diverged: {text}"))
                    .hint(land::SET_ASIDE_HINT)
                    .into());
            }
            let moved = aside::take_one(self.dir, site.dir(), name)?;
            site.record("set-aside", &format!("{moved}: {text}"), self.options.reason.as_deref())?;
            (self.monitor)(Note::Warning(format!("{text}: ours is now in {moved}")));
            here = None;
        }
        if here.is_none() && scheme.has_fixed_aux() {
            // First, so that it is never here without being known as the master's.
            shipped.replace(name, bytes)?;
        }
        if here.is_none() || (here == before && !self.options.append_only) {
            self.dir.replace(name, bytes)?;
        } else {
            let text =
                format!("{name} here is not the master's; it is kept, the master's is in {}", shipped.shown(name));
            (self.monitor)(Note::Warning(text));
        }
        shipped.replace(name, bytes)
    }
}
