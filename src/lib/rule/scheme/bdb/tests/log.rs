//! A log file that is built here.

use super::super::*;
use super::ADDREM;

/// Builds a log file record by record, from the published layout and not with the scanner's own code.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) order: Order,
    pub(super) bytes: Vec<u8>,
    /// Where each record begins, the file's header first.
    pub(super) starts: Vec<usize>,
}

impl Log {
    /// A file whose predecessor's last record is at `previous`.
    pub(super) fn new(order: Order, previous: u32) -> Log {
        let mut log = Log { order, bytes: Vec::new(), starts: Vec::new() };
        let body = [MAGIC, 19, 100_000, 0].map(|word| log.word(word)).concat();
        log.raw(previous, &body);
        log
    }

    /// Header, three records that are no boundary, a commit, a checkpoint, one more record: 372 bytes.
    pub(super) fn sample(order: Order) -> Log {
        let mut log = Log::new(order, 0);
        log.record(ADDREM, b"one");
        log.record(ADDREM, &[7; 100]);
        log.record(ADDREM, b"");
        log.commit(1000);
        log.checkpoint(2000);
        log.record(ADDREM, b"behind the last boundary");
        log
    }

    pub(super) fn word(&self, word: u32) -> [u8; 4] {
        match self.order {
            Order::Little => word.to_le_bytes(),
            Order::Big => word.to_be_bytes(),
        }
    }

    pub(super) fn raw(&mut self, previous: u32, body: &[u8]) {
        self.starts.push(self.bytes.len());
        let length = (RECORD_HEADER + body.len()) as u32;
        let checksum = by_definition(body) ^ previous ^ length;
        let head = [previous, length, checksum].map(|word| self.word(word)).concat();
        self.bytes.extend([&head, body].concat());
    }

    pub(super) fn record(&mut self, kind: u32, rest: &[u8]) {
        // The first record of a file names the header record, at 0.
        let previous = *self.starts.last().unwrap() as u32;
        let head = [kind, 0x8000_0001, 1, 28].map(|word| self.word(word)).concat();
        self.raw(previous, &[&head, rest].concat());
    }

    pub(super) fn commit(&mut self, time: i32) {
        let rest = [1, time.cast_unsigned(), 99].map(|word| self.word(word)).concat();
        self.record(TXN_REGOP, &rest);
    }

    pub(super) fn checkpoint(&mut self, time: i32) {
        let rest = [1, 28, 1, 28, time.cast_unsigned(), 99, 0].map(|word| self.word(word)).concat();
        self.record(TXN_CKP, &rest);
    }

    pub(super) fn last(&self) -> u32 {
        *self.starts.last().unwrap() as u32
    }

    /// The end of the last record that is whole within so many bytes.
    pub(super) fn end_within(&self, count: usize) -> usize {
        let ends = self.starts[1..].iter().copied().chain([self.bytes.len()]);
        ends.filter(|end| *end <= count).max().unwrap_or(0)
    }

    /// The first bytes of the file that follows this one.
    pub(super) fn next_head(&self) -> Vec<u8> {
        let mut head = Log::new(self.order, self.last()).bytes;
        head.resize(super::super::super::HEAD, 0);
        head
    }
}

/// The hash as `__ham_func4` defines it.
pub(super) fn by_definition(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}
