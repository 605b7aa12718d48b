//! Log directories within a destination into which `repl-apply` has landed a stream, such as a standby's `pg_wal`.
//!
//! The log there is replaced by the copy's, so what was held of the old one is held no more: the position from before
//! would have the sender go on at a place that the copy is long past, or that its history never had. What says so goes in
//! the same step as the switch, never before it, since until then the old log is there. What the site itself is, its
//! epoch and its history, stays.
//!
//! No receiver may land anything meanwhile, hence its locks are taken from before the server's stop until the switch.

use anyhow::Result;

use super::profile::Profile;
use crate::edge::dir::Dir;
use crate::edge::lock::Lock;
use crate::edge::tree::Tree;
use crate::engine::site::{HELD, STATE};
use crate::value::exit::{Code, Failure, code_of};
use crate::value::name::Name;

/// Takes the locks of all receivers into a destination; 7 where one is at work.
pub fn hold(profile: Profile, destination: &Tree) -> Result<Vec<Lock>> {
    let mut locks = Vec::new();
    for name in sites(profile, destination)? {
        let dir = Dir::open(destination.subtree(&name)?.path())?;
        let taken = || Ok((Lock::take(&dir.open_subdir(STATE)?, "lock")?, Lock::take_directory(&dir)?));
        let (one, other) = taken().map_err(|error: anyhow::Error| match code_of(&error) {
            Code::Busy => error.context(
                Failure::new(Code::Busy, "log is still landed in the destination")
                    .hint("stop repl-apply, or its repl-ship, by --hook before-stop=CMD"),
            ),
            _ => error,
        })?;
        locks.extend([one, other]);
    }
    Ok(locks)
}

/// Names in a tree that say what is held of its log.
pub fn stale(profile: Profile, tree: &Tree) -> Result<Vec<Name>> {
    let mut found = Vec::new();
    for site in sites(profile, tree)? {
        for name in HELD {
            let name = site.join(STATE.as_bytes()).join(name.as_bytes());
            if tree.look(&name)?.is_some() {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// Log directories of a tree in which a receiver keeps its state.
fn sites(profile: Profile, tree: &Tree) -> Result<Vec<Name>> {
    let mut found = Vec::new();
    for name in profile.log_directories(tree)? {
        if tree.look(&name.join(STATE.as_bytes()))?.is_some_and(|state| state.is_directory()) {
            found.push(name);
        }
    }
    Ok(found)
}
