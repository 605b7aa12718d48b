//! What a sender remembers of the closed segments it has shipped: their digests prove the beginning of the next one after
//! the engine has removed them. Kept in the sender's state directory; without one, only for this process.

use anyhow::Result;

use crate::edge::dir::Dir;
use crate::edge::journal::Journal;
use crate::edge::lock::Lock;
use crate::engine::site::{Closed, SEGMENTS};
use crate::rule::scheme::Scheme;
use crate::rule::stream::message::Previous;
use crate::value::position::{Bookmark, Segment};

/// Segments that are remembered, newest last.
const REMEMBERED: usize = 4096;

/// The memory of one sender.
pub struct Ledger {
    shipped: Vec<Previous>,
    file: Option<(Journal, Scheme, Lock)>,
    is_dirty: bool,
}

impl Ledger {
    /// Remembers nothing beyond this process.
    pub fn in_memory() -> Ledger {
        Ledger { shipped: Vec::new(), file: None, is_dirty: false }
    }

    /// Opens the memory in a state directory. Another sender may be using it (exit code 7).
    pub fn open(state: &Dir, scheme: &Scheme) -> Result<Ledger> {
        let lock = Lock::take(state, "lock")?;
        let mut shipped = Vec::new();
        let mut lines = Vec::new();
        let read = |line: &str| match Closed::parse(line) {
            Some(closed) => {
                let Closed { segment, length, digest, .. } = closed;
                shipped.push(Previous { segment, length, digest });
                lines.push(line.to_owned());
                true
            }
            None => false,
        };
        let mut journal = Journal::open(state, SEGMENTS, read)?;
        if lines.len() > 2 * REMEMBERED {
            let kept = lines.split_off(lines.len() - REMEMBERED);
            state.replace(SEGMENTS, (kept.join("\n") + "\n").as_bytes())?;
            shipped.drain(..shipped.len() - REMEMBERED);
            journal = Journal::open(state, SEGMENTS, |_| true)?;
        }
        Ok(Ledger { shipped, file: Some((journal, scheme.clone(), lock)), is_dirty: false })
    }

    /// A segment was shipped whole. It is on disk after [`Ledger::sync`].
    pub fn remember(&mut self, previous: Previous) -> Result<()> {
        // Segments come in order: only one that is not later than the last may be known.
        let is_later = self.shipped.last().is_none_or(|last| last.segment < previous.segment);
        if !is_later && self.shipped.contains(&previous) {
            return Ok(());
        }
        if self.shipped.len() >= 2 * REMEMBERED {
            self.shipped.drain(..REMEMBERED);
        }
        self.shipped.push(previous);
        let Previous { segment, length, digest } = previous;
        if let Some((journal, scheme, _)) = &mut self.file {
            journal
                .append(&Closed { segment, length, digest, of_file: None, boundary: None, time: None }.print(scheme))?;
            self.is_dirty = true;
        }
        Ok(())
    }

    /// Makes durable what is remembered. A line that a power cut takes can cost a proof, never a byte; so one sync may
    /// serve many segments.
    pub(super) fn sync(&mut self) -> Result<()> {
        if let (true, Some((journal, ..))) = (std::mem::take(&mut self.is_dirty), &self.file) {
            journal.sync()?;
        }
        Ok(())
    }

    /// Whether a receiver's bookmark is the end of a segment as it was shipped.
    pub(super) fn proves(&self, mark: Bookmark) -> bool {
        self.shipped.iter().any(|one| {
            one.segment.at(one.length) == mark.position && mark.proof.is_none_or(|proof| proof == one.digest.proof())
        })
    }

    /// The last one shipped of those before a segment.
    pub(super) fn last_before(&self, segment: Segment) -> Option<Previous> {
        self.shipped.iter().rev().find(|one| one.segment < segment).copied()
    }
}
