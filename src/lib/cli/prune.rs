//! The arguments of `repl-prune`, and what they mean to the engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use clap_complete::Shell;

use super::args::{self, Log, Talk};
use crate::edge::hook::Hook;
use crate::engine::bdb::Environment;
use crate::engine::mariadb::Server;
use crate::engine::postgres::{Slot, check_dsn};
use crate::engine::prune::Options;
use crate::engine::prune::consumers::{self, Sender};
use crate::engine::prune::full::{Full, Policy};
use crate::engine::release::Release;
use crate::rule::retention::Keep;
use crate::rule::scheme::{Engine, Scheme};
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::Bookmark;
use crate::value::units;

/// Delete log and bases that no consumer, no kept base and no running recovery needs
#[derive(Parser, Debug)]
#[command(name = "repl-prune", version, help_expected = true)]
pub struct Args {
    /// Archive that repl-apply keeps, or a master's log directory
    #[arg(value_name = "DIR", required_unless_present = "completions")]
    pub dir: Option<PathBuf>,

    /// Which log this is.
    #[command(flatten)]
    pub log: Log,

    /// Name of the set: repl-ship's state is in a directory of this name by default
    #[arg(long, value_name = "NAME", value_parser = args::name)]
    pub set: Option<String>,

    /// Keep so many of an archive's newest bases [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub keep_bases: Option<u16>,

    /// Keep the bases that are needed to recover to any time in this long before now
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub keep_for: Option<Duration>,

    /// The database that is fed here is all that needs its log, as far as its next recovery does
    #[arg(long)]
    pub standby: bool,

    /// Keep in mind that consumer NAME has the log up to POS ('none': forget it), and prune nothing (may be repeated)
    #[arg(long, value_name = "NAME=POS", value_parser = consumers::parse, conflicts_with_all = ["keep_bases", "keep_for", "standby", "explain", "dry_run", "on_full", "no_receivers"])]
    pub consumer: Vec<(String, Option<Bookmark>)>,

    /// Let go of this receiver of an earlier repl-ship: it needs no log any more; and prune nothing (may be repeated)
    #[arg(long, value_name = "RECEIVER", conflicts_with_all = ["consumer", "keep_bases", "keep_for", "standby", "explain", "dry_run", "on_full", "no_receivers"])]
    pub forget: Vec<String>,

    /// Count only consumers, not the receivers that repl-ship's status tells of
    #[arg(long)]
    pub no_receivers: bool,

    /// A repl-ship that ships from here, too, has its state in this directory (may be repeated) [default, for an archive:
    /// where it is by default]
    #[arg(long, value_name = "DIR")]
    pub sender: Vec<PathBuf>,

    /// Change nothing; print what would go
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Change nothing; say who keeps this segment or base, or why it goes
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dry_run", "json"])]
    pub explain: Option<String>,

    /// What to do at a master whose disk stays too full: nothing, run --stop, or give up log that consumers need
    #[arg(long, value_name = "POLICY", value_enum)]
    pub on_full: Option<OnFull>,

    /// A master's disk is too full when fewer bytes are free, with K, M or G [default: a twentieth of the file system]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub min_free: Option<u64>,

    /// Ends the database in order, with --on-full stop
    #[arg(long, value_name = "CMD", required_if_eq("on_full", "stop"))]
    pub stop: Option<String>,

    /// How long that may take
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::positive_duration)]
    pub hook_timeout: Duration,

    /// Move this replication slot of a PostgreSQL master on
    #[arg(long, value_name = "NAME", value_parser = Slot::parse_name)]
    pub slot: Option<String>,

    /// How to reach a master's server: a libpq conninfo without password, or a MariaDB option file
    /// [default: as its own client does]
    #[arg(long, value_name = "TEXT", value_parser = check_dsn)]
    pub dsn: Option<String>,

    /// Home of a Berkeley DB environment [default: DIR]
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,

    /// The state is in this directory [default: DIR/.repl for an archive, repl-ship's own place for a master]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Kept in the history with what was removed
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// Print one JSON object instead of lines
    #[arg(long)]
    pub json: bool,

    /// How much is said.
    #[command(flatten)]
    pub talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,

    /// Where the configuration has the state of this set's sender.
    #[arg(skip)]
    pub sender_state: Option<PathBuf>,
}

/// See [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFull {
    /// Remove nothing more
    Keep,
    /// Run --stop
    Stop,
    /// Give up log, and say so until it is covered
    Drop,
}

impl Args {
    /// What the engine is told.
    pub fn options(&self) -> Options {
        Options {
            keep: Keep { count: self.keep_bases.map(usize::from), age: self.keep_for },
            is_standby: self.standby,
            with_receivers: !self.no_receivers,
            is_dry: self.dry_run || self.explain.is_some(),
            reason: self.reason.clone(),
        }
    }

    /// Refuses what does not go with an archive.
    pub fn check_archive(&self) -> Result<()> {
        let masters = [
            ("--on-full", self.on_full.is_some()),
            ("--min-free", self.min_free.is_some()),
            ("--slot", self.slot.is_some()),
            ("--dsn", self.dsn.is_some()),
            ("--home", self.home.is_some()),
        ];
        refuse(&masters, "a master's log directory, and this is an archive")
    }

    /// Refuses what does not go with a master's log directory.
    pub fn check_master(&self) -> Result<()> {
        let archives = [
            ("--keep-bases", self.keep_bases.is_some()),
            ("--keep-for", self.keep_for.is_some()),
            ("--standby", self.standby),
        ];
        refuse(&archives, "an archive, and nothing was ever received here")
    }

    /// Where the state of a `repl-ship` that ships from this directory is.
    pub fn senders(&self, set: &str, dir: &Path) -> Vec<Sender> {
        if self.sender.is_empty() {
            return self.sender_state(set, dir).into_iter().map(|state| Sender { state, is_told: false }).collect();
        }
        self.told_senders()
    }

    fn sender_state(&self, set: &str, dir: &Path) -> Option<PathBuf> {
        let found = || args::default_state(self.set.as_deref().unwrap_or(set), dir);
        self.sender_state.clone().or_else(found)
    }

    /// The same, as far as they were told.
    pub fn told_senders(&self) -> Vec<Sender> {
        self.sender.iter().map(|state| Sender { state: state.clone(), is_told: true }).collect()
    }

    /// The state of a master's sender.
    pub fn master_state(&self, set: &str, dir: &Path) -> Result<PathBuf> {
        match self.state.clone().or_else(|| self.sender_state(set, dir)) {
            Some(state) => Ok(state),
            None => fail(Code::Usage, "there is no home directory for the state: say it with --state"),
        }
    }

    /// How log is removed at a master. `warning` is what is wrong with how the engine does that by itself.
    pub fn release(&self, scheme: &Scheme, warning: Option<String>) -> Result<Release> {
        let engine = scheme.engine();
        let of = |option: &str, engines: &str| {
            fail(Code::Usage, format!("{option} is for {engines}, this log is of {engine}"))
        };
        if self.slot.is_some() && engine != Engine::Postgres {
            return of("--slot", "engine postgres");
        }
        if self.home.is_some() && engine != Engine::Bdb {
            return of("--home", "engine bdb");
        }
        if self.dsn.is_some() && !matches!(engine, Engine::Postgres | Engine::Mariadb) {
            return of("--dsn", "engines postgres and mariadb");
        }
        match (engine, &self.slot, warning) {
            (Engine::Bdb, _, Some(warning)) => {
                fail(Code::Usage, format!("repl-prune needs to be the only one that removes: {warning}"))
            }
            (Engine::Bdb, ..) => {
                let home = self.home.clone().or_else(|| self.dir.clone()).unwrap_or_default();
                Ok(Release::Archive(Environment { home }))
            }
            (Engine::Mariadb, ..) => Ok(Release::Purge(Server { options: self.dsn.clone().map(PathBuf::from) })),
            (Engine::Postgres, Some(name), _) => Ok(Release::Slot(Slot { name: name.clone(), dsn: self.dsn.clone() })),
            (Engine::Postgres, None, _) => {
                let text = "a PostgreSQL server alone removes its log";
                let hint = "--slot NAME moves its replication slot on, and the server recycles the rest";
                Err(Failure::new(Code::Usage, text).hint(hint).into())
            }
            (Engine::Plain | Engine::Eloquence, ..) => Ok(Release::Files),
        }
    }

    /// What is done about a full disk.
    pub fn full(&self) -> Result<Full> {
        let policy = match (self.on_full.unwrap_or(OnFull::Keep), self.stop.clone()) {
            (OnFull::Stop, Some(command)) => {
                Policy::Stop(Hook { name: "stop", command, timeout: Some(self.hook_timeout) })
            }
            (_, Some(_)) => return fail(Code::Usage, "--stop goes with --on-full stop"),
            (OnFull::Drop, None) => Policy::Drop,
            (_, None) => Policy::Keep,
        };
        Ok(Full { policy, least: self.min_free })
    }
}

fn refuse(options: &[(&str, bool)], what: &str) -> Result<()> {
    match options.iter().find(|(_, is_given)| *is_given) {
        Some((name, _)) => fail(Code::Usage, format!("{name} is for {what}")),
        None => Ok(()),
    }
}
