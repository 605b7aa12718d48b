//! Events as bytes: the header of 19 bytes, and the few bodies that the scanner must understand.

use super::KEPT;
use crate::value::time::Time;

/// The first bytes of a file.
pub(super) const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
/// Bytes of an event's header: time, kind, server, length, next, flags.
pub(super) const HEADER: usize = 19;
/// Bytes of the checksum behind an event.
pub(super) const CHECKSUM: usize = 4;

pub(super) const QUERY: u8 = 2;
pub(super) const STOP: u8 = 3;
pub(super) const ROTATE: u8 = 4;
const INTVAR: u8 = 5;
const RAND: u8 = 13;
const USER_VAR: u8 = 14;
const FORMAT_DESCRIPTION: u8 = 15;
pub(super) const XID: u8 = 16;
const TABLE_MAP: u8 = 19;
pub(super) const INCIDENT: u8 = 26;
pub(super) const XA_PREPARE: u8 = 38;
const ANNOTATE_ROWS: u8 = 160;
pub(super) const GTID: u8 = 162;
pub(super) const GTID_LIST: u8 = 163;
pub(super) const START_ENCRYPTION: u8 = 164;

/// Bytes of a query event's fixed part: thread, seconds, length of the database's name, error, length of variables.
const QUERY_FIXED: usize = 13;
/// Where a format description has the server's version, and how long it is: behind header and format version.
const VERSION: usize = HEADER + 2;
const VERSION_LENGTH: usize = 50;

/// What every event begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    seconds: u32,
    pub(super) kind: u8,
    pub(super) length: u32,
    /// The low half of where the next event begins.
    pub(super) next: u32,
}

impl Header {
    /// Reads [`HEADER`] bytes; the caller has made sure that they are there.
    pub(super) fn read(bytes: &[u8]) -> Header {
        Header { seconds: u32_at(bytes, 0), kind: bytes[4], length: u32_at(bytes, 9), next: u32_at(bytes, 13) }
    }

    /// By the master's clock.
    pub(super) fn time(self) -> Time {
        Time::from_seconds(i64::from(self.seconds))
    }
}

/// The first event of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    /// Where it ends in the file.
    pub(super) end: usize,
    /// Whether events have a checksum.
    pub(super) is_checked: bool,
    /// The server's version: letters, digits and `.+~_-`.
    pub(super) version: String,
}

/// Why the first bytes of a file are no whole format description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// They are its beginning.
    Short,
    /// They are not: why.
    Wrong(String),
}

/// Where the first event ends, by its header behind the magic; never more than what is kept of an event.
pub(super) fn description_end(head: &[u8]) -> usize {
    (MAGIC.len() + Header::read(&head[MAGIC.len()..]).length as usize).min(KEPT)
}

impl Description {
    pub(super) fn read(head: &[u8]) -> Result<Description, Beginning> {
        let wrong = |why: String| Err(Beginning::Wrong(why));
        if !head.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic) {
            return wrong("it is no MariaDB binary log".to_owned());
        }
        if head.len() < MAGIC.len() + HEADER {
            return Err(Beginning::Short);
        }
        let header = Header::read(&head[MAGIC.len()..]);
        let least = VERSION + VERSION_LENGTH + 1 + CHECKSUM;
        if header.kind != FORMAT_DESCRIPTION || !(least..=KEPT - MAGIC.len()).contains(&(header.length as usize)) {
            return wrong(format!("it begins with event {} of {} bytes", header.kind, header.length));
        }
        let end = MAGIC.len() + header.length as usize;
        let Some(event) = head.get(MAGIC.len()..end) else {
            return Err(Beginning::Short);
        };
        // It always has a checksum, which leaves out the flag that is rewritten.
        let (body, stored) = event.split_at(event.len() - CHECKSUM);
        let mut body = body.to_vec();
        body[super::IN_USE.offset as usize - MAGIC.len()] &= !super::IN_USE.bits;
        let (stored, computed) = (u32_at(stored, 0), crc32fast::hash(&body));
        if stored != computed {
            return wrong(format!("its first event's checksum is {stored:#010x}, its bytes give {computed:#010x}"));
        }
        let is_checked = match body[body.len() - 1] {
            0 => false,
            1 => true,
            other => return wrong(format!("it has checksums of kind {other}")),
        };
        let version = &body[VERSION..VERSION + VERSION_LENGTH];
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".+~_-".contains(byte);
        let version = version.iter().take_while(|byte| **byte != 0).filter(|byte| is_plain(byte));
        Ok(Description { end, is_checked, version: version.map(|byte| char::from(*byte)).collect() })
    }
}

/// Whether an event of this kind cannot be the last of a standalone group (`is_part_of_group` in the server).
pub(super) fn goes_before_another(kind: u8) -> bool {
    matches!(kind, GTID | INTVAR | RAND | USER_VAR | TABLE_MAP | ANNOTATE_ROWS)
}

/// Whether a query is the server's own `COMMIT` or `ROLLBACK`, by the first and last bytes of an event of this length
/// without checksum.
pub(super) fn is_commit_or_rollback(kept: &[u8], tail: &[u8], length: usize) -> bool {
    if length < HEADER + QUERY_FIXED {
        return false;
    }
    let database = usize::from(kept[HEADER + 8]);
    let variables = usize::from(u16::from_le_bytes([kept[HEADER + 11], kept[HEADER + 12]]));
    // The database's name ends with a zero.
    let text = length.checked_sub(HEADER + QUERY_FIXED + variables + database + 1);
    [b"COMMIT".as_slice(), b"ROLLBACK"].iter().any(|word| text == Some(word.len()) && tail.ends_with(word))
}

/// The file that a rotate event names; empty when it names none.
pub(super) fn rotate_name(kept: &[u8]) -> String {
    String::from_utf8_lossy(kept.get(HEADER + 8..).unwrap_or_default()).into_owned()
}

/// The number at this offset; the caller has made sure that it is there.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(word)
}

/// As [`u32_at`].
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}
