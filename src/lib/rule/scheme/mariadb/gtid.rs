//! Global transaction identifiers: `domain-server-sequence`.

use std::collections::BTreeMap;
use std::fmt;

use super::event::{CHECKSUM, HEADER, Header, u32_at, u64_at};

/// The flag of a group that is one event, `FL_STANDALONE`.
const STANDALONE: u8 = 1;
/// The low bits of a list's first word are its length, the others are flags.
const COUNT: u32 = (1 << 28) - 1;

/// One transaction's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gtid {
    /// Transactions of one domain are in one order.
    pub domain: u32,
    /// Where it was first executed.
    pub server: u32,
    /// Rises within the domain.
    pub sequence: u64,
}

impl Gtid {
    /// Of a GTID event, and whether its group is standalone.
    pub(super) fn of_event(event: &[u8]) -> Option<(Gtid, bool)> {
        let body = event.get(HEADER..HEADER + 13)?;
        let gtid = Gtid { sequence: u64_at(body, 0), domain: u32_at(body, 8), server: u32_at(event, 5) };
        Some((gtid, body[12] & STANDALONE != 0))
    }

    /// Reads `0-1-9`.
    pub fn parse(text: &str) -> Option<Gtid> {
        let mut parts = text.split('-').map(crate::value::position::number);
        let mut next = || parts.next().flatten();
        let (domain, server, sequence) = (next()?.try_into().ok()?, next()?.try_into().ok()?, next()?);
        parts.next().is_none().then_some(Gtid { domain, server, sequence })
    }

    /// The list that a file begins with, of a whole event with its checksum if it has one; `None` when it is wrong.
    pub(super) fn of_list(event: &[u8], is_checked: bool) -> Option<Vec<Gtid>> {
        let body = &event[HEADER..event.len() - if is_checked { CHECKSUM } else { 0 }];
        let (count, entries) = body.split_first_chunk()?;
        let (entries, rest) = entries.as_chunks::<16>();
        let is_whole = entries.len() == (u32::from_le_bytes(*count) & COUNT) as usize && rest.is_empty();
        let gtid = |entry: &[u8; 16]| Gtid {
            domain: u32_at(entry, 0),
            server: u32_at(entry, 4),
            sequence: u64_at(entry, 8),
        };
        (is_whole && Header::read(event).length as usize == event.len()).then(|| entries.iter().map(gtid).collect())
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

/// How far a server is in each domain: what `@@gtid_binlog_pos` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gtids(BTreeMap<u32, Gtid>);

impl Gtids {
    /// Reads `0-1-9,7-2-3`; no text is no transaction. Of several in one domain the highest counts.
    pub fn parse(text: &str) -> Option<Gtids> {
        let mut last = Gtids::default();
        for word in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            last.add(Gtid::parse(word)?);
        }
        Some(last)
    }

    /// Whether a transaction is one of those up to here.
    pub fn has(&self, gtid: Gtid) -> bool {
        self.0.get(&gtid.domain).is_some_and(|last| gtid.sequence <= last.sequence)
    }

    /// Counts a transaction in.
    pub fn add(&mut self, gtid: Gtid) {
        if !self.has(gtid) {
            self.0.insert(gtid.domain, gtid);
        }
    }
}

impl fmt::Display for Gtids {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, gtid) in self.0.values().enumerate() {
            write!(out, "{}{gtid}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}
