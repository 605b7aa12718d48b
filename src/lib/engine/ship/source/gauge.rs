//! Finds where the log ends without shipping it: for who asks now and then, and has no other use for the bytes.
//!
//! Whole records end where the log ends, or where it is damaged. To take the one for the other is to say that log is had
//! by receivers which they have not: so it is looked behind that place for log that was written later.

use std::fs::File;
use std::io;

use anyhow::{Context as _, Result};

use super::{LOOK_LEAST, Source};
use crate::edge::read::read_at;
use crate::engine::log;
use crate::rule::scheme::{Behind, Scanner};
use crate::value::position::{Position, Segment};

/// How far it is looked behind the end of whole records for others.
const REACH: usize = 4 << 20;

/// Where the log ends.
#[derive(Clone, Debug)]
pub(in crate::engine::ship) struct Gauge {
    /// As far as it would be shipped.
    pub(in crate::engine::ship) end: Position,
    /// The last boundary in its newest segment.
    pub(in crate::engine::ship) boundary: Option<Position>,
    /// Why that is not all of it.
    pub(in crate::engine::ship) damage: Option<Damage>,
}

/// Log that cannot be read lies before log that can be.
#[derive(Clone, Debug)]
pub(in crate::engine::ship) struct Damage {
    /// To here at least the log goes.
    pub(in crate::engine::ship) reaches: Position,
    /// Whether it may only be on its way: then it will be gone in a moment.
    pub(in crate::engine::ship) may_pass: bool,
    /// What to say of it.
    pub(in crate::engine::ship) text: String,
}

impl Source {
    /// The end of the log. Only its newest segment is held open: what an engine removes is not kept by questions.
    pub(in crate::engine::ship) fn gauge(&mut self) -> Result<Option<Gauge>> {
        self.list()?;
        let Some(newest) = self.newest else {
            return Ok(None);
        };
        self.known = self.known.split_off(&newest);
        if !self.is_in(newest)? {
            self.take_up(newest, 0, &mut |_| Ok(()))?;
        }
        while self.look()? {}
        let mut damage = self.damage()?;
        if damage.is_none() {
            damage = self.damage_ahead(newest)?;
        }
        let Some(open) = &self.open else {
            return Ok(None);
        };
        // What cannot be read while the segment is open, as of an encrypted log, is log all the same: it is not shipped yet.
        let is_opaque = open.scanner.remark("").is_some();
        let end = if is_opaque { open.file.metadata()?.len() } else { self.limit(open) };
        let boundary = open.scanner.boundary().map(|mark| newest.at(mark.offset)).filter(|mark| mark.offset <= end);
        Ok(Some(Gauge { end: newest.at(end), boundary, damage }))
    }

    /// Whether the segment that is open is this one, in the file that has its name, with all that was checked of it.
    fn is_in(&self, segment: Segment) -> Result<bool> {
        let Some(open) = self.open.as_ref().filter(|open| open.segment == segment) else {
            return Ok(false);
        };
        let is_same = self.dir.identity(&open.name)? == Some(open.identity);
        Ok(is_same && open.file.metadata()?.len() >= open.scanner.safe())
    }

    /// Whether the log goes on behind what was found to be its end. What was found there may have been written since; but
    /// what lies before it was written by then, too, and one more look finds it.
    fn damage(&mut self) -> Result<Option<Damage>> {
        let mut seen = None;
        loop {
            let Some(open) = &self.open else {
                return Ok(None);
            };
            let (name, safe) = (self.dir.shown(&open.name), open.scanner.safe());
            // Of a replica's, what it holds is its log.
            let end = self.cap.filter(|cap| cap.segment == open.segment).map_or(u64::MAX, |cap| cap.offset);
            let behind = behind(&open.scanner, &open.file, end).with_context(|| format!("cannot read {name}"))?;
            let Some(behind) = behind else {
                return Ok(None);
            };
            if seen.replace(safe) == Some(safe) {
                return Ok(Some(Damage::new(&name, open.segment, &open.scanner, behind)));
            }
            while self.look()? {}
        }
    }

    /// The same in the file of the next segment, which is not taken for one where its first page is damaged. Only one that is
    /// full has a next one.
    fn damage_ahead(&self, segment: Segment) -> Result<Option<Damage>> {
        let is_full = self.open.as_ref().is_some_and(|open| open.scanner.at() == self.scheme.segment_size());
        let next = Segment::new(segment.generation, segment.sequence.saturating_add(1));
        let name = self.scheme.name(next);
        let file = if is_full && self.cap.is_none() { self.dir.open_read(&name)? } else { None };
        let Some(file) = file else {
            return Ok(None);
        };
        let mut scanner = self.scheme.scanner(next, None);
        scanner.take(&log::head(&file)?);
        let behind =
            behind(&scanner, &file, u64::MAX).with_context(|| format!("cannot read {}", self.dir.shown(&name)))?;
        // It may have begun meanwhile.
        let behind = behind
            .filter(|behind| behind.is_later && !self.scheme.is_begun(next, &log::head(&file).unwrap_or_default()));
        Ok(behind.map(|behind| Damage::new(&self.dir.shown(&name), next, &scanner, behind)))
    }
}

impl Damage {
    fn new(name: &str, segment: Segment, scanner: &Scanner, behind: Behind) -> Damage {
        let why = scanner.trouble().unwrap_or_else(|| "no whole record begins there".to_owned());
        let (safe, offset) = (scanner.safe(), behind.offset);
        let text = format!(
            "{name} is damaged at {safe} (segment {segment}): {why}; the log goes on at {offset}, and nobody can have that"
        );
        Damage { reaches: segment.at(offset), may_pass: !behind.is_later, text }
    }
}

/// What shows that a log goes on behind the whole records that a scanner has seen, before an offset.
fn behind(scanner: &Scanner, file: &File, end: u64) -> io::Result<Option<Behind>> {
    let left = end.saturating_sub(scanner.safe());
    let read = |want: usize| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; left.min(want as u64) as usize];
        let count = read_at(file, &mut bytes, scanner.safe())?;
        bytes.truncate(count);
        Ok(bytes)
    };
    if scanner.is_end(&read(LOOK_LEAST)?) {
        return Ok(None);
    }
    Ok(scanner.behind(&read(REACH)?))
}
