//! What every command is told beside its command line: file < environment < flags.
//!
//! What file and environment say is put before what the command line says, as ordinary arguments, and the whole is read
//! by the command's own parser: one set of rules and messages for all three. So that a flag on the command line can take
//! the place of what a file says, a word of a lower rank gives way to one of a higher rank that is the same flag, or that
//! it conflicts with; clap is asked whether it does.
//!
//! What a peer may say: behind `--restrict` no variable of the environment counts, since an sshd may let a client set
//! some, and a file is one that the forced command names itself.

mod feed;
mod given;
mod merge;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, value_parser};

use self::given::{Given, lenient};
use super::{args, report, voice};
use crate::edge::trusted;
use crate::rule::config::{self, Commands, Config, LONGEST, PLACE, Takes, VARIABLE};
use crate::value::escape::show;
use crate::value::exit::{Code, Failure, code_of, fail};

/// A table's name, and the command whose flags are its keys.
pub type Table = (&'static str, fn() -> Command);

/// The commands that have a table.
pub const COMMANDS: [Table; 11] = [
    ("apply", super::apply::Args::command),
    ("base", super::base::Args::command),
    ("fetch", super::fetch::Args::command),
    ("prune", super::prune::Args::command),
    ("recover", super::recover::Args::command),
    ("role", super::role::Args::command),
    ("ship", super::ship::Args::command),
    ("status", super::status::Args::command),
    ("sync", super::sync::Args::command),
    ("verify", super::verify::Args::command),
    ("wait", super::wait::Args::command),
];

/// Flags that are no configuration.
const NEVER: [&str; 5] = ["help", "version", "completions", "config", "print-config"];

/// A command line with all that goes with it.
#[derive(Debug)]
pub struct Line<A> {
    /// What the command is to do.
    pub args: A,
    /// The same as clap has it.
    pub matches: ArgMatches,
    /// The same as words that say all of it without a file or the environment: for another end, which has its own.
    pub words: Vec<OsString>,
    /// What the file says beside the command's flags; `None` without a file.
    pub config: Option<Config>,
    /// That file.
    pub file: Option<PathBuf>,
    /// Name of the set, wherever that is said.
    pub set: Option<String>,
    /// Flags and operands that the file alone gives, as clap calls them.
    pub filed: BTreeSet<String>,
}

/// Runs a command with its command line, and reports.
pub fn start<A: CommandFactory + FromArgMatches>(name: &str, run: impl FnOnce(Line<A>) -> Result<()>) -> ExitCode {
    match parse(name) {
        Ok(line) => report::exit(name, run(line)),
        Err(code) => ExitCode::from(code as u8),
    }
}

/// The command line of this process. `Err` is how to exit when there is nothing to run: all has been said by then.
pub fn parse<A: CommandFactory + FromArgMatches>(name: &str) -> Result<Line<A>, Code> {
    parse_ending(name, |code| code as u8)
}

/// The same for a command that exits with another status than the code's own.
pub fn parse_ending<A>(name: &str, status: fn(Code) -> u8) -> Result<Line<A>, Code>
where
    A: CommandFactory + FromArgMatches,
{
    match understand(std::env::args_os().collect(), &variables()) {
        Ok(line) => line.ok_or(Code::Done),
        Err(error) => Err(tell(name, &error, status)),
    }
}

/// The line of another command, as it would read that itself, but for the environment: a peer may have set some of it.
pub fn told<A: CommandFactory + FromArgMatches>(words: Vec<OsString>) -> Result<Line<A>> {
    let line = understand(words, &[])?;
    line.ok_or_else(|| Failure::new(Code::Usage, "the command line asks for nothing").into())
}

/// `None` when it was printed instead.
fn understand<A>(words: Vec<OsString>, variables: &[(String, OsString)]) -> Result<Option<Line<A>>>
where
    A: CommandFactory + FromArgMatches,
{
    let mut command = complete(A::command());
    command.build();
    let Some(read) = read(&command, words, variables)? else { return Ok(None) };
    let Read { matches, words, config, file, set, filed } = read;
    voice::choose(&matches);
    let args = A::from_arg_matches(&matches)?;
    Ok(Some(Line { args, matches, words, config, file, set, filed }))
}

fn tell(name: &str, error: &anyhow::Error, status: fn(Code) -> u8) -> Code {
    if let Some(words) = error.downcast_ref::<clap::Error>() {
        return report::usage(name, words, status(Code::Usage));
    }
    let code = code_of(error);
    report::tell(name, error, status(code));
    code
}

/// The variables that are flags, without their prefix.
fn variables() -> Vec<(String, OsString)> {
    let named = |(key, value): (OsString, OsString)| Some((key.to_str()?.strip_prefix(VARIABLE)?.to_owned(), value));
    let mut found: Vec<_> = std::env::vars_os().filter_map(named).filter(|(_, value)| !value.is_empty()).collect();
    found.sort();
    found
}

/// The command with the flags that every command has.
pub fn complete(command: Command) -> Command {
    let has_set = command.get_arguments().any(|arg| arg.get_long() == Some("set"));
    let file = Arg::new("config").short('c').long("config").value_name("FILE").global(true);
    let file = file.value_parser(value_parser!(PathBuf)).help("Read the configuration from this file: repl.toml(5)");
    let print = Arg::new("print-config").long("print-config").action(ArgAction::SetTrue).global(true);
    let command = command.arg(file).arg(print.help("Print the effective configuration, secrets masked, and exit"));
    if has_set {
        return command;
    }
    let set = Arg::new("set").long("set").value_name("NAME").value_parser(args::name).global(true);
    command.arg(set.help("Name of the set: its configuration is /etc/repl/NAME.toml, where there is one"))
}

/// Flags of a command and what they take, those of its subcommands as well.
fn keys(command: &Command) -> BTreeMap<String, Takes> {
    let takes = |arg: &Arg| match arg.get_action() {
        ArgAction::SetTrue => Takes::Nothing,
        ArgAction::Append => Takes::Many,
        _ => Takes::One,
    };
    let own = command.get_arguments().filter_map(|arg| Some((arg.get_long()?.to_owned(), takes(arg))));
    let below = command.get_subcommands().flat_map(keys);
    own.chain(below).filter(|(key, _)| !NEVER.contains(&key.as_str())).collect()
}

/// The tables of all commands, with their keys.
pub fn commands() -> Commands {
    COMMANDS.iter().map(|(table, command)| ((*table).to_owned(), keys(&command()))).collect()
}

/// Reads a file.
pub fn load(path: &Path) -> Result<Config> {
    let wrong = |wrong| Failure::new(Code::Usage, format!("cannot use {}, {wrong}", path.display()));
    Ok(config::parse(&trusted::read(path, LONGEST)?, &commands()).map_err(wrong)?)
}

/// A command line with file and environment.
struct Read {
    matches: ArgMatches,
    words: Vec<OsString>,
    config: Option<Config>,
    file: Option<PathBuf>,
    set: Option<String>,
    filed: BTreeSet<String>,
}

/// `None` when it was printed instead.
fn read(command: &Command, line: Vec<OsString>, variables: &[(String, OsString)]) -> Result<Option<Read>> {
    let matches = lenient(command, line)?;
    let given = Given::of(command, &matches);
    if given.has("completions") {
        let (set, filed) = (None, BTreeSet::new());
        return Ok(Some(Read { matches, words: given.print(), config: None, file: None, set, filed }));
    }
    let variables = if given.has("restrict") { &[] } else { variables };
    let own = Own::of(&given, variables)?;
    let found = own.file()?;
    let file = found.as_ref().map(|(config, path)| (config, path.as_path()));
    let merged = merge::run(command, given, file, variables)?;
    let set = merged.text("set").or(own.set);
    let (config, file) = found.unzip();
    if own.prints {
        report::print(show::print(command, &merged, config.unwrap_or_default(), set)?.as_bytes())?;
        return Ok(None);
    }
    let config = config.map(|mut config| {
        config.set = set.clone().or(config.set);
        config
    });
    let set = config.as_ref().map_or(set, |config| config.set.clone());
    let (words, matches) = (merged.given().print(), merged.finish(command)?);
    Ok(Some(Read { matches, words, config, file, set, filed: merged.filed() }))
}

/// What the flags say that every command has.
struct Own {
    path: Option<PathBuf>,
    set: Option<String>,
    prints: bool,
}

impl Own {
    fn of(given: &Given, variables: &[(String, OsString)]) -> Result<Own> {
        let told = |id: &str, variable: &str| {
            let word = given.get(id).and_then(|word| word.values.last());
            let variable = || variables.iter().find(|(key, _)| key == variable).map(|(_, value)| value);
            word.or_else(variable).cloned()
        };
        let set = told("set", "SET").map(|set| args::name(&set.to_string_lossy())).transpose();
        let set = set.map_err(|why| Failure::new(Code::Usage, format!("cannot use {VARIABLE}SET: {why}")))?;
        let path = told("config", "CONFIG").map(PathBuf::from);
        Ok(Own { path, set, prints: given.has("print-config") })
    }

    /// The file: the one that is named, or the set's where it is there.
    fn file(&self) -> Result<Option<(Config, PathBuf)>> {
        let (path, is_the_sets) = match (&self.path, &self.set) {
            (Some(path), _) => (path.clone(), false),
            // A set may have any name; one that would lead elsewhere has no file.
            (None, Some(set)) if !set.contains('/') => (Path::new(PLACE).join(format!("{set}.toml")), true),
            _ => return Ok(None),
        };
        if is_the_sets && !path.exists() {
            return Ok(None);
        }
        let mut config = load(&path)?;
        if config.is_masked() && !self.prints {
            let text = format!("{} has secrets masked, as --print-config prints them", path.display());
            return Err(Failure::new(Code::Usage, text).hint("put them back in").into());
        }
        match (&config.set, &self.set) {
            (Some(set), Some(named)) if is_the_sets && set != named => {
                return fail(Code::Usage, format!("{} is of set '{}'", path.display(), show(set)));
            }
            (None, Some(named)) => config.set = Some(named.clone()),
            _ => {}
        }
        Ok(Some((config, path)))
    }
}
