//! From where on a standby's recovery needs log.
//!
//! What the engine lists as not needed at a standby is wrong there: with transactions in flight at the master, a standby
//! from which `db5.3_archive` had removed could not be recovered again (measured, 5 of 5). So the rule goes by the
//! checkpoints in the shipped log alone, of which recovery has not written any. Recovery begins at the checkpoint before
//! the one at which the last checkpoint's own work began; that one and all behind it must be there.

use crate::value::position::{Position, Segment};

/// A `txn_ckp` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where the record begins in its file.
    pub offset: u64,
    /// `ckp_lsn`: every page that was changed before this is in the database.
    pub begins: Position,
}

/// Goes from the last checkpoint back to the one that decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    /// `ckp_lsn` of the last one.
    last: Option<Position>,
}

impl Search {
    /// Looks at the checkpoints of a file, the newest file first. The first file of which log is needed, once it is known.
    pub fn look(&mut self, segment: Segment, checkpoints: &[Checkpoint]) -> Option<Segment> {
        for checkpoint in checkpoints.iter().rev() {
            match self.last {
                None => self.last = Some(checkpoint.begins),
                Some(last) if segment.at(checkpoint.offset) < last => {
                    return Some(segment.min(checkpoint.begins.segment));
                }
                Some(_) => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checkpoints as `FILE:OFFSET>FILE:OFFSET`, of the record and of where it says that its work began; what is needed.
    fn needed(text: &str) -> Option<u64> {
        let position = |text: &str| format!("1-{text}").parse::<Position>().unwrap();
        let pairs = text.split_whitespace().map(|pair| pair.split_once('>').unwrap());
        let all: Vec<_> = pairs.map(|(at, begins)| (position(at), position(begins))).collect();
        let mut search = Search::default();
        let mut files: Vec<_> = all.iter().map(|(at, _)| at.segment).collect();
        files.dedup();
        files.into_iter().rev().find_map(|file| {
            let here = all.iter().filter(|(at, _)| at.segment == file);
            let here: Vec<_> = here.map(|(at, begins)| Checkpoint { offset: at.offset, begins: *begins }).collect();
            search.look(file, &here).map(|segment| segment.sequence)
        })
    }

    #[test]
    fn recovery_begins_at_the_checkpoint_before_the_last_ones_beginning() {
        assert_eq!(needed(""), None);
        assert_eq!(needed("7:100>7:50"), None);
        assert_eq!(needed("6:10>6:5 7:100>7:50"), Some(6));
        assert_eq!(needed("5:10>5:5 6:10>6:5 7:100>7:50"), Some(6));
        // In one file.
        assert_eq!(needed("7:20>7:10 7:100>7:50"), Some(7));
        // A transaction was in flight for long: the last one's work began before those behind.
        assert_eq!(needed("3:10>3:5 5:10>4:90 6:10>4:90 7:100>4:90"), Some(3));
        // The one that decides has itself one that began earlier.
        assert_eq!(needed("2:10>2:5 4:10>2:60 7:100>6:50"), Some(2));
        // One that is exactly there is not before it.
        assert_eq!(needed("7:50>7:20 7:100>7:50"), None);
    }
}
