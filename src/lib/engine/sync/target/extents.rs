//! The extents of a file in the order of its bytes. The same bytes may have been written more than once, in one pass or
//! in several, and the file may have become shorter since: what counts is what was written last, up to the length.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Result;

use crate::engine::sync::journal::Journal;
use crate::engine::sync::journal::op::Extent;

/// Puts extents that are in the order of their writing into that of the bytes, so that none overlaps another or reaches
/// beyond a length.
pub(super) fn in_order(journal: &Journal, written: Vec<Extent>, size: u64) -> Result<Vec<Extent>> {
    let mut kept: BTreeMap<u64, Extent> = BTreeMap::new();
    for extent in written {
        let Some(extent) = cut(journal, extent, 0..size)? else { continue };
        let before = kept.range(..extent.end()).rev().map(|(_, earlier)| *earlier);
        let covered: Vec<Extent> = before.take_while(|earlier| earlier.end() > extent.offset).collect();
        for earlier in covered {
            kept.remove(&earlier.offset);
            for left in [earlier.offset..extent.offset, extent.end()..earlier.end()] {
                if let Some(left) = cut(journal, earlier, left)? {
                    kept.insert(left.offset, left);
                }
            }
        }
        kept.insert(extent.offset, extent);
    }
    Ok(kept.into_values().collect())
}

/// The part of an extent that is within a range, if any. Its bytes are read: it gets a checksum of its own.
fn cut(journal: &Journal, extent: Extent, range: Range<u64>) -> Result<Option<Extent>> {
    let (offset, end) = (extent.offset.max(range.start), extent.end().min(range.end));
    if offset >= end {
        return Ok(None);
    }
    let (skipped, length) = (offset - extent.offset, end - offset);
    if length == extent.length {
        return Ok(Some(extent));
    }
    if extent.is_hole {
        return Ok(Some(Extent::hole(offset, length)));
    }
    let mut bytes = vec![0; extent.length as usize];
    journal.load(&extent, &mut bytes)?;
    let crc = crc32c::crc32c(&bytes[skipped as usize..(skipped + length) as usize]);
    Ok(Some(Extent { offset, length, blob: extent.blob + skipped, crc, is_hole: false }))
}

/// Lays extents over what a buffer has of the content from an offset on.
pub(super) fn lay<'e>(
    journal: &Journal,
    extents: impl IntoIterator<Item = &'e Extent>,
    offset: u64,
    buffer: &mut [u8],
) -> Result<()> {
    let end = offset + buffer.len() as u64;
    for extent in extents {
        let (from, to) = (extent.offset.max(offset), extent.end().min(end));
        if from >= to {
            continue;
        }
        let place = (from - offset) as usize..(to - offset) as usize;
        if extent.is_hole {
            buffer[place].fill(0);
            continue;
        }
        let mut bytes = vec![0; extent.length as usize];
        journal.load(extent, &mut bytes)?;
        let skipped = (from - extent.offset) as usize;
        buffer[place.clone()].copy_from_slice(&bytes[skipped..skipped + place.len()]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sync::state::State;

    #[test]
    fn what_was_written_last_counts() {
        let root = tempfile::tempdir().unwrap();
        let destination = root.path().join("d");
        std::fs::create_dir(&destination).unwrap();
        let state = State::open(&destination).unwrap();
        let journal = Journal::open(&state).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..50 {
            let (mut written, mut expected) = (Vec::new(), vec![9; 300]);
            for _ in 0..random.usize(1..30) {
                let (offset, length) = (random.usize(0..300), random.usize(1..80));
                let is_hole = random.u8(0..4) == 0;
                let bytes: Vec<u8> = (0..length).map(|_| if is_hole { 0 } else { random.u8(..) }).collect();
                let end = (offset + length).min(300);
                expected[offset..end].copy_from_slice(&bytes[..end - offset]);
                written.push(if is_hole {
                    Extent::hole(offset as u64, length as u64)
                } else {
                    let (blob, crc) = journal.store(&bytes).unwrap();
                    Extent { offset: offset as u64, length: length as u64, blob, crc, is_hole }
                });
            }
            let extents = in_order(&journal, written, 300).unwrap();
            let ends = std::iter::once(0).chain(extents.iter().map(Extent::end));
            assert!(extents.iter().zip(ends).all(|(extent, end)| extent.length > 0 && extent.offset >= end));
            let mut made = vec![9; 300];
            lay(&journal, &extents, 0, &mut made).unwrap();
            assert_eq!(made, expected);
            let mut middle = vec![9; 50];
            lay(&journal, &extents, 77, &mut middle).unwrap();
            assert_eq!(middle, expected[77..127]);
            assert!(extents.last().is_none_or(|last| last.end() <= 300));
        }
    }
}
