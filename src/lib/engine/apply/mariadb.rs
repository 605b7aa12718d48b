//! The default feed of MariaDB: its own `mariadb-binlog` and client, from transaction end to transaction end.
//!
//! A crash may come between the server's commit and our note of it, so the note is only a place to look from. What the
//! server has is asked of the server, before the first portion and after every failure: its own binary log holds the
//! identifier of each transaction, committed with its rows. What it has is skipped; what should have come before and is
//! not there stops the feed, since the server itself would take the next transaction without a word. A transaction that
//! a crashed master left unfinished at the end of a file is passed over: its identifier comes again in the next one.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::edge::dir::Dir;
use crate::edge::read::read_at;
use crate::engine::log::beginning;
use crate::engine::mariadb::{Server, decode};
use crate::rule::pattern::Pattern;
use crate::rule::scheme::mariadb::{Gtid, Gtids, Transactions, before};
use crate::value::exit::{Code, fail};

/// First bytes of a segment, with the list of what came before it.
const HEAD: usize = 1 << 12;
/// The same, where many servers are in the list.
const LONG_HEAD: usize = 1 << 21;
/// Bytes of log that are read at once.
const WINDOW: usize = 1 << 18;

/// Feeds one server.
pub(in crate::engine) struct Mariadb {
    server: Server,
    timeout: Duration,
    /// Whether the server has all before the next portion, and nothing of it.
    is_sure: bool,
}

/// A part of a binary log: whole transactions.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Part<'a> {
    /// Names of binary logs.
    pub(in crate::engine) pattern: &'a Pattern,
    /// The file's directory.
    pub(in crate::engine) dir: &'a Dir,
    /// Its name.
    pub(in crate::engine) name: &'a str,
    /// Where it begins.
    pub(in crate::engine) from: u64,
    /// Where its last transaction ends.
    pub(in crate::engine) to: u64,
}

impl Mariadb {
    pub(in crate::engine) fn new(server: Server, timeout: Duration) -> Mariadb {
        Mariadb { server, timeout, is_sure: false }
    }

    /// Gives a part to the server, less what it has. `state` is a directory for a file without a name.
    pub(in crate::engine) fn run(&mut self, part: Part<'_>, state: &Dir) -> Result<()> {
        let file = part.dir.open_read(part.name)?.with_context(|| format!("{} is gone", part.dir.shown(part.name)))?;
        check_readable(&file, part)?;
        if part.to <= part.from {
            return Ok(());
        }
        let mut start = part.from;
        if !self.is_sure {
            match missing(&file, part, self.server.executed()?)? {
                Some(first) => start = first,
                None => return Ok(()),
            }
        }
        self.is_sure = false;
        let script = state.create_unnamed()?;
        decode(&path(part), start, part.to, &script, self.timeout)?;
        self.server.play(script, self.timeout)?;
        self.is_sure = true;
        Ok(())
    }
}

impl Mariadb {
    /// Whether the server has executed all of a part.
    pub(in crate::engine) fn has(&self, part: Part<'_>) -> Result<bool> {
        let file = part.dir.open_read(part.name)?.with_context(|| format!("{} is gone", part.dir.shown(part.name)))?;
        Ok(part.to <= part.from || missing(&file, part, self.server.executed()?)?.is_none())
    }
}

/// The file by a path that is no option, whatever its name begins with.
fn path(part: Part<'_>) -> std::path::PathBuf {
    Path::new(".").join(part.dir.path()).join(part.name)
}

/// Refuses an encrypted file: no transaction can be seen in it, and that must not look like one that has none.
fn check_readable(file: &File, part: Part<'_>) -> Result<()> {
    let mut transactions = Transactions::new(part.pattern, Gtids::default());
    transactions.take(&beginning(file, HEAD)?, |_, _| {});
    if transactions.is_encrypted() {
        let text = format!("{} is encrypted: only a server with its key can read it", part.dir.shown(part.name));
        return fail(Code::Hook, text);
    }
    Ok(())
}

/// Where the first transaction begins that the server has not; `None` when it has all of them.
fn missing(file: &File, part: Part<'_>, have: Gtids) -> Result<Option<u64>> {
    let (mut before, mut first) = (last_before(file)?, None);
    let mut transactions = Transactions::new(part.pattern, have.clone());
    let mut window = vec![0; WINDOW];
    let mut at = 0;
    while at < part.to && first.is_none() {
        let want = (part.to - at).min(WINDOW as u64) as usize;
        let count = read_at(file, &mut window[..want], at).context("cannot read a segment")?;
        if count == 0 {
            break;
        }
        at += count as u64;
        transactions.take(&window[..count], |transaction, has| {
            if has || transaction.start < part.from {
                if first.is_none() {
                    before.insert(transaction.gtid.domain, transaction.gtid);
                }
            } else {
                first.get_or_insert(transaction.start);
            }
        });
    }
    if first.is_none()
        && let Some(why) = transactions.trouble()
    {
        return fail(Code::Corrupt, format!("{}: {why}", part.dir.shown(part.name)));
    }
    if let Some(lacking) = before.values().find(|gtid| !have.has(**gtid)) {
        let text = format!(
            "the server has not executed transaction {lacking}, which comes before byte {} of {}: what leads to it is \
             missing there. Feed a server that began with this log or with a base copy; if its base copy is older than \
             what was fed, remove .repl/applied, and feeding begins with the first segment that is held",
            first.unwrap_or(part.to),
            part.name,
        );
        return fail(Code::Hook, text);
    }
    Ok(first)
}

/// The last transaction of each domain before this segment.
fn last_before(file: &File) -> Result<BTreeMap<u32, Gtid>> {
    let list = match before(&beginning(file, HEAD)?) {
        Some(list) => Some(list),
        None => before(&beginning(file, LONG_HEAD)?),
    };
    Ok(list.into_iter().flatten().map(|gtid| (gtid.domain, gtid)).collect())
}
