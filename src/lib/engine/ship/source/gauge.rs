//! Finds where the log ends without shipping it: for who asks now and then.

use anyhow::Result;

use super::Source;
use crate::engine::ship::ledger::Ledger;
use crate::value::position::{Position, Segment};

impl Source {
    /// The end of the log and the last boundary in its newest segment, found by checking on from the last look without
    /// handing anything out: for who asks now and then, and has no other use for the bytes.
    pub(in crate::engine::ship) fn gauge(&mut self) -> Result<Option<(Position, Option<Position>)>> {
        self.probe()?;
        let Some(newest) = self.newest else {
            return Ok(None);
        };
        if !self.is_in(newest)? {
            self.enter(newest, 0, &Ledger::in_memory(), &mut |_| Ok(()))?;
        }
        while self.look()? {}
        let safe = self.open.as_ref().map(|open| newest.at(open.scanner.safe()));
        let mark = self.boundary().map(|mark| newest.at(mark.offset));
        let end = safe.map(|safe| self.cap.filter(|cap| cap.segment == newest).map_or(safe, |cap| cap.min(safe)));
        Ok(end.map(|end| (end, mark.filter(|mark| *mark <= end))))
    }

    /// Whether the segment that is open is this one, in the file that has its name, with all that was checked of it.
    fn is_in(&self, segment: Segment) -> Result<bool> {
        let Some(open) = self.open.as_ref().filter(|open| open.segment == segment) else {
            return Ok(false);
        };
        let is_same = self.dir.identity(&open.name)? == Some(open.identity);
        Ok(is_same && open.file.metadata()?.len() >= open.scanner.safe())
    }
}
