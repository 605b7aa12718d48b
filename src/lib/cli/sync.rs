//! The arguments of `repl-sync`, and what they mean to the engine.

pub mod ends;
pub mod tell;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{ArgMatches, Parser};
use clap_complete::Shell;

use super::args::Talk;
use super::ship::compress;
use crate::edge::hook::Hook;
use crate::edge::tree::Dress;
use crate::engine::postgres::check_dsn;
use crate::engine::ship::outlet::Compress;
use crate::engine::sync::drive::{Mode, Options};
use crate::engine::sync::greeting::Role;
use crate::engine::sync::pass::Manner;
use crate::engine::sync::procedure::Settings;
use crate::engine::sync::profile::Profile;
use crate::engine::sync::purpose::Purpose;
use crate::engine::sync::server::Commands;
use crate::rule::config::HOOKS;
use crate::rule::sync::filter::{Filter, Verdict};
use crate::rule::sync::merkle::PAGE_MIN;
use crate::value::exit::{Code, Failure, fail};
use crate::value::ssh_url::SshUrl;
use crate::value::units;

/// Bytes of a page where no engine says otherwise.
const PAGE: usize = 4096;

/// Make DST a copy of SRC by delta, and stop and restart the database server at DST for the last moments only
#[derive(Parser, Debug)]
#[command(name = "repl-sync", version, help_expected = true)]
pub struct Args {
    /// What is copied.
    #[arg(help = "DIR, [USER@]HOST:DIR or ssh://[USER@]HOST[:PORT]/DIR: its content becomes the content of DST")]
    #[arg(value_name = "SRC", required_unless_present_any = ["server", "completions"])]
    pub source: Option<OsString>,

    /// What becomes equal to it.
    #[arg(help = "DIR, [USER@]HOST:DIR or ssh://[USER@]HOST[:PORT]/DIR; one of the two is here")]
    #[arg(value_name = "DST", required_unless_present_any = ["server", "replay", "rollback", "replicas", "completions"])]
    pub destination: Option<OsString>,

    /// Instead of SRC, the one of these that has come farthest: a file with one on each line, or a list with commas
    #[arg(long, value_name = "FILE|LIST", conflicts_with_all = ["server", "replay", "rollback"])]
    pub replicas: Option<String>,

    /// Remote shell to reach HOST: a command that takes a host and a command line
    #[arg(short = 'e', long, value_name = "CMD", default_value = "ssh -o BatchMode=yes")]
    pub rsh: String,

    /// Name of this program at HOST
    #[arg(long, value_name = "PROGRAM", default_value = "repl-sync")]
    pub remote_command: String,

    /// Log in to ssh:// with the private key in this file (may be repeated) [default: the agent's keys, then ~/.ssh]
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,

    /// Kind of database: bdb, postgres, mariadb, sqlite, eloquence or plain [default: as SRC's files show]
    #[arg(long, value_name = "ENGINE", value_parser = Profile::parse)]
    pub engine: Option<Profile>,

    /// How the engine's procedures reach the server at SRC (a libpq conninfo, a MariaDB option file), and at DST its own
    #[arg(long, value_name = "TEXT", value_parser = dsn)]
    pub dsn: Option<String>,

    /// Run server commands and the engine's programs as this user when root [default: who owns the directory]
    #[arg(long, value_name = "USER")]
    pub run_as: Option<String>,

    /// Stop the server at DST and wait for its end [default: the engine's own]
    #[arg(long, value_name = "CMD")]
    pub stop: Option<String>,

    /// Start the server at DST [default: the engine's own]
    #[arg(long, value_name = "CMD")]
    pub start: Option<String>,

    /// Exit with 0 when the server at DST runs
    #[arg(long, value_name = "CMD")]
    pub status: Option<String>,

    /// Exit with 0 when the server at DST works, run after its start
    #[arg(long, value_name = "CMD")]
    pub check: Option<String>,

    /// Make SRC hold still for the last pass [default: the engine's own procedure]
    #[arg(long, value_name = "CMD")]
    pub freeze: Option<String>,

    /// End that; always run once --freeze has run
    #[arg(long, value_name = "CMD", requires = "freeze")]
    pub thaw: Option<String>,

    /// Run CMD here at before-sync, after-hot-pass, before-stop, after-stop, before-switch, after-switch, after-start,
    /// after-sync or on-error
    #[arg(long, value_name = "POINT=CMD", value_parser = hook)]
    pub hook: Vec<(String, String)>,

    /// How long each command and hook may take
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::positive_duration)]
    pub hook_timeout: Duration,

    /// Overwrite whatever DST holds: another database, a newer one, foreign files
    #[arg(long)]
    pub adopt: bool,

    /// Build the new tree beside DST and exchange the two in one step
    #[arg(long, conflicts_with = "inplace")]
    pub stage: bool,

    /// Write changed blocks to a redo journal beside DST, then into DST
    #[arg(long)]
    pub inplace: bool,

    /// Repeat hot passes until the server is predicted to be down for less than this
    #[arg(long, value_name = "TIME", value_parser = units::positive_duration)]
    pub max_downtime: Option<Duration>,

    /// Remove from DST what is not in SRC
    #[arg(long)]
    pub delete: bool,

    /// Refuse to remove more names than this
    #[arg(long, value_name = "N")]
    pub max_delete: Option<u64>,

    /// Pass over names that match, on both sides; of --exclude and --include the first match wins
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,

    /// Let names that match take part though a later --exclude matches them
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,

    /// Trust no stamp: read every file on both sides
    #[arg(long)]
    pub checksum: bool,

    /// Bytes of a database page, a power of two from 1K to 64K [default: the engine's]
    #[arg(long, value_name = "SIZE", value_parser = page)]
    pub block_size: Option<usize>,

    /// Compress: auto (where it pays), zstd, zstd:LEVEL, or none
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = compress)]
    pub compress: Compress,

    /// Bytes per second at most, with K, M or G
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub bwlimit: Option<u64>,

    /// Leave owners and groups as they come, as without root
    #[arg(long)]
    pub no_owner: bool,

    /// Pass over devices
    #[arg(long)]
    pub no_devices: bool,

    /// With --restrict: let the other end set owners, set-id bits and capabilities, as root
    #[arg(long, requires = "restrict", conflicts_with = "no_owner")]
    pub owner: bool,

    /// With --restrict: let the other end make devices, as root
    #[arg(long, requires = "restrict", conflicts_with = "no_devices")]
    pub devices: bool,

    /// Make the directories above DST
    #[arg(long)]
    pub mkpath: bool,

    /// Take a source without anything for what it is, and not for a file system that is not mounted
    #[arg(long)]
    pub allow_empty: bool,

    /// Keep the old tree beside DST, for --rollback
    #[arg(long)]
    pub keep_old: bool,

    /// Exchange DST with the tree that the last switch replaced; DST is the only operand
    #[arg(long, conflicts_with_all = ["replay", "server"])]
    pub rollback: bool,

    /// Complete what an interrupted sync left in DST, without the source; DST is the only operand
    #[arg(long, conflicts_with = "server")]
    pub replay: bool,

    /// Print each change in the letters of rsync's --itemize-changes
    #[arg(short, long)]
    pub itemize: bool,

    /// Show how far it is, on a terminal
    #[arg(long)]
    pub progress: bool,

    /// Why, for the history in the state directory
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// Print a report as one JSON object
    #[arg(long)]
    pub json: bool,

    /// Change nothing: say what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Be the other end of a sync, on standard input and output
    #[arg(long)]
    pub server: bool,

    /// With --server: nothing outside of this directory, and no command of the other end's
    #[arg(long, value_name = "ROOT", requires = "server")]
    pub restrict: Option<PathBuf>,

    /// How much is said.
    #[command(flatten)]
    pub talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,

    /// Whose words these are.
    #[arg(skip = ends::NAME)]
    pub program: &'static str,
}

/// Where one end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Here.
    Here(PathBuf),
    /// At a host that the remote shell reaches.
    Host(String, PathBuf),
    /// At a host that ssh:// names.
    Url(SshUrl),
}

impl Place {
    /// What an operand names: with a colon before any slash it is at a host.
    pub fn parse(operand: &OsString) -> Result<Place> {
        let text = operand.to_string_lossy();
        if text.starts_with("ssh://") {
            return SshUrl::parse(&text).map(Place::Url).map_err(|why| Failure::new(Code::Usage, why).into());
        }
        match text.split_once(':') {
            Some((host, path)) if !host.contains('/') => {
                if host.is_empty() || host.starts_with('-') {
                    return fail(Code::Usage, format!("'{host}' is no host"));
                }
                Ok(Place::Host(host.to_owned(), if path.is_empty() { ".".into() } else { path.into() }))
            }
            _ if text.is_empty() => fail(Code::Usage, "an empty operand names nothing"),
            _ => Ok(Place::Here(operand.into())),
        }
    }

    /// The directory there.
    pub fn path(&self) -> PathBuf {
        match self {
            Place::Here(path) | Place::Host(_, path) => path.clone(),
            Place::Url(url) => url.path.clone().unwrap_or_else(|| ".".to_owned()).into(),
        }
    }
}

fn dsn(text: &str) -> Result<String, String> {
    check_dsn(text)
}

/// `POINT=CMD`.
fn hook(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((point, command)) if HOOKS.contains(&point) => Ok((point.to_owned(), command.to_owned())),
        _ => Err(format!("expected POINT=CMD with a point of {}", HOOKS.join(", "))),
    }
}

/// A page: a power of two from 1K to 64K.
fn page(text: &str) -> Result<usize, String> {
    let size = units::size(text)?;
    match usize::try_from(size) {
        Ok(size) if size.is_power_of_two() && (PAGE_MIN..=65536).contains(&size) => Ok(size),
        _ => Err("a page is a power of two from 1K to 64K".to_owned()),
    }
}

impl Args {
    /// What takes part: patterns in the order in which they were given.
    pub fn filter(&self, matches: &ArgMatches) -> Result<Filter> {
        let mut ranked = Vec::new();
        for (verdict, id, patterns) in
            [(Verdict::Exclude, "exclude", &self.exclude), (Verdict::Include, "include", &self.include)]
        {
            let places = matches.indices_of(id).into_iter().flatten();
            ranked.extend(places.zip(patterns).map(|(place, pattern)| (place, verdict, pattern)));
        }
        ranked.sort_by_key(|(place, ..)| *place);
        let mut filter = Filter::default();
        for (_, verdict, pattern) in ranked {
            filter.add(verdict, pattern).map_err(|why| Failure::new(Code::Usage, why))?;
        }
        Ok(filter)
    }

    /// The zstd level for bytes of files that get smaller by it.
    pub fn pack(&self) -> Option<i32> {
        match self.compress {
            Compress::None => None,
            Compress::Auto => Some(1),
            Compress::Zstd(level) => Some(level),
        }
    }

    /// What is asked of the engine.
    pub fn options(&self, filter: Filter) -> Options {
        let is_root = rustix::process::geteuid().is_root();
        let dress = Dress { owner: is_root && !self.no_owner, devices: is_root && !self.no_devices };
        let manner = Manner {
            is_deleting: self.delete,
            max_delete: self.max_delete,
            is_distrustful: self.checksum,
            trusts_pending: true,
            is_covered: false,
            is_dry: self.dry_run,
            is_tolerant: false,
            spares: false,
            dress,
            page: PAGE,
        };
        let mode = match (self.stage, self.inplace) {
            (true, _) => Some(Mode::Stage),
            (_, true) => Some(Mode::InPlace),
            _ => None,
        };
        Options {
            purpose: Purpose::Replica,
            mode,
            filter,
            manner,
            page: self.block_size,
            is_engine_told: self.engine.is_some(),
            adopts: self.adopt,
            freezes: self.freeze.is_some(),
            commands: self.commands(),
            is_itemized: self.itemize,
            shows_progress: self.progress,
            reason: self.reason.clone(),
            allows_empty: self.allow_empty,
            keeps_old: self.keep_old,
            makes_path: self.mkpath,
            max_downtime: self.max_downtime,
        }
    }

    /// Behind `--restrict`: no command of the other end's is run, and nothing is overridden or given away that this end's
    /// own command line does not; its own commands are run instead. What is for the other end itself is no concern here.
    pub fn submit(&mut self, own: &Args, role: Role) -> Result<()> {
        let (commands, overrides) = match role {
            Role::Source => (vec![&self.freeze, &self.thaw], false),
            Role::Destination => (vec![&self.stop, &self.start, &self.status, &self.check], self.adopt || self.mkpath),
        };
        if commands.iter().any(|command| command.is_some()) || overrides {
            let text = "refused by --restrict: this end's commands, --adopt and --mkpath are its own to say";
            return fail(Code::Usage, text);
        }
        (self.stop, self.start) = (own.stop.clone(), own.start.clone());
        (self.status, self.check) = (own.status.clone(), own.check.clone());
        (self.freeze, self.thaw) = (own.freeze.clone(), own.thaw.clone());
        (self.dsn, self.run_as) = (own.dsn.clone(), own.run_as.clone());
        (self.adopt, self.mkpath, self.hook_timeout) = (own.adopt, own.mkpath, own.hook_timeout);
        self.engine = own.engine.or(self.engine);
        // Owners, set-id bits and devices are for those who may become anybody here.
        self.no_owner |= own.no_owner || !own.owner;
        self.no_devices |= own.no_devices || !own.devices;
        Ok(())
    }

    /// Where the other end says nothing, the server that is at this end is stopped and started as this end's own
    /// configuration says.
    pub fn lend(&mut self, own: &Args, role: Role) {
        if role == Role::Destination {
            self.stop = self.stop.take().or_else(|| own.stop.clone());
            self.start = self.start.take().or_else(|| own.start.clone());
            self.status = self.status.take().or_else(|| own.status.clone());
        }
    }

    fn commands(&self) -> Commands {
        Commands {
            stop: self.stop.clone(),
            start: self.start.clone(),
            status: self.status.clone(),
            check: self.check.clone(),
            run_as: self.run_as.clone(),
            dsn: self.dsn.clone(),
            timeout: self.hook_timeout,
        }
    }

    /// What makes the source hold still.
    pub fn settings(&self, profile: Profile, source: &Path) -> Settings {
        Settings {
            profile,
            source: source.to_owned(),
            dsn: self.dsn.clone(),
            freeze: self.freeze.clone(),
            thaw: self.thaw.clone(),
            run_as: self.run_as.clone(),
            timeout: self.hook_timeout,
        }
    }

    /// Runs the operator's hooks of a point, in the order they were given.
    pub fn run_hooks(&self, point: &str, values: &[(String, String)]) -> Result<()> {
        let values: Vec<(&str, String)> = values.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        for (at, command) in self.hook.iter().filter(|(at, _)| at == point) {
            let name = HOOKS.iter().find(|known| *known == at).copied().unwrap_or("hook");
            let hook = Hook { name, command: command.clone(), timeout: Some(self.hook_timeout) };
            let mut values = values.clone();
            values.push(("REPL_POINT", point.to_owned()));
            hook.run(&values)?;
        }
        Ok(())
    }

    /// The replicas that `--replicas` names.
    pub fn candidates(&self) -> Result<Vec<OsString>> {
        let list = self.replicas.clone().unwrap_or_default();
        let text = if Path::new(&list).is_file() {
            std::fs::read_to_string(&list).with_context(|| format!("cannot read {list}"))?
        } else {
            list.replace(',', "\n")
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let found: Vec<OsString> = lines.map(OsString::from).collect();
        if found.is_empty() || self.destination.is_some() {
            return fail(Code::Usage, "--replicas takes the place of SRC: expected at least one, and DST alone");
        }
        Ok(found)
    }

    /// The two ends.
    pub fn places(&self) -> Result<(Place, Place)> {
        let source = self.source.as_ref().context("no SRC")?;
        let destination = self.destination.as_ref().context("no DST")?;
        Ok((Place::parse(source)?, Place::parse(destination)?))
    }
}
