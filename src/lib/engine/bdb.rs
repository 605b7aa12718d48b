//! A Berkeley DB environment as its own programs reach it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::log;
use crate::edge::dir::Dir;
use crate::edge::program::Program;
use crate::edge::user::User;
use crate::rule::scheme::Scheme;
use crate::value::position::Segment;

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(60);
/// Names of the program that lists what is not needed, the first that is installed counts.
const ARCHIVE: [&str; 2] = ["db5.3_archive", "db_archive"];

/// An environment's home.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Its directory; not always that of its log.
    pub home: PathBuf,
}

impl Environment {
    /// Removes segments before this one that the environment needs no more, oldest first, so that no crash leaves a hole.
    /// It has no way to be told what others need; this is why it only lists, and we remove.
    pub(super) fn remove(&self, dir: &Dir, scheme: &Scheme, up_to: Segment) -> Result<()> {
        let unneeded = self.unneeded(scheme, None).context("cannot remove log")?;
        let mut is_removed = false;
        for (segment, name) in log::segments(dir, scheme, |_| true)? {
            if segment >= up_to || !unneeded.contains(&segment) {
                break;
            }
            dir.remove(&name)?;
            is_removed = true;
        }
        if is_removed { dir.sync() } else { Ok(()) }
    }

    /// Segments that the environment needs no more, as `user` sees it.
    pub(super) fn unneeded(&self, scheme: &Scheme, user: Option<&User>) -> Result<BTreeSet<Segment>> {
        let names = self.archive(user)?;
        let file = |path: &str| path.rsplit('/').next().map(str::to_owned);
        Ok(names.lines().filter_map(file).filter_map(|name| scheme.segment(&name)).collect())
    }

    fn archive(&self, user: Option<&User>) -> Result<String> {
        let mut missing = None;
        for name in ARCHIVE {
            let args = ["-h".into(), self.home.clone().into_os_string()];
            let mut program = Program::new(name, args, QUESTION);
            program.user = user.cloned();
            match program.ask() {
                Err(error) if is_missing(&error) => missing = Some(error),
                result => return result,
            }
        }
        missing.map_or_else(|| Ok(String::new()), Err)
    }
}

/// Whether a program could not be run since it is not installed.
pub(super) fn is_missing_program(result: &Result<()>) -> bool {
    result.as_ref().is_err_and(is_missing)
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}
