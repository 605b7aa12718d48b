//! The arguments of `repl-wait`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use clap_complete::Shell;

use super::args::{self, Talk};
use crate::edge::dir::Dir;
use crate::engine::wait;
use crate::rule::asking::{Question, What};
use crate::rule::quorum::{Level, Policy};
use crate::value::exit::{Code, Failure, fail};
use crate::value::units;

/// Wait until enough sites have the log up to a position
#[derive(Parser, Debug)]
#[command(name = "repl-wait", version, help_expected = true)]
pub struct Args {
    /// Up to where: 'now' (the log's end as of now), or a position such as 1-12:40960
    #[arg(value_name = "POS", value_parser = What::parse, required_unless_present = "completions")]
    pub what: Option<What>,

    /// Log directory that repl-ship ships, when it keeps its state in the default place
    #[arg(value_name = "LOGDIR", required_unless_present_any = ["state", "set", "completions"])]
    pub logdir: Option<PathBuf>,

    /// Whose acknowledgements: none, one, one-peer, quorum, all, all-peers or all-available [default: as repl-ship has it]
    #[arg(long, value_name = "POLICY", value_parser = Policy::parse)]
    pub ack: Option<Policy>,

    /// How far there: received, flushed or applied
    #[arg(long, value_name = "LEVEL", default_value = "flushed", value_parser = Level::parse)]
    pub level: Level,

    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    pub timeout: Duration,

    /// Name of the set, when repl-ship keeps its state in the default place
    #[arg(long, value_name = "NAME", value_parser = args::name)]
    pub set: Option<String>,

    /// State directory of the repl-ship that runs
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Print what was waited for, and how long, as JSON
    #[arg(long)]
    pub json: bool,

    /// How much is said.
    #[command(flatten)]
    pub talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,
}

impl Args {
    /// What to ask.
    pub fn question(&self) -> Result<Question> {
        let what = self.what.context(Failure::new(Code::Usage, "no position is given"))?;
        Ok(Question { what, policy: self.ack, level: self.level })
    }

    /// The state directory of the sender. One that is not there has no sender.
    pub fn state(&self) -> Result<Dir> {
        let logdir = self.logdir.clone().unwrap_or_default();
        let set = self.set.clone().unwrap_or_default();
        let Some(path) = self.state.clone().or_else(|| args::default_state(&set, &logdir)) else {
            return fail(Code::Usage, "there is no default state directory here: say it with --state");
        };
        Dir::open(&path).map_err(|error| {
            let text = format!("no repl-ship keeps its state in {}: {error:#}", path.display());
            Failure::new(Code::Link, text).hint(wait::START_HINT).into()
        })
    }
}
