//! A segment's transactions: what a server has of them, and where the next one begins.

use super::next::Next;
use super::{Gtid, Gtids, Scanner};
use crate::rule::pattern::Pattern;
use crate::value::time::Time;

/// One whole transaction, or one statement that is a group of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its name.
    pub gtid: Gtid,
    /// Where it begins in the segment: its GTID event.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// Of its last event, by the master's clock.
    pub time: Time,
}

/// Reads a segment from its first byte on and tells its transactions apart by what a server has.
#[derive(Clone, Debug)]
pub struct Transactions {
    scanner: Scanner,
    have: Gtids,
    first: Option<u64>,
    behind: Option<u64>,
    end: Option<u64>,
}

impl Transactions {
    /// At the beginning of a segment; `have` is what the server has.
    pub fn new(pattern: &Pattern, have: Gtids) -> Transactions {
        Transactions { scanner: Scanner::new(pattern, None), have, first: None, behind: None, end: None }
    }

    /// Takes the bytes that follow; `each` is called with each transaction that ends in them, and whether the server has
    /// it.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(Transaction, bool)) {
        let Transactions { scanner, have, first, behind, end } = self;
        scanner.take_each(bytes, &mut |transaction| {
            let has = have.has(transaction.gtid);
            first.get_or_insert(transaction.start);
            *end = Some(transaction.end);
            if has {
                *behind = *end;
            }
            each(transaction, has);
        });
    }

    /// Where the first whole transaction begins.
    pub fn first(&self) -> Option<u64> {
        self.first
    }

    /// The offset behind the last transaction that the server has; `None` when it has none of this segment.
    pub fn behind(&self) -> Option<u64> {
        self.behind
    }

    /// The end of the last whole transaction: a torn tail lies behind it, or nothing. `None` when there is none.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// Whether nothing can be known of this segment, since it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.scanner.is_opaque()
    }

    /// Why the events do not go on to the last byte that was taken.
    pub fn trouble(&self) -> Option<String> {
        self.scanner.trouble()
    }
}

/// The last transactions before a segment, of each domain and server: those of one domain in order. `None` when the
/// segment's first bytes do not tell.
pub fn before(head: &[u8]) -> Option<Vec<Gtid>> {
    Next::read(head).ok()?.into_list()
}
