//! Argument groups that commands share.

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use super::voice::Words;
use crate::edge::ssh;
use crate::rule::pattern::Pattern;
use crate::rule::scheme::{Engine, Kind};
use crate::value::exit::{Code, Failure};

/// How much is said.
#[derive(Args, Clone, Debug, Default)]
pub struct Talk {
    /// Tell what is done
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,

    /// What it looks like.
    #[command(flatten)]
    pub words: Words,
}

/// Which log this is.
#[derive(Args, Clone, Debug, Default)]
pub struct Log {
    /// Kind of database: bdb, postgres, mariadb, eloquence or plain [default: as file names or the stream show]
    #[arg(long, value_name = "ENGINE", value_parser = Engine::parse)]
    pub engine: Option<Engine>,

    /// Names of plain, eloquence or mariadb segments: %N is generation-sequence, %S the sequence, %010S with its width
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    pub pattern: Option<Pattern>,
}

impl Log {
    /// What was told; `None` when nothing was.
    pub fn kind(&self) -> Result<Option<Kind>> {
        let (engine, pattern) = match (self.engine, &self.pattern) {
            (None, None) => return Ok(None),
            (None, Some(pattern)) => (Engine::Plain, Some(pattern.clone())),
            (Some(engine), pattern) => (engine, pattern.clone()),
        };
        Kind::new(engine, pattern).map(Some).map_err(|why| Failure::new(Code::Usage, why).into())
    }
}

/// A name of a set or a site: it goes into state files, greetings and messages.
pub fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || !crate::rule::stream::hello::is_name(text) {
        return Err("a name has 1 to 255 bytes (escaped) and no control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// How hosts of `ssh://` are reached: with these key files or the user's own keys, their words on standard error.
pub fn ssh_options(identities: &[PathBuf]) -> Result<ssh::Options> {
    let words = std::io::stderr().as_fd().try_clone_to_owned().context("cannot use standard error")?;
    Ok(ssh::Options { identities: identities.to_vec(), ..ssh::Options::new(words) })
}

/// Prints the completions of a command for a shell.
pub fn completions(command: Command, shell: Shell) -> Result<()> {
    let mut command = super::config::complete(command);
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    super::report::print(&script)
}

/// Where a sender's state is by default: `/var/lib/repl/SET` for root, `$XDG_STATE_HOME/repl/SET` for others. SET is the
/// set's name, or one made from the log directory's path.
pub fn default_state(set: &str, log: &std::path::Path) -> Option<PathBuf> {
    states_home().map(|home| home.join(set_name(set, log)))
}

/// Where the states of all senders are by default, a directory each.
pub fn states_home() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/repl"));
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    state.or_else(home).map(|home| home.join("repl"))
}

/// A file name for a set: its name, or the log directory's path joined by dashes. Where that could mean two things, a
/// digest makes it one, so that two sets never share a directory.
fn set_name(set: &str, log: &std::path::Path) -> String {
    let path = std::fs::canonicalize(log).unwrap_or_else(|_| log.to_owned());
    let text = if set.is_empty() { path.to_string_lossy().into_owned() } else { set.to_owned() };
    let parts = text.trim_matches('/');
    let is_exact = parts.len() <= 200 && !parts.starts_with('.') && !(parts.contains('/') && parts.contains('-'));
    if is_exact {
        return parts.replace('/', "-");
    }
    let short: String = parts.trim_start_matches('.').chars().take(40).collect();
    format!("{}-{}", short.replace('/', "-"), crate::value::digest::Digest::of(text.as_bytes()).proof())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sets_never_share_a_state_directory() {
        let name = |set: &str| set_name(set, std::path::Path::new("/"));
        assert_eq!(name("orders"), "orders");
        assert_eq!(name("north-sea"), "north-sea");
        let paths = ["/a/b-c", "/a-b/c", "/a/b/c", ".a", "a"];
        let names: std::collections::BTreeSet<_> = paths.iter().map(|path| name(path)).collect();
        assert_eq!(names.len(), paths.len(), "{names:?}");
        assert!(names.iter().all(|name| !name.starts_with('.') && !name.contains('/')), "{names:?}");
    }
}
