//! The two files of a journal: `journal`, which grows while a sync runs, and `committed`, the list that is replayed.
//!
//! # Bytes
//!
//! Numbers are little-endian. Both begin with a header of 48 bytes; records follow.
//!
//! ```text
//! magic     16 bytes   "repl-sync log v1" or "repl-sync fin v1"
//! journal   16 bytes   random: which journal this is
//! root      u64        inode of the destination in `committed`; else 0
//! dress     u32        in `committed`: 1 owners and groups are set, 2 device nodes are made; else 0
//! crc32c    u32        of the 44 bytes before
//!
//! length    u32        of the payload: 1 to 2^30
//! crc32c    u32        of the payload
//! payload              an op (see [`super::op`]), or:
//!                      F name text                  (log) no op is needed for this name any more
//!                      E ops u64, digest 32         (committed, the last) how many ops, and BLAKE3 of all bytes before
//! ```
//!
//! In the log the newest record of a name counts. In `committed` there is one for each name: first what is removed, the
//! deepest first, then all else in the order of names.

use std::fmt;
use std::io::{self, Read};

use super::op::{Op, parse_name};
use crate::value::name::Name;
use crate::value::octets::{Reader, put_text};

/// Begins a log.
pub const LOG: [u8; 16] = *b"repl-sync log v1";
/// Begins a committed list.
pub const FINAL: [u8; 16] = *b"repl-sync fin v1";
/// Bytes of a header.
pub const HEADER: usize = 48;
/// Most bytes of a payload.
pub const PAYLOAD_MAX: u32 = 1 << 30;

/// Which journal something is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub [u8; 16]);

/// The beginning of either file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`LOG`] or [`FINAL`].
    pub magic: [u8; 16],
    /// Which journal.
    pub id: Id,
    /// Inode of the destination; 0 in a log.
    pub root: u64,
    /// Bits of what may be put on; 0 in a log.
    pub dress: u32,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What is to be done.
    Op(Box<Op>),
    /// Nothing is to be done to this name any more.
    Forget(Name),
    /// The end of a committed list: how many ops came, and BLAKE3 of all bytes before this record.
    End(u64, [u8; 32]),
}

impl Id {
    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Id> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Id(bytes))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl Header {
    /// Its bytes.
    pub fn print(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..16].copy_from_slice(&self.magic);
        out[16..32].copy_from_slice(&self.id.0);
        out[32..40].copy_from_slice(&self.root.to_le_bytes());
        out[40..44].copy_from_slice(&self.dress.to_le_bytes());
        let crc = crc32c::crc32c(&out[..44]);
        out[44..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads one with this magic.
    pub fn parse(bytes: &[u8; HEADER], magic: [u8; 16]) -> Option<Header> {
        let mut reader = Reader::new(bytes);
        let (found, id) = (reader.take(16)?, reader.take(16)?);
        let header = Header { magic, id: Id(id.try_into().ok()?), root: reader.u64()?, dress: reader.u32()? };
        (found == magic && header.print() == *bytes).then_some(header)
    }
}

impl Record {
    /// Reads a payload.
    pub fn parse(payload: &[u8]) -> Option<Record> {
        let mut reader = Reader::new(payload);
        let record = match payload.first()? {
            b'F' => {
                reader.byte()?;
                Record::Forget(parse_name(&mut reader)?)
            }
            b'E' => {
                reader.byte()?;
                Record::End(reader.u64()?, reader.digest()?)
            }
            _ => Record::Op(Op::parse(&mut reader)?.into()),
        };
        reader.is_empty().then_some(record)
    }

    /// Its bytes, framed; `None` when that are too many.
    pub fn print(&self) -> Option<Vec<u8>> {
        let mut out = vec![0; 8];
        match self {
            Record::Op(op) => op.print(&mut out),
            Record::Forget(name) => {
                out.push(b'F');
                put_text(&mut out, name.bytes());
            }
            Record::End(count, digest) => {
                out.push(b'E');
                out.extend(count.to_le_bytes());
                out.extend(digest);
            }
        }
        let length = u32::try_from(out.len() - 8).ok().filter(|length| *length <= PAYLOAD_MAX)?;
        let crc = crc32c::crc32c(&out[8..]);
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        Some(out)
    }
}

/// Reads the next payload into `payload`; false where no whole, right record is left.
pub fn next(input: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<bool> {
    let mut head = Vec::with_capacity(8);
    input.take(8).read_to_end(&mut head)?;
    let mut reader = Reader::new(&head);
    let (Some(length), Some(crc)) = (reader.u32(), reader.u32()) else {
        return Ok(false);
    };
    if length == 0 || length > PAYLOAD_MAX {
        return Ok(false);
    }
    payload.clear();
    // Memory is taken as bytes come, and not for what a damaged length says.
    input.take(length.into()).read_to_end(payload)?;
    Ok(payload.len() == length as usize && crc32c::crc32c(payload) == crc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_any_other_bit_is_refused() {
        let header = Header { magic: FINAL, id: Id([9; 16]), root: 77, dress: 1 };
        let bytes = header.print();
        assert_eq!(Header::parse(&bytes, FINAL), Some(header));
        assert_eq!(Header::parse(&bytes, LOG), None);
        for bit in 0..8 * HEADER {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&flipped, FINAL), None, "{bit}");
        }
        assert_eq!(Id::parse(&header.id.to_string()), Some(header.id));
        assert_eq!(Id::parse("+9090909090909090909090909090909"), None);
    }

    #[test]
    fn records_are_read_up_to_the_first_that_is_torn() {
        let records = [
            Record::Forget(Name::parse(b"a/b").unwrap()),
            Record::Op(Op::Remove { name: Name::parse(b"c").unwrap(), is_directory: false }.into()),
            Record::End(1, [3; 32]),
        ];
        let framed: Vec<Vec<u8>> = records.iter().map(|record| record.print().unwrap()).collect();
        let all = framed.concat();
        let starts = [0, framed[0].len(), framed[0].len() + framed[1].len(), all.len()];
        let read = |mut bytes: &[u8]| {
            let mut payload = Vec::new();
            let mut found = Vec::new();
            while next(&mut bytes, &mut payload).unwrap() {
                found.push(Record::parse(&payload).unwrap());
            }
            found
        };
        assert_eq!(read(&all), records);
        for end in 0..all.len() {
            let whole = starts.iter().filter(|start| **start <= end).count() - 1;
            assert_eq!(read(&all[..end]), records[..whole], "cut at {end}");
            let mut flipped = all.clone();
            flipped[end] ^= 0x10;
            assert_eq!(read(&flipped), records[..whole], "flipped at {end}");
        }
        assert!(read(&[0; 100]).is_empty());
    }
}
