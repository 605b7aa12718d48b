//! The bytes of a segment: written where they are new, compared where they are there. Nothing of a frame is written when
//! any byte of it differs from one that is held.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};

use super::{Current, Landing, out_of_segment};
use crate::edge::read::{prefix, read_at};
use crate::value::digest::{Digest, Running};
use crate::value::exit::{Code, fail};
use crate::value::position::{Position, Segment};

impl Landing<'_> {
    /// Lands bytes.
    pub(in crate::engine::apply) fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.expect(offset, bytes.len() as u64)?;
        let mut rest = bytes;
        while let Some(same) = self.put(rest)? {
            let at = self.advance_by(same)?;
            rest = &rest[same..];
            self.diverged_at(at, rest[0])?;
        }
        self.advanced(None)
    }

    /// Lands zero bytes without writing them.
    pub(in crate::engine::apply) fn hole(&mut self, offset: u64, length: u64) -> Result<()> {
        self.expect(offset, length)?;
        while let Some(at) = self.first_nonzero(length)?.or_else(|| self.closed_within(length)) {
            self.diverged_at(at, 0)?;
        }
        let Some(current) = &mut self.current else {
            return out_of_segment();
        };
        let (end, size) = (offset + length, self.scheme.segment_size());
        self.compared += length.min(current.length.saturating_sub(offset));
        if let Some(file) = &current.file
            && current.length < end
        {
            file.set_len(end.max(size)).with_context(|| format!("cannot extend segment {}", current.segment))?;
            current.length = end;
        }
        current.running.zeros(length);
        current.offset = end;
        self.advanced(None)
    }

    /// Takes a byte in which the engine has rewritten bits. It is durable when the segment is closed: until then no digest
    /// and no position speaks of these bits.
    pub(in crate::engine::apply) fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let refuse = |why: &str| fail(Code::Corrupt, format!("a patch at {offset}, but {why}"));
        let (Some(mask), &[byte]) = (self.scheme.mask().filter(|mask| mask.offset == offset), bytes) else {
            return refuse("this engine does not rewrite that");
        };
        let Some(current) = &self.current else {
            return out_of_segment();
        };
        if offset >= current.offset {
            return refuse("the stream has not come to it");
        }
        let Some(file) = &current.file else {
            return Ok(());
        };
        let mut own = [0];
        read_exact(file, &mut own, offset).context("cannot read back")?;
        if (own[0] ^ byte) & !mask.bits != 0 {
            return refuse("it is of bits that this engine does not rewrite");
        }
        if own[0] != byte && !self.is_in_closed() {
            file.write_all_at(bytes, offset).with_context(|| format!("cannot patch segment {}", current.segment))?;
        }
        Ok(())
    }

    /// The digest of the current segment's file as it is, where that is another than the one which leaves bits out.
    pub(super) fn digest_of_file(&self, length: u64) -> Result<Option<Digest>> {
        let (Some(mask), Some(file)) = (self.scheme.mask(), self.current.as_ref().and_then(|it| it.file.as_ref()))
        else {
            return Ok(None);
        };
        let mut byte = [0];
        let count = read_at(file, &mut byte, mask.offset)?;
        if mask.offset >= length || count == 0 || byte[0] & mask.bits == 0 {
            return Ok(None);
        }
        Ok(Some(prefix(file, Running::new(), length)?.digest()))
    }

    /// Checks that bytes continue the segment.
    fn expect(&self, offset: u64, length: u64) -> Result<()> {
        let Some(current) = &self.current else {
            return out_of_segment();
        };
        let at = current.segment.at(current.offset);
        if offset > current.offset {
            return fail(Code::Gap, format!("gap: the stream goes on at {offset} after {at}"));
        }
        if offset < current.offset {
            return fail(Code::Corrupt, format!("the stream goes back to {offset} after {at}"));
        }
        let size = self.scheme.segment_size();
        if size > 0 && offset + length > size {
            return fail(Code::Corrupt, format!("{length} bytes at {at} are beyond the segment size {size}"));
        }
        Ok(())
    }

    /// Up to which offset of the current segment our bytes are held, so that none of them may differ.
    fn held_end(&self, segment: Segment) -> u64 {
        match self.held.map(|holding| holding.held) {
            Some(held) if held.position.segment > segment || (held.position.segment == segment && held.closed) => {
                u64::MAX
            }
            Some(held) if held.position.segment == segment => held.position.offset,
            _ => 0,
        }
    }

    /// Whether the stream is in a segment that is closed and kept here: nothing is ever added to it or cut from it.
    pub(super) fn is_in_closed(&self) -> bool {
        self.current.as_ref().is_some_and(|Current { segment, file, .. }| {
            let is_kept = file.is_some() && self.start.is_none_or(|start| *segment >= start.segment);
            is_kept && self.held_end(*segment) == u64::MAX
        })
    }

    /// Where a closed segment of ours ends, if that is within the next `length` bytes.
    fn closed_within(&self, length: u64) -> Option<Position> {
        let Current { segment, offset, length: end, .. } = self.current.as_ref()?;
        (self.is_in_closed() && offset + length > *end).then(|| segment.at((*offset).max(*end)))
    }

    /// Writes what is new of `bytes` at the current offset; `Some(n)` when byte `n` is there and differs, and then
    /// nothing was written. Otherwise the offset has moved behind them.
    fn put(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let Some(segment) = self.current.as_ref().map(|current| current.segment) else {
            return out_of_segment();
        };
        let held_end = self.held_end(segment);
        let closed = self.closed_within(bytes.len() as u64);
        let Some(current) = &mut self.current else {
            return out_of_segment();
        };
        if let Some(file) = &current.file {
            let mut fresh = 0;
            if current.length > current.offset {
                let have = (current.length - current.offset).min(bytes.len() as u64) as usize;
                self.scratch.resize(have, 0);
                read_exact(file, &mut self.scratch, current.offset)
                    .with_context(|| format!("cannot read segment {segment}"))?;
                if let Some(mask) = self.scheme.mask()
                    && let Some(place) = mask.within(current.offset, have)
                {
                    // What the engine has rewritten, here or there, is no difference.
                    self.scratch[place] = (self.scratch[place] & !mask.bits) | (bytes[place] & mask.bits);
                }
                fresh = have;
                if let Some(first) = first_difference(&self.scratch, &bytes[..have]) {
                    let blank_from = held_end.saturating_sub(current.offset).min(have as u64) as usize;
                    let really = (first..have)
                        .find(|at| self.scratch[*at] != bytes[*at] && (*at < blank_from || self.scratch[*at] != 0));
                    if really.is_some() {
                        return Ok(really);
                    }
                    fresh = first;
                }
                self.compared += fresh as u64;
            }
            if let Some(closed) = closed {
                return Ok(Some((closed.offset - current.offset) as usize));
            }
            if fresh < bytes.len() {
                let at_rest = current.length.max(self.scheme.segment_size());
                write(file, &bytes[fresh..], current.offset + fresh as u64, at_rest)
                    .with_context(|| format!("cannot append to segment {segment} ({})", self.scheme.name(segment)))?;
            }
        }
        current.running.update(bytes);
        current.offset += bytes.len() as u64;
        current.length = current.length.max(current.offset);
        Ok(None)
    }

    /// Counts bytes that are there and equal, up to one that differs; returns the place of that one.
    fn advance_by(&mut self, same: usize) -> Result<Position> {
        let Some(current) = &mut self.current else {
            return out_of_segment();
        };
        if let Some(file) = &current.file {
            self.scratch.truncate(same);
            read_exact(file, &mut self.scratch, current.offset).context("cannot read back")?;
            current.running.update(&self.scratch);
        }
        current.offset += same as u64;
        Ok(current.segment.at(current.offset))
    }

    /// The first byte of ours that is not zero in the next `length` bytes, with all before it counted.
    fn first_nonzero(&mut self, length: u64) -> Result<Option<Position>> {
        let Some(Current { segment, file: Some(file), offset, length: end, .. }) = &self.current else {
            return Ok(None);
        };
        let (mut at, stop) = (*offset, (*offset + length).min(*end));
        while at < stop {
            self.scratch.resize((stop - at).min(1 << 18) as usize, 0);
            read_exact(file, &mut self.scratch, at).with_context(|| format!("cannot read segment {segment}"))?;
            if let Some(first) = self.scratch.iter().position(|byte| *byte != 0) {
                return Ok(Some(segment.at(at + first as u64)));
            }
            at += self.scratch.len() as u64;
        }
        Ok(None)
    }

    /// A segment's file may be longer than the segment: zeros are cut away, anything else is a divergence.
    pub(super) fn cut_tail(&mut self, segment: Segment, length: u64) -> Result<()> {
        let Some(current) = &self.current else {
            return out_of_segment();
        };
        let Some(file) = current.file.clone().filter(|_| current.length > length) else {
            return Ok(());
        };
        let excess = current.length - length;
        let differing = if self.is_in_closed() { Some(segment.at(length)) } else { self.first_nonzero(excess)? };
        if let Some(at) = differing {
            self.diverged(at, &format!("segment {segment} ends at {length} at the master and goes on here"))?;
        }
        file.set_len(length).with_context(|| format!("cannot cut segment {segment}"))?;
        if let Some(current) = &mut self.current {
            current.length = length;
        }
        Ok(())
    }
}

/// Index of the first byte that differs.
fn first_difference(ours: &[u8], theirs: &[u8]) -> Option<usize> {
    if ours == theirs {
        return None;
    }
    ours.iter().zip(theirs).position(|(one, other)| one != other)
}

fn read_exact(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
}

/// Writes all bytes or leaves the file as long as it was: at rest there is no part of a frame.
fn write(file: &File, bytes: &[u8], offset: u64, length: u64) -> io::Result<()> {
    let written = file.write_all_at(bytes, offset);
    if written.is_err() {
        // Shortening needs no space; if even that fails, the next start compares these bytes like any others.
        let _ = file.set_len(length);
    }
    written
}
