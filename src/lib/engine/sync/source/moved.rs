//! The source's part in finding bytes that moved: it searches a range for blocks of the old content that the other end
//! signed, and tells which there are, with the bytes of all that is left.
//!
//! A range is at most 16 MiB and is held in memory; a search that takes too long ends with the bytes themselves.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Change, FRAME, Worker};
use crate::edge::{clock, tree};
use crate::engine::sync::groups;
use crate::rule::sync::merkle::{self, RANGE};
use crate::rule::sync::roll::{Known, Piece};
use crate::rule::sync::wire::ask::Part;
use crate::rule::sync::wire::corrupt;
use crate::rule::sync::wire::tell::{Matter, Tell};

/// How long a search may compute before its next step: many times what one needs whose question is honest.
const PATIENCE: Duration = Duration::from_secs(15);

impl Worker<'_, '_> {
    pub(super) fn moved(&mut self, line: u16, part: &Part, block: u32, entries: &[u8]) -> Result<()> {
        let known = Known::parse(block, entries).ok_or_else(|| corrupt("blocks of old content"))?;
        let file = self.file(&part.name)?.try_clone()?;
        let (mut cvs, mut bytes) = (Vec::new(), Vec::with_capacity(part.length as usize));
        let mut runs: Vec<(bool, Range<usize>)> = Vec::new();
        let is_whole = groups::read(&file, part.offset, part.length, |stretch| {
            cvs.extend(merkle::groups(stretch.offset, stretch.bytes));
            let begin = bytes.len();
            bytes.extend(stretch.bytes);
            match runs.last_mut() {
                Some((is_hole, run)) if *is_hole == stretch.is_hole => run.end = bytes.len(),
                _ => runs.push((stretch.is_hole, begin..bytes.len())),
            }
            Ok::<_, anyhow::Error>(())
        })?;
        if !is_whole {
            return Err(Change(Matter::Changed, "it became shorter").into());
        }
        let began = clock::computed();
        for (is_hole, run) in runs {
            let offset = part.offset + run.start as u64;
            if is_hole {
                self.tell(line, &Tell::Hole(offset, run.len() as u64))?;
                continue;
            }
            let data = bytes.get(run).context("a run of no range")?;
            let pieces = known.search(data, || clock::computed().saturating_sub(began) > PATIENCE);
            self.tell_pieces(line, offset, data, &pieces)?;
        }
        self.tell(line, &Tell::Done(tree::seen(&file)?, merkle::fold(&cvs, part.size <= RANGE)))
    }

    fn tell_pieces(&self, line: u16, offset: u64, mut data: &[u8], pieces: &[Piece]) -> Result<()> {
        let mut at = offset;
        for piece in pieces {
            let (bytes, rest) = data.split_at_checked(piece.length() as usize).context("a piece of no range")?;
            match piece {
                Piece::Copy(from, length) => self.tell(line, &Tell::Copy(at, *from, *length))?,
                Piece::Data(_) => {
                    for (number, bytes) in bytes.chunks(FRAME).enumerate() {
                        self.tell_data(line, at + (number * FRAME) as u64, bytes)?;
                    }
                }
            }
            at += piece.length();
            data = rest;
        }
        Ok(())
    }
}
