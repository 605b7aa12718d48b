//! The arguments of `repl-recover`, and its words.

mod at;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use clap_complete::Shell;
use serde_json::{Value, json};

use super::args::Talk;
use super::report;
use crate::edge::dir::Dir;
use crate::edge::hook::Hook;
use crate::engine::archive::base;
use crate::engine::recover::place::Remains;
use crate::engine::recover::plan::Plan;
use crate::engine::recover::{self, Choice, Order};
use crate::engine::sync::profile::Profile;
use crate::value::exit::{Code, Failure, fail};
use crate::value::time::Until;
use crate::value::units;

const NAME: &str = "repl-recover";

/// Bring a database back from an archive of bases and log, proven to be possible before anything is touched
#[derive(Parser, Debug)]
#[command(name = NAME, version, help_expected = true)]
pub struct Args {
    /// Directory with the log and its bases; only read
    #[arg(long, value_name = "DIR", required_unless_present = "completions")]
    pub archive: Option<PathBuf>,

    /// Directory that the database is to be in: empty, or not there [with --drill: a scratch directory]
    #[arg(long, value_name = "DIR", required_unless_present_any = ["drill", "dry_run", "completions"])]
    pub target: Option<PathBuf>,

    /// Base to begin with: its name, latest (the newest that is not later than --until) or none (log alone)
    #[arg(long, value_name = "NAME", default_value = "latest", value_parser = choice)]
    pub base: Choice,

    /// Recover up to a position or a time (RFC 3339, or UTC) [default: the end of what is held]
    #[arg(long, value_name = "WHEN", value_parser = Until::parse)]
    pub until: Option<Until>,

    /// Kind of database: bdb, postgres, mariadb, sqlite, eloquence or plain [default: as the base says]
    #[arg(long, value_name = "ENGINE", value_parser = Profile::parse)]
    pub engine: Option<Profile>,

    /// Recover by this command instead of the engine's own recovery
    #[arg(long, value_name = "CMD")]
    pub recover: Option<String>,

    /// Exit with 0 when the recovered database is right
    #[arg(long, value_name = "CMD")]
    pub check: Option<String>,

    /// What becomes of the database's server when all is done
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    pub then: Then,

    /// Start the server, for --then start
    #[arg(long, value_name = "CMD")]
    pub start: Option<String>,

    /// Leave a PostgreSQL database in recovery, so that it can follow more log, and do not promote it
    #[arg(long)]
    pub stay: bool,

    /// Run commands as this user when root, and give them the target [default: who owns the base's directory]
    #[arg(long, value_name = "USER")]
    pub run_as: Option<String>,

    /// Option file for the server that recovers a MariaDB database [default: the server's own defaults]
    #[arg(long, value_name = "FILE")]
    pub dsn: Option<String>,

    /// How long each command may take
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::positive_duration)]
    pub hook_timeout: Duration,

    /// The archive's state is in this directory instead of DIR/.repl
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Recover at another site, which this runs a command line at, such as 'ssh other': what is needed is shipped there
    #[arg(long, value_name = "CMD", requires = "target", conflicts_with_all = ["finish", "state"])]
    pub at: Option<String>,

    /// With --at: where log and base go there [default: the target with .archive added]
    #[arg(long, value_name = "DIR", requires = "at")]
    pub at_archive: Option<PathBuf>,

    /// Recover into a scratch directory, report, and remove it
    #[arg(long, conflicts_with_all = ["finish", "start", "stay"])]
    pub drill: bool,

    /// Remove what was recovered in the target, so that the archive's site only holds log again
    #[arg(long, requires = "target", conflicts_with_all = ["until", "check", "recover", "start", "stay", "json"])]
    pub finish: bool,

    /// With --finish: take a new base, where the log does not begin with the set and no base serves
    #[arg(long, value_name = "CMD", requires = "finish")]
    pub master: Option<String>,

    /// Why, for the record in the target
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// Print one JSON object instead of lines
    #[arg(long)]
    pub json: bool,

    /// Prove and plan: say what would be done, and touch nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// How much is said.
    #[command(flatten)]
    pub talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,
}

/// What becomes of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Then {
    /// It is left stopped.
    Stop,
    /// It is started.
    Start,
}

fn choice(text: &str) -> Result<Choice, String> {
    Ok(match text {
        "latest" => Choice::Latest,
        "none" => Choice::None,
        name if base::is_name(name) => Choice::Named(name.to_owned()),
        _ => return Err("expected the name of a base, latest or none".to_owned()),
    })
}

impl Args {
    /// Does what the command line asks.
    pub fn run(&self) -> Result<()> {
        if self.finish {
            return self.finish();
        }
        let scratch = std::env::temp_dir().join(format!("repl-recover-drill-{:08x}", fastrand::u32(..)));
        // At another site the target is none of this one's.
        let target = self.target.clone().filter(|_| self.at.is_none()).unwrap_or_else(|| scratch.clone());
        let order = self.order(target)?;
        if let (Some(prefix), false) = (&self.at, self.dry_run) {
            let plan = recover::plan(&order)?;
            return self.site(prefix).run(self, &plan);
        }
        if self.dry_run {
            let plan = recover::plan(&order)?;
            if self.at.is_none() && (self.target.is_some() || self.drill) {
                recover::has_room(&order, &plan)?;
            }
            return self.print(&plan.print(), &object(&plan));
        }
        let began = Instant::now();
        let was_there = order.target.exists();
        let done = recover::run(&order);
        if self.drill {
            self.sweep(&order.target, was_there, done.is_ok())?;
        }
        let done = done?;
        let seconds = began.elapsed().as_secs_f64();
        let plan = &done.plan;
        let mut told = object(plan);
        told["copied_bytes"] = done.copied.into();
        told["seconds"] = ((seconds * 1e3).round() / 1e3).into();
        let end = plan.end.map_or_else(|| "its base".to_owned(), |end| end.to_string());
        let time = plan.time.map(|time| format!(", {}", time.narrate())).unwrap_or_default();
        let what = if self.drill { "drill: recovered and removed" } else { "recovered" };
        self.print(&format!("{what} up to {end}{time}, in {seconds:.1} s\n{}", plan.losses()), &told)
    }

    fn site<'a>(&self, prefix: &'a str) -> at::Site<'a> {
        let target = self.target.clone().unwrap_or_default();
        let beside = || {
            let mut name = target.clone().into_os_string();
            name.push(".archive");
            PathBuf::from(name)
        };
        let archive = self.at_archive.clone().unwrap_or_else(beside);
        at::Site { prefix, archive, target, from: self.archive.clone().unwrap_or_default() }
    }

    fn order(&self, target: PathBuf) -> Result<Order> {
        if self.then == Then::Start && self.start.is_none() {
            return fail(Code::Usage, "--then start needs --start CMD");
        }
        Ok(Order {
            archive: self.archive.clone().unwrap_or_default(),
            state: self.state.clone(),
            target,
            base: self.base.clone(),
            until: self.until,
            engine: self.engine,
            recover: self.recover.clone(),
            check: self.check.clone(),
            start: self.start.clone().filter(|_| self.then == Then::Start),
            stays: self.stay,
            run_as: self.run_as.clone(),
            dsn: self.dsn.clone(),
            timeout: self.hook_timeout,
            reason: self.reason.clone(),
        })
    }

    fn print(&self, lines: &str, object: &Value) -> Result<()> {
        match (self.json, self.talk.quiet) {
            (true, _) => report::print(format!("{object}\n").as_bytes()),
            (false, true) => Ok(()),
            (false, false) => report::print(lines.as_bytes()),
        }
    }

    /// Removes what a drill has made. What failed may be of use to the operator, where he has said where it is.
    fn sweep(&self, target: &Path, was_there: bool, is_done: bool) -> Result<()> {
        if !target.exists() || (self.target.is_some() && !is_done) {
            return Ok(());
        }
        Remains::of(target, &Dir::open(self.archive.as_deref().unwrap_or(Path::new("")))?)?.clear()?;
        if !was_there {
            std::fs::remove_dir(target)?;
        }
        Ok(())
    }

    /// Back to a site that holds log only, from which a database can be brought back again.
    fn finish(&self) -> Result<()> {
        let archive = self.archive.clone().unwrap_or_default();
        let target = self.target.clone().unwrap_or_default();
        let remains = Remains::of(&target, &Dir::open(&archive)?)?;
        let order = self.order(target.clone())?;
        let useless = |why| {
            let text = format!("nothing could be recovered from {} afterwards: {why}", archive.display());
            Failure::new(Code::Guarded, text).hint("--master 'repl-base SRC \"$REPL_ARCHIVE\"' takes a base")
        };
        let asked = match (recover::possible(&order), &self.master) {
            (Ok(()), _) => None,
            (Err(why), None) => return Err(useless(why).into()),
            (Err(_), Some(command)) => Some(Hook { name: "master", command: command.clone(), timeout: None }),
        };
        if self.dry_run {
            let first = asked.map(|hook| format!("run {}\n", hook.command)).unwrap_or_default();
            return self.print(&format!("{first}remove what was recovered in {}\n", target.display()), &Value::Null);
        }
        if let Some(hook) = asked {
            hook.run(&[("REPL_ARCHIVE", std::path::absolute(&archive)?.to_string_lossy().into_owned())])?;
            recover::possible(&order).map_err(useless)?;
        }
        remains.clear()
    }
}

fn object(plan: &Plan) -> Value {
    json!({
        "v": 1,
        "engine": plan.engine.to_string(),
        "base": plan.base.as_ref().map(|base| &base.name),
        "first": plan.logs.first().map(|log| log.segment.to_string()),
        "segments": plan.logs.len(),
        "position": plan.end.map(|end| end.to_string()),
        "time": plan.time.map(|time| time.to_string()),
        "is_cut": plan.is_cut(),
        "held": plan.held.map(|held| held.to_string()),
        "lost": plan.lost,
        "bytes": plan.bytes(),
    })
}
