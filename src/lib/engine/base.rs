//! Takes a base: a copy of a running database's directory in an archive, made by the same passes and the same procedure
//! of the engine as a sync, but with its log as the database wrote it, which no recovery has added to.
//!
//! It is made in `bases/.new` and gets its name when all of it is on stable storage, so a base that can be seen is whole.
//! A run that was killed is gone on with. Files that are as in the base before it are further names of the same files:
//! nothing is written to one, since a file that changes is replaced.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::archive::base::{self, Base, DATA, RECORD, Record, SUMS};
use super::archive::lease::Look;
use super::archive::prove::Which;
use super::archive::sums::{self, Sums};
use super::archive::{Archive, BASES, gone, own};
use super::site;
use super::sync::drive::{self, Mode, Options, Report};
use super::sync::history;
use super::sync::profile::Profile;
use super::sync::purpose::Purpose;
use super::sync::receiver::{Desk, Link, Operator};
use super::{log, verify};
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::lock::Lock;
use crate::edge::tree::Tree;
use crate::rule::scheme::Scheme;
use crate::value::digest::Digest;
use crate::value::entry::Entry;
use crate::value::exit::{Code, Failure, code_of, fail};
use crate::value::name::Name;

/// The base that is being made, in `bases`.
const NEW: &str = ".new";
/// What an interrupted run had made, which the next one is like.
const SEED: &str = "seed";
/// The state of the passes.
const PASSES: &str = ".repl-sync-data";
/// One at a time takes or removes a base.
const LOCK: &str = ".lock";
/// Longest list of digests that is read: millions of files.
const SUMS_MAX: u64 = 1 << 32;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Order {
    /// The base's name.
    pub name: String,
    /// What the operator calls the source.
    pub source: String,
    /// How passes go about it.
    pub options: Options,
}

/// Takes a base of the source at the other end of the link. A dry run changes nothing, and returns none.
pub fn take(link: &mut Link, archive: &Path, order: &Order, operator: &Operator<'_>) -> Result<(Option<Base>, Report)> {
    let look = Desk::new(&link.control, operator).look().map_err(|error| link.blame(error))?;
    drive::apart(&look, &real(archive)?)?;
    if order.options.manner.is_dry {
        return Ok((None, rehearse(link, archive, order, operator)?));
    }
    let begun = clock::now();
    let dir = Dir::create(archive)?;
    let archive = known(&dir)?;
    let bases = dir.subdir(BASES)?;
    let _lock = Lock::take(&bases, LOCK)?;
    gone::finish(&dir)?;
    guard_name(&bases, &order.name)?;
    let before = Before::of(&dir, &bases)?;
    let is_begun = bases.identity(NEW)?.is_some();
    let copied = copy(link, &bases, before.as_ref(), order, operator);
    let (report, new) = copied.or_else(|error| given_up(&bases, !is_begun, error))?;
    let engine = Profile::parse(&report.engine).map_err(|why| Failure::new(Code::Failed, why))?;
    let mut record = Record {
        engine,
        source: order.source.clone(),
        identity: String::new(),
        position: archive
            .as_ref()
            .and_then(|archive| archive.holding)
            .map(|holding| holding.held.position.segment.at(0)),
        time: None,
        log: None,
        begun,
        ended: begun,
        files: 0,
        bytes: 0,
        sums: Digest::of(b""),
        reason: order.options.reason.clone(),
    };
    join(&new, &mut record, archive.as_ref()).or_else(|error| given_up(&bases, true, error))?;
    finish(&new, &mut record, before.as_ref())?;
    bases.rename(NEW, &bases, &order.name)?;
    bases.sync()?;
    remember(&bases, "base", &order.name, order.options.reason.as_deref())?;
    Ok((Some(Base { name: order.name.clone(), record }), report))
}

/// A path without links, as far as it is there.
fn real(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).context("cannot use the archive")?;
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    Ok(there.map_or_else(|| path.clone(), |(above, real)| real.join(path.strip_prefix(above).unwrap_or(&path))))
}

fn guard_name(bases: &Dir, name: &str) -> Result<()> {
    if bases.identity(name)?.is_some() {
        return fail(Code::Guarded, format!("{} is there already: give another one --name", bases.shown(name)));
    }
    Ok(())
}

/// What would be sent is what differs from the base before.
fn rehearse(link: &mut Link, archive: &Path, order: &Order, operator: &Operator<'_>) -> Result<Report> {
    let bases = real(archive)?.join(BASES);
    let mut place = bases.join(&order.name);
    if bases.exists() {
        guard_name(&Dir::open(&bases)?, &order.name)?;
        if let Some(before) = base::list(&Dir::open(archive)?)?.pop() {
            place = bases.join(before.name).join(DATA);
        }
    }
    // What is not there is as good as empty.
    while let Some(above) = place.parent().filter(|above| !above.exists()) {
        place = above.to_owned();
    }
    let options = Options { purpose: Purpose::Base { before: None, like: None }, ..order.options.clone() };
    drive::run(link, &place, &options, operator)
}

/// What was copied of a source that is refused is nothing that another run could begin with.
fn given_up<T>(bases: &Dir, is_of_this_run: bool, error: anyhow::Error) -> Result<T> {
    if is_of_this_run && matches!(code_of(&error), Code::Fenced | Code::Diverged | Code::Guarded) {
        remove(bases, NEW)?;
    }
    Err(error)
}

/// An archive in which log was received, if it is one already.
fn known(dir: &Dir) -> Result<Option<Archive<'_>>> {
    match site::peek(dir, None)?.map(|state| site::origin(&state)).transpose()?.flatten() {
        Some(_) => Archive::open(dir, None).map(Some),
        None => Ok(None),
    }
}

/// The name of a base that is begun now: `2026-11-22T21-06-14Z`.
pub fn name_now() -> String {
    clock::now().narrate().replace(' ', "T").replace(':', "-") + "Z"
}

/// Copies the source, beginning with the files of the base before or of an interrupted run.
fn copy(
    link: &mut Link,
    bases: &Dir,
    before: Option<&Before>,
    order: &Order,
    operator: &Operator<'_>,
) -> Result<(Report, Dir)> {
    let new = bases.subdir(NEW)?;
    if new.identity(DATA)?.is_some() {
        // Whole, of an earlier time: the kill came while its digests were taken.
        remove(&new, SEED)?;
        new.rename(DATA, &new, SEED)?;
    }
    let seed = new.identity(SEED)?.map(|_| new.path().join(SEED));
    let before = before.map(|before| before.dir.path().join(DATA));
    let mut options = order.options.clone();
    options.mode = Some(Mode::Stage);
    options.purpose = Purpose::Base { like: seed.or_else(|| before.clone()), before };
    let report = drive::run(link, &new.path().join(DATA), &options, operator)?;
    Ok((report, new))
}

/// Finds where the log goes on behind the copy, and that its own log is whole and of this archive.
fn join(new: &Dir, record: &mut Record, archive: Option<&Archive<'_>>) -> Result<()> {
    let data = new.open_subdir(DATA)?;
    let archived = archive.map(|archive| &archive.origin.scheme);
    let Some(own) = own::find(record.engine, &data, archived)? else {
        if record.engine.must_mirror() && record.engine != Profile::Sqlite {
            let text =
                format!("there is no log in the directory of {}: where the base ends cannot be told", record.source);
            let failure = Failure::new(Code::Guarded, text);
            return Err(failure.hint("bases are of databases that keep their log in their own directory").into());
        }
        return Ok(());
    };
    record.identity = own.scheme.identity();
    if let Some(archived) = archived {
        admit(archived, &own.scheme)?;
    }
    trim(record.engine, &data, &own)?;
    let kind = own::kind_of(record.engine, Some(&own.scheme));
    let proven = verify::run(&own.dir, &verify::Options { kind, bases: Which::None, ..verify::Options::default() })?;
    if let Some(finding) = proven.findings.first() {
        return fail(proven.code(), format!("the log in the copy is not whole: {}", finding.text));
    }
    let Some(end) = proven.end else {
        return fail(Code::Failed, "the log in the copy is empty");
    };
    if let Some(archive) = archive
        && let Some(why) = own.differs(end, archive)?
    {
        return fail(Code::Diverged, format!("the source is of another history than the archive: {why}"));
    }
    (record.position, record.log) = (Some(end), Some(own.place));
    record.time = proven.boundary.and_then(|(_, mark)| mark.time);
    Ok(())
}

/// Refuses a base of another database than the archive's log.
fn admit(archived: &Scheme, own: &Scheme) -> Result<()> {
    if archived.engine() != own.engine() {
        let text = format!("the archive is of engine {}, the source of {}", archived.engine(), own.engine());
        return fail(Code::Fenced, text);
    }
    if archived.identity() != own.identity() {
        let text = format!("the archive is of database {}, the source is {}", archived.identity(), own.identity());
        return fail(Code::Fenced, text);
    }
    Ok(())
}

/// Removes log that the copy does not need, and files that the engine has made ahead.
fn trim(engine: Profile, data: &Dir, own: &own::Own) -> Result<()> {
    if !own.scheme.recycles() {
        return Ok(());
    }
    let first = engine.position(data)?.map(|position| position.segment);
    let begun = log::segments(&own.dir, &own.scheme, |_| false)?;
    for name in own.dir.names()? {
        if let Some(name) = name.to_str()
            && let Some(segment) = own.scheme.segment(name)
            && (!begun.contains_key(&segment) || first.is_some_and(|first| segment < first))
        {
            own.dir.remove(name)?;
        }
    }
    own.dir.sync()
}

/// Writes what the base is of; all of it is on stable storage then, and nothing else is in its directory.
fn finish(new: &Dir, record: &mut Record, before: Option<&Before>) -> Result<()> {
    let tree = Tree::of(&new.open_subdir(DATA)?)?;
    let known = before.map(Before::known).transpose()?.flatten();
    let taken = sums::of(&tree, &|entry| known.as_ref()?.digest(entry))?;
    let text = taken.sums.print();
    new.replace(SUMS, &text)?;
    record.sums = Digest::of(&text);
    (record.files, record.bytes, record.ended) = (taken.sums.files().len() as u64, taken.bytes, clock::now());
    new.replace(RECORD, record.print()?.as_bytes())?;
    remove(new, PASSES)?;
    remove(new, SEED)?;
    tree.sync()
}

/// The base before.
struct Before {
    dir: Dir,
    sums: Digest,
}

impl Before {
    fn of(archive: &Dir, bases: &Dir) -> Result<Option<Before>> {
        let found = base::list(archive)?.pop();
        found.map(|base| Ok(Before { dir: bases.open_subdir(&base.name)?, sums: base.record.sums })).transpose()
    }

    /// The digests of its files; none where they are not what was recorded.
    fn known(&self) -> Result<Option<Known>> {
        let text = self.dir.read_small(SUMS, SUMS_MAX)?.filter(|text| Digest::of(text) == self.sums);
        let Some(sums) = text.and_then(|text| Sums::parse(&text)) else {
            return Ok(None);
        };
        Ok(Some(Known { tree: Tree::of(&self.dir.open_subdir(DATA)?)?, sums }))
    }
}

/// Digests of files of the base before, for those that are the same: they were compared with the source in this run.
struct Known {
    tree: Tree,
    sums: Sums,
}

impl Known {
    fn digest(&self, entry: &Entry) -> Option<Digest> {
        let there = self.tree.look(&entry.name).ok().flatten().filter(|_| entry.links > 1)?;
        let is_one = (there.stamp.device, there.stamp.inode) == (entry.stamp.device, entry.stamp.inode);
        self.sums.get(entry.name.bytes()).filter(|_| is_one).copied()
    }
}

/// Removes a base: it is no more when its name is gone, whatever interrupts the rest. Not while a recovery needs it.
pub fn drop(archive: &Dir, name: &str, reason: Option<&str>) -> Result<()> {
    let unknown = || Failure::new(Code::Usage, format!("there is no base '{name}' in {}", archive.path().display()));
    if !base::is_name(name) || archive.identity(BASES)?.is_none() {
        return Err(unknown().into());
    }
    let bases = archive.open_subdir(BASES)?;
    let _lock = Lock::take(&bases, LOCK)?;
    if bases.identity(name)?.is_none() {
        return Err(unknown().into());
    }
    gone::finish(archive)?;
    {
        let look = site::peek(archive, None)?.map(|state| Look::begin(&state)).transpose()?;
        let held = look.as_ref().map(Look::held).transpose()?.unwrap_or_default();
        if let Some(held) = held.iter().find(|held| held.base.as_deref() == Some(name)) {
            return fail(Code::Busy, format!("base {name} is needed by a running recovery, {}", held.name));
        }
        gone::hide(archive, &[name.to_owned()])?;
    }
    gone::finish(archive)?;
    remember(&bases, "drop", name, reason)
}

/// Removes a directory with all that is in it, if it is there.
fn remove(dir: &Dir, name: &str) -> Result<()> {
    Tree::of(dir)?.remove_all(&Name::root().join(name.as_bytes()))
}

fn remember(bases: &Dir, did: &str, name: &str, reason: Option<&str>) -> Result<()> {
    let line = json!({"v": 1, "time": clock::now().to_string(), "did": did, "name": name, "reason": reason});
    history::add(bases, &line)
}
