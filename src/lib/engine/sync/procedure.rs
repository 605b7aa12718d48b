//! What is done at the source around the last pass, so that what is read is one state of the database.
//!
//! In order: [`Procedure::begin`], the data files are read, [`Procedure::stop`], which returns files that belong to the
//! copy, the late files (the log) are read, [`Procedure::release`]. Whatever ends the run in between, a kill as well, lets
//! go of the source: what holds it is a process of its own that ends, or thaws, when we do.

mod bdb;
mod commands;
mod mariadb;
mod postgres;
mod sqlite;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::profile::Profile;
use crate::edge::dir::{Dir, shown};
use crate::edge::user::User;
use crate::value::exit::{Code, Failure};
use crate::value::name::Name;

/// What is known at the source.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The kind of its database.
    pub profile: Profile,
    /// Its directory.
    pub source: PathBuf,
    /// How to reach its server: a conninfo, or an option file.
    pub dsn: Option<String>,
    /// The operator's own way to have the source hold still, run by `/bin/sh -c`.
    pub freeze: Option<String>,
    /// The end of that.
    pub thaw: Option<String>,
    /// Whom they and the engine's programs run as when we are root; else the latter run as who owns the directory.
    pub run_as: Option<String>,
    /// How long a step may take.
    pub timeout: Duration,
}

/// A way to have the source hold still, or to make up for that it does not.
#[derive(Debug)]
pub enum Procedure {
    /// Nothing uses the source: it is looked again behind the pass.
    Idle(Settings),
    /// Nothing is known of what uses the source; what changes while it is read is noticed.
    None,
    /// The operator's own.
    Commands(commands::Commands),
    /// A PostgreSQL backup.
    Postgres(Box<postgres::Postgres>),
    /// A MariaDB server that neither is written to nor writes.
    Mariadb(Box<mariadb::Mariadb>),
    /// Databases first, log behind them.
    Bdb(Box<bdb::Bdb>),
    /// A writer's lock on each database.
    Sqlite(Box<sqlite::Sqlite>),
}

impl Procedure {
    /// The procedure for a source, as it is now.
    pub fn new(settings: Settings) -> Result<Procedure> {
        if settings.freeze.is_some() || settings.thaw.is_some() {
            return Ok(Procedure::Commands(commands::Commands::new(settings)?));
        }
        let dir = Dir::open(&settings.source)?;
        if matches!(settings.profile, Profile::Plain | Profile::Eloquence) {
            return Ok(Procedure::None);
        }
        if settings.profile.user(&dir)?.is_none() && settings.profile.shows_use(&settings.source) {
            return Ok(Procedure::Idle(settings));
        }
        Ok(match settings.profile {
            Profile::Postgres => Procedure::Postgres(Box::new(postgres::Postgres::new(settings)?)),
            Profile::Mariadb => Procedure::Mariadb(Box::new(mariadb::Mariadb::new(settings))),
            Profile::Bdb => Procedure::Bdb(Box::new(bdb::Bdb::new(settings)?)),
            Profile::Sqlite => Procedure::Sqlite(Box::new(sqlite::Sqlite::new(settings))),
            Profile::Plain | Profile::Eloquence => Procedure::None,
        })
    }

    /// Before the last pass reads its first byte.
    pub fn begin(&mut self) -> Result<()> {
        match self {
            Procedure::None | Procedure::Idle(_) => Ok(()),
            Procedure::Commands(commands) => commands.begin(),
            Procedure::Postgres(postgres) => postgres.begin(),
            Procedure::Mariadb(mariadb) => mariadb.begin(),
            Procedure::Bdb(bdb) => bdb.begin(),
            Procedure::Sqlite(sqlite) => sqlite.begin(),
        }
    }

    /// When all but the late files were read. Returns files that are to lie in the copy.
    pub fn stop(&mut self) -> Result<Vec<(Name, Vec<u8>)>> {
        match self {
            Procedure::Postgres(postgres) => postgres.stop(),
            _ => Ok(Vec::new()),
        }
    }

    /// When all were read. Only if this succeeds is the copy whole.
    pub fn release(&mut self) -> Result<()> {
        match self {
            Procedure::None => Ok(()),
            Procedure::Idle(settings) => still_idle(settings),
            Procedure::Commands(commands) => commands.release(),
            Procedure::Postgres(postgres) => postgres.release(),
            Procedure::Mariadb(mariadb) => mariadb.release(),
            Procedure::Bdb(bdb) => bdb.release(),
            Procedure::Sqlite(sqlite) => sqlite.release(),
        }
    }

    /// Lets go of the source after a failure; does nothing when nothing is held. (Dropping it does the same.)
    pub fn abort(&mut self) {
        let held = std::mem::replace(self, Procedure::None);
        drop(held);
    }

    /// Whether anything is done to the source, so that what is read between begin and release is one state of it.
    pub fn holds(&self) -> bool {
        !matches!(self, Procedure::None | Procedure::Idle(_))
    }

    /// Whether it makes up for files that change or vanish while they are read: for which, [`Profile::may_change`] says.
    pub fn makes_up(&self) -> bool {
        matches!(self, Procedure::Postgres(_) | Procedure::Bdb(_) | Procedure::Sqlite(_))
    }

    /// Whether the copy must be made whole by the engine's tool before it is used: see
    /// [`super::server::Server::recover`].
    pub fn needs_recovery(&self) -> bool {
        matches!(self, Procedure::Bdb(_))
    }
}

impl Settings {
    /// Whom an engine's program runs as.
    fn user(&self) -> Result<Option<User>> {
        match &self.run_as {
            Some(name) => User::named(name),
            None => User::owner(&self.source),
        }
    }

    /// Refuses a source that does not hold still: 13, and what helps.
    fn refuse(&self, why: &str) -> Failure {
        let text = format!("{} cannot be copied while its server runs: {why}", shown(&self.source));
        Failure::new(Code::Guarded, text)
            .hint("--freeze 'systemctl stop SERVICE' --thaw 'systemctl start SERVICE' stops it for the last pass")
    }
}

/// Nobody began to use it while it was read.
fn still_idle(settings: &Settings) -> Result<()> {
    match settings.profile.user(&Dir::open(&settings.source)?)? {
        None => Ok(()),
        Some(who) => {
            let text = format!("{} came into use while it was copied: {who}", shown(&settings.source));
            Err(Failure::new(Code::Failed, text).hint("run it again").into())
        }
    }
}
