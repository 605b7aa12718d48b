//! A binary log that is built here.

use super::super::*;

/// Builds a file event by event, from the published layout and not with the scanner's own code.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) bytes: Vec<u8>,
    /// Where each event begins; the first one with the magic before it.
    pub(super) starts: Vec<usize>,
    /// Where each transaction ends.
    pub(super) ends: Vec<usize>,
    is_checked: bool,
    time: u32,
    sequence: u64,
}

impl Log {
    /// Magic, format description, and a list of the transactions before.
    pub(super) fn new(is_checked: bool, list: &[Gtid]) -> Log {
        let bytes = vec![0xfe, b'b', b'i', b'n'];
        let mut log = Log { bytes, starts: vec![0], ends: Vec::new(), is_checked, time: 1000, sequence: 0 };
        let mut version = b"10.11.6-MariaDB-log".to_vec();
        version.resize(50, 0);
        let mut body = [&[4, 0], version.as_slice(), &[0; 4], &[19]].concat();
        body.resize(body.len() + 172, 56);
        body.push(u8::from(is_checked));
        // The checksum leaves the flag out.
        log.event(15, 0, &body, true);
        let at = log.bytes.len();
        log.starts = vec![0];
        log.list(list);
        assert_eq!(log.starts, [0, at]);
        log.set_in_use(true);
        log
    }

    /// Two transactions, a statement of its own, and the rest of what there is.
    pub(super) fn sample(is_checked: bool) -> Log {
        let mut log = Log::new(is_checked, &[]);
        log.transaction(100);
        log.statement(b"create table t (a int)");
        log.event(161, 0, b"\x0d\0\0\0log.000001", is_checked);
        log.transaction(300);
        log
    }

    pub(super) fn set_in_use(&mut self, is_in_use: bool) {
        self.bytes[21] = self.bytes[21] & !1 | u8::from(is_in_use);
    }

    /// An event at the end of the file.
    pub(super) fn event(&mut self, kind: u8, flags: u16, body: &[u8], is_checked: bool) {
        let start = if self.bytes.len() == 4 { 0 } else { self.bytes.len() };
        let length = (19 + body.len() + if is_checked { 4 } else { 0 }) as u32;
        let next = self.bytes.len() as u32 + length;
        let mut event = self.time.to_le_bytes().to_vec();
        event.push(kind);
        for word in [7, length, next] {
            event.extend(u32::to_le_bytes(word));
        }
        event.extend(flags.to_le_bytes());
        event.extend(body);
        if is_checked {
            event.extend(crc32(&event).to_le_bytes());
        }
        if start > 0 {
            self.starts.push(start);
        }
        self.bytes.extend(event);
    }

    fn put(&mut self, kind: u8, body: &[u8]) {
        self.event(kind, 0, body, self.is_checked);
    }

    fn list(&mut self, list: &[Gtid]) {
        let mut body = (list.len() as u32).to_le_bytes().to_vec();
        for gtid in list {
            body.extend([gtid.domain.to_le_bytes(), gtid.server.to_le_bytes()].concat());
            body.extend(gtid.sequence.to_le_bytes());
        }
        self.put(163, &body);
    }

    /// A GTID event; returns the name.
    pub(super) fn gtid(&mut self, flags: u8) -> Gtid {
        self.sequence += 1;
        self.time += 10;
        let gtid = Gtid { domain: 3, server: 7, sequence: self.sequence };
        let body = [self.sequence.to_le_bytes().as_slice(), &3u32.to_le_bytes(), &[flags], &[0; 6]].concat();
        self.put(162, &body);
        gtid
    }

    pub(super) fn query(&mut self, text: &[u8]) {
        let variables = [0, 0, 0, 0, 0, 1, 0, 0];
        let fixed = [1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, variables.len() as u8, 0];
        self.put(2, &[fixed.as_slice(), &variables, b"test\0", text].concat());
    }

    pub(super) fn transaction(&mut self, length: usize) -> Gtid {
        let gtid = self.gtid(0x0c);
        self.put(160, b"insert");
        self.put(19, &[0; 20]);
        self.put(23, &vec![9; length]);
        // No zeros at its end: with those a torn one would be whole.
        self.put(16, &[1; 8]);
        self.ends.push(self.bytes.len());
        gtid
    }

    pub(super) fn statement(&mut self, text: &[u8]) -> Gtid {
        let gtid = self.gtid(0x29);
        self.put(5, &[0; 9]);
        self.query(text);
        self.ends.push(self.bytes.len());
        gtid
    }

    /// Ends the file by naming another.
    pub(super) fn rotate(&mut self, name: &str) {
        self.put(4, &[&[4, 0, 0, 0, 0, 0, 0, 0], name.as_bytes()].concat());
    }

    pub(super) fn stop(&mut self) {
        self.put(3, b"");
    }

    /// The name of the last transaction.
    pub(super) fn last(&self) -> Gtid {
        Gtid { domain: 3, server: 7, sequence: self.sequence }
    }

    /// How a file behind this one begins.
    pub(super) fn next(&self) -> Log {
        Log::new(self.is_checked, &[Gtid { domain: 9, server: 9, sequence: 9 }, self.last()])
    }

    /// The last event's end at or before `end`.
    pub(super) fn end_within(&self, end: usize) -> usize {
        let ends = self.starts[1..].iter().copied().chain([self.bytes.len()]);
        ends.filter(|at| *at <= end).max().unwrap_or(0)
    }
}

/// CRC-32 as defined, bit by bit.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
