//! Takes a base: a copy of a running database's directory in an archive, made by the same passes and the same procedure
//! of the engine as a sync, but with its log as the database wrote it, which no recovery has added to.
//!
//! It is made in `bases/.new` and gets its name when all of it is on stable storage, so a base that can be seen is whole.
//! A run that was killed is gone on with. Files that are as in the base before it are further names of the same files:
//! nothing is written to one, since a file that changes is replaced.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::archive::base::{self, Base, DATA, RECORD, Record, SUMS};
use super::archive::prove::Which;
use super::archive::sums::{self, Sums};
use super::archive::{Archive, BASES, own};
use super::site;
use super::sync::drive::{self, Mode, Options, Purpose, Report};
use super::sync::history;
use super::sync::profile::Profile;
use super::sync::receiver::{Link, Operator};
use super::{log, verify};
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::lock::Lock;
use crate::edge::tree::Tree;
use crate::rule::scheme::Scheme;
use crate::value::digest::Digest;
use crate::value::entry::Entry;
use crate::value::exit::{Code, Failure, fail};
use crate::value::name::Name;
use crate::value::time::Time;

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
    /// The base's name; else the time at which it was begun.
    pub name: Option<String>,
    /// What the operator calls the source.
    pub source: String,
    /// How passes go about it.
    pub options: Options,
}

/// Takes a base of the source at the other end of the link. A dry run returns nothing.
pub fn take(link: &mut Link, archive: &Path, order: &Order, operator: &Operator<'_>) -> Result<(Option<Base>, Report)> {
    let begun = clock::now();
    let is_dry = order.options.manner.is_dry;
    let dir = if is_dry { Dir::open(archive)? } else { Dir::create(archive)? };
    let archive = known(&dir)?;
    let bases = if is_dry && dir.identity(BASES)?.is_none() { dir.try_clone()? } else { dir.subdir(BASES)? };
    let _lock = if is_dry { None } else { Some(Lock::take(&bases, LOCK)?) };
    let name = order.name.clone().unwrap_or_else(|| name_of(begun));
    if bases.identity(&name)?.is_some() {
        return fail(Code::Guarded, format!("{} is there already: give another one --name", bases.shown(&name)));
    }
    let before = base::list(&dir)?.pop().map(|base| bases.open_subdir(&base.name)).transpose()?;
    let (report, new) = copy(link, &bases, before.as_ref(), order, operator)?;
    let Some(new) = new else {
        return Ok((None, report));
    };
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
    join(&new, &mut record, archive.as_ref())?;
    finish(&new, &mut record, before.as_ref())?;
    bases.rename(NEW, &bases, &name)?;
    bases.sync()?;
    remember(&bases, "base", &name, order.options.reason.as_deref())?;
    Ok((Some(Base { name, record }), report))
}

/// An archive in which log was received, if it is one already.
fn known(dir: &Dir) -> Result<Option<Archive<'_>>> {
    match site::peek(dir, None)?.map(|state| site::origin(&state)).transpose()?.flatten() {
        Some(_) => Archive::open(dir, None).map(Some),
        None => Ok(None),
    }
}

/// `2026-11-22T21-06-14Z`.
fn name_of(begun: Time) -> String {
    let text = begun.narrate().replace(' ', "T").replace(':', "-");
    text + "Z"
}

/// Copies the source, beginning with the files of the base before or of an interrupted run; a dry run copies nothing.
fn copy(
    link: &mut Link,
    bases: &Dir,
    before: Option<&Dir>,
    order: &Order,
    operator: &Operator<'_>,
) -> Result<(Report, Option<Dir>)> {
    let mut options = order.options.clone();
    options.mode = Some(Mode::Stage);
    let mut like = before.map(|before| before.path().join(DATA));
    if options.manner.is_dry {
        options.purpose = Purpose::Base { like: like.clone() };
        // What would be sent is what differs from the base before.
        let place = like.unwrap_or_else(|| bases.path().join(NEW).join(DATA));
        return Ok((drive::run(link, &place, &options, operator)?, None));
    }
    let new = bases.subdir(NEW)?;
    if new.identity(DATA)?.is_some() {
        // Whole, of an earlier time: the kill came while its digests were taken.
        remove(&new, SEED)?;
        new.rename(DATA, &new, SEED)?;
    }
    if new.identity(SEED)?.is_some() {
        like = Some(new.path().join(SEED));
    }
    options.purpose = Purpose::Base { like };
    let report = drive::run(link, &new.path().join(DATA), &options, operator)?;
    Ok((report, Some(new)))
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
fn finish(new: &Dir, record: &mut Record, before: Option<&Dir>) -> Result<()> {
    let tree = Tree::of(&new.open_subdir(DATA)?)?;
    let known = Known::of(before)?;
    let taken = sums::of(&tree, &|entry| known.digest(entry))?;
    let text = taken.sums.print();
    new.replace(SUMS, &text)?;
    record.sums = Digest::of(&text);
    (record.files, record.bytes, record.ended) = (taken.sums.files().len() as u64, taken.bytes, clock::now());
    new.replace(RECORD, record.print()?.as_bytes())?;
    remove(new, PASSES)?;
    remove(new, SEED)?;
    tree.sync()
}

/// The digests of the base before, for files that are the same: they were compared with the source in this run.
struct Known {
    tree: Option<(Tree, Sums)>,
}

impl Known {
    fn of(before: Option<&Dir>) -> Result<Known> {
        let Some(before) = before else {
            return Ok(Known { tree: None });
        };
        let sums = before.read_small(SUMS, SUMS_MAX)?.and_then(|bytes| Sums::parse(&bytes));
        let tree = Tree::of(&before.open_subdir(DATA)?)?;
        Ok(Known { tree: sums.map(|sums| (tree, sums)) })
    }

    fn digest(&self, entry: &Entry) -> Option<Digest> {
        let (tree, sums) = self.tree.as_ref().filter(|_| entry.links > 1)?;
        let there = tree.look(&entry.name).ok().flatten()?;
        let is_one = (there.stamp.device, there.stamp.inode) == (entry.stamp.device, entry.stamp.inode);
        sums.get(entry.name.bytes()).filter(|_| is_one).copied()
    }
}

/// Removes a base: it is no more when its name is gone, whatever interrupts the rest.
pub fn drop(archive: &Dir, name: &str, reason: Option<&str>) -> Result<()> {
    let bases = archive.open_subdir(BASES)?;
    let _lock = Lock::take(&bases, LOCK)?;
    if !base::is_name(name) || bases.identity(name)?.is_none() {
        return fail(Code::Usage, format!("there is no base '{name}' in {}", archive.shown("")));
    }
    base::remove(&bases, name)?;
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
