//! What the beginning of the next file says of the one before: its list of the last transactions.

use super::event::{self, Beginning, CHECKSUM, Description, HEADER, Header};
use super::gtid::Gtid;

/// Longest list that is looked at: some sixty thousand domains and servers.
const LIST_MAX: u32 = 1 << 20;

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
        let Header { kind, length, .. } = Header::read(rest);
        let least = if description.is_checked { HEADER + CHECKSUM } else { HEADER } as u32;
        if kind != event::GTID_LIST || !(least..=LIST_MAX).contains(&length) {
            // Encrypted, perhaps.
            return Ok(Next { list: None });
        }
        let event = rest.get(..length as usize).ok_or(Unread::More)?;
        let (body, stored) = event.split_at(event.len() - CHECKSUM.min(event.len()));
        if description.is_checked && crc32fast::hash(body) != event::u32_at(stored, 0) {
            return Err(Unread::Wrong("its list of transactions has a wrong checksum".to_owned()));
        }
        match Gtid::of_list(event, description.is_checked) {
            Some(list) => Ok(Next { list: Some(list) }),
            None => Err(Unread::Wrong("its list of transactions is wrong".to_owned())),
        }
    }

    pub(super) fn into_list(self) -> Option<Vec<Gtid>> {
        self.list
    }

    pub(super) fn has_list(&self) -> bool {
        self.list.is_some()
    }

    /// Whether the log up to this file ends with this transaction in its domain and server, as far as can be known.
    pub(super) fn names(&self, gtid: Gtid) -> bool {
        self.list.as_ref().is_none_or(|list| list.contains(&gtid))
    }
}
