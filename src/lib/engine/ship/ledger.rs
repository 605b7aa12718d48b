//! What a sender remembers of the closed segments it has shipped: their digests prove the beginning of the next one after
//! the engine has removed them. Kept in the sender's state directory; without one, only for this process.

use anyhow::Result;
use parking_lot::Mutex;

use crate::edge::dir::Dir;
use crate::edge::journal::Journal;
use crate::edge::lock::Lock;
use crate::engine::site::{Closed, SEGMENTS};
use crate::rule::scheme::Scheme;
use crate::rule::stream::message::Previous;
use crate::value::position::{Bookmark, Segment};

/// Segments that are remembered, newest last.
const REMEMBERED: usize = 4096;

/// The memory of one sender. Many lanes use it at once, each for moments only.
pub struct Ledger(Mutex<Memory>);

struct Memory {
    /// In the order of the log.
    shipped: Vec<Previous>,
    file: Option<(Journal, Scheme, Lock)>,
    is_dirty: bool,
}

impl Ledger {
    /// Remembers nothing beyond this process.
    pub fn in_memory() -> Ledger {
        Ledger(Mutex::new(Memory { shipped: Vec::new(), file: None, is_dirty: false }))
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
        // A lane that was behind wrote its lines later.
        shipped.sort_by_key(|previous| previous.segment);
        Ok(Ledger(Mutex::new(Memory { shipped, file: Some((journal, scheme.clone(), lock)), is_dirty: false })))
    }

    /// A segment was shipped whole. It is on disk after [`Ledger::sync`].
    pub fn remember(&self, previous: Previous) -> Result<()> {
        let mut memory = self.0.lock();
        let Memory { shipped, file, is_dirty } = &mut *memory;
        let later = shipped.partition_point(|other| other.segment <= previous.segment);
        let is_known = shipped[..later].iter().rev().take_while(|other| other.segment == previous.segment);
        if is_known.clone().any(|known| *known == previous) || (later == 0 && shipped.len() >= REMEMBERED) {
            return Ok(());
        }
        shipped.insert(later, previous);
        if shipped.len() > 2 * REMEMBERED {
            shipped.drain(..REMEMBERED);
        }
        let Previous { segment, length, digest } = previous;
        if let Some((journal, scheme, _)) = file {
            journal
                .append(&Closed { segment, length, digest, of_file: None, boundary: None, time: None }.print(scheme))?;
            *is_dirty = true;
        }
        Ok(())
    }

    /// Makes durable what is remembered. A line that a power cut takes can cost a proof, never a byte; so one sync may
    /// serve many segments.
    pub(super) fn sync(&self) -> Result<()> {
        let mut memory = self.0.lock();
        if let (true, Some((journal, ..))) = (std::mem::take(&mut memory.is_dirty), &memory.file) {
            journal.sync()?;
        }
        Ok(())
    }

    /// Whether a receiver's bookmark is the end of a segment as it was shipped.
    pub(super) fn proves(&self, mark: Bookmark) -> bool {
        self.0.lock().shipped.iter().any(|one| {
            one.segment.at(one.length) == mark.position && mark.proof.is_none_or(|proof| proof == one.digest.proof())
        })
    }

    /// The last one shipped of those before a segment.
    pub(super) fn last_before(&self, segment: Segment) -> Option<Previous> {
        self.0.lock().shipped.iter().rev().find(|one| one.segment < segment).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::digest::Digest;

    #[test]
    fn lanes_at_different_places_remember_one_log() {
        let ledger = Ledger::in_memory();
        let one = |sequence: u64| {
            let (segment, digest) = (Segment::new(1, sequence), Digest::of(&sequence.to_le_bytes()));
            Previous { segment, length: 8, digest }
        };
        for sequence in [5, 6, 2, 3, 6, 7, 2] {
            ledger.remember(one(sequence)).unwrap();
        }
        let last = |sequence| ledger.last_before(Segment::new(1, sequence)).map(|previous| previous.segment.sequence);
        assert_eq!([last(2), last(3), last(5), last(6), last(9)], [None, Some(2), Some(3), Some(5), Some(7)]);
        let mark = |sequence| Bookmark { position: Segment::new(1, sequence).at(8), proof: None };
        assert!(ledger.proves(mark(2)) && !ledger.proves(mark(4)));
        assert_eq!(ledger.0.lock().shipped.len(), 5);
    }
}
