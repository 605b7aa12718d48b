//! The arguments of `repl-ship`, and what they mean to the engine.

pub mod kept;
pub mod receivers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{ArgGroup, Parser};
use clap_complete::Shell;

use super::alert::{About, Alerts};
use super::args::{self, Log, Talk};
use crate::edge::dir::Dir;
use crate::engine::bdb::Environment;
use crate::engine::mariadb::Server;
use crate::engine::postgres::{Slot, check_dsn};
use crate::engine::release::Release;
use crate::engine::role::Sender;
use crate::engine::ship::outlet::Compress;
use crate::engine::ship::{Only, Options};
use crate::rule::quorum::Policy;
use crate::rule::scheme::{Engine, Scheme};
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Bookmark, Start};
use crate::value::ssh_url::SshUrl;
use crate::value::time::Until;
use crate::value::units;

/// Read the log in LOGDIR and ship it to standard output, or to a command that is kept running
#[derive(Parser, Debug)]
#[command(name = "repl-ship", version, help_expected = true, group = ArgGroup::new("far").multiple(true))]
pub struct Args {
    /// Directory with the log; only read, never written to
    #[arg(value_name = "LOGDIR", required_unless_present_any = ["segment", "completions"], conflicts_with = "segment")]
    pub logdir: Option<PathBuf>,

    /// Which log this is.
    #[command(flatten)]
    pub log: Log,

    /// Name of the set, pinned by receivers
    #[arg(long, value_name = "NAME", value_parser = args::name)]
    pub set: Option<String>,

    /// Where to start in a one-way pipe: oldest, latest, or what 'repl-apply --position' printed
    #[arg(long, value_name = "POS", default_value = "oldest", conflicts_with_all = ["far", "acks"])]
    pub from: Start,

    /// Ship all that is complete and exit
    #[arg(short = 'S', long)]
    pub once: bool,

    /// Ship this one finished segment and exit when it is acknowledged, as an archive command does
    #[arg(long, value_name = "PATH")]
    pub segment: Option<PathBuf>,

    /// Start this command as a receiver, read its acknowledgements, and keep it running (may be repeated)
    #[arg(long, value_name = "CMD", group = "far", conflicts_with = "acks")]
    pub via: Vec<String>,

    /// Log in at ssh://USER@HOST:PORT/DIR (user and port may be left out), run 'repl-apply --acks DIR' there, and keep it
    /// running as with --via (may be repeated)
    #[arg(long, value_name = "URL", value_parser = SshUrl::parse, group = "far", conflicts_with = "acks")]
    pub to: Vec<SshUrl>,

    /// What is run there instead of repl-apply; words of a shell
    #[arg(long, value_name = "CMD", default_value = "repl-apply", requires = "to")]
    pub remote_command: String,

    /// Log in with the private key in this file (may be repeated) [default: the agent's keys, then those in ~/.ssh]
    #[arg(short, long, value_name = "FILE", requires = "to")]
    pub identity: Vec<PathBuf>,

    /// Read the receiver's acknowledgements from this fifo
    #[arg(long, value_name = "FIFO")]
    pub acks: Option<PathBuf>,

    /// Whose acknowledgements make log durable enough: none, one, one-peer, quorum, all, all-peers or all-available
    #[arg(long, value_name = "POLICY", default_value = "all", value_parser = Policy::parse)]
    pub ack: Policy,

    /// How long a boundary, and at the end -S and --segment, wait for them
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::positive_duration)]
    pub ack_timeout: Duration,

    /// Give a failing link up after this long (with -S and --segment; else it is retried for ever)
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    pub retry_for: Duration,

    /// Compress: auto (where it pays), zstd, zstd:LEVEL, or none
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = compress)]
    pub compress: Compress,

    /// Bytes per second at most, with K, M or G
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub bwlimit: Option<u64>,

    /// Ship whole transactions only
    #[arg(long)]
    pub commit_only: bool,

    /// Ship up to this time or position, then exit
    #[arg(long, value_name = "WHEN", value_parser = Until::parse)]
    pub until: Option<Until>,

    /// Look this often instead of being told of changes [default: told, and a look each second]
    #[arg(long, value_name = "TIME", value_parser = units::positive_duration)]
    pub poll: Option<Duration>,

    /// Ship bytes that may not be on this machine's disk yet
    #[arg(long)]
    pub no_sync_source: bool,

    /// Time between heartbeats
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::positive_duration)]
    pub heartbeat: Duration,

    /// Take the receiver for dead after this long without a word
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::positive_duration)]
    pub timeout: Duration,

    /// Keep state (status, digests of shipped segments) in this directory
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Keep log at a PostgreSQL master by this replication slot, made if missing, until it is flushed at the receiver
    #[arg(long, value_name = "NAME", value_parser = Slot::parse_name)]
    pub slot: Option<String>,

    /// Have the master give up segments that are flushed at the receiver: a MariaDB server, or a Berkeley DB environment
    #[arg(long, conflicts_with_all = ["slot", "segment"])]
    pub purge: bool,

    /// How to reach the server for --slot (a libpq conninfo without password) or --purge (a MariaDB option file)
    /// [default: as its own client does]
    #[arg(long, value_name = "TEXT", value_parser = check_dsn)]
    pub dsn: Option<String>,

    /// Home of the Berkeley DB environment for --purge [default: LOGDIR]
    #[arg(long, value_name = "DIR", requires = "purge")]
    pub home: Option<PathBuf>,

    /// Whom to call.
    #[command(flatten)]
    pub alerts: Alerts,

    /// How much is said.
    #[command(flatten)]
    pub talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,
}

/// How to compress, as an argument.
pub fn compress(text: &str) -> Result<Compress, String> {
    match text.split_once(':') {
        None if text == "auto" => Ok(Compress::Auto),
        None if text == "none" => Ok(Compress::None),
        None if text == "zstd" => Ok(Compress::Zstd(3)),
        Some(("zstd", level)) => match level.parse() {
            Ok(level @ -7..=19) => Ok(Compress::Zstd(level)),
            _ => Err(format!("'{level}' is not a zstd level: expected -7 to 19")),
        },
        _ => Err("expected auto, zstd, zstd:LEVEL or none".to_owned()),
    }
}

impl Args {
    /// What is known of it before anything is looked at.
    pub fn about(&self) -> About {
        let logdir = match &self.segment {
            Some(path) => path.parent().unwrap_or(Path::new(".")).to_owned(),
            None => self.logdir.clone().unwrap_or_default(),
        };
        let set = self.set.clone().unwrap_or_default();
        let path = self.state.clone().or_else(|| args::default_state(&set, &logdir));
        let state = move || path.as_deref().and_then(|path| Dir::create(path).ok());
        About { set, site: String::new(), logdir, state: Box::new(state) }
    }

    /// How log is given up at the master. `warning` is what is wrong with how the engine removes log by itself.
    pub fn release(&self, scheme: &Scheme, warning: Option<&str>) -> Result<Option<Release>> {
        let engine = scheme.engine();
        if self.dsn.is_some() && self.slot.is_none() && !(self.purge && engine == Engine::Mariadb) {
            return fail(Code::Usage, "--dsn goes with --slot, or with --purge of engine mariadb");
        }
        if self.home.is_some() && engine != Engine::Bdb {
            return fail(Code::Usage, format!("--home is for engine bdb, this log is of {engine}"));
        }
        if let Some(name) = self.slot.clone() {
            if engine != Engine::Postgres {
                return fail(Code::Usage, format!("--slot is for engine postgres, this log is of {engine}"));
            }
            return Ok(Some(Release::Slot(Slot { name, dsn: self.dsn.clone() })));
        }
        if !self.purge {
            return Ok(None);
        }
        match (engine, warning) {
            (Engine::Mariadb, _) => Ok(Some(Release::Purge(Server { options: self.dsn.clone().map(PathBuf::from) }))),
            (Engine::Bdb, Some(warning)) => fail(Code::Usage, format!("--purge needs to be the only one: {warning}")),
            (Engine::Bdb, None) => {
                let home = self.home.clone().or_else(|| self.logdir.clone()).unwrap_or_default();
                Ok(Some(Release::Archive(Environment { home })))
            }
            (Engine::Postgres, _) => {
                let hint =
                    "--slot NAME keeps log until it is flushed at the receiver, and the server recycles the rest";
                Err(Failure::new(Code::Usage, "--purge is not for engine postgres").hint(hint).into())
            }
            (engine, _) => {
                fail(Code::Usage, format!("--purge is for engines bdb and mariadb, this log is of {engine}"))
            }
        }
    }

    /// What the engine is told, beside what was found out about the log.
    pub fn options(&self, scheme: Scheme, set: String, sender: Sender, only: Option<Only>) -> Options {
        Options {
            epoch: sender.epoch,
            instance: sender.instance,
            scheme,
            set,
            site: String::new(),
            from: match only {
                Some(Only::Segment(segment)) => Start::At(Bookmark { position: segment.at(0), proof: None }),
                _ => self.from,
            },
            once: self.once || only.is_some(),
            only,
            until: self.until,
            commit_only: self.commit_only,
            sync_source: !self.no_sync_source,
            compress: self.compress,
            bwlimit: self.bwlimit,
            poll: self.poll.unwrap_or(Duration::from_secs(1)),
            watch: self.poll.is_none(),
            ack: self.ack,
            ack_timeout: self.ack_timeout,
            heartbeat: self.heartbeat,
            timeout: self.timeout,
            retry_for: self.retry_for,
        }
    }
}
