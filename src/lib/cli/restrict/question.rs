//! What a restricted key may ask without log being shipped: how its site is, and what it is in its set. The other sites'
//! `repl-status` and `repl-role` ask both over the link that there is, and go by the answers.
//!
//! Two command lines, word for word. Nothing of theirs is a choice: the only word that is not fixed is the file, which
//! must be the one that the forced command names. They are read anew here, without the peer's words and without the
//! environment, and are answered in this process: nothing is started, nothing is changed, no lock is taken. `--json` and
//! `--local` on the line put away whatever the file says of files to be written and machines to be asked.

use std::ffi::OsString;
use std::path::{Path, absolute};

use anyhow::{Context as _, Result};

use super::{below, same};
use crate::cli::config::{self, Line};
use crate::cli::{role, status};
use crate::rule::config::Config;
use crate::value::escape::show;
use crate::value::exit::{Code, fail};

/// How the site is, as `repl-status` of another one asks it.
const STATUS: [&str; 4] = ["repl-status", "--json", "--local", "-c"];
/// What it is, as `repl-role` of another one asks it.
const ROLE: [&str; 4] = ["repl-role", "show", "--json", "-c"];

/// A question that a peer may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// How the site is.
    Status,
    /// What it is in its set.
    Role,
}

impl Question {
    /// Reads a peer's command line, for a key that has this configuration; `None` when it is of another command.
    pub fn parse(line: &str, own: Option<&Path>) -> Result<Option<Question>> {
        let words = shell_words::split(line).unwrap_or_default();
        let (question, known) = match words.first().and_then(|program| program.rsplit('/').next()) {
            Some("repl-status") => (Question::Status, STATUS),
            Some("repl-role") => (Question::Role, ROLE),
            _ => return Ok(None),
        };
        match words.split_last() {
            Some((file, [_, rest @ ..])) if rest == &known[1..] => {
                same(Some(Path::new(file)), own)?;
                Ok(Some(question))
            }
            _ => fail(
                Code::Usage,
                format!("refused by --restrict: '{} FILE' may be run, not '{}'", known.join(" "), show(line)),
            ),
        }
    }

    /// Prints the answer: what the file's own directories show, which must be below the root as for log that is landed.
    pub fn answer(self, file: &Path, root: &Path) -> Result<()> {
        let root = &absolute(root).context("cannot use ROOT")?;
        let words = |known: [&str; 4]| known.iter().map(OsString::from).chain([file.into()]).collect();
        match self {
            Question::Status => tell(config::told(words(STATUS))?, root),
            Question::Role => {
                let line: Line<role::Args> = config::told(words(ROLE))?;
                check(line.config.as_ref(), root)?;
                role::run(&line.args, line.config.as_ref(), None)
            }
        }
    }
}

fn tell(line: Line<status::Args>, root: &Path) -> Result<()> {
    check(line.config.as_ref(), root)?;
    let set = status::Set::of(&line);
    let args = line.args;
    // Without any directory it would tell of all senders that this user has.
    if args.dirs.is_empty() && args.state.is_empty() {
        return fail(Code::Usage, "refused by --restrict: this key's configuration has no logdir");
    }
    status::Args { set, ..args }.run().map(drop)
}

fn check(config: Option<&Config>, root: &Path) -> Result<()> {
    let places = config.into_iter().flat_map(|config| [&config.logdir, &config.archive]).flatten();
    for place in places {
        below(&absolute(place).context("cannot use logdir")?.to_string_lossy(), root)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    #[test]
    fn two_lines_are_read_and_none_that_is_another() {
        let own = Some(Path::new("/etc/repl/o.toml"));
        let asked = |line: &str| Question::parse(line, own);
        assert_eq!(asked("repl-status --json --local -c /etc/repl/o.toml").unwrap(), Some(Question::Status));
        assert_eq!(asked("repl-role show --json -c '/etc/repl/o.toml'").unwrap(), Some(Question::Role));
        for other in ["", "'", "repl-apply --acks", "sh -c repl-status", "repl-statusx"] {
            assert_eq!(asked(other).unwrap(), None, "{other}");
        }
        for bad in [
            "repl-status",
            "repl-status --json --local",
            "repl-status --local --json -c /etc/repl/o.toml",
            "repl-status --json --local -c /etc/repl/o.toml /srv",
            "repl-status --json --local -c /etc/repl/p.toml",
            "repl-role show -c /etc/repl/o.toml",
            "repl-role become --epoch 9 -c /etc/repl/o.toml",
        ] {
            assert_eq!(code_of(&asked(bad).unwrap_err()), Code::Usage, "{bad}");
        }
        let line = "repl-status --json --local -c /etc/repl/o.toml";
        assert_eq!(code_of(&Question::parse(line, None).unwrap_err()), Code::Usage);
    }
}
