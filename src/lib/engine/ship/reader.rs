//! Where a lane takes its pieces from: a reader of its own, or the one that is shared (see [`super::tap`]).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::ledger::Ledger;
use super::source::locate::{Located, Tick};
use super::source::{Piece, Source};
use super::tap::{self, Cursor, Next};
use crate::value::exit::{Code, fail};
use crate::value::position::{Position, Start};

/// See the module.
pub(super) struct Reader<'a> {
    from: From<'a>,
    /// Makes another source of its own.
    open: &'a dyn Fn() -> Result<Source>,
    /// Where it may join others; `None` when it is to read alone.
    tap: Option<&'a tap::Lane<'a>>,
}

enum From<'a> {
    Own(Box<Source>),
    Shared(Cursor<'a>),
    /// On the way from one to the other, and for good when that fails.
    Nothing,
}

impl<'a> Reader<'a> {
    /// Begins with a source of its own.
    pub(super) fn new(open: &'a dyn Fn() -> Result<Source>, tap: Option<&'a tap::Lane<'a>>) -> Result<Reader<'a>> {
        Ok(Reader { from: From::Own(Box::new(open()?)), open, tap })
    }

    /// See [`Source::locate`]; before the first piece only.
    pub(super) fn locate(&mut self, start: Start, ledger: &Ledger, tick: Tick<'_>) -> Result<Option<Located>> {
        match &mut self.from {
            From::Own(source) => source.locate(start, ledger, tick),
            _ => nothing(),
        }
    }

    /// The next piece. `tick` is called as by [`Source::locate`]: who has fallen behind reads its segment again.
    pub(super) fn next<'r>(&'r mut self, ledger: &Ledger, tick: Tick<'_>) -> Result<Piece<'r>> {
        self.join(false);
        if let From::Shared(cursor) = &mut self.from {
            match cursor.advance(ledger)? {
                Next::Piece => {}
                Next::Idle => return Ok(Piece::Idle),
                Next::Done => return Ok(Piece::Done),
                Next::Behind => self.leave(ledger, tick)?,
            }
        }
        match &mut self.from {
            From::Own(source) => source.next(ledger),
            From::Shared(cursor) => Ok(cursor.piece()),
            From::Nothing => nothing(),
        }
    }

    /// Nothing new is there: a good moment to read with the others from here on.
    pub(super) fn rest(&mut self) {
        self.join(true);
    }

    fn join(&mut self, is_idle: bool) {
        let Some(tap) = self.tap.filter(|tap| tap.is_shared()) else {
            return;
        };
        self.from = match std::mem::replace(&mut self.from, From::Nothing) {
            From::Own(source) => tap.join(source, is_idle).map_or_else(From::Own, From::Shared),
            from => from,
        };
    }

    /// Whether it reads with others.
    #[cfg(test)]
    pub(super) fn is_joined(&self) -> bool {
        matches!(self.from, From::Shared(_))
    }

    /// Reads alone again, from where the others were left.
    fn leave(&mut self, ledger: &Ledger, tick: Tick<'_>) -> Result<()> {
        let From::Shared(cursor) = std::mem::replace(&mut self.from, From::Nothing) else {
            return nothing();
        };
        let (at, ended) = cursor.place();
        drop(cursor);
        let mut source = (self.open)()?;
        source.resume(at, ended, ledger, tick)?;
        self.from = From::Own(Box::new(source));
        Ok(())
    }

    /// Where reading is: the end of what was handed out.
    pub(super) fn position(&self) -> Option<Position> {
        match &self.from {
            From::Own(source) => source.position(),
            From::Shared(cursor) => Some(cursor.position()),
            From::Nothing => None,
        }
    }

    /// See [`Source::last_byte`].
    pub(super) fn last_byte(&self) -> Option<Position> {
        match &self.from {
            From::Own(source) => source.last_byte(),
            From::Shared(cursor) => cursor.last_byte(),
            From::Nothing => None,
        }
    }

    /// See [`Source::owes_mark`].
    pub(super) fn owes_mark(&self) -> bool {
        match &self.from {
            From::Own(source) => source.owes_mark(),
            From::Shared(cursor) => cursor.owes_mark(),
            From::Nothing => false,
        }
    }

    /// See [`Source::remark`].
    pub(super) fn remark(&self) -> Option<String> {
        match &self.from {
            From::Own(source) => source.remark(),
            From::Shared(cursor) => cursor.remark(),
            From::Nothing => None,
        }
    }

    /// Bytes that lie ahead, as far as file sizes tell; who reads with the others is where they are.
    pub(super) fn left(&self) -> u64 {
        match &self.from {
            From::Own(source) => source.left(),
            _ => 0,
        }
    }

    /// See [`Source::end`].
    pub(super) fn end(&mut self) -> Result<Option<Position>> {
        match &mut self.from {
            From::Own(source) => source.end(),
            From::Shared(cursor) => cursor.end(),
            From::Nothing => nothing(),
        }
    }

    /// See [`Source::aux`].
    pub(super) fn aux(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        match &self.from {
            From::Own(source) => source.aux(),
            From::Shared(cursor) => cursor.aux(),
            From::Nothing => nothing(),
        }
    }

    /// Reads the directory, unless another lane has done so less than `age` ago.
    pub(super) fn list(&mut self, age: Duration) -> Result<()> {
        match &mut self.from {
            From::Own(source) => source.list(),
            From::Shared(cursor) => cursor.list(age),
            From::Nothing => nothing(),
        }
    }
}

fn nothing<T>() -> Result<T> {
    fail(Code::Failed, "no log is open")
}
