//! A Berkeley DB environment in use: the vendor's order for a hot copy. A checkpoint first, then the databases, then the
//! log, which makes up for what changed meanwhile; the copy is recovered before anybody opens it.
//!
//! The log that the recovery needs begins before the checkpoint, and the engine has no way to be told to keep it: so it
//! is looked behind the pass whether all of it is still there.
//!
//! Berkeley DB SQL has an environment of its own for each database, beside it. Its checkpoints are its own: the engine's
//! program would look for the database in the environment's directory. Without a fresh one only more log is needed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Settings;
use crate::edge::dir::Dir;
use crate::edge::program::Program;
use crate::engine::bdb::Environment;
use crate::engine::sync::profile::{bdb_environments, bdb_segments};
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure};
use crate::value::position::Segment;

/// Names of the program that writes a checkpoint, the first that is installed counts.
const CHECKPOINT: [&str; 2] = ["db5.3_checkpoint", "db_checkpoint"];

/// A hot copy of an environment.
#[derive(Debug)]
pub struct Bdb {
    settings: Settings,
    /// The first segments that the recovery of the copy needs, each with its environment's home.
    needed: Vec<(PathBuf, Segment)>,
}

impl Bdb {
    pub(super) fn new(settings: Settings) -> Result<Bdb> {
        Dir::open(&settings.source)?;
        Ok(Bdb { settings, needed: Vec::new() })
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        self.needed.clear();
        for home in bdb_environments(&Dir::open(&self.settings.source)?)? {
            if home.is_root() {
                self.checkpoint().context("cannot write a checkpoint at the source")?;
            }
            let home = self.settings.source.join(OsStr::from_bytes(home.bytes()));
            let unneeded = Environment { home: home.clone() }.unneeded(&Scheme::Bdb, self.settings.user()?.as_ref())?;
            let segments = bdb_segments(&Dir::open(&home)?)?;
            let needed = segments.into_iter().find(|segment| !unneeded.contains(segment));
            self.needed.extend(needed.map(|needed| (home, needed)));
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<()> {
        let mut result = Ok(());
        for name in CHECKPOINT {
            let home = std::path::absolute(&self.settings.source)?.into_os_string();
            let mut program = Program::new(name, ["-1".into(), "-h".into(), home], self.settings.timeout);
            program.user = self.settings.user()?;
            result = program.run(None, None);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    pub(super) fn release(&mut self) -> Result<()> {
        for (home, needed) in std::mem::take(&mut self.needed) {
            if !bdb_segments(&Dir::open(&home)?)?.contains(&needed) {
                let text = format!("{} was removed while the copy that needs it was made", Scheme::Bdb.name(needed));
                let failure = Failure::new(Code::Failed, text);
                return Err(failure.hint("turn automatic removal of log off, and run it again").into());
            }
        }
        Ok(())
    }
}
