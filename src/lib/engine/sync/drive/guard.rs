//! What is looked at before anything is touched: a destination that is the source, or holds something else.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Drive, Mode};
use crate::edge::clone;
use crate::edge::dir::{Dir, shown};
use crate::edge::tree::Tree;
use crate::engine::sync::profile::Profile;
use crate::engine::sync::receiver::{Look, identity, is_within, machine};
use crate::engine::sync::state::State;
use crate::value::exit::{Code, Failure, fail};

impl Drive<'_> {
    /// The destination's path without links; its parent must be there.
    pub(super) fn place(&self) -> Result<PathBuf> {
        let path = std::path::absolute(&self.destination).context("cannot use the destination")?;
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return fail(Code::Guarded, "the destination is the root of all");
        };
        if self.options.makes_path && !self.options.manner.is_dry {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", shown(parent)))?;
        }
        std::fs::canonicalize(&path).or_else(|_| {
            let parent = std::fs::canonicalize(parent).with_context(|| {
                Failure::new(Code::Failed, format!("cannot use {}", shown(parent))).hint("--mkpath makes it")
            })?;
            Ok(parent.join(name))
        })
    }

    /// Another database must not be overwritten, nor a newer one, nor files that are none.
    pub(super) fn guard_database(&self, look: &Look) -> Result<()> {
        let there =
            if self.destination.exists() { Some(self.destination.as_path()) } else { self.options.purpose.before() };
        let Some(there) = there.filter(|_| !self.options.adopts) else {
            return Ok(());
        };
        let dir = Dir::open(there)?;
        let place = shown(there);
        let here = Profile::detect(&dir)?;
        self.profile.facts(&dir)?.relation(&look.facts).guard(&place)?;
        let is_foreign = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            name != "lost+found" && name != ".repl" && !name.starts_with(".repl-sync")
        };
        // What a database is, the operator may know better.
        let is_database = here.must_mirror() && !self.options.is_engine_told;
        let is_other = here != self.profile && (self.profile.must_mirror() || is_database);
        if is_other && dir.names()?.iter().any(is_foreign) {
            let text = if self.profile.must_mirror() {
                format!("{place} holds something else than a {} database", self.profile)
            } else {
                format!("{place} holds a {here} database, and the source none")
            };
            return Err(Failure::new(Code::Guarded, text).hint("--adopt overwrites it nevertheless").into());
        }
        Ok(())
    }

    /// How the new content comes into its place.
    pub(super) fn mode(&self, state: &State) -> Result<Mode> {
        let is_empty = !self.destination.exists() || std::fs::read_dir(&self.destination)?.next().is_none();
        let is_nameable = self.destination.file_name().is_some_and(|name| name.to_str().is_some());
        match self.options.mode {
            Some(Mode::Stage) if !state.is_beside() => {
                let place = shown(&self.destination);
                let text = format!("{place} cannot be staged: its parent is on another file system or not writable");
                Err(Failure::new(Code::Guarded, text).hint("use --inplace").into())
            }
            Some(mode) => Ok(mode),
            None if state.is_beside() && is_nameable && (is_empty || clone::has_reflinks(state.dir())) => {
                Ok(Mode::Stage)
            }
            None => Ok(Mode::InPlace),
        }
    }
}

/// Refuses (13) a source that is this directory, is in it or has it in it: a tree must not be copied into itself. The path
/// is without links; what it names may not be there yet.
pub fn apart(look: &Look, place: &Path) -> Result<()> {
    let here = if place.exists() {
        identity(&Tree::open(place)?)?
    } else {
        format!("{} -\n{}", machine(), place.to_string_lossy())
    };
    let (source, own) = (parts(&look.identity), parts(&here));
    let is_one = source.0 == own.0 && (source.1 == own.1 || is_within(Path::new(source.2), Path::new(own.2)));
    if is_one {
        return fail(Code::Guarded, format!("{} and {} are one, or one is in the other", source.2, own.2));
    }
    Ok(())
}

/// Machine, root's device and inode, path.
pub(super) fn parts(identity: &str) -> (&str, &str, &str) {
    let mut lines = identity.lines();
    let (head, path) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let (machine, root) = head.rsplit_once(' ').unwrap_or((head, ""));
    (machine, root, path)
}
