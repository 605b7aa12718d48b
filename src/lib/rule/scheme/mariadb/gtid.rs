//! Global transaction identifiers: `domain-server-sequence`.

use std::collections::BTreeMap;
use std::fmt;

use super::event::{HEADER, u32_at, u64_at};

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

    /// The list that a file begins with, of a whole event without its checksum; `None` when it is wrong.
    pub(super) fn of_list(event: &[u8]) -> Option<Vec<Gtid>> {
        let (count, entries) = event.get(HEADER..)?.split_first_chunk()?;
        let (entries, rest) = entries.as_chunks::<16>();
        let is_whole = entries.len() == (u32::from_le_bytes(*count) & COUNT) as usize && rest.is_empty();
        let gtid =
            |entry: &[u8; 16]| Gtid { domain: u32_at(entry, 0), server: u32_at(entry, 4), sequence: u64_at(entry, 8) };
        is_whole.then(|| entries.iter().map(gtid).collect())
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

/// What a server has executed: what `@@gtid_binlog_state` says, the last sequence of each domain and server.
///
/// The server counts, not only the domain: where something else wrote to a replica, that has high numbers of its own, and
/// a transaction of the master must not be taken for one that is there already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gtids(BTreeMap<(u32, u32), u64>);

impl Gtids {
    /// Reads `0-1-9,0-2-10,7-2-3`; no text is no transaction.
    pub fn parse(text: &str) -> Option<Gtids> {
        let mut last = Gtids::default();
        for word in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            last.add(Gtid::parse(word)?);
        }
        Some(last)
    }

    /// Whether a transaction is one of those up to here; in strict mode sequences only rise.
    pub fn has(&self, gtid: Gtid) -> bool {
        self.0.get(&(gtid.domain, gtid.server)).is_some_and(|last| gtid.sequence <= *last)
    }

    /// Counts a transaction in.
    pub fn add(&mut self, gtid: Gtid) {
        let last = self.0.entry((gtid.domain, gtid.server)).or_default();
        *last = gtid.sequence.max(*last);
    }
}

impl fmt::Display for Gtids {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ((domain, server), sequence)) in self.0.iter().enumerate() {
            write!(out, "{}{domain}-{server}-{sequence}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_what_its_own_pair_of_domain_and_server_reached() {
        let have = Gtids::parse("0-1-5,0-2-9,7-1-3").unwrap();
        for (text, has) in [("0-1-5", true), ("0-1-6", false), ("0-2-6", true), ("7-1-3", true), ("7-2-1", false)] {
            assert_eq!(have.has(Gtid::parse(text).unwrap()), has, "{text}");
        }
        assert_eq!(Gtids::parse(""), Some(Gtids::default()));
        for wrong in ["0-1", "0-1-2-3", "a-b-c", "0-1-x"] {
            assert_eq!(Gtids::parse(wrong), None, "{wrong}");
        }
    }
}
