//! What the two ends of a sync say to each other. The end that holds the destination asks, the end that holds the source
//! tells; each question has a *line* (a number), each line one open question.
//!
//! ```text
//! frame     length u32, kind u8, flags u8, line u16, CRC32C of the payload u32, CRC32C of the 12 bytes before u32,
//!           payload (at most 2 MiB)
//! flags     bit 0: the payload is a zstd frame behind the u32 length of what is in it (at most 2 MiB)
//! ```
//! Numbers are little-endian, texts have their length (u32) in front. Nothing is taken before it is checked: lengths are
//! bounded, names are [`Name`]s, counts are those that the question had.

pub mod ask;
pub mod tell;

use std::cell::RefCell;

use anyhow::Result;
use zstd::bulk::{Compressor, Decompressor};

use crate::value::exit::{Code, Failure};
use crate::value::name::{NAME_MAX, Name};
use crate::value::octets::Reader;

/// Version of this protocol; both ends must have the same.
pub const VERSION: u32 = 1;
/// Bytes of a frame's header.
pub const HEADER: usize = 16;
/// Most bytes of a payload, packed or not.
pub const PAYLOAD_MAX: usize = 2 << 20;
/// Most lines: what bounds the questions that are open at once.
pub const LINES_MAX: u16 = 64;
/// Most files in one question for small ones.
pub const SMALL_MAX: usize = 1024;
/// Most bytes of a text: a message, a command's output.
pub const TEXT_MAX: usize = 1 << 16;
/// Most bytes of a file that a procedure at the source makes.
pub const LAID_MAX: usize = 1 << 20;
const PACKED: u8 = 1;

/// A frame that was checked, unpacked.
#[derive(Debug)]
pub struct Frame {
    /// What it says.
    pub kind: u8,
    /// Whom it is for.
    pub line: u16,
    /// The rest.
    pub payload: Vec<u8>,
}

/// A header that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Bytes of payload that follow.
    pub length: usize,
    kind: u8,
    line: u16,
    is_packed: bool,
    checksum: u32,
}

/// What a peer sent is not what it may send.
pub fn corrupt(why: impl std::fmt::Display) -> anyhow::Error {
    Failure::new(Code::Corrupt, format!("the peer's frames are damaged or foreign: {why}")).into()
}

/// A frame's bytes. `pack` is a zstd level; what does not get smaller goes as it is.
pub fn seal(kind: u8, line: u16, payload: &[u8], pack: Option<i32>) -> Vec<u8> {
    let mut frame = begin(payload.len());
    frame.extend(payload);
    end(frame, kind, line, pack)
}

/// A frame to which a payload of about this length is to be added.
fn begin(length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + length);
    frame.resize(HEADER, 0);
    frame
}

/// The frame with the payload that was added.
fn end(mut frame: Vec<u8>, kind: u8, line: u16, pack: Option<i32>) -> Vec<u8> {
    let payload = &frame[HEADER..];
    let whole = payload.len();
    let packed = pack.filter(|_| whole >= 512).and_then(|level| packed(payload, level));
    let packed = packed.filter(|packed| packed.len() + 4 < whole);
    let flags = if packed.is_some() { PACKED } else { 0 };
    if let Some(packed) = packed {
        frame.truncate(HEADER);
        frame.extend((whole as u32).to_le_bytes());
        frame.extend(packed);
    }
    let (length, checksum) = ((frame.len() - HEADER) as u32, crc32c::crc32c(&frame[HEADER..]));
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..6].copy_from_slice(&[kind, flags]);
    frame[6..8].copy_from_slice(&line.to_le_bytes());
    frame[8..12].copy_from_slice(&checksum.to_le_bytes());
    let own = crc32c::crc32c(&frame[..12]);
    frame[12..HEADER].copy_from_slice(&own.to_le_bytes());
    frame
}

thread_local! {
    /// What takes longer to make than to use.
    static PACKER: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Bytes as a zstd frame of that level.
pub fn packed(bytes: &[u8], level: i32) -> Option<Vec<u8>> {
    PACKER.with_borrow_mut(|packer| match packer {
        Some((of, packer)) if *of == level => packer.compress(bytes).ok(),
        _ => packer.insert((level, Compressor::new(level).ok()?)).1.compress(bytes).ok(),
    })
}

impl Header {
    /// Checks a header.
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Header> {
        let mut reader = Reader::new(bytes);
        let mut word = || reader.u32().unwrap_or_default();
        let (length, what, checksum, own) = (word() as usize, word(), word(), word());
        if own != crc32c::crc32c(&bytes[..12]) {
            return Err(corrupt("the checksum of a header is wrong"));
        }
        let [kind, flags, line @ ..] = what.to_le_bytes();
        if length > PAYLOAD_MAX || flags & !PACKED != 0 {
            return Err(corrupt(format!("a frame of {length} bytes with flags {flags}")));
        }
        Ok(Header { length, kind, line: u16::from_le_bytes(line), is_packed: flags & PACKED != 0, checksum })
    }

    /// Checks and unpacks the payload that came with this header.
    pub fn open(&self, payload: Vec<u8>) -> Result<Frame> {
        if crc32c::crc32c(&payload) != self.checksum {
            return Err(corrupt("the checksum of a payload is wrong"));
        }
        let payload = if self.is_packed { unpack(&payload)? } else { payload };
        Ok(Frame { kind: self.kind, line: self.line, payload })
    }
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let mut reader = Reader::new(packed);
    let length = reader.u32().unwrap_or(u32::MAX) as usize;
    if length > PAYLOAD_MAX {
        return Err(corrupt("a packed frame is too long"));
    }
    let bytes = UNPACKER.with_borrow_mut(|unpacker| match unpacker {
        Some(unpacker) => unpacker.decompress(reader.rest(), length),
        None => unpacker.insert(Decompressor::new()?).decompress(reader.rest(), length),
    });
    let bytes = bytes.map_err(|error| corrupt(format!("a packed frame: {error}")))?;
    if bytes.len() == length { Ok(bytes) } else { Err(corrupt("a packed frame holds less than it says")) }
}

fn name(reader: &mut Reader<'_>) -> Option<Name> {
    Name::parse(reader.text(NAME_MAX)?)
}

fn string(reader: &mut Reader<'_>) -> Option<String> {
    String::from_utf8(reader.text(TEXT_MAX)?.to_vec()).ok()
}

/// An exit code other than that of success.
fn failure(reader: &mut Reader<'_>) -> Option<Code> {
    Code::from_number(reader.byte()?).filter(|code| *code != Code::Done)
}

#[cfg(test)]
mod tests;
