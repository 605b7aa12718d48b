//! The arguments of `repl-status`, what they mean to the engine, and where its report goes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use clap_complete::Shell;

use super::args::{self, Talk};
use super::config::Line;
use super::report;
use crate::edge::bell::Bell;
use crate::edge::dir::draft::Place as File;
use crate::edge::signal::Stop;
use crate::engine::site::STATE;
use crate::engine::status::{Home, Options, Place, Remote, look, parse_remote};
use crate::rule::config::{Config, Site};
use crate::rule::status::judge::Limits;
use crate::rule::status::table::Detail;
use crate::rule::status::{Report, html, json, nagios, prometheus, table};
use crate::value::exit::{Code, Failure, fail};
use crate::value::units;

/// A file of this name is standard output.
const OUTPUT: &str = "-";
/// Erases a terminal and begins in its upper left corner.
const ERASE: &str = "\x1b[H\x1b[2J";

/// Lag and silence above this are warned of, unless something else is said.
const WARN_AGE: Duration = Duration::from_secs(60);
/// The same for an alarm.
const CRIT_AGE: Duration = Duration::from_secs(600);

/// Say who is where: senders with their sites, receivers, and what other machines say of theirs
#[derive(Parser, Debug)]
#[command(name = "repl-status", version, help_expected = true)]
pub struct Args {
    /// Log directories, of a master or a receiver, or state directories [default: all senders' own places]
    #[arg(value_name = "DIR")]
    pub dirs: Vec<PathBuf>,

    /// State directory of a repl-ship, or of a repl-apply (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub state: Vec<PathBuf>,

    /// Ask another machine: run CMD, which prints repl-status --json of there (may be repeated)
    #[arg(long, value_name = "NAME=CMD", value_parser = parse_remote)]
    pub ask: Vec<Remote>,

    /// Ask no other machine, also none that the configuration names
    #[arg(long, conflicts_with = "ask")]
    pub local: bool,

    /// How long each of those may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::positive_duration)]
    pub ask_timeout: Duration,

    /// Print one JSON object instead of a table
    #[arg(long, conflicts_with_all = ["nagios", "prometheus", "html", "watch"])]
    pub json: bool,

    /// Print one line with performance data, and exit as Nagios asks: 0 ok, 1 warning, 2 critical, 3 unknown
    #[arg(long, conflicts_with_all = ["prometheus", "html", "watch"])]
    pub nagios: bool,

    /// Write metrics to FILE, for Prometheus by the textfile collector of its node exporter ('-': standard output)
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub prometheus: Option<PathBuf>,

    /// Write a page to FILE ('-': standard output)
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub html: Option<PathBuf>,

    /// How much of the past the page shows
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = units::positive_duration)]
    pub since: Duration,

    /// Look again and again, each TIME, until interrupted [default TIME: 2s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = units::positive_duration)]
    pub watch: Option<Duration>,

    /// Warn of lag or silence above this [default: 60s, or less where --crit-age is less]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub warn_age: Option<Duration>,

    /// Give an alarm for lag or silence above this [default: 10m, or more where --warn-age is more]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub crit_age: Option<Duration>,

    /// Warn of more bytes of lag than this, with K, M or G
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub warn_bytes: Option<u64>,

    /// Give an alarm for more bytes of lag than this, with K, M or G
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub crit_bytes: Option<u64>,

    /// A receiver that has not heard of its master for this long is stale
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::positive_duration)]
    pub stale: Duration,

    /// How much is said.
    #[command(flatten)]
    pub talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,

    /// What is known of the set beside the command line.
    #[arg(skip)]
    pub set: Set,
}

/// The set, as its configuration has it.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Its name; empty when it has none.
    pub name: String,
    /// Its log directory here.
    pub logdir: Option<PathBuf>,
    /// The other sites that can be asked.
    pub sites: Vec<Remote>,
    /// Whether the configuration alone says where states are.
    pub has_states: bool,
}

impl Set {
    /// What is known beside the arguments.
    pub fn of(line: &Line<Args>) -> Set {
        let name = line.set.clone().unwrap_or_default();
        let (config, has_states) = (line.config.as_ref(), line.filed.contains("state"));
        let sites = config.map(|config| sites(config, &name)).unwrap_or_default();
        Set { sites, logdir: config.and_then(|config| config.logdir.clone()), has_states, name }
    }
}

/// Each site is asked for what it knows itself, by its own configuration: it asks nobody in turn.
fn sites(config: &Config, set: &str) -> Vec<Remote> {
    let ask = |site: &Site| {
        let file = site.config(set);
        let command = site.far(&format!("repl-status --json --local -c {}", shell_words::quote(&file)))?;
        Some(Remote { name: site.name.clone(), command })
    };
    let others = config.sites.iter().filter(|site| site.enabled && config.site.as_ref() != Some(&site.name));
    others.filter_map(ask).collect()
}

impl Args {
    /// What the engine is told.
    pub fn options(&self) -> Result<Options> {
        // Who says where the state is needs no default for it, and the log directory of a configured master says no more.
        let is_told = !self.state.is_empty();
        let sender = |path: &PathBuf| args::default_state(&self.set.name, path).filter(|_| !is_told);
        let place = |path: &PathBuf| Place { path: path.clone(), sender: sender(path) };
        let speaks = |path: &&PathBuf| !is_told || self.set.logdir.as_ref() != Some(*path) || path.join(STATE).exists();
        let is_bare = self.dirs.is_empty() && self.state.is_empty() && self.ask.is_empty();
        let (named, planned) = if self.set.has_states { (&[][..], &*self.state) } else { (&*self.state, &[][..]) };
        let sites = if self.local { [].as_slice() } else { &self.set.sites };
        Ok(Options {
            states: named.to_vec(),
            planned: planned.to_vec(),
            dirs: self.dirs.iter().filter(speaks).map(place).collect(),
            home: if is_bare { Some(self.home()?) } else { None },
            remotes: self.ask.iter().chain(sites).cloned().collect(),
            ask_timeout: self.ask_timeout,
            limits: self.limits()?,
            past: self.html.as_ref().map(|_| self.since),
        })
    }

    /// Where those keep their states by whom nobody has said it: the set's sender, or all.
    fn home(&self) -> Result<Home> {
        let home = match self.set.name.as_str() {
            "" => args::states_home().map(Home::All),
            set => args::default_state(set, Path::new("")).map(Home::One),
        };
        home.context("cannot tell where states are")
    }

    fn limits(&self) -> Result<Limits> {
        let (warn_age, crit_age) = match (self.warn_age, self.crit_age) {
            (Some(warn), Some(crit)) if warn > crit => {
                return fail(Code::Usage, "--warn-age must not be longer than --crit-age");
            }
            // A default gives way to what is named.
            (warn, None) => (warn.unwrap_or(WARN_AGE), warn.unwrap_or(WARN_AGE).max(CRIT_AGE)),
            (warn, Some(crit)) => (warn.unwrap_or(WARN_AGE).min(crit), crit),
        };
        if self.crit_bytes.is_some_and(|crit| self.warn_bytes.is_some_and(|warn| warn > crit)) {
            return fail(Code::Usage, "--warn-bytes must not be more than --crit-bytes");
        }
        Ok(Limits {
            warn_age: warn_age.as_secs_f64(),
            crit_age: crit_age.as_secs_f64(),
            warn_bytes: self.warn_bytes,
            crit_bytes: self.crit_bytes,
            stale: self.stale.as_secs_f64(),
        })
    }

    /// Looks, tells what was found, and says how the command ends: the number is for Nagios.
    pub fn run(&self) -> Result<u8> {
        let options = match self.options() {
            Err(error) if self.nagios => return unknown(&error),
            options => options?,
        };
        if let Some(interval) = self.watch {
            return self.watch(&options, interval).map(|()| 0);
        }
        let found = look(&options);
        if self.nagios {
            report::print(nagios::render(&found).as_bytes())?;
            return Ok(nagios::exit(found.alarm()));
        }
        if self.prometheus.is_some() || self.html.is_some() {
            return self.publish(&found).map(|()| 0);
        }
        self.tell(&found)?;
        verdict(&found).map(|()| 0)
    }

    /// Files tell what was found by themselves: that they were written is all that the exit code says.
    fn publish(&self, found: &Report) -> Result<()> {
        if let Some(path) = &self.prometheus {
            write(path, &prometheus::render(found))?;
        }
        if let Some(path) = &self.html {
            write(path, &html::render(found, self.since))?;
        }
        Ok(())
    }

    fn tell(&self, found: &Report) -> Result<()> {
        if self.json {
            return report::print(json::render(found).as_bytes());
        }
        if self.talk.quiet {
            return Ok(());
        }
        report::print(table::render(found, self.detail()).as_bytes())
    }

    fn detail(&self) -> Detail {
        if self.talk.verbose { Detail::Full } else { Detail::Brief }
    }

    fn watch(&self, options: &Options, interval: Duration) -> Result<()> {
        let bell = Bell::new();
        let stop = Stop::catch(bell.clone()).context("cannot catch signals")?;
        let is_terminal = rustix::termios::isatty(rustix::stdio::stdout());
        while !stop.is_asked() {
            let next = Instant::now() + interval;
            let found = look(options);
            let table = format!("{} UTC\n\n{}", found.time.narrate(), table::render(&found, self.detail()));
            report::print(if is_terminal { format!("{ERASE}{table}") } else { format!("{table}\n") }.as_bytes())?;
            bell.wait_until(next);
        }
        Ok(())
    }
}

fn unknown(error: &anyhow::Error) -> Result<u8> {
    report::print(nagios::failure(&format!("{error:#}")).as_bytes())?;
    Ok(nagios::exit(crate::rule::status::judge::Alarm::Unknown))
}

/// Replaced whole: who reads it never sees a part of it.
fn write(path: &Path, text: &str) -> Result<()> {
    if path == Path::new(OUTPUT) {
        return report::print(text.as_bytes());
    }
    let mut draft = File::public(path)?.begin()?;
    draft.put(text.as_bytes())?;
    draft.finish(text.len() as u64)
}

/// The exit code is that of the worst, and why is said, unless all is well.
fn verdict(found: &Report) -> Result<()> {
    match found.worst() {
        Some((judged, title)) if judged.code != Code::Done => {
            let why = if judged.why.is_empty() { String::new() } else { format!(": {}", judged.why) };
            Err(Failure::new(judged.code, format!("{title} is {}{why}", judged.state.word())).into())
        }
        _ => Ok(()),
    }
}
