//! A Berkeley DB environment in use: the vendor's order for a hot copy. A checkpoint first, then the databases, then the
//! log, which makes up for what changed meanwhile; the copy is recovered before anybody opens it.
//!
//! The log that the recovery needs begins before the checkpoint, and the engine has no way to be told to keep it: so it
//! is looked behind the pass whether all of it is still there.

use anyhow::{Context as _, Result};

use super::Settings;
use crate::edge::dir::Dir;
use crate::edge::program::Program;
use crate::engine::bdb::Environment;
use crate::engine::sync::profile::bdb_segments;
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure};
use crate::value::position::Segment;

/// Names of the program that writes a checkpoint, the first that is installed counts.
const CHECKPOINT: [&str; 2] = ["db5.3_checkpoint", "db_checkpoint"];

/// A hot copy of an environment.
#[derive(Debug)]
pub struct Bdb {
    settings: Settings,
    /// The first segment that the recovery of the copy needs.
    needed: Option<Segment>,
}

impl Bdb {
    pub(super) fn new(settings: Settings) -> Result<Bdb> {
        Dir::open(&settings.source)?;
        Ok(Bdb { settings, needed: None })
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        self.checkpoint().context("cannot write a checkpoint at the source")?;
        let environment = Environment { home: self.settings.source.clone() };
        let unneeded = environment.unneeded(&Scheme::Bdb, self.settings.user()?.as_ref())?;
        let segments = bdb_segments(&Dir::open(&self.settings.source)?)?;
        self.needed = segments.into_iter().find(|segment| !unneeded.contains(segment));
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
        let Some(needed) = self.needed.take() else {
            return Ok(());
        };
        let dir = Dir::open(&self.settings.source)?;
        if bdb_segments(&dir)?.contains(&needed) {
            return Ok(());
        }
        let text = format!("{} was removed while the copy that needs it was made", Scheme::Bdb.name(needed));
        Err(Failure::new(Code::Failed, text).hint("turn automatic removal of log off, and run it again").into())
    }
}
