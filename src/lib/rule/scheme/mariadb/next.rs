//! What the beginning of the next file says of the one before: its list of the last transactions.

use super::event::{self, Beginning, CHECKSUM, Description, HEADER, Header};
use super::gtid::Gtid;

/// Longest list that is believed: of a million domains and servers.
const LIST_MAX: u32 = 1 << 24;

/// The beginning of a file.
pub(super) struct Next {
    /// The last transaction of each domain and server; `None` where it cannot be read.
    list: Option<Vec<Gtid>>,
}

/// Why there is no beginning.
pub(super) enum Unread {
    /// It was not written yet.
    Absent,
    /// It is longer than what is here.
    More,
    /// It is wrong: why.
    Wrong(String),
}

impl Next {
    pub(super) fn read(head: &[u8]) -> Result<Next, Unread> {
        let description = Description::read(head).map_err(|beginning| match beginning {
            Beginning::Short => Unread::Absent,
            Beginning::Wrong(why) => Unread::Wrong(why),
        })?;
        let rest = &head[description.end..];
        if rest.len() < HEADER {
            return Err(Unread::More);
        }
        let wrong = || Unread::Wrong("it does not go on with a list of transactions".to_owned());
        let Header { kind, length, next, .. } = Header::read(rest);
        let is_placed = u64::from(next) == description.end as u64 + u64::from(length);
        if !is_placed || !(HEADER as u32 + CHECKSUM as u32..=LIST_MAX).contains(&length) {
            return Err(wrong());
        }
        let event = rest.get(..length as usize).ok_or(Unread::More)?;
        let (body, stored) = event.split_at(event.len() - CHECKSUM);
        if description.is_checked && crc32fast::hash(body) != event::u32_at(stored, 0) {
            return Err(wrong());
        }
        match kind {
            event::START_ENCRYPTION => Ok(Next { list: None }),
            event::GTID_LIST => {
                let list = Gtid::of_list(if description.is_checked { body } else { event }).ok_or_else(wrong)?;
                Ok(Next { list: Some(list) })
            }
            _ => Err(wrong()),
        }
    }

    pub(super) fn into_list(self) -> Option<Vec<Gtid>> {
        self.list
    }

    /// Whether the file can be read, and says that the log before it ends with this transaction.
    pub(super) fn proves(&self, last: Option<Gtid>) -> bool {
        last.is_some_and(|last| self.list.as_ref().is_some_and(|list| list.contains(&last)))
    }

    /// Whether the log up to this file ends with this transaction in its domain and server, as far as can be known.
    pub(super) fn names(&self, gtid: Gtid) -> bool {
        self.list.as_ref().is_none_or(|list| list.contains(&gtid))
    }
}
