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

mod behind;
mod header;
mod names;
mod record;

pub(super) use names::{
    NO_HISTORY, PARTIAL, STATUS, fingerprint, history_name, history_of, is_aux, is_name, is_side_file,
};

use self::header::{LONG_HEADER, PAGE, Page, SHORT_HEADER, u32_at, u64_at};
use self::record::{CHECKSUM, KEPT, Partial, RECORD_HEADER, RECORD_MAX, ending, is_switch, show};
use super::{Beside, Closure, Mark};
use crate::value::octets;
use crate::value::position::Segment;
use crate::value::time::Time;

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

    /// A place in a segment as a place in the log. (That of no segment that has a name is out of range.)
    fn place(self, segment: Segment, offset: u64) -> u64 {
        segment.sequence.wrapping_mul(self.size).wrapping_add(offset)
    }

    /// See [`super::Scheme::is_begun`].
    pub(super) fn is_begun(self, segment: Segment, head: &[u8]) -> bool {
        self.first_page(segment, head).is_some()
    }

    /// See [`super::Scheme::is_inherited`].
    pub(super) fn is_inherited(self, segment: Segment, head: &[u8]) -> bool {
        self.first_page(segment, head).is_some_and(|page| u64::from(page.timeline) < segment.generation)
    }

    /// The first page of a segment, if it names its own place.
    fn first_page(self, segment: Segment, head: &[u8]) -> Option<Page> {
        Page::read(head).filter(|page| page.is_long && page.address == self.place(segment, 0))
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
    /// Of the last page, and of the one that the last whole record ends in: timelines only rise.
    timeline: u32,
    safe_timeline: u32,
    record: Partial,
    /// Bytes of a record from the segment before that is not known here: they are passed over.
    unknown: u64,
    /// Behind a segment switch: nothing counts there.
    is_switched: bool,
    /// This page, or one before it, behind a segment switch still has what was in the file before.
    is_old_page: bool,
    has_old_pages: bool,
    stop: Option<Stop>,
    boundary: Option<Mark>,
    until: Option<Time>,
    past: bool,
    carried: Carried,
}

/// What the segment before handed over, where it was read to its end: then nothing else can go on here.
#[derive(Clone, Debug)]
struct Carried {
    /// A record that goes on here, as far as it was read.
    record: Partial,
    /// Or how much is left of one that was not read from its beginning.
    unknown: u64,
    /// Where its last whole record begins.
    last: Option<u64>,
    magic: u16,
    timeline: u32,
}

impl Carried {
    const NOTHING: Carried = Carried { record: Partial::NONE, unknown: 0, last: None, magic: 0, timeline: 0 };
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
            timeline: 0,
            safe_timeline: 0,
            record: Partial::NONE,
            unknown: 0,
            is_switched: false,
            is_old_page: false,
            has_old_pages: false,
            stop: None,
            boundary: None,
            until,
            past: false,
            carried: Carried::NOTHING,
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
        (self.is_old_page, self.has_old_pages) = (false, false);
        if self.safe > 0 {
            (self.record, self.unknown, self.timeline) = (Partial::NONE, 0, self.safe_timeline);
            return;
        }
        let Carried { record, unknown, last, magic, timeline, .. } = self.carried.clone();
        (self.record, self.unknown, self.last) = (record, unknown, last);
        (self.magic, self.timeline) = (magic, timeline);
    }

    /// See [`super::Scanner::last`].
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// See [`super::Scanner::follow`].
    pub fn follow(&mut self, before: &Scanner) {
        if before.segment.sequence == self.segment.sequence {
            // A timeline begins with its parent's bytes.
            self.carried = before.carried.clone();
        } else if before.segment.sequence.checked_add(1) == Some(self.segment.sequence) && before.is_read() {
            let Scanner { unknown, last, magic, timeline, .. } = *before;
            self.carried = Carried { record: before.record.clone(), unknown, last, magic, timeline };
        }
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
            return self.take_unused(rest, in_page);
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

    /// What is behind a segment switch: zeros. The server writes them after the switch; when a crash comes in between,
    /// whole pages keep what was in the file before, and the server goes on in the next segment all the same.
    fn take_unused(&mut self, bytes: &[u8], in_page: usize) -> usize {
        let begin = self.at - in_page as u64;
        let mut bytes = bytes;
        if begin >= self.safe && in_page < SHORT_HEADER {
            bytes = &bytes[..bytes.len().min(SHORT_HEADER - in_page)];
            self.page[in_page..in_page + bytes.len()].copy_from_slice(bytes);
            if in_page + bytes.len() == SHORT_HEADER {
                let header = &self.page[..SHORT_HEADER];
                let here = self.cluster.place(self.segment, begin);
                self.is_old_page = Page::read(header).is_some_and(|page| page.address < here);
                self.has_old_pages |= self.is_old_page;
                if !self.is_old_page && header.iter().any(|byte| *byte != 0) {
                    return self.stop_behind_switch();
                }
            }
        } else if !self.is_old_page && bytes.iter().any(|byte| *byte != 0) {
            return self.stop_behind_switch();
        }
        self.at += bytes.len() as u64;
        if self.at == self.cluster.size && !self.has_old_pages {
            self.safe = self.at;
        }
        bytes.len()
    }

    fn stop_behind_switch(&mut self) -> usize {
        self.stop = Some(Stop::Bad("bytes other than zeros are behind a segment switch".to_owned()));
        0
    }

    fn judge_page(&mut self, header: usize) -> Result<(), Stop> {
        let begin = self.at - header as u64;
        let here = self.cluster.place(self.segment, begin);
        let bad = |why: String| Err(Stop::Bad(why));
        let Some(page) = Page::read(&self.page[..header]) else {
            let is_blank = octets::is_zero(&self.page[..header]);
            return if is_blank { Err(Stop::Blank) } else { bad(format!("no page header is at {begin}")) };
        };
        if page.address != here || page.timeline < self.timeline {
            // What a file had in it before it was given this name, perhaps as the same segment of an earlier timeline.
            return Err(Stop::Blank);
        }
        if page.is_long != (begin == 0) || (self.magic != 0 && page.magic != self.magic) {
            return bad(format!("the page header at {begin} is of another kind"));
        }
        // No page before it was read, of this segment or the one before.
        let is_first = self.magic == 0;
        self.magic = page.magic;
        if begin == 0 && Cluster::read(&self.page) != Some(self.cluster) {
            let (system, size) = (u64_at(&self.page, 24), u32_at(&self.page, 32));
            return bad(format!("the segment is of system {system} with segments of {size} bytes"));
        }
        if page.timeline == 0 || u64::from(page.timeline) > self.segment.generation {
            return bad(format!("the page at {begin} is of timeline {}", page.timeline));
        }
        self.timeline = page.timeline;
        let left = if self.unknown > 0 { self.unknown } else { self.record.left() };
        match (page.continues, self.record.have > 0 || self.unknown > 0) {
            (Some(_), _) if page.overwrites => {
                return bad(format!("the page at {begin} both goes on with a record and gives it up"));
            }
            (None, false) => {}
            // The server gave the record up in a crash, and went on here.
            (None, true) if page.overwrites => (self.record, self.unknown) = (Partial::NONE, 0),
            (None, true) => return bad(format!("the page at {begin} does not go on with the record before it")),
            (Some(length), true) if is_rest(length, left, self.unknown > 0) => {}
            (Some(length), false) if is_first && length > 0 => {
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
            record.start = self.cluster.place(self.segment, self.at);
        }
        if before < RECORD_HEADER as u64 {
            let have = before as usize;
            let count = bytes.len().min(RECORD_HEADER - have);
            record.kept[have..have + count].copy_from_slice(&bytes[..count]);
            record.have += count as u64;
            self.at += count as u64;
            if let Err(stop) = self.judge_record() {
                self.stop = Some(stop);
            }
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
            None if previous >= self.record.start => {
                Err(Stop::Bad(format!("record says that the one before it is at {}, behind it", show(previous))))
            }
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
        (self.safe, self.safe_timeline) = (self.at, self.timeline);
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
            None if self.has_old_pages => Some("what was in the file before is behind a segment switch".to_owned()),
            None if self.at > self.safe => Some("a record is cut off".to_owned()),
            None => None,
        }
    }

    /// See [`super::Scanner::closure`]. Where a record goes on in the next segment, this one is finished when that record
    /// is: until then a crash may make a server older than 14.1 write its beginning anew. Only where that record fills the
    /// next segment to its end, it is finished when a still later one has begun.
    pub fn closure(&self, beside: Beside<'_>) -> Closure {
        let Some(page) = self.cluster.first_page(beside.segment, beside.next) else {
            return Closure::Open;
        };
        if beside.segment.generation != self.segment.generation {
            return Closure::Closed;
        }
        if page.timeline < self.timeline {
            return Closure::Open;
        }
        if !self.is_read() {
            let why = self.trouble().unwrap_or_else(|| "its file is too short".to_owned());
            return Closure::Damaged(format!("the next segment has begun, and here {why}"));
        }
        let mut next = Scanner::new(self.cluster, beside.segment, None);
        let mut alone = next.clone();
        next.follow(self);
        next.take(beside.next);
        if self.record.have == 0 && self.unknown == 0 {
            alone.take(beside.next);
            return match (next.stop, alone.stop) {
                // What is wrong with the next one alone is said of that one.
                (_, Some(Stop::Bad(_))) => Closure::Closed,
                (Some(Stop::Bad(why)), _) if beside.is_passed => {
                    Closure::Damaged(format!("the next segment does not go on from here: {why}"))
                }
                _ => Closure::Closed,
            };
        }
        let is_full = next.is_read();
        match next.stop {
            _ if next.safe > 0 || page.overwrites => Closure::Closed,
            None if is_full && beside.is_passed => Closure::Closed,
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

#[cfg(test)]
mod tests;
