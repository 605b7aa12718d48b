//! Receivers of earlier runs with the same state: `receivers/` in the sender's state directory has a file for each that
//! this run does not ship to, with how much of the log it is known to have.
//!
//! One sender may ship to an archive each night and to a standby by day. Whichever runs, the log that the other lacks must
//! not be given up: it is needed until somebody says that it is not.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::status::Site;
use crate::edge::dir::Dir;
use crate::value::digest::Digest;
use crate::value::exit::{Code, Failure};
use crate::value::position::Position;

/// The directory of them.
const RECEIVERS: &str = "receivers";
/// Longest that is read of one.
const MOST: u64 = 1 << 16;
/// How a file's name ends.
const SUFFIX: &str = ".json";

/// All of them. One that cannot be read is an error: nobody knows what it has.
pub fn read(state: &Dir) -> Result<Vec<Site>> {
    let mut found = Vec::new();
    if state.identity(RECEIVERS)?.is_none() {
        return Ok(found);
    }
    let dir = state.open_subdir(RECEIVERS)?;
    let mut names = dir.names()?;
    names.sort();
    for name in names.iter().filter_map(|name| name.to_str()).filter(|name| name.ends_with(SUFFIX)) {
        // It may have been let go just now.
        let Some(bytes) = dir.read_small(name, MOST)? else {
            continue;
        };
        let damaged = || Failure::new(Code::Corrupt, format!("{} is damaged", dir.shown(name)));
        found.push(parse(&bytes).with_context(damaged)?);
    }
    Ok(found)
}

/// What all of them have; `None` when there are none.
pub(super) fn least(state: &Dir) -> Result<Option<Position>> {
    Ok(read(state)?.into_iter().filter_map(|site| site.proven).min())
}

/// Keeps durably what one has. One that has never had anything needs nothing.
pub fn keep(state: &Dir, site: &Site) -> Result<()> {
    let Some(proven) = site.proven else {
        return Ok(());
    };
    let text = json!({
        "v": 1,
        "name": site.name,
        "receiver": site.receiver,
        "logdir": site.log,
        "proven": proven.to_string(),
        "last_ack": site.last_ack,
    });
    state.subdir(RECEIVERS)?.replace(&file(&site.receiver), format!("{text}\n").as_bytes())
}

/// It is not one any more; whether it was.
pub(in crate::engine) fn forget(state: &Dir, receiver: &str) -> Result<bool> {
    if state.identity(RECEIVERS)?.is_none() {
        return Ok(false);
    }
    let dir = state.open_subdir(RECEIVERS)?;
    let was_there = dir.remove_if_there(&file(receiver))?;
    dir.sync()?;
    Ok(was_there)
}

/// How a receiver is reached may be no name of a file.
fn file(receiver: &str) -> String {
    format!("{}{SUFFIX}", Digest::of(receiver.as_bytes()).proof())
}

fn parse(bytes: &[u8]) -> Result<Site> {
    let value: Value = serde_json::from_slice(bytes)?;
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let site = (value["v"] == 1).then(|| {
        let proven = text("proven")?.parse().ok()?;
        let (name, receiver, log) = (text("name")?, text("receiver")?, text("logdir")?);
        Some(Site { name, receiver, log, proven: Some(proven), last_ack: text("last_ack") })
    });
    site.flatten().context("it is not of version 1, or not all there")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    #[test]
    fn the_one_that_has_least_counts_until_it_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let state = Dir::open(root.path()).unwrap();
        assert_eq!((least(&state).unwrap(), forget(&state, "a").unwrap()), (None, false));
        let site = |receiver: &str, proven: &str| Site {
            name: receiver.to_owned(),
            receiver: receiver.to_owned(),
            log: "/log".to_owned(),
            proven: proven.parse().ok(),
            last_ack: None,
        };
        let (a, b, never) = (site("ssh a 'b'", "1-7:40"), site("b", "1-2:0"), site("c", ""));
        for site in [&a, &b, &never, &a] {
            keep(&state, site).unwrap();
        }
        let mut all = read(&state).unwrap();
        all.sort_by(|one, other| one.receiver.cmp(&other.receiver));
        assert_eq!(all, [b.clone(), a.clone()]);
        assert_eq!(least(&state).unwrap(), b.proven);
        assert!(forget(&state, "b").unwrap());
        assert_eq!(least(&state).unwrap(), a.proven);
        std::fs::write(root.path().join("receivers/x.json"), "{\"v\": 2}").unwrap();
        assert_eq!(code_of(&least(&state).unwrap_err()), Code::Corrupt);
    }
}
