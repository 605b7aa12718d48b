//! A file that is written anew since its bytes moved.
//!
//! Moved bytes are read in the old file, so nothing may be written there any more once they were seen: the place of some
//! is where others are to be read. They go into a new file, which comes to hold all of the content and then takes the
//! name. What was written before into the old file (or the journal) was at equal offsets, was right, and comes along.
//!
//! Who goes on at that moment with another range may still write to the old place: that is its own range, which is copied
//! from there only by itself, with its next write, or when all ranges are done. What it writes may also be what a third
//! reads as moved at that moment; then that range's cv is not the source's, and the range is fetched, which reads nothing
//! here. Nobody waits, and nothing is tried twice.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};

use super::{Basis, Sink, Target, extents, is_patched};
use crate::edge::blocks::write_all_at;
use crate::edge::clone::copy_range;
use crate::edge::read::read_at;
use crate::rule::sync::merkle::{self, GROUP};
use crate::value::entry::Entry;

/// See the module.
pub struct Anew {
    /// Fresh or staged.
    sink: Sink,
    /// What was written to until now.
    before: Option<Arc<Sink>>,
    size: u64,
    /// The groups that the new file has, a bit for each.
    laid: Vec<AtomicU64>,
}

impl Target<'_> {
    /// The sink for bytes of a file that moved, at this offset and probably all behind it, when the one it has will not
    /// do. `None` where that is never written through to the old content.
    pub fn anew(
        &self,
        new: &Entry,
        old: Option<&Entry>,
        offset: u64,
        before: Option<Arc<Sink>>,
    ) -> Result<Option<Sink>> {
        let is_patched = old.is_some_and(is_patched);
        let sink = match (self, before.as_deref()) {
            (Target::Direct(tree), None | Some(Sink::InPlace(_))) if is_patched => {
                let (file, name) = super::beside(tree)?;
                Sink::Fresh(file, name)
            }
            // A staged file of an earlier pass is the old content. A blob would be written twice, the second time while the
            // server is down: it is for what is less than half of a file.
            (Target::Journal(_, journal), None | Some(Sink::Extents(_) | Sink::Staged(..)))
                if journal.is_staged(&new.name) || (is_patched && offset <= new.stamp.size / 2) =>
            {
                let (number, file) = journal.stage()?;
                Sink::Staged(file, number)
            }
            _ => return Ok(None),
        };
        let size = new.stamp.size;
        let words = merkle::parts(size, 64 * GROUP);
        let laid = std::iter::repeat_with(AtomicU64::default).take(words).collect();
        Ok(Some(Sink::Anew(Box::new(Anew { sink, before, size, laid }))))
    }
}

impl Anew {
    /// Where it goes.
    pub(super) fn sink(&self) -> &Sink {
        &self.sink
    }

    fn file(&self) -> Result<&File> {
        match &self.sink {
            Sink::Fresh(file, _) | Sink::Staged(file, _) => Ok(file),
            _ => anyhow::bail!("no new file"),
        }
    }

    fn is_laid(&self, group: u64) -> bool {
        self.laid.get((group / 64) as usize).is_none_or(|word| word.load(Ordering::Acquire) & 1 << (group % 64) != 0)
    }

    fn mark(&self, group: u64) {
        if let Some(word) = self.laid.get((group / 64) as usize) {
            word.fetch_or(1 << (group % 64), Ordering::AcqRel);
        }
    }

    /// Before a write within a group, or of whole groups: the rest of a group comes along.
    pub fn prepare(&self, target: &Target<'_>, basis: &Basis, offset: u64, length: u64) -> Result<()> {
        let end = offset + length;
        for group in offset / GROUP..end.div_ceil(GROUP) {
            let begin = group * GROUP;
            let is_whole = offset <= begin && end >= (begin + GROUP).min(self.size);
            if !is_whole && !self.is_laid(group) {
                self.bring(target, basis, begin)?;
            }
            self.mark(group);
        }
        Ok(())
    }

    /// All ranges are done: what was not written is as it was.
    pub fn complete(&self, target: &Target<'_>, basis: &Basis) -> Result<()> {
        let groups = self.size.div_ceil(GROUP);
        let mut group = 0;
        while group < groups {
            let run = (group..groups).take_while(|group| !self.is_laid(*group)).count() as u64;
            let (begin, end) = (group * GROUP, ((group + run) * GROUP).min(self.size));
            match self.old_file(basis) {
                _ if run == 0 => {}
                Some(file) => copy_range(file, self.file()?, begin..end).context("cannot copy what did not move")?,
                None => (begin..end).step_by(GROUP as usize).try_for_each(|at| self.bring(target, basis, at))?,
            }
            group += run.max(1);
        }
        Ok(())
    }

    /// The file that has all there was before.
    fn old_file<'a>(&'a self, basis: &'a Basis) -> Option<&'a File> {
        match self.before.as_deref() {
            Some(Sink::InPlace(file) | Sink::Fresh(file, _) | Sink::Staged(file, _)) => Some(file),
            Some(_) => None,
            None => basis.file.as_ref().filter(|_| basis.overlay.is_empty()),
        }
    }

    /// Copies a group from where it was before.
    fn bring(&self, target: &Target<'_>, basis: &Basis, begin: u64) -> Result<()> {
        let mut buffer = vec![0; GROUP.min(self.size - begin) as usize];
        match (self.before.as_deref(), target) {
            (Some(Sink::InPlace(file) | Sink::Fresh(file, _) | Sink::Staged(file, _)), _) => {
                read_at(file, &mut buffer, begin)?;
            }
            (Some(Sink::Extents(written)), Target::Journal(_, journal)) => {
                basis.read(target, begin, &mut buffer)?;
                let near = |extent: &&super::Extent| extent.offset < begin + GROUP && extent.end() > begin;
                let written: Vec<_> = written.lock().iter().filter(near).copied().collect();
                extents::lay(journal, &written, begin, &mut buffer)?;
            }
            _ => {
                basis.read(target, begin, &mut buffer)?;
            }
        }
        // Where the new file has nothing, it reads as zeros.
        if buffer.iter().any(|byte| *byte != 0) {
            write_all_at(self.file()?, &buffer, begin)?;
        }
        Ok(())
    }
}
