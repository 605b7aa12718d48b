//! Frames: a 16-byte header and a bounded payload, each with its own CRC32C, so that no length is believed and no byte
//! is used before it is checked.
//!
//! ```text
//! 0  kind     u8    an ASCII letter
//! 1  flags    u8    bit 0: the data in the payload is compressed
//! 2  zero     u16
//! 4  length   u32   bytes of payload
//! 8  payload  u32   CRC32C of the payload
//! 12 header   u32   CRC32C of bytes 0..12
//! ```
//! Numbers are little-endian.

use super::{Corrupt, corrupt};

/// Bytes of a frame header.
pub const HEADER: usize = 16;
/// Most bytes of log in one data frame.
pub const DATA_MAX: usize = 1 << 20;
/// Most bytes of an aux file.
pub const AUX_MAX: usize = 1 << 16;
/// Most bytes of a compressed data frame's payload: a little more than the data, as incompressible blocks may be.
const PACKED_MAX: usize = DATA_MAX + (DATA_MAX >> 6) + 1024;
/// Flag: the log bytes in this data frame are compressed.
pub const COMPRESSED: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Who ships, and what.
    Hello = b'H',
    /// A segment (or the rest of one) begins.
    Begin = b'B',
    /// Log bytes.
    Data = b'D',
    /// Log bytes that are all zero.
    Hole = b'Z',
    /// All up to here is whole transactions.
    Mark = b'M',
    /// The segment is complete.
    End = b'E',
    /// A few bytes that the engine rewrote when it closed the segment.
    Patch = b'P',
    /// A small file beside the log.
    Aux = b'A',
    /// Still here; the master's end and clock.
    Heartbeat = b'T',
    /// An orderly end of the stream.
    Bye = b'Q',
}

/// Every kind with the least and the most bytes of its payload.
pub const KINDS: [(Kind, usize, usize); 10] = [
    (Kind::Hello, 4, 4096),
    (Kind::Begin, 80, 136),
    (Kind::Data, 9, 12 + PACKED_MAX),
    (Kind::Hole, 16, 16),
    (Kind::Mark, 48, 48),
    (Kind::End, 40, 40),
    (Kind::Patch, 9, 8 + 64),
    (Kind::Aux, 2, 1 + 255 + AUX_MAX),
    (Kind::Heartbeat, 32, 32),
    (Kind::Bye, 24, 24),
];

/// A frame header that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: Kind,
    /// [`COMPRESSED`] or 0.
    pub flags: u8,
    /// Bytes of payload, within the bounds of the kind.
    pub length: usize,
    checksum: u32,
}

/// The header of a frame whose payload is these parts, one after the other.
pub fn header(kind: Kind, flags: u8, parts: &[&[u8]]) -> [u8; HEADER] {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let payload = parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part));
    let mut bytes = [0; HEADER];
    bytes[0] = kind as u8;
    bytes[1] = flags;
    bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[8..12].copy_from_slice(&payload.to_le_bytes());
    let own = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&own.to_le_bytes());
    bytes
}

impl Header {
    /// Checks a header.
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Header, Corrupt> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (stored, computed) = (word(12), crc32c::crc32c(&bytes[..12]));
        if stored != computed {
            return corrupt(format!("frame header checksum is {stored:08x}, its bytes give {computed:08x}"));
        }
        let Some((kind, least, most)) = KINDS.into_iter().find(|(kind, ..)| *kind as u8 == bytes[0]) else {
            return corrupt(format!("frame kind {:#04x} is unknown", bytes[0]));
        };
        let (flags, length) = (bytes[1], word(4) as usize);
        if flags & !COMPRESSED != 0 || (flags != 0 && kind != Kind::Data) || bytes[2..4] != [0, 0] {
            return corrupt(format!("{kind:?} frame has unknown flags"));
        }
        if !(least..=most).contains(&length) {
            return corrupt(format!("{kind:?} frame of {length} bytes, allowed are {least} to {most}"));
        }
        Ok(Header { kind, flags, length, checksum: word(8) })
    }

    /// Checks the payload that came with this header.
    pub fn check(&self, payload: &[u8]) -> Result<(), Corrupt> {
        let computed = crc32c::crc32c(payload);
        if computed == self.checksum {
            return Ok(());
        }
        corrupt(format!("{:?} frame checksum is {:08x}, its bytes give {computed:08x}", self.kind, self.checksum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back() {
        let bytes = header(Kind::Bye, 0, &[&[1; 20], &[2; 4]]);
        let parsed = Header::parse(&bytes).unwrap();
        assert_eq!((parsed.kind, parsed.length), (Kind::Bye, 24));
        let mut payload = vec![1; 20];
        payload.extend([2; 4]);
        assert_eq!(parsed.check(&payload), Ok(()));
        payload[3] ^= 4;
        assert!(parsed.check(&payload).is_err());
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let bytes = header(Kind::Mark, 0, &[&[7; 48]]);
        for bit in 0..HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::parse(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_flags_and_kinds_out_of_bounds_are_refused_though_their_checksum_is_right() {
        assert!(Header::parse(&header(Kind::Bye, 0, &[&[0; 25]])).is_err());
        assert!(Header::parse(&header(Kind::Data, 2, &[&[0; 20]])).is_err());
        assert!(Header::parse(&header(Kind::Hole, COMPRESSED, &[&[0; 16]])).is_err());
        let huge = vec![0; DATA_MAX * 2];
        assert!(Header::parse(&header(Kind::Data, 0, &[&huge])).is_err());
    }
}
