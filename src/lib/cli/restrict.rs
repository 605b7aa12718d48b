//! A forced command: `command="repl-apply --restrict /archive"` in `authorized_keys`. The key's owner asks for a command
//! line by `SSH_ORIGINAL_COMMAND`; of it only harmless options and a directory below the root are taken. No shell ever
//! sees it.
//!
//! A forced command that names a configuration (`-c FILE`) has its key ask two more things, with that very file: how the
//! site is, and what it is in its set ([`Question`]). By them a key reads what `repl-status --json` and `repl-role show`
//! tell of the directories in that file: names of set and sites, paths, positions, times, numbers of processes, why
//! something stands still. None of it is log, a secret, or a word of another set, and nothing can be changed by asking.
//! It is little beside what the same key already gets of a greeting; without `-c` nobody has said what it may be told,
//! and both are refused.

mod question;

use std::path::{Component, Path, PathBuf};

use anyhow::Result;

pub use self::question::Question;
use crate::engine::site::STATE;
use crate::value::escape::show;
use crate::value::exit::{Code, Failure, fail};

/// Options that a peer may ask for: with a value, and without.
const WITH_VALUE: [&str; 2] = ["--engine", "--pattern"];
const WITHOUT: [&str; 7] = ["--acks", "--position", "--logs-only", "--verbose", "-v", "--quiet", "-q"];

/// What a peer asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Options, each as its own argument, values joined with `=`.
    pub options: Vec<String>,
    /// The configuration that it takes to be this key's. A peer does not choose one: it is compared with the one that
    /// the forced command names.
    pub config: Option<PathBuf>,
    /// The directory, relative to the root; `None` when the peer named none.
    pub directory: Option<PathBuf>,
}

/// Reads a peer's command line for `command` below `root`.
pub fn parse(line: &str, command: &str, root: &Path) -> Result<Asked> {
    let refuse = |why: String| fail(Code::Usage, format!("refused by --restrict: {why}"));
    let Ok(words) = shell_words::split(line) else {
        return refuse("the command line has an open quote".into());
    };
    let mut words = words.into_iter();
    let program = words.next().unwrap_or_default();
    if program.rsplit('/').next() != Some(command) {
        return refuse(format!("only {command} may be run, not '{}'", show(&program)));
    }
    let mut asked = Asked::default();
    let mut only_names = false;
    while let Some(word) = words.next() {
        if !only_names && word == "--" {
            only_names = true;
        } else if !only_names && word.starts_with('-') {
            if ["-c", "--config"].contains(&word.as_str()) {
                match words.next() {
                    Some(path) => asked.config = Some(path.into()),
                    None => return refuse(format!("{word} has no value")),
                }
                continue;
            }
            if let Some(path) = word.strip_prefix("--config=") {
                asked.config = Some(path.into());
                continue;
            }
            let option = match word.split_once('=') {
                Some((name, _)) if WITH_VALUE.contains(&name) => word,
                None if WITHOUT.contains(&word.as_str()) => word,
                None if WITH_VALUE.contains(&word.as_str()) => match words.next() {
                    Some(value) => format!("{word}={value}"),
                    None => return refuse(format!("{word} has no value")),
                },
                _ => return refuse(format!("option '{}' is not allowed", show(&word))),
            };
            asked.options.push(option);
        } else if asked.directory.is_some() {
            return refuse("more than one directory is named".into());
        } else {
            asked.directory = Some(below(&word, root)?);
        }
    }
    Ok(asked)
}

/// Whether the configuration that a peer names is the one that its key has. To pass over another one would land log by
/// rules that its sender does not know of; to take it would let a key choose its own.
pub fn same(asked: Option<&Path>, own: Option<&Path>) -> Result<()> {
    match (asked, own) {
        (None, _) => Ok(()),
        (Some(asked), Some(own)) if asked == own => Ok(()),
        (Some(asked), _) => {
            let text = format!("refused by --restrict: this key does not use {}", show(&asked.to_string_lossy()));
            let hint = format!("-c {} in the forced command", show(&asked.to_string_lossy()));
            Err(Failure::new(Code::Usage, text).hint(hint).into())
        }
    }
}

/// A directory below the root, relative to it. Links are judged where it is opened.
pub fn below(word: &str, root: &Path) -> Result<PathBuf> {
    let path = Path::new(word);
    let inside = if path.is_absolute() { path.strip_prefix(root).ok() } else { Some(path) };
    let is_plain =
        |path: &&Path| path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    // A log directory's state is nobody's log directory.
    if path.components().any(|part| part.as_os_str() == STATE) {
        return fail(Code::Fenced, format!("refused by --restrict: '{}' leads into a {STATE}", show(word)));
    }
    match inside.filter(is_plain).filter(|_| !word.contains('\0')) {
        Some(inside) => Ok(inside.to_owned()),
        None => fail(Code::Fenced, format!("refused by --restrict: '{}' leads out of {}", show(word), root.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    fn asked(line: &str) -> Result<Asked> {
        parse(line, "repl-apply", Path::new("/archive"))
    }

    #[test]
    fn ordinary_use_goes_through() {
        let one = asked("repl-apply --acks --engine bdb 'site one'").unwrap();
        assert_eq!(one.options, ["--acks", "--engine=bdb"]);
        assert_eq!(one.directory.as_deref(), Some(Path::new("site one")));
        assert_eq!(asked("/usr/bin/repl-apply --position /archive/a/b").unwrap().directory, Some("a/b".into()));
        assert_eq!(asked("repl-apply -- a").unwrap().directory, Some("a".into()));
        assert_eq!(asked("repl-apply --acks").unwrap().directory, None);
        for line in ["repl-apply -c /etc/a", "repl-apply --config /etc/a", "repl-apply --config=/etc/a x"] {
            assert_eq!(asked(line).unwrap().config.as_deref(), Some(Path::new("/etc/a")), "{line}");
        }
    }

    #[test]
    fn anything_beyond_the_list_is_usage() {
        for bad in [
            "",
            "sh",
            "sh -c repl-apply",
            "repl-apply --set-aside a",
            "repl-apply --feed 'rm -rf /' a",
            "repl-apply 'a",
            "repl-apply --adopt a",
            "repl-apply --state /tmp a",
            "repl-apply --restrict / a",
            "repl-apply a b",
            "repl-apply --engine",
            "repl-apply --sync=each a",
            "repl-apply --acks=x a",
            "repl-apply --timeout 1h a",
        ] {
            assert_eq!(code_of(&asked(bad).unwrap_err()), Code::Usage, "{bad}");
        }
    }

    #[test]
    fn a_way_out_of_the_root_is_fenced() {
        for bad in [
            "repl-apply ../x",
            "repl-apply /etc",
            "repl-apply a/../../b",
            "repl-apply /archive/../etc",
            "repl-apply /archived",
            "repl-apply a/.repl",
            "repl-apply /archive/a/.repl/aux",
        ] {
            assert_eq!(code_of(&asked(bad).unwrap_err()), Code::Fenced, "{bad}");
        }
    }
}
