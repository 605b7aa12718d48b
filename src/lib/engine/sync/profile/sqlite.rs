//! SQLite databases that lie in the directory itself (measured with 3.40).
//!
//! While a writer's lock is held by the procedure, the write-ahead log neither grows nor begins anew. Another process may
//! still copy pages from it into the database: whoever opens the copy reads those pages from the log, so a database that
//! changes while it is read does no harm; a log that changes would.

use anyhow::Result;

use super::{Names, head};
use crate::edge::dir::Dir;
use crate::edge::usage::{self, Process};
use crate::value::name::Name;

const MAGIC: &[u8] = b"SQLite format 3\0";
const LOG: &str = "-wal";
const INDEX: &str = "-shm";
/// The bytes of a database that are locked, whether or not it is that long.
const LOCKS: (u64, u64) = (0x4000_0000, 512);
/// The locks in the index of a write-ahead log.
const INDEX_LOCKS: (u64, u64) = (120, 8);

pub(super) const NAMES: Names = Names {
    // The index of a log is made again by the first who opens it.
    dropped: &["*-shm"],
    own: &[],
    kept: &[],
    late: &["*-wal"],
};

/// Names of the databases in a directory, in order. A database that is still empty has no magic, and is known by its log.
pub(in crate::engine::sync) fn databases(dir: &Dir) -> Result<Vec<String>> {
    let names: Vec<_> = dir.names()?.into_iter().filter_map(|name| name.into_string().ok()).collect();
    let mut found = Vec::new();
    for name in &names {
        if head(dir, name)?.starts_with(MAGIC) || names.contains(&format!("{name}{LOG}")) {
            found.push(name.clone());
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn is_log(name: &Name) -> bool {
    name.last().ends_with(LOG.as_bytes())
}

pub(super) fn user(dir: &Dir) -> Result<Option<Process>> {
    for name in databases(dir)? {
        let held = |name: String, (start, length)| usage::lock_holder(&dir.path().join(name), start, length);
        if let Some(process) = held(name.clone(), LOCKS).or_else(|| held(format!("{name}{INDEX}"), INDEX_LOCKS)) {
            return Ok(Some(process));
        }
    }
    Ok(None)
}
