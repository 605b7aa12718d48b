//! PostgreSQL's write-ahead log (measured with 15; layout from `xlog_internal.h`, `xlogrecord.h` and real files; the same
//! since 9.5 but for the page magic).
//!
//! A segment is a file of fixed size, made of pages of 8 KiB. Each page has a header that names its own place in the log;
//! records run on over pages and segments and carry a checksum and the place of the one before. A segment's size says
//! nothing about how much log it holds, and its name neither: files are made ahead, full of zeros, and old ones are given
//! the names of segments to come with their old content. Only a page that names its own place counts.
//!
//! Bytes that have once been whole records are never rewritten. A crash in the middle of a record leaves its first part;
//! the server then goes on behind it, on a page with a mark that says so.
//!
//! Timelines are generations. A new one begins with a copy of its parent's last segment up to the fork, which its
//! `.history` file names.

mod header;
mod names;

pub(super) use names::{
    NO_HISTORY, PARTIAL, STATUS, fingerprint, history_name, history_of, is_aux, is_name, is_side_file,
};

use self::header::{LONG_HEADER, PAGE, Page, SHORT_HEADER, u16_at, u32_at, u64_at};
use super::{Beside, Closure, Mark};
use crate::value::position::Segment;
use crate::value::time::Time;

/// Bytes of a record's header: length, transaction, previous record, info, resource manager, checksum.
const RECORD_HEADER: usize = 24;
/// Where the checksum is in it; it covers what is behind the header, then what is before this.
const CHECKSUM: usize = 20;
/// First bytes of a record that are kept: enough for its transaction's time.
const KEPT: usize = 64;
/// Longest record that is believed (`XLogRecordMaxSize` is 1020 MiB; older releases had no limit below 1 GiB).
const RECORD_MAX: u32 = 1 << 30;
/// Microseconds from 1970 to 2000, PostgreSQL's epoch.
const EPOCH: i64 = 946_684_800_000_000;

/// What is fixed for one database cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The system identifier.
    pub system: u64,
    /// Bytes of a segment: a power of two from 1 MiB to 1 GiB.
    pub size: u64,
}

impl Cluster {
    /// A cluster by its identifier in decimal digits, and its segment size.
    pub fn new(system: &str, size: u64) -> Result<Cluster, String> {
        let digits = system.bytes().all(|byte| byte.is_ascii_digit()) && !system.starts_with('0');
        let system = system.parse().ok().filter(|_| digits).ok_or("the system identifier is not a number")?;
        if !size.is_power_of_two() || !(1 << 20..=1 << 30).contains(&size) {
            return Err(format!("{size} is no segment size of PostgreSQL"));
        }
        Ok(Cluster { system, size })
    }

    /// The cluster of a segment, from its first bytes.
    pub fn read(head: &[u8]) -> Option<Cluster> {
        let page = Page::read(head).filter(|page| page.is_long)?;
        let cluster = Cluster::new(&u64_at(head, 24).to_string(), u32_at(head, 32).into()).ok()?;
        (page.address.is_multiple_of(cluster.size) && u32_at(head, 36) == PAGE as u32).then_some(cluster)
    }

    /// Where a segment begins in the log.
    fn start(self, segment: Segment) -> u64 {
        segment.sequence.saturating_mul(self.size)
    }

    /// See [`super::Scheme::is_begun`].
    pub(super) fn is_begun(self, segment: Segment, head: &[u8]) -> bool {
        Page::read(head).is_some_and(|page| page.is_long && page.address == self.start(segment))
    }
}

/// Why a scan does not go on at [`Scanner::safe`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stop {
    /// No record, or no page, has been written here yet.
    Blank,
    /// The bytes are no record: why.
    Bad(String),
}

/// A record of which not all bytes were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Partial {
    kept: [u8; KEPT],
    have: u64,
    crc: u32,
    /// Where it begins in the log.
    start: u64,
}

/// Follows the chain of records in one segment.
#[derive(Clone, Debug)]
pub struct Scanner {
    cluster: Cluster,
    segment: Segment,
    /// Next byte to take.
    at: u64,
    /// End of the last whole record, up to which the next one would be aligned.
    safe: u64,
    /// Where the last whole record begins in the log.
    last: Option<u64>,
    page: [u8; LONG_HEADER],
    magic: u16,
    record: Partial,
    /// Bytes of a record from the segment before that is not known here: they are passed over.
    unknown: u64,
    /// Behind a segment switch: zeros only.
    is_switched: bool,
    stop: Option<Stop>,
    boundary: Option<Mark>,
    until: Option<Time>,
    past: bool,
    /// What the segment before handed over: a record that goes on here, and where its last whole one begins.
    carried: Option<Partial>,
    carried_last: Option<u64>,
    carried_unknown: u64,
}

impl Partial {
    const NONE: Partial = Partial { kept: [0; KEPT], have: 0, crc: 0, start: 0 };

    /// Length without and with what aligns the next record; both 0 while not known.
    fn length(&self) -> (u64, u64) {
        let length = if self.have < 4 { 0 } else { u64::from(u32_at(&self.kept, 0)) };
        (length, length.next_multiple_of(8))
    }

    /// Bytes that the header of the next page must announce.
    fn left(&self) -> u64 {
        self.length().0.saturating_sub(self.have)
    }
}

impl Scanner {
    /// At the beginning of a segment.
    pub fn new(cluster: Cluster, segment: Segment, until: Option<Time>) -> Scanner {
        Scanner {
            cluster,
            segment,
            at: 0,
            safe: 0,
            last: None,
            page: [0; LONG_HEADER],
            magic: 0,
            record: Partial::NONE,
            unknown: 0,
            is_switched: false,
            stop: None,
            boundary: None,
            until,
            past: false,
            carried: None,
            carried_last: None,
            carried_unknown: 0,
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

    /// See [`super::Scanner::is_hungry`].
    pub fn is_hungry(&self) -> bool {
        self.stop.is_none()
    }

    /// See [`super::Scanner::rewind`].
    pub fn rewind(&mut self) {
        self.at = self.safe;
        self.stop = None;
        let is_first = self.safe == 0;
        self.unknown = if is_first { self.carried_unknown } else { 0 };
        self.record = self.carried.clone().filter(|_| is_first).unwrap_or(Partial::NONE);
    }

    /// See [`super::Scanner::follow`].
    pub fn follow(&mut self, before: &Scanner) {
        if before.segment.sequence == self.segment.sequence {
            // A timeline begins with its parent's bytes.
            (self.carried, self.carried_last) = (before.carried.clone(), before.carried_last);
        } else if before.segment.sequence + 1 == self.segment.sequence && before.is_read() {
            self.carried = (before.record.have > 0).then(|| before.record.clone());
            (self.carried_last, self.carried_unknown) = (before.last, before.unknown);
        }
        self.last = self.carried_last;
        self.rewind();
    }

    /// Whether all of the segment was taken and made sense, to its last record that may go on in the next.
    fn is_read(&self) -> bool {
        self.at == self.cluster.size && self.stop.is_none()
    }

    /// See [`super::Scanner::take`].
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.stop.is_none() {
            let taken = self.take_some(bytes);
            bytes = &bytes[taken..];
        }
        // What follows a stop is not looked at, but it was taken.
        self.at += bytes.len() as u64;
    }

    /// Takes what lies in one page header, or in the rest of a page; at least one byte.
    fn take_some(&mut self, bytes: &[u8]) -> usize {
        if self.at >= self.cluster.size {
            self.stop = Some(Stop::Bad(format!("the file is longer than a segment, {} bytes", self.cluster.size)));
            return 0;
        }
        let in_page = (self.at % PAGE) as usize;
        let header = if self.at < PAGE { LONG_HEADER } else { SHORT_HEADER };
        let rest = &bytes[..bytes.len().min(PAGE as usize - in_page)];
        if self.is_switched {
            return self.take_zeros(rest);
        }
        if in_page < header {
            let count = rest.len().min(header - in_page);
            self.page[in_page..in_page + count].copy_from_slice(&rest[..count]);
            self.at += count as u64;
            if in_page + count == header {
                self.stop = self.judge_page(header).err();
            }
            return count;
        }
        if self.unknown > 0 {
            let count = rest.len().min(self.unknown as usize);
            self.at += count as u64;
            self.unknown -= count as u64;
            return count;
        }
        self.take_record(rest)
    }

    fn take_zeros(&mut self, bytes: &[u8]) -> usize {
        if bytes.iter().any(|byte| *byte != 0) {
            self.stop = Some(Stop::Bad("bytes other than zeros are behind a segment switch".to_owned()));
            return 0;
        }
        self.at += bytes.len() as u64;
        if self.at == self.cluster.size {
            self.safe = self.at;
        }
        bytes.len()
    }

    fn judge_page(&mut self, header: usize) -> Result<(), Stop> {
        let begin = self.at - header as u64;
        let here = self.cluster.start(self.segment) + begin;
        let bad = |why: String| Err(Stop::Bad(why));
        let Some(page) = Page::read(&self.page[..header]) else {
            let is_blank = self.page[..header].iter().all(|byte| *byte == 0);
            return if is_blank { Err(Stop::Blank) } else { bad(format!("no page header is at {begin}")) };
        };
        if page.address != here {
            // What a file had in it before it was given this name.
            return Err(Stop::Blank);
        }
        if page.is_long != (begin == 0) || (begin > 0 && page.magic != self.magic) {
            return bad(format!("the page header at {begin} is of another kind"));
        }
        self.magic = page.magic;
        if begin == 0 && Cluster::read(&self.page) != Some(self.cluster) {
            let (system, size) = (u64_at(&self.page, 24), u32_at(&self.page, 32));
            return bad(format!("the segment is of system {system} with segments of {size} bytes"));
        }
        if page.timeline == 0 || u64::from(page.timeline) > self.segment.generation {
            return bad(format!("the page at {begin} is of timeline {}", page.timeline));
        }
        let left = if self.unknown > 0 { self.unknown } else { self.record.left() };
        match (page.continues, self.record.have > 0 || self.unknown > 0) {
            (None, false) => {}
            // The server gave the record up in a crash, and went on here.
            (None, true) if page.overwrites => (self.record, self.unknown) = (Partial::NONE, 0),
            (None, true) => return bad(format!("the page at {begin} does not go on with the record before it")),
            (Some(length), true) if is_rest(length, left, self.unknown > 0) => {}
            (Some(length), false) if begin == 0 && self.safe == 0 => {
                self.unknown = u64::from(length).next_multiple_of(8);
            }
            (Some(length), _) => {
                return bad(format!("the page at {begin} goes on with {length} bytes of a record, {left} are missing"));
            }
        }
        Ok(())
    }

    fn take_record(&mut self, bytes: &[u8]) -> usize {
        let record = &mut self.record;
        let before = record.have;
        if before == 0 {
            record.start = self.cluster.start(self.segment) + self.at;
        }
        if before < RECORD_HEADER as u64 {
            let have = before as usize;
            let count = bytes.len().min(RECORD_HEADER - have);
            record.kept[have..have + count].copy_from_slice(&bytes[..count]);
            record.have += count as u64;
            self.at += count as u64;
            self.stop = self.judge_record().err();
            return count;
        }
        let (length, padded) = record.length();
        let count = (bytes.len() as u64).min(padded - before) as usize;
        let body = &bytes[..count.min(length.saturating_sub(before) as usize)];
        record.crc = crc32c::crc32c_append(record.crc, body);
        let kept = body.len().min(KEPT.saturating_sub(before as usize));
        record.kept[(before as usize).min(KEPT)..][..kept].copy_from_slice(&body[..kept]);
        record.have += count as u64;
        self.at += count as u64;
        self.finish_when_whole();
        count
    }

    /// Looks at a record's header as far as it is there.
    fn judge_record(&mut self) -> Result<(), Stop> {
        let (length, _) = self.record.length();
        if self.record.have >= 4 && length == 0 {
            return Err(Stop::Blank);
        }
        if self.record.have < RECORD_HEADER as u64 {
            return Ok(());
        }
        if !(RECORD_HEADER as u64..=u64::from(RECORD_MAX)).contains(&length) {
            return Err(Stop::Bad(format!("record length {length} is impossible")));
        }
        let previous = u64_at(&self.record.kept, 8);
        match self.last {
            Some(last) if last != previous => Err(Stop::Bad(format!(
                "record says that the one before it is at {}, it is at {}",
                show(previous),
                show(last)
            ))),
            _ => {
                self.finish_when_whole();
                Ok(())
            }
        }
    }

    /// All bytes of a record are there: believe it if its checksum is right.
    fn finish_when_whole(&mut self) {
        if self.record.have < self.record.length().1 {
            return;
        }
        let record = std::mem::replace(&mut self.record, Partial::NONE);
        let stored = u32_at(&record.kept, CHECKSUM);
        let computed = crc32c::crc32c_append(record.crc, &record.kept[..CHECKSUM]);
        if stored != computed {
            self.stop = Some(Stop::Bad(format!("record checksum is {stored:#010x}, its bytes give {computed:#010x}")));
            return;
        }
        self.last = Some(record.start);
        self.safe = self.at;
        self.is_switched = is_switch(&record.kept);
        if self.is_switched && self.at == self.cluster.size {
            self.is_switched = false;
        }
        if let Some(time) = ending(&record.kept) {
            self.past |= self.until.is_some_and(|until| time > until);
            if !self.past {
                self.boundary = Some(Mark { offset: self.safe, time: Some(time) });
            }
        }
    }

    /// See [`super::Scanner::trouble`].
    pub fn trouble(&self) -> Option<String> {
        match &self.stop {
            Some(Stop::Blank) => Some("no record begins there".to_owned()),
            Some(Stop::Bad(why)) => Some(why.clone()),
            None if self.at > self.safe => Some("a record is cut off".to_owned()),
            None => None,
        }
    }

    /// See [`super::Scanner::closure`]. Where a record goes on in the next segment, this one is finished when that record
    /// is: until then a crash may make the server write its beginning anew.
    pub fn closure(&self, beside: Beside<'_>) -> Closure {
        if !self.cluster.is_begun(beside.segment, beside.next) {
            return Closure::Open;
        }
        if beside.segment.generation != self.segment.generation || self.safe == self.cluster.size {
            return Closure::Closed;
        }
        if !self.is_read() {
            let why = self.trouble().unwrap_or_else(|| "its file is too short".to_owned());
            return Closure::Damaged(format!("the next segment has begun, and here {why}"));
        }
        let mut next = Scanner::new(self.cluster, beside.segment, None);
        next.follow(self);
        next.take(beside.next);
        match next.stop {
            _ if next.safe > 0 || u16_at(beside.next, 2) & header::OVERWRITES != 0 => Closure::Closed,
            None => Closure::More,
            Some(_) if !beside.is_passed => Closure::Open,
            Some(Stop::Blank) => Closure::Damaged("its last record does not end in the next segment".to_owned()),
            Some(Stop::Bad(why)) => Closure::Damaged(format!("its last record goes on in the next segment: {why}")),
        }
    }
}

/// Whether a page's count of bytes left of a record is the one expected; of an unknown record the alignment is, too.
fn is_rest(length: u32, left: u64, is_aligned: bool) -> bool {
    let length = u64::from(length);
    if is_aligned { length.next_multiple_of(8) == left } else { length == left }
}

/// A place in the log as PostgreSQL prints it.
fn show(place: u64) -> String {
    format!("{:X}/{:X}", place >> 32, place & 0xffff_ffff)
}

/// `XLOG_SWITCH`: the rest of the segment is not used.
fn is_switch(record: &[u8; KEPT]) -> bool {
    let (info, manager) = (record[16], record[17]);
    manager == 0 && info & 0xf0 == 0x40
}

/// When a transaction ended, or a restore point was set, if that is what a record says.
fn ending(record: &[u8; KEPT]) -> Option<Time> {
    let (info, manager) = (record[16], record[17]);
    let is_ending = match manager {
        // RM_XLOG_ID: restore point.
        0 => info & 0xf0 == 0x70,
        // RM_XACT_ID: commit, abort, commit prepared, abort prepared.
        1 => matches!(info & 0x70, 0x00 | 0x20 | 0x30 | 0x40),
        _ => false,
    };
    if !is_ending {
        return None;
    }
    // Headers of the parts come first: origin, top-level transaction, then main data, short or long.
    let mut at = RECORD_HEADER;
    let main = loop {
        match *record.get(at)? {
            253 => at += 3,
            252 => at += 5,
            255 => break at + 2,
            254 => break at + 5,
            _ => return None,
        }
    };
    let time = u64_at(record.get(main..main + 8)?, 0).cast_signed();
    time.checked_add(EPOCH).map(Time)
}

#[cfg(test)]
mod tests;
