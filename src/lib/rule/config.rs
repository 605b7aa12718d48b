//! The configuration of a set at one site, as `/etc/repl/SET.toml` has it: repl.toml(5). Text in, values out.
//!
//! A file that is half understood would be worse than none: a `[prune]` whose `keep_for` is passed over deletes what it
//! was to keep. So whatever is not known is an error with its line, in every table, also in those of other commands.
//! Which keys a command's table has is told by the caller, from the command's own flags: there is no second list of
//! them. Their values are not judged here either: they go where flags go, and are refused there in the same words.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::Result;

use crate::value::exit::{Code, Failure};

mod near;
mod print;
mod read;
pub mod secret;
#[cfg(test)]
mod tests;

pub use read::{HOOKS, SERVER, SITE, TOP, parse};

/// Where the file of a set is when it is only named.
pub const PLACE: &str = "/etc/repl";

/// What names of variables begin with that stand for flags.
pub const VARIABLE: &str = "REPL_OPT_";

/// The most bytes of a file.
pub const LONGEST: usize = 1 << 20;

/// What a key of a command's table takes, as the flag of that name does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// True or false.
    Nothing,
    /// A string or an integer.
    One,
    /// One or an array of them.
    Many,
}

/// The tables of commands, each with its keys.
pub type Commands = BTreeMap<String, BTreeMap<String, Takes>>;

/// What a key of a command's table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A flag that is given or not.
    Flag(bool),
    /// A value, as it would stand behind the flag.
    One(String),
    /// Values of a flag that may be repeated, in their order.
    Many(Vec<String>),
}

/// A set at this site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Name of the set.
    pub set: Option<String>,
    /// This machine's name in the set.
    pub site: Option<String>,
    /// What clients and proxies connect to when the master is here.
    pub address: Option<String>,
    /// Kind of database: one of `scheme::ENGINES`, or `sqlite`, which has no log that is shipped.
    pub engine: Option<String>,
    /// Names of segments; a valid pattern.
    pub pattern: Option<String>,
    /// The log directory: a master's, or the one that a receiver lands log in.
    pub logdir: Option<PathBuf>,
    /// The database's directory.
    pub datadir: Option<PathBuf>,
    /// Log with bases.
    pub archive: Option<PathBuf>,
    /// State of the sender.
    pub state: Option<PathBuf>,
    /// Commands for the database's server here.
    pub server: Server,
    /// Commands at the points of a sync.
    pub hooks: BTreeMap<String, String>,
    /// The other sites, in the order of the file.
    pub sites: Vec<Site>,
    /// Tables of commands: a flag's long name without hyphens in front, and what it is given.
    /// In the order of the file: patterns are ranked by it.
    pub commands: BTreeMap<String, Vec<(String, Value)>>,
    /// Lines of keys, by table (empty for the top level) and key.
    lines: BTreeMap<(String, String), usize>,
}

/// Commands for the database's server, run by `/bin/sh -c`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Ends it, and waits for its end.
    pub stop: Option<String>,
    /// Starts it.
    pub start: Option<String>,
    /// Exits with 0 when it runs.
    pub status: Option<String>,
    /// Makes this site's database the master.
    pub promote: Option<String>,
    /// Prepares this site's database to receive.
    pub demote: Option<String>,
}

/// Another site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name, the only one of that name.
    pub name: String,
    /// What clients and proxies connect to when the master is there.
    pub address: Option<String>,
    /// A prefix that runs a command line there: `ssh repl@venus`.
    pub rsh: Option<String>,
    /// Runs its receiver.
    pub via: Option<String>,
    /// Its own configuration, there.
    pub config: Option<String>,
    /// Rank in an election; 0 is never elected.
    pub priority: u32,
    /// Votes in an election.
    pub votes: u32,
    /// Whether its acknowledgements count.
    pub acks: bool,
    /// Whether log is shipped to it.
    pub enabled: bool,
}

impl Site {
    /// A site of this name with nothing said of it.
    pub fn new(name: impl Into<String>) -> Site {
        Site {
            name: name.into(),
            address: None,
            rsh: None,
            via: None,
            config: None,
            priority: 1,
            votes: 1,
            acks: true,
            enabled: true,
        }
    }

    /// What runs its receiver: `via`, else its `repl-apply --acks -c CONFIG` through `rsh`. Exit code 2 where there is
    /// neither: such a site is known, and can be shipped to by nobody.
    pub fn via(&self, set: &str) -> Result<String> {
        if let Some(via) = &self.via {
            return Ok(via.clone());
        }
        let receive = format!("repl-apply --acks -c {}", shell_words::quote(&self.config(set)));
        self.far(&receive).ok_or_else(|| {
            let text = format!("site '{}' has neither via nor rsh", self.name);
            Failure::new(Code::Usage, text).hint("rsh = \"ssh USER@HOST\" in its [[site]]").into()
        })
    }

    /// Where its own configuration is, there.
    pub fn config(&self, set: &str) -> String {
        self.config.clone().unwrap_or_else(|| format!("{PLACE}/{set}.toml"))
    }

    /// What `/bin/sh -c` here runs, so that this command line is run there: one word behind `rsh`, since the shell at the
    /// other end takes it apart once more. `None` without `rsh`.
    pub fn far(&self, command_line: &str) -> Option<String> {
        self.rsh.as_ref().map(|rsh| format!("{rsh} {}", shell_words::quote(command_line)))
    }
}

impl Config {
    /// Whether something in it is masked: a print of ours, that nothing can be done with.
    pub fn is_masked(&self) -> bool {
        let values = self.commands.values().flatten().flat_map(|(_, value)| match value {
            Value::Flag(_) => Vec::new(),
            Value::One(text) => vec![text],
            Value::Many(texts) => texts.iter().collect(),
        });
        let Server { stop, start, status, promote, demote } = &self.server;
        let server = [stop, start, status, promote, demote].into_iter().flatten();
        let sites = self.sites.iter().flat_map(|site| [&site.address, &site.rsh, &site.via, &site.config]).flatten();
        let mut texts = values.chain(server).chain(self.hooks.values()).chain(sites).chain(&self.address);
        texts.any(|text| text.contains(secret::MASK))
    }

    /// The line of a key: of the top level where the table's name is empty. `None` for what is not from a file.
    pub fn line(&self, table: &str, key: &str) -> Option<usize> {
        self.lines.get(&(table.to_owned(), key.to_owned())).copied()
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub text: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: {}", self.line, self.text)
    }
}
