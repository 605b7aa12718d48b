//! Berkeley DB logs (measured with 5.3.28; layout from `log.h`, `db_log.h` and real files).
//!
//! A file `log.%010d` begins with a header record (28 bytes) and goes on with records that each carry the offset of the
//! one before, their length, and a checksum. The file is extended to its full size at once, sparse, and never cut: its
//! size says nothing about how much log it holds. After a crash recovery overwrites a torn tail in place, so only the
//! prefix of whole, checked, chained records is ever shipped; that prefix never changes.
//!
//! All numbers are in the byte order of the machine that wrote the log; the magic number shows which.
//! Encrypted logs have another header and are refused as damaged.

mod behind;
pub mod checkpoint;
mod checksum;

use self::checkpoint::Checkpoint;
use super::{Beside, Closure, Mark};
use crate::value::octets;
use crate::value::position::{Segment, number};
use crate::value::time::Time;
use checksum::Hash;

/// Environment configuration, shipped as an aux file: without it recovery may look in the wrong directory.
pub(super) const CONFIG: &str = "DB_CONFIG";

const PREFIX: &str = "log.";
const DIGITS: usize = 10;
/// `DB_LOGMAGIC` (`db.h`).
const MAGIC: u32 = 0x0004_0988;
/// Bytes of prev, len and chksum (`struct __hdr`, without encryption).
const RECORD_HEADER: usize = 12;
/// Bytes of the header record at offset 0: record header, magic, version, `log_size`, and one unused word.
const FILE_HEADER: usize = 28;
/// Bytes of type, txnid and `prev_lsn`, which every record has behind its header.
const RECORD_BODY: usize = 16;
/// Longest record that is believed: a log file is at most 4 GiB, and a record never spans files.
const RECORD_MAX: u32 = 1 << 30;
/// Record types (`db_auto.h`): transaction end, and checkpoint.
const TXN_REGOP: u32 = 10;
const TXN_CKP: u32 = 11;
/// Bytes of a record that are kept to read its type and time: up to the end of a checkpoint's timestamp.
const KEPT: usize = 48;

/// `log.0000000001`.
pub(super) fn name(segment: Segment) -> String {
    format!("{PREFIX}{:0DIGITS$}", segment.sequence)
}

/// The segment of `log.0000000001`; sequence 0 and anything wider are not log files.
pub(super) fn segment(name: &str) -> Option<Segment> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == DIGITS)?;
    number(digits).filter(|sequence| *sequence > 0).map(|sequence| Segment::new(1, sequence))
}

/// Region files, the register file, the configuration, and databases (by the magic number at offset 12 of their first
/// page: btree, hash, queue and heap in either byte order).
pub(super) fn is_side_file(name: &str, head: &[u8]) -> bool {
    const DATABASES: [u32; 4] = [0x0005_3162, 0x0006_1561, 0x0004_2253, 0x0007_4582];
    let magic = head.get(12..16).and_then(|bytes| bytes.try_into().ok());
    let is_database = magic.is_some_and(|magic: [u8; 4]| {
        DATABASES.contains(&u32::from_le_bytes(magic)) || DATABASES.contains(&u32::from_be_bytes(magic))
    });
    name == CONFIG || name.starts_with("__db.") || is_database
}

/// Warns of automatic log removal: on by `DB_CONFIG`, or by default in a journal directory of Berkeley DB SQL.
pub(super) fn warning(directory: &str, config: Option<&str>) -> Option<String> {
    let setting = config.unwrap_or_default().lines().rev().find_map(auto_removal);
    let advice = "logs can vanish before they are shipped; put 'log_set_config DB_LOG_AUTO_REMOVE off' into DB_CONFIG \
                  before the environment is made, or run db5.3_recover while nothing has it open";
    match setting {
        Some(true) => Some(format!("DB_CONFIG turns automatic log removal on: {advice}")),
        None if directory.ends_with("-journal") => {
            Some(format!("Berkeley DB SQL removes logs automatically unless told otherwise: {advice}"))
        }
        _ => None,
    }
}

/// What a line of `DB_CONFIG` says of automatic log removal. The engine reads keywords in any case, and still knows the
/// name that the flag had before 4.7.
fn auto_removal(line: &str) -> Option<bool> {
    let mut words = line.split_whitespace();
    let (keyword, flag) = (words.next()?, words.next()?);
    let is = |known: (&str, &str)| keyword.eq_ignore_ascii_case(known.0) && flag.eq_ignore_ascii_case(known.1);
    let known = [("log_set_config", "db_log_auto_remove"), ("set_flags", "db_log_autoremove")];
    known.into_iter().any(is).then(|| !words.next().is_some_and(|word| word.eq_ignore_ascii_case("off")))
}

/// `log-version=19 byte-order=little`.
pub(super) fn fingerprint(head: &[u8]) -> String {
    match Header::read(head) {
        Ok(header) => format!("log-version={} byte-order={}", header.version, header.order),
        Err(_) => String::new(),
    }
}

/// Byte order of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    /// The number at this offset; the caller has made sure that it is there.
    fn u32(self, bytes: &[u8], offset: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[offset..offset + 4]);
        match self {
            Order::Little => u32::from_le_bytes(word),
            Order::Big => u32::from_be_bytes(word),
        }
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Order::Little => "little",
            Order::Big => "big",
        })
    }
}

/// The header record of a file.
struct Header {
    order: Order,
    /// Offset of the last record of the file before.
    previous: u32,
    version: u32,
}

/// Why the first bytes are not a header.
#[derive(PartialEq, Eq)]
enum NoHeader {
    /// Nothing was written yet.
    Absent,
    /// It is wrong: why.
    Wrong(String),
}

impl Header {
    fn read(head: &[u8]) -> Result<Header, NoHeader> {
        let Some(head) = head.get(..FILE_HEADER) else {
            return Err(if octets::is_zero(head) {
                NoHeader::Absent
            } else {
                NoHeader::Wrong("it is too short".into())
            });
        };
        if octets::is_zero(head) {
            return Err(NoHeader::Absent);
        }
        let order = match (Order::Little.u32(head, 12), Order::Big.u32(head, 12)) {
            (MAGIC, _) => Order::Little,
            (_, MAGIC) => Order::Big,
            (other, _) => {
                return Err(NoHeader::Wrong(format!(
                    "magic number is {other:#010x} (another file, or an encrypted log)"
                )));
            }
        };
        let (previous, length, stored) = (order.u32(head, 0), order.u32(head, 4), order.u32(head, 8));
        if length as usize != FILE_HEADER {
            return Err(NoHeader::Wrong(format!("header length is {length}, expected {FILE_HEADER}")));
        }
        let mut hash = Hash::default();
        hash.update(&head[RECORD_HEADER..]);
        let computed = hash.checksum(previous, length);
        if stored != computed {
            return Err(NoHeader::Wrong(format!("header checksum is {stored:#010x}, its bytes give {computed:#010x}")));
        }
        Ok(Header { order, previous, version: order.u32(head, 16) })
    }
}

/// Why a scan does not go on at [`Scanner::safe`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stop {
    /// No record begins here (length 0).
    Blank,
    /// The bytes are no record: why.
    Bad(String),
}

/// Follows the chain of records in one file.
#[derive(Clone, Debug)]
pub struct Scanner {
    order: Option<Order>,
    /// Next byte to take.
    at: u64,
    /// End of the last whole record.
    safe: u64,
    /// Offset of the last whole record: what the next one, and the next file's header, must name.
    last: u32,
    /// First bytes of the record at `safe`.
    kept: [u8; KEPT],
    hash: Hash,
    stop: Option<Stop>,
    boundary: Option<Mark>,
    until: Option<Time>,
    past: bool,
    /// The checkpoints that were seen, where they are asked for.
    checkpoints: Option<Vec<Checkpoint>>,
}

impl Scanner {
    /// At the beginning of a file.
    pub fn new(until: Option<Time>) -> Scanner {
        Scanner {
            order: None,
            at: 0,
            safe: 0,
            last: 0,
            kept: [0; KEPT],
            hash: Hash::default(),
            stop: None,
            boundary: None,
            until,
            past: false,
            checkpoints: None,
        }
    }

    /// The same, which remembers the checkpoints that it sees.
    pub fn noting_checkpoints() -> Scanner {
        Scanner { checkpoints: Some(Vec::new()), ..Scanner::new(None) }
    }

    /// The checkpoints among the whole records so far, in order.
    pub fn checkpoints(&self) -> &[Checkpoint] {
        self.checkpoints.as_deref().unwrap_or_default()
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
        self.hash = Hash::default();
        self.stop = None;
    }

    /// See [`super::Scanner::take`].
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.stop.is_none() {
            let taken = if self.safe == 0 { self.take_header(bytes) } else { self.take_record(bytes) };
            bytes = &bytes[taken..];
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

    fn take_header(&mut self, bytes: &[u8]) -> usize {
        let taken = self.keep(bytes, FILE_HEADER);
        if self.at == FILE_HEADER as u64 {
            match Header::read(&self.kept[..FILE_HEADER]) {
                Ok(header) => {
                    self.order = Some(header.order);
                    self.safe = self.at;
                    self.last = 0;
                }
                Err(NoHeader::Absent) => self.stop = Some(Stop::Blank),
                Err(NoHeader::Wrong(why)) => self.stop = Some(Stop::Bad(why)),
            }
        }
        taken
    }

    fn take_record(&mut self, bytes: &[u8]) -> usize {
        let have = (self.at - self.safe) as usize;
        if have < RECORD_HEADER {
            let taken = self.keep(bytes, RECORD_HEADER);
            if have + taken == RECORD_HEADER {
                self.stop = self.judge_header();
            }
            return taken;
        }
        let order = self.order.unwrap_or(Order::Little);
        let length = order.u32(&self.kept, 4) as usize;
        let body = &bytes[..bytes.len().min(length - have)];
        let kept = body.len().min(KEPT.saturating_sub(have));
        self.kept[have.min(KEPT)..][..kept].copy_from_slice(&body[..kept]);
        self.hash.update(body);
        self.at += body.len() as u64;
        if have + body.len() == length {
            self.finish(order, length);
        }
        body.len()
    }

    /// Looks at prev and len, once they are there.
    fn judge_header(&self) -> Option<Stop> {
        let order = self.order.unwrap_or(Order::Little);
        let (previous, length) = (order.u32(&self.kept, 0), order.u32(&self.kept, 4));
        if length == 0 {
            return Some(Stop::Blank);
        }
        if !(RECORD_HEADER as u32 + RECORD_BODY as u32..=RECORD_MAX).contains(&length) {
            return Some(Stop::Bad(format!("record length {length} is impossible")));
        }
        if previous != self.last {
            return Some(Stop::Bad(format!(
                "record says that the one before it is at {previous}, it is at {}",
                self.last
            )));
        }
        None
    }

    /// All bytes of a record are there: believe it if its checksum is right.
    fn finish(&mut self, order: Order, length: usize) {
        let (previous, stored) = (order.u32(&self.kept, 0), order.u32(&self.kept, 8));
        let computed = self.hash.checksum(previous, length as u32);
        self.hash = Hash::default();
        if stored != computed {
            self.stop = Some(Stop::Bad(format!("record checksum is {stored:#010x}, its bytes give {computed:#010x}")));
            return;
        }
        self.last = self.safe as u32;
        self.safe = self.at;
        if let (Some(checkpoints), TXN_CKP) = (&mut self.checkpoints, order.u32(&self.kept, 12))
            && length >= 36
        {
            let begins = Segment::new(1, u64::from(order.u32(&self.kept, 28))).at(u64::from(order.u32(&self.kept, 32)));
            checkpoints.push(Checkpoint { offset: u64::from(self.last), begins });
        }
        let time = match order.u32(&self.kept, 12) {
            TXN_REGOP if length >= 36 => order.u32(&self.kept, 32),
            TXN_CKP if length >= 48 => order.u32(&self.kept, 44),
            _ => return,
        };
        // The field is a signed 32-bit time_t (`db_auto.h`).
        let time = Time::from_seconds(i64::from(time.cast_signed()));
        self.past |= self.until.is_some_and(|until| time > until);
        if !self.past {
            self.boundary = Some(Mark { offset: self.safe, time: Some(time) });
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

    /// See [`super::Scanner::closure`]: the next file's header names this file's last record.
    pub fn closure(&self, beside: Beside<'_>) -> Closure {
        match Header::read(beside.next) {
            Err(NoHeader::Absent) => Closure::Open,
            Err(NoHeader::Wrong(why)) => Closure::Damaged(format!("the next file's header is wrong: {why}")),
            Ok(header) if self.order.is_some_and(|order| order != header.order) => {
                Closure::Damaged(format!("the next file is in {}-endian byte order, this one is not", header.order))
            }
            Ok(header) if self.safe > 0 && header.previous == self.last => Closure::Closed,
            Ok(header) => Closure::Damaged(format!(
                "the next file says that the last record here is at {}, the last whole record is at {}{}",
                header.previous,
                self.last,
                self.trouble().map(|why| format!(" and behind it {why}")).unwrap_or_default(),
            )),
        }
    }
}

#[cfg(test)]
mod tests;
