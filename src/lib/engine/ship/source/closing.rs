//! Tells when the open segment is finished: by the beginning of the next one, which must be the next one.

use anyhow::Result;

use super::{FIRST, Source, gap};
use crate::edge::read::read_at;
use crate::engine::log;
use crate::rule::scheme::{Closure, Step};
use crate::value::exit::{Code, fail};
use crate::value::position::Segment;

impl Source {
    /// Looks whether the open segment is finished; true when it is, or when one more look found more in it.
    pub(super) fn finish_segment(&mut self) -> Result<bool> {
        let Some(segment) = self.open.as_ref().map(|open| open.segment) else {
            return Ok(false);
        };
        if self.options.only == Some(segment) {
            let closure = self.closure_of_one(segment)?;
            return self.close(closure);
        }
        self.probe()?;
        let Some((next, step)) = self.next_segment(segment) else {
            return self.still_there(segment);
        };
        if step != Step::Next && self.is_overlooked(segment)? {
            return Ok(true);
        }
        // The next one exists, so all of this one has been written: what a look finds now is all.
        if self.look()? {
            return Ok(true);
        }
        if step == Step::Gap {
            // The chain across a hole proves nothing; what is whole here can be shipped before the hole is reported.
            return Err(gap(format!("gap: segment {next} comes after {segment}, what lies between is not here")));
        }
        self.open_ahead()?;
        let Some(Some(file)) = self.known.get(&next) else {
            return Err(gap(format!("gap: segment {next} vanished before it was shipped")));
        };
        let is_passed = self.next_segment(next).is_some();
        let closure = match &self.open {
            Some(open) => log::closure(&open.scanner, &open.file, next, file, is_passed)?,
            None => Closure::Open,
        };
        self.close(closure)
    }

    /// Reading a directory may pass over a file that is made meanwhile though it shows a later one: what a listing shows
    /// behind a hole counts only when the name in the hole is not there.
    fn is_overlooked(&mut self, segment: Segment) -> Result<bool> {
        let next = Segment::new(segment.generation, segment.sequence.saturating_add(1));
        if next == segment || !self.is_there(next)? {
            return Ok(false);
        }
        self.list()?;
        Ok(true)
    }

    /// The one segment that is to be shipped is finished by its owner's word, but not when the one after it knows better.
    fn closure_of_one(&self, segment: Segment) -> Result<Closure> {
        let next = Segment::new(segment.generation, segment.sequence.saturating_add(1));
        let file = self.dir.open_read(&self.scheme.name(next))?;
        let (Some(file), Some(open)) = (file.filter(|_| next != segment), &self.open) else {
            return Ok(Closure::Closed);
        };
        Ok(match log::closure(&open.scanner, &open.file, next, &file, false)? {
            Closure::Open => Closure::Closed,
            judged => judged,
        })
    }

    pub(super) fn next_segment(&self, segment: Segment) -> Option<(Segment, Step)> {
        let (next, _) = self.known.range(segment..).find(|(other, _)| **other > segment)?;
        Some((*next, self.scheme.step(segment, *next)))
    }

    fn close(&mut self, closure: Closure) -> Result<bool> {
        let Source { open: Some(open), dir, .. } = self else {
            return Ok(false);
        };
        match closure {
            Closure::Open | Closure::More => Ok(false),
            Closure::Damaged(why) => {
                let (name, at) = (dir.shown(&open.name), open.scanner.safe());
                fail(Code::Corrupt, format!("{name} is damaged at {at} (segment {}): {why}", open.segment))
            }
            Closure::Closed => {
                open.closed = Some(open.file.metadata()?.len());
                Ok(true)
            }
        }
    }

    /// An idle segment must still be the file of its name, with the beginning it had. True when it was removed because
    /// the next one has come.
    pub(super) fn still_there(&mut self, segment: Segment) -> Result<bool> {
        let Some(open) = &self.open else {
            return Ok(false);
        };
        if self.dir.identity(&open.name)?.is_none() {
            self.list()?;
            if self.next_segment(segment).is_some() {
                return Ok(true);
            }
        }
        let Some(open) = self.open.as_mut() else {
            return Ok(false);
        };
        let shown = self.dir.shown(&open.name);
        match self.dir.identity(&open.name)? {
            Some(identity) if identity == open.identity => {}
            Some(_) => {
                return fail(Code::Corrupt, format!("{shown} was replaced by another file while it was shipped"));
            }
            None => return Err(gap(format!("gap: {shown} was removed while it was shipped"))),
        }
        let mut head = [0; FIRST];
        let count = read_at(&open.file, &mut head, 0)?.min(open.sent as usize);
        let head = &mut head[..count];
        if let Some(mask) = self.scheme.mask() {
            mask.clear(0, head);
        }
        if !head.starts_with(&open.head) {
            return fail(
                Code::Corrupt,
                format!("{shown} was rewritten: its first bytes are not those that were shipped"),
            );
        }
        open.head = head.to_vec();
        Ok(false)
    }
}
