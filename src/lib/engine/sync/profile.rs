//! What is to be known of a database to copy its directory: which files belong to a running server only, which are the
//! replica's own, which come last, how a server in use shows, how it is stopped and started, what tells one database
//! from another. All that is known of one engine is in one file beside this one.

mod bdb;
mod mariadb;
mod plain;
mod postgres;
mod sqlite;

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::facts::Facts;
use crate::edge::dir::Dir;
use crate::edge::tree::Tree;
use crate::edge::usage;
use crate::engine::log;
use crate::value::escape::show;
use crate::value::exit::{Code, Failure};
use crate::value::name::Name;
use crate::value::position::Position;

pub(super) use self::bdb::{environments as bdb_environments, segments as bdb_segments};
pub(super) use self::postgres::{LABEL, TABLESPACES};
pub(super) use self::sqlite::databases as sqlite_databases;

/// Bytes at the beginning of a file that show what it is.
const HEAD: usize = 128;

/// The kind of database that is in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Files of which nothing is known.
    Plain,
    /// Eloquence: nothing is known of its files but their log.
    Eloquence,
    /// Berkeley DB and Berkeley DB SQL.
    Bdb,
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    Mariadb,
    /// SQLite databases in the directory itself.
    Sqlite,
}

/// Every profile with its name for `--engine`.
pub const PROFILES: [(Profile, &str); 6] = [
    (Profile::Plain, "plain"),
    (Profile::Eloquence, "eloquence"),
    (Profile::Bdb, "bdb"),
    (Profile::Postgres, "postgres"),
    (Profile::Mariadb, "mariadb"),
    (Profile::Sqlite, "sqlite"),
];

/// Which names are treated how; patterns as in [`crate::rule::sync`].
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Only a running server has a use for them, and a later one would be misled: never copied, never carried into a
    /// stage, and removed from the destination whenever it is switched.
    pub dropped: &'static [&'static str],
    /// The replica's own: never copied, and the destination's stay as they are (a stage gets them when the server has
    /// stopped).
    pub own: &'static [&'static str],
    /// The replica's own where it has them (its configuration); else copied.
    pub kept: &'static [&'static str],
    /// Copied after everything else, when the source's procedure has come to its end: each pattern's names after those
    /// of the patterns before it.
    pub late: &'static [&'static str],
}

/// Commands that an engine has by itself, for `/bin/sh -c`. They find the directory in `REPL_DIR`, the time they may
/// take in seconds in `REPL_TIMEOUT`, and what `--dsn` says in `REPL_DSN`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Defaults {
    /// Stops the server and waits for its end.
    pub stop: Option<&'static str>,
    /// Starts it as it ran before, and waits until it is up.
    pub start: Option<&'static str>,
    /// Makes a copy whole that was taken of a running source, before any server sees it.
    pub recover: Option<&'static str>,
}

impl Profile {
    /// The profile of this name.
    pub fn parse(name: &str) -> Result<Profile, String> {
        let found = PROFILES.iter().find(|(_, known)| *known == name).map(|(profile, _)| *profile);
        found.ok_or_else(|| {
            let known: Vec<_> = PROFILES.iter().map(|(_, name)| *name).collect();
            format!("'{}' is not an engine: expected {}", show(name), known.join(", "))
        })
    }

    /// What the files of a directory show; [`Profile::Plain`] when they show nothing.
    pub fn detect(dir: &Dir) -> Result<Profile> {
        let names = dir.names()?;
        let names: Vec<_> = names.iter().filter_map(|name| name.to_str()).collect();
        if postgres::is_here(&names) {
            return Ok(Profile::Postgres);
        }
        if mariadb::is_here(&names) {
            return Ok(Profile::Mariadb);
        }
        if bdb::is_here(dir, &names)? {
            return Ok(Profile::Bdb);
        }
        Ok(if sqlite::databases(dir)?.is_empty() { Profile::Plain } else { Profile::Sqlite })
    }

    /// Bytes of a page: what changes in a file changes in such pieces.
    pub fn block_size(self) -> u64 {
        match self {
            Profile::Postgres => postgres::PAGE,
            Profile::Mariadb => mariadb::PAGE,
            Profile::Bdb | Profile::Sqlite => 4096,
            Profile::Plain | Profile::Eloquence => plain::PAGE,
        }
    }

    /// Which names are treated how.
    pub fn names(self) -> Names {
        match self {
            Profile::Postgres => postgres::NAMES,
            Profile::Mariadb => mariadb::NAMES,
            Profile::Bdb => bdb::NAMES,
            Profile::Sqlite => sqlite::NAMES,
            Profile::Plain | Profile::Eloquence => plain::NAMES,
        }
    }

    /// Whether a copy is only right when the destination has nothing that the source has not: a log of another history,
    /// or a file that a table has outgrown, would be taken for the database's.
    pub fn must_mirror(self) -> bool {
        !matches!(self, Profile::Plain | Profile::Eloquence)
    }

    /// Commands that the engine has by itself. `has_dsn` says whether we were told how to reach its server.
    pub fn defaults(self, has_dsn: bool) -> Defaults {
        match self {
            Profile::Postgres => postgres::DEFAULTS,
            Profile::Mariadb if has_dsn => mariadb::DEFAULTS,
            Profile::Bdb => bdb::DEFAULTS,
            _ => Defaults::default(),
        }
    }

    /// Refuses (13) a source of which a part lies elsewhere: a link would be copied, and what it leads to would not.
    pub fn refuse_link(self, name: &Name) -> Result<()> {
        let is_elsewhere = match self {
            Profile::Postgres => postgres::is_elsewhere(name),
            Profile::Mariadb => true,
            _ => false,
        };
        if is_elsewhere {
            let text = format!("a part of the database lies elsewhere: {name} is a symbolic link");
            let hint = "--exclude it, and sync what it leads to by itself while both servers are stopped";
            return Err(Failure::new(Code::Guarded, text).hint(hint).into());
        }
        Ok(())
    }

    /// Whether the source's server may change a file of this name, or remove it, while its own procedure is on and the
    /// file is read: the log that is copied late makes up for it.
    pub(super) fn may_change(self, name: &Name) -> bool {
        match self {
            Profile::Postgres | Profile::Bdb => true,
            Profile::Sqlite => !sqlite::is_log(name),
            _ => false,
        }
    }

    /// Whether a file of this name belongs to a copy and comes from the source's procedure.
    pub fn lays(self, name: &Name) -> bool {
        match self {
            Profile::Postgres => [LABEL, TABLESPACES].iter().any(|known| name.bytes() == known.as_bytes()),
            Profile::Mariadb => name.parent().is_root() && mariadb::is_index(name.last()),
            _ => false,
        }
    }

    /// Whether [`Profile::user`] would have seen a server, as far as we may look.
    pub fn shows_use(self, path: &Path) -> bool {
        match self {
            Profile::Postgres | Profile::Mariadb => true,
            // Only by the files that others have open.
            Profile::Bdb | Profile::Sqlite => usage::sees_processes_of_owner(path),
            Profile::Plain | Profile::Eloquence => false,
        }
    }

    /// Who uses the database in a directory, if anybody does that shows: a server, a process with its files open for
    /// writing, or the holder of a lock.
    pub fn user(self, dir: &Dir) -> Result<Option<String>> {
        Ok(self.server(dir)?.or_else(|| usage::writer(dir.path()).map(|process| process.to_string())))
    }

    /// The same, by the engine's own signs alone.
    pub fn server(self, dir: &Dir) -> Result<Option<String>> {
        let found = match self {
            Profile::Postgres => postgres::user(dir)?,
            Profile::Mariadb => mariadb::user(dir),
            Profile::Bdb => bdb::user(dir),
            Profile::Sqlite => sqlite::user(dir)?,
            Profile::Plain | Profile::Eloquence => None,
        };
        Ok(found.map(|process| process.to_string()))
    }

    /// Whether a server that is started on a copy with what is the destination's own takes itself for a master.
    pub(super) fn leads(self, dir: &Dir) -> Result<bool> {
        match self {
            Profile::Postgres => postgres::leads(dir),
            _ => Ok(false),
        }
    }

    /// What small files of a directory tell.
    pub fn facts(self, dir: &Dir) -> Result<Facts> {
        match self {
            Profile::Postgres => postgres::facts(dir),
            Profile::Mariadb => mariadb::facts(dir),
            Profile::Bdb => bdb::facts(dir),
            Profile::Plain | Profile::Eloquence | Profile::Sqlite => Ok(Facts::default()),
        }
    }

    /// The directories of a tree that may have the database's log in them.
    pub(super) fn log_directories(self, tree: &Tree) -> Result<Vec<Name>> {
        Ok(match self {
            Profile::Postgres => vec![Name::root().join(postgres::LOG.as_bytes())],
            Profile::Bdb => bdb::homes(&Dir::open(tree.path())?)?,
            _ => Vec::new(),
        })
    }

    /// The directories in a data directory where the database's log may be; `.` is that one itself.
    pub fn log_places(self, data: &Dir) -> Result<Vec<String>> {
        let names = match self {
            Profile::Postgres => vec![postgres::LOG.to_owned()],
            Profile::Bdb => {
                bdb::homes(data)?.iter().map(|name| String::from_utf8_lossy(name.bytes()).into_owned()).collect()
            }
            Profile::Mariadb | Profile::Plain | Profile::Eloquence => vec![String::new()],
            Profile::Sqlite => Vec::new(),
        };
        Ok(names.into_iter().map(|name| if name.is_empty() { ".".to_owned() } else { name }).collect())
    }

    /// Files of a source that a copy must have in another form, once the source holds still.
    pub(super) fn laid(self, dir: &Dir) -> Result<Vec<(Name, Vec<u8>)>> {
        let files = match self {
            Profile::Mariadb => mariadb::laid(dir)?,
            _ => Vec::new(),
        };
        Ok(files.into_iter().map(|(name, bytes)| (Name::root().join(name.as_bytes()), bytes)).collect())
    }

    /// From where on a copy that has just been made needs log, where its log is in it.
    pub fn position(self, dir: &Dir) -> Result<Option<Position>> {
        match self {
            Profile::Postgres => postgres::position(dir),
            Profile::Mariadb => mariadb::position(dir),
            Profile::Bdb => bdb::position(dir),
            Profile::Plain | Profile::Eloquence | Profile::Sqlite => Ok(None),
        }
        .context("cannot tell where the log goes on")
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = PROFILES.iter().find(|(profile, _)| profile == self).map_or("", |(_, name)| name);
        out.write_str(name)
    }
}

/// Whether a file is a database of Berkeley DB's.
pub fn is_bdb_database(file: &std::fs::File) -> Result<bool> {
    Ok(bdb::is_database(&log::beginning(file, HEAD)?))
}

/// A file's first bytes; none when there is no such file, or it is none.
fn head(dir: &Dir, name: &str) -> Result<Vec<u8>> {
    let Ok(Some(file)) = dir.open_read(name) else {
        return Ok(Vec::new());
    };
    log::beginning(&file, HEAD)
}

/// The number at a place, in the byte order of this machine: the one that wrote the file is of the same kind.
fn number<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}
