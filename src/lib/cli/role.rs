//! The arguments of `repl-role`, and what they mean to the engine.

mod change;
mod place;
mod seek;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args as Flags, Parser, Subcommand};
use clap_complete::Shell;

use self::change::Change;
use self::place::Site;
use super::args::{self, Log, Talk};
use super::report;
use super::voice::Words;
use crate::edge::host;
use crate::engine::role::init::{Order, Outcome};
use crate::engine::role::pause::{self, Direction};
use crate::engine::role::record::Record;
use crate::engine::role::{init, promote, show};
use crate::engine::sync::marker;
use crate::rule::config::Config;
use crate::rule::stream::hello::EPOCH_MOST;
use crate::value::position::Bookmark;
use crate::value::units;

/// Say and change what a site is in its set: master or receiver, shipping or paused
#[derive(Parser, Debug)]
#[command(
    name = "repl-role",
    version,
    help_expected = true,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Args {
    /// What is asked.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// What messages look like.
    #[command(flatten)]
    pub words: Words,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,
}

/// Which site.
#[derive(Flags, Clone, Debug)]
pub struct At {
    /// The log directory: a master's, or the one that a receiver lands log in
    #[arg(value_name = "LOGDIR")]
    pub logdir: Option<PathBuf>,

    /// Where repl-ship keeps its state here
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Which log this is.
    #[command(flatten)]
    pub log: Log,
}

/// What is asked.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Fail while a server must not be started on a directory, because a sync is being written into it
    Guard {
        /// The database's directory; only read
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },

    /// Make a site that was never told what it is the master of its set
    Init {
        /// It is the master; there is no other way to begin
        #[arg(long, required = true)]
        master: bool,

        /// Of this epoch, if it is newer than what is known here [default: the one that is known, or the first]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=EPOCH_MOST))]
        epoch: Option<u64>,

        /// Name of this site [default: the configuration's, or the machine's]
        #[arg(long, value_name = "NAME", value_parser = args::name)]
        site: Option<String>,

        /// Take a directory without any log: the database is still to be made there
        #[arg(long)]
        allow_empty: bool,

        /// Change nothing; say what would be
        #[arg(short = 'n', long)]
        dry_run: bool,

        /// Why, for the site's history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,

        /// Which site.
        #[command(flatten)]
        at: At,

        /// How much is said.
        #[command(flatten)]
        talk: Talk,
    },

    /// Show role, epoch, instance, what is held and what is paused; change nothing
    Show {
        /// Print an object
        #[arg(long)]
        json: bool,

        /// Which site.
        #[command(flatten)]
        at: At,
    },

    /// Print the address of the master, as all sites that can be reached have it
    Where {
        /// Print an object
        #[arg(long)]
        json: bool,

        /// Longest wait for another site's answer
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::positive_duration)]
        timeout: Duration,

        /// Which site.
        #[command(flatten)]
        at: At,
    },

    /// Stop a direction until it is resumed, also over restarts: ship, apply or feed
    Pause {
        /// What stands still: ship, at the sender; apply or feed, at the receiver
        #[arg(value_name = "DIRECTION", value_parser = Direction::parse)]
        direction: Direction,

        /// Why; whoever is refused is told, and the site's history
        #[arg(long, value_name = "TEXT", required = true)]
        reason: Option<String>,

        /// Change nothing; say what would be
        #[arg(short = 'n', long)]
        dry_run: bool,

        /// Which site.
        #[command(flatten)]
        at: At,
    },

    /// Make another site the master, and this one a receiver, in order; run at the master, and again if it is interrupted
    Switchover {
        /// The site that becomes the master: one of those in the configuration
        #[arg(long, value_name = "NAME")]
        to: String,

        /// Longest time for the last byte to arrive, and for each command
        #[arg(long, value_name = "TIME", default_value = "2m", value_parser = units::positive_duration)]
        timeout: Duration,

        /// Prove what can be proven, change nothing, and say what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,

        /// Why, for the history of both sites
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,

        /// Which site.
        #[command(flatten)]
        at: At,

        /// How much is said.
        #[command(flatten)]
        talk: Talk,
    },

    /// Make this receiver the master of a new epoch: what a switchover has the other site do
    Become {
        /// Of this epoch, which must be newer than any that is known here
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=EPOCH_MOST))]
        epoch: u64,

        /// What must be held here; else whatever is
        #[arg(long, value_name = "POS")]
        held: Option<Bookmark>,

        /// Name of this site [default: the configuration's, or the machine's]
        #[arg(long, value_name = "NAME", value_parser = args::name)]
        site: Option<String>,

        /// Longest time for a receiver to end, and for each command
        #[arg(long, value_name = "TIME", default_value = "1m", value_parser = units::positive_duration)]
        timeout: Duration,

        /// Change nothing; say what would be
        #[arg(short = 'n', long)]
        dry_run: bool,

        /// Why, for the site's history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,

        /// Which site.
        #[command(flatten)]
        at: At,
    },

    /// Go on with a direction that is paused
    Resume {
        /// What goes on: ship, apply or feed
        #[arg(value_name = "DIRECTION", value_parser = Direction::parse)]
        direction: Direction,

        /// Why, for the site's history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,

        /// Change nothing; say what would be
        #[arg(short = 'n', long)]
        dry_run: bool,

        /// Which site.
        #[command(flatten)]
        at: At,
    },
}

/// Does what is asked. `set` is its name where only that was told.
pub fn run(args: &Args, config: Option<&Config>, set: Option<&str>) -> Result<()> {
    match &args.command {
        Some(Command::Guard { dir }) => marker::guard(dir),
        Some(Command::Init { epoch, site: name, allow_empty, dry_run, reason, at, talk, .. }) => {
            let site = Site::open(at, config, set)?;
            let name = name.clone().or_else(|| site.name()).map_or_else(host::name, Ok)?;
            let (reason, allow_empty, is_dry) = (reason.clone(), *allow_empty, *dry_run);
            let order = Order { site: name, epoch: *epoch, allow_empty, is_dry, reason };
            begin(&site, &order, talk)
        }
        Some(Command::Show { json, at }) => tell(&Site::open(at, config, set)?, *json),
        Some(Command::Where { json, timeout, at }) => seek::run(&Site::open(at, config, set)?, *timeout, *json),
        Some(Command::Pause { direction, reason, dry_run, at }) => {
            stand(&Site::open(at, config, set)?, *direction, reason.as_deref(), *dry_run)
        }
        Some(Command::Switchover { to, timeout, dry_run, reason, at, talk }) => {
            let site = Site::open(at, config, set)?;
            let change = Change { timeout: *timeout, reason: reason.clone(), is_dry: *dry_run };
            change::switch(&site, to, change, talk)
        }
        Some(Command::Become { epoch, held, site: name, timeout, dry_run, reason, at }) => {
            let site = Site::open(at, config, set)?;
            let name = name.clone().or_else(|| site.name()).map_or_else(host::name, Ok)?;
            let (patience, is_dry, reason) = (*timeout, *dry_run, reason.clone());
            let order = promote::Order { epoch: *epoch, held: *held, site: name, patience, is_dry, reason };
            change::lead(&site, &order)
        }
        Some(Command::Resume { direction, reason, dry_run, at }) => {
            go_on(&Site::open(at, config, set)?, *direction, reason.as_deref(), *dry_run)
        }
        None => Ok(()),
    }
}

fn begin(site: &Site<'_>, order: &Order, talk: &Talk) -> Result<()> {
    let state = if order.is_dry { site.state_there()? } else { Some(site.state()?) };
    let outcome = init::run(&site.place(state.as_ref()), order)?;
    let words = match &outcome {
        Outcome::Made(_) if order.is_dry => "would be",
        Outcome::Made(_) => "is",
        Outcome::Was(_) => "was already",
    };
    let (Outcome::Made(Record { site, epoch, .. }) | Outcome::Was(Record { site, epoch, .. })) = outcome;
    if talk.quiet {
        return Ok(());
    }
    report::print(format!("{site} {words} the master, epoch {epoch}\n").as_bytes())
}

fn tell(site: &Site<'_>, as_object: bool) -> Result<()> {
    let state = site.state_there()?;
    let standing = show::run(&site.place(state.as_ref()))?;
    let facts = site.facts(&standing);
    let text = if as_object { format!("{}\n", standing.object(&facts)) } else { standing.lines(&facts) };
    report::print(text.as_bytes())
}

fn stand(site: &Site<'_>, direction: Direction, reason: Option<&str>, is_dry: bool) -> Result<()> {
    let state = site.state_of(direction)?;
    if is_dry {
        return report::print(format!("would pause {direction}\n").as_bytes());
    }
    match pause::pause(&state, direction, reason)? {
        Some(was) => report::print(format!("{direction} is paused since {}: {}\n", was.since, was.reason).as_bytes()),
        None => report::print(format!("{direction} is paused\n").as_bytes()),
    }
}

fn go_on(site: &Site<'_>, direction: Direction, reason: Option<&str>, is_dry: bool) -> Result<()> {
    let state = site.state_of(direction)?;
    if is_dry {
        return report::print(format!("would resume {direction}\n").as_bytes());
    }
    match pause::resume(&state, direction, reason)? {
        Some(was) => report::print(format!("{direction} goes on; it was paused since {}\n", was.since).as_bytes()),
        None => report::print(format!("{direction} was not paused\n").as_bytes()),
    }
}
