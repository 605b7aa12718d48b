//! Ranges whose bytes are here, but elsewhere in the file: some were inserted or removed before them.
//!
//! A *shift* is how far bytes are behind their old place. Those that are known are tried first, for a digest costs
//! nothing on the wire; the first guess is how much longer the file became, which is right for all that is behind a single
//! change. Where none fits, the blocks of the old content around the range are signed and the source searches for them;
//! what it finds gives the next shifts. A search that finds nothing is not repeated for long: that file is another one.
//!
//! All of this only proposes. What is made of it is proven by the cv of the range, and where that is not the source's
//! (the search's digests are MD4, and two contents may share one), the range is fetched, and nothing is tried any more in
//! this file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;
use parking_lot::Mutex;

use super::{Lack, Line, Work};
use crate::engine::sync::target::Sink;
use crate::rule::sync::merkle::{self, Cv, GROUP, RANGE, SHORT};
use crate::rule::sync::roll::{self, BLOCK, WINDOW_MAX};
use crate::rule::sync::wire::ask::{Ask, Part};
use crate::rule::sync::wire::corrupt;
use crate::rule::sync::wire::tell::Tell;
use crate::value::octets;

/// Shifts that are kept.
const SHIFTS: usize = 4;
/// Groups in a row that differ for which it pays to search.
const ROW: usize = 8;
/// How much farther than the sizes say bytes are searched for.
const SLACK: u64 = 1 << 20;
/// Ranges in a row in which nothing is found, before the file counts as another one.
const VAIN_MAX: usize = 2;
/// Different shifts of a range that are counted.
const GAINS: usize = 64;
/// Bytes that are signed at once.
const PIECE: u64 = 1 << 20;

/// What is known of the bytes of a file that moved.
#[derive(Default)]
pub(super) struct Moves {
    /// The one that fitted last is first.
    shifts: Mutex<Vec<i64>>,
    /// Whether any of them ever fitted.
    are_proven: AtomicBool,
    /// Ranges in a row that were searched in vain.
    vain: AtomicUsize,
    /// Nothing is tried any more.
    are_over: AtomicBool,
}

impl Moves {
    pub(super) fn new(old: u64, new: u64) -> Moves {
        let guess = new.wrapping_sub(old) as i64;
        let shifts = if guess == 0 || old == 0 { Vec::new() } else { vec![guess] };
        Moves { shifts: Mutex::new(shifts), ..Moves::default() }
    }

    /// Of a file whose bytes never do.
    pub(super) fn none() -> Moves {
        Moves { are_over: AtomicBool::new(true), ..Moves::default() }
    }

    /// Whether bytes moved, as far as is known.
    pub(super) fn are_known(&self) -> bool {
        self.are_proven.load(Ordering::Relaxed) && !self.are_over()
    }

    /// Whether what was taken for moved bytes was not.
    pub(super) fn are_over(&self) -> bool {
        self.are_over.load(Ordering::Relaxed)
    }

    fn pays_to_search(&self) -> bool {
        !self.are_over() && self.vain.load(Ordering::Relaxed) < VAIN_MAX
    }

    fn fits(&self, shift: i64) {
        let mut shifts = self.shifts.lock();
        if shifts.first() != Some(&shift) {
            shifts.retain(|known| *known != shift);
            shifts.insert(0, shift);
            shifts.truncate(SHIFTS);
        }
        drop(shifts);
        self.are_proven.store(true, Ordering::Relaxed);
        let _ = self.vain.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Where bytes with a shift were in the old content.
fn origin(offset: u64, shift: i64) -> Option<u64> {
    offset.checked_add_signed(shift.checked_neg()?)
}

impl Line<'_, '_> {
    /// Whether so much of a range differs that its bytes may have moved: all groups of which there is old content, or some
    /// in a row. What is only behind the old end was appended, unless bytes are known to move.
    fn is_far_off(work: &Work, part: &Part, lacking: &[Lack]) -> bool {
        if lacking.is_empty() || work.moves.are_over() {
            return false;
        }
        let known = work.basis.size().min(part.offset + part.length).saturating_sub(part.offset);
        let is_end = part.offset + known == part.size;
        let known = if is_end { merkle::parts(known, GROUP) } else { (known / GROUP) as usize };
        if known == 0 {
            return work.moves.are_known();
        }
        let (mut count, mut row, mut next) = (0, 0, 0);
        for lack in lacking.iter().filter(|lack| lack.number < known) {
            row = if lack.number == next { row + 1 } else { 1 };
            next = lack.number + 1;
            count += 1;
            if row >= ROW {
                return true;
            }
        }
        count == known
    }

    /// Whether a range is to be searched.
    pub(super) fn is_searched(work: &Work, part: &Part, lacking: &[Lack]) -> bool {
        work.moves.pays_to_search() && Self::is_far_off(work, part, lacking)
    }

    /// Tries known shifts on groups that are lacking: those that fit are put in their place, the others learn where their
    /// old content is likely to be. True when anything was used that moved.
    pub(super) fn seek(
        &self,
        work: &Work,
        part: &Part,
        theirs: &[[u8; SHORT]],
        lacking: &mut Vec<Lack>,
        own: &mut [Cv],
    ) -> Result<bool> {
        let mut shifts = work.moves.shifts.lock().clone();
        if shifts.is_empty() || !Self::is_far_off(work, part, lacking) {
            return Ok(false);
        }
        let (mut buffer, mut left, mut near) = (vec![0; GROUP as usize], Vec::new(), None);
        for lack in lacking.drain(..) {
            let offset = part.offset + lack.number as u64 * GROUP;
            let group = &mut buffer[..GROUP.min(part.offset + part.length - offset) as usize];
            let fits = |shift: &i64, group: &mut [u8]| -> Result<Option<Cv>> {
                let Some(from) = origin(offset, *shift) else { return Ok(None) };
                let is_whole = work.basis.read(&self.target, from, group)? == group.len();
                let cv = is_whole.then(|| merkle::group(offset, group));
                Ok(cv.filter(|cv| cv[..SHORT] == theirs[lack.number]))
            };
            let mut found = None;
            for (number, shift) in shifts.iter().enumerate() {
                if let Some(cv) = fits(shift, group)? {
                    found = Some((number, cv));
                    break;
                }
            }
            let Some((number, cv)) = found else {
                left.push(Lack { from: near.and_then(|shift| origin(offset, shift)).unwrap_or(lack.from), ..lack });
                continue;
            };
            shifts[..=number].rotate_right(1);
            if near.is_none() {
                // What is in front of the first that fits most likely moved as it did.
                for lack in &mut left {
                    let offset = part.offset + lack.number as u64 * GROUP;
                    lack.from = origin(offset, shifts[0]).unwrap_or(lack.from);
                }
            }
            near = Some(shifts[0]);
            own[lack.number] = cv;
            if !self.is_dry {
                self.write_moved(work, offset, group)?;
            }
        }
        *lacking = left;
        if let Some(shift) = near {
            work.moves.fits(shift);
        }
        Ok(near.is_some())
    }

    /// Has the source search a range for old content, and makes it of what it tells.
    pub(super) fn search(&self, work: &Work, part: &Part, own: &mut [Cv]) -> Result<Option<Cv>> {
        let (begin, end) = window(part, work.basis.size());
        let mut entries = Vec::new();
        let mut buffer = vec![0; PIECE as usize];
        for at in (begin..end).step_by(PIECE as usize) {
            let piece = &mut buffer[..PIECE.min(end - at) as usize];
            let count = work.basis.read(&self.target, at, piece)?;
            // All but the last are whole; of a file that became shorter, the rest is not missed.
            roll::sign(&piece[..count], BLOCK, &mut entries);
            if count < piece.len() {
                break;
            }
        }
        self.ask(&Ask::Moved(part.clone(), BLOCK, entries))?;
        let mut range = Range { at: part.offset, ..Range::default() };
        loop {
            let left = part.offset + part.length - range.at;
            match self.hear()? {
                Tell::Copy(offset, from, length)
                    if offset == range.at
                        && (1..=left).contains(&length)
                        && from.checked_add(length).is_some_and(|last| last <= end - begin) =>
                {
                    self.copy(work, part, begin + from, length, &mut range, own)?;
                }
                Tell::Data(offset, bytes) if offset == range.at && (1..=left).contains(&(bytes.len() as u64)) => {
                    work.literal.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    let mut bytes = bytes.as_slice();
                    while !bytes.is_empty() {
                        let (taken, rest) = bytes.split_at(bytes.len().min(range.room()));
                        range.group.extend(taken);
                        self.advance(work, part, taken.len() as u64, &mut range, own)?;
                        bytes = rest;
                    }
                }
                Tell::Hole(offset, length)
                    if offset == range.at
                        && (1..=left).contains(&length)
                        && offset % GROUP == 0
                        && (length % GROUP == 0 || length == left) =>
                {
                    Self::hole(part, length, &mut range, own);
                }
                Tell::Done(seen, proof) if left == 0 => {
                    work.hold(seen);
                    range.teach(work, part);
                    self.write_new(work, &range)?;
                    let cv = merkle::fold(own, part.size <= RANGE);
                    if cv != proof && !self.is_dry {
                        return self.fetch_again(work, part);
                    }
                    self.keep(work, part, own);
                    return Ok(Some(cv));
                }
                Tell::Gone(why) => {
                    work.give_up(why);
                    return Ok(None);
                }
                _ => return Err(corrupt("not what a range is made of")),
            }
        }
    }

    /// Bytes of the old content.
    fn copy(
        &self,
        work: &Work,
        part: &Part,
        mut from: u64,
        length: u64,
        range: &mut Range,
        own: &mut [Cv],
    ) -> Result<()> {
        let end = range.at + length;
        range.gain(range.at.wrapping_sub(from) as i64, length);
        while range.at < end {
            let filled = range.group.len();
            let count = range.room().min((end - range.at) as usize);
            range.group.resize(filled + count, 0);
            work.basis.read(&self.target, from, &mut range.group[filled..])?;
            range.is_moved |= from != range.at;
            from += count as u64;
            self.advance(work, part, count as u64, range, own)?;
        }
        Ok(())
    }

    /// So many bytes more of a group are known; a group of which all are is put in its place.
    fn advance(&self, work: &Work, part: &Part, count: u64, range: &mut Range, own: &mut [Cv]) -> Result<()> {
        range.at += count;
        if range.room() > 0 && range.at < part.offset + part.length {
            return Ok(());
        }
        let offset = range.at - range.group.len() as u64;
        let cv = merkle::group(offset, &range.group);
        let known = &mut own[((offset - part.offset) / GROUP) as usize];
        // What is so already stays; also what was found before by its digest.
        if *known != cv && !self.is_dry {
            if range.is_moved {
                self.write_moved(work, offset, &range.group)?;
            } else {
                range.new.push((offset, std::mem::take(&mut range.group)));
            }
        }
        *known = cv;
        range.group.clear();
        range.is_moved = false;
        Ok(())
    }

    /// Writes what is all new, now that all is read that moved: it would overwrite that.
    fn write_new(&self, work: &Work, range: &Range) -> Result<()> {
        if self.is_dry || (range.new.is_empty() && range.holes.is_empty()) {
            return Ok(());
        }
        // Other ranges have still to read.
        let may_move = work.basis.size() != work.new.stamp.size;
        let sink = if may_move { self.moved_sink(work, range.at)? } else { self.sink(work)? };
        for (offset, length) in &range.holes {
            self.target.hole(&sink, &work.basis, *offset, *length)?;
        }
        range.new.iter().try_for_each(|(offset, group)| self.target.write(&sink, &work.basis, *offset, group))
    }

    fn hole(part: &Part, length: u64, range: &mut Range, own: &mut [Cv]) {
        range.holes.push((range.at, length));
        let first = ((range.at - part.offset) / GROUP) as usize;
        own[first..].iter_mut().zip(merkle::hole(range.at, length)).for_each(|(own, cv)| *own = cv);
        range.at += length;
    }

    /// Writes a whole group of bytes that moved, to where the old content is not overwritten by them.
    pub(super) fn write_moved(&self, work: &Work, offset: u64, group: &[u8]) -> Result<()> {
        let sink = self.moved_sink(work, offset)?;
        if octets::is_zero(group) {
            // A hole that moved stays one.
            return self.target.hole(&sink, &work.basis, offset, group.len() as u64);
        }
        self.target.write(&sink, &work.basis, offset, group)
    }

    fn moved_sink(&self, work: &Work, offset: u64) -> Result<Arc<Sink>> {
        let mut sink = work.sink.lock();
        if let Some(anew) = self.target.anew(&work.new, work.old.as_ref(), offset, sink.clone())? {
            *sink = Some(Arc::new(anew));
        }
        drop(sink);
        self.sink(work)
    }

    /// What was made of moved bytes is not what the source has: they come whole, and nothing in this file is taken for
    /// moved any more.
    pub(super) fn fetch_again(&self, work: &Work, part: &Part) -> Result<Option<Cv>> {
        work.moves.are_over.store(true, Ordering::Relaxed);
        self.fetch(work, part)
    }
}

/// The old content that is signed for a range: what is around it, farther towards where the bytes come from, and in whole
/// blocks.
fn window(part: &Part, old: u64) -> (u64, u64) {
    let most = WINDOW_MAX - RANGE - SLACK - u64::from(BLOCK);
    let (below, above) = (part.size.saturating_sub(old).min(most), old.saturating_sub(part.size).min(most));
    let begin = part.offset.saturating_sub((below + SLACK).min(most)).min(old);
    let begin = begin - begin % u64::from(BLOCK);
    (begin, (part.offset + part.length + (above + SLACK).min(most)).min(old).min(begin + WINDOW_MAX))
}

/// A range that is being made.
#[derive(Default)]
struct Range {
    at: u64,
    /// Of a group that is not complete.
    group: Vec<u8>,
    /// Whether any of that moved.
    is_moved: bool,
    /// Groups that are all new: their places, and their bytes.
    new: Vec<(u64, Vec<u8>)>,
    /// Their places and lengths.
    holes: Vec<(u64, u64)>,
    /// Shifts, and bytes that have them.
    gains: Vec<(i64, u64)>,
}

impl Range {
    /// Bytes that the group lacks.
    fn room(&self) -> usize {
        GROUP as usize - self.group.len()
    }

    fn gain(&mut self, shift: i64, length: u64) {
        match self.gains.iter().position(|(known, _)| *known == shift) {
            Some(number) => self.gains[number].1 += length,
            None if self.gains.len() < GAINS => self.gains.push((shift, length)),
            None => {}
        }
    }

    /// The shift of most bytes that moved is the next to be tried, if they are worth it.
    fn teach(&self, work: &Work, part: &Part) {
        let moved = self.gains.iter().filter(|(shift, _)| *shift != 0);
        match moved.max_by_key(|(_, gained)| *gained) {
            Some((shift, gained)) if *gained >= (2 * GROUP).min(part.length / 4) => work.moves.fits(*shift),
            _ => {
                work.moves.vain.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
