//! Numbered, append-only files of which nothing else is known: every byte counts, and a boundary is what was there
//! when one looked, with the time of the file's last write. A segment is finished when a later one exists.

use super::{Beside, Closure, Mark};
use crate::value::time::Time;

/// Counts bytes.
#[derive(Clone, Debug)]
pub struct Scanner {
    safe: u64,
    written: Option<Time>,
    boundary: Option<Mark>,
    until: Option<Time>,
    past: bool,
}

impl Scanner {
    /// At the beginning of a segment.
    pub fn new(until: Option<Time>) -> Scanner {
        Scanner { safe: 0, written: None, boundary: None, until, past: false }
    }

    /// The file's last write, as of now.
    pub fn written(&mut self, time: Time) {
        self.written = Some(time);
    }

    /// Takes bytes: they were there at the time last told.
    pub fn take(&mut self, bytes: &[u8]) {
        self.safe += bytes.len() as u64;
        match (self.written, self.until) {
            (Some(time), Some(until)) if time > until => self.past = true,
            (time, _) => self.boundary = Some(Mark { offset: self.safe, time }),
        }
    }

    /// All bytes taken.
    pub fn at(&self) -> u64 {
        self.safe
    }

    /// All bytes taken.
    pub fn safe(&self) -> u64 {
        self.safe
    }

    /// Every byte is of use.
    pub fn is_hungry(&self) -> bool {
        true
    }

    /// No byte is looked at twice.
    pub fn rewind(&mut self) {}

    /// No byte is wrong.
    pub fn trouble(&self) -> Option<String> {
        None
    }

    /// That a later segment is there is all that can be known.
    pub fn closure(&self, _: Beside<'_>) -> Closure {
        Closure::Closed
    }

    /// See [`super::Scanner::boundary`].
    pub fn boundary(&self) -> Option<Mark> {
        self.boundary
    }

    /// See [`super::Scanner::is_past_limit`].
    pub fn is_past_limit(&self) -> bool {
        self.past
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_after_the_limit_are_no_boundary() {
        let mut scanner = Scanner::new(Some(Time(10)));
        scanner.written(Time(9));
        scanner.take(b"abc");
        scanner.written(Time(11));
        scanner.take(b"de");
        assert_eq!((scanner.safe(), scanner.is_past_limit()), (5, true));
        assert_eq!(scanner.boundary(), Some(Mark { offset: 3, time: Some(Time(9)) }));
    }
}
