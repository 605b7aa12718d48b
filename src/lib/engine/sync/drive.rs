//! From the first look to the report: what DESIGN promises of the order of things is in [`Drive::run`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::journal::Journal;
use super::ledger::{Counts, Unsettled};
use super::pass::Manner;
use super::receiver::{Desk, Link, Operator, Passed, Passes, identity, is_within, refresh_pairs, wait_for_tick};
use super::stage::{self, Stage};
use super::state::State;
use super::target::Target;
use crate::edge::clone;
use crate::edge::dir::{Dir, shown};
use crate::edge::tree::Tree;
use crate::rule::sync::filter::Filter;
use crate::rule::sync::wire::ask::Say;
use crate::value::exit::{Code, Failure, fail};
use crate::value::name::Name;

/// Passes that try to settle what changes while it is read, before that is an error.
const TRIES: usize = 4;
/// Hot passes at most.
const HOT_MAX: usize = 8;
/// A hot pass that takes more than this part of the one before does not shrink any more.
const SHRINKS: f64 = 0.7;

/// How the new content comes into its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Built beside it and exchanged.
    Stage,
    /// Changed blocks go through a redo journal.
    InPlace,
}

/// What is asked of a sync.
#[derive(Clone, Debug)]
pub struct Options {
    /// How; `None` for what fits.
    pub mode: Option<Mode>,
    /// What takes part.
    pub filter: Arc<Filter>,
    /// How passes go about it.
    pub manner: Manner,
    /// Each change is told.
    pub is_itemized: bool,
    /// A source without anything is taken for what it is.
    pub allows_empty: bool,
    /// The old tree is kept for a rollback.
    pub keeps_old: bool,
    /// The destination's parents are made.
    pub makes_path: bool,
    /// Hot passes are repeated until the down time is predicted to be shorter.
    pub max_downtime: Option<Duration>,
}

/// What a sync did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Names and bytes.
    pub counts: Counts,
    /// How many passes.
    pub passes: u64,
    /// How the new content came into its place; `None` where nothing was to be changed, or nothing was changed.
    pub mode: Option<&'static str>,
    /// From the stop of the server to its start.
    pub downtime: Option<Duration>,
    /// All of it.
    pub took: Duration,
    /// Bytes on the wire, sent and received by the end that has the destination.
    pub wire: (u64, u64),
}

/// A sync under way.
pub struct Drive<'a> {
    destination: &'a Path,
    options: &'a Options,
    operator: &'a Operator<'a>,
    link: &'a mut Link,
    report: Report,
    began: Instant,
}

/// Makes a destination what the source at the other end of the link is.
pub fn run(link: &mut Link, destination: &Path, options: &Options, operator: &Operator<'_>) -> Result<Report> {
    let report = Report::default();
    let mut drive = Drive { destination, options, operator, link, report, began: Instant::now() };
    let done = drive.run();
    if let Err(error) = &done {
        drive.on_error(error);
    }
    done.map(|()| drive.report)
}

impl Drive<'_> {
    fn run(&mut self) -> Result<()> {
        let destination = self.place()?;
        self.guard_places(&destination)?;
        if self.options.manner.is_dry {
            return self.rehearse(&destination);
        }
        super::journal::recover::recover(&destination)?;
        let state = State::open(&destination)?;
        self.hook("before-sync")?;
        match self.mode(&state, &destination)? {
            Mode::Stage => self.stage(&state, &destination)?,
            Mode::InPlace => self.in_place(&state, &destination)?,
        }
        self.hook("after-sync")?;
        self.tally();
        Ok(())
    }

    fn tally(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        self.report.took = self.began.elapsed();
        let traffic = &self.link.traffic;
        self.report.wire = (traffic.sent.load(Relaxed), traffic.received.load(Relaxed));
    }

    fn hook(&self, point: &str) -> Result<()> {
        Desk::new(&self.link.control, self.operator).hook(point, &self.values())
    }

    fn values(&self) -> Vec<(String, String)> {
        vec![("REPL_DIR".to_owned(), self.destination.to_string_lossy().into_owned())]
    }

    fn on_error(&self, error: &anyhow::Error) {
        let mut values = self.values();
        values.push(("REPL_ERROR".to_owned(), format!("{error:#}")));
        values.push(("REPL_CODE".to_owned(), (crate::value::exit::code_of(error) as u8).to_string()));
        let desk = Desk::new(&self.link.control, self.operator);
        if let Err(failed) = desk.hook("on-error", &values) {
            desk.say(Say::Warning, format!("{failed:#}").as_bytes());
        }
    }

    /// The destination's absolute path; its parent must be there.
    fn place(&self) -> Result<PathBuf> {
        let path = std::path::absolute(self.destination).context("cannot use the destination")?;
        let Some(name) = path.file_name() else {
            return fail(Code::Guarded, "the destination is the root of all");
        };
        let parent = path.parent().unwrap_or(Path::new("/"));
        if self.options.makes_path && !self.options.manner.is_dry {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", shown(parent)))?;
        }
        match std::fs::canonicalize(&path) {
            Ok(real) => Ok(real),
            Err(_) => {
                let real = std::fs::canonicalize(parent);
                let real = real.with_context(|| {
                    Failure::new(Code::Failed, format!("cannot use {}", shown(parent))).hint("--mkpath makes it")
                })?;
                Ok(real.join(name))
            }
        }
    }

    /// A tree must not be synced into itself.
    fn guard_places(&mut self, destination: &Path) -> Result<()> {
        let passes = self.passes(None);
        let theirs = passes.begin()?;
        let here = match destination.exists() {
            true => identity(&Tree::open(destination)?)?,
            false => {
                format!("{} 0:0\n{}", machine(&identity(&Tree::open(Path::new("/"))?)?), destination.to_string_lossy())
            }
        };
        let (source, own) = (parts(&theirs), parts(&here));
        let is_one = source.0 == own.0 && (source.1 == own.1 || is_within(Path::new(source.2), Path::new(own.2)));
        if is_one {
            return fail(Code::Guarded, format!("{} and {} are one, or one is in the other", source.2, own.2));
        }
        Ok(())
    }

    fn passes<'p>(&'p mut self, state: Option<&'p Dir>) -> Passes<'p> {
        Passes {
            link: self.link,
            operator: self.operator,
            state,
            filter: Arc::clone(&self.options.filter),
            manner: self.options.manner,
            is_itemized: self.options.is_itemized,
            allows_empty: self.options.allows_empty,
            distrusted: std::collections::HashSet::new(),
            total: Counts::default(),
        }
    }

    /// What would be done.
    fn rehearse(&mut self, destination: &Path) -> Result<()> {
        let state = State::find(destination)?;
        let nothing = tempdir()?;
        let tree = Tree::open(if destination.exists() { destination } else { &nothing })?;
        let mut passes = self.passes(state.as_ref().map(State::dir));
        let passed = passes.run(Target::Direct(&tree), &|_| true);
        let _ = std::fs::remove_dir(&nothing);
        let passed = passed?;
        settled(&passed.unsettled)?;
        self.report.counts = passed.counts;
        self.report.passes = 1;
        self.tally();
        Ok(())
    }

    fn mode(&self, state: &State, destination: &Path) -> Result<Mode> {
        let is_empty = !destination.exists() || std::fs::read_dir(destination)?.next().is_none();
        match self.options.mode {
            Some(Mode::Stage) if !state.is_beside() => {
                let text = format!(
                    "{} cannot be staged: its parent is on another file system or not writable",
                    shown(destination)
                );
                Err(Failure::new(Code::Guarded, text).hint("use --inplace").into())
            }
            Some(mode) => Ok(mode),
            None if state.is_beside() && (is_empty || clone::has_reflinks(state.dir())) => Ok(Mode::Stage),
            None => Ok(Mode::InPlace),
        }
    }

    fn stage(&mut self, state: &State, destination: &Path) -> Result<()> {
        self.report.mode = Some("stage");
        let dress = self.options.manner.dress;
        let stage = Stage::prepare(state, destination, &self.options.filter, dress)?;
        let counts = self.settle(state, Target::Direct(stage.tree()))?;
        self.hook("before-switch")?;
        stage.carry(&self.options.filter)?;
        stage.tree().sync()?;
        stage.switch(self.options.keeps_old)?;
        wait_for_tick();
        self.report.counts = counts;
        self.hook("after-switch")
    }

    fn in_place(&mut self, state: &State, destination: &Path) -> Result<()> {
        self.report.mode = Some("inplace");
        let dress = self.options.manner.dress;
        let tree = stage::open_or_make(destination)?;
        let journal = Journal::open(state)?;
        let counts = self.settle(state, Target::Journal(&tree, &journal))?;
        self.report.counts = counts;
        self.hook("before-switch")?;
        let source = self.passes(None).begin()?;
        if journal.is_empty() {
            drop(journal);
            Journal::discard(state)?;
        } else {
            journal.commit(&tree, dress)?.replay(&tree)?;
            refresh_pairs(state.dir(), &source, &tree)?;
        }
        wait_for_tick();
        self.hook("after-switch")
    }

    /// Passes until everything is settled.
    fn settle(&mut self, state: &State, target: Target<'_>) -> Result<Counts> {
        let is_fresh = match target {
            Target::Direct(_) => true,
            Target::Journal(_, journal) => journal.is_empty(),
        };
        let mut passes = self.passes(Some(state.dir()));
        passes.manner.trusts_pending = is_fresh;
        let mut count = 0;
        let result = loop {
            let Passed { unsettled, .. } = passes.run(target, &|_: &Name| true)?;
            count += 1;
            if unsettled.count == 0 || count == TRIES {
                break settled(&unsettled).map(|()| passes.total);
            }
        };
        self.report.passes += count as u64;
        result
    }
}

/// What could not be settled is an error.
fn settled(unsettled: &Unsettled) -> Result<()> {
    let Some((name, why)) = unsettled.names.first() else { return Ok(()) };
    let more = match unsettled.count - 1 {
        0 => String::new(),
        more => format!(" (and {more} more names)"),
    };
    fail(Code::Failed, format!("{name}: {why}{more}"))
}

/// Machine, root's device and inode, path.
fn parts(identity: &str) -> (&str, &str, &str) {
    let (head, path) = identity.split_once('\n').unwrap_or((identity, ""));
    let (machine, root) = head.rsplit_once(' ').unwrap_or((head, ""));
    (machine, root, path)
}

fn machine(identity: &str) -> &str {
    parts(identity).0
}

fn tempdir() -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!(".repl-sync-nothing-{}", std::process::id()));
    std::fs::create_dir(&path).with_context(|| format!("cannot make {}", shown(&path)))?;
    Ok(path)
}
