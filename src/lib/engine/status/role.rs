//! What a site was told to be: by that an end is known to be the end of a role, which nothing comes after.
//!
//! It is kept in the state of the site's sender, also where none has shipped as yet; of which log directory that is, its
//! instance says. A state that is not this one's, or cannot be read, is no word to go on.

use std::path::{Path, PathBuf};

use crate::edge::dir::Dir;
use crate::engine::role::{self, Place, record::Record};
use crate::rule::status::sender::Told;
use crate::rule::status::{Part, What};

/// What the state of a sender says, which ships from a log directory.
pub(super) fn of_sender(log: &Path, state: &Dir) -> Option<Told> {
    let found = match Dir::open(log) {
        // Older releases wrote it as they were given it.
        Ok(dir) if log.is_absolute() => role::told(&Place { dir: &dir, state: Some(state), scheme: None }),
        _ => role::record::read(state),
    };
    found.ok()?.map(told)
}

/// Adds to a receiver what the state of a sender from there says: one that was named, or where it is by default, or beside
/// that under the name of a set.
pub(super) fn tell(part: &mut Part, dir: &Dir, states: &[PathBuf], default: Option<&Path>) {
    let What::Receiver(receiver) = &mut part.what else {
        return;
    };
    let home = default.and_then(Path::parent).map(std::fs::read_dir);
    let kept = home.into_iter().flatten().flatten().flatten().map(|entry| entry.path());
    let says = |path: PathBuf| role::told_of(dir, &Dir::open(&path).ok()?).ok()?;
    receiver.told = states.iter().cloned().chain(kept).find_map(says).map(told);
}

fn told(Record { role, site, epoch }: Record) -> Told {
    Told { role: role.to_string(), site, epoch }
}
