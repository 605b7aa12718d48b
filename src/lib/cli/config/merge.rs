//! Joins what a file and the environment say with a command line: ranks, who gives way, and whose fault it is.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};

use super::feed::{Feed, feeds};
use super::given::{Given, Word};
use super::{COMMANDS, keys};
use crate::rule::config::{Config, VARIABLE, Value};
use crate::value::exit::{Code, Failure, fail};

/// Something that is not on the line.
#[derive(Clone, Debug)]
pub(super) struct Addition {
    /// What it gives.
    pub(super) word: Word,
    /// Where it is from.
    pub(super) origin: Origin,
}

/// Where something is from, lowest rank first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A key that is no command's own: file, table, key, line.
    Top(String, String, String, usize),
    /// A key of the command's table.
    Table(String, String, String, usize),
    /// A variable.
    Variable(String),
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Origin::Top(..) => 0,
            Origin::Table(..) => 1,
            Origin::Variable(_) => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Top(file, table, key, line) | Origin::Table(file, table, key, line) => {
                let table = if table.is_empty() { String::new() } else { format!("[{table}] ") };
                write!(out, "{table}{key} in {file}, line {line}")
            }
            Origin::Variable(name) => write!(out, "{VARIABLE}{name}"),
        }
    }
}

/// A command line with what was added to it.
#[derive(Debug)]
pub(super) struct Merged {
    /// What the line itself gives.
    pub(super) line: Given,
    /// What was added and has not given way.
    added: Vec<Addition>,
    program: OsString,
}

/// Joins them. `variables` are names without their prefix.
pub(super) fn run(
    command: &Command,
    line: Given,
    config: Option<(&Config, &Path)>,
    variables: &[(String, OsString)],
) -> Result<Merged> {
    let program = OsString::from(command.get_name());
    let mut merged = Merged { line, added: Vec::new(), program };
    let target = merged.target(command);
    let table = config.map(|(config, file)| from_table(&target, config, &file.display().to_string()));
    let table = table.unwrap_or_default();
    // A key may do little; a client of sshd may set variables.
    let is_restricted = table.iter().any(|addition| addition.word.id == "restrict");
    let named = from_variables(&target, variables)?;
    let mut gone = merged.take(command, if is_restricted { Vec::new() } else { named });
    gone |= merged.take(command, table);
    if let Some((config, file)) = config {
        let top = merged.top(&target, config, &file.display().to_string());
        gone |= merged.take(command, top);
    }
    merged.settle(command, gone)?;
    Ok(merged)
}

/// The command whose flags are meant, with their depth.
struct Target {
    name: String,
    args: Vec<(Arg, usize)>,
}

impl Target {
    fn flag(&self, long: &str) -> Option<&(Arg, usize)> {
        self.args.iter().find(|(arg, _)| arg.get_long() == Some(long))
    }
}

fn from_table(target: &Target, config: &Config, file: &str) -> Vec<Addition> {
    let table = target.name.trim_start_matches("repl-");
    let content = config.commands.get(table).into_iter().flatten();
    let found = content.filter_map(|(key, value)| {
        let (arg, depth) = target.flag(key)?;
        let values = match value {
            Value::Flag(is_on) => vec![OsString::new(); usize::from(*is_on)],
            Value::One(text) => vec![text.into()],
            Value::Many(texts) => texts.iter().map(OsString::from).collect(),
        };
        let line = config.line(table, key).unwrap_or_default();
        let origin = Origin::Table(file.to_owned(), table.to_owned(), key.clone(), line);
        Some(Addition { word: Word::new(arg, *depth, values), origin })
    });
    found.collect()
}

fn from_variables(target: &Target, variables: &[(String, OsString)]) -> Result<Vec<Addition>> {
    let mut found = Vec::new();
    for (name, value) in variables {
        let key = name.to_lowercase().replace('_', "-");
        let is_one = !super::NEVER.contains(&key.as_str()) && name.to_uppercase() == *name;
        let Some((arg, depth)) = target.flag(&key).filter(|_| is_one) else {
            known(name, &key)?;
            continue;
        };
        let values = match arg.get_action() {
            clap::ArgAction::SetTrue => match value.to_str() {
                Some("true" | "yes" | "on" | "1") => vec![OsString::new()],
                Some("false" | "no" | "off" | "0") => Vec::new(),
                _ => return fail(Code::Usage, format!("cannot use {VARIABLE}{name}: expected true or false")),
            },
            clap::ArgAction::Append => lines(value),
            _ => vec![value.clone()],
        };
        let origin = Origin::Variable(name.clone());
        found.push(Addition { word: Word::new(arg, *depth, values), origin });
    }
    Ok(found)
}

/// Values of a flag that may be repeated: one on each line.
fn lines(value: &OsString) -> Vec<OsString> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let lines = value.as_bytes().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| OsString::from_vec(line.to_vec())).collect()
}

/// A variable that this command has no use for is another one's, or a slip.
fn known(name: &str, key: &str) -> Result<()> {
    let is_known =
        ["config", "set"].contains(&key) || COMMANDS.iter().any(|(_, command)| keys(&command()).contains_key(key));
    if is_known && name.to_uppercase() == *name {
        return Ok(());
    }
    fail(Code::Usage, format!("cannot use {VARIABLE}{name}: no command has --{key}"))
}

impl Merged {
    fn target(&self, command: &Command) -> Target {
        let mut args: Vec<_> = command.get_arguments().map(|arg| (arg.clone(), 0)).collect();
        let mut at = command;
        for (above, name) in self.line.chain.iter().enumerate() {
            let Some(below) = at.find_subcommand(name) else { break };
            args.splice(0..0, below.get_arguments().map(|arg| (arg.clone(), above + 1)));
            at = below;
        }
        Target { name: command.get_name().to_owned(), args }
    }

    /// Everything that is given.
    pub(super) fn given(&self) -> Given {
        self.line.with(self.ranked().into_iter().map(|addition| &addition.word))
    }

    /// What was added and gives something, the lowest rank first.
    pub(super) fn ranked(&self) -> Vec<&Addition> {
        let mut added: Vec<_> = self.added.iter().filter(|addition| !addition.word.values.is_empty()).collect();
        added.sort_by_key(|addition| addition.origin.rank());
        added
    }

    /// The last value of a flag.
    pub(super) fn text(&self, id: &str) -> Option<String> {
        self.given().get(id)?.values.last()?.to_str().map(str::to_owned)
    }

    /// What a file alone gives.
    pub(super) fn filed(&self) -> BTreeSet<String> {
        let filed = self.ranked().into_iter().filter(|addition| !matches!(addition.origin, Origin::Variable(_)));
        filed.map(|addition| addition.word.id.clone()).collect()
    }

    fn words(&self, given: &Given) -> Vec<OsString> {
        [self.program.clone()].into_iter().chain(given.print()).collect()
    }

    /// Takes what is of a lower rank than all that is there. Returns whether some flag is not given any more by this.
    fn take(&mut self, command: &Command, additions: Vec<Addition>) -> bool {
        let above = self.given();
        let is_there = |id: &str| above.has(id) || self.added.iter().any(|addition| addition.word.id == id);
        let (same, other): (Vec<_>, Vec<_>) = additions.into_iter().partition(|addition| is_there(&addition.word.id));
        let is_taken_back = same.iter().any(|addition| !above.has(&addition.word.id));
        let conflicts = |addition: &Addition| {
            let words = self.words(&above.with(Some(&addition.word)));
            !addition.word.values.is_empty()
                && command
                    .clone()
                    .try_get_matches_from(words)
                    .is_err_and(|error| error.kind() == ErrorKind::ArgumentConflict)
        };
        let is_alone = above.words.is_empty();
        let (gone, kept): (Vec<_>, Vec<_>) = other.into_iter().partition(|addition| !is_alone && conflicts(addition));
        self.added.extend(kept);
        is_taken_back || !gone.is_empty()
    }

    fn top(&mut self, target: &Target, config: &Config, file: &str) -> Vec<Addition> {
        if target.name == "repl-fetch" && config.archive.as_ref().or(config.logdir.as_ref()).is_some() {
            self.line.shift(&["archive", "name", "dest"]);
        }
        let addition = |Feed { id, table, key, values }: Feed| {
            let (arg, depth) = target.args.iter().find(|(arg, _)| arg.get_id() == id)?;
            let line = config.line(table, key).unwrap_or_default();
            let origin = Origin::Top(file.to_owned(), table.to_owned(), key.to_owned(), line);
            Some(Addition { word: Word::new(arg, *depth, values), origin })
        };
        feeds(&target.name, config, &self.given()).into_iter().filter_map(addition).collect()
    }

    /// What is still wrong is somebody's fault. What needs a flag that gave way goes with it.
    fn settle(&mut self, command: &Command, gone: bool) -> Result<()> {
        loop {
            let Err(error) = command.clone().try_get_matches_from(self.words(&self.given())) else {
                return Ok(());
            };
            if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                return Ok(());
            }
            if error.kind() != ErrorKind::MissingRequiredArgument {
                return Err(self.blame(&error));
            }
            let Some(needy) = self.needy(command, names(&error).len()) else {
                return Ok(());
            };
            if !gone {
                let origin = &self.added[needy].origin;
                return fail(Code::Usage, format!("cannot use {origin}: {}", first(&error)));
            }
            self.added.remove(needy);
        }
    }

    /// Something added without which less is missing.
    fn needy(&self, command: &Command, missing: usize) -> Option<usize> {
        (0..self.added.len()).find(|at| {
            let mut without = self.added.clone();
            without.remove(*at);
            let without = Merged { line: self.line.clone(), added: without, program: self.program.clone() };
            match command.clone().try_get_matches_from(without.words(&without.given())) {
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::MissingRequiredArgument && names(&error).len() < missing,
            }
        })
    }

    /// The error with where the argument is from that it names.
    fn blame(&self, error: &clap::Error) -> anyhow::Error {
        let named = names(error);
        let is_named = |addition: &&Addition| {
            let flag =
                addition.word.long.as_ref().map_or_else(|| addition.word.id.to_uppercase(), |long| format!("--{long}"));
            let name = |name: &String| {
                name.split([' ', '=']).next().unwrap_or_default().trim_matches(['<', '>', '[', ']', '.']).to_owned()
            };
            named.iter().any(|named| name(named) == flag)
        };
        let origins: Vec<_> = self.added.iter().filter(is_named).map(|addition| addition.origin.to_string()).collect();
        let text = match origins.as_slice() {
            [] => {
                return anyhow::Error::msg(first(error))
                    .context(Failure::new(Code::Usage, "cannot use the configuration"));
            }
            origins => format!("cannot use {}: {}", origins.join(" with "), first(error)),
        };
        Failure::new(Code::Usage, text).into()
    }

    /// As the command's own parser reads it.
    pub(super) fn finish(&self, command: &Command) -> Result<ArgMatches> {
        Ok(command.clone().try_get_matches_from(self.words(&self.given()))?)
    }
}

/// The arguments that an error names.
fn names(error: &clap::Error) -> Vec<String> {
    let mut found = Vec::new();
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        match error.get(kind) {
            Some(ContextValue::String(name)) => found.push(name.clone()),
            Some(ContextValue::Strings(names)) => found.extend(names.iter().cloned()),
            _ => {}
        }
    }
    found
}

/// What clap says, on one line and without its advice.
fn first(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}
