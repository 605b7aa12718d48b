//! The directory that is recovered into. From the first write until the database there is whole, `.repl-recover` is in it:
//! how far the recovery has come, and the lock of whoever is at it. Afterwards `.repl-recovered` says what it is, so that
//! nothing but a directory of our own making is ever gone on with, or removed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::edge::clone;
use crate::edge::dir::{Dir, shown};
use crate::edge::lock::Lock;
use crate::edge::tree::Tree;
use crate::engine::sync::marker::quoted;
use crate::engine::sync::profile::Profile;
use crate::value::digest::Digest;
use crate::value::exit::{Code, Failure, fail};
use crate::value::name::Name;
use crate::value::pairs;

/// There while the directory must not be used.
pub const MARKER: &str = ".repl-recover";
/// What was recovered there.
pub const RECORD: &str = ".repl-recovered";
const STEP: &str = "step";
const LOCK: &str = "lock";
const SMALL: u64 = 1 << 16;
/// How long a server that an interrupted recovery has left may take to end.
const GRACE: Duration = Duration::from_secs(60);

/// How far a recovery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Files are being laid.
    Begun,
    /// The database's own recovery may have begun: it changes what was laid.
    Laid,
    /// It is whole.
    Recovered,
}

const STEPS: [(Step, &str); 3] = [(Step::Begun, "begun"), (Step::Laid, "laid"), (Step::Recovered, "recovered")];

/// A target that is ours.
#[derive(Debug)]
pub struct Place {
    /// The directory.
    pub dir: Dir,
    marker: Dir,
    plan: Digest,
    _lock: Lock,
}

/// Refuses (13) a target in which something else is, or that is within the archive or around it. Changes nothing.
pub fn guard(target: &Path, archive: &Dir, engine: Profile) -> Result<()> {
    let (target, archive) = (real(target)?, real(archive.path())?);
    if target.starts_with(&archive) || archive.starts_with(&target) {
        let text = format!("{} and {} are one, or one is in the other", shown(&target), shown(&archive));
        return fail(Code::Guarded, text);
    }
    if !target.exists() {
        return Ok(());
    }
    let dir = Dir::open(&target)?;
    if dir.identity(MARKER)?.is_some() {
        return Ok(());
    }
    if dir.identity(RECORD)?.is_some() {
        let failure = Failure::new(Code::Guarded, format!("{} was recovered already", shown(&target)));
        return Err(failure.hint("repl-recover --finish removes what was recovered").into());
    }
    if let Some(name) = dir.names()?.into_iter().find(|name| name != "lost+found") {
        let text = format!("{} is not empty: it has {}", shown(&target), name.to_string_lossy());
        return Err(Failure::new(Code::Guarded, text).hint("name an empty directory, or one that is not there").into());
    }
    unused(&dir, engine, Instant::now())
}

/// Waits until nobody uses a directory, until `deadline`.
fn unused(dir: &Dir, engine: Profile, deadline: Instant) -> Result<()> {
    while let Some(who) = engine.user(dir)? {
        if Instant::now() >= deadline {
            return fail(Code::Guarded, format!("{} is in use: {who}", dir.shown("")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether a recovery was begun in a target.
pub fn is_begun(target: &Path) -> bool {
    target.join(MARKER).exists()
}

/// Refuses (12) a target whose file system has no room for so many bytes more.
pub fn room(target: &Path, bytes: u64) -> Result<()> {
    let target = real(target)?;
    let there = target.ancestors().find(|path| path.is_dir()).context("the target is nowhere")?;
    let (free, _) = clone::free_space(&Dir::open_freely(there)?)?;
    if free >= bytes {
        return Ok(());
    }
    fail(Code::Full, format!("{} has {free} bytes free, {bytes} are needed", shown(there)))
}

/// A path without links, also of what is not there yet.
fn real(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).context("cannot use the target")?;
    let mut rest = Vec::new();
    for above in path.ancestors() {
        if let Ok(real) = above.canonicalize() {
            return Ok(rest.iter().rev().fold(real, |real, part| real.join(part)));
        }
        rest.extend(above.file_name());
    }
    Ok(path)
}

/// Whether a server may be started on a directory, as far as recoveries go; if not, fenced (5).
pub fn fence(dir: &Dir) -> Result<()> {
    if dir.identity(MARKER)?.is_none() {
        return Ok(());
    }
    let text = format!("{} must not be used: a recovery into it is not complete", dir.shown(""));
    Err(Failure::new(Code::Fenced, text).hint("run the same repl-recover again").into())
}

impl Place {
    /// Takes up a target for a plan, of which these words are all that there is to say.
    pub fn take(target: &Path, plan: &str, engine: Profile) -> Result<Place> {
        let dir = Dir::create(target)?;
        let marker = dir.subdir(MARKER)?;
        let lock = Lock::take(&marker, LOCK)?;
        dir.sync()?;
        unused(&dir, engine, Instant::now() + GRACE)?;
        Ok(Place { dir, marker, plan: Digest::of(plan.as_bytes()), _lock: lock })
    }

    /// How far this plan has come; another plan that was begun here counts for nothing.
    pub fn step(&self) -> Result<Option<Step>> {
        let text = self.marker.read_small(STEP, SMALL)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let is_ours = pairs::get(&text, "plan").as_deref() == Some(&self.plan.to_string());
        let name = pairs::get(&text, "step").unwrap_or_default();
        Ok(STEPS.iter().find(|(_, known)| is_ours && *known == name).map(|(step, _)| *step))
    }

    /// Keeps how far it has come; all that belongs to it must be on stable storage.
    pub fn reach(&self, step: Step) -> Result<()> {
        let name = STEPS.iter().find(|(known, _)| *known == step).map_or("", |(_, name)| name);
        self.marker.replace(STEP, format!("v=1 plan={} step={name}\n", self.plan).as_bytes())
    }

    /// A private directory for what is needed meanwhile.
    pub fn scratch(&self) -> &Dir {
        &self.marker
    }

    /// It is done: the record of it takes the marker's place.
    pub fn finish(self, record: &str) -> Result<()> {
        self.dir.replace(RECORD, record.as_bytes())?;
        Tree::of(&self.dir)?.remove_all(&Name::root().join(MARKER.as_bytes()))?;
        self.dir.sync()
    }
}

/// A directory that a recovery has made, for its removal: never while it is in use, or a recovery is at it (7).
pub struct Remains {
    dir: Dir,
    _lock: Option<Lock>,
}

impl Remains {
    /// Refuses (13) what no recovery has made, and what has the archive in it. Changes nothing.
    pub fn of(target: &Path, archive: &Dir) -> Result<Remains> {
        let dir = Dir::open(target)?;
        if dir.identity(MARKER)?.is_none() && dir.identity(RECORD)?.is_none() {
            let text = format!("{} was not made by repl-recover", shown(target));
            let hint = format!("see what it is: ls {}", quoted(target));
            return Err(Failure::new(Code::Guarded, text).hint(hint).into());
        }
        let (target, archive) = (real(target)?, real(archive.path())?);
        if archive.starts_with(&target) {
            return fail(Code::Guarded, format!("the archive {} is in {}", shown(&archive), shown(&target)));
        }
        // A recovery that is at it is no writer that shows: what it has open is its own.
        let marker = dir.identity(MARKER)?.map(|_| dir.open_subdir(MARKER)).transpose()?;
        let lock = marker.map(|marker| Lock::take(&marker, LOCK)).transpose()?;
        unused(&dir, Profile::detect(&dir)?, Instant::now())?;
        Ok(Remains { dir, _lock: lock })
    }

    /// Removes all that the recovery has made, and that came of it since.
    pub fn clear(self) -> Result<()> {
        let tree = Tree::of(&self.dir)?;
        // What says that it is ours goes last.
        let (last, first): (Vec<_>, Vec<_>) =
            self.dir.names()?.into_iter().partition(|name| name == RECORD || name == MARKER);
        for name in first.into_iter().chain(last) {
            if name != "lost+found" {
                tree.remove_all(&Name::root().join(name.as_encoded_bytes()))?;
            }
        }
        self.dir.sync()
    }
}
