//! Scanners: one interface to what each engine's file knows of its records.

use super::{Mark, bdb, mariadb, plain, postgres};
use crate::value::octets;
use crate::value::position::Segment;
use crate::value::time::Time;

/// Whether a segment is finished, judged from the beginning of the one after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closure {
    /// It is: its file has its final length and every byte.
    Closed,
    /// The next one has not begun yet.
    Open,
    /// The next one says that records are missing here, or is damaged itself: what and where.
    Damaged(String),
    /// More of the next one is needed to tell.
    More,
}

/// What lies beside a segment when one asks whether it is finished.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// The first bytes of the segment itself, as they are now.
    pub own: &'a [u8],
    /// The one after it.
    pub segment: Segment,
    /// Its first bytes.
    pub next: &'a [u8],
    /// Whether still later ones are there.
    pub is_passed: bool,
}

/// What shows that a log goes on behind the place where its whole records end: what lies between cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Where in the segment.
    pub offset: u64,
    /// Whether it was written after all that lies before it. Else that may still be on its way, and it must be looked at
    /// again in a while.
    pub is_later: bool,
}

/// Reads a segment's bytes in order and says how far they are complete, checked records.
#[derive(Clone, Debug)]
pub enum Scanner {
    /// Every byte counts.
    Raw(plain::Scanner),
    /// Berkeley DB records.
    Bdb(bdb::Scanner),
    /// PostgreSQL records.
    Postgres(Box<postgres::Scanner>),
    /// MariaDB events.
    Mariadb(Box<mariadb::Scanner>),
}

/// Calls the same method on whichever scanner it is.
macro_rules! each {
    ($scanner:expr, $one:ident => $call:expr) => {
        match $scanner {
            Scanner::Raw($one) => $call,
            Scanner::Bdb($one) => $call,
            Scanner::Postgres($one) => $call,
            Scanner::Mariadb($one) => $call,
        }
    };
}

impl Scanner {
    /// Takes the bytes that follow what was taken so far. Bytes after the last whole record are looked at again after
    /// [`Scanner::rewind`], since a writer may still be at them.
    pub fn take(&mut self, bytes: &[u8]) {
        each!(self, scanner => scanner.take(bytes));
    }

    /// The offset of the next byte to take.
    pub fn at(&self) -> u64 {
        each!(self, scanner => scanner.at())
    }

    /// The end of the last whole, checked record.
    pub fn safe(&self) -> u64 {
        each!(self, scanner => scanner.safe())
    }

    /// The last boundary at or before [`Scanner::safe`] that is not later than the limit.
    pub fn boundary(&self) -> Option<Mark> {
        each!(self, scanner => scanner.boundary())
    }

    /// Whether a boundary later than the limit was seen.
    pub fn is_past_limit(&self) -> bool {
        each!(self, scanner => scanner.is_past_limit())
    }

    /// Whether more bytes can be of use before [`Scanner::rewind`]: false at what is no record (yet).
    pub fn is_hungry(&self) -> bool {
        each!(self, scanner => scanner.is_hungry())
    }

    /// Goes back to the end of the last whole record.
    pub fn rewind(&mut self) {
        each!(self, scanner => scanner.rewind());
    }

    /// Why the bytes at [`Scanner::safe`] are no whole record, once they were taken.
    pub fn trouble(&self) -> Option<String> {
        each!(self, scanner => scanner.trouble())
    }

    /// Whether this segment is finished. Asked again with more of the next segment's bytes after [`Closure::More`].
    pub fn closure(&self, beside: Beside<'_>) -> Closure {
        each!(self, scanner => scanner.closure(beside))
    }

    /// Begins to look for records behind what is no record, where they tell damage from an end that a crash has torn: from
    /// [`Scanner::at`] on, while [`Scanner::is_hungry`], before [`Scanner::closure`]. False where there is no need to.
    pub fn search(&mut self) -> bool {
        if let Scanner::Mariadb(scanner) = self { scanner.search() } else { false }
    }

    /// Whether the bytes from [`Scanner::safe`] on are what is behind the end of a log: nothing, or nothing that was
    /// written since. When they are not, a record may be on its way, or a crash has torn one, or there is damage: see
    /// [`Scanner::behind`].
    pub fn is_end(&self, bytes: &[u8]) -> bool {
        match self {
            Scanner::Raw(_) => true,
            Scanner::Bdb(_) => octets::is_zero(bytes),
            Scanner::Postgres(scanner) => scanner.is_end(bytes),
            Scanner::Mariadb(scanner) => scanner.is_end(),
        }
    }

    /// What shows that the log goes on behind [`Scanner::safe`], in the bytes from there on.
    pub fn behind(&self, bytes: &[u8]) -> Option<Behind> {
        match self {
            Scanner::Raw(_) => None,
            Scanner::Bdb(scanner) => scanner.behind(bytes),
            Scanner::Postgres(scanner) => scanner.behind(bytes),
            Scanner::Mariadb(scanner) => scanner.behind(bytes),
        }
    }

    /// Whether the bytes behind [`Scanner::safe`], no whole record, can be all that the engine wrote: it encrypts them, or
    /// leaves for ever what a crash has torn.
    pub fn may_be_torn(&self) -> bool {
        if let Scanner::Mariadb(scanner) = self { scanner.may_be_torn() } else { false }
    }

    /// What an operator should know about what was taken so far; `name` is the file's.
    pub fn remark(&self, name: &str) -> Option<String> {
        if let Scanner::Mariadb(scanner) = self { scanner.remark(name) } else { None }
    }

    /// Where the last whole record that was taken begins in all of the log, where the engine counts so.
    pub fn last(&self) -> Option<u64> {
        if let Scanner::Postgres(scanner) = self { scanner.last() } else { None }
    }

    /// Says when the file was last written, before its bytes are taken: all that engines without records know.
    pub fn written(&mut self, time: Time) {
        if let Scanner::Raw(scanner) = self {
            scanner.written(time);
        }
    }

    /// Takes over what the segment before left unfinished: a record that goes on here. Called before any byte is taken.
    pub fn follow(&mut self, before: &Scanner) {
        if let (Scanner::Postgres(scanner), Scanner::Postgres(before)) = (self, before) {
            scanner.follow(before);
        }
    }
}

#[cfg(test)]
pub(super) fn beside(next: &[u8]) -> Beside<'_> {
    Beside { own: &[], segment: Segment::new(1, 2), next, is_passed: false }
}
