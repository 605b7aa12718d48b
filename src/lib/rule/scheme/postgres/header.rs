//! Page headers.

/// Bytes of a page (`XLOG_BLCKSZ`; other sizes need a server built for them).
pub(super) const PAGE: u64 = 8192;
/// Bytes of a page's header, and of that of a segment's first page.
pub(super) const SHORT_HEADER: usize = 24;
pub(super) const LONG_HEADER: usize = 40;

/// The page goes on with a record of the one before.
const CONTINUES: u16 = 1;
const LONG: u16 = 2;
/// It does not, though the one before ends with an unfinished record: a crash came in between.
const OVERWRITES: u16 = 8;

/// What a page says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) magic: u16,
    pub(super) is_long: bool,
    pub(super) overwrites: bool,
    pub(super) timeline: u32,
    /// Its place in the log.
    pub(super) address: u64,
    /// Bytes that are left of a record from the page before.
    pub(super) continues: Option<u32>,
}

impl Page {
    /// Reads a header; `None` for anything else.
    pub(super) fn read(head: &[u8]) -> Option<Page> {
        let magic = u16_at(head.get(..SHORT_HEADER)?, 0);
        let flags = u16_at(head, 2);
        // 0xD08. is 9.5, 0xD110 is 15: each release has its own, and they rise.
        if !(0xd080..0xd200).contains(&magic) || flags > 0xf {
            return None;
        }
        let is_long = flags & LONG != 0;
        if is_long && head.len() < LONG_HEADER {
            return None;
        }
        Some(Page {
            magic,
            is_long,
            overwrites: flags & OVERWRITES != 0,
            timeline: u32_at(head, 4),
            address: u64_at(head, 8),
            continues: (flags & CONTINUES != 0).then(|| u32_at(head, 16)),
        })
    }
}

// Callers have looked at the length; a short slice reads as zeros.
fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    if let Some(found) = from.get(at..at + N) {
        bytes.copy_from_slice(found);
    }
    bytes
}

pub(super) fn u16_at(from: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(from, at))
}

pub(super) fn u32_at(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

pub(super) fn u64_at(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}
