//! Finds where the log ends without shipping it: for who asks now and then, and has no other use for the bytes.

use anyhow::Result;

use super::Source;
use crate::value::position::{Position, Segment};

impl Source {
    /// The end of the log, as far as it would be shipped, and the last boundary in its newest segment. Only that segment is
    /// held open: what an engine removes is not kept by questions.
    pub(in crate::engine::ship) fn gauge(&mut self) -> Result<Option<(Position, Option<Position>)>> {
        self.list()?;
        let Some(newest) = self.newest else {
            return Ok(None);
        };
        self.known = self.known.split_off(&newest);
        if !self.is_in(newest)? {
            self.take_up(newest, 0, &mut |_| Ok(()))?;
        }
        while self.look()? {}
        let Some(open) = &self.open else {
            return Ok(None);
        };
        // What cannot be read while the segment is open, as of an encrypted log, is log all the same: it is not shipped yet.
        let is_opaque = open.scanner.remark("").is_some();
        let end = if is_opaque { open.file.metadata()?.len() } else { self.limit(open) };
        let mark = open.scanner.boundary().map(|mark| newest.at(mark.offset)).filter(|mark| mark.offset <= end);
        Ok(Some((newest.at(end), mark)))
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
