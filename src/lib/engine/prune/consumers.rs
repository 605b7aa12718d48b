//! Who else needs log: consumers that were named, one bookmark each in `consumers/NAME`, and receivers of `repl-ship`, as
//! its status tells of them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::edge::dir::Dir;
use crate::engine::archive::base;
use crate::engine::ship::status;
use crate::rule::retention::{Need, Who};
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Bookmark, NotAPosition, Position};

/// The directory of consumers in a state directory.
const CONSUMERS: &str = "consumers";
/// How the name of a file ends that is about to replace another.
const UNFINISHED: &str = ".new";

/// Whether a consumer can be called so: a base can, and it is not the name of a file that is being written.
pub fn is_name(name: &str) -> bool {
    base::is_name(name) && !name.ends_with(UNFINISHED)
}

/// A state directory of `repl-ship`.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Its path.
    pub state: PathBuf,
    /// Whether somebody has said that there is one: then it must be there.
    pub is_told: bool,
}

/// The consumers of a state directory, in order of names.
pub(super) fn named(state: &Dir) -> Result<Vec<(String, Bookmark)>> {
    let mut found = Vec::new();
    if state.identity(CONSUMERS)?.is_none() {
        return Ok(found);
    }
    let consumers = state.open_subdir(CONSUMERS)?;
    for name in consumers.names()? {
        let Some(name) = name.to_str().filter(|name| is_name(name)) else {
            continue;
        };
        let bytes = consumers.read_small(name, 256)?.unwrap_or_default();
        match String::from_utf8_lossy(&bytes).trim_end().parse() {
            Ok(mark) => found.push((name.to_owned(), mark)),
            Err(error) => return fail(Code::Corrupt, format!("{} is damaged: {error}", consumers.shown(name))),
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

/// What all of the named ones have; `None` when there are none.
pub(in crate::engine) fn least(state: &Dir) -> Result<Option<Position>> {
    Ok(named(state)?.into_iter().map(|(_, mark)| mark.position).min())
}

/// Keeps durably what a consumer has.
pub(super) fn set(state: &Dir, name: &str, mark: Bookmark) -> Result<()> {
    state.subdir(CONSUMERS)?.replace(name, format!("{mark}\n").as_bytes())
}

/// Forgets a consumer; false when there is none of this name.
pub(super) fn forget(state: &Dir, name: &str) -> Result<bool> {
    if state.identity(CONSUMERS)?.is_none() {
        return Ok(false);
    }
    let consumers = state.open_subdir(CONSUMERS)?;
    let was_there = consumers.remove_if_there(name)?;
    consumers.sync()?;
    Ok(was_there)
}

/// What the named ones need.
pub(super) fn needs(state: &Dir) -> Result<Vec<Need>> {
    let need = |(name, mark): (String, Bookmark)| Need { who: Who::Consumer(name), from: Some(mark.position) };
    Ok(named(state)?.into_iter().map(need).collect())
}

/// What the receivers of senders need, to which this directory is shipped. One of which nothing is known needs all.
pub(super) fn receivers(dir: &Dir, senders: &[Sender]) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    for sender in senders {
        if !sender.is_told && !sender.state.exists() {
            continue;
        }
        let sites = status::read(&Dir::open(&sender.state)?)?;
        let own = sites.into_iter().filter(|site| sender.is_told || may_be_of(dir, &site.log));
        needs.extend(own.map(|site| Need { who: Who::Receiver(site.receiver), from: site.proven }));
    }
    Ok(needs)
}

/// Whether a sender's log directory can be this one: not when its path leads to another.
fn may_be_of(dir: &Dir, log: &str) -> bool {
    let log = PathBuf::from(log);
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    !log.is_absolute() || real(&log).is_none_or(|log| real(dir.path()) == Some(log))
}

/// Reads `NAME=POS` or `NAME=none`.
pub fn parse(text: &str) -> Result<(String, Option<Bookmark>), String> {
    let Some((name, position)) = text.split_once('=').filter(|(name, _)| is_name(name)) else {
        return Err(format!("'{text}' is not NAME=POSITION: a name has letters, digits, '.', '_' and '-'"));
    };
    match position {
        "none" => Ok((name.to_owned(), None)),
        position => {
            let mark = position.parse().map_err(|error: NotAPosition| error.to_string())?;
            Ok((name.to_owned(), Some(mark)))
        }
    }
}

/// Refuses one who has more than there is: of another history, perhaps, and then nothing that he says counts.
pub(super) fn check(needs: &[Need], end: Position) -> Result<()> {
    let others = needs.iter().filter(|need| matches!(need.who, Who::Consumer(_) | Who::Receiver(_)));
    for Need { who, from } in others {
        if let Some(from) = from.filter(|from| from.segment > end.segment) {
            let text =
                format!("{} is at {from}, and the log here ends at {end}: are these two histories?", who.shown());
            let hint = "look at both; then set it anew with --consumer NAME=POSITION, or forget it with NAME=none";
            return Err(Failure::new(Code::Diverged, text).hint(hint)).context("nothing is removed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    #[test]
    fn a_consumer_is_kept_and_forgotten_and_a_damaged_one_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let state = Dir::open(root.path()).unwrap();
        assert!(!forget(&state, "tape").unwrap());
        set(&state, "tape", "1-7:40".parse().unwrap()).unwrap();
        set(&state, "b", "1-2:0+0123456789abcdef".parse().unwrap()).unwrap();
        set(&state, "tape", "1-8:0".parse().unwrap()).unwrap();
        std::fs::write(root.path().join("consumers/tape.new"), "torn").unwrap();
        let shown: Vec<_> = named(&state).unwrap().iter().map(|(name, mark)| format!("{name}={mark}")).collect();
        assert_eq!(shown, ["b=1-2:0+0123456789abcdef", "tape=1-8:0"]);
        assert!(forget(&state, "b").unwrap());
        std::fs::write(root.path().join("consumers/tape"), "1-").unwrap();
        assert_eq!(code_of(&named(&state).unwrap_err()), Code::Corrupt);
    }

    #[test]
    fn a_name_and_a_position_are_read() {
        assert_eq!(parse("tape=1-7:40").unwrap().0, "tape");
        assert_eq!(parse("tape=none"), Ok(("tape".into(), None)));
        for bad in ["tape", "=1-1:0", "a/b=1-1:0", ".a=1-1:0", "a.new=1-1:0", "tape=", "tape=7", "tape=oldest"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
