//! What happens when our bytes are not the master's: the stream is refused with both digests, or our own tail is set
//! aside and the stream goes on.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::{Differing, Landing, out_of_segment};
use crate::edge::read::prefix;
use crate::engine::apply::aside;
use crate::engine::note::Note;
use crate::engine::site::{self, Holding};
use crate::rule::verdict::Held;
use crate::value::digest::Digest;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::Position;

/// What can be done about bytes that differ.
pub(in crate::engine::apply) const SET_ASIDE_HINT: &str =
    "look at both; then repl-apply --set-aside keeps this side's tail under .repl/set-aside, or resync";

impl Landing<'_> {
    pub(super) fn ahead(&mut self, end: Position) -> Result<()> {
        let held = self.held.map_or(end, |holding| holding.held.position);
        self.diverged(end, &format!("ahead: this replica holds {held}, the master ends at {end} (it lost its tail?)"))
    }

    /// A byte of ours is not the master's, or our segment has ended before it.
    pub(super) fn diverged_at(&mut self, at: Position, byte: u8) -> Result<()> {
        let Some(current) = &self.current else {
            return out_of_segment();
        };
        // Up to here all is equal; what was skipped to find the byte are zeros.
        let mut ours = current.running.clone();
        ours.zeros(at.offset.saturating_sub(current.offset));
        let mut theirs = ours.clone();
        theirs.update(&[byte]);
        let mut own = [0];
        if let Some(file) = current.file.as_ref().filter(|_| at.offset < current.length) {
            file.read_exact_at(&mut own, at.offset).context("cannot read back")?;
            ours.update(&own);
        }
        let (behind, ended) = (at.segment.at(at.offset + 1), at.segment.at(ours.length()));
        let (ours, theirs) = (ours.digest(), theirs.digest());
        self.diverged(
            at,
            &format!(
                "the byte at {at} differs: up to {behind} the master's digest is {theirs}, ours up to {ended} is {ours}"
            ),
        )
    }

    /// Our bytes from here on are not the master's: refuses the stream, or moves them away.
    pub(super) fn diverged(&mut self, from: Position, why: &str) -> Result<()> {
        if self.differing == Differing::Refused {
            let why = if why.starts_with("ahead") { why.to_owned() } else { format!("diverged: {why}") };
            return Err(Failure::new(Code::Diverged, why).hint(SET_ASIDE_HINT).into());
        }
        self.set_aside(from, why)
    }

    fn set_aside(&mut self, from: Position, why: &str) -> Result<()> {
        self.finish();
        self.commit.settle();
        if self.commit.is_failed() {
            return fail(Code::Failed, "what was received could not be made durable");
        }
        let back = self.back_to(from)?;
        let moved = {
            let mut site = self.site.lock();
            let target = aside::prepare(self.dir, site.dir(), &self.scheme, from)?;
            if let Some(back) = &back {
                site.go_back(back)?;
            }
            let moved = aside::take(self.dir, &target, &self.scheme, from)?;
            site.record("set-aside", &format!("{moved}: {why}"), self.reason.as_deref())?;
            moved
        };
        (self.monitor)(Note::Warning(format!("{why}: our bytes from {from} on are now in {moved}")));
        if let Some(fed) = self.commit.go_back(back, |at, fed| site::set_astray(self.site.lock().dir(), at, fed))? {
            let text = format!("the database was fed up to {fed}: it has what the master has not; resync it");
            (self.monitor)(Note::Warning(text));
        }
        // The sender waits to hear whether it may go on.
        self.commit.ask();
        self.held = back;
        // A sender that was told of more waits to hear where we stand now.
        self.commit.ask();
        if let Some(current) = &mut self.current
            && current.segment == from.segment
        {
            current.length = from.offset;
            if from.offset == 0 {
                // The file that was open here has been moved away.
                current.file = Some(Arc::new(match self.scheme.segment_size() {
                    0 => self.dir.create_new(&self.scheme.name(from.segment))?,
                    size => self.dir.create_filled(&self.scheme.name(from.segment), size)?,
                }));
                current.entry = true;
            }
        }
        Ok(())
    }

    /// What is still held when everything from here on is taken away; `None` for nothing that a position can say.
    fn back_to(&self, from: Position) -> Result<Option<Holding>> {
        let is_beyond = |held: Held| held.position > from || (held.position == from && held.closed);
        let Some(holding) = self.held.filter(|holding| is_beyond(holding.held)) else {
            return Ok(self.held);
        };
        let boundary = holding.boundary.filter(|(mark, _)| *mark <= from);
        if from.offset > 0 || self.start.is_some_and(|start| start.segment >= from.segment) {
            let name = self.scheme.name(from.segment);
            let digest = match self.dir.open_read(&name)? {
                Some(file) => prefix(&file, self.scheme.running(), from.offset)?.digest(),
                None => Digest::of(b""),
            };
            return Ok(Some(Holding { held: Held { position: from, digest, closed: false }, boundary }));
        }
        // The whole segment goes: what is held ends with the one before.
        let mut last = None;
        site::closed_segments(self.site.lock().dir(), |closed| {
            if closed.segment < from.segment {
                last = Some(closed);
            }
            Ok(())
        })?;
        let Some(last) = last else {
            return fail(Code::Corrupt, format!("no closed segment before {from} is recorded"));
        };
        let held = Held { position: last.segment.at(last.length), digest: last.digest, closed: true };
        Ok(Some(Holding { held, boundary }))
    }
}
