//! Berkeley DB: catastrophic recovery by the engine's own program, over the log that was laid.
//!
//! That program ends without an error when log is missing, and when it was told to look elsewhere for it; then it makes a
//! log of its own. So the log is looked at afterwards: what was laid is still there, byte for byte up to the end, and
//! nothing but what the recovery has added lies behind that. Then the engine's program proves each database.

use std::ffi::OsString;
use std::path::{Component, Path};

use anyhow::{Context as _, Result};

use super::Work;
use super::scratch::LONG;
use crate::edge::dir::{Dir, shown};
use crate::edge::hook::Hook;
use crate::edge::program::Program;
use crate::edge::read::prefix;
use crate::edge::tree::Tree;
use crate::engine::sync::profile::{Profile, is_bdb_database};
use crate::value::digest::Running;
use crate::value::exit::{Code, Failure, fail};

/// Where an environment's directories are told.
const CONFIG: &str = "DB_CONFIG";
const CONFIG_MAX: u64 = 1 << 16;
/// What tells it of directories: of databases, of log, of temporary files.
const DIRECTORIES: [&str; 5] = ["set_data_dir", "add_data_dir", "set_create_dir", "set_lg_dir", "set_tmp_dir"];
/// In an environment beside its database, as Berkeley DB SQL has it, databases are one directory above. Without this the
/// recovery ends well, and the database is empty.
const BESIDE: &str = "add_data_dir ..\nset_create_dir ..\n";
/// Names of the program that proves a database, the first that is installed counts.
const VERIFY: [&str; 2] = ["db5.3_verify", "db_verify"];
/// Databases that are proven by one run of the program.
const BATCH: usize = 64;

pub(super) fn recover(work: &Work<'_>) -> Result<()> {
    let home = home(work)?;
    configure(work, &home)?;
    let Some(command) = Profile::Bdb.defaults(false).recover else {
        return Ok(());
    };
    let hook = Hook { name: "recover", command: command.to_owned(), timeout: None };
    hook.run_as(work.user.as_ref(), &[("REPL_DIR", shown(&std::path::absolute(work.place.dir.path())?))])?;
    unchanged(work, &home)?;
    verify(work)
}

/// Where the log lies in the target.
fn home(work: &Work<'_>) -> Result<Dir> {
    let place = work.plan.log_place();
    let mut dir = work.place.dir.try_clone()?;
    for part in place.components() {
        dir = dir.open_subdir(std::str::from_utf8(part)?)?;
    }
    Ok(dir)
}

/// Refuses directories outside of the target: the recovery would write there, perhaps into the master's own. With log
/// alone, the master's configuration is what was received with it, and its directories are made.
fn configure(work: &Work<'_>, home: &Dir) -> Result<()> {
    let is_alone = work.plan.base.is_none();
    if let Some(received) = work.archive.small(CONFIG)?.filter(|_| is_alone) {
        home.replace(CONFIG, &received)?;
    }
    let is_beside = !work.plan.log_place().is_root();
    let bytes = home.read_small(CONFIG, CONFIG_MAX)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(key), Some(path)) = (words.next(), words.next()) else { continue };
        let is_within =
            Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let is_above = is_beside && path.trim_end_matches('/') == "..";
        if DIRECTORIES.contains(&key) && !is_within && !is_above {
            let text = format!("{} leads out of the target: {}", home.shown(CONFIG), line.trim());
            let hint = "recover by --recover CMD, which can set that up";
            return Err(Failure::new(Code::Guarded, text).hint(hint).into());
        }
        if key == "set_lg_dir" && path != "." {
            let text = format!("{} has the log in {path}, where it was not laid", home.shown(CONFIG));
            return Err(Failure::new(Code::Guarded, text)
                .hint("recover by --recover CMD, which can set that up")
                .into());
        }
        if is_alone && DIRECTORIES.contains(&key) {
            home.open_beneath(Path::new(path), true)?;
        }
    }
    if is_beside && !text.contains("..") {
        home.replace(CONFIG, format!("{text}\n{BESIDE}").trim_start().as_bytes())?;
    }
    Ok(())
}

/// The log that was laid is what the recovery has read: it has only added to the last segment.
fn unchanged(work: &Work<'_>, home: &Dir) -> Result<()> {
    for log in &work.plan.logs {
        let laid = log.laid.min(log.length);
        let hashed = |dir: &Dir| -> Result<Option<Running>> {
            let file = dir.open_read(&log.name)?;
            let running = file.map(|file| prefix(&file, Running::new(), laid)).transpose();
            running.with_context(|| format!("cannot read {}", dir.shown(&log.name)))
        };
        let (laid, here) = (hashed(work.archive.dir)?, hashed(home)?);
        let digest = |running: Option<Running>| running.map(|running| (running.length(), running.digest()));
        if digest(laid) != digest(here) {
            let text = format!("the recovery did not take {} for its log", home.shown(&log.name));
            return fail(Code::Hook, text);
        }
    }
    Ok(())
}

/// Proves each database; where none came of the log, it was not this log's environment.
fn verify(work: &Work<'_>) -> Result<()> {
    // Berkeley DB SQL has an order of its own for keys, of which the program knows nothing.
    let options: &[&str] = if work.plan.log_place().is_root() { &["-q"] } else { &["-q", "-o"] };
    let (tree, mut files) = (Tree::of(&work.place.dir)?, Vec::new());
    let root = std::path::absolute(work.place.dir.path())?;
    for found in tree.walk(|name, _| name.last() == super::place::MARKER.as_bytes()).bare() {
        let entry = found.map_err(|unread| anyhow::Error::new(unread.error))?;
        if let Some(file) = tree.open_read(&entry.name)?.filter(|_| entry.is_file())
            && is_bdb_database(&file)?
        {
            files.push(entry.name.components().fold(root.clone(), |path, part| {
                use std::os::unix::ffi::OsStrExt as _;
                path.join(std::ffi::OsStr::from_bytes(part))
            }));
        }
    }
    if files.is_empty() {
        let failure = Failure::new(Code::Hook, "the recovery ended well, and there is no database");
        return Err(failure
            .hint("Berkeley DB SQL is recovered from a base, since its databases are beside its log")
            .into());
    }
    for batch in files.chunks(BATCH) {
        let mut result = Ok(());
        for name in VERIFY {
            let args = options.iter().map(OsString::from).chain(batch.iter().map(OsString::from));
            let program = Program { user: work.user.clone(), ..Program::new(name, args, LONG) };
            result = program.run(None, None);
            if !crate::engine::bdb::is_missing_program(&result) {
                break;
            }
        }
        result.context("a recovered database is not right")?;
    }
    Ok(())
}
