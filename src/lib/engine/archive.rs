//! An archive: a directory of log that `repl-apply --logs-only` keeps, with or without [`base`] copies in `bases/`. It is
//! only read here, and a receiver may be landing log meanwhile.
//!
//! What is held is read first, then records, then bytes. A position is written after the bytes and lines that it speaks of
//! are on stable storage, and bytes before it never change; so whatever was added in between lies beyond what is looked at.

pub mod base;
pub mod gone;
pub mod lease;
pub mod own;
pub mod prove;
pub mod sums;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::site::{self, Holding, Origin, horizon};
use crate::edge::dir::Dir;
use crate::edge::slots;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Position, Segment};

/// The directory of base copies in an archive.
pub const BASES: &str = "bases";
/// Longest small file beside the log that is read.
const AUX_MAX: u64 = 1 << 20;

/// An archive in which log was received.
#[derive(Debug)]
pub struct Archive<'a> {
    /// The directory.
    pub dir: &'a Dir,
    /// Its state directory.
    pub state: Dir,
    /// What was pinned at the first attach.
    pub origin: Origin,
    /// What is held; `None` before anything is.
    pub holding: Option<Holding>,
    /// Before it nothing is kept any more.
    pub horizon: Option<Segment>,
}

impl Archive<'_> {
    /// Opens an archive, with its state in `state` instead of `.repl`.
    pub fn open<'a>(dir: &'a Dir, state: Option<&Path>) -> Result<Archive<'a>> {
        let no_archive = || Failure::new(Code::Usage, format!("{} is not an archive", dir.shown("")));
        let state = site::peek(dir, state)?;
        let state = state.ok_or_else(|| no_archive().hint("it is made by repl-apply --logs-only"))?;
        let origin = site::origin(&state)?.ok_or_else(|| no_archive().hint("nothing was ever received there"))?;
        if state.identity(site::POSITION)?.is_none() {
            return fail(Code::Corrupt, format!("{} is gone", state.shown(site::POSITION)));
        }
        let (holding, horizon) = (site::holding(&state)?, horizon::read(&state)?);
        // One that was cut off is not one that was never written.
        if holding.is_none() && slots::is_torn(&state, site::POSITION)? {
            return fail(Code::Corrupt, format!("{} is damaged", state.shown(site::POSITION)));
        }
        Ok(Archive { dir, state, origin, holding, horizon })
    }

    /// Each of these generations of the log has a past, and a base that ends here is in it.
    pub fn check_past(&self, generations: impl Iterator<Item = u64>, from: Option<Position>) -> Result<()> {
        let scheme = &self.origin.scheme;
        for generation in generations.collect::<BTreeSet<_>>() {
            let Some(name) = scheme.history_name(generation) else { continue };
            let Some(history) = self.small(&name)? else {
                let text = format!("{name} is missing, and log of {generation} is held");
                return Err(Failure::new(Code::Gap, text).hint("bring it from the master's log directory").into());
            };
            let left = scheme.left(generation, &String::from_utf8_lossy(&history)).unwrap_or_default();
            let Some(from) = from.filter(|from| from.segment.generation < generation) else { continue };
            let left = left.iter().find(|left| left.segment.generation == from.segment.generation);
            if left.is_none_or(|left| from > *left) {
                let text = format!("the base ends at {from}, which is not in the past of generation {generation}");
                return Err(Failure::new(Code::Corrupt, text).hint("name an earlier base").into());
            }
        }
        Ok(())
    }

    /// A small file beside the log: as it is here, and as it was received. Of two that differ neither is to be trusted.
    pub fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let here = self.dir.read_small(name, AUX_MAX)?;
        let received = match self.state.identity(site::AUX)? {
            Some(_) => self.state.open_subdir(site::AUX)?.read_small(name, AUX_MAX)?,
            None => None,
        };
        if here.is_some() && received.is_some() && here != received {
            return fail(Code::Corrupt, format!("{} is not what was received", self.dir.shown(name)));
        }
        Ok(here.or(received))
    }
}
