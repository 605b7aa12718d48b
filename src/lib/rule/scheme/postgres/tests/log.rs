//! A log that is built here.

use std::sync::LazyLock;

use super::super::*;

/// The cluster that all logs here are of, with the smallest segments, and the first segment of a log.
pub(super) const SYSTEM: u64 = 7_310_000_000_000_000_001;
pub(super) const SIZE: u64 = 1 << 20;
pub(super) const FIRST: u64 = 5;

pub(super) fn cluster() -> Cluster {
    Cluster::new(&SYSTEM.to_string(), SIZE).unwrap()
}

/// Builds a log record by record, from the published layout and not with the scanner's own code.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) timeline: u32,
    pub(super) system: u64,
    pub(super) magic: u16,
    /// All bytes since the beginning of segment [`FIRST`].
    pub(super) bytes: Vec<u8>,
    /// Beginning and end of each whole record, as offsets in `bytes`.
    pub(super) records: Vec<(usize, usize)>,
    /// The next page tells that the record before it was given up.
    gave_up: bool,
}

impl Log {
    pub(super) fn new() -> Log {
        Log { timeline: 1, system: SYSTEM, magic: 0xd110, bytes: Vec::new(), records: Vec::new(), gave_up: false }
    }

    /// Records of many kinds on three pages, the third not full; the second begins inside a record, the third too.
    pub(super) fn sample() -> Log {
        let mut log = Log::new();
        log.plain(40);
        log.commit(1000);
        log.plain(7900);
        log.commit(2000);
        log.plain(9000);
        log.plain(3);
        log.commit(3000);
        log.plain(100);
        log
    }

    fn header(&mut self, left: usize) {
        let at = self.bytes.len() as u64;
        let is_first = at.is_multiple_of(SIZE);
        let overwrites = std::mem::take(&mut self.gave_up);
        let flags = u16::from(left > 0) | u16::from(is_first) << 1 | u16::from(overwrites) << 3;
        self.bytes.extend(self.magic.to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend((FIRST * SIZE + at).to_le_bytes());
        self.bytes.extend((left as u32).to_le_bytes());
        self.bytes.extend([0; 4]);
        if is_first {
            self.bytes.extend(self.system.to_le_bytes());
            self.bytes.extend((SIZE as u32).to_le_bytes());
            self.bytes.extend(8192u32.to_le_bytes());
        }
    }

    /// Where the next record begins: behind the header of its page.
    pub(super) fn next_start(&self) -> usize {
        let at = self.bytes.len();
        match at % 8192 {
            0 if (at as u64).is_multiple_of(SIZE) => at + 40,
            0 => at + 24,
            _ => at,
        }
    }

    /// Where the last whole record begins, as the next one names it.
    pub(super) fn last(&self) -> u64 {
        self.records.last().map_or(0x1000, |(start, _)| FIRST * SIZE + *start as u64)
    }

    /// A record of a resource manager; `body` is all behind its header.
    pub(super) fn record(&mut self, manager: u8, info: u8, body: &[u8]) {
        let previous = self.last();
        self.raw(manager, info, previous, body);
    }

    pub(super) fn raw(&mut self, manager: u8, info: u8, previous: u64, body: &[u8]) {
        let mut record = Vec::new();
        record.extend((24 + body.len() as u32).to_le_bytes());
        record.extend(700u32.to_le_bytes());
        record.extend(previous.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let crc = crc_by_definition(&[body, &record].concat());
        record.extend(crc.to_le_bytes());
        record.extend(body);
        let start = self.next_start();
        let mut rest = record.as_slice();
        while !rest.is_empty() {
            if self.bytes.len().is_multiple_of(8192) {
                let left = if rest.len() < record.len() { rest.len() } else { 0 };
                self.header(left);
            }
            let count = rest.len().min(8192 - self.bytes.len() % 8192);
            self.bytes.extend(&rest[..count]);
            rest = &rest[count..];
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.records.push((start, self.bytes.len()));
    }

    /// One that is no boundary, with so many bytes of data that hold no zero.
    pub(super) fn plain(&mut self, length: usize) {
        let data = (0..length).map(|at| (at % 255) as u8 + 1);
        let body: Vec<u8> = [254].into_iter().chain((length as u32).to_le_bytes()).chain(data).collect();
        self.record(10, 0x20, &body);
    }

    /// The end of a transaction, so many seconds after 2000.
    pub(super) fn commit(&mut self, seconds: i64) {
        let data = [(seconds * 1_000_000).to_le_bytes().as_slice(), &[1, 0, 0, 0]].concat();
        self.record(1, 0x80, &[&[255, 12], data.as_slice()].concat());
    }

    /// A plain record that ends at an offset, which must leave room for one.
    pub(super) fn plain_to(&mut self, end: usize) {
        let start = self.next_start();
        let first = start.next_multiple_of(8192);
        let headers: usize =
            (first..end).step_by(8192).map(|at| if (at as u64).is_multiple_of(SIZE) { 40 } else { 24 }).sum();
        self.plain(end - start - headers - 29);
        assert_eq!(self.bytes.len(), end);
    }

    /// A switch: the rest of the segment is zeros.
    pub(super) fn switch(&mut self) {
        self.record(0, 0x40, &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(SIZE as usize), 0);
    }

    /// The last record is torn by a crash at a page's beginning: the server goes on there.
    pub(super) fn give_up(&mut self, page: usize) {
        let (start, _) = self.records.pop().unwrap();
        assert!(start < page && page.is_multiple_of(8192) && page < self.bytes.len());
        self.bytes.truncate(page);
        self.gave_up = true;
        let lost = (FIRST * SIZE + start as u64).to_le_bytes();
        self.record(0, 0xd0, &[&[255, 16], lost.as_slice(), &[0; 8]].concat());
    }

    /// The whole log so far, as another timeline goes on with it.
    pub(super) fn fork(&self) -> Log {
        Log { timeline: self.timeline + 1, ..self.clone() }
    }

    /// A segment's file: zeros where no log is yet.
    pub(super) fn file(&self, number: u64) -> Vec<u8> {
        let from = ((number - FIRST) * SIZE) as usize;
        let to = self.bytes.len().min(from + SIZE as usize);
        let mut file = self.bytes[from..to].to_vec();
        file.resize(SIZE as usize, 0);
        file
    }

    /// The end of the last record that is whole within so many bytes.
    pub(super) fn end_within(&self, count: usize) -> usize {
        self.records.iter().map(|record| record.1).filter(|end| *end <= count).max().unwrap_or(0)
    }
}

/// CRC-32C: each byte by the polynomial, bit by bit, once.
fn crc_by_definition(bytes: &[u8]) -> u32 {
    static TABLE: LazyLock<Vec<u32>> = LazyLock::new(|| {
        let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        (0..256).map(|byte| (0..8).fold(byte, |crc, _| shift(crc))).collect()
    });
    let table = TABLE.as_slice();
    !bytes.iter().fold(!0, |crc: u32, byte| crc >> 8 ^ table[(crc as u8 ^ byte) as usize])
}
