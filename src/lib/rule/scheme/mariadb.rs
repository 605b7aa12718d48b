//! MariaDB's binary log (measured with 10.11; layout from the knowledge base's page on binary log events and real files).
//!
//! A file `BASE.%06d` begins with a magic number and a format description event and only grows; its size is its end.
//! Events carry their length, the place of the next one and, unless `binlog_checksum=NONE`, a CRC32. A transaction begins
//! with its GTID and never spans files. A file ends with the event that names the next one (rotate), or that says that the
//! server was stopped, or, after a crash, anywhere: that torn tail stays for ever, and nothing of it was committed. Its
//! transaction's GTID is used again in the next file.
//!
//! One bit is rewritten: the flag of the format description event that says that the file is in use. The server clears
//! it when it has closed the file, a moment after the next one is there; after a crash it stays.
//!
//! In an encrypted log only the beginning of each file can be read, so a file counts once it is closed.

mod event;
mod gtid;
mod names;
mod next;
mod search;
mod transactions;

use crc32fast::Hasher;

pub use self::gtid::{Gtid, Gtids};
pub(super) use self::names::{detect, is_pattern, is_side_file};
pub use self::transactions::{Transaction, Transactions, before};

use self::event::{Beginning, CHECKSUM, Description, HEADER, Header, MAGIC};
use self::next::Next;
use self::search::Search;
use super::{Behind, Beside, Closure, Mark};
use crate::rule::pattern::Pattern;
use crate::value::digest::Mask;
use crate::value::escape::show;
use crate::value::octets;
use crate::value::time::Time;

/// The flag that says that a file is in use, `LOG_EVENT_BINLOG_IN_USE_F`: in the first event's header, behind the magic.
pub(super) const IN_USE: Mask = Mask { offset: 21, bits: 1 };
/// First bytes of an event that are kept: a whole format description, and the longest name of a next file.
const KEPT: usize = 512;
/// Last bytes that are kept: `ROLLBACK` and a checksum.
const TAIL: usize = 12;
/// Longest event that is believed: `max_allowed_packet` is at most 1 GiB.
const EVENT_MAX: u32 = (1 << 30) + (1 << 20);

/// `server-version=10.11.6-MariaDB-log`.
pub(super) fn fingerprint(head: &[u8]) -> String {
    match Description::read(head) {
        Ok(description) if !description.version.is_empty() => format!("server-version={}", description.version),
        _ => String::new(),
    }
}

/// Why a scan does not go on at [`Scanner::safe`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stop {
    /// What follows is encrypted.
    Encrypted,
    /// The bytes are no event: why.
    Bad(String),
}

/// How a file says that it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The log goes on in this file.
    Rotate(String),
    /// The server was stopped.
    Stop,
}

/// A transaction of which not all events were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    gtid: Gtid,
    start: u64,
    /// One event, with at most what it needs before it: it ends by itself.
    is_standalone: bool,
}

/// Follows the events of one file.
#[derive(Clone, Debug)]
pub struct Scanner {
    pattern: Pattern,
    /// Next byte to take.
    at: u64,
    /// End of the last whole event.
    safe: u64,
    is_checked: bool,
    /// First and last bytes of the event at `safe`; the first event has the magic before it.
    kept: Box<[u8; KEPT]>,
    tail: [u8; TAIL],
    hash: Hasher,
    stop: Option<Stop>,
    end: Option<End>,
    group: Option<Group>,
    last: Option<Gtid>,
    incident: Option<u64>,
    boundary: Option<Mark>,
    until: Option<Time>,
    past: bool,
    search: Option<Search>,
}

impl Scanner {
    /// At the beginning of a file.
    pub fn new(pattern: &Pattern, until: Option<Time>) -> Scanner {
        Scanner {
            pattern: pattern.clone(),
            at: 0,
            safe: 0,
            is_checked: false,
            kept: Box::new([0; KEPT]),
            tail: [0; TAIL],
            hash: Hasher::new(),
            stop: None,
            end: None,
            group: None,
            last: None,
            incident: None,
            boundary: None,
            until,
            past: false,
            search: None,
        }
    }

    /// See [`super::Scanner::at`].
    pub fn at(&self) -> u64 {
        self.at
    }

    /// See [`super::Scanner::safe`].
    pub fn safe(&self) -> u64 {
        self.safe
    }

    /// See [`super::Scanner::boundary`].
    pub fn boundary(&self) -> Option<Mark> {
        self.boundary
    }

    /// See [`super::Scanner::is_past_limit`].
    pub fn is_past_limit(&self) -> bool {
        self.past
    }

    /// Whether what follows is encrypted.
    fn is_opaque(&self) -> bool {
        self.stop == Some(Stop::Encrypted)
    }

    /// See [`super::Scanner::may_be_torn`].
    pub fn may_be_torn(&self) -> bool {
        self.is_opaque() || (self.stop.is_none() && self.end.is_none())
    }

    /// See [`super::Scanner::is_hungry`].
    pub fn is_hungry(&self) -> bool {
        self.search.as_ref().map_or(self.stop.is_none(), |search| search.found().is_none())
    }

    /// See [`super::Scanner::remark`].
    pub fn remark(&self, name: &str) -> Option<String> {
        if self.is_opaque() {
            return Some("the log is encrypted: each segment is shipped when it is closed, not before".to_owned());
        }
        self.incident
            .map(|at| format!("{name} says at {at} that the server did not log all that it did (incident event)"))
    }

    /// See [`super::Scanner::rewind`].
    pub fn rewind(&mut self) {
        self.at = self.safe;
        self.hash = Hasher::new();
        self.search = None;
        self.stop.take_if(|stop| *stop != Stop::Encrypted);
    }

    /// See [`super::Scanner::search`].
    pub fn search(&mut self) -> bool {
        let is_bad = matches!(self.stop, Some(Stop::Bad(_)));
        if is_bad {
            self.at = self.safe;
            self.search = Some(Search::new(self.safe, self.is_checked));
        }
        is_bad
    }

    /// See [`super::Scanner::take`].
    pub fn take(&mut self, bytes: &[u8]) {
        self.take_each(bytes, &mut |_| {});
    }

    /// Takes bytes; `each` is called at the end of each transaction.
    fn take_each(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(Transaction)) {
        if let Some(search) = &mut self.search {
            search.take(bytes);
        } else {
            while !bytes.is_empty() && self.stop.is_none() {
                let taken = if self.safe == 0 { self.take_description(bytes) } else { self.take_event(bytes, each) };
                bytes = &bytes[taken..];
            }
        }
        // What follows a stop is not looked at, but it was taken.
        self.at += bytes.len() as u64;
    }

    /// Keeps up to `limit` first bytes of what begins at `safe`; returns how many of `bytes` were new.
    fn keep(&mut self, bytes: &[u8], limit: usize) -> usize {
        let have = (self.at - self.safe) as usize;
        let count = limit.saturating_sub(have).min(bytes.len());
        self.kept[have..have + count].copy_from_slice(&bytes[..count]);
        self.at += count as u64;
        count
    }

    /// Takes the magic and the first event; at least one byte.
    fn take_description(&mut self, bytes: &[u8]) -> usize {
        let least = MAGIC.len() + HEADER;
        let limit = if self.at < least as u64 { least } else { event::description_end(&self.kept[..]) };
        let taken = self.keep(bytes, limit);
        match Description::read(&self.kept[..self.at as usize]) {
            Ok(description) => {
                self.safe = self.at;
                self.is_checked = description.is_checked;
            }
            Err(Beginning::Short) => {}
            Err(Beginning::Wrong(why)) => self.stop = Some(Stop::Bad(why)),
        }
        taken
    }

    fn take_event(&mut self, bytes: &[u8], each: &mut dyn FnMut(Transaction)) -> usize {
        let have = (self.at - self.safe) as usize;
        if have < HEADER {
            let taken = self.keep(bytes, HEADER);
            if have + taken == HEADER {
                self.stop = self.judge_header().err().map(Stop::Bad);
                self.hash.update(&self.kept[..HEADER]);
                // It may be all that there is.
                if self.stop.is_none() && Header::read(&self.kept[..]).length as usize == HEADER {
                    self.finish(HEADER, each);
                }
            }
            return taken;
        }
        let length = Header::read(&self.kept[..]).length as usize;
        let body = &bytes[..bytes.len().min(length - have)];
        let kept = body.len().min(KEPT.saturating_sub(have));
        self.kept[have.min(KEPT)..][..kept].copy_from_slice(&body[..kept]);
        if self.is_checked {
            self.hash.update(&body[..body.len().min((length - CHECKSUM).saturating_sub(have))]);
        }
        let new = body.len().min(TAIL);
        self.tail.copy_within(new.., 0);
        self.tail[TAIL - new..].copy_from_slice(&body[body.len() - new..]);
        self.at += body.len() as u64;
        if have + body.len() == length {
            self.finish(length, each);
        }
        body.len()
    }

    /// Looks at an event's header, once it is there.
    fn judge_header(&self) -> Result<(), String> {
        if let Some(end) = &self.end {
            return Err(format!("bytes follow the {} event", end.name()));
        }
        let header = Header::read(&self.kept[..]);
        if octets::is_zero(&self.kept[..HEADER]) {
            return Err("no event begins there".to_owned());
        }
        let least = if self.is_checked { HEADER + CHECKSUM } else { HEADER };
        if !(least as u32..=EVENT_MAX).contains(&header.length) {
            return Err(format!("event length {} is impossible", header.length));
        }
        // The field has 32 bits, files may be longer. Newer servers leave it out in very large transactions.
        let end = self.safe + u64::from(header.length);
        if header.next != end as u32 && !(header.next == 0 && self.is_checked) {
            return Err(format!("event says that it ends at {}, by its length it ends at {end}", header.next));
        }
        Ok(())
    }

    /// All bytes of an event are there: believe it if its checksum is right.
    fn finish(&mut self, length: usize, each: &mut dyn FnMut(Transaction)) {
        let computed = std::mem::take(&mut self.hash).finalize();
        let stored = event::u32_at(&self.tail, TAIL - CHECKSUM);
        if self.is_checked && stored != computed {
            self.stop = Some(Stop::Bad(format!("event checksum is {stored:#010x}, its bytes give {computed:#010x}")));
            return;
        }
        let start = self.safe;
        self.safe = self.at;
        let header = Header::read(&self.kept[..]);
        let length = if self.is_checked { length - CHECKSUM } else { length };
        let kept = &self.kept[..length.min(KEPT)];
        match header.kind {
            event::GTID => {
                self.group = Gtid::of_event(kept).map(|(gtid, is_standalone)| Group { gtid, start, is_standalone });
            }
            event::ROTATE => self.end = Some(End::Rotate(event::rotate_name(kept))),
            event::STOP => self.end = Some(End::Stop),
            event::START_ENCRYPTION => self.stop = Some(Stop::Encrypted),
            event::INCIDENT => self.incident = Some(start),
            _ => {}
        }
        if self.is_ending(header.kind, length)
            && let Some(group) = self.group.take()
        {
            self.finish_group(group, header.time(), each);
        }
    }

    /// Whether an event of this kind, and of this length without checksum, ends the open group.
    fn is_ending(&self, kind: u8, length: usize) -> bool {
        match self.group {
            Some(group) if group.is_standalone => !event::goes_before_another(kind),
            Some(_) if kind == event::QUERY => {
                let tail = &self.tail[..if self.is_checked { TAIL - CHECKSUM } else { TAIL }];
                event::is_commit_or_rollback(&self.kept[..], tail, length)
            }
            Some(_) => matches!(kind, event::XID | event::XA_PREPARE),
            None => false,
        }
    }

    fn finish_group(&mut self, group: Group, time: Time, each: &mut dyn FnMut(Transaction)) {
        let Group { gtid, start, .. } = group;
        self.last = Some(gtid);
        each(Transaction { gtid, start, end: self.safe, time });
        self.past |= self.until.is_some_and(|until| time > until);
        if !self.past {
            self.boundary = Some(Mark { offset: self.safe, time: Some(time) });
        }
    }

    /// See [`super::Scanner::is_end`]: a file's size is its end, and an event of which not all bytes are there is on its way,
    /// or a crash has torn it.
    pub fn is_end(&self) -> bool {
        !matches!(self.stop, Some(Stop::Bad(_)))
    }

    /// See [`super::Scanner::behind`]: whatever is in the file was written, and in order, but for zeros that a power failure
    /// leaves.
    pub fn behind(&self, bytes: &[u8]) -> Option<Behind> {
        let mut search = Search::new(self.safe, self.is_checked);
        search.take(bytes);
        let wrong = bytes.iter().any(|byte| *byte != 0).then_some(self.safe);
        search.found().or(wrong).map(|offset| Behind { offset, is_later: true })
    }

    /// See [`super::Scanner::trouble`].
    pub fn trouble(&self) -> Option<String> {
        match &self.stop {
            Some(Stop::Encrypted) => Some("what follows is encrypted".to_owned()),
            Some(Stop::Bad(why)) => Some(why.clone()),
            None if self.at > self.safe => Some("an event is cut off".to_owned()),
            None => None,
        }
    }

    /// See [`super::Scanner::closure`]: the next file has begun, and this one ended as a file does.
    pub fn closure(&self, beside: Beside<'_>) -> Closure {
        let next = match Next::read(beside.next) {
            Ok(next) => next,
            Err(next::Unread::Absent) => return Closure::Open,
            Err(next::Unread::More) => return Closure::More,
            Err(next::Unread::Wrong(why)) => {
                return Closure::Damaged(format!("the next file's beginning is wrong: {why}"));
            }
        };
        let is_in_use = beside.own.get(IN_USE.offset as usize).is_some_and(|flags| flags & IN_USE.bits != 0);
        // The server may still be about to clear the flag, but not when it has gone on to a later file.
        let is_settled = !is_in_use || beside.is_passed;
        if let Some(why) = self.damage(&self.pattern.name(beside.segment), &next, is_in_use) {
            return Closure::Damaged(why);
        }
        if is_settled || (self.end.is_none() && !self.is_opaque()) { Closure::Closed } else { Closure::Open }
    }

    /// Why this file, after which the next has begun, is not all that the server wrote.
    fn damage(&self, expected: &str, next: &Next, is_in_use: bool) -> Option<String> {
        if self.is_opaque() {
            return None;
        }
        let found = self.search.as_ref().and_then(Search::found);
        if let (Some(found), Some(trouble)) = (found, self.trouble()) {
            return Some(format!("{trouble}, and a whole event follows at {found}"));
        }
        let trouble = self.trouble().map(|why| format!(": {why}")).unwrap_or_default();
        let last = self.last.filter(|last| !next.names(*last));
        match &self.end {
            Some(End::Rotate(name)) if name != expected => {
                Some(format!("its end names {}, the next file is {}", show(name), show(expected)))
            }
            Some(_) if self.at > self.safe => Some(format!("it goes on behind its end{trouble}")),
            // Cut by the server itself, as a semi-synchronous replica does after a crash: only the list proves it.
            None if !is_in_use && (self.at > self.safe || self.group.is_some() || !next.proves(self.last)) => {
                Some(format!("it was closed, and has no end{trouble}"))
            }
            _ => last.map(|last| {
                format!(
                    "its last whole transaction is {last}, and the next file does not begin behind that one{trouble}"
                )
            }),
        }
    }
}

impl End {
    fn name(&self) -> &'static str {
        match self {
            End::Rotate(_) => "rotate",
            End::Stop => "stop",
        }
    }
}

#[cfg(test)]
mod tests;
