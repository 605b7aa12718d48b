//! The end that holds the destination, and drives: hot passes while its server runs, then the last one, then the switch.
//!
//! Until the switch nothing in the destination is touched, so whatever fails before it leaves the old database whole, and
//! its server is started on it again by this end, which needs no link for that. After the switch the new one is whole.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;

use super::channel::{Inbox, Sender, outbox};
use super::digests::Digests;
use super::door::{self, Door};
use super::facts::Facts;
use super::ledger::{Counts, Ledger, Unsettled};
use super::listing::{Control, Listing};
use super::pairs::{New, Old};
use super::pass::workers::Lines;
use super::pass::{Manner, Pass, Turnout};
use super::profile::Profile;
use super::source::{Laid, Show, Traffic};
use super::target::Target;
use crate::edge::dir::Dir;
use crate::edge::tree::{Dress, Tree};
use crate::edge::{clock, clone};
use crate::rule::sync::filter::Filter;
use crate::rule::sync::wire::ask::{Ask, Errand, Say};
use crate::rule::sync::wire::tell::Tell;
use crate::rule::sync::wire::{LINES_MAX, corrupt};
use crate::value::escape::show;
use crate::value::exit::{Code, Failure, code_of, fail, hint_of};
use crate::value::name::Name;

/// How long the other end may have nothing to say to any open question about its files, though it is there: the
/// destination's server may be down meanwhile. Long enough for a disk that is slow; one that hangs is none.
const PATIENCE: Duration = Duration::from_secs(300);

/// The link, from this end.
pub struct Link {
    /// For the list and errands.
    pub control: Control,
    /// For files.
    pub lines: Lines,
    /// Bytes on the wire.
    pub traffic: Arc<Traffic>,
    writer: JoinHandle<Result<()>>,
    fault: Fault,
}

/// Why reading came to its end, where that was not the end of the link.
type Fault = Arc<Mutex<Option<anyhow::Error>>>;

impl Link {
    /// Starts what writes and what reads. Reading ends when the other end is gone.
    pub fn start(input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> Link {
        let traffic = Arc::new(Traffic::default());
        let (sender, outbox) = outbox();
        let counted = Arc::clone(&traffic);
        let writer = std::thread::spawn(move || outbox.write(output, &counted.sent, None));
        let count = std::thread::available_parallelism().map_or(2, usize::from) * 2;
        let (doors, mut ears) = door::pairs(1 + count.clamp(4, usize::from(LINES_MAX) - 1), PATIENCE);
        let read = Inbox::new(input, Arc::clone(&traffic.received));
        let control = Control { sender: sender.clone(), ear: ears.remove(0) };
        let fault = Fault::default();
        let noted = Arc::clone(&fault);
        std::thread::spawn(move || {
            // Noted before the doors are gone, by which the others see it.
            *noted.lock() = route(read, &doors).err();
            drop(doors);
        });
        Link { control, lines: Lines { sender, ears }, traffic, writer, fault }
    }

    /// Shows the operator something.
    pub fn tell(&self, operator: &Operator<'_>, say: Say, bytes: &[u8]) {
        tell(operator, &self.lines.sender, say, bytes);
    }

    /// What an error comes from: a link is also gone when what it brings makes no sense.
    pub fn blame(&self, error: anyhow::Error) -> anyhow::Error {
        match self.fault.lock().take() {
            Some(fault) if code_of(&error) == Code::Link => fault,
            _ => error,
        }
    }

    /// Tells the other end how it went, and waits until it has been told.
    pub fn finish(self, result: &Result<()>) -> Result<()> {
        let last = match result {
            Ok(()) => Ask::Bye,
            Err(error) => {
                Ask::Fail(code_of(error), show(&format!("{error:#}")), hint_of(error).unwrap_or_default().to_owned())
            }
        };
        let told = self.control.ask(&last);
        drop((self.control, self.lines));
        let written = self.writer.join().unwrap_or_else(|_| fail(Code::Failed, "the link's writer ended abruptly"));
        told.and(written)
    }
}

/// Hands each answer to its line. At the end of the link, or of sense, all lines end.
fn route<R: Read>(mut inbox: Inbox<R>, lines: &[Door]) -> Result<()> {
    while let Some(frame) = inbox.next()? {
        let Some(line) = lines.get(usize::from(frame.line)) else {
            return Err(corrupt(format!("an answer on line {}", frame.line)));
        };
        if !line.hand(frame) {
            break;
        }
    }
    Ok(())
}

/// Runs the hook of a point.
pub type RunHook<'a> = dyn Fn(&str, &[(String, String)]) -> Result<()> + Sync + 'a;

/// Where the operator is.
pub enum Operator<'a> {
    /// At this end.
    Here {
        /// Runs the hook of a point.
        hook: Box<RunHook<'a>>,
        /// Shows something.
        say: Box<Show<'a>>,
    },
    /// At the other end.
    There,
}

/// What the source says of itself.
pub struct Look {
    /// Which tree of which machine.
    pub identity: String,
    /// The kind of its database.
    pub profile: Profile,
    /// Which database, and how far it has come.
    pub facts: Facts,
}

/// The other end and the operator, for all that a pass is not.
pub struct Desk<'a> {
    link: &'a Control,
    operator: &'a Operator<'a>,
}

impl<'a> Desk<'a> {
    /// Over that line.
    pub fn new(link: &'a Control, operator: &'a Operator<'a>) -> Desk<'a> {
        Desk { link, operator }
    }

    /// Has something done at the source.
    pub fn errand(&self, errand: Errand, values: &[(String, String)]) -> Result<Laid> {
        self.link.ask(&Ask::Run(errand, values.to_vec()))?;
        loop {
            match self.link.hear()? {
                Tell::Ran(files) => return Ok(files),
                // Of a list that was given up.
                Tell::Entries { .. } => {}
                _ => return Err(corrupt("not the end of an errand")),
            }
        }
    }

    /// Asks the source what it is.
    pub fn look(&self) -> Result<Look> {
        let told = self.errand(Errand::Look, &[])?;
        let text = |key: &str| -> Result<String> {
            let found = told.iter().find(|(name, _)| name.bytes() == key.as_bytes());
            found
                .map(|(_, text)| String::from_utf8_lossy(text).into_owned())
                .ok_or_else(|| corrupt("no look at the source"))
        };
        let profile = Profile::parse(&text("profile")?).map_err(corrupt)?;
        let facts = Facts::parse(&text("facts")?).ok_or_else(|| corrupt("facts that are none"))?;
        Ok(Look { identity: text("identity")?, profile, facts })
    }

    /// Runs a hook of the operator's.
    pub fn hook(&self, point: &str, values: &[(String, String)]) -> Result<()> {
        match self.operator {
            Operator::Here { hook, .. } => hook(point, values),
            Operator::There => {
                let mut all = vec![("REPL_POINT".to_owned(), point.to_owned())];
                all.extend_from_slice(values);
                self.errand(Errand::Hook, &all).map(drop)
            }
        }
    }

    /// Shows the operator something. A link that is gone shows itself elsewhere.
    pub fn say(&self, say: Say, bytes: &[u8]) {
        tell(self.operator, &self.link.sender, say, bytes);
    }
}

fn tell(operator: &Operator<'_>, sender: &Sender, say: Say, bytes: &[u8]) {
    match operator {
        Operator::Here { say: show, .. } => show(say, bytes),
        Operator::There => {
            let _ = sender.send(Ask::Say(say, bytes.to_vec()).seal(0));
        }
    }
}

/// Which machine and tree this is: what a [`super::source::Source`] says of itself.
pub fn identity(tree: &Tree) -> Result<String> {
    let path = std::fs::canonicalize(tree.path())?;
    let root = tree.look(&Name::root())?.map(|root| root.stamp).unwrap_or_default();
    Ok(format!("{} {}:{}\n{}", machine(), root.device, root.inode, path.to_string_lossy()))
}

/// A number of this machine.
pub(super) fn machine() -> String {
    // A container may have none of its own; a boot has one everywhere.
    let number =
        |path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    number("/etc/machine-id").or_else(|| number("/proc/sys/kernel/random/boot_id")).unwrap_or_default()
}

/// Passes over one target.
pub struct Passes<'a> {
    /// The link.
    pub link: &'a mut Link,
    /// Where the operator is.
    pub operator: &'a Operator<'a>,
    /// Where the pairs are.
    pub state: Option<&'a Dir>,
    /// What takes part.
    pub filter: Arc<Filter>,
    /// Names of which the destination's own stay, where it has them.
    pub kept: Filter,
    /// Names that go with the switch.
    pub dropped: Filter,
    /// The kind of database.
    pub profile: Profile,
    /// Whose source makes up for files that change while they are read.
    pub covering: Option<Profile>,
    /// How.
    pub manner: Manner,
    /// Whether each change is told.
    pub is_itemized: bool,
    /// Whether it is told how far it is.
    pub shows_progress: bool,
    /// Whether a source without anything is taken for one.
    pub allows_empty: bool,
    /// Files to fetch whole.
    pub distrusted: &'a mut HashSet<Name>,
}

/// How a pass went.
pub struct Passed {
    /// What was done.
    pub counts: Counts,
    /// What is not settled.
    pub unsettled: Unsettled,
    /// Names that are here, are not at the source, and stay.
    pub others: Vec<Name>,
    /// Which tree it was of.
    pub source: String,
    /// How long it took.
    pub took: Duration,
}

impl Passes<'_> {
    /// Asks the source to begin a pass; returns which tree it is.
    pub fn begin(&self) -> Result<String> {
        self.link.control.ask(&Ask::Pass)?;
        match self.link.control.hear()? {
            Tell::Ran(files) => match files.as_slice() {
                [(name, identity)] if name.is_root() => Ok(String::from_utf8_lossy(identity).into_owned()),
                _ => Err(corrupt("not the begin of a pass")),
            },
            _ => Err(corrupt("not the begin of a pass")),
        }
    }

    /// One pass for some names.
    pub fn run(&mut self, target: Target<'_>, turnout: Turnout<'_>) -> Result<Passed> {
        let began = Instant::now();
        // What was dressed by other rules is not known to be dressed by these.
        let identity = format!("{}\n{:?}", self.begin()?, self.manner.dress);
        target.tree().sync()?;
        let now = clock::coarse_now();
        let known = proven_of(&identity, self.manner.dress);
        let (old, new) = match self.state {
            Some(state) if !self.manner.is_dry => (Old::open(state, &known)?, Some(New::create(state, &known)?)),
            Some(state) => (Old::open(state, &known)?, None),
            None => (Old::none(), None),
        };
        let digests =
            self.state.map(|state| Digests::open(state, !self.manner.is_dry)).transpose()?.flatten().map(Arc::new);
        let (operator, sender) = (self.operator, &self.link.lines.sender);
        let item: super::ledger::Tell<'_> = Box::new(move |line| tell(operator, sender, Say::Out, line));
        let item = self.is_itemized.then_some(item);
        let progress: super::ledger::Tell<'_> = Box::new(move |text| tell(operator, sender, Say::Progress, text));
        let progress = self.shows_progress.then_some(progress);
        let ledger = Ledger::new(target, new, now, item).knowing(std::mem::take(self.distrusted), self.covering);
        let ledger = ledger.telling(progress);
        let mut listing = Listing::begin(&self.link.control, &self.filter, &ledger)?;
        if !self.allows_empty && listing.is_empty()? {
            let failure = Failure::new(Code::Guarded, "the source is empty: is its file system mounted?");
            return Err(failure.hint("--allow-empty takes it for what it is").into());
        }
        let held = Arc::new(Mutex::default());
        let walk =
            target.tree().walk(leaving_out(Arc::clone(&self.filter), self.dropped.clone(), Arc::clone(&held))).bare();
        let is_dry = self.manner.is_dry;
        let room = if is_dry { u64::MAX } else { clone::free_space(&Dir::open(target.tree().path())?)?.0 };
        let pass = Pass {
            room,
            target,
            ledger: &ledger,
            manner: self.manner,
            turnout,
            kept: &self.kept,
            profile: self.profile,
            digests: digests.clone(),
            held: &held,
        };
        let mut lines = Lines { sender: sender.clone(), ears: std::mem::take(&mut self.link.lines.ears) };
        let ran = pass.run(&mut lines, &mut listing, walk, old);
        self.link.lines.ears = lines.ears;
        let others = ran?;
        drop(listing);
        if self.state.is_some() && matches!(target, Target::Direct(_)) && !self.manner.is_dry {
            // A pair that outlives a power cut must not be of bytes that do not.
            target.tree().sync()?;
        }
        let (counts, unsettled, distrusted) = ledger.finish()?;
        if let Some(digests) = digests.filter(|_| !self.manner.is_dry) {
            digests.tidy(counts.bytes);
        }
        *self.distrusted = distrusted;
        Ok(Passed { counts, unsettled, others, source: identity, took: began.elapsed() })
    }
}

/// What a walk passes over; the directories that this is in are noted, unless it is dropped.
fn leaving_out(filter: Arc<Filter>, dropped: Filter, held: Arc<Mutex<HashSet<Name>>>) -> impl Fn(&Name, bool) -> bool {
    move |name, is_directory| {
        let is_out = filter.leaves_out(name, is_directory);
        let is_kept = is_out && !dropped.leaves_out(name, is_directory);
        let mut above = name.parent();
        while is_kept && !above.is_root() && held.lock().insert(above.clone()) {
            above = above.parent();
        }
        is_out
    }
}

/// Waits until the clock of inodes has moved on, so that a later change gets another ctime than ours.
pub fn wait_for_tick() {
    let now = clock::coarse_now();
    while clock::coarse_now() <= now {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What pairs are of: with another dress, what is here is not what it would be.
fn proven_of(source: &str, dress: Dress) -> Vec<u8> {
    format!("owner={} devices={}\n{source}", dress.owner, dress.devices).into_bytes()
}

/// Makes what a replay changed known as equal: the stamps of those files are other ones now.
pub fn refresh_pairs(state: &Dir, source: &str, tree: &Tree, dress: Dress) -> Result<()> {
    let known = proven_of(source, dress);
    let mut new = New::create(state, &known)?;
    for mut pair in Old::open(state, &known)? {
        if pair.is_pending {
            let Some(entry) = tree.look(&pair.name)?.filter(crate::value::entry::Entry::is_file) else { continue };
            pair.here = entry.stamp;
            pair.is_pending = false;
        }
        new.add(&pair)?;
    }
    new.finish()
}

/// A destination's path as it will be known, though it may not be there yet.
pub fn is_within(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}
