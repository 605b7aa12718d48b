//! Berkeley DB environments, and Berkeley DB SQL (measured with 5.3.28; the order is that of the vendor's hot backup:
//! databases first, logs behind them, catastrophic recovery on the copy before anybody opens it).
//!
//! That order stands on each page being read in one piece. Read in pieces of whole pages, 34 of 34 copies of a busy
//! environment were right; by a tool whose reads end within pages, 8 of 15 were torn. Whoever reads the source must keep
//! to multiples of the page size, at multiples of it.
//!
//! Region files are shared memory: the regions of a destination describe the old databases, and opened over new ones
//! they show stale rows with no error. So they are removed there, never only left out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::Result;

use super::{Defaults, Names, head, number};
use crate::edge::dir::Dir;
use crate::edge::usage::{self, Process};
use crate::engine::log;
use crate::engine::sync::facts::Facts;
use crate::rule::scheme::Scheme;
use crate::value::name::Name;
use crate::value::position::{Position, Segment};

/// Offset and length of the bytes that name a database file, in its first page.
const FILE_ID: usize = 52;
const FILE_ID_LENGTH: usize = 20;
/// Where the first page says what it is of: btree, hash, queue and heap, in either byte order.
const MAGIC: usize = 12;
const MAGICS: [u32; 4] = [0x0005_3162, 0x0006_1561, 0x0004_2253, 0x0007_4582];
/// Where processes that use an environment lock themselves in, if they were told to.
const REGISTER: &str = "__db.register";

pub(super) const NAMES: Names = Names {
    dropped: &["__db.*"],
    own: &[],
    // Directories may be elsewhere on the replica.
    kept: &["DB_CONFIG"],
    late: &["log.[0-9]*"],
};

pub(super) const DEFAULTS: Defaults = Defaults {
    stop: None,
    start: None,
    // Without a log there is nothing to recover, and the tool would begin one. In Berkeley DB SQL the environment is
    // beside its database.
    recover: Some(concat!(
        r#"set -e; for log in "$REPL_DIR"/log.[0-9]* "$REPL_DIR"/*-journal/log.[0-9]*; do "#,
        r#"[ -e "$log" ] || continue; home=${log%/*}; [ "$home" != "$last" ] || continue; last=$home; "#,
        r#"if command -v db5.3_recover >/dev/null; then db5.3_recover -c -h "$home"; else db_recover -c -h "$home"; fi; done"#
    )),
};

pub(super) fn is_here(dir: &Dir, names: &[&str]) -> Result<bool> {
    let is_own = |name: &&str| Scheme::Bdb.segment(name).is_some() || name.starts_with("__db.") || *name == "DB_CONFIG";
    if names.iter().any(is_own) {
        return Ok(true);
    }
    for name in names {
        if is_database(&head(dir, name)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn is_database(head: &[u8]) -> bool {
    let magic = number(head, MAGIC).map(u32::from_ne_bytes);
    magic.is_some_and(|magic| MAGICS.contains(&magic) || MAGICS.contains(&magic.swap_bytes()))
}

pub(super) fn user(dir: &Dir) -> Option<Process> {
    usage::lock_holder(&dir.path().join(REGISTER), 0, 0)
}

/// Each database file has 20 bytes that no other has; environments have nothing of the kind.
pub(super) fn facts(dir: &Dir) -> Result<Facts> {
    let mut names: Vec<_> = dir.names()?.into_iter().filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    let mut marks = Vec::new();
    for name in names {
        let head = head(dir, &name)?;
        if let Some(mark) = number::<FILE_ID_LENGTH>(&head, FILE_ID).filter(|_| is_database(&head)) {
            marks.push((format!("the mark in {name}"), mark.iter().map(|byte| format!("{byte:02x}")).collect()));
        }
    }
    // Recovery adds records to a replica's log: its end is behind the master's without being newer.
    Ok(Facts { marks, place: None, left: Vec::new() })
}

/// The environments of a directory: itself, and those beside their databases.
pub(super) fn homes(dir: &Dir) -> Result<Vec<Name>> {
    let names = dir.names()?.into_iter().filter(|name| name.as_encoded_bytes().ends_with(b"-journal"));
    let beside = names.map(|name| Name::root().join(name.as_encoded_bytes()));
    Ok([Name::root()].into_iter().chain(beside).collect())
}

/// Those of them in which an environment is: one that has no log here may have it elsewhere.
pub(in crate::engine::sync) fn environments(dir: &Dir) -> Result<Vec<Name>> {
    let is_sign = |name: &str| Scheme::Bdb.segment(name).is_some() || name.starts_with("__db.") || name == "DB_CONFIG";
    let mut found = Vec::new();
    for home in homes(dir)? {
        let path = home.components().fold(dir.path().to_owned(), |path, part| path.join(OsStr::from_bytes(part)));
        if path.is_dir() && Dir::open(&path)?.names()?.iter().filter_map(|name| name.to_str()).any(is_sign) {
            found.push(home);
        }
    }
    Ok(found)
}

/// The beginning of the last segment of the log: recovery adds records of its own to that, so that it is not the
/// master's any more.
pub(super) fn position(dir: &Dir) -> Result<Option<Position>> {
    Ok(log::end(dir, &Scheme::Bdb)?.map(|end| end.segment.at(0)))
}

/// The segments of an environment, in order.
pub(in crate::engine::sync) fn segments(dir: &Dir) -> Result<Vec<Segment>> {
    let mut found: Vec<_> = dir.names()?.iter().filter_map(|name| Scheme::Bdb.segment(name.to_str()?)).collect();
    found.sort();
    Ok(found)
}
