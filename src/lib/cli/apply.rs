//! The arguments of `repl-apply`, and what they mean to the engine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use clap_complete::Shell;

use super::alert::{About, Alerts};
use super::args::{self, Log, Talk};
use crate::edge::dir::Dir;
use crate::edge::hook::Hook;
use crate::engine::apply::feed::{self, Command, Each};
use crate::engine::apply::{Differing, Options, Sync};
use crate::engine::site;
use crate::value::exit::{Code, fail};
use crate::value::units;

/// Read a log stream from repl-ship, land it in LOGDIR, and acknowledge what is durable
#[derive(Parser, Debug)]
#[command(name = "repl-apply", version, help_expected = true)]
pub struct Args {
    /// Directory to land segments in; made with mode 0700 if it is missing
    #[arg(value_name = "LOGDIR", required_unless_present_any = ["restrict", "completions"])]
    pub logdir: Option<PathBuf>,

    /// Which log this is.
    #[command(flatten)]
    pub log: Log,

    /// Name of the set that is taken; others are refused
    #[arg(long, value_name = "NAME", value_parser = args::name)]
    pub set: Option<String>,

    /// Name of this site, for the greeting
    #[arg(long, value_name = "NAME", value_parser = args::name)]
    pub site: Option<String>,

    /// Print what is held as a bookmark ('oldest' for nothing) and exit
    #[arg(long)]
    pub position: bool,

    /// Print a greeting and acknowledgements on standard output
    #[arg(long, conflicts_with = "position")]
    pub acks: bool,

    /// Keep logs only: refuse to feed a database
    #[arg(long, conflicts_with = "feed")]
    pub logs_only: bool,

    /// Never change, set aside or remove anything that exists
    #[arg(long, conflicts_with = "set_aside")]
    pub append_only: bool,

    /// Run this command to apply what is durable, with REPL_* in its environment; 'default' is the engine's own way
    #[arg(long, value_name = "CMD")]
    pub feed: Option<String>,

    /// How 'default' reaches the database's server; for MariaDB an option file
    #[arg(long, value_name = "DSN", requires = "feed")]
    pub dsn: Option<PathBuf>,

    /// Feed each closed 'segment', each 'boundary', or after each interval such as 10s [default: segment; boundary
    /// with --feed default]
    #[arg(long, value_name = "WHEN", value_parser = each)]
    pub feed_each: Option<Each>,

    /// End a feed that takes longer than this
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = units::positive_duration)]
    pub feed_timeout: Duration,

    /// Feed log only when it is this old
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::duration, requires = "feed")]
    pub delay: Duration,

    /// Wait with feeding while this command fails
    #[arg(long, value_name = "CMD", requires = "feed")]
    pub gate: Option<String>,

    /// Move this replica's own diverged tail to .repl/set-aside and go on
    #[arg(long)]
    pub set_aside: bool,

    /// Take a directory that has foreign files in it, or a stream of another instance of the master than before
    #[arg(long)]
    pub adopt: bool,

    /// When to make durable: after each frame, all that arrived meanwhile, or each closed segment
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = SyncArg::Batch)]
    pub sync: SyncArg,

    /// Serve a forced command: take LOGDIR, below ROOT, and harmless options from SSH_ORIGINAL_COMMAND
    #[arg(long, value_name = "ROOT")]
    pub restrict: Option<PathBuf>,

    /// Keep state in this directory instead of LOGDIR/.repl
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Take the sender for dead after this long without a frame
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::positive_duration)]
    pub timeout: Duration,

    /// Why, for the site's history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

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

/// See [`Sync`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SyncArg {
    /// After each frame
    Each,
    /// All that arrived meanwhile
    Batch,
    /// Each closed segment
    Segment,
}

fn each(text: &str) -> Result<Each, String> {
    match text {
        "segment" => Ok(Each::Segment),
        "boundary" => Ok(Each::Boundary),
        interval => units::positive_duration(interval).map(Each::Interval),
    }
}

impl Args {
    /// What is known of it once its directory is.
    pub fn about(&self, dir: &Dir) -> About {
        let logdir = dir.path().to_owned();
        let (set, site) = (self.set.clone().unwrap_or_default(), self.site.clone().unwrap_or_default());
        let (dir, path) = (dir.try_clone().ok(), self.state.clone());
        let state = move || site::peek(dir.as_ref()?, path.as_deref()).ok().flatten();
        About { set, site, logdir, state: Box::new(state) }
    }

    /// What the engine is told.
    pub fn options(&self) -> Result<Options> {
        let feed = match &self.feed {
            Some(_) if self.logs_only => return fail(Code::Usage, "--logs-only does not go with --feed"),
            Some(command) => {
                let hook =
                    |name, command: &String, timeout| Hook { name, command: command.clone(), timeout: Some(timeout) };
                Some(feed::Options {
                    command: match command.as_str() {
                        "default" => Command::Default { dsn: self.dsn.clone(), timeout: self.feed_timeout },
                        _ if self.dsn.is_some() => return fail(Code::Usage, "--dsn goes with --feed default only"),
                        _ => Command::Hook(hook("feed", command, self.feed_timeout)),
                    },
                    each: self.feed_each,
                    delay: self.delay,
                    gate: self.gate.as_ref().map(|gate| hook("gate", gate, Duration::from_secs(60))),
                })
            }
            None => None,
        };
        Ok(Options {
            kind: self.log.kind()?,
            set: self.set.clone(),
            site: self.site.clone().unwrap_or_default(),
            state: self.state.clone(),
            append_only: self.append_only,
            differing: if self.set_aside { Differing::SetAside } else { Differing::Refused },
            adopt: self.adopt,
            sync: match self.sync {
                SyncArg::Each => Sync::Each,
                SyncArg::Batch => Sync::Batch,
                SyncArg::Segment => Sync::Segment,
            },
            feed,
            reason: self.reason.clone(),
        })
    }
}
