//! Records: what is kept of one while its bytes come, and what it says.

use super::header::{u32_at, u64_at};
use crate::value::time::Time;

/// Bytes of a record's header: length, transaction, previous record, info, resource manager, checksum.
pub(super) const RECORD_HEADER: usize = 24;
/// Where the checksum is in it; it covers what is behind the header, then what is before this.
pub(super) const CHECKSUM: usize = 20;
/// First bytes of a record that are kept: enough for its transaction's time.
pub(super) const KEPT: usize = 64;
/// Longest record that is believed (`XLogRecordMaxSize` is 1020 MiB; older releases had no limit below 1 GiB).
pub(super) const RECORD_MAX: u32 = 1 << 30;
/// Microseconds from 1970 to 2000, PostgreSQL's epoch.
const EPOCH: i64 = 946_684_800_000_000;

/// A record of which not all bytes were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partial {
    pub(super) kept: [u8; KEPT],
    pub(super) have: u64,
    pub(super) crc: u32,
    /// Where it begins in the log.
    pub(super) start: u64,
}

impl Partial {
    pub(super) const NONE: Partial = Partial { kept: [0; KEPT], have: 0, crc: 0, start: 0 };

    /// Length without and with what aligns the next record; both 0 while not known.
    pub(super) fn length(&self) -> (u64, u64) {
        let length = if self.have < 4 { 0 } else { u64::from(u32_at(&self.kept, 0)) };
        (length, length.next_multiple_of(8))
    }

    /// Bytes that the header of the next page must announce.
    pub(super) fn left(&self) -> u64 {
        self.length().0.saturating_sub(self.have)
    }
}

/// A place in the log as PostgreSQL prints it.
pub(super) fn show(place: u64) -> String {
    format!("{:X}/{:X}", place >> 32, place & 0xffff_ffff)
}

/// `XLOG_SWITCH`: the rest of the segment is not used.
pub(super) fn is_switch(record: &[u8; KEPT]) -> bool {
    let (info, manager) = (record[16], record[17]);
    manager == 0 && info & 0xf0 == 0x40
}

/// When a transaction ended, or a restore point was set, if that is what a record says.
pub(super) fn ending(record: &[u8; KEPT]) -> Option<Time> {
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
