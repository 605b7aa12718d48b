//! The arguments of `repl-base`, and what they are to the sync that a base is made by.

mod shelf;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser};
use clap_complete::Shell;
use serde_json::json;

use self::shelf::object;
use super::args::Talk;
use super::report;
use super::sync::ends::{self, Part, Task, confined};
use super::sync::{self, Place};
use crate::edge::host;
use crate::engine::archive::base;
use crate::engine::base::{Order, name_now, take};
use crate::engine::sync::greeting::Role;
use crate::rule::sync::filter::Filter;
use crate::rule::sync::wire::ask::Say;
use crate::value::exit::{Code, Failure, fail};

const NAME: &str = "repl-base";
/// Longest reason: a record that is longer than it may be could not be read.
const REASON_MAX: usize = 4096;

/// Take a hot base copy of a database's directory into an archive, or list, prove and remove the bases there
#[derive(Parser, Debug)]
#[command(name = NAME, version, help_expected = true)]
pub struct Args {
    /// What is copied; with --list, --verify and --drop, the archive.
    #[arg(help = "The database's directory: DIR, [USER@]HOST:DIR or ssh://[USER@]HOST[:PORT]/DIR; else the archive")]
    #[arg(value_name = "SRC", required_unless_present_any = ["server", "completions"])]
    pub source: Option<OsString>,

    /// Where the base is to be; with --verify, the base.
    #[arg(help = "The archive: DIR, [USER@]HOST:DIR or ssh://[USER@]HOST[:PORT]/DIR; one of the two is here")]
    #[arg(value_name = "ARCHIVE", required_unless_present_any = ["server", "list", "verify", "drop", "completions"])]
    pub archive: Option<OsString>,

    /// Name of the base [default: the time at which it is begun, such as 2026-11-22T21-06-14Z]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Option<String>,

    /// List the bases of the archive, which is the only operand
    #[arg(long, conflicts_with_all = ["drop", "server"])]
    pub list: bool,

    /// Prove the bases of the archive, which is the first operand; the second names one of them
    #[arg(long, conflicts_with_all = ["list", "drop", "server"])]
    pub verify: bool,

    /// Remove this base of the archive, which is the only operand
    #[arg(long, value_name = "NAME", value_parser = name, conflicts_with = "server")]
    pub drop: Option<String>,

    /// Remote shell to reach HOST: a command that takes a host and a command line
    #[arg(short = 'e', long, value_name = "CMD", default_value = "ssh -o BatchMode=yes")]
    pub rsh: String,

    /// Name of the program at HOST [default: repl-sync where SRC is there, repl-base where ARCHIVE is]
    #[arg(long, value_name = "PROGRAM")]
    pub remote_command: Option<String>,

    /// Log in to ssh:// with the private key in this file (may be repeated) [default: the agent's keys, then ~/.ssh]
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,

    /// Kind of database: bdb, postgres, mariadb, sqlite, eloquence or plain [default: as SRC's files show]
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,

    /// How the engine's procedure reaches the server at SRC: a libpq conninfo, a MariaDB option file
    #[arg(long, value_name = "TEXT")]
    pub dsn: Option<String>,

    /// Run the engine's programs as this user when root [default: who owns SRC]
    #[arg(long, value_name = "USER")]
    pub run_as: Option<String>,

    /// Make SRC hold still for the last pass [default: the engine's own procedure]
    #[arg(long, value_name = "CMD")]
    pub freeze: Option<String>,

    /// End that; always run once --freeze has run
    #[arg(long, value_name = "CMD", requires = "freeze")]
    pub thaw: Option<String>,

    /// How long each command may take
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub hook_timeout: String,

    /// Pass over names that match; of --exclude and --include the first match wins
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,

    /// Copy names that match though a later --exclude matches them
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,

    /// Compress: auto (where it pays), zstd, zstd:LEVEL, or none
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub compress: String,

    /// Bytes per second at most, with K, M or G
    #[arg(long, value_name = "RATE")]
    pub bwlimit: Option<String>,

    /// Leave owners and groups as they come, as without root
    #[arg(long)]
    pub no_owner: bool,

    /// Pass over devices
    #[arg(long)]
    pub no_devices: bool,

    /// Take a base though the one before it is of another database, or of a newer state of it
    #[arg(long)]
    pub adopt: bool,

    /// Take a source without anything for what it is, and not for a file system that is not mounted
    #[arg(long)]
    pub allow_empty: bool,

    /// Show how far it is, on a terminal
    #[arg(long)]
    pub progress: bool,

    /// Why, for base.toml and the history
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,

    /// Print JSON: one object, or with --list one for each base
    #[arg(long)]
    pub json: bool,

    /// Change nothing: say what would be sent
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Be the end with the archive, on standard input and output
    #[arg(long)]
    pub server: bool,

    /// With --server: no archive outside of this directory
    #[arg(long, value_name = "ROOT", requires = "server")]
    pub restrict: Option<PathBuf>,

    /// How much is said.
    #[command(flatten)]
    pub talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,
}

fn name(text: &str) -> Result<String, String> {
    if base::is_name(text) {
        return Ok(text.to_owned());
    }
    Err("a base's name has 1 to 200 letters, digits, '.', '_' and '-', and begins with none of '.' and '-'".to_owned())
}

fn reason(text: &str) -> Result<String, String> {
    if text.len() <= REASON_MAX {
        return Ok(text.to_owned());
    }
    Err(format!("it has more than {REASON_MAX} bytes"))
}

/// A sync's command line that says what this one does.
struct Sync {
    args: sync::Args,
    filter: Filter,
    words: Vec<OsString>,
}

impl Args {
    /// Takes a base, at whichever end this is.
    pub fn take(&self, matches: &ArgMatches) -> Result<()> {
        if self.server {
            return self.answer();
        }
        let operand = |operand: &Option<OsString>| operand.clone().context("an operand is missing");
        let (source, archive) = (operand(&self.source)?, operand(&self.archive)?);
        let places = (Place::parse(&source)?, Place::parse(&archive)?);
        let is_pushed = !matches!(places.1, Place::Here(_));
        let name = self.name.clone().unwrap_or_else(name_now);
        let label = label(&places.0, &source, is_pushed)?;
        let sync = self.sync(matches, if is_pushed { NAME } else { "repl-sync" }, &source)?;
        let path = places.1.path();
        let task = sync.task(name.clone(), &label, &path);
        // The other end reads the words of its own command, and no repl-sync takes them for its: that has no --name.
        let words = if is_pushed {
            let named = OsString::from(format!("--name={name}"));
            [named].into_iter().chain(self.words(matches, NAME)).chain(["--".into(), label.clone(), archive]).collect()
        } else {
            sync.words.clone()
        };
        let told = ends::join(&sync.args, sync.filter.clone(), (&places.0, &places.1), &words, &task)?;
        told.map_or(Ok(()), |text| self.report(&text))
    }

    /// The end with the archive was called.
    fn answer(&self) -> Result<()> {
        ends::answered(|role, words| {
            if role != Role::Destination {
                return fail(Code::Usage, "repl-base is called where the archive is: repl-sync gives a source");
            }
            let line = [OsString::from(NAME)].into_iter().chain(words);
            let matches = Args::command().try_get_matches_from(line);
            let matches =
                matches.or_else(|error| fail(Code::Usage, format!("the other end's command line: {error}")))?;
            let mut asked =
                Args::from_arg_matches(&matches).map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
            let source = asked.source.clone().context("no SRC")?;
            let mut archive = Place::parse(asked.archive.as_ref().context("no ARCHIVE")?)?.path();
            if let Some(root) = &self.restrict {
                if asked.adopt {
                    return fail(Code::Usage, "refused by --restrict: --adopt is this end's own to say");
                }
                asked.adopt = self.adopt;
                asked.no_owner = true;
                asked.no_devices = true;
                archive = confined(root, &archive)?;
            }
            let (sync, name) = (asked.sync(&matches, NAME, &source)?, asked.name.unwrap_or_else(name_now));
            Ok(Part::Destination(Box::new(move |link, operator| {
                sync.task(name.clone(), &source, &archive)(link, operator)
            })))
        })
    }

    fn sync(&self, matches: &ArgMatches, program: &str, source: &OsStr) -> Result<Sync> {
        // A base is no place that a sync could be made to.
        let places = ["--".into(), source.to_owned(), "/nowhere".into()];
        let words: Vec<OsString> =
            [OsString::from("--delete")].into_iter().chain(self.words(matches, program)).chain(places).collect();
        let line = [OsString::from("repl-sync")].into_iter().chain(words.clone());
        // What it says of the usage is another command's.
        let first = |text: String| text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let usage = |error: clap::Error| Failure::new(Code::Usage, first(error.to_string()));
        let matches = sync::Args::command().try_get_matches_from(line).map_err(usage)?;
        let args = sync::Args::from_arg_matches(&matches).map_err(usage)?;
        Ok(Sync { filter: args.filter(&matches)?, args: sync::Args { program: NAME, ..args }, words })
    }

    /// The options that a sync has as well; the program is the one at the other end.
    fn words(&self, matches: &ArgMatches, program: &str) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut add = |key: &str, value: &OsStr| {
            let mut word = OsString::from(key);
            word.push(value);
            words.push(word);
        };
        add("--rsh=", self.rsh.as_ref());
        add("--remote-command=", self.remote_command.as_deref().unwrap_or(program).as_ref());
        for file in &self.identity {
            add("--identity=", file.as_ref());
        }
        let values = [
            ("--engine=", &self.engine),
            ("--dsn=", &self.dsn),
            ("--run-as=", &self.run_as),
            ("--freeze=", &self.freeze),
            ("--thaw=", &self.thaw),
            ("--bwlimit=", &self.bwlimit),
            ("--reason=", &self.reason),
        ];
        for (key, value) in values {
            if let Some(value) = value {
                add(key, value.as_ref());
            }
        }
        add("--hook-timeout=", self.hook_timeout.as_ref());
        add("--compress=", self.compress.as_ref());
        let mut globs = Vec::new();
        for (id, key, patterns) in [("exclude", "--exclude=", &self.exclude), ("include", "--include=", &self.include)]
        {
            globs.extend(matches.indices_of(id).into_iter().flatten().zip(patterns).map(|(at, glob)| (at, key, glob)));
        }
        globs.sort();
        for (_, key, glob) in globs {
            add(key, glob.as_ref());
        }
        let flags = [
            ("--no-owner", self.no_owner),
            ("--no-devices", self.no_devices),
            ("--adopt", self.adopt),
            ("--allow-empty", self.allow_empty),
            ("--progress", self.progress),
            ("--json", self.json),
            ("--dry-run", self.dry_run),
            ("--verbose", self.talk.verbose),
            ("--quiet", self.talk.quiet),
        ];
        flags.iter().filter(|(_, is_set)| *is_set).for_each(|(flag, _)| add(flag, OsStr::new("")));
        words
    }

    /// Prints what was taken; it may be a far end's word.
    fn report(&self, text: &[u8]) -> Result<()> {
        let Ok(told) = serde_json::from_slice::<serde_json::Value>(text) else {
            return Ok(());
        };
        if self.json {
            return report::print(format!("{told}\n").as_bytes());
        }
        if self.talk.quiet {
            return Ok(());
        }
        let word = |key: &str| told["base"][key].as_str().map(str::to_owned);
        if let Some(name) = word("name").filter(|name| base::is_name(name)) {
            let position = word("position").filter(|at| at.parse::<crate::value::position::Position>().is_ok());
            report::print(format!("{name} {}\n", position.as_deref().unwrap_or("-")).as_bytes())?;
        }
        if self.talk.verbose || self.dry_run {
            let number = |key: &str| told["sync"][key].as_u64().unwrap_or_default();
            let text = format!(
                "{} files, {} bytes; {} bytes {}sent; {:.3} s",
                number("files"),
                number("bytes"),
                number("literal_bytes"),
                if self.dry_run { "would be " } else { "" },
                told["sync"]["seconds"].as_f64().unwrap_or_default()
            );
            report::say(NAME, &text);
        }
        Ok(())
    }
}

impl Sync {
    /// Takes a base of this name into an archive.
    fn task<'a>(&self, name: String, source: &OsStr, archive: &'a Path) -> Box<Task<'a>> {
        let mut options = self.args.options(self.filter.clone());
        // No server is on a base, and the source's is another end's business.
        (options.commands.dsn, options.commands.run_as) = (None, None);
        let order = Order { name, source: source.to_string_lossy().into_owned(), options };
        Box::new(move |link, operator| {
            let (base, done) = take(link, archive, &order, operator)?;
            let report = json!({"base": base.as_ref().map(object), "sync": sync::tell::object(&done)});
            link.tell(operator, Say::Report, report.to_string().as_bytes());
            Ok(())
        })
    }
}

/// What a source is called in the record: its path, with the machine's name in front when that is not the archive's.
fn label(place: &Place, operand: &OsStr, is_pushed: bool) -> Result<OsString> {
    let Place::Here(path) = place else {
        return Ok(operand.to_owned());
    };
    let path = std::path::absolute(path).context("cannot use SRC")?.into_os_string();
    let mut label = OsString::from(if is_pushed { host::name()? + ":" } else { String::new() });
    label.push(path);
    Ok(label)
}
